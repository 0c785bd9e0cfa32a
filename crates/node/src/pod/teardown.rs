//! The one teardown: idempotent, goes on after errors, collects them. Its callers are the failed
//! boot, StopPodSandbox and recovery.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crisp_model::{NamespaceMode, PodId};
use crisp_records::PodRecord;
use crisp_sys::pidfd::PidFd;
use crisp_sys::process::ProcessId;
use crisp_sys::{file, mount, ns};

use super::boot::pod_network;
use crate::blocking::brief;
use crate::error::{Context, Error};
use crate::machine::effect::PodRemains;
use crate::shared::Shared;

/// How long a killed holder may take to end.
const HOLDER_WITHIN: Duration = Duration::from_secs(5);

/// Whether it may have a holder, or a process that makes its namespaces.
fn has_helpers(remains: &PodRemains) -> bool {
    let namespaces = remains.record.as_ref().map(|r| &r.config.namespaces);
    namespaces.is_none_or(|of| of.pid == NamespaceMode::Pod || of.users.is_some())
}

/// Removes all that a pod has but its record. Its containers are over.
pub(crate) async fn teardown(shared: &Arc<Shared>, remains: &PodRemains) -> Vec<Error> {
    // The cgroups go meanwhile: neither a holder nor the network is in them.
    let (errors, ()) = futures::join!(
        network_and_kernel(shared, remains),
        cgroups(shared, remains)
    );
    errors
}

async fn network_and_kernel(shared: &Arc<Shared>, remains: &PodRemains) -> Vec<Error> {
    let own_network = |record: &&PodRecord| record.config.has_own_network();
    if let Some(record) = remains.record.as_ref().filter(own_network) {
        let network = &shared.config.network;
        // The network tries again and tells of it: a plugin that is broken keeps no pod from going.
        network.detach(&pod_network(shared, record)).await.ok();
    }
    let (kernel, owned) = (Arc::clone(shared), remains.clone());
    brief(move || Ok(teardown_kernel(&kernel, &owned)))
        .await
        .unwrap_or_else(|error| vec![error])
}

async fn cgroups(shared: &Shared, remains: &PodRemains) {
    let cgroups = &shared.cgroups;
    if remains.made_cgroup.is_some() {
        let scopes = remains.containers.iter();
        futures::future::join_all(scopes.map(|path| cgroups.end_scope(path))).await;
    }
    cgroups.leave(&remains.id).await;
}

fn teardown_kernel(shared: &Shared, remains: &PodRemains) -> Vec<Error> {
    let id = &remains.id;
    let step = |what: &str| format!("{what} of pod {id}");
    let mut errors = Vec::new();
    for holder in holders(remains) {
        errors.extend(end_holder(holder).context(|| step("end the holder")).err());
    }
    if remains.holder.is_none() {
        // We may have killed crisp-holder just after it forked the holder: look a second time.
        for holder in holders(remains) {
            errors.extend(end_holder(holder).context(|| step("end the holder")).err());
        }
    }
    let netns = ns::unpin(&shared.paths.netns(id));
    errors.extend(
        netns
            .context(|| step("let go of the network namespace"))
            .err(),
    );
    let shm = remove_shm(&shared.paths.pin(id, "shm"));
    errors.extend(shm.context(|| step("unmount /dev/shm")).err());
    for pin in pins(&shared.paths.pod_pins(id)) {
        let unpinned = ns::unpin(&pin);
        errors.extend(unpinned.context(|| step("let go of a namespace")).err());
    }
    if errors.is_empty() {
        let pins = remove_dir(&shared.paths.pod_pins(id));
        errors.extend(pins.context(|| step("remove the directory of pins")).err());
    }
    let files = file::remove_tree_if_there(&shared.paths.pod(id));
    errors.extend(files.context(|| step("remove the files")).err());
    errors
}

/// Namespaces of the pod, and those that its containers joined.
fn pins(dir: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
    files.map(|entry| entry.path()).collect()
}

/// The holder that is known, or those that say whose they are.
fn holders(remains: &PodRemains) -> Vec<ProcessId> {
    match remains.holder {
        Some(holder) => vec![holder],
        None if has_helpers(remains) => find_holders(&remains.id),
        None => Vec::new(),
    }
}

/// Holders, and those that are making one, carry their pod's id as their last argument.
fn find_holders(pod: &PodId) -> Vec<ProcessId> {
    crate::paths::processes("crisp-holder", pod.as_str())
}

fn end_holder(holder: ProcessId) -> std::io::Result<()> {
    let Some(process) = PidFd::open_exact(&holder)? else {
        return Ok(());
    };
    process.signal(9)?;
    crate::container::stop::wait_for_end(&process, HOLDER_WITHIN)
}

fn remove_shm(path: &Path) -> std::io::Result<()> {
    match mount::unmount(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        // EINVAL: the directory is there, but nothing is mounted on it.
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {}
        other => other?,
    }
    remove_dir(path)
}

fn remove_dir(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
