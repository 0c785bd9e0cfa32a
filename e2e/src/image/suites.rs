//! Images that the suites of others want, made from this machine's programs.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::layer::{Layer, Packing};
use super::{Image, busybox};
use crate::tools;

/// Prints the user that it runs as, which its mode may have changed.
const EFFECTIVE: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", (int)geteuid()); }
"#;

/// Sleeps until it is told to end: the first process of a container ends by no signal without a handler.
const SLEEP: &str = r"
#include <signal.h>
#include <unistd.h>
static void end(int number) { _exit(0); }
int main(void) { signal(SIGTERM, end); signal(SIGINT, end); for (;;) pause(); }
";

/// Busybox with two scripts for what Debian's has no applets for.
#[must_use]
pub fn base() -> Image {
    let pgrep = "#!/bin/sh\nfound=1\nfor dir in /proc/[0-9]*; do\n\
                 read -r comm 2>/dev/null <\"$dir/comm\" || continue\n\
                 [ \"$comm\" = \"$1\" ] || continue\necho \"${dir#/proc/}\"\nfound=0\ndone\n\
                 exit \"$found\"\n";
    let scripts = Layer::new()
        .file("bin/ipcs", "#!/bin/sh\nexec cat /proc/sysvipc/shm\n", 0o755)
        .file("bin/pgrep", pgrep, 0o755)
        .dir("mnt", 0o755)
        .dir("var/spool", 0o755)
        .symlink("var/run", "../run");
    with(&busybox::image(), scripts)
}

/// A layer on top of an image.
#[must_use]
pub fn with(image: &Image, layer: Layer) -> Image {
    image.clone().with(layer, Packing::Gzip)
}

/// Adds programs of this machine with the libraries that they need, each at its path.
#[must_use]
pub fn programs(mut layer: Layer, names: &[&str]) -> Layer {
    for name in names {
        let program = tools::tool(name);
        let path = program.to_str().unwrap().trim_start_matches('/');
        layer = layer.file(path, fs::read(&program).unwrap(), 0o755);
        layer = libraries(layer, &program);
    }
    layer
}

fn libraries(mut layer: Layer, program: &Path) -> Layer {
    for library in busybox::libraries(program.to_str().unwrap()) {
        let content = fs::read(&library).unwrap();
        layer = layer.file(library.trim_start_matches('/'), content, 0o755);
    }
    layer
}

/// It sleeps until it is told to end. The work directory takes what is compiled.
#[must_use]
pub fn pause(work: &Path) -> Image {
    let layer = Layer::new().file("pause", compiled(work, "pause", SLEEP), 0o755);
    Image::new(
        layer,
        json!({"Entrypoint": ["/pause"], "User": "65535:65535"}),
    )
}

/// It prints the user that it runs as, which its mode has changed unless that was forbidden.
#[must_use]
pub fn effective(base: &Image, work: &Path) -> Image {
    let program = compiled(work, "effective", EFFECTIVE);
    let layer = Layer::new().file("effective", program, 0o4755);
    with(base, layer).config(json!({"Entrypoint": ["/effective"], "Cmd": []}))
}

/// A program without libraries, from its source in C.
#[must_use]
pub fn compiled(work: &Path, name: &str, source: &str) -> Vec<u8> {
    let (program, text) = (work.join(name), work.join(format!("{name}.c")));
    fs::write(&text, source).unwrap();
    let [program_arg, text] = [&program, &text].map(|path| path.to_str().unwrap());
    drop(tools::run("gcc", &["-static", "-o", program_arg, text]));
    fs::read(program).unwrap()
}

/// The web server itself: suites look at the title of its process, its log and its file of the pid.
#[must_use]
pub fn nginx(port: u16) -> Image {
    let program = tools::tool("nginx");
    let config = format!(
        "user www-data;\nworker_processes 1;\npid /var/run/nginx.pid;\ndaemon off;\n\
         error_log /dev/stderr notice;\nevents {{ worker_connections 64; }}\n\
         http {{\n access_log /dev/stdout;\n client_body_temp_path /tmp/body;\n\
         proxy_temp_path /tmp/proxy;\n fastcgi_temp_path /tmp/fastcgi;\n\
         uwsgi_temp_path /tmp/uwsgi;\n scgi_temp_path /tmp/scgi;\n\
         server {{ listen {port}; location / {{ root /usr/share/nginx/html; }} }}\n}}\n"
    );
    let mut layer = Layer::new()
        .file("usr/sbin/nginx", fs::read(&program).unwrap(), 0o755)
        .dir("var/lib/nginx", 0o755)
        .symlink("var/log/nginx/access.log", "/dev/stdout")
        .symlink("var/log/nginx/error.log", "/dev/stderr")
        .file("etc/nginx/nginx.conf", config, 0o644)
        .file(
            "usr/share/nginx/html/index.html",
            "served by nginx\n",
            0o644,
        );
    layer = libraries(layer, &program);
    with(&base(), layer).config(json!({
        "Entrypoint": ["/usr/sbin/nginx"],
        "Cmd": [],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }))
}
