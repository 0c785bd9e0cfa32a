//! Exec and attach over SPDY.

use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::backend::{played, refused};
use super::spdy_client::{Client, Frame};
use super::{all, server, terminal};
use crate::{End, Size, Streams};

const KINDS: [&str; 4] = ["error", "stdin", "stdout", "stderr"];

/// Runs a process under a version of the protocol, and tells its last word.
async fn last_word(version: &str, code: u8) -> String {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut client = Client::connect(&url, version).await;
    let ids = client.open_all(&KINDS).await;
    client.send(ids[1], b"to it", false).await;
    client.send(ids[1], b"", true).await;
    let mut typed = String::new();
    process.stdin.read_to_string(&mut typed).await.unwrap();
    assert_eq!(typed, "to it");
    process.stdout.write_all(b"from it").await.unwrap();
    process.stderr.write_all(b"oh").await.unwrap();
    let dropped = process.exit(code);
    let mut said = client.rest().await;
    assert_eq!(
        (&said[&ids[2]][..], &said[&ids[3]][..]),
        (&b"from it"[..], &b"oh"[..])
    );
    drop(client);
    assert!(dropped.await.is_err());
    String::from_utf8(said.remove(&ids[0]).unwrap_or_default()).unwrap()
}

#[tokio::test]
async fn every_version_tells_the_code() {
    for version in ["v4.channel.k8s.io", "v5.channel.k8s.io"] {
        let word = last_word(version, 7).await;
        assert!(
            word.contains(r#"{"reason":"ExitCode","message":"7"}"#),
            "{word}"
        );
        let word = last_word(version, 0).await;
        assert_eq!(word, r#"{"metadata":{},"status":"Success"}"#);
    }
    for version in [
        "",
        "channel.k8s.io",
        "v2.channel.k8s.io",
        "v3.channel.k8s.io",
    ] {
        let word = last_word(version, 7).await;
        assert_eq!(word, "command terminated with non-zero exit code: 7");
        assert_eq!(last_word(version, 0).await, "");
    }
}

#[tokio::test]
async fn a_terminal_is_resized() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.attach(terminal(), start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client
        .open_all(&["error", "stdin", "stdout", "resize"])
        .await;
    client.send(ids[3], b"{\"Width\":80,\"Hei", false).await;
    client
        .send(ids[3], b"ght\":24}\n{\"Width\":81,\"Height\":25}\n", false)
        .await;
    let size = |width, height| Size { width, height };
    assert_eq!(process.sizes.recv().await, Some(size(81, 25)));
    client
        .send(ids[3], b"{\"Width\":82,\"Height\":26}\n", false)
        .await;
    assert_eq!(process.sizes.recv().await, Some(size(82, 26)));
    process.end.send(End::Exited(9)).unwrap();
    let said = client.rest().await;
    assert_eq!(said[&ids[0]], br#"{"metadata":{},"status":"Success"}"#);
}

#[tokio::test]
async fn a_refusal_is_told_on_the_error_stream() {
    let server = server().await;
    let url = server
        .exec(Streams::STDOUT, refused("no such file"))
        .unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&["error", "stdout"]).await;
    let word = String::from_utf8(client.rest().await.remove(&ids[0]).unwrap()).unwrap();
    assert!(
        word.contains("error executing command in container: no such file"),
        "{word}"
    );
    assert!(word.contains("\"code\":500"), "{word}");
}

#[tokio::test]
async fn pings_come_back_and_unknown_streams_do_not_open() {
    let server = server().await;
    let (start, process) = played();
    let url = server.exec(Streams::STDOUT, start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    client.control(6, &[0, 0, 0, 7]).await;
    assert_eq!(client.next().await, Frame::Ping(7));
    let odd = client.begin(&[("streamtype", "odd")]).await;
    assert_eq!(client.next().await, Frame::Reset(odd, 1));
    let ids = client.open_all(&["error", "resize", "stdout"]).await;
    // Settings, a window, a ping of ours, and data and a reset of streams that are not there.
    client.control(4, &[0, 0, 0, 0]).await;
    client.control(9, &[0, 0, 0, 1, 0, 1, 0, 0]).await;
    client.control(6, &[0, 0, 0, 8]).await;
    client.send(99, b"nothing", true).await;
    client.reset(97).await;
    client.send(ids[1], b"ignored", false).await;
    process.exit(0);
    assert!(client.rest().await.contains_key(&ids[0]));
}

#[tokio::test]
async fn a_client_that_wants_no_output_any_more_holds_up_nothing() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&KINDS).await;
    client.reset(ids[2]).await;
    client.control(6, &[0, 0, 0, 1]).await;
    assert_eq!(client.next().await, Frame::Ping(1));
    process.stdout.write_all(&vec![0; 4 << 20]).await.unwrap();
    process.stderr.write_all(b"still").await.unwrap();
    process.exit(0);
    let said = client.rest().await;
    assert_eq!(
        (said.get(&ids[2]), &said[&ids[3]][..]),
        (None, &b"still"[..])
    );
}

/// Writes until the client, which does not read, has all that its sockets hold.
async fn fill(stdout: &mut (impl AsyncWrite + Unpin)) {
    let full = std::time::Duration::from_millis(200);
    let block = vec![b'x'; 64 << 20];
    let writing = tokio::time::timeout(full, stdout.write_all(&block));
    assert!(writing.await.is_err(), "its sockets are full");
}

/// An engine cuts off who takes nothing for too long.
#[tokio::test]
async fn a_client_that_was_cut_off_is_told_once_it_reads_again() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.attach(all(), start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&KINDS).await;
    fill(&mut process.stdout).await;
    process.end.send(End::Lost("cut off".to_owned())).unwrap();
    drop((process.stdout, process.stderr));
    // Longer than the session waits for a process.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let said = client.rest().await;
    assert!(said[&ids[2]].len() > 1 << 16);
    let word = String::from_utf8_lossy(&said[&ids[0]]);
    assert!(word.contains("cut off"), "{word}");
}

/// Frames of a busy process are large, so that its client mostly leaves within one.
#[tokio::test]
async fn a_client_that_vanishes_within_a_frame_ends_its_session() {
    for reads in [0, 3] {
        let server = server().await;
        let (start, mut process) = played();
        let url = server.exec(all(), start).unwrap();
        let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
        let ids = client.open_all(&KINDS).await;
        fill(&mut process.stdout).await;
        for _ in 0..reads {
            let frame = client.next().await;
            assert!(
                matches!(frame, Frame::Data(id, ..) if id == ids[2]),
                "{frame:?}"
            );
        }
        drop(client);
        let within = std::time::Duration::from_secs(20);
        let dropped = tokio::time::timeout(within, process.dropped).await;
        assert!(dropped.unwrap().is_err(), "{reads}");
        // Nothing of it goes on reading.
        assert!(process.stdout.write_all(&[0; 1 << 20]).await.is_err());
    }
}

#[tokio::test]
async fn the_last_word_reaches_a_client_that_still_sends() {
    let server = server().await;
    let (start, process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&KINDS).await;
    // More than the process, the session and the sockets hold is on its way.
    let mut sent = 0;
    let block = vec![0; 1 << 20];
    let full = std::time::Duration::from_millis(200);
    let sending = tokio::time::timeout(full, async {
        while client.send(ids[1], &block, false).await {
            sent += 1;
        }
    });
    assert!(sending.await.is_err());
    process.exit(7);
    let said = client.rest().await;
    let word = String::from_utf8_lossy(&said[&ids[0]]);
    assert!(word.contains("ExitCode"), "{word}");
}

#[tokio::test]
async fn output_arrives_unharmed() {
    const SIZE: usize = if cfg!(debug_assertions) {
        64 << 20
    } else {
        1 << 30
    };
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(Streams::STDOUT, start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&["error", "stdout"]).await;
    let writing = tokio::spawn(async move {
        let mut hash = Sha256::new();
        let mut left = SIZE;
        let mut number = 0_u32;
        while left > 0 {
            number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let length = left.min(1 + number as usize % 200_000);
            let block = vec![number.to_le_bytes()[3]; length];
            hash.update(&block);
            process.stdout.write_all(&block).await.unwrap();
            left -= length;
        }
        process.exit(0);
        hash.finalize()
    });
    let (mut hash, mut got) = (Sha256::new(), 0);
    loop {
        match client.next().await {
            Frame::Data(id, data, _) if id == ids[1] => {
                got += data.len();
                hash.update(&data);
            }
            Frame::Data(..) => {}
            Frame::GoAway => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((got, hash.finalize()), (SIZE, writing.await.unwrap()));
}

#[tokio::test]
async fn a_stop_is_told_to_all_who_are_there() {
    let server = server().await;
    let mut clients = Vec::new();
    for version in ["v4.channel.k8s.io", "channel.k8s.io"] {
        let (start, process) = played();
        let url = server.exec(all(), start).unwrap();
        let mut client = Client::connect(&url, version).await;
        let ids = client.open_all(&KINDS).await;
        // Its streams and its end are held open by the played process.
        clients.push((client, ids, process));
    }
    let late = server.exec(all(), played().0).unwrap();
    let within = std::time::Duration::from_secs(10);
    let begun = std::time::Instant::now();
    let rest = async {
        for (mut client, ids, process) in clients {
            let said = client.rest().await;
            let word = String::from_utf8_lossy(&said[&ids[0]]).into_owned();
            assert!(word.contains("daemon stops"), "{word}");
            drop(client);
            assert!(process.dropped.await.is_err());
        }
    };
    tokio::join!(server.stop(within), rest);
    assert!(
        begun.elapsed() < within,
        "it waits for no more than they take"
    );
    let address = server.address();
    assert!(
        tokio::net::TcpStream::connect(address).await.is_err(),
        "{late}"
    );
}

#[tokio::test]
async fn a_child_that_is_left_behind_holds_nobody_for_long() {
    let server = server().await;
    for pause in [Some(std::time::Duration::from_millis(100)), None] {
        let (start, process) = played();
        let url = server.exec(all(), start).unwrap();
        let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
        let ids = client.open_all(&KINDS).await;
        process.end.send(End::Exited(3)).unwrap();
        // It goes on writing to the output that it has of the process, slowly or without a pause.
        let mut output = process.stdout;
        let chatter = tokio::spawn(async move {
            while output.write_all(&[b'x'; 4096]).await.is_ok() {
                if let Some(pause) = pause {
                    tokio::time::sleep(pause).await;
                }
            }
        });
        let said = client.rest().await;
        let word = String::from_utf8_lossy(&said[&ids[0]]).into_owned();
        assert!(word.contains(r#""message":"3""#), "{word}");
        drop(client);
        chatter.await.unwrap();
    }
}

#[tokio::test]
async fn the_tail_of_a_process_is_waited_for() {
    let server = server().await;
    let (start, mut process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut client = Client::connect(&url, "v4.channel.k8s.io").await;
    let ids = client.open_all(&KINDS).await;
    process.end.send(End::Exited(0)).unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    process.stdout.write_all(b"late").await.unwrap();
    drop((process.stdout, process.stderr));
    let said = client.rest().await;
    assert_eq!(said[&ids[2]], b"late");
}

#[tokio::test]
async fn a_stop_meets_processes_that_begin_and_that_are_over() {
    let server = server().await;
    let begins: crate::Start = Box::new(|| Box::pin(std::future::pending()));
    let url = server.exec(all(), begins).unwrap();
    let mut beginner = Client::connect(&url, "v4.channel.k8s.io").await;
    let first = beginner.open_all(&KINDS).await[0];
    let (start, process) = played();
    let url = server.exec(all(), start).unwrap();
    let mut over = Client::connect(&url, "v4.channel.k8s.io").await;
    let second = over.open_all(&KINDS).await[0];
    process.end.send(End::Exited(7)).unwrap();
    // Its end is known, and its output is still held by others.
    assert!(process.dropped.await.is_err());
    let within = std::time::Duration::from_secs(10);
    let words = async {
        let word = |said: Vec<u8>| String::from_utf8(said).unwrap();
        let begun = word(beginner.rest().await.remove(&first).unwrap());
        assert!(begun.contains("daemon stops"), "{begun}");
        let known = word(over.rest().await.remove(&second).unwrap());
        assert!(known.contains(r#""message":"7""#), "{known}");
        drop((beginner, over));
    };
    tokio::join!(server.stop(within), words);
    drop((process.stdout, process.stderr));
}
