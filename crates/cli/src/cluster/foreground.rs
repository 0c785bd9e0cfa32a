//! A command in a node has a process group of its own, and the terminal, as a shell gives both to a job.
//! The group of this program has no number where the node's processes are, and a shell there needs one.

use std::io::{self, Stdin};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};

use crisp_sys::process::own_group;
use crisp_sys::signals;
use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, WaitOptions, kill_current_process_group, kill_process_group, waitpid,
};
use rustix::termios::{tcgetpgrp, tcsetpgrp};

/// Runs a command until it ends. Where this program has no terminal, or not its foreground, or a group that
/// has no number in its own PID namespace, the command is in this program's group.
pub fn status(command: &mut Command) -> io::Result<ExitStatus> {
    let Some(own) = own_group().and_then(Pid::from_raw) else {
        return command.status();
    };
    let terminal = Terminal {
        stdin: io::stdin(),
        own,
    };
    if !terminal.is_of(terminal.own) {
        return command.status();
    }
    // Not stopped when it takes the terminal back from the command.
    signals::ignore(Signal::TTOU.as_raw())?;
    let child = Pid::from_child(&command.process_group(0).spawn()?);
    terminal.runs(child)
}

struct Terminal {
    stdin: Stdin,
    own: Pid,
}

impl Terminal {
    fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.stdin).is_ok_and(|present| present == group)
    }

    /// Gives the terminal to a command and waits for its end. It is stopped with the command, by a key, and
    /// goes on with it.
    fn runs(&self, child: Pid) -> io::Result<ExitStatus> {
        loop {
            if self.is_of(self.own) {
                tcsetpgrp(&self.stdin, child)?;
            }
            kill_process_group(child, Signal::CONT).ok();
            let signal = match wait(child)? {
                End::Ended(status) => {
                    self.take_back(child)?;
                    return Ok(status);
                }
                End::Stopped(signal) => signal,
            };
            let asks = [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal);
            if asks && (self.is_of(self.own) || self.is_of(child)) {
                continue;
            }
            self.take_back(child)?;
            kill_current_process_group(Signal::STOP)?;
        }
    }

    fn take_back(&self, child: Pid) -> io::Result<()> {
        if self.is_of(child) {
            tcsetpgrp(&self.stdin, self.own)?;
        }
        Ok(())
    }
}

enum End {
    Ended(ExitStatus),
    Stopped(i32),
}

fn wait(child: Pid) -> io::Result<End> {
    loop {
        match waitpid(Some(child), WaitOptions::UNTRACED) {
            Ok(Some((_, status))) => {
                return Ok(match status.stopping_signal() {
                    Some(signal) => End::Stopped(signal),
                    None => End::Ended(ExitStatus::from_raw(status.as_raw())),
                });
            }
            Ok(None) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
