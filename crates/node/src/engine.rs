//! The engine as doors call it. Every call sends a message and waits; the work belongs to the
//! pod's task and runs to its end when the caller leaves.

use std::sync::Arc;
use std::time::Duration;

use crisp_cgroups::CgroupDriver;
use crisp_cni::NetworkStatus;
use crisp_image::Images;
use crisp_model::{ContainerConfig, ContainerId, Owner, PodConfig, PodId, Resources};
use tokio::io::AsyncReadExt as _;
use tokio::sync::oneshot;
use tracing::Span;

use crate::config::{Config, Features};
use crate::debts::OwedRemains;
use crate::error::{Error, Result, network_error};
use crate::events::Listener;
use crate::exec::ExecOutput;
use crate::figures::Figures;
use crate::machine::input::Totals;
use crate::pod::message::{ContainerRequest, Mailbox, Message, Request};
use crate::pod::naming::{NameMessage, NamesMailbox, Wanted};
use crate::recovery;
use crate::reply::Reply;
use crate::retirement;
use crate::shared::Shared;
use crate::stats::metrics::{self, PodMetrics};
use crate::stats::{ContainerStats, LayerStats, PodStats, reader};
use crate::view::{ContainerView, PodView};

/// The engine, as one of its owners sees it: pods, containers and events of other owners are not
/// there. Clones share everything.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
    names: NamesMailbox,
    owner: Owner,
}

/// Sends a request with a place for its answer. A task that has ended meanwhile had removed its
/// pod, unless it failed.
async fn ask<T>(
    mailbox: &Mailbox,
    missing: impl FnOnce() -> Error,
    request: impl FnOnce(Reply<T>) -> Request,
) -> Result<T> {
    let (reply, receiver) = oneshot::channel();
    if mailbox.send(Message::new(request(reply))).is_err() {
        return Err(missing());
    }
    match receiver.await {
        Ok(answer) => answer,
        Err(_) => Err(missing()),
    }
}

/// Removal of what is not there is success, as CRI has it.
fn gone_is_fine(result: Result<()>) -> Result<()> {
    match result {
        Err(Error::NotFound { .. }) => Ok(()),
        other => other,
    }
}

impl Engine {
    /// Reads every record, reconciles each with what the kernel has, and is ready for calls of an
    /// owner.
    ///
    /// # Errors
    /// When another daemon holds the directories, or they cannot be used. One bad record is no
    /// reason.
    pub async fn start(config: Config, owner: Owner) -> Result<Self> {
        let (shared, names) = recovery::start(config).await?;
        Ok(Self {
            shared,
            names,
            owner,
        })
    }

    /// The same engine as another owner sees it.
    #[must_use]
    pub fn of(&self, owner: Owner) -> Self {
        Self {
            owner,
            ..self.clone()
        }
    }

    /// The mailbox of a pod that callers see.
    fn mailbox(&self, pod: &PodId) -> Result<Mailbox> {
        self.shared.mailboxes.of(pod).ok_or_else(|| no_pod(pod))
    }

    /// Boots a pod. A repeated request joins the one in flight, or gets the pod that it made.
    ///
    /// # Errors
    /// When a part of the pod cannot be made; nothing is left of it then.
    pub async fn run_pod(&self, config: PodConfig) -> Result<PodId> {
        self.shared.check_handler(&config)?;
        let (reply, receiver) = oneshot::channel();
        let wanted = Wanted {
            owner: self.owner,
            config: Box::new(config),
            reply,
            span: Span::current(),
        };
        // A closed channel drops the reply, which the wait below tells.
        self.names.send(NameMessage::Run(wanted)).ok();
        let gone = |_| Err(Error::Unavailable("the engine is shutting down".to_owned()));
        receiver.await.unwrap_or_else(gone)
    }

    /// Stops a pod: kills its containers, frees its network. Idempotent.
    ///
    /// # Errors
    /// `NotFound`, or what could not be torn down.
    pub async fn stop_pod(&self, id: &str) -> Result<()> {
        let _files = self.shared.reserve.lend();
        let view = self.pod(id)?;
        let mailbox = self.mailbox(&view.id)?;
        let missing = || self.pod_gone(&view.id);
        ask(&mailbox, missing, |reply| Request::Stop { reply }).await
    }

    /// Removes a pod and its containers, stopping it first. A pod that is not there is success.
    ///
    /// # Errors
    /// What could not be torn down or removed.
    pub async fn remove_pod(&self, id: &str) -> Result<()> {
        let _files = self.shared.reserve.lend();
        gone_is_fine(self.remove_known_pod(id).await)
    }

    async fn remove_known_pod(&self, id: &str) -> Result<()> {
        let view = self.pod(id)?;
        let mailbox = self.mailbox(&view.id)?;
        let missing = || self.pod_gone(&view.id);
        ask(&mailbox, missing, |reply| Request::Remove { reply }).await
    }

    /// One pod.
    ///
    /// # Errors
    /// `NotFound` or `Ambiguous`.
    pub fn pod(&self, id: &str) -> Result<Arc<PodView>> {
        self.shared.views.pod(self.owner, id)
    }

    /// Every pod but those that boot.
    #[must_use]
    pub fn pods(&self) -> Vec<Arc<PodView>> {
        self.shared.views.pods(self.owner)
    }

    /// Notes new totals of a pod's resources; `None` leaves what was noted.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn update_pod_resources(
        &self,
        id: &str,
        overhead: Option<Resources>,
        resources: Option<Resources>,
    ) -> Result<()> {
        let view = self.pod(id)?;
        let mailbox = self.mailbox(&view.id)?;
        let missing = || self.pod_gone(&view.id);
        let totals = Box::new(Totals {
            overhead,
            resources,
        });
        ask(&mailbox, missing, |reply| Request::Update { totals, reply }).await
    }

    /// Creates a container in a pod. A repeated request joins the one in flight, or gets the
    /// container that it made.
    ///
    /// # Errors
    /// `InvalidArgument` names the field; `NotFound` when pod or image are not here. Nothing is
    /// left behind then.
    pub async fn create_container(
        &self,
        pod: &str,
        config: ContainerConfig,
    ) -> Result<ContainerId> {
        let view = self.pod(pod)?;
        self.check_fit()?;
        let mailbox = self.mailbox(&view.id)?;
        let config = Box::new(config);
        let missing = || self.pod_gone(&view.id);
        ask(&mailbox, missing, |reply| Request::Create { config, reply }).await
    }

    pub(crate) async fn request<T>(
        &self,
        id: &str,
        request: impl FnOnce(Reply<T>) -> ContainerRequest,
    ) -> Result<T> {
        let view = self.container(id)?;
        let mailbox = self.mailbox(&view.pod_id)?;
        let id = view.id.clone();
        let missing = || self.container_gone(&view);
        ask(&mailbox, missing, |reply| Request::Container {
            id,
            request: request(reply),
        })
        .await
    }

    /// Starts a container.
    ///
    /// # Errors
    /// The cause, when its program cannot be started; the container is over then.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        self.check_fit()?;
        self.request(id, |reply| ContainerRequest::Start { reply })
            .await
    }

    /// Stops a container: its stop signal, then, after the grace, SIGKILL. Zero kills at once. A
    /// later call with a shorter grace shortens an earlier one.
    ///
    /// # Errors
    /// `DeadlineExceeded` when the kernel does not end what was killed.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        self.request(id, |reply| ContainerRequest::Stop { grace, reply })
            .await
    }

    /// Removes a container, killing it first. A container that is not there is success.
    ///
    /// # Errors
    /// What could not be removed.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let _files = self.shared.reserve.lend();
        gone_is_fine(
            self.request(id, |reply| ContainerRequest::Remove { reply })
                .await,
        )
    }

    /// One container.
    ///
    /// # Errors
    /// `NotFound` or `Ambiguous`.
    pub fn container(&self, id: &str) -> Result<Arc<ContainerView>> {
        self.shared.views.container(self.owner, id)
    }

    /// The OCI runtime spec of a container as JSON; null when its bundle is gone.
    ///
    /// # Errors
    /// `NotFound` or `Ambiguous`.
    pub async fn spec(&self, id: &str) -> Result<serde_json::Value> {
        let path = self.container(id)?.bundle.join("config.json");
        let read = async {
            let mut text = Vec::new();
            let file = tokio::fs::File::open(path).await?;
            file.take(crisp_shim_api::MAX_SPEC)
                .read_to_end(&mut text)
                .await?;
            std::io::Result::Ok(text)
        };
        let text = read.await.unwrap_or_default();
        Ok(serde_json::from_slice(&text).unwrap_or_default())
    }

    /// Every container but those that are being created.
    #[must_use]
    pub fn containers(&self) -> Vec<Arc<ContainerView>> {
        let pods = self.shared.views.pods(self.owner);
        pods.iter()
            .flat_map(|pod| pod.containers.iter().cloned())
            .collect()
    }

    /// Runs a command in a container and answers what it wrote; at most 16 MiB a stream.
    ///
    /// # Errors
    /// `DeadlineExceeded` when it took longer than `timeout`; it is killed then.
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        self.request(id, |reply| ContainerRequest::Exec {
            command,
            timeout,
            reply,
        })
        .await
    }

    /// Changes a container's limits; what is 0 or empty stays.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn update_resources(&self, id: &str, resources: Resources) -> Result<()> {
        let resources = Box::new(resources);
        self.request(id, |reply| ContainerRequest::Update { resources, reply })
            .await
    }

    /// Lets a container's log be opened anew under its name, after a rotation.
    ///
    /// # Errors
    /// `FailedPrecondition` when it does not run.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        self.request(id, |reply| ContainerRequest::ReopenLog { reply })
            .await
    }

    /// A container's figures.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        let view = self.container(id)?;
        Ok(reader::container_stats(&self.shared, &view).await)
    }

    /// The size of each container's writable layer, running or not. A layer that is not measured
    /// within a moment is left out.
    pub async fn writable_layers(&self) -> Vec<LayerStats> {
        let containers = self.containers();
        let each = containers
            .iter()
            .map(|view| reader::layer_stats(&self.shared, view));
        let measured = futures::future::join_all(each).await;
        measured.into_iter().flatten().collect()
    }

    /// A pod's figures.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pod_stats(&self, id: &str) -> Result<PodStats> {
        let view = self.pod(id)?;
        Ok(reader::pod_stats(&self.shared, &view).await)
    }

    /// A pod's figures for metrics.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pod_metrics(&self, id: &str) -> Result<PodMetrics> {
        let view = self.pod(id)?;
        Ok(metrics::pod_metrics(&self.shared, &view).await)
    }

    /// Listens to events of this owner's pods from now on.
    #[must_use]
    pub fn events(&self) -> Listener {
        self.shared.events.subscribe(self.owner)
    }

    /// Whether pods can get a network now.
    #[must_use]
    pub fn network_status(&self) -> NetworkStatus {
        self.shared.config.network.status()
    }

    /// Takes the subnets that the cluster gives to this node's pods.
    ///
    /// # Errors
    /// When they cannot be put in force, `Unavailable` where they still may be; the ones before stay.
    pub async fn take_pod_cidr(&self, subnets: Vec<String>) -> Result<crisp_cni::PodCidr> {
        let taken = self.shared.config.network.take_pod_cidr(subnets).await;
        taken.map_err(network_error("take the pod CIDR"))
    }

    /// Why no container can start on this machine now; `None` when they can.
    #[must_use]
    pub fn unfit(&self) -> Option<&'static str> {
        self.shared.config.host.unfit()
    }

    /// The protection that `AppArmor` does not give to containers that name no profile; `None`
    /// without `AppArmor`, and when the default profile is loaded.
    #[must_use]
    pub fn apparmor_shortfall(&self) -> Option<String> {
        self.shared.config.host.apparmor_shortfall()
    }

    /// At the door, so that a container that cannot start now stays as it is and can start later.
    fn check_fit(&self) -> Result<()> {
        let refused = |why: &str| Error::FailedPrecondition(why.to_owned());
        self.unfit().map_or(Ok(()), |why| Err(refused(why)))
    }

    /// The handlers whose programs can start nothing, and why.
    #[must_use]
    pub fn handlers_shortfall(&self) -> Option<String> {
        self.shared.handlers_shortfall()
    }

    /// Why ordinary pods, which name no handler, cannot start.
    #[must_use]
    pub fn default_shortfall(&self) -> Option<String> {
        self.shared.default_shortfall()
    }

    /// The runtime handlers, the default one, whose name is empty, first.
    #[must_use]
    pub fn handlers(&self) -> Vec<Features> {
        self.shared.handlers()
    }

    /// Whether the daemon's threads answer: without them nothing can be started or stopped.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shared.pool.answers()
    }

    /// Waits until the daemon's threads have answered once more, as they do every few seconds.
    pub async fn next_round(&self) {
        self.shared.pool.next_round().await;
    }

    /// Looks at paths of the host that do not come back: at which mount or for which pod, and since
    /// when.
    #[must_use]
    pub fn stuck_looks(&self) -> Vec<(String, Duration)> {
        self.shared.host_lane.stuck()
    }

    /// Cgroups of pods that are gone that could not be removed yet.
    #[must_use]
    pub fn owed_cgroups(&self) -> Vec<crisp_cgroups::Owed> {
        self.shared.cgroups.owed()
    }

    /// Remains of failed creations and boots that could not be removed yet.
    #[must_use]
    pub fn owed_remains(&self) -> Vec<OwedRemains> {
        self.shared.debts.list()
    }

    /// Attachments of pods that are gone that a CNI plugin could not delete yet.
    #[must_use]
    pub fn owed_detachments(&self) -> Vec<crisp_cni::OwedDel> {
        self.shared.config.network.owed()
    }

    /// How callers name cgroup parents.
    #[must_use]
    pub fn cgroup_driver(&self) -> CgroupDriver {
        self.shared.config.cgroups.driver
    }

    /// The images.
    #[must_use]
    pub fn images(&self) -> &Images {
        &self.shared.config.images
    }

    /// Plain figures, for metrics.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures::of(&self.shared, &self.pods())
    }

    /// Ends the daemon's side: records are flushed, what no pod needs is unmounted. Pods go on.
    pub async fn shutdown(&self) {
        retirement::retire(&self.shared).await;
    }

    /// Why a pod's task gave no answer: it had removed its pod, or it has failed.
    fn pod_gone(&self, id: &PodId) -> Error {
        match self.shared.mailboxes.of(id) {
            Some(_) => {
                Error::Unavailable(format!("the task of pod {id} gave no answer; ask again"))
            }
            None => no_pod(id),
        }
    }

    fn container_gone(&self, view: &ContainerView) -> Error {
        match self.container(view.id.as_str()) {
            Ok(_) => self.pod_gone(&view.pod_id),
            Err(missing) => missing,
        }
    }
}

fn no_pod(id: &PodId) -> Error {
    Error::NotFound {
        what: "pod sandbox",
        id: id.to_string(),
    }
}
