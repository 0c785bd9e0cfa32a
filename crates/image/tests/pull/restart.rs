//! What a daemon finds when it comes back.

use std::path::Path;
use std::time::Duration;

use crisp_image::Images;
use redb::TableDefinition;

use crate::maker::{sha256, simple};
use crate::{Registry, assert_empty, names, open, remains};

const LAYERS: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("layers");

async fn pulled(root: &Path) -> (Registry, Images, String) {
    let registry = Registry::start().await;
    let images = open(root);
    let name = registry.push(&simple("x"), "a/b:t");
    images.pull(&name, None).await.unwrap();
    (registry, images, name)
}

/// Waits until the layers are known to be on the disk; closes the store.
async fn settle(images: Images) {
    tokio::time::sleep(Duration::from_millis(800)).await;
    drop(images);
}

/// Rewrites the layer records as if another boot had unpacked them.
fn age(root: &Path, boot: &str) {
    let database = redb::Database::create(root.join("images.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut table = transaction.open_table(LAYERS).unwrap();
        let rows: Vec<(String, Vec<u8>)> = redb::ReadableTable::iter(&table)
            .unwrap()
            .map(|row| row.unwrap())
            .map(|(key, value)| (key.value().to_owned(), value.value().to_vec()))
            .collect();
        assert!(!rows.is_empty());
        for (key, value) in rows {
            let text = String::from_utf8(value).unwrap();
            let text = text.replace(
                "\"unsynced_boot\":null",
                &format!("\"unsynced_boot\":\"{boot}\""),
            );
            table.insert(key.as_str(), text.as_bytes()).unwrap();
        }
    }
    transaction.commit().unwrap();
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
    settle(images).await;
    // Synced layers survive any boot.
    let images = open(dir.path());
    assert_eq!(images.list().len(), 1);
    drop(images);
    age(dir.path(), "another-boot");
    let images = open(dir.path());
    assert_eq!(images.list(), []);
    assert_empty(dir.path());
    images.pull(&name, None).await.unwrap();
    assert_eq!(images.list().len(), 1);
}

#[tokio::test]
async fn privileged_leftovers_of_a_crash_go() {
    let dir = tempfile::tempdir().unwrap();
    let (_registry, images, _) = pulled(dir.path()).await;
    let before = remains(dir.path());
    settle(images).await;
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
    // Half-unpacked layers go in the background: they may be large, and nobody needs them.
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
        settle(images).await;
        std::fs::remove_dir_all(dir.path().join(part)).unwrap();
        let images = open(dir.path());
        assert_eq!(images.list(), [], "{part}");
        assert_empty(dir.path());
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
