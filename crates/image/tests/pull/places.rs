//! Something that is no file in the place of a file of the store, and no directory in the place of
//! a directory: the daemon starts, the image is pulled again, and containers are made of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_image::Images;

use crate::maker::{Packing, image, tar};
use crate::{Registry, close, container, names, open};

/// A name, and what it puts in a free place.
type Wrong = (&'static str, fn(&Path));

const WRONG: [Wrong; 4] = [
    ("a directory", |path| {
        fs::create_dir_all(path.join("a/b")).unwrap();
    }),
    ("a file", |path| fs::write(path, "x").unwrap()),
    ("a pipe", |path| {
        let kind = rustix::fs::FileType::Fifo;
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, 0).unwrap();
    }),
    ("a link", |path| {
        std::os::unix::fs::symlink("/proc/version", path).unwrap();
    }),
];

/// A directory of the store may be kept elsewhere: its name may be a link, which stays.
const MOVABLE: [&str; 8] = [
    "content",
    "content/blobs",
    "content/blobs/sha256",
    "leases",
    "snapshots",
    "snapshots/layers",
    "snapshots/containers",
    "snapshots/ingest",
];

/// Every file and directory of a store that has one image, below its root.
fn places(root: &Path) -> Vec<String> {
    let below = |dir: &str| -> Vec<String> {
        let names = names(&root.join(dir)).into_iter();
        names.map(|name| format!("{dir}/{name}")).collect()
    };
    let mut places: Vec<String> = MOVABLE.map(str::to_owned).into();
    places.extend(["images.db", "images.next", "images.lock", "images.redb"].map(str::to_owned));
    places.extend(["images.damaged", "leases.damaged"].map(str::to_owned));
    places.extend(["content/ingest", "content/ingest/0", "snapshots/empty"].map(str::to_owned));
    places.extend(below("content/blobs/sha256"));
    for layer in below("snapshots/layers") {
        places.extend(["fs", "usage", "unsettled"].map(|name| format!("{layer}/{name}")));
        places.push(layer);
    }
    places
}

/// Two images on one layer, the second of which is pulled only after the harm.
struct Names {
    first: String,
    second: String,
}

fn push(registry: &Registry) -> Names {
    // Directories that only a file implies wait to be settled.
    let base = || (Packing::Gzip, tar(&[("etc/motd", "hello"), ("a/b/c", "1")]));
    let more = (Packing::Gzip, tar(&[("etc/more", "2")]));
    Names {
        first: registry.push(&image(&[base()]), "a/first:t"),
        second: registry.push(&image(&[base(), more]), "a/second:t"),
    }
}

async fn work(images: &Images, name: &str, number: u8, step: &str) {
    let pulled = images.pull(name, None).await;
    assert!(pulled.is_ok(), "{step}: {pulled:?}");
    let image = images.find(name).unwrap().unwrap();
    let motd = images.lookup(&image, "etc/motd", 99).await.unwrap();
    assert_eq!(motd.as_deref(), Some(b"hello".as_slice()), "{step}");
    assert!(
        !images.raw_config(&image).await.unwrap().is_empty(),
        "{step}"
    );
    let snapshot = images.prepare(&container(number), &image).await.unwrap();
    assert!(snapshot.lower.iter().all(|layer| layer.is_dir()), "{step}");
    images.release(&container(number)).await.unwrap();
}

fn put(root: &Path, place: &str, make: fn(&Path)) -> PathBuf {
    let path = root.join(place);
    crisp_sys::owned::remove(&path).unwrap();
    make(&path);
    path
}

#[tokio::test]
async fn privileged_nothing_in_a_wrong_place_lasts() {
    let registry = Registry::start().await;
    let names = push(&registry);
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    work(&images, &names.first, 1, "whole").await;
    let all = places(dir.path());
    assert!(all.len() > 18, "{all:?}");
    close(images, dir.path());
    for (what, make) in WRONG {
        for place in &all {
            // The tree of a layer may be any directory.
            let is_right = match what {
                "a link" => MOVABLE.contains(&place.as_str()),
                "a directory" => place.ends_with("/fs"),
                _ => false,
            };
            if is_right {
                continue;
            }
            let step = format!("{what} at {place}");
            let lab = tempfile::tempdir().unwrap();
            let images = open(lab.path());
            work(&images, &names.first, 1, "whole").await;
            close(images, lab.path());
            put(lab.path(), place, make);
            let whole = async {
                let images = open(lab.path());
                work(&images, &names.first, 2, &step).await;
                work(&images, &names.second, 3, &step).await;
                images.remove(&names.first).await.unwrap();
                images.remove(&names.second).await.unwrap();
                close(images, lab.path());
            };
            let in_time = tokio::time::timeout(Duration::from_secs(60), whole).await;
            assert!(in_time.is_ok(), "{step}");
        }
    }
}

/// The same while the daemon lives.
#[tokio::test]
async fn privileged_nor_does_it_while_the_store_is_open() {
    let registry = Registry::start().await;
    let names = push(&registry);
    for (what, make) in WRONG {
        for name in ["unsettled", "usage"] {
            let step = format!("{what} at {name}");
            let lab = tempfile::tempdir().unwrap();
            let images = open(lab.path());
            work(&images, &names.first, 1, "whole").await;
            let layer = crate::names(&lab.path().join("snapshots/layers")).remove(0);
            put(
                lab.path(),
                &format!("snapshots/layers/{layer}/{name}"),
                make,
            );
            work(&images, &names.second, 2, &step).await;
            work(&images, &names.first, 3, &step).await;
            put(lab.path(), "images.next", make);
            images.remove(&names.first).await.unwrap();
            assert_eq!(images.list().len(), 1, "{step}");
        }
    }
}
