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

use crisp_model::{CgroupPath, ContainerId, PodConfig, Resources};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::process::ProcessId;

use crate::blocking::blocking;
use crate::config::{CgroupConfig, CgroupDriver, Config};
use crate::error::{Context, Error, Result};
use keeper::Keeper;
use scope::Scope;
use slice::Traffic;
use systemd::Systemd;

pub(crate) use slice::path_of as slice_path;

/// The cgroups of this node.
#[derive(Debug)]
pub(crate) struct Cgroups {
    config: CgroupConfig,
    layout: Arc<Layout>,
    keeper: PathBuf,
    systemd: Systemd,
    traffic: Traffic,
}

impl Cgroups {
    pub(crate) fn new(config: &Config, layout: Arc<Layout>) -> Self {
        Self {
            config: config.cgroups.clone(),
            layout,
            keeper: config.holder_path.clone(),
            systemd: Systemd::default(),
            traffic: Traffic::default(),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The cgroup at a path below the root.
    pub(crate) fn at(&self, path: &str) -> Cgroup {
        Cgroup::new(Arc::clone(&self.layout), path)
    }

    /// Whether a path is the parent of all pods that name none, or the root.
    pub(crate) fn is_common(&self, path: &str) -> bool {
        path == self.config.parent || path.is_empty()
    }

    /// The cgroup that shims and holders move to by themselves, which makes nobody wait; `None`
    /// where [`Self::shelter`] moves them into a scope of systemd.
    pub(crate) fn shims(&self) -> Option<CgroupPath> {
        match self.config.driver {
            CgroupDriver::Cgroupfs => CgroupPath::parse(&self.config.shims).ok(),
            CgroupDriver::Systemd => None,
        }
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
        let scope = match self.config.driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd => Scope::in_parent(parent, id.as_str()),
        };
        let plain = || format!("{}/crisp-{id}", parent.trim_matches('/'));
        scope.map_or_else(plain, |scope| scope.container())
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
        let step = format!("make cgroup {path}");
        match self.slice(path) {
            // The kubelet has made it: nobody needs to be asked.
            Some(_) if cgroup.exists() => Ok(()),
            Some(unit) => {
                let _nobody_stops = self.traffic.enter(path).await;
                self.systemd.start(unit).await
            }
            None => blocking(move || cgroup.create().context(|| step)).await,
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
        let removed = match self.slice(path) {
            Some(unit) => self.stop_unused(unit, path).await,
            None => self.unless_used(path, |cgroup| cgroup.remove()).await,
        };
        if let Err(error) = &removed {
            tracing::warn!(path, %error, "an empty cgroup stays");
        }
        removed.unwrap_or(false)
    }

    async fn stop_unused(&self, unit: &str, path: &str) -> Result<bool> {
        let Some(_nobody_enters) = self.traffic.stop(path) else {
            return Ok(false);
        };
        if !self.unless_used(path, |_| Ok(())).await? {
            return Ok(false);
        }
        self.systemd.stop(unit).await?;
        // Where Crisp has made it, or a controller of which systemd knows nothing is left.
        self.unless_used(path, |cgroup| cgroup.remove()).await
    }

    async fn unless_used(
        &self,
        path: &str,
        act: impl FnOnce(&Cgroup) -> std::io::Result<()> + Send + 'static,
    ) -> Result<bool> {
        let cgroup = self.at(path);
        let step = format!("remove cgroup {path}");
        let unless_used = move || match is_in_use(&cgroup) {
            true => Ok(false),
            false => act(&cgroup).map(|()| true).context(|| step),
        };
        blocking(unless_used).await
    }

    /// Makes what has to be there before a container's own cgroup is made by its shim.
    pub(crate) async fn open(&self, path: &str, resources: &Resources) -> Result<()> {
        let Some(scope) = Scope::of(path) else {
            return Ok(());
        };
        let _nobody_stops = self.traffic.enter(scope.path()).await;
        let (program, id) = (self.keeper.clone(), scope.id().to_owned());
        let keeper = blocking(move || keeper::spawn(&program, &id)).await?;
        match self.enclose(&scope, &keeper, resources).await {
            Ok(()) => keeper.stay().await,
            Err(error) => {
                keeper.dismiss();
                Err(error)
            }
        }
    }

    async fn enclose(&self, scope: &Scope, keeper: &Keeper, resources: &Resources) -> Result<()> {
        let pid = keeper.pid();
        let weights = scope::weights(resources);
        let made = self.systemd.start_scope(scope, pid, &weights).await;
        // It may have been made although the answer was lost.
        if made.is_err() && !keeper.is_in(scope.path()) {
            return made;
        }
        let place = self.at(&scope.keeper());
        let step = format!("move the keeper of {}", scope.unit());
        // Out of the scope's root: controllers reach its children only while nobody lives there.
        let moved = blocking(move || {
            let moved = place.create_bare().and_then(|()| place.attach(pid));
            moved.context(|| step)
        });
        moved.await
    }

    /// Lets siblings of a container weigh it, and its memory be protected, as new limits say.
    pub(crate) async fn weigh(&self, path: &str, old: &Resources, new: &Resources) -> Result<()> {
        let changes = scope::changes(&scope::weights(old), &scope::weights(new));
        match Scope::of(path) {
            Some(scope) if !changes.is_empty() => self.systemd.set(scope.unit(), &changes).await,
            _ => Ok(()),
        }
    }

    /// Kills what is left in a container's cgroup and removes it, and the scope around it.
    pub(crate) async fn close(&self, path: &str) -> Result<()> {
        let scope = Scope::of(path);
        let top = self.at(scope.as_ref().map_or(path, Scope::path));
        let step = format!("remove cgroup {}", top.path());
        let cgroup = top.clone();
        let killed = blocking(move || match cgroup.exists() {
            true => cgroup.kill().map(|()| true).context(|| step),
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
        let step = format!("remove cgroup {}", top.path());
        blocking(move || top.remove().context(|| step)).await
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
    /// pod's cgroup, nor systemd, which kills what it finds in the daemon's, comes upon it. With the
    /// cgroupfs driver they move by themselves.
    pub(crate) async fn shelter(&self, process: ProcessId) {
        let moved = match self.config.driver {
            CgroupDriver::Cgroupfs => Ok(()),
            CgroupDriver::Systemd => self.shelter_in_scope(process).await,
        };
        if let Err(error) = moved
            && process.is_alive()
        {
            tracing::warn!(pid = process.pid, %error, "a shim or holder stays in the daemon's cgroup");
        }
    }

    /// The scope of the shims is there as long as there are some: it is joined, or made.
    async fn shelter_in_scope(&self, process: ProcessId) -> Result<()> {
        let mut last = Ok(());
        for pause in [0, 5, 20, 100, 500] {
            // Another shim was first and its scope is being made, or the last one has just left.
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let shims = self.at(&self.config.shims);
            let join = move || {
                let joined = shims.attach(process.pid);
                joined.context(|| "move a shim")
            };
            if blocking(join).await.is_ok() {
                return Ok(());
            }
            let unit = slice::last_part(&self.config.shims);
            last = self.systemd.start_shims(unit, process.pid).await;
            if last.is_ok() {
                break;
            }
        }
        last
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
