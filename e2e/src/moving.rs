//! A node of a cluster moves from containerd to Crisp and back, as `docs/migrate.md` says, while another
//! node has Crisp all the time.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::cluster::{Cluster, IMAGE};
use crate::containerd_node::{Files, SOCKET};
use crate::image::{archive, busybox};
use crate::tools;

/// The node that has Crisp all the time.
const OTHER: &str = "node-1";
/// The image that containerd keeps a pod's namespaces with.
const PAUSE: &str = "e2e.internal/pause:1";
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
        self.cluster.drain(self.name, &[]);
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

/// The node finds them below `/node`.
fn write_images(files: &Files) {
    let pause = busybox::image().config(json!({"Cmd": ["sleep", "2147483647"]}));
    for (file, image, name) in [
        ("image.tar", busybox::image(), IMAGE),
        ("pause.tar", pause, PAUSE),
    ] {
        let archive = archive::archive(&image.pack(), name);
        fs::write(files.dir().join(file), archive).unwrap();
    }
}

/// Brings up a cluster of two nodes and has one of them move from containerd to Crisp and back. That one is
/// stopped when it is asked what it is from then on.
pub fn there_and_back<N: Moving>(cluster: &Cluster, name: &str, node: impl FnOnce() -> N) {
    cluster.crisp("up --nodes 2");
    let archive = cluster.archive();
    cluster.crisp(&format!("load {archive}"));
    cluster.crisp(&format!("stop {name}"));
    let files = Files::prepare(cluster, name, PAUSE);
    write_images(&files);
    // Its crispd has had the image as well.
    fs::remove_dir_all(files.dir().join("var/crisp")).unwrap();
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
