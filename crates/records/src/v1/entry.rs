//! The kinds of entries, where pods are in their lives, and the states of containers.

use std::net::IpAddr;

use crisp_model::phase::{Exit as LiveExit, ExitCause as LiveCause};
use crisp_model::{ContainerId, ExitStatus as LiveStatus, Timestamp};
use crisp_sys::process::ProcessId;
use serde::{Deserialize, Serialize};

use super::container::Container;
use super::pod::Pod;
use super::text::{Wrong, is_default, parse};
use crate::record as live;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Entry {
    Pod(Box<Pod>),
    Progress(Progress),
    Container(Box<Container>),
    State { id: String, state: State },
    Gone { id: String },
}

#[derive(Serialize, Deserialize)]
pub(super) struct Progress {
    phase: Phase,
    boot_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder: Option<Process>,
    #[serde(default, skip_serializing_if = "is_default")]
    ips: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    made_cgroup: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Booting,
    Ready,
    Stopping,
    NotReady,
    Removing,
}

/// A process by its pid and the clock ticks since boot at which it started.
#[derive(Serialize, Deserialize)]
pub(super) struct Process {
    pid: i32,
    start_time: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Creating,
    Created,
    Starting { started_at: i64 },
    Running { started_at: i64, init: Process },
    Exited(Exit),
    Removing,
}

/// Times are nanoseconds since the Unix epoch.
#[derive(Serialize, Deserialize)]
pub(super) struct Exit {
    started_at: i64,
    finished_at: i64,
    cause: Cause,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cause {
    StartError(String),
    OomKilled(Status),
    Exited(Status),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Code(u8),
    Signal(i32),
    Lost,
}

impl From<&live::Entry> for Entry {
    fn from(entry: &live::Entry) -> Self {
        match entry {
            live::Entry::Pod(pod) => Self::Pod(Box::new((&**pod).into())),
            live::Entry::Progress(progress) => Self::Progress(progress.into()),
            live::Entry::Container(record) => Self::Container(Box::new((&**record).into())),
            live::Entry::State { id, state } => Self::State {
                id: id.to_string(),
                state: state.into(),
            },
            live::Entry::Gone { id } => Self::Gone { id: id.to_string() },
        }
    }
}

impl TryFrom<Entry> for live::Entry {
    type Error = Wrong;

    fn try_from(entry: Entry) -> Result<Self, Wrong> {
        Ok(match entry {
            Entry::Pod(pod) => Self::Pod(Box::new((*pod).try_into()?)),
            Entry::Progress(progress) => Self::Progress(progress.into()),
            Entry::Container(record) => Self::Container(Box::new((*record).try_into()?)),
            Entry::State { id, state } => Self::State {
                id: parse("state.id", ContainerId::parse(&id))?,
                state: state.into(),
            },
            Entry::Gone { id } => Self::Gone {
                id: parse("gone.id", ContainerId::parse(&id))?,
            },
        })
    }
}

impl From<&live::PodProgress> for Progress {
    fn from(progress: &live::PodProgress) -> Self {
        let live::PodProgress {
            phase,
            boot_id,
            holder,
            ips,
            made_cgroup,
        } = progress.clone();
        Self {
            phase: phase.into(),
            boot_id,
            holder: holder.map(Into::into),
            ips,
            made_cgroup,
        }
    }
}

impl From<Progress> for live::PodProgress {
    fn from(progress: Progress) -> Self {
        let Progress {
            phase,
            boot_id,
            holder,
            ips,
            made_cgroup,
        } = progress;
        Self {
            phase: phase.into(),
            boot_id,
            holder: holder.map(Into::into),
            ips,
            made_cgroup,
        }
    }
}

impl From<live::PodState> for Phase {
    fn from(state: live::PodState) -> Self {
        match state {
            live::PodState::Booting => Self::Booting,
            live::PodState::Ready => Self::Ready,
            live::PodState::Stopping => Self::Stopping,
            live::PodState::NotReady => Self::NotReady,
            live::PodState::Removing => Self::Removing,
        }
    }
}

impl From<Phase> for live::PodState {
    fn from(phase: Phase) -> Self {
        match phase {
            Phase::Booting => Self::Booting,
            Phase::Ready => Self::Ready,
            Phase::Stopping => Self::Stopping,
            Phase::NotReady => Self::NotReady,
            Phase::Removing => Self::Removing,
        }
    }
}

impl From<ProcessId> for Process {
    fn from(ProcessId { pid, start_time }: ProcessId) -> Self {
        Self { pid, start_time }
    }
}

impl From<Process> for ProcessId {
    fn from(Process { pid, start_time }: Process) -> Self {
        Self { pid, start_time }
    }
}

impl From<&live::ContainerState> for State {
    fn from(state: &live::ContainerState) -> Self {
        match state {
            live::ContainerState::Creating => Self::Creating,
            live::ContainerState::Created => Self::Created,
            live::ContainerState::Starting { started_at } => Self::Starting {
                started_at: started_at.0,
            },
            live::ContainerState::Running { started_at, init } => Self::Running {
                started_at: started_at.0,
                init: (*init).into(),
            },
            live::ContainerState::Exited(exit) => Self::Exited(exit.into()),
            live::ContainerState::Removing => Self::Removing,
        }
    }
}

impl From<State> for live::ContainerState {
    fn from(state: State) -> Self {
        match state {
            State::Creating => Self::Creating,
            State::Created => Self::Created,
            State::Starting { started_at } => Self::Starting {
                started_at: Timestamp(started_at),
            },
            State::Running { started_at, init } => Self::Running {
                started_at: Timestamp(started_at),
                init: init.into(),
            },
            State::Exited(exit) => Self::Exited(exit.into()),
            State::Removing => Self::Removing,
        }
    }
}

impl From<&LiveExit> for Exit {
    fn from(exit: &LiveExit) -> Self {
        let LiveExit {
            started_at,
            finished_at,
            cause,
        } = exit;
        Self {
            started_at: started_at.0,
            finished_at: finished_at.0,
            cause: match cause {
                LiveCause::StartError(message) => Cause::StartError(message.clone()),
                LiveCause::OomKilled(status) => Cause::OomKilled((*status).into()),
                LiveCause::Exited(status) => Cause::Exited((*status).into()),
            },
        }
    }
}

impl From<Exit> for LiveExit {
    fn from(exit: Exit) -> Self {
        let Exit {
            started_at,
            finished_at,
            cause,
        } = exit;
        Self {
            started_at: Timestamp(started_at),
            finished_at: Timestamp(finished_at),
            cause: match cause {
                Cause::StartError(message) => LiveCause::StartError(message),
                Cause::OomKilled(status) => LiveCause::OomKilled(status.into()),
                Cause::Exited(status) => LiveCause::Exited(status.into()),
            },
        }
    }
}

impl From<LiveStatus> for Status {
    fn from(status: LiveStatus) -> Self {
        match status {
            LiveStatus::Code(code) => Self::Code(code),
            LiveStatus::Signal(signal) => Self::Signal(signal),
            LiveStatus::Lost => Self::Lost,
        }
    }
}

impl From<Status> for LiveStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Code(code) => Self::Code(code),
            Status::Signal(signal) => Self::Signal(signal),
            Status::Lost => Self::Lost,
        }
    }
}
