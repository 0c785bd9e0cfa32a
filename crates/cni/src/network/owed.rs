//! DELs that are owed: of pods that are torn down while a plugin could not delete what it gave them.
//!
//! A pod's stop does not wait for such a plugin, which may be broken or gone for days. The record
//! of the attachment stays on disk with all that the DEL needs, and the DEL is tried again until it
//! succeeds, by this daemon and by later ones. The debts of one plugin stand in one line: as long
//! as the plugin fails, one of them is tried now and then, and the log tells of the first alone.

use std::sync::{Arc, Weak};

use super::Inner;
use super::debts::{DOUBLED, Leaving, pause};
use crate::client::Found;
use crate::error::{Error, Result};
use crate::lane::on_thread;

/// So many pods may be owed a DEL before no more are attached. They are a file and a few hundred
/// bytes each, but a plugin that neither attaches nor detaches makes some with every try.
const MOST: usize = 4096;

impl Inner {
    /// Notes how a DEL ended: that of a pod which is not attached any more, or never was.
    pub(super) fn noted(&self, leaving: &Leaving, done: Result<()>) -> Result<()> {
        let Err(error) = &done else {
            self.owed.settle(&leaving.id);
            return done;
        };
        if let Err(lost) = self.keep(leaving) {
            tracing::warn!(pod_id = %leaving.id, error = %lost, "a power cut would lose the record of a DEL that is owed");
        }
        if self.owed.add(leaving.clone(), error) {
            tracing::warn!(pod_id = %leaving.id, %error,
                "a DEL failed; it is tried again until it succeeds, and so are others of this plugin, which `crictl info` shows");
        }
        done
    }

    /// Why no pod is attached any more.
    pub(super) fn too_much_owed(&self) -> Option<Error> {
        if self.owed.count() < MOST {
            return None;
        }
        let first = self.owed.list().into_iter().next()?;
        Some(Error::NotReady(format!(
            "the network's plugins have not deleted {MOST} pods that are gone: mend them, and new \
             pods are attached again; {}",
            first.why
        )))
    }

    /// Sees to it that the debt is known after a power cut.
    fn keep(&self, leaving: &Leaving) -> Result<()> {
        if matches!(self.cache.look(&leaving.id)?, Found::Nothing) {
            self.cache.write_lost(&leaving.id, leaving.pod.as_ref())?;
        }
        self.cache.sync(&leaving.id)
    }

    /// Starts to pay debts that are new. Called where workers can be started, after each call that
    /// may make some.
    pub(super) fn pay(self: &Arc<Self>) {
        for plugin in self.owed.unserved() {
            crisp_tasks::apart(pay_until_paid(Arc::downgrade(self), plugin));
        }
    }

    /// Tries a plugin's debts in turn, until the first one fails. As soon as one succeeds, all are
    /// tried. Whether one has succeeded.
    async fn pay_some(self: &Arc<Self>, plugin: &str) -> bool {
        let mut has_paid = false;
        for leaving in self.owed.pods(plugin) {
            match self.pay_one(leaving).await {
                Ok(()) => has_paid = true,
                Err(_) if !has_paid => break,
                Err(_) => {}
            }
        }
        self.pay();
        has_paid
    }

    async fn pay_one(self: &Arc<Self>, leaving: Leaving) -> Result<()> {
        let turn = self.turns.take(&leaving.id).await;
        let seat = self.dels.seat().await;
        let inner = Arc::clone(self);
        on_thread(move || {
            let _seat = seat;
            // A collection may have paid it meanwhile.
            match inner.owed.of(&leaving.id) {
                Some(_) => inner.detach(&turn, &leaving),
                None => Ok(()),
            }
        })
        .await
    }
}

async fn pay_until_paid(network: Weak<Inner>, plugin: String) {
    let mut tries = 0;
    loop {
        tokio::time::sleep(pause(tries)).await;
        let Some(inner) = network.upgrade() else {
            return;
        };
        let has_paid = inner.pay_some(&plugin).await;
        if inner.owed.close(&plugin) {
            tracing::info!(plugin, "every DEL that was owed has succeeded");
            return;
        }
        tries = if has_paid {
            0
        } else {
            (tries + 1).min(DOUBLED)
        };
    }
}
