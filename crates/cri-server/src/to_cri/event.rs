//! From our events to CRI's.

use crisp_api::runtime::v1 as cri;
use crisp_node::{ContainerEvent, EventKind};

use super::pod;

/// The event with the pod and its containers as they were right after it.
#[must_use]
pub fn event(event: &ContainerEvent) -> cri::ContainerEventResponse {
    let kind = match event.kind {
        EventKind::Created => cri::ContainerEventType::ContainerCreatedEvent,
        EventKind::Started => cri::ContainerEventType::ContainerStartedEvent,
        EventKind::Stopped => cri::ContainerEventType::ContainerStoppedEvent,
        EventKind::Deleted => cri::ContainerEventType::ContainerDeletedEvent,
    };
    cri::ContainerEventResponse {
        container_id: event.subject_id().to_owned(),
        container_event_type: kind.into(),
        created_at: event.at.0,
        pod_sandbox_status: Some(pod::status(&event.pod)),
        containers_statuses: pod::container_statuses(&event.pod),
    }
}
