//! Two watches over a connection: whether anything moved on it lately, and whether the client is
//! gone although nobody reads from it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::{Instant, sleep};

/// How often a connection that is not read is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// When a frame last came or went.
pub(crate) struct Activity {
    began: Instant,
    /// Milliseconds from then.
    last: AtomicU64,
}

impl Default for Activity {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// A frame has come or gone.
    pub(crate) fn touch(&self) {
        let passed = self.began.elapsed().as_millis();
        let passed = u64::try_from(passed).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// Returns once nothing has moved for `limit`.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
            let until = self.began + last + limit;
            if Instant::now() >= until {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Tells of a client that has left while its data waits to be taken: its socket says so to nobody
/// who does not read it to the end.
pub(crate) struct Hangup(Option<OwnedFd>);

impl Hangup {
    /// Watches a socket by a descriptor of its own; without one it never tells.
    pub(crate) fn of(socket: Option<OwnedFd>) -> Self {
        Self(socket)
    }

    /// Returns within a second of the client's leaving.
    pub(crate) async fn gone(&self) {
        while !self.is_gone() {
            sleep(LOOK).await;
        }
    }

    fn is_gone(&self) -> bool {
        let Some(socket) = &self.0 else {
            return false;
        };
        let mut asked = [PollFd::new(socket, PollFlags::RDHUP)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut asked, Some(&now)).is_ok_and(|told| told > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[tokio::test]
    async fn quiet_is_counted_from_the_last_frame() {
        let activity = Activity::default();
        let limit = Duration::from_millis(20);
        activity.idle(limit).await;
        assert!(activity.began.elapsed() >= limit);
        activity.touch();
        let touched = activity.began.elapsed();
        activity.idle(limit).await;
        // Frames are noted by the millisecond.
        let passed = activity.began.elapsed() - touched;
        assert!(passed + Duration::from_millis(1) >= limit, "{passed:?}");
    }

    #[tokio::test]
    async fn a_client_that_left_is_seen_behind_its_data() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::io::Write::write_all(&mut theirs, b"unread").unwrap();
        let hangup = Hangup::of(Some(ours.into()));
        assert!(!hangup.is_gone());
        drop(theirs);
        hangup.gone().await;
        assert!(!Hangup::of(None).is_gone());
    }
}
