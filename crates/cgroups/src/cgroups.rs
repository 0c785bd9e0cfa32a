//! The paths of the cgroups of pods, containers and shims, and the steps that make and remove them:
//! by the cgroup file system, or through systemd.
//!
//! ```text
//! driver    a container's cgroup                        the shims'
//! cgroupfs  PARENT/crisp-ID                             crisp-shims
//! systemd   SLICE/crisp-ID.scope/container              system.slice/crisp-shims.scope
//!           SLICE/crisp-ID.scope/keeper
//! ```
//!
//! A path shows which driver made it, so containers outlive a change of the driver. The runtime
//! writes limits with either driver: a scope is delegated, so systemd leaves the cgroups below it
//! alone. Weights and memory protections count among siblings; a scope's siblings are systemd's, so
//! those are set at the scope through systemd. Exec never talks to systemd, nor does the cgroupfs
//! driver.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{CgroupPath, ContainerId, PodConfig, PodId, Resources};
use crisp_sys::cgroup::{Cgroup, Layout};
use crisp_sys::process::ProcessId;

use crate::config::{CgroupConfig, CgroupDriver};
use crate::error::{Context, Error, Part, Result, blocking, brief};
use crate::keeper::{self, Keeper};
use crate::parents::{Made, Owed, Parents};
use crate::scope::{self, Scope};
use crate::slice::{self, Traffic};
use crate::systemd::Systemd;

const IN_USE: &str = "holds processes or cgroups";

/// Why a parent that no pod uses is not removed.
#[derive(Debug)]
enum Stays {
    /// Something is in it still.
    InUse(String),
    /// The kernel or systemd refused, or did not answer in time.
    Refused(String),
}

impl Stays {
    fn why(&self) -> &str {
        match self {
            Self::InUse(why) | Self::Refused(why) => why,
        }
    }
}

/// The cgroups of this node.
#[derive(Debug)]
pub struct Cgroups {
    config: CgroupConfig,
    layout: Arc<Layout>,
    keeper: PathBuf,
    systemd: Systemd,
    traffic: Traffic,
    parents: Parents,
}

impl Cgroups {
    /// The cgroups of a layout. `keeper` is the program that keeps a scope of systemd from being
    /// empty; the file `owed` keeps the list of [`Self::owed`] over a restart.
    #[must_use]
    pub fn new(config: CgroupConfig, keeper: PathBuf, layout: Arc<Layout>, owed: PathBuf) -> Self {
        Self {
            config,
            layout,
            keeper,
            systemd: Systemd::default(),
            traffic: Traffic::default(),
            parents: Parents::load(owed),
        }
    }

    /// The cgroup file systems of this machine.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The cgroup at a path below the root.
    pub fn at(&self, path: &CgroupPath) -> Cgroup {
        self.cgroup(path.as_str())
    }

    fn cgroup(&self, path: &str) -> Cgroup {
        Cgroup::new(Arc::clone(&self.layout), path)
    }

    /// Whether a path is the parent of all pods that name none, or the root.
    pub fn is_common(&self, path: &CgroupPath) -> bool {
        self.is_shared(path.as_str())
    }

    fn is_shared(&self, path: &str) -> bool {
        path == self.config.parent || path.is_empty()
    }

    /// The cgroup that shims and holders move themselves to; `None` where [`Self::shelter`] moves
    /// them into a scope of systemd.
    pub fn shims(&self) -> Option<CgroupPath> {
        match self.config.driver {
            CgroupDriver::Cgroupfs => CgroupPath::parse(&self.config.shims).ok(),
            CgroupDriver::Systemd => None,
        }
    }

    /// The parent cgroup of a pod's containers, relative to the cgroup root.
    ///
    /// # Errors
    /// When the pod names a path that leaves the root, or no slice where slices are due.
    pub fn parent_of(&self, config: &PodConfig) -> Result<CgroupPath> {
        let invalid = |why| Error::Invalid {
            part: Part::Parent,
            why,
        };
        let parent = CgroupPath::parse(&config.cgroup_parent);
        let parent = parent.map_err(|error| invalid(error.to_string()))?;
        let path = match self.config.driver {
            _ if parent.is_root() => self.config.parent.clone(),
            CgroupDriver::Cgroupfs => return Ok(parent),
            // A caller that knows only paths gives the path of the slice: its last part is the name.
            CgroupDriver::Systemd => slice::path_of(parent.name()).map_err(invalid)?,
        };
        CgroupPath::parse(&path).map_err(|error| invalid(error.to_string()))
    }

    /// The cgroup of a container below its pod's.
    pub fn of_container(&self, parent: &CgroupPath, id: &ContainerId) -> CgroupPath {
        let scope = match self.config.driver {
            CgroupDriver::Cgroupfs => None,
            CgroupDriver::Systemd => Scope::in_parent(parent, id.as_str()),
        };
        let plain = || parent.child(&format!("crisp-{id}"));
        scope.map_or_else(plain, |scope| scope.container())
    }

    /// A new pod will use a parent. Returns the topmost cgroup of its path that is Crisp's to make
    /// and to remove: what does not exist yet, or what Crisp has made for other pods. The parent
    /// that many pods share never is.
    pub fn claim(&self, pod: &PodId, path: &CgroupPath) -> Option<String> {
        let is_free = |path: &str| !self.is_shared(path) && !self.cgroup(path).exists();
        self.parents.claim(pod, path.as_str(), is_free)
    }

    /// Takes note of a pod that a record tells of. `made` is what [`Self::claim`] said once.
    pub fn adopt(&self, pod: &PodId, made: Option<String>, path: &CgroupPath, lives: bool) {
        let bottom = path.to_string();
        self.parents.adopt(pod, Made { top: made, bottom }, lives);
    }

    /// A pod is over: removes its parents that Crisp made, as far as no living pod uses them and
    /// its containers' cgroups are gone.
    pub async fn leave(&self, pod: &PodId) {
        self.parents.leave(pod);
        self.tidy(pod).await;
    }

    /// Tries once more what [`Self::leave`] may have left, after a container's cgroup has gone.
    pub async fn tidy(&self, pod: &PodId) {
        let Some(made) = self.parents.left_by(pod) else {
            return;
        };
        // A parent whose removal was refused is owed, and tried again in the background: the caller
        // must not wait for systemd a second time.
        if self.parents.owes(&made.bottom) {
            return;
        }
        // The pod has a record still: what is only in use is tried again at its removal.
        if let (Err(Stays::Refused(why)), Some(top)) = (self.remove_parents(&made).await, &made.top)
        {
            self.parents.owe(top, &made.bottom, &why);
        }
    }

    /// A pod's record is gone. A parent that is still there although no pod uses it is owed from
    /// now on.
    pub fn forget(&self, pod: &PodId) {
        let Some(made) = self.parents.forget(pod) else {
            return;
        };
        let mut paths = made.paths().into_iter();
        let stays = paths.find(|path| !self.parents.is_used(path) && self.cgroup(path).exists());
        if let (Some(path), Some(top)) = (stays, &made.top) {
            self.parents.owe(top, path, &format!("it {IN_USE}"));
        }
    }

    /// Tries again to remove the cgroups that are owed, those whose turn it is.
    pub async fn pay(&self) {
        self.try_again(self.parents.due()).await;
    }

    async fn try_again(&self, owed: Vec<Made>) {
        for made in owed {
            match (self.remove_parents(&made).await, &made.top) {
                (Err(stays), Some(top)) => self.parents.owe(top, &made.bottom, stays.why()),
                _ => self.parents.settle(&made.bottom),
            }
        }
    }

    /// Cgroups that no pod uses any more and that could not be removed yet.
    pub fn owed(&self) -> Vec<Owed> {
        self.parents.owed()
    }

    /// Makes a pod's parent cgroup, where its caller has not.
    ///
    /// # Errors
    /// When the kernel or systemd refuses.
    pub async fn make_parent(&self, path: &CgroupPath) -> Result<()> {
        let path = path.as_str();
        let cgroup = self.cgroup(path);
        let step = format!("make cgroup {path}");
        let _nobody_stops = self.traffic.enter(path).await;
        match self.slice(path) {
            // The kubelet has made it: no call to systemd is due.
            Some(_) if cgroup.exists() => Ok(()),
            Some(unit) => self.systemd.start(unit).await,
            None => brief(move || cgroup.create().map(drop).context(|| step)).await,
        }
    }

    /// The slice at a path, where slices are systemd's to make.
    fn slice<'a>(&self, path: &'a str) -> Option<&'a str> {
        let is_systemds = self.config.driver == CgroupDriver::Systemd;
        slice::unit_of(path).filter(|_| is_systemds)
    }

    /// Removes parents that were made for pods, from the bottom up, as far as no living pod uses
    /// them. The error says why one stays that nobody uses.
    async fn remove_parents(&self, made: &Made) -> std::result::Result<(), Stays> {
        for path in made.paths() {
            if self.parents.is_used(path) {
                return Ok(());
            }
            match self.remove_unused(path).await {
                Ok(true) => {}
                // A pod may have come meanwhile.
                Ok(false) if self.parents.is_used(path) => return Ok(()),
                Ok(false) => return Err(Stays::InUse(format!("{path} {IN_USE}"))),
                Err(error) => return Err(Stays::Refused(error.to_string())),
            }
        }
        Ok(())
    }

    /// Removes a cgroup that nobody uses; tells whether it is gone.
    async fn remove_unused(&self, path: &str) -> Result<bool> {
        let Some(_nobody_enters) = self.traffic.stop(path) else {
            return Ok(false);
        };
        match self.slice(path) {
            Some(unit) => self.stop_unused(unit, path).await,
            None => self.unless_used(path, |cgroup| cgroup.remove()).await,
        }
    }

    async fn stop_unused(&self, unit: &str, path: &str) -> Result<bool> {
        if !self.unless_used(path, |_| Ok(())).await? {
            return Ok(false);
        }
        self.systemd.stop(unit).await?;
        // systemd leaves a cgroup that it did not make, and hierarchies that it does not know.
        self.unless_used(path, |cgroup| cgroup.remove()).await
    }

    async fn unless_used(
        &self,
        path: &str,
        act: impl FnOnce(&Cgroup) -> std::io::Result<()> + Send + 'static,
    ) -> Result<bool> {
        let cgroup = self.cgroup(path);
        let step = format!("remove cgroup {path}");
        let unless_used = move || match is_in_use(&cgroup) {
            true => Ok(false),
            false => act(&cgroup).map(|()| true).context(|| step),
        };
        brief(unless_used).await
    }

    /// Makes what has to be there before a container's own cgroup is made by its shim.
    ///
    /// # Errors
    /// When the keeper cannot be started or systemd refuses the scope.
    pub async fn open(&self, path: &CgroupPath, resources: &Resources) -> Result<()> {
        let Some(scope) = Scope::of(path) else {
            return Ok(());
        };
        let _nobody_stops = self.traffic.enter(scope.path().as_str()).await;
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
        // The answer may be lost although systemd made the scope.
        if made.is_err() && !keeper.is_in(scope.path().as_str()) {
            return made;
        }
        let place = self.at(&scope.keeper());
        let step = format!("move the keeper of {}", scope.unit());
        // On version 2 controllers are enabled for children only while the scope itself holds no
        // process, so the keeper leaves it.
        let moved = blocking(move || {
            let moved = place.create_bare().and_then(|()| place.attach(pid));
            moved.context(|| step)
        });
        moved.await
    }

    /// Lets siblings of a container weigh it, and its memory be protected, as new limits say.
    ///
    /// # Errors
    /// When systemd refuses them.
    pub async fn weigh(&self, path: &CgroupPath, old: &Resources, new: &Resources) -> Result<()> {
        let changes = scope::changes(&scope::weights(old), &scope::weights(new));
        match Scope::of(path) {
            Some(scope) if !changes.is_empty() => self.systemd.set(scope.unit(), &changes).await,
            _ => Ok(()),
        }
    }

    /// Kills what is left in a container's cgroup and removes it, and the scope around it.
    ///
    /// # Errors
    /// When the kernel cannot kill or remove it.
    pub async fn close(&self, path: &CgroupPath) -> Result<()> {
        let scope = Scope::of(path);
        let top = self.at(scope.as_ref().map_or(path, Scope::path));
        // The shim mostly has removed it, and this file system waits for no disk.
        if !top.exists() {
            return Ok(());
        }
        let step = format!("remove cgroup {}", top.path());
        let cgroup = top.clone();
        blocking(move || cgroup.kill().context(|| step)).await?;
        if let Some(scope) = &scope
            && !leaves_by_itself(&top).await
            && let Err(error) = self.systemd.stop(scope.unit()).await
        {
            tracing::warn!(unit = scope.unit(), %error, "cannot tell systemd that a scope is over");
        }
        let step = format!("remove cgroup {}", top.path());
        blocking(move || top.remove().context(|| step)).await
    }

    /// Ends the scope of a container whose exit is recorded. No call waits for it.
    pub async fn end_scope(&self, path: &CgroupPath) {
        if Scope::of(path).is_some()
            && let Err(error) = self.close(path).await
        {
            tracing::warn!(%path, %error, "the scope of an ended container stays until its removal");
        }
    }

    /// Moves a shim or a holder out of the daemon's cgroup, where systemd would kill it with the
    /// daemon, into the shims' scope; the pod's cgroup will not do, since the kubelet kills all
    /// processes below it. With the cgroupfs driver they move themselves.
    pub async fn shelter(&self, process: ProcessId) {
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

    /// Joins the scope of the shims, or has it made: it exists as long as a shim is in it.
    async fn shelter_in_scope(&self, process: ProcessId) -> Result<()> {
        let mut last = Ok(());
        for pause in [0, 5, 20, 100, 500] {
            // Another shim may have asked for the scope just now, or the last one has just left it.
            tokio::time::sleep(Duration::from_millis(pause)).await;
            if self.join_shims(process).await.is_ok() {
                return Ok(());
            }
            last = self.open_shims(process).await;
            if last.is_ok() {
                break;
            }
        }
        last
    }

    async fn join_shims(&self, process: ProcessId) -> Result<()> {
        let shims = self.cgroup(&self.config.shims);
        blocking(move || shims.attach(process.pid).context(|| "move a shim")).await
    }

    /// Has systemd make the scope of the shims around a keeper, which leaves it once the shim is
    /// there. A shim may end at any time, and systemd misses the end of a process that it makes a
    /// scope around: the scope would stay.
    async fn open_shims(&self, process: ProcessId) -> Result<()> {
        let (program, unit) = (self.keeper.clone(), slice::last_part(&self.config.shims));
        let keeper = blocking(move || keeper::spawn(&program, "shims")).await?;
        let joined = match self.systemd.start_shims(unit, keeper.pid()).await {
            Ok(()) => self.join_shims(process).await,
            failed => failed,
        };
        keeper.dismiss();
        joined
    }

    /// Removes the common cgroups unless a pod or another daemon uses them, and before them all that is
    /// owed: where a cluster is deleted, no later daemon comes.
    pub async fn retire(&self) {
        for pause in [1, 4, 16, 64] {
            self.try_again(self.parents.all_owed()).await;
            if self.owed().is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        let shims = async {
            if self.config.driver == CgroupDriver::Cgroupfs {
                self.retire_one(&self.config.shims).await;
            }
        };
        tokio::join!(shims, self.retire_one(&self.config.parent));
    }

    async fn retire_one(&self, path: &str) {
        // The shim of a pod that was removed just now leaves a moment later.
        for pause in [1, 2, 4, 8, 16, 32, 64] {
            match self.remove_unused(path).await {
                Ok(true) => return,
                Ok(false) => tokio::time::sleep(Duration::from_millis(pause)).await,
                Err(error) => {
                    return tracing::warn!(path, %error, "an empty cgroup stays");
                }
            }
        }
    }
}

/// Whether systemd removes an empty scope without being asked: the kernel notifies it, and the
/// removal follows within milliseconds.
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
