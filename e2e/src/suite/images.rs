//! The images that the specs name, made from this machine's programs and agnhost, which is the suite's
//! own and of its version.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::image::catalogue::Entry;
use crate::image::layer::{Layer, Packing};
use crate::image::suites::{base, compiled, effective, nginx, pause, programs, with};
use crate::image::{Image, push};
use crate::netns::Net;
use crate::registry::Registry;
use crate::tools;

/// The host in the names.
pub const HOST: &str = "registry.k8s.io";
/// Busybox' shell says what the suite expects of a shell, and Debian's drops variables whose names no
/// shell can use, as `data-1`, which the suite sets. Then bash takes its place.
const SHELL: &str = r#"
#include <ctype.h>
#include <string.h>
#include <unistd.h>
extern char **environ;
static int usable(const char *variable) {
    const char *c = variable;
    while (isalnum((unsigned char)*c) || *c == '_') c++;
    return *c == '=' && c > variable && !isdigit((unsigned char)*variable);
}
int main(int count, char **words) {
    const char *shell = "/bin/busybox";
    for (char **variable = environ; *variable; variable++)
        if (!usable(*variable)) shell = "/bin/bash";
    execv(shell, words);
    return 127;
}
"#;
/// The time of day with its milliseconds, as busybox' own says it, which Debian's lacks.
const NMETER: &str = r#"
#include <stdio.h>
#include <time.h>
int main(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct tm *day = gmtime(&now.tv_sec);
    printf("%02d:%02d:%02d.%03ld\n", day->tm_hour, day->tm_min, day->tm_sec, now.tv_nsec / 1000000);
}
"#;
const USERS: &str = "root:x:0:0:root:/root:/bin/sh\n\
                     www-data:x:33:33:www-data:/var/www:/bin/false\n\
                     user-defined-in-image:x:1000:1000::/home:/bin/sh\n\
                     nobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUPS: &str = "root:x:0:\n\
                      www-data:x:33:\n\
                      user-defined-in-image:x:1000:\n\
                      group-defined-in-image:x:50000:user-defined-in-image\n\
                      nogroup:x:65534:\n";

/// Makes all images but those of these repositories, each of them one that the suite's program names, and
/// serves them on an address.
#[must_use]
#[track_caller]
pub fn serve(net: &Net, work: &Path, address: &str, program: &Path, without: &[&str]) -> Registry {
    let named = tools::succeeded(
        "--list-images",
        &Command::new(program).arg("--list-images").output().unwrap(),
    );
    let named: Vec<&str> = named.lines().collect();
    let mut all = all(work, program.parent().unwrap());
    all.retain(|(name, _, _)| !without.contains(name));
    for (name, tag, _) in &all {
        let name = format!("{HOST}/{name}:{tag}");
        assert!(named.contains(&name.as_str()), "{name} is in no spec");
    }
    let registry = Registry::start_at(net, work, address);
    let (_, port) = address.rsplit_once(':').unwrap();
    let pusher = push::Registry::at(&format!("127.0.0.1:{port}"));
    net.run(|| {
        for (name, tag, image) in &all {
            let pushed = pusher.push(name, tag, &Entry::from(image));
            pushed.unwrap_or_else(|error| panic!("push {name}:{tag}: {error:#}"));
        }
    });
    registry
}

/// Repository, tag and image. The work directory takes what is compiled; `kubernetes` has agnhost.
fn all(work: &Path, kubernetes: &Path) -> Vec<(&'static str, &'static str, Image)> {
    let shell = shell(work);
    let resolver = with(&shell, programs(resolving(), &["dig", "getent"]));
    let agnhost = agnhost(&resolver, kubernetes);
    let former = with(&agnhost, Layer::new().file("etc/former", "", 0o644));
    vec![
        ("pause", "3.10.2", pause(work)),
        ("e2e-test-images/agnhost", "2.66.1", agnhost.clone()),
        ("e2e-test-images/agnhost", "2.55", former),
        ("e2e-test-images/kitten", "1.8", pet(&agnhost, "kitten")),
        ("e2e-test-images/nautilus", "1.8", pet(&agnhost, "nautilus")),
        ("e2e-test-images/glibc-dns-testing", "2.1.1", resolver),
        ("e2e-test-images/nginx", "1.27.0-2", nginx(80)),
        (
            "e2e-test-images/nginx",
            "1.28.0-2",
            with(&nginx(80), Layer::new().file("etc/newer", "", 0o644)),
        ),
        ("e2e-test-images/nonewprivs", "1.4", effective(&shell, work)),
        (
            "e2e-test-images/nonroot",
            "1.5",
            shell.clone().config(json!({"User": "1234"})),
        ),
        (
            "e2e-test-images/sample-apiserver",
            "1.29.2",
            serving(&shell, "sample-apiserver", kubernetes),
        ),
        // Of another version than its tag says: the cluster's own.
        ("etcd", "3.7.0-0", serving(&shell, "etcd", kubernetes)),
        ("e2e-test-images/busybox", "1.37.0-2", shell),
    ]
}

/// Busybox with [`SHELL`].
fn shell(work: &Path) -> Image {
    let shell = programs(Layer::new(), &["bash"])
        .symlink("bin/bash", "../usr/bin/bash")
        .file("bin/nmeter", compiled(work, "nmeter", NMETER), 0o755)
        .file("bin/sh", compiled(work, "sh", SHELL), 0o755);
    with(&base(), shell)
}

/// The C library looks for names in files before it asks.
fn resolving() -> Layer {
    Layer::new().file("etc/nsswitch.conf", "hosts: files dns\n", 0o644)
}

fn agnhost(base: &Image, kubernetes: &Path) -> Image {
    let read = |name: &str| fs::read(kubernetes.join(name)).unwrap();
    let tools = programs(Layer::new(), &["curl", "ip", "nc"])
        .file("etc/passwd", USERS, 0o644)
        .file("etc/group", GROUPS, 0o644)
        // A spec that mounts the image looks for these words.
        .file(
            "etc/os-release",
            "PRETTY_NAME=\"Debian's busybox in the place of Alpine Linux\"\n",
            0o644,
        )
        .dir("uploads", 0o755)
        .file("localhost.crt", read("localhost.crt"), 0o644)
        .file("localhost.key", read("localhost.key"), 0o644);
    let program = Layer::new()
        .file("agnhost", read("agnhost"), 0o755)
        .symlink("agnhost-2", "agnhost");
    // To pack that takes longer than to send it.
    with(base, tools)
        .with(program, Packing::Plain)
        .config(json!({"Entrypoint": ["/agnhost"], "Cmd": ["pause"]}))
}

/// A program of a cluster, at the two places where specs and its own command line look for it.
fn serving(base: &Image, name: &str, kubernetes: &Path) -> Image {
    let path = format!("usr/local/bin/{name}");
    let program = Layer::new()
        .file(&path, fs::read(kubernetes.join(name)).unwrap(), 0o755)
        .symlink(name, &path);
    base.clone()
        .with(program, Packing::Plain)
        .config(json!({"Entrypoint": [format!("/{name}")], "Cmd": []}))
}

/// A web server that says which it is.
fn pet(agnhost: &Image, name: &str) -> Image {
    let picture = format!("{name}.jpg");
    let data = json!({"image": picture}).to_string();
    let files = Layer::new()
        .file("data.json", data, 0o644)
        .file(&picture, name, 0o644);
    with(agnhost, files).config(json!({"Cmd": ["test-webserver"]}))
}
