//! Which protocol a client gets: its HTTP headers, read; no connection yet.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{
    ALLOW, CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Response, StatusCode};

use crate::status::Manner;
use crate::websocket::channels::Codec;

pub(crate) const ASKED: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
const SPDY: &str = "SPDY/3.1";
/// Appended to a client's key: the proof that its request was understood.
const WEBSOCKET: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// An answer to an HTTP request.
pub(crate) type Answer = Response<String>;

/// The two families of protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Spdy,
    WebSocket,
}

/// The language of a connection once it is upgraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speech {
    /// SPDY's streams.
    Spdy,
    /// SPDY's streams inside WebSocket messages.
    Tunnel,
    /// Channels in WebSocket messages.
    Channels(Codec),
}

/// A version of the protocol for exec and attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) speech: Speech,
    pub(crate) manner: Manner,
    /// A client with a terminal tells its size.
    pub(crate) resizes: bool,
}

/// A protocol by its name on the wire.
type Named<T> = (&'static str, T);

const fn remote(speech: Speech, manner: Manner, resizes: bool) -> Remote {
    Remote {
        speech,
        manner,
        resizes,
    }
}

const BINARY: Speech = Speech::Channels(Codec::Binary);
const BASE64: Speech = Speech::Channels(Codec::Base64);

/// Exec and attach over SPDY. Version 5 adds nothing there.
const REMOTE_SPDY: [Named<Remote>; 5] = [
    (
        "v5.channel.k8s.io",
        remote(Speech::Spdy, Manner::Json, true),
    ),
    (
        "v4.channel.k8s.io",
        remote(Speech::Spdy, Manner::Json, true),
    ),
    (
        "v3.channel.k8s.io",
        remote(Speech::Spdy, Manner::Text, true),
    ),
    (
        "v2.channel.k8s.io",
        remote(Speech::Spdy, Manner::Text, false),
    ),
    ("channel.k8s.io", remote(Speech::Spdy, Manner::Text, false)),
];

/// Exec and attach over WebSocket.
const REMOTE_WEBSOCKET: [Named<Remote>; 7] = [
    (
        "v5.channel.k8s.io",
        remote(Speech::Channels(Codec::Closing), Manner::Json, true),
    ),
    ("v4.channel.k8s.io", remote(BINARY, Manner::Json, true)),
    (
        "v4.base64.channel.k8s.io",
        remote(BASE64, Manner::Json, true),
    ),
    ("v3.channel.k8s.io", remote(BINARY, Manner::Text, true)),
    ("v2.channel.k8s.io", remote(BINARY, Manner::Text, true)),
    ("channel.k8s.io", remote(BINARY, Manner::Text, true)),
    ("base64.channel.k8s.io", remote(BASE64, Manner::Text, true)),
];

const FORWARD_SPDY: [Named<Speech>; 1] = [("portforward.k8s.io", Speech::Spdy)];

const FORWARD_WEBSOCKET: [Named<Speech>; 3] = [
    ("SPDY/3.1+portforward.k8s.io", Speech::Tunnel),
    ("v4.channel.k8s.io", BINARY),
    ("v4.base64.channel.k8s.io", BASE64),
];

/// The protocol for exec and attach, and the answer that says so.
///
/// # Errors
/// When none fits.
pub(crate) fn for_process(headers: &HeaderMap) -> Result<(Remote, Answer), Refused> {
    match family(headers)? {
        Family::Spdy => spdy(headers, &REMOTE_SPDY, REMOTE_SPDY[4].1),
        Family::WebSocket => websocket(headers, &REMOTE_WEBSOCKET, REMOTE_WEBSOCKET[5].1),
    }
}

/// The protocol for port-forward, and the answer that says so.
///
/// # Errors
/// When none fits.
pub(crate) fn for_ports(headers: &HeaderMap) -> Result<(Speech, Answer), Refused> {
    match family(headers)? {
        Family::Spdy => spdy(headers, &FORWARD_SPDY, Speech::Spdy),
        Family::WebSocket => websocket(headers, &FORWARD_WEBSOCKET, BINARY),
    }
}

/// A request that is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    status: StatusCode,
    why: String,
    /// Versions that would do.
    accepted: Vec<&'static str>,
}

impl Refused {
    pub(crate) fn new(status: StatusCode, why: impl Into<String>) -> Self {
        Self {
            status,
            why: why.into(),
            accepted: Vec::new(),
        }
    }

    /// The answer, which ends the connection.
    pub(crate) fn answer(self) -> Answer {
        let mut answer = Response::new(self.why + "\n");
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(ALLOW, HeaderValue::from_static("GET, POST"));
        }
        for version in self.accepted {
            headers.append(ACCEPTED, HeaderValue::from_static(version));
        }
        answer
    }
}

fn family(headers: &HeaderMap) -> Result<Family, Refused> {
    let has = |name: &HeaderName, word: &str| {
        let mut words = words(headers, name);
        words.any(|found| found.eq_ignore_ascii_case(word))
    };
    match () {
        () if !has(&CONNECTION, "upgrade") => {}
        () if has(&UPGRADE, "websocket") => return Ok(Family::WebSocket),
        () if has(&UPGRADE, SPDY) => return Ok(Family::Spdy),
        () => {}
    }
    let why = "unable to upgrade: the request has no `Connection: Upgrade` with `Upgrade: \
               SPDY/3.1` or `Upgrade: websocket`";
    Err(Refused::new(StatusCode::BAD_REQUEST, why))
}

/// The words of a header, which may come several times and list several each.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let texts = values.filter_map(|value| value.to_str().ok());
    let words = texts.flat_map(|text| text.split(',')).map(str::trim);
    words.filter(|word| !word.is_empty())
}

/// The first of the client's protocols that is known, with its name.
fn first_known<T: Copy>(
    headers: &HeaderMap,
    name: &HeaderName,
    known: &[Named<T>],
) -> Option<Named<T>> {
    let mut asked = words(headers, name);
    asked.find_map(|word| known.iter().find(|(name, _)| *name == word).copied())
}

fn unknown<T>(headers: &HeaderMap, name: &HeaderName, known: &[Named<T>]) -> Refused {
    let asked: Vec<&str> = words(headers, name).collect();
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let why = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        asked.join(" "),
        names.join(" ")
    );
    Refused::new(StatusCode::FORBIDDEN, why)
}

fn spdy<T: Copy>(
    headers: &HeaderMap,
    known: &[Named<T>],
    unasked: T,
) -> Result<(T, Answer), Refused> {
    let mut answer = upgrade(SPDY);
    if !headers.contains_key(ASKED) {
        return Ok((unasked, answer));
    }
    let Some((name, chosen)) = first_known(headers, &ASKED, known) else {
        let accepted = known.iter().map(|(name, _)| *name).collect();
        let refused = unknown(headers, &ASKED, known);
        return Err(Refused {
            accepted,
            ..refused
        });
    };
    let name = HeaderValue::from_static(name);
    answer.headers_mut().insert(ASKED, name);
    Ok((chosen, answer))
}

fn websocket<T: Copy>(
    headers: &HeaderMap,
    known: &[Named<T>],
    unasked: T,
) -> Result<(T, Answer), Refused> {
    let version = headers.get(SEC_WEBSOCKET_VERSION);
    if version.is_none_or(|version| version != "13") {
        let why = "unable to upgrade: Sec-WebSocket-Version is not 13";
        return Err(Refused::new(StatusCode::BAD_REQUEST, why));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes);
    let decoded = key.and_then(|key| STANDARD.decode(key).ok());
    let (Some(key), Some(16)) = (key, decoded.map(|key| key.len())) else {
        let why = "unable to upgrade: Sec-WebSocket-Key is not 16 bytes in base64";
        return Err(Refused::new(StatusCode::BAD_REQUEST, why));
    };
    let mut answer = upgrade("websocket");
    let proof = HeaderValue::from_str(&accept(key));
    let proof = proof.unwrap_or(HeaderValue::from_static(""));
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, proof);
    if words(headers, &SEC_WEBSOCKET_PROTOCOL).next().is_none() {
        return Ok((unasked, answer));
    }
    let chosen = first_known(headers, &SEC_WEBSOCKET_PROTOCOL, known);
    let (name, chosen) = chosen.ok_or_else(|| unknown(headers, &SEC_WEBSOCKET_PROTOCOL, known))?;
    let name = HeaderValue::from_static(name);
    answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, name);
    Ok((chosen, answer))
}

/// The proof for a key, as the protocol wants it: with SHA-1, which keeps no secret here.
fn accept(key: &[u8]) -> String {
    let text = [key, WEBSOCKET].concat();
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    STANDARD.encode(digest)
}

fn upgrade(to: &'static str) -> Answer {
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(to));
    answer
}
