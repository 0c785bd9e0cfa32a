//! The stop of a server, as its sessions hear of it: each tells its client before it ends. A
//! connection that ends without a word is a success for clients of SPDY.

use tokio::sync::watch;

/// Told once.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The stop, and the means to tell it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (teller, told) = watch::channel(false);
        (teller, Self(told))
    }

    /// Returns once the server stops, or is gone.
    pub(crate) async fn told(mut self) {
        self.0.wait_for(|stops| *stops).await.ok();
    }
}
