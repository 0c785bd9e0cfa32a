//! Frees addresses when their links are seen gone.
//!
//! A veth goes with the pod's network namespace, a little after the last reference to that is
//! closed. Until then the address is still on the wire and must not be given to another pod. A
//! link that stays is deleted in the end: then somebody else holds the namespace.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::addresses::Addresses;
use crate::error::Result;
use crate::netlink::{Channel, link};

const PATIENCE: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

#[derive(Debug)]
struct Grave {
    link: String,
    since: Instant,
}

#[derive(Debug, Default)]
struct Yard {
    graves: BTreeMap<String, Grave>,
    is_attended: bool,
}

/// Owners that were detached and whose links may still be there.
#[derive(Debug)]
pub(crate) struct Undertaker {
    addresses: Addresses,
    yard: Mutex<Yard>,
    changed: Condvar,
}

impl Undertaker {
    pub(crate) fn new(addresses: Addresses) -> Arc<Self> {
        Arc::new(Self {
            addresses,
            yard: Mutex::default(),
            changed: Condvar::new(),
        })
    }

    fn yard(&self) -> MutexGuard<'_, Yard> {
        self.yard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An owner is attached anew: its addresses stay its own.
    pub(crate) fn forget(&self, owner: &str) {
        self.yard().graves.remove(owner);
    }

    /// Frees the owner's addresses once the link is gone. A thread lives as long as any wait.
    pub(crate) fn bury(self: &Arc<Self>, owner: String, link: String) {
        let mut yard = self.yard();
        let since = Instant::now();
        yard.graves.insert(owner, Grave { link, since });
        if yard.is_attended {
            return;
        }
        let this = Arc::clone(self);
        let thread = std::thread::Builder::new().name("crisp-addresses".into());
        yard.is_attended = thread.spawn(move || this.attend()).is_ok();
    }

    /// Waits until nothing waits, but not for links that stay.
    pub(crate) fn finish(&self) {
        let yard = self.yard();
        let limit = PATIENCE + LONGEST_PAUSE;
        drop(
            self.changed
                .wait_timeout_while(yard, limit, |y| y.is_attended),
        );
    }

    fn attend(&self) {
        let mut pause = FIRST_PAUSE;
        let mut channel = None;
        loop {
            std::thread::sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
            let mut yard = self.yard();
            if channel.is_none() {
                channel = link::open().ok();
            }
            let before = yard.graves.len();
            if let Some(channel) = &mut channel {
                // Under the lock, so that an owner that comes back is not robbed.
                yard.graves
                    .retain(|owner, grave| match self.try_free(channel, owner, grave) {
                        Ok(done) => !done,
                        Err(error) => {
                            tracing::warn!(%owner, %error, "address not freed yet");
                            true
                        }
                    });
            }
            if yard.graves.len() < before {
                pause = FIRST_PAUSE;
            }
            if yard.graves.is_empty() {
                yard.is_attended = false;
                self.changed.notify_all();
                return;
            }
        }
    }

    fn try_free(&self, channel: &mut Channel, owner: &str, grave: &Grave) -> Result<bool> {
        if link::by_name(channel, &grave.link)?.is_some() {
            if grave.since.elapsed() < PATIENCE {
                return Ok(false);
            }
            link::delete(channel, &grave.link)?;
        }
        self.addresses.release(owner)?;
        Ok(true)
    }
}
