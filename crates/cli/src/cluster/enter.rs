//! A command in a node runs in the namespaces of the node's first process, as a child of this program,
//! with its terminal.

use std::io::{self, ErrorKind};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus};

use crisp_sys::ns::Kind;
use crisp_sys::pidfd::PidFd;

use super::foreground::Seat;
use crate::failure::{Context as _, Failure, Result};
use crate::init;
use crate::progress::say;

/// The directory in which commands begin.
const HOME: &str = "/root";
/// How a shell ends that did not find a command, or could not execute it.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTED: u8 = 126;

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
        let seat = Seat::take().context(step)?;
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
        crisp_sys::process::change_dir(Path::new(HOME)).context(step)?;
        let shell = ["/bin/sh".to_owned()];
        let words = match command.is_empty() {
            true => &shell[..],
            false => &command,
        };
        let job = match seat.start(&mut started_by(words)) {
            Ok(job) => job,
            Err(error) => {
                let (code, failure) = refusal(&node, &words[0], error);
                say(format_args!("crisp: {failure}"));
                return Ok(ExitCode::from(code));
            }
        };
        let status = job.end();
        let status = status.context(|| format!("node {node}: wait for {}", words[0]))?;
        Ok(ExitCode::from(code(status)))
    }
}

fn started_by(words: &[String]) -> Command {
    let mut command = crisp_sys::process::command(&words[0]);
    command
        .args(&words[1..])
        .env("PATH", init::PATH)
        .env("HOME", HOME);
    if let Some(terminal) = std::env::var_os("TERM") {
        command.env("TERM", terminal);
    }
    crisp_sys::process::reset_signals(&mut command);
    // Else it would stay in the node when this program is killed. Processes that it has begun stay all the same:
    // the kernel kills a child alone, and nobody is left to pass a signal on to its group.
    crisp_sys::process::end_with_parent(&mut command);
    command
}

/// The end of a command that could not be started, as a shell tells it.
fn refusal(node: &str, program: &str, error: io::Error) -> (u8, Failure) {
    let (code, remedy) = match error.kind() {
        ErrorKind::NotFound if program.contains('/') => {
            let text = "the node has no such file, or none that the file names to run it";
            (NOT_FOUND, text.to_owned())
        }
        ErrorKind::NotFound => (NOT_FOUND, format!("it is in none of {}", init::PATH)),
        _ => (
            NOT_EXECUTED,
            "name a file of the node that may be executed".to_owned(),
        ),
    };
    let failure = Failure::because(format!("node {node}: run {program}"), error);
    (code, failure.remedy(remedy))
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
    use crate::disk::write;

    #[test]
    fn ends_are_told_as_a_shell_tells_them() {
        for (wait_status, expected) in [(0, 0), (1 << 8, 1), (255 << 8, 255), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(wait_status)), expected);
        }
    }

    #[test]
    fn a_command_that_cannot_be_started_is_told_as_a_shell_tells_it() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("plain");
        write(&plain, b"").unwrap();
        for (program, code, why) in [
            ("no-such-program", 127, "it is in none of /opt/crisp:"),
            ("/no/such/program", 127, "the node has no such file"),
            (plain.to_str().unwrap(), 126, "may be executed"),
            ("/", 126, "may be executed"),
        ] {
            let error = started_by(&[program.to_owned()]).spawn().unwrap_err();
            let (ends_with, failure) = refusal("node-1", program, error);
            assert_eq!(ends_with, code, "{program}");
            let text = failure.to_string();
            assert!(
                text.starts_with(&format!("node node-1: run {program}: ")),
                "{text}"
            );
            assert!(text.contains(why), "{text}");
        }
    }
}
