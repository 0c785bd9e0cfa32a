//! A node that has containerd in the place of its crispd: to move from one to the other, and to tell what
//! is Crisp's part in a spec that fails.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::tools;

/// Where either runtime answers in a node that is a container: `crisp cluster` looks there.
pub const SOCKET: &str = "/node/crisp.sock";
/// Programs that the node has beside those of each node.
pub const PROGRAMS: [&str; 5] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "crictl",
    "runc",
];

/// The directory of a node of a cluster on this machine, which the node sees as `/node`.
#[must_use]
pub fn dir_of(cluster: &Cluster, node: &str) -> PathBuf {
    cluster.home().join("clusters/crisp/nodes").join(node)
}

/// The node's files, on this machine; it sees them below `/node`.
#[derive(Debug)]
pub struct Files {
    dir: PathBuf,
    /// The node's description with a crispd.
    crisp: Value,
}

impl Files {
    /// Gives a node, which is stopped, containerd's programs and a network by plugins that both runtimes
    /// call. containerd keeps a pod's namespaces with the image `pause`.
    #[must_use]
    #[track_caller]
    pub fn prepare(cluster: &Cluster, node: &str, pause: &str) -> Self {
        let dir = dir_of(cluster, node);
        fs::create_dir_all(dir.join("bin")).unwrap();
        for program in PROGRAMS {
            fs::copy(tools::tool(program), dir.join("bin").join(program)).unwrap();
        }
        let settings = Settings {
            root: "/var/lib/containerd",
            state: "/run/containerd",
            socket: SOCKET,
            certs: "/node/certs.d",
            networks: "/node/net.d",
            runc: "/node/bin/runc",
            machine: Machine::Container,
            pause,
            handlers: &[],
        };
        fs::write(dir.join("containerd.toml"), settings.text()).unwrap();
        let list = dir.join("net.d/10-crisp.conflist");
        let subnet = read(&list)["plugins"][0]["subnets"][0].take();
        fs::write(list, plugins(&subnet, "/run/host-local").to_string()).unwrap();
        let crisp = read(&dir.join("init.json"));
        Self { dir, crisp }
    }

    /// The node starts with a crispd the next time.
    pub fn describe_with_crisp(&self) {
        fs::write(self.dir.join("init.json"), self.crisp.to_string()).unwrap();
    }

    /// The node starts with a containerd in the crispd's place.
    pub fn describe_with_containerd(&self) {
        let mut node = self.crisp.clone();
        let programs = node["programs"].as_array_mut().unwrap();
        let runtime = programs.iter_mut().find(|it| it["name"] == "crispd");
        let line = "PATH=/node/bin:$PATH exec containerd --config /node/containerd.toml";
        runtime.unwrap()["command"] = json!(["/bin/sh", "-c", line]);
        fs::write(self.dir.join("init.json"), node.to_string()).unwrap();
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The kind of machine that a containerd is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// A container: it makes the cgroups itself, and may lack `CAP_SYS_RESOURCE`, which a lower
    /// `oom_score_adj` takes.
    Container,
    /// One where systemd makes them, and everything may be done.
    Systemd,
}

/// The configuration of a containerd, as far as machines differ.
#[derive(Debug)]
pub struct Settings<'a> {
    /// Its directory that stays.
    pub root: &'a str,
    /// Its directory until the machine boots again.
    pub state: &'a str,
    /// The socket that it answers at.
    pub socket: &'a str,
    /// The directory of how registries are reached.
    pub certs: &'a str,
    /// The directory of pods' networks.
    pub networks: &'a str,
    /// The path of runc.
    pub runc: &'a str,
    /// The kind of machine.
    pub machine: Machine,
    /// The image that a pod's namespaces are kept with.
    pub pause: &'a str,
    /// Names of handlers beside its own, which do the same.
    pub handlers: &'a [&'a str],
}

impl Settings<'_> {
    /// Its configuration.
    #[must_use]
    pub fn text(&self) -> String {
        let Self {
            root,
            state,
            socket,
            certs,
            networks,
            machine,
            pause,
            ..
        } = self;
        let is_confined = *machine == Machine::Container;
        let head = format!(
            "version = 3\n\
             root = \"{root}\"\n\
             state = \"{state}\"\n\
             disabled_plugins = [\"io.containerd.nri.v1.nri\"]\n\
             [grpc]\n\
             address = \"{socket}\"\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\n\
             config_path = \"{certs}\"\n\
             [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n\
             sandbox = \"{pause}\"\n\
             [plugins.\"io.containerd.cri.v1.runtime\"]\n\
             restrict_oom_score_adj = {is_confined}\n\
             cni = {{bin_dirs = [\"/usr/lib/cni\"], conf_dir = \"{networks}\"}}\n"
        );
        let handlers = ["runc"].iter().chain(self.handlers);
        handlers.fold(head, |text, name| text + &self.handler(name))
    }

    fn handler(&self, name: &str) -> String {
        let runc = self.runc;
        let has_systemd = self.machine == Machine::Systemd;
        format!(
            "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.{name}]\n\
             runtime_type = \"io.containerd.runc.v2\"\n\
             options = {{BinaryName = \"{runc}\", SystemdCgroup = {has_systemd}}}\n"
        )
    }
}

/// A network for pods of a range, by plugins that keep its addresses in a directory.
#[must_use]
pub fn plugins(subnet: &Value, addresses: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": addresses,
            },
        }],
    })
}
