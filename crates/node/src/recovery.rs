//! The start of the engine: every record is read before the first call, then each pod is
//! reconciled with what the kernel has, on its own. What no record names is removed.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{ContainerId, PodId, PodName, Timestamp};
use crisp_spec::{Arch, HostFacts};
use crisp_sys::cgroup::Layout;
use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};
use crisp_sys::{caps, file, mountinfo, rootfs};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::container::clear;
use crate::error::{Error, Result};
use crate::journal::{self, Damage, Journal};
use crate::names::{NameMessage, Names};
use crate::paths::{self, Paths};
use crate::pod::resume::{self, Found, Helm};
use crate::pod::teardown::{self, Remains};
use crate::record::{Entry, PodState};
use crate::shared::{self, Shared, blocking};

/// How long the start waits for what shims have to say; a silent one tells later.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);
/// How long the start waits for the network to drop what nobody owns; it goes on afterwards.
const COLLECT_WITHIN: Duration = Duration::from_secs(5);

/// All that was found on disk.
#[derive(Debug)]
struct Survey {
    pods: Vec<Found>,
    /// Records that do not say which pod they are about, set aside.
    nameless: Vec<PodId>,
    /// Remains of pods that no record names.
    stray_pods: Vec<PodId>,
    /// Remains of containers that no record names.
    stray_containers: Vec<ContainerId>,
}

/// Reads every record, and lets every pod of them live again.
pub(crate) async fn start(
    config: Config,
) -> Result<(Arc<Shared>, mpsc::UnboundedSender<NameMessage>)> {
    let (shared, survey) = blocking("read the records", move || open(config)).await?;
    let shared = Arc::new(shared);
    let taken: HashMap<PodName, PodId> = survey
        .pods
        .iter()
        .map(|found| (found.record.config.name.clone(), found.record.id.clone()))
        .collect();
    let known: BTreeSet<PodId> = taken.values().cloned().collect();
    let count = known.len();
    let names = Names::start(&shared, taken);
    let (settling, mut settled) = mpsc::channel(1);
    let helm = Helm {
        shared: Arc::clone(&shared),
        names: names.clone(),
        settling,
    };
    for found in survey.pods {
        resume::resume(helm.clone(), found);
    }
    drop(helm);
    let collecting = tokio::time::timeout(COLLECT_WITHIN, shared.config.network.collect(&known));
    if let Ok(Err(error)) = collecting.await {
        tracing::warn!(%error, "the network keeps something of pods that are gone");
    }
    sweep(
        &shared,
        survey.nameless,
        survey.stray_pods,
        survey.stray_containers,
    );
    tokio::spawn(shared::flush_now_and_then(Arc::downgrade(&shared)));
    // Ends when every pod has let go of its end: nothing is unsure any more.
    let unsure = tokio::time::timeout(SETTLE_WITHIN, settled.recv()).await;
    tracing::info!(pods = count, all_settled = unsure.is_ok(), "records read");
    Ok((shared, names))
}

/// Takes the directories into possession and reads what is in them.
fn open(config: Config) -> Result<(Shared, Survey)> {
    let paths = Paths::new(&config);
    for dir in paths.base_dirs() {
        let step = Error::step(format!("make {}", dir.display()));
        file::make_private_dirs(&dir).map_err(step)?;
    }
    std::fs::create_dir_all(paths.netns_dir())
        .map_err(Error::step(format!("make {}", paths.netns_dir().display())))?;
    let locks = lock(&paths)?;
    private_tmpfs(&paths.pins()).map_err(Error::step("mount a place for pins"))?;
    let layout = Layout::detect().map_err(Error::step("look at the cgroup hierarchies"))?;
    let pods = read_records(&paths)?;
    let survey = survey(&config, &paths, pods);
    let found = shared::Found {
        host: host_facts(&layout)?,
        layout: Arc::new(layout),
        boot_id: crisp_sys::boot::boot_id().map_err(Error::step("read the boot id"))?,
        latest: latest(&survey.pods),
        locks,
    };
    Ok((Shared::new(config, found), survey))
}

/// One daemon per directory.
fn lock(paths: &Paths) -> Result<Vec<File>> {
    let each = paths.locks().into_iter().map(|path| {
        let step = Error::step(format!("lock {}", path.display()));
        let dir = path
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string();
        let used = || Error::FailedPrecondition(format!("another crispd uses {dir}"));
        file::lock_exclusive(&path).map_err(step)?.ok_or_else(used)
    });
    each.collect()
}

/// A tmpfs whose mounts do not spread into other mount namespaces.
fn private_tmpfs(dir: &Path) -> std::io::Result<()> {
    if mountinfo::mounts()?.iter().any(|mount| mount.target == dir) {
        return Ok(());
    }
    let tree = FsContext::open("tmpfs")?
        .set("mode", "0700")?
        .mount(MountAttributes::default().inert())?;
    let place = rootfs::open_root(dir)?;
    mount::attach(tree.as_fd(), place.as_fd())?;
    mount::set_propagation(dir, Propagation::Private, Depth::Single)
}

fn host_facts(layout: &Layout) -> Result<HostFacts> {
    let permitted = caps::permitted().map_err(Error::step("read own capabilities"))?;
    let names = (0..)
        .zip(caps::NAMES)
        .filter(|(number, _)| permitted.has(*number));
    let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    Ok(HostFacts {
        arch: Arch::native(),
        cgroup_v2: layout.is_v2(),
        capabilities: names.map(|(_, name)| format!("CAP_{name}")).collect(),
        apparmor: enabled.is_ok_and(|text| text.trim() == "Y"),
        // No profile of ours is loaded.
        apparmor_default: None,
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
    })
}

/// Every record; one that is damaged is set aside and what is good of it goes on.
fn read_records(paths: &Paths) -> Result<Vec<(PodId, Option<Found>)>> {
    let ids = paths::ids(&paths.records(), |name| PodId::parse(name).ok());
    ids.into_iter()
        .map(|id| read_record(paths, &id).map(|found| (id, found)))
        .collect()
}

fn read_record(paths: &Paths, id: &PodId) -> Result<Option<Found>> {
    let path = paths.journal(id);
    let (replay, damage) = journal::read(&path);
    match damage {
        None => match Journal::resume(&path) {
            Ok(journal) => Ok(Found::new(replay, journal)),
            Err(damage) => Ok(set_aside(paths, (id, replay), &damage)),
        },
        Some(newer @ Damage::Newer(_)) => Err(Error::FailedPrecondition(format!(
            "{}: {newer}: start the newer crispd, or move the directory away",
            path.display()
        ))),
        Some(damage) => Ok(set_aside(paths, (id, replay), &damage)),
    }
}

/// Keeps a damaged record for the operator. What is good of it becomes a record anew, of a pod
/// that is stopped: nobody knows what it was about to do.
fn set_aside(
    paths: &Paths,
    (id, replay): (&PodId, crate::record::Replay),
    damage: &Damage,
) -> Option<Found> {
    let kept = paths.quarantine().join(id.as_str());
    let trouble = format!(
        "its record was damaged ({damage}) and set aside as {}",
        kept.display()
    );
    tracing::error!(pod_id = %id, %damage, kept = %kept.display(), "damaged record set aside");
    if let Err(error) = std::fs::rename(paths.journal(id), &kept) {
        tracing::warn!(pod_id = %id, %error, "damaged record stays where it is");
    }
    replay.pod.as_ref()?;
    let mut journal = Journal::create(&paths.journal(id)).ok()?;
    for entry in replay.clone().entries() {
        journal.append(&entry).ok()?;
    }
    let mut found = Found::new(replay, journal)?;
    if matches!(found.progress.phase, PodState::Ready | PodState::Booting) {
        found.progress.phase = PodState::Stopping;
        let entry = Entry::Progress(found.progress.clone());
        found.journal.append(&entry).ok()?;
    }
    found.trouble = Some(trouble);
    Some(found)
}

/// Compares what is on disk with the records.
fn survey(config: &Config, paths: &Paths, records: Vec<(PodId, Option<Found>)>) -> Survey {
    let mut pods = Vec::new();
    let mut nameless = Vec::new();
    for (id, found) in records {
        match found {
            Some(found) => pods.push(found),
            None => nameless.push(id),
        }
    }
    let known: BTreeSet<PodId> = pods.iter().map(|found| found.record.id.clone()).collect();
    let pod_id = |name: &str| PodId::parse(name).ok();
    let dirs = [paths.pins(), paths.pods()];
    let stray_pods: BTreeSet<PodId> = dirs
        .iter()
        .flat_map(|dir| paths::ids(dir, pod_id))
        .filter(|id| !known.contains(id))
        .collect();
    let containers: BTreeSet<&ContainerId> = pods
        .iter()
        .flat_map(|found| found.containers.keys())
        .collect();
    let container_id = |name: &str| ContainerId::parse(name.trim_end_matches(".sock")).ok();
    let dirs = [paths.bundles(), paths.shims()];
    let on_disk = dirs.iter().flat_map(|dir| paths::ids(dir, container_id));
    let stray_containers: BTreeSet<ContainerId> = on_disk
        .chain(config.images.snapshots())
        .filter(|id| !containers.contains(id))
        .collect();
    Survey {
        nameless,
        stray_pods: stray_pods.into_iter().collect(),
        stray_containers: stray_containers.into_iter().collect(),
        pods,
    }
}

/// The latest creation time that was given out.
fn latest(pods: &[Found]) -> Timestamp {
    let times = pods.iter().flat_map(|found| {
        let containers = found
            .containers
            .values()
            .map(|(record, _)| record.created_at);
        containers.chain([found.record.created_at])
    });
    times.max().unwrap_or(Timestamp(0))
}

/// Removes what no record names, in the background: containers first, for they use their pods'.
fn sweep(
    shared: &Arc<Shared>,
    nameless: Vec<PodId>,
    pods: Vec<PodId>,
    containers: Vec<ContainerId>,
) {
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        for id in containers {
            tracing::info!(container_id = %id, "removing a container that no record names");
            let remains = clear::Remains {
                pod: None,
                id: id.clone(),
                cgroup_path: None,
                shim: None,
            };
            if let Err(error) = clear::clear(&shared, remains).await {
                tracing::warn!(container_id = %id, %error, "stray container not wholly removed");
            }
        }
        for id in pods.iter().chain(&nameless) {
            tracing::info!(pod_id = %id, "removing a pod that no record names");
            let errors = teardown::teardown(&shared, &Remains::unknown(id.clone())).await;
            for error in errors {
                tracing::warn!(pod_id = %id, %error, "stray pod not wholly removed");
            }
        }
        for id in nameless {
            if let Err(error) = file::remove_tree_if_there(&shared.paths.record(&id)) {
                tracing::warn!(pod_id = %id, %error, "empty record not removed");
            }
        }
    });
}

/// The daemon ends: records go to disk; what nobody uses any more is taken away.
pub(crate) async fn retire(shared: &Arc<Shared>) {
    let kernel = Arc::clone(shared);
    let flushed = tokio::task::spawn_blocking(move || kernel.flush());
    if let Err(error) = flushed.await {
        tracing::warn!(%error, "flushing records failed");
    }
    if shared.book.count() > 0 {
        return;
    }
    if let Err(error) = shared.config.network.retire().await {
        tracing::warn!(%error, "the network keeps its bridge");
    }
    let kernel = Arc::clone(shared);
    let taken_away = blocking("take away what nobody uses", move || take_away(&kernel));
    if let Err(error) = taken_away.await {
        tracing::warn!(%error, "something is left on the node");
    }
}

fn take_away(shared: &Shared) -> Result<()> {
    mount::unmount(&shared.paths.pins()).map_err(Error::step("unmount the place for pins"))?;
    let cgroups = &shared.config.cgroups;
    for path in [&cgroups.shims, &cgroups.parent] {
        let cgroup = shared.cgroup(path);
        // Daemons side by side share them: in use, they stay.
        if !teardown::is_in_use(&cgroup)
            && let Err(error) = cgroup.remove()
        {
            tracing::debug!(path, %error, "cgroup stays");
        }
    }
    Ok(())
}
