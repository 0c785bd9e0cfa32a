//! Bytes that are kept, with bounds that a test reaches.

use super::*;
use proptest::prelude::*;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};

const BOUNDS: Bounds = Bounds {
    memory: 1000,
    alone: 3000,
    behind: 20_000,
};

/// The byte of the stream at a place.
fn byte(place: u64) -> u8 {
    u8::try_from(place.wrapping_mul(2_654_435_761) >> 7 & 0xff).unwrap()
}

fn text(place: u64, length: usize) -> Vec<u8> {
    (place..).take(length).map(byte).collect()
}

/// A backlog that is to have its file here.
fn beside(dir: &Path) -> Backlog {
    Backlog::new(Some(dir.join(".0.log.stdout")), BOUNDS)
}

/// Brings so many bytes, while the slowest client is at a place.
fn push(backlog: &mut Backlog, length: usize, wanted: u64) {
    let chunk = text(backlog.end(), length);
    backlog.push(&chunk, wanted);
}

/// Takes all from a place on.
fn drain(backlog: &mut Backlog, mut place: u64) {
    while place < backlog.end() {
        let piece = backlog.at(place).unwrap();
        assert!(!piece.is_empty() && *piece == text(place, piece.len()));
        place += piece.len() as u64;
        backlog.release(place);
    }
    assert!(backlog.is_empty());
}

fn size(backlog: &Backlog) -> Option<i64> {
    let file = backlog.disk.file.as_ref();
    file.map(|file| fstat(file).unwrap().st_size)
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Brings(usize),
    Takes(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (1..4000_usize).prop_map(Step::Brings),
        (0..3_usize, 1..6000_usize).prop_map(|(client, most)| Step::Takes(client, most)),
    ];
    proptest::collection::vec(step, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_client_gets_all_in_order_unless_it_is_too_far_behind(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut backlog = beside(dir.path());
        let mut places = [Some(0); 3];
        for step in steps {
            match step {
                Step::Brings(length) => {
                    let end = backlog.end() + length as u64;
                    // A client that has all takes what it can of the chunk at once.
                    if places[0] == Some(backlog.end()) {
                        places[0] = Some(backlog.end() + length as u64 / 2);
                    }
                    let wanted = places.iter().flatten().min().copied().unwrap_or(end);
                    push(&mut backlog, length, wanted);
                    prop_assert_eq!(backlog.end(), end);
                }
                Step::Takes(client, most) => {
                    let Some(place) = &mut places[client] else {
                        continue;
                    };
                    if *place < backlog.end() {
                        let piece = backlog.at(*place).unwrap();
                        let taken = piece.len().min(most);
                        prop_assert!(taken > 0 && piece[..taken] == text(*place, taken));
                        *place += taken as u64;
                    }
                }
            }
            let (start, end) = (backlog.start(), backlog.end());
            for place in &mut places {
                let is_lost = place.is_some_and(|place| place < start);
                prop_assert_eq!(is_lost, place.is_some_and(|at| end - at > BOUNDS.behind));
                if is_lost {
                    prop_assert_eq!(backlog.lack(place.unwrap()), CutOff::TooFarBehind);
                    *place = None;
                }
            }
            backlog.release(places.iter().flatten().min().copied().unwrap_or(u64::MAX));
            prop_assert!(backlog.memory.len() <= BOUNDS.memory);
            let size = u64::try_from(size(&backlog).unwrap_or(0)).unwrap();
            prop_assert!(size <= BOUNDS.behind, "the file has {} bytes", size);
            prop_assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }
}

#[test]
fn the_file_is_empty_once_all_is_taken_and_closed_in_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let mut backlog = beside(dir.path());
    push(&mut backlog, BOUNDS.memory, 0);
    assert_eq!(size(&backlog), None);
    push(&mut backlog, 9000, 0);
    assert!(size(&backlog).unwrap() > 8000);
    backlog.rest();
    drain(&mut backlog, 0);
    assert_eq!(size(&backlog), Some(0));
    push(&mut backlog, 9000, 10_000);
    drain(&mut backlog, 10_000);
    backlog.rest();
    assert_eq!((size(&backlog), backlog.memory.capacity()), (None, 0));
}

#[test]
fn without_a_log_only_memory_is_there() {
    let mut backlog = Backlog::new(None, BOUNDS);
    push(&mut backlog, BOUNDS.alone, 0);
    assert_eq!(backlog.start(), 0);
    push(&mut backlog, 1, 0);
    assert_eq!((backlog.start(), backlog.lack(0)), (1, CutOff::NoLog));
    drain(&mut backlog, 1);
}

#[test]
fn a_disk_that_takes_nothing_is_asked_again_once_all_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let mut backlog = beside(&gone);
    push(&mut backlog, BOUNDS.alone, 0);
    std::fs::create_dir(&gone).unwrap();
    push(&mut backlog, 100, 0);
    assert_eq!((backlog.start(), backlog.lack(0)), (100, CutOff::NoRoom));
    drain(&mut backlog, 100);
    let full = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/full");
    backlog.disk.file = Some(full.unwrap().into());
    let place = backlog.end();
    push(&mut backlog, BOUNDS.alone, place);
    assert_eq!(backlog.disk.state, State::Refuses);
    drain(&mut backlog, place);
    let place = backlog.end();
    push(&mut backlog, 10_000, place);
    assert_eq!(backlog.start(), place);
    drain(&mut backlog, place);
}

#[test]
fn a_disk_that_fills_up_has_what_it_took() {
    let dir = tempfile::tempdir().unwrap();
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let small = memfd_create("small", flags).unwrap();
    ftruncate(&small, 4096).unwrap();
    fcntl_add_seals(&small, SealFlags::GROW).unwrap();
    let mut backlog = beside(dir.path());
    backlog.disk.file = Some(small);
    while backlog.disk.state != State::Refuses {
        push(&mut backlog, 500, 0);
    }
    assert!(backlog.fresh > 3000 && backlog.start() == 0);
    let most = backlog.fresh + BOUNDS.alone as u64;
    while backlog.end() + 500 <= most {
        push(&mut backlog, 500, 0);
    }
    assert_eq!(backlog.start(), 0);
    // A client that has taken all of the file goes on, others are cut off.
    let place = backlog.fresh + 500;
    push(&mut backlog, 500, 0);
    assert!(backlog.start() > 4000 && backlog.start() <= place);
    assert_eq!(backlog.lack(0), CutOff::NoRoom);
    drain(&mut backlog, place);
}

#[test]
fn a_file_that_has_to_have_a_name_loses_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("name");
    std::fs::File::create(&name).unwrap();
    let file = shortly_named(&name).unwrap();
    assert_eq!(pwrite(&file, b"kept", 0), Ok(4));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
