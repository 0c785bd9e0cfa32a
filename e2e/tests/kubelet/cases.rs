//! A case is a pod with the states that the kubelet's API is to tell of it, one after another: a file
//! of `pods`.
//!
//! `states` are parts of the pod's status in the order in which they come, `never` are those that must
//! not be seen. `needs` names the machines that a case is for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_e2e::cgroups::is_v2;
use crisp_e2e::node::Node;
use serde_json::Value;

use crate::kubelet::Kubelet;

/// How long all pods may take to come to their last state.
pub(crate) const WITHIN: Duration = Duration::from_secs(120);

/// A file of `pods`.
pub(crate) struct Case {
    /// The manifest.
    pub(crate) pod: Value,
    states: Vec<Value>,
    never: Vec<Value>,
    /// How many of the states were seen.
    seen: usize,
}

/// Cases by the names of their pods.
pub(crate) type Cases = BTreeMap<String, Case>;

/// All that are for this machine, with this node's paths in them.
pub(crate) fn all(node: &Node) -> Cases {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubelet/pods");
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries.filter_map(|path| read(node, &path)).collect()
}

/// These alone.
pub(crate) fn some(node: &Node, names: &[&str]) -> Cases {
    let mut cases = all(node);
    cases.retain(|name, _| names.contains(&&**name));
    assert_eq!(cases.len(), names.len(), "not all are there: {names:?}");
    cases
}

/// A case that a test makes itself, with its last state.
pub(crate) fn one(pod: Value, state: Value) -> Cases {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    let case = Case {
        pod,
        states: vec![state],
        never: Vec::new(),
        seen: 0,
    };
    [(name, case)].into()
}

fn read(node: &Node, path: &Path) -> Option<(String, Case)> {
    let text = fs::read_to_string(path).unwrap();
    let text = text.replace("@DIR@", node.path("data").to_str().unwrap());
    let text = text.replace("@SOCKET@", node.socket().to_str().unwrap());
    let mut file: Value =
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    if !is_for_this_machine(&file["needs"]) {
        return None;
    }
    let mut list = |key: &str| match file[key].take() {
        Value::Array(list) => list,
        _ => Vec::new(),
    };
    let (states, never) = (list("states"), list("never"));
    assert!(!states.is_empty(), "{}: no states", path.display());
    let pod = file["pod"].take();
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    assert_eq!(path.file_stem().unwrap(), &*name);
    let case = Case {
        pod,
        states,
        never,
        seen: 0,
    };
    Some((name, case))
}

fn is_for_this_machine(needs: &Value) -> bool {
    let apparmor = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    let apparmor = apparmor.is_ok_and(|enabled| enabled.trim_end() == "Y");
    match needs.as_str() {
        None => true,
        Some("cgroup v1") => !is_v2(),
        Some("cgroup v2") => is_v2(),
        Some("apparmor") => apparmor,
        Some("no apparmor") => !apparmor,
        Some("no selinux") => !Path::new("/sys/fs/selinux/enforce").exists(),
        Some(other) => panic!("no machine is known that has {other}"),
    }
}

/// Looks at all pods until each has been in all its states.
#[track_caller]
pub(crate) fn watch(node: &Node, kubelet: &Kubelet, cases: &mut Cases) {
    cases.values_mut().for_each(|case| case.seen = 0);
    let deadline = Instant::now() + WITHIN;
    loop {
        let pods = kubelet.pods(node);
        for pod in &pods {
            let Some(case) = cases.get_mut(name(pod)) else {
                continue;
            };
            look(case, &pod["status"]);
        }
        let mut late = cases.values();
        if late.all(|case| case.seen == case.states.len()) {
            return;
        }
        if Instant::now() > deadline {
            tell(kubelet, cases, &pods);
            panic!("after {WITHIN:?} some pods are not in their last state");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The name that a pod has in its file: the kubelet adds its node's.
pub(crate) fn name(pod: &Value) -> &str {
    let name = pod["metadata"]["name"].as_str().unwrap();
    name.strip_suffix("-node").unwrap()
}

#[track_caller]
fn look(case: &mut Case, status: &Value) {
    for never in &case.never {
        let name = &case.pod["metadata"]["name"];
        assert!(!has(status, never), "{name} must not be so: {status:#}");
    }
    while let Some(state) = case.states.get(case.seen)
        && has(status, state)
    {
        case.seen += 1;
    }
}

/// Says which pods are late, and what they are instead.
fn tell(kubelet: &Kubelet, cases: &Cases, pods: &[Value]) {
    for (own, case) in cases {
        let Some(state) = case.states.get(case.seen) else {
            continue;
        };
        let told = pods.iter().find(|pod| name(pod) == own);
        let status = told.map_or(&Value::Null, |pod| &pod["status"]);
        let log = kubelet.logs(own).concat();
        eprintln!("{own}: waits for {state:#}\nits status: {status:#}\nits log: {log}");
    }
}

/// Whether a status has all that is asked. The entries of a list are found by their name or type, a
/// number may be asked to be `>=` another.
pub(crate) fn has(status: &Value, asked: &Value) -> bool {
    match (status, asked) {
        (Value::Object(status), Value::Object(asked)) => asked
            .iter()
            .all(|(key, asked)| has(status.get(key).unwrap_or(&Value::Null), asked)),
        (Value::Array(status), Value::Array(asked)) => asked
            .iter()
            .all(|asked| status.iter().any(|entry| has(entry, asked))),
        (Value::Number(status), Value::String(asked)) => {
            let least = asked
                .strip_prefix(">=")
                .and_then(|least| least.parse().ok());
            status.as_u64() >= Some(least.unwrap_or(u64::MAX))
        }
        // A part of a text, where the whole is the kubelet's own words.
        (Value::String(status), Value::String(asked)) => match asked.strip_prefix('~') {
            Some(part) => status.contains(part),
            None => status == asked,
        },
        (status, asked) => status == asked,
    }
}
