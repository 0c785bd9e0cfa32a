//! A session from the upgrade on: the protocol that was agreed on, joined to the work that the request
//! was for, until one of them ends.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use crate::activity::{Activity, Hangup};
use crate::chunk::{Chunk, LargeChunks};
use crate::forward;
use crate::negotiate::{Remote, Speech};
use crate::process::{self, Client};
use crate::session::{Dial, Reading, Refusal, Start, Streams, Writing};
use crate::spdy::connection::{Connection, Judge, Opened};
use crate::spdy::frame;
use crate::spdy::headers::Headers;
use crate::spdy::input::Input;
use crate::status::{self, Purpose};
use crate::stop::{Cut, Stop};
use crate::stream::{Incoming, Outgoing, Unsent, Waits};
use crate::tally::Kind as SessionKind;
use crate::websocket::channels::Channels;
use crate::websocket::messages::{self, Messages};
use crate::wire::{Wire, Wrapping};

/// How long a client may take to leave after the last word. A close with something of the
/// client's unread would take that word away again.
const LINGER: Duration = Duration::from_secs(5);
/// The code of a WebSocket's end when all is well.
const NORMAL: u16 = 1000;

/// How long a session waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For the streams that a client opens.
    pub(crate) create: Duration,
    /// For anything to move.
    pub(crate) idle: Duration,
    /// For a forwarded connection that holds up the others.
    pub(crate) stuck: Duration,
}

/// An upgraded connection.
pub(crate) struct Link {
    pub(crate) reading: Reading,
    pub(crate) writing: Writing,
    pub(crate) hangup: Hangup,
    pub(crate) lender: LargeChunks,
}

/// The work of a session, and the protocol that was agreed on.
pub(crate) enum Work {
    /// Exec or attach.
    Process {
        purpose: Purpose,
        streams: Streams,
        start: Start,
        remote: Remote,
    },
    /// Port-forward.
    Ports {
        ports: Vec<u16>,
        dial: Dial,
        speech: Speech,
    },
}

type Done = BoxFuture<'static, io::Result<()>>;

impl Work {
    /// Does the work over a connection, until it is done or the client has left.
    ///
    /// # Errors
    /// When the connection breaks, or the client breaks the protocol.
    pub(crate) async fn run(self, link: Link, patience: Patience, stop: Stop) -> io::Result<()> {
        let Link {
            reading,
            writing,
            hangup,
            lender,
        } = link;
        let speech = self.speech();
        let wrapping = match speech {
            Speech::Tunnel => Wrapping::Tunnel,
            Speech::Spdy | Speech::Channels(_) => Wrapping::Bare,
        };
        let activity = Arc::new(Activity::default());
        let wire = Arc::new(Wire::new(writing, wrapping, Arc::clone(&activity), lender));
        let line = Line {
            wire: Arc::clone(&wire),
            activity: Arc::clone(&activity),
            speech,
            longest: patience.idle + LINGER,
        };
        let cut = Cut {
            stop,
            activity: Arc::clone(&activity),
            idle: patience.idle,
        };
        let waits = self.waits((hangup, patience), &wire);
        let messages = |reading| Messages::new(reading, Arc::clone(&wire), Arc::clone(&activity));
        let input = match speech {
            Speech::Channels(codec) => {
                let messages = messages(reading);
                let mut channels = Channels::new(messages, Arc::clone(&wire), waits, codec);
                let work = self.on_channels(&mut channels, cut)?;
                return line.drive(channels.run(), work).await;
            }
            Speech::Spdy => Input::socket(reading),
            Speech::Tunnel => Input::tunnel(messages(reading)),
        };
        let (connection, opened) = Connection::new(input, wire, (activity, waits), self.judge());
        let work = self.on_streams(opened, patience.create, cut);
        line.drive(connection.run(), work).await
    }

    pub(crate) fn kind(&self) -> SessionKind {
        match self {
            Self::Process {
                purpose: Purpose::Exec,
                ..
            } => SessionKind::Exec,
            Self::Process {
                purpose: Purpose::Attach,
                ..
            } => SessionKind::Attach,
            Self::Ports { .. } => SessionKind::PortForward,
        }
    }

    fn judge(&self) -> Judge {
        match self {
            Self::Process { .. } => |headers| kind(headers).is_some(),
            Self::Ports { .. } => forward::is_served,
        }
    }

    fn speech(&self) -> Speech {
        match self {
            Self::Process { remote, .. } => remote.speech,
            Self::Ports { speech, .. } => *speech,
        }
    }

    /// The connection as it waits for one of its streams. Streams of a process belong together.
    fn waits(&self, (hangup, patience): (Hangup, Patience), wire: &Arc<Wire>) -> Waits {
        let waits = Waits::new(hangup);
        let waits = match self.speech() {
            Speech::Spdy => waits,
            Speech::Tunnel | Speech::Channels(_) => waits.with_beats(wire),
        };
        match self {
            Self::Process { .. } => waits,
            Self::Ports { .. } => waits.with_patience(patience.stuck),
        }
    }

    /// The work over streams that a client opens.
    fn on_streams(self, opened: mpsc::Receiver<Opened>, create: Duration, cut: Cut) -> Done {
        match self {
            Self::Process {
                purpose,
                streams,
                start,
                remote,
            } => Box::pin(async move {
                let mut gathering = Gathering::of(streams, remote);
                if let Err(why) = gathering.gather(opened, create, cut.clone()).await {
                    return gathering.refuse(purpose, remote, why).await;
                }
                let client = gathering.client().ok_or(io::ErrorKind::NotFound)?;
                process::run(start, client, (remote.manner, purpose), cut).await
            }),
            Self::Ports { dial, .. } => Box::pin(unless_cut(cut, async move {
                forward::pairs(dial, opened, create).await;
                Ok(())
            })),
        }
    }

    /// The work over channels, which it makes.
    fn on_channels(self, channels: &mut Channels, cut: Cut) -> io::Result<Done> {
        let mut next = || channels.next().ok_or(io::ErrorKind::QuotaExceeded);
        match self {
            Self::Process {
                purpose,
                streams,
                start,
                remote,
            } => {
                let ((stdin, _), (_, stdout), (_, stderr)) = (next()?, next()?, next()?);
                let ((_, error), (resize, _)) = (next()?, next()?);
                let wanted = |which| streams.has(which);
                let client = Client {
                    stdin: wanted(Streams::STDIN).then_some(stdin),
                    stdout: wanted(Streams::STDOUT).then_some(stdout),
                    stderr: wanted(Streams::STDERR).then_some(stderr),
                    error,
                    resize: Some(resize),
                };
                Ok(Box::pin(async move {
                    let lowest = client.stdout.as_ref().or(client.stderr.as_ref());
                    let lowest = lowest.unwrap_or(&client.error);
                    // An empty message tells the client that it is connected.
                    if let Err(Unsent::Broken(error)) = lowest.send(&mut Chunk::of(b"")).await {
                        return Err(error);
                    }
                    process::run(start, client, (remote.manner, purpose), cut).await
                }))
            }
            Self::Ports { ports, dial, .. } => {
                let mut pairs = Vec::new();
                for port in ports {
                    let ((from_client, to_client), (_, error)) = (next()?, next()?);
                    pairs.push((port, from_client, to_client, error));
                }
                let forward = forward::channels(dial, pairs);
                Ok(Box::pin(unless_cut(cut, forward)))
            }
        }
    }
}

/// Forwards until the session is cut off. That is an error and no end, since it can come in the
/// middle of a frame, after which nothing more can be said.
async fn unless_cut(cut: Cut, forward: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    tokio::select! {
        done = forward => done,
        why = cut.reason() => Err(io::Error::other(why)),
    }
}

/// The streams of a process as clients name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Error,
    Stdin,
    Stdout,
    Stderr,
    Resize,
}

fn kind(headers: &Headers) -> Option<Kind> {
    Some(match headers.get("streamtype")? {
        "error" => Kind::Error,
        "stdin" => Kind::Stdin,
        "stdout" => Kind::Stdout,
        "stderr" => Kind::Stderr,
        "resize" => Kind::Resize,
        _ => return None,
    })
}

/// The streams of a process that a client opens one by one.
struct Gathering {
    missing: Vec<Kind>,
    found: Vec<(Kind, Incoming, Outgoing)>,
}

impl Gathering {
    fn of(streams: Streams, remote: Remote) -> Self {
        let has_size = streams.has(Streams::TERMINAL) && remote.resizes;
        let wanted = [
            (Kind::Error, true),
            (Kind::Stdin, streams.has(Streams::STDIN)),
            (Kind::Stdout, streams.has(Streams::STDOUT)),
            (Kind::Stderr, streams.has(Streams::STDERR)),
            (Kind::Resize, has_size),
        ];
        let missing = wanted.iter().filter(|(_, is)| *is).map(|(kind, _)| *kind);
        Self {
            missing: missing.collect(),
            found: Vec::new(),
        }
    }

    /// Waits until a client has opened all of the streams that the request was for.
    ///
    /// # Errors
    /// The reason why it waits no longer.
    async fn gather(
        &mut self,
        mut opened: mpsc::Receiver<Opened>,
        within: Duration,
        cut: Cut,
    ) -> Result<(), &'static str> {
        let mut cut = pin!(cut.reason());
        let until = Instant::now() + within;
        while !self.missing.is_empty() {
            let stream = tokio::select! {
                stream = timeout_at(until, opened.recv()) => stream,
                why = &mut cut => return Err(why),
            };
            let stream = stream.map_err(|_| "the client opened too few streams")?;
            let stream = stream.ok_or("the client has left")?;
            // A stream that nobody asked for is accepted, and nothing comes of it.
            if let Some(kind) = kind(&stream.headers)
                && let Some(at) = self.missing.iter().position(|missing| *missing == kind)
            {
                self.missing.swap_remove(at);
                self.found.push((kind, stream.incoming, stream.outgoing));
            }
        }
        Ok(())
    }

    fn take(&mut self, kind: Kind) -> Option<(Incoming, Outgoing)> {
        let at = self.found.iter().position(|(found, _, _)| *found == kind)?;
        let (_, incoming, outgoing) = self.found.swap_remove(at);
        Some((incoming, outgoing))
    }

    fn client(mut self) -> Option<Client> {
        let (_, error) = self.take(Kind::Error)?;
        Some(Client {
            stdin: self.take(Kind::Stdin).map(|(incoming, _)| incoming),
            stdout: self.take(Kind::Stdout).map(|(_, outgoing)| outgoing),
            stderr: self.take(Kind::Stderr).map(|(_, outgoing)| outgoing),
            error,
            resize: self.take(Kind::Resize).map(|(incoming, _)| incoming),
        })
    }

    /// Tells why nothing was started, where there is a stream for it.
    async fn refuse(mut self, purpose: Purpose, remote: Remote, why: &str) -> io::Result<()> {
        let Some((_, error)) = self.take(Kind::Error) else {
            return Err(io::Error::other(why.to_owned()));
        };
        let refusal = Refusal(why.to_owned());
        let word = status::of_refusal(remote.manner, purpose, &refusal);
        match error.send_last(&word).await {
            Err(Unsent::Broken(error)) => Err(error),
            Ok(()) | Err(Unsent::Reset) => Ok(()),
        }
    }
}

/// The parts of a connection that outlive its work.
struct Line {
    wire: Arc<Wire>,
    activity: Arc<Activity>,
    speech: Speech,
    /// A client that has not taken the last word after this time is left.
    longest: Duration,
}

impl Line {
    /// Reads and works, until the work is done or the client has left.
    async fn drive(
        &self,
        reading: impl Future<Output = io::Result<()>>,
        work: Done,
    ) -> io::Result<()> {
        let mut reading = pin!(reading);
        tokio::select! {
            left = &mut reading => return left,
            done = work => done?,
            () = self.activity.idle(self.longest) => return Err(io::ErrorKind::TimedOut.into()),
        }
        let leave = async { tokio::try_join!(self.say_goodbye(), reading) };
        // A client that does not leave in time is left.
        drop(timeout(LINGER, leave).await);
        Ok(())
    }

    async fn say_goodbye(&self) -> io::Result<()> {
        if let Speech::Spdy | Speech::Tunnel = self.speech {
            self.wire.send(&mut Chunk::of(&frame::go_away(0))).await?;
        }
        if let Speech::Tunnel | Speech::Channels(_) = self.speech {
            self.wire.send_bare(&messages::close(NORMAL)).await?;
        }
        self.wire.finish().await
    }
}
