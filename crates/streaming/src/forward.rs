//! Port-forward: connections into a pod joined to streams of a client. A connection has two, one for
//! its data and one for the reason why it failed.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use crisp_tasks::Workers;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tracing::Span;

use crate::chunk::Chunk;
use crate::session::{Connection, Dial, Reading, Writing};
use crate::spdy::connection::Opened;
use crate::spdy::headers::Headers;
use crate::stream::{Incoming, Outgoing, Unsent};

/// Once the pod is over no more than this is passed on, for a program that is none of the pod's and
/// writes without an end: more than the sockets of a connection hold.
const REST: usize = 8 << 20;

/// Once the pod is over its client has this long to take what is left. A connection keeps the
/// network that it is in, however little moves on it.
const REST_WITHIN: Duration = Duration::from_secs(5);

/// When a forwarded connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// Both sides have closed: each side's end is told to the other.
    Both,
    /// The pod has closed: on channels nothing tells an end.
    Pod,
}

/// One connection to forward.
pub(crate) struct Forward {
    port: u16,
    from_client: Incoming,
    to_client: Outgoing,
    error: Outgoing,
    ends: Ends,
}

impl Forward {
    #[cfg(any(test, fuzzing))]
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Connects and passes data on, until it is over, the pod is, or the client resets it. These are
    /// looked at between frames: one that is on its way has to go out whole, unless the pod is over
    /// for long.
    async fn run(self, dial: Dial) {
        let Self {
            port,
            from_client,
            to_client,
            error,
            ends,
        } = self;
        let resets = from_client.resets();
        let Some(dialled) = unless_told(&resets, dial(port)).await else {
            return;
        };
        let said = match dialled {
            Ok(Connection {
                reading,
                writing,
                over,
            }) => {
                let (teller, ended) = watch::channel(false);
                let ending = async {
                    let is_over = unless_told(&resets, over).await.is_some();
                    teller.send_replace(true);
                    if !is_over {
                        std::future::pending::<()>().await;
                    }
                    sleep(REST_WITHIN).await;
                };
                let passing = async {
                    let down = down(reading, &to_client, &ended);
                    let up = unless_told(&ended, up(from_client, writing));
                    match ends {
                        Ends::Both => drop(tokio::join!(down, up)),
                        Ends::Pod => {
                            let up = async {
                                up.await;
                                std::future::pending::<()>().await;
                            };
                            tokio::select! { () = down => {}, () = up => {} }
                        }
                    }
                };
                tokio::select! { () = passing => {}, () = ending => {} }
                // Clients have no word on channels to reset one.
                match ends == Ends::Pod && *resets.borrow() {
                    true => format!("error forwarding port {port}: its program takes no data"),
                    false => String::new(),
                }
            }
            Err(refusal) => {
                to_client.close().await.ok();
                format!("error forwarding port {port}: {refusal}")
            }
        };
        // The connection may be broken by now, or the client may have left the stream.
        error.send_last(said.as_bytes()).await.ok();
    }
}

/// Waits for something, unless the end is told first: the client resets the stream, or the pod is
/// over.
async fn unless_told<T>(
    ends: &watch::Receiver<bool>,
    something: impl Future<Output = T>,
) -> Option<T> {
    let mut ends = ends.clone();
    let end = async {
        if ends.wait_for(|end| *end).await.is_err() {
            // It can be told no more.
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        something = something => Some(something),
        () = end => None,
    }
}

/// Passes on data of the pod, and its end. A connection that breaks ends like one that is closed: an
/// error makes clients give up all of their connections.
///
/// The last words of programs that ended with their pod are there to be read when the pod is over,
/// and are passed on too.
async fn down(mut from: Reading, to: &Outgoing, ends: &watch::Receiver<bool>) {
    let mut chunk = to.chunk();
    let mut rest = REST;
    while let Some(Ok(read @ 1..)) = unless_told(ends, chunk.fill(&mut from)).await {
        if *ends.borrow() {
            match rest.checked_sub(read) {
                Some(left) => rest = left,
                None => break,
            }
        }
        if to.send(&mut chunk).await.is_err() {
            return;
        }
    }
    to.close().await.ok();
}

/// Passes on data of the client, and its end.
async fn up(mut from: Incoming, mut to: Writing) {
    while let Some(piece) = from.next().await {
        if to.write_all(&piece).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    // The pod may have closed before.
    to.shutdown().await.ok();
}

/// Forwards the ports of a client with channels: two for each, which begin with the port.
///
/// # Errors
/// When the connection is broken.
pub(crate) async fn channels(
    dial: Dial,
    pairs: Vec<(u16, Incoming, Outgoing, Outgoing)>,
) -> io::Result<()> {
    let mut workers = Workers::default();
    for (port, from_client, to_client, error) in pairs {
        for stream in [&to_client, &error] {
            let begun = stream.send(&mut Chunk::of(&port.to_le_bytes())).await;
            if let Err(Unsent::Broken(error)) = begun {
                return Err(error);
            }
        }
        let forward = Forward {
            port,
            from_client,
            to_client,
            error,
            ends: Ends::Pod,
        };
        workers.start(port, Span::current(), forward.run(dial.clone()));
    }
    while !workers.is_empty() {
        told(workers.next().await);
    }
    Ok(())
}

/// A panic is told in the log: nobody waits for the one connection.
fn told((port, outcome): (u16, Result<(), crisp_tasks::Failed>)) {
    if let Err(error) = outcome {
        tracing::error!(port, %error, "the forwarding of a connection failed");
    }
}

/// The kinds of streams of a connection.
const DATA: &str = "data";
const ERROR: &str = "error";
const KIND: &str = "streamtype";
const PORT: &str = "port";
const REQUEST: &str = "requestid";

/// Whether a stream with such headers can belong to a connection.
pub(crate) fn is_served(headers: &Headers) -> bool {
    port(headers).is_some() && matches!(headers.get(KIND), Some(DATA | ERROR))
}

fn port(headers: &Headers) -> Option<u16> {
    let port = headers.get(PORT)?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    port.parse().ok().filter(|port| *port > 0 && digits)
}

/// The two streams of a connection have this in common. Old clients do not say it; then the error
/// stream comes first and the data stream is the next.
fn request(opened: &Opened) -> String {
    match opened.headers.get(REQUEST) {
        Some(request) if !request.is_empty() => request.to_owned(),
        _ if opened.headers.get(KIND) == Some(ERROR) => format!("stream {}", opened.id),
        _ => format!("stream {}", opened.id.wrapping_sub(2)),
    }
}

/// A connection of which one stream has come.
pub(crate) struct Half {
    until: Instant,
    stream: Opened,
}

/// Forwards the connections for which a client opens pairs of streams, until it is dropped.
pub(crate) async fn pairs(dial: Dial, mut opened: mpsc::Receiver<Opened>, within: Duration) {
    let mut halves: BTreeMap<String, Half> = BTreeMap::new();
    let mut workers = Workers::default();
    loop {
        let first = halves.iter().min_by_key(|(_, half)| half.until);
        let late = first.map(|(request, half)| (request.clone(), half.until));
        let until = late.as_ref().map(|(_, until)| *until);
        tokio::select! {
            stream = opened.recv() => {
                let Some(stream) = stream else {
                    return;
                };
                if let Some(forward) = pair(&mut halves, stream, within).await {
                    let port = forward.port;
                    workers.start(port, Span::current(), forward.run(dial.clone()));
                }
            }
            outcome = workers.next() => told(outcome),
            () = due(until) => {
                if let Some(half) = late.and_then(|(request, _)| halves.remove(&request)) {
                    refuse(&half.stream, "timed out waiting for streams").await;
                }
            }
        }
    }
}

async fn due(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Joins a stream to the other of its connection, or keeps it until that comes.
pub(crate) async fn pair(
    halves: &mut BTreeMap<String, Half>,
    stream: Opened,
    within: Duration,
) -> Option<Forward> {
    let request = request(&stream);
    let Some(half) = halves.remove(&request) else {
        let until = Instant::now() + within;
        halves.insert(request, Half { until, stream });
        return None;
    };
    let (one, other) = (half.stream.headers.get(KIND), stream.headers.get(KIND));
    let (data, error) = match (one, other) {
        (Some(DATA), Some(ERROR)) => (half.stream, stream),
        (Some(ERROR), Some(DATA)) => (stream, half.stream),
        _ => {
            let why = format!("error processing stream for request {request}: it came twice");
            refuse(&half.stream, &why).await;
            refuse(&stream, &why).await;
            return None;
        }
    };
    let port = port(&data.headers)?;
    Some(Forward {
        port,
        from_client: data.incoming,
        to_client: data.outgoing,
        error: error.outgoing,
        ends: Ends::Both,
    })
}

/// Tells why a stream is not served, where it is one for errors, and resets it.
async fn refuse(stream: &Opened, why: &str) {
    if stream.headers.get(KIND) == Some(ERROR) {
        stream.outgoing.send_last(why.as_bytes()).await.ok();
    }
    stream.outgoing.refuse().await.ok();
}
