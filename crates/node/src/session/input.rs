//! Standard input of a process, by the write end of its pipe. The process reads an end once all
//! write ends are closed: the writer closes its own by shutting it down or being dropped, and a
//! container's input that is closed for all takes it from the writer.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::AsyncWrite;
use tokio::net::unix::pipe::Sender;

/// Called once, when the writer has closed its end.
pub(super) type OnEnd = Box<dyn FnOnce() + Send>;

/// A write end; `None` once it is closed.
#[derive(Debug)]
struct End {
    sender: Option<Sender>,
    /// The writer, when it waits for room.
    waiting: Option<Waker>,
}

/// The writer's side.
pub(super) struct Input {
    end: Arc<Mutex<End>>,
    on_end: Option<OnEnd>,
}

/// Closes a write end that a writer has.
#[derive(Debug)]
pub(crate) struct Closer(Weak<Mutex<End>>);

fn lock(end: &Mutex<End>) -> MutexGuard<'_, End> {
    end.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Closer {
    /// Closes it; a writer that waits for room is told.
    pub(crate) fn close(&self) {
        let waiting = self.0.upgrade().and_then(|end| {
            let mut end = lock(&end);
            end.sender = None;
            end.waiting.take()
        });
        if let Some(writer) = waiting {
            writer.wake();
        }
    }

    /// Whether the writer has left.
    pub(crate) fn is_done(&self) -> bool {
        self.0.strong_count() == 0
    }
}

impl Input {
    pub(super) fn new(sender: Sender) -> Self {
        let end = End {
            sender: Some(sender),
            waiting: None,
        };
        Self {
            end: Arc::new(Mutex::new(end)),
            on_end: None,
        }
    }

    pub(super) fn closer(&self) -> Closer {
        Closer(Arc::downgrade(&self.end))
    }

    /// Has this called once the writer closes its end, or is dropped.
    pub(super) fn on_end(&mut self, on_end: OnEnd) {
        self.on_end = Some(on_end);
    }

    fn close(&mut self) {
        lock(&self.end).sender = None;
        if let Some(on_end) = self.on_end.take() {
            on_end();
        }
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").finish_non_exhaustive()
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut end = lock(&self.end);
        let written = match &mut end.sender {
            Some(sender) => Pin::new(sender).poll_write(cx, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        };
        end.waiting = written.is_pending().then(|| cx.waker().clone());
        written
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use crisp_sys::pipe::pipe;
    use tokio::io::AsyncWriteExt;

    fn input() -> (Input, File) {
        let (read, write) = pipe().unwrap();
        let input = Input::new(Sender::from_owned_fd(write).unwrap());
        (input, File::from(read))
    }

    #[tokio::test]
    async fn a_writer_that_waits_for_room_is_told_that_its_end_was_taken() {
        let (mut input, mut pipe) = input();
        let closer = input.closer();
        let writing = async { input.write_all(&vec![1; 1 << 20]).await };
        let closing = async {
            tokio::task::yield_now().await;
            closer.close();
        };
        let both = async { tokio::join!(writing, closing).0 };
        let outcome = tokio::time::timeout(Duration::from_secs(20), both).await;
        let error = outcome.unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // The pipe was closed, though its writer is still there.
        let mut rest = Vec::new();
        pipe.read_to_end(&mut rest).unwrap();
        assert!(!closer.is_done());
        drop(input);
        assert!(closer.is_done());
    }

    #[tokio::test]
    async fn the_end_of_a_writer_is_told_once() {
        let told = Arc::new(AtomicU32::new(0));
        let count = || told.load(Ordering::Relaxed);
        for shuts_down in [true, false] {
            let before = count();
            let (mut input, mut pipe) = input();
            let telling = Arc::clone(&told);
            input.on_end(Box::new(move || {
                telling.fetch_add(1, Ordering::Relaxed);
            }));
            input.write_all(b"last").await.unwrap();
            if shuts_down {
                input.shutdown().await.unwrap();
                assert_eq!(count(), before + 1);
                assert!(input.write_all(b"more").await.is_err());
            }
            drop(input);
            assert_eq!(count(), before + 1);
            let mut text = String::new();
            pipe.read_to_string(&mut text).unwrap();
            assert_eq!(text, "last");
        }
    }
}
