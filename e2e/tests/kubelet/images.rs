//! The images of the pods: busybox and others of the catalogue, and two that only a kubelet has a use
//! for.

use std::fs;

use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::{Layer, Packing};
use crisp_e2e::image::{Image, busybox};
use crisp_e2e::node::Node;
use crisp_e2e::tools;
use serde_json::json;

/// The image that most have; the daemon has it already.
pub(crate) const BUSYBOX: &str = "registry.test/busybox:1";
/// Of the catalogue, pulled by the kubelet.
const CATALOGUE: [&str; 3] = ["web", "user-number", "user-name"];
/// Made here.
const OWN: [&str; 2] = ["health", "setuid"];

/// Pushes all but busybox.
pub(crate) fn push(node: &Node) {
    for name in CATALOGUE {
        node.registry.push(&node.net, name);
    }
    for (name, image) in OWN.into_iter().zip([health(), setuid()]) {
        let entry = Entry::from(&image);
        node.registry.push_as(&node.net, name, &entry);
    }
}

/// Removes them from the daemon.
pub(crate) fn forget(node: &Node) {
    let mut cri = node.cri();
    for name in CATALOGUE.iter().chain(&OWN) {
        cri.forget(name);
    }
}

/// A server that is healthy by the protocol of gRPC probes: HTTP/2 with a message of seven bytes (the
/// five that say its length, then `status: SERVING`) and the call's status behind it.
fn health() -> Image {
    let program = tools::tool("nginx");
    let config = "user root;\nworker_processes 1;\npid /tmp/nginx.pid;\ndaemon off;\n\
         error_log /dev/stderr notice;\nevents { worker_connections 64; }\n\
         http {\n access_log off;\n client_body_temp_path /tmp/body;\n\
         proxy_temp_path /tmp/proxy;\n fastcgi_temp_path /tmp/fastcgi;\n\
         uwsgi_temp_path /tmp/uwsgi;\n scgi_temp_path /tmp/scgi;\n\
         default_type application/grpc;\n server {\n  listen 80 http2;\n  root /www;\n\
         \x20 add_trailer grpc-status 0;\n  error_page 405 =200 $uri;\n }\n}\n";
    let serving = b"\0\0\0\0\x02\x08\x01";
    let mut layer = Layer::new()
        .file("usr/sbin/nginx", fs::read(&program).unwrap(), 0o755)
        .dir("var/lib/nginx", 0o755)
        .dir("var/log/nginx", 0o755)
        .file("etc/nginx/nginx.conf", config, 0o644)
        .file("www/grpc.health.v1.Health/Check", serving, 0o644);
    for library in busybox::libraries(program.to_str().unwrap()) {
        let content = fs::read(&library).unwrap();
        layer = layer.file(library.trim_start_matches('/'), content, 0o755);
    }
    let config = json!({"Entrypoint": ["/usr/sbin/nginx"], "Cmd": []});
    busybox::image().with(layer, Packing::Gzip).config(config)
}

/// A `cat` that reads as root whoever calls it; busybox gives that up by itself.
fn setuid() -> Image {
    let program = tools::tool("cat");
    let mut layer = Layer::new().file("bin/root-cat", fs::read(&program).unwrap(), 0o4755);
    for library in busybox::libraries(program.to_str().unwrap()) {
        let content = fs::read(&library).unwrap();
        layer = layer.file(library.trim_start_matches('/'), content, 0o755);
    }
    busybox::image().with(layer, Packing::Gzip)
}
