//! Requests to a container that is there, beside its life: a command run in it, a session, its log
//! opened anew, new limits.

use std::time::Duration;

use super::container::{Container, Scene, State, Watch};
use super::effect::{Change, Done, Job};
use super::facts::Caller;
use super::limits;
use crisp_records::Entry;
use crisp_shim_api::AttachedInput;

use crate::error::{Error, Result};
use crate::session::Ask;

impl Container {
    pub(super) fn exec(
        &mut self,
        scene: &mut Scene<'_>,
        (command, timeout): (Vec<String>, Option<Duration>),
        caller: Caller,
    ) {
        match self.check_shim("run a command in") {
            Err(error) => scene.out.answer(caller, Err(error)),
            Ok(()) => scene.out.run(Job::Exec {
                id: self.record.id.clone(),
                command,
                timeout,
                caller,
            }),
        }
    }

    pub(super) fn session(&mut self, scene: &mut Scene<'_>, ask: Ask, caller: Caller) {
        let id = self.record.id.clone();
        let checked = self.check_shim(ask.wish()).map(|()| self.meant(ask));
        match checked.map(Box::new) {
            Err(error) => scene.out.answer(caller, Err(error)),
            Ok(ask) => scene.out.run(Job::Session { id, ask, caller }),
        }
    }

    /// The same, with what the container's configuration says.
    fn meant(&self, ask: Ask) -> Ask {
        let Ask::Attach { wanted, .. } = ask else {
            return ask;
        };
        let wanted = wanted.of_container(&self.config);
        // A terminal's input has no end that could be told.
        let is_alone = wanted.stdin && self.config.stdin_once && !wanted.terminal;
        let fate = match is_alone {
            true => AttachedInput::IsClosed,
            false => AttachedInput::StaysOpen,
        };
        Ask::Attach { wanted, fate }
    }

    /// The input of a container that does not run any more is closed.
    pub(super) fn close_input(&mut self, scene: &mut Scene<'_>) {
        if matches!(self.state, State::Running(_)) {
            scene.out.run(Job::CloseInput(self.record.id.clone()));
        }
    }

    pub(super) fn reopen_log(&mut self, scene: &mut Scene<'_>, caller: Caller) {
        let id = self.record.id.clone();
        match self.check_shim("reopen the log of") {
            Err(error) => scene.out.answer(caller, Err(error)),
            Ok(()) => scene.out.run(Job::ReopenLog { id, caller }),
        }
    }

    /// Whether it runs and its shim can be asked.
    fn check_shim(&self, wish: &str) -> Result<()> {
        let (name, id) = (&self.config.name, &self.record.id);
        match &self.state {
            State::Running(running) if running.watch == Watch::Shim => Ok(()),
            State::Running(_) => Err(Error::Unavailable(format!(
                "cannot {wish} container {name} ({id}): its shim does not answer"
            ))),
            _ => Err(Error::FailedPrecondition(format!(
                "cannot {wish} container {name} ({id}): it is not running"
            ))),
        }
    }

    /// Puts the first of the new limits in force: each builds on those that the one before it has
    /// left.
    pub(super) fn next_update(&mut self, scene: &mut Scene<'_>) {
        while let Some((asked, _)) = self.updates.front() {
            let mut new = limits::merge(&self.record.resources, asked);
            let in_bundle = matches!(self.state, State::Created);
            if !in_bundle {
                // A kubelet names a score with every change of limits. Processes are given theirs
                // as they begin and may have changed it since: the status tells what they began with.
                new.oom_score_adj = self.record.resources.oom_score_adj;
            }
            let checked = match in_bundle {
                true => Ok(()),
                false => self.check_shim("update"),
            };
            match checked {
                Ok(()) => {
                    let change = Change {
                        id: self.record.id.clone(),
                        cgroup_path: self.record.cgroup_path.clone(),
                        old: self.record.resources.clone(),
                        new,
                        in_bundle,
                    };
                    return scene.out.run(Job::Update(Box::new(change)));
                }
                Err(error) => self.updated(scene, Err(error)),
            }
        }
        for caller in std::mem::take(&mut self.pending_starts) {
            self.start(scene, caller);
        }
        if !self.removals.is_empty() {
            self.clear(scene);
        }
    }

    /// New limits are in force, or not.
    pub(super) fn updated(
        &mut self,
        scene: &mut Scene<'_>,
        result: Result<crisp_model::Resources>,
    ) {
        let Some((_, caller)) = self.updates.pop_front() else {
            return;
        };
        let answer = result.map(|resources| {
            self.record.resources = resources;
            scene
                .out
                .record(Entry::Container(Box::new(self.record.clone())));
            scene.out.publish();
            Done::Nothing
        });
        scene.out.answer(caller, answer);
    }
}
