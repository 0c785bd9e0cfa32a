//! Single-use tokens: each stands for one request that a door has let in, for one client and for a
//! minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};

use crate::error::{Context, Error, Result};

/// How long a token is good.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// Most tokens at a time.
const MOST: usize = 1000;
/// Random bytes of a token.
const ENTROPY: usize = 16;

/// Requests by their tokens.
pub(crate) struct Tokens<T>(Mutex<HashMap<String, (Instant, T)>>);

impl<T> Default for Tokens<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Tokens<T> {
    /// Keeps a request, and gives the token for it.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn issue(&self, request: T, now: Instant) -> Result<String> {
        let mut bytes = [0; ENTROPY];
        let mut filled = 0;
        while filled < ENTROPY {
            let random = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
            filled += random.context(|| ("make", "a token"))?;
        }
        let token = URL_SAFE_NO_PAD.encode(bytes);
        self.forget_old(now);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            return Err(Error::TooMany(MOST));
        }
        all.insert(token.clone(), (now + GOOD_FOR, request));
        Ok(token)
    }

    /// The request that a token stands for, at its first use and within its time.
    pub(crate) fn redeem(&self, token: &str, now: Instant) -> Option<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, request) = all.remove(token)?;
        (now < until).then_some(request)
    }

    /// Drops requests whose time is over.
    pub(crate) fn forget_old(&self, now: Instant) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (until, _)| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let now = Instant::now();
        let one = tokens.issue(1, now).unwrap();
        let two = tokens.issue(2, now).unwrap();
        assert_eq!((one.len(), one != two), (22, true));
        assert_eq!(tokens.redeem(&one, now), Some(1));
        assert_eq!(tokens.redeem(&one, now), None);
        let before = now + GOOD_FOR - Duration::from_millis(1);
        let three = tokens.issue(3, before).unwrap();
        assert_eq!(tokens.redeem(&two, now + GOOD_FOR), None);
        assert_eq!(tokens.redeem(&three, now + GOOD_FOR), Some(3));
        assert_eq!(tokens.redeem("", now), None);
    }

    #[test]
    fn there_are_a_thousand_at_most() {
        let tokens = Tokens::default();
        let now = Instant::now();
        for number in 0..MOST {
            tokens.issue(number, now).unwrap();
        }
        let error = tokens.issue(0, now).unwrap_err();
        assert!(matches!(error, Error::TooMany(MOST)), "{error}");
        tokens.issue(0, now + GOOD_FOR).unwrap();
        assert_eq!(tokens.0.lock().unwrap().len(), 1);
    }
}
