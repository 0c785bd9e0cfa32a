//! The whole life of a pod as a user types it, step by step.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;

use crisp_e2e::crictl::Crictl;
use crisp_e2e::crictl_files::{container_file, pod_file};
use crisp_e2e::trial;
use serde_json::json;

const IDLE: &str = "trap 'echo bye; exit 7' TERM; echo hello; echo oops >&2; \
                    while :; do sleep 1000 & wait; done";

#[test]
fn privileged_a_pod_lives_and_dies_by_crictl() {
    trial(|node| {
        let crictl = node.crictl();
        let labels = json!({"labels": {"app": "web", "tier": "front"}});
        let more = json!({"command": ["sh", "-c", IDLE], "labels": {"part": "main"}});
        let sandbox = pod_file(node, "life", &labels);
        let pod = crictl.line(&["runp", &sandbox]);
        assert_eq!(pod.len(), 64);
        let again = crictl.line(&["runp", &sandbox]);
        assert_eq!(again, pod, "a repeated run finds the pod");
        let container = container_file(node, "main", &more);
        let id = crictl.line(&["create", &pod[..13], &container, &sandbox]);
        assert_eq!(crictl.line(&["ps", "-q"]), "", "created is not running");
        assert_eq!(crictl.line(&["ps", "-aq"]), id);
        crictl.ok(&["start", &id[..13]]);
        assert_eq!(crictl.line(&["ps", "-q"]), id);

        it_is_as_it_was_asked_for(&crictl, &pod, &id);
        its_limit_can_be_changed(&crictl, &pod, &id);
        it_goes_step_by_step(&crictl, &pod, &id);
    });
}

fn it_is_as_it_was_asked_for(crictl: &Crictl, pod: &str, id: &str) {
    let status = crictl.json(&["inspectp", &pod[..7]]);
    assert_eq!(status["status"]["state"], "SANDBOX_READY");
    assert_eq!(status["status"]["labels"]["app"], "web");
    let address = status["status"]["network"]["ip"].as_str().unwrap();
    assert!(!address.is_empty());
    let own = crictl.ok(&["exec", "-s", id, "ip", "-4", "addr", "show", "eth0"]);
    assert!(own.contains(address), "{own}");

    let status = crictl.json(&["inspect", &id[..7]]);
    assert_eq!(status["status"]["state"], "CONTAINER_RUNNING");
    assert_eq!(status["status"]["metadata"]["name"], "main");
    let pid = status["info"]["pid"].as_u64().unwrap();
    assert!(fs::exists(format!("/proc/{pid}")).unwrap());
    // crictl ends both streams with a line of its own.
    assert_eq!(crictl.line(&["exec", "-s", id, "hostname"]), "life");
    assert!(crictl.ok(&["logs", id]).contains("hello\n"));
}

fn its_limit_can_be_changed(crictl: &Crictl, pod: &str, id: &str) {
    crictl.ok(&["update", "--memory", "67108864", id]);
    let status = crictl.json(&["inspect", id]);
    let resources = &status["status"]["resources"]["linux"];
    let limit = resources["memoryLimitInBytes"].as_str();
    assert_eq!(limit, Some("67108864"), "{resources}");

    let stats = crictl.json(&["stats", "-o", "json", "--id", id]);
    assert_eq!(stats["stats"][0]["attributes"]["metadata"]["name"], "main");
    let stats = crictl.json(&["statsp", "-o", "json", "--id", pod]);
    assert_eq!(stats["stats"][0]["attributes"]["metadata"]["name"], "life");
}

fn it_goes_step_by_step(crictl: &Crictl, pod: &str, id: &str) {
    crictl.ok(&["stop", "-t", "10", id]);
    let status = &crictl.json(&["inspect", id])["status"];
    assert_eq!(status["state"], "CONTAINER_EXITED");
    assert_eq!(status["exitCode"], 7, "it had time to say goodbye");
    assert_eq!(status["reason"], "Error");
    assert!(crictl.ok(&["logs", id]).contains("bye\n"));
    crictl.ok(&["stop", id]);
    crictl.ok(&["rm", id]);
    assert!(crictl.fails(&["inspect", id]).contains("NotFound"));

    crictl.ok(&["stopp", pod]);
    crictl.ok(&["stopp", pod]);
    let status = &crictl.json(&["inspectp", pod])["status"];
    assert_eq!(status["state"], "SANDBOX_NOTREADY");
    crictl.ok(&["rmp", pod]);
    assert!(crictl.fails(&["inspectp", pod]).contains("NotFound"));
}

#[test]
fn privileged_run_and_forced_removal() {
    trial(|node| {
        let crictl = node.crictl();
        let idle = json!({"command": ["sleep", "1000"]});
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let (pod, container) = (
                pod_file(node, name, &json!({})),
                container_file(node, name, &idle),
            );
            ids.push(crictl.line(&["run", &container, &pod]));
        }
        assert_eq!(crictl.line(&["ps", "-q"]).lines().count(), 2);
        crictl.ok(&["rm", "-f", &ids[0]]);
        assert_eq!(crictl.line(&["ps", "-aq"]), ids[1]);
        crictl.ok(&["rmp", "-fa"]);
        assert_eq!(
            crictl.line(&["ps", "-aq"]) + &crictl.line(&["pods", "-q"]),
            ""
        );
    });
}
