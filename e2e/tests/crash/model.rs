//! A client's knowledge of its pods and containers: calls that were answered, calls that were
//! sent and may or may not have been served, and what the client has killed.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;

/// Lines that a container writes which ends by itself.
pub(crate) const LINES: usize = 40;

/// The program of a container. Each writes numbered lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It goes on until it is killed.
    Writer,
    /// It goes on until SIGTERM, and ends with this code then.
    Trapper { code: i32 },
    /// It ends by itself with this code, after this many milliseconds.
    Ender { code: i32, after: u64 },
}

/// How far a container is, as it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Created,
    /// With the host pid of its init.
    Started(i64),
    Stopped,
}

/// The state of a container's shim, as far as the client had a hand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shim {
    Whole,
    /// Killed when the log had this many lines.
    Killed(usize),
    /// Killed while the container was being started.
    KilledInStart,
}

/// A container that was answered for.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
    pub(crate) shim: Shim,
    /// Since when it has no shim.
    pub(crate) alone_since: Option<SystemTime>,
    /// It may have ended when neither its shim nor a daemon was there to see it.
    pub(crate) unseen: bool,
}

/// A pod that was answered for.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) config: cri::PodSandboxConfig,
    pub(crate) is_ready: bool,
    pub(crate) containers: Vec<Container>,
}

/// Something to ask; pods and containers by their places.
#[derive(Debug, Clone)]
pub(crate) enum Wish {
    RunPod(Box<cri::PodSandboxConfig>, Fire),
    StopPod(usize, Fire),
    RemovePod(usize),
    KillHolder(usize),
    UpdatePod(usize),
    CreateWrong(usize, String),
    /// Two configurations with one name at once: one of them is made.
    CreateTwice(usize, String),
    /// The one of the two that is there, or the first.
    CreateEither(usize, String),
    Create(usize, String, Kind),
    Start(usize, usize, Fire),
    Exec(usize, usize),
    Update(usize, usize),
    ReopenLog(usize, usize),
    /// A client of the container's input that comes and goes.
    Session(usize, usize),
    KillShim(usize, usize),
    Stop(usize, usize),
    Remove(usize, usize),
}

/// Whether the process that serves a call is killed during the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fire {
    None,
    /// This many milliseconds after it was seen.
    After(u64),
}

impl Wish {
    /// The pod that becomes another by it.
    pub(crate) fn pod(&self) -> Option<usize> {
        match self {
            Self::StopPod(pod, _) | Self::RemovePod(pod) | Self::KillHolder(pod) => Some(*pod),
            _ => None,
        }
    }

    /// The same, and nobody is killed, and nothing is asked for at once.
    pub(crate) fn without_fire(self) -> Self {
        match self {
            Self::RunPod(config, _) => Self::RunPod(config, Fire::None),
            Self::StopPod(pod, _) => Self::StopPod(pod, Fire::None),
            Self::Start(pod, one, _) => Self::Start(pod, one, Fire::None),
            Self::CreateTwice(pod, name) => Self::CreateEither(pod, name),
            other => other,
        }
    }

    /// The container that becomes another by it.
    pub(crate) fn container(&self) -> Option<(usize, usize)> {
        match self {
            Self::Start(pod, one, _)
            | Self::KillShim(pod, one)
            | Self::Stop(pod, one)
            | Self::Remove(pod, one) => Some((*pod, *one)),
            _ => None,
        }
    }
}

impl Container {
    /// A container that was made just now.
    pub(crate) fn new(id: String, name: &str, kind: Kind) -> Self {
        Self {
            id,
            name: name.to_owned(),
            kind,
            stage: Stage::Created,
            shim: Shim::Whole,
            alone_since: None,
            unseen: false,
        }
    }
}

impl Pod {
    pub(crate) fn name(&self) -> &str {
        &self.config.metadata.as_ref().unwrap().name
    }

    pub(crate) fn shares_pid(&self) -> bool {
        shares_pid(&self.config)
    }

    /// Whether a container of it may have ended at a line, for want of a reader: its shim was
    /// killed, and the daemon may have been before another shim was there.
    pub(crate) fn makes_mute(&self, container: &Container) -> bool {
        self.shares_pid() && container.shim != Shim::Whole
    }

    /// Where its containers leave marks.
    pub(crate) fn marks(&self) -> PathBuf {
        PathBuf::from(&self.config.log_directory).join("marks")
    }

    pub(crate) fn log(&self, container: &Container) -> PathBuf {
        PathBuf::from(&self.config.log_directory).join(format!("{}.log", container.name))
    }

    /// A mark that a container has left; empty if it has not.
    pub(crate) fn mark(&self, container: &Container, mark: &str) -> String {
        let path = self.marks().join(format!("{}.{mark}", container.name));
        fs::read_to_string(path).unwrap_or_default()
    }
}

pub(crate) fn shares_pid(config: &cri::PodSandboxConfig) -> bool {
    let linux = config.linux.as_ref();
    let security = linux.and_then(|linux| linux.security_context.as_ref());
    let options = security.and_then(|security| security.namespace_options.as_ref());
    options.is_some_and(|options| options.pid() == cri::NamespaceMode::Pod)
}

impl Kind {
    /// The container as it is asked for in a pod.
    pub(crate) fn config(self, name: &str, pod: &cri::PodSandboxConfig) -> cri::ContainerConfig {
        let start = format!("echo s >> /m/{name}.starts; i=0");
        let count = "echo $i; i=$((i+1))";
        let line = match self {
            Self::Writer => format!("{start}; while :; do {count}; sleep 0.01; done"),
            Self::Trapper { code } => format!(
                "{start}; trap 'echo $i > /m/{name}.last; exit {code}' TERM; : > /m/{name}.ready; \
                 while :; do {count}; sleep 0.01; done"
            ),
            Self::Ender { code, after } => format!(
                "{start}; while [ $i -lt {LINES} ]; do {count}; done; sleep 0.{after:03}; \
                 : > /m/{name}.over; exit {code}"
            ),
        };
        let mut container = configs::shell(name, &line);
        let marks = PathBuf::from(&pod.log_directory).join("marks");
        container.mounts = vec![configs::mount(marks.to_str().unwrap(), "/m")];
        // Its input ends with its first client.
        (container.stdin, container.stdin_once) = (self == Self::Writer, self == Self::Writer);
        if shares_pid(pod) {
            let security = configs::security(&mut container);
            let options = security.namespace_options.get_or_insert_default();
            options.pid = cri::NamespaceMode::Pod.into();
        }
        container
    }

    /// The code that it ends with when nobody kills it.
    pub(crate) fn code(self) -> Option<i32> {
        match self {
            Self::Writer => None,
            Self::Trapper { code } | Self::Ender { code, .. } => Some(code),
        }
    }
}
