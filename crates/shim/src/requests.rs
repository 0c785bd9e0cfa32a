//! Requests of the daemon and their answers. Slow ones are given to a forked worker; nothing here
//! waits.

use std::io;
use std::os::fd::OwnedFd;

use crisp_model::Signal;
use crisp_shim_api::{
    ExecRequest, ExecStreams, ExecWords, FailureKind, Orphan, Reply, Request, StateReport,
};
use oci_spec::runtime::LinuxResources;

use crate::clients::{Asked, Asker};
use crate::ending;
use crate::shim::{Errand, Exec, Next, Phase, Purpose, Shim, Waits};
use crate::worker::{Report, Reported, Worker};

/// Longest name of an exec.
const MAX_EXEC_ID: usize = 128;

fn not_running() -> Reply {
    Reply::failed(FailureKind::NotRunning, "the container is not running")
}

/// Done, or what the kernel said.
fn outcome(step: &str, result: io::Result<()>) -> Reply {
    match result {
        Ok(()) => Reply::Done,
        Err(error) => Reply::Failed {
            kind: FailureKind::Io,
            message: format!("{step}: {error}"),
            errno: error.raw_os_error(),
        },
    }
}

impl Shim {
    /// Answers one request, now or later.
    pub(crate) fn answer(&mut self, asked: Asked) -> Next {
        let Asked { by, request, fds } = asked;
        let reply = match request {
            Request::Signal { signal } => Some(self.signal(signal)),
            Request::KillAll => Some(self.kill_all()),
            Request::Exec(exec) => self.exec(by, &exec, fds),
            Request::KillExec { exec_id } => Some(self.kill_exec(&exec_id)),
            Request::Attach(attach) => Some(self.attach(by, *attach, fds)),
            Request::ConfirmAttach { attach_id } => Some(self.confirm_attach(by, &attach_id)),
            Request::CloseInput => Some(self.close_input()),
            Request::Update { resources } => self.update(by, &resources),
            Request::ReopenLog => Some(self.reopen_log()),
            Request::State => {
                self.tell_state(by);
                None
            }
            Request::Shutdown => return self.shut_down(by),
        };
        if let Some(reply) = reply {
            self.clients.reply(by, reply, Vec::new());
        }
        Next::Stay
    }

    fn send_out(&mut self, worker: io::Result<Worker>, purpose: Purpose) -> Option<Reply> {
        match worker {
            Ok(worker) => {
                self.errands.push(Errand { worker, purpose });
                None
            }
            Err(error) => Some(Reply::failed(FailureKind::Io, format!("fork: {error}"))),
        }
    }

    fn signal(&self, signal: Signal) -> Reply {
        let Phase::Running(init) = &self.phase else {
            return not_running();
        };
        outcome("signal init", init.pidfd.signal(signal.number()))
    }

    fn kill_all(&self) -> Reply {
        match self.phase {
            Phase::Over { .. } | Phase::Failed => Reply::Done,
            _ => outcome("kill the container", ending::kill(&self.container.cgroup)),
        }
    }

    fn reopen_log(&mut self) -> Reply {
        match self.phase {
            Phase::Over { .. } | Phase::Failed => not_running(),
            _ => outcome("reopen the log", self.output.reopen()),
        }
    }

    fn update(&mut self, by: Asker, resources: &LinuxResources) -> Option<Reply> {
        if !matches!(self.phase, Phase::Running(_)) {
            return Some(not_running());
        }
        let worker = Worker::spawn(|| self.container.update(resources));
        self.send_out(worker, Purpose::Update { asker: by })
    }

    /// An update's worker has reported.
    pub(crate) fn updated(&mut self, asker: Asker, report: Report) {
        let reply = match report {
            // The container ended meanwhile, and its cgroup with it.
            Report::Failed { .. } if !matches!(self.phase, Phase::Running(_)) => not_running(),
            Report::Failed {
                kind,
                message,
                errno,
            } => Reply::Failed {
                kind,
                message,
                errno,
            },
            Report::Done | Report::Started { .. } => Reply::Done,
        };
        self.clients.reply(asker, reply, Vec::new());
    }

    fn exec(&mut self, by: Asker, request: &ExecRequest, fds: Vec<OwnedFd>) -> Option<Reply> {
        let Phase::Running(init) = &self.phase else {
            return Some(not_running());
        };
        let streams = match &request.process {
            Some(process) if process.terminal() == Some(true) => ExecStreams::Terminal,
            Some(_) => ExecStreams::Descriptors,
            None => request.streams,
        };
        let wanted = match streams {
            ExecStreams::Descriptors => 3,
            ExecStreams::Terminal => 0,
        } + match request.words {
            ExecWords::InFrame => 0,
            ExecWords::InFile => 1,
        };
        if fds.len() != wanted {
            let text = format!("an exec with {} descriptors", fds.len());
            return Some(Reply::failed(FailureKind::Io, text));
        }
        let exec_id = request.exec_id.clone();
        if !is_exec_id(&exec_id) || self.knows(&exec_id) {
            let text = format!("{exec_id:?} is in use, or no name for an exec");
            return Some(Reply::failed(FailureKind::Exec, text));
        }
        let worker = Worker::spawn(|| self.container.exec(init, request, fds));
        let exec = Exec {
            id: exec_id,
            asker: by,
            orphan: request.orphan,
        };
        self.send_out(worker, Purpose::Exec(exec))
    }

    /// Execs that a worker is about to start.
    fn starting(&self) -> impl Iterator<Item = (&Exec, &Worker)> {
        self.errands
            .iter()
            .filter_map(|errand| match &errand.purpose {
                Purpose::Exec(exec) => Some((exec, &errand.worker)),
                Purpose::Launch | Purpose::Update { .. } => None,
            })
    }

    /// Stops the workers that are about to start an exec.
    pub(crate) fn kill_starting(&self) {
        self.starting().for_each(|(_, worker)| worker.kill());
    }

    /// Whether a worker is about to start an exec.
    pub(crate) fn is_starting(&self, exec_id: &str) -> bool {
        self.starting().any(|(exec, _)| exec.id == exec_id)
    }

    fn knows(&self, exec_id: &str) -> bool {
        self.is_starting(exec_id) || self.execs.values().any(|exec| exec.id == exec_id)
    }

    /// Kills what was asked for by somebody who has left and would not want it to run on.
    pub(crate) fn kill_orphans(&mut self) {
        let starting = self.starting().map(|(exec, _)| exec);
        let all = starting.chain(self.execs.values());
        let orphans = all
            .filter(|exec| exec.orphan == Orphan::IsKilled && !self.clients.has(exec.asker.client));
        for id in orphans.map(|exec| exec.id.clone()).collect::<Vec<_>>() {
            // The asker is gone, so the outcome has no reader.
            drop(self.kill_exec(&id));
            // Once is enough for those that run.
            for exec in self.execs.values_mut().filter(|exec| exec.id == id) {
                exec.orphan = Orphan::RunsOn;
            }
        }
    }

    /// An exec's worker has reported.
    pub(crate) fn execed(&mut self, exec: Exec, (report, fds): Reported) {
        let asker = exec.asker;
        match report {
            Report::Started { pid, .. } => {
                self.execs.insert(pid, exec);
                // The pidfd stays here: the daemon gets the terminal's master, if there is one.
                let console = fds.into_iter().skip(1).collect();
                self.clients.reply(asker, Reply::Exec { pid }, console);
            }
            Report::Failed { .. } if !matches!(self.phase, Phase::Running(_)) => {
                self.clients.reply(asker, not_running(), Vec::new());
            }
            Report::Failed {
                kind,
                message,
                errno,
            } => {
                let reply = Reply::Failed {
                    kind,
                    message,
                    errno,
                };
                self.clients.reply(asker, reply, Vec::new());
            }
            Report::Done => {}
        }
    }

    /// Kills an exec's cgroup: its process and all descendants, and nobody else. It is there as
    /// long as one of them is.
    fn kill_exec(&self, exec_id: &str) -> Reply {
        let unknown = || Reply::failed(FailureKind::NoSuchExec, format!("no exec {exec_id:?}"));
        if !is_exec_id(exec_id) {
            return unknown();
        }
        for (exec, worker) in self.starting() {
            if exec.id == exec_id {
                worker.kill();
            }
        }
        let cgroup = self.container.exec_cgroup(exec_id);
        let has_cgroup = cgroup.unified_dir().is_some_and(|dir| dir.is_dir());
        if has_cgroup {
            return outcome("kill the exec", ending::kill(&cgroup));
        }
        // Without a version 2 tree there is but the process itself.
        let pid = self.execs.iter().find(|(_, exec)| exec.id == exec_id);
        match pid {
            Some((pid, _)) => outcome(
                "kill the exec",
                crisp_sys::signals::kill(*pid, Signal::KILL.number()),
            ),
            None if self.knows(exec_id) => Reply::Done,
            None => unknown(),
        }
    }

    fn tell_state(&mut self, by: Asker) {
        let (init, exit) = match &self.phase {
            Phase::Starting => return self.waiting.push((by, Waits::State)),
            Phase::Failed => return self.clients.reply(by, not_running(), Vec::new()),
            // Before the end is told, output may still be logged: until then it counts as running.
            Phase::Running(init) => (init.id, None),
            Phase::Draining { init, .. } => (*init, None),
            Phase::Over { init, exit } => (*init, Some(*exit)),
        };
        let (streams, fds) = self.lend();
        let report = StateReport {
            pid: init.pid,
            start_time: init.start_time,
            exit,
            streams,
        };
        self.clients.reply(by, Reply::State(report), fds);
    }

    /// Answers whoever waits for this.
    pub(crate) fn answer_waiting(&mut self, what: Waits) -> Next {
        let waiting = std::mem::take(&mut self.waiting);
        let (now, later) = waiting.into_iter().partition(|(_, waits)| *waits == what);
        self.waiting = later;
        let now: Vec<(Asker, Waits)> = now;
        let mut next = Next::Stay;
        for (asker, waits) in now {
            match waits {
                Waits::State => self.tell_state(asker),
                Waits::Shutdown => next = self.shut_down(asker),
            }
        }
        next
    }

    /// Whether nobody waits for something that only this shim has: the end of a command, the last
    /// output.
    fn owes_nothing(&self) -> bool {
        self.execs.is_empty() && self.errands.is_empty() && self.output.sinks.is_empty()
    }

    fn shut_down(&mut self, by: Asker) -> Next {
        match self.phase {
            Phase::Starting | Phase::Running(_) => {
                let reply = Reply::failed(FailureKind::Running, "the container still runs");
                self.clients.reply(by, reply, Vec::new());
                return Next::Stay;
            }
            // The callers of commands that were killed with the container are told first.
            Phase::Over { .. } if self.owes_nothing() => {}
            Phase::Over { .. } => {
                self.output.sinks.hurry();
                self.waiting.push((by, Waits::Shutdown));
                return Next::Stay;
            }
            Phase::Draining { .. } => {
                self.waiting.push((by, Waits::Shutdown));
                return Next::Stay;
            }
            Phase::Failed => {}
        }
        match self.container.destroy() {
            Ok(()) => {
                self.clients.reply(by, Reply::Done, Vec::new());
                Next::Leave
            }
            Err(error) => {
                let reply = Reply::failed(FailureKind::Io, error.to_string());
                self.clients.reply(by, reply, Vec::new());
                Next::Stay
            }
        }
    }
}

/// The name becomes a part of a path.
fn is_exec_id(text: &str) -> bool {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
    !text.is_empty() && text.len() <= MAX_EXEC_ID && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_execs_are_no_paths() {
        assert!(is_exec_id("probe-7f"));
        for bad in ["", "..", "a/b", "A", "a b", &"x".repeat(129)] {
            assert!(!is_exec_id(bad), "{bad:?}");
        }
    }
}
