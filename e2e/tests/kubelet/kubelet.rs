//! A kubelet of the node under test: standalone, with static pods, in the node's network.
//!
//! It has a cgroup root of its own, since two kubelets end each other's pods otherwise. The sysctls
//! that a kubelet sets for the whole machine are set back when it is dropped.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crisp_e2e::node::{Node, cgroup_driver};
use crisp_e2e::patience::eventually;
use crisp_e2e::tools;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

/// Where it answers without asking who calls, in the node's network.
const OPEN: &str = "127.0.0.1:10255";
/// Its cgroup root.
const ROOT: &str = "crisp-kubelet";
/// Sysctls that a kubelet sets, whatever its configuration.
const SYSCTLS: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

/// A kubelet that runs, or did; dropped, all that it made goes.
#[derive(Debug)]
pub(crate) struct Kubelet {
    dir: PathBuf,
    gates: Value,
    child: Option<Child>,
    sysctls: Vec<(PathBuf, String)>,
}

impl Kubelet {
    /// Starts one with these feature gates.
    #[track_caller]
    pub(crate) fn start(node: &Node, gates: Value) -> Self {
        let dir = node.path("kubelet");
        for name in ["static", "root", "logs", "plugins"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        for root in cgroup_roots() {
            fs::create_dir_all(&root).unwrap();
        }
        let sysctl = |name: &&str| {
            let path = Path::new("/proc/sys").join(name);
            let value = fs::read_to_string(&path).ok()?;
            Some((path, value))
        };
        let mut kubelet = Self {
            dir,
            gates,
            child: None,
            sysctls: SYSCTLS.iter().filter_map(sysctl).collect(),
        };
        kubelet.restart(node);
        kubelet
    }

    /// Starts it where it does not run, and waits until it answers.
    #[track_caller]
    pub(crate) fn restart(&mut self, node: &Node) {
        let config = self.dir.join("config.json");
        fs::write(&config, self.config(node).to_string()).unwrap();
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.dir.join("kubelet.log"))
            .unwrap();
        let mut command = Command::new(tools::tool("kubelet"));
        command
            .arg(format!("--config={}", config.display()))
            .arg(format!("--root-dir={}", self.dir.join("root").display()))
            .arg(format!("--cert-dir={}", self.dir.join("certs").display()))
            .args(["--hostname-override=node", "--node-ip=127.0.0.1", "--v=2"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        self.child = Some(node.net.run(|| command.spawn().unwrap()));
        eventually("the kubelet answers", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the kubelet ended: {}", self.log_tail());
            self.get(node, "/healthz").is_some_and(|text| text == "ok")
        });
    }

    fn config(&self, node: &Node) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "staticPodPath": self.dir.join("static"),
            "podLogsDir": self.dir.join("logs"),
            "volumePluginDir": self.dir.join("plugins"),
            "containerRuntimeEndpoint": format!("unix://{}", node.socket().display()),
            "cgroupDriver": cgroup_driver(),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "cgroupRoot": format!("/{ROOT}"),
            "failCgroupV1": false,
            "failSwapOn": false,
            "seccompDefault": true,
            "oomScoreAdj": 0,
            "makeIPTablesUtilChains": false,
            "address": "127.0.0.1",
            "healthzBindAddress": "127.0.0.1",
            "readOnlyPort": 10255,
            "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
            "authorization": {"mode": "AlwaysAllow"},
            "resolvConf": "/etc/resolv.conf",
            "containerLogMaxSize": "200Ki",
            "containerLogMonitorInterval": "3s",
            "allowedUnsafeSysctls": ["net.core.*"],
            // Disks of test machines may be full by its own measure.
            "evictionHard": {"memory.available": "10Mi"},
            "imageGCHighThresholdPercent": 100,
            "featureGates": self.gates,
        })
    }

    /// Has it run this pod.
    pub(crate) fn add(&self, pod: &Value) {
        let name = pod["metadata"]["name"].as_str().unwrap();
        // It reads a file as soon as that has its name.
        let (made, named) = (
            self.dir.join(format!("{name}.new")),
            self.dir.join("static").join(format!("{name}.json")),
        );
        fs::write(&made, pod.to_string()).unwrap();
        fs::rename(made, named).unwrap();
    }

    /// Has it end this pod.
    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.dir.join("static").join(format!("{name}.json"))).unwrap();
    }

    /// All pods that it knows, as the API has them.
    pub(crate) fn pods(&self, node: &Node) -> Vec<Value> {
        let text = self.get(node, "/pods").unwrap_or_default();
        let mut list: Value = serde_json::from_str(&text).unwrap_or_default();
        match list["items"].take() {
            Value::Array(pods) => pods,
            _ => Vec::new(),
        }
    }

    /// Its answer on the open port; `None` unless that is a success.
    pub(crate) fn get(&self, node: &Node, path: &str) -> Option<String> {
        let mut command = Command::new(tools::tool("curl"));
        command.args(["--silent", "--fail", "--max-time", "10"]);
        command.arg(format!("http://{OPEN}{path}"));
        let answer = node.net.run(|| command.output().unwrap());
        let told = String::from_utf8(answer.stdout).unwrap();
        answer.status.success().then_some(told)
    }

    /// The files of a pod's log, unpacked, the oldest first.
    pub(crate) fn logs(&self, pod: &str) -> Vec<String> {
        let (mut files, prefix) = (Vec::new(), format!("default_{pod}-node_"));
        for entry in fs::read_dir(self.dir.join("logs")).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&prefix) {
                let dir = fs::read_dir(entry.path().join("main"));
                files.extend(dir.into_iter().flatten().flatten().map(|file| file.path()));
            }
        }
        // `0.log` comes before its rotated files, but is the newest; those have their time in
        // their names.
        files.sort_by_key(|path| (path.ends_with("0.log"), path.clone()));
        files.iter().filter_map(|path| unpacked(path)).collect()
    }

    /// Ends it by SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The lines of its log that tell an error.
    pub(crate) fn errors(&self) -> Vec<String> {
        let log = fs::read_to_string(self.dir.join("kubelet.log")).unwrap_or_default();
        let lines = log.lines().filter(|line| line.starts_with('E'));
        lines.map(str::to_owned).collect()
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.dir.join("kubelet.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of the kubelet's log\n{}\n---", self.log_tail());
        }
        self.kill();
        for (path, value) in &self.sysctls {
            fs::write(path, value).unwrap();
        }
        unmount_below(&self.dir);
        for root in cgroup_roots() {
            remove_cgroups(&root);
        }
    }
}

/// The text of a file, which goes away when it is packed, or removed as the oldest.
fn unpacked(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut text = String::new();
    match path.extension().is_some_and(|extension| extension == "gz") {
        true => GzDecoder::new(file).read_to_string(&mut text),
        false => file.read_to_string(&mut text),
    }
    .ok()?;
    Some(text)
}

/// A kubelet leaves the volumes of pods that it did not see end.
fn unmount_below(dir: &Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    let mut places: Vec<&str> = places
        .filter(|place| Path::new(place).starts_with(dir))
        .collect();
    places.reverse();
    for place in places {
        drop(Command::new("umount").arg("--lazy").arg(place).status());
    }
}

/// Its cgroup root in each hierarchy.
fn cgroup_roots() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if crisp_e2e::cgroups::is_v2() {
        return vec![top.join(ROOT)];
    }
    let entries = fs::read_dir(top).unwrap().map(|entry| entry.unwrap());
    let dirs = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    dirs.map(|entry| entry.path().join(ROOT)).collect()
}

fn remove_cgroups(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path());
        }
    }
    drop(fs::remove_dir(dir));
}
