//! Tests of what a shim leaves that is killed between any two of its steps.

#![allow(
    clippy::disallowed_methods,
    reason = "a test writes a file as nothing of ours would"
)]

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use crisp_shim_api::StreamEnd;
use crisp_sys::pipe::{held, pass, pipe, set_nonblocking};
use crisp_sys::pty;

use super::*;
use crate::log::Log;
use crate::output::Output;

/// The step before which the shim is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Killed {
    BeforeItReads,
    BeforeItNotes,
    BeforeItWrites,
    WithinItsWrite,
    BeforeItsWriteHolds,
    BeforeItIsDone,
    Afterwards,
}

const KILLED: [Killed; 7] = [
    Killed::BeforeItReads,
    Killed::BeforeItNotes,
    Killed::BeforeItWrites,
    Killed::WithinItsWrite,
    Killed::BeforeItsWriteHolds,
    Killed::BeforeItIsDone,
    Killed::Afterwards,
];

/// A directory with a bundle's file and a log.
struct Place(tempfile::TempDir);

impl Place {
    fn log(&self) -> Log {
        Log::resume(&self.0.path().join("log")).unwrap()
    }

    fn spool(&self) -> std::path::PathBuf {
        self.0.path().join(NAME)
    }

    /// The texts of all lines.
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.path().join("log")).unwrap();
        let texts = text.lines().map(|line| line.splitn(4, ' ').nth(3));
        texts
            .map(|text| text.unwrap_or("torn").to_owned())
            .collect()
    }
}

/// A shim that takes what a stream has, up to the step before which it is killed.
fn live(place: &Place, mut spool: Spool, source: &OwnedFd, killed: Killed) {
    let mut log = place.log();
    if killed == Killed::BeforeItReads {
        return;
    }
    let length = spool.fill(Channel::Stdout, source.as_fd()).unwrap();
    if killed == Killed::BeforeItNotes {
        return;
    }
    let (held, chunk) = {
        let all = spool.bytes(Channel::Stdout);
        all.split_at(all.len() - length)
    };
    let mut noted = None;
    log.write_kept(Channel::Stdout, (held, chunk), |write| {
        spool.begin(Channel::Stdout, &write);
        noted = Some(write);
    });
    let write = noted.unwrap();
    match killed {
        Killed::BeforeItWrites => cut(&log, &write, 0),
        Killed::WithinItsWrite => cut(&log, &write, 5),
        Killed::BeforeItIsDone => spool.hold(Channel::Stdout, 1 - spool.holding(Channel::Stdout)),
        Killed::Afterwards => spool.done(None),
        _ => {}
    }
}

/// Takes back all but so much of what was written.
fn cut(log: &Log, write: &Write, all_but: u64) {
    log.written_to(write.inode).1(write.log + all_but);
}

/// The next shim takes all that is left.
fn resume(place: &Place, source: &OwnedFd) {
    let mut output = Output::new(Some((place.log(), place.spool())));
    output.resume().unwrap();
    output
        .add(Channel::Stdout, source.try_clone().unwrap())
        .unwrap();
    output.pump(Channel::Stdout);
    output.finish();
}

#[test]
fn every_line_is_logged_once_whenever_the_shim_is_killed() {
    for killed in KILLED {
        let place = Place(tempfile::tempdir().unwrap());
        let (source, far) = pipe().unwrap();
        set_nonblocking(&source).unwrap();
        let mut far = fs::File::from(far);
        far.write_all(b"one\ntwo\nthr").unwrap();
        let spool = Spool::create(&place.spool()).unwrap();
        live(&place, spool, &source, killed);
        // Another is killed as early.
        far.write_all(b"ee\nfour\nfi").unwrap();
        if killed != Killed::BeforeItReads {
            let spool = Spool::open(&place.spool()).unwrap();
            let log = place.log();
            if let Some(inode) = spool.written_to() {
                let (length, cut) = log.written_to(inode);
                spool.settle(length, cut);
            }
            live(&place, spool, &source, killed);
        }
        far.write_all(b"ve\nsix").unwrap();
        drop(far);
        resume(&place, &source);
        let wanted = ["one", "two", "three", "four", "five", "six"];
        assert_eq!(place.lines(), wanted, "{killed:?}");
    }
}

#[test]
fn what_a_terminal_brought_waits_for_the_next_shim() {
    let place = Place(tempfile::tempdir().unwrap());
    let (master, _) = pty::open().unwrap();
    let far = pty::peer(&master).unwrap();
    pty::keep_newlines(&far).unwrap();
    let mut far = fs::File::from(far);
    let begin = || {
        let mut output = Output::new(Some((place.log(), place.spool())));
        output.add_terminal(master.try_clone().unwrap()).unwrap();
        output
    };
    let mut first = begin();
    far.write_all(b"one\ntw").unwrap();
    first.pump(Channel::Stdout);
    let relay = first.ends().find(|(end, _)| *end == StreamEnd::Relay);
    let relay = relay.unwrap().1.try_clone_to_owned().unwrap();
    // It is killed between the two moves.
    far.write_all(b"o\nthree\n").unwrap();
    assert_eq!(pass(&master, &relay, 100).unwrap(), 8);
    drop(first);
    let mut next = begin();
    next.set_relay(relay);
    next.resume().unwrap();
    let is_there = |output: &Output| output.sources().all(|(_, fd)| held(fd).unwrap() > 0);
    assert!(is_there(&next), "a terminal that is silent from now on");
    next.pump(Channel::Stdout);
    assert!(!is_there(&next));
    far.write_all(b"four").unwrap();
    next.pump(Channel::Stdout);
    drop(far);
    next.let_end();
    next.pump(Channel::Stdout);
    assert!(next.is_over());
    next.finish();
    assert_eq!(place.lines(), ["one", "two", "three", "four"]);
}

#[test]
fn lines_pass_whole_however_many_there_are() {
    let place = Place(tempfile::tempdir().unwrap());
    let (source, far) = pipe().unwrap();
    let mut far = fs::File::from(far);
    let writer = std::thread::spawn(move || {
        for number in 0..40_000 {
            writeln!(far, "line {number} {}", "x".repeat(number % 97)).unwrap();
        }
        far.write_all(&[b'y'; 3 * MAX_TEXT]).unwrap();
    });
    let mut output = Output::new(Some((place.log(), place.spool())));
    output.add(Channel::Stdout, source).unwrap();
    while !output.is_over() {
        output.pump(Channel::Stdout);
        output.rest();
        std::thread::yield_now();
    }
    writer.join().unwrap();
    let lines = place.lines();
    assert_eq!(lines.len(), 40_003);
    for (number, line) in lines[..40_000].iter().enumerate() {
        assert_eq!(*line, format!("line {number} {}", "x".repeat(number % 97)));
    }
    // It was never longer than its space, and gives its memory back.
    let left = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(place.spool()).unwrap());
    assert!(left * 512 <= 2 * NUMBERS as u64, "{left} blocks");
}

#[test]
fn without_room_for_the_file_output_goes_on() {
    let place = Place(tempfile::tempdir().unwrap());
    let (source, far) = pipe().unwrap();
    fs::File::from(far).write_all(b"one\ntwo").unwrap();
    let path = place.0.path().join("none").join(NAME);
    let mut output = Output::new(Some((place.log(), path)));
    output.add(Channel::Stdout, source).unwrap();
    while !output.is_over() {
        output.pump(Channel::Stdout);
    }
    assert_eq!(place.lines(), ["one", "two"]);
}

#[test]
fn a_damaged_file_is_refused() {
    let place = Place(tempfile::tempdir().unwrap());
    let spool = Spool::create(&place.spool()).unwrap();
    spool.set_place(Channel::Stderr, 0, NUMBERS..NUMBERS + 4);
    drop(spool);
    assert!(Spool::open(&place.spool()).is_err());
    fs::write(place.spool(), "short").unwrap();
    let mut output = Output::new(Some((place.log(), place.spool())));
    assert!(output.resume().is_err());
}

#[test]
fn a_torn_write_is_cut_before_it_is_forgotten() {
    let place = Place(tempfile::tempdir().unwrap());
    let spool = Spool::create(&place.spool()).unwrap();
    let write = Write {
        inode: 7,
        log: 10,
        length: 40,
        kept: 0,
    };
    spool.begin(Channel::Stdout, &write);
    let mut cut = None;
    spool.settle(30, |length| {
        assert_eq!(
            spool.written_to(),
            Some(7),
            "another kill would find nothing"
        );
        cut = Some(length);
    });
    assert_eq!((cut, spool.written_to()), (Some(10), None));
}

#[test]
fn a_gap_is_marked_by_the_next_shim_and_its_mark_is_no_part_of_a_write() {
    let place = Place(tempfile::tempdir().unwrap());
    let spool = Spool::create(&place.spool()).unwrap();
    spool.note_gap(Some((3, 28)));
    let mut log = place.log();
    log.take_gap(Spool::open(&place.spool()).unwrap().gap());
    let mut noted = None;
    log.write_kept(Channel::Stdout, (b"", b"tick\n"), |write| {
        noted = Some(write)
    });
    let Write { log, length, .. } = noted.unwrap();
    let lines = place.lines();
    assert!(lines[0].contains("3 log lines are missing"), "{lines:?}");
    assert_eq!(lines[1..], ["tick"]);
    let all = fs::metadata(place.0.path().join("log")).unwrap().len();
    assert_eq!(log + length as u64, all);
}

#[test]
fn a_write_to_a_log_that_was_moved_aside_is_found_there() {
    for killed in [Killed::WithinItsWrite, Killed::BeforeItsWriteHolds] {
        let place = Place(tempfile::tempdir().unwrap());
        let (source, far) = pipe().unwrap();
        set_nonblocking(&source).unwrap();
        let mut far = fs::File::from(far);
        far.write_all(b"one\ntwo\n").unwrap();
        live(
            &place,
            Spool::create(&place.spool()).unwrap(),
            &source,
            killed,
        );
        let aside = place.0.path().join("log.1");
        fs::rename(place.0.path().join("log"), &aside).unwrap();
        drop(far);
        resume(&place, &source);
        let mut text = fs::read_to_string(&aside).unwrap();
        text += &fs::read_to_string(place.0.path().join("log")).unwrap();
        let lines: Vec<_> = text.lines().map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(lines, [Some("one"), Some("two")], "{killed:?}");
    }
}

#[test]
fn output_that_left_its_file_does_not_come_back() {
    let place = Place(tempfile::tempdir().unwrap());
    let spool = Spool::create(&place.spool()).unwrap();
    let (source, far) = pipe().unwrap();
    fs::File::from(far).write_all(b"prog").unwrap();
    let mut spool = spool;
    spool.fill(Channel::Stdout, source.as_fd()).unwrap();
    assert_eq!(spool.bytes(Channel::Stdout), b"prog");
    spool.clear(Channel::Stdout);
    drop(spool);
    let spool = Spool::open(&place.spool()).unwrap();
    assert!(spool.bytes(Channel::Stdout).is_empty());
}

#[test]
fn a_line_without_its_stream_is_logged_at_the_end() {
    let place = Place(tempfile::tempdir().unwrap());
    let (source, far) = pipe().unwrap();
    fs::File::from(far).write_all(b"panic: x").unwrap();
    let mut spool = Spool::create(&place.spool()).unwrap();
    spool.fill(Channel::Stdout, source.as_fd()).unwrap();
    drop(spool);
    let mut output = Output::new(Some((place.log(), place.spool())));
    output.resume().unwrap();
    output.finish();
    assert_eq!(place.lines(), ["panic: x"]);
}
