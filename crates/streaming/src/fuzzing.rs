//! Laws for any bytes that a client may send once its connection is upgraded: the fuzzer tries bytes
//! of its own, the tests those of `fuzz/corpus`.

use std::io::Cursor;
use std::sync::Arc;

use futures::executor::block_on;

use crate::activity::{Activity, Hangup};
use crate::session::Reading;
use crate::spdy::connection::Connection;
use crate::spdy::frame::{self, Control, Head, MAX_CONTROL};
use crate::spdy::headers::HeaderBlocks;
use crate::spdy::input::Input;
use crate::stream::Waits;
use crate::websocket::channels::{Codec, Demux, Step};
use crate::websocket::messages::Messages;
use crate::wire::{Wire, Wrapping};

fn reading(data: &[u8]) -> Reading {
    Box::new(Cursor::new(data.to_vec()))
}

fn wire(activity: &Arc<Activity>) -> Arc<Wire> {
    let nowhere = Box::new(tokio::io::sink());
    Arc::new(Wire::new(nowhere, Wrapping::Bare, Arc::clone(activity)))
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

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("spdy", spdy), ("websocket", websocket)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
