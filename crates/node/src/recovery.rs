//! The start of the engine: every record is read before the first call, then each pod is
//! reconciled with what the kernel has, on its own. Resources that no record names are removed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, PodId, Timestamp};
use crisp_records::{Damage, Entry, Journal, PodRecord, PodState};
use crisp_sys::cgroup::Layout;
use crisp_sys::mount::{self, Depth, FsContext, MountAttributes, Propagation};
use crisp_sys::{file, mountinfo, rootfs};
use tokio::sync::{mpsc, oneshot};

use crate::blocking::blocking;
use crate::config::Config;
use crate::container::clear;
use crate::error::{Context, Error, Result};
use crate::handlers;
use crate::machine::effect::{PodRemains, Remains};
use crate::machine::revive::Story;
use crate::names::{Names, Taken};
use crate::paths::{self, Paths};
use crate::pod::death::Death;
use crate::pod::naming::NamesMailbox;
use crate::pod::{task, teardown};
use crate::shared::{self, Shared};
use crate::twin;

/// How long the start waits for what shims have to say; a silent one tells later.
const SETTLE_WITHIN: Duration = Duration::from_millis(500);

/// How long a lock may still be held by what a killed daemon left.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// How long the start waits for the end of containers whose pod no record names.
const SWEEP_WITHIN: Duration = Duration::from_secs(10);

/// All that was found on disk.
#[derive(Debug)]
struct Survey {
    pods: Vec<(Story, Journal)>,
    /// Records that the disk does not give: left alone with all that is under their ids.
    unread: Vec<PodId>,
    /// Records that do not say which pod they are about, set aside.
    nameless: Vec<PodId>,
    /// Remains of pods that no record names.
    stray_pods: Vec<PodId>,
    /// Remains of containers that no record names.
    stray_containers: Vec<ContainerId>,
}

/// Reads every record, and lets every pod of them live again.
pub(crate) async fn start(config: Config) -> Result<(Arc<Shared>, NamesMailbox)> {
    let (shared, survey) = blocking(move || open(config)).await?;
    let shared = Arc::new(shared);
    let attached: BTreeSet<PodId> = survey.attached().collect();
    let network = shared.config.network.clone();
    if let Err(error) = network.take_over(&attached).await {
        tracing::warn!(%error, "the network cannot take over attachments of an earlier daemon");
    }
    let names = Names::start(&shared, survey.taken());
    let (settling, mut settled) = mpsc::channel(1);
    let context = task::Resumed {
        shared: Arc::clone(&shared),
        names: names.clone(),
        settling: Some(settling),
    };
    let count = survey.pods.len();
    shared.tally.pods_recovered.add(count as u64);
    adopt_cgroups(&shared, &survey.pods);
    for (story, _) in &survey.pods {
        let containers = story.containers.values();
        let containers = containers.map(|(container, _)| &container.config);
        shared.levels.adopt(&story.record, containers);
    }
    blocking(move || {
        for (story, journal) in survey.pods {
            task::resume(context.clone(), story, journal);
        }
        Ok(())
    })
    .await?;
    // Beside the first calls: it passes over whoever is attached meanwhile.
    crisp_tasks::detached(async move {
        if let Err(error) = network.collect(&attached).await {
            tracing::warn!(%error, "the network keeps something of pods that are gone");
        }
    });
    let unseen = !survey.nameless.is_empty();
    let strays = Strays {
        nameless: survey.nameless,
        pods: survey.stray_pods,
        containers: survey.stray_containers,
    };
    let (over, swept) = oneshot::channel();
    let sweeper = Arc::clone(&shared);
    // It may outlast the start: a dead file server holds up the sweep of one stray alone.
    crisp_tasks::detached(async move {
        sweep(sweeper, strays).await;
        over.send(()).ok();
    });
    if unseen {
        // A caller who asks for a pod that is not listed gets a second one: the first must not run.
        tokio::time::timeout(SWEEP_WITHIN, swept).await.ok();
    }
    crisp_tasks::detached(shared::flush_now_and_then(Arc::downgrade(&shared)));
    crisp_tasks::detached(crate::pool::make_rounds(Arc::downgrade(&shared.pool)));
    crisp_tasks::detached(shared::pay_now_and_then(Arc::downgrade(&shared)));
    // Ends when every pod has let go of its end: nothing is unsure any more.
    let unsure = tokio::time::timeout(SETTLE_WITHIN, settled.recv()).await;
    tracing::info!(pods = count, all_settled = unsure.is_ok(), "records read");
    Ok((shared, names))
}

/// Tells the cgroups which pods use which parents, before any of them goes on; parents that pods
/// have left behind are tried again.
fn adopt_cgroups(shared: &Arc<Shared>, pods: &[(Story, Journal)]) {
    for (story, _) in pods {
        let (record, progress) = (&story.record, &story.progress);
        let lives = !story.is_over();
        let made = progress.made_cgroup.clone();
        let cgroups = &shared.cgroups;
        cgroups.adopt(&record.id, made, &record.cgroup_path, lives);
        if !lives {
            let (shared, id) = (Arc::clone(shared), record.id.clone());
            crisp_tasks::detached(async move { shared.cgroups.tidy(&id).await });
        }
    }
}

impl Survey {
    /// The pods that may have something of the network: all but those that were torn down.
    fn attached(&self) -> impl Iterator<Item = PodId> + '_ {
        let stories = self.pods.iter().map(|(story, _)| story);
        let pods = stories.filter(|story| !story.is_over());
        let pods = pods.filter(|story| story.record.config.has_own_network());
        let pods = pods.map(|story| story.record.id.clone());
        pods.chain(self.unread.iter().cloned())
    }

    /// The owner of each name: of several pods the one that lives, else the latest.
    fn taken(&self) -> Taken {
        let rank = |story: &Story| {
            let lives = matches!(story.progress.phase, PodState::Ready | PodState::Booting);
            (lives, story.record.created_at)
        };
        let mut pods: Vec<&Story> = self.pods.iter().map(|(story, _)| story).collect();
        pods.sort_by_key(|story| rank(story));
        let records = pods.into_iter().map(|story| &story.record);
        let name = |record: &PodRecord| (record.owner, record.config.name.clone());
        records
            .map(|record| (name(record), record.id.clone()))
            .collect()
    }
}

/// Takes the directories into possession and reads what is in them.
fn open(mut config: Config) -> Result<(Shared, Survey)> {
    // A journal, a socket and a pidfd for each of many pods.
    let raised = crisp_sys::limits::raise_open_files();
    let open_files = raised.inspect_err(|error| {
        tracing::warn!(%error, "the limit of open files stays as it is");
    });
    config.root = real_dir(&config.root)?;
    config.state = real_dir(&config.state)?;
    let paths = Paths::new(&config);
    for dir in paths.base_dirs() {
        file::make_private_dirs(&dir).context(|| format!("make {}", dir.display()))?;
    }
    std::fs::create_dir_all(paths.netns_dir())
        .context(|| format!("make {}", paths.netns_dir().display()))?;
    let locks = lock(&paths)?;
    let layout = Layout::detect().context(|| "look at the cgroup hierarchies")?;
    let boot_id = crisp_sys::boot::boot_id().context(|| "read the boot id")?;
    let pods = read_records(&paths, &boot_id)?;
    let survey = survey(&config, &paths, pods);
    let has_handler = config.handlers.iter().any(|handler| handler.oci.is_some());
    let has_states = || !paths::ids(&paths.runtimes(), |name| Some(name.to_owned())).is_empty();
    let machine = shared::Machine {
        has_foreign: has_handler || has_states(),
        host: config.host.facts(),
        layout: Arc::new(layout),
        shim: seal_shim(&config.shim_path),
        boot_id,
        open_files: open_files.ok(),
        latest: latest(&survey.pods),
        death: Death::from_environment()?,
        locks,
    };
    // After all that may fail: a start that comes to nothing leaves no mount.
    private_tmpfs(&paths.pins()).context(|| "mount a place for pins")?;
    handlers::make_places(&mut config, &paths)?;
    Ok((Shared::new(config, machine), survey))
}

/// All shims of this daemon run from one mount, and from the file that is there now: one that a
/// new version replaces speaks to that version's daemon.
fn seal_shim(program: &Path) -> Option<OwnedFd> {
    let sealed = crisp_sys::own_binary::read_only(program);
    sealed
        .inspect_err(|error| tracing::warn!(%error, "the shim's program cannot be mounted read-only; each shim does it for itself"))
        .ok()
}

/// A directory by the path that the mount table has for it, made if it is not there.
fn real_dir(path: &Path) -> Result<PathBuf> {
    let made = file::make_private_dirs(path).and_then(|()| path.canonicalize());
    made.context(|| format!("make {}", path.display()))
}

/// One daemon per directory.
fn lock(paths: &Paths) -> Result<Vec<File>> {
    let each = paths.locks().into_iter().map(|path| {
        let dir = path
            .parent()
            .unwrap_or(Path::new("/"))
            .display()
            .to_string();
        let used = || Error::FailedPrecondition(format!("another crispd uses {dir}"));
        let locked = lock_in_time(&path).context(|| format!("lock {}", path.display()))?;
        locked.ok_or_else(used)
    });
    each.collect()
}

/// A child of a daemon that was just killed holds its locks until it has become a shim.
fn lock_in_time(path: &Path) -> std::io::Result<Option<File>> {
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        let locked = file::lock_exclusive(path)?;
        if locked.is_some() || Instant::now() > deadline {
            return Ok(locked);
        }
        std::thread::sleep(LOCK_PAUSE);
    }
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

/// The outcome of reading a record.
#[derive(Debug)]
enum Record {
    Usable(Box<(Story, Journal)>),
    /// It does not say which pod it is about.
    Nameless,
    /// The disk does not give it.
    Unread,
}

/// Every record; one that is damaged is set aside and what is good of it goes on.
fn read_records(paths: &Paths, boot_id: &str) -> Result<Vec<(PodId, Record)>> {
    let dirs = [paths.records(), paths.twins()];
    let of_dir = |dir: &PathBuf| paths::ids(dir, |name| PodId::parse(name).ok());
    let ids: BTreeSet<PodId> = dirs.iter().flat_map(of_dir).collect();
    ids.into_iter()
        .map(|id| read_record(paths, boot_id, &id).map(|record| (id, record)))
        .collect()
}

fn read_record(paths: &Paths, boot_id: &str, id: &PodId) -> Result<Record> {
    let path = paths.journal(id);
    let (replay, damage) = crisp_records::read(&path);
    let is_newer = matches!(damage, Some(Damage::Newer(_)));
    if let Some(twin) = twin::read(paths, id, boot_id).filter(|_| !is_newer)
        && (damage.is_some() || twin::knows_more(&twin, &replay))
    {
        let lost = || "it has lost entries".to_owned();
        let damage = damage.map_or_else(lost, |damage| damage.to_string());
        let running = twin::running(&twin);
        tracing::warn!(pod_id = %id, running, "a damaged record is made anew from its twin; its pod goes on");
        let found = anew(paths, (id, twin), &damage);
        return Ok(found.map_or(Record::Unread, |found| Record::Usable(Box::new(found))));
    }
    let (replay, damage) = match damage {
        None => match Journal::resume(&path) {
            Ok(journal) => return Ok(usable(Story::new(replay).map(|story| (story, journal)))),
            Err(damage) => (replay, damage),
        },
        Some(damage) => (replay, damage),
    };
    match damage {
        Damage::Newer(_) => Err(Error::FailedPrecondition(format!(
            "{}: {damage}: start the newer crispd, or move the directory away",
            path.display()
        ))),
        // The pod's directory was made, and nothing else yet.
        Damage::Io(error) if error.kind() == ErrorKind::NotFound => Ok(Record::Nameless),
        Damage::Io(error) => {
            // Not the record's fault: it may be read the next time.
            tracing::error!(pod_id = %id, path = %path.display(), %error, "cannot read a record; its pod is left as it is");
            Ok(Record::Unread)
        }
        damage => Ok(usable(set_aside(paths, (id, replay), &damage.to_string()))),
    }
}

fn usable(found: Option<(Story, Journal)>) -> Record {
    found.map_or(Record::Nameless, |found| Record::Usable(Box::new(found)))
}

/// Keeps a damaged record for the operator. Its good part becomes a new record, of a pod that is
/// stopped, since the step that the pod was about to take is not known.
fn set_aside(
    paths: &Paths,
    (id, replay): (&PodId, crisp_records::Replay),
    damage: &str,
) -> Option<(Story, Journal)> {
    let (mut story, mut journal) = anew(paths, (id, replay), damage)?;
    if matches!(story.progress.phase, PodState::Ready | PodState::Booting) {
        story.progress.phase = PodState::Stopping;
        let entry = Entry::Progress(story.progress.clone());
        journal.append(&entry).ok()?;
    }
    Some((story, journal))
}

/// Keeps a damaged record for the operator, and writes another that says what is known.
fn anew(
    paths: &Paths,
    (id, replay): (&PodId, crisp_records::Replay),
    damage: &str,
) -> Option<(Story, Journal)> {
    let kept = paths.quarantine().join(id.as_str());
    let trouble = format!(
        "its record was damaged ({damage}) and set aside as {}",
        kept.display()
    );
    tracing::error!(pod_id = %id, %damage, kept = %kept.display(), "damaged record set aside");
    match std::fs::rename(paths.journal(id), &kept) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(pod_id = %id, %error, "damaged record stays where it is");
        }
        _ => {}
    }
    replay.pod.as_ref()?;
    file::make_private_dirs(&paths.exits(id)).ok()?;
    // Written whole beside what could not be set aside: old frames after new ones are damage again.
    let journal = Journal::create(&paths.journal(id), &replay.clone().entries()).ok()?;
    let mut story = Story::new(replay)?;
    story.trouble = Some(trouble);
    Some((story, journal))
}

/// Compares what is on disk with the records.
fn survey(config: &Config, paths: &Paths, records: Vec<(PodId, Record)>) -> Survey {
    let mut pods = Vec::new();
    let (mut nameless, mut unread) = (Vec::new(), Vec::new());
    for (id, record) in records {
        match record {
            Record::Usable(found) => pods.push(*found),
            Record::Nameless => nameless.push(id),
            Record::Unread => unread.push(id),
        }
    }
    let ids = pods
        .iter()
        .map(|(story, _): &(Story, _)| story.record.id.clone());
    let known: BTreeSet<PodId> = ids.chain(unread.iter().cloned()).collect();
    let pod_id = |name: &str| PodId::parse(name).ok();
    let dirs = [paths.pins(), paths.pods()];
    let stray_pods: BTreeSet<PodId> = dirs
        .iter()
        .flat_map(|dir| paths::ids(dir, pod_id))
        .filter(|id| !known.contains(id))
        .collect();
    let containers: BTreeSet<&ContainerId> = pods
        .iter()
        .flat_map(|(story, _)| story.containers.keys())
        .collect();
    let container_id = |name: &str| ContainerId::parse(name.trim_end_matches(".sock")).ok();
    let dirs = [paths.bundles(), paths.shims()];
    let runtimes = paths::ids(&paths.runtimes(), |name| Some(paths.runtimes().join(name)));
    let dirs = dirs.into_iter().chain(runtimes);
    let on_disk = dirs.flat_map(|dir| paths::ids(&dir, container_id));
    let stray_containers: BTreeSet<ContainerId> = on_disk
        .chain(config.images.snapshots())
        // Whose pod's record cannot be read may be anybody's.
        .filter(|id| unread.is_empty() && !containers.contains(id))
        .collect();
    Survey {
        nameless,
        unread,
        stray_pods: stray_pods.into_iter().collect(),
        stray_containers: stray_containers.into_iter().collect(),
        pods,
    }
}

/// The latest creation time that was given out.
fn latest(pods: &[(Story, Journal)]) -> Timestamp {
    let times = pods.iter().flat_map(|(story, _)| {
        let containers = story
            .containers
            .values()
            .map(|(record, _)| record.created_at);
        containers.chain([story.record.created_at])
    });
    times.max().unwrap_or(Timestamp(0))
}

/// Resources that no record names.
#[derive(Debug)]
struct Strays {
    nameless: Vec<PodId>,
    pods: Vec<PodId>,
    containers: Vec<ContainerId>,
}

/// Removes resources that no record names: containers first, for they use their pods'. A removal
/// that hangs holds up no other of its kind.
async fn sweep(shared: Arc<Shared>, strays: Strays) {
    let each = strays
        .containers
        .iter()
        .map(|id| sweep_container(&shared, id));
    futures::future::join_all(each).await;
    let pods = strays.pods.iter().chain(&strays.nameless);
    futures::future::join_all(pods.map(|id| sweep_pod(&shared, id))).await;
    for id in strays.nameless {
        // A power cut may have taken a pod's record and left it its address. The network tells of
        // a plugin that fails, and tries again.
        shared.config.network.detach_unknown(&id).await.ok();
        let (twin, record) = (shared.paths.twin(&id), shared.paths.record(&id));
        let remove = move || {
            let removed = file::remove_if_there(&twin);
            let removed = removed.and_then(|()| file::remove_tree_if_there(&record));
            removed.context(|| format!("remove {}", record.display()))
        };
        if let Err(error) = blocking(remove).await {
            tracing::warn!(pod_id = %id, %error, "empty record not removed");
        }
    }
}

async fn sweep_container(shared: &Arc<Shared>, id: &ContainerId) {
    tracing::info!(container_id = %id, "removing a container that no record names");
    let remains = Remains {
        pod: None,
        id: id.clone(),
        cgroup_path: None,
    };
    if let Err(error) = clear::clear(shared, &remains, None).await {
        tracing::warn!(container_id = %id, %error, "stray container not wholly removed");
    }
}

async fn sweep_pod(shared: &Arc<Shared>, id: &PodId) {
    tracing::info!(pod_id = %id, "removing a pod that no record names");
    for error in teardown::teardown(shared, &PodRemains::unknown(id.clone())).await {
        tracing::warn!(pod_id = %id, %error, "stray pod not wholly removed");
    }
}
