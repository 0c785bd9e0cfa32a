//! Whether the shared blocking threads answer: a real round through them, again and again.
//!
//! Everything that touches the kernel goes through these threads. Should all of them be held by
//! something, the node can start and stop nothing, and has to say so.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Between two rounds.
const EVERY: Duration = Duration::from_secs(5);
/// How long a round may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The outcome of the last round.
#[derive(Debug)]
pub(crate) struct Pool(AtomicBool);

impl Default for Pool {
    fn default() -> Self {
        Self(AtomicBool::new(true))
    }
}

impl Pool {
    /// Whether the last round came back in time.
    pub(crate) fn answers(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self, answers: bool) {
        if self.0.swap(answers, Ordering::Relaxed) == answers {
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
