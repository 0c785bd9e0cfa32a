//! What the pod's task does to a container's state: each transition is recorded, shown and told.

use std::sync::Arc;
use std::time::Duration;

use crisp_model::ContainerId;
use crisp_model::phase::{Exit, ExitCause};
use crisp_shim_api::ExitRecord;
use tokio::time::Instant;

use super::{Pod, answer_all};
use crate::container::clear::{self, Remains};
use crate::container::recover;
use crate::container::stop::{self, Target};
use crate::container::{Container, Running, State, Step, Stop};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::message::{Message, Report};
use crate::record::Entry;

/// How long a shim's kill may take to show before the daemon kills by itself.
const KILL_SHOWS_WITHIN: Duration = Duration::from_secs(2);

/// How long a shim whose container is over may still wait for its last output.
const SHIM_TELLS_WITHIN: Duration = Duration::from_secs(3);

/// How long the end of a container whose shim was ended may take to be told by the kernel.
const REAPED_WITHIN: Duration = Duration::from_secs(15);

impl Pod {
    /// Runs a child task whose outcome comes back as a report about a container.
    pub(super) fn child(
        &self,
        id: &ContainerId,
        work: impl Future<Output = Report> + Send + 'static,
    ) {
        let (mailbox, container) = (self.mailbox.clone(), id.clone());
        tokio::spawn(async move {
            let report = work.await;
            // The task ends only when nothing of its containers is under way.
            drop(mailbox.send(Message::Report { container, report }));
        });
    }

    /// Puts a container into a state that has been reached: recorded, then shown, then told.
    pub(super) fn turn(&mut self, id: &ContainerId, state: State, event: Option<EventKind>) {
        let recorded = state.recorded();
        let entry = Entry::State {
            id: id.clone(),
            state: recorded,
        };
        self.note(&entry);
        let started = state.started();
        if let Some(container) = self.containers.get_mut(id) {
            let before = std::mem::replace(&mut container.state, state);
            // Who asked for a start whose outcome was found out by other ways.
            if let State::Starting { mut waiters, .. } = before {
                answer_all(&mut waiters, &started);
            }
        }
        self.show(id, event);
    }

    /// Publishes, and tells who listens.
    pub(super) fn show(&mut self, id: &ContainerId, event: Option<EventKind>) {
        if let (Some(view), Some(kind)) = (self.publish(), event) {
            self.shared.events.send(kind, id.as_str(), view);
        }
    }

    /// A container is over.
    pub(super) fn over(&mut self, id: &ContainerId, record: ExitRecord) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (started_at, shim) = match &container.state {
            State::Running(running) => (running.started_at, running.watch.shim().cloned()),
            State::Starting { started_at, .. } => (*started_at, None),
            // Told twice: by the event and by the answer.
            _ => return,
        };
        let cause = if record.oom && record.status.code() != 0 {
            ExitCause::OomKilled(record.status)
        } else {
            ExitCause::Exited(record.status)
        };
        let exit = Exit {
            started_at,
            finished_at: record.finished_at,
            cause,
        };
        self.exited(id, exit, shim);
    }

    /// A container could not be started.
    pub(super) fn not_started(&mut self, id: &ContainerId, why: String) {
        let Some(State::Starting { started_at, .. }) = self.containers.get(id).map(|c| &c.state)
        else {
            return;
        };
        let exit = Exit {
            started_at: *started_at,
            finished_at: crate::shared::now(),
            cause: ExitCause::StartError(why),
        };
        self.exited(id, exit, None);
    }

    fn exited(
        &mut self,
        id: &ContainerId,
        exit: Exit,
        shim: Option<crate::shim_client::ShimClient>,
    ) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let name = container.config.name.to_string();
        tracing::info!(
            pod = %self.config.name, pod_id = %self.record.id, container = name, container_id = %id,
            code = exit.code(), reason = exit.reason(), why = exit.message(),
            "container exited"
        );
        self.turn(id, State::Exited { exit, shim }, Some(EventKind::Stopped));
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (shared, path) = (
            Arc::clone(&self.shared),
            container.record.cgroup_path.clone(),
        );
        tokio::spawn(async move { shared.cgroups.end_scope(&path).await });
        container.stops.pending = None;
        answer_all(&mut container.stops.waiters, &Ok(()));
        if !container.removals.is_empty() {
            self.clear(id);
        }
    }

    /// Wants the end of a container within a grace; a shorter grace than an earlier one counts.
    pub(super) fn end_within(&mut self, id: &ContainerId, grace: Duration) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let State::Starting { .. } = container.state {
            let pending = &mut container.stops.pending;
            *pending = Some(pending.map_or(grace, |earlier| earlier.min(grace)));
            return;
        }
        let Some(running) = container.running() else {
            return;
        };
        let due = Instant::now() + grace;
        match running.stop {
            None if grace.is_zero() => self.take_step(id, Step::Killed),
            None => self.ask_to_stop(id, grace),
            Some(stop) if stop.step == Step::Overdue => self.take_step(id, Step::Killed),
            Some(stop) if stop.step != Step::Asked || stop.due <= due => {}
            Some(_) if grace.is_zero() => self.take_step(id, Step::Killed),
            Some(_) => self.schedule(id, Step::Asked, grace),
        }
    }

    /// Sends the stop signal and waits for the grace.
    fn ask_to_stop(&mut self, id: &ContainerId, grace: Duration) {
        let Some((target, signal)) = self.target(id) else {
            return;
        };
        self.schedule(id, Step::Asked, grace);
        self.log_stop(id, "container stopping", grace);
        self.show(id, None);
        tokio::spawn(async move {
            if let Err(error) = stop::signal(&target, signal).await {
                tracing::warn!(container_id = %target.id, signal, %error, "stop signal not sent");
            }
        });
    }

    /// Takes a harder step of a stop.
    fn take_step(&mut self, id: &ContainerId, step: Step) {
        let Some((target, _)) = self.target(id) else {
            return;
        };
        let within = match step {
            Step::Forced if recover::lives(&target.init) => self.shared.config.timeouts.kill,
            Step::Forced => SHIM_TELLS_WITHIN,
            _ => KILL_SHOWS_WITHIN,
        };
        self.schedule(id, step, within);
        self.log_stop(id, "killing container", Duration::ZERO);
        self.show(id, None);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            let killed = match step {
                Step::Forced => stop::force(&shared, &target).await,
                _ => stop::kill(&shared, &target).await,
            };
            if let Err(error) = killed {
                tracing::warn!(container_id = %target.id, %error, "container not killed yet");
            }
        });
    }

    fn log_stop(&self, id: &ContainerId, what: &str, grace: Duration) {
        if let Some(container) = self.containers.get(id) {
            let name = container.config.name.to_string();
            tracing::debug!(
                pod = %self.config.name, pod_id = %self.record.id, container = name,
                container_id = %id, ?grace, "{what}"
            );
        }
    }

    /// Notes a step and sets the timer of the next.
    fn schedule(&mut self, id: &ContainerId, step: Step, within: Duration) {
        let due = Instant::now() + within;
        let Some(running) = self.containers.get_mut(id).and_then(Container::running) else {
            return;
        };
        let number = running.stop.map_or(0, |stop| stop.number + 1);
        running.stop = Some(Stop { step, number, due });
        self.child(id, async move {
            tokio::time::sleep_until(due).await;
            Report::StopDue(number)
        });
    }

    /// A step of a stop has had its time.
    pub(super) fn stop_due(&mut self, id: &ContainerId, number: u64) {
        let Some(running) = self.containers.get_mut(id).and_then(Container::running) else {
            return;
        };
        let Some(stop) = running.stop.filter(|stop| stop.number == number) else {
            return;
        };
        match stop.step {
            Step::Asked => self.take_step(id, Step::Killed),
            Step::Killed => self.take_step(id, Step::Forced),
            Step::Forced | Step::Overdue => self.overdue(id, stop),
        }
    }

    /// Init is over, and its shim does not say so: without the shim the kernel tells.
    fn end_a_silent_shim(&mut self, id: &ContainerId) -> bool {
        let Some(running) = self.containers.get_mut(id).and_then(Container::running) else {
            return false;
        };
        let shim = running.watch.shim().and_then(|shim| shim.process);
        match shim {
            Some(shim) if !recover::lives(&running.init) => {
                tracing::warn!(container_id = %id, pid = shim.pid, "killing a shim that is silent about the end of its container");
                crate::shim_client::kill(&shim);
                true
            }
            _ => false,
        }
    }

    /// The kernel does not end what was killed: those who wait are told.
    fn overdue(&mut self, id: &ContainerId, stop: Stop) {
        if stop.step == Step::Forced && self.end_a_silent_shim(id) {
            return self.schedule(id, Step::Overdue, REAPED_WITHIN);
        }
        let within = KILL_SHOWS_WITHIN + self.shared.config.timeouts.kill;
        let text = format!("container {id} is still there {within:?} after it was killed");
        let error = Error::DeadlineExceeded(text);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        tracing::warn!(
            pod = %self.config.name, pod_id = %self.record.id,
            container = %container.config.name, container_id = %id, %error, "container not stopped"
        );
        answer_all(&mut container.stops.waiters, &Err(error.clone()));
        answer_all(&mut container.removals, &Err(error.clone()));
        if let Some(running) = container.running() {
            running.stop = Some(Stop {
                step: Step::Overdue,
                ..stop
            });
        }
        self.stop_overdue(&error);
    }

    fn target(&mut self, id: &ContainerId) -> Option<(Target, i32)> {
        let container = self.containers.get_mut(id)?;
        let signal = container
            .record
            .made
            .as_ref()
            .map_or(15, |made| made.stop_signal);
        let cgroup_path = container.record.cgroup_path.clone();
        let running = container.running()?;
        let target = Target {
            id: id.clone(),
            init: running.init,
            shim: running.watch.shim().cloned(),
            cgroup_path,
        };
        Some((target, signal))
    }

    /// Kills what runs; what is being made is no longer wanted.
    pub(super) fn kill_containers(&mut self) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.unwant(&id);
            self.end_within(&id, Duration::ZERO);
        }
    }

    fn unwant(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if let State::Creating {
            unwanted, cancel, ..
        } = &mut container.state
        {
            cancel.notify_one();
            let text = format!("pod {} is being stopped", self.config.name);
            unwanted.get_or_insert(Error::FailedPrecondition(text));
        }
    }

    /// Removes every container that is over.
    pub(super) fn clear_containers(&mut self) {
        let ids: Vec<ContainerId> = self.containers.keys().cloned().collect();
        for id in ids {
            self.clear(&id);
        }
    }

    /// Removes all that a container has, unless that is under way or it is not over.
    pub(super) fn clear(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let (exit, shim) = match &mut container.state {
            State::Created => (None, None),
            State::Exited { exit, shim } => (Some(exit.clone()), shim.take()),
            _ => return,
        };
        let remains = self.remains(id, shim);
        self.turn(id, State::Clearing { exit }, None);
        let shared = Arc::clone(&self.shared);
        self.child(id, async move {
            Report::Cleared(clear::clear(&shared, remains).await)
        });
    }

    /// What a container may have left.
    pub(super) fn remains(
        &self,
        id: &ContainerId,
        shim: Option<crate::shim_client::ShimClient>,
    ) -> Remains {
        Remains {
            pod: Some(self.record.id.clone()),
            id: id.clone(),
            cgroup_path: self
                .containers
                .get(id)
                .map(|c| c.record.cgroup_path.clone()),
            shim,
        }
    }

    /// All that a container had is gone, or not.
    pub(super) fn cleared(&mut self, id: &ContainerId, result: Result<()>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let State::Clearing { exit } = &mut container.state else {
            return;
        };
        let Err(error) = result else {
            return self.forget(id);
        };
        let exit = exit.take().unwrap_or_else(|| Exit {
            started_at: container.record.created_at,
            finished_at: crate::shared::now(),
            cause: ExitCause::StartError(format!("its removal failed half-way: {error}")),
        });
        let mut removals = std::mem::take(&mut container.removals);
        tracing::warn!(
            pod = %self.config.name, pod_id = %self.record.id,
            container = %container.config.name, container_id = %id, %error, "container not removed"
        );
        self.turn(id, State::Exited { exit, shim: None }, None);
        answer_all(&mut removals, &Err(error.clone()));
        self.removal_failed(&error);
    }

    /// The last thing that happens to a container.
    fn forget(&mut self, id: &ContainerId) {
        self.note(&Entry::Gone { id: id.clone() });
        let Some(mut container) = self.containers.remove(id) else {
            return;
        };
        self.show(id, Some(EventKind::Deleted));
        tracing::info!(
            pod = %self.config.name, pod_id = %self.record.id,
            container = %container.config.name, container_id = %id, "container removed"
        );
        answer_all(&mut container.removals, &Ok(()));
    }

    /// Lets the start of the daemon go on once nothing of this pod is unsure any more.
    pub(super) fn let_go_of_settling(&mut self) {
        let unsure = |container: &Container| match &container.state {
            State::Starting { .. } => true,
            State::Running(running) => {
                let Running { watch, .. } = running.as_ref();
                matches!(watch, crate::container::Watch::Unknown)
            }
            _ => false,
        };
        if self.settling.is_some() && !self.containers.values().any(unsure) {
            self.settling = None;
        }
    }
}
