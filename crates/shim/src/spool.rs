//! Output between a container's pipes and its log, kept so that no kill of the shim loses or doubles a
//! line: what was read and is not logged yet stays in a file of the bundle, with a note of each write
//! to the log from before it until after.
//!
//! ```text
//! page of numbers    for each stream two places, (start, end) of what is not logged, and which of
//!                    them holds; the write that is under way
//! 256 KiB a stream   its bytes
//! ```
//!
//! A write to the log prepares the place that is to hold afterwards, notes how long the log is and will
//! be, writes, and lets the prepared place hold. Whether a killed shim wrote is seen by the log's length.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::atomic::Ordering;

use crisp_sys::spool::{NUMBERS, Spool as File};

use crate::lines::MAX_TEXT;
use crate::log::{Channel, Write};

/// The file in the bundle.
pub(crate) const NAME: &str = "output";
/// Bytes for each stream.
const SPACE: usize = 256 << 10;
const LENGTH: usize = NUMBERS + 2 * SPACE;
/// As much as a pipe holds by default: the most that is read at once.
const MOST: usize = 64 << 10;

/// Numbers of the write that is under way: 0 for none or its [`Turn`], the log's length before, how
/// much longer it is afterwards, and the log's inode.
const UNDER_WAY: [usize; 4] = [32, 33, 34, 35];
/// Numbers of a gap in the log that is not marked yet: lines, and the error number.
const GAP: [usize; 2] = [40, 41];
/// The number that says which layout this is.
const LAYOUT: usize = 511;
const THIS_LAYOUT: usize = 1;

const CHANNELS: [Channel; 2] = [Channel::Stdout, Channel::Stderr];

/// The file and its numbers.
#[derive(Debug)]
pub(crate) struct Spool(File);

/// A stream, and the place of it that is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Turn {
    channel: Channel,
    then: usize,
}

impl Turn {
    fn number(self) -> usize {
        1 + 2 * (self.channel as usize) + self.then
    }

    fn of(number: usize) -> Option<Self> {
        let number = number.checked_sub(1)?;
        let channel = *CHANNELS.get(number / 2)?;
        let then = number % 2;
        Some(Self { channel, then })
    }
}

/// Where the numbers of a stream are: which place holds, and then the places.
fn numbers(channel: Channel) -> usize {
    channel as usize * 8
}

/// Where a stream's bytes are.
fn space(channel: Channel) -> Range<usize> {
    let start = NUMBERS + channel as usize * SPACE;
    start..start + SPACE
}

impl Spool {
    /// Makes the file for a container that starts.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let new = Self(File::create(path, LENGTH)?);
        for channel in CHANNELS {
            let start = space(channel).start;
            new.set_place(channel, 0, start..start);
        }
        new.set(LAYOUT, THIS_LAYOUT);
        Ok(new)
    }

    /// Opens that of a shim that was killed.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let found = Self(File::open(path, LENGTH)?);
        let damaged = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
        if found.get(LAYOUT) != THIS_LAYOUT {
            return damaged("its layout is not known".to_owned());
        }
        let turn = Turn::of(found.get(UNDER_WAY[0]));
        for channel in CHANNELS {
            let then = turn.filter(|turn| turn.channel == channel);
            let then = then.map(|turn| turn.then);
            for index in 0..2 {
                let (place, space) = (found.place(channel, index), space(channel));
                let is_used = index == found.holding(channel) || then == Some(index);
                let within = space.start <= place.start && place.end <= space.end;
                if is_used && !(within && place.start <= place.end) {
                    return damaged(format!("{place:?} is no place of a stream"));
                }
            }
        }
        Ok(found)
    }

    fn get(&self, index: usize) -> usize {
        let number = self.0.number(index).load(Ordering::Acquire);
        usize::try_from(number).unwrap_or(usize::MAX)
    }

    /// In the order in which it is called: that is what a kill leaves.
    fn set(&self, index: usize, value: usize) {
        self.0.number(index).store(value as u64, Ordering::Release);
    }

    /// Which of the two places of a stream holds.
    fn holding(&self, channel: Channel) -> usize {
        self.get(numbers(channel)) & 1
    }

    fn place(&self, channel: Channel, index: usize) -> Range<usize> {
        let at = numbers(channel) + 1 + 2 * index;
        self.get(at)..self.get(at + 1)
    }

    fn set_place(&self, channel: Channel, index: usize, place: Range<usize>) {
        let at = numbers(channel) + 1 + 2 * index;
        self.set(at, place.start);
        self.set(at + 1, place.end);
    }

    /// Lets one of the two places hold from now on.
    fn hold(&self, channel: Channel, index: usize) {
        self.set(numbers(channel), index);
    }

    fn pending(&self, channel: Channel) -> Range<usize> {
        self.place(channel, self.holding(channel))
    }

    /// The bytes of a stream that are not in the log yet.
    pub(crate) fn bytes(&self, channel: Channel) -> &[u8] {
        self.0.bytes(self.pending(channel))
    }

    /// Takes more of a stream, and tells how much; 0 at its end.
    ///
    /// # Errors
    /// The errors of splice(2); nothing is lost.
    pub(crate) fn fill(&mut self, channel: Channel, source: BorrowedFd<'_>) -> io::Result<usize> {
        if space(channel).end - self.pending(channel).end < MOST {
            self.make_room(channel)?;
        }
        let end = numbers(channel) + 2 + 2 * self.holding(channel);
        self.0.fill(source, end, MOST)
    }

    /// Has what is pending begin where the space does.
    fn make_room(&mut self, channel: Channel) -> io::Result<()> {
        let (pending, start) = (self.pending(channel), space(channel).start);
        if pending.len() > MAX_TEXT {
            return Err(io::Error::other("a line that is longer than lines are"));
        }
        self.0.copy(pending.clone(), start)?;
        let other = 1 - self.holding(channel);
        self.set_place(channel, other, start..start + pending.len());
        self.hold(channel, other);
        Ok(())
    }

    /// Notes that the log is about to be written.
    pub(crate) fn begin(&self, channel: Channel, write: &Write) {
        let (pending, start) = (self.pending(channel), space(channel).start);
        let rest = match write.kept {
            0 => start..start,
            kept => pending.end - kept..pending.end,
        };
        let then = 1 - self.holding(channel);
        self.set_place(channel, then, rest);
        let [turn, length, more, inode] = UNDER_WAY;
        self.0.number(length).store(write.log, Ordering::Release);
        self.0.number(inode).store(write.inode, Ordering::Release);
        self.set(more, write.length);
        self.set(turn, Turn { channel, then }.number());
    }

    /// Notes that it was written, or that what has no room is given up, and the gap that is left.
    pub(crate) fn done(&self, gap: Option<(u64, i32)>) {
        self.note_gap(gap);
        if let Some(Turn { channel, then }) = Turn::of(self.get(UNDER_WAY[0])) {
            self.hold(channel, then);
            self.set(UNDER_WAY[0], 0);
        }
    }

    /// The inode of the log that a killed shim was writing to; `None` when it was at no write.
    pub(crate) fn written_to(&self) -> Option<u64> {
        Turn::of(self.get(UNDER_WAY[0]))?;
        Some(self.0.number(UNDER_WAY[3]).load(Ordering::Acquire))
    }

    /// Settles the write that a killed shim was at, by the length that its log has now. A part of it
    /// is cut off, before anything else: who is killed meanwhile leaves the same to the next.
    pub(crate) fn settle(&self, log: u64, cut: impl FnOnce(u64)) {
        let [turn, before, more, _] = UNDER_WAY.map(|index| self.get(index));
        let Some(Turn { channel, then }) = Turn::of(turn) else {
            return;
        };
        let (before, more) = (before as u64, more as u64);
        let holds = match log.checked_sub(before) {
            // All of it, and perhaps what somebody else wrote.
            Some(longer) if longer >= more => then,
            Some(1..) => {
                cut(before);
                1 - then
            }
            _ => 1 - then,
        };
        self.hold(channel, holds);
        self.set(UNDER_WAY[0], 0);
    }

    /// Lets go of what is pending of a stream: somebody else keeps it.
    pub(crate) fn clear(&self, channel: Channel) {
        let (other, start) = (1 - self.holding(channel), space(channel).start);
        self.set_place(channel, other, start..start);
        self.hold(channel, other);
    }

    /// Notes the gap that the log has and could not mark.
    pub(crate) fn note_gap(&self, gap: Option<(u64, i32)>) {
        let (lines, cause) = gap.unwrap_or_default();
        let [count, number] = GAP.map(|index| self.0.number(index));
        number.store(cause.unsigned_abs().into(), Ordering::Release);
        count.store(lines, Ordering::Release);
    }

    /// The gap that a killed shim left.
    pub(crate) fn gap(&self) -> Option<(u64, i32)> {
        let [lines, cause] = GAP.map(|index| self.0.number(index).load(Ordering::Acquire));
        (lines > 0).then(|| (lines, i32::try_from(cause).unwrap_or(0)))
    }

    /// Gives back memory that only a busy stream needs.
    pub(crate) fn rest(&mut self) {
        for channel in CHANNELS {
            let (space, pending) = (space(channel), self.pending(channel));
            if pending.is_empty() {
                self.0.free(space);
            } else {
                self.0.free(space.start..pending.start);
                self.0.free(pending.end..space.end);
            }
        }
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;
