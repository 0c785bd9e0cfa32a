//! The server: its address, its URLs, and the connections that come.

use std::convert::Infallible;
use std::io::{self, Cursor};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crisp_tasks::{Worker, Workers};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::Span;

use crate::activity::Hangup;
use crate::chunk::LargeChunks;
use crate::error::{Context, Error, Result};
use crate::http::{Admitted, answer};
use crate::session::{Dial, Reading, Start, Streams, Writing};
use crate::status::Purpose;
use crate::stop::Stop;
use crate::strangers::{Seat, Strangers};
use crate::tally::{Sessions, Tally};
use crate::tls::{Certificate, TlsFiles};
use crate::tokens::Tokens;
use crate::work::{Link, Patience, Work};

/// How long a stranger may take for TLS, and for the head of its request.
const INTRODUCTION: Duration = Duration::from_secs(3);
/// Largest head of a request.
const MAX_HEAD: usize = 16 << 10;
/// How long to wait when the system has no descriptor for a connection.
const RETRY: Duration = Duration::from_millis(100);
/// How often requests whose time is over are dropped.
const SWEEP: Duration = Duration::from_secs(60);
/// A client whose machine is gone is given up after this, and as many probes.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// The settings of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The beginning of URLs, such as `https://10.0.0.7:1234`, where clients reach the server by
    /// another address than it listens on.
    pub base: Option<String>,
    /// The certificate; without one the server speaks no TLS.
    pub tls: Option<TlsFiles>,
    /// How long a client may take to open its streams.
    pub create: Duration,
    /// How long a session may go without anything that moves.
    pub idle: Duration,
    /// How long a forwarded connection whose program reads nothing may hold up the others of its
    /// client, before it is reset.
    pub stuck: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            base: None,
            tls: None,
            create: Duration::from_secs(30),
            idle: Duration::from_secs(4 * 60 * 60),
            stuck: Duration::from_secs(30),
        }
    }
}

/// The server. Dropping it ends all sessions without a word.
pub struct Server {
    tokens: Arc<Tokens<Admitted>>,
    address: SocketAddr,
    base: String,
    tally: Tally,
    stop: watch::Sender<bool>,
    _accepting: Worker<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Listens, and serves from then on.
    ///
    /// # Errors
    /// When the address cannot be had, or the certificate cannot be used.
    pub async fn start(config: Config) -> Result<Self> {
        let certificate = match config.tls {
            Some(files) => {
                let load = crisp_tasks::blocking(move || Certificate::load(files)).await;
                let loaded =
                    load.context(|| ("load", "the certificate of the streaming server"))?;
                Some(Arc::new(loaded?))
            }
            None => None,
        };
        let failed = |source| Error::Listen {
            address: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let scheme = if certificate.is_some() {
            "https"
        } else {
            "http"
        };
        let base = config.base.unwrap_or(format!("{scheme}://{address}"));
        let tokens = Arc::new(Tokens::default());
        let (teller, stop) = Stop::new();
        let tally = Tally::default();
        let door = Door {
            tokens: Arc::clone(&tokens),
            tally: tally.clone(),
            certificate,
            patience: Patience {
                create: config.create,
                idle: config.idle,
                stuck: config.stuck,
            },
            stop,
            lender: LargeChunks::default(),
        };
        Ok(Self {
            tokens,
            address,
            tally,
            base: base.trim_end_matches('/').to_owned(),
            stop: teller,
            _accepting: Worker::start(door.accept(listener)),
        })
    }

    /// Ends all sessions, each with a last word to its client, as far as there is time for it. No
    /// client is let in any more.
    pub async fn stop(&self, within: Duration) {
        self.stop.send_replace(true);
        // Each session has a part of this channel until its end.
        timeout(within, self.stop.closed()).await.ok();
    }

    /// How many sessions there are, and how many have begun.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        self.tally.sessions()
    }

    /// The address that the server listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL for a client to run a command; `start` is called when it has come.
    ///
    /// # Errors
    /// When a thousand requests wait for their clients.
    pub fn exec(&self, streams: Streams, start: Start) -> Result<String> {
        self.process(Purpose::Exec, streams, start)
    }

    /// The URL for a client to attach; `start` is called when it has come.
    ///
    /// # Errors
    /// When a thousand requests wait for their clients.
    pub fn attach(&self, streams: Streams, start: Start) -> Result<String> {
        self.process(Purpose::Attach, streams, start)
    }

    /// The URL for a client to reach ports of a pod. `ports` are those of the request, which most
    /// clients leave empty: they name one with each connection.
    ///
    /// # Errors
    /// When a thousand requests wait for their clients.
    pub fn port_forward(&self, ports: Vec<u16>, dial: Dial) -> Result<String> {
        self.url(Admitted::Ports { ports, dial })
    }

    fn process(&self, purpose: Purpose, streams: Streams, start: Start) -> Result<String> {
        self.url(Admitted::Process {
            purpose,
            streams,
            start,
        })
    }

    fn url(&self, admitted: Admitted) -> Result<String> {
        let place = admitted.place();
        let token = self.tokens.issue(admitted, Instant::now())?;
        Ok(format!("{}/{place}/{token}", self.base))
    }
}

/// The part of a server that meets connections.
#[derive(Clone)]
struct Door {
    tokens: Arc<Tokens<Admitted>>,
    tally: Tally,
    certificate: Option<Arc<Certificate>>,
    patience: Patience,
    stop: Stop,
    lender: LargeChunks,
}

impl Door {
    async fn accept(self, listener: TcpListener) {
        let strangers = Strangers::default();
        let mut workers = Workers::default();
        let mut sweep = interval(SWEEP);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((socket, from)) => {
                        let met = self.clone().meet(socket, strangers.seat());
                        workers.start(from, Span::none(), met);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the streaming server cannot accept a connection");
                        sleep(RETRY).await;
                    }
                },
                (from, ended) = workers.next() => told(from, ended),
                () = self.stop.clone().told() => break,
                _ = sweep.tick() => self.tokens.forget_old(Instant::now()),
            }
        }
        while !workers.is_empty() {
            let (from, ended) = workers.next().await;
            told(from, ended);
        }
    }

    /// Serves a connection to its end.
    async fn meet(self, socket: TcpStream, mut seat: Seat) -> io::Result<()> {
        let found = Found::default();
        let mut introduction = pin!(self.introduce(socket, &found));
        let away = async {
            tokio::select! {
                () = seat.is_taken_away() => {}
                () = self.stop.clone().told() => {}
            }
        };
        let link = tokio::select! {
            link = &mut introduction => link?,
            // A client that was let in a moment ago is no stranger: it is told as a session.
            () = away => match found.is_there() {
                true => introduction.await?,
                false => return Ok(()),
            },
        };
        drop(seat);
        match found.take() {
            Some(work) => {
                let _counted = self.tally.begin(work.kind());
                work.run(link, self.patience, self.stop.clone()).await
            }
            None => Ok(()),
        }
    }

    /// Reads the request, and answers it.
    async fn introduce(&self, socket: TcpStream, found: &Found) -> io::Result<Link> {
        socket.set_nodelay(true)?;
        let (idle, between, probes) = KEEPALIVE;
        sockopt::set_socket_keepalive(&socket, true)?;
        sockopt::set_tcp_keepidle(&socket, idle)?;
        sockopt::set_tcp_keepintvl(&socket, between)?;
        sockopt::set_tcp_keepcnt(&socket, probes)?;
        let watched = std::os::fd::AsFd::as_fd(&socket).try_clone_to_owned()?;
        let hangup = Hangup::of(Some(watched));
        let Some(certificate) = self.certificate.clone() else {
            return self
                .hear(socket, TcpStream::into_split, (hangup, found))
                .await;
        };
        let config = crisp_tasks::blocking(move || certificate.config()).await;
        let config = config.map_err(io::Error::other)?;
        let secured = TlsAcceptor::from(config).accept(socket);
        let secured = timeout(INTRODUCTION, secured).await??;
        self.hear(secured, tokio::io::split, (hangup, found)).await
    }

    async fn hear<S, R, W>(
        &self,
        socket: S,
        split: fn(S) -> (R, W),
        (hangup, found): (Hangup, &Found),
    ) -> io::Result<Link>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (kept, tokens) = (found.clone(), Arc::clone(&self.tokens));
        let service = service_fn(move |request| {
            let (answer, work) = answer(&request, &tokens);
            kept.put(work);
            std::future::ready(Ok::<_, Infallible>(answer))
        });
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(INTRODUCTION)
            .max_buf_size(MAX_HEAD)
            .serve_connection(TokioIo::new(socket), service);
        let parts = serving.without_shutdown().await.map_err(io::Error::other)?;
        let (reading, writing) = split(parts.io.into_inner());
        let reading: Reading = if parts.read_buf.is_empty() {
            Box::new(reading)
        } else {
            Box::new(Cursor::new(parts.read_buf).chain(reading))
        };
        let writing: Writing = Box::new(writing);
        Ok(Link {
            reading,
            writing,
            hangup,
            lender: self.lender.clone(),
        })
    }
}

/// The work that a connection's request stands for, once it was found.
#[derive(Clone, Default)]
struct Found(Arc<Mutex<Option<Work>>>);

impl Found {
    fn put(&self, work: Option<Work>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = work;
    }

    fn is_there(&self) -> bool {
        let work = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        work.is_some()
    }

    fn take(&self) -> Option<Work> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Tells of a connection that ended badly, to whoever looks for the reason: clients that leave are
/// nothing special.
fn told(from: SocketAddr, ended: std::result::Result<io::Result<()>, crisp_tasks::Failed>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(client = %from, %error, "a streaming connection broke"),
        Err(error) => tracing::error!(client = %from, %error, "a streaming session failed"),
    }
}
