//! The slow steps of a pod's machine as workers of its task: what each is given, and what its
//! outcome tells the machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, ExitStatus};
use crisp_records::PodRecord;
use crisp_shim_api::{ExitRecord, Request as ShimRequest};
use crisp_tasks::{Failed, Workers};
use futures::future::BoxFuture;
use tracing::{Span, error_span, field};

use super::callers::Place;
use super::hands::Hands;
use super::{boot, teardown};
use crate::clock;
use crate::container::stop::Killed;
use crate::container::{clear, create, stop, update};
use crate::error::{Error, Result};
use crate::exec::{self, Exec};
use crate::machine::effect::{
    Case, CreatePlan, Job, LaunchPlan, PodRemains, Remains, StopStep, Target,
};
use crate::machine::facts::Caller;
use crate::machine::input::{ContainerInput, Input, Launched, Verdict};
use crate::machine::pod::Pod;
use crate::reply::answer;
use crate::shim::adopt::{self, Alone};
use crate::shim::client::ShimClient;
use crate::shim::loan::Link;
use crate::shim::{judge, launch};

/// A container that has a new shim gets the next one no sooner.
const ADOPTED_AFTER: Duration = Duration::from_secs(1);
/// How long the shim of a container that has ended stays. Callers that stop a container mostly stop
/// its pod next, and the end of a process takes a processor from them.
const SHIM_STAYS: Duration = Duration::from_millis(100);

/// The purpose of a worker, from which follows what its failure means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Work {
    Boot,
    Teardown,
    WatchHolder,
    Alarm,
    Create(ContainerId),
    Unmake(ContainerId),
    Launch(ContainerId),
    /// Of a container that was about to be started.
    JudgeStart(ContainerId),
    Judge(ContainerId),
    WatchAlone(ContainerId),
    Update(ContainerId),
    Clear(ContainerId),
    /// A step of a stop, an exec: a timer or the caller goes on without it.
    Passing(&'static str, Option<ContainerId>),
}

/// The outcome of a worker.
#[derive(Debug)]
pub(super) enum Outcome {
    Nothing,
    Input(Input),
    /// A container that was made, with what its shim can do ahead of the start.
    Made(ContainerId, Result<create::Made>),
    /// A launch, with the connection to the shim.
    Launched(ContainerId, Result<launch::Launched>),
    /// A look, with the connection to a shim that was found.
    Judged(ContainerId, Verdict, Option<Link>),
}

impl Work {
    /// The input for the machine when the worker had no outcome.
    fn failed(&self, failed: &Failed) -> Option<Input> {
        let error = || Error::fault(failed);
        let of = |id: &ContainerId, event| Some(Input::of(id, event));
        match self {
            Self::Boot => Some(Input::Booted(Err(error()))),
            Self::Teardown => Some(Input::TornDown(Err(error()))),
            Self::Create(id) => of(id, ContainerInput::Made(Err(error()))),
            Self::Unmake(id) => of(id, ContainerInput::Unmade(Err(error()))),
            Self::Launch(id) => of(id, ContainerInput::Launched(Err(error()))),
            Self::JudgeStart(id) => {
                let verdict = Verdict::NeverRan(error().to_string());
                of(id, ContainerInput::Judged(verdict))
            }
            // The kernel is asked instead.
            Self::Judge(id) => of(id, ContainerInput::Judged(Verdict::Alone)),
            Self::WatchAlone(id) => {
                let record = ExitRecord {
                    status: ExitStatus::Lost,
                    finished_at: clock::now(),
                    oom: false,
                };
                of(id, ContainerInput::Over(record))
            }
            Self::Update(id) => of(id, ContainerInput::Updated(Err(error()))),
            Self::Clear(id) => of(id, ContainerInput::Cleared(Err(error()))),
            Self::WatchHolder | Self::Alarm | Self::Passing(..) => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Teardown => "teardown",
            Self::WatchHolder => "watch holder",
            Self::Alarm => "alarm",
            Self::Create(_) => "create",
            Self::Unmake(_) => "unmake",
            Self::Launch(_) => "launch",
            Self::JudgeStart(_) | Self::Judge(_) => "judge",
            Self::WatchAlone(_) => "watch alone",
            Self::Update(_) => "update",
            Self::Clear(_) => "clear",
            Self::Passing(name, _) => name,
        }
    }

    fn container(&self) -> Option<&ContainerId> {
        match self {
            Self::Create(id)
            | Self::Unmake(id)
            | Self::Launch(id)
            | Self::JudgeStart(id)
            | Self::Judge(id)
            | Self::WatchAlone(id)
            | Self::Update(id)
            | Self::Clear(id) => Some(id),
            Self::Passing(_, id) => id.as_ref(),
            Self::Boot | Self::Teardown | Self::WatchHolder | Self::Alarm => None,
        }
    }
}

impl Hands {
    /// The outcome of a worker as an input of the machine; what the machine does not know stays
    /// here.
    pub(super) fn worked(
        &mut self,
        work: &Work,
        outcome: std::result::Result<Outcome, Failed>,
    ) -> Option<Input> {
        match outcome {
            Err(failed) => {
                let _in_pod = self.span.enter();
                tracing::error!(target: "crisp::pod", job = work.name(), %failed, "a worker failed");
                work.failed(&failed)
            }
            Ok(Outcome::Nothing) => None,
            Ok(Outcome::Input(input)) => Some(input),
            Ok(Outcome::Made(id, result)) => {
                let made = result.map(|made| {
                    self.held.entry(id.clone()).or_default().ahead = made.ahead;
                    made.record
                });
                Some(Input::of(&id, ContainerInput::Made(made)))
            }
            Ok(Outcome::Launched(id, result)) => {
                let event = result.map(|launched| {
                    self.connect(&id, launched.link, launched.shim);
                    Launched {
                        init: launched.init,
                        warnings: launched.warnings,
                    }
                });
                Some(Input::of(&id, ContainerInput::Launched(event)))
            }
            Ok(Outcome::Judged(id, verdict, link)) => {
                if let Some(link) = link {
                    let process = link.connection.peer();
                    if matches!(work, Work::WatchAlone(_)) {
                        self.held.entry(id.clone()).or_default().adopted_at = Some(Instant::now());
                    }
                    self.connect(&id, link, process);
                }
                Some(Input::of(&id, ContainerInput::Judged(verdict)))
            }
        }
    }

    /// Starts the worker of a job, as part of the trace of the call that caused it.
    pub(super) fn run(
        &mut self,
        workers: &mut Workers<Work, Outcome>,
        pod: &Pod,
        (job, cause): (Job, &Span),
    ) {
        let (work, step) = self.step(job);
        // A watch goes on long after the call that caused it, and would keep the call's span open.
        let watches = matches!(work, Work::WatchHolder | Work::WatchAlone(_));
        let cause = if cause.is_none() || watches {
            &self.span
        } else {
            cause
        };
        let span = error_span!(target: "crisp::pod", parent: cause, "job",
            job = work.name(), pod = self.pod_name, pod_id = %self.id,
            container = field::Empty, container_id = field::Empty, otel.name = work.name());
        if let Some(id) = work.container() {
            span.record("container", self.name_of(pod, id));
            span.record("container_id", field::display(id));
        }
        workers.start(work, span, step);
    }

    fn step(&mut self, job: Job) -> Started {
        let shared = Arc::clone(&self.shared);
        match job {
            Job::Boot(record) => self.boot_step(*record),
            Job::Teardown(remains) => self.teardown_step(*remains),
            Job::WatchHolder(holder) => started(Work::WatchHolder, async move {
                judge::wait_for_end(&holder).await;
                Outcome::Input(Input::HolderEnded)
            }),
            Job::Create(plan) => self.create_step(*plan),
            Job::Unmake(remains) => started(Work::Unmake(remains.id.clone()), async move {
                let cleared = clear::clear(&shared, &remains, None).await;
                told(&remains.id, ContainerInput::Unmade(cleared))
            }),
            Job::Launch(plan) => started(Work::Launch(plan.id.clone()), async move {
                let id = plan.id.clone();
                Outcome::Launched(id, launch::launch(&shared, *plan).await)
            }),
            Job::Judge(case) => self.judge_step(case),
            Job::WatchAlone(case, plan) => self.watch_step(case, *plan),
            Job::Stop(step, target) => self.stop_step(step, target),
            Job::EndScope(path) => started(Work::Passing("end scope", None), async move {
                shared.cgroups.end_scope(&path).await;
                Outcome::Nothing
            }),
            Job::DismissShim(id) => self.dismiss_step(id),
            Job::Clear(remains) => self.clear_step(remains),
            Job::Update(change) => {
                let shim = self.shim(&change.id);
                started(Work::Update(change.id.clone()), async move {
                    let applied = update::apply(&shared, &change, shim.as_ref()).await;
                    let event = applied.map(|()| Box::new(change.new.clone()));
                    told(&change.id, ContainerInput::Updated(event))
                })
            }
            Job::Exec {
                id,
                command,
                timeout,
                caller,
            } => self.exec_step(id, (command, timeout), caller),
            Job::Session { id, ask, caller } => self.session_step(id, *ask, caller),
            Job::CloseInput(id) => self.close_input_step(id),
            Job::ReopenLog { id, caller } => self.reopen_step(&id, caller),
        }
    }

    fn boot_step(&mut self, record: PodRecord) -> Started {
        let (shared, room) = (Arc::clone(&self.shared), self.room.take());
        started(Work::Boot, async move {
            if let Some(gone) = room {
                boot::make_room(gone).await;
            }
            Outcome::Input(Input::Booted(boot::boot(&shared, &record).await))
        })
    }

    fn teardown_step(&self, remains: PodRemains) -> Started {
        let shared = Arc::clone(&self.shared);
        // All containers are over by now: shims that have not left yet, leave. None has anything of
        // the pod's, and the handles stay for the removals, which wait for that.
        for shim in self.held.values().filter_map(|held| held.shim.clone()) {
            crisp_tasks::apart(async move {
                tokio::time::sleep(SHIM_STAYS).await;
                shim.all_have_the_rest().await;
                shim.dismiss().await;
            });
        }
        started(Work::Teardown, async move {
            let errors = teardown::teardown(&shared, &remains).await;
            let result = Error::gather("tear down", errors).map_or(Ok(()), Err);
            Outcome::Input(Input::TornDown(result))
        })
    }

    fn create_step(&mut self, plan: CreatePlan) -> Started {
        let shared = Arc::clone(&self.shared);
        let id = plan.record.id.clone();
        let cancel = Arc::clone(&self.held.entry(id.clone()).or_default().cancel);
        self.shared.spares.have_one();
        started(Work::Create(id.clone()), async move {
            let made = create::create(&shared, plan, &cancel).await;
            Outcome::Made(id, made)
        })
    }

    fn watch_step(&mut self, case: Case, plan: LaunchPlan) -> Started {
        let shared = Arc::clone(&self.shared);
        let held = self.held.entry(case.id.clone()).or_default();
        // The handle of the shim that has gone: calls on it would only fail.
        held.shim = None;
        let is_recent = |at: &Instant| at.elapsed() < ADOPTED_AFTER;
        let pause = match held.adopted_at.as_ref().is_some_and(is_recent) {
            true => ADOPTED_AFTER,
            false => Duration::ZERO,
        };
        let loan = held.loan.clone();
        let alone = Alone {
            case,
            plan,
            loan,
            pause,
        };
        started(Work::WatchAlone(alone.case.id.clone()), async move {
            let (verdict, link) = adopt::watch(&shared, &alone).await;
            Outcome::Judged(alone.case.id, verdict, link)
        })
    }

    fn judge_step(&self, case: Case) -> Started {
        let shared = Arc::clone(&self.shared);
        let held = self.held.get(&case.id);
        let loan = held.map(|held| held.loan.clone()).unwrap_or_default();
        let work = match case.init {
            Some(_) => Work::Judge(case.id.clone()),
            None => Work::JudgeStart(case.id.clone()),
        };
        started(work, async move {
            let (verdict, link) = judge::judge(&shared, &case, &loan).await;
            Outcome::Judged(case.id, verdict, link)
        })
    }

    /// The handle stays: who comes upon a shim that is leaving waits until it has.
    fn dismiss_step(&self, id: ContainerId) -> Started {
        let (shared, shim, pod) = (Arc::clone(&self.shared), self.shim(&id), self.id.clone());
        let work = Work::Passing("dismiss shim", Some(id.clone()));
        started(work, async move {
            tokio::time::sleep(SHIM_STAYS).await;
            if let Some(shim) = &shim {
                shim.all_have_the_rest().await;
            }
            clear::dismiss_recorded(&shared, (&pod, &id), shim.as_ref()).await;
            Outcome::Nothing
        })
    }

    fn clear_step(&mut self, remains: Remains) -> Started {
        let shared = Arc::clone(&self.shared);
        let held = self.held.get_mut(&remains.id);
        let shim = held.and_then(|held| held.shim.take());
        started(Work::Clear(remains.id.clone()), async move {
            let cleared = clear::clear(&shared, &remains, shim.as_ref()).await;
            told(&remains.id, ContainerInput::Cleared(cleared))
        })
    }

    fn stop_step(&self, step: StopStep, target: Target) -> Started {
        let (shared, shim) = (Arc::clone(&self.shared), self.shim(&target.id));
        let name = match step {
            StopStep::Signal => "signal",
            StopStep::Kill => "kill",
            StopStep::Force => "force",
            StopStep::EndSilentShim => "end silent shim",
        };
        let work = Work::Passing(name, Some(target.id.clone()));
        started(work, async move {
            let done = match step {
                StopStep::Signal => stop::signal(&target, shim.as_ref()).await.map(|()| false),
                StopStep::Kill => {
                    let killed = stop::kill(&shared, &target, shim.as_ref()).await;
                    killed.map(|killed| killed == Killed::PastShim)
                }
                StopStep::Force => stop::force(&shared, &target).await.map(|()| true),
                StopStep::EndSilentShim => Ok(false),
            };
            if let Err(error) = &done {
                // The next step of the stop comes in any case.
                tracing::warn!(target: "crisp::container", container_id = %target.id, %error, "a step of a stop failed");
            }
            let is_forced = done.unwrap_or(step == StopStep::Force);
            match step {
                StopStep::Signal | StopStep::Kill if !is_forced => Outcome::Nothing,
                StopStep::Signal | StopStep::Kill | StopStep::Force => {
                    let init_lives = judge::lives(&target.init);
                    told(&target.id, ContainerInput::Forced { init_lives })
                }
                StopStep::EndSilentShim => {
                    let shim = shim.and_then(|shim| shim.process);
                    let shim_killed = judge::end_silent_shim(&target, shim.as_ref()).await;
                    told(&target.id, ContainerInput::Checked { shim_killed })
                }
            }
        })
    }

    fn exec_step(
        &mut self,
        id: ContainerId,
        (command, timeout): (Vec<String>, Option<Duration>),
        caller: Caller,
    ) -> Started {
        let (shim, place) = (self.shim(&id), self.callers.take(caller));
        let shared = Arc::clone(&self.shared);
        let work = Work::Passing("exec", Some(id.clone()));
        started(work, async move {
            if let (Some(shim), Some(Place::Output(reply))) = (shim, place) {
                let exec = Exec {
                    container: id,
                    exec_id: shared.exec_ids.next(),
                    shim,
                    command,
                    timeout,
                    shim_within: shared.config.timeouts.shim,
                    room: shared.exec_room.share(),
                };
                exec::run(exec, reply).await;
            }
            Outcome::Nothing
        })
    }

    fn reopen_step(&mut self, id: &ContainerId, caller: Caller) -> Started {
        let within = self.shared.config.timeouts.shim;
        let (shim, place) = (self.shim(id), self.callers.take(caller));
        let work = Work::Passing("reopen log", Some(id.clone()));
        started(work, async move {
            if let (Some(shim), Some(Place::Nothing(reply))) = (shim, place) {
                answer(reply, shim.order(ShimRequest::ReopenLog, within).await);
            }
            Outcome::Nothing
        })
    }

    pub(super) fn shim(&self, id: &ContainerId) -> Option<ShimClient> {
        self.held.get(id)?.shim.clone()
    }
}

/// A worker that can be started.
pub(super) type Started = (Work, BoxFuture<'static, Outcome>);

pub(super) fn started(work: Work, step: impl Future<Output = Outcome> + Send + 'static) -> Started {
    (work, Box::pin(step))
}

fn told(id: &ContainerId, event: ContainerInput) -> Outcome {
    Outcome::Input(Input::of(id, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The inputs that a panic comes to; the machine's tests say where each leads.
    #[tokio::test]
    async fn a_panic_of_a_worker_is_an_input() {
        let id = ContainerId::from_entropy([1; 32]);
        let works = [
            Work::Boot,
            Work::Teardown,
            Work::Create(id.clone()),
            Work::Unmake(id.clone()),
            Work::Launch(id.clone()),
            Work::JudgeStart(id.clone()),
            Work::Judge(id.clone()),
            Work::WatchAlone(id.clone()),
            Work::Update(id.clone()),
            Work::Clear(id),
        ];
        let mut workers: Workers<Work, Outcome> = Workers::default();
        for work in works {
            workers.start(work, Span::none(), async { panic!("oh") });
            let (work, outcome) = workers.next().await;
            let input = work.failed(&outcome.unwrap_err());
            let text = format!("{input:?}");
            let is_told = match &work {
                Work::Judge(_) => text.contains("Alone"),
                Work::WatchAlone(_) => text.contains("Lost"),
                _ => text.to_lowercase().contains("panicked"),
            };
            assert!(is_told, "{work:?}: {text}");
        }
    }
}
