//! `hack/cluster` with programs in place of Crisp's and Kubernetes' that only note their words: it removes no cluster
//! but its own, keeps the logs of one that did not come up, and takes an error's page for an error.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The program of clusters. `$TREE/fails` has its `up` fail.
const CRISP: &str = r#"echo "$*" >>"$TREE/calls"
cluster=$TREE/home/clusters/hack
case $2 in
up)
    mkdir -p "$cluster/nodes/control/log"
    echo broken >"$cluster/nodes/control/log/etcd.log"
    [[ ! -e $TREE/fails ]] || exit 1
    echo "  \"kubernetes\": \"$TREE/bin\"," >"$cluster/record.json"
    ;;
kubeconfig) echo "$cluster/kubeconfig" ;;
delete) rm -r "$cluster" ;;
esac"#;
/// `$TREE/error` is a page of a server that says 500.
const CURL: &str = r#"echo "curl $*" >>"$TREE/calls"
[[ ! -e $TREE/error || " $* " != *' --fail '* ]] || exit 22"#;

/// A tree with the script, and with all that it calls.
struct Tree(TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../hack/cluster");
        fs::create_dir_all(tree.path("hack")).unwrap();
        fs::create_dir_all(tree.path("bin")).unwrap();
        fs::copy(script, tree.path("hack/cluster")).unwrap();
        for (name, text) in [
            ("hack/tools", ""),
            ("hack/build", "echo \"$TREE/bin\""),
            ("bin/crisp", CRISP),
            ("bin/curl", CURL),
            ("bin/kubectl", ""),
            ("bin/crisp-mkimage", "echo image"),
        ] {
            let path = tree.path(name);
            fs::write(&path, format!("#!/usr/bin/env bash\n{text}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        tree
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, flags: &[&str]) -> Output {
        let mut command = Command::new(self.path("hack/cluster"));
        command.args(flags).arg("--dir").arg(self.path("home"));
        command.env("TREE", self.0.path());
        command.env_remove("CARGO_TARGET_DIR");
        command.output().unwrap()
    }

    /// The words of one of its programs, as they came.
    fn calls(&self, word: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.path("calls")).unwrap_or_default();
        let calls = calls.lines().filter(|line| line.contains(word));
        calls.map(str::to_owned).collect()
    }

    fn cluster(&self) -> PathBuf {
        self.path("home/clusters/hack")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn privileged_hack_cluster_makes_its_own_and_removes_it() {
    let tree = Tree::new();
    let output = tree.run(&[]);
    assert!(output.status.success(), "{output:?}");
    let dir = format!("--dir {}", tree.path("home").display());
    for call in ["cluster up", "cluster load", "cluster delete"] {
        let calls = tree.calls(call);
        assert_eq!(calls.len(), 1, "{call}");
        assert!(
            calls[0].contains("--name hack") && calls[0].contains(&dir),
            "{calls:?}"
        );
    }
    assert!(tree.calls("curl")[0].contains("--noproxy *"));
    assert!(!tree.cluster().exists());
    let output = tree.run(&["--keep"]);
    assert!(
        output.status.success() && tree.cluster().exists(),
        "{output:?}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains(&format!("--down {dir}")));
}

/// A cluster that is coming up has no kubeconfig yet, and is somebody's all the same.
#[test]
fn privileged_hack_cluster_leaves_a_cluster_that_it_has_not_made() {
    let tree = Tree::new();
    fs::create_dir_all(tree.cluster()).unwrap();
    for flags in [&[][..], &["--keep"]] {
        let output = tree.run(flags);
        assert!(!output.status.success());
        assert!(said(&output).contains("--down"), "{output:?}");
    }
    assert!(tree.cluster().exists() && tree.calls("").is_empty());
}

/// Where the script says that it keeps the logs of nodes.
fn logs_in(output: &Output) -> PathBuf {
    let told = said(output);
    let mut lines = told.lines();
    let logs = lines.find_map(|line| line.split("nodes are in ").nth(1));
    logs.unwrap().into()
}

#[test]
fn privileged_hack_cluster_keeps_logs_of_a_cluster_that_did_not_come_up() {
    let tree = Tree::new();
    fs::write(tree.path("fails"), "").unwrap();
    let output = tree.run(&[]);
    assert!(
        !output.status.success() && !tree.cluster().exists(),
        "{output:?}"
    );
    let logs = logs_in(&output);
    let log = fs::read_to_string(logs.join("control/etcd.log")).unwrap();
    assert_eq!(log, "broken\n");
    fs::remove_dir_all(logs).unwrap();
    let output = tree.run(&["--keep"]);
    assert!(
        !output.status.success() && tree.cluster().exists(),
        "{output:?}"
    );
    assert!(said(&output).contains("--down --dir"), "{output:?}");
}

#[test]
fn privileged_hack_cluster_takes_no_page_of_an_error_for_its_own() {
    let tree = Tree::new();
    fs::write(tree.path("error"), "").unwrap();
    let output = tree.run(&[]);
    assert!(
        !output.status.success() && !tree.cluster().exists(),
        "{output:?}"
    );
    fs::remove_dir_all(logs_in(&output)).unwrap();
}
