//! Clients that are attached to a container: each gets its output from the moment it came, beside
//! the log.
//!
//! The container writes as fast as its slowest client takes: a stream is not read while a sink of it
//! keeps output ([`Sinks::holds`]). A client that takes nothing at all is waited for only so long,
//! then it is cut off. Once the container has ended it writes no more, so what is left of its output
//! is read at once, and kept up to a bound.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crisp_shim_api::{AttachedInput, ExitRecord};
use crisp_sys::clock;
use crisp_sys::pipe::set_nonblocking;
use rustix::io::{Errno, write};

use crate::log::Channel;

/// Attachments at a time: each has up to three descriptors here.
const MAX_ATTACHED: usize = 256;

/// Output that is kept for one sink, bytes: more than a pipe can hold at the container's end.
const MAX_KEPT: usize = 2 << 20;

/// Output that is kept for all of them.
const ALL_KEPT: usize = 16 << 20;

/// After the container's end, a client that takes nothing is waited for so long, nanoseconds.
const OFFERED: i64 = 2_000_000_000;

/// A client that takes a little is waited for so long, once the shim is to leave: less than a daemon
/// waits for that.
const LEFT: i64 = 4_000_000_000;

/// All attachments.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    next: u64,
    all: Vec<Attachment>,
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
    is_cut: bool,
}

#[derive(Debug)]
struct Sink {
    channel: Channel,
    pipe: OwnedFd,
    kept: VecDeque<u8>,
    /// When the client last took some of what is kept, or that began to be kept: on the monotonic
    /// clock.
    moved: i64,
    /// Nothing follows what is kept.
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
    IsCut,
}

impl Sinks {
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
                kept: VecDeque::new(),
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
            is_cut: false,
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
    pub(crate) fn holds(&self, channel: Channel) -> bool {
        let mut sinks = self.all.iter().flat_map(|a| &a.sinks);
        sinks.any(|sink| sink.channel == channel && !sink.kept.is_empty())
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The descriptors to poll.
    pub(crate) fn interests(&self) -> impl Iterator<Item = Interest<'_>> {
        self.all.iter().flat_map(|attachment| {
            let full = attachment.sinks.iter().filter(|sink| !sink.kept.is_empty());
            let rooms = full.map(|sink| Interest::Room(attachment.key, sink.pipe.as_fd()));
            rooms.chain([Interest::Lease(attachment.key, attachment.lease.as_fd())])
        })
    }

    /// Gives a chunk of a stream to all who want it.
    pub(crate) fn write(&mut self, channel: Channel, chunk: &[u8]) {
        if self.all.is_empty() {
            return;
        }
        let kept: usize = self.all.iter().map(Attachment::kept).sum();
        let mut room = ALL_KEPT.saturating_sub(kept);
        for attachment in &mut self.all {
            let before = attachment.kept();
            attachment.each(|sink| match sink.channel == channel {
                true => sink.write(chunk, room),
                false => Fate::Stays,
            });
            room = (room + before).saturating_sub(attachment.kept());
        }
    }

    /// A stream has ended: its sinks end with what they have.
    pub(crate) fn end(&mut self, channel: Channel) {
        for attachment in &mut self.all {
            attachment.each(|sink| {
                sink.is_last |= sink.channel == channel;
                sink.flush()
            });
        }
    }

    /// The container is over, and its last output was given out.
    pub(crate) fn finish(&mut self) {
        for channel in [Channel::Stdout, Channel::Stderr] {
            self.end(channel);
        }
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
        let next = self.all.iter().filter_map(Attachment::until).min()?;
        Some(self.last.map_or(next, |last| last.min(next)))
    }

    /// There is room for what is kept.
    pub(crate) fn flush(&mut self, key: u64) {
        let attachment = self.all.iter_mut().find(|a| a.key == key);
        attachment.into_iter().for_each(|a| a.each(Sink::flush));
    }

    /// A client has left; the fate of the container's input.
    pub(crate) fn remove(&mut self, key: u64) -> AttachedInput {
        let index = self.all.iter().position(|a| a.key == key);
        let removed = index.map(|index| self.all.remove(index));
        removed.map(|removed| removed.input).unwrap_or_default()
    }

    /// Takes the attachments that are over: cut off, given up, or, once the container is, told all.
    pub(crate) fn take_over(&mut self, exit: Option<ExitRecord>) -> Vec<Detached> {
        if self.all.is_empty() {
            return Vec::new();
        }
        let now = clock::monotonic();
        let is_late = self.last.is_some_and(|last| now >= last);
        let is_over = |a: &mut Attachment| {
            let is_given_up = a.until().is_some_and(|until| is_late || now >= until);
            a.is_cut || is_given_up || exit.is_some() && a.sinks.is_empty()
        };
        let over = self.all.extract_if(.., is_over);
        let told = over.map(|attachment| Detached {
            exit: exit.filter(|_| !attachment.is_cut && attachment.sinks.is_empty()),
            id: attachment.id,
            asker: attachment.asker,
            input: attachment.input,
        });
        told.collect()
    }
}

impl Attachment {
    /// When it is given up, if it takes nothing until then.
    fn until(&self) -> Option<i64> {
        let kept = self.sinks.iter().filter(|sink| !sink.kept.is_empty());
        let until = kept.map(|sink| sink.moved.saturating_add(self.patience));
        until.min()
    }

    fn kept(&self) -> usize {
        self.sinks.iter().map(|sink| sink.kept.len()).sum()
    }

    /// Does something to each sink; one that is cut takes the others along.
    fn each(&mut self, mut act: impl FnMut(&mut Sink) -> Fate) {
        self.sinks.retain_mut(|sink| {
            let fate = act(sink);
            self.is_cut |= fate == Fate::IsCut;
            fate == Fate::Stays
        });
        if self.is_cut {
            self.sinks.clear();
        }
    }
}

impl Sink {
    fn write(&mut self, chunk: &[u8], room: usize) -> Fate {
        if self.flush() == Fate::Closes {
            return Fate::Closes;
        }
        let mut rest = chunk;
        while self.kept.is_empty() && !rest.is_empty() {
            match self.offer(rest) {
                Ok(0) => break,
                Ok(written) => rest = &rest[written..],
                Err(fate) => return fate,
            }
        }
        if rest.len() > room || self.kept.len() + rest.len() > MAX_KEPT {
            return Fate::IsCut;
        }
        if self.kept.is_empty() {
            self.moved = clock::monotonic();
        }
        self.kept.extend(rest);
        Fate::Stays
    }

    /// Gives out what is kept, as far as there is room.
    fn flush(&mut self) -> Fate {
        while !self.kept.is_empty() {
            match self.offer(self.kept.as_slices().0) {
                Ok(0) => return Fate::Stays,
                Ok(written) => {
                    self.kept.drain(..written);
                    self.moved = clock::monotonic();
                }
                Err(fate) => return fate,
            }
        }
        self.kept = VecDeque::new();
        match self.is_last {
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

#[cfg(test)]
#[path = "sinks_tests.rs"]
mod tests;
