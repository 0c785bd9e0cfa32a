//! A container's transitions: each changes the container and leaves what is to be done about it.

use std::time::Duration;

use crisp_model::PodId;
use crisp_model::phase::{Exit, ExitCause};
use crisp_records::{ContainerState, Entry};
use crisp_shim_api::{ExitRecord, Stdin};
use crisp_sys::process::ProcessId;

use super::container::{Container, Running, Scene, Stage, State, Watch};
use super::effect::{Boot, Commit, ContainerNote, Done, Effect, Job, LaunchPlan};
use super::facts::Caller;
use super::input::{ContainerInput, Launched, Verdict, missing};
use crate::error::{Error, Result};
use crate::events::{EventKind, Subject};

/// The meaning of a container's transition for its pod.
#[derive(Debug)]
pub(super) enum Fate {
    /// Nothing that concerns the pod.
    Stays,
    /// There is no such container any more.
    Gone,
    /// It cannot be removed now.
    NotRemoved(Error),
    /// The kernel does not end it.
    NotStopped(Error),
}

impl Container {
    /// Something happened to this container.
    pub(super) fn on(&mut self, scene: &mut Scene<'_>, event: ContainerInput) -> Fate {
        if let (Some(caller), None) = (event.caller(), self.state.phase()) {
            // Callers do not see it: what they name was removed under the same id, or never was.
            scene.out.answer(caller, Err(missing(&self.record.id)));
            return Fate::Stays;
        }
        match event {
            ContainerInput::Start { caller } => self.start(scene, caller),
            ContainerInput::Stop { grace, caller } => self.stop(scene, grace, caller),
            ContainerInput::Remove { caller } => self.remove(scene, caller),
            ContainerInput::Exec {
                command,
                timeout,
                caller,
            } => self.exec(scene, (command, timeout), caller),
            ContainerInput::Session { ask, caller } => self.session(scene, *ask, caller),
            ContainerInput::CloseInput => self.close_input(scene),
            ContainerInput::Update { resources, caller } => {
                self.updates.push_back((*resources, caller));
                if self.updates.len() == 1 {
                    self.next_update(scene);
                }
            }
            ContainerInput::ReopenLog { caller } => self.reopen_log(scene, caller),
            ContainerInput::Made(result) => self.made(scene, result),
            ContainerInput::Unmade(result) => return self.unmade(scene, result),
            ContainerInput::UnmakeDue => self.unmake_again(scene),
            ContainerInput::Launched(result) => self.launched(scene, result),
            ContainerInput::Over(record) => self.over(scene, record),
            ContainerInput::ShimGone => self.shim_gone(scene),
            ContainerInput::Judged(verdict) => self.judged(scene, verdict),
            ContainerInput::StopDue(number) => return self.stop_due(scene, number),
            ContainerInput::Forced { init_lives } => self.forced(scene, init_lives),
            ContainerInput::Checked { shim_killed } => return self.checked(scene, shim_killed),
            ContainerInput::Updated(result) => {
                self.updated(scene, result.map(|resources| *resources));
                self.next_update(scene);
            }
            ContainerInput::Cleared(result) => return self.cleared(scene, result),
        }
        Fate::Stays
    }

    /// A start is wanted.
    pub(super) fn start(&mut self, scene: &mut Scene<'_>, caller: Caller) {
        if let Err(error) = self.check_startable(scene) {
            return scene.out.answer(caller, Err(error));
        }
        if let State::Starting { waiters, .. } = &mut self.state {
            return waiters.push(caller);
        }
        if !self.updates.is_empty() {
            return self.pending_starts.push(caller);
        }
        let started_at = scene.now.wall;
        let id = self.record.id.clone();
        let entry = Entry::State {
            id: id.clone(),
            state: ContainerState::Starting { started_at },
        };
        let commit = Commit::Start {
            id,
            started_at,
            caller,
        };
        scene.out.commit(vec![entry], commit);
    }

    /// A start during another one hears how that one ends. A later start is refused, as callers know
    /// it of other runtimes: success would hide a mistake about which container was meant, and would
    /// be untrue of a container that has ended.
    fn check_startable(&self, scene: &Scene<'_>) -> Result<()> {
        scene.check_ready("start a container")?;
        let id = &self.record.id;
        let refuse = |state: &str| {
            let name = &self.config.name;
            Err(Error::FailedPrecondition(format!(
                "cannot start container {name} ({id}): it {state}"
            )))
        };
        match &self.state {
            State::Created | State::Starting { .. } => Ok(()),
            State::Running(_) => refuse("is running already"),
            State::Exited { .. } => refuse("has ended; create a new one"),
            State::Creating { .. } | State::Unmaking { .. } => Err(missing(id)),
            State::Clearing { .. } => refuse("is being removed"),
        }
    }

    /// The start is recorded, or could not be.
    pub(super) fn begin_start(
        &mut self,
        scene: &mut Scene<'_>,
        (started_at, caller): (crisp_model::Timestamp, Caller),
        written: Result<()>,
    ) {
        let plan = self.plan(scene.pod);
        let plan = plan.ok_or_else(|| missing(&self.record.id));
        let plan = match written.and(plan) {
            Ok(plan) => plan,
            Err(error) => return scene.out.answer(caller, Err(error)),
        };
        self.state = State::Starting {
            started_at,
            waiters: vec![caller],
        };
        scene.out.run(Job::Launch(Box::new(plan)));
    }

    /// The launch that its shim is told; `None` before the container is made.
    fn plan(&self, pod: &PodId) -> Option<LaunchPlan> {
        let made = self.record.made.as_ref()?;
        Some(LaunchPlan {
            pod: pod.clone(),
            id: self.record.id.clone(),
            cgroup_path: self.record.cgroup_path.clone(),
            resources: self.record.resources.clone(),
            rootfs: made.rootfs.clone(),
            log: made.log_path.clone(),
            stdin: match self.config.stdin {
                true => Stdin::Open,
                false => Stdin::Null,
            },
        })
    }

    /// The launch ended.
    fn launched(&mut self, scene: &mut Scene<'_>, result: Result<Launched>) {
        let State::Starting { waiters, .. } = &mut self.state else {
            return;
        };
        match result {
            Err(error) => {
                // Callers get the error itself, not only its text, and find the failure recorded.
                let mut waiters = std::mem::take(waiters);
                self.not_started(scene, error.to_string());
                scene.out.answer_all(&mut waiters, &Err(error));
            }
            Ok(Launched { init, warnings }) => {
                self.note(scene, ContainerNote::Started { init, warnings });
                self.runs(scene, init);
            }
        }
    }

    /// Its init runs, and its shim answers.
    fn runs(&mut self, scene: &mut Scene<'_>, init: ProcessId) {
        let State::Starting {
            started_at,
            waiters,
        } = &mut self.state
        else {
            return;
        };
        let (started_at, mut waiters) = (*started_at, std::mem::take(waiters));
        self.state = State::Running(Running {
            started_at,
            init,
            watch: Watch::Shim,
            stop: None,
        });
        self.turned(scene, Some(EventKind::Started));
        scene.out.answer_all(&mut waiters, &Ok(Done::Nothing));
        self.catch_up_with_stops(scene);
    }

    /// Records and shows the state that has just been reached.
    fn turned(&mut self, scene: &mut Scene<'_>, event: Option<EventKind>) {
        scene.out.record(self.entry());
        self.show(scene, event);
    }

    /// Shows the present state and tells who listens.
    pub(super) fn show(&self, scene: &mut Scene<'_>, event: Option<EventKind>) {
        scene.out.publish();
        if let Some(kind) = event {
            let subject = Subject::Container(self.record.id.clone());
            scene.out.push(Effect::Tell(kind, subject));
        }
    }

    /// Stops that were asked for while it was being started, or while nobody knew of it.
    pub(super) fn catch_up_with_stops(&mut self, scene: &mut Scene<'_>) {
        let unwanted = scene.stage == Stage::Stopping || !self.removals.is_empty();
        let pending = self.pending_stop.take();
        if unwanted {
            self.end_within(scene, Duration::ZERO);
        } else if let Some(grace) = pending {
            self.end_within(scene, grace);
        }
    }

    /// It is over, as its shim or the kernel says.
    fn over(&mut self, scene: &mut Scene<'_>, record: ExitRecord) {
        let started_at = match &self.state {
            State::Running(running) => running.started_at,
            State::Starting { started_at, .. } => *started_at,
            // Told twice: by the event and by an answer.
            _ => return,
        };
        let cause = match record.oom && record.status.code() != 0 {
            true => ExitCause::OomKilled(record.status),
            false => ExitCause::Exited(record.status),
        };
        let exit = Exit {
            started_at,
            finished_at: record.finished_at,
            cause,
        };
        self.exited(scene, exit);
    }

    /// It could not be started.
    fn not_started(&mut self, scene: &mut Scene<'_>, why: String) {
        if let State::Starting { started_at, .. } = self.state {
            let exit = Exit {
                started_at,
                finished_at: scene.now.wall,
                cause: ExitCause::StartError(why),
            };
            self.exited(scene, exit);
        }
    }

    fn exited(&mut self, scene: &mut Scene<'_>, exit: Exit) {
        self.note(scene, ContainerNote::Exited(exit.clone()));
        let started = match &exit.cause {
            ExitCause::StartError(why) => Err(Error::start(why.clone())),
            ExitCause::OomKilled(_) | ExitCause::Exited(_) => Ok(Done::Nothing),
        };
        let before = std::mem::replace(&mut self.state, State::Exited { exit });
        self.turned(scene, Some(EventKind::Stopped));
        if let State::Starting { mut waiters, .. } = before {
            scene.out.answer_all(&mut waiters, &started);
        }
        let cgroup_path = self.record.cgroup_path.clone();
        scene.out.run(Job::EndScope(cgroup_path));
        scene.out.run(Job::DismissShim(self.record.id.clone()));
        self.settled(scene);
    }

    /// Nothing of it runs: whoever waited for that is told.
    fn settled(&mut self, scene: &mut Scene<'_>) {
        self.pending_stop = None;
        scene.out.answer_all(&mut self.stops, &Ok(Done::Nothing));
        if !self.removals.is_empty() {
            self.clear(scene);
        }
    }

    /// The connection to its shim is lost.
    fn shim_gone(&mut self, scene: &mut Scene<'_>) {
        let Some(running) = self.running() else {
            return;
        };
        running.watch = Watch::Unknown;
        self.note(scene, ContainerNote::ShimGone);
        scene.out.run(Job::Judge(self.case(scene.pod, Boot::This)));
    }

    /// A look has told what became of it.
    fn judged(&mut self, scene: &mut Scene<'_>, verdict: Verdict) {
        match verdict {
            Verdict::Alive { init } => match self.running() {
                Some(running) => {
                    let before = std::mem::replace(&mut running.watch, Watch::Shim);
                    if before == Watch::Alone {
                        self.note(scene, ContainerNote::ShimReplaced);
                    }
                    self.show(scene, None);
                    self.catch_up_with_stops(scene);
                }
                None => self.runs(scene, init),
            },
            Verdict::Silent => {
                if let Some(running) = self.running() {
                    running.watch = Watch::Shim;
                    self.note(scene, ContainerNote::ShimSilent);
                    self.catch_up_with_stops(scene);
                }
            }
            Verdict::Alone => {
                let plan = self.plan(scene.pod);
                if let (Some(running), Some(plan)) = (self.running(), plan) {
                    running.watch = Watch::Alone;
                    let case = self.case(scene.pod, Boot::This);
                    scene.out.run(Job::WatchAlone(case, Box::new(plan)));
                    self.catch_up_with_stops(scene);
                }
            }
            Verdict::StartedAlone { init } => {
                self.runs(scene, init);
                self.judged(scene, Verdict::Alone);
            }
            Verdict::Over(record) => self.over(scene, record),
            Verdict::NeverRan(why) => self.not_started(scene, why),
            Verdict::Untouched => self.untouched(scene),
        }
    }

    /// A start came to nothing: who asked for it again gets it, else it is as before.
    fn untouched(&mut self, scene: &mut Scene<'_>) {
        let State::Starting { waiters, .. } = &mut self.state else {
            return;
        };
        let waiters = std::mem::take(waiters);
        self.state = State::Created;
        self.turned(scene, None);
        self.settled(scene);
        for caller in waiters {
            self.start(scene, caller);
        }
    }

    /// A removal is wanted: what runs is killed first.
    fn remove(&mut self, scene: &mut Scene<'_>, caller: Caller) {
        self.removals.push(caller);
        self.end_within(scene, Duration::ZERO);
        self.clear(scene);
    }

    /// Removes all that it has, unless that is under way or it is not over.
    pub(super) fn clear(&mut self, scene: &mut Scene<'_>) {
        let exit = match &mut self.state {
            // Its bundle is being written.
            State::Created if !self.updates.is_empty() => return,
            State::Created => None,
            State::Exited { exit } => Some(exit.clone()),
            State::Unmaking { .. } => return self.unmake_again(scene),
            _ => return,
        };
        self.state = State::Clearing { exit };
        self.turned(scene, None);
        scene.out.run(Job::Clear(self.remains(scene.pod)));
    }

    /// All that it had is gone, or not.
    fn cleared(&mut self, scene: &mut Scene<'_>, result: Result<()>) -> Fate {
        let State::Clearing { exit } = &mut self.state else {
            return Fate::Stays;
        };
        let Err(error) = result else {
            self.gone(scene);
            return Fate::Gone;
        };
        let exit = exit.take().unwrap_or_else(|| Exit {
            started_at: self.record.created_at,
            finished_at: scene.now.wall,
            cause: ExitCause::StartError(format!("its removal failed half-way: {error}")),
        });
        if self.removals.is_empty() {
            self.note(scene, ContainerNote::NotRemoved(error.clone()));
        }
        self.state = State::Exited { exit };
        self.turned(scene, None);
        scene
            .out
            .answer_all(&mut self.removals, &Err(error.clone()));
        Fate::NotRemoved(error)
    }

    /// The last thing that happens to a container.
    fn gone(&mut self, scene: &mut Scene<'_>) {
        let id = self.record.id.clone();
        scene.out.record(Entry::Gone { id });
        self.note(scene, ContainerNote::Removed);
        self.show(scene, Some(EventKind::Deleted));
        scene.out.answer_all(&mut self.removals, &Ok(Done::Nothing));
        self.turn_away(scene);
    }

    /// Answers those who wait for something that a container that is gone can no longer give.
    fn turn_away(&mut self, scene: &mut Scene<'_>) {
        let updates = std::mem::take(&mut self.updates);
        let mut waiters: Vec<Caller> = updates.into_iter().map(|(_, caller)| caller).collect();
        waiters.append(&mut self.pending_starts);
        scene
            .out
            .answer_all(&mut waiters, &Err(missing(&self.record.id)));
    }
}

impl Scene<'_> {
    /// Whether the pod takes new work.
    pub(super) fn check_ready(&self, wish: &str) -> Result<()> {
        match self.stage {
            Stage::Ready => Ok(()),
            Stage::Stopping | Stage::Down => Err(Error::FailedPrecondition(format!(
                "cannot {wish} in pod {} ({}): it is not ready",
                self.pod_name, self.pod
            ))),
        }
    }
}
