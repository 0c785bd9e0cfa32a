//! The daemon's log in JSON: what every line about a pod or container has to carry.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::BTreeMap;

use crisp_e2e::{Node, Options, configs, trial_with};
use serde_json::Value;

/// Lines of the log since some byte.
fn lines(node: &Node, since: usize) -> Vec<Value> {
    let log = node.log();
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    log[since..].lines().map(parse).collect()
}

#[test]
fn privileged_every_line_about_a_pod_names_it() {
    let options = Options {
        config: "[log]\nformat = \"json\"\n".to_owned(),
        ..Default::default()
    };
    trial_with(&options, |node| {
        let begun = node.log().len();
        let mut cri = node.cri();
        let pod = node.pod("named");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        cri.shell(&container, "true");
        cri.stop(&container, 0);
        cri.remove_pod(&id);
        let mut transitions = BTreeMap::new();
        for line in lines(node, begun) {
            let text = line.to_string();
            if text.contains(&container) {
                assert_eq!(line["container_id"], container.as_str(), "{text}");
                assert_eq!(line["container"], "main", "{text}");
            }
            if text.contains(&id) || text.contains(&container) {
                assert_eq!(line["pod_id"], id.as_str(), "{text}");
                assert_eq!(line["pod"], "e2e/named", "{text}");
            }
            if line["level"] == "INFO" {
                let message = line["message"].as_str().unwrap().to_owned();
                *transitions.entry(message).or_insert(0) += 1;
            }
        }
        assert!(
            transitions.values().all(|times| *times == 1),
            "{transitions:?}"
        );
        for word in [
            "ready", "created", "started", "exited", "stopped", "removed",
        ] {
            assert!(
                transitions.keys().any(|text| text.contains(word)),
                "{word}: {transitions:?}"
            );
        }
    });
}
