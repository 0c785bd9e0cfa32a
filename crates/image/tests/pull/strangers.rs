//! Registries at their own pace: they keep their own images back, and nothing else.

use std::time::Duration;

use crisp_image::{Config, Error, Images};
use crisp_registry::LeastRate;

use crate::maker::{Image, Packing, image, simple, tar};
use crate::server::Answer;
use crate::{Registry, config, empties, open, remains};

/// An image of `count` layers that no other image has, each some hundred kB.
fn layers(mark: &str, count: usize) -> Image {
    let layer = |n: usize| {
        (
            Packing::Plain,
            tar(&[(mark, &n.to_string().repeat(200_000))]),
        )
    };
    image(&(0..count).map(layer).collect::<Vec<_>>())
}

/// Lets each layer of an image stand still after some bytes.
fn stall(registry: &Registry, image: &Image) {
    for (digest, _) in &image.blobs[1..] {
        registry.spoil(digest.as_str(), |answer: Answer| answer.stall(20_000));
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if is_so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_layers_that_stand_still_keep_no_other_image_back() {
    let (slow, healthy) = (Registry::start().await, Registry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let mut pulls = Vec::new();
    for n in 0..4 {
        let made = layers(&format!("m{n}"), 4);
        let name = slow.push(&made, &format!("a/b{n}:t"));
        stall(&slow, &made);
        let images = images.clone();
        pulls.push(tokio::spawn(async move { images.pull(&name, None).await }));
    }
    // Three of the host's, and one that each pull has of its own.
    until("the slow layers are asked for", || {
        slow.server.count("/blobs/") >= 4 + 3 + 3
    })
    .await;
    let elsewhere = healthy.push(&layers("e", 4), "a/c:t");
    images.pull(&elsewhere, None).await.unwrap();
    let beside = slow.push(&layers("f", 4), "a/c:t");
    images.pull(&beside, None).await.unwrap();
    assert!(pulls.iter().all(|pull| !pull.is_finished()));
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_pull_without_callers_ends_and_leaves_nothing() {
    let slow = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = Images::open(Config {
        grace: Duration::from_millis(20),
        ..config(dir.path())
    });
    let images = images.unwrap();
    let made = layers("m", 6);
    let name = slow.push(&made, "a/b:t");
    stall(&slow, &made);
    let pull = tokio::spawn({
        let images = images.clone();
        let name = name.clone();
        async move { images.pull(&name, None).await }
    });
    until("layers are unpacked", || !remains(dir.path())[3].is_empty()).await;
    pull.abort();
    empties_soon(dir.path()).await;
    for (digest, body) in &made.blobs[1..] {
        slow.spoil(digest.as_str(), |_| Answer::new(200).body(body.clone()));
    }
    images.pull(&name, None).await.unwrap();
}

async fn empties_soon(root: &std::path::Path) {
    until("the names of the pull go", || {
        remains(root)[..3].iter().all(Vec::is_empty)
    })
    .await;
    empties(root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_registry_that_drips_is_left() {
    let slow = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.registry.timeouts.least = LeastRate {
        bytes: 100_000,
        window: Duration::from_millis(100),
    };
    let images = Images::open(config).unwrap();
    let made = layers("m", 1);
    let name = slow.push(&made, "a/b:t");
    let layer = made.blobs[1].0.as_str();
    slow.spoil(layer, |answer| answer.drip(10, Duration::from_millis(1)));
    let error = images.pull(&name, None).await.unwrap_err();
    let slow_error = crisp_registry::Error::TooSlow {
        host: String::new(),
        reference: String::new(),
        why: String::new(),
    };
    let same = |error: &crisp_registry::Error| {
        std::mem::discriminant(error) == std::mem::discriminant(&slow_error)
    };
    assert!(
        matches!(&error, Error::Registry(error) if same(error)),
        "{error}"
    );
    assert!(error.to_string().contains(&slow.server.address), "{error}");
    assert!(error.to_string().contains("bytes in 100ms"), "{error}");
    empties(dir.path()).await;
    slow.push(&simple("x"), "a/c:t");
    let next = format!("{}/a/c:t", slow.server.address);
    images.pull(&next, None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_mirror_with_a_wrong_layer_is_passed_over() {
    let (mirror, upstream) = (Registry::start().await, Registry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\n",
        upstream.server.address, mirror.server.address
    );
    let hosts = dir.path().join("certs.d/r.example");
    std::fs::create_dir_all(&hosts).unwrap();
    std::fs::write(hosts.join("hosts.toml"), text).unwrap();
    let same_length = |mut answer: Answer| {
        answer.body[70_000] ^= 1;
        answer
    };
    let html = |mut answer: Answer| {
        let length = answer.body.len();
        answer.body = "<html>".repeat(length).into();
        answer.body.truncate(length);
        answer
    };
    let wrong: [fn(Answer) -> Answer; 5] = [
        same_length,
        html,
        |answer| answer.body("short"),
        |answer| answer.cut(1000),
        |answer| {
            let length = (answer.body.len() + 5).to_string();
            answer.header("content-length", length)
        },
    ];
    for (n, wrong) in wrong.into_iter().enumerate() {
        let made = layers(&format!("w{n}"), 2);
        mirror.push(&made, &format!("a/b{n}:t"));
        upstream.push(&made, &format!("a/b{n}:t"));
        mirror.with_ns(&format!("a/b{n}"), "r.example");
        mirror.spoil(made.blobs[2].0.as_str(), wrong);
        upstream.with_ns(&format!("a/b{n}"), "r.example");
        images
            .pull(&format!("r.example/a/b{n}:t"), None)
            .await
            .unwrap();
        let asked = mirror.server.count(made.blobs[2].0.as_str());
        assert!(asked > 0, "case {n} did not ask the mirror");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_a_layer_is_not_awaited_from_anothers_host() {
    let (slow, healthy) = (Registry::start().await, Registry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = layers("m", 3);
    let slow_name = slow.push(&made, "a/b:t");
    stall(&slow, &made);
    let waiting = tokio::spawn({
        let (images, name) = (images.clone(), slow_name.clone());
        async move { images.pull(&name, None).await }
    });
    until("the slow layers are asked for", || {
        slow.server.count("/blobs/") > 3
    })
    .await;
    let name = healthy.push(&made, "a/b:t");
    images.pull(&name, None).await.unwrap();
    // A layer that came from elsewhere is there for the pull that waits, too.
    assert_eq!(waiting.await.unwrap().unwrap(), made.id);
    until("half layers go", || remains(dir.path())[3].is_empty()).await;
    assert_eq!(remains(dir.path())[2].len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn privileged_the_failure_of_another_pull_is_not_shared() {
    let (broken, healthy) = (Registry::start().await, Registry::start().await);
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let made = layers("m", 2);
    let one = broken.push(&made, "a/b:t");
    for (digest, _) in &made.blobs[1..] {
        broken.spoil(digest.as_str(), |_| Answer::new(403));
    }
    // The same host gives the same layers under another name.
    let two = broken.push(&made, "a/c:t");
    let three = healthy.push(&made, "a/b:t");
    let pulls = [&one, &two, &three].map(|name| images.pull(name, None));
    let [one, two, three] = futures::future::join_all(pulls).await.try_into().unwrap();
    drop::<Result<_, Error>>(one);
    assert_eq!(two.unwrap(), made.id);
    assert_eq!(three.unwrap(), made.id);
}
