//! The attachment that a call of plugins is about: which sandbox, namespace and arguments.

use std::path::{Path, PathBuf};

use crisp_model::PodId;
use serde_json::{Map, Value};

use super::conf::ConfList;
use super::runtime_config::arguments;
use crate::attachment::PodNetwork;
use crate::builtin::Owner;
use crate::error::Result;

const NSFS_MAGIC: i64 = 0x6e73_6673;
const PROC_MAGIC: i64 = 0x9fa0;
const INTERFACE: &str = "eth0";

/// The attachment that a call is about.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub owner: Owner,
    netns: PathBuf,
    pub label: String,
    pub args: String,
    pub arguments: Map<String, Value>,
}

impl Target {
    /// The attachment of a pod by a list.
    ///
    /// # Errors
    /// When an annotation that asks a plugin of the list for bandwidth, an address or a MAC makes
    /// no sense.
    pub(crate) fn of(pod: &PodNetwork, list: &ConfList) -> Result<Self> {
        let arguments = arguments(pod, list)?;
        Ok(Self {
            arguments,
            ..Self::unasked(pod)
        })
    }

    /// The same without the pod's ports, DNS settings and annotations, which DEL can do without.
    pub(crate) fn unasked(pod: &PodNetwork) -> Self {
        let id = pod.pod_id.as_str();
        let name = &pod.name;
        // A name with a semicolon could otherwise add arguments to the list.
        let clean = |text: &str| text.replace([';', '=', '\0'], "_");
        Self {
            owner: Self::owner(id),
            netns: pod.netns.clone(),
            label: format!("pod {name} ({})", pod.pod_id.short()),
            args: format!(
                "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={}",
                clean(&name.namespace),
                clean(&name.name),
                clean(&name.uid),
            ),
            arguments: Map::new(),
        }
    }

    /// The attachment of a pod of which only the id is known.
    pub(crate) fn nameless(pod: &PodId) -> Self {
        let id = pod.as_str();
        Self {
            owner: Self::owner(id),
            netns: PathBuf::new(),
            label: format!("pod {}", pod.short()),
            args: format!("IgnoreUnknown=1;K8S_POD_INFRA_CONTAINER_ID={id}"),
            arguments: Map::new(),
        }
    }

    /// The one attachment that a sandbox has.
    pub(crate) fn owner(id: &str) -> Owner {
        Owner {
            container: id.to_owned(),
            interface: INTERFACE.to_owned(),
        }
    }

    /// The path of the namespace, unless the pin is gone or no namespace is mounted on it.
    pub(crate) fn live_netns(&self) -> Option<&Path> {
        let stat = rustix::fs::statfs(&self.netns).ok()?;
        matches!(stat.f_type, NSFS_MAGIC | PROC_MAGIC).then_some(self.netns.as_path())
    }
}
