//! A container that stands still: paused and resumed by its cgroup.

use std::time::{Duration, Instant};

use crisp_sys::cgroup::{Cgroup, Frozen};

use crate::error::{Error, Result};

/// How long a freeze may take: a process in an uninterruptible sleep delays it.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whether a container stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freeze {
    /// Every process stands still, or is about to.
    Frozen,
    /// It runs.
    Thawed,
}

/// Whether a container stands still; one without a cgroup does not.
#[must_use]
pub fn freeze_state(cgroup: &Cgroup) -> Freeze {
    match cgroup.frozen() {
        Ok(Frozen::Yes | Frozen::Partly) => Freeze::Frozen,
        Ok(Frozen::No) | Err(_) => Freeze::Thawed,
    }
}

/// Stops every process of a container where it is, and waits until all stand still.
///
/// # Errors
/// When the kernel has no freezer, or some process does not stop in time: then all run on.
pub fn pause(cgroup: &Cgroup) -> Result<()> {
    cgroup
        .freeze()
        .map_err(|error| Error::cgroup("freeze", error))?;
    let frozen = await_state(cgroup, Frozen::Yes);
    if frozen.is_err() {
        // The first error is the one to tell.
        drop(cgroup.thaw());
    }
    frozen
}

/// Lets every process of a container go on.
///
/// # Errors
/// When the kernel has no freezer.
pub fn resume(cgroup: &Cgroup) -> Result<()> {
    cgroup
        .thaw()
        .map_err(|error| Error::cgroup("thaw", error))?;
    await_state(cgroup, Frozen::No)
}

fn await_state(cgroup: &Cgroup, wanted: Frozen) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let state = cgroup
            .frozen()
            .map_err(|error| Error::cgroup("look at", error))?;
        if state == wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let step = format!("wait until the cgroup {} is", cgroup.path());
            return Err(Error::setup(step, format!("{wanted:?} frozen: timed out")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
