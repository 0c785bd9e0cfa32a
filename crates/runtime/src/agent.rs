//! Agents: programs of the node that decide calls of a container (`SCMP_ACT_NOTIFY`). One listens at
//! the `listenerPath` of a profile, and is sent the filter of each process that runs under it.
//!
//! A call of the process may wait for the agent as soon as the filter is loaded. So the process loads
//! it, says by write(2) which descriptor that is, and waits; its maker copies the descriptor out of it.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crisp_sys::pidfd::PidFd;
use crisp_sys::socket;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};

/// How long an agent may take to be reached: what it reads then waits in its socket.
const REACHED_WITHIN: Duration = Duration::from_secs(10);

/// An agent, and the container that it is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    path: PathBuf,
    /// The agent's own words: the spec's `listenerMetadata`.
    metadata: Option<String>,
    container: Value,
}

impl Agent {
    /// # Errors
    /// [`Error::Invalid`] when the profile, which leaves calls to an agent, names none.
    pub(crate) fn of(profile: &LinuxSeccomp, spec: &Spec, id: &str, bundle: &Path) -> Result<Self> {
        let path = profile.listener_path().clone();
        let path = path.filter(|path| path.is_absolute()).ok_or_else(|| {
            let why = "SCMP_ACT_NOTIFY needs the absolute path of the socket at which somebody \
                       decides those calls";
            Error::invalid("linux.seccomp.listenerPath", why)
        })?;
        Ok(Self {
            path,
            metadata: profile.listener_metadata().clone(),
            container: json!({
                "ociVersion": spec.version(),
                "id": id,
                "bundle": bundle,
                "annotations": spec.annotations().clone().unwrap_or_default(),
            }),
        })
    }

    /// Gives the agent the filter of a process: its descriptor, in the process.
    ///
    /// # Errors
    /// When the descriptor cannot be copied (Linux 5.6 and later can), and when the agent cannot be
    /// reached.
    pub(crate) fn adopt(&self, process: Confined<'_>) -> Result<()> {
        let filter = process.pidfd.copy_of(process.descriptor);
        let filter = filter.context(|| "copy the listener of the seccomp filter")?;
        let text = self.state(process).to_string();
        let handed = socket::hand_over(&self.path, text.as_bytes(), filter.as_fd(), REACHED_WITHIN);
        handed.context(|| {
            format!(
                "send the seccomp filter to its agent (listenerPath {})",
                self.path.display()
            )
        })
    }

    /// The container process state of the OCI runtime spec (config-linux, "The Container Process
    /// State").
    fn state(&self, process: Confined<'_>) -> Value {
        let mut container = self.container.clone();
        let is_init = process.pid == process.init;
        container["status"] = if is_init { "creating" } else { "running" }.into();
        container["pid"] = process.init.into();
        let mut state = json!({
            "ociVersion": container["ociVersion"],
            "fds": ["seccompFd"],
            "pid": process.pid,
            "state": container,
        });
        if let Some(metadata) = &self.metadata {
            state["metadata"] = metadata.as_str().into();
        }
        state
    }
}

/// A process that has loaded its filter, and waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confined<'a> {
    pub pid: i32,
    pub pidfd: &'a PidFd,
    /// The container's init: the same process, or that of an exec.
    pub init: i32,
    /// The number of the descriptor on which its filter tells of calls.
    pub descriptor: i32,
}

/// Brings a process that waits together with the agent of its filter.
///
/// # Errors
/// As [`Agent::adopt`].
pub(crate) fn introduce(agent: Option<&Agent>, process: Confined<'_>) -> Result<()> {
    match agent {
        Some(agent) => agent.adopt(process),
        None => Err(Error::setup("load the seccomp filter", "it has no agent")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(path: &str, metadata: &str) -> Result<Agent> {
        let text = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW"{path}{metadata}}}"#);
        let profile: LinuxSeccomp = serde_json::from_str(&text).unwrap();
        let spec = r#"{"ociVersion": "1.2.0", "annotations": {"a": "b"}}"#;
        let spec: Spec = serde_json::from_str(spec).unwrap();
        Agent::of(&profile, &spec, "one", Path::new("/bundle"))
    }

    #[test]
    fn an_agent_is_told_which_process_of_which_container_it_decides_for() {
        let agent = agent(
            r#", "listenerPath": "/run/agent""#,
            r#", "listenerMetadata": "mine""#,
        );
        let pidfd = PidFd::open(1).unwrap();
        let process = |pid| Confined {
            pid,
            pidfd: &pidfd,
            init: 7,
            descriptor: 9,
        };
        let agent = agent.unwrap();
        let of_init = json!({
            "ociVersion": "1.2.0", "fds": ["seccompFd"], "pid": 7, "metadata": "mine",
            "state": {
                "ociVersion": "1.2.0", "id": "one", "status": "creating", "pid": 7,
                "bundle": "/bundle", "annotations": {"a": "b"},
            },
        });
        assert_eq!(agent.state(process(7)), of_init);
        let of_exec = agent.state(process(8));
        assert_eq!(of_exec["pid"], 8);
        assert_eq!(of_exec["state"]["pid"], 7);
        assert_eq!(of_exec["state"]["status"], "running");
    }

    #[test]
    fn an_agent_has_an_address() {
        for path in ["", r#", "listenerPath": "agent.sock""#] {
            let error = agent(path, "").unwrap_err().to_string();
            assert!(error.contains("linux.seccomp.listenerPath"), "{error}");
        }
        assert_eq!(
            agent(r#", "listenerPath": "/run/a""#, "").unwrap().metadata,
            None
        );
    }
}
