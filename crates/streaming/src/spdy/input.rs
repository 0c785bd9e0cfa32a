//! The bytes of a SPDY connection: those of a socket, or the content of WebSocket messages, whose
//! borders mean nothing.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _};

use crate::session::Reading;
use crate::socket::{self, Socket};
use crate::websocket::messages::Messages;

/// Where a connection's frames come from.
pub(crate) enum Input {
    /// A socket.
    Socket(Socket),
    /// WebSocket messages, and what is left of the last piece.
    Tunnel(Messages, Bytes),
}

impl Input {
    pub(crate) fn socket(socket: Reading) -> Self {
        Self::Socket(socket::buffered(socket))
    }

    pub(crate) fn tunnel(messages: Messages) -> Self {
        Self::Tunnel(messages, Bytes::new())
    }

    /// Waits until something is there, or the end; it can be dropped while it waits on a socket.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        match self {
            Self::Socket(socket) => socket.fill_buf().await.map(drop),
            Self::Tunnel(messages, piece) => {
                while piece.is_empty() {
                    let Some(next) = messages.piece(socket::BUFFER).await? else {
                        return Ok(());
                    };
                    *piece = next.data;
                }
                Ok(())
            }
        }
    }

    /// Some bytes, at most `most`; none at the end.
    pub(crate) async fn some(&mut self, most: usize) -> io::Result<Bytes> {
        match self {
            Self::Socket(socket) => Ok(socket::some(socket, most).await?.freeze()),
            Self::Tunnel(messages, piece) => {
                while piece.is_empty() {
                    let Some(next) = messages.piece(most).await? else {
                        return Ok(Bytes::new());
                    };
                    *piece = next.data;
                }
                Ok(piece.split_to(piece.len().min(most)))
            }
        }
    }

    /// Fills `bytes`. `false` when the input ends before the first of them.
    pub(crate) async fn exact(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            let rest = &mut bytes[filled..];
            let read = match self {
                Self::Socket(socket) => socket.read(rest).await?,
                Self::Tunnel(..) => {
                    let some = self.some(rest.len()).await?;
                    rest[..some.len()].copy_from_slice(&some);
                    some.len()
                }
            };
            if read == 0 {
                return if filled == 0 {
                    Ok(false)
                } else {
                    Err(io::ErrorKind::UnexpectedEof.into())
                };
            }
            filled += read;
        }
        Ok(true)
    }
}
