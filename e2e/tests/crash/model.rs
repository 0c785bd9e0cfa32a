//! A client's knowledge of its pods and containers: calls that were answered, and calls that were
//! sent and may or may not have been served.

use crisp_api::runtime::v1 as cri;
use crisp_e2e::configs;

/// The program of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It writes numbered lines until it is stopped.
    Writer,
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

/// A container that was answered for.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) stage: Stage,
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
    RunPod(Box<cri::PodSandboxConfig>),
    StopPod(usize),
    RemovePod(usize),
    Create(usize, String, Kind),
    Start(usize, usize),
    Exec(usize, usize),
    Stop(usize, usize),
    Remove(usize, usize),
}

impl Wish {
    /// The pod that it is about.
    pub(crate) fn pod(&self) -> Option<usize> {
        match self {
            Self::RunPod(_) => None,
            Self::StopPod(pod) | Self::RemovePod(pod) | Self::Create(pod, ..) => Some(*pod),
            Self::Start(pod, _)
            | Self::Exec(pod, _)
            | Self::Stop(pod, _)
            | Self::Remove(pod, _) => Some(*pod),
        }
    }

    /// The container that it is about.
    pub(crate) fn container(&self) -> Option<(usize, usize)> {
        match self {
            Self::Start(pod, one) | Self::Stop(pod, one) | Self::Remove(pod, one) => {
                Some((*pod, *one))
            }
            _ => None,
        }
    }
}

impl Kind {
    /// The container as it is asked for.
    pub(crate) fn config(self, name: &str) -> cri::ContainerConfig {
        match self {
            Self::Writer => {
                let line = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done";
                configs::shell(name, line)
            }
            Self::Ender { code, after } => {
                configs::shell(name, &format!("sleep 0.{after:03}; exit {code}"))
            }
        }
    }
}
