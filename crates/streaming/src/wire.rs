//! The sending side of a connection. Frames go out whole, one after another, and each sender waits
//! for the client to take its own: so a client that is slow slows down whoever writes to it, and
//! nothing is queued.

use std::io;
use std::sync::Arc;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::Mutex;

use crate::activity::Activity;
use crate::chunk::{Chunk, LargeChunks};
use crate::session::Writing;
use crate::websocket::frame::{self, Opcode};

/// How frames lie on the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrapping {
    /// As they are.
    Bare,
    /// SPDY's frames, each in a WebSocket message.
    Tunnel,
}

/// The socket, and whether a frame was begun on it and not ended: nothing can follow that.
struct Socket {
    writing: Writing,
    torn: bool,
}

/// The sending side.
pub(crate) struct Wire {
    socket: Mutex<Socket>,
    wrapping: Wrapping,
    activity: Arc<Activity>,
    lender: LargeChunks,
}

impl Wire {
    pub(crate) fn new(
        socket: Writing,
        wrapping: Wrapping,
        activity: Arc<Activity>,
        lender: LargeChunks,
    ) -> Self {
        Self {
            socket: Mutex::new(Socket {
                writing: socket,
                torn: false,
            }),
            wrapping,
            activity,
            lender,
        }
    }

    /// A chunk to be filled from a stream and sent here.
    pub(crate) fn chunk(&self) -> Chunk {
        Chunk::lent_by(&self.lender)
    }

    /// Sends a frame, in a message where the connection is a tunnel.
    pub(crate) async fn send(&self, chunk: &mut Chunk) -> io::Result<()> {
        if self.wrapping == Wrapping::Tunnel {
            let (head, length) = frame::head(Opcode::Binary, chunk.as_slice().len());
            chunk.prepend(&head[..length]);
        }
        self.send_bare(chunk.as_slice()).await
    }

    /// Sends a frame of the connection's own. A sender that is dropped half-way ends the connection
    /// for all others.
    pub(crate) async fn send_bare(&self, frame: &[u8]) -> io::Result<()> {
        self.put(frame).await?;
        self.activity.touch();
        Ok(())
    }

    /// Sends a small frame that only says that this side is there, which is no sign of life of a
    /// session.
    pub(crate) async fn put(&self, frame: &[u8]) -> io::Result<()> {
        let mut socket = self.socket.lock().await;
        let Socket { writing, torn } = &mut *socket;
        if *torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut left = frame;
        while !left.is_empty() {
            // Until it has taken something, a sender may still be dropped.
            let written = writing.write(left).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = &left[written..];
            *torn = !left.is_empty();
        }
        writing.flush().await
    }

    /// Nothing will be sent any more; what was sent still arrives.
    pub(crate) async fn finish(&self) -> io::Result<()> {
        self.socket.lock().await.writing.shutdown().await
    }
}
