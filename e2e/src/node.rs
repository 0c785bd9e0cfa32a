//! A node is a daemon under test with all that belongs to it: root, state, socket, registry and
//! network. Tests stop it, kill it and start it again; dropped, it removes everything.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crisp_api::runtime::v1 as cri;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::checker::{self, Picture, Place};
use crate::configs;
use crate::cri::{Cri, Events};
use crate::crictl::Crictl;
use crate::debris;
use crate::netns::Net;
use crate::registry::{ADDRESS, HOST, Registry, write_hosts};
use crate::tools;

/// Longest that a daemon may take to answer or to end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Lines of the daemon's log that a failed test shows.
const SHOWN: usize = 60;

/// The cgroup driver of every daemon: on a node with systemd, any test can run with either.
#[must_use]
pub fn cgroup_driver() -> String {
    std::env::var("CRISP_CGROUP_DRIVER").unwrap_or_else(|_| "cgroupfs".to_owned())
}

/// The OCI runtime that starts the containers of every daemon, where any test is to run with
/// another than Crisp's own.
#[must_use]
pub fn oci_runtime() -> Option<String> {
    std::env::var("CRISP_OCI_RUNTIME").ok()
}

/// Where a node's pods get their network from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// `--network builtin`.
    Builtin,
    /// `--network cni`, with configurations in [`Node::cni_dir`].
    Cni,
}

/// How a node differs from the usual one.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where pods get their network from.
    pub network: Network,
    /// For [`Network::Cni`]: the plugins of a list that is there from the start, for a node with
    /// its own directory at a path.
    pub plugins: Option<fn(&Path) -> Value>,
    /// More of `config.toml`, which begins in its table `network`.
    pub config: String,
    /// `--log-level`.
    pub log_level: &'static str,
    /// Where `crispd` and its helpers are, when not where [`tools::ours`] finds them.
    pub binaries: Option<PathBuf>,
    /// A line of the shell that starts the daemon, whose command is `"$@"` in it.
    pub through: Option<&'static str>,
    /// A directory that stays, when the node is to be started anew with what it has.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            network: Network::Builtin,
            plugins: None,
            config: String::new(),
            log_level: "debug",
            binaries: None,
            through: None,
            dir: None,
        }
    }
}

/// A daemon and what belongs to it; dropped, everything goes.
#[derive(Debug)]
pub struct Node {
    /// The daemon's network.
    pub net: Net,
    /// A neighbour of the node on the same wire.
    pub neighbour: Net,
    /// Debian's docker-registry.
    pub registry: Registry,
    /// The machine before the daemon's first start, when no other was under test.
    pub(crate) machine: Picture,
    dir: PathBuf,
    /// Removes the directory, unless that stays.
    _temporary: Option<TempDir>,
    options: Options,
    /// The crash point of daemons that are started from now on.
    dies: Option<String>,
    daemon: Option<Child>,
    /// Held while the node lives, so that only one test at a time looks at the kernel.
    lock: Arc<File>,
}

impl Node {
    /// Starts a registry and a daemon.
    #[must_use]
    pub fn start(options: Options) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests run as root"
        );
        Self::start_locked(options, Arc::new(lock()))
    }

    /// Starts another registry and daemon under the lock that this node holds: two that are
    /// compared with each other.
    #[must_use]
    pub fn start_beside(&self, options: Options) -> Self {
        Self::start_locked(options, Arc::clone(&self.lock))
    }

    fn start_locked(options: Options, lock: Arc<File>) -> Self {
        let machine = checker::of_machine();
        let (dir, temporary) = directory(&options);
        // As a node's own directories: users of user namespaces get through to what is theirs.
        fs::set_permissions(&dir, Permissions::from_mode(0o711)).unwrap();
        let (net, neighbour) = Net::pair();
        let registry = Registry::start(&net, &dir);
        for name in ["bin", "certs.d", "net.d", "logs"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        write_hosts(&dir.join("certs.d"), HOST, &[ADDRESS]);
        let mut node = Self {
            net,
            neighbour,
            registry,
            machine,
            dir,
            _temporary: temporary,
            options,
            dies: None,
            daemon: None,
            lock,
        };
        node.write_config();
        if let Some(plugins) = node.options.plugins {
            node.write_plugins("10-test.conflist", &plugins(&node.dir));
        }
        node.restart();
        node
    }

    fn write_config(&self) {
        let (default, handler) = match oci_runtime() {
            Some(path) => (
                "default_runtime = \"other\"\n",
                format!("[runtimes.other]\nkind = \"oci\"\npath = \"{path}\"\n"),
            ),
            None => ("", String::new()),
        };
        let text = format!(
            "{default}{handler}[network]\nconf_dir = \"{}\"\nbin_dirs = [\"/usr/lib/cni\", \"{}\"]\n{}",
            self.cni_dir().display(),
            self.path("bin").display(),
            self.options.config
        );
        fs::write(self.path("config.toml"), text).unwrap();
    }

    /// A path in the node's own directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The CRI socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.path("state/crisp.sock")
    }

    /// `--root`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path("root")
    }

    /// `--state`.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Where CNI configurations go.
    #[must_use]
    pub fn cni_dir(&self) -> PathBuf {
        self.path("net.d")
    }

    /// Writes a list of plugins among the CNI configurations.
    pub fn write_plugins(&self, file: &str, plugins: &Value) {
        let list = json!({"cniVersion": "0.4.0", "name": "test", "plugins": plugins});
        fs::write(self.cni_dir().join(file), list.to_string()).unwrap();
    }

    /// `--registry-config`.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        self.path("certs.d")
    }

    /// crictl for this node.
    #[must_use]
    pub fn crictl(&self) -> Crictl {
        Crictl::at(&self.socket())
    }

    /// gRPC to this node.
    #[must_use]
    pub fn cri(&self) -> Cri {
        Cri::at(&self.socket())
    }

    /// A subscription to the node's events.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::subscribe(&self.socket())
    }

    /// The daemon's process.
    #[track_caller]
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("the daemon runs").id()
    }

    /// The most memory that the daemon has had at once, in KiB.
    #[must_use]
    pub fn peak_memory(&self) -> u64 {
        self.kib("VmHWM:")
    }

    /// The memory that the daemon has now, in KiB.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.kib("VmRSS:")
    }

    fn kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let mut lines = status.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)).unwrap();
        value.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Pushes catalogue images to the registry and pulls them.
    #[track_caller]
    pub fn pull(&self, names: &[&str]) {
        let mut cri = self.cri();
        for name in names {
            self.registry.push(&self.net, name);
            cri.pull(&configs::image(name)).unwrap();
        }
    }

    /// A pod whose logs go to the node's directory.
    #[must_use]
    pub fn pod(&self, name: &str) -> cri::PodSandboxConfig {
        let logs = self.path("logs").join(name);
        fs::create_dir_all(&logs).unwrap();
        cri::PodSandboxConfig {
            log_directory: logs.to_str().unwrap().to_owned(),
            ..configs::pod(name)
        }
    }

    /// Starts the daemon where none runs, and waits until it answers.
    #[track_caller]
    pub fn restart(&mut self) {
        self.dies = None;
        assert!(self.lives_on(), "crispd was killed");
    }

    /// As [`Node::restart`], with a crash point (`before EFFECT NUMBER`, `after EFFECT NUMBER`) at
    /// which the daemon kills itself; tells whether it came so far that it answers.
    #[track_caller]
    pub fn restart_to_die(&mut self, point: &str) -> bool {
        self.dies = Some(point.to_owned());
        self.lives_on()
    }

    #[track_caller]
    fn lives_on(&mut self) -> bool {
        assert!(self.daemon.is_none(), "a daemon runs already");
        let mut command = self.command();
        if let Some(point) = &self.dies {
            command.env("CRISPD_DIES", point);
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path("crispd.log"));
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        let mut daemon = self.net.run(|| command.spawn().unwrap());
        let deadline = Instant::now() + PATIENCE;
        let mut cri = self.cri();
        while cri.version(cri::VersionRequest::default()).is_err() {
            if let Some(status) = daemon.try_wait().unwrap() {
                if self.dies.is_some() && status.signal() == Some(9) {
                    return false;
                }
                panic!("crispd ended with {status}:\n{}", self.log_tail());
            }
            assert!(
                Instant::now() < deadline,
                "crispd is silent:\n{}",
                self.log_tail()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        self.daemon = Some(daemon);
        true
    }

    /// Whether the daemon has met its crash point; then none runs any more.
    #[track_caller]
    pub fn has_died(&mut self) -> bool {
        let Some(daemon) = &mut self.daemon else {
            return true;
        };
        let Some(status) = daemon.try_wait().unwrap() else {
            return false;
        };
        assert_eq!(status.signal(), Some(9), "crispd ended by itself");
        self.daemon = None;
        true
    }

    /// The daemon's command line, not started.
    #[must_use]
    pub fn command(&self) -> Command {
        let program = match &self.options.binaries {
            Some(dir) => dir.join("crispd"),
            None => tools::ours("crispd"),
        };
        let mut command = match self.options.through {
            None => Command::new(program),
            Some(line) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", line, "sh"]).arg(program);
                shell
            }
        };
        let network = match self.options.network {
            Network::Builtin => "builtin",
            Network::Cni => "cni",
        };
        command
            .arg("--root")
            .arg(self.root())
            .arg("--state")
            .arg(self.state());
        command
            .arg("--listen")
            .arg(format!("unix://{}", self.socket().display()));
        command.arg("--config").arg(self.path("config.toml"));
        command.arg("--registry-config").arg(self.certs());
        command.args(["--network", network, "--cgroup-driver", &cgroup_driver()]);
        command.args(["--log-level", self.options.log_level]);
        command
    }

    /// Ends the daemon by SIGTERM and tells how it ended.
    #[track_caller]
    pub fn terminate(&mut self) -> ExitStatus {
        self.end(Signal::TERM)
    }

    /// Kills the daemon with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self) {
        let status = self.end(Signal::KILL);
        assert_eq!(status.signal(), Some(9), "the daemon was already gone");
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut daemon = self.daemon.take().expect("the daemon runs");
        let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > deadline {
                daemon.kill().ok();
                daemon.wait().ok();
                panic!("crispd does not end:\n{}", self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// All that the checker sees of the node.
    #[must_use]
    pub fn picture(&self) -> Picture {
        checker::of_node(Place {
            net: &self.net,
            daemon: self.pid(),
            root: &self.root(),
            state: &self.state(),
        })
    }

    /// All that the daemon logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("crispd.log")).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }

    /// Removes every pod, whatever its state.
    fn remove_all(&mut self) {
        if self.daemon.is_none() {
            self.restart();
        }
        let removed = self.crictl().output(&["rmp", "--force", "--all"]);
        if !removed.status.success() {
            eprintln!(
                "crictl rmp -fa: {}",
                String::from_utf8_lossy(&removed.stderr)
            );
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the end of crispd's log\n{}\n---", self.log_tail());
        }
        // A failed test may leave anything behind; what can be cleaned shall not disturb the next.
        let cleaned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.remove_all();
            self.terminate();
        }));
        if cleaned.is_err() {
            if let Some(daemon) = &mut self.daemon {
                daemon.kill().ok();
                daemon.wait().ok();
            }
            debris::sweep(&self.dir);
        }
    }
}

/// A node's directory, and what removes it in the end.
fn directory(options: &Options) -> (PathBuf, Option<TempDir>) {
    if let Some(dir) = &options.dir {
        fs::create_dir_all(dir).unwrap();
        return (dir.clone(), None);
    }
    // Everybody may pass, as below /run: the roots of user namespaces have to.
    let dir = tempfile::Builder::new()
        .prefix("crisp-e2e-")
        .permissions(Permissions::from_mode(0o711))
        .tempdir()
        .unwrap();
    (dir.path().to_owned(), Some(dir))
}

/// Waits until no other test looks at the kernel; until it is dropped, none does.
#[must_use]
pub fn lock() -> File {
    let path = std::env::temp_dir().join("crisp-e2e.lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap();
    flock(&file, FlockOperation::LockExclusive).unwrap();
    file
}
