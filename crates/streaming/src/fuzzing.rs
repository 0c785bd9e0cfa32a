//! Laws for any bytes that a client may send once its connection is upgraded: the fuzzer tries bytes
//! of its own, the tests those of `fuzz/corpus`.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;

use crate::activity::{Activity, Hangup};
use crate::chunk::LargeChunks;
use crate::forward;
use crate::process::latest_size;
use crate::session::Reading;
use crate::spdy::connection::{Connection, Opened};
use crate::spdy::frame::{self, Control, Head, MAX_CONTROL};
use crate::spdy::headers::{HeaderBlocks, Headers};
use crate::spdy::input::Input;
use crate::stream::{Feed, Framing, Outgoing, Waits};
use crate::websocket::channels::{Codec, Demux, Step};
use crate::websocket::messages::Messages;
use crate::wire::{Wire, Wrapping};

fn reading(data: &[u8]) -> Reading {
    Box::new(Cursor::new(data.to_vec()))
}

fn wire(activity: &Arc<Activity>) -> Arc<Wire> {
    let nowhere = Box::new(tokio::io::sink());
    Arc::new(Wire::new(
        nowhere,
        Wrapping::Bare,
        Arc::clone(activity),
        LargeChunks::default(),
    ))
}

/// Frames of SPDY are read as they would be written, headers stay small, and a connection that is
/// fed with the same bytes comes to an end.
pub fn spdy(data: &[u8]) {
    frames(data);
    let activity = Arc::new(Activity::default());
    let watches = (Arc::clone(&activity), Waits::new(Hangup::of(None)));
    let input = Input::socket(reading(data));
    let (connection, mut opened) = Connection::new(input, wire(&activity), watches, |_| true);
    let seen = async { while opened.recv().await.is_some() {} };
    block_on(futures::future::join(connection.run(), seen))
        .0
        .ok();
}

fn frames(mut data: &[u8]) {
    let mut blocks = HeaderBlocks::default();
    while let Some((head, rest)) = data.split_first_chunk() {
        let (length, kind) = match Head::parse(*head) {
            Ok(Head::Data { id, fin, length }) => {
                let again = Head::parse(frame::data(id, fin, length));
                assert_eq!(again, Head::parse(*head), "a head that reads in two ways");
                (length, None)
            }
            Ok(Head::Control { kind, fin, length }) => {
                assert!(length <= MAX_CONTROL);
                (length, Some((kind, fin)))
            }
            Err(_) => return,
        };
        let Some((body, after)) = rest.split_at_checked(length) else {
            return;
        };
        if let Some(kind) = kind {
            match Control::parse(kind, body, &mut blocks) {
                Ok(Control::Open { headers, .. }) => {
                    assert!(headers.is_none_or(|headers| headers.size() <= MAX_CONTROL));
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
        data = after;
    }
}

/// Messages of WebSocket say the same in small pieces and in large ones, and no more than was sent.
pub fn websocket(data: &[u8]) {
    for codec in [Codec::Binary, Codec::Closing, Codec::Base64] {
        let (small, large) = (said(data, codec, 3), said(data, codec, 1 << 16));
        // Base64 in the middle of which a padding stands is refused as soon as it is seen.
        if codec != Codec::Base64 {
            assert_eq!(small, large, "{codec:?}");
        }
        assert!(large.len() <= data.len());
    }
}

/// All that the messages say, up to the first fault.
fn said(data: &[u8], codec: Codec, most: usize) -> Vec<u16> {
    let activity = Arc::new(Activity::default());
    let mut messages = Messages::new(reading(data), wire(&activity), activity);
    let mut demux = Demux::new(codec);
    let mut all = Vec::new();
    while let Ok(Some(piece)) = block_on(messages.piece(most)) {
        match demux.read(piece) {
            Ok(Some(Step::Data { channel, data })) => {
                let tagged = |byte: &u8| u16::from(channel) << 8 | u16::from(*byte);
                all.extend(data.iter().map(tagged));
            }
            Ok(Some(Step::Close { channel })) => all.push(u16::from(channel)),
            Ok(None) => {}
            Err(_) => break,
        }
    }
    all
}

/// Streams of port-forward, each by its length and its headers: every two that belong together make
/// one connection, to the port that the stream of its data names.
pub fn forwards(mut data: &[u8]) {
    let activity = Arc::new(Activity::default());
    let wire = wire(&activity);
    let mut halves = BTreeMap::new();
    let (mut id, mut served, mut joined) = (1, 0, 0);
    while let Some(([length], rest)) = data.split_first_chunk() {
        let (block, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        let Ok(headers) = Headers::parse(block) else {
            continue;
        };
        if !forward::is_served(&headers) {
            continue;
        }
        served += 1;
        let named = |kind: &str| headers.get(kind).unwrap_or_default().to_owned();
        let (port, kind) = (named("port"), named("streamtype"));
        let (_feed, incoming) = Feed::new();
        let outgoing = Outgoing::new(Arc::clone(&wire), Framing::Spdy(id), &incoming);
        let stream = Opened {
            id,
            headers,
            incoming,
            outgoing,
        };
        id += 2;
        let Some(forward) = block_on(forward::pair(&mut halves, stream, Duration::ZERO)) else {
            continue;
        };
        joined += 1;
        let to = forward.port();
        assert_ne!(to, 0);
        assert!(
            kind == "error" || port.parse() == Ok(to),
            "{port:?} is {to}"
        );
    }
    assert!(2 * joined + halves.len() <= served, "a stream twice");
}

/// Sizes of a terminal are the same in whatever pieces their text comes.
pub fn sizes(data: &[u8]) {
    let Some((used, whole)) = latest_size(data) else {
        return;
    };
    assert!(used <= data.len());
    for step in [1, 7] {
        let (mut text, mut latest) = (Vec::new(), None);
        for piece in data.chunks(step) {
            text.extend_from_slice(piece);
            let (used, size) = latest_size(&text).expect("a part of what is read whole");
            text.drain(..used);
            latest = size.or(latest);
        }
        assert_eq!(latest, whole, "pieces of {step}");
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[
    ("spdy", spdy),
    ("websocket", websocket),
    ("forwards", forwards),
    ("terminal_sizes", sizes),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
