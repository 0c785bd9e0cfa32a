//! Every image that critest names, made from this machine's busybox and nginx.
//!
//! The names are compiled into critest, those of two images can be told otherwise: so the node's
//! `hosts.toml` leads the hosts in them to the test's registry.

use std::fs;
use std::path::Path;

use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::{Layer, Packing};
use crisp_e2e::image::push::Registry;
use crisp_e2e::image::{Image, busybox};
use crisp_e2e::netns::Net;
use crisp_e2e::registry::{ADDRESS, write_hosts};
use crisp_e2e::tools;
use serde_json::json;

/// The hosts in the names.
const HOSTS: [&str; 3] = ["registry.k8s.io", "gcr.io", "k8s.gcr.io"];
/// Where the project of critest keeps its own images.
const STAGING: &str = "k8s-staging-cri-tools";
/// Prints the user that it runs as, which its mode may have changed.
const EFFECTIVE: &str = r#"
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", (int)geteuid()); }
"#;

/// Pushes all images, and leads their names to them.
pub(crate) fn serve(net: &Net, certs: &Path, work: &Path) {
    for host in HOSTS {
        write_hosts(certs, host, &[ADDRESS]);
    }
    let all = all(work);
    net.run(|| {
        for (name, tag, image) in &all {
            let pushed = Registry::at(ADDRESS).push(name, tag, &Entry::from(image));
            pushed.unwrap_or_else(|error| panic!("push {name}:{tag}: {error:#}"));
        }
    });
}

/// Repository, tag and image.
fn all(work: &Path) -> Vec<(String, &'static str, Image)> {
    let base = base();
    let marked = |mark: &str| with(&base, Layer::new().file(mark, "", 0o644));
    let as_user = |user: &str| base.clone().config(json!({"User": user}));
    let mut all = vec![
        ("pause".to_owned(), "3.9", pause(work)),
        ("e2e-test-images/busybox".to_owned(), "1.29-2", base.clone()),
        ("e2e-test-images/nginx".to_owned(), "1.14-2", nginx(80)),
        ("e2e-test-images/httpd".to_owned(), "2.4.39-4", httpd(&base)),
        (
            "e2e-test-images/nonewprivs".to_owned(),
            "1.3",
            effective(&base, work),
        ),
    ];
    let mut staged = |name: &str, tag, image| all.push((format!("{STAGING}/{name}"), tag, image));
    staged("hostnet-nginx-amd64", "latest", nginx(12003));
    staged("test-image-user-uid", "latest", as_user("1002"));
    staged("test-image-user-username", "latest", as_user("www-data"));
    staged("test-image-user-uid-group", "latest", as_user("1003:1004"));
    let named = as_user("www-data:1004");
    staged("test-image-user-username-group", "latest", named);
    staged("test-image-predefined-group", "latest", predefined(&base));
    for name in ["1", "2", "3", "latest", "digest"] {
        let name = format!("test-image-{name}");
        staged(&name, "latest", marked(&name));
    }
    for tag in ["1", "2", "3"] {
        staged("test-image-tags", tag, marked("tags"));
    }
    for tag in ["test", "all"] {
        staged("test-image-tag", tag, marked(tag));
    }
    all
}

/// Busybox with two scripts for what Debian's has no applets for.
fn base() -> Image {
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

fn with(image: &Image, layer: Layer) -> Image {
    image.clone().with(layer, Packing::Gzip)
}

/// It sleeps until it is told to end; critest looks at its names alone.
fn pause(work: &Path) -> Image {
    let source = "#include <signal.h>\n#include <unistd.h>\n\
                  int main(void) { for (;;) pause(); }\n";
    let layer = Layer::new().file("pause", compiled(work, "pause", source), 0o755);
    Image::new(
        layer,
        json!({"Entrypoint": ["/pause"], "User": "65535:65535"}),
    )
}

fn effective(base: &Image, work: &Path) -> Image {
    let program = compiled(work, "effective", EFFECTIVE);
    let layer = Layer::new().file("effective", program, 0o4755);
    with(base, layer).config(json!({"Entrypoint": ["/effective"], "Cmd": []}))
}

fn compiled(work: &Path, name: &str, source: &str) -> Vec<u8> {
    let (program, text) = (work.join(name), work.join(format!("{name}.c")));
    fs::write(&text, source).unwrap();
    let [program_arg, text] = [&program, &text].map(|path| path.to_str().unwrap());
    drop(tools::run("gcc", &["-static", "-o", program_arg, text]));
    fs::read(program).unwrap()
}

/// The web server itself: critest looks at the title of its process, its log and its file of the
/// pid.
fn nginx(port: u16) -> Image {
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
    for library in busybox::libraries(program.to_str().unwrap()) {
        let content = fs::read(&library).unwrap();
        layer = layer.file(library.trim_start_matches('/'), content, 0o755);
    }
    with(&base(), layer).config(json!({
        "Entrypoint": ["/usr/sbin/nginx"],
        "Cmd": [],
        "ExposedPorts": {"80/tcp": {}},
        "StopSignal": "SIGQUIT",
    }))
}

fn httpd(base: &Image) -> Image {
    let page = Layer::new().file("www/index.html", "it works\n", 0o644);
    let serve = "echo httpd -D FOREGROUND; exec httpd -f -p 80 -h /www";
    with(base, page).config(json!({"Cmd": ["sh", "-c", serve], "ExposedPorts": {"80/tcp": {}}}))
}

/// A user with a group that the image's own file gives it.
fn predefined(base: &Image) -> Image {
    let users = "root:x:0:0:root:/root:/bin/sh\n\
                 default-user:x:1000:1000::/home/default-user:/bin/sh\n";
    let groups = "root:x:0:\ndefault-user:x:1000:\n\
                  group-defined-in-image:x:50000:default-user\n";
    let layer = Layer::new()
        .file("etc/passwd", users, 0o644)
        .file("etc/group", groups, 0o644)
        .dir("home/default-user", 0o755)
        .owned(1000, 1000);
    with(base, layer).config(json!({"User": "1000"}))
}
