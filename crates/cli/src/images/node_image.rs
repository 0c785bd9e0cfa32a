//! The image of nodes has no programs: nodes see `/usr` of this machine, on which Crisp's programs
//! were built or installed. The image is the directories and links that lead there.

use std::path::{Path, PathBuf};

use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::architecture::architecture;
use super::blob::{Blob, Content, Image};
use crate::failure::{Context as _, Failure, Result};

/// The host of its name, which no network knows.
pub const HOST: &str = "crisp.internal";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Places that are mounted over, or that programs want.
const DIRS: [&str; 17] = [
    "dev",
    "etc",
    "etc/ssl",
    "etc/pki",
    "etc/ca-certificates",
    "etc/alternatives",
    "node",
    "opt",
    "opt/crisp",
    "opt/kubernetes",
    "proc",
    "root",
    "run",
    "sys",
    "usr",
    "var",
    "var/lib",
];
/// Where old paths lead on a machine with all programs below `/usr`.
const OLD: [&str; 5] = ["bin", "lib", "lib32", "lib64", "sbin"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// Makes the image for nodes on this machine.
pub fn node_image() -> Result<Image> {
    let links = OLD.iter().filter_map(|name| {
        let target = std::fs::read_link(Path::new("/").join(name)).ok()?;
        Some((*name, target))
    });
    let links: Vec<(&str, PathBuf)> = links.collect();
    if !links.iter().any(|(name, _)| *name == "bin") {
        let text = "/bin: it is no link to usr/bin, as on machines that nodes can be made from";
        return Err(Failure::new(text).remedy("merge /bin, /sbin and /lib into /usr (usrmerge)"));
    }
    let step = || "image of nodes: make it".to_owned();
    let layer = layer(&links).context(step)?;
    image(layer).context(step)
}

fn layer(links: &[(&str, PathBuf)]) -> std::io::Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    let header = |kind, mode, size| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for name in DIRS {
        let mut header = header(EntryType::Directory, 0o755, 0);
        tar.append_data(&mut header, name, std::io::empty())?;
    }
    let mut tmp = header(EntryType::Directory, 0o1777, 0);
    tar.append_data(&mut tmp, "tmp", std::io::empty())?;
    let mut log = header(EntryType::Directory, 0o755, 0);
    tar.append_data(&mut log, "var/log", std::io::empty())?;
    for (name, target) in links {
        tar.append_link(&mut header(EntryType::Symlink, 0o777, 0), name, target)?;
    }
    for (name, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
        let mut header = header(EntryType::Regular, 0o644, text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes())?;
    }
    tar.into_inner()
}

fn image(layer: Vec<u8>) -> std::io::Result<Image> {
    let blob = |media_type: &str, bytes: Vec<u8>| {
        let content = Content::of(bytes);
        Ok::<_, std::io::Error>(Blob {
            digest: content.digest()?,
            media_type: media_type.to_owned(),
            content,
        })
    };
    let layer = blob(LAYER, layer)?;
    let config = json!({
        "os": "linux",
        "architecture": architecture(),
        "config": {"WorkingDir": "/root"},
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let config = blob(CONFIG, config.to_string().into_bytes())?;
    let descriptor = |blob: &Blob| json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.content.size()});
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(&config),
        "layers": [descriptor(&layer)],
    });
    let manifest = blob(MANIFEST, manifest.to_string().into_bytes())?;
    let digits: String = manifest.digest.chars().skip(7).take(12).collect();
    Ok(Image {
        // Another version of this program may make another image.
        name: format!("{HOST}/node:{digits}"),
        digest: manifest.digest.clone(),
        blobs: vec![config, layer, manifest],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_machine_makes_the_same_image() {
        let links = [("bin", PathBuf::from("usr/bin"))];
        let make = || image(layer(&links).unwrap()).unwrap();
        assert_eq!(make().name, make().name);
        let other = image(layer(&[]).unwrap()).unwrap();
        assert_ne!(make().name, other.name);
    }
}
