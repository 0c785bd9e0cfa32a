//! Tests of a second start over the files of the first.

use std::path::Path;
use std::time::Duration;

use crisp_image::Images;

use crate::maker::{sha256, simple};
use crate::{Registry, close, container, empties, names, open, remains};

async fn pulled(root: &Path) -> (Registry, Images, String) {
    let registry = Registry::start().await;
    let images = open(root);
    let name = registry.push(&simple("x"), "a/b:t");
    images.pull(&name, None).await.unwrap();
    (registry, images, name)
}

/// Closes the store once its layers are known to be on the disk.
async fn settle(images: Images, root: &Path) {
    let mut images = Some(images);
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(700)).await;
        images.take().into_iter().for_each(|i| close(i, root));
        if boots(root, None).iter().all(serde_json::Value::is_null) {
            return;
        }
        images = Some(open(root));
    }
    unreachable!("the layers are never synced");
}

/// The boots that layers wait to be synced since, after replacing them by `boot` if one is given.
fn boots(root: &Path, boot: Option<&str>) -> Vec<serde_json::Value> {
    let path = root.join("images.db");
    let bytes = std::fs::read_to_string(&path).unwrap();
    let (_, body) = bytes.split_once('\n').unwrap();
    let mut saved: serde_json::Value = serde_json::from_str(body).unwrap();
    let layers = saved["layers"].as_object_mut().unwrap();
    assert!(!layers.is_empty());
    let mut boots = Vec::new();
    for layer in layers.values_mut() {
        if let Some(boot) = boot {
            layer["unsynced_boot"] = boot.into();
        }
        boots.push(layer["unsynced_boot"].clone());
    }
    let body = saved.to_string();
    let sum = sha256(body.as_bytes());
    std::fs::write(&path, format!("{sum}\n{body}")).unwrap();
    boots
}

#[tokio::test]
async fn privileged_images_outlive_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, images, name) = pulled(dir.path()).await;
    let before = images.list();
    drop(images);
    let images = open(dir.path());
    assert_eq!(images.list(), before);
    let found = images.find(&name).unwrap().unwrap();
    assert!(
        images
            .lookup(&found, "etc/motd", 9)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn privileged_layers_of_a_power_cut_are_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, images, name) = pulled(dir.path()).await;
    settle(images, dir.path()).await;
    // Synced layers survive any boot.
    let images = open(dir.path());
    assert_eq!(images.list().len(), 1);
    close(images, dir.path());
    boots(dir.path(), Some("another-boot"));
    let images = open(dir.path());
    assert_eq!(images.list(), []);
    empties(dir.path()).await;
    images.pull(&name, None).await.unwrap();
    assert_eq!(images.list().len(), 1);
}

#[tokio::test]
async fn privileged_leftovers_of_a_crash_go() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, images, _) = pulled(dir.path()).await;
    let before = remains(dir.path());
    settle(images, dir.path()).await;
    let stray = sha256(b"stray");
    std::fs::create_dir_all(
        dir.path()
            .join("snapshots/layers")
            .join(stray.hex())
            .join("fs"),
    )
    .unwrap();
    std::fs::create_dir_all(dir.path().join("snapshots/ingest/77/fs")).unwrap();
    std::fs::write(dir.path().join("content/ingest/9"), "half").unwrap();
    std::fs::write(
        dir.path().join("content/blobs/sha256").join(stray.hex()),
        "stray",
    )
    .unwrap();
    std::fs::write(dir.path().join("leases/.half"), "[").unwrap();
    let images = open(dir.path());
    let layers = names(&dir.path().join("snapshots/layers"));
    assert!(!layers.contains(&stray.hex().to_owned()), "it has no name");
    // Trees go in the background: they may be large, and nobody needs them.
    for _ in 0..500 {
        if remains(dir.path()) == before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(remains(dir.path()), before);
    assert!(names(&dir.path().join("leases")).is_empty());
    assert_eq!(images.list().len(), 1);
}

#[tokio::test]
async fn privileged_an_image_without_its_parts_goes() {
    for part in ["snapshots/layers", "content/blobs/sha256"] {
        let dir = tempfile::tempdir().unwrap();
        let (_registry, images, name) = pulled(dir.path()).await;
        settle(images, dir.path()).await;
        std::fs::remove_dir_all(dir.path().join(part)).unwrap();
        let images = open(dir.path());
        assert_eq!(images.list(), [], "{part}");
        empties(dir.path()).await;
        images.pull(&name, None).await.unwrap();
    }
}

#[tokio::test]
async fn one_daemon_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let config = crate::config(dir.path());
    let second = tokio::task::spawn_blocking(move || Images::open(config))
        .await
        .unwrap();
    let text = second.unwrap_err().to_string();
    assert!(text.contains("in use by another daemon"), "{text}");
    drop(images);
}

/// A layer that a power cut may have damaged stays below the container that stands on it; whoever
/// comes later gets one of their own.
#[tokio::test]
async fn privileged_a_distrusted_layer_is_for_nobody_new() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, images, name) = pulled(dir.path()).await;
    let image = images.find(&name).unwrap().unwrap();
    let old = images.prepare(&container(1), &image).await.unwrap();
    settle(images, dir.path()).await;
    boots(dir.path(), Some("another-boot"));
    // The power cut left a hole.
    let motd = old.lower[0].join("etc/motd");
    std::fs::write(&motd, "").unwrap();
    let images = open(dir.path());
    assert_eq!(images.list(), []);
    assert!(motd.exists(), "it was taken from below a container");
    assert!(images.prepare(&container(2), &image).await.is_err());
    images.pull(&name, None).await.unwrap();
    let image = images.find(&name).unwrap().unwrap();
    let new = images.prepare(&container(2), &image).await.unwrap();
    assert_ne!(new.lower, old.lower);
    let content = std::fs::read(new.lower[0].join("etc/motd")).unwrap();
    assert!(!content.is_empty(), "the hole is there for the next one");
    // The sync of the new one says nothing about the old one.
    settle(images, dir.path()).await;
    boots(dir.path(), None);
    let images = open(dir.path());
    assert_eq!(images.list().len(), 1);
    assert!(motd.exists());
    images.release(&container(1)).await.unwrap();
    assert!(!motd.exists());
    assert!(new.lower[0].exists());
}

#[tokio::test]
async fn privileged_files_of_a_removed_container_go_soon_or_with_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, mut images, name) = pulled(dir.path()).await;
    let nameless = || names(&dir.path().join("snapshots/ingest")).len();
    for is_closed in [false, true] {
        let image = images.find(&name).unwrap().unwrap();
        images.prepare(&container(1), &image).await.unwrap();
        images.release(&container(1)).await.unwrap();
        assert_eq!(images.snapshots(), []);
        if is_closed {
            close(images, dir.path());
            let left = nameless();
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(nameless(), left, "its place may be another's by now");
            images = open(dir.path());
        }
        for _ in 0..500 {
            if nameless() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(nameless(), 0);
    }
}
