//! The container's output streams: read as they come, each chunk given to whoever takes output.
//!
//! On its way to the log output is in the [`Spool`], where a shim that takes this one's place finds
//! it. A terminal's output passes a pipe before, its relay: the kernel moves nothing from a
//! terminal to a file. The log cuts chunks into lines itself; clients that are attached get the
//! same raw chunks, after the log. [`Output::pump`] is the only place that reads.
//!
//! No client holds a pipe up: what it has yet to take is kept for it ([`Sinks`]). A terminal is read
//! no faster than its clients take, as long as the container runs: a key that stops its program has
//! to end what the user sees soon, and not after minutes of output that was kept.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use crisp_shim_api::StreamEnd;
use crisp_sys::pipe::{both_ends, held, pass, set_nonblocking};
use crisp_sys::pty;
use rustix::buffer::spare_capacity;
use rustix::io::read;

use crate::log::{Channel, Log};
use crate::sinks::{NewClient, Sinks};
use crate::spool::Spool;

/// As much as a pipe holds by default.
const BUFFER: usize = 64 * 1024;
/// As much as a terminal brings at once.
const RELAYED: usize = 4 * 4096;

/// Reads of one stream before others get their turn.
const TURN: usize = 16;

/// All output of a container.
#[derive(Debug)]
pub(crate) struct Output {
    log: Option<Log>,
    spool: Spooled,
    pub(crate) sinks: Sinks,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
    pace: Pace,
}

/// Where output is on its way to the log.
#[derive(Debug)]
enum Spooled {
    /// There is to be a file here once there is output.
    Later(PathBuf),
    /// In a file.
    There(Spool),
    /// In this process alone: there is no log, or no room for a file.
    Nowhere,
}

/// The speed at which streams are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// Clients that are behind have their turn between two chunks, and a terminal waits for them.
    Clients,
    /// As fast as they bring something: no more than the rest of it will come.
    Rest,
}

#[derive(Debug)]
struct Stream {
    channel: Channel,
    end: StreamEnd,
    source: OwnedFd,
    /// The other end of a terminal. As long as somebody has it open, programs may close theirs and
    /// open `/dev/console` later, as many an init does, and no read ends the stream.
    far_end: Option<OwnedFd>,
    /// Where a terminal's output is moved to, to be moved on.
    relay: Option<OwnedFd>,
}

impl Stream {
    /// Where output is taken from.
    fn mouth(&self) -> &OwnedFd {
        self.relay.as_ref().unwrap_or(&self.source)
    }

    /// Where there is something once there is more.
    fn end_to_watch(&self) -> BorrowedFd<'_> {
        let relay = self.relay.as_ref();
        let full = relay.filter(|relay| held(relay).is_ok_and(|bytes| bytes > 0));
        full.unwrap_or(&self.source).as_fd()
    }

    /// Has a relay hold what comes next. False when no more comes.
    fn draw(&mut self) -> io::Result<bool> {
        let Some(relay) = &self.relay else {
            return Ok(true);
        };
        // A shim that was killed may have left something.
        if held(relay)? > 0 {
            return Ok(true);
        }
        match pass(&self.source, relay, RELAYED) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                // Not of this kernel: what is read is in this process alone for a moment.
                self.relay = None;
                Ok(true)
            }
            passed => Ok(passed? > 0),
        }
    }
}

impl Output {
    /// Output that goes to a log, by a file that is made once there is some; or nowhere.
    pub(crate) fn new(log: Option<(Log, PathBuf)>) -> Self {
        let (log, spool) = log.map_or((None, Spooled::Nowhere), |(log, path)| {
            (Some(log), Spooled::Later(path))
        });
        Self {
            sinks: Sinks::new(log.as_ref().map(Log::path)),
            log,
            spool,
            streams: Vec::new(),
            buffer: Vec::new(),
            pace: Pace::Clients,
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
        self.add_stream((Channel::Stdout, StreamEnd::Terminal), master, far_end)?;
        if self.log.is_some()
            && let Ok(relay) = both_ends()
        {
            self.set_relay(relay);
        }
        Ok(())
    }

    /// Takes the relay of the terminal that was added, with what is in it.
    pub(crate) fn set_relay(&mut self, relay: OwnedFd) {
        let mut streams = self.streams.iter_mut();
        if let Some(terminal) = streams.find(|stream| stream.end == StreamEnd::Terminal) {
            terminal.relay = Some(relay);
        }
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
            relay: None,
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

    /// The container writes no more: its terminal may end, and no client holds the rest up.
    pub(crate) fn let_end(&mut self) {
        self.pace = Pace::Rest;
        for stream in &mut self.streams {
            stream.far_end = None;
        }
    }

    /// Whether clients have their turn before a stream brings more.
    fn is_shared(&self, channel: Channel) -> bool {
        self.pace == Pace::Clients && self.sinks.is_behind(channel)
    }

    /// Whether a stream waits until clients have taken what it brought.
    fn is_held(&self, stream: &Stream) -> bool {
        stream.end == StreamEnd::Terminal && self.is_shared(stream.channel)
    }

    /// The streams that may bring something that is wanted now.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (Channel, BorrowedFd<'_>)> {
        let sources = self.streams.iter();
        let wanted = sources.filter(|stream| !self.is_held(stream));
        wanted.map(|stream| (stream.channel, stream.end_to_watch()))
    }

    /// All streams that may still bring something, by the stream of the container that each is the
    /// far end of.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (StreamEnd, BorrowedFd<'_>)> {
        self.streams.iter().flat_map(|stream| {
            let relay = stream.relay.iter();
            let relay = relay.map(|relay| (StreamEnd::Relay, relay.as_fd()));
            std::iter::once((stream.end, stream.source.as_fd())).chain(relay)
        })
    }

    /// Whether every stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.streams.is_empty()
    }

    /// Goes on where a shim that was killed was: what it had read and not logged is logged.
    ///
    /// # Errors
    /// When its file is damaged; what is in it is lost then.
    pub(crate) fn resume(&mut self) -> io::Result<()> {
        let (Some(log), Spooled::Later(path)) = (&mut self.log, &self.spool) else {
            return Ok(());
        };
        let spool = match Spool::open(path) {
            // There was no output so far, or no room.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        if let Some(inode) = spool.written_to() {
            let (length, cut) = log.written_to(inode);
            spool.settle(length, cut);
        }
        log.take_gap(spool.gap());
        for channel in [Channel::Stdout, Channel::Stderr] {
            let text = (&[][..], spool.bytes(channel));
            log.write_kept(channel, text, |write| spool.begin(channel, &write));
            spool.done(log.gap());
        }
        self.spool = Spooled::There(spool);
        Ok(())
    }

    /// Reads what a stream has, for one turn; closes it at its end.
    pub(crate) fn pump(&mut self, channel: Channel) {
        let Some(index) = self.streams.iter().position(|s| s.channel == channel) else {
            return;
        };
        for _ in 0..TURN {
            if self.is_held(&self.streams[index]) {
                return;
            }
            match self.take_next(index) {
                Ok(0) => return self.close(index),
                Ok(_) if self.is_shared(channel) => return,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // EIO is how a terminal says that nobody has its other end open.
                Err(_) => return self.close(index),
            }
        }
    }

    /// Passes on what a stream has; 0 at its end.
    fn take_next(&mut self, index: usize) -> io::Result<usize> {
        if !self.streams[index].draw()? {
            return Ok(0);
        }
        match self.is_spooled(index) {
            true => self.take_by_file(index),
            false => self.take(index),
        }
    }

    /// Whether a stream goes by the file, which is made now if it has to be.
    fn is_spooled(&mut self, index: usize) -> bool {
        let stream = &self.streams[index];
        if stream.end == StreamEnd::Terminal && stream.relay.is_none() {
            return false;
        }
        if let Spooled::Later(path) = &self.spool {
            self.spool = Spool::create(path).map_or(Spooled::Nowhere, Spooled::There);
        }
        matches!(self.spool, Spooled::There(_))
    }

    /// Passes on what a stream has, by way of the file.
    fn take_by_file(&mut self, index: usize) -> io::Result<usize> {
        let (Some(log), Spooled::There(spool)) = (&mut self.log, &mut self.spool) else {
            return self.take(index);
        };
        let stream = &self.streams[index];
        let channel = stream.channel;
        let length = match spool.fill(channel, stream.mouth().as_fd()) {
            Ok(length) => length,
            Err(error) if is_passing(&error) => return Err(error),
            Err(_) => {
                // No room, or a file system that takes nothing by splice(2).
                self.leave_file();
                return self.take(index);
            }
        };
        let (held, chunk) = {
            let all = spool.bytes(channel);
            all.split_at(all.len() - length)
        };
        log.write_kept(channel, (held, chunk), |write| spool.begin(channel, &write));
        self.sinks.write(channel, chunk);
        spool.done(log.gap());
        Ok(length)
    }

    /// Goes on without the file: what it holds of lines that have not ended is held here.
    fn leave_file(&mut self) {
        if let (Some(log), Spooled::There(spool)) = (&mut self.log, &self.spool) {
            for channel in [Channel::Stdout, Channel::Stderr] {
                log.hold(channel, spool.bytes(channel));
                spool.clear(channel);
            }
            spool.note_gap(None);
        }
        self.spool = Spooled::Nowhere;
    }

    /// Passes on what a stream has, by way of this process alone.
    fn take(&mut self, index: usize) -> io::Result<usize> {
        let stream = &self.streams[index];
        self.buffer.clear();
        self.buffer.reserve(BUFFER);
        let length = read(stream.mouth(), spare_capacity(&mut self.buffer))?;
        if let Some(log) = &mut self.log {
            log.write(stream.channel, &self.buffer);
        }
        self.sinks.write(stream.channel, &self.buffer);
        Ok(length)
    }

    fn close(&mut self, index: usize) {
        let Stream { channel, .. } = self.streams.remove(index);
        self.end_line(channel);
        self.sinks.end(channel);
    }

    /// Logs what a stream ended with, where that was no whole line.
    fn end_line(&mut self, channel: Channel) {
        let Some(log) = &mut self.log else {
            return;
        };
        log.end(channel);
        if let Spooled::There(spool) = &self.spool {
            let text = spool.bytes(channel);
            log.end_kept(channel, text, |write| spool.begin(channel, &write));
            spool.done(log.gap());
        }
    }

    /// Ends all streams, whoever still has them open: what they hold by now is taken.
    pub(crate) fn finish(&mut self) {
        self.let_end();
        for channel in [Channel::Stdout, Channel::Stderr] {
            self.pump(channel);
        }
        while !self.streams.is_empty() {
            self.close(0);
        }
        // A stream that this shim was not given may have left something.
        for channel in [Channel::Stdout, Channel::Stderr] {
            self.end_line(channel);
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
        self.sinks.rest();
        if let Some(log) = &mut self.log {
            log.rest();
        }
        if let Spooled::There(spool) = &mut self.spool {
            spool.rest();
        }
    }
}

/// Whether more may come another time.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, WouldBlock};
    matches!(error.kind(), Interrupted | WouldBlock)
}

#[cfg(test)]
#[path = "output_tests.rs"]
mod tests;
