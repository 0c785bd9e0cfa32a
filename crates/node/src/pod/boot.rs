//! Booting a pod: namespaces, network, shared PID namespace, files. A worker of the pod's task.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crisp_cni::PodNetwork;
use crisp_model::resources::DEV_SHM_BYTES;
use crisp_model::{Cause, Field, IdMap, NamespaceMode, PodConfig};
use crisp_records::PodRecord;
use crisp_sys::credentials;
use crisp_sys::file;
use crisp_sys::mount::{self, FsContext, MountAttributes};
use crisp_sys::ns::{self, Kind};
use crisp_sys::process::{ProcessId, command};
use tokio::io::AsyncReadExt;

use super::etc_files;
use super::naming::Gone;
use super::sysctl::{self, Sysctl};
use super::users;
use crate::blocking::brief;
use crate::error::{Context, Error, Result};
use crate::machine::facts::Booted;
use crate::shared::Shared;

/// How long a pod waits for the end of the one that it replaces.
const ROOM_WITHIN: Duration = Duration::from_secs(60);
/// How long the holder of a PID namespace may take to say who it is.
const HOLDER_WITHIN: Duration = Duration::from_secs(10);

/// Waits for the end of the pod whose name this one takes: host ports are to be free again. Should
/// that pod be stuck, the network says what is taken.
pub(super) async fn make_room(gone: Gone) {
    drop(tokio::time::timeout(ROOM_WITHIN, gone).await);
}

/// Makes all that a pod has. The remains of a failed boot are for the teardown.
pub(super) async fn boot(shared: &Arc<Shared>, record: &PodRecord) -> Result<Booted> {
    make_namespaces(shared, record).await?;
    shared.cgroups.make_parent(&record.cgroup_path).await?;
    let holder = match record.config.namespaces.pid {
        NamespaceMode::Pod => Some(start_holder(shared, record).await?),
        _ => None,
    };
    let ips = if record.config.has_own_network() {
        let network = &shared.config.network;
        let attached = network.attach(&pod_network(shared, record)).await;
        attached
            .context(|| format!("attach pod {} to the network", record.config.name))?
            .ips
    } else {
        Vec::new()
    };
    let (kernel, owned, addresses) = (Arc::clone(shared), record.clone(), ips.clone());
    brief(move || finish(&kernel, &owned, &addresses)).await?;
    Ok(Booted { ips, holder })
}

/// A pod as the network knows it.
pub(super) fn pod_network(shared: &Shared, record: &PodRecord) -> PodNetwork {
    PodNetwork {
        pod_id: record.id.clone(),
        name: record.config.name.clone(),
        netns: shared.paths.netns(&record.id),
        port_mappings: record.config.port_mappings.clone(),
        dns: record.config.dns.clone(),
        annotations: record.config.annotations.clone(),
        cgroup_path: record.cgroup_path.to_string(),
    }
}

pub(super) fn new_namespaces(shared: &Shared, record: &PodRecord) -> Vec<(Kind, PathBuf)> {
    let mut kinds = Vec::new();
    if record.config.has_own_network() {
        kinds.push((Kind::Net, shared.paths.netns(&record.id)));
        kinds.push((Kind::Uts, shared.paths.pin(&record.id, Kind::Uts.file())));
    }
    if record.config.namespaces.ipc != NamespaceMode::Node {
        kinds.push((Kind::Ipc, shared.paths.pin(&record.id, Kind::Ipc.file())));
    }
    kinds
}

async fn make_namespaces(shared: &Arc<Shared>, record: &PodRecord) -> Result<()> {
    let Some(map) = &record.config.namespaces.users else {
        let (kernel, owned) = (Arc::clone(shared), record.clone());
        return brief(move || make_in_the_nodes(&kernel, &owned)).await;
    };
    let (kernel, owned) = (Arc::clone(shared), record.clone());
    brief(move || make_dir_of_pins(&kernel, &owned)).await?;
    let wanted = users::Wanted {
        map,
        pin: users_pin(shared, record),
        others: new_namespaces(shared, record),
    };
    users::make(shared, record, wanted).await?;
    let (kernel, owned) = (Arc::clone(shared), record.clone());
    brief(move || furnish(&kernel, &owned)).await
}

/// The file that pins the pod's user namespace.
fn users_pin(shared: &Shared, record: &PodRecord) -> PathBuf {
    shared.paths.pin(&record.id, Kind::User.file())
}

/// Always there, empty or not: it tells later daemons which namespaces are this one's.
fn make_dir_of_pins(shared: &Shared, record: &PodRecord) -> Result<()> {
    let made = file::make_private_dirs(&shared.paths.pod_pins(&record.id));
    made.context(|| format!("make the directory of pins of pod {}", record.config.name))
}

/// The namespaces of a pod that has the node's user namespace.
fn make_in_the_nodes(shared: &Shared, record: &PodRecord) -> Result<()> {
    let step = |what: &str| format!("{what} of pod {}", record.config.name);
    make_dir_of_pins(shared, record)?;
    let kinds = new_namespaces(shared, record);
    if !kinds.is_empty() {
        let inside = || inside_namespaces(&record.config);
        ns::pin_with(&kinds, inside).context(|| step("make the namespaces"))?;
    }
    make_shm(shared, record)
}

/// The steps inside of namespaces that another process made.
fn furnish(shared: &Shared, record: &PodRecord) -> Result<()> {
    let step = || format!("set up the namespaces of pod {}", record.config.name);
    if record.config.has_own_network() {
        let open = |path: PathBuf| std::fs::File::open(path).context(step);
        let net = open(shared.paths.netns(&record.id))?;
        let uts = open(shared.paths.pin(&record.id, Kind::Uts.file()))?;
        // The thread that is in both has the node's ids, and the say over what the pod's root owns.
        let inside = || {
            let inside = || inside_namespaces(&record.config);
            ns::inside(uts.as_fd(), Kind::Uts, inside)
        };
        let done = ns::inside(net.as_fd(), Kind::Net, inside);
        done.and_then(|done| done?).context(step)?;
    }
    make_shm(shared, record)
}

fn make_shm(shared: &Shared, record: &PodRecord) -> Result<()> {
    if record.config.namespaces.ipc == NamespaceMode::Node {
        return Ok(());
    }
    let mounted = mount_shm(
        &shared.paths.pin(&record.id, "shm"),
        &record.config,
        shared.label_of(record),
    );
    mounted.context(|| format!("mount /dev/shm of pod {}", record.config.name))
}

fn inside_namespaces(config: &PodConfig) -> io::Result<()> {
    if !config.has_own_network() {
        return Ok(());
    }
    if !config.hostname.is_empty() {
        ns::set_hostname(&config.hostname)?;
    }
    for (name, value) in [
        ("ip_unprivileged_port_start", "0"),
        ("ping_group_range", &pinging_groups(config)),
    ] {
        // As containers are used to: unprivileged servers and ping. The kernel's own values do
        // where these files are missing.
        let path = Path::new("/proc/sys/net/ipv4").join(name);
        let open = std::fs::OpenOptions::new().write(true).open(path);
        drop(open.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes())));
    }
    Ok(())
}

/// All groups that the pod has: others would be shown in it as nobody's.
fn pinging_groups(config: &PodConfig) -> String {
    let map = config.namespaces.users.as_ref();
    let mut ranges = map.map(IdMap::groups).unwrap_or_default().iter();
    match ranges.find(|range| range.container == 0) {
        Some(range) => format!("{} {}", range.host, range.host + (range.length - 1)),
        None => "0 2147483647".to_owned(),
    }
}

/// A file system of its own, so that nobody fills the one of `/run`.
fn mount_shm(target: &Path, config: &PodConfig, label: Option<String>) -> io::Result<()> {
    std::fs::create_dir(target)?;
    let attributes = MountAttributes::default().inert();
    let (user, group) = config.root_on_host();
    let mut context = FsContext::open("tmpfs")?
        .set("size", &DEV_SHM_BYTES.to_string())?
        .set("mode", "1777")?
        .set("uid", &user.to_string())?
        .set("gid", &group.to_string())?;
    if let Some(label) = label {
        context = context.set("context", &label)?;
    }
    let tree = context.mount(attributes)?;
    let place = crisp_sys::rootfs::open_root(target)?;
    mount::attach(tree.as_fd(), place.as_fd())
}

/// The steps that need the pod's network.
fn finish(shared: &Shared, record: &PodRecord, ips: &[IpAddr]) -> Result<()> {
    let step = |what: &str| format!("{what} of pod {}", record.config.name);
    let sysctls = sysctl::check_all(&record.config)?;
    if !sysctls.is_empty() {
        set_sysctls(shared, record, &sysctls)
            .map_err(|error| Error::invalid(Field::Sysctls, error.to_string()))?;
    }
    let dir = shared.paths.pod(&record.id);
    let label = shared.label_of(record);
    etc_files::write(&dir, (&record.config, label.as_deref()), ips)
        .context(|| step("write the files"))
}

fn set_sysctls(shared: &Shared, record: &PodRecord, sysctls: &[Sysctl]) -> io::Result<()> {
    for (kind, path) in new_namespaces(shared, record) {
        let mine: Vec<&Sysctl> = sysctls
            .iter()
            .filter(|sysctl| sysctl.kind == kind)
            .collect();
        if mine.is_empty() {
            continue;
        }
        let namespace = std::fs::File::open(path)?;
        let (root, _) = record.config.root_on_host();
        ns::inside(namespace.as_fd(), kind, || {
            if kind == Kind::Ipc && root != 0 {
                // Of these the kernel asks who one is, not what one may. The thread ends with it.
                credentials::set_uid(root)?;
            }
            mine.iter().try_for_each(|sysctl| sysctl.set())
        })??;
    }
    Ok(())
}

/// Starts the init of a shared PID namespace and pins the namespace.
async fn start_holder(shared: &Arc<Shared>, record: &PodRecord) -> Result<ProcessId> {
    let name = &record.config.name;
    let step = |what: &str| format!("{what} of pod {name}");
    let mut holder = command(&shared.config.holder_path);
    if let Some(shims) = shared.cgroups.shims() {
        holder.args(["into", shims.as_str()]);
    }
    if record.config.namespaces.users.is_some() {
        holder.arg("within").arg(users_pin(shared, record));
    }
    // The id is how a later daemon recognises a holder that it was not told of.
    holder
        .arg(record.id.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let spawned = tokio::process::Command::from(holder).spawn();
    let mut child = spawned.context(|| step("start the holder"))?;
    let mut told = Vec::new();
    let listen = async {
        if let Some(stdout) = &mut child.stdout {
            stdout.take(64).read_to_end(&mut told).await?;
        }
        child.wait().await
    };
    let status = tokio::time::timeout(HOLDER_WITHIN, listen)
        .await
        .map_err(|_| Error::DeadlineExceeded(format!("the holder of pod {name} says nothing")))?
        .context(|| step("listen to the holder"))?;
    let id = parse_holder(&told).filter(|_| status.success());
    let id = id.ok_or_else(|| Error::Internal {
        step: format!("start the holder of pod {name}"),
        cause: Cause::of(format!("it ended with {status}")),
    })?;
    let pin = shared.paths.pin(&record.id, Kind::Pid.file());
    let pinned = crisp_tasks::brief(move || ns::pin_of(id.pid, Kind::Pid, &pin)).await;
    let pinned = pinned.map_err(|failed| Error::fault(&failed))?;
    pinned.context(|| step("pin the PID namespace"))?;
    shared.shelter(id);
    Ok(id)
}

/// Pid and start time, little-endian.
fn parse_holder(bytes: &[u8]) -> Option<ProcessId> {
    let (pid, start_time) = bytes.split_at_checked(4)?;
    Some(ProcessId {
        pid: i32::from_le_bytes(pid.try_into().ok()?),
        start_time: u64::from_le_bytes(start_time.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_tells_pid_and_start_time() {
        let told = [7, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1];
        let id = parse_holder(&told).unwrap();
        assert_eq!((id.pid, id.start_time), (263, 0x0100_0000_0000_0009));
        for bad in [&told[..11], &[], &[0; 13]] {
            assert!(parse_holder(bad).is_none());
        }
    }
}
