//! Steps that their user ends. A step is dropped that has changed what is to be put back; a step that can go on
//! where it was ended says how, and ends this program at once, also while it waits for a lock.

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

/// Has this program say what stands, and how to go on, before a signal ends it.
///
/// # Errors
/// The system gives no thread.
pub fn tell(what: &str, standing: impl FnOnce() -> String + Send + 'static) -> Result<()> {
    let what = what.to_owned();
    let step = || "signals: wait for them".to_owned();
    let watch = move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        // Without it a signal ends this program without a word.
        let Ok((kind, how)) = runtime.and_then(|runtime| runtime.block_on(next())) else {
            return;
        };
        crate::progress::say(format_args!("crisp: {what}: {how}; {}", standing()));
        // The caller of this program learns by the signal that it was ended.
        crisp_sys::signals::reset().ok();
        let pid = std::process::id();
        if let Ok(pid) = i32::try_from(pid) {
            crisp_sys::signals::kill(pid, kind.as_raw_value()).ok();
        }
    };
    crisp_tasks::thread("signals", watch)
        .map(drop)
        .context(step)
}

/// Waits for a signal that ends this program, and tells which and why it comes.
async fn next() -> std::io::Result<(SignalKind, &'static str)> {
    let [interrupt, terminate, hangup] = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ];
    let listen = |kind| match is_ignored(kind) {
        true => Ok(None),
        false => signal(kind).map(Some),
    };
    let (mut interrupted, mut terminated, mut hung_up) =
        (listen(interrupt)?, listen(terminate)?, listen(hangup)?);
    Ok(tokio::select! {
        () = comes(&mut interrupted) => (interrupt, "interrupted"),
        () = comes(&mut terminated) => (terminate, "asked to end"),
        () = comes(&mut hung_up) => (hangup, "the terminal is gone"),
    })
}

async fn comes(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Whether who started this program has it ignore a signal (proc(5), `SigIgn`).
pub fn is_ignored(kind: SignalKind) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut lines = status.lines();
    let set = lines.find_map(|line| line.strip_prefix("SigIgn:"));
    let set = set.and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
    set.is_some_and(|set| set >> (kind.as_raw_value() - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, getpid, kill_process};

    use super::*;

    const CHILD: &str = "CRISP_TEST_IS_ENDED";

    /// Whether a process has a handler of a signal (proc(5), `SigCgt`).
    fn listens(pid: u32, signal: i32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let set = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let set = set.map(|set| u64::from_str_radix(set.trim(), 16).unwrap());
        set.is_some_and(|set| set >> (signal - 1) & 1 == 1)
    }

    /// This test's own program, once more, which does nothing but wait, without a look at its runtime.
    #[test]
    fn a_program_that_is_ended_says_how_to_go_on() {
        if std::env::var_os(CHILD).is_some() {
            tell("up", || "do it again".to_owned()).unwrap();
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        for (signal, how) in [
            (rustix::process::Signal::TERM, "asked to end"),
            (rustix::process::Signal::INT, "interrupted"),
        ] {
            // As of a test that runs in the background.
            if is_ignored(SignalKind::from_raw(signal.as_raw())) {
                continue;
            }
            let child = crisp_sys::process::command(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture"])
                .arg("interrupt::tests::a_program_that_is_ended_says_how_to_go_on")
                .env(CHILD, "1")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let deadline = Instant::now() + Duration::from_secs(30);
            while !listens(child.id(), signal.as_raw()) {
                assert!(Instant::now() < deadline, "it does not listen");
                std::thread::sleep(Duration::from_millis(10));
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.signal(), Some(signal.as_raw()));
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                told.contains(&format!("crisp: up: {how}; do it again")),
                "{told}"
            );
        }
    }

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
