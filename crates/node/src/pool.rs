//! Whether the shared blocking threads answer: a real round through them, again and again.
//!
//! Everything that touches the kernel goes through these threads. Should all of them be held by
//! something, the node can start and stop nothing, and has to say so.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// How long a round may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The outcome of the last round: whether it came back in time. Every round is told of.
#[derive(Debug)]
pub(crate) struct Pool(watch::Sender<bool>);

impl Default for Pool {
    fn default() -> Self {
        Self(watch::Sender::new(true))
    }
}

impl Pool {
    /// Whether the last round came back in time.
    pub(crate) fn answers(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the next round that comes back; for ever, once the engine is gone.
    pub(crate) fn next_round(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let mut rounds = self.0.subscribe();
        async move {
            loop {
                match rounds.changed().await {
                    Ok(()) if *rounds.borrow_and_update() => return,
                    Ok(()) => {}
                    Err(_) => std::future::pending().await,
                }
            }
        }
    }

    fn note(&self, answers: bool) {
        if self.0.send_replace(answers) == answers {
            return;
        }
        match answers {
            true => tracing::info!("the daemon's threads answer again"),
            false => tracing::error!(
                "no thread of the daemon was free for {WITHIN:?}: the runtime is not ready"
            ),
        }
    }
}

/// Makes rounds for as long as the engine holds the outcome. At most one waits for a thread.
pub(crate) async fn make_rounds(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(EVERY).await;
        let round = crisp_tasks::blocking(|| ());
        tokio::pin!(round);
        let in_time = tokio::time::timeout(WITHIN, &mut round).await;
        if !note(&pool, in_time.is_ok()) {
            return;
        }
        if in_time.is_err() {
            drop(round.await);
            note(&pool, true);
        }
    }
}

fn note(pool: &Weak<Pool>, answers: bool) -> bool {
    pool.upgrade().map(|pool| pool.note(answers)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_round_that_comes_back_is_waited_for() {
        let pool = Arc::new(Pool::default());
        let round = pool.next_round();
        tokio::pin!(round);
        let none = futures::poll!(&mut round);
        pool.note(false);
        let late = futures::poll!(&mut round);
        assert!(none.is_pending() && late.is_pending());
        pool.note(true);
        round.await;
        let next = pool.next_round();
        pool.note(true);
        next.await;
    }

    #[test]
    fn a_pool_is_as_its_last_round() {
        let pool = Pool::default();
        assert!(pool.answers());
        pool.note(false);
        assert!(!pool.answers());
        pool.note(true);
        assert!(pool.answers());
    }
}
