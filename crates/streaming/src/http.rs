//! One HTTP request: its path to the request that a door has let in, its headers to a protocol.

use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode};

use crate::negotiate::{self, Answer, Refused, Speech};
use crate::session::{Dial, Start, Streams};
use crate::status::Purpose;
use crate::tokens::Tokens;
use crate::websocket::channels::Codec;
use crate::work::Work;

/// A request that a door has let in.
pub(crate) enum Admitted {
    /// Exec or attach.
    Process {
        purpose: Purpose,
        streams: Streams,
        start: Start,
    },
    /// Port-forward.
    Ports { ports: Vec<u16>, dial: Dial },
}

impl Admitted {
    /// The first part of its path.
    pub(crate) fn place(&self) -> &'static str {
        match self {
            Self::Process {
                purpose: Purpose::Exec,
                ..
            } => "exec",
            Self::Process {
                purpose: Purpose::Attach,
                ..
            } => "attach",
            Self::Ports { .. } => "portforward",
        }
    }
}

/// Answers a request. With an answer that switches protocols there is work.
pub(crate) fn answer<B>(
    request: &Request<B>,
    tokens: &Arc<Tokens<Admitted>>,
) -> (Answer, Option<Work>) {
    match admit(request, tokens) {
        Ok((answer, work)) => (answer, Some(work)),
        Err(refused) => (refused.answer(), None),
    }
}

fn admit<B>(request: &Request<B>, tokens: &Tokens<Admitted>) -> Result<(Answer, Work), Refused> {
    if !matches!(*request.method(), Method::GET | Method::POST) {
        let why = "use GET or POST";
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, why));
    }
    let unknown = || {
        let why = "no such streaming request: its URL was used before, or is older than a minute";
        Refused::new(StatusCode::NOT_FOUND, why)
    };
    let path = request.uri().path().strip_prefix('/').unwrap_or_default();
    let (place, token) = path.split_once('/').ok_or_else(unknown)?;
    // A token is spent by its first use, however that ends.
    let admitted = tokens.redeem(token, Instant::now()).ok_or_else(unknown)?;
    if admitted.place() != place {
        return Err(unknown());
    }
    match admitted {
        Admitted::Process {
            purpose,
            streams,
            start,
        } => {
            let (remote, answer) = negotiate::for_process(request.headers())?;
            let work = Work::Process {
                purpose,
                streams,
                start,
                remote,
            };
            Ok((answer, work))
        }
        Admitted::Ports { ports, dial } => {
            let (speech, answer) = negotiate::for_ports(request.headers())?;
            let ports = match speech {
                Speech::Channels(codec) => ports_for_channels(ports, request.uri().query(), codec)?,
                Speech::Spdy | Speech::Tunnel => ports,
            };
            let work = Work::Ports {
                ports,
                dial,
                speech,
            };
            Ok((answer, work))
        }
    }
}

/// The ports of a client with channels: those of its CRI request, else those that its URL names.
/// Each takes two channels, whose number is a byte, or a digit where messages are text.
fn ports_for_channels(
    ports: Vec<u16>,
    query: Option<&str>,
    codec: Codec,
) -> Result<Vec<u16>, Refused> {
    let named = || {
        let pairs = query.unwrap_or_default().split('&');
        let values = pairs.filter_map(|pair| pair.strip_prefix("port="));
        let named = values.flat_map(|value| value.split(','));
        let parsed = named.map(|port| port.parse().ok().filter(|port| *port > 0));
        parsed.collect::<Option<Vec<u16>>>()
    };
    let ports = match ports.is_empty() {
        true => named().unwrap_or_default(),
        false => ports,
    };
    let most = match codec {
        Codec::Binary | Codec::Closing => 127,
        Codec::Base64 => 5,
    };
    if (1..=most).contains(&ports.len()) {
        return Ok(ports);
    }
    let why = "over channels the ports are named before: in the CRI request, or as \
               `?port=8080,9090`, 127 at most, and 5 in base64";
    Err(Refused::new(StatusCode::BAD_REQUEST, why))
}
