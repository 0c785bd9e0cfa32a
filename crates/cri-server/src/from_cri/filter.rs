//! A filter selects pods or containers of a list: each field that is set must match; an id matches
//! by its beginning.

use std::collections::BTreeMap;

use crisp_api::runtime::v1 as cri;
use crisp_node::{ContainerView, PodView};

use super::Result;
use super::check::enumeration;
use crate::to_cri::state::{container_state, pod_state};

type Labels = BTreeMap<String, String>;

/// Selects pods.
#[derive(Debug, Default)]
pub struct PodFilter {
    id: String,
    state: Option<cri::PodSandboxState>,
    labels: Labels,
}

/// Selects containers.
#[derive(Debug, Default)]
pub struct ContainerFilter {
    id: String,
    pod_id: String,
    state: Option<cri::ContainerState>,
    labels: Labels,
}

fn has_labels(labels: &Labels, wanted: &Labels) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

impl PodFilter {
    /// From `ListPodSandbox`.
    ///
    /// # Errors
    /// When the state is none.
    pub fn of_list(wire: Option<cri::PodSandboxFilter>) -> Result<Self> {
        let wire = wire.unwrap_or_default();
        let state = wire
            .state
            .map(|s| enumeration("filter.state.state", s.state))
            .transpose()?;
        Ok(Self {
            id: wire.id,
            state,
            labels: wire.label_selector,
        })
    }

    /// From `ListPodSandboxStats`.
    #[must_use]
    pub fn of_stats(wire: Option<cri::PodSandboxStatsFilter>) -> Self {
        let wire = wire.unwrap_or_default();
        Self {
            id: wire.id,
            state: None,
            labels: wire.label_selector,
        }
    }

    /// Whether this pod is one of them.
    #[must_use]
    pub fn takes(&self, pod: &PodView) -> bool {
        pod.id.as_str().starts_with(&self.id)
            && self
                .state
                .is_none_or(|state| state == pod_state(&pod.phase))
            && has_labels(&pod.config.labels, &self.labels)
    }
}

impl ContainerFilter {
    /// From `ListContainers`.
    ///
    /// # Errors
    /// When the state is none.
    pub fn of_list(wire: Option<cri::ContainerFilter>) -> Result<Self> {
        let wire = wire.unwrap_or_default();
        let state = wire
            .state
            .map(|s| enumeration("filter.state.state", s.state))
            .transpose()?;
        Ok(Self {
            id: wire.id,
            pod_id: wire.pod_sandbox_id,
            state,
            labels: wire.label_selector,
        })
    }

    /// From `ListContainerStats`.
    #[must_use]
    pub fn of_stats(wire: Option<cri::ContainerStatsFilter>) -> Self {
        let wire = wire.unwrap_or_default();
        Self {
            id: wire.id,
            pod_id: wire.pod_sandbox_id,
            state: None,
            labels: wire.label_selector,
        }
    }

    /// Whether this container is one of them.
    #[must_use]
    pub fn takes(&self, container: &ContainerView) -> bool {
        container.id.as_str().starts_with(&self.id)
            && container.pod_id.as_str().starts_with(&self.pod_id)
            && self
                .state
                .is_none_or(|state| state == container_state(&container.phase))
            && has_labels(&container.config.labels, &self.labels)
    }
}
