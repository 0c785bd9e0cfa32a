//! What every task of the engine may use: configuration, published state, the kernel's facts.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crisp_model::{PodConfig, Timestamp};
use crisp_spec::HostFacts;
use crisp_sys::cgroup::{Cgroup, Layout};

use crate::book::Book;
use crate::config::{CgroupDriver, Config};
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
    pub(crate) layout: Arc<Layout>,
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
            config,
            book: Book::default(),
            events: Events::new(),
            sampler: Sampler::default(),
            layout: found.layout,
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
        Cgroup::new(Arc::clone(&self.layout), path)
    }

    /// Whether the engine has the handler that a pod asks for.
    pub(crate) fn check_handler(&self, name: &str) -> Result<()> {
        if name.is_empty() || self.config.handlers.iter().any(|known| known == name) {
            return Ok(());
        }
        let why = format!("no runtime handler {name:?} is configured");
        Err(Error::invalid("runtime_handler", why))
    }

    /// The parent cgroup of a pod's containers, relative to the cgroup root.
    pub(crate) fn cgroup_parent(&self, config: &PodConfig) -> Result<String> {
        let parent = config.cgroup_parent.trim_matches('/');
        if parent.split('/').any(|part| part == ".." || part == ".") {
            let why = format!("{:?} leaves the cgroup root", config.cgroup_parent);
            return Err(Error::invalid("linux.cgroup_parent", why));
        }
        match self.config.cgroups.driver {
            _ if parent.is_empty() => Ok(self.config.cgroups.parent.clone()),
            CgroupDriver::Cgroupfs => Ok(parent.to_owned()),
            CgroupDriver::Systemd => {
                slice_path(parent).map_err(|why| Error::invalid("linux.cgroup_parent", why))
            }
        }
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

/// The path of a systemd slice: `a-b.slice` lies in `a.slice` (systemd.slice(5)).
fn slice_path(slice: &str) -> std::result::Result<String, String> {
    let bad = || format!("{slice:?} is not the name of a slice");
    let name = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if name == "-" {
        return Ok(String::new());
    }
    if name.contains('/') || name.split('-').any(str::is_empty) {
        return Err(bad());
    }
    let ends = name.match_indices('-').map(|(at, _)| at);
    let parts: Vec<String> = ends
        .chain(std::iter::once(name.len()))
        .map(|end| format!("{}.slice", &name[..end]))
        .collect();
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_their_parents() {
        let path = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        assert_eq!(slice_path("kubepods-burstable-pod1.slice").unwrap(), path);
        assert_eq!(slice_path("kubepods.slice").unwrap(), "kubepods.slice");
        for bad in ["kubepods", "a/b.slice", "a--b.slice", "-a.slice", ".slice"] {
            assert!(slice_path(bad).is_err(), "{bad}");
        }
    }
}
