//! Tests with registries that do wrong: each fault is told, and leaves nothing behind.

use crisp_image::Error;

use crate::maker::{
    OCI_INDEX, OCI_MANIFEST, Packing, image, index, simple, tar, with_config, without_platforms,
};
use crate::server::Answer;
use crate::{Registry, empties, open};

/// Pulls an image after `spoil`; the error must contain `expected` and nothing may be left.
async fn check(image: crate::maker::Image, expected: &str, spoil: impl Fn(&Registry)) {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let name = registry.push(&image, "a/b:t");
    spoil(&registry);
    let error = images.pull(&name, None).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(expected), "want {expected:?}: {text}");
    assert_eq!(images.list(), []);
    empties(dir.path()).await;
}

fn three() -> crate::maker::Image {
    let layer = |n: usize| (Packing::Gzip, tar(&[("a", &"x".repeat(100_000 * n))]));
    image(&[layer(1), layer(2), layer(3)])
}

#[tokio::test]
async fn privileged_spoilt_blobs_leave_nothing() {
    let made = three();
    let part = |n: usize| format!("/blobs/{}", made.blobs[n].0);
    let (config, layer) = (part(0), part(2));
    check(made.clone(), "not found", |r| {
        r.spoil(&layer, |_| Answer::new(404))
    })
    .await;
    check(made.clone(), "denies", |r| {
        r.spoil(&layer, |_| Answer::new(403))
    })
    .await;
    check(made.clone(), "unavailable", |r| {
        r.spoil(&layer, |a| a.cut(9))
    })
    .await;
    check(made.clone(), "bytes instead of", |r| {
        r.spoil(&layer, |a| a.body("short"))
    })
    .await;
    check(made.clone(), "not what was asked for", |r| {
        r.spoil(&config, |a| a.body("{}"))
    })
    .await;
    let flip = |mut answer: Answer| {
        let last = answer.body.len() - 1;
        answer.body[last] ^= 1;
        answer
    };
    check(made.clone(), "layer", |r| r.spoil(&layer, flip)).await;
}

#[tokio::test]
async fn privileged_layers_must_be_what_the_config_says() {
    let layers = [(Packing::Gzip, tar(&[("a", "1")]))];
    let other = crate::maker::sha256(b"other");
    let config = |ids: &str| {
        format!(r#"{{"os":"linux","architecture":"amd64","rootfs":{{"diff_ids":[{ids}]}}}}"#)
            .into_bytes()
    };
    let wrong = with_config(&config(&format!("\"{other}\"")), &layers);
    check(wrong, "the config says", |_| {}).await;
    check(
        with_config(&config(""), &layers),
        "0 diff_ids for 1 layers",
        |_| {},
    )
    .await;
    check(with_config(b"{}", &layers), "not an image config", |_| {}).await;
    let foreign = br#"{"os":"linux","architecture":"s390x","rootfs":{}}"#;
    let unnamed = without_platforms(index(with_config(foreign, &[])));
    check(unnamed, "is not for linux/", |_| {}).await;
    let garbage = [(Packing::Gzip, vec![7u8; 4096])];
    check(image(&garbage), "", |_| {}).await;
}

#[tokio::test]
async fn an_index_must_lead_to_an_image() {
    let made = index(simple("x"));
    let child = format!("/manifests/{}", made.documents[0].0);
    let both = r#"{"config":{},"layers":[],"manifests":[]}"#;
    check(made.clone(), "not what was asked for", |r| {
        r.spoil(&child, |a| a.body("{}"))
    })
    .await;
    check(made.clone(), "not found", |r| {
        r.spoil(&child, |_| Answer::new(404))
    })
    .await;
    check(made.clone(), "unusable", |r| {
        r.spoil("/manifests/t", |a| a.body(both))
    })
    .await;
    let empty = format!(r#"{{"mediaType":"{OCI_INDEX}","manifests":[]}}"#);
    check(made.clone(), "is not for linux/", |r| {
        r.spoil("/manifests/t", |a| a.body(empty.clone()));
    })
    .await;
    let artifact = made.documents[0].2.clone();
    let artifact = String::from_utf8(artifact).unwrap();
    let artifact = artifact.replace("image.config.v1+json", "wasm.config.v0+json");
    check(made, "not a container image", |r| {
        r.spoil("/manifests/t", |_| {
            Answer::new(200)
                .header("content-type", OCI_MANIFEST)
                .body(artifact.clone())
        });
    })
    .await;
}

#[tokio::test]
async fn bad_names_touch_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    for name in ["", "A", "r.io/a@sha256:1", "a b"] {
        let error = images.pull(name, None).await.unwrap_err();
        assert!(matches!(error, Error::Reference(_)), "{name}: {error:?}");
    }
    let error = images.pull("127.0.0.1:1/a:b", None).await.unwrap_err();
    assert!(matches!(error, Error::Registry(_)), "{error:?}");
    empties(dir.path()).await;
}

#[tokio::test]
async fn privileged_a_failed_pull_takes_nothing_from_others() {
    let registry = Registry::start().await;
    let dir = tempfile::tempdir().unwrap();
    let images = open(dir.path());
    let base = (Packing::Gzip, tar(&[("base", "1")]));
    let good = image(std::slice::from_ref(&base));
    let bad = image(&[base, (Packing::Gzip, tar(&[("more", "2")]))]);
    let name = registry.push(&good, "a/good:t");
    images.pull(&name, None).await.unwrap();
    let failing = registry.push(&bad, "a/bad:t");
    registry.spoil(&format!("/a/bad/blobs/{}", bad.blobs[2].0), |_| {
        Answer::new(404)
    });
    assert!(images.pull(&failing, None).await.is_err());
    let found = images.find(&name).unwrap().unwrap();
    assert!(images.lookup(&found, "base", 10).await.unwrap().is_some());
    assert_eq!(images.list().len(), 1);
    assert_eq!(crate::remains(dir.path())[2].len(), 1);
}
