//! A kubelet of the node under test: standalone, with static pods, in the node's network.
//!
//! It has a cgroup root of its own, since two kubelets end each other's pods otherwise; with systemd,
//! which nests slices by their names, it has the whole tree of a node that boots for it. The sysctls
//! that a kubelet sets for the whole machine are set back when it is dropped.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crisp_e2e::cgroups::is_v2;
use crisp_e2e::clock_speed::ClockSpeed;
use crisp_e2e::crictl::Crictl;
use crisp_e2e::node::{Node, cgroup_driver};
use crisp_e2e::tools;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

/// Where it answers without asking who calls, in the node's network.
const OPEN: &str = "127.0.0.1:10255";
/// How long it may take to answer.
const STARTING: Duration = Duration::from_secs(90);
/// Its cgroup root, where it has one of its own.
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
    /// Other settings, which a test has of its own.
    settings: Value,
    evicts: Value,
    crictl: Crictl,
    data: PathBuf,
    _speed: ClockSpeed,
    child: Option<Child>,
    sysctls: Vec<(PathBuf, String)>,
}

impl Kubelet {
    /// Starts one with these feature gates.
    #[track_caller]
    pub(crate) fn start(node: &Node, gates: Value) -> Self {
        Self::start_with(node, gates, json!({}))
    }

    /// Starts one with these feature gates, and with these settings over those that all have.
    #[track_caller]
    pub(crate) fn start_with(node: &Node, gates: Value, settings: Value) -> Self {
        let dir = node.path("kubelet");
        for name in ["static", "root/seccomp", "logs", "plugins"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        let profile = dir.join("root/seccomp/no-mkdir.json");
        fs::write(profile, without_mkdir().to_string()).unwrap();
        let data = node.path("data");
        share(&data);
        let speed = ClockSpeed::tell();
        if is_v2() {
            let controllers = "+cpu +cpuset +memory +pids";
            fs::write("/sys/fs/cgroup/cgroup.subtree_control", controllers).unwrap();
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
            settings,
            // Disks of test machines may be full by its own measure.
            evicts: json!({"memory.available": "10Mi"}),
            crictl: node.crictl(),
            data,
            _speed: speed,
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
        let deadline = Instant::now() + STARTING;
        while self.get(node, "/healthz").is_none_or(|text| text != "ok") {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the kubelet ended: {}", self.log_tail());
            assert!(Instant::now() < deadline, "it does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// From its next start on it evicts pods, and collects images, when less than this is there.
    pub(crate) fn evict(&mut self, least: Value) {
        self.evicts = least;
    }

    fn config(&self, node: &Node) -> Value {
        let mut config = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "staticPodPath": self.dir.join("static"),
            "podLogsDir": self.dir.join("logs"),
            "volumePluginDir": self.dir.join("plugins"),
            "containerRuntimeEndpoint": format!("unix://{}", node.socket().display()),
            "cgroupDriver": cgroup_driver(),
            "cgroupsPerQOS": true,
            "enforceNodeAllocatable": ["pods"],
            "cgroupRoot": cgroup_root(),
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
            "evictionHard": self.evicts,
            "evictionPressureTransitionPeriod": "1s",
            "imageGCHighThresholdPercent": 100,
            "imageMinimumGCAge": "1s",
            "featureGates": self.gates,
        });
        let own = self.settings.as_object().unwrap().clone();
        config.as_object_mut().unwrap().extend(own);
        config
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
        if std::thread::panicking() {
            // Processes in its cgroups would keep those for the next test.
            drop(self.crictl.output(&["rmp", "--force", "--all"]));
        }
        for (path, value) in &self.sysctls {
            fs::write(path, value).unwrap();
        }
        unmount_below(&self.dir);
        unmount_below(&self.data);
        match cgroup_driver().as_str() {
            // Not there when the test failed early.
            "systemd" => drop(
                Command::new("systemctl")
                    .args(["stop", "kubepods.slice"])
                    .output(),
            ),
            _ => cgroup_roots().iter().for_each(|root| remove_cgroups(root)),
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

/// A seccomp profile of a file of its own.
fn without_mkdir() -> Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}],
    })
}

/// Makes a directory whose mounts pods and node share, as all of a real node's is.
fn share(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    let path = dir.to_str().unwrap();
    drop(tools::run("mount", &["--bind", path, path]));
    drop(tools::run("mount", &["--make-shared", path]));
}

fn cgroup_root() -> String {
    match cgroup_driver().as_str() {
        "systemd" => "/".to_owned(),
        _ => format!("/{ROOT}"),
    }
}

/// Its cgroup root in each hierarchy.
fn cgroup_roots() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    if cgroup_driver() == "systemd" {
        return Vec::new();
    }
    if is_v2() {
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
