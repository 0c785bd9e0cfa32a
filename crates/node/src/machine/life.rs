//! A pod's own transitions: booted, ready, stopping, torn down, removed.

use std::sync::Arc;
use std::time::Duration;

use crisp_model::PodConfig;
use crisp_records::{Entry, PodRecord, PodState};

use super::container::Container;
use super::effect::{Alarm, Commit, Done, Effect, Effects, Job, Note, PodRemains};
use super::facts::{Booted, Caller, Moment};
use super::input::Totals;
use super::pod::{Phase, Pod, Teardown};
use crate::error::{Error, Result};
use crate::events::{EventKind, Subject};

/// Before the teardown of a failed boot is tried again; each try doubles it.
const UNDO_AGAIN_AFTER: Duration = Duration::from_secs(10);
/// As often it is doubled.
const UNDO_DOUBLED: u32 = 6;

fn undo_pause(tries: u32) -> Duration {
    UNDO_AGAIN_AFTER * 2_u32.pow(tries.min(UNDO_DOUBLED))
}

impl Pod {
    /// Another request for this pod's name.
    pub(super) fn join(&mut self, out: &mut Effects, config: Box<PodConfig>, caller: Caller) {
        let same = *config == *self.config;
        let waits = match &mut self.phase {
            Phase::Booting {
                waiters,
                replaced: false,
            } if same => return waiters.push(caller),
            // The first of those that ask for something else waits for the end of this pod.
            Phase::Booting { replaced, .. } => !std::mem::replace(replaced, true),
            Phase::Ready if same => {
                let id = self.record.id.clone();
                return out.answer(caller, Ok(Done::Pod(id)));
            }
            Phase::Ready => {
                let text = format!(
                    "pod {} (attempt {}) is running as {} with another configuration: stop it first",
                    config.name, config.name.attempt, self.record.id
                );
                return out.answer(caller, Err(Error::AlreadyExists(text)));
            }
            Phase::Undoing { .. }
            | Phase::Stopping { .. }
            | Phase::NotReady { .. }
            | Phase::Gone => false,
        };
        out.push(Effect::Bounce {
            config,
            caller,
            waits,
        });
    }

    /// The boot ended.
    pub(super) fn booted(&mut self, out: &mut Effects, result: Result<Booted>) {
        let Phase::Booting { replaced, .. } = &self.phase else {
            return;
        };
        match result {
            // The teardown has to find everything that the boot made.
            Ok(booted) if *replaced => {
                self.adopt(&booted);
                let text = format!(
                    "pod {} was asked for again with another configuration",
                    self.config.name
                );
                self.begin_undo(out, &Error::Unavailable(text));
            }
            Ok(booted) => {
                self.adopt(&booted);
                let entry = self.enter(PodState::Ready);
                out.commit(vec![entry], Commit::Ready(booted));
            }
            Err(error) => self.begin_undo(out, &error),
        }
    }

    fn adopt(&mut self, booted: &Booted) {
        self.progress.ips.clone_from(&booted.ips);
        self.progress.holder = booted.holder;
    }

    /// The pod is recorded as ready, or could not be.
    pub(super) fn become_ready(&mut self, out: &mut Effects, booted: Booted, written: Result<()>) {
        let Phase::Booting { waiters, .. } = &mut self.phase else {
            return;
        };
        if let Err(error) = written {
            return self.begin_undo(out, &error);
        }
        let mut waiters = std::mem::take(waiters);
        self.phase = Phase::Ready;
        out.publish();
        out.push(Effect::Tell(EventKind::Created, Subject::Pod));
        out.push(Effect::Tell(EventKind::Started, Subject::Pod));
        self.watch_holder(out);
        out.note(Note::PodReady { ips: booted.ips });
        let id = self.record.id.clone();
        out.answer_all(&mut waiters, &Ok(Done::Pod(id)));
    }

    /// Wants to be told when the init of the shared PID namespace ends.
    pub(super) fn watch_holder(&self, out: &mut Effects) {
        if let Some(holder) = self.progress.holder {
            out.run(Job::WatchHolder(holder));
        }
    }

    /// The boot came to nothing.
    fn begin_undo(&mut self, out: &mut Effects, why: &Error) {
        if let Phase::Booting { waiters, .. } = &mut self.phase {
            let mut waiters = std::mem::take(waiters);
            self.phase = Phase::Undoing {
                teardown: Teardown::Running,
            };
            self.run_teardown(out);
            out.answer_all(&mut waiters, &Err(why.clone()));
        }
    }

    /// A plugin that is missing may stay so for days: the pauses grow, and it is told of once.
    fn undo_later(&mut self, now: Moment, out: &mut Effects, error: &Error) {
        if self.undo_tries == 0 {
            out.note(Note::StillUndoing(error.clone()));
        }
        out.push(Effect::Owe(None, Some(error.clone())));
        let wake = now.instant + undo_pause(self.undo_tries);
        self.undo_tries = (self.undo_tries + 1).min(UNDO_DOUBLED);
        out.push(Effect::Wake(wake, Alarm::Undo));
    }

    /// It is time for another try to undo a boot.
    pub(super) fn undo(&mut self, out: &mut Effects) {
        if let Phase::Undoing { teardown } = &mut self.phase
            && *teardown == Teardown::Waiting
        {
            *teardown = Teardown::Running;
            self.run_teardown(out);
        }
    }

    /// Everything in the shared PID namespace has ended with its init: nothing can be started in
    /// this pod any more.
    pub(super) fn holder_ended(&mut self, now: Moment, out: &mut Effects) {
        if matches!(self.phase, Phase::Ready) {
            out.note(Note::HolderKilled);
            self.begin_stop(now, out, None);
        }
    }

    /// New totals of the pod's resources are to be noted.
    pub(super) fn update(&mut self, out: &mut Effects, totals: Totals, caller: Caller) {
        let mut record = Box::new(self.record.clone());
        record.config.overhead = totals.overhead.or(record.config.overhead);
        record.config.resources = totals.resources.or(record.config.resources);
        let entry = Entry::Pod(record.clone());
        out.commit(vec![entry], Commit::Update { record, caller });
    }

    /// They are recorded, or could not be.
    pub(super) fn updated(
        &mut self,
        out: &mut Effects,
        record: PodRecord,
        (caller, written): (Caller, Result<()>),
    ) {
        if written.is_ok() {
            self.config = Arc::new(record.config.clone());
            self.record = record;
            if self.is_seen() {
                out.publish();
            }
        }
        out.answer(caller, written.map(|()| Done::Nothing));
    }

    /// Whether callers see it.
    fn is_seen(&self) -> bool {
        matches!(
            self.phase,
            Phase::Ready | Phase::Stopping { .. } | Phase::NotReady { .. }
        )
    }

    /// The pod is to stop, for a caller or for a removal.
    pub(super) fn stop(&mut self, now: Moment, out: &mut Effects, caller: Option<Caller>) {
        match &mut self.phase {
            Phase::Stopping { waiters, .. } => {
                waiters.extend(caller);
                self.kill_containers(now, out);
            }
            Phase::Ready | Phase::NotReady { owed: Some(_) } => self.begin_stop(now, out, caller),
            // Callers cannot name a pod that boots: they do not see it.
            Phase::NotReady { owed: None }
            | Phase::Booting { .. }
            | Phase::Undoing { .. }
            | Phase::Gone => {
                if let Some(caller) = caller {
                    out.answer(caller, Ok(Done::Nothing));
                }
            }
        }
    }

    pub(super) fn begin_stop(&mut self, now: Moment, out: &mut Effects, caller: Option<Caller>) {
        let entry = self.enter(PodState::Stopping);
        out.record(entry);
        self.phase = Phase::Stopping {
            waiters: caller.into_iter().collect(),
            teardown: Teardown::Waiting,
        };
        out.publish();
        out.note(Note::PodStopping);
        self.kill_containers(now, out);
    }

    /// Kills what runs; what is being made is no longer wanted.
    pub(super) fn kill_containers(&mut self, now: Moment, out: &mut Effects) {
        let (mut scene, containers) = self.scene(now, out);
        for container in containers.values_mut() {
            let text = format!("pod {} is being stopped", scene.pod_name);
            container.unwant(&mut scene, Error::FailedPrecondition(text));
            container.end_within(&mut scene, Duration::ZERO);
        }
    }

    /// A container could not be killed in time: those who wait are told, the stop goes on.
    pub(super) fn stop_overdue(&mut self, out: &mut Effects, error: &Error) {
        if let Phase::Stopping { waiters, .. } = &mut self.phase {
            out.answer_all(waiters, &Err(error.clone()));
            out.answer_all(&mut self.removals, &Err(error.clone()));
        }
    }

    /// The pod is to be removed, stopping it first.
    pub(super) fn remove(&mut self, now: Moment, out: &mut Effects, caller: Caller) {
        self.removals.push(caller);
        if !matches!(self.phase, Phase::NotReady { owed: None }) {
            self.stop(now, out, None);
        }
    }

    pub(super) fn run_teardown(&self, out: &mut Effects) {
        let containers = self.containers.values();
        let containers = containers.map(|container| container.record.cgroup_path.clone());
        let remains = PodRemains::of(&self.record, &self.progress, containers.collect());
        out.run(Job::Teardown(Box::new(remains)));
    }

    /// The teardown ended.
    pub(super) fn torn_down(&mut self, now: Moment, out: &mut Effects, result: Result<()>) {
        if result.is_ok() {
            self.progress.holder = None;
            // Another pod may get them now.
            self.progress.ips.clear();
        }
        match &mut self.phase {
            Phase::Undoing { teardown } => match result {
                Ok(()) => *teardown = Teardown::Done,
                Err(error) => {
                    *teardown = Teardown::Waiting;
                    self.undo_later(now, out, &error);
                }
            },
            Phase::Stopping { waiters, .. } => {
                let waiters = std::mem::take(waiters);
                self.stopped(out, waiters, result);
            }
            Phase::Booting { .. } | Phase::Ready | Phase::NotReady { .. } | Phase::Gone => {}
        }
    }

    /// The stop is over; what it could not remove is owed.
    fn stopped(&mut self, out: &mut Effects, mut waiters: Vec<Caller>, result: Result<()>) {
        let owed = result.err();
        let state = match &owed {
            None => {
                out.note(Note::PodStopped);
                PodState::NotReady
            }
            Some(error) => {
                if waiters.is_empty() && self.removals.is_empty() {
                    out.note(Note::NotTornDown(error.clone()));
                }
                PodState::Stopping
            }
        };
        let entry = self.enter(state);
        out.record(entry);
        let answer = owed.clone().map_or(Ok(Done::Nothing), Err);
        if owed.is_some() {
            out.answer_all(&mut self.removals, &answer);
        }
        self.phase = Phase::NotReady { owed };
        out.publish();
        out.push(Effect::Tell(EventKind::Stopped, Subject::Pod));
        out.answer_all(&mut waiters, &answer);
    }

    /// Takes the steps that become possible by what has happened.
    pub(super) fn advance(&mut self, now: Moment, out: &mut Effects) {
        if self.settling && !self.containers.values().any(Container::is_unsure) {
            self.settling = false;
            out.push(Effect::Settled);
        }
        let settled = self.containers.values().all(|c| c.state.is_settled());
        let unwanted = self.is_unwanted();
        match &mut self.phase {
            Phase::Stopping { teardown, .. } if *teardown == Teardown::Waiting && settled => {
                *teardown = Teardown::Running;
                self.run_teardown(out);
            }
            Phase::Undoing {
                teardown: Teardown::Done,
            } => self.forget(out),
            Phase::NotReady { owed: None } if unwanted => self.clear_all(now, out),
            _ => {}
        }
    }

    fn is_unwanted(&self) -> bool {
        !self.removals.is_empty() || self.progress.phase == PodState::Removing
    }

    /// Removes every container, then the record. A later daemon is told to go on with that where
    /// there are containers; the record alone goes at once.
    fn clear_all(&mut self, now: Moment, out: &mut Effects) {
        if self.containers.is_empty() {
            return self.forget(out);
        }
        if self.progress.phase != PodState::Removing {
            let entry = self.enter(PodState::Removing);
            out.record(entry);
        }
        let (mut scene, containers) = self.scene(now, out);
        for container in containers.values_mut() {
            container.clear(&mut scene);
        }
    }

    /// A container could not be cleared, or the record not be removed: the removal is over for now, a
    /// next one tries again. A removal that waits for the stop goes on.
    pub(super) fn removal_failed(&mut self, out: &mut Effects, error: &Error) {
        if !matches!(self.phase, Phase::NotReady { owed: None }) {
            return;
        }
        if self.progress.phase == PodState::Removing {
            let entry = self.enter(PodState::NotReady);
            out.record(entry);
        }
        out.answer_all(&mut self.removals, &Err(error.clone()));
    }

    /// Nothing of the pod is left but its record.
    fn forget(&mut self, out: &mut Effects) {
        // Asked for once; `forgotten` tells the outcome.
        let is_asked = |effect: &Effect| matches!(effect, Effect::Forget);
        if !out.0.iter().any(is_asked) {
            out.push(Effect::Forget);
        }
    }

    /// The record is removed, or could not be.
    pub(super) fn forgotten(&mut self, now: Moment, out: &mut Effects, result: Result<()>) {
        let seen = self.is_seen();
        match result {
            Ok(()) => {
                self.phase = Phase::Gone;
                // Callers who hear of the removal, and who listen to events, look at lists: the view
                // goes first.
                out.push(Effect::End);
                if seen {
                    out.push(Effect::Tell(EventKind::Deleted, Subject::Pod));
                    out.note(Note::PodRemoved);
                }
                out.answer_all(&mut self.removals, &Ok(Done::Nothing));
            }
            Err(error) if seen => self.removal_failed(out, &error),
            Err(error) => {
                self.phase = Phase::Undoing {
                    teardown: Teardown::Waiting,
                };
                self.undo_later(now, out, &error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_that_cannot_be_undone_is_tried_ever_more_rarely() {
        let pauses = [0, 1, 2, 6, 7, u32::MAX].map(|tries| undo_pause(tries).as_secs());
        assert_eq!(pauses, [10, 20, 40, 640, 640, 640]);
    }
}
