//! Decides when a failed request is tried again, and after how long.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use crate::config::Timeouts;
use crate::error::Error;

/// A failed try: what to report, and whether another try can help.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error that is reported when no further try is made.
    pub(crate) error: Error,
    /// Whether it is worth asking again.
    pub(crate) again: Again,
}

/// Whether to ask the same host once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    /// The answer would be the same.
    Never,
    /// After a pause that grows.
    Later,
    /// After the pause that the host asked for.
    After(Duration),
}

impl Failure {
    pub(crate) fn last(error: Error) -> Self {
        Self {
            error,
            again: Again::Never,
        }
    }

    pub(crate) fn passing(error: Error) -> Self {
        Self {
            error,
            again: Again::Later,
        }
    }
}

impl Timeouts {
    /// The pause before try number `tries + 1`; `None` when there is none.
    pub(crate) fn pause(&self, again: Again, tries: u32, bound: u32) -> Option<Duration> {
        if tries >= bound {
            return None;
        }
        match again {
            Again::Never => None,
            Again::After(pause) => (pause <= self.longest_pause).then_some(pause + self.jitter()),
            Again::Later => {
                let grown = self
                    .backoff
                    .saturating_mul(1 << tries.saturating_sub(1).min(10));
                Some(grown.min(self.longest_pause) + self.jitter())
            }
        }
    }

    /// Up to one backoff, so that nodes that failed together do not return together.
    fn jitter(&self) -> Duration {
        let random = RandomState::new().build_hasher().finish() % 1000;
        self.backoff
            .saturating_mul(u32::try_from(random).unwrap_or(0))
            / 1000
    }
}

/// Whether a status is about now rather than about the request.
pub(crate) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 425 | 429 | 500 | 502 | 503 | 504)
}

/// How long the host asks to be left alone, in seconds or until a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let until = http_date(text)?;
    Some(until.duration_since(now).unwrap_or_default())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`, the one form that servers may still send (RFC 9110).
fn http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u64 = words
        .next()?
        .parse()
        .ok()
        .filter(|d| (1..=31).contains(d))?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|m| *m == name)? as u64 + 1;
    let year: u64 = words
        .next()?
        .parse()
        .ok()
        .filter(|y| (1970..=9999).contains(y))?;
    let mut clock = words.next()?.split(':').map(str::parse::<u64>);
    let mut next = |bound| clock.next()?.ok().filter(|n| *n < bound);
    let seconds = next(24)? * 3600 + next(60)? * 60 + next(61)?;
    // Days from the civil calendar, with years that begin in March so that leap days come last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * 86_400 + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (text, expected) in [
            ("7", Some(7)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("Sun, 99 Nov 1994 08:49:37 GMT", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let found = retry_after(&headers, now);
            assert_eq!(found, expected.map(Duration::from_secs), "{text}");
        }
        let leap = http_date("Thu, 29 Feb 2024 00:00:00 GMT").unwrap();
        let since = leap.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(since.as_secs(), 1_709_164_800);
    }

    #[test]
    fn pauses_grow_and_end() {
        let timeouts = Timeouts {
            backoff: Duration::from_secs(1),
            longest_pause: Duration::from_secs(5),
            ..Timeouts::default()
        };
        let range = |again, tries| timeouts.pause(again, tries, 9).map(|d| d.as_secs());
        assert!(matches!(range(Again::Later, 1), Some(1..=2)));
        assert!(matches!(range(Again::Later, 2), Some(2..=3)));
        assert!(matches!(range(Again::Later, 8), Some(5..=6)));
        assert_eq!(range(Again::Later, 9), None);
        assert_eq!(range(Again::Never, 1), None);
        assert!(matches!(
            range(Again::After(Duration::from_secs(4)), 1),
            Some(4..=5)
        ));
        assert_eq!(range(Again::After(Duration::from_secs(6)), 1), None);
    }
}
