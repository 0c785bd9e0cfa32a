//! A step that its user ends is dropped, so that what it has changed is put back.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Context as _, Failure, Result};

/// Ends a step when the user ends this program, or the terminal goes, as with a connection that breaks.
pub async fn interruptible<T>(what: &str, step: impl Future<Output = Result<T>>) -> Result<T> {
    let listen = || "signals: wait for them".to_owned();
    let mut interrupted = signal(SignalKind::interrupt()).context(listen)?;
    let mut terminated = signal(SignalKind::terminate()).context(listen)?;
    // With nohup(1) it goes on without its terminal.
    let mut hung_up = match is_ignored(SignalKind::hangup()) {
        true => None,
        false => Some(signal(SignalKind::hangup()).context(listen)?),
    };
    tokio::select! {
        outcome = step => outcome,
        _ = interrupted.recv() => Err(Failure::new(format!("{what}: interrupted"))),
        _ = terminated.recv() => Err(Failure::new(format!("{what}: asked to end"))),
        () = comes(&mut hung_up) => Err(Failure::new(format!("{what}: the terminal is gone"))),
    }
}

async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether who started this program has it ignore a signal (proc(5), `SigIgn`).
fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let set = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> (kind.as_raw_value() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{getpid, kill_process};

    use super::*;

    #[tokio::test]
    async fn a_step_ends_with_its_terminal_unless_that_is_ignored() {
        let is_ignored = is_ignored(SignalKind::hangup());
        let step = async {
            kill_process(getpid(), rustix::process::Signal::HUP).unwrap();
            tokio::time::sleep(Duration::from_secs(if is_ignored { 1 } else { 60 })).await;
            Ok(())
        };
        match interruptible("load", step).await {
            Ok(()) => assert!(is_ignored),
            Err(failure) => assert_eq!(failure.to_string(), "load: the terminal is gone"),
        }
    }
}
