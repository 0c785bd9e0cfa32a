//! The end of the daemon: its records go to disk, and what no pod uses is taken away.

use std::sync::Arc;

use crisp_model::PodId;
use crisp_sys::mount;

use crate::blocking::blocking;
use crate::error::Context;
use crate::paths;
use crate::shared::Shared;

/// Does both at once: the time for it is short, and a disk that is busy, or an interface that the
/// kernel is slow to remove, must not keep the cgroups from going.
pub(crate) async fn retire(shared: &Arc<Shared>) {
    // They may be in the shims' cgroup already.
    shared.spares.dismiss_all();
    let pods = shared.mailboxes.count();
    if pods > 0 {
        // A pod that boots has no view yet.
        if shared.views.over() == pods {
            unmount(shared).await;
        }
        return flush(shared).await;
    }
    tokio::join!(
        flush(shared),
        leave_network(shared),
        unmount(shared),
        shared.cgroups.retire()
    );
}

async fn flush(shared: &Arc<Shared>) {
    let kernel = Arc::clone(shared);
    let flushed = crisp_tasks::blocking(move || kernel.flush());
    if let Err(error) = flushed.await {
        tracing::warn!(%error, "flushing records failed");
    }
}

async fn leave_network(shared: &Arc<Shared>) {
    if let Err(error) = shared.config.network.retire().await {
        tracing::warn!(%error, "the built-in network cannot remove its bridge and firewall table");
    }
}

/// Pods that are over have no pins, unless their teardown still owes some.
async fn unmount(shared: &Arc<Shared>) {
    let pins = shared.paths.pins();
    let unmount = move || {
        let step = || "unmount the directory of namespace pins";
        match paths::ids(&pins, |name| PodId::parse(name).ok()).is_empty() {
            true => mount::unmount(&pins).context(step),
            false => Ok(()),
        }
    };
    if let Err(error) = blocking(unmount).await {
        tracing::warn!(%error, "the state directory keeps a mount");
    }
}
