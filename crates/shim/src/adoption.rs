//! A shim that was killed is replaced by another: what the daemon keeps for it, and how it takes
//! its container over.
//!
//! The container's init is no child of a shim that came later. How it ended is then what the
//! kernel tells to those who hold a pidfd of it.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use crisp_model::{ExitStatus, Timestamp};
use crisp_shim_api::exit::SLOT_SIZE;
use crisp_shim_api::{Adoption, ExitRecord, Reply, StreamEnd};
use crisp_sys::process::{ProcessId, WaitStatus, status_of_zombie};
use crisp_sys::{clock, file};

use crate::container::{Init, Parent};
use crate::ending::exit_status;
use crate::error::{Context, Error, Result};
use crate::log::Channel;
use crate::shim::{LAUNCHER, Phase, Shim, failure};

/// How long the kernel is asked for the end of an init that was another's child, milliseconds
/// between one time and the next.
const ASKED: [u64; 4] = [0, 1, 10, 100];

impl Shim {
    /// Takes over a container that runs, and tells whether it could.
    ///
    /// # Errors
    /// When the descriptors are not init's pidfd and then those of the streams; the daemon is told.
    pub(crate) fn adopt(&mut self, adoption: &Adoption, fds: Vec<OwnedFd>) -> Result<()> {
        let adopted = self.try_adopt(adoption, fds);
        match &adopted {
            Ok(()) => self.tell_started(Vec::new()),
            Err(error) => self.clients.reply(LAUNCHER, failure(error), Vec::new()),
        }
        adopted
    }

    fn try_adopt(&mut self, adoption: &Adoption, fds: Vec<OwnedFd>) -> Result<()> {
        let streams = &adoption.streams;
        if fds.len() != streams.len() + 1 {
            let (given, wanted) = (fds.len(), streams.len() + 1);
            let text = format!("an adoption with {given} descriptors, not {wanted}");
            return Err(Error::NoLaunch(text));
        }
        let mut fds = fds.into_iter();
        let Some(pidfd) = fds.next() else {
            return Err(Error::NoLaunch("an adoption without a pidfd".to_owned()));
        };
        for (end, fd) in streams.iter().zip(fds) {
            self.take_stream(*end, fd)
                .context(|| format!("take over a stream: {end:?}"))?;
        }
        if let Err(error) = self.output.resume() {
            let text = format!("output that was not logged yet may be lost: {error}");
            self.warnings.push(text);
        }
        // The shim that was killed told of its own.
        self.oom = self.oom_kills > 0;
        let (pid, start_time) = (adoption.pid, adoption.start_time);
        self.phase = Phase::Running(Init {
            id: ProcessId { pid, start_time },
            pidfd: pidfd.into(),
            parent: Parent::Another,
        });
        Ok(())
    }

    /// Takes the far end of one of the container's standard streams.
    pub(crate) fn take_stream(&mut self, end: StreamEnd, fd: OwnedFd) -> std::io::Result<()> {
        match end {
            StreamEnd::Input => self.input = Some(fd),
            StreamEnd::Output => self.output.add(Channel::Stdout, fd)?,
            StreamEnd::Errors => self.output.add(Channel::Stderr, fd)?,
            StreamEnd::Terminal => self.output.add_terminal(fd)?,
            StreamEnd::Relay => self.output.set_relay(fd),
        }
        Ok(())
    }

    /// Copies of what only this process has of a container that runs, for the shim that may have to
    /// take its place.
    pub(crate) fn lend(&self) -> (Vec<StreamEnd>, Vec<OwnedFd>) {
        let Phase::Running(init) = &self.phase else {
            return Default::default();
        };
        let Ok(pidfd) = init.pidfd.as_fd().try_clone_to_owned() else {
            return Default::default();
        };
        let (mut ends, mut fds) = (Vec::new(), vec![pidfd]);
        let input = self.input.iter().map(|fd| (StreamEnd::Input, fd.as_fd()));
        for (end, fd) in self.output.ends().chain(input) {
            // Without descriptors less is lent; the container runs all the same.
            if let Ok(copy) = fd.try_clone_to_owned() {
                ends.push(end);
                fds.push(copy);
            }
        }
        (ends, fds)
    }

    /// Says that the container runs, to whoever had it launched or adopted.
    pub(crate) fn tell_started(&mut self, told: Vec<String>) {
        let Phase::Running(init) = &self.phase else {
            return;
        };
        let ProcessId { pid, start_time } = init.id;
        let (streams, fds) = self.lend();
        let mut warnings = std::mem::take(&mut self.warnings);
        warnings.extend(told);
        let reply = Reply::Started {
            pid,
            start_time,
            warnings,
            streams,
        };
        self.clients.reply(LAUNCHER, reply, fds);
        if let Some(shelter) = &mut self.shelter {
            shelter.wait_for_quiet();
        }
    }

    /// An init that is no child of this process has ended.
    pub(crate) fn adopted_ended(&mut self) {
        self.look_for_oom();
        let Phase::Running(init) = &self.phase else {
            return;
        };
        let status = told_status(init).map_or(ExitStatus::Lost, exit_status);
        let unseen = ExitRecord {
            status,
            finished_at: Timestamp(clock::now()),
            oom: self.oom,
        };
        // An earlier shim, or the daemon, may have written more than can be known now.
        let written = file::read_bounded(&self.container.exit_file, SLOT_SIZE as u64).ok();
        let written = written.and_then(|slot| ExitRecord::from_slot(&slot));
        self.record_end(written.unwrap_or(unseen));
    }
}

/// How a process ended that is no child of ours: the kernel tells as long as its parent has not
/// reaped it, and from Linux 6.15 on also afterwards.
fn told_status(init: &Init) -> Option<WaitStatus> {
    for pause in ASKED {
        std::thread::sleep(Duration::from_millis(pause));
        let reaped = init.pidfd.exit_info();
        if let Ok(Some(status)) = reaped {
            return Some(status);
        }
        if let Some(status) = status_of_zombie(&init.id) {
            return Some(status);
        }
        // An older kernel has nothing more to tell.
        reaped.ok()?;
    }
    None
}
