//! The node's pod network as the engine uses it: attach, detach, check, collect, status.
//!
//! This file says in which order records, plugins and collections come. How a plugin is called is
//! in `client`, the built-in plugin is in `builtin`.

mod collection;
mod compiled;
mod debts;
mod leaving;
mod owed;
mod put_off;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crisp_model::PodId;
use crisp_sys::ns;
use crisp_tasks::Worker;

use self::compiled::Compiled;
pub use self::compiled::{Builtin, Need, PodCidr};
pub use self::debts::OwedDel;
use self::debts::{Debts, Leaving};
use self::put_off::PutOff;
use crate::attachment::{Attachment, InterfaceStats, NetworkStatus, PodNetwork};
use crate::builtin;
use crate::client::{
    Cache, Caller, ConfList, Found, NotAdded, Record, Target, Watch, not_ready, unasked,
};
use crate::error::{Context, Error, Result};
use crate::lane::{Lane, on_thread, to_the_end};
use crate::netlink::{Batch, link};
use crate::protocol::CniResult;
use crate::turns::{Turn, Turns};

/// How many pods are attached at a time. A plugin that hangs holds a seat until its deadline.
const ADDS: usize = 64;
/// How many pods are detached or checked at a time.
const DELS: usize = 64;

/// The source of the network's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A compiled-in conflist with the one plugin `crisp`.
    Builtin(Builtin),
    /// The first valid file of a directory.
    Conf {
        /// The directory, usually `/etc/cni/net.d`.
        dir: PathBuf,
    },
}

/// The settings of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Source of the configuration.
    pub mode: Mode,
    /// Directories of plugin programs, searched in this order.
    pub bin_dirs: Vec<PathBuf>,
    /// Directory of records: attachments, and the addresses that `crisp` gave out.
    pub cache_dir: PathBuf,
    /// How long one plugin may take.
    pub timeout: Duration,
}

/// The node's pod network.
#[derive(Debug, Clone)]
pub struct Network {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    watch: Watch,
    /// The built-in network; `None` when configurations are in a directory.
    compiled: Option<Arc<Compiled>>,
    caller: Arc<Caller>,
    cache: Cache,
    turns: Arc<Turns>,
    adds: Lane,
    /// DEL and CHECK.
    dels: Lane,
    collections: Lane,
    /// Pods of an earlier daemon that may be attached and whose record is missing.
    lost: Mutex<BTreeSet<PodId>>,
    /// DELs that failed and are tried again.
    owed: Debts,
    put_off: PutOff,
    /// Held for writing by a collection, for reading by each ADD and DEL: the CNI specification
    /// forbids other calls while plugins collect (GC), and an attachment that is made meanwhile
    /// would be missing in the list of those to spare.
    collection: RwLock<()>,
    /// Releases the addresses of detached pods; ends with the network.
    _releasing: Worker<()>,
}

impl Network {
    /// Reads the configuration and starts to watch it. A missing configuration is no error. Must
    /// be called within a tokio runtime, whose threads are in the node's network namespace.
    ///
    /// # Errors
    /// When the cache directory cannot be made, the built-in network's values make no sense, or
    /// no bridge is free. Other reasons why it does not work are told by [`Self::status`].
    pub fn open(config: Config) -> Result<Self> {
        let cache = Cache::open(&config.cache_dir.join("results"))?;
        let data_root = config.cache_dir.join("crisp");
        let caller = Arc::new(Caller::new(
            config.bin_dirs,
            config.timeout,
            data_root.clone(),
        ));
        let (watch, compiled) = match config.mode {
            Mode::Conf { dir } => (Watch::start(&dir, &caller), None),
            Mode::Builtin(mode) => {
                let (compiled, list) = Compiled::open(mode, &data_root, &caller)?;
                let compiled = Arc::new(compiled);
                let watched = Arc::clone(&compiled);
                (
                    Watch::fixed(list, move || watched.prepare()),
                    Some(compiled),
                )
            }
        };
        let releasing = Worker::start(caller.address_release().run());
        let inner = Inner {
            watch,
            compiled,
            caller,
            cache,
            turns: Arc::default(),
            adds: Lane::new(ADDS),
            dels: Lane::new(DELS),
            collections: Lane::new(1),
            lost: Mutex::default(),
            owed: Debts::default(),
            put_off: PutOff::default(),
            collection: RwLock::default(),
            _releasing: releasing,
        };
        let network = Self {
            inner: Arc::new(inner),
        };
        let compiled = network.inner.compiled.as_ref();
        if let Some(subnets) = compiled.and_then(|compiled| compiled.waits()) {
            network.settle(subnets, &Ok(PodCidr::InUse));
        }
        Ok(network)
    }

    /// Whether pods can be attached now; never waits.
    #[must_use]
    pub fn status(&self) -> NetworkStatus {
        self.inner.status()
    }

    /// Takes the subnets that the cluster gives to this node, where the configuration of the
    /// built-in network names none: now, or once no pod has an address of other subnets, unless
    /// others come before; the next daemon waits for that as well. Runs to its end even when the
    /// caller stops waiting.
    ///
    /// # Errors
    /// When they make no sense or cannot be put in force; those before stay.
    pub async fn take_pod_cidr(&self, subnets: Vec<String>) -> Result<PodCidr> {
        let (inner, wanted) = (Arc::clone(&self.inner), subnets.clone());
        let taken = on_thread(move || inner.take_pod_cidr(&wanted)).await;
        self.settle(subnets, &taken);
        taken
    }

    /// Goes on trying where subnets have to wait.
    fn settle(&self, subnets: Vec<String>, taken: &Result<PodCidr>) {
        let network = Arc::downgrade(&self.inner);
        self.inner.put_off.settle(taken, move || {
            let taken = network.upgrade()?.take_pod_cidr(&subnets);
            if matches!(taken, Ok(PodCidr::InForce)) {
                let pod_cidr = subnets.join(",");
                tracing::info!(pod_cidr, "pods get their addresses of the pod CIDR");
            }
            Some(taken)
        });
    }

    /// Attaches a pod: brings loopback up, then `ADD`. Runs to its end even when the caller stops
    /// waiting.
    ///
    /// # Errors
    /// When any plugin fails. The attachment is undone, or its undoing is owed.
    pub async fn attach(&self, pod: &PodNetwork) -> Result<Attachment> {
        let (inner, pod) = (Arc::clone(&self.inner), pod.clone());
        to_the_end(async move {
            let turn = inner.turns.take(&pod.pod_id).await;
            let seat = inner.adds.seat().await;
            let adding = Arc::clone(&inner);
            let added = on_thread(move || {
                let _seat = seat;
                adding.attach(&pod, &turn)
            })
            .await;
            inner.pay();
            added
        })
        .await
    }

    /// Whether a pod's attachment is still whole, as its plugins see it (`CHECK`).
    ///
    /// # Errors
    /// When the pod is not attached, or a plugin misses a part of the attachment.
    pub async fn check(&self, pod: &PodId) -> Result<()> {
        let (inner, pod) = (Arc::clone(&self.inner), pod.clone());
        let seat = self.inner.dels.seat().await;
        on_thread(move || {
            let _seat = seat;
            inner.check(&pod)
        })
        .await
    }

    /// Takes over from an earlier daemon, before any pod is detached: ends its plugins that still
    /// run, and remembers which of the pods that it attached have no record, so that these are
    /// detached all the same.
    ///
    /// # Errors
    /// When the records cannot be listed.
    pub async fn take_over(&self, attached: &BTreeSet<PodId>) -> Result<()> {
        let (inner, attached) = (Arc::clone(&self.inner), attached.clone());
        on_thread(move || inner.take_over(attached)).await
    }

    /// Removes everything that belongs to no live pod: addresses, links, host ports, records. A
    /// live pod is spared also when its record is lost. Pods that this process attached, or is
    /// attaching, are spared until they are detached, even if `live` does not name them: it may be
    /// older than they are. Runs to its end even when the caller stops waiting; ADD and DEL wait
    /// while plugins collect.
    ///
    /// # Errors
    /// When something could not be removed. The rest was.
    pub async fn collect(&self, live: &BTreeSet<PodId>) -> Result<()> {
        let (inner, live) = (Arc::clone(&self.inner), live.clone());
        to_the_end(async move {
            let seat = inner.collections.seat().await;
            let collector = Arc::clone(&inner);
            let collected = on_thread(move || {
                let _seat = seat;
                collector.collect(&live)
            })
            .await;
            inner.pay();
            collected
        })
        .await
    }

    /// Removes the built-in bridge and its firewall table when no pod uses them, for a daemon that
    /// stops for good.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub async fn retire(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        on_thread(move || {
            let retired = inner
                .caller
                .crisps()
                .into_iter()
                .map(|crisp| crisp.retire());
            Error::gather(retired.filter_map(Result::err).collect())
        })
        .await
    }
}

impl Inner {
    fn status(&self) -> NetworkStatus {
        let status = self.watch.status();
        match self.awaited() {
            Some(why) if status.ready => not_ready(why),
            _ => status,
        }
    }

    /// Why pods have to wait for their addresses.
    fn awaited(&self) -> Option<&'static str> {
        self.compiled.as_ref()?.awaited()
    }

    fn take_pod_cidr(&self, subnets: &[String]) -> Result<PodCidr> {
        let Some(compiled) = &self.compiled else {
            return Ok(PodCidr::Configured);
        };
        let Some(_still) = self.stand_still() else {
            compiled.wait_for(subnets)?;
            let why = "pod CIDR put off: attachments under way";
            return Err(Error::NotReady(why.to_owned()));
        };
        let (outcome, list) = compiled.change(subnets, &self.caller)?;
        if let Some(list) = list {
            self.watch.replace(list);
        }
        Ok(outcome)
    }

    fn attach(&self, pod: &PodNetwork, turn: &Turn) -> Result<Attachment> {
        if let Some(error) = self.too_much_owed() {
            return Err(error);
        }
        if let Some(why) = self.awaited() {
            return Err(Error::NotReady(why.to_owned()));
        }
        let growing = self.uncollected();
        let list = self.watch.list()?;
        for annotation in unasked(pod, &list) {
            tracing::warn!(pod_id = %pod.pod_id, pod = %pod.name, annotation, network = %list.name,
                "no plugin of the network takes the annotation: it is ignored");
        }
        let target = Target::of(pod, &list)?;
        turn.hold();
        let added = self.attach_anew(pod, &list, &target);
        drop(growing);
        if added.is_err() {
            // The engine does not know of it, so a collection may remove what is left.
            turn.let_go();
        }
        added
    }

    fn attach_anew(
        &self,
        pod: &PodNetwork,
        list: &ConfList,
        target: &Target,
    ) -> Result<Attachment> {
        self.undo(&pod.pod_id, target)?;
        self.owed.settle(&pod.pod_id);
        let record = Record::new(pod, list);
        self.cache.write(&record)?;
        let added = self.add(pod, list, target).and_then(|result| {
            let record = record.clone().with_result(&result);
            let written = self.cache.write(&record);
            written.map_err(|error| NotAdded {
                error: Box::new(error),
                started: list.plugins.len(),
            })?;
            Ok(result.attachment(list.version()))
        });
        added.map_err(|NotAdded { error, started }| {
            let leaving = Leaving {
                id: pod.pod_id.clone(),
                pod: Some(pod.clone()),
            };
            // The rest of it is owed.
            self.noted(&leaving, self.undo_started(record, started, target))
                .ok();
            *error
        })
    }

    /// DEL of the plugins that a failed ADD started. The others have nothing to delete, and a
    /// program that cannot be started for ADD cannot be for DEL either.
    fn undo_started(&self, mut record: Record, started: usize, target: &Target) -> Result<()> {
        let pod = record.pod.pod_id.clone();
        if started == 0 {
            return self.cache.remove(&pod);
        }
        if started < record.list.plugins.len() {
            record.list.plugins.truncate(started);
            self.cache.write(&record)?;
        }
        self.undo(&pod, target)
    }

    /// Waits until no collection is under way, and keeps the next one waiting.
    fn uncollected(&self) -> RwLockReadGuard<'_, ()> {
        let guard = self.collection.read();
        guard.unwrap_or_else(PoisonError::into_inner)
    }

    fn add(
        &self,
        pod: &PodNetwork,
        list: &ConfList,
        target: &Target,
    ) -> std::result::Result<CniResult, NotAdded> {
        // The plugin `crisp` brings loopback up together with the pod's interface.
        if list
            .plugins
            .first()
            .is_none_or(|p| p.kind() != builtin::TYPE)
        {
            loopback_up(&pod.netns).map_err(|error| NotAdded {
                error: Box::new(error),
                started: 0,
            })?;
        }
        self.caller.add(list, target)
    }

    fn detach(&self, turn: &Turn, leaving: &Leaving) -> Result<()> {
        turn.let_go();
        let _shrinking = self.uncollected();
        self.noted(leaving, self.undo(turn.pod(), &leaving.target()))
    }

    fn lost(&self) -> MutexGuard<'_, BTreeSet<PodId>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// DEL by the pod's record; without a record no plugin was ever called, unless the record was
    /// lost. `otherwise` stands for the pod when the record is damaged or lost.
    fn undo(&self, pod: &PodId, otherwise: &Target) -> Result<()> {
        let record = match self.cache.look(pod)? {
            Found::Nothing if self.lost().contains(pod) => {
                self.undo_blindly(otherwise)?;
                self.lost().remove(pod);
                return Ok(());
            }
            Found::Nothing => return Ok(()),
            Found::Lost(asked) => {
                let named = asked.as_deref().map(Target::unasked);
                self.undo_blindly(named.as_ref().unwrap_or(otherwise))?;
                self.lost().remove(pod);
                return self.cache.remove(pod);
            }
            Found::Record(record) => record,
            Found::Damaged(why) => {
                self.undo_blindly(otherwise)?;
                return self.cache.set_aside(pod, &why);
            }
        };
        // DEL gets the same runtime configuration as ADD. An annotation that ADD accepted and this
        // version refuses must not keep the pod from being removed.
        let target =
            Target::of(&record.pod, &record.list).unwrap_or_else(|_| Target::unasked(&record.pod));
        self.caller
            .del(&record.list, &target, record.result().as_ref())?;
        self.cache.remove(pod)
    }

    /// DEL by the list in force, which most likely is the one that the pod was attached by. Without
    /// a list there is no plugin to call: DEL waits for one.
    fn undo_blindly(&self, target: &Target) -> Result<()> {
        match self.watch.list() {
            Ok(list) => self.caller.del(&list, target, None),
            Err(none) => self.caller.del_builtin(target).and(Err(none)),
        }
    }

    fn check(&self, pod: &PodId) -> Result<()> {
        let record = self.cache.read(pod)?;
        let attached = record.and_then(|record| Some((record.result()?, record)));
        let Some((result, record)) = attached else {
            return Err(Error::invalid(format!("pod {pod}"), "not attached"));
        };
        self.caller.check(
            &record.list,
            &Target::of(&record.pod, &record.list)?,
            &result,
        )
    }
}

fn inside<T: Send>(netns: &Path, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file =
        File::open(netns).context(|| format!("open network namespace {}", netns.display()))?;
    ns::in_network(file.as_fd(), f)
        .context(|| format!("enter network namespace {}", netns.display()))?
}

/// Counters of every interface in a network namespace but loopback.
///
/// # Errors
/// When the namespace is gone.
pub async fn interface_stats(netns: &Path) -> Result<Vec<InterfaceStats>> {
    let netns = netns.to_owned();
    crisp_tasks::blocking(move || inside(&netns, || link::statistics(&mut link::open()?))).await?
}

/// Brings loopback up in a network namespace.
///
/// # Errors
/// When the namespace is gone or the kernel refuses.
pub fn loopback_up(netns: &Path) -> Result<()> {
    inside(netns, || {
        let mut batch = Batch::default();
        link::push_loopback_up(&mut batch);
        link::open()?.run(batch)
    })
}
