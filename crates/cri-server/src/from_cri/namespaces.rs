//! From CRI's namespace options to the namespaces that a pod or a container uses.

use cri::NamespaceMode as Wire;
use crisp_api::runtime::v1 as cri;
use crisp_model::{ContainerId, NamespaceMode, PodNamespaces};

use super::check::{enumeration, some_text};
use super::{Refusal, Result, invalid};

/// Namespaces of a pod; an option that is not set means the pod's own.
pub(crate) fn of_pod(at: &str, options: Option<cri::NamespaceOption>) -> Result<PodNamespaces> {
    let Some(options) = options else {
        return Ok(PodNamespaces::default());
    };
    user_namespace(at, options.userns_options.as_ref())?;
    Ok(PodNamespaces {
        network: pod_or_node(&format!("{at}.network"), options.network)?,
        ipc: pod_or_node(&format!("{at}.ipc"), options.ipc)?,
        pid: match enumeration(&format!("{at}.pid"), options.pid)? {
            Wire::Pod => NamespaceMode::Pod,
            Wire::Container => NamespaceMode::Container,
            Wire::Node => NamespaceMode::Node,
            Wire::Target => {
                return invalid(
                    format!("{at}.pid"),
                    "TARGET is for containers, not for pods",
                );
            }
        },
    })
}

/// Namespaces of a container: those of its pod, but for its PID namespace, which it may choose.
///
/// `find` looks up the container that the caller names as the owner of a PID namespace.
pub(crate) fn of_container(
    at: &str,
    options: Option<cri::NamespaceOption>,
    pod: &PodNamespaces,
    find: impl Fn(&str) -> Result<ContainerId>,
) -> Result<PodNamespaces> {
    let Some(options) = options else {
        return Ok(pod.clone());
    };
    user_namespace(at, options.userns_options.as_ref())?;
    follows(&format!("{at}.network"), options.network, &pod.network)?;
    follows(&format!("{at}.ipc"), options.ipc, &pod.ipc)?;
    let pid = match enumeration(&format!("{at}.pid"), options.pid)? {
        // POD means the namespace that the pod chose. A pod without one of its own has none to
        // share.
        Wire::Pod => pod.pid.clone(),
        Wire::Container => NamespaceMode::Container,
        Wire::Node => NamespaceMode::Node,
        Wire::Target => {
            let at = format!("{at}.target_id");
            NamespaceMode::Target(find(&some_text(&at, options.target_id)?)?)
        }
    };
    Ok(PodNamespaces {
        network: pod.network.clone(),
        pid,
        ipc: pod.ipc.clone(),
    })
}

fn pod_or_node(at: &str, mode: i32) -> Result<NamespaceMode> {
    match enumeration(at, mode)? {
        Wire::Pod => Ok(NamespaceMode::Pod),
        Wire::Node => Ok(NamespaceMode::Node),
        Wire::Container | Wire::Target => invalid(at, "must be POD or NODE"),
    }
}

/// POD is what an unset field says too, so a container of a pod on the node's namespace may say it.
fn follows(at: &str, mode: i32, pod: &NamespaceMode) -> Result<()> {
    let mode = pod_or_node(at, mode)?;
    if mode == NamespaceMode::Node && *pod != NamespaceMode::Node {
        return invalid(at, "NODE needs a pod with NODE");
    }
    Ok(())
}

fn user_namespace(at: &str, options: Option<&cri::UserNamespace>) -> Result<()> {
    let Some(options) = options else {
        return Ok(());
    };
    let at = format!("{at}.userns_options");
    match enumeration(&format!("{at}.mode"), options.mode)? {
        Wire::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(()),
        Wire::Node => invalid(at, "NODE has no id mappings"),
        Wire::Pod => {
            let what = "user namespaces of pods are not part of this version: use mode NODE \
                        (hostUsers: true)";
            Err(Refusal::Unimplemented(format!("{at}: {what}")))
        }
        Wire::Container | Wire::Target => invalid(format!("{at}.mode"), "must be POD or NODE"),
    }
}
