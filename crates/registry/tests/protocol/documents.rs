//! Manifests: verified, bounded, of one kind.

use crisp_model::ImageRef;
use crisp_registry::{Error, MAX_MANIFEST};

use crate::server::{Answer, Server};
use crate::{MANIFEST, MANIFEST_TYPE, client, image, sha256};

fn manifest() -> Answer {
    Answer::new(200)
        .header("content-type", MANIFEST_TYPE)
        .body(MANIFEST)
}

#[tokio::test]
async fn a_tag_resolves_to_a_verified_document() {
    let server = Server::start(|_| manifest()).await;
    let found = client()
        .resolve(&image(&server.address), None)
        .await
        .unwrap();
    assert_eq!(found.digest, sha256(MANIFEST));
    assert_eq!(found.media_type, MANIFEST_TYPE);
    assert_eq!(found.size, MANIFEST.len() as u64);
    let seen = server.seen();
    assert_eq!(seen[0].target, "/v2/a/b/manifests/t");
    assert!(
        seen[0]
            .header("accept")
            .unwrap()
            .contains("image.index.v1+json")
    );
    assert_eq!(seen[0].header("user-agent"), Some("crisp-test/1"));
    assert_eq!(seen[0].header("authorization"), None);
}

#[tokio::test]
async fn a_digest_decides_over_the_tag() {
    let server = Server::start(|_| manifest()).await;
    let reference = format!("{}/a/b:t@{}", server.address, sha256(MANIFEST));
    let reference = ImageRef::parse(&reference).unwrap();
    client().resolve(&reference, None).await.unwrap();
    assert!(server.seen()[0].target.ends_with(sha256(MANIFEST).as_str()));
}

#[tokio::test]
async fn answers_that_are_refused() {
    let huge = vec![b' '; usize::try_from(MAX_MANIFEST).unwrap() + 1];
    let both = br#"{"config":{},"layers":[],"manifests":[]}"#.to_vec();
    let cases = [
        (
            manifest().body("{\"config\":{},\"layers\":[] }"),
            "DigestMismatch",
        ),
        (manifest().body(huge), "TooLarge"),
        (manifest().header("content-length", "99999999"), "TooLarge"),
        (manifest().body(both), "DigestMismatch"),
        (Answer::new(404), "NotFound"),
        (
            Answer::new(403).body(r#"{"errors":[{"code":"DENIED","message":"no"}]}"#),
            "Denied",
        ),
        (Answer::new(401), "Unauthorized"),
        (Answer::new(418), "Protocol"),
        (Answer::new(301), "Protocol"),
        (Answer::new(301).header("location", "ftp://x/"), "Protocol"),
        (Answer::new(302).header("location", "/again"), "Protocol"),
    ];
    for (answer, expected) in cases {
        let label = format!("{} {:?}", answer.status, answer.headers);
        let server = Server::start(move |_| answer.clone()).await;
        let digest = sha256(MANIFEST);
        let found = client()
            .manifest(&image(&server.address), &digest, None)
            .await;
        let error = found.unwrap_err();
        assert!(
            format!("{error:?}").starts_with(expected),
            "{label}: {error:?}"
        );
        assert!(error.to_string().contains(&server.address), "{error}");
    }
}

#[tokio::test]
async fn an_index_and_an_image_at_once_is_neither() {
    let both: &[u8] = br#"{"config":{},"layers":[],"manifests":[]}"#;
    let server = Server::start(move |_| manifest().body(both)).await;
    let error = client()
        .resolve(&image(&server.address), None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_that_is_down_is_named() {
    let error = client()
        .resolve(&image("127.0.0.1:1"), None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("refused"),
        "{text}"
    );
}

#[tokio::test]
async fn a_registry_that_falls_silent_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let begun = std::time::Instant::now();
    let error = client().resolve(&image(&host), None).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed().as_secs() < 30);
    drop(listener);
}
