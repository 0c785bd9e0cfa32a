//! A command in a node runs in the namespaces of the node's first process, as a child of this program,
//! with its terminal.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use crisp_sys::ns::Kind;
use crisp_sys::pidfd::PidFd;

use super::foreground;
use crate::failure::{Context as _, Result};
use crate::init;

const SIGINT: i32 = 2;
const SIGQUIT: i32 = 3;

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
        // Keys of the terminal are for the command, which may go on, and is waited for then.
        for signal in [SIGINT, SIGQUIT] {
            crisp_sys::signals::ignore(signal).context(step)?;
        }
        crisp_sys::process::reset_signals(&mut command);
        // Else it would stay in the node when this program is ended, as by timeout(1) or a job that is given up.
        crisp_sys::process::end_with_parent(&mut command);
        let status = foreground::status(command.current_dir("/root"));
        let status = status.context(|| format!("node {node}: run {}", words[0]))?;
        Ok(ExitCode::from(code(status)))
    }
}

/// The end of a command, as a shell tells it: that by a signal is 128 and its number.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_told_as_a_shell_tells_them() {
        for (wait_status, expected) in [(0, 0), (1 << 8, 1), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(wait_status)), expected);
        }
    }
}
