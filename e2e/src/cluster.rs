//! A cluster under test: `crisp cluster` and kubectl, run as people run them, in a network of its own.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::checker::{self, Picture, remains};
use crate::clock_speed::OfNodes;
use crate::crictl::Crictl;
use crate::emulated;
use crate::image::{archive, busybox};
use crate::netns::Net;
use crate::{node, tools};

/// How long something may take that has to come.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long a page may take.
const ANSWER: Duration = Duration::from_secs(5);
/// The kernel frees what a cluster had in batches.
const SETTLING: Duration = Duration::from_secs(30);
const KILL: i32 = 9;
/// Lines of a log that are shown after a failure.
const SHOWN: usize = 15;
/// A setting that kubelets change, and a value that is none of theirs: machines on which one has run have
/// theirs already.
const PANIC: &str = "/proc/sys/kernel/panic";
const NO_KUBELETS: &str = "7";
/// The image of pods.
pub const IMAGE: &str = "e2e.internal/busybox:1";

/// A cluster's surroundings; dropped, the cluster goes.
#[derive(Debug)]
pub struct Cluster {
    /// The network that the machine of the cluster is in.
    pub net: Net,
    /// The network of its neighbour, which is all of the world.
    pub world: Net,
    dir: PathBuf,
    /// The directory, where it is to go with the value.
    _temporary: Option<TempDir>,
    machine: Picture,
    settings: Vec<String>,
    /// The value of the setting that the test changes itself.
    panic: String,
    _clock_speed: OfNodes,
    /// Only one test at a time looks at the kernel.
    _lock: File,
}

/// Where `hack/tools cluster` put a version of Kubernetes: the latest one, which `crisp` takes too.
#[must_use]
pub fn kubernetes() -> Option<PathBuf> {
    let versions = tools::cache().parent()?.join("kubernetes");
    let entries = std::fs::read_dir(versions).ok()?.flatten();
    let dirs = entries.filter_map(|entry| Some((version(&entry.file_name())?, entry.path())));
    let (_, latest) = dirs.max()?;
    let is_whole = latest.join("kubelet").exists() && latest.join("coredns").exists();
    is_whole.then_some(latest)
}

/// The numbers of a name like `v1.37.1`.
fn version(name: &OsStr) -> Option<Vec<u32>> {
    let numbers = name.to_str()?.strip_prefix('v')?.split('.');
    numbers.map(|number| number.parse().ok()).collect()
}

/// How long something may take here.
fn patience() -> Duration {
    emulated::at_most(PATIENCE)
}

/// How long kubectl may wait, in its words.
fn within() -> String {
    format!("--timeout={}s", patience().as_secs())
}

/// Settings of the machine that kubelets change, for all that runs on it.
fn settings() -> Vec<String> {
    let names = [
        "kernel/keys/root_maxbytes",
        "kernel/keys/root_maxkeys",
        "kernel/panic",
        "kernel/panic_on_oops",
        "vm/overcommit_memory",
        "vm/panic_on_oom",
    ];
    let read = |name: &str| std::fs::read_to_string(Path::new("/proc/sys").join(name));
    let all = names.iter();
    all.map(|name| format!("{name} {}", read(name).unwrap_or_default().trim()))
        .collect()
}

impl Cluster {
    /// An empty place, where Kubernetes was built; elsewhere the test is told to be left out.
    #[must_use]
    pub fn place(test: &str) -> Option<Self> {
        if kubernetes().is_none() {
            tools::say(&format!("SKIPPED: {test}: not built: hack/tools cluster"));
            return None;
        }
        let dir = tempfile::Builder::new().prefix("crisp-e2e-").tempdir();
        let dir = dir.unwrap();
        Some(Self::at(dir.path().to_owned(), Some(dir)))
    }

    /// A directory that stays, with what is in it. Kubernetes has been built.
    #[must_use]
    pub fn in_place(dir: &Path) -> Self {
        Self::at(dir.to_owned(), None)
    }

    fn at(dir: PathBuf, temporary: Option<TempDir>) -> Self {
        let lock = node::lock();
        let panic = std::fs::read_to_string(PANIC).unwrap();
        std::fs::write(PANIC, NO_KUBELETS).unwrap();
        let (net, world) = Net::pair();
        Self {
            machine: checker::of_machine_and(&net),
            settings: settings(),
            panic,
            _clock_speed: OfNodes::watch(),
            net,
            world,
            dir,
            _temporary: temporary,
            _lock: lock,
        }
    }

    /// The one directory of all clusters.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.work().join("home")
    }

    /// A directory for files of the test's own.
    #[must_use]
    pub fn work(&self) -> &Path {
        &self.dir
    }

    /// The file by which its administrator reaches it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.home().join("clusters/crisp/kubeconfig")
    }

    /// Writes the archive of the image of pods, and tells its path.
    #[must_use]
    pub fn archive(&self) -> String {
        let path = self.dir.join("busybox.tar");
        let image = busybox::image().pack();
        std::fs::write(&path, archive::archive(&image, IMAGE)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn output(&self, command: &mut Command) -> Output {
        command.stdin(Stdio::null());
        self.net.run(|| command.output().unwrap())
    }

    /// A file that `crisp cluster` has open when it is started.
    #[must_use]
    pub fn callers_file(&self) -> PathBuf {
        self.work().join("callers-file")
    }

    /// `crisp cluster` with these words, which may name another directory.
    #[must_use]
    pub fn crisp_command(&self, line: &str) -> Command {
        // With an open file, as a script has one that does this under a lock.
        let mut command = Command::new("sh");
        command.args(["-c", "exec 9>\"$0\"; exec \"$@\""]);
        command.arg(self.callers_file());
        command.arg(tools::ours("crisp")).arg("cluster");
        if !line.contains("--dir ") {
            command.arg("--dir").arg(self.home());
        }
        command.args(line.split(' '));
        command
    }

    fn crisp_output(&self, line: &str) -> Output {
        self.output(&mut self.crisp_command(line))
    }

    /// `crisp cluster` dies by SIGKILL right after it has told of a step.
    #[track_caller]
    pub fn crisp_killed_at(&self, line: &str, step: &str) {
        let output = self.output(self.crisp_command(line).env("CRISP_DIES", step));
        let told = String::from_utf8_lossy(&output.stderr);
        let last = told.lines().last().unwrap_or_default();
        assert!(last.contains(step), "{line} has not told of {step}: {told}");
        assert_eq!(output.status.signal(), Some(KILL), "{line}: {told}");
    }

    /// The answer of `crisp cluster` to these words; a failure is a panic.
    #[track_caller]
    pub fn crisp(&self, line: &str) -> String {
        let begun = Instant::now();
        let output = self.crisp_output(line);
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        let said = tools::succeeded(&format!("crisp cluster {line}"), &output);
        eprintln!("{:6.1} s for {line}", begun.elapsed().as_secs_f64());
        said
    }

    /// Whether `crisp cluster` does this now.
    #[must_use]
    pub fn does(&self, line: &str) -> bool {
        self.crisp_output(line).status.success()
    }

    /// The complaint of `crisp cluster`; a success is a panic.
    #[track_caller]
    pub fn refused(&self, line: &str) -> String {
        let output = self.crisp_output(line);
        assert!(!output.status.success(), "{line} succeeded: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// kubectl as the cluster's administrator.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(kubernetes().unwrap().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        // It keeps what it learns of the API, and not in the home of who runs this.
        command.arg("--cache-dir").arg(self.file("kubectl"));
        command.args(words);
        command
    }

    /// The path of a file of the test's own.
    #[must_use]
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// The end of kubectl with an input.
    #[must_use]
    pub fn fed(&self, words: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(words);
        let pipes = [(); 2].map(|()| Stdio::piped());
        let [stdout, stderr] = pipes;
        command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr);
        let mut child = self.net.run(|| command.spawn().unwrap());
        // A program that ends without reading is judged by its end.
        child.stdin.take().unwrap().write_all(input).ok();
        child.wait_with_output().unwrap()
    }

    /// The network of a node.
    #[must_use]
    #[track_caller]
    pub fn net_of(&self, node: &str) -> Net {
        let crictl = Crictl::at(&self.home().join("daemon/crisp.sock"));
        let label = format!("crisp.cluster/node={node}");
        let pod = crictl.line(&["pods", "--quiet", "--no-trunc", "--label", &label]);
        Net::at(&Path::new("/run/netns").join(format!("crisp-{pod}")))
    }

    /// Empties a node, but for what belongs to every one.
    #[track_caller]
    pub fn drain(&self, node: &str, more: &[&str]) {
        let within = within();
        let words = [
            "drain",
            node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            &within,
        ];
        self.kubectl(&[&words[..], more].concat());
    }

    /// Makes the objects of a file of the test `cluster`.
    #[track_caller]
    pub fn apply(&self, file: &str) {
        let path = format!("{}/tests/cluster/{file}", env!("CARGO_MANIFEST_DIR"));
        self.kubectl(&["apply", "-f", &path]);
    }

    /// Waits until all pods of something are the new ones, and ready.
    #[track_caller]
    pub fn rolled_out(&self, what: &str) {
        self.kubectl(&["rollout", "status", what, &within()]);
    }

    /// Waits until an object is as it is to be.
    #[track_caller]
    pub fn waited(&self, how: &str, what: &str) {
        self.kubectl(&["wait", &format!("--for={how}"), what, &within()]);
    }

    /// The output of a script in a pod.
    #[track_caller]
    pub fn sh(&self, pod: &str, script: &str) -> String {
        self.kubectl(&["exec", pod, "--", "sh", "-c", script])
    }

    /// The answer of kubectl; a failure is a panic.
    #[track_caller]
    pub fn kubectl(&self, words: &[&str]) -> String {
        let output = self.output(&mut self.command(words));
        tools::succeeded(&format!("kubectl {}", words.join(" ")), &output)
    }

    /// Its answer in JSON. An emulated machine that has much to do may be too slow for a handshake, and to ask
    /// once more changes nothing.
    #[track_caller]
    pub fn get(&self, words: &[&str]) -> Value {
        let words = [&["get", "-o", "json"], words].concat();
        let begun = Instant::now();
        loop {
            let output = self.output(&mut self.command(&words));
            let told = String::from_utf8_lossy(&output.stderr);
            let is_slow = emulated::is_emulated() && told.contains("timeout");
            if !is_slow || begun.elapsed() > PATIENCE {
                let text = tools::succeeded(&format!("kubectl {}", words.join(" ")), &output);
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    /// Sends a request from a node, and tells the answer; nothing for a request that was lost.
    #[must_use]
    pub fn page(&self, node: &str, url: &str) -> String {
        let within = emulated::at_most(ANSWER).as_secs();
        let line = format!("exec {node} timeout {within} busybox wget -q -O - {url}");
        let output = self.crisp_output(&line);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Waits until something is so.
    #[track_caller]
    pub fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let (begun, patience) = (Instant::now(), patience());
        while !is_so(self) {
            assert!(begun.elapsed() < patience, "not in {patience:?}: {what}");
            std::thread::sleep(Duration::from_millis(200));
        }
        eprintln!("{:6.1} s until {what}", begun.elapsed().as_secs_f64());
    }

    /// The machine and the network are as they were before.
    #[track_caller]
    pub fn left_nothing(&self) {
        assert_eq!(settings(), self.settings, "the machine's settings");
        assert!(!self.home().exists(), "its directory is there");
        let deadline = Instant::now() + emulated::at_most(SETTLING);
        loop {
            let now = checker::of_machine_and(&self.net);
            let left = remains(&self.machine, &now);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell_and_delete();
        }
        // The last delete has put it to what it was before the cluster.
        std::fs::write(PANIC, &self.panic).ok();
    }
}

impl Cluster {
    /// After a failure.
    fn tell_and_delete(&self) {
        for log in [
            "control node",
            "node-1 node",
            "node-1 crispd",
            "node-1 kubelet",
        ] {
            let all = self.crisp_output(&format!("logs {log}")).stdout;
            let all = String::from_utf8_lossy(&all);
            let lines: Vec<&str> = all.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- {log}\n{}", last.join("\n"));
        }
        let deleted = self.crisp_output("delete");
        eprintln!("{}", String::from_utf8_lossy(&deleted.stderr));
    }
}
