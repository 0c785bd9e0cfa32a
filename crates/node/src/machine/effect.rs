//! Everything that a pod's machine wants done: the closed set of its effects.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crisp_model::phase::Exit;
use crisp_model::{CgroupPath, ContainerId, PodConfig, PodId, Resources, Signal, Timestamp};
use crisp_records::{ContainerRecord, Entry, MadeRecord, PodProgress, PodRecord};
use crisp_shim_api::{RootfsSpec, Stdin};
use crisp_sys::process::ProcessId;

use super::facts::{Booted, Caller};
use crate::error::{Error, Result};
use crate::events::{EventKind, Subject};
use crate::session::Ask;

/// Something that is to be done, in the order of the list that it stands in.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Write these entries, then tell the machine at once whether they are written: the transition
    /// happens only if they are.
    Commit(Vec<Entry>, Box<Commit>),
    /// Write down what has happened already: a record that cannot be written does not undo it.
    Record(Entry),
    /// Show the present state to callers of List and Status.
    Publish,
    /// Tell listeners of events.
    Tell(EventKind, Subject),
    /// Answer a caller.
    Answer(Caller, Result<Done>),
    /// Start a worker; its outcome is an input.
    Run(Job),
    /// Make an input when its time has come.
    Wake(Instant, Alarm),
    /// Remains that nobody sees could not be removed, or, without an error, are removed now: of a
    /// container's creation, or of the pod's boot.
    Owe(Option<ContainerId>, Option<Error>),
    /// A creation is no longer wanted: its worker need not wait for the host any more.
    Cancel(ContainerId),
    /// Send a request for this pod's name back to the names: this pod is on its way out.
    Bounce {
        config: Box<PodConfig>,
        caller: Caller,
        /// The pod that is made for it boots only once this one is gone.
        waits: bool,
    },
    /// Something that an operator may want to know.
    Note(Note),
    /// After a restart: nothing about this pod is unsure any more.
    Settled,
    /// Remove the pod's record, and tell the machine at once.
    Forget,
    /// The pod is gone: its task ends.
    End,
}

/// A transition that waits for its record.
#[derive(Debug)]
pub(crate) enum Commit {
    /// The pod is ready.
    Ready(Booted),
    /// The pod's totals change.
    Update {
        record: Box<PodRecord>,
        caller: Caller,
    },
    /// A container is to be made.
    Create {
        record: Box<ContainerRecord>,
        /// Init of the container whose PID namespace this one joins.
        target: Option<ProcessId>,
        caller: Caller,
    },
    /// A container is made.
    Made {
        id: ContainerId,
        made: Box<MadeRecord>,
    },
    /// A container is to be launched.
    Start {
        id: ContainerId,
        started_at: Timestamp,
        caller: Caller,
    },
}

/// The answer to a call that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Done {
    Nothing,
    Pod(PodId),
    Container(ContainerId),
}

/// A slow step: a worker takes it, beside everything else.
#[derive(Debug)]
pub(crate) enum Job {
    /// Make all that the pod has.
    Boot(Box<PodRecord>),
    /// Remove all that the pod has but its record.
    Teardown(Box<PodRemains>),
    /// Tell when this process, the init of the shared PID namespace, has ended.
    WatchHolder(ProcessId),
    /// Make a container.
    Create(Box<CreatePlan>),
    /// Remove what a creation left.
    Unmake(Remains),
    /// Spawn the shim of a container.
    Launch(Box<LaunchPlan>),
    /// Find out what became of a container.
    Judge(Case),
    /// Give a container whose shim has gone another one, or wait for its end.
    WatchAlone(Case, Box<LaunchPlan>),
    /// Take a step of a container's stop.
    Stop(StopStep, Target),
    /// Remove the scope of a container whose end is recorded.
    EndScope(CgroupPath),
    /// Send the shim of a container that is over away: nothing is asked of it any more.
    DismissShim(ContainerId),
    /// Remove all that a container has.
    Clear(Remains),
    /// Put new limits in force.
    Update(Box<Change>),
    /// Run a command in a container and answer its caller.
    Exec {
        id: ContainerId,
        command: Vec<String>,
        timeout: Option<Duration>,
        caller: Caller,
    },
    /// Begin a session and answer its caller with it.
    Session {
        id: ContainerId,
        ask: Box<Ask>,
        caller: Caller,
    },
    /// Close a container's standard input everywhere.
    CloseInput(ContainerId),
    /// Have a container's log opened anew and answer the caller.
    ReopenLog { id: ContainerId, caller: Caller },
}

/// The action of one step of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopStep {
    /// Send the stop signal.
    Signal,
    /// Kill all processes of the container: through its shim, else by the daemon.
    Kill,
    /// Kill all processes of the container without asking its shim.
    Force,
    /// Kill a shim that is silent about the end of its container.
    EndSilentShim,
}

/// A timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Alarm {
    /// The teardown of a failed boot is tried again.
    Undo,
    /// The remains of a container's creation are to be removed again.
    Unmake { id: ContainerId },
    /// A step of a container's stop has had its time.
    Stop { id: ContainerId, number: u64 },
}

/// All that a pod may have left. Its id alone names most of it.
#[derive(Debug, Clone)]
pub(crate) struct PodRemains {
    pub(crate) id: PodId,
    /// Absent when no record tells.
    pub(crate) record: Option<PodRecord>,
    pub(crate) holder: Option<ProcessId>,
    /// The topmost cgroup that was made for it.
    pub(crate) made_cgroup: Option<String>,
    /// cgroups of its containers, which are over.
    pub(crate) containers: Vec<CgroupPath>,
}

impl PodRemains {
    /// The remains that a record tells of.
    pub(crate) fn of(
        record: &PodRecord,
        progress: &PodProgress,
        containers: Vec<CgroupPath>,
    ) -> Self {
        Self {
            id: record.id.clone(),
            record: Some(record.clone()),
            holder: progress.holder,
            made_cgroup: progress.made_cgroup.clone(),
            containers,
        }
    }

    /// The remains of a pod that no record names.
    pub(crate) fn unknown(id: PodId) -> Self {
        Self {
            id,
            record: None,
            holder: None,
            made_cgroup: None,
            containers: Vec::new(),
        }
    }
}

/// All that a container may have left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remains {
    /// `None` when nobody knows.
    pub(crate) pod: Option<PodId>,
    pub(crate) id: ContainerId,
    /// `None` when nobody knows; its bundle may tell.
    pub(crate) cgroup_path: Option<CgroupPath>,
}

/// A container to make.
#[derive(Debug, Clone)]
pub(crate) struct CreatePlan {
    pub(crate) pod: PodRecord,
    pub(crate) record: ContainerRecord,
    /// Init of the container whose PID namespace this one joins.
    pub(crate) target: Option<ProcessId>,
}

/// A container to launch.
#[derive(Debug, Clone)]
pub(crate) struct LaunchPlan {
    pub(crate) pod: PodId,
    pub(crate) id: ContainerId,
    pub(crate) cgroup_path: CgroupPath,
    pub(crate) resources: Resources,
    pub(crate) rootfs: RootfsSpec,
    pub(crate) log: Option<std::path::PathBuf>,
    pub(crate) stdin: Stdin,
}

/// Whether the record was written in this boot of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Boot {
    This,
    /// Nothing of it is alive.
    Earlier,
}

/// A container to find out about.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) pod: PodId,
    pub(crate) id: ContainerId,
    /// `None` when it was about to be started.
    pub(crate) init: Option<ProcessId>,
    pub(crate) cgroup_path: CgroupPath,
    pub(crate) boot: Boot,
}

/// A container to signal or to kill.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) id: ContainerId,
    pub(crate) init: ProcessId,
    pub(crate) cgroup_path: CgroupPath,
    /// Its stop signal.
    pub(crate) signal: Signal,
}

/// A change of limits.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) id: ContainerId,
    pub(crate) cgroup_path: CgroupPath,
    pub(crate) old: Resources,
    pub(crate) new: Resources,
    /// The container is not started: its bundle is what changes.
    pub(crate) in_bundle: bool,
}

/// A line for the log. Failures that a caller gets as an answer are not among them: the door logs
/// each call that failed.
#[derive(Debug)]
pub(crate) enum Note {
    PodReady {
        ips: Vec<IpAddr>,
    },
    PodStopping,
    PodStopped,
    PodRemoved,
    /// The init of the shared PID namespace was killed.
    HolderKilled,
    /// A failed boot is not wholly undone; it is tried again.
    StillUndoing(Error),
    /// A teardown that nobody waits for left something.
    NotTornDown(Error),
    Container(ContainerId, ContainerNote),
}

/// A line for the log about one container.
#[derive(Debug)]
pub(crate) enum ContainerNote {
    Created {
        image: String,
    },
    Started {
        init: ProcessId,
        warnings: Vec<String>,
    },
    Stopping {
        grace: Duration,
    },
    Killing,
    Exited(Exit),
    Removed,
    ShimGone,
    ShimReplaced,
    ShimSilent,
    ShimKilled,
    /// The kernel does not end what was killed.
    NotStopped(Error),
    NotRemoved(Error),
    /// A failed creation is not wholly undone; it is tried again.
    StillUnmaking(Error),
}

/// The effects of one input.
#[derive(Debug, Default)]
pub(crate) struct Effects(pub(crate) Vec<Effect>);

impl Effects {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push(effect);
    }

    pub(crate) fn record(&mut self, entry: Entry) {
        self.push(Effect::Record(entry));
    }

    pub(crate) fn run(&mut self, job: Job) {
        self.push(Effect::Run(job));
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.push(Effect::Note(note));
    }

    pub(crate) fn commit(&mut self, entries: Vec<Entry>, commit: Commit) {
        self.push(Effect::Commit(entries, Box::new(commit)));
    }

    pub(crate) fn answer(&mut self, caller: Caller, answer: Result<Done>) {
        self.push(Effect::Answer(caller, answer));
    }

    /// Answers everybody who waits for the same, and forgets them.
    pub(crate) fn answer_all(&mut self, callers: &mut Vec<Caller>, answer: &Result<Done>) {
        for caller in callers.drain(..) {
            self.answer(caller, answer.clone());
        }
    }

    /// Shows the state, once for several changes in a row.
    pub(crate) fn publish(&mut self) {
        if !matches!(self.0.last(), Some(Effect::Publish)) {
            self.push(Effect::Publish);
        }
    }
}
