//! Phases of pods and containers. Variants hold only what exists in that phase.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Where a pod is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PodPhase {
    /// Namespaces and network are being made; invisible to callers.
    Booting,
    /// Containers may be created.
    Ready,
    /// Being torn down; create and start are refused.
    Stopping,
    /// Nothing of it is left but its record.
    NotReady,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(u8),
    /// This signal ended it.
    Signal(i32),
    /// Its end was not seen: its shim died, or the node went down.
    Lost,
}

impl ExitStatus {
    /// The exit code as shells and CRI clients know it: 128+n for signal n, 255 when lost.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal(signal) => 128 + signal,
            Self::Lost => 255,
        }
    }
}

/// Where a container is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContainerPhase {
    /// Being made; invisible to callers.
    Creating,
    /// Made, not started.
    Created,
    /// Its init process runs.
    Running {
        /// When it was started.
        started_at: Timestamp,
        /// Host pid of init.
        pid: i32,
    },
    /// Asked to stop; its init process may still run.
    Stopping {
        /// When it was started.
        started_at: Timestamp,
        /// Host pid of init.
        pid: i32,
    },
    /// Over.
    Exited(Exit),
}

/// The end of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// When it was started, or when the start was tried.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    pub cause: ExitCause,
}

/// Why a container is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCause {
    /// The start failed, with this message.
    StartError(String),
    /// The kernel's OOM killer struck in its cgroup, and it ended so.
    OomKilled(ExitStatus),
    /// Its init process ended.
    Exited(ExitStatus),
}

impl Exit {
    /// The exit code that CRI reports; 128 for a failed start.
    #[must_use]
    pub fn code(&self) -> i32 {
        match &self.cause {
            ExitCause::StartError(_) => 128,
            ExitCause::OomKilled(status) | ExitCause::Exited(status) => status.code(),
        }
    }

    /// The reason that CRI reports.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match &self.cause {
            ExitCause::StartError(_) => "StartError",
            ExitCause::OomKilled(_) => "OOMKilled",
            ExitCause::Exited(ExitStatus::Code(0)) => "Completed",
            ExitCause::Exited(ExitStatus::Lost) => "Unknown",
            ExitCause::Exited(_) => "Error",
        }
    }

    /// The message that CRI reports.
    #[must_use]
    pub fn message(&self) -> &str {
        match &self.cause {
            ExitCause::StartError(message) => message,
            ExitCause::OomKilled(_) | ExitCause::Exited(_) => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_read_as_callers_know_them() {
        let cases = [
            (ExitCause::Exited(ExitStatus::Code(0)), 0, "Completed"),
            (ExitCause::Exited(ExitStatus::Code(3)), 3, "Error"),
            (ExitCause::Exited(ExitStatus::Signal(9)), 137, "Error"),
            (ExitCause::Exited(ExitStatus::Lost), 255, "Unknown"),
            (
                ExitCause::OomKilled(ExitStatus::Signal(9)),
                137,
                "OOMKilled",
            ),
            (
                ExitCause::StartError("no such file".into()),
                128,
                "StartError",
            ),
        ];
        for (cause, code, reason) in cases {
            let exit = Exit {
                started_at: Timestamp(1),
                finished_at: Timestamp(2),
                cause,
            };
            assert_eq!((exit.code(), exit.reason()), (code, reason), "{exit:?}");
        }
    }
}
