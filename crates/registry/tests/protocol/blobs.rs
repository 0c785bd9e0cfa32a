//! Blobs: streamed, resumed where they broke off, never longer than they are.

use crisp_registry::Error;
use futures::StreamExt as _;

use crate::server::{Answer, Seen, Server};
use crate::{client, image, sha256};

fn content() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

fn offset(seen: &Seen) -> usize {
    let range = seen.header("range").and_then(|r| r.strip_prefix("bytes="));
    range
        .and_then(|r| r.strip_suffix('-'))
        .map_or(0, |r| r.parse().unwrap())
}

fn part(from: usize) -> Answer {
    let all = content();
    let (last, total) = (all.len() - 1, all.len());
    let status = if from == 0 { 200 } else { 206 };
    Answer::new(status)
        .header("content-range", format!("bytes {from}-{last}/{total}"))
        .body(&all[from..])
}

async fn fetch(server: &Server, from: u64) -> Result<Vec<u8>, Error> {
    let digest = sha256(b"whatever");
    let mut stream = client()
        .blob(&image(&server.address), &digest, from, None)
        .await?;
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.extend_from_slice(&chunk?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_blob_is_resumed_where_it_broke_off() {
    let server = Server::start(|seen| match offset(seen) {
        0 => part(0).cut(100_000),
        from if from < 900_000 => part(from).cut(500_000),
        from => part(from),
    })
    .await;
    assert!(fetch(&server, 0).await.unwrap() == content());
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_server_without_ranges_sends_again_what_is_skipped() {
    let count = std::sync::atomic::AtomicU32::new(0);
    let server =
        Server::start(
            move |_| match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => Answer::new(200).body(content()).cut(777_777),
                _ => Answer::new(200).body(content()),
            },
        )
        .await;
    assert!(fetch(&server, 0).await.unwrap() == content());
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_blob_can_be_read_from_an_offset() {
    let server = Server::start(|seen| part(offset(seen))).await;
    assert!(fetch(&server, 1000).await.unwrap() == content()[1000..]);
    let server = Server::start(|_| Answer::new(200).body(content())).await;
    assert!(fetch(&server, 1000).await.unwrap() == content()[1000..]);
}

#[tokio::test]
async fn a_server_that_only_breaks_is_given_up() {
    let server = Server::start(|seen| part(offset(seen)).cut(10)).await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn a_blob_that_changes_its_size_is_refused() {
    let server = Server::start(|seen| match offset(seen) {
        0 => part(0).cut(100_000),
        _ => Answer::new(200).body("short"),
    })
    .await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn another_range_than_asked_for_is_refused() {
    let server = Server::start(|seen| match offset(seen) {
        0 => part(0).cut(100_000),
        _ => part(5),
    })
    .await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_small_blob_is_refused() {
    let server = Server::start(|_| Answer::new(200).body("other")).await;
    let (image, digest) = (image(&server.address), sha256(b"config"));
    let error = client()
        .small_blob(&image, &digest, 100, None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    let error = client()
        .small_blob(&image, &digest, 4, None)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
}
