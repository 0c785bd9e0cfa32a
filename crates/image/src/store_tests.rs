//! The order of memory and disk: what happens to the store while a commit is on its way to the
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::image_config;
use crate::record::{Image, ImageRecord};

fn store(root: &std::path::Path) -> Arc<Store> {
    let timeouts = crisp_registry::Timeouts::default();
    let config = Config {
        root: root.to_owned(),
        registry: crisp_registry::Config {
            hosts_dir: root.join("certs.d"),
            docker_config: None,
            user_agent: "crisp-test/1".to_owned(),
            timeouts,
        },
        max_parallel_layers: 1,
        grace: crate::config::GRACE,
        keep_free_percent: 0,
        pinned: Vec::new(),
    };
    crate::open::open(config).unwrap()
}

fn unpacked(store: &Store, number: u8) -> LayerId {
    let layer = LayerId {
        chain: Digest::sha256([number; 32]),
        generation: number.into(),
    };
    store.layer_unpacked(layer.clone(), 1, 1);
    layer
}

fn container(number: u8) -> ContainerId {
    ContainerId::from_entropy([number; 32])
}

fn image_of(layer: &LayerId) -> Edit {
    let record = ImageRecord {
        manifest: Digest::sha256([91; 32]),
        documents: BTreeSet::new(),
        layers: vec![layer.chain.clone()],
        size: 1,
        annotations: BTreeMap::new(),
    };
    let parsed = image_config::parse(br#"{"rootfs":{}}"#).unwrap();
    Edit::PutImage(Digest::sha256([90; 32]), Arc::new(Image { record, parsed }))
}

fn failed() -> Error {
    Error::Interrupted("write")
}

#[tokio::test]
async fn no_lease_is_granted_of_what_a_sweep_takes_away() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (idle, used) = (unpacked(&store, 1), unpacked(&store, 2));
    let chains = |layer: &LayerId| [layer.chain.clone()];
    assert!(
        store
            .lease(&container(1), &chains(&used))
            .unwrap()
            .is_some()
    );
    let mut swept = Vec::new();
    let while_on_its_way = |_: &[Edit]| {
        assert_eq!(store.lease(&container(2), &chains(&idle))?, None);
        assert!(store.lease(&container(2), &chains(&used))?.is_some());
        Ok(())
    };
    let plan = |catalog: &Catalog| drop_idle(catalog, &mut swept);
    store.commit_by(plan, while_on_its_way).unwrap();
    assert_eq!(swept, [idle]);
}

#[tokio::test]
async fn what_could_not_be_written_is_not_lost() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let layer = unpacked(&store, 1);
    let mut swept = Vec::new();
    let plan = |catalog: &Catalog| drop_idle(catalog, &mut swept);
    assert!(store.commit_by(plan, |_| Err(failed())).is_err());
    assert_eq!(store.catalog().idle_layers(), std::slice::from_ref(&layer));
    let name = |_: &Catalog| vec![Edit::PutName("r.io/a:1".to_owned(), layer.chain.clone())];
    let early = |_: &[Edit]| {
        assert_eq!(store.catalog().target("r.io/a:1"), None, "seen too early");
        Err(failed())
    };
    assert!(store.commit_by(name, early).is_err());
    assert_eq!(store.catalog().target("r.io/a:1"), None);
}

#[tokio::test]
async fn a_failed_lease_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (first, second) = (unpacked(&store, 1), unpacked(&store, 2));
    let lease = |layer: &LayerId| store.lease(&container(1), std::slice::from_ref(&layer.chain));
    lease(&first).unwrap();
    let leases = dir.path().join("leases");
    std::fs::rename(&leases, dir.path().join("away")).unwrap();
    assert!(lease(&second).is_err());
    assert_eq!(store.catalog().idle_layers(), [second]);
    std::fs::rename(dir.path().join("away"), &leases).unwrap();
}

#[tokio::test]
async fn a_sync_marks_only_the_generation_that_it_saw() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let old = unpacked(&store, 1);
    assert_eq!(store.catalog().unsynced(), [], "it is of no image yet");
    let image = image_of(&old);
    store.catalog().apply(&[image]);
    let seen = store.catalog().unsynced();
    assert_eq!(seen.len(), 1);
    let newer = LayerId {
        generation: 9,
        ..old.clone()
    };
    store.layer_unpacked(newer, 1, 1);
    store.commit(|catalog| synced(catalog, seen)).unwrap();
    let layer = store.catalog().layer(&old.chain).cloned().unwrap();
    assert_eq!(layer.unsynced_boot.as_ref(), Some(&store.boot));
    store.promote().unwrap();
    let layer = store.catalog().layer(&old.chain).cloned().unwrap();
    assert_eq!((layer.generation, layer.unsynced_boot), (9, None));
}

/// A pull's claim waits for no tree to be deleted.
#[tokio::test]
async fn trees_are_deleted_when_the_store_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let layer = unpacked(&store, 1);
    let ingest = dir.path().join("snapshots/ingest");
    let tree = dir
        .path()
        .join("snapshots/layers")
        .join(format!("{}.1", layer.chain.hex()));
    std::fs::create_dir_all(tree.join("fs")).unwrap();
    let swept = Arc::clone(&store);
    blocking("sweep", move || swept.sweep()).await.unwrap();
    assert!(!tree.exists());
    drop(store.claim(vec![layer.chain]).await);
    tokio::time::timeout(Duration::from_secs(10), async {
        while std::fs::read_dir(&ingest).unwrap().count() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}
