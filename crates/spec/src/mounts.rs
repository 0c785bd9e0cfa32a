//! The mounts of a container: the kernel's file systems, the pod's files, and volumes.

use std::path::{Path, PathBuf};

use crisp_model::container::Access;
use crisp_model::resources::DEV_SHM_BYTES;
use crisp_model::{Field, IMAGE_VIEW, MAPPED_WHERE_POSSIBLE, Propagation};
use oci_spec::runtime::Mount;

use crate::id_map::mappings;
use crate::{Error, ImageView, Input, ResolvedDevice, ResolvedMount, Result};

/// The option of mounts that propagate both ways.
const SHARED: &str = "rshared";
/// The group of terminals.
const TTY: u32 = 5;
const TTY_OPTION: &str = "gid=5";
const INERT: [&str; 3] = ["nosuid", "noexec", "nodev"];

/// Files of the kernel that may be shown otherwise than it does, as lxcfs does.
const REPLACEABLE: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/sys/crypto/fips_enabled",
    "/proc/uptime",
];

/// All mounts: the kernel's file systems first, then the pod's files and what was asked for,
/// parents before what lies in them.
///
/// A file system that an asked mount covers is left out. Attached onto that mount instead, it would
/// hide a part of what was asked for, such as the node's cgroups in its `/sys`, and where the mount
/// is shared with the host it would appear there.
pub(crate) fn all(input: &Input<'_>) -> Result<Vec<Mount>> {
    let mut asked = input.mounts.iter().map(bind).collect::<Result<Vec<_>>>()?;
    let lent = lent_devices(input, &asked)?;
    asked.extend(lent);
    for view in input.views.iter().map(show) {
        let view = view?;
        refuse_on_the_host(view.destination(), "image", &asked)?;
        asked.push(view);
    }
    let mut mounts = file_systems(input);
    mounts.retain(|mount| {
        let path = mount.destination();
        !asked
            .iter()
            .any(|asked| path.starts_with(asked.destination()))
    });
    let mut others = files(input);
    others.retain(|file| {
        let path = file.destination();
        !asked.iter().any(|asked| asked.destination() == path)
    });
    others
        .iter()
        .try_for_each(|file| refuse_on_the_host(file.destination(), "file", &asked))?;
    others.extend(asked);
    others.sort_by_key(|mount| mount.destination().components().count());
    mounts.extend(others);
    Ok(mounts)
}

/// Devices that a user namespace is to have at other paths than the host's. Its root may make no
/// node, and is shown the host's instead: the runtime finds that at the same path only.
fn lent_devices(input: &Input<'_>, asked: &[Mount]) -> Result<Vec<Mount>> {
    let is_free = |path: &Path| asked.iter().all(|mount| mount.destination() != path);
    // No nodes are made in a `/dev` that was asked for.
    if input.pod.namespaces.users.is_none() || !is_free(Path::new("/dev")) {
        return Ok(Vec::new());
    }
    let moved = |device: &&ResolvedDevice| device.path != device.source && is_free(&device.path);
    let devices = input.devices.iter().filter(moved);
    let lend = |device: &ResolvedDevice| {
        // A device is written to all the same; its owner and mode are not.
        let options = ["bind", "rprivate", "ro", "nosuid", "noexec"];
        let path = destination(&device.path, false)?;
        refuse_on_the_host(&path, "device", asked)?;
        Ok(mount(path, "bind", device.source.clone(), &options))
    };
    devices.map(lend).collect()
}

/// A file of the pod, or an image, that is mounted into a directory of the host both ways would
/// appear there.
fn refuse_on_the_host(place: &Path, what: &str, asked: &[Mount]) -> Result<()> {
    let below = asked
        .iter()
        .filter(|mount| place.starts_with(mount.destination()))
        .max_by_key(|mount| mount.destination().components().count());
    let Some(below) = below.filter(|mount| is_shared(mount)) else {
        return Ok(());
    };
    let source = below.source().clone().unwrap_or_default();
    Err(Error::invalid(
        Field::MountPropagation,
        format!(
            "{} of the host is mounted at {} in both ways, so the pod's {what} {} in it would \
             appear on the host; mount it with another propagation, or a path of your own at {}",
            source.display(),
            below.destination().display(),
            place.display(),
            place.display(),
        ),
    ))
}

/// The propagation of the container's root: mounts go out to the host only where the root lets them.
pub(crate) fn propagation(mounts: &[Mount]) -> Option<String> {
    mounts.iter().any(is_shared).then(|| SHARED.to_owned())
}

fn is_shared(mount: &Mount) -> bool {
    let options = mount.options().as_deref().unwrap_or_default();
    options.iter().any(|option| option == SHARED)
}

fn file_systems(input: &Input<'_>) -> Vec<Mount> {
    let privileged = input.container.security.privileged;
    let guarded = |options: &[&'static str]| {
        let ro = if privileged { "rw" } else { "ro" };
        [options, &[ro]].concat()
    };
    let dev = ["nosuid", "strictatime", "mode=755", "size=65536k"];
    let mut pts = vec![
        "nosuid",
        "noexec",
        "newinstance",
        "ptmxmode=0666",
        "mode=0620",
    ];
    let users = input.pod.namespaces.users.as_ref();
    // The kernel takes no group that the user namespace does not have.
    if users.is_none_or(|map| map.group(TTY).is_some()) {
        pts.push(TTY_OPTION);
    }
    let mut mounts = vec![
        fresh("/proc", "proc", &INERT),
        fresh("/dev", "tmpfs", &dev),
        fresh("/dev/pts", "devpts", &pts),
        fresh("/dev/mqueue", "mqueue", &INERT),
        sys(input, &guarded(&INERT)),
        fresh(
            "/sys/fs/cgroup",
            "cgroup",
            &guarded(&[&INERT[..], &["relatime"]].concat()),
        ),
    ];
    mounts.push(match &input.files.shm {
        Some(path) => shown("/dev/shm", path, &INERT),
        None => fresh(
            "/dev/shm",
            "tmpfs",
            &[&INERT[..], &["mode=1777", &format!("size={DEV_SHM_BYTES}")]].concat(),
        ),
    });
    mounts
}

/// A sysfs shows a network, and only who has the say over that may mount one: on the node's network
/// a user namespace is shown the node's own, without the file systems that are mounted in it.
fn sys(input: &Input<'_>, options: &[&str]) -> Mount {
    let namespaces = &input.pod.namespaces;
    if namespaces.users.is_none() || input.pod.has_own_network() {
        return fresh("/sys", "sysfs", options);
    }
    let options = [&["bind", "rprivate"], options].concat();
    mount("/sys".into(), "bind", "/sys".into(), &options)
}

fn files(input: &Input<'_>) -> Vec<Mount> {
    let files = [
        ("/etc/hosts", &input.files.hosts),
        ("/etc/hostname", &input.files.hostname),
        ("/etc/resolv.conf", &input.files.resolv_conf),
    ];
    let access: &[&str] = match input.container.security.readonly_rootfs {
        true => &["ro"],
        false => &[],
    };
    let files = files
        .into_iter()
        .filter_map(|(at, path)| Some((at, path.as_ref()?)));
    files.map(|(at, path)| shown(at, path, access)).collect()
}

fn fresh(destination: &str, kind: &str, options: &[&str]) -> Mount {
    let name = if kind == "tmpfs" && destination.ends_with("shm") {
        "shm"
    } else {
        kind
    };
    mount(destination.into(), kind, name.into(), options)
}

/// A file or directory of the pod.
fn shown(destination: &str, source: &Path, options: &[&str]) -> Mount {
    let options = [&["rbind", "rprivate"], options].concat();
    mount(destination.into(), "bind", source.to_owned(), &options)
}

fn mount(destination: PathBuf, kind: &str, source: PathBuf, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount.set_destination(destination);
    mount.set_typ(Some(kind.to_owned()));
    mount.set_source(Some(source));
    mount.set_options(Some(
        options.iter().map(|option| (*option).to_owned()).collect(),
    ));
    mount
}

/// An image as the runtime is to show it. One without layers is an empty directory.
fn show(view: &ImageView) -> Result<Mount> {
    let path = destination(&view.destination, false)?;
    let mut options = vec!["ro".to_owned()];
    options.extend(view.options.iter().cloned());
    if view.lower.is_empty() {
        options.push("mode=755".to_owned());
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        return Ok(mount(path, "tmpfs", "tmpfs".into(), &options));
    }
    for layer in &view.lower {
        let Some(layer) = layer.to_str() else {
            let why = format!("the path {} is not UTF-8, as a spec is", layer.display());
            return Err(Error::invalid(Field::MountSource, why));
        };
        options.push(format!("lower={layer}"));
    }
    if !view.sub_path.is_empty() {
        options.push(format!("sub_path={}", view.sub_path));
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Ok(mount(path, IMAGE_VIEW, "image".into(), &options))
}

/// A destination that may be mounted at, written the same way everywhere, so that it is found again.
fn destination(path: &Path, root_of_procfs: bool) -> Result<PathBuf> {
    let refuse = |why: String| Err(Error::invalid(Field::MountDestination, why));
    if !path.is_absolute() || path.components().any(|part| part.as_os_str() == "..") {
        return refuse(format!(
            "{} is not an absolute path without \"..\"",
            path.display()
        ));
    }
    let path: PathBuf = path.components().collect();
    if path == Path::new("/") {
        return refuse("/ is the container's root file system".to_owned());
    }
    let replaceable = REPLACEABLE.iter().any(|known| path == Path::new(known));
    // A node agent may want the host's own procfs in the place of the container's.
    let procfs = root_of_procfs && path == Path::new("/proc");
    if path.starts_with("/proc") && !replaceable && !procfs {
        return refuse(format!(
            "{} would hide the kernel's own files: of /proc only a procfs as a whole, and the \
             files that lxcfs shows, can be mounted",
            path.display()
        ));
    }
    Ok(path)
}

fn bind(asked: &ResolvedMount) -> Result<Mount> {
    let path = destination(&asked.destination, asked.root_of_procfs)?;
    let mut options = vec!["rbind"];
    options.push(match asked.propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => SHARED,
    });
    options.extend(match asked.access {
        Access::ReadWrite => &["rw"][..],
        Access::ReadOnly => &["ro"],
        Access::RecursiveReadOnly => &["ro", "rro"],
    });
    options.extend(asked.options.iter().map(String::as_str));
    if asked.id_map.is_some() {
        // Mounts in the volume are a part of it. Other runtimes leave those as they are, so one that
        // cannot be mapped is no reason to refuse a container that runs there.
        options.push(MAPPED_WHERE_POSSIBLE);
    }
    let mut mount = mount(path, "bind", asked.source.clone(), &options);
    if let Some(map) = &asked.id_map {
        mount.set_uid_mappings(Some(mappings(map.users())?));
        mount.set_gid_mappings(Some(mappings(map.groups())?));
    }
    Ok(mount)
}
