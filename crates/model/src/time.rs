//! Points in time as CRI carries them: nanoseconds since the Unix epoch.

use serde::{Deserialize, Serialize};

/// Nanoseconds since 1970-01-01T00:00:00Z; 0 means "never" on the CRI wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The later of `now` and one nanosecond after `earlier`.
    ///
    /// Creation times must grow with each attempt although the clock may step back: the kubelet
    /// sorts attempts by them.
    #[must_use]
    pub fn after(now: Self, earlier: Self) -> Self {
        Self(now.0.max(earlier.0.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn later_attempts_have_later_times() {
        assert_eq!(Timestamp::after(Timestamp(5), Timestamp(9)), Timestamp(10));
        assert_eq!(Timestamp::after(Timestamp(50), Timestamp(9)), Timestamp(50));
    }
}
