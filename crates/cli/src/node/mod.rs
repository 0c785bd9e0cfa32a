//! A node is a pod of the outer crispd with one container. Its files are written before the container
//! is started; its pod, which has the address, stays while the node is stopped.

mod files;
mod lived;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use serde_json::json;

pub use files::write_files;

use crate::cri::{Cri, Pod};
use crate::disk::make_dir;
use crate::failure::{Context as _, Failure, Result};
use crate::home::ClusterDir;
use crate::init::{CRISP_DIR, KUBERNETES_DIR, NODE_DIR};
use crate::manifests::{self, API_PORT};
use crate::names::{self, CONTROL};
use crate::network::Network;
use crate::programs::Programs;
use crate::record::Record;

/// The label that tells a pod's cluster.
const CLUSTER: &str = "crisp.cluster/name";
/// The label that tells a pod's node.
const NODE: &str = "crisp.cluster/node";
/// The label that tells the settings with which a container began.
const BEGAN_WITH: &str = "crisp.cluster/began-with";
/// The annotation by which a pod chooses its address.
const ADDRESS: &str = "v1.multus-cni.io/default-network";
/// How long the address of a former pod may be taken.
const FREE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// Of pods of one cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(CLUSTER.to_owned(), cluster.to_owned())])
}

/// The cluster of a pod.
pub fn cluster_of(pod: &Pod) -> &str {
    pod.labels.get(CLUSTER).map_or("", String::as_str)
}

/// The node of a pod.
pub fn of_pod(pod: &Pod) -> &str {
    pod.labels.get(NODE).map_or("", String::as_str)
}

/// A node that has its pod.
#[derive(Debug, Clone)]
pub struct Node {
    /// `control`, `node-1`, `node-2` …
    pub name: String,
    /// Its pod.
    pub pod: String,
    /// Its address.
    pub address: IpAddr,
}

/// All that nodes of a cluster have in common.
#[derive(Debug)]
pub struct Nodes<'a> {
    /// The cluster.
    pub record: &'a Record,
    /// Its directory.
    pub dir: &'a ClusterDir,
    /// The outer crispd.
    pub cri: &'a Cri,
    /// The cgroup that its nodes are below.
    pub cgroup_parent: &'a str,
    /// The image of nodes.
    pub image: &'a str,
    /// Programs that nodes see.
    pub programs: &'a Programs,
    /// The network of all clusters.
    pub network: &'a Network,
    /// Servers of names.
    pub resolvers: &'a [IpAddr],
}

impl Nodes<'_> {
    /// Finds the pod of a node, or runs it; tells whether it is a new one.
    pub async fn ensure_pod(&self, name: &str, there: &[Pod]) -> Result<(Node, bool)> {
        let step = || format!("node {name}");
        let mut found = None;
        for pod in there.iter().filter(|pod| of_pod(pod) == name) {
            match pod.is_ready && found.is_none() {
                true => found = Some(pod.id.clone()),
                // Its namespaces went with the machine's last boot.
                false => self.cri.remove_pod(&pod.id).await.context(step)?,
            }
        }
        let is_new = found.is_none();
        let pod = match found {
            Some(pod) => pod,
            None => self.run_pod(name).await.context(step)?,
        };
        let node = Node {
            name: name.to_owned(),
            pod,
            address: self.record.address(self.network, name).into(),
        };
        Ok((node, is_new))
    }

    /// The address of a pod that was removed is free a little later; nothing else is tried again.
    async fn run_pod(&self, name: &str) -> Result<String> {
        make_dir(&self.dir.node(name).join("log"))?;
        let config = self.pod_config(name);
        let deadline = Instant::now() + FREE;
        loop {
            match self.cri.run_pod(&config).await {
                Err(failure) if is_taken(&failure) && Instant::now() < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The names of those that do not run.
    pub async fn stopped<'n>(&self, all: &'n [Node]) -> Result<Vec<&'n str>> {
        let mut stopped = Vec::new();
        for node in all {
            let containers = self.cri.containers(&node.pod).await;
            let containers = containers.context(|| format!("node {}", node.name))?;
            if !containers.iter().any(|container| container.runs) {
                stopped.push(node.name.as_str());
            }
        }
        Ok(stopped)
    }

    /// Starts a node's container, unless it runs.
    pub async fn start(&self, node: &Node) -> Result<bool> {
        let step = || format!("node {}", node.name);
        let former = self.cri.containers(&node.pod).await.context(step)?;
        if former.iter().any(|container| container.runs) {
            return Ok(false);
        }
        let attempt = former.iter().map(|container| container.attempt + 1).max();
        for container in &former {
            self.cri.remove(&container.id).await.context(step)?;
        }
        // A socket of its former life would seem to be there already.
        crisp_sys::file::remove_if_there(&self.dir.socket(&node.name)).context(step)?;
        let mut config = self.container_config(&node.name, attempt.unwrap_or(0));
        config
            .labels
            .insert(BEGAN_WITH.to_owned(), self.settings_of(&node.name)?);
        let sandbox = self.pod_config(&node.name);
        let started = self.cri.run(&node.pod, &sandbox, config).await;
        started.context(step)?;
        Ok(true)
    }

    /// Whether a node runs that began with other settings than it has now.
    pub async fn is_older(&self, node: &Node) -> Result<bool> {
        let containers = self.cri.containers(&node.pod).await;
        let containers = containers.context(|| format!("node {}", node.name))?;
        let now = self.settings_of(&node.name)?;
        Ok(containers.iter().any(|container| {
            container.runs
                && container
                    .labels
                    .get(BEGAN_WITH)
                    .is_none_or(|began| *began != now)
        }))
    }

    /// A digest of the files that a node reads when it begins, and of the places of its programs.
    fn settings_of(&self, name: &str) -> Result<String> {
        let programs = [&self.programs.ours, &self.programs.kubernetes];
        lived::settings(&self.dir.node(name), &programs.map(PathBuf::as_path))
    }

    fn pod_config(&self, name: &str) -> cri::PodSandboxConfig {
        let cluster = &self.record.name;
        let uid = format!("{cluster}-{name}");
        let mut labels = labels(&cluster.to_string());
        labels.insert(NODE.to_owned(), name.to_owned());
        let servers = self.resolvers.iter().map(ToString::to_string);
        let path = |path: PathBuf| path.display().to_string();
        cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: uid.clone(),
                uid,
                namespace: "crisp-clusters".to_owned(),
                attempt: 0,
            }),
            hostname: name.to_owned(),
            log_directory: path(self.dir.node(name).join("log")),
            dns_config: Some(cri::DnsConfig {
                servers: servers.collect(),
                ..Default::default()
            }),
            port_mappings: self.ports(name),
            labels,
            annotations: BTreeMap::from([(ADDRESS.to_owned(), self.chosen_address(name))]),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: self.cgroup_parent.to_owned(),
                sysctls: BTreeMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())]),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    privileged: name != CONTROL,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn chosen_address(&self, name: &str) -> String {
        let address = format!("{}/16", self.record.address(self.network, name));
        json!([{"name": "nodes", "ips": [address]}]).to_string()
    }

    /// The ports of this machine's loopback that lead to a node.
    fn ports(&self, name: &str) -> Vec<cri::PortMapping> {
        let port = |host: u16, node: u16| cri::PortMapping {
            protocol: cri::Protocol::Tcp.into(),
            container_port: node.into(),
            host_port: host.into(),
            host_ip: "127.0.0.1".to_owned(),
        };
        if name == CONTROL {
            return vec![port(self.record.port, API_PORT)];
        }
        let published = self.record.publish.iter();
        let published = published.filter(|_| name == names::worker(1));
        published
            .map(|publish| port(publish.host, publish.node))
            .collect()
    }

    fn container_config(&self, name: &str, attempt: u32) -> cri::ContainerConfig {
        let own = self.dir.node(name);
        let dir = |inside: &str, host: &Path, readonly: bool| cri::Mount {
            container_path: inside.to_owned(),
            host_path: host.display().to_string(),
            readonly,
            ..Default::default()
        };
        let mut mounts = vec![
            dir(NODE_DIR, &own, false),
            // An overlay's upper layer cannot lie on the overlay that a container's own files are.
            dir("/var/lib", &own.join("var"), false),
            dir("/var/log", &own.join("log"), false),
            dir("/etc/machine-id", &own.join("machine-id"), true),
            // Its pod's file is as old as the pod, and the machine may ask others by now.
            dir("/etc/resolv.conf", &own.join("resolv.conf"), true),
            dir("/usr", Path::new("/usr"), true),
            dir(CRISP_DIR, &self.programs.ours, true),
            dir(KUBERNETES_DIR, &self.programs.kubernetes, true),
        ];
        let settings = manifests::shared_settings();
        mounts.extend(settings.map(|path| dir(path, Path::new(path), true)));
        let words = ["cluster", "init"].map(str::to_owned);
        let file = format!("{NODE_DIR}/init.json");
        cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata {
                name: "node".to_owned(),
                attempt,
            }),
            image: Some(cri::ImageSpec {
                image: self.image.to_owned(),
                ..Default::default()
            }),
            command: vec![format!("{CRISP_DIR}/crisp")],
            args: words.into_iter().chain([file]).collect(),
            log_path: "node.log".to_owned(),
            mounts,
            linux: Some(cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext {
                    namespace_options: Some(namespaces()),
                    privileged: name != CONTROL,
                    // The control plane too has routes to pods.
                    capabilities: Some(cri::Capability {
                        add_capabilities: vec!["NET_ADMIN".to_owned()],
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }
}

/// Whether a pod was refused for an address that another one has still. CRI has no code for that.
fn is_taken(failure: &Failure) -> bool {
    failure.to_string().contains("taken by")
}

/// Kills the containers of a node's pod, and tells whether one ran.
pub async fn stop(cri: &Cri, name: &str, pod: &str) -> Result<bool> {
    let step = || format!("node {name}");
    let containers = cri.containers(pod).await.context(step)?;
    let running = containers.iter().filter(|container| container.runs);
    let mut stopped = false;
    for container in running {
        cri.kill(&container.id).await.context(step)?;
        stopped = true;
    }
    Ok(stopped)
}

/// All of a node's own: its first process is the first of its PID namespace.
fn namespaces() -> cri::NamespaceOption {
    cri::NamespaceOption {
        pid: cri::NamespaceMode::Container.into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_that_is_about_to_be_free_is_waited_for() {
        let refused = |why: &str| Failure::because("node control: run its pod", Failure::new(why));
        assert!(is_taken(&refused("address 10.213.1.10: taken by 1b/eth0")));
        for why in ["mount overlay: No such device", "no answer in 120 s"] {
            assert!(!is_taken(&refused(why)), "{why}");
        }
    }
}
