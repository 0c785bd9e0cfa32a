//! Single-use tokens: each stands for one request that a door has let in, for one client and for a
//! minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::rand::{GetRandomFlags, getrandom};
use tokio::time::Instant;

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
    pub(crate) fn issue(&self, request: T) -> Result<String> {
        let mut bytes = [0; ENTROPY];
        let mut filled = 0;
        while filled < ENTROPY {
            let random = getrandom(&mut bytes[filled..], GetRandomFlags::empty());
            filled += random.context(|| ("make", "a token"))?;
        }
        let token = URL_SAFE_NO_PAD.encode(bytes);
        self.forget_old();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST {
            return Err(Error::TooMany(MOST));
        }
        all.insert(token.clone(), (Instant::now() + GOOD_FOR, request));
        Ok(token)
    }

    /// The request that a token stands for, at its first use and within its time.
    pub(crate) fn redeem(&self, token: &str) -> Option<T> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, request) = all.remove(token)?;
        (Instant::now() < until).then_some(request)
    }

    /// Drops requests whose time is over.
    pub(crate) fn forget_old(&self) {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (until, _)| now < *until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_token_is_good_once_and_for_a_minute() {
        let tokens = Tokens::default();
        let (one, two) = (tokens.issue(1).unwrap(), tokens.issue(2).unwrap());
        assert_eq!((one.len(), one != two), (22, true));
        assert_eq!((tokens.redeem(&one), tokens.redeem(&one)), (Some(1), None));
        tokio::time::advance(GOOD_FOR - Duration::from_millis(1)).await;
        let three = tokens.issue(3).unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(
            (tokens.redeem(&two), tokens.redeem(&three)),
            (None, Some(3))
        );
        assert_eq!(tokens.redeem(""), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_a_thousand_at_most() {
        let tokens = Tokens::default();
        for number in 0..MOST {
            tokens.issue(number).unwrap();
        }
        let error = tokens.issue(0).unwrap_err();
        assert!(matches!(error, Error::TooMany(MOST)), "{error}");
        tokio::time::advance(GOOD_FOR).await;
        tokens.issue(0).unwrap();
        assert_eq!(tokens.0.lock().unwrap().len(), 1);
    }
}
