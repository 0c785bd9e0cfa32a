//! Looks at what the record of an earlier daemon's pod cannot tell, before the machine takes the
//! pod up again.

use crisp_model::{ContainerId, NamespaceMode};
use crisp_records::PodState;

use super::boot::new_namespaces;
use super::etc_files;
use crate::machine::effect::Boot;
use crate::machine::revive::{Look, Story};
use crate::shared::Shared;
use crate::shim::judge::read_slot;

/// Looks at what the record cannot tell.
pub(super) fn look(shared: &Shared, story: &Story) -> Look {
    let pod = &story.record.id;
    let slot = |id: &ContainerId| {
        let slot = read_slot(&shared.paths.exit_slot(pod, id))?;
        Some((id.clone(), slot))
    };
    let is_whole = story.boot(&shared.boot_id) == Boot::This && is_whole(shared, story);
    if is_whole && story.progress.phase == PodState::Ready {
        complete_files(shared, story);
    }
    Look {
        is_whole,
        slots: story.containers.keys().filter_map(slot).collect(),
    }
}

/// Files of a ready pod that are lost are made again, for the containers that are started later.
fn complete_files(shared: &Shared, story: &Story) {
    let record = &story.record;
    let dir = shared.paths.pod(&record.id);
    let label = shared.label_of(record);
    let shown = (&record.config, label.as_deref());
    if let Err(error) = etc_files::complete(&dir, shown, &story.progress.ips) {
        tracing::warn!(pod_id = %record.id, %error, "a pod lacks files that its containers share");
    }
}

/// Whether the namespaces of a ready pod are still there.
fn is_whole(shared: &Shared, story: &Story) -> bool {
    let record = &story.record;
    let kinds = new_namespaces(shared, record);
    let own_ipc = record.config.namespaces.ipc != NamespaceMode::Node;
    let shm = own_ipc.then(|| shared.paths.pin(&record.id, "shm"));
    let mut paths = kinds.into_iter().map(|(_, path)| path).chain(shm);
    let pinned = paths.all(|path| path.exists());
    let shares_pids = record.config.namespaces.pid == NamespaceMode::Pod;
    let holder = story.progress.holder;
    pinned && (!shares_pids || holder.is_some_and(|holder| holder.is_alive()))
}
