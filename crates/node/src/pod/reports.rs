//! What a container's children and shim tell the pod's task.

use std::sync::Arc;
use std::time::Duration;

use crisp_model::{ContainerId, Resources};

use super::{Phase, Pod, answer, answer_all};
use crate::container::clear;
use crate::container::create::Made;
use crate::container::recover::{self, Boot, Case, Verdict};
use crate::container::start::Launched;
use crate::container::{Container, Running, State, Watch};
use crate::error::{Error, Result};
use crate::events::EventKind;
use crate::message::{Message, Report};
use crate::record::{ContainerState, Entry};
use crate::shim_client::{Connection, ShimClient, ShimEvent};

/// Before each attempt to remove what a creation left.
const UNMAKING_PAUSES: [Duration; 3] = [
    Duration::ZERO,
    Duration::from_secs(1),
    Duration::from_secs(5),
];

impl Pod {
    /// Something was told about a container.
    pub(super) fn report(&mut self, id: &ContainerId, report: Report) {
        match report {
            Report::Made(result) => self.made(id, result),
            Report::Unmade => {
                self.note(&Entry::Gone { id: id.clone() });
                self.containers.remove(id);
            }
            Report::Launched(result) => self.launched(id, result),
            Report::Shim(ShimEvent::Exited(record)) => self.over(id, record),
            Report::Shim(ShimEvent::Gone) => self.shim_gone(id),
            Report::Judged(verdict) => self.judged(id, verdict),
            Report::StopDue(number) => self.stop_due(id, number),
            Report::Updated(result) => {
                self.updated(id, result.map(|resources| *resources));
                self.next_update(id);
            }
            Report::Cleared(result) => self.cleared(id, result),
        }
    }

    /// The creation ended.
    fn made(&mut self, id: &ContainerId, result: Result<Box<Made>>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let State::Creating {
            waiters, unwanted, ..
        } = &mut container.state
        else {
            return;
        };
        let (mut waiters, unwanted) = (std::mem::take(waiters), unwanted.take());
        let outcome = match (result, unwanted) {
            (_, Some(reason)) => Err(reason),
            (Err(error), None) => Err(error),
            (Ok(made), None) => self.become_created(id, *made),
        };
        if let Err(error) = &outcome {
            self.unmake(id, error);
        }
        answer_all(&mut waiters, &outcome.map(|()| id.clone()));
    }

    fn become_created(&mut self, id: &ContainerId, made: Made) -> Result<()> {
        let Some(container) = self.containers.get_mut(id) else {
            return Ok(());
        };
        container.record.made = Some(made.record);
        let record = Entry::Container(Box::new(container.record.clone()));
        let state = Entry::State {
            id: id.clone(),
            state: ContainerState::Created,
        };
        self.write(&record)?;
        self.write(&state)?;
        let Some(container) = self.containers.get_mut(id) else {
            return Ok(());
        };
        container.state = State::Created;
        tracing::info!(
            pod = %self.config.name, pod_id = %self.record.id,
            container = %container.config.name, container_id = %id,
            image = container.config.image.image, "container created"
        );
        self.show(id, Some(EventKind::Created));
        Ok(())
    }

    /// Removes what a creation left.
    pub(super) fn unmake(&mut self, id: &ContainerId, error: &Error) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        if !error.is_callers() {
            tracing::warn!(
                pod = %self.config.name, pod_id = %self.record.id,
                container = %container.config.name, container_id = %id, %error, "container not created"
            );
        }
        container.state = State::Unmaking;
        self.spawn_unmaking(id);
    }

    /// Removes what a creation left, if need be again.
    pub(super) fn spawn_unmaking(&self, id: &ContainerId) {
        let remains = self.remains(id, None);
        let shared = Arc::clone(&self.shared);
        self.child(id, async move {
            for pause in UNMAKING_PAUSES {
                tokio::time::sleep(pause).await;
                match clear::clear(&shared, remains.clone()).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(container_id = %remains.id, %error, "failed creation not wholly undone");
                    }
                }
            }
            Report::Unmade
        });
    }

    /// The launch ended.
    fn launched(&mut self, id: &ContainerId, result: Result<Launched>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let State::Starting {
            started_at,
            waiters,
        } = &mut container.state
        else {
            return;
        };
        let (started_at, mut waiters) = (*started_at, std::mem::take(waiters));
        match result {
            Err(error) => {
                self.not_started(id, error.to_string());
                answer_all(&mut waiters, &Err(error));
            }
            Ok(launched) => {
                self.log_started(id, &launched);
                let shim = self.client(id, launched.connection, launched.shim);
                let running = Running {
                    started_at,
                    init: launched.init,
                    pidfd: launched.pidfd,
                    watch: Watch::Shim(shim),
                    stop: None,
                };
                let state = State::Running(Box::new(running));
                self.turn(id, state, Some(EventKind::Started));
                answer_all(&mut waiters, &Ok(()));
                self.catch_up_with_stops(id);
            }
        }
    }

    fn log_started(&self, id: &ContainerId, launched: &Launched) {
        let Some(container) = self.containers.get(id) else {
            return;
        };
        tracing::info!(
            pod = %self.config.name, pod_id = %self.record.id,
            container = %container.config.name, container_id = %id, pid = launched.init.pid,
            warnings = launched.warnings.join("; "), "container started"
        );
    }

    /// Stops that were asked for while it was being started.
    fn catch_up_with_stops(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let stopping = matches!(self.phase, Phase::Stopping { .. });
        let unwanted = stopping || !container.removals.is_empty();
        let pending = container.stops.take_pending();
        if unwanted {
            self.end_within(id, Duration::ZERO);
        } else if let Some(grace) = pending {
            self.end_within(id, grace);
        }
    }

    /// A client of a shim that tells this task.
    fn client(
        &self,
        id: &ContainerId,
        connection: Connection,
        process: Option<crisp_sys::process::ProcessId>,
    ) -> ShimClient {
        let (mailbox, container) = (self.mailbox.clone(), id.clone());
        ShimClient::start(connection, id.clone(), process, move |event| {
            let report = Report::Shim(event);
            let container = container.clone();
            // A pod that is gone has no interest in its shims.
            drop(mailbox.send(Message::Report { container, report }));
        })
    }

    /// The connection to a shim is lost.
    fn shim_gone(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some(running) = container.running() else {
            return;
        };
        running.watch = Watch::Unknown;
        tracing::warn!(
            pod = %self.config.name, pod_id = %self.record.id,
            container = %container.config.name, container_id = %id, "shim gone; looking for its container"
        );
        self.judge(id, Boot::This);
    }

    /// Finds out what became of a container.
    pub(super) fn judge(&mut self, id: &ContainerId, boot: Boot) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let cgroup_path = container.record.cgroup_path.clone();
        let running = container.running();
        let case = Case {
            pod: self.record.id.clone(),
            id: id.clone(),
            init: running.as_ref().map(|running| running.init),
            pidfd: running.and_then(|running| running.pidfd.clone()),
            cgroup_path,
            boot,
        };
        let shared = Arc::clone(&self.shared);
        self.child(id, async move {
            Report::Judged(recover::judge(&shared, &case).await)
        });
    }

    fn judged(&mut self, id: &ContainerId, verdict: Verdict) {
        match verdict {
            Verdict::Alive { init, connection } => self.found_alive(id, init, connection),
            Verdict::Silent { connection } => self.found_silent(id, connection),
            Verdict::Alone => self.found_alone(id),
            Verdict::Over(record) => self.over(id, record),
            Verdict::NeverRan(why) => self.not_started(id, why),
            Verdict::Untouched => self.untouched(id),
        }
    }

    /// A start came to nothing: who asked for it again gets it, else it is as before.
    fn untouched(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let State::Starting { waiters, .. } = &mut container.state else {
            return;
        };
        let waiters = std::mem::take(waiters);
        self.turn(id, State::Created, None);
        for reply in waiters {
            self.start(id, reply);
        }
        if let Some(container) = self.containers.get_mut(id)
            && container.state.is_settled()
        {
            answer_all(&mut container.stops.waiters, &Ok(()));
            if !container.removals.is_empty() {
                self.clear(id);
            }
        }
    }

    fn found_alive(
        &mut self,
        id: &ContainerId,
        init: crisp_sys::process::ProcessId,
        connection: Connection,
    ) {
        let process = connection.peer();
        if let Some(shim) = process {
            self.shared.shelter(shim);
        }
        let shim = self.client(id, connection, process);
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        match &mut container.state {
            State::Running(running) => {
                running.watch = Watch::Shim(shim);
                self.show(id, None);
            }
            State::Starting { started_at, .. } => {
                let running = Running {
                    started_at: *started_at,
                    init,
                    pidfd: None,
                    watch: Watch::Shim(shim),
                    stop: None,
                };
                let state = State::Running(Box::new(running));
                self.turn(id, state, Some(EventKind::Started));
            }
            _ => return,
        }
        self.catch_up_with_stops(id);
    }

    /// The connection will tell of the end; until then, stops do without the shim.
    fn found_silent(&mut self, id: &ContainerId, connection: Connection) {
        let process = connection.peer();
        let shim = self.client(id, connection, process);
        let Some(running) = self.containers.get_mut(id).and_then(Container::running) else {
            return;
        };
        running.watch = Watch::Shim(shim);
        tracing::warn!(
            pod = %self.config.name, pod_id = %self.record.id, container_id = %id,
            "the shim is there but silent"
        );
        self.catch_up_with_stops(id);
    }

    fn cgroup_path(&self, id: &ContainerId) -> Option<String> {
        Some(self.containers.get(id)?.record.cgroup_path.clone())
    }

    fn found_alone(&mut self, id: &ContainerId) {
        let Some(running) = self.containers.get_mut(id).and_then(Container::running) else {
            return;
        };
        running.watch = Watch::Alone;
        let (init, pidfd) = (running.init, running.pidfd.clone());
        let Some(cgroup_path) = self.cgroup_path(id) else {
            return;
        };
        let case = Case {
            pod: self.record.id.clone(),
            id: id.clone(),
            init: Some(init),
            pidfd,
            cgroup_path,
            boot: Boot::This,
        };
        let shared = Arc::clone(&self.shared);
        self.child(id, async move {
            Report::Judged(Verdict::Over(recover::watch_alone(&shared, &case).await))
        });
        self.catch_up_with_stops(id);
    }

    /// New limits are in force, or not.
    pub(super) fn updated(&mut self, id: &ContainerId, result: Result<Resources>) {
        let Some(container) = self.containers.get_mut(id) else {
            return;
        };
        let Some((_, reply)) = container.updates.pop_front() else {
            return;
        };
        let outcome = result.map(|resources| container.record.resources = resources);
        if outcome.is_ok() {
            let entry = Entry::Container(Box::new(container.record.clone()));
            self.note(&entry);
            self.publish();
        }
        answer(reply, outcome);
    }
}
