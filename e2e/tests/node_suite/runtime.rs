//! The runtime that the suite's pods are on: the daemon under test, or containerd in its place, which tells
//! whether a spec that fails fails for a reason of Crisp's own.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crisp_e2e::containerd_node::{Machine, Settings, plugins};
use crisp_e2e::crictl::Crictl;
use crisp_e2e::node::Node;
use crisp_e2e::tools;
use serde_json::json;

/// A spec of pods' overhead wants a handler of this name, as any other.
pub(crate) const HANDLER: &str = "test-handler";
/// Has crispd in a cgroup of its own, which kubelets tell statistics of.
pub(crate) const THROUGH: &str = r#"exec systemd-run --quiet --scope --collect --unit=crispd.scope --slice=system.slice -- "$@""#;
/// One of the suite's images, which containerd keeps a pod's namespaces with.
const PAUSE: &str = "registry.k8s.io/pause:3.10.2";
/// Range of the pods of containerd; those of the daemon under test are in 10.88.0.0/16.
const RANGE: &str = "10.77.0.0/16";
/// How long containerd may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether `CRISP_NODE_RUNTIME` asks for containerd.
pub(crate) fn is_other() -> bool {
    match env::var("CRISP_NODE_RUNTIME").as_deref() {
        Ok("containerd") => true,
        Ok(other) => panic!("CRISP_NODE_RUNTIME={other}: containerd or nothing"),
        Err(_) => false,
    }
}

/// Either of them.
#[derive(Debug)]
pub(crate) enum Runtime {
    Crisp { socket: PathBuf },
    Containerd(Containerd),
}

impl Runtime {
    /// The one that is asked for, on a node of the daemon under test.
    pub(crate) fn of(node: &Node) -> Self {
        match is_other() {
            true => Self::Containerd(Containerd::start(node)),
            false => Self::Crisp {
                socket: node.socket(),
            },
        }
    }

    /// The name of its program.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Crisp { .. } => "crispd",
            Self::Containerd(_) => "containerd",
        }
    }

    /// The file that its program logs to.
    pub(crate) fn log(&self, node: &Node) -> PathBuf {
        match self {
            Self::Crisp { .. } => node.path("crispd.log"),
            Self::Containerd(containerd) => containerd.log.clone(),
        }
    }

    /// The cgroup of its program.
    pub(crate) fn cgroup(&self) -> String {
        format!("/system.slice/{}.scope", self.name())
    }

    /// The CRI socket.
    pub(crate) fn socket(&self) -> &Path {
        match self {
            Self::Crisp { socket } => socket,
            Self::Containerd(containerd) => &containerd.socket,
        }
    }

    /// crictl for it.
    pub(crate) fn crictl(&self) -> Crictl {
        Crictl::at(self.socket())
    }

    /// Feature gates of its kubelet. By itself a kubelet looks for the network of a pod in its pause
    /// container, which Crisp has none of.
    pub(crate) fn gates(&self) -> Option<&str> {
        match self {
            Self::Crisp { .. } => Some("PodAndContainerStatsFromCRI=true"),
            Self::Containerd(_) => None,
        }
    }
}

/// A containerd in a cgroup of its own; dropped, it ends with its shims.
#[derive(Debug)]
pub(crate) struct Containerd {
    daemon: Child,
    socket: PathBuf,
    log: PathBuf,
    /// The path of its network.
    net: String,
}

impl Containerd {
    /// Starts it in the network of the node, whose registry it pulls from as the node does.
    fn start(node: &Node) -> Self {
        let dir = node.path("containerd");
        let path = |name: &str| dir.join(name).display().to_string();
        fs::create_dir_all(path("net.d")).unwrap();
        let list = plugins(&json!(RANGE), &path("addresses"));
        fs::write(path("net.d/10-pods.conflist"), list.to_string()).unwrap();
        let settings = Settings {
            root: &path("root"),
            state: &path("state"),
            socket: &path("containerd.sock"),
            certs: &node.certs().display().to_string(),
            networks: &path("net.d"),
            runc: &tools::tool("runc").display().to_string(),
            machine: Machine::Systemd,
            pause: PAUSE,
            handlers: &[HANDLER],
        };
        fs::write(path("containerd.toml"), settings.text()).unwrap();
        let log = dir.join("log");
        let started = Self {
            daemon: node.net.run(|| spawn(&dir, &log)),
            socket: path("containerd.sock").into(),
            log,
            net: node.net.path(),
        };
        started.until_it_answers();
        started
    }

    fn until_it_answers(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !Crictl::at(&self.socket).output(&["info"]).status.success() {
            assert!(Instant::now() < deadline, "containerd is silent");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// It finds its shim by PATH.
fn spawn(dir: &Path, log: &Path) -> Child {
    let programs = tools::cache().join("bin");
    let path = env::var("PATH").unwrap_or_default();
    let log = File::create(log).unwrap();
    let unit = ["--unit=containerd.scope", "--slice=system.slice"];
    Command::new(tools::tool("systemd-run"))
        .args(["--quiet", "--scope", "--collect"])
        .args(unit)
        .arg("--")
        .arg(tools::tool("containerd"))
        .arg("--config")
        .arg(dir.join("containerd.toml"))
        .env("PATH", format!("{}:{path}", programs.display()))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Containerd {
    fn drop(&mut self) {
        drop(tools::run("systemctl", &["stop", "containerd.scope"]));
        drop(self.daemon.wait());
        let net = format!("--net={}", self.net);
        let bridge = [net.as_str(), "ip", "link", "del", "cni0"];
        drop(Command::new("nsenter").args(bridge).output());
    }
}
