//! The base of all images here: Debian's busybox with the libraries that it needs, taken from
//! this machine.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::Image;
use super::layer::Layer;
use crate::tools;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
default-user:x:1000:1000::/home:/bin/sh
";
const GROUP: &str = "\
root:x:0:
daemon:x:1:
www-data:x:33:
extra:x:50000:default-user,www-data
nogroup:x:65534:
default-user:x:1000:
";

/// The base layer.
///
/// `busybox` and not `busybox-static`: Debian's static one runs `ls` from within its own `sh`, so
/// what a mount hides from the file system it still has.
#[must_use]
pub fn layer() -> Layer {
    let program = tools::tool("busybox");
    let mut layer = Layer::new();
    for dir in [
        "bin", "dev", "etc", "home", "proc", "root", "run", "sys", "usr/bin", "var/www",
    ] {
        layer = layer.dir(dir, 0o755);
    }
    layer = layer
        .dir("tmp", 0o1777)
        .file("bin/busybox", fs::read(&program).unwrap(), 0o755);
    for library in libraries(program.to_str().unwrap()) {
        layer = layer.file(
            library.trim_start_matches('/'),
            fs::read(&library).unwrap(),
            0o755,
        );
    }
    for applet in tools::run("busybox", &["--list"]).lines() {
        if !matches!(applet, "busybox" | "linuxrc" | "init") {
            layer = layer.hard_link(&format!("bin/{applet}"), "bin/busybox");
        }
    }
    layer
        .file("etc/passwd", PASSWD, 0o644)
        .file("etc/group", GROUP, 0o644)
        .file("etc/shadow", "root:*:10933:0:99999:7:::\n", 0o600)
}

/// Shared libraries and the loader, as the loader finds them.
#[must_use]
pub fn libraries(program: &str) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = tools::succeeded("ldd", &output);
    let words = text.lines().filter_map(|line| {
        let path = line.split_once("=> ").map_or(line, |(_, path)| path);
        path.split_whitespace().next()
    });
    words
        .filter(|path| path.starts_with('/'))
        .map(str::to_owned)
        .collect()
}

/// The base image.
#[must_use]
pub fn image() -> Image {
    Image::new(layer(), config())
}

fn config() -> Value {
    json!({
        "Cmd": ["sh"],
        "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
        "Labels": {"maker": "crisp"},
    })
}
