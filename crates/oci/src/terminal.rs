//! The caller's terminal joined to the container's.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use crisp_sys::{pipe, pty};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{OptionalActions, OutputModes, Termios, tcgetattr, tcgetwinsize, tcsetattr};

const CHUNK: usize = 16 * 1024;

/// The master of the container's terminal and what is on its way there.
#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    /// Typed, but not taken yet: while something is here no more is read.
    typed: VecDeque<u8>,
    input: Stream,
    output: Stream,
    _raw: Option<Raw>,
}

/// Makes a terminal as large as the caller's, if that has one.
pub(crate) fn fit(master: impl AsFd) {
    if let Ok(size) = tcgetwinsize(io::stdin()) {
        // A terminal that is gone needs no size.
        drop(pty::set_size(master, size.ws_row, size.ws_col));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    Open,
    Ended,
}

impl Terminal {
    /// Joins a terminal to the standard streams; where those are a terminal, it becomes raw until
    /// the end.
    pub(crate) fn connect(master: OwnedFd) -> io::Result<Self> {
        // A program that reads nothing must not keep us from showing what it writes.
        pipe::set_nonblocking(&master)?;
        let terminal = Self {
            master: master.into(),
            typed: VecDeque::new(),
            input: Stream::Open,
            output: Stream::Open,
            _raw: Raw::enter()?,
        };
        terminal.fit();
        Ok(terminal)
    }

    /// Makes the container's terminal as large as the caller's.
    pub(crate) fn fit(&self) {
        fit(&self.master);
    }

    /// The descriptors to poll.
    pub(crate) fn interests(&self) -> Vec<PollFd<'_>> {
        let mut fds = Vec::new();
        if self.output == Stream::Open {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, !self.typed.is_empty());
            fds.push(PollFd::from_borrowed_fd(self.master.as_fd(), flags));
        }
        if self.reads_input() {
            let stdin = rustix::stdio::stdin();
            fds.push(PollFd::from_borrowed_fd(stdin, PollFlags::IN));
        }
        fds
    }

    fn reads_input(&self) -> bool {
        self.input == Stream::Open && self.output == Stream::Open && self.typed.is_empty()
    }

    /// Carries whatever there is in both directions, without waiting for more.
    pub(crate) fn relay(&mut self) {
        self.show();
        if self.reads_input() && has_input() {
            let mut bytes = [0; CHUNK];
            // Not by std, which would read ahead of what poll(2) tells.
            match rustix::io::read(rustix::stdio::stdin(), &mut bytes) {
                Ok(count) if count > 0 => self.typed.extend(&bytes[..count]),
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => self.input = Stream::Ended,
            }
        }
        while !self.typed.is_empty() {
            let (first, _) = self.typed.as_slices();
            match self.master.write(first) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.typed.clear(),
            }
        }
    }

    /// Shows one chunk; the kernel answers EIO once nobody has the other end.
    fn show(&mut self) -> bool {
        let mut bytes = [0; CHUNK];
        match self.master.read(&mut bytes) {
            Ok(count) if count > 0 => {
                let mut stdout = io::stdout().lock();
                // A reader that stops reading misses output; the program is not to stop for that.
                drop(stdout.write_all(&bytes[..count]));
                drop(stdout.flush());
                true
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                false
            }
            Ok(_) | Err(_) => {
                self.output = Stream::Ended;
                false
            }
        }
    }

    /// Shows what is left after the end of the process.
    pub(crate) fn drain(&mut self) {
        while self.show() {}
    }
}

fn has_input() -> bool {
    let mut fds = [PollFd::from_borrowed_fd(
        rustix::stdio::stdin(),
        PollFlags::IN,
    )];
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// A terminal of the caller that passes on every key, until this is dropped.
#[derive(Debug)]
struct Raw {
    before: Termios,
}

impl Raw {
    fn enter() -> io::Result<Option<Self>> {
        let Ok(before) = tcgetattr(io::stdin()) else {
            return Ok(None);
        };
        let mut raw = before.clone();
        raw.make_raw();
        // Lines end as the caller's terminal wants them: the container's does not say.
        raw.output_modes.insert(OutputModes::OPOST);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs no repair.
        let _gone = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
