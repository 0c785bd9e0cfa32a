//! The CRI's own suite, critest, against the daemon: eight specs at a time, all of them; one at a time
//! over SPDY, over WebSocket and with another runtime the specs that stream, or all where
//! `CRITEST_RUNS` is set.
//!
//! `hack/tools` builds it. A failed spec fails the test, and so does a skipped one that is not
//! listed here with its reason. Each run is in a random order, and nothing is tried twice.
//! `CRITEST_RUNS` sets how many runs there are.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

mod images;

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crisp_e2e::node::{Node, Options};
use crisp_e2e::tools;
use crisp_e2e::trial::{trial, trial_with};
use serde_json::{Value, json};

/// How many runs there are.
const RUNS: &str = "CRITEST_RUNS";
/// The name of the report that a run writes.
const REPORT: &str = "report.json";
/// How long a run may take, in the words of Ginkgo.
const WITHIN: &str = "15m";
/// Pulls by a digest that is compiled in and that no image made here can have. `crictl_images`
/// pulls by digest and removes likewise.
const UNMAKEABLE: &str = "public image with digest should be pulled and removed";
/// Words in the titles of specs that may be skipped, each with the reason.
const SKIPPED: [&str; 2] = [
    // Skipped unless benchmarks are asked for: hack/bench measures.
    "benchmark about",
    UNMAKEABLE,
];
/// Likewise, where the kernel has no AppArmor.
const WITHOUT_APPARMOR: &str = "] AppArmor ";

/// A part of the suite: the specs with these words in their titles, and how many there are at least.
struct Part {
    words: &'static str,
    least: usize,
}

const ALL: Part = Part {
    words: "",
    least: 122,
};
const STREAMING: Part = Part {
    words: "Streaming",
    least: 5,
};

/// How many specs run at a time where more than one does: more than a small node has processors, so
/// that calls meet each other.
const AT_ONCE: usize = 8;

#[test]
fn privileged_every_spec_passes_over_spdy() {
    trial(|node| all_pass(node, &[], alone()));
}

#[test]
fn privileged_every_spec_passes_over_websocket() {
    let flags = ["exec", "attach", "portforward"].map(|way| format!("--websocket-{way}"));
    trial(|node| all_pass(node, &flags, alone()));
}

/// Each spec has its own pods; those on images run alone.
#[test]
fn privileged_every_spec_passes_beside_others() {
    let flags = [format!("--parallel={AT_ONCE}")];
    trial(|node| all_pass(node, &flags, &ALL));
}

/// Containers of runc do all that those of Crisp itself do. Once in a while all specs say so.
#[test]
fn privileged_every_spec_passes_with_another_runtime() {
    if !tools::has("runc", "differential", "critest with runc") {
        return;
    }
    let config = format!(
        "[runtimes.runc]\nkind = \"oci\"\npath = \"{}\"\n",
        tools::tool("runc").display()
    );
    let options = Options {
        config,
        ..Options::default()
    };
    let flags = ["--runtime-handler=runc".to_owned()];
    trial_with(&options, |node| all_pass(node, &flags, alone()));
}

/// The specs that run one at a time.
fn alone() -> &'static Part {
    match env::var_os(RUNS) {
        Some(_) => &ALL,
        None => &STREAMING,
    }
}

fn runs() -> usize {
    env::var(RUNS).map_or(1, |runs| runs.parse().unwrap())
}

fn all_pass(node: &Node, flags: &[String], part: &Part) {
    images::serve(&node.net, &node.certs(), &node.path("bin"));
    for _ in 0..runs() {
        let began = Instant::now();
        let mut specs = run(node, flags, part);
        specs.retain(|spec| title(spec).contains(part.words));
        let titles = |state: &str| -> Vec<String> {
            let has = |spec: &&Value| spec["State"] == state;
            specs.iter().filter(has).map(title).collect()
        };
        let (passed, skipped) = (titles("passed"), titles("skipped"));
        tools::say(&format!(
            "critest {flags:?}: {} passed, {} skipped, {} failed in {:.0?}",
            passed.len(),
            skipped.len(),
            specs.len() - passed.len() - skipped.len(),
            began.elapsed()
        ));
        for spec in &specs {
            let state = spec["State"].as_str().unwrap();
            assert!(
                ["passed", "skipped"].contains(&state),
                "{} {state}: {}\n{}",
                title(spec),
                spec["Failure"]["Message"],
                spec["CapturedGinkgoWriterOutput"].as_str().unwrap_or("")
            );
        }
        let apparmor = kernel_has_apparmor();
        let may_be = |title: &String| {
            SKIPPED.iter().any(|words| title.contains(words))
                || title.contains(WITHOUT_APPARMOR) && !apparmor
        };
        let (expected, gaps): (Vec<_>, Vec<_>) = skipped.into_iter().partition(may_be);
        assert_eq!(gaps, Vec::<String>::new(), "skipped without a reason");
        // A suite that finds nothing to run would pass.
        assert!(passed.len() + expected.len() >= part.least, "{passed:?}");
    }
}

/// Runs the suite, and returns its specs as its report has them.
fn run(node: &Node, flags: &[String], part: &Part) -> Vec<Value> {
    let (scratch, images) = (node.path("critest"), node.path("images.yaml"));
    fs::create_dir(&scratch).unwrap();
    let told = json!({
        "defaultTestContainerImage": "registry.k8s.io/e2e-test-images/busybox:1.29-2",
        "webServerTestImage": "registry.k8s.io/e2e-test-images/nginx:1.14-2",
    });
    // JSON is YAML too.
    fs::write(&images, told.to_string()).unwrap();
    let log = File::create(node.path("critest.log")).unwrap();
    let mut command = Command::new(tools::tool("critest"));
    let socket = node.socket();
    command
        .arg(format!("--runtime-endpoint=unix://{}", socket.display()))
        .arg(format!("--test-images-file={}", images.display()))
        .arg(format!("--ginkgo.json-report={REPORT}"))
        .arg(format!("--ginkgo.timeout={WITHIN}"))
        .arg(format!("--ginkgo.skip={UNMAKEABLE}"))
        .args(["--ginkgo.no-color", "--ginkgo.randomize-all"])
        .arg(format!("--ginkgo.focus={}", part.words))
        .args(flags)
        .current_dir(&scratch)
        .env("TMPDIR", &scratch)
        .env("PATH", search_path(node))
        .env("CRI_CONFIG_FILE", "/dev/null")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    let status = node.net.run(|| command.status().unwrap());
    let Some(report) = report(&scratch) else {
        let log = fs::read_to_string(node.path("critest.log")).unwrap();
        panic!("critest ended without a report, with {status}:\n{log}");
    };
    fs::remove_dir_all(&scratch).unwrap();
    let mut suites: Value = serde_json::from_slice(&report).unwrap();
    let mut specs: Vec<Value> = serde_json::from_value(suites[0]["SpecReports"].take()).unwrap();
    specs.retain(|spec| spec["LeafNodeType"] == "It");
    specs
}

/// The report of a run: where the suite ran, or, where Ginkgo's command ran it, in the directory that
/// critest made for that.
fn report(scratch: &Path) -> Option<Vec<u8>> {
    let made = fs::read_dir(scratch).unwrap();
    let mut places = vec![scratch.to_owned()];
    places.extend(made.map(|entry| entry.unwrap().path()));
    places
        .iter()
        .find_map(|place| fs::read(place.join(REPORT)).ok())
}

/// A search path on which there is a `sudo`, by which critest loads AppArmor profiles though it is
/// root, and Ginkgo's command, by which it runs specs at the same time.
fn search_path(node: &Node) -> OsString {
    let bin = node.path("bin");
    let (sudo, mode) = (bin.join("sudo"), Permissions::from_mode(0o755));
    fs::write(&sudo, "#!/bin/sh\nexec \"$@\"\n").unwrap();
    fs::set_permissions(&sudo, mode).unwrap();
    let path = env::var_os("PATH").unwrap_or_default();
    let ours = [bin, tools::cache().join("bin")];
    env::join_paths(ours.into_iter().chain(env::split_paths(&path))).unwrap()
}

/// The spec's words as critest prints them.
fn title(spec: &Value) -> String {
    let texts = spec["ContainerHierarchyTexts"].as_array().unwrap();
    let words = texts.iter().chain([&spec["LeafNodeText"]]);
    let words: Vec<&str> = words.filter_map(Value::as_str).collect();
    words.join(" ")
}

fn kernel_has_apparmor() -> bool {
    let enabled = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    enabled.is_ok_and(|enabled| enabled.trim() == "Y")
}
