//! A world without a kernel: jobs make and remove named things in a set, and nothing else exists.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crisp_model::phase::Exit;
use crisp_model::{CgroupPath, ContainerId, Owner, PodId, Timestamp};
use crisp_records::{Entry, PodProgress, PodRecord, PodState, Replay};
use crisp_shim_api::ExitRecord;
use crisp_sys::process::ProcessId;

use super::sample::{container_id, ended, made, pod_config};
use crate::error::{Error, Result};
use crate::events::{EventKind, Subject};
use crate::machine::container::State;
use crate::machine::effect::{Alarm, Case, Done, Effect, Effects, Job, Remains, StopStep};
use crate::machine::facts::{Booted, Caller, Moment};
use crate::machine::input::{ContainerInput, Input, Launched, Verdict};
use crate::machine::pod::{Pod, Rules};
use crate::machine::revive::{Look, Story};

/// The process that the machine lives in.
#[derive(Debug, PartialEq, Eq)]
enum Daemon {
    Lives,
    Killed,
}

/// The disk of records.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Works,
    /// Records can be written, and not removed.
    KeepsRecords,
}

/// The world, with one pod in it.
pub(super) struct World {
    /// Resources that exist: `netns`, `bundle 1`, …
    pub(super) things: BTreeSet<String>,
    /// Containers whose init lives.
    pub(super) alive: BTreeSet<ContainerId>,
    /// Scopes of containers, which systemd keeps until it is told that they are over.
    pub(super) scopes: BTreeSet<CgroupPath>,
    /// Ends that shims wrote down before they told them.
    pub(super) slots: BTreeMap<ContainerId, ExitRecord>,
    pub(super) journal: Vec<Entry>,
    pub(super) has_record: bool,
    pub(super) disk: Disk,
    pub(super) pod: Option<Pod>,
    /// Workers that have not told their outcome.
    pub(super) jobs: VecDeque<Job>,
    /// Messages of shims that are not heard yet.
    pub(super) told: VecDeque<Input>,
    pub(super) alarms: Vec<Alarm>,
    pub(super) answers: BTreeMap<Caller, Result<Done>>,
    pub(super) asked: u64,
    pub(super) performed: usize,
    /// The daemon is killed before this effect.
    pub(super) killed_at: Option<usize>,
    daemon: Daemon,
    began: Instant,
}

fn rules() -> Rules {
    Rules {
        boot_id: "boot".to_owned(),
        kill_within: Duration::from_secs(10),
    }
}

fn init(id: &ContainerId) -> ProcessId {
    ProcessId {
        pid: i32::from(id.as_str().as_bytes()[0]),
        start_time: 7,
    }
}

impl World {
    /// A world in which a pod has just been asked for and recorded.
    pub(super) fn new(killed_at: Option<usize>) -> Self {
        let record = PodRecord {
            id: PodId::from_entropy([9; 32]),
            owner: Owner::Cri,
            config: pod_config(),
            created_at: Timestamp(1),
            cgroup_path: CgroupPath::parse("crisp").unwrap(),
            selinux_level: None,
        };
        let progress = PodProgress {
            phase: PodState::Booting,
            boot_id: "boot".to_owned(),
            holder: None,
            ips: Vec::new(),
            made_cgroup: None,
        };
        let mut world = Self {
            things: BTreeSet::new(),
            alive: BTreeSet::new(),
            scopes: BTreeSet::new(),
            slots: BTreeMap::new(),
            journal: vec![
                Entry::Pod(Box::new(record.clone())),
                Entry::Progress(progress.clone()),
            ],
            has_record: true,
            disk: Disk::Works,
            pod: None,
            jobs: VecDeque::new(),
            told: VecDeque::new(),
            alarms: Vec::new(),
            answers: BTreeMap::new(),
            asked: 0,
            performed: 0,
            killed_at,
            daemon: Daemon::Lives,
            began: Instant::now(),
        };
        let caller = world.caller();
        let (pod, first) = Pod::new(rules(), (record, progress), caller);
        world.pod = Some(pod);
        world.perform(first);
        world
    }

    /// Whether the daemon was killed, and none was started since.
    pub(super) fn is_killed(&self) -> bool {
        self.daemon == Daemon::Killed
    }

    pub(super) fn caller(&mut self) -> Caller {
        self.asked += 1;
        Caller(self.asked)
    }

    fn now(&self) -> Moment {
        Moment {
            wall: Timestamp(5),
            instant: self.began,
        }
    }

    /// Something happens to the pod.
    pub(super) fn happen(&mut self, input: Input) {
        let now = self.now();
        if let Some(pod) = &mut self.pod {
            let effects = pod.on(now, input);
            self.perform(effects);
        } else if let Some(caller) = caller_of(&input) {
            // The engine answers for a pod that is gone: a removal has nothing to do.
            let removal = matches!(input, Input::Remove { .. });
            let gone = Error::Unavailable("gone".to_owned());
            let answer = if removal {
                Ok(Done::Nothing)
            } else {
                Err(gone)
            };
            self.answers.insert(caller, answer);
        }
    }

    fn perform(&mut self, effects: Effects) {
        let mut due: VecDeque<Effect> = effects.0.into();
        while let Some(effect) = due.pop_front() {
            if self.killed_at == Some(self.performed) {
                self.daemon = Daemon::Killed;
                self.pod = None;
                return;
            }
            self.performed += 1;
            let then = self.act(effect);
            let now = self.now();
            if let (Some(input), Some(pod)) = (then, &mut self.pod) {
                let more = pod.on(now, input);
                more.0
                    .into_iter()
                    .rev()
                    .for_each(|effect| due.push_front(effect));
            }
        }
    }

    fn act(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Commit(entries, commit) => {
                self.journal.extend(entries);
                return Some(Input::Committed(commit, Ok(())));
            }
            Effect::Record(entry) => self.journal.push(entry),
            Effect::Answer(caller, answer) => {
                self.is_shown_no_more(&format!("{caller:?}"));
                let before = self.answers.insert(caller, answer);
                assert!(before.is_none(), "{caller:?} is answered twice");
            }
            Effect::Run(job) => self.begin(job),
            Effect::Wake(_, alarm) => self.alarms.push(alarm),
            Effect::Forget => return Some(Input::Forgotten(self.forget())),
            Effect::End => {
                self.pod = None;
                self.jobs.retain(|job| !matches!(job, Job::WatchHolder(_)));
                self.alarms.clear();
            }
            Effect::Bounce { caller, .. } => {
                self.answers.insert(caller, Ok(Done::Nothing));
            }
            Effect::Tell(EventKind::Deleted, Subject::Pod) => {
                self.is_shown_no_more("a client of events");
            }
            Effect::Publish
            | Effect::Tell(..)
            | Effect::Cancel(_)
            | Effect::Owe(..)
            | Effect::Note(_)
            | Effect::Settled => {}
        }
        None
    }

    fn is_shown_no_more(&self, who: &str) {
        let is_gone = |pod: &Pod| matches!(pod.phase, crate::machine::pod::Phase::Gone);
        assert!(
            !self.pod.as_ref().is_some_and(is_gone),
            "{who} hears that the pod is gone, and a list still has it"
        );
    }

    /// A worker starts: what it makes exists from now on, whenever its outcome is told.
    fn begin(&mut self, job: Job) {
        let ready = || {
            let pod = self.pod.as_ref()?;
            Some(matches!(pod.phase, crate::machine::pod::Phase::Ready))
        };
        match &job {
            Job::Boot(_) => self.make(&["netns", "address"], ""),
            Job::Create(plan) => {
                assert_eq!(
                    ready(),
                    Some(true),
                    "a container is made in a pod that is not ready"
                );
                self.make(&["bundle", "snapshot"], plan.record.id.as_str());
            }
            Job::Launch(plan) => {
                assert_eq!(
                    ready(),
                    Some(true),
                    "a container starts in a pod that is not ready"
                );
                self.alive.insert(plan.id.clone());
                self.make(&["shim", "cgroup"], plan.id.as_str());
                self.scopes.insert(plan.cgroup_path.clone());
            }
            Job::DismissShim(id) => {
                let pod = self.pod.as_ref();
                let container = pod.and_then(|pod| pod.containers.get(id));
                let state = container.map(|container| &container.state);
                let runs = matches!(state, Some(State::Starting { .. } | State::Running(_)));
                assert!(!runs, "the shim of a container that runs is sent away");
            }
            _ => {}
        }
        self.jobs.push_back(job);
    }

    fn make(&mut self, names: &[&str], of: &str) {
        self.things
            .extend(names.iter().map(|name| format!("{name} {of}")));
    }

    fn remove(&mut self, of: &str) {
        self.things
            .retain(|thing| !thing.ends_with(&format!(" {of}")));
    }

    /// A container's init ends; its shim writes that down, then tells.
    pub(super) fn end(&mut self, id: &ContainerId, code: u8) {
        if self.alive.remove(id) {
            self.slots.insert(id.clone(), ended(code));
            let over = ContainerInput::Over(ended(code));
            self.told.push_back(Input::of(id, over));
        }
    }

    /// The outcome of a worker, which is told to the machine.
    pub(super) fn finish(&mut self, job: Job) {
        let input = match job {
            Job::Boot(_) => Some(Input::Booted(Ok(Booted {
                ips: vec![[10, 0, 0, 1].into()],
                holder: None,
            }))),
            Job::Teardown(_) => {
                assert!(self.alive.is_empty(), "torn down below {:?}", self.alive);
                self.remove("");
                Some(Input::TornDown(Ok(())))
            }
            Job::Create(plan) => {
                let event = ContainerInput::Made(Ok(Box::new(made())));
                Some(Input::of(&plan.record.id, event))
            }
            Job::Unmake(remains) => {
                self.remove(remains.id.as_str());
                Some(Input::of(&remains.id, ContainerInput::Unmade(Ok(()))))
            }
            Job::Launch(plan) => {
                let launched = Launched {
                    init: init(&plan.id),
                    warnings: Vec::new(),
                };
                Some(Input::of(&plan.id, ContainerInput::Launched(Ok(launched))))
            }
            Job::WatchAlone(case, _) if !self.alive.contains(&case.id) => None,
            Job::Judge(case) | Job::WatchAlone(case, _) => {
                let verdict = self.judge(&case);
                Some(Input::of(&case.id, ContainerInput::Judged(verdict)))
            }
            Job::EndScope(path) => {
                self.scopes.remove(&path);
                None
            }
            Job::WatchHolder(_) | Job::DismissShim(_) | Job::CloseInput(_) => None,
            Job::Stop(step, target) => {
                if step != StopStep::Signal {
                    self.end(&target.id, 137);
                }
                None
            }
            Job::Clear(remains) => {
                self.clear(&remains);
                Some(Input::of(&remains.id, ContainerInput::Cleared(Ok(()))))
            }
            Job::Update(change) => {
                let event = ContainerInput::Updated(Ok(Box::new(change.new)));
                Some(Input::of(&change.id, event))
            }
            Job::Exec { caller, .. }
            | Job::Session { caller, .. }
            | Job::ReopenLog { caller, .. } => {
                self.answers.insert(caller, Ok(Done::Nothing));
                None
            }
        };
        if let Some(input) = input {
            self.happen(input);
        }
    }

    /// A worker fails; what it made so far stays.
    pub(super) fn fail(&mut self, job: Job) {
        let error = || Error::Unavailable("no luck".to_owned());
        match job {
            Job::Boot(_) => self.happen(Input::Booted(Err(error()))),
            Job::Create(plan) => {
                let event = ContainerInput::Made(Err(error()));
                self.happen(Input::of(&plan.record.id, event));
            }
            Job::Launch(plan) => {
                // A launch that fails leaves nothing.
                self.alive.remove(&plan.id);
                let id = plan.id.as_str();
                self.things.remove(&format!("shim {id}"));
                self.things.remove(&format!("cgroup {id}"));
                let event = ContainerInput::Launched(Err(error()));
                self.happen(Input::of(&plan.id, event));
            }
            Job::Clear(remains) => {
                let event = ContainerInput::Cleared(Err(error()));
                self.happen(Input::of(&remains.id, event));
            }
            Job::Teardown(_) => self.happen(Input::TornDown(Err(error()))),
            job => self.finish(job),
        }
    }

    fn judge(&self, case: &Case) -> Verdict {
        let is_there = self.things.contains(&format!("shim {}", case.id.as_str()));
        if self.alive.contains(&case.id) {
            let init = init(&case.id);
            return Verdict::Alive { init };
        }
        match self.slots.get(&case.id) {
            Some(record) => Verdict::Over(*record),
            None if is_there => Verdict::NeverRan("gone".to_owned()),
            None => Verdict::Untouched,
        }
    }

    fn clear(&mut self, remains: &Remains) {
        assert!(!self.alive.contains(&remains.id), "cleared while it runs");
        self.remove(remains.id.as_str());
        let is_other = |scope: &CgroupPath| Some(scope) != remains.cgroup_path.as_ref();
        self.scopes.retain(is_other);
    }

    /// Scopes whose containers have exited.
    pub(super) fn idle_scopes(&self) -> Vec<&CgroupPath> {
        let containers = self.pod.iter().flat_map(|pod| pod.containers.values());
        let exited = containers.filter(|one| matches!(one.state, State::Exited { .. }));
        let paths = exited.map(|one| &one.record.cgroup_path);
        paths.filter(|path| self.scopes.contains(path)).collect()
    }

    /// Lets everything that is under way come to its end.
    pub(super) fn settle(&mut self) {
        for _ in 0..1000 {
            if self.is_killed() {
                return;
            }
            if let Some(job) = self.jobs.pop_front() {
                self.finish(job);
            } else if let Some(input) = self.told.pop_front() {
                self.happen(input);
            } else if let Some(alarm) = self.alarms.pop() {
                self.ring(alarm);
            } else {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    /// Finishes jobs until one is of a kind, which is left out; without alarms.
    pub(super) fn work_until(&mut self, is_meant: impl Fn(&Job) -> bool) {
        while let Some(job) = self.jobs.pop_front() {
            if is_meant(&job) {
                return;
            }
            self.finish(job);
        }
    }

    pub(super) fn ring(&mut self, alarm: Alarm) {
        self.happen(match alarm {
            Alarm::Undo => Input::UndoDue,
            Alarm::Unmake { id } => Input::of(&id, ContainerInput::UnmakeDue),
            Alarm::Stop { id, number } => Input::of(&id, ContainerInput::StopDue(number)),
        });
    }

    /// The daemon is killed, and another one takes up what the journal tells of.
    pub(super) fn restart(&mut self) {
        self.killed_at = None;
        self.take_up();
    }

    /// The same, and that daemon is killed before so many effects.
    pub(super) fn restart_until(&mut self, effects: usize) {
        self.killed_at = Some(self.performed + effects);
        self.take_up();
    }

    fn take_up(&mut self) {
        self.pod = None;
        self.daemon = Daemon::Lives;
        self.jobs.clear();
        self.told.clear();
        self.alarms.clear();
        if !self.has_record {
            assert!(self.things.is_empty(), "lost: {:?}", self.things);
            return;
        }
        let mut replay = Replay::default();
        for entry in &self.journal {
            replay.apply(entry.clone());
        }
        let story = Story::new(replay).expect("a journal begins with its pod");
        let look = Look {
            is_whole: self.things.contains("netns ") && self.things.contains("address "),
            slots: self.slots.clone(),
        };
        let (pod, first) = Pod::revive(rules(), story, &look, self.now());
        self.pod = Some(pod);
        self.perform(first);
    }

    /// How a container ended, as callers see it.
    pub(super) fn exit(&self, number: u8) -> Option<Exit> {
        let container = self.pod.as_ref()?.containers.get(&container_id(number))?;
        match &container.state {
            State::Exited { exit } => Some(exit.clone()),
            _ => None,
        }
    }
}

fn caller_of(input: &Input) -> Option<Caller> {
    match input {
        Input::Join { caller, .. }
        | Input::Stop { caller }
        | Input::Remove { caller }
        | Input::Update { caller, .. }
        | Input::Create { caller, .. } => Some(*caller),
        Input::Container { event, .. } => event.caller(),
        _ => None,
    }
}
