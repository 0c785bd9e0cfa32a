//! The nouns between engine and network: a pod to attach, its attachment, the network's status, and
//! interface counters.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use crisp_model::{DnsConfig, PodId, PodName, PortMapping};
use serde::{Deserialize, Serialize};

/// A pod that is to be attached or detached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodNetwork {
    /// The sandbox, which plugins know as the container id.
    pub pod_id: PodId,
    /// Its name, for plugins' arguments and for messages.
    pub name: PodName,
    /// The pinned network namespace.
    pub netns: PathBuf,
    /// Host ports, and container ports without one.
    pub port_mappings: Vec<PortMapping>,
    /// DNS settings, for plugins that want them.
    pub dns: DnsConfig,
    /// The pod's annotations: passed on, and read for bandwidth, addresses and MAC.
    pub annotations: BTreeMap<String, String>,
    /// The pod's cgroup.
    pub cgroup_path: String,
}

/// An interface that a plugin reported.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Name.
    pub name: String,
    /// Hardware address, empty when the plugin does not tell.
    pub mac: String,
    /// The network namespace; empty for interfaces on the node.
    pub sandbox: String,
}

/// A pod's place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The pod's addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// Interfaces, in the pod and on the node.
    pub interfaces: Vec<Interface>,
    /// The last plugin's result, as the plugin printed it.
    pub result: serde_json::Value,
}

/// The condition `NetworkReady`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    /// Pods can be attached.
    pub ready: bool,
    /// One word; empty when ready.
    pub reason: String,
    /// A sentence; when ready, empty or what may cut pods off.
    pub message: String,
}

/// Counters of one interface since it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStats {
    /// Name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors while receiving.
    pub rx_errors: u64,
    /// Packets dropped while receiving.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors while sending.
    pub tx_errors: u64,
    /// Packets dropped while sending.
    pub tx_dropped: u64,
}
