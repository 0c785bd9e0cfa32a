//! Clients that are attached to a container: each gets its output from the moment it came, beside
//! the log.
//!
//! No client is waited for. Output that its pipe does not take is kept up to a bound, and a client
//! that takes less than the container writes for so long is cut off.

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

/// Output that is kept for one sink, bytes.
const MAX_KEPT: usize = 2 << 20;

/// Output that is kept for all of them.
const ALL_KEPT: usize = 16 << 20;

/// After the container's end, output that is kept is offered for so long, nanoseconds.
const OFFERED: i64 = 2_000_000_000;

/// All attachments.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    next: u64,
    all: Vec<Attachment>,
    /// When the last output was given out, and what is kept of it is given up.
    until: Option<i64>,
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
}

#[derive(Debug)]
struct Attachment {
    key: u64,
    id: String,
    asker: u64,
    lease: OwnedFd,
    sinks: Vec<Sink>,
    input: AttachedInput,
    is_cut: bool,
}

#[derive(Debug)]
struct Sink {
    channel: Channel,
    pipe: OwnedFd,
    kept: VecDeque<u8>,
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
                is_last: false,
            });
        }
        self.all.push(Attachment {
            key: self.next,
            id: client.id,
            asker: client.asker,
            lease: client.lease,
            sinks,
            input: client.input,
            is_cut: false,
        });
        self.next += 1;
        Ok(())
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
        self.until = Some(clock::monotonic().saturating_add(OFFERED));
    }

    /// When the last output that is kept is given up, if any is.
    pub(crate) fn until(&self) -> Option<i64> {
        self.until.filter(|_| !self.is_empty())
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

    /// Takes the attachments that are over: cut off, or, once the container is, told all.
    pub(crate) fn take_over(&mut self, exit: Option<ExitRecord>) -> Vec<Detached> {
        let given_up = self.until.is_some_and(|until| clock::monotonic() >= until);
        let is_over =
            |a: &mut Attachment| a.is_cut || exit.is_some() && (given_up || a.sinks.is_empty());
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
        self.kept.extend(rest);
        Fate::Stays
    }

    /// Gives out what is kept, as far as there is room.
    fn flush(&mut self) -> Fate {
        while !self.kept.is_empty() {
            match self.offer(self.kept.as_slices().0) {
                Ok(0) => return Fate::Stays,
                Ok(written) => drop(self.kept.drain(..written)),
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
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Read;

    use crisp_model::{ExitStatus, Timestamp};
    use crisp_sys::pipe::pipe;

    const EXIT: ExitRecord = ExitRecord {
        status: ExitStatus::Code(3),
        finished_at: Timestamp(7),
        oom: false,
    };

    /// A client of one stream: its end of the stream, and of the lease.
    fn attach(sinks: &mut Sinks, id: &str) -> (File, OwnedFd) {
        let ((out, sink), (leased, lease)) = (pipe().unwrap(), pipe().unwrap());
        let client = NewClient {
            id: id.to_owned(),
            asker: 5,
            lease,
            sinks: vec![(Channel::Stdout, sink)],
            input: AttachedInput::IsClosed,
        };
        sinks.add(client).unwrap();
        (File::from(out), leased)
    }

    fn ids(over: &[Detached]) -> Vec<(&str, bool)> {
        let each = over.iter();
        each.map(|over| (over.id.as_str(), over.exit.is_some()))
            .collect()
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut_and_no_other() {
        let mut sinks = Sinks::default();
        let (mut slow, _slow) = attach(&mut sinks, "slow");
        let (mut fast, _fast) = attach(&mut sinks, "fast");
        let chunk = vec![b'x'; 64 << 10];
        let mut taken = vec![0; chunk.len()];
        let mut writes = 0;
        while sinks.all.iter().all(|attachment| !attachment.is_cut) {
            sinks.write(Channel::Stdout, &chunk);
            sinks.write(Channel::Stderr, b"not wanted");
            fast.read_exact(&mut taken).unwrap();
            assert_eq!(taken, chunk);
            writes += 1;
        }
        assert!(writes * chunk.len() > MAX_KEPT, "{writes}");
        let over = sinks.take_over(None);
        assert_eq!(ids(&over), [("slow", false)]);
        assert_eq!(over[0].input, AttachedInput::IsClosed);
        // It finds an end after what was in the pipe.
        slow.read_to_end(&mut taken).unwrap();
        sinks.write(Channel::Stdout, b"more");
        sinks.finish();
        assert_eq!(ids(&sinks.take_over(Some(EXIT))), [("fast", true)]);
        let mut text = String::new();
        fast.read_to_string(&mut text).unwrap();
        assert_eq!(text, "more");
        assert!(sinks.is_empty());
    }

    #[test]
    fn the_last_output_is_offered_for_a_while() {
        let mut sinks = Sinks::default();
        let (mut late, _late) = attach(&mut sinks, "late");
        let (_never, _lease) = attach(&mut sinks, "never");
        let text = vec![b'y'; 1 << 20];
        sinks.write(Channel::Stdout, &text);
        sinks.finish();
        assert!(sinks.take_over(Some(EXIT)).is_empty());
        let reading = std::thread::spawn(move || {
            let mut taken = Vec::new();
            late.read_to_end(&mut taken).unwrap();
            taken
        });
        while ids(&sinks.take_over(Some(EXIT))) != [("late", true)] {
            sinks.flush(0);
            std::thread::yield_now();
            assert!(sinks.until.unwrap() > clock::monotonic());
        }
        assert_eq!(reading.join().unwrap(), text);
        assert!(sinks.until().is_some());
        sinks.until = Some(0);
        assert_eq!(ids(&sinks.take_over(Some(EXIT))), [("never", false)]);
    }

    #[test]
    fn clients_together_keep_no_more_than_their_bound() {
        let mut sinks = Sinks::default();
        let clients: Vec<_> = (0..20).map(|_| attach(&mut sinks, "c")).collect();
        for _ in 0..30 {
            sinks.write(Channel::Stdout, &vec![b'z'; 64 << 10]);
        }
        let kept: usize = sinks.all.iter().map(Attachment::kept).sum();
        assert!(kept <= ALL_KEPT, "{kept}");
        assert!(!sinks.take_over(None).is_empty() && !sinks.is_empty());
        drop(clients);
    }

    #[test]
    fn there_is_a_bound_of_clients_and_one_that_left_makes_room() {
        let mut sinks = Sinks::default();
        let clients: Vec<_> = (0..MAX_ATTACHED).map(|_| attach(&mut sinks, "c")).collect();
        let lease = pipe().unwrap().1;
        let one_more = || NewClient {
            id: "d".to_owned(),
            asker: 5,
            lease: lease.try_clone().unwrap(),
            sinks: Vec::new(),
            input: AttachedInput::StaysOpen,
        };
        let error = sinks.add(one_more()).unwrap_err().to_string();
        assert!(error.contains("attached already"), "{error}");
        assert_eq!(sinks.remove(3), AttachedInput::IsClosed);
        assert_eq!(sinks.remove(3), AttachedInput::StaysOpen);
        sinks.add(one_more()).unwrap();
        drop(clients);
    }
}
