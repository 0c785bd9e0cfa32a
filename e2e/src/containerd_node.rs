//! A node of a cluster that has containerd in the place of its crispd: to move from one to the other, and
//! to tell what is Crisp's part in a spec that fails.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::tools;

/// Where the node's runtime answers, in the node.
pub const SOCKET: &str = "/node/crisp.sock";
/// Programs that the node has beside those of each node.
const PROGRAMS: [&str; 5] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "crictl",
    "runc",
];

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
        let dir = cluster.home().join("clusters/crisp/nodes").join(node);
        fs::create_dir_all(dir.join("bin")).unwrap();
        for program in PROGRAMS {
            fs::copy(tools::tool(program), dir.join("bin").join(program)).unwrap();
        }
        fs::write(dir.join("containerd.toml"), configuration(pause)).unwrap();
        let list = dir.join("net.d/10-crisp.conflist");
        let subnet = read(&list)["plugins"][0]["subnets"][0].take();
        fs::write(list, plugins(&subnet).to_string()).unwrap();
        let crisp = read(&dir.join("init.json"));
        Self { dir, crisp }
    }

    /// Their directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
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

fn configuration(pause: &str) -> String {
    format!(
        "version = 3\n\
         root = \"/var/lib/containerd\"\n\
         state = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.nri.v1.nri\"]\n\
         [grpc]\n\
         address = \"{SOCKET}\"\n\
         [plugins.\"io.containerd.cri.v1.images\".registry]\n\
         config_path = \"/node/certs.d\"\n\
         [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n\
         sandbox = \"{pause}\"\n\
         [plugins.\"io.containerd.cri.v1.runtime\"]\n\
         restrict_oom_score_adj = true\n\
         cni = {{bin_dirs = [\"/usr/lib/cni\"], conf_dir = \"/node/net.d\"}}\n\
         [plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runc]\n\
         runtime_type = \"io.containerd.runc.v2\"\n\
         options = {{BinaryName = \"/node/bin/runc\", SystemdCgroup = false}}\n"
    )
}

fn plugins(subnet: &Value) -> Value {
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
                "dataDir": "/run/host-local",
            },
        }],
    })
}
