//! Sysctls of a pod: only those that belong to a namespace that the pod has for itself, so that
//! none ever reaches the node.

use std::collections::BTreeMap;

use crisp_model::{NamespaceMode, PodNamespaces};

use super::{Result, invalid};

/// Parts of names that belong to the IPC namespace (`ipc_namespaces(7)`).
const IPC: &[&str] = &[
    "kernel.shm",
    "kernel.msg",
    "kernel.sem",
    "kernel.auto_msgmni",
    "fs.mqueue.",
];

/// The sysctls as they were asked for, all of them fit for this pod.
pub(crate) fn sysctls(
    at: &str,
    wire: BTreeMap<String, String>,
    namespaces: &PodNamespaces,
) -> Result<BTreeMap<String, String>> {
    for (name, value) in &wire {
        let at = format!("{at}[{name:?}]");
        if value.chars().any(char::is_control) {
            return invalid(at, "the value holds control characters");
        }
        let Some(dotted) = dotted(name) else {
            return invalid(at, "is not the name of a sysctl");
        };
        let own = if dotted.starts_with("net.") {
            namespaces.network != NamespaceMode::Node
        } else if IPC.iter().any(|part| dotted.starts_with(part)) {
            namespaces.ipc != NamespaceMode::Node
        } else {
            return invalid(
                at,
                "does not belong to a namespace: it would change the node",
            );
        };
        if !own {
            return invalid(
                at,
                "the pod uses the node's namespace: it would change the node",
            );
        }
    }
    Ok(wire)
}

/// The name with its parts joined by dots, which sysctl(8) and procfs write as slashes. No part is
/// empty, so neither `..` nor an absolute path gets through.
fn dotted(name: &str) -> Option<String> {
    let letter = |c: char| c.is_ascii_alphanumeric() || "-_:./".contains(c);
    let lawful = name.chars().all(letter) && name.split(['.', '/']).all(|part| !part.is_empty());
    lawful.then(|| name.replace('/', "."))
}
