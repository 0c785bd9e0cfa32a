//! Making a container: image, snapshot, user, mounts, spec, bundle. A worker of the pod's task.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crisp_image::ImageInfo;
use crisp_model::{
    ContainerUser, Field, IdMap, Mount, MountSource, NamespaceMode, Propagation, Signal,
};
use crisp_records::{MadeRecord, PodRecord};
use crisp_shim_api::{Ahead, RootfsSpec};
use crisp_spec::{Input, NamespacePaths, PidNamespace, PodFiles, ResolvedUser};
use crisp_sys::ns::{self, Kind};
use tokio::sync::Notify;

use super::bundle::Bundle;
use super::labels::{self, ToLabel};
use super::{cdi, devices, foreign, look, mounts, profiles, shown};
use crate::blocking::{blocking, brief};
use crate::error::{Context, Error, Result, image_error};
use crate::machine::effect::CreatePlan;
use crate::shared::Shared;

/// No sane user database of an image is larger (an image must not fill our memory).
const MAX_DATABASE: u64 = 4 << 20;
/// How long paths of the host may take; callers wait for two minutes.
const HOST_WITHIN: Duration = Duration::from_secs(60);

/// The parts of a spec that do not stand in the plan.
#[derive(Debug)]
struct Parts {
    image: ImageInfo,
    /// The images that mounts show, in their order.
    shown: Vec<ImageInfo>,
    user: ResolvedUser,
    mounts: Vec<crisp_spec::ResolvedMount>,
    devices: Vec<crisp_spec::ResolvedDevice>,
    /// The changes that devices by name make.
    edits: crisp_cdi::Edits,
    seccomp: Option<Vec<u8>>,
}

/// A container that was made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) record: Box<MadeRecord>,
    /// The steps of its start that its shim can take before.
    pub(crate) ahead: Option<Ahead>,
}

/// Makes a container. The remains of a failed creation are for [`super::clear::clear`].
pub(crate) async fn create(
    shared: &Arc<Shared>,
    plan: CreatePlan,
    cancel: &Notify,
) -> Result<Made> {
    let plan = Arc::new(plan);
    check(&plan)?;
    foreign::check(shared, &plan)?;
    let asked = &plan.record.config.security.selinux.level;
    shared.levels.ask(&plan.pod.id, asked);
    let image = find_image(shared, &plan)?;
    let shown = shown::find(shared, &plan.record.config).await?;
    let mut user = resolve_user(shared, &plan, &image).await?;
    // The layer that will be written to needs nothing of the node. The one of both that gives its work
    // to another thread comes first.
    let host = look_at_host(shared, &plan, ((user.uid, user.gid), cancel));
    let root = prepare_root(shared, &plan, (&image, &shown));
    let (host, root) = tokio::join!(host, root);
    let Host {
        mut mounts,
        devices,
        edits,
        seccomp,
    } = host?;
    let (mut ahead, views) = root?;
    cdi::add_groups(&edits, &mut user);
    let volumes = mounts::make_volumes(shared, &plan, (&image, cancel)).await?;
    let users = plan.pod.config.namespaces.users.as_ref();
    mounts.extend(
        volumes
            .iter()
            .map(|volume| mounts::of_volume(volume, users)),
    );
    let (stop_signal, log_path) = (stop_signal(&plan, &image)?, log_path(&plan)?);
    let parts = Arc::new(Parts {
        image,
        shown,
        user,
        mounts,
        devices,
        edits,
        seccomp,
    });
    let labelled = labels::to_give(shared, &plan, (&parts.mounts, &volumes));
    let bundle = make_bundle(shared, &plan, (&parts, views), (labelled, cancel));
    ahead.bundle = Some(bundle.await?);
    let is_ours = foreign::of(shared, &plan.pod.config)?.is_none();
    let (image, user) = (&parts.image, &parts.user);
    let record = Box::new(MadeRecord {
        image_id: image.id.clone(),
        image_ref: reference(image),
        shown_images: parts.shown.iter().map(reference).collect(),
        user: ContainerUser {
            uid: user.uid,
            gid: user.gid,
            additional_gids: user.additional_gids.clone(),
        },
        volumes,
        stop_signal,
        log_path,
        rootfs: ahead.rootfs.clone(),
    });
    let ahead = is_ours.then_some(ahead);
    Ok(Made { record, ahead })
}

/// An image by digest where it has one, else its id.
fn reference(image: &ImageInfo) -> String {
    let digest = image.repo_digests.first().cloned();
    digest.unwrap_or_else(|| image.id.to_string())
}

/// Makes the writable layer. Returns the layers of the images that mounts show as well.
async fn prepare_root(
    shared: &Shared,
    plan: &CreatePlan,
    (image, shown): (&ImageInfo, &[ImageInfo]),
) -> Result<(Ahead, Vec<Vec<PathBuf>>)> {
    let id = &plan.record.id;
    let images = &shared.config.images;
    let prepared = images.prepare_with_views(id, image, shown);
    let (snapshot, views) = prepared.await.map_err(image_error("prepare a snapshot"))?;
    let ahead = Ahead {
        ahead_of: id.clone(),
        rootfs: RootfsSpec::Overlay {
            lower: snapshot.lower,
            upper: snapshot.upper,
            work: snapshot.work,
        },
        bundle: None,
        shims_cgroup: shared.cgroups.shims(),
    };
    Ok((ahead, views))
}

/// Writes the bundle, and returns its directory.
async fn make_bundle(
    shared: &Arc<Shared>,
    plan: &Arc<CreatePlan>,
    (parts, views): (&Arc<Parts>, Vec<Vec<PathBuf>>),
    (labelled, cancel): (Option<ToLabel>, &Notify),
) -> Result<PathBuf> {
    let (kernel, owned, parts) = (Arc::clone(shared), Arc::clone(plan), Arc::clone(parts));
    let compose = move || compose_for(&kernel, &owned, (&parts, views));
    let write = |(dir, bundle): (PathBuf, Bundle)| bundle.write(&dir).map(|()| dir);
    let Some(labelled) = labelled else {
        return brief(move || compose().and_then(write)).await;
    };
    // The last of all, when nothing else is refused: this changes the caller's files.
    let composed = blocking(compose).await?;
    labels::give(shared, plan, (labelled, cancel)).await?;
    blocking(move || write(composed)).await
}

/// The bundle and its directory, in which nothing is written yet.
fn compose_for(
    shared: &Shared,
    plan: &CreatePlan,
    (parts, views): (&Parts, Vec<Vec<PathBuf>>),
) -> Result<(PathBuf, Bundle)> {
    let views = shown::views(&plan.record.config, views);
    let bundle = compose(shared, plan, (parts, &views))?;
    Ok((shared.paths.bundle(&plan.record.id), bundle))
}

/// The node's files that the container gets.
struct Host {
    mounts: Vec<crisp_spec::ResolvedMount>,
    devices: Vec<crisp_spec::ResolvedDevice>,
    edits: crisp_cdi::Edits,
    seccomp: Option<Vec<u8>>,
}

/// A path of the host may lie on a file system whose server is gone: that look has a deadline, and
/// ends when nobody wants the container any more. Its thread, which is no shared one, stays until
/// the kernel lets it go, and until then no other look is begun for this pod or at that mount.
async fn look_at_host(
    shared: &Arc<Shared>,
    plan: &Arc<CreatePlan>,
    (owner, cancel): ((u32, u32), &Notify),
) -> Result<Host> {
    let (kernel, owned) = (Arc::clone(shared), Arc::clone(plan));
    let things = look::things(shared, plan).await;
    let look = shared.host_lane.look(things, move || {
        let config = &owned.record.config;
        profiles::check_apparmor(&config.security.apparmor)?;
        let edits = cdi::edits(&kernel.cdi, config)?;
        let mut devices = devices::resolve(config)?;
        let lends = owned.pod.config.namespaces.users.is_some();
        cdi::add_nodes(&edits, (owner, lends), &mut devices)?;
        let host = Host {
            mounts: mounts::resolve(&config.mounts)?,
            devices,
            edits,
            seccomp: profiles::seccomp(&kernel.config.seccomp_dir, &config.security.seccomp)?,
        };
        make_log_dir(&owned)?;
        labels::check(&kernel, config, &host.mounts)?;
        Ok(host)
    });
    let name = &plan.record.config.name;
    tokio::select! {
        found = look => found.unwrap_or_else(|refused| Err(look::refused(name, &refused))),
        () = cancel.notified() => Err(look::unwanted(name)),
        () = tokio::time::sleep(HOST_WITHIN) => Err(Error::DeadlineExceeded(format!(
            "container {name}: the paths of its mounts and devices were not found within \
             {HOST_WITHIN:?}; is the file system of one of them stuck?"
        ))),
    }
}

/// Refuses a request whose own words cannot be met.
fn check(plan: &CreatePlan) -> Result<()> {
    let config = &plan.record.config;
    if config.security.privileged && !plan.pod.config.security.privileged {
        let why = "the pod sandbox was not made for privileged containers";
        return Err(Error::invalid(Field::Privileged, why));
    }
    let shares_pids = plan.pod.config.namespaces.pid == NamespaceMode::Pod;
    if config.namespaces.pid == NamespaceMode::Pod && !shares_pids {
        let why = "the pod sandbox was made without a PID namespace of its own";
        return Err(Error::invalid(Field::PidNamespace, why));
    }
    let users = plan.pod.config.namespaces.users.as_ref();
    let is_image = |mount: &Mount| matches!(mount.source, MountSource::Image { .. });
    let is_other = |map: &IdMap| Some(map) != users;
    let mut images = config.mounts.iter().filter(|mount| is_image(mount));
    if let Some(mount) = images.find(|mount| mount.id_map.as_ref().is_some_and(is_other)) {
        let why = format!(
            "the image at {} can have no id mappings but the pod's own",
            mount.container_path.display()
        );
        return Err(Error::invalid(Field::MountSource, why));
    }
    // Such a mount follows the host, and nothing goes out of it.
    let is_in_vain =
        |mount: &&Mount| mount.id_map.is_some() && mount.propagation == Propagation::Bidirectional;
    if let Some(mount) = config.mounts.iter().find(is_in_vain) {
        let why = format!(
            "what is mounted in {} cannot go out to the host, since its owners are mapped: use \
             another propagation, or a pod without a user namespace",
            mount.container_path.display()
        );
        return Err(Error::invalid(Field::MountPropagation, why));
    }
    Ok(())
}

fn find_image(shared: &Shared, plan: &CreatePlan) -> Result<ImageInfo> {
    let wanted = &plan.record.config.image.image;
    let found = shared.config.images.find(wanted)?;
    found.ok_or_else(|| Error::NotFound {
        what: "image",
        id: wanted.clone(),
    })
}

async fn resolve_user(
    shared: &Shared,
    plan: &CreatePlan,
    image: &ImageInfo,
) -> Result<ResolvedUser> {
    let images = &shared.config.images;
    let paths = ["/etc/passwd", "/etc/group"];
    let found = images.lookup_each(image, paths, MAX_DATABASE).await;
    let [passwd, group] = found.map_err(image_error("read the users of the image"))?;
    let wanted = &plan.record.config.security.user;
    crisp_spec::resolve_user(
        &image.config.user,
        wanted,
        passwd.as_deref(),
        group.as_deref(),
    )
    .map_err(spec_error)
}

/// Why there is no spec, in our terms.
pub(crate) fn spec_error(error: crisp_spec::Error) -> Error {
    match error {
        crisp_spec::Error::Invalid { field, why } => Error::invalid(field, why),
    }
}

fn stop_signal(plan: &CreatePlan, image: &ImageInfo) -> Result<i32> {
    match (plan.record.config.stop_signal, &image.config.stop_signal) {
        (Some(asked), _) => Ok(asked),
        (None, Some(text)) => Signal::parse(text)
            .map(Signal::number)
            .map_err(|error| Error::invalid(Field::ImageStopSignal, error.to_string())),
        (None, None) => Ok(Signal::TERM.number()),
    }
}

/// The log's absolute path; never outside of the pod's log directory.
fn log_path(plan: &CreatePlan) -> Result<Option<PathBuf>> {
    let relative = &plan.record.config.log_path;
    let Some(dir) = &plan.pod.config.log_directory else {
        return Ok(None);
    };
    if relative.is_empty() {
        return Ok(None);
    }
    let path = Path::new(relative);
    let normal = |part| matches!(part, std::path::Component::Normal(_));
    if !path.components().all(normal) {
        let why = format!("{relative:?} is not a path below the pod's log directory");
        return Err(Error::invalid(Field::LogPath, why));
    }
    Ok(Some(dir.join(path)))
}

/// Callers usually make it; where they did not, the log is still wanted.
fn make_log_dir(plan: &CreatePlan) -> Result<()> {
    let path = log_path(plan)?;
    let Some(dir) = path.as_deref().and_then(Path::parent) else {
        return Ok(());
    };
    let made = std::fs::create_dir_all(dir);
    made.context(|| format!("make the log directory {}", dir.display()))
}

/// The bundle as it is to be. Nothing is written yet, so that what changes specs (hooks of the
/// node, devices by name) can be asked between this and [`Bundle::write`].
fn compose(
    shared: &Shared,
    plan: &CreatePlan,
    (parts, views): (&Parts, &[crisp_spec::ImageView]),
) -> Result<Bundle> {
    let record = &plan.record;
    let namespaces = namespaces(shared, plan)?;
    let files = pod_files(shared, &plan.pod);
    let handler = shared.handler(&plan.pod.config.runtime_handler)?;
    let input = Input {
        pod: &plan.pod.config,
        pod_id: &plan.pod.id,
        selinux_level: plan.pod.selinux_level,
        container: &record.config,
        container_id: &record.id,
        image: &parts.image.config,
        user: &parts.user,
        host: &shared.host,
        mounts: &parts.mounts,
        views,
        devices: &parts.devices,
        namespaces: &namespaces,
        files: &files,
        cgroup_path: record.cgroup_path.as_str(),
        cgroup_namespaces: handler.cgroup_namespaces,
        seccomp: parts.seccomp.as_deref(),
    };
    let spec = crisp_spec::build(&input).map_err(spec_error)?;
    for unmet in crisp_spec::unmet(&input) {
        tracing::warn!(target: "crisp::container", container_id = %record.id, unmet, "the container is confined less than this node could confine it");
    }
    let mut bundle = Bundle {
        spec,
        raw_environment: crisp_spec::raw_environment(&input),
        foreign: foreign::of(shared, &plan.pod.config)?,
    };
    foreign::check_bundle(&bundle)?;
    if let Some(oci) = &handler.oci {
        foreign::check_confinement(oci, &bundle.spec)?;
    }
    cdi::change(&parts.edits, &mut bundle)?;
    Ok(bundle)
}

fn pod_files(shared: &Shared, pod: &PodRecord) -> PodFiles {
    let dir = shared.paths.pod(&pod.id);
    let ipc_of_node = pod.config.namespaces.ipc == NamespaceMode::Node;
    let shm = match ipc_of_node {
        true => PathBuf::from("/dev/shm"),
        false => shared.paths.pin(&pod.id, "shm"),
    };
    PodFiles {
        hosts: Some(dir.join("hosts")),
        resolv_conf: Some(dir.join("resolv.conf")),
        hostname: Some(dir.join("hostname")),
        shm: Some(shm),
    }
}

/// Network, IPC and host name are the pod's; only the PID namespace is each container's choice.
fn namespaces(shared: &Shared, plan: &CreatePlan) -> Result<NamespacePaths> {
    let pod = &plan.pod;
    let paths = &shared.paths;
    let own_network = pod.config.has_own_network();
    let own_ipc = pod.config.namespaces.ipc != NamespaceMode::Node;
    let pin = |kind: Kind| paths.pin(&pod.id, kind.file());
    Ok(NamespacePaths {
        net: own_network.then(|| paths.netns(&pod.id)),
        uts: own_network.then(|| pin(Kind::Uts)),
        ipc: own_ipc.then(|| pin(Kind::Ipc)),
        user: pod
            .config
            .namespaces
            .users
            .as_ref()
            .map(|_| pin(Kind::User)),
        pid: match plan.record.config.namespaces.pid {
            NamespaceMode::Container => PidNamespace::New,
            NamespaceMode::Node => PidNamespace::Host,
            NamespaceMode::Pod => PidNamespace::Path(pin(Kind::Pid)),
            NamespaceMode::Target(_) => PidNamespace::Path(pin_target(shared, plan)?),
        },
    })
}

/// Pins the PID namespace of the container that this one looks at: by the time of the start, its
/// pid may be somebody else's.
fn pin_target(shared: &Shared, plan: &CreatePlan) -> Result<PathBuf> {
    let over = || Error::FailedPrecondition("the target container is not running".to_owned());
    let target = plan.target.ok_or_else(over)?;
    let pin = shared.paths.target_pin(&plan.pod.id, &plan.record.id);
    let step = || format!("pin the PID namespace of process {}", target.pid);
    ns::pin_of(target.pid, Kind::Pid, &pin).context(step)?;
    if target.is_alive() {
        return Ok(pin);
    }
    ns::unpin(&pin).context(step)?;
    Err(over())
}
