//! The end of processes and of the container: reaped, recorded, then told.

use std::io;

use crisp_model::cgroup::EXEC_PREFIX;
use crisp_model::{ExitStatus, Signal, Timestamp};
use crisp_shim_api::{Event, ExitRecord, FailureKind};
use crisp_sys::cgroup::Cgroup;
use crisp_sys::process::{WaitStatus, reap_any};
use crisp_sys::{clock, file};

use crate::container::{Init, Parent};
use crate::error::{Context, Result};
use crate::shim::{Next, Phase, Purpose, Shim, Stays, Waits};
use crate::worker::Report;

/// How long the last output is waited for while somebody has the pipes open: everything in the
/// container is dead by then, so whoever it is is a stranger.
const DRAIN: i64 = 2_000_000_000;

impl Shim {
    /// Reaps every child that has ended.
    pub(crate) fn reap(&mut self) -> Result<()> {
        while let Some((pid, status)) = reap_any().context(|| "reap an ended child")? {
            self.ended(pid, status);
        }
        Ok(())
    }

    fn ended(&mut self, pid: i32, status: WaitStatus) {
        if !self.is_known(pid) {
            // A worker's child becomes ours when the worker ends, and its report was sent before.
            let workers: Vec<i32> = self.errands.iter().map(|e| e.worker.pid()).collect();
            for worker in workers {
                self.collect(worker);
            }
        }
        if status == WaitStatus::Signal(Signal::KILL.number()) {
            self.look_for_oom();
        }
        if self.errands.iter().any(|errand| errand.worker.pid() == pid) {
            self.worker_ended(pid, status);
        } else if let Some(exec) = self.execs.remove(&pid) {
            self.exec_ended(exec.id, status);
        } else if self.is_own_init(pid) {
            self.init_ended(status);
        }
    }

    /// The pid of an init that is another's child may be given to a child of ours once it is over.
    fn is_own_init(&self, pid: i32) -> bool {
        let is_it = |init: &Init| init.parent == Parent::Us && init.id.pid == pid;
        matches!(&self.phase, Phase::Running(init) if is_it(init))
    }

    fn is_known(&self, pid: i32) -> bool {
        self.execs.contains_key(&pid) || self.is_own_init(pid)
    }

    pub(crate) fn look_for_oom(&mut self) {
        let kills = self.container.cgroup.oom_kills().unwrap_or(0);
        if kills > self.oom_kills {
            self.oom_kills = kills;
            self.oom = true;
            self.clients.broadcast(&Event::Oom);
        }
    }

    /// A worker has ended; one that said nothing was killed, and what it made goes with it.
    fn worker_ended(&mut self, pid: i32, status: WaitStatus) {
        self.collect(pid);
        let Some(index) = self.errands.iter().position(|e| e.worker.pid() == pid) else {
            return;
        };
        let errand = self.errands.remove(index);
        let kind = match &errand.purpose {
            Purpose::Launch => FailureKind::Start,
            Purpose::Exec(exec) => {
                let cgroup = self.container.exec_cgroup(&exec.id);
                if cgroup.unified_dir().is_some_and(|dir| dir.is_dir()) {
                    // A survivor is removed with the container's cgroup at its end.
                    drop(kill(&cgroup));
                }
                FailureKind::Exec
            }
            Purpose::Update { .. } => FailureKind::Io,
        };
        let message = format!("the shim's worker ended early: {status:?}");
        let report = Report::Failed {
            kind,
            message,
            errno: None,
        };
        self.conclude(errand.purpose, (report, Vec::new()));
    }

    fn exec_ended(&mut self, exec_id: String, status: WaitStatus) {
        self.sweep_execs();
        let status = exit_status(status);
        let event = Event::ExecExited { exec_id, status };
        self.clients.broadcast(&event);
    }

    /// Removes the empty cgroups of execs: of the one that has ended, and of earlier ones whose
    /// background processes have ended since. Cgroups of execs that are being started are empty
    /// too, but wanted. A cgroup that was killed may still hold processes that are dying: such are
    /// tried again when all is quiet.
    pub(crate) fn sweep_execs(&mut self) {
        self.unswept = 0;
        let Some(dir) = self.container.cgroup.unified_dir() else {
            return;
        };
        let Ok(entries) = std::fs::read_dir(dir) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let exec_id = name
                .to_str()
                .and_then(|name| name.strip_prefix(EXEC_PREFIX));
            if exec_id.is_some_and(|exec_id| !self.is_starting(exec_id)) {
                // The kernel refuses to remove a cgroup that holds processes.
                self.unswept += usize::from(std::fs::remove_dir(entry.path()).is_err());
            }
        }
    }

    fn init_ended(&mut self, status: WaitStatus) {
        self.look_for_oom();
        self.record_end(ExitRecord {
            status: exit_status(status),
            finished_at: Timestamp(clock::now()),
            oom: self.oom,
        });
    }

    /// Records the end, first of all; then whatever is left of the container is killed.
    pub(crate) fn record_end(&mut self, exit: ExitRecord) {
        let Phase::Running(init) = &self.phase else {
            return;
        };
        let init = init.id;
        // Without the slot the answer to State is all there is.
        drop(file::fill_slot(&self.container.exit_file, &exit.to_slot()));
        self.kill_starting();
        drop(kill(&self.container.cgroup));
        self.output.let_end();
        let until = clock::monotonic().saturating_add(DRAIN);
        self.phase = Phase::Draining { init, exit, until };
    }

    /// Ends the drain when it is time, and the shim when nothing keeps it.
    pub(crate) fn after_turn(&mut self) -> Next {
        self.end_drain();
        self.tell_detached();
        match self.answer_waiting(Waits::Shutdown) {
            Next::Leave => Next::Leave,
            Next::Stay => self.leave_unasked(),
        }
    }

    /// Ends the drain when it is time, and tells.
    fn end_drain(&mut self) {
        let Phase::Draining { init, exit, until } = self.phase else {
            return;
        };
        if !self.output.is_over() && clock::monotonic() < until {
            return;
        }
        self.output.finish();
        self.input = None;
        // Once more: a worker may have found init alive, and started its process since. Where the
        // container shares its PID namespace, that one did not end with init. It was born in the
        // version 2 tree, where there is one.
        if self.container.cgroup.is_populated_in_v2() != Some(false) {
            drop(kill(&self.container.cgroup));
        }
        self.phase = Phase::Over { init, exit };
        self.clients.broadcast(&Event::Exited(exit));
        // A cgroup that cannot be removed yet is tried again at the shutdown.
        drop(self.container.cgroup.remove());
    }

    /// Leaves, if it was told to end and knows nothing that is not recorded.
    fn leave_unasked(&mut self) -> Next {
        let Phase::Over { exit, .. } = self.phase else {
            return Next::Stay;
        };
        if self.stays == Stays::UntilTold {
            return Next::Stay;
        }
        // A disk that was full at the end may have room by now.
        if file::fill_slot(&self.container.exit_file, &exit.to_slot()).is_err() {
            return Next::Stay;
        }
        // A cgroup that cannot be removed yet goes when the container is removed.
        drop(self.container.destroy());
        Next::Leave
    }
}

/// Kills every process of a cgroup; one that is not there has none.
pub(crate) fn kill(cgroup: &Cgroup) -> io::Result<()> {
    if cgroup.exists() {
        cgroup.kill()
    } else {
        Ok(())
    }
}

pub(crate) fn exit_status(status: WaitStatus) -> ExitStatus {
    match status {
        WaitStatus::Code(code) => ExitStatus::Code(code),
        WaitStatus::Signal(signal) => ExitStatus::Signal(signal),
    }
}
