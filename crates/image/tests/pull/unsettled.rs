//! Layers that say something only above each other, pulled as images that share them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::maker::{Packing, image, tar};
use crate::{Registry, container, open};

/// A layer of directories with these modes and owners.
fn dirs(dirs: &[(&str, u32, u64)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, mode, owner) in dirs {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        tar.append_data(&mut header, path, std::io::empty())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

fn attributes(path: &Path) -> (u32, u32) {
    let stat = fs::metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.uid())
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_layers_are_settled_above_those_below_them() {
    let registry = Registry::start().await;
    let root = tempfile::tempdir().unwrap();
    let images = open(root.path());
    let base = |mode| (Packing::Gzip, dirs(&[("tmp", mode, 0), ("app", 0o700, 7)]));
    let files = (
        Packing::Gzip,
        tar(&[("tmp/x", "x"), ("app/x", "x"), ("app/.wh.never", "")]),
    );
    // The same layer above two others is two layers, and above the same one it is shared.
    let mut images_made = Vec::new();
    for (name, mode, top) in [
        ("sticky", 0o1777, "1"),
        ("shared", 0o1777, "2"),
        ("other", 0o711, "1"),
    ] {
        let top = (Packing::Plain, tar(&[("top", top)]));
        let made = image(&[base(mode), files.clone(), top]);
        let name = registry.push(&made, &format!("a/{name}:t"));
        images_made.push((name, mode));
    }
    let pulls = images_made.iter().map(|(name, _)| images.pull(name, None));
    for pulled in futures::future::join_all(pulls).await {
        pulled.unwrap();
    }
    for (n, (name, mode)) in (1..).zip(&images_made) {
        let image = images.find(name).unwrap().unwrap();
        let snapshot = images.prepare(&container(n), &image).await.unwrap();
        let layer = &snapshot.lower[1];
        assert_eq!(attributes(&layer.join("tmp")), (*mode, 0), "{name}");
        assert_eq!(attributes(&layer.join("app")), (0o700, 7), "{name}");
        assert!(!layer.join("app/never").is_symlink(), "{name}");
        let entries = fs::read_dir(layer.join("app")).unwrap().count();
        assert_eq!(entries, 1, "{name}: a deletion of nothing is listed");
        images.release(&container(n)).await.unwrap();
    }
    assert_eq!(crate::remains(root.path())[2].len(), 4 + 3);
}
