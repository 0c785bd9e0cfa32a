//! The view of a pod, which is all that callers see of it, made from the machine's state.

use std::sync::Arc;

use crisp_model::PodPhase;

use super::container::Container;
use super::pod::{Phase, Pod};
use crate::paths::Paths;
use crate::view::{ContainerView, PodView};

/// The view of a pod; `None` for one that is not to be seen. Containers that are as they were in
/// the `last` view share it.
pub(crate) fn of(pod: &Pod, paths: &Paths, last: Option<&PodView>) -> Option<PodView> {
    let (phase, owed) = match &pod.phase {
        Phase::Booting { .. } | Phase::Undoing { .. } | Phase::Gone => return None,
        Phase::Ready => (PodPhase::Ready, None),
        Phase::Stopping { .. } => (PodPhase::Stopping, None),
        Phase::NotReady { owed } => (PodPhase::NotReady, owed.as_ref()),
    };
    let has_netns = phase == PodPhase::Ready && pod.config.has_own_network();
    let each = pod.containers.values();
    let mut containers: Vec<_> = each
        .filter_map(|container| {
            let known = last.and_then(|last| last.container(&container.record.id));
            container_view(pod, container, paths, known)
        })
        .collect();
    containers.sort_by_key(|container| container.created_at);
    Some(PodView {
        id: pod.record.id.clone(),
        owner: pod.record.owner,
        config: Arc::clone(&pod.config),
        phase,
        created_at: pod.record.created_at,
        ips: pod.progress.ips.clone(),
        netns: has_netns.then(|| paths.netns(&pod.record.id)),
        cgroup_path: pod.record.cgroup_path.clone(),
        holder: pod.progress.holder.map(|holder| holder.pid),
        containers,
        trouble: owed
            .map(ToString::to_string)
            .or_else(|| pod.trouble.clone()),
    })
}

fn container_view(
    pod: &Pod,
    container: &Container,
    paths: &Paths,
    known: Option<&Arc<ContainerView>>,
) -> Option<Arc<ContainerView>> {
    let phase = container.state.phase()?;
    let record = &container.record;
    if let Some(known) = known
        && known.phase == phase
        && known.resources == record.resources
    {
        return Some(Arc::clone(known));
    }
    let made = record.made.clone()?;
    let mounts = container.config.mounts.iter().cloned();
    Some(Arc::new(ContainerView {
        id: record.id.clone(),
        pod_id: pod.record.id.clone(),
        config: Arc::clone(&container.config),
        phase,
        created_at: record.created_at,
        image_id: made.image_id,
        image_ref: made.image_ref,
        log_path: made.log_path,
        user: made.user,
        resources: record.resources.clone(),
        mounts: mounts
            .chain(made.volumes.into_iter().map(Into::into))
            .collect(),
        shown_images: made.shown_images,
        stop_signal: made.stop_signal,
        bundle: paths.bundle(&record.id),
        cgroup_path: record.cgroup_path.clone(),
    }))
}
