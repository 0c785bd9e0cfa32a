//! Figures of the engine as plain numbers: the states that are published anyway are counted when
//! somebody asks, beside what the tally has.

use std::sync::Arc;

use crisp_model::{ContainerPhase, PodPhase};

use crate::shared::Shared;
use crate::view::PodView;

/// How the engine is, and what it has done since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Pods by phase, as callers see them.
    pub pods: Pods,
    /// Containers by phase, as callers see them.
    pub containers: Containers,
    /// Shims that the engine is connected to.
    pub shims: u64,
    /// Shims that are loaded and wait for a container.
    pub spare_shims: usize,
    /// Shims that were killed and replaced.
    pub shims_replaced: u64,
    /// Pods that the start found in their records.
    pub pods_recovered: u64,
    /// Pods whose task failed.
    pub failed_tasks: u64,
    /// Cgroups of pods that are gone, still to be removed.
    pub owed_cgroups: usize,
    /// Remains of failed creations and boots, still to be removed.
    pub owed_remains: usize,
    /// Network attachments of pods that are gone, still to be deleted.
    pub owed_detachments: usize,
    /// Looks at paths of the host that do not come back.
    pub stuck_looks: usize,
    /// Listeners to events: clients, and connections into pods.
    pub listeners: usize,
}

/// Pods by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pods {
    /// Containers may be created in them.
    pub ready: u64,
    /// Being torn down.
    pub stopping: u64,
    /// Torn down and not removed.
    pub not_ready: u64,
}

/// Containers by phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Containers {
    /// Made, not started.
    pub created: u64,
    /// Their programs run.
    pub running: u64,
    /// Asked to stop.
    pub stopping: u64,
    /// Over and not removed.
    pub exited: u64,
}

impl Figures {
    pub(crate) fn of(shared: &Shared, pods: &[Arc<PodView>]) -> Self {
        let tally = &shared.tally;
        Self {
            pods: pods_of(pods),
            containers: containers_of(pods),
            shims: tally.shims.get(),
            spare_shims: shared.spares.count(),
            shims_replaced: tally.shims_replaced.get(),
            pods_recovered: tally.pods_recovered.get(),
            failed_tasks: tally.failed_tasks.get(),
            owed_cgroups: shared.cgroups.owed().len(),
            owed_remains: shared.debts.list().len(),
            owed_detachments: shared.config.network.owed().len(),
            stuck_looks: shared.host_lane.stuck().len(),
            listeners: shared.events.listeners(),
        }
    }
}

fn pods_of(pods: &[Arc<PodView>]) -> Pods {
    let mut found = Pods::default();
    for pod in pods {
        match pod.phase {
            PodPhase::Booting => {}
            PodPhase::Ready => found.ready += 1,
            PodPhase::Stopping => found.stopping += 1,
            PodPhase::NotReady => found.not_ready += 1,
        }
    }
    found
}

fn containers_of(pods: &[Arc<PodView>]) -> Containers {
    let mut found = Containers::default();
    for container in pods.iter().flat_map(|pod| &pod.containers) {
        match container.phase {
            ContainerPhase::Creating => {}
            ContainerPhase::Created => found.created += 1,
            ContainerPhase::Running { .. } => found.running += 1,
            ContainerPhase::Stopping { .. } => found.stopping += 1,
            ContainerPhase::Exited(_) => found.exited += 1,
        }
    }
    found
}
