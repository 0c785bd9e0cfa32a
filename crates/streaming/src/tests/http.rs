//! Answers to requests that come to nothing, and those that differ only in words.

use super::backend::{played, pod};
use super::spdy_client::ask;
use super::{all, server};
use crate::Server;

async fn check(server: &Server, place: &str, headers: &str, said: &str) -> String {
    let url = match place {
        "exec" => server.exec(all(), played().0).unwrap(),
        "attach" => server.attach(all(), played().0).unwrap(),
        _ => server.port_forward(Vec::new(), pod().await).unwrap(),
    };
    assert!(url.starts_with(&format!("http://{}/{place}/", server.address())));
    let (_, answer) = ask(&url, headers).await;
    assert!(answer.starts_with(&format!("HTTP/1.1 {said}")), "{answer}");
    let (_, again) = ask(&url, headers).await;
    assert!(again.starts_with("HTTP/1.1 404"), "{again}");
    answer.to_lowercase()
}

#[tokio::test]
async fn a_token_is_spent_by_its_first_use() {
    let server = server().await;
    let spdy = "Connection: keep-alive, upgrade\r\nUpgrade: spdy/3.1\r\n";
    check(&server, "exec", spdy, "101").await;
    check(&server, "attach", spdy, "101").await;
    check(&server, "portforward", spdy, "101").await;
    check(&server, "exec", "", "400").await;
    check(
        &server,
        "exec",
        "Connection: Upgrade\r\nUpgrade: h2c\r\n",
        "400",
    )
    .await;
    check(&server, "exec", "Upgrade: SPDY/3.1\r\n", "400").await;
}

#[tokio::test]
async fn versions_are_negotiated() {
    let server = server().await;
    let spdy = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    let asked = |versions: &str| format!("{spdy}X-Stream-Protocol-Version: {versions}\r\n");
    let second =
        "v9.channel.k8s.io,  v2.channel.k8s.io\r\nX-Stream-Protocol-Version: channel.k8s.io";
    let answer = check(&server, "exec", &asked(second), "101").await;
    assert!(
        answer.contains("x-stream-protocol-version: v2.channel.k8s.io"),
        "{answer}"
    );
    let answer = check(&server, "exec", &asked("v9.channel.k8s.io"), "403").await;
    for version in ["v5.", "v4.", "v3.", "v2.", ""] {
        let named = format!("x-accepted-stream-protocol-versions: {version}channel.k8s.io");
        assert!(answer.contains(&named), "{answer}");
    }
    let answer = check(&server, "portforward", &asked("v4.channel.k8s.io"), "403").await;
    assert!(
        answer.contains("x-accepted-stream-protocol-versions: portforward.k8s.io"),
        "{answer}"
    );
}

#[tokio::test]
async fn websockets_are_asked_for_properly() {
    let server = server().await;
    let websocket = |rest: &str| format!("Connection: Upgrade\r\nUpgrade: WebSocket\r\n{rest}");
    let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let answer = check(&server, "exec", &websocket(key), "101").await;
    // The example of the RFC.
    assert!(
        answer.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo="),
        "{answer}"
    );
    check(&server, "exec", &websocket(""), "400").await;
    check(&server, "exec", &websocket(&key.replace("13", "8")), "400").await;
    check(
        &server,
        "exec",
        &websocket(&key.replace("dGhl", "!!!!")),
        "400",
    )
    .await;
    let odd = format!("{key}Sec-WebSocket-Protocol: chat\r\n");
    check(&server, "exec", &websocket(&odd), "403").await;
    // Over channels the ports have to be known.
    check(&server, "portforward", &websocket(key), "400").await;
}

#[tokio::test]
async fn a_channel_has_a_number_for_each_port() {
    let server = server().await;
    let base64 = "Sec-WebSocket-Protocol: v4.base64.channel.k8s.io\r\n";
    for (count, protocol, wanted) in [
        (127, "", "101"),
        (128, "", "400"),
        (5, base64, "101"),
        (6, base64, "400"),
    ] {
        let key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        let head = format!("Connection: Upgrade\r\nUpgrade: websocket\r\n{key}{protocol}");
        let ports = vec![80; count];
        let query: String = ports.iter().map(|port| format!("&port={port}")).collect();
        for (ports, query) in [(ports, String::new()), (Vec::new(), query)] {
            let url = server.port_forward(ports, pod().await).unwrap();
            let (_, answer) = ask(&format!("{url}?{query}"), &head).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {wanted}")),
                "{count}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = server().await;
    let base = format!("http://{}", server.address());
    for path in [
        "/",
        "/exec",
        "/exec/",
        "/exec/nothing",
        "//",
        "/nothing/at/all",
    ] {
        let (_, answer) = ask(&format!("{base}{path}"), "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    // A token counts only in its own place.
    let url = server.exec(all(), played().0).unwrap();
    let (_, answer) = ask(&url.replace("/exec/", "/attach/"), "").await;
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}
