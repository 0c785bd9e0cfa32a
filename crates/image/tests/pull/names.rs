//! Tests of an image's names, its content, and its removal.

use crate::maker::{Packing, image, index, simple, tar};
use crate::{Registry, container, empties, names, open, remains};

#[tokio::test]
async fn privileged_pull_of_every_packing() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let layers = [
        (Packing::Plain, tar(&[("etc/a", "1"), ("etc/b", "1")])),
        (Packing::Gzip, tar(&[("etc/b", "2")])),
        (Packing::Zstd, tar(&[("etc/c", "3")])),
    ];
    let oci = index(image(&layers));
    let docker = image(&[(Packing::DockerGzip, tar(&[("etc/d", "4")]))]);
    let name = registry.push(&oci, "a/oci:1");
    assert_eq!(images.pull(&name, None).await.unwrap(), oci.id);
    let name = registry.push(&docker, "a/docker:1");
    assert_eq!(images.pull(&name, None).await.unwrap(), docker.id);

    let found = images.find(oci.id.hex()).unwrap().unwrap();
    assert_eq!(found.layers.len(), 3);
    assert_eq!(found.config.user, "7");
    assert_eq!(found.config.cmd, ["/run"]);
    assert_eq!(
        (found.os.as_str(), found.architecture.as_str()),
        ("linux", "amd64")
    );
    let size: usize = oci.blobs.iter().map(|(_, body)| body.len()).sum();
    assert_eq!(found.size, size as u64);
    let host = &registry.server.address;
    assert_eq!(found.repo_tags, [format!("{host}/a/oci:1")]);
    assert_eq!(found.repo_digests, [format!("{host}/a/oci@{}", oci.root)]);
    for (path, content) in [("/etc/a", "1"), ("etc/b", "2"), ("/etc/../etc/c", "3")] {
        let read = images.lookup(&found, path, 10).await.unwrap();
        assert_eq!(read.as_deref(), Some(content.as_bytes()), "{path}");
    }
    assert_eq!(images.lookup(&found, "/etc/none", 10).await.unwrap(), None);
    assert_eq!(images.raw_config(&found).await.unwrap(), oci.blobs[0].1);
    let info = images.fs_info();
    assert!(
        info.used_bytes > 0 && info.inodes > 0 && info.mountpoint.is_dir(),
        "{info:?}"
    );
}

#[tokio::test]
async fn privileged_a_tag_moves_and_removal_takes_all() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let (one, two) = (simple("one"), simple("two"));
    let name = registry.push(&one, "a/b:t");
    images.pull(&name, None).await.unwrap();
    images
        .pull(&registry.push(&one, "a/c:t"), None)
        .await
        .unwrap();
    registry.push(&two, "a/b:t");
    images.pull(&name, None).await.unwrap();

    let old = images.find(one.id.as_str()).unwrap().unwrap();
    assert_eq!(
        old.repo_tags,
        [format!("{}/a/c:t", registry.server.address)]
    );
    assert_eq!(old.repo_digests.len(), 2);
    assert_eq!(images.find(&name).unwrap().unwrap().id, two.id);
    let by_digest = format!("{}/a/b@{}", registry.server.address, one.root);
    assert_eq!(images.find(&by_digest).unwrap().unwrap().id, one.id);

    images.remove(&by_digest).await.unwrap();
    assert_eq!(images.list().len(), 1);
    images.remove(&by_digest).await.unwrap();
    images.remove(&two.id.hex()[..12]).await.unwrap();
    assert_eq!(images.list(), []);
    empties(dir.path()).await;
}

#[tokio::test]
async fn privileged_layers_stay_below_containers() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = simple("x");
    let name = registry.push(&made, "a/b:t");
    images.pull(&name, None).await.unwrap();
    let found = images.find(&name).unwrap().unwrap();
    let snapshot = images.prepare(&container(1), &found).await.unwrap();
    assert_eq!(
        std::fs::read(snapshot.lower[0].join("etc/motd")).unwrap(),
        b"x"
    );
    images.remove(&name).await.unwrap();
    assert!(snapshot.lower[0].join("etc/motd").exists());
    assert!(images.prepare(&container(2), &found).await.is_ok());
    assert_eq!(images.snapshots(), [container(1), container(2)]);

    drop(images);
    let images = open(dir.path());
    assert!(snapshot.lower[0].join("etc/motd").exists());
    std::fs::write(snapshot.upper.join("new"), "12345").unwrap();
    assert!(images.container_usage(&container(1)).await.unwrap().bytes > 0);
    images.release(&container(1)).await.unwrap();
    assert!(snapshot.lower[0].exists());
    images.release(&container(2)).await.unwrap();
    images.release(&container(2)).await.unwrap();
    assert!(!snapshot.lower[0].exists());
    empties(dir.path()).await;
    assert!(images.snapshots().is_empty());
    assert!(names(&dir.path().join("leases")).is_empty());
    assert!(images.prepare(&container(1), &found).await.is_err());
    assert_eq!(remains(dir.path())[2], Vec::<String>::new());
}

#[tokio::test]
async fn privileged_layers_stay_for_containers_that_show_them() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let mut found = Vec::new();
    for (text, name) in [("x", "a/b:t"), ("y", "a/c:t")] {
        let name = registry.push(&simple(text), name);
        images.pull(&name, None).await.unwrap();
        found.push(images.find(&name).unwrap().unwrap());
    }
    let shown = &found[1..];
    let has = async |path| images.has_content_at(&shown[0], path).await.unwrap();
    assert!(has("etc").await && has("/etc/motd").await && !has("etc/none").await);
    let of = container(1);
    let prepared = images.prepare_with_views(&of, &found[0], shown);
    let (snapshot, views) = prepared.await.unwrap();
    let read = |dir: &std::path::Path| std::fs::read(dir.join("etc/motd")).unwrap();
    assert_eq!(
        (read(&snapshot.lower[0]), read(&views[0][0])),
        ("x".into(), "y".into())
    );
    assert!(views[0].len() > 1, "overlayfs takes no fewer: {views:?}");

    images.remove(shown[0].id.as_str()).await.unwrap();
    assert!(views[0][0].exists());
    drop(images);
    let images = open(dir.path());
    assert!(views[0][0].exists(), "a lease is read back");
    images.release(&container(1)).await.unwrap();
    assert!(snapshot.lower[0].exists() && !views[0][0].exists());
    let of = container(2);
    let gone = images.prepare_with_views(&of, &found[0], shown).await;
    let gone = gone.unwrap_err().to_string();
    assert!(gone.contains(shown[0].id.as_str()), "{gone}");
    assert_eq!(images.snapshots(), []);
}

#[tokio::test]
async fn privileged_a_volume_gets_the_images_content() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = image(&[(Packing::Gzip, tar(&[("data/x/y", "1"), ("other", "2")]))]);
    let name = registry.push(&made, "a/b:t");
    images.pull(&name, None).await.unwrap();
    let found = images.find(&name).unwrap().unwrap();
    let target = tempfile::tempdir().unwrap();
    images
        .volume_content(&found, "/data", (target.path(), &std::sync::Arc::default()))
        .await
        .unwrap();
    images
        .volume_content(
            &found,
            "/absent",
            (target.path(), &std::sync::Arc::default()),
        )
        .await
        .unwrap();
    assert_eq!(std::fs::read(target.path().join("x/y")).unwrap(), b"1");
    assert_eq!(names(target.path()), ["x"]);
}
