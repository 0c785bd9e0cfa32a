//! A command in a node runs in the namespaces of the node's first process, as a child of this program,
//! with its terminal.

use std::process::ExitCode;

use crisp_sys::ns::Kind;
use crisp_sys::pidfd::PidFd;

use crate::failure::{Context as _, Result};
use crate::init;

/// The rest of a command, done without a runtime and its threads.
#[derive(Debug)]
pub enum Then {
    /// Nothing.
    Done,
    /// To run a command in the namespaces of a node's first process.
    Enter {
        /// The node.
        node: String,
        /// Its first process.
        process: i32,
        /// The command.
        command: Vec<String>,
    },
}

impl Then {
    /// Does it.
    pub fn finish(self) -> Result<ExitCode> {
        let Self::Enter {
            node,
            process,
            command,
        } = self
        else {
            return Ok(ExitCode::SUCCESS);
        };
        let step = || format!("node {node}: enter it");
        let first = PidFd::open(process).context(step)?;
        let kinds = [
            Kind::Mount,
            Kind::Pid,
            Kind::Net,
            Kind::Ipc,
            Kind::Uts,
            Kind::Cgroup,
        ];
        crisp_sys::ns::enter_all_of(&first, &kinds).context(step)?;
        let shell = ["/bin/sh".to_owned()];
        let words = match command.is_empty() {
            true => &shell[..],
            false => &command,
        };
        let mut command = crisp_sys::process::command(&words[0]);
        command
            .args(&words[1..])
            .env("PATH", init::PATH)
            .env("HOME", "/root");
        if let Some(terminal) = std::env::var_os("TERM") {
            command.env("TERM", terminal);
        }
        let status = command.current_dir("/root").status();
        let status = status.context(|| format!("node {node}: run {}", words[0]))?;
        // A shell tells of a signal in the same way.
        let code = status.code().unwrap_or(128 + 9);
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
    }
}
