//! Logs that the kubelet rotates while they are written.

use crisp_e2e::patience::eventually;
use serde_json::{Value, json};

use crate::{gone, images, with_kubelet};

#[test]
fn privileged_rotated_logs_have_every_line() {
    const LAST: usize = 20_000;
    with_kubelet(json!({}), |node, kubelet| {
        let line = format!(
            "i=0; while [ $i -lt {LAST} ]; do i=$((i+1)); echo line $i; \
             [ $((i % 500)) != 0 ] || sleep 0.2; done"
        );
        kubelet.add(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "writer", "namespace": "default"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "main", "image": images::BUSYBOX, "command": ["sh", "-c", line],
                }],
            },
        }));
        let mut files = Vec::new();
        eventually("the pod has ended, and its log was rotated", || {
            files = kubelet.logs("writer");
            let pods = kubelet.pods(node);
            let ended = |pod: &Value| pod["status"]["phase"] == "Succeeded";
            files.len() > 1 && pods.iter().any(ended)
        });
        // The kubelet removes the oldest, and no other.
        let lines: Vec<usize> = files.iter().flat_map(|file| numbers(file)).collect();
        let first = lines[0];
        assert_eq!(lines, Vec::from_iter(first..=LAST));
        kubelet.remove("writer");
        gone(node, kubelet);
    });
}

/// The numbers of the lines in a file of a log.
fn numbers(log: &str) -> Vec<usize> {
    let lines = log.lines().map(|line| {
        let number = line.split_once(" stdout F line ");
        number.unwrap_or_else(|| panic!("{line:?}")).1
    });
    lines.map(|number| number.parse().unwrap()).collect()
}
