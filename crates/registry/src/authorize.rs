//! The identity that each endpoint is shown: the choice of a secret, and the headers made of it.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use crate::credentials::Secret;

/// How long a working password header is sent without being asked for.
const PASSWORD_LIFE: Duration = Duration::from_secs(300);
/// Headers kept; a node pulls from few repositories at a time.
const MAX_KEPT: usize = 512;

/// The use of an `Authorization` header.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// API root of the endpoint.
    pub(crate) base: String,
    /// Repository; its pull scope is all that is ever asked for.
    pub(crate) repository: String,
    /// The secret of the caller.
    pub(crate) secret: Secret,
}

/// An `Authorization` header and its end.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) header: HeaderValue,
    pub(crate) until: Instant,
}

/// Headers that worked, so that a pull asks for one token and not one per layer.
#[derive(Default)]
pub(crate) struct Grants(Mutex<HashMap<Key, Grant>>);

impl Grants {
    pub(crate) fn get(&self, key: &Key) -> Option<HeaderValue> {
        let grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let grant = grants
            .get(key)
            .filter(|grant| grant.until > Instant::now())?;
        Some(grant.header.clone())
    }

    pub(crate) fn put(&self, key: Key, grant: Grant) {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if grants.len() >= MAX_KEPT {
            let now = Instant::now();
            grants.retain(|_, grant| grant.until > now);
            if grants.len() >= MAX_KEPT {
                grants.clear();
            }
        }
        grants.insert(key, grant);
    }

    pub(crate) fn forget(&self, key: &Key) {
        let mut grants = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        grants.remove(key);
    }
}

/// `Basic` with a user and password.
pub(crate) fn basic(username: &str, password: &str) -> Option<Grant> {
    let pair = STANDARD.encode(format!("{username}:{password}"));
    grant(&format!("Basic {pair}"), PASSWORD_LIFE)
}

/// `Bearer` with a token; `None` when the token has characters that no header can carry.
pub(crate) fn bearer(token: &str, life: Duration) -> Option<Grant> {
    grant(&format!("Bearer {token}"), life)
}

fn grant(text: &str, life: Duration) -> Option<Grant> {
    let mut header = HeaderValue::from_str(text).ok()?;
    header.set_sensitive(true);
    Some(Grant {
        header,
        until: Instant::now() + life,
    })
}
