//! A node of a cluster moves from containerd to Crisp and back, while another node has Crisp all the time.
//! The steps are those of each kind of node; all of them have to serve afterwards as before.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cluster::{Cluster, IMAGE};
use crate::containerd_node::dir_of;
use crate::image::{archive, busybox};
use crate::tools;

/// The image that containerd keeps a pod's namespaces with.
pub const PAUSE: &str = "e2e.internal/pause:1";
/// Archives of all images in the node's directory.
pub const ARCHIVES: [&str; 2] = ["image.tar", "pause.tar"];
/// The node that has Crisp all the time.
const OTHER: &str = "node-1";
/// Requests from each node. That some pod gets none of them is less likely than one in 10^9.
const REQUESTS: usize = 32;

/// The runtime of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// The one that nodes have before.
    Containerd,
    /// The one under test.
    Crisp,
}

impl Runtime {
    /// How a node's version of it begins, and the ids of its containers.
    #[must_use]
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Containerd => "containerd://",
            Self::Crisp => "crisp://",
        }
    }
}

/// A node that moves, as its operator has it.
pub trait Moving {
    /// Starts it with containerd, which gets the images of all archives.
    fn begin(&self);
    /// Empties it, has another runtime take its place, and lets pods come again.
    fn change(&self, to: Runtime);
    /// The answer to a request from the node; nothing for a request that was lost.
    fn page(&self, url: &str) -> String;
}

/// Whether the programs are there that a move takes; elsewhere the test is told to be left out.
#[must_use]
pub fn can(test: &str) -> bool {
    tools::has_containerd(test) && tools::has("runc", "differential", test)
}

/// Waits until a node is ready with a runtime.
#[track_caller]
pub fn until_ready(cluster: &Cluster, node: &str, runtime: Runtime) {
    let what = format!("{node} is ready with {}", runtime.scheme());
    cluster.until(&what, |cluster| {
        let status = cluster.get(&["node", node])["status"].take();
        let conditions = status["conditions"].as_array();
        let is_ready = |it: &Value| it["type"] == "Ready" && it["status"] == "True";
        let version = status["nodeInfo"]["containerRuntimeVersion"].as_str();
        conditions.is_some_and(|all| all.iter().any(is_ready))
            && version.is_some_and(|told| told.starts_with(runtime.scheme()))
    });
}

/// Both pods answer from each node, and one of them is on the node.
#[track_caller]
fn serves(cluster: &Cluster, name: &str, node: &impl Moving) {
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
    assert!(places.iter().any(|(_, node)| node == name), "{places:?}");
    let names: BTreeSet<String> = places.into_iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), 2);
    let service = cluster.get(&["service", "web"]);
    let url = format!("http://{}/", text(&service["spec"]["clusterIP"]));
    let other = || cluster.page(OTHER, &url);
    let own = || node.page(&url);
    let clients: [(&str, &dyn Fn() -> String); 2] = [(OTHER, &other), (name, &own)];
    for (client, page) in clients {
        // A node hears of new pods a moment after they are ready.
        cluster.until(&format!("both pods answer {client}"), |_| {
            (0..REQUESTS).map(|_| page()).collect::<BTreeSet<String>>() == names
        });
    }
}

/// The node has them in its directory.
fn write_images(dir: &Path) {
    let pause = busybox::image().config(json!({"Cmd": ["sleep", "2147483647"]}));
    let images = [(busybox::image(), IMAGE), (pause, PAUSE)];
    for (file, (image, name)) in ARCHIVES.iter().zip(images) {
        let archive = archive::archive(&image.pack(), name);
        fs::write(dir.join(file), archive).unwrap();
    }
}

/// Brings up a cluster of two nodes and has one of them move from containerd to Crisp and back. That one is
/// stopped when it is asked what it is from then on.
pub fn there_and_back<N: Moving>(cluster: &Cluster, name: &str, node: impl FnOnce() -> N) {
    cluster.crisp("up --nodes 2");
    let archive = cluster.archive();
    cluster.crisp(&format!("load {archive}"));
    cluster.crisp(&format!("stop {name}"));
    let dir = dir_of(cluster, name);
    write_images(&dir);
    // Its crispd has had the image as well.
    fs::remove_dir_all(dir.join("var/crisp")).unwrap();
    let node = node();
    node.begin();
    until_ready(cluster, name, Runtime::Containerd);
    cluster.apply("web.yaml");
    cluster.kubectl(&["scale", "deployment/web", "--replicas=2"]);
    serves(cluster, name, &node);
    for runtime in [Runtime::Crisp, Runtime::Containerd] {
        node.change(runtime);
        serves(cluster, name, &node);
    }
    drop(node);
    cluster.crisp("delete");
    cluster.left_nothing();
}
