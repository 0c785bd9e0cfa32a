//! Clients that are attached, each by a pipe whose other end the test reads.

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
        patience: i64::MAX,
    };
    sinks.add(client).unwrap();
    (File::from(out), leased)
}

fn ids(over: &[Detached]) -> Vec<(&str, bool)> {
    let each = over.iter();
    each.map(|over| (over.id.as_str(), over.exit.is_some()))
        .collect()
}

fn patience(sinks: &mut Sinks, patience: i64) {
    for attachment in &mut sinks.all {
        attachment.patience = patience;
    }
}

#[test]
fn a_client_that_takes_nothing_is_given_up_and_others_get_all() {
    let mut sinks = Sinks::new(None);
    let (mut slow, _slow) = attach(&mut sinks, "slow");
    let (mut fast, _fast) = attach(&mut sinks, "fast");
    sinks.confirm(4, "fast");
    sinks.confirm(5, "slow");
    let chunk = vec![b'x'; 64 << 10];
    let mut taken = vec![0; chunk.len()];
    for _ in 0..5 {
        sinks.write(Channel::Stdout, &chunk);
        sinks.write(Channel::Stderr, b"not wanted");
        fast.read_exact(&mut taken).unwrap();
        assert_eq!(taken, chunk);
    }
    assert!(sinks.is_behind(Channel::Stdout) && !sinks.is_behind(Channel::Stderr));
    let before = sinks.all[0].sinks[0].moved;
    patience(&mut sinks, i64::MAX - before);
    assert_eq!(sinks.until(), Some(i64::MAX));
    assert!(sinks.take_over(None).is_empty());
    patience(&mut sinks, 0);
    let over = sinks.take_over(None);
    assert_eq!(ids(&over), [("slow", false)]);
    assert_eq!(over[0].cut, Some(CutOff::TookNothing));
    assert_eq!(over[0].input, AttachedInput::IsClosed);
    drop(over);
    assert!(!sinks.is_behind(Channel::Stdout));
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
fn a_client_that_takes_a_little_is_waited_for_anew() {
    let mut sinks = Sinks::new(None);
    let (mut slow, _slow) = attach(&mut sinks, "slow");
    let text: Vec<u8> = (0..=u8::MAX).cycle().take(200_000).collect();
    sinks.write(Channel::Stdout, &text);
    let (mut all, mut some) = (Vec::new(), [0; 10_000]);
    while sinks.is_behind(Channel::Stdout) {
        // Had it not moved since, it would be given up with this.
        sinks.all[0].sinks[0].moved = 0;
        patience(&mut sinks, clock::monotonic() - 1);
        slow.read_exact(&mut some).unwrap();
        all.extend(some);
        sinks.flush(0);
        assert!(sinks.take_over(None).is_empty());
    }
    drop(sinks);
    slow.read_to_end(&mut all).unwrap();
    assert_eq!(all, text);
}

/// By memory and file, with clients of all speeds.
#[test]
fn clients_get_all_in_order_each_at_its_own_pace() {
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = Sinks::new(Some(&dir.path().join("0.log")));
    let mut clients: Vec<_> = (0..5)
        .map(|_| (attach(&mut sinks, "c"), Vec::new()))
        .collect();
    let text: Vec<u8> = (0..4_000_000_u32)
        .flat_map(|n| (n / 4).to_be_bytes()[1..].to_vec())
        .collect();
    for (number, chunk) in text.chunks(50_000).enumerate() {
        sinks.write(Channel::Stdout, chunk);
        for (index, ((out, _), taken)) in clients.iter_mut().enumerate() {
            if index > 0 {
                let mut some = vec![0; 997 * (1 + number % 17) * index * index];
                let held = crisp_sys::pipe::held(&*out).unwrap();
                some.truncate(usize::try_from(held).unwrap());
                out.read_exact(&mut some).unwrap();
                taken.extend(some);
            }
            sinks.flush(u64::try_from(index).unwrap());
        }
    }
    assert!(sinks.all.len() == 5 && sinks.take_over(None).is_empty());
    sinks.finish();
    let readers = clients.into_iter().map(|((mut out, lease), mut taken)| {
        std::thread::spawn(move || {
            out.read_to_end(&mut taken).unwrap();
            (lease, taken)
        })
    });
    let readers: Vec<_> = readers.collect();
    while !sinks.is_empty() {
        (0..5).for_each(|key| sinks.flush(key));
        sinks.take_over(Some(EXIT));
    }
    for reader in readers {
        assert!(reader.join().unwrap().1 == text);
    }
}

#[test]
fn a_client_too_far_behind_is_cut_at_once_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("0.log");
    let missing = dir.path().join("missing/0.log");
    for (log, why, most) in [
        (Some(log.as_path()), CutOff::TooFarBehind, 64 << 20),
        (Some(missing.as_path()), CutOff::NoRoom, 2 << 20),
        (None, CutOff::NoLog, 2 << 20),
    ] {
        let mut sinks = Sinks::new(log);
        let (mut fast, _fast) = attach(&mut sinks, "fast");
        let (slow, _slow) = attach(&mut sinks, "slow");
        let chunk = vec![b'z'; 64 << 10];
        let (mut taken, mut written) = (vec![0; chunk.len()], 0);
        let over = loop {
            sinks.write(Channel::Stdout, &chunk);
            written += chunk.len();
            fast.read_exact(&mut taken).unwrap();
            let over = sinks.take_over(None);
            if !over.is_empty() {
                break over;
            }
        };
        assert_eq!(
            (ids(&over), over[0].cut),
            (vec![("slow", false)], Some(why))
        );
        // It has what is in its pipe, which is not kept.
        assert_eq!(written, most + 2 * chunk.len());
        assert!(!sinks.is_behind(Channel::Stdout));
        drop(slow);
    }
}

#[test]
fn the_last_output_is_offered_for_a_while() {
    let mut sinks = Sinks::new(None);
    let (mut late, _late) = attach(&mut sinks, "late");
    let text = vec![b'y'; 1 << 20];
    sinks.write(Channel::Stdout, &text);
    sinks.finish();
    assert!(sinks.until().unwrap() <= clock::monotonic() + OFFERED);
    assert!(sinks.take_over(Some(EXIT)).is_empty());
    patience(&mut sinks, i64::MAX);
    let (mut taken, mut some) = (Vec::new(), [0; 16 << 10]);
    while ids(&sinks.take_over(Some(EXIT))) != [("late", true)] {
        let read = late.read(&mut some).unwrap();
        taken.extend_from_slice(&some[..read]);
        sinks.flush(0);
    }
    late.read_to_end(&mut taken).unwrap();
    assert_eq!(taken, text);
}

#[test]
fn a_shim_that_is_to_leave_gives_slow_clients_up() {
    let mut sinks = Sinks::new(None);
    let (_never, _lease) = attach(&mut sinks, "never");
    sinks.write(Channel::Stdout, &vec![b'y'; 1 << 20]);
    sinks.hurry();
    let last = sinks.last.unwrap();
    sinks.hurry();
    assert_eq!((sinks.last, sinks.until()), (Some(last), Some(last)));
    assert!(sinks.take_over(Some(EXIT)).is_empty());
    sinks.last = Some(0);
    let over = sinks.take_over(Some(EXIT));
    assert_eq!(ids(&over), [("never", false)]);
    assert_eq!(over[0].cut, Some(CutOff::NotInTime));
    // Its asker does not know yet that it was attached.
    assert_eq!(over[0].input, AttachedInput::StaysOpen);
}

#[test]
fn there_is_a_bound_of_clients_and_one_that_left_makes_room() {
    let mut sinks = Sinks::new(None);
    let clients: Vec<_> = (0..MAX_ATTACHED).map(|_| attach(&mut sinks, "c")).collect();
    let lease = pipe().unwrap().1;
    let one_more = || NewClient {
        id: "d".to_owned(),
        asker: 5,
        lease: lease.try_clone().unwrap(),
        sinks: Vec::new(),
        input: AttachedInput::StaysOpen,
        patience: 0,
    };
    let error = sinks.add(one_more()).unwrap_err().to_string();
    assert!(error.contains("attached already"), "{error}");
    sinks.all[3].input = AttachedInput::IsClosed;
    assert_eq!(sinks.remove(3), AttachedInput::IsClosed);
    assert_eq!(sinks.remove(3), AttachedInput::StaysOpen);
    sinks.add(one_more()).unwrap();
    drop(clients);
}
