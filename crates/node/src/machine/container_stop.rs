//! The steps of a container's stop, each one harder than the one before it: the stop signal, a kill
//! by the shim, a kill by the daemon, a look whether its shim is silent about its end.

use std::time::Duration;

use crisp_model::Signal;

use super::container::{Container, Running, Scene, State, Step, Stop};
use super::container_life::Fate;
use super::effect::{Alarm, ContainerNote, Done, Effect, Job, StopStep, Target};
use super::facts::Caller;
use crate::error::Error;

/// How long a shim's kill may take to show before the daemon kills by itself.
const KILL_SHOWS_WITHIN: Duration = Duration::from_secs(2);

/// How long a shim whose container is over may still wait for its last output.
const SHIM_TELLS_WITHIN: Duration = Duration::from_secs(3);

/// How long the end of a container whose shim was ended may take to be told by the kernel.
const REAPED_WITHIN: Duration = Duration::from_secs(15);

/// How long a look at a silent shim may take.
const CHECKED_WITHIN: Duration = Duration::from_secs(2);

impl Container {
    /// A stop is wanted.
    pub(super) fn stop(&mut self, scene: &mut Scene<'_>, grace: Duration, caller: Caller) {
        if self.state.is_settled() {
            return scene.out.answer(caller, Ok(Done::Nothing));
        }
        self.stops.push(caller);
        self.end_within(scene, grace);
    }

    /// Wants the end of a container within a grace; a shorter grace than an earlier one counts.
    pub(super) fn end_within(&mut self, scene: &mut Scene<'_>, grace: Duration) {
        if let State::Starting { .. } = self.state {
            let pending = &mut self.pending_stop;
            *pending = Some(pending.map_or(grace, |earlier| earlier.min(grace)));
            return;
        }
        let Some(running) = self.running() else {
            return;
        };
        match running.stop {
            None if grace.is_zero() => self.take_step(scene, Step::Killed),
            None => self.ask_to_stop(scene, grace),
            Some(stop) if stop.step == Step::Overdue => self.take_step(scene, Step::Killed),
            // A grace of hours is no reason to overflow.
            Some(stop)
                if stop.step != Step::Asked
                    || scene
                        .now
                        .instant
                        .checked_add(grace)
                        .is_none_or(|due| stop.due <= due) => {}
            Some(_) if grace.is_zero() => self.take_step(scene, Step::Killed),
            Some(_) => self.schedule(scene, Step::Asked, grace),
        }
    }

    /// Sends the stop signal and waits for the grace.
    fn ask_to_stop(&mut self, scene: &mut Scene<'_>, grace: Duration) {
        self.schedule(scene, Step::Asked, grace);
        self.note(scene, ContainerNote::Stopping { grace });
        self.show(scene, None);
        if let Some(target) = self.target() {
            scene.out.run(Job::Stop(StopStep::Signal, target));
        }
    }

    /// Takes a harder step.
    fn take_step(&mut self, scene: &mut Scene<'_>, step: Step) {
        let Some(target) = self.target() else {
            return;
        };
        let (within, action) = match step {
            Step::Asked | Step::Killed => (KILL_SHOWS_WITHIN, StopStep::Kill),
            Step::Forced => (scene.kill_within, StopStep::Force),
            Step::Checking | Step::Overdue => (CHECKED_WITHIN, StopStep::EndSilentShim),
        };
        self.schedule(scene, step, within);
        if step != Step::Checking {
            self.note(scene, ContainerNote::Killing);
            self.show(scene, None);
        }
        scene.out.run(Job::Stop(action, target));
    }

    /// Notes a step and sets the timer of the next.
    fn schedule(&mut self, scene: &mut Scene<'_>, step: Step, within: Duration) {
        let id = self.record.id.clone();
        let Some(running) = self.running() else {
            return;
        };
        let number = running.stop.map_or(0, |stop| stop.number + 1);
        let far = Duration::from_secs(86_400 * 365);
        let due = scene.now.instant + within.min(far);
        running.stop = Some(Stop { step, number, due });
        scene
            .out
            .push(Effect::Wake(due, Alarm::Stop { id, number }));
    }

    /// A step of a stop has had its time.
    pub(super) fn stop_due(&mut self, scene: &mut Scene<'_>, number: u64) -> Fate {
        let Some(Running {
            stop: Some(stop), ..
        }) = self.running().copied()
        else {
            return Fate::Stays;
        };
        if stop.number != number {
            return Fate::Stays;
        }
        match stop.step {
            Step::Asked => self.take_step(scene, Step::Killed),
            Step::Killed => self.take_step(scene, Step::Forced),
            Step::Forced => self.take_step(scene, Step::Checking),
            Step::Checking | Step::Overdue => return self.not_stopped(scene),
        }
        Fate::Stays
    }

    /// The daemon has killed the container's cgroup, at once when a shim is silent: once init is
    /// over, only the shim is waited for.
    pub(super) fn forced(&mut self, scene: &mut Scene<'_>, init_lives: bool) {
        let is_forced = |stop: Stop| matches!(stop.step, Step::Killed | Step::Forced);
        let step = self.running().and_then(|running| running.stop);
        if step.is_some_and(is_forced) && !init_lives {
            self.schedule(scene, Step::Forced, SHIM_TELLS_WITHIN);
        }
    }

    /// A silent shim was killed, and the kernel tells of the end; or it is not the shim's fault.
    pub(super) fn checked(&mut self, scene: &mut Scene<'_>, shim_killed: bool) -> Fate {
        let step = self.running().and_then(|running| running.stop);
        if step.is_none_or(|stop| stop.step != Step::Checking) {
            return Fate::Stays;
        }
        if !shim_killed {
            return self.not_stopped(scene);
        }
        self.note(scene, ContainerNote::ShimKilled);
        self.schedule(scene, Step::Overdue, REAPED_WITHIN);
        Fate::Stays
    }

    /// The kernel does not end what was killed: those who wait are told, and a later stop begins
    /// with a kill.
    fn not_stopped(&mut self, scene: &mut Scene<'_>) -> Fate {
        let within = KILL_SHOWS_WITHIN + scene.kill_within;
        let id = &self.record.id;
        let error = Error::DeadlineExceeded(format!(
            "container {id} is still there {within:?} after it was killed: is it stuck in the \
             kernel, on a dead file system?"
        ));
        if self.stops.is_empty() && self.removals.is_empty() {
            self.note(scene, ContainerNote::NotStopped(error.clone()));
        }
        scene.out.answer_all(&mut self.stops, &Err(error.clone()));
        scene
            .out
            .answer_all(&mut self.removals, &Err(error.clone()));
        if let Some(running) = self.running()
            && let Some(stop) = &mut running.stop
        {
            stop.step = Step::Overdue;
        }
        Fate::NotStopped(error)
    }

    fn target(&mut self) -> Option<Target> {
        let made = self.record.made.as_ref();
        let signal = made.and_then(|made| Signal::from_number(made.stop_signal));
        let running = self.running().copied()?;
        Some(Target {
            id: self.record.id.clone(),
            init: running.init,
            cgroup_path: self.record.cgroup_path.clone(),
            signal: signal.unwrap_or(Signal::TERM),
        })
    }
}
