//! crictl's commands about pods, containers and the daemon.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::time::{Duration, Instant};

use crisp_e2e::crictl_files::{container_file, pod_file};
use crisp_e2e::{eventually, node, trial};
use serde_json::{Value, json};

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
        for (name, path) in [("rootDir", node.root()), ("stateDir", node.state())] {
            assert_eq!(info["config"][name], *path.to_string_lossy(), "{name}");
        }
        let driver = crictl.ok(&["runtime-config"]);
        let configured = node::cgroup_driver().to_uppercase();
        assert!(driver.contains(&configured), "{driver}");
    });
}

#[test]
fn privileged_filters_find_what_was_asked_for() {
    trial(|node| {
        let crictl = node.crictl();
        let idle = |part: &str| json!({"command": ["sleep", "1000"], "labels": {"part": part}});
        let label = |app: &str| json!({"labels": {"app": app, "all": "yes"}});
        let web = crictl.line(&["runp", &pod_file(node, "web", &label("web"))]);
        let data = crictl.line(&["runp", &pod_file(node, "data", &label("data"))]);
        let web_file = pod_file(node, "web", &label("web"));
        let create = |name: &str| {
            let file = container_file(node, name, &idle(name));
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
            let file = pod_file(node, &format!("p{number}"), &json!({}));
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
fn privileged_exec_has_a_deadline_and_the_commands_exit_code() {
    trial(|node| {
        let crictl = node.crictl();
        let idle = json!({"command": ["sleep", "1000"]});
        let file = container_file(node, "main", &idle);
        let id = crictl.line(&["run", &file, &pod_file(node, "exec", &json!({}))]);
        assert_eq!(
            crictl.line(&["exec", "-s", &id[..13], "echo", "a b"]),
            "a b"
        );
        let begun = Instant::now();
        let complaint = crictl.fails(&["exec", "-s", "--timeout", "1", &id, "sleep", "100"]);
        assert!(complaint.contains("DeadlineExceeded"), "{complaint}");
        assert!(begun.elapsed() < Duration::from_secs(10));
        let code = crictl.output(&["exec", "-s", &id, "sh", "-c", "exit 3"]);
        assert!(!code.status.success(), "{code:?}");
        let complaint = crictl.fails(&["exec", "-s", &id, "no-such-command"]);
        assert!(complaint.contains("no-such-command"), "{complaint}");
        crictl.ok(&["rmp", "-fa"]);
    });
}

#[test]
fn privileged_events_come_in_order() {
    trial(|node| {
        let crictl = node.crictl();
        let printed = node.path("events.json");
        let mut events = crictl.command(&["events", "-o", "json"]);
        let file = std::fs::File::create(&printed).unwrap();
        let mut events = events.stdout(file).spawn().unwrap();
        let text = || std::fs::read_to_string(&printed).unwrap();
        eventually("crictl prints events", || {
            crictl.ok(&["runp", &pod_file(node, "first", &json!({}))]);
            crictl.ok(&["rmp", "-fa"]);
            !text().is_empty()
        });
        let idle = json!({"command": ["sleep", "1000"]});
        let file = container_file(node, "main", &idle);
        let id = crictl.line(&["run", &file, &pod_file(node, "events", &json!({}))]);
        crictl.ok(&["stop", &id]);
        crictl.ok(&["rm", &id]);
        crictl.ok(&["rmp", "-fa"]);
        let seen = || -> Vec<String> {
            let text = text();
            let stream = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
            stream
                .map_while(Result::ok)
                .filter(|event| event["containerId"] == id.as_str())
                .map(|event| event["containerEventType"].as_str().unwrap().to_owned())
                .collect()
        };
        eventually("its end is told", || seen().len() >= 4);
        events.kill().unwrap();
        events.wait().unwrap();
        let seen = seen();
        let expected = ["CREATED", "STARTED", "STOPPED", "DELETED"];
        assert_eq!(
            seen,
            expected.map(|kind| format!("CONTAINER_{kind}_EVENT")),
            "{}",
            text()
        );
    });
}

#[test]
fn privileged_tables_show_what_people_look_for() {
    trial(|node| {
        let crictl = node.crictl();
        // crictl shows a container's pod by labels that the kubelet gives it.
        let labels = json!({
            "io.kubernetes.pod.name": "tables",
            "io.kubernetes.pod.namespace": "e2e",
        });
        let line = "while :; do :; done";
        let busy = json!({"command": ["sh", "-c", line], "labels": labels});
        let file = container_file(node, "main", &busy);
        let id = crictl.line(&["run", &file, &pod_file(node, "tables", &json!({}))]);
        let pod = crictl.line(&["pods", "-q"]);
        let table = crictl.ok(&["ps"]);
        for word in [&id[..13], &pod[..13], "main", "Running", "tables", "e2e"] {
            assert!(table.contains(word), "{word}: {table}");
        }
        let table = crictl.ok(&["pods"]);
        for word in [&pod[..13], "Ready", "tables", "e2e", "(default)"] {
            assert!(table.contains(word), "{word}: {table}");
        }
        let table = crictl.ok(&["stats"]);
        let row = table
            .lines()
            .find(|line| line.starts_with(&id[..13]))
            .unwrap();
        let percent: f64 = row.split_whitespace().nth(2).unwrap().parse().unwrap();
        assert!(percent > 5.0, "a busy loop: {table}");
        assert!(crictl.ok(&["statsp"]).contains(&pod[..13]));
        let named = crictl.line(&["ps", "-q", "--name", "^main$", "--namespace", "e2e"]);
        assert_eq!(named, id);
        assert_eq!(crictl.line(&["ps", "-q", "--latest"]), id);
        crictl.ok(&["rmp", "-fa"]);
    });
}
