//! The log of a pod's life: one line for each note of its machine, in the pod's span.

use std::io;

use tracing::{Span, debug, error_span, info, warn};

use crisp_model::ContainerId;

use crate::machine::effect::{ContainerNote, Note};

/// Writes the line of a note. The name is that of the container that it is about.
pub(super) fn log(pod: &Span, note: Note, name: impl FnOnce(&ContainerId) -> Option<String>) {
    match note {
        Note::Container(id, note) => {
            in_container(pod, (&id, name(&id)), || container(note));
        }
        note => pod.in_scope(|| of_pod(note)),
    }
}

/// Tells how the connection to a container's shim was lost.
pub(super) fn lost_shim(pod: &Span, of: (&ContainerId, Option<String>), error: &io::Error) {
    in_container(pod, of, || {
        debug!(target: "crisp::container", %error, "connection to a shim lost");
    });
}

fn in_container(pod: &Span, (id, name): (&ContainerId, Option<String>), tell: impl FnOnce()) {
    let span = error_span!(target: "crisp::container", parent: pod, "container",
        container = name.unwrap_or_default(), container_id = %id);
    span.in_scope(tell);
}

fn of_pod(note: Note) {
    match note {
        Note::PodReady { ips } => {
            let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
            info!(target: "crisp::pod", ips = ips.join(","), "pod ready");
        }
        Note::PodStopping => info!(target: "crisp::pod", "pod stopping"),
        Note::PodStopped => info!(target: "crisp::pod", "pod stopped"),
        Note::PodRemoved => info!(target: "crisp::pod", "pod removed"),
        Note::HolderKilled => warn!(
            target: "crisp::pod",
            "the init of the pod's PID namespace was killed; stopping the pod"
        ),
        Note::StillUndoing(error) => warn!(
            target: "crisp::pod", %error, "failed boot not wholly undone; trying again"
        ),
        Note::NotTornDown(error) => warn!(
            target: "crisp::pod", %error, "pod not wholly torn down; stop it again"
        ),
        Note::Container(..) => {}
    }
}

fn container(note: ContainerNote) {
    match note {
        ContainerNote::Created { image } => {
            info!(target: "crisp::container", image, "container created");
        }
        ContainerNote::Started { init, warnings } => info!(
            target: "crisp::container", pid = init.pid, warnings = warnings.join("; "),
            "container started"
        ),
        ContainerNote::Stopping { grace } => {
            debug!(target: "crisp::container", ?grace, "container stopping");
        }
        ContainerNote::Killing => debug!(target: "crisp::container", "killing container"),
        ContainerNote::Exited(exit) => info!(
            target: "crisp::container", code = exit.code(), reason = exit.reason(),
            why = exit.message(), "container exited"
        ),
        ContainerNote::Removed => info!(target: "crisp::container", "container removed"),
        ContainerNote::ShimGone => warn!(
            target: "crisp::container", "shim gone; looking for its container"
        ),
        ContainerNote::ShimReplaced => info!(
            target: "crisp::container", "another shim has taken the container over"
        ),
        ContainerNote::ShimSilent => warn!(
            target: "crisp::container", "the shim is there but silent"
        ),
        ContainerNote::ShimKilled => warn!(
            target: "crisp::container",
            "killed a shim that was silent about the end of its container"
        ),
        ContainerNote::NotStopped(error) => warn!(
            target: "crisp::container", %error, "container not stopped"
        ),
        ContainerNote::NotRemoved(error) => warn!(
            target: "crisp::container", %error, "container not removed"
        ),
        ContainerNote::StillUnmaking(error) => warn!(
            target: "crisp::container", %error, "failed creation not wholly undone; trying again"
        ),
    }
}
