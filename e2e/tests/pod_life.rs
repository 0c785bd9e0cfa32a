//! A pod from a real image, driven by crictl as a user would.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::path::PathBuf;

use crisp_e2e::configs::image;
use crisp_e2e::{Node, trial};
use serde_json::{Value, json};

/// Writes a configuration as crictl reads it.
fn config(node: &Node, name: &str, value: &Value) -> String {
    let path: PathBuf = node.path(&format!("logs/{name}.json"));
    fs::write(&path, value.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn pod(node: &Node, name: &str, more: &Value) -> String {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "e2e", "uid": format!("{name}-uid"), "attempt": 0},
        "hostname": name,
        "log_directory": node.path(&format!("logs/{name}")),
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    });
    for (key, field) in more.as_object().unwrap() {
        value[key] = field.clone();
    }
    config(node, &format!("pod-{name}"), &value)
}

fn container(node: &Node, name: &str, more: &Value) -> String {
    let mut value = json!({
        "metadata": {"name": name, "attempt": 0},
        "image": {"image": image("busybox")},
        "log_path": format!("{name}.log"),
        "linux": {"security_context": {"namespace_options": {"pid": 1}}},
    });
    for (key, field) in more.as_object().unwrap() {
        value[key] = field.clone();
    }
    config(node, &format!("container-{name}"), &value)
}

const IDLE: &str = "trap 'echo bye; exit 7' TERM; echo hello; echo oops >&2; \
                    while :; do sleep 1000 & wait; done";

#[test]
fn privileged_the_daemon_tells_who_it_is() {
    trial(|node| {
        let crictl = node.crictl();
        let version = crictl.ok(&["version"]);
        assert!(version.contains("RuntimeName:  crisp"), "{version}");
        assert!(version.contains("RuntimeApiVersion:  v1"), "{version}");
        let info = crictl.json(&["info"]);
        let conditions = info["status"]["conditions"].as_array().unwrap();
        for kind in ["RuntimeReady", "NetworkReady"] {
            let condition = conditions.iter().find(|c| c["type"] == kind);
            assert_eq!(condition.unwrap()["status"], true, "{kind}");
        }
        let handlers = info["runtimeHandlers"].as_array().unwrap();
        let has = |name: &str| {
            handlers
                .iter()
                .any(|h| h["name"].as_str().unwrap_or_default() == name)
        };
        assert!(has("") && has("native"), "{handlers:?}");
        let driver = crictl.ok(&["runtime-config"]);
        assert!(driver.contains("CGROUPFS"), "{driver}");
    });
}

#[test]
fn privileged_a_pod_lives_and_dies_by_crictl() {
    trial(|node| {
        let crictl = node.crictl();
        let labels = json!({"labels": {"app": "web", "tier": "front"}});
        let pod_file = pod(node, "life", &labels);
        let more = json!({"command": ["sh", "-c", IDLE], "labels": {"part": "main"}});
        let container_file = container(node, "main", &more);

        let pod = crictl.line(&["runp", &pod_file]);
        assert_eq!(pod.len(), 64);
        assert_eq!(
            crictl.line(&["runp", &pod_file]),
            pod,
            "a repeated run finds the pod"
        );
        let id = crictl.line(&["create", &pod[..13], &container_file, &pod_file]);
        assert_eq!(crictl.line(&["ps", "-q"]), "", "created is not running");
        assert_eq!(crictl.line(&["ps", "-aq"]), id);
        crictl.ok(&["start", &id[..13]]);
        assert_eq!(crictl.line(&["ps", "-q"]), id);

        let status = crictl.json(&["inspectp", &pod[..7]]);
        assert_eq!(status["status"]["state"], "SANDBOX_READY");
        assert_eq!(status["status"]["labels"]["app"], "web");
        let address = status["status"]["network"]["ip"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(!address.is_empty());
        let status = crictl.json(&["inspect", &id[..7]]);
        assert_eq!(status["status"]["state"], "CONTAINER_RUNNING");
        assert_eq!(status["status"]["metadata"]["name"], "main");
        let pid = status["info"]["pid"].as_u64().unwrap();
        assert!(fs::exists(format!("/proc/{pid}")).unwrap());

        // crictl ends both streams with a line of its own.
        assert_eq!(
            crictl.ok(&["exec", "-s", &id, "hostname"]).trim_end(),
            "life"
        );
        let own = crictl.ok(&["exec", "-s", &id, "ip", "-4", "addr", "show", "eth0"]);
        assert!(own.contains(&address), "{own}");
        assert!(crictl.ok(&["logs", &id]).contains("hello\n"));

        crictl.ok(&["update", "--memory", "67108864", &id]);
        let status = crictl.json(&["inspect", &id]);
        let resources = &status["status"]["resources"]["linux"];
        let limit = &resources["memoryLimitInBytes"];
        assert_eq!(
            limit.as_str().unwrap_or_default(),
            "67108864",
            "{resources}"
        );

        let stats = crictl.json(&["stats", "-o", "json", "--id", &id]);
        assert_eq!(stats["stats"][0]["attributes"]["metadata"]["name"], "main");
        let stats = crictl.json(&["statsp", "-o", "json", "--id", &pod]);
        assert_eq!(stats["stats"][0]["attributes"]["metadata"]["name"], "life");

        crictl.ok(&["stop", "-t", "10", &id]);
        let status = crictl.json(&["inspect", &id]);
        assert_eq!(status["status"]["state"], "CONTAINER_EXITED");
        assert_eq!(
            status["status"]["exitCode"], 7,
            "it had time to say goodbye"
        );
        assert_eq!(status["status"]["reason"], "Error");
        assert!(crictl.ok(&["logs", &id]).contains("bye\n"));
        crictl.ok(&["stop", &id]);
        crictl.ok(&["rm", &id]);
        assert!(crictl.fails(&["inspect", &id]).contains("NotFound"));

        crictl.ok(&["stopp", &pod]);
        crictl.ok(&["stopp", &pod]);
        assert_eq!(
            crictl.json(&["inspectp", &pod])["status"]["state"],
            "SANDBOX_NOTREADY"
        );
        crictl.ok(&["rmp", &pod]);
        assert!(crictl.fails(&["inspectp", &pod]).contains("NotFound"));
    });
}

#[test]
fn privileged_run_and_forced_removal() {
    trial(|node| {
        let crictl = node.crictl();
        let idle = json!({"command": ["sleep", "1000"]});
        let mut ids = Vec::new();
        for name in ["one", "two"] {
            let (pod, container) = (pod(node, name, &json!({})), container(node, name, &idle));
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

#[test]
fn privileged_filters_find_what_was_asked_for() {
    trial(|node| {
        let crictl = node.crictl();
        let idle = |part: &str| json!({"command": ["sleep", "1000"], "labels": {"part": part}});
        let label = |app: &str| json!({"labels": {"app": app, "all": "yes"}});
        let web = crictl.line(&["runp", &pod(node, "web", &label("web"))]);
        let data = crictl.line(&["runp", &pod(node, "data", &label("data"))]);
        let web_file = pod(node, "web", &label("web"));
        let create = |name: &str| {
            let file = container(node, name, &idle(name));
            crictl.line(&["create", &web, &file, &web_file])
        };
        let (first, second) = (create("first"), create("second"));
        crictl.ok(&["start", &first]);
        let sorted = |text: String| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let both = sorted(format!("{first}\n{second}"));
        let pods = sorted(format!("{web}\n{data}"));
        let cases: [(&[&str], Vec<String>); 11] = [
            (&["ps", "-aq"], both.clone()),
            (&["ps", "-q"], vec![first.clone()]),
            (&["ps", "-aq", "--state", "created"], vec![second.clone()]),
            (&["ps", "-aq", "--label", "part=second"], vec![second]),
            (&["ps", "-aq", "--pod", &web[..13]], both),
            (&["ps", "-aq", "--pod", &data], vec![]),
            (&["ps", "-aq", "--id", &first[..20]], vec![first.clone()]),
            (&["pods", "-q", "--label", "app=web"], vec![web.clone()]),
            (&["pods", "-q", "--label", "all=yes"], pods.clone()),
            (&["pods", "-q", "--state", "ready"], pods),
            (&["pods", "-q", "--state", "notready"], vec![]),
        ];
        for (arguments, expected) in cases {
            assert_eq!(sorted(crictl.ok(arguments)), expected, "{arguments:?}");
        }
        crictl.ok(&["rmp", "-fa"]);
    });
}

#[test]
fn privileged_ids_are_found_by_unique_prefixes() {
    trial(|node| {
        let crictl = node.crictl();
        // Seventeen pods: two of them begin with the same digit.
        let mut pods = Vec::new();
        for number in 0..17 {
            let file = pod(node, &format!("p{number}"), &json!({}));
            pods.push(crictl.line(&["runp", &file]));
        }
        let shared = pods.iter().find_map(|pod| {
            let twin = pods
                .iter()
                .any(|other| other != pod && other[..1] == pod[..1]);
            twin.then(|| pod[..1].to_owned())
        });
        let shared = shared.unwrap();
        let complaint = crictl.fails(&["stopp", &shared]);
        assert!(
            complaint.contains(&shared) && complaint.contains("ambiguous"),
            "{complaint}"
        );
        let status = crictl.json(&["inspectp", &pods[0][..32]]);
        assert_eq!(status["status"]["id"], pods[0].as_str());
        crictl.ok(&["rmp", "-fa"]);
    });
}

#[test]
fn privileged_images_by_crictl() {
    trial(|node| {
        let crictl = node.crictl();
        node.registry.push(&node.net, "zstd");
        let pulled = crictl.ok(&["pull", &image("zstd")]);
        assert!(
            pulled.contains("sha256:") || pulled.contains(&image("zstd")),
            "{pulled}"
        );
        let images = crictl.json(&["images", "-o", "json"]);
        let images = images["images"].as_array().unwrap();
        let tag = |i: &&Value| i["repoTags"][0] == image("zstd").as_str();
        let id = images.iter().find(tag).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned();
        let status = crictl.json(&["inspecti", &id[..20]]);
        assert_eq!(status["status"]["id"], id.as_str());
        let usage = crictl.json(&["imagefsinfo", "-o", "json"]);
        let usage = &usage["status"]["imageFilesystems"][0];
        let bytes: u64 = usage["usedBytes"]["value"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(bytes > 1 << 20, "{usage}");
        let mountpoint = usage["fsId"]["mountpoint"].as_str().unwrap();
        assert!(fs::exists(mountpoint).unwrap());

        // An image that is in use stays when the others are pruned.
        let idle = json!({"command": ["sleep", "1000"]});
        crictl.ok(&[
            "run",
            &container(node, "user", &idle),
            &pod(node, "user", &json!({})),
        ]);
        crictl.ok(&["rmi", "--prune"]);
        let left = crictl.json(&["images", "-o", "json"]);
        let left = left["images"].as_array().unwrap();
        assert_eq!(left.len(), 1, "{left:?}");
        assert_eq!(left[0]["repoTags"][0], image("busybox").as_str());
        crictl.ok(&["rmp", "-fa"]);
        crictl.ok(&["rmi", "-a"]);
        assert_eq!(crictl.line(&["images", "-q"]), "");
        node.pull(&["busybox"]);
    });
}
