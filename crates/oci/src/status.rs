//! The status of a container: read from the kernel each time, never remembered.

use std::path::Path;
use std::sync::Arc;

use crisp_runtime::Freeze;
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::pidfd::PidFd;
use serde::Serialize;

use crate::failure::{Context, Failure, Result};
use crate::record::{Id, Record, Store};

/// The statuses of the OCI runtime spec, and `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container and what it is doing.
#[derive(Debug)]
pub(crate) struct Container {
    pub id: Id,
    pub record: Record,
    pub cgroup: Cgroup,
    pub status: Status,
}

impl Container {
    /// Looks at a container.
    pub(crate) fn find(store: &Store, id: &str) -> Result<Self> {
        let id = Id::parse(id)?;
        let record = store.load(&id)?;
        let cgroup = Cgroup::new(layout()?, &record.cgroup);
        let status = status(&record, &cgroup, &store.gate(&id));
        Ok(Self {
            id,
            record,
            cgroup,
            status,
        })
    }

    /// The host pid of its init while that lives.
    pub(crate) fn pid(&self) -> Option<i32> {
        let alive = !matches!(self.status, Status::Creating | Status::Stopped);
        self.record.init.map(|init| init.pid).filter(|_| alive)
    }

    /// The host pid of its init, or a refusal.
    pub(crate) fn live_pid(&self) -> Result<i32> {
        self.pid()
            .ok_or_else(|| Failure::refused("container not running"))
    }

    /// Exactly its init, or a refusal.
    pub(crate) fn live_init(&self) -> Result<PidFd> {
        self.live_pid()?;
        let init = self.record.init.as_ref().map(PidFd::open_exact);
        let init = init.transpose().context(|| "open the container's init")?;
        init.flatten()
            .ok_or_else(|| Failure::refused("container not running"))
    }

    pub(crate) fn state(&self) -> State<'_> {
        State::of(&self.record, self.status, self.pid())
    }
}

/// The cgroup hierarchies of this machine.
pub(crate) fn layout() -> Result<Arc<Layout>> {
    Ok(Arc::new(Layout::detect().context(|| "find the cgroups")?))
}

fn status(record: &Record, cgroup: &Cgroup, gate: &Path) -> Status {
    match &record.init {
        None if record.creator.is_alive() => Status::Creating,
        None => Status::Stopped,
        Some(init) if !init.is_alive() => Status::Stopped,
        Some(_) if crisp_runtime::freeze_state(cgroup) == Freeze::Frozen => Status::Paused,
        Some(_) if gate.exists() => Status::Created,
        Some(_) => Status::Running,
    }
}

/// The state of the OCI runtime spec, and what runc tells besides.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    pid: i32,
    pub status: Status,
    bundle: &'a Path,
    rootfs: &'a Path,
    created: &'a str,
    owner: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a std::collections::HashMap<String, String>>,
}

impl<'a> State<'a> {
    pub(crate) fn of(record: &'a Record, status: Status, pid: Option<i32>) -> Self {
        Self {
            oci_version: record.spec.version(),
            id: &record.id,
            pid: pid.unwrap_or(0),
            status,
            bundle: &record.bundle,
            rootfs: &record.rootfs,
            created: &record.created,
            owner: "root",
            annotations: record.spec.annotations().as_ref(),
        }
    }
}
