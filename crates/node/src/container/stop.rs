//! Stopping a container: the ways to signal and to kill, each with a deadline.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_shim_api::Request;
use crisp_sys::pidfd::PidFd;

use crate::blocking::blocking;
use crate::error::{Context, Result};
use crate::machine::effect::Target;
use crate::shared::Shared;
use crate::shim::client::ShimClient;

/// How long a shim may take to pass a signal on before the daemon does it itself.
const SHIM_SIGNALS_WITHIN: Duration = Duration::from_secs(2);
/// How long a shim may take to kill. The grace is over by then, and the daemon can do it as well.
const SHIM_KILLS_WITHIN: Duration = Duration::from_millis(500);

/// The sender of a container's last signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Killed {
    /// Its shim; or the daemon, for want of one.
    AsDue,
    /// The daemon, past a shim that is silent.
    PastShim,
}

/// Sends the stop signal: through the shim, else straight to init.
pub(crate) async fn signal(target: &Target, shim: Option<&ShimClient>) -> Result<()> {
    let signal = target.signal;
    if let Some(shim) = shim {
        let passed = shim.order(Request::Signal { signal }, SHIM_SIGNALS_WITHIN);
        if passed.await.is_ok() {
            return Ok(());
        }
    }
    let step = || format!("signal container {}", target.id);
    match PidFd::open_exact(&target.init).context(step)? {
        Some(init) => init.signal(signal.number()).context(step),
        None => Ok(()),
    }
}

/// Kills all its processes: through the shim, else by the daemon. Tells whether a shim is silent.
pub(crate) async fn kill(
    shared: &Arc<Shared>,
    target: &Target,
    shim: Option<&ShimClient>,
) -> Result<Killed> {
    let ordered = match shim {
        Some(shim) => Some(shim.order(Request::KillAll, SHIM_KILLS_WITHIN).await),
        None => None,
    };
    let killed = match ordered {
        Some(Ok(())) => return Ok(Killed::AsDue),
        Some(Err(_)) => Killed::PastShim,
        None => Killed::AsDue,
    };
    force(shared, target).await.map(|()| killed)
}

/// Kills all its processes without asking the shim.
pub(crate) async fn force(shared: &Arc<Shared>, target: &Target) -> Result<()> {
    let cgroup = shared.cgroup(&target.cgroup_path);
    let target = target.clone();
    blocking(move || {
        let killed = cgroup.kill();
        if let Ok(Some(init)) = PidFd::open_exact(&target.init) {
            // It may have ended by the kill above.
            drop(init.signal(9));
        }
        killed.context(|| format!("kill container {}", target.id))
    })
    .await
}

/// Blocks until a process has ended.
pub(crate) fn wait_for_end(process: &PidFd, within: Duration) -> std::io::Result<()> {
    let deadline = Instant::now() + within;
    let mut pause = Duration::from_micros(100);
    while !process.has_exited() {
        if Instant::now() > deadline {
            let text = format!("still there {within:?} after it was killed");
            return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, text));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    Ok(())
}
