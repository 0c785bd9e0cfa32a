//! The end of the daemon: its records go to disk, and what no pod uses is taken away.

use std::sync::Arc;

use crisp_sys::mount;

use crate::blocking::blocking;
use crate::error::Context;
use crate::shared::Shared;

/// Does both at once: the time for it is short, and a disk that is busy, or an interface that the
/// kernel is slow to remove, must not keep the cgroups from going.
pub(crate) async fn retire(shared: &Arc<Shared>) {
    // They may be in the shims' cgroup already.
    shared.spares.dismiss_all();
    if shared.mailboxes.count() > 0 {
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

async fn unmount(shared: &Arc<Shared>) {
    let kernel = Arc::clone(shared);
    let unmount = move || {
        mount::unmount(&kernel.paths.pins()).context(|| "unmount the directory of namespace pins")
    };
    if let Err(error) = blocking(unmount).await {
        tracing::warn!(%error, "the state directory keeps a mount");
    }
}
