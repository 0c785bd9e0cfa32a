//! Files of the store that were harmed while the daemon was away: it starts each time, and what
//! containers stand on stays.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crisp_image::Images;

use crate::maker::simple;
use crate::{Registry, close, container, names, open};

/// A name, and what it does to a file.
type Harm = (&'static str, fn(&Path));

/// The harm that a file can come to.
const HARMS: [Harm; 13] = [
    ("gone", |path| fs::remove_file(path).unwrap()),
    ("empty", |path| fs::write(path, "").unwrap()),
    ("one byte", |path| fs::write(path, "s").unwrap()),
    ("cut in half", |path| {
        change(path, |b| b.truncate(b.len() / 2))
    }),
    ("one byte less", |path| {
        change(path, |b| b.truncate(b.len() - 1))
    }),
    ("one byte more", |path| change(path, |b| b.push(b' '))),
    ("zeroed", |path| change(path, |b| b.fill(0))),
    ("its head zeroed", |path| change(path, |b| b[..40].fill(0))),
    ("its tail zeroed", |path| {
        change(path, |b| {
            let half = b.len() / 2;
            b[half..].fill(0);
        })
    }),
    ("a bit of the sum flipped", |path| {
        change(path, |b| b[20] ^= 1)
    }),
    ("a bit of the content flipped", |path| {
        change(path, |b| b[100] ^= 1)
    }),
    ("another file", |path| {
        fs::write(path, [0x7f; 70_000]).unwrap()
    }),
    ("a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
        fs::write(path.join("x"), "x").unwrap();
    }),
];

fn change(path: &Path, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    how(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A store with one image, and a container that stands on it.
struct Stood {
    dir: tempfile::TempDir,
    images: Images,
    /// The layer that the container needs.
    below: PathBuf,
}

async fn stand_on(name: &str) -> Stood {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    images.pull(name, None).await.unwrap();
    let image = images.find(name).unwrap().unwrap();
    let snapshot = images.prepare(&container(1), &image).await.unwrap();
    let below = snapshot.lower[0].clone();
    Stood { dir, images, below }
}

async fn check(images: Images, root: &Path, name: &str, harm: &str) -> Images {
    let image = images.find(name).unwrap();
    let image = match image {
        Some(image) => image,
        None => {
            images.pull(name, None).await.unwrap();
            images.find(name).unwrap().unwrap()
        }
    };
    let motd = images.lookup(&image, "etc/motd", 99).await.unwrap();
    assert!(motd.is_some_and(|motd| !motd.is_empty()), "{harm}");
    let mode = fs::metadata(root.join("images.db")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o600, "{harm}");
    images
}

#[tokio::test]
async fn privileged_a_harmed_database_is_set_aside() {
    let registry = Registry::start().await;
    let name = registry.push(&simple("x"), "a/b:t");
    for (harm, apply) in HARMS {
        let Stood { dir, images, below } = stand_on(&name).await;
        close(images, dir.path());
        apply(&dir.path().join("images.db"));
        let images = open(dir.path());
        assert_eq!(images.list(), [], "{harm}");
        let kept = dir.path().join("images.damaged").exists();
        assert_eq!(kept, harm != "gone", "{harm}");
        assert!(below.join("etc/motd").exists(), "{harm}");
        let images = check(images, dir.path(), &name, harm).await;
        images.release(&container(1)).await.unwrap();
        assert!(!below.exists(), "{harm}");
        drop(images);
        assert_eq!(open(dir.path()).list().len(), 1, "{harm}");
    }
}

#[tokio::test]
async fn privileged_a_harmed_lease_takes_nothing_away() {
    let registry = Registry::start().await;
    let name = registry.push(&simple("x"), "a/b:t");
    for (harm, apply) in HARMS {
        let Stood { dir, images, below } = stand_on(&name).await;
        images.remove(&name).await.unwrap();
        drop(images);
        let lease = dir.path().join("leases").join(container(1).as_str());
        apply(&lease);
        for _ in 0..2 {
            let images = open(dir.path());
            assert!(below.join("etc/motd").exists(), "{harm}");
            drop(check(images, dir.path(), &name, harm).await);
        }
        let images = open(dir.path());
        images.remove(&name).await.unwrap();
        images.release(&container(1)).await.unwrap();
        assert!(!below.exists(), "{harm}");
        assert!(names(&dir.path().join("leases")).is_empty(), "{harm}");
        assert!(names(&dir.path().join("snapshots/layers")).is_empty());
    }
}
