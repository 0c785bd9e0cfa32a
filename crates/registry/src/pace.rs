//! The *pace* of a download: how many bytes came while we waited for them. A host that sends a
//! byte now and then never meets the bound on silence, so there is a least rate as well. Time in
//! which we did not ask for bytes, because our disk was busy, does not count.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::config::LeastRate;

/// The bytes that one connection brought in the present window.
#[derive(Debug)]
pub(crate) struct Pace {
    least: LeastRate,
    waited: Duration,
    bytes: u64,
    /// Windows that ended well.
    good: u32,
}

/// A window ended with fewer bytes than the least rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooSlow {
    /// Bytes that came.
    pub(crate) bytes: u64,
    least: LeastRate,
}

impl std::fmt::Display for TooSlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { bytes, least } = self;
        let (window, wanted) = (least.window, least.bytes);
        write!(
            f,
            "it sent {bytes} bytes in {window:?}, where {wanted} are the least: look for a slow \
             link, or use a mirror that is nearer"
        )
    }
}

impl Pace {
    pub(crate) fn new(least: LeastRate) -> Self {
        Self {
            least,
            waited: Duration::ZERO,
            bytes: 0,
            good: 0,
        }
    }

    /// Waits for the next bytes, as long as the rate allows.
    pub(crate) async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T, TooSlow> {
        let mut next = pin!(next);
        loop {
            let begun = Instant::now();
            if let Ok(came) = timeout(self.left(), &mut next).await {
                self.waited += begun.elapsed();
                return Ok(came);
            }
            self.turn_window()?;
        }
    }

    /// The time that is left of the window.
    fn left(&self) -> Duration {
        self.least.window.saturating_sub(self.waited)
    }

    /// Judges the window that ended and begins the next.
    fn turn_window(&mut self) -> Result<(), TooSlow> {
        if self.bytes < self.least.bytes {
            return Err(TooSlow {
                bytes: self.bytes,
                least: self.least,
            });
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        self.good += 1;
        Ok(())
    }

    /// Counts bytes that came.
    pub(crate) fn took(&mut self, count: usize) {
        self.bytes += count as u64;
    }

    /// Whether a whole window was good.
    pub(crate) fn was_good(&self) -> bool {
        self.good > 0
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const LEAST: LeastRate = LeastRate {
        bytes: 100,
        window: Duration::from_secs(60),
    };

    /// Bytes that come each so often, in time that is told and does not pass.
    fn drip(pace: &mut Pace, every: Duration, bytes: usize) -> Result<(), TooSlow> {
        let mut rest = every;
        while rest >= pace.left() {
            rest -= pace.left();
            pace.turn_window()?;
        }
        pace.waited += rest;
        pace.took(bytes);
        Ok(())
    }

    #[test]
    fn drops_are_too_slow_however_they_fall() {
        let mut pace = Pace::new(LEAST);
        let slow = (0..100).find_map(|_| drip(&mut pace, Duration::from_secs(7), 1).err());
        let slow = slow.unwrap();
        assert_eq!(slow.bytes, 8);
        assert!(slow.to_string().contains("8 bytes in 60s"), "{slow}");
        assert!(!pace.was_good());
    }

    #[test]
    fn a_slow_link_that_brings_enough_goes_on() {
        let mut pace = Pace::new(LEAST);
        for _ in 0..100 {
            drip(&mut pace, Duration::from_secs(7), 20).unwrap();
        }
        assert!(pace.was_good());
        assert!(drip(&mut pace, Duration::from_secs(130), 1).is_err());
    }

    #[tokio::test]
    async fn waiting_ends_with_its_window() {
        let window = Duration::from_millis(5);
        let mut pace = Pace::new(LeastRate { bytes: 1, window });
        pace.wait(ready(())).await.unwrap();
        assert!(pace.wait(pending::<()>()).await.is_err());
    }
}
