//! What every task of the engine may use: configuration, published state, the kernel's facts.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_model::Timestamp;
use crisp_spec::HostFacts;
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::process::ProcessId;

use crate::book::Book;
use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::paths::Paths;
use crate::stats::Sampler;

/// How often records that changed are flushed to disk.
const FLUSH_EVERY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) paths: Paths,
    pub(crate) book: Book,
    pub(crate) events: Events,
    pub(crate) sampler: Sampler,
    pub(crate) cgroups: Cgroups,
    /// The shim's program, out of reach for containers; `None` where each has to see to that.
    pub(crate) shim: Option<OwnedFd>,
    pub(crate) host: HostFacts,
    pub(crate) boot_id: String,
    /// Soft limit of open files before it was raised.
    pub(crate) open_files: Option<u64>,
    /// The last creation time that was given out.
    clock: AtomicI64,
    /// Journals with entries that may be in memory alone.
    unflushed: Mutex<BTreeSet<PathBuf>>,
    /// Held as long as this daemon lives.
    _locks: Vec<File>,
}

/// What the start found out.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) layout: Arc<Layout>,
    pub(crate) shim: Option<OwnedFd>,
    pub(crate) host: HostFacts,
    pub(crate) boot_id: String,
    pub(crate) open_files: Option<u64>,
    pub(crate) latest: Timestamp,
    pub(crate) locks: Vec<File>,
}

impl Shared {
    pub(crate) fn new(config: Config, found: Found) -> Self {
        Self {
            paths: Paths::new(&config),
            cgroups: Cgroups::new(&config, found.layout),
            shim: found.shim,
            config,
            book: Book::default(),
            events: Events::new(),
            sampler: Sampler::default(),
            host: found.host,
            boot_id: found.boot_id,
            open_files: found.open_files,
            clock: AtomicI64::new(found.latest.0),
            unflushed: Mutex::default(),
            _locks: found.locks,
        }
    }

    /// A time for a creation: later than every earlier one, also when the clock steps back.
    pub(crate) fn creation_time(&self) -> Timestamp {
        let next = |last| Timestamp::after(now(), Timestamp(last)).0;
        let step = |last| Some(next(last));
        let last = self
            .clock
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        Timestamp(next(last.unwrap_or_else(|last| last)))
    }

    pub(crate) fn cgroup(&self, path: &str) -> Cgroup {
        self.cgroups.at(path)
    }

    /// Moves a shim or a holder to where nobody comes upon it, beside everything else.
    pub(crate) fn shelter(self: &Arc<Self>, process: ProcessId) {
        let shared = Arc::clone(self);
        tokio::spawn(async move { shared.cgroups.shelter(process).await });
    }

    /// Whether the engine has the handler that a pod asks for.
    pub(crate) fn check_handler(&self, name: &str) -> Result<()> {
        if name.is_empty() || self.config.handlers.iter().any(|known| known == name) {
            return Ok(());
        }
        let why = format!("no runtime handler {name:?} is configured");
        Err(Error::invalid("runtime_handler", why))
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
        if let Err(error) = tokio::task::spawn_blocking(work).await {
            tracing::warn!(%error, "flushing records failed");
        }
    }
}

/// The wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(crisp_sys::clock::now())
}

/// Runs blocking work on its own thread; a panic in it is an error of that step.
pub(crate) async fn blocking<T: Send + 'static>(
    step: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(Error::step(step)(error)))
}
