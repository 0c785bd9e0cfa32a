//! Bounds on all that a client can make a session hold.

use std::time::Duration;

use tokio::time::timeout;

use super::backend::{played, pod};
use super::server;
use super::spdy_client::{Client, Frame};
use crate::{Error, Streams};

#[tokio::test]
async fn a_process_that_does_not_read_stops_its_client() {
    let server = server().await;
    let (start, process) = played();
    let url = server.exec(Streams::STDIN, start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&["error", "stdin"]).await;
    let block = vec![0; 1 << 20];
    let mut sent = 0;
    let filling = async {
        while client.send(ids[1], &block, false).await {
            sent += 1;
        }
    };
    assert!(timeout(Duration::from_millis(300), filling).await.is_err());
    // All of it lies in the sockets' buffers, which are a few MiB.
    assert!(sent < 16, "{sent} MiB");
    drop(process);
}

#[tokio::test]
async fn a_session_has_two_thousand_streams_at_most() {
    let server = server().await;
    let url = server.port_forward(Vec::new(), pod().await).unwrap();
    let mut client = Client::connect(&url, "").await;
    for number in 0..=2000 {
        let request = number.to_string();
        let headers = [
            ("streamtype", "error"),
            ("port", "80"),
            ("requestid", &request),
        ];
        if number < 2000 {
            client.open(&headers).await;
        } else {
            client.begin(&headers).await;
        }
    }
    let refused = 2 * 2000 + 1;
    assert_eq!(client.next().await, Frame::Reset(refused, 3));
}

#[tokio::test]
async fn a_thousand_requests_wait_at_most() {
    let server = server().await;
    for _ in 0..1000 {
        server.exec(Streams::STDOUT, played().0).unwrap();
    }
    let error = server.exec(Streams::STDOUT, played().0).unwrap_err();
    assert!(matches!(error, Error::TooMany(1000)), "{error}");
}
