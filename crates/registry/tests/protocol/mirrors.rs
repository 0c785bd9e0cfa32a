//! Mirrors: in order, with fall-through, each with its own headers.

use crisp_registry::Error;

use crate::server::{Answer, Server};
use crate::{MANIFEST, MANIFEST_TYPE, client_with, hosts, image, sha256};

fn manifest() -> Answer {
    Answer::new(200)
        .header("content-type", MANIFEST_TYPE)
        .body(MANIFEST)
}

#[tokio::test]
async fn each_failure_goes_on_to_the_next() {
    for first in [
        Answer::new(404),
        Answer::new(500),
        Answer::new(503),
        Answer::new(429).header("retry-after", "3600"),
        Answer::new(401),
        Answer::new(403),
        Answer::new(200).body("not a manifest"),
        manifest().cut(5),
    ] {
        let label = first.status;
        let mirror = Server::start(move |_| first.clone()).await;
        let upstream = Server::start(|_| manifest()).await;
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "server = \"http://{}\"\n[host.\"http://127.0.0.1:1\"]\n[host.\"http://{}\"]\n\
             [host.\"http://{}\".header]\nx-tenant = \"t\"\n",
            upstream.address, mirror.address, mirror.address
        );
        hosts(dir.path(), "r.example", &text);
        let client = client_with(dir.path(), None);
        client.resolve(&image("r.example"), None).await.unwrap();
        assert_eq!(mirror.seen().len(), 1, "{label}");
        assert_eq!(mirror.seen()[0].target, "/v2/a/b/manifests/t?ns=r.example");
        assert_eq!(mirror.seen()[0].header("x-tenant"), Some("t"));
        assert_eq!(upstream.seen().len(), 1, "{label}");
        assert_eq!(upstream.seen()[0].header("x-tenant"), None);
    }
}

#[tokio::test]
async fn a_mirror_that_works_is_enough() {
    let mirror = Server::start(|_| manifest()).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "[host.\"http://{}\"]\noverride_path = true\n",
        mirror.address
    );
    hosts(dir.path(), "_default", &text);
    let client = client_with(dir.path(), None);
    client.resolve(&image("r.example"), None).await.unwrap();
    assert_eq!(mirror.seen()[0].target, "/a/b/manifests/t?ns=r.example");
}

#[tokio::test]
async fn tags_are_asked_only_where_that_is_allowed() {
    let mirror = Server::start(|_| manifest()).await;
    let upstream = Server::start(|_| manifest()).await;
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "server = \"http://{}\"\n[host.\"http://{}\"]\ncapabilities = [\"pull\"]\n",
        upstream.address, mirror.address
    );
    hosts(dir.path(), "r.example", &text);
    let client = client_with(dir.path(), None);
    client.resolve(&image("r.example"), None).await.unwrap();
    assert_eq!((mirror.seen().len(), upstream.seen().len()), (0, 1));
    client
        .manifest(&image("r.example"), &sha256(MANIFEST), None)
        .await
        .unwrap();
    assert_eq!((mirror.seen().len(), upstream.seen().len()), (1, 1));
}

#[tokio::test]
async fn the_registry_itself_is_asked_again() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let server =
        Server::start(
            move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Answer::new(429).header("retry-after", "0"),
                1 => Answer::new(503),
                2 => manifest().cut(3),
                _ => manifest(),
            },
        )
        .await;
    let dir = tempfile::tempdir().unwrap();
    let client = client_with(dir.path(), None);
    client.resolve(&image(&server.address), None).await.unwrap();
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn patience_has_an_end() {
    for (answer, tries) in [
        (Answer::new(429).header("retry-after", "3600"), 1),
        (Answer::new(500), 4),
    ] {
        let server = Server::start(move |_| answer.clone()).await;
        let dir = tempfile::tempdir().unwrap();
        let client = client_with(dir.path(), None);
        let error = client
            .resolve(&image(&server.address), None)
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        assert_eq!(server.seen().len(), tries);
    }
}

#[tokio::test]
async fn a_broken_hosts_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    hosts(dir.path(), "r.example", "server = [");
    let client = client_with(dir.path(), None);
    let error = client.resolve(&image("r.example"), None).await.unwrap_err();
    assert!(
        error.to_string().contains("r.example/hosts.toml"),
        "{error}"
    );
}
