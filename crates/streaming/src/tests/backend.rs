//! A process that a test plays: it holds the far ends of a session's streams.

use std::sync::Arc;

use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::{Connection, Dial, End, Refusal, Session, Size, Start};

/// The far ends.
pub(super) struct Played {
    pub(super) stdin: DuplexStream,
    pub(super) stdout: DuplexStream,
    pub(super) stderr: DuplexStream,
    pub(super) sizes: mpsc::UnboundedReceiver<Size>,
    pub(super) end: oneshot::Sender<End>,
    /// Ready when the session was dropped.
    pub(super) dropped: oneshot::Receiver<()>,
}

impl Played {
    /// Ends the process; what it has written stays.
    pub(super) fn exit(self, code: u8) -> oneshot::Receiver<()> {
        self.end.send(End::Exited(code)).unwrap();
        self.dropped
    }
}

/// A process to start.
pub(super) fn played() -> (Start, Played) {
    let (stdin, near_stdin) = duplex(64 << 10);
    let (stdout, near_stdout) = duplex(64 << 10);
    let (stderr, near_stderr) = duplex(64 << 10);
    let (size, sizes) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel();
    let (guard, dropped) = oneshot::channel::<()>();
    let start = move || {
        let session = Session {
            stdin: Some(Box::new(near_stdin)),
            stdout: Some(Box::new(near_stdout)),
            stderr: Some(Box::new(near_stderr)),
            resize: Some(Box::new(move |new| size.send(new).unwrap())),
            end: Box::pin(async move {
                let _guard = guard;
                ended.await.unwrap_or(End::Lost("lost".to_owned()))
            }),
        };
        let started: futures::future::BoxFuture<'static, _> = Box::pin(async { Ok(session) });
        started
    };
    let played = Played {
        stdin,
        stdout,
        stderr,
        sizes,
        end,
        dropped,
    };
    (Box::new(start), played)
}

/// A process that cannot be started.
pub(super) fn refused(why: &str) -> Start {
    let refusal = Refusal(why.to_owned());
    Box::new(move || Box::pin(async move { Err(refusal) }))
}

/// As many bytes are to be read at once from port 92.
pub(super) const LAST_WORDS: usize = 1 << 20;

/// A pod whose port 80 echoes, up to the end, whose port 90 sends without one, whose port 91 reads
/// nothing and whose port 92 has sent something; every other port refuses.
pub(super) async fn pod() -> Dial {
    pod_until(watch::channel(false).1).await
}

/// The same, until it is told that it is over.
pub(super) async fn pod_until(ends: watch::Receiver<bool>) -> Dial {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut reading, mut writing) = socket.into_split();
                tokio::io::copy(&mut reading, &mut writing).await.ok();
            });
        }
    });
    Arc::new(move |port| {
        let mut ends = ends.clone();
        let over = Box::pin(async move {
            if ends.wait_for(|end| *end).await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        Box::pin(async move {
            if port == 90 {
                return Ok(Connection {
                    reading: Box::new(tokio::io::repeat(7)),
                    writing: Box::new(tokio::io::sink()),
                    over,
                });
            }
            if port == 91 {
                let ((near, unread), (far, silent)) = (duplex(1), duplex(1));
                return Ok(Connection {
                    reading: Box::new(far),
                    writing: Box::new(near),
                    over: Box::pin(async move {
                        over.await;
                        drop((unread, silent));
                    }),
                });
            }
            if port == 92 {
                let (mut near, far) = duplex(LAST_WORDS);
                near.write_all(&[7; LAST_WORDS]).await.unwrap();
                return Ok(Connection {
                    reading: Box::new(far),
                    writing: Box::new(near),
                    over,
                });
            }
            if port != 80 {
                return Err(Refusal(format!("port {port} is closed")));
            }
            let socket = tokio::net::TcpStream::connect(address).await.unwrap();
            let (reading, writing) = socket.into_split();
            Ok(Connection {
                reading: Box::new(reading),
                writing: Box::new(writing),
                over,
            })
        })
    })
}
