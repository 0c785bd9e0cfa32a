//! Clients that are attached to a container: each gets its output from the moment it came, beside
//! the log.
//!
//! No client slows the container down or another client: output that a client's pipe does not take
//! stays in the stream's [`Backlog`] until the client takes it. A client is cut off when it is
//! further behind than is kept, or takes nothing at all for its patience. A terminal alone waits for
//! its clients, which [`crate::output`] sees to.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use crisp_shim_api::{AttachedInput, CutOff, ExitRecord};
use crisp_sys::clock;
use crisp_sys::pipe::set_nonblocking;
use rustix::io::{Errno, write};

use crate::backlog::{Backlog, Bounds};
use crate::log::Channel;

/// Attachments at a time: each has up to three descriptors here.
const MAX_ATTACHED: usize = 256;

/// Pieces of the backlog that a client gets before others get their turn.
const TURN: usize = 16;

/// After the container's end, a client that takes nothing is waited for so long, nanoseconds.
const OFFERED: i64 = 10_000_000_000;

/// A client that takes a little is waited for so long, once the shim is to leave: less than a daemon
/// waits for that.
const LEFT: i64 = 4_000_000_000;

const CHANNELS: [Channel; 2] = [Channel::Stdout, Channel::Stderr];

/// All attachments.
#[derive(Debug)]
pub(crate) struct Sinks {
    next: u64,
    all: Vec<Attachment>,
    /// By the channel's number.
    backlogs: [Backlog; 2],
    /// When the last of them is given up: the shim is to leave.
    last: Option<i64>,
}

/// A client to be.
#[derive(Debug)]
pub(crate) struct NewClient {
    pub id: String,
    /// The connection that asked.
    pub asker: u64,
    /// A pipe whose other end closes when the client leaves.
    pub lease: OwnedFd,
    pub sinks: Vec<(Channel, OwnedFd)>,
    pub input: AttachedInput,
    /// How long it may take nothing, nanoseconds.
    pub patience: i64,
}

#[derive(Debug)]
struct Attachment {
    key: u64,
    id: String,
    asker: u64,
    lease: OwnedFd,
    sinks: Vec<Sink>,
    /// The fate of the container's input, now and once the attachment is confirmed: an asker that
    /// gave up before it knew of the attachment has told its client that there is none.
    input: AttachedInput,
    confirmed: AttachedInput,
    patience: i64,
    cut: Option<CutOff>,
}

#[derive(Debug)]
struct Sink {
    channel: Channel,
    pipe: OwnedFd,
    /// The place in its stream of the next byte that the client is to get.
    at: u64,
    /// When the client last took something, while it was behind, or fell behind: on the monotonic
    /// clock.
    moved: i64,
    /// The stream has ended.
    is_last: bool,
}

/// An attachment that is over.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Detached {
    pub id: String,
    pub asker: u64,
    pub input: AttachedInput,
    /// The container's end, when all output was given out.
    pub exit: Option<ExitRecord>,
    /// The reason, when it was cut off.
    pub cut: Option<CutOff>,
}

/// A descriptor's part in poll(2), with the key of its attachment.
pub(crate) enum Interest<'a> {
    /// It is told when the client leaves.
    Lease(u64, BorrowedFd<'a>),
    /// It is told when there is room.
    Room(u64, BorrowedFd<'a>),
}

/// The fate of a sink after a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    /// Its reader is gone, or it has all that there is.
    Closes,
    IsCut(CutOff),
}

impl Sinks {
    /// No client yet, of a container with this log.
    pub(crate) fn new(log: Option<&Path>) -> Self {
        let backlog =
            |channel| Backlog::new(log.map(|log| beside(log, channel)), Bounds::default());
        Self {
            next: 0,
            all: Vec::new(),
            backlogs: CHANNELS.map(backlog),
            last: None,
        }
    }

    /// Takes a client on.
    ///
    /// # Errors
    /// When there are too many, or the errors of fcntl(2).
    pub(crate) fn add(&mut self, client: NewClient) -> io::Result<()> {
        if self.all.len() >= MAX_ATTACHED {
            let text = format!("{MAX_ATTACHED} clients are attached already");
            return Err(io::Error::other(text));
        }
        let mut sinks = Vec::new();
        for (channel, pipe) in client.sinks {
            set_nonblocking(&pipe)?;
            sinks.push(Sink {
                channel,
                pipe,
                at: self.backlogs[channel as usize].end(),
                moved: 0,
                is_last: false,
            });
        }
        self.all.push(Attachment {
            key: self.next,
            id: client.id,
            asker: client.asker,
            lease: client.lease,
            sinks,
            input: AttachedInput::StaysOpen,
            confirmed: client.input,
            patience: client.patience,
            cut: None,
        });
        self.next += 1;
        Ok(())
    }

    /// The asker knows that this client is attached: from now on the client decides about the
    /// container's input.
    pub(crate) fn confirm(&mut self, asker: u64, id: &str) {
        let mut all = self.all.iter_mut();
        let attachment = all.find(|a| a.asker == asker && a.id == id);
        attachment.into_iter().for_each(|a| a.input = a.confirmed);
    }

    /// Whether a client has yet to take what this stream brought.
    pub(crate) fn is_behind(&self, channel: Channel) -> bool {
        !self.backlogs[channel as usize].is_empty()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The descriptors to poll.
    pub(crate) fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        let backlogs = &self.backlogs;
        self.all.iter().flat_map(move |attachment| {
            let behind = attachment.behind(backlogs);
            let rooms = behind.map(|sink| Interest::Room(attachment.key, sink.pipe.as_fd()));
            rooms.chain([Interest::Lease(attachment.key, attachment.lease.as_fd())])
        })
    }

    /// Gives a chunk of a stream to all who want it, and keeps what a client does not take now.
    pub(crate) fn write(&mut self, channel: Channel, chunk: &[u8]) {
        if self.all.is_empty() {
            return;
        }
        let backlog = &mut self.backlogs[channel as usize];
        let place = backlog.end();
        let mut wanted = place + chunk.len() as u64;
        for attachment in &mut self.all {
            attachment.each(|sink| {
                if sink.channel != channel {
                    return Fate::Stays;
                }
                let fate = sink.take(chunk, place);
                if fate == Fate::Stays {
                    wanted = wanted.min(sink.at);
                }
                fate
            });
        }
        backlog.push(chunk, wanted);
        if wanted < backlog.start() {
            self.cut(channel);
        }
    }

    /// Cuts the clients off that want what is not kept any more.
    fn cut(&mut self, channel: Channel) {
        let backlog = &self.backlogs[channel as usize];
        for attachment in &mut self.all {
            attachment.each(|sink| match sink.channel == channel {
                true if sink.at < backlog.start() => Fate::IsCut(backlog.lack(sink.at)),
                _ => Fate::Stays,
            });
        }
        self.release();
    }

    /// Lets go of what all clients have taken.
    fn release(&mut self) {
        for channel in CHANNELS {
            let sinks = self.all.iter().flat_map(|attachment| &attachment.sinks);
            let sinks = sinks.filter(|sink| sink.channel == channel);
            let wanted = sinks.map(|sink| sink.at).min();
            self.backlogs[channel as usize].release(wanted.unwrap_or(u64::MAX));
        }
        if self.all.is_empty() {
            self.rest();
        }
    }

    /// Frees what only a busy stream needs.
    pub(crate) fn rest(&mut self) {
        self.backlogs.iter_mut().for_each(Backlog::rest);
    }

    /// A stream has ended: its sinks end with what they have.
    pub(crate) fn end(&mut self, channel: Channel) {
        for attachment in &mut self.all {
            attachment.each(|sink| {
                sink.is_last |= sink.channel == channel;
                sink.flush(&mut self.backlogs)
            });
        }
        self.release();
    }

    /// The container is over, and its last output was given out.
    pub(crate) fn finish(&mut self) {
        CHANNELS.into_iter().for_each(|channel| self.end(channel));
        let now = clock::monotonic();
        for attachment in &mut self.all {
            attachment.patience = attachment.patience.min(OFFERED);
            attachment
                .sinks
                .iter_mut()
                .for_each(|sink| sink.moved = now);
        }
    }

    /// The shim is to leave: clients that take little are given up as well some time from now.
    pub(crate) fn hurry(&mut self) {
        self.last
            .get_or_insert_with(|| clock::monotonic().saturating_add(LEFT));
    }

    /// When the next client is given up that takes nothing until then.
    pub(crate) fn until(&self) -> Option<i64> {
        let all = self.all.iter();
        let next = all.filter_map(|a| a.until(&self.backlogs)).min()?;
        Some(self.last.map_or(next, |last| last.min(next)))
    }

    /// There is room for what is kept.
    pub(crate) fn flush(&mut self, key: u64) {
        let attachment = self.all.iter_mut().find(|a| a.key == key);
        if let Some(attachment) = attachment {
            attachment.each(|sink| sink.flush(&mut self.backlogs));
        }
        self.release();
    }

    /// A client has left; the fate of the container's input.
    pub(crate) fn remove(&mut self, key: u64) -> AttachedInput {
        let index = self.all.iter().position(|a| a.key == key);
        let removed = index.map(|index| self.all.remove(index));
        self.release();
        removed.map(|removed| removed.input).unwrap_or_default()
    }

    /// Takes the attachments that are over: cut off, given up, or, once the container is, told all.
    pub(crate) fn take_over(&mut self, exit: Option<ExitRecord>) -> Vec<Detached> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let now = clock::monotonic();
        let is_late = self.last.is_some_and(|last| now >= last);
        let late = match exit {
            Some(_) => CutOff::NotInTime,
            None => CutOff::TookNothing,
        };
        let backlogs = &self.backlogs;
        let is_over = |a: &mut Attachment| {
            let until = a.until(backlogs);
            if until.is_some_and(|until| is_late || now >= until) {
                a.cut.get_or_insert(late);
            }
            a.cut.is_some() || exit.is_some() && a.sinks.is_empty()
        };
        let over = self.all.extract_if(.., is_over);
        let told = over.map(|attachment| Detached {
            exit: exit.filter(|_| attachment.cut.is_none()),
            cut: attachment.cut,
            id: attachment.id,
            asker: attachment.asker,
            input: attachment.input,
        });
        let told: Vec<Detached> = told.collect();
        if !told.is_empty() {
            self.release();
        }
        told
    }
}

impl Attachment {
    /// The sinks that do not have all yet.
    fn behind<'a>(&'a self, backlogs: &'a [Backlog; 2]) -> impl Iterator<Item = &'a Sink> {
        let sinks = self.sinks.iter();
        sinks.filter(|sink| sink.at < backlogs[sink.channel as usize].end())
    }

    /// When it is given up, if it takes nothing until then.
    fn until(&self, backlogs: &[Backlog; 2]) -> Option<i64> {
        let behind = self.behind(backlogs);
        let until = behind.map(|sink| sink.moved.saturating_add(self.patience));
        until.min()
    }

    /// Does something to each sink; one that is cut takes the others along.
    fn each(&mut self, mut act: impl FnMut(&mut Sink) -> Fate) {
        self.sinks.retain_mut(|sink| {
            let fate = act(sink);
            if let Fate::IsCut(why) = fate {
                self.cut.get_or_insert(why);
            }
            fate == Fate::Stays
        });
        if self.cut.is_some() {
            self.sinks.clear();
        }
    }
}

impl Sink {
    /// Gives out what there is room for of the chunk that begins at this place, unless the client
    /// has yet to take what came before.
    fn take(&mut self, chunk: &[u8], place: u64) -> Fate {
        if self.at < place {
            return Fate::Stays;
        }
        let mut rest = chunk;
        while !rest.is_empty() {
            match self.offer(rest) {
                Ok(0) => {
                    self.moved = clock::monotonic();
                    break;
                }
                Ok(written) => {
                    rest = &rest[written..];
                    self.at += written as u64;
                }
                Err(fate) => return fate,
            }
        }
        Fate::Stays
    }

    /// Gives out what is kept, as far as there is room, for one turn.
    fn flush(&mut self, backlogs: &mut [Backlog; 2]) -> Fate {
        let backlog = &mut backlogs[self.channel as usize];
        for _ in 0..TURN {
            if self.at == backlog.end() {
                break;
            }
            let Ok(piece) = backlog.at(self.at) else {
                return Fate::IsCut(CutOff::NoRoom);
            };
            match self.offer(piece) {
                Ok(0) => break,
                Ok(written) => {
                    self.at += written as u64;
                    self.moved = clock::monotonic();
                }
                Err(fate) => return fate,
            }
        }
        match self.is_last && self.at == backlog.end() {
            true => Fate::Closes,
            false => Fate::Stays,
        }
    }

    /// Writes what there is room for; 0 when there is none.
    fn offer(&self, bytes: &[u8]) -> Result<usize, Fate> {
        loop {
            match write(&self.pipe, bytes) {
                Ok(written) => return Ok(written),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(0),
                // Its reader has gone; the lease tells of the client.
                Err(_) => return Err(Fate::Closes),
            }
        }
    }
}

/// The name that a stream's file has beside the log, where it has to have one.
fn beside(log: &Path, channel: Channel) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(log.file_name().unwrap_or_default());
    name.push(match channel {
        Channel::Stdout => ".stdout",
        Channel::Stderr => ".stderr",
    });
    log.with_file_name(name)
}

#[cfg(test)]
#[path = "sinks_tests.rs"]
mod tests;
