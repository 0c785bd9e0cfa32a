//! The master of a terminal as streams. Its descriptor is one for both directions, and the end of
//! one is no end of the other: shutting the input down closes nothing.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crisp_sys::pipe::set_nonblocking;
use crisp_sys::pty;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The master of a terminal; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    /// Takes a master.
    pub(super) fn new(master: OwnedFd) -> io::Result<Self> {
        set_nonblocking(&master)?;
        #[expect(
            deprecated,
            reason = "sound for what owns one descriptor for life; the new one is unsafe"
        )]
        let watched = AsyncFd::new(master)?;
        Ok(Self(Arc::new(watched)))
    }

    /// Sets its size. A terminal that is gone has none.
    pub(super) fn resize(&self, columns: u16, rows: u16) {
        drop(pty::set_size(self.0.get_ref(), rows, columns));
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match ready.try_io(|master| Ok(rustix::io::read(master.get_ref(), room)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // That is how a terminal says that nobody has its other end open.
                Ok(Err(error)) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            match ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use rustix::termios::tcgetwinsize;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn a_terminal_is_read_written_and_sized_until_its_other_end_is_closed() {
        let (master, _) = pty::open().unwrap();
        let other = pty::peer(&master).unwrap();
        let mut terminal = Terminal::new(master).unwrap();
        let mut input = terminal.clone();
        terminal.resize(132, 43);
        let size = tcgetwinsize(other.as_fd()).unwrap();
        assert_eq!((size.ws_col, size.ws_row), (132, 43));
        // Nothing is there yet, so the reader waits to be woken.
        let reading = async {
            let mut echo = [0; 4];
            terminal.read_exact(&mut echo).await.unwrap();
            echo
        };
        let writing = async {
            tokio::task::yield_now().await;
            input.write_all(b"ab\n").await.unwrap();
            input.shutdown().await.unwrap();
        };
        let both = async { tokio::join!(reading, writing).0 };
        let echo = tokio::time::timeout(Duration::from_secs(20), both).await;
        assert_eq!(&echo.unwrap(), b"ab\r\n");
        rustix::io::write(&other, b"last").unwrap();
        drop(other);
        let mut rest = Vec::new();
        terminal.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"last");
    }
}
