//! Pods of a RuntimeClass each: the handler that it names runs them, and where a node has none of that
//! name, the pod's events say so.

use std::path::Path;

use crisp_e2e::cluster::Cluster;

use crate::web::NODES;

pub(crate) fn are_those_of_their_classes(cluster: &Cluster) {
    for node in NODES {
        let told = cluster.get(&["node", node])["status"]["runtimeHandlers"].take();
        let all = told.as_array().into_iter().flatten();
        // The one without a name, which is the default, may stand there without the key.
        let mut names: Vec<&str> = all
            .map(|one| one["name"].as_str().unwrap_or_default())
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["", "native", "nested"], "{node}: {told}");
    }
    // A command has a cgroup below its container's in version 2. Without a namespace of their own it shows
    // those of its pod and of all pods too.
    let sees_pods = |pod: &str| {
        cluster.waited("condition=Ready", &format!("pod/{pod}"));
        let seen = cluster.sh(pod, "cat /proc/self/cgroup");
        assert!(seen.contains(":/"), "{seen}");
        seen.contains("kubepods")
    };
    // Version 2 alone gives all containers cgroup namespaces; elsewhere the handler does.
    let all_have_namespaces = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(sees_pods("native"), !all_have_namespaces);
    assert!(!sees_pods("nested"));
    is_refused_by_name(cluster);
}

fn is_refused_by_name(cluster: &Cluster) {
    let which = "involvedObject.name=absent,reason=FailedCreatePodSandBox";
    cluster.until("the pod's events tell of its handler", |cluster| {
        let events = cluster.get(&["events", "--field-selector", which]);
        let mut each = events["items"].as_array().unwrap().iter();
        each.any(|event| {
            let told = event["message"].as_str().unwrap_or_default();
            told.contains("no runtime handler \"absent\" is configured")
        })
    });
    let status = cluster.get(&["pod", "absent"])["status"].take();
    assert_eq!(status["phase"], "Pending", "{status}");
    let waiting = &status["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(waiting["reason"], "ContainerCreating", "{status}");
    cluster.kubectl(&["delete", "pod", "absent"]);
}
