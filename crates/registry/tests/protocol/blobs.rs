//! Blobs: streamed, resumed where they broke off, never longer than they are.

use std::time::Duration;

use crisp_registry::{Error, Wanted};

use crate::server::{Answer, Seen, Server};
use crate::{client, client_with, hosts, image, sha256};

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
    let wanted = Wanted {
        offset: from,
        ..Wanted::whole(&digest)
    };
    let mut stream = client().blob(&image(&server.address), wanted, None).await?;
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

#[tokio::test]
async fn a_host_that_drips_or_stands_still_is_left_for_the_next() {
    let pause = Duration::from_millis(1);
    for crawl in [part(0).drip(5000, pause), part(0).stall(5000)] {
        let mirror = Server::start(move |seen| match offset(seen) {
            0 => crawl.clone(),
            from => part(from).drip(3, pause),
        })
        .await;
        let upstream = Server::start(|seen| part(offset(seen))).await;
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            "server = \"http://{}\"\n[host.\"http://{}\"]\n",
            upstream.address, mirror.address
        );
        hosts(dir.path(), "r.example", &text);
        let digest = sha256(b"whatever");
        let client = client_with(dir.path(), None);
        let wanted = Wanted::whole(&digest);
        let mut stream = client
            .blob(&image("r.example"), wanted, None)
            .await
            .unwrap();
        let mut all = Vec::new();
        while let Some(chunk) = stream.next().await {
            all.extend_from_slice(&chunk.unwrap());
        }
        assert!(all == content());
        assert_eq!((mirror.seen().len(), upstream.seen().len()), (2, 1));
        // The bytes are of two hosts: the second alone is asked before it is blamed.
        assert_eq!(stream.next_host(), Some(1));
    }
}

#[tokio::test]
async fn the_rate_of_a_host_that_drips_is_told() {
    let server = Server::start(|seen| part(offset(seen)).drip(3, Duration::from_millis(1))).await;
    let error = fetch(&server, 0).await.unwrap_err();
    assert!(matches!(error, Error::TooSlow { .. }), "{error:?}");
    let text = error.to_string();
    assert!(
        text.contains(&server.address) && text.contains("in 200ms"),
        "{text}"
    );
}
