//! The mark that a blocking step carries of the workers that it belongs to.

use tokio::sync::mpsc;

tokio::task_local! {
    /// Held by every step of a set of workers. Nothing is ever sent: its end is what counts.
    pub(crate) static LEASE: mpsc::Sender<()>;
}

/// The mark of the present worker; `None` outside of a set of workers.
pub(crate) fn current() -> Option<mpsc::Sender<()>> {
    LEASE.try_with(Clone::clone).ok()
}
