//! Every image that critest names, made from this machine's busybox and nginx.
//!
//! The names are compiled into critest, those of two images can be told otherwise: so the node's
//! `hosts.toml` leads the hosts in them to the test's registry.

use std::path::Path;

use crisp_e2e::image::Image;
use crisp_e2e::image::catalogue::Entry;
use crisp_e2e::image::layer::Layer;
use crisp_e2e::image::push::Registry;
use crisp_e2e::image::suites::{base, effective, nginx, pause, with};
use crisp_e2e::netns::Net;
use crisp_e2e::registry::{ADDRESS, write_hosts};
use serde_json::json;

/// The hosts in the names.
const HOSTS: [&str; 3] = ["registry.k8s.io", "gcr.io", "k8s.gcr.io"];
/// Where the project of critest keeps its own images.
const STAGING: &str = "k8s-staging-cri-tools";

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
