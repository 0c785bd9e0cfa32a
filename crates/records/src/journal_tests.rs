//! Journals that are cut, flipped, of later versions, or grow.

use crisp_model::ContainerId;

use super::*;
use crate::frame::checksum;
use crate::record::{PodProgress, PodState};

fn progress(phase: PodState) -> Entry {
    Entry::Progress(PodProgress {
        phase,
        boot_id: "boot".into(),
        holder: None,
        ips: Vec::new(),
        made_cgroup: None,
    })
}

fn written(entries: &[Entry]) -> Vec<u8> {
    let frames = entries.iter().flat_map(|entry| frame(entry).unwrap());
    MAGIC.iter().copied().chain(frames).collect()
}

fn phase(scan: &Scan) -> Option<PodState> {
    scan.replay.progress.as_ref().map(|p| p.phase)
}

#[test]
fn a_torn_tail_is_ignored_wherever_it_is_cut() {
    let first = written(&[progress(PodState::Booting)]);
    let both = written(&[progress(PodState::Booting), progress(PodState::Ready)]);
    for cut in 0..both.len() {
        for zeros in [0, 4096] {
            let mut torn = both[..cut].to_vec();
            torn.resize(cut + zeros, 0);
            let scan = scan(&torn);
            assert!(scan.damage.is_none(), "cut at {cut}: {:?}", scan.damage);
            let want = (cut >= first.len()).then_some(PodState::Booting);
            assert_eq!(phase(&scan), want, "cut at {cut}");
        }
    }
    assert_eq!(phase(&scan(&both)), Some(PodState::Ready));
}

#[test]
fn flipped_bits_are_damage_when_more_follows() {
    let first = written(&[progress(PodState::Booting)]).len();
    let all = written(&[progress(PodState::Booting), progress(PodState::Ready)]);
    for at in 0..all.len() {
        for bit in 0..8 {
            let mut flipped = all.clone();
            flipped[at] ^= 1 << bit;
            let scan = scan(&flipped);
            assert_ne!(phase(&scan), Some(PodState::Ready), "byte {at} bit {bit}");
            assert_eq!(scan.damage.is_some(), at < first, "byte {at} bit {bit}");
        }
    }
}

#[test]
fn later_versions_are_refused_and_unknown_entries_told() {
    let wrap = |json: &str| {
        let length = u32::try_from(json.len()).unwrap().to_le_bytes();
        let sum = checksum(&length, json.as_bytes()).to_le_bytes();
        [&MAGIC[..], &length, &sum, json.as_bytes()].concat()
    };
    let later = wrap(r#"{"version":2,"entry":{"Teleported":{}}}"#);
    assert!(matches!(scan(&later).damage, Some(Damage::Newer(2))));
    let strange = wrap(r#"{"version":1,"entry":{"Teleported":{}}}"#);
    assert!(matches!(
        scan(&strange).damage,
        Some(Damage::Content { .. })
    ));
    assert!(matches!(scan(b"#!/bin/sh").damage, Some(Damage::Magic)));
}

#[test]
fn what_lies_in_the_place_of_a_journal_is_damage_and_gives_way() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let target = dir.path().join("elsewhere");
    Journal::create(&target, &[progress(PodState::Ready)]).unwrap();
    let places: [&dyn Fn(); 3] = [
        &|| fs::create_dir_all(path.join("inside")).unwrap(),
        &|| std::os::unix::fs::symlink(&target, &path).unwrap(),
        &|| drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
    ];
    for place in places {
        place();
        assert!(matches!(read(&path).1, Some(Damage::Place)));
        assert!(matches!(Journal::resume(&path), Err(Damage::Place)));
        Journal::create(&path, &[progress(PodState::Booting)]).unwrap();
        let (replay, damage) = read(&path);
        assert!(damage.is_none());
        assert_eq!(replay.progress.unwrap().phase, PodState::Booting);
        fs::remove_file(&path).unwrap();
    }
    let (replay, _) = read(&target);
    assert_eq!(
        replay.progress.unwrap().phase,
        PodState::Ready,
        "left alone"
    );
}

#[test]
fn a_journal_that_begins_takes_the_place_of_an_earlier_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    for phase in [PodState::Booting, PodState::Ready] {
        let mut journal = Journal::begin(&path, &[progress(phase)]).unwrap();
        assert_eq!(read(&path).0.progress.unwrap().phase, phase);
        journal.append(&progress(PodState::Stopping)).unwrap();
        let end = journal.end;
        assert_eq!(Journal::resume(&path).unwrap().end, end);
    }
    let names = fs::read_dir(dir.path()).unwrap();
    assert_eq!(names.count(), 1, "nothing unfinished is left");
    Journal::begin(&dir.path().join("missing/journal"), &[]).unwrap_err();
}

#[test]
fn a_long_journal_is_rewritten_and_says_the_same() {
    let dir = std::env::temp_dir().join(format!("crisp-journal-{}", std::process::id()));
    file::make_private_dirs(&dir).unwrap();
    let path = dir.join("journal");
    let mut journal = Journal::create(&path, &[]).unwrap();
    for _ in 0..2000 {
        journal.append(&progress(PodState::Booting)).unwrap();
    }
    journal.append(&progress(PodState::Ready)).unwrap();
    assert!(journal.end < RESERVED);
    let end = journal.end;
    drop(journal);
    let (replay, damage) = read(&path);
    assert!(damage.is_none());
    assert_eq!(replay.progress.unwrap().phase, PodState::Ready);
    assert_eq!(Journal::resume(&path).unwrap().end, end);
    fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_grows_is_refused_before_what_becomes_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("journal");
    let mut journal = Journal::create(&path, &[]).unwrap();
    journal.limit = 8 << 10;
    let known = scan(include_bytes!("../tests/v1/full.journal")).replay;
    let (container, _) = known.containers.into_values().next().unwrap();
    let container = |number: u8| {
        let mut container = container.clone();
        container.id = ContainerId::parse(&format!("{number:064x}")).unwrap();
        Entry::Container(container)
    };
    let refused = (0..u8::MAX).find_map(|number| journal.append(&container(number)).err());
    assert_eq!(refused.unwrap().kind(), io::ErrorKind::FileTooLarge);
    assert!(journal.end <= journal.limit);
    for _ in 0..1000 {
        journal.append(&progress(PodState::Stopping)).unwrap();
        assert!(journal.end <= journal.limit);
    }
    let (replay, damage) = read(&path);
    assert!(damage.is_none() && !replay.containers.is_empty());
    for id in replay.containers.into_keys() {
        journal.append(&Entry::Gone { id }).unwrap();
    }
    journal.append(&container(0)).unwrap();
}
