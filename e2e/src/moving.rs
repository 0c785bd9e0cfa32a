//! A node of a cluster moves from containerd to Crisp and back, as `docs/migrate.md` says, while another
//! node has Crisp all the time.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cluster::{Cluster, IMAGE};
use crate::image::{archive, busybox};
use crate::tools;

/// The node that has Crisp all the time.
const OTHER: &str = "node-1";
/// The image that containerd keeps a pod's namespaces with.
const PAUSE: &str = "e2e.internal/pause:1";
const SOCKET: &str = "/node/crisp.sock";
/// Programs that the node has beside those of each node.
const PROGRAMS: [&str; 5] = [
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "crictl",
    "runc",
];
/// Requests from each node. That some pod gets none of them is less likely than one in 10^9.
const REQUESTS: usize = 32;

/// A node that moves, as its operator has it.
pub trait Moving {
    /// Runs a command in the node, and tells its output.
    fn run(&self, line: &str) -> String;
    /// Starts the node's programs.
    fn start(&self);
    /// Ends them, and all that they started.
    fn stop(&self);
    /// The answer to a request from the node; nothing for a request that was lost.
    fn page(&self, url: &str) -> String;
}

/// Whether the programs are there that a move takes; elsewhere the test is told to be left out.
#[must_use]
pub fn can(test: &str) -> bool {
    tools::has_containerd(test) && tools::has("runc", "differential", test)
}

/// The files of the node that moves, on this machine; it sees them below `/node`.
struct Files {
    dir: PathBuf,
    /// The node's description with a crispd.
    crisp: Value,
}

impl Files {
    /// Gives the node containerd's programs and a network by plugins that both runtimes call.
    fn prepare(cluster: &Cluster, node: &str) -> Self {
        let dir = cluster.home().join("clusters/crisp/nodes").join(node);
        fs::create_dir_all(dir.join("bin")).unwrap();
        for program in PROGRAMS {
            fs::copy(tools::tool(program), dir.join("bin").join(program)).unwrap();
        }
        fs::write(dir.join("containerd.toml"), configuration()).unwrap();
        let pause = busybox::image().config(json!({"Cmd": ["sleep", "2147483647"]}));
        for (file, image, name) in [
            ("image.tar", busybox::image(), IMAGE),
            ("pause.tar", pause, PAUSE),
        ] {
            fs::write(dir.join(file), archive::archive(&image.pack(), name)).unwrap();
        }
        let list = dir.join("net.d/10-crisp.conflist");
        let subnet = read(&list)["plugins"][0]["subnets"][0].take();
        fs::write(list, plugins(&subnet).to_string()).unwrap();
        let crisp = read(&dir.join("init.json"));
        Self { dir, crisp }
    }

    /// The node starts with a crispd the next time.
    fn describe_with_crisp(&self) {
        fs::write(self.dir.join("init.json"), self.crisp.to_string()).unwrap();
    }

    /// The node starts with a containerd in the crispd's place.
    fn describe_with_containerd(&self) {
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

fn configuration() -> String {
    format!(
        "version = 3\n\
         root = \"/var/lib/containerd\"\n\
         state = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.nri.v1.nri\"]\n\
         [grpc]\n\
         address = \"{SOCKET}\"\n\
         [plugins.\"io.containerd.cri.v1.images\".pinned_images]\n\
         sandbox = \"{PAUSE}\"\n\
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

/// The cluster, and its node that moves.
struct Move<'a> {
    cluster: &'a Cluster,
    name: &'a str,
    node: &'a dyn Moving,
    files: &'a Files,
}

impl Move<'_> {
    /// The runtime that the API server knows the node by, once it is ready.
    fn runtime(&self) -> Option<String> {
        let node = self.cluster.get(&["node", self.name]);
        let conditions = node["status"]["conditions"].as_array()?;
        let ready = conditions.iter().find(|it| it["type"] == "Ready")?;
        let version = &node["status"]["nodeInfo"]["containerRuntimeVersion"];
        (ready["status"] == "True").then(|| version.as_str().unwrap_or_default().to_owned())
    }

    /// Starts the node, and waits until it has a runtime.
    fn start_with(&self, runtime: &str) {
        match runtime {
            "crisp" => self.files.describe_with_crisp(),
            _ => self.files.describe_with_containerd(),
        }
        self.node.start();
        let version = format!("{runtime}://");
        let what = format!("{} is ready with {runtime}", self.name);
        self.cluster.until(&what, |_| {
            self.runtime()
                .is_some_and(|told| told.starts_with(&version))
        });
    }

    /// Empties the node, removes what a drain leaves, and ends its programs.
    fn leave(&self) {
        let all = [
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            "--timeout=100s",
        ];
        self.cluster
            .kubectl(&[&["drain", self.name], &all[..]].concat());
        let remove = "rmp --all --force";
        self.node.run(&format!(
            "/node/bin/crictl --runtime-endpoint unix://{SOCKET} {remove}"
        ));
        self.node.stop();
    }

    /// Both pods answer from each node, and one of them is on the node.
    fn serves(&self) {
        let cluster = self.cluster;
        cluster.rolled_out("deployment/web");
        let pods = cluster.get(&["pods", "-l", "app=web"])["items"].take();
        let pods = pods.as_array().unwrap();
        let pods = pods
            .iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let places: Vec<(String, String)> = pods
            .map(|pod| {
                (
                    text(&pod["metadata"]["name"]),
                    text(&pod["spec"]["nodeName"]),
                )
            })
            .collect();
        assert!(
            places.iter().any(|(_, node)| node == self.name),
            "{places:?}"
        );
        let names: BTreeSet<String> = places.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), 2);
        let service = cluster.get(&["service", "web"]);
        let url = format!("http://{}/", text(&service["spec"]["clusterIP"]));
        let other = || cluster.page(OTHER, &url);
        let own = || self.node.page(&url);
        let clients: [(&str, &dyn Fn() -> String); 2] = [(OTHER, &other), (self.name, &own)];
        for (node, page) in clients {
            // A node hears of new pods a moment after they are ready.
            cluster.until(&format!("both pods answer {node}"), |_| {
                (0..REQUESTS).map(|_| page()).collect::<BTreeSet<String>>() == names
            });
        }
    }
}

/// Brings up a cluster of two nodes and has one of them move from containerd to Crisp and back. That one is
/// stopped when it is asked what it is from then on.
pub fn there_and_back<N: Moving>(cluster: &Cluster, name: &str, node: impl FnOnce() -> N) {
    cluster.crisp("up --nodes 2");
    let archive = cluster.archive();
    cluster.crisp(&format!("load {archive}"));
    cluster.crisp(&format!("stop {name}"));
    let files = Files::prepare(cluster, name);
    // Its crispd has had the image as well.
    fs::remove_dir_all(files.dir.join("var/crisp")).unwrap();
    let node = node();
    let moves = Move {
        cluster,
        name,
        node: &node,
        files: &files,
    };
    moves.start_with("containerd");
    for file in ["image.tar", "pause.tar"] {
        let address = format!("--address {SOCKET} --namespace k8s.io");
        node.run(&format!(
            "/node/bin/ctr {address} images import /node/{file}"
        ));
    }
    cluster.apply("web.yaml");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]);
    moves.serves();

    moves.leave();
    moves.start_with("crisp");
    node.run(&format!(
        "/opt/crisp/crisp import --socket unix://{SOCKET} --registry-config /node/certs.d"
    ));
    cluster.kubectl(&["uncordon", name]);
    moves.serves();

    moves.leave();
    moves.start_with("containerd");
    cluster.kubectl(&["uncordon", name]);
    moves.serves();
    drop(node);
    cluster.crisp("delete");
    cluster.left_nothing();
}
