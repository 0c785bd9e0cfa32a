//! A step that its user ends is dropped, so that what it has changed is put back.

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Context as _, Failure, Result};

/// Ends a step when the user ends this program.
pub async fn interruptible<T>(what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    let listen = || "signals: wait for them".to_owned();
    let mut interrupted = signal(SignalKind::interrupt()).context(listen)?;
    let mut terminated = signal(SignalKind::terminate()).context(listen)?;
    tokio::select! {
        outcome = step => outcome,
        _ = interrupted.recv() => Err(Failure::new(format!("{what}: interrupted"))),
        _ = terminated.recv() => Err(Failure::new(format!("{what}: asked to end"))),
    }
}
