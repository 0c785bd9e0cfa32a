//! Laws for any bytes that a client may send, in the request for an upgrade and afterwards: the fuzzer
//! tries bytes of its own, the tests those of `fuzz/corpus`.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{Request, StatusCode};

use crate::activity::{Activity, Hangup};
use crate::chunk::LargeChunks;
use crate::forward;
use crate::http::{Admitted, answer};
use crate::negotiate::{ASKED, Answer, Remote, Speech};
use crate::process::latest_size;
use crate::session::{Reading, Refusal, Streams};
use crate::spdy::connection::{Connection, Opened};
use crate::spdy::frame::{self, Control, Head, MAX_CONTROL};
use crate::spdy::headers::{HeaderBlocks, Headers};
use crate::spdy::input::Input;
use crate::status::Purpose;
use crate::stream::{Feed, Framing, Outgoing, Waits};
use crate::tokens::Tokens;
use crate::websocket::channels::{Codec, Demux, Step};
use crate::websocket::messages::Messages;
use crate::wire::{Wire, Wrapping};
use crate::work::Work;

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

/// Ports that a CRI request names.
const OF_THE_CRI: [u16; 2] = [8080, 9090];

/// Requests for an upgrade: the first line is the query of the URL, each further one a header. Exec
/// and port-forward get a protocol that their client named, or a refusal; which of both it is does not
/// depend on how the client divides its lists into headers.
pub fn upgrades(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let query = lines.next().map(String::from_utf8_lossy);
    let query = query.unwrap_or_default();
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    for ports in [None, Some(&[][..]), Some(&OF_THE_CRI[..])] {
        let Some((request, told)) = asked(&query, &headers, ports) else {
            return;
        };
        let (answer, work) = &told;
        match work {
            Some(work) => granted(&request, answer, work, ports),
            None => refused(&headers, answer),
        }
        let (_, again) = asked(&query, &divided(&headers), ports).expect("the same URL");
        let of = |(answer, work): &(Answer, Option<Work>)| {
            let head = (answer.status(), answer.headers().clone());
            (head, answer.body().clone(), work.as_ref().map(spoken))
        };
        assert_eq!(of(&told), of(&again), "divided in another way");
    }
}

type Told = (Answer, Option<Work>);

/// Asks once for exec, or for port-forward with these ports of the CRI: a second time the token is
/// spent. `None` where the query makes no URL.
fn asked(query: &str, headers: &HeaderMap, ports: Option<&[u16]>) -> Option<(Request<()>, Told)> {
    let nothing = || Refusal(String::new());
    let admitted = match ports {
        None => Admitted::Process {
            purpose: Purpose::Exec,
            streams: Streams::default(),
            start: Box::new(move || Box::pin(async move { Err(nothing()) })),
        },
        Some(ports) => Admitted::Ports {
            ports: ports.to_vec(),
            dial: Arc::new(move |_| Box::pin(async move { Err(nothing()) })),
        },
    };
    let (place, tokens) = (admitted.place(), Arc::new(Tokens::default()));
    let token = tokens.issue(admitted, Instant::now()).expect("a token");
    let request = Request::get(format!("/{place}/{token}?{query}"));
    let mut request = request.body(()).ok()?;
    *request.headers_mut() = headers.clone();
    let told = answer(&request, &tokens);
    let (again, work) = answer(&request, &tokens);
    assert!(again.status() == StatusCode::NOT_FOUND && work.is_none());
    Some((request, told))
}

/// The protocol that was agreed on; that of exec has a version.
fn spoken(work: &Work) -> (Option<Remote>, Option<Speech>) {
    match work {
        Work::Process { remote, .. } => (Some(*remote), None),
        Work::Ports { speech, .. } => (None, Some(*speech)),
    }
}

/// The protocol is one that the client named, and each port is one that the CRI or the URL names.
fn granted(request: &Request<()>, answer: &Answer, work: &Work, ports: Option<&[u16]>) {
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    for header in [UPGRADE, ASKED, SEC_WEBSOCKET_PROTOCOL] {
        let Some(chosen) = answer.headers().get(&header) else {
            continue;
        };
        let chosen = chosen.to_str().expect("a name of ours");
        let is_it = |word: &str| match header == UPGRADE {
            true => word.trim().eq_ignore_ascii_case(chosen),
            false => word.trim() == chosen,
        };
        let values = request.headers().get_all(&header).into_iter();
        let mut texts = values.filter_map(|value| value.to_str().ok());
        assert!(texts.any(|text| text.split(',').any(is_it)), "{chosen}");
    }
    let Work::Ports {
        ports: agreed,
        speech,
        ..
    } = work
    else {
        assert_eq!(ports, None);
        return;
    };
    let of_the_cri = ports.unwrap_or_default();
    if !of_the_cri.is_empty() || !matches!(speech, Speech::Channels(_)) {
        assert_eq!(agreed, of_the_cri);
        return;
    }
    let query = request.uri().query().unwrap_or_default();
    let most = match speech {
        Speech::Channels(Codec::Base64) => 5,
        _ => 127,
    };
    assert!((1..=most).contains(&agreed.len()), "{agreed:?}");
    let is_named = |port: &u16| *port != 0 && query.contains(&port.to_string());
    assert!(agreed.iter().all(is_named), "{agreed:?} of {query:?}");
    let named = query.matches("port=").count() + query.matches(',').count();
    assert!(agreed.len() <= named, "{agreed:?} of {query:?}");
}

/// The connection ends, with a reason of no more words than the client's.
fn refused(headers: &HeaderMap, answer: &Answer) {
    let status = answer.status();
    assert!(matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN
    ));
    assert_eq!(answer.headers()[CONNECTION], "close");
    assert!(!answer.headers().contains_key(UPGRADE));
    let given: usize = headers.values().map(HeaderValue::len).sum();
    assert!(answer.body().len() <= given + 512, "{}", answer.body());
}

/// The same headers with each entry of a list in a header of its own.
fn divided(headers: &HeaderMap) -> HeaderMap {
    let lists = [CONNECTION, UPGRADE, ASKED, SEC_WEBSOCKET_PROTOCOL];
    let mut all = HeaderMap::new();
    for (name, value) in headers {
        match value.to_str() {
            Ok(text) if lists.contains(name) => {
                for entry in text.split(',') {
                    let entry = HeaderValue::from_str(entry).expect("a part of one");
                    all.append(name, entry);
                }
            }
            _ => drop(all.append(name, value.clone())),
        }
    }
    all
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[
    ("spdy", spdy),
    ("websocket", websocket),
    ("forwards", forwards),
    ("terminal_sizes", sizes),
    ("upgrades", upgrades),
];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
