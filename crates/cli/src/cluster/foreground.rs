//! A command in a node has a process group of its own, and the terminal, as a shell gives both to a job: the
//! group of this program has no number where the node's processes are, and a shell there needs one. Signals that
//! ask this program to end or to stop are meant for the command, and are passed on to its group.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use crisp_sys::process::own_group;
use crisp_sys::signals::{self, SignalFd};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_current_process_group, kill_process, kill_process_group,
    test_kill_process_group, waitpid,
};
use rustix::termios::{tcgetpgrp, tcsetpgrp};
use tokio::signal::unix::SignalKind;

use crate::interrupt::is_ignored;

/// Signals that ask a command to end, and more that are for it.
const ENDS: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];
const OTHERS: [Signal; 4] = [Signal::TSTP, Signal::CONT, Signal::USR1, Signal::USR2];
/// Keys of the terminal send these to all of its foreground.
const KEYS: [Signal; 3] = [Signal::INT, Signal::QUIT, Signal::TSTP];
/// How long processes may outlast the command that began them, where it was asked to end.
const GRACE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// The signals and the terminal of this program, which it has for a command.
#[derive(Debug)]
pub struct Seat {
    passed: Vec<Signal>,
    terminal: Option<File>,
    grace: Duration,
}

impl Seat {
    /// Takes them: from now on all signals wait for the command. In a node, procfs and devices are the node's.
    pub fn take() -> io::Result<Self> {
        let all = ENDS.into_iter().chain(OTHERS);
        // As where nohup(1) began this program, or a shell in the background.
        let passed = all.filter(|signal| !is_ignored(SignalKind::from_raw(signal.as_raw())));
        let passed = passed.collect();
        drop(SignalFd::block_all()?);
        let terminal = File::options().read(true).write(true).open("/dev/tty");
        Ok(Self {
            passed,
            terminal: terminal.ok(),
            grace: GRACE,
        })
    }

    /// Starts a command. It stays in this program's group where that has a terminal and no number in its own PID
    /// namespace: the terminal could not be given back.
    pub fn start(self, command: &mut Command) -> io::Result<Job> {
        let own = own_group().and_then(Pid::from_raw);
        let leads = own.is_some() || self.terminal.is_none();
        if leads {
            command.process_group(0);
        }
        let child = Pid::from_child(&command.spawn()?);
        let terminal = self.terminal.zip(own).map(|(file, own)| Terminal {
            // Of a pipeline another program may read keys, as less(1) does.
            is_wanted: tcgetpgrp(io::stdin()).is_ok() && tcgetpgrp(io::stdout()).is_ok(),
            file,
            own,
        });
        Ok(Job {
            child,
            group: leads.then_some(child),
            terminal,
            passed: self.passed,
            grace: self.grace,
            is_to_end: false,
        })
    }
}

/// A command that was started.
#[derive(Debug)]
pub struct Job {
    child: Pid,
    /// The group that it leads.
    group: Option<Pid>,
    terminal: Option<Terminal>,
    passed: Vec<Signal>,
    grace: Duration,
    is_to_end: bool,
}

impl Job {
    /// Passes signals on until it ends.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        self.go_on()?;
        loop {
            let Some((number, _)) = signals::wait(None)? else {
                continue;
            };
            let signal = Signal::from_named_raw(number);
            if signal == Some(Signal::CHILD) {
                if let Some(status) = self.look()? {
                    return Ok(status);
                }
            } else if let Some(signal) = signal.filter(|signal| self.passed.contains(signal)) {
                self.is_to_end |= ENDS.contains(&signal);
                self.pass(signal);
            }
        }
    }

    /// Passes a signal on. Keys reach a command that is in this program's group by themselves. A command that has
    /// ended is known by its end.
    fn pass(&self, signal: Signal) {
        let passed = match self.group {
            Some(group) => kill_process_group(group, signal),
            None if KEYS.contains(&signal) => Ok(()),
            None => kill_process(self.child, signal),
        };
        passed.ok();
    }

    /// Has it go on, with the terminal where that is for it.
    fn go_on(&self) -> io::Result<()> {
        if let Some(terminal) = &self.terminal {
            terminal.give(self.child)?;
        }
        self.pass(Signal::CONT);
        Ok(())
    }

    /// Its end, where it has ended.
    fn look(&mut self) -> io::Result<Option<ExitStatus>> {
        let options = WaitOptions::NOHANG | WaitOptions::UNTRACED;
        while let Some((_, status)) = waitpid(Some(self.child), options)? {
            if let Some(signal) = status.stopping_signal() {
                self.stop(signal)?;
                continue;
            }
            if let Some(terminal) = &self.terminal {
                terminal.take_back(self.child)?;
            }
            if let (true, Some(group)) = (self.is_to_end, self.group) {
                sweep(group, self.grace);
            }
            return Ok(Some(ExitStatus::from_raw(status.as_raw())));
        }
        Ok(None)
    }

    /// Stops this program with a command that was stopped, as by a key, until a shell has both go on. Without a
    /// terminal there is no such shell. A command that asked for the terminal gets it, where it is here.
    fn stop(&mut self, signal: i32) -> io::Result<()> {
        let Some(terminal) = &mut self.terminal else {
            return Ok(());
        };
        let asks = [Signal::TTIN.as_raw(), Signal::TTOU.as_raw()].contains(&signal);
        if asks && (terminal.is_of(terminal.own) || terminal.is_of(self.child)) {
            terminal.is_wanted = true;
        } else {
            terminal.take_back(self.child)?;
            kill_current_process_group(Signal::STOP)?;
        }
        self.go_on()
    }
}

/// Ends what is left of a group whose leader has ended: it was asked to end as well, and has some time for that.
/// A number is the group's for as long as one process is in it.
fn sweep(group: Pid, grace: Duration) {
    let deadline = Instant::now() + grace;
    while test_kill_process_group(group).is_ok() {
        if Instant::now() > deadline {
            kill_process_group(group, Signal::KILL).ok();
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The terminal of this program's session.
#[derive(Debug)]
struct Terminal {
    file: File,
    /// This program's group.
    own: Pid,
    /// Whether the command is to have it: its standard input and output are it, or it asked for it.
    is_wanted: bool,
}

impl Terminal {
    fn is_of(&self, group: Pid) -> bool {
        tcgetpgrp(&self.file) == Ok(group)
    }

    /// As all signals are blocked, this program is not stopped when it does so from the background.
    fn give(&self, group: Pid) -> io::Result<()> {
        if self.is_wanted && self.is_of(self.own) {
            tcsetpgrp(&self.file, group)?;
        }
        Ok(())
    }

    fn take_back(&self, group: Pid) -> io::Result<()> {
        if self.is_of(group) {
            tcsetpgrp(&self.file, self.own)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::process::Stdio;

    use crisp_sys::process::ProcessId;

    use super::*;

    const SCRIPT: &str = "CRISP_TEST_RUNS";
    const NAME: &str =
        "cluster::foreground::tests::a_command_is_asked_to_end_with_its_caller_and_leaves_nothing";

    /// Starts this test's own program once more, which runs a script as a command. Its threads have all signals
    /// blocked, as the only one of `exec` has.
    fn caller(script: &str) -> std::process::Child {
        let script = script.to_owned();
        let start = move || {
            let _blocked = SignalFd::block_all().unwrap();
            crisp_sys::process::command(std::env::current_exe().unwrap())
                .args(["--exact", "--nocapture", NAME])
                .env(SCRIPT, script)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap()
        };
        std::thread::spawn(start).join().unwrap()
    }

    fn runs(script: &str) {
        let mut seat = Seat::take().unwrap();
        seat.grace = Duration::from_secs(1);
        let mut command = crisp_sys::process::command("sh");
        crisp_sys::process::reset_signals(&mut command);
        let job = seat.start(command.args(["-c", script])).unwrap();
        println!("ended {}", job.end().unwrap().into_raw());
    }

    #[test]
    fn a_command_is_asked_to_end_with_its_caller_and_leaves_nothing() {
        if let Ok(script) = std::env::var(SCRIPT) {
            runs(&script);
            return;
        }
        let code = |code: i32| code << 8;
        for (signal, script, end) in [
            (
                Signal::TERM,
                "trap 'exit 7' TERM; echo ready $$; sleep 20 & wait",
                code(7),
            ),
            (
                Signal::HUP,
                "trap 'exit 7' HUP; echo ready $$; sleep 20 & wait",
                code(7),
            ),
            (
                Signal::USR1,
                // The rest of its group is not asked to end, and goes on: not for long.
                "trap 'exit 7' USR1; echo ready $$; while :; do sleep 0.1; done",
                code(7),
            ),
            // A child of the command.
            (
                Signal::TERM,
                "sleep 20 & echo ready $!; wait; true",
                Signal::TERM.as_raw(),
            ),
            // A child that cleans up.
            (
                Signal::TERM,
                "sh -c 'trap \"echo cleaned; exit\" TERM; echo ready $$; sleep 20 & wait'; true",
                Signal::TERM.as_raw(),
            ),
            // It ignores the signal.
            (
                Signal::TERM,
                "sh -c 'trap \"\" TERM; echo ready $$; exec sleep 20' & wait",
                Signal::TERM.as_raw(),
            ),
        ] {
            if !is_ignored(SignalKind::from_raw(signal.as_raw())) {
                assert_eq!(asked(script, signal), end, "{script}");
            }
        }
    }

    /// How a command ends whose caller gets a signal. The process that it names is gone then.
    fn asked(script: &str, signal: Signal) -> i32 {
        let mut caller = caller(script);
        let output = BufReader::new(caller.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        // The test's own words may stand before it.
        let mut word = |word: &str| {
            let found = lines.find_map(|line| Some(line.split_once(word)?.1.to_owned()));
            found.unwrap_or_else(|| panic!("{script}: no {word}"))
        };
        let process = ProcessId::of(word("ready ").parse().unwrap()).unwrap();
        kill_process(Pid::from_child(&caller), signal).unwrap();
        if script.contains("cleaned") {
            word("cleaned");
        }
        let end = word("ended ").parse().unwrap();
        assert!(caller.wait().unwrap().success());
        let deadline = Instant::now() + Duration::from_secs(10);
        while process.is_alive() {
            assert!(Instant::now() < deadline, "{script}: it lives on");
            std::thread::sleep(PAUSE);
        }
        end
    }

    #[test]
    fn processes_of_a_command_that_ends_by_itself_go_on() {
        let mut caller = caller("sleep 20 >/dev/null & echo ready $!");
        let output = BufReader::new(caller.stdout.take().unwrap());
        let mut lines = output.lines().map(Result::unwrap);
        let left = lines.find_map(|line| line.split_once("ready ")?.1.parse().ok());
        let left = ProcessId::of(left.unwrap()).unwrap();
        assert!(caller.wait().unwrap().success());
        assert!(left.is_alive());
        kill_process(Pid::from_raw(left.pid).unwrap(), Signal::KILL).unwrap();
    }
}
