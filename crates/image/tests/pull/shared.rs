//! One pull however many ask.

use std::time::Duration;

use crate::maker::{Packing, image, index, simple, tar};
use crate::server::Answer;
use crate::{Registry, open};

#[tokio::test(flavor = "multi_thread")]
async fn privileged_many_ask_and_each_blob_is_fetched_once() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let layer = |n: usize| (Packing::Gzip, tar(&[("a", &"x".repeat(100_000 * n))]));
    let made = index(image(&[layer(1), layer(2), layer(3), layer(4)]));
    let one = registry.push(&made, "a/b:t");
    let two = registry.push(&made, "a/c:u");
    let pulls = (0..40).map(|n| {
        let (images, name) = (
            images.clone(),
            if n % 2 == 0 { one.clone() } else { two.clone() },
        );
        tokio::spawn(async move { images.pull(&name, None).await.unwrap() })
    });
    for pull in futures::future::join_all(pulls).await {
        assert_eq!(pull.unwrap(), made.id);
    }
    for (digest, _) in &made.blobs {
        assert_eq!(registry.server.count(digest.as_str()), 1, "{digest}");
    }
    let found = images.find(made.id.as_str()).unwrap().unwrap();
    assert_eq!(found.repo_tags, [one, two]);
    assert_eq!(found.repo_digests.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_images_share_layers_while_both_are_pulled() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let base = (Packing::Zstd, tar(&[("base", &"b".repeat(200_000))]));
    let names: Vec<String> = (0..6)
        .map(|n| {
            let top = (Packing::Gzip, tar(&[("top", &n.to_string())]));
            registry.push(&image(&[base.clone(), top]), &format!("a/b{n}:t"))
        })
        .collect();
    let pulls = names.iter().map(|name| images.pull(name, None));
    for pull in futures::future::join_all(pulls).await {
        pull.unwrap();
    }
    assert_eq!(images.list().len(), 6);
    assert_eq!(crate::remains(dir.path())[2].len(), 7);
    for name in &names[1..] {
        images.remove(name).await.unwrap();
    }
    assert_eq!(crate::remains(dir.path())[2].len(), 2);
}

#[tokio::test]
async fn privileged_a_pull_ends_without_its_caller() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = simple("x");
    let name = registry.push(&made, "a/b:t");
    let hurried = tokio::time::timeout(Duration::from_micros(1), images.pull(&name, None)).await;
    assert!(hurried.is_err());
    for _ in 0..500 {
        if images.find(&name).unwrap().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    unreachable!("the pull did not go on");
}

#[tokio::test]
async fn privileged_a_second_pull_fetches_no_blob() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = index(simple("x"));
    let name = registry.push(&made, "a/b:t");
    images.pull(&name, None).await.unwrap();
    let before = registry.server.seen().len();
    images.pull(&name, None).await.unwrap();
    // The tag is looked up over TLS first, as for any loopback registry without configuration.
    let news = registry.server.seen().split_off(before);
    assert!(
        news.iter()
            .all(|seen| seen.target.ends_with("/manifests/t")),
        "{news:?}"
    );
}

#[tokio::test]
async fn privileged_a_tag_is_pulled_again_where_only_get_works() {
    for status in [400, 401, 403, 404, 405, 429, 500, 501, 503] {
        let made = simple("x");
        let registry = Registry::start_with(move |seen, answer| match seen.method.as_str() {
            "HEAD" => Answer::new(status),
            _ => answer,
        })
        .await;
        let dir = tempfile::tempdir().unwrap();
        let images = open(dir.path());
        let name = registry.push(&made, "a/b:t");
        for _ in 0..2 {
            assert_eq!(images.pull(&name, None).await.unwrap(), made.id, "{status}");
        }
    }
}
