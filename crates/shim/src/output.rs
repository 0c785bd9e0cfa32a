//! The container's output streams: read as they come, each chunk given to whoever takes output.
//!
//! The log cuts chunks into lines itself; clients that are attached get the same raw chunks, after
//! the log. [`Output::pump`] is the only place that reads.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_shim_api::StreamEnd;
use crisp_sys::pipe::set_nonblocking;
use crisp_sys::pty;
use rustix::buffer::spare_capacity;
use rustix::io::{Errno, read};

use crate::log::{Channel, Log};
use crate::sinks::{NewClient, Sinks};

/// As much as a pipe holds by default.
const BUFFER: usize = 64 * 1024;

/// Reads of one stream before others get their turn.
const TURN: usize = 16;

/// All output of a container.
#[derive(Debug)]
pub(crate) struct Output {
    log: Option<Log>,
    pub(crate) sinks: Sinks,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    channel: Channel,
    end: StreamEnd,
    source: OwnedFd,
    /// The other end of a terminal. As long as somebody has it open, programs may close theirs and
    /// open `/dev/console` later, as many an init does, and no read ends the stream.
    far_end: Option<OwnedFd>,
}

impl Output {
    /// Output that goes to a log, or nowhere.
    pub(crate) fn new(log: Option<Log>) -> Self {
        Self {
            log,
            sinks: Sinks::default(),
            streams: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Adds a pipe.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub(crate) fn add(&mut self, channel: Channel, source: OwnedFd) -> io::Result<()> {
        let end = match channel {
            Channel::Stdout => StreamEnd::Output,
            Channel::Stderr => StreamEnd::Errors,
        };
        self.add_stream((channel, end), source, None)
    }

    /// Adds the master of a terminal.
    ///
    /// # Errors
    /// The errors of fcntl(2).
    pub(crate) fn add_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        // Without it the stream ends when programs close their ends, as it would by itself.
        let far_end = pty::peer(&master).ok();
        self.add_stream((Channel::Stdout, StreamEnd::Terminal), master, far_end)
    }

    fn add_stream(
        &mut self,
        (channel, end): (Channel, StreamEnd),
        source: OwnedFd,
        far_end: Option<OwnedFd>,
    ) -> io::Result<()> {
        set_nonblocking(&source)?;
        self.streams.push(Stream {
            channel,
            end,
            source,
            far_end,
        });
        Ok(())
    }

    /// Passes output on to a client as well. A stream that has ended brings it an end at once.
    ///
    /// # Errors
    /// When there are too many clients, or the errors of fcntl(2).
    pub(crate) fn attach(&mut self, mut client: NewClient) -> io::Result<()> {
        let streams = &self.streams;
        let is_there = |channel| streams.iter().any(|stream| stream.channel == channel);
        client.sinks.retain(|(channel, _)| is_there(*channel));
        self.sinks.add(client)
    }

    /// The container writes no more: its terminal may end.
    pub(crate) fn let_terminal_end(&mut self) {
        for stream in &mut self.streams {
            stream.far_end = None;
        }
    }

    /// The streams that may still bring something.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (Channel, BorrowedFd<'_>)> {
        let sources = self.streams.iter();
        sources.map(|stream| (stream.channel, stream.source.as_fd()))
    }

    /// The same, by the stream of the container that each is the far end of.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (StreamEnd, BorrowedFd<'_>)> {
        let sources = self.streams.iter();
        sources.map(|stream| (stream.end, stream.source.as_fd()))
    }

    /// Whether every stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.streams.is_empty()
    }

    /// Reads what a stream has, for one turn; closes it at its end.
    pub(crate) fn pump(&mut self, channel: Channel) {
        let Some(index) = self.streams.iter().position(|s| s.channel == channel) else {
            return;
        };
        self.buffer.reserve(BUFFER);
        let stream = &self.streams[index];
        for _ in 0..TURN {
            self.buffer.clear();
            match read(&stream.source, spare_capacity(&mut self.buffer)) {
                Ok(0) => return self.close(index),
                Ok(_) => {
                    if let Some(log) = &mut self.log {
                        log.write(channel, &self.buffer);
                    }
                    self.sinks.write(channel, &self.buffer);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // EIO is how a terminal says that nobody has its other end open.
                Err(_) => return self.close(index),
            }
        }
    }

    fn close(&mut self, index: usize) {
        let stream = self.streams.remove(index);
        if let Some(log) = &mut self.log {
            log.end(stream.channel);
        }
        self.sinks.end(stream.channel);
    }

    /// Ends all streams, whoever still has them open: what they hold by now is taken.
    pub(crate) fn finish(&mut self) {
        for channel in [Channel::Stdout, Channel::Stderr] {
            self.pump(channel);
        }
        while !self.streams.is_empty() {
            self.close(0);
        }
        if let Some(log) = &mut self.log {
            log.close_gap();
        }
        self.sinks.finish();
        self.rest();
    }

    /// Goes on in a new log file.
    ///
    /// # Errors
    /// When it cannot be opened; the old one goes on.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.log.as_mut().map_or(Ok(()), Log::reopen)
    }

    /// Frees what only a busy stream needs.
    pub(crate) fn rest(&mut self) {
        self.buffer = Vec::new();
        if let Some(log) = &mut self.log {
            log.rest();
        }
    }
}
