//! A disk that is under pressure: the kubelet collects the images that no container has.

use std::collections::BTreeSet;

use crisp_e2e::configs;
use crisp_e2e::node::Node;
use crisp_e2e::patience::still;
use serde_json::{Value, json};

use crate::cases::{self, WITHIN, watch};
use crate::{gone, with_kubelet};

#[test]
fn privileged_unused_images_go_when_the_disk_is_under_pressure() {
    with_kubelet(json!({}), |node, kubelet| {
        let mut cases = cases::some(node, &["web"]);
        kubelet.add(&cases["web"].pod);
        watch(node, kubelet, &mut cases);
        node.pull(&["web", "layers"]);
        let used = BTreeSet::from([configs::image("busybox")]);
        let unused = ["web", "layers"].map(configs::image);
        let all = &used | &BTreeSet::from(unused);
        let seconds = std::time::Duration::from_secs(12);
        still("without pressure all images stay", seconds, || {
            images(node) == all
        });
        let before = kubelet.pods(node)[0]["status"]["containerStatuses"][0].clone();
        kubelet.kill();
        // No disk has as much room as this: the pressure is there from now on. The kubelet takes that
        // of images for another one where both are in memory.
        let least = "99.99%";
        kubelet.evict(json!({"nodefs.available": least, "imagefs.available": least}));
        kubelet.restart(node);
        let deadline = std::time::Instant::now() + WITHIN;
        while images(node) != used {
            assert!(std::time::Instant::now() < deadline, "{:?}", images(node));
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        // A static pod is not evicted; its image is there, and it never noticed.
        watch(node, kubelet, &mut cases);
        let after = &kubelet.pods(node)[0]["status"]["containerStatuses"][0];
        assert_eq!(after["containerID"], before["containerID"]);
        // Its image would be the next without it.
        kubelet.kill();
        kubelet.evict(json!({"memory.available": "10Mi"}));
        kubelet.restart(node);
        kubelet.remove("web");
        gone(node, kubelet);
    });
}

/// The names of all images.
fn images(node: &Node) -> BTreeSet<String> {
    let list = node.crictl().json(&["images", "--output", "json"]);
    let images = list["images"].as_array().unwrap().iter();
    let names = images.flat_map(|image| image["repoTags"].as_array().unwrap());
    names.filter_map(Value::as_str).map(str::to_owned).collect()
}
