//! The one table of our phases and CRI's states.

use crisp_api::runtime::v1::{ContainerState, PodSandboxState};
use crisp_model::{ContainerPhase, PodPhase};

/// A pod that stops takes no containers any more: callers see it as not ready.
#[must_use]
pub fn pod_state(phase: &PodPhase) -> PodSandboxState {
    match phase {
        PodPhase::Ready => PodSandboxState::SandboxReady,
        PodPhase::Booting | PodPhase::Stopping | PodPhase::NotReady => {
            PodSandboxState::SandboxNotready
        }
    }
}

/// A container that is asked to stop runs until it has ended.
#[must_use]
pub fn container_state(phase: &ContainerPhase) -> ContainerState {
    match phase {
        ContainerPhase::Creating => ContainerState::ContainerUnknown,
        ContainerPhase::Created => ContainerState::ContainerCreated,
        ContainerPhase::Running { .. } | ContainerPhase::Stopping { .. } => {
            ContainerState::ContainerRunning
        }
        ContainerPhase::Exited(_) => ContainerState::ContainerExited,
    }
}
