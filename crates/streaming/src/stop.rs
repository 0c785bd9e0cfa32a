//! The ends that a server makes of its sessions: when it stops, and when nothing moves any more. Each
//! session tells its client: a connection that ends without a word is a success for clients of SPDY.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::activity::Activity;

/// The reason that the clients of a server hear when it stops.
const STOPS: &str = "the container runtime's daemon stops, and its sessions end with it";
/// The reason that the client of a session hears on which nothing has moved for long.
const IDLE: &str = "nothing has moved for longer than the container runtime allows \
                    (streaming.idle_timeout_seconds)";

/// The stop of a server, told once.
#[derive(Clone)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The stop, and the means to tell it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (teller, told) = watch::channel(false);
        (teller, Self(told))
    }

    /// Returns once the server stops.
    pub(crate) async fn told(mut self) {
        if self.0.wait_for(|stops| *stops).await.is_err() {
            // A server that is dropped ends its sessions without a word.
            std::future::pending::<()>().await;
        }
    }
}

/// The ends of one session that are neither its client's nor its process's.
#[derive(Clone)]
pub(crate) struct Cut {
    pub(crate) stop: Stop,
    pub(crate) activity: Arc<Activity>,
    /// How long the session may go without anything that moves.
    pub(crate) idle: Duration,
}

impl Cut {
    /// Returns once the session is to end, with the reason.
    pub(crate) async fn reason(self) -> &'static str {
        tokio::select! {
            () = self.stop.told() => STOPS,
            () = self.activity.idle(self.idle) => IDLE,
        }
    }
}
