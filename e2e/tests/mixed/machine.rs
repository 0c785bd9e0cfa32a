//! A machine with a kernel of its own, and so with cgroups of version 2, in the place of a node's container:
//! it has the node's files, its address and its cable.

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crisp_e2e::cluster::{Cluster, kubernetes};
use crisp_e2e::containerd_node::dir_of;
use crisp_e2e::netns::Net;
use crisp_e2e::tools;
use rustix::process::{Pid, Signal, kill_process};

/// How long a script may take on the machine, whose one processor is emulated.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long it may take to turn off.
const GRACE: Duration = Duration::from_secs(30);
/// Lines of a log that are shown after a failure.
const SHOWN: usize = 15;
const PAUSE: Duration = Duration::from_millis(50);

/// The machine, turned off when it is dropped.
pub struct Machine {
    /// The node's directory on this machine.
    dir: PathBuf,
    process: RefCell<Child>,
    /// The network namespace of the node's pod.
    net: Net,
    address: String,
    gateway: String,
    /// Scripts for the machine, and its answers.
    requests: PathBuf,
    asked: Cell<u32>,
    output: PathBuf,
}

impl Machine {
    /// Stops a node's container and boots the machine in its place; `crisp cluster` knows nothing of it. The
    /// node's programs are not started yet. `boot` is `hack/vm` with its options.
    pub fn in_place_of(cluster: &Cluster, node: &str, mut boot: Command) -> Self {
        cluster.crisp(&format!("stop {node}"));
        let net = cluster.net_of(node);
        let address = word_after(&net.ip("-o -4 addr show dev eth0"), "inet");
        let gateway = word_after(&net.ip("route show default"), "via");
        // This kernel would answer as well, or hand on what is for pods.
        net.ip("addr flush dev eth0");
        forward(&net, false);
        let dir = dir_of(cluster, node);
        let requests = cluster.work().join(format!("{node}-requests"));
        fs::create_dir(&requests).unwrap();
        let output = cluster.work().join(format!("{node}-output"));
        let file = File::create(&output).unwrap();
        boot.args(["-n", "eth0", "bash"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mixed/machine.sh"))
            .arg(&dir)
            .args([&address, &gateway])
            .args([tools::bin_dir(), kubernetes().unwrap()])
            .arg(&requests)
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file);
        let process = net.run(|| boot.spawn().unwrap());
        Self {
            dir,
            process: process.into(),
            net,
            address,
            gateway,
            requests,
            asked: 0.into(),
            output,
        }
    }

    /// Runs a script on the machine, outside of the node that it is, and tells its output.
    #[track_caller]
    pub fn run(&self, script: &str) -> String {
        let number = self.asked.get() + 1;
        self.asked.set(number);
        let file = |end: &str| self.requests.join(format!("{number}.{end}"));
        fs::write(file("part"), script).unwrap();
        fs::rename(file("part"), file("sh")).unwrap();
        let begun = Instant::now();
        while !file("end").exists() {
            assert!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {script}");
            assert!(self.runs(), "the machine has ended: {script}");
            std::thread::sleep(PAUSE);
        }
        let said = fs::read_to_string(file("out")).unwrap();
        let end = fs::read_to_string(file("end")).unwrap();
        assert_eq!(end, "0\n", "{script}: {said}");
        said
    }

    /// Starts the programs of a node that is a container.
    pub fn start(&self) {
        self.run("start_node");
    }

    /// The answer to a request from it; nothing for a request that was lost.
    pub fn page(&self, url: &str) -> String {
        let script = format!("timeout 5 busybox wget -q -O - {url} || true");
        self.run(&script).trim().to_owned()
    }

    /// Turns it off, and gives the node's container its network back.
    pub fn off(self) {
        self.end();
        let status = self.process.borrow_mut().wait().unwrap();
        assert!(status.success(), "{status}");
        forward(&self.net, true);
        self.net.ip(&format!("addr add {} dev eth0", self.address));
        self.net
            .ip(&format!("route add default via {}", self.gateway));
    }

    fn runs(&self) -> bool {
        self.process.borrow_mut().try_wait().unwrap().is_none()
    }

    fn end(&self) {
        fs::write(self.requests.join("off"), "").unwrap();
        let deadline = Instant::now() + GRACE;
        while self.runs() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        if self.runs() {
            let pid = i32::try_from(self.process.borrow().id()).unwrap();
            kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        }
    }

    /// After a failure.
    fn tell(&self) {
        let log = |name: &str| self.dir.join("log").join(name);
        let logs = ["machine.log", "containerd.log", "crispd.log", "kubelet.log"].map(log);
        for path in [&self.output].into_iter().chain(&logs) {
            let all = fs::read_to_string(path).unwrap_or_default();
            let lines: Vec<&str> = all.lines().collect();
            let last = &lines[lines.len().saturating_sub(SHOWN)..];
            eprintln!("--- {}\n{}", path.display(), last.join("\n"));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.tell();
        }
        self.end();
        self.process.borrow_mut().wait().ok();
    }
}

fn forward(net: &Net, does: bool) {
    let value = u8::from(does).to_string();
    net.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", value).unwrap());
}

fn word_after(line: &str, word: &str) -> String {
    let mut words = line.split_whitespace().skip_while(|it| *it != word);
    words.nth(1).unwrap_or_else(|| panic!("{line}")).to_owned()
}
