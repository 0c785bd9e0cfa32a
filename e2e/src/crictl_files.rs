//! The files that crictl reads pods and containers from, written into a node's directory.

use std::fs;

use serde_json::{Value, json};

use crate::configs;
use crate::node::Node;

/// Writes a pod as `crictl runp` reads it and returns the file's path. Fields of `more` replace the
/// usual ones.
#[must_use]
pub fn pod_file(node: &Node, name: &str, more: &Value) -> String {
    let usual = json!({
        "metadata": {"name": name, "namespace": "e2e", "uid": format!("{name}-uid"), "attempt": 0},
        "hostname": name,
        "log_directory": node.path(&format!("logs/{name}")),
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    });
    write(node, &format!("pod-{name}"), usual, more)
}

/// Writes a container as `crictl create` reads it, of the busybox image unless `more` says
/// otherwise, and returns the file's path.
#[must_use]
pub fn container_file(node: &Node, name: &str, more: &Value) -> String {
    let usual = json!({
        "metadata": {"name": name, "attempt": 0},
        "image": {"image": configs::image("busybox")},
        "log_path": format!("{name}.log"),
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    });
    write(node, &format!("container-{name}"), usual, more)
}

fn write(node: &Node, name: &str, mut config: Value, more: &Value) -> String {
    for (key, field) in more.as_object().unwrap() {
        config[key] = field.clone();
    }
    let path = node.path(&format!("logs/{name}.json"));
    fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}
