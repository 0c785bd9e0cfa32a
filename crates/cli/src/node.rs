//! A node is a pod of the outer crispd with one container. Its files are written before the container
//! is started; its pod, which has the address, stays while the node is stopped.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use serde_json::{Value, json};

use crate::cri::{Cri, Pod};
use crate::daemon;
use crate::disk::{make_dir, write, write_private};
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::home::ClusterDir;
use crate::init::{CRISP_DIR, Init, KUBERNETES_DIR, NODE_DIR, Program};
use crate::kubeconfig;
use crate::manifests;
use crate::names::{self, CONTROL};
use crate::network;
use crate::pki::{Pki, Subject};
use crate::programs::Programs;
use crate::record::Record;
use crate::settings;

/// The label that tells a pod's cluster.
const CLUSTER: &str = "crisp.cluster/name";
/// The label that tells a pod's node.
const NODE: &str = "crisp.cluster/node";
/// The annotation by which a pod chooses its address.
const ADDRESS: &str = "v1.multus-cni.io/default-network";
/// How long the address of a former pod may be taken.
const FREE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(200);

/// Of pods of one cluster.
pub fn labels(cluster: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(CLUSTER.to_owned(), cluster.to_owned())])
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
    /// The image of nodes.
    pub image: &'a str,
    /// Programs that nodes see.
    pub programs: &'a Programs,
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
            address: self.record.address(name).into(),
        };
        Ok((node, is_new))
    }

    /// The address of a pod that was removed is free a little later.
    async fn run_pod(&self, name: &str) -> Result<String> {
        make_dir(&self.dir.node(name).join("log"))?;
        let config = self.pod_config(name);
        let deadline = Instant::now() + FREE;
        loop {
            match self.cri.run_pod(&config).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
                outcome => return outcome,
            }
        }
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
        let config = self.container_config(&node.name, attempt.unwrap_or(0));
        let sandbox = self.pod_config(&node.name);
        let started = self.cri.run(&node.pod, &sandbox, config).await;
        started.context(step)?;
        Ok(true)
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
                cgroup_parent: daemon::cgroup_parent(self.record),
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
        let (_, length) = network::NODES.rsplit_once('/').unwrap_or_default();
        let address = format!("{}/{length}", self.record.address(name));
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
            return vec![port(self.record.port, 6443)];
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

/// Writes the files of all nodes of a cluster, and its administrator's kubeconfig as the last one.
pub fn write_files(nodes: &Nodes<'_>, all: &[Node]) -> Result<()> {
    let pki = Pki::of(&nodes.dir.pki())?;
    let control = all.iter().find(|node| node.name == CONTROL);
    let control = control.ok_or_else(|| {
        Failure::new(format!(
            "cluster {}: it has no control plane",
            nodes.record.name
        ))
    })?;
    let files = Files {
        nodes,
        pki,
        all,
        control,
    };
    files.of_control()?;
    let workers = nodes.record.workers();
    for (number, name) in workers {
        let node = all.iter().find(|node| node.name == name);
        let node = node.ok_or_else(|| Failure::new(format!("node {name}: it has no pod")))?;
        files.of_worker(number, node)?;
    }
    files.of_administrator()
}

struct Files<'a> {
    nodes: &'a Nodes<'a>,
    pki: Pki,
    all: &'a [Node],
    control: &'a Node,
}

impl Files<'_> {
    fn of_administrator(&self) -> Result<()> {
        let cluster = &self.nodes.record.name;
        let server = format!("https://127.0.0.1:{}", self.nodes.record.port);
        let admin = Subject {
            group: Some("system:masters"),
            ..Subject::client("admin")
        };
        let pair = self.pki.issue(&admin)?;
        let name = format!("crisp-{cluster}");
        let document = kubeconfig::document(&name, &server, &self.pki.ca, &pair);
        write_json(&self.nodes.dir.kubeconfig(), &document)
    }

    fn of_control(&self) -> Result<()> {
        let dir = self.own_dir(self.control, &["var/etcd"])?;
        let apiserver = Subject {
            hosts: manifests::API_NAMES.map(str::to_owned).to_vec(),
            addresses: vec![
                self.control.address,
                network::KUBERNETES.into(),
                std::net::Ipv4Addr::LOCALHOST.into(),
            ],
            ..Subject::client("kube-apiserver")
        };
        self.pair(&dir, "apiserver", &apiserver)?;
        let to_kubelet = Subject::client(manifests::APISERVER_USER);
        self.pair(&dir, "to-kubelet", &to_kubelet)?;
        let tokens = &self.pki.tokens;
        write_private(&dir.join("tokens.key"), tokens.key.as_bytes())?;
        write(&dir.join("tokens.pub"), tokens.certificate.as_bytes())?;
        for (file, user) in [
            ("controllers", "system:kube-controller-manager"),
            ("scheduler", "system:kube-scheduler"),
            ("coredns", manifests::COREDNS_USER),
        ] {
            self.client(&dir, file, &Subject::client(user), "127.0.0.1")?;
        }
        let address = self.control.address.to_string();
        let corefile = manifests::corefile(&address, self.nodes.resolvers);
        write(&dir.join("Corefile"), corefile.as_bytes())?;
        write(&dir.join("routes"), self.routes(CONTROL).as_bytes())?;
        self.init(&dir, false, manifests::control_plane(&address))
    }

    fn of_worker(&self, number: u8, node: &Node) -> Result<()> {
        let dir = self.own_dir(node, &["net.d", "certs.d", "var", "log"])?;
        let kubelet = Subject {
            name: format!("system:node:{}", node.name),
            group: Some("system:nodes"),
            hosts: vec![node.name.clone()],
            addresses: vec![node.address],
        };
        let api = self.control.address.to_string();
        self.pair(&dir, "node", &kubelet)?;
        self.client(&dir, "kubelet", &kubelet, &api)?;
        self.client(&dir, "proxy", &Subject::client("system:kube-proxy"), &api)?;
        write_json(&dir.join("kubelet.json"), &manifests::kubelet())?;
        write_json(
            &dir.join("kube-proxy.json"),
            &manifests::kube_proxy(&node.name),
        )?;
        let pods = network::pods_of(number);
        write_json(
            &dir.join("net.d/10-crisp.conflist"),
            &manifests::pod_network(&pods),
        )?;
        let resolv_conf = manifests::resolv_conf(self.nodes.resolvers);
        write(&dir.join("resolv.conf"), resolv_conf.as_bytes())?;
        let runtime = settings::runtime(self.nodes.dir)?;
        write(&dir.join("crispd.toml"), runtime.as_bytes())?;
        write(&dir.join("firewall.nft"), manifests::firewall().as_bytes())?;
        write(&dir.join("routes"), self.routes(&node.name).as_bytes())?;
        let address = node.address.to_string();
        self.init(&dir, true, manifests::node_programs(&node.name, &address))
    }

    fn routes(&self, own: &str) -> String {
        let others = self.nodes.record.workers().filter(|(_, name)| name != own);
        let routes: Vec<(String, String)> = others
            .filter_map(|(number, name)| {
                let node = self.all.iter().find(|node| node.name == name)?;
                Some((network::pods_of(number), node.address.to_string()))
            })
            .collect();
        let routes = routes
            .iter()
            .map(|(pods, via)| (pods.clone(), via.as_str()));
        manifests::routes(routes)
    }

    fn own_dir(&self, node: &Node, more: &[&str]) -> Result<PathBuf> {
        let dir = self.nodes.dir.node(&node.name);
        for name in more {
            make_dir(&dir.join(name))?;
        }
        write(&dir.join("ca.crt"), self.pki.ca.as_bytes())?;
        let cluster = self.nodes.record.name.to_string();
        let id = manifests::machine_id(&cluster, &node.name);
        write(&dir.join("machine-id"), id.as_bytes())?;
        Ok(dir)
    }

    fn pair(&self, dir: &Path, name: &str, subject: &Subject) -> Result<()> {
        let pair = self.pki.issue(subject)?;
        write(
            &dir.join(format!("{name}.crt")),
            pair.certificate.as_bytes(),
        )?;
        write_private(&dir.join(format!("{name}.key")), pair.key.as_bytes())
    }

    fn client(&self, dir: &Path, name: &str, subject: &Subject, server: &str) -> Result<()> {
        let pair = self.pki.issue(subject)?;
        let server = format!("https://{server}:6443");
        let document = kubeconfig::document("crisp", &server, &self.pki.ca, &pair);
        write_json(&dir.join(format!("{name}.kubeconfig")), &document)
    }

    fn init(
        &self,
        dir: &Path,
        runs_pods: bool,
        programs: Vec<(&'static str, Vec<String>)>,
    ) -> Result<()> {
        let programs = programs.into_iter().map(|(name, words)| {
            let at = match name {
                "crispd" => CRISP_DIR,
                _ => KUBERNETES_DIR,
            };
            let path = format!("{at}/{name}");
            Program {
                name: name.to_owned(),
                command: std::iter::once(path).chain(words).collect(),
            }
        });
        let init = Init {
            runs_pods,
            programs: programs.collect(),
        };
        let text = serde_json::to_value(init)
            .context(|| format!("{}: describe the node", dir.display()))?;
        write_json(&dir.join("init.json"), &text)
    }
}

/// Keys may be in it.
fn write_json(path: &Path, value: &Value) -> Result<()> {
    write_private(path, value.to_string().as_bytes()).remedy(|| "make room there".to_owned())
}
