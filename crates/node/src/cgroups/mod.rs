//! Where the cgroups of pods, containers and shims are, and who makes them: Crisp by the cgroup
//! file system, or systemd.
//!
//! ```text
//! driver    a container's cgroup                        the shims'
//! cgroupfs  PARENT/crisp-ID                             crisp-shims
//! systemd   SLICE/crisp-ID.scope/container              system.slice/crisp-shims.scope
//!           SLICE/crisp-ID.scope/keeper
//! ```
//!
//! Paths say who made them, so containers outlive a change of the driver. Limits are written by
//! Crisp in either case: a scope is delegated, and systemd leaves what is below it alone. What
//! counts among siblings, weights and protections, is systemd's at the scope itself and set
//! through it. Neither exec nor anything with the cgroupfs driver talks to systemd.

mod keeper;
mod scope;
mod slice;
mod systemd;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{ContainerId, PodConfig, Resources};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::process::ProcessId;
use tokio::sync::RwLock;

use crate::config::{CgroupConfig, CgroupDriver, Config};
use crate::error::{Error, Result};
use crate::shared::blocking;
use scope::Scope;
use systemd::Systemd;

pub(crate) use slice::path_of as slice_path;

/// The cgroups of this node.
#[derive(Debug)]
pub(crate) struct Cgroups {
    config: CgroupConfig,
    layout: Arc<Layout>,
    keeper: PathBuf,
    systemd: Systemd,
    /// Read while a scope is being made, written while a slice is found unused and stopped.
    slices: RwLock<()>,
}

impl Cgroups {
    pub(crate) fn new(config: &Config, layout: Arc<Layout>) -> Self {
        Self {
            config: config.cgroups.clone(),
            layout,
            keeper: config.holder_path.clone(),
            systemd: Systemd::default(),
            slices: RwLock::default(),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The cgroup at a path below the root.
    pub(crate) fn at(&self, path: &str) -> Cgroup {
        Cgroup::new(Arc::clone(&self.layout), path)
    }

    /// Whether a path is the parent of all pods that name none.
    pub(crate) fn is_common(&self, path: &str) -> bool {
        path == self.config.parent
    }

    /// The parent cgroup of a pod's containers, relative to the cgroup root.
    pub(crate) fn parent_of(&self, config: &PodConfig) -> Result<String> {
        let invalid = |why| Error::invalid("linux.cgroup_parent", why);
        let parent = config.cgroup_parent.trim_matches('/');
        if parent.split('/').any(|part| part == ".." || part == ".") {
            let why = format!("{:?} leaves the cgroup root", config.cgroup_parent);
            return Err(invalid(why));
        }
        match self.config.driver {
            _ if parent.is_empty() => Ok(self.config.parent.clone()),
            CgroupDriver::Cgroupfs => Ok(parent.to_owned()),
            // Callers who know paths alone give that of the slice; its last part says it all.
            CgroupDriver::Systemd => {
                let name = parent.rsplit('/').next().unwrap_or(parent);
                slice_path(name).map_err(invalid)
            }
        }
    }

    /// The cgroup of a container below its pod's.
    pub(crate) fn of_container(&self, parent: &str, id: &ContainerId) -> String {
        match self.config.driver {
            CgroupDriver::Cgroupfs => format!("{}/crisp-{id}", parent.trim_matches('/')),
            CgroupDriver::Systemd => Scope::in_slice(parent, id.as_str()).container(),
        }
    }

    /// The topmost cgroup of a pod's parent path that does not exist yet. Parents that many pods
    /// share are nobody's.
    pub(crate) fn missing(&self, path: &str) -> Option<String> {
        if self.is_common(path) {
            return None;
        }
        let ends = path.match_indices('/').map(|(at, _)| at);
        let mut prefixes = ends
            .chain(std::iter::once(path.len()))
            .map(|end| &path[..end]);
        let missing = prefixes.find(|prefix| !prefix.is_empty() && !self.at(prefix).exists());
        missing.map(str::to_owned)
    }

    /// Makes a pod's parent cgroup, where its caller has not.
    pub(crate) async fn make_parent(&self, path: &str) -> Result<()> {
        let cgroup = self.at(path);
        let step = Error::step(format!("make cgroup {path}"));
        match self.slice(path) {
            // The kubelet has made it: nobody needs to be asked.
            Some(_) if cgroup.exists() => Ok(()),
            Some(unit) => self.systemd.start(unit).await,
            None => blocking("make a cgroup", move || cgroup.create().map_err(step)).await,
        }
    }

    /// The slice at a path, where slices are systemd's to make.
    fn slice<'a>(&self, path: &'a str) -> Option<&'a str> {
        let is_systemds = self.config.driver == CgroupDriver::Systemd;
        slice::unit_of(path).filter(|_| is_systemds)
    }

    /// Removes parents that were made for a pod, from the bottom up, as far as nobody else uses
    /// them. Best effort: they are empty.
    pub(crate) async fn remove_parents(&self, top: &str, bottom: &str) {
        let mut path = bottom;
        while self.remove_unused(path).await {
            match path.rsplit_once('/') {
                Some((parent, _)) if parent.len() >= top.len() => path = parent,
                _ => return,
            }
        }
    }

    /// Removes a cgroup that nobody uses; tells whether it is gone.
    async fn remove_unused(&self, path: &str) -> bool {
        let slice = self.slice(path);
        // systemd would stop with a slice what is just being started in it.
        let alone = match slice {
            Some(_) => Some(self.slices.write().await),
            None => None,
        };
        let cgroup = self.at(path);
        let looked = cgroup.clone();
        let is_in_use = blocking("look at a cgroup", move || Ok(is_in_use(&looked)));
        if is_in_use.await.unwrap_or(true) {
            return false;
        }
        let stopped = match slice {
            Some(unit) => self.systemd.stop(unit).await,
            None => Ok(()),
        };
        drop(alone);
        let step = Error::step("remove a cgroup");
        let removed = blocking("remove a cgroup", move || cgroup.remove().map_err(step));
        let removed = stopped.and(removed.await);
        if let Err(error) = &removed {
            tracing::debug!(path, %error, "cgroup stays");
        }
        removed.is_ok()
    }

    /// Makes what has to be there before a container's own cgroup is made by its shim.
    pub(crate) async fn open(&self, path: &str, resources: &Resources) -> Result<()> {
        let Some(scope) = Scope::of(path) else {
            return Ok(());
        };
        let _beside_others = self.slices.read().await;
        let keeper = keeper::spawn(&self.keeper, scope.id())?;
        let weights = scope::weights(resources);
        let made = self.systemd.start_scope(&scope, keeper.pid(), &weights);
        made.await?;
        let place = self.at(&scope.keeper());
        let step = Error::step(format!("move the keeper of {}", scope.unit()));
        let pid = keeper.pid();
        // Out of the scope's root: controllers reach its children only while nobody lives there.
        let moved = blocking("move a keeper", move || {
            let moved = place.create_bare().and_then(|()| place.attach(pid));
            moved.map_err(step)
        });
        moved.await?;
        keeper.stay().await
    }

    /// Lets siblings of a container weigh it, and its memory be protected, as new limits say.
    pub(crate) async fn weigh(&self, path: &str, resources: &Resources) -> Result<()> {
        let weights = scope::weights(resources);
        match Scope::of(path) {
            Some(scope) if !weights.is_empty() => self.systemd.set(scope.unit(), &weights).await,
            _ => Ok(()),
        }
    }

    /// Kills what is left in a container's cgroup and removes it, and the scope around it.
    pub(crate) async fn close(&self, path: &str) -> Result<()> {
        let scope = Scope::of(path);
        let top = self.at(scope.as_ref().map_or(path, Scope::path));
        let step = format!("remove cgroup {}", top.path());
        let cgroup = top.clone();
        let killed = blocking("end a cgroup", move || match cgroup.exists() {
            true => cgroup.kill().map(|()| true).map_err(Error::step(step)),
            false => Ok(false),
        });
        if !killed.await? {
            return Ok(());
        }
        if let Some(scope) = &scope
            && !leaves_by_itself(&top).await
            && let Err(error) = self.systemd.stop(scope.unit()).await
        {
            tracing::warn!(unit = scope.unit(), %error, "cannot tell systemd that a scope is over");
        }
        let step = Error::step(format!("remove cgroup {}", top.path()));
        blocking("remove a cgroup", move || top.remove().map_err(step)).await
    }

    /// Ends the scope of a container that is over and whose end is known. Off every path.
    pub(crate) async fn end_scope(&self, path: &str) {
        if Scope::of(path).is_some()
            && let Err(error) = self.close(path).await
        {
            tracing::warn!(path, %error, "the scope of an ended container stays until its removal");
        }
    }

    /// Moves a shim or a holder to where neither the kubelet, which kills what it finds below a
    /// pod's cgroup, nor systemd, which kills what it finds in the daemon's, comes upon it.
    pub(crate) async fn shelter(&self, process: ProcessId) {
        let moved = match self.config.driver {
            CgroupDriver::Cgroupfs => {
                let shims = self.at(&self.config.shims);
                blocking("move a shim", move || {
                    let moved = shims.create().and_then(|()| shims.attach(process.pid));
                    moved.map_err(Error::step("move a shim"))
                })
                .await
            }
            CgroupDriver::Systemd => self.shelter_in_scope(process).await,
        };
        if let Err(error) = moved
            && process.is_alive()
        {
            tracing::warn!(pid = process.pid, %error, "a shim or holder stays in the daemon's cgroup");
        }
    }

    /// The scope of the shims is there as long as there are some.
    async fn shelter_in_scope(&self, process: ProcessId) -> Result<()> {
        let mut last = None;
        for _ in 0..3 {
            let shims = self.at(&self.config.shims);
            let attached = blocking("move a shim", move || {
                let attached = shims.attach(process.pid);
                attached.map_err(Error::step("move a shim"))
            });
            let Err(error) = attached.await else {
                return Ok(());
            };
            let unit = slice::last_part(&self.config.shims);
            match self.systemd.start_shims(unit, process.pid).await {
                Ok(()) => return Ok(()),
                // Another shim was first, or the last one has just left.
                Err(refused) => last = Some(refused),
            }
            tracing::trace!(%error, "the scope of the shims is being made");
            tokio::time::sleep(systemd::PAUSE).await;
        }
        last.map_or(Ok(()), Err)
    }

    /// Takes away what no pod and no other daemon uses.
    pub(crate) async fn retire(&self) {
        if self.config.driver == CgroupDriver::Cgroupfs {
            self.remove_unused(&self.config.shims).await;
        }
        self.remove_unused(&self.config.parent).await;
    }
}

/// Whether systemd removes a scope that nobody lives in any more, as it does when the kernel tells
/// it so. That takes it a moment, and no call.
async fn leaves_by_itself(scope: &Cgroup) -> bool {
    for pause in [1, 2, 4, 8, 16, 32, 64, 128, 256] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if !scope.exists() {
            return true;
        }
    }
    false
}

/// Whether a cgroup holds processes or other cgroups.
fn is_in_use(cgroup: &Cgroup) -> bool {
    let roots = cgroup.layout().roots();
    let mut dirs = roots.iter().map(|root| root.join(cgroup.path()));
    let has_children = |dir: PathBuf| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .into_iter()
            .any(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
    };
    cgroup.is_populated().unwrap_or(true) || dirs.any(has_children)
}
