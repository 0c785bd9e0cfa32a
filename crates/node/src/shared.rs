//! The state that every task of the engine may use: configuration, published views, host facts.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_cgroups::Cgroups;
use crisp_model::{CgroupPath, Timestamp};
use crisp_records::PodRecord;
use crisp_spec::HostFacts;
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::limits::Reserve;
use crisp_sys::process::ProcessId;
use crisp_tasks::HostLane;

use crate::clock::CreationClock;
use crate::config::Config;
use crate::debts::Debts;
use crate::events::Events;
use crate::exec::{ExecIds, Room};
use crate::levels::Levels;
use crate::machine::pod::Rules;
use crate::paths::Paths;
use crate::pod::death::Death;
use crate::pod::mailboxes::Mailboxes;
use crate::pool::Pool;
use crate::shim::spares::Spares;
use crate::stats::sampler::Sampler;
use crate::tally::Tally;
use crate::views::Views;

/// How often records that changed are flushed to disk.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

/// How often cgroups that should be gone are looked at.
const PAY_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) views: Views,
    pub(crate) mailboxes: Mailboxes,
    pub(crate) events: Events,
    /// Running counts, for figures.
    pub(crate) tally: Tally,
    pub(crate) sampler: Sampler,
    pub(crate) cgroups: Cgroups,
    /// SELinux levels of pods.
    pub(crate) levels: Levels,
    /// Looks at paths that callers name.
    pub(crate) host_lane: HostLane,
    /// Devices that are asked for by name.
    pub(crate) cdi: crisp_cdi::Library,
    /// Remains of failed creations and boots.
    pub(crate) debts: Debts,
    /// Whether the shared threads answer.
    pub(crate) pool: Arc<Pool>,
    /// Shims that are loaded and wait for a container.
    pub(crate) spares: Arc<Spares>,
    pub(crate) host: HostFacts,
    pub(crate) boot_id: String,
    /// Whether other OCI runtimes start containers, or have started some.
    pub(crate) has_foreign: bool,
    /// Soft limit of open files before it was raised.
    pub(crate) open_files: Option<u64>,
    /// Open files for removals alone.
    pub(crate) reserve: Reserve,
    pub(crate) creation: CreationClock,
    pub(crate) exec_ids: ExecIds,
    /// Memory for the output of commands.
    pub(crate) exec_room: Room,
    /// Journals with entries that may be in memory alone.
    unflushed: Mutex<BTreeSet<PathBuf>>,
    /// Where a test lets this daemon die.
    pub(crate) death: Death,
    /// Held as long as this daemon lives.
    _locks: Vec<File>,
}

/// The findings of the start.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) layout: Arc<Layout>,
    pub(crate) shim: Option<OwnedFd>,
    pub(crate) host: HostFacts,
    pub(crate) boot_id: String,
    pub(crate) has_foreign: bool,
    pub(crate) open_files: Option<u64>,
    pub(crate) latest: Timestamp,
    pub(crate) death: Death,
    pub(crate) locks: Vec<File>,
}

impl Shared {
    /// The SELinux label of files that all containers of a pod use; none where nothing gets labels.
    pub(crate) fn label_of(&self, pod: &PodRecord) -> Option<String> {
        let label = || crisp_spec::pod_label(&pod.config, pod.selinux_level);
        self.host.selinux.then(label)
    }

    pub(crate) fn new(config: Config, found: Machine) -> Self {
        Self {
            paths: Paths::new(&config),
            cgroups: Cgroups::new(
                config.cgroups.clone(),
                config.holder_path.clone(),
                found.layout,
                config.state.join("owed-cgroups"),
            ),
            host_lane: HostLane::default(),
            cdi: crisp_cdi::Library::new(config.cdi_dirs.clone()),
            debts: Debts::default(),
            pool: Arc::default(),
            spares: Spares::new(&config.shim_path, found.shim),
            config,
            views: Views::default(),
            mailboxes: Mailboxes::default(),
            events: Events::new(),
            tally: Tally::default(),
            sampler: Sampler::default(),
            levels: Levels::default(),
            host: found.host,
            boot_id: found.boot_id,
            has_foreign: found.has_foreign,
            open_files: found.open_files,
            reserve: Reserve::default(),
            creation: CreationClock::after(found.latest),
            exec_ids: ExecIds::default(),
            exec_room: Room::default(),
            unflushed: Mutex::default(),
            death: found.death,
            _locks: found.locks,
        }
    }

    /// The facts that the machine of every pod is told.
    pub(crate) fn rules(&self) -> Rules {
        Rules {
            boot_id: self.boot_id.clone(),
            kill_within: self.config.timeouts.kill,
        }
    }

    pub(crate) fn cgroup(&self, path: &CgroupPath) -> Cgroup {
        self.cgroups.at(path)
    }

    /// Moves a shim or a holder to where nobody comes upon it, beside everything else.
    pub(crate) fn shelter(self: &Arc<Self>, process: ProcessId) {
        let shared = Arc::clone(self);
        crisp_tasks::detached(async move { shared.cgroups.shelter(process).await });
    }

    /// Notes that a journal has entries to flush.
    pub(crate) fn note_unflushed(&self, journal: PathBuf) {
        let mut unflushed = self
            .unflushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        unflushed.insert(journal);
    }

    /// Flushes what was noted, and tells whether anything was. Blocks. Journals that are gone
    /// meanwhile need no flush.
    pub(crate) fn flush(&self) -> bool {
        let mut unflushed = self
            .unflushed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let journals = std::mem::take(&mut *unflushed);
        drop(unflushed);
        let has_worked = !journals.is_empty();
        for path in journals {
            let flushed = File::open(&path).and_then(|file| file.sync_data());
            match flushed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "cannot flush a record");
                }
                _ => {}
            }
        }
        has_worked
    }
}

/// Removes cgroups in the background that could not be removed with their pods.
pub(crate) async fn pay_now_and_then(shared: std::sync::Weak<Shared>) {
    loop {
        tokio::time::sleep(PAY_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.cgroups.pay().await;
    }
}

/// Flushes records in the background for as long as the engine lives.
pub(crate) async fn flush_now_and_then(shared: std::sync::Weak<Shared>) {
    loop {
        tokio::time::sleep(FLUSH_EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let work = move || {
            if shared.flush() {
                crisp_sys::memory::give_back();
            }
        };
        if let Err(error) = crisp_tasks::blocking(work).await {
            tracing::warn!(%error, "flushing records failed");
        }
    }
}
