//! What callers want of a pod's containers: create, start, stop, remove, exec, update, reopen.

use std::sync::Arc;
use std::time::Duration;

use crisp_model::{ContainerConfig, ContainerId, NamespaceMode, Resources};
use crisp_shim_api::{Request as ShimRequest, Stdin};
use crisp_sys::process::ProcessId;
use tokio::sync::Notify;

use super::{Phase, Pod, answer};
use crate::container::start::{self, Plan as LaunchPlan};
use crate::container::{Container, State, Stops, create, update};
use crate::error::{Error, Result};
use crate::exec::{self, Exec, ExecOutput};
use crate::message::{Reply, Report, Request};
use crate::record::{ContainerRecord, Entry};
use crate::shim_client::ShimClient;

impl Pod {
    /// A container is wanted.
    pub(super) fn create(&mut self, config: Box<ContainerConfig>, reply: Reply<ContainerId>) {
        if let Err(error) = self.check_ready("create a container") {
            return answer(reply, Err(error));
        }
        let named = self
            .containers
            .values_mut()
            .find(|c| c.config.name == config.name && c.is_wanted());
        if let Some(container) = named {
            match container.join(&config) {
                Joined::Waits(waiters) => return waiters.push(reply),
                Joined::Answered(result) => return answer(reply, result),
                Joined::Replaced => {}
            }
        }
        match self.begin_create(*config) {
            Ok(id) => {
                if let Some(State::Creating { waiters, .. }) =
                    self.containers.get_mut(&id).map(|c| &mut c.state)
                {
                    waiters.push(reply);
                }
            }
            Err(error) => answer(reply, Err(error)),
        }
    }

    fn check_ready(&self, wish: &str) -> Result<()> {
        match self.phase {
            Phase::Ready => Ok(()),
            _ => Err(Error::FailedPrecondition(format!(
                "cannot {wish} in pod {} ({}): it is not ready",
                self.config.name, self.record.id
            ))),
        }
    }

    /// Records a container and starts to make it.
    fn begin_create(&mut self, config: ContainerConfig) -> Result<ContainerId> {
        let target = self.target_of(&config)?;
        let entropy = crisp_sys::rand::entropy32().map_err(Error::step("draw a container id"))?;
        let id = ContainerId::from_entropy(entropy);
        let record = ContainerRecord {
            id: id.clone(),
            resources: config.resources.clone(),
            config,
            created_at: self.shared.creation_time(),
            cgroup_path: self
                .shared
                .cgroups
                .of_container(&self.record.cgroup_path, &id),
            made: None,
        };
        self.write(&Entry::Container(Box::new(record.clone())))?;
        let cancel = Arc::<Notify>::default();
        let state = State::Creating {
            waiters: Vec::new(),
            unwanted: None,
            cancel: Arc::clone(&cancel),
        };
        let plan = create::Plan {
            pod: self.record.clone(),
            record: record.clone(),
            target,
            cancel,
        };
        let container = Container::new(record, state, &self.record.id, &self.shared.paths);
        self.containers.insert(id.clone(), container);
        let shared = Arc::clone(&self.shared);
        self.child(&id, async move {
            Report::Made(create::create(&shared, plan).await)
        });
        Ok(id)
    }

    /// Init of the container whose PID namespace is to be joined.
    fn target_of(&self, config: &ContainerConfig) -> Result<Option<ProcessId>> {
        let NamespaceMode::Target(wanted) = &config.namespaces.pid else {
            return Ok(None);
        };
        let field = "linux.security_context.namespace_options.target_id";
        match self
            .containers
            .get(wanted)
            .map(|container| &container.state)
        {
            Some(State::Running(running)) => Ok(Some(running.init)),
            Some(_) => Err(Error::FailedPrecondition(format!(
                "{field}: container {wanted} is not running"
            ))),
            None => Err(Error::invalid(
                field,
                format!("no container {wanted} in this pod"),
            )),
        }
    }

    /// A caller wants something of a container.
    pub(super) fn request(&mut self, id: &ContainerId, request: Request) {
        match request {
            Request::Start { reply } => self.start(id, reply),
            Request::Stop { grace, reply } => self.stop_container(id, grace, reply),
            Request::Remove { reply } => self.remove_container(id, reply),
            Request::Exec {
                command,
                timeout,
                reply,
            } => self.exec(id, command, (timeout, reply)),
            Request::Update { resources, reply } => self.update_container(id, *resources, reply),
            Request::ReopenLog { reply } => self.reopen_log(id, reply),
        }
    }

    pub(super) fn start(&mut self, id: &ContainerId, reply: Reply<()>) {
        if let Err(error) = self.check_ready("start a container") {
            return answer(reply, Err(error));
        }
        let plan = match self.startable(id) {
            Ok(Some(plan)) => plan,
            Ok(None) => {
                if let Some(State::Starting { waiters, .. }) =
                    self.containers.get_mut(id).map(|c| &mut c.state)
                {
                    waiters.push(reply);
                }
                return;
            }
            Err(error) => return answer(reply, Err(error)),
        };
        let state = State::Starting {
            started_at: crate::shared::now(),
            waiters: vec![reply],
        };
        let entry = Entry::State {
            id: id.clone(),
            state: state.recorded(),
        };
        if let Err(error) = self.write(&entry) {
            if let State::Starting { waiters, .. } = state {
                waiters
                    .into_iter()
                    .for_each(|reply| answer(reply, Err(error.clone())));
            }
            return;
        }
        if let Some(container) = self.containers.get_mut(id) {
            container.state = state;
        }
        let shared = Arc::clone(&self.shared);
        self.child(id, async move {
            Report::Launched(start::launch(&shared, plan).await)
        });
    }

    /// What to launch; `None` when that is under way.
    fn startable(&self, id: &ContainerId) -> Result<Option<LaunchPlan>> {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        let refuse = |state: &str| {
            let name = &container.config.name;
            Err(Error::FailedPrecondition(format!(
                "cannot start container {name} ({id}): it {state}"
            )))
        };
        match &container.state {
            State::Created => {}
            State::Starting { .. } => return Ok(None),
            State::Running(_) => return refuse("is running already"),
            State::Exited { .. } => return refuse("has ended; create a new one"),
            State::Creating { .. } | State::Unmaking => return Err(missing(id)),
            State::Clearing { .. } => return refuse("is being removed"),
        }
        let Some(made) = &container.record.made else {
            return Err(missing(id));
        };
        Ok(Some(LaunchPlan {
            pod: self.record.id.clone(),
            id: id.clone(),
            cgroup_path: container.record.cgroup_path.clone(),
            resources: container.record.resources.clone(),
            rootfs: made.rootfs.clone(),
            log: made.log_path.clone(),
            stdin: match container.config.stdin {
                true => Stdin::Open,
                false => Stdin::Null,
            },
        }))
    }

    fn stop_container(&mut self, id: &ContainerId, grace: Duration, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else {
            return answer(reply, Err(missing(id)));
        };
        if container.state.is_settled() {
            return answer(reply, Ok(()));
        }
        container.stops.waiters.push(reply);
        self.end_within(id, grace);
    }

    fn remove_container(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else {
            return answer(reply, Err(missing(id)));
        };
        container.removals.push(reply);
        self.end_within(id, Duration::ZERO);
        self.clear(id);
    }

    fn exec(
        &mut self,
        id: &ContainerId,
        command: Vec<String>,
        (timeout, reply): (Option<Duration>, Reply<ExecOutput>),
    ) {
        let shim = match self.shim_of(id, "run a command in") {
            Ok(shim) => shim,
            Err(error) => return answer(reply, Err(error)),
        };
        let exec = Exec {
            container: id.clone(),
            shim,
            command,
            timeout,
            shim_within: self.shared.config.timeouts.shim,
        };
        tokio::spawn(exec::run(exec, reply));
    }

    /// The shim of a container that runs.
    fn shim_of(&self, id: &ContainerId, wish: &str) -> Result<ShimClient> {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        let name = &container.config.name;
        if !matches!(container.state, State::Running(_)) {
            let text = format!("cannot {wish} container {name} ({id}): it is not running");
            return Err(Error::FailedPrecondition(text));
        }
        container.shim().cloned().ok_or_else(|| {
            Error::Unavailable(format!(
                "cannot {wish} container {name} ({id}): its shim does not answer"
            ))
        })
    }

    /// New limits, one change after another: each builds on what the one before has left.
    fn update_container(&mut self, id: &ContainerId, asked: Resources, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else {
            return answer(reply, Err(missing(id)));
        };
        container.updates.push_back((asked, reply));
        if container.updates.len() == 1 {
            self.next_update(id);
        }
    }

    /// Puts the first of the new limits in force.
    pub(super) fn next_update(&mut self, id: &ContainerId) {
        while let Some((asked, _)) = self.containers.get(id).and_then(|c| c.updates.front()) {
            let asked = asked.clone();
            match self.put_in_force(id, &asked) {
                // A report will tell.
                Ok(None) => return,
                Ok(Some(merged)) => self.updated(id, Ok(merged)),
                Err(error) => self.updated(id, Err(error)),
            }
        }
    }

    /// The limits that are in force now; `None` while the shim is asked.
    fn put_in_force(&mut self, id: &ContainerId, asked: &Resources) -> Result<Option<Resources>> {
        let container = self.containers.get(id).ok_or_else(|| missing(id))?;
        let merged = update::merge(&container.record.resources, asked);
        let whole = update::to_oci(&merged, self.shared.cgroups.layout().is_v2())?;
        if matches!(container.state, State::Created) {
            update::rewrite(&self.shared.paths.bundle(id), whole)?;
            return Ok(Some(merged));
        }
        let shim = self.shim_of(id, "update")?;
        let within = self.shared.config.timeouts.shim;
        let resources = Box::new(whole);
        let change = update::Change {
            cgroup_path: container.record.cgroup_path.clone(),
            old: container.record.resources.clone(),
            new: merged,
        };
        let shared = Arc::clone(&self.shared);
        self.child(id, async move {
            let order = shim.order(ShimRequest::Update { resources }, within);
            let outcome = change.put_in_force(&shared, order).await;
            Report::Updated(outcome.map(|()| Box::new(change.new)))
        });
        Ok(None)
    }

    fn reopen_log(&mut self, id: &ContainerId, reply: Reply<()>) {
        let within = self.shared.config.timeouts.shim;
        match self.shim_of(id, "reopen the log of") {
            Err(error) => answer(reply, Err(error)),
            Ok(shim) => {
                tokio::spawn(async move {
                    answer(reply, shim.order(ShimRequest::ReopenLog, within).await);
                });
            }
        }
    }
}

/// What a repeated request comes to.
enum Joined<'a> {
    /// The same is being made.
    Waits(&'a mut Vec<Reply<ContainerId>>),
    /// It is there, or something else is.
    Answered(Result<ContainerId>),
    /// What was being made gives way.
    Replaced,
}

impl Container {
    /// Whether its name is still its own.
    fn is_wanted(&self) -> bool {
        match &self.state {
            State::Creating { unwanted, .. } => unwanted.is_none(),
            State::Unmaking => false,
            _ => true,
        }
    }

    /// Another request for its name.
    fn join(&mut self, config: &ContainerConfig) -> Joined<'_> {
        let same = self.config.same_request(config);
        let id = self.record.id.clone();
        match &mut self.state {
            State::Creating { waiters, .. } if same => Joined::Waits(waiters),
            State::Creating {
                unwanted, cancel, ..
            } => {
                cancel.notify_one();
                let text = format!(
                    "container {} was asked for again with another configuration",
                    config.name
                );
                *unwanted = Some(Error::Unavailable(text));
                Joined::Replaced
            }
            State::Created if same => Joined::Answered(Ok(id)),
            _ => Joined::Answered(Err(Error::AlreadyExists(format!(
                "container {} (attempt {}) of this pod exists as {id}: remove it first, or ask for \
                 another attempt",
                config.name, config.name.attempt
            )))),
        }
    }
}

/// Stops that wait for a start.
impl Stops {
    pub(super) fn take_pending(&mut self) -> Option<Duration> {
        self.pending.take()
    }
}

fn missing(id: &ContainerId) -> Error {
    Error::NotFound {
        what: "container",
        id: id.to_string(),
    }
}
