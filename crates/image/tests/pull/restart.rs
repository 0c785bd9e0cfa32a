//! What a daemon finds when it comes back.

use std::path::Path;
use std::time::Duration;

use crisp_image::Images;
use redb::TableDefinition;

use crate::maker::{sha256, simple};
use crate::{Registry, empties, names, open, remains};

const LAYERS: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("layers");

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
        drop(images.take());
        if boots(root, None).iter().all(serde_json::Value::is_null) {
            return;
        }
        images = Some(open(root));
    }
    unreachable!("the layers are never synced");
}

/// The boots that layers wait to be synced since, after replacing them by `boot` if one is given.
fn boots(root: &Path, boot: Option<&str>) -> Vec<serde_json::Value> {
    let path = root.join("images.redb");
    let database = loop {
        match redb::Database::create(&path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                std::thread::sleep(Duration::from_millis(10));
            }
            opened => break opened.unwrap(),
        }
    };
    let transaction = database.begin_write().unwrap();
    let mut boots = Vec::new();
    {
        let mut table = transaction.open_table(LAYERS).unwrap();
        let rows: Vec<(String, Vec<u8>)> = redb::ReadableTable::iter(&table)
            .unwrap()
            .map(|row| row.unwrap())
            .map(|(key, value)| (key.value().to_owned(), value.value().to_vec()))
            .collect();
        for (key, value) in rows {
            let mut layer: serde_json::Value = serde_json::from_slice(&value).unwrap();
            if let Some(boot) = boot {
                layer["unsynced_boot"] = boot.into();
            }
            boots.push(layer["unsynced_boot"].clone());
            table
                .insert(key.as_str(), layer.to_string().as_bytes())
                .unwrap();
        }
    }
    transaction.commit().unwrap();
    assert!(!boots.is_empty());
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
    drop(images);
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
