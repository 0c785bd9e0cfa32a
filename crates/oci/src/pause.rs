//! `pause` and `resume`.

use crate::failure::{Failure, Result};
use crate::invocation::Invocation;
use crate::status::{Container, Status};

/// Stops every process of a container where it is.
pub(crate) fn pause(invocation: &Invocation, id: &str) -> Result<()> {
    let container = Container::find(&invocation.store, id)?;
    match container.status {
        Status::Created | Status::Running => Ok(crisp_runtime::pause(&container.cgroup)?),
        Status::Paused => Err(Failure::refused("container paused")),
        Status::Creating | Status::Stopped => Err(Failure::refused("container not running")),
    }
}

/// Lets a paused container go on.
pub(crate) fn resume(invocation: &Invocation, id: &str) -> Result<()> {
    let container = Container::find(&invocation.store, id)?;
    if container.status != Status::Paused {
        return Err(Failure::refused("container not paused"));
    }
    Ok(crisp_runtime::resume(&container.cgroup)?)
}
