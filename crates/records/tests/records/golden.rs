//! Golden journals in `tests/v1`, each with its frames as lines of JSON beside it. They are what
//! nodes have on their disks: a change that makes one of them read or write otherwise takes a new
//! version of the format, never a new golden file.
//!
//! A case whose files are not there yet writes them when `CRISP_NEW_GOLDEN` is set. Files that are
//! there are never written.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crisp_records::{Damage, Entry, Journal, PodState, Replay, read};
use crisp_sys::file;
use tempfile::TempDir;

use crate::values::*;

const MAGIC: &[u8] = b"crispjn1";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/v1")
        .join(name)
}

/// A journal of frames, by the format's own description.
fn framed(lines: &[&str]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for line in lines {
        let length = u32::try_from(line.len()).unwrap().to_le_bytes();
        let mut sum = crc32fast::Hasher::new();
        sum.update(&length);
        sum.update(line.as_bytes());
        bytes.extend(length);
        bytes.extend(sum.finalize().to_le_bytes());
        bytes.extend(line.as_bytes());
    }
    bytes
}

/// The bytes of a journal with these entries, without the room that it reserves.
fn written(entries: &[Entry]) -> Vec<u8> {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal");
    let mut journal = Journal::create(&path, &[]).unwrap();
    for entry in entries {
        journal.append(entry).unwrap();
    }
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes.truncate(end + 1);
    bytes
}

fn lines_of(journal: &[u8]) -> Vec<String> {
    let mut rest = journal.strip_prefix(MAGIC).unwrap();
    let mut lines = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes(head[..4].try_into().unwrap());
        let (json, behind) = behind.split_at(usize::try_from(length).unwrap());
        lines.push(String::from_utf8(json.to_vec()).unwrap());
        rest = behind;
    }
    lines
}

fn replay(entries: &[Entry]) -> Replay {
    let mut replay = Replay::default();
    for entry in entries {
        replay.apply(entry.clone());
    }
    replay
}

/// The frames of a golden file.
fn lines(name: &str) -> String {
    fs::read_to_string(golden(&format!("{name}.jsonl"))).unwrap()
}

/// Reads a journal that is made of bytes.
fn read_bytes(bytes: &[u8]) -> (Replay, Option<Damage>) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("journal");
    file::write_atomic(&path, bytes, 0o600).unwrap();
    read(&path)
}

/// Entries and their golden journal say the same, frame by frame and in both directions.
fn check(name: &str, entries: &[Entry]) {
    let path = golden(&format!("{name}.journal"));
    if !path.exists() && std::env::var_os("CRISP_NEW_GOLDEN").is_some() {
        let bytes = written(entries);
        let text: String = lines_of(&bytes).iter().map(|l| format!("{l}\n")).collect();
        file::write_atomic(&path, &bytes, 0o644).unwrap();
        file::write_atomic(&path.with_extension("jsonl"), text.as_bytes(), 0o644).unwrap();
    }
    let bytes = fs::read(&path).unwrap();
    let text = lines(name);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines_of(&bytes), lines, "{name}: journal and lines differ");
    let read_back = read(&path);
    assert_eq!(read_back.0, replay(entries), "{name}");
    assert!(read_back.1.is_none(), "{name}: {:?}", read_back.1);
    for count in 0..=lines.len() {
        let (read_back, damage) = read_bytes(&framed(&lines[..count]));
        assert_eq!(
            read_back,
            replay(&entries[..count]),
            "{name}, {count} frames"
        );
        assert!(damage.is_none(), "{name}: {damage:?}");
    }
    assert_eq!(
        lines_of(&written(entries)),
        lines,
        "{name} is written otherwise"
    );
    assert_eq!(written(entries), bytes, "{name} is framed otherwise");
}

#[test]
fn a_pod_alone() {
    check("pod", &[pod(small_pod())]);
}

#[test]
fn every_phase_of_a_pod() {
    let phases = [
        PodState::Booting,
        PodState::Ready,
        PodState::Stopping,
        PodState::NotReady,
        PodState::Removing,
    ];
    let mut entries = vec![pod(small_pod())];
    entries.extend(phases.map(|phase| Entry::Progress(progress(phase))));
    check("phases", &entries);
}

#[test]
fn containers_in_every_state() {
    let mut entries = vec![pod(small_pod())];
    for (byte, state) in (1..).zip(states()) {
        entries.push(container(small_container(byte)));
        let id = container_id(byte);
        entries.push(Entry::State { id, state });
    }
    let mut made = small_container(1);
    made.made = Some(small_made());
    entries.push(container(made));
    entries.push(Entry::Gone {
        id: container_id(2),
    });
    check("states", &entries);
}

#[test]
fn every_field_set() {
    let entries = [
        pod(full_pod()),
        Entry::Progress(full_progress(PodState::Ready)),
        container(full_container(1)),
    ];
    check("full", &entries);
}

#[test]
fn values_that_are_no_text() {
    let bytes = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    let mut odd = small_container(1);
    odd.config.env = vec![
        ("TEXT".into(), "a".into()),
        ("KEY".into(), bytes(b"\xffkey\xfe")),
        ("HALF".into(), bytes(b"\xc3")),
    ];
    check("bytes", &[pod(small_pod()), container(odd)]);
}

#[test]
fn images_that_mounts_show() {
    let mut shows = full_container(1);
    if let Some(made) = &mut shows.made {
        made.shown_images = vec!["docker.io/library/models@sha256:08".into()];
    }
    check("shown", &[pod(small_pod()), container(shows)]);
}

#[test]
fn selinux_levels_of_pods() {
    let mut labelled = small_pod();
    labelled.selinux_level = Some("s0:c7,c1023".parse().unwrap());
    check("level", &[pod(labelled)]);
    let text = lines("level");
    let wrong = text.replace("s0:c7,c1023", "s0:c1023,c7");
    let wrong: Vec<&str> = wrong.lines().collect();
    let (_, damage) = read_bytes(&framed(&wrong));
    assert!(matches!(damage, Some(Damage::Content { .. })), "{damage:?}");
}

#[test]
fn ids_of_user_namespaces() {
    let mut mapped = small_pod();
    mapped.config.namespaces.users = Some(id_map());
    let mut inside = full_container(1);
    inside.config.namespaces.users = Some(id_map());
    inside.config.mounts[0].id_map = Some(id_map());
    check("users", &[pod(mapped), container(inside)]);
}

/// As after a disk's fault: such a namespace cannot be made.
#[test]
fn ranges_that_overlap_are_refused() {
    let text = lines("users");
    let wrong = text.replace(r#""container":70000"#, r#""container":7"#);
    assert_ne!(wrong, text);
    let wrong: Vec<&str> = wrong.lines().collect();
    let (_, damage) = read_bytes(&framed(&wrong));
    assert!(matches!(damage, Some(Damage::Content { .. })), "{damage:?}");
}

#[test]
fn bytes_of_no_variable_are_refused() {
    let text = lines("bytes");
    let wrong = text.replace("[[1,", "[[3,");
    assert_ne!(wrong, text);
    let wrong: Vec<&str> = wrong.lines().collect();
    let (_, damage) = read_bytes(&framed(&wrong));
    assert!(matches!(damage, Some(Damage::Content { .. })), "{damage:?}");
}

#[test]
fn a_torn_tail_is_ignored() {
    let entries = [pod(small_pod()), Entry::Progress(progress(PodState::Ready))];
    let path = golden("torn.journal");
    if !path.exists() && std::env::var_os("CRISP_NEW_GOLDEN").is_some() {
        let mut bytes = written(&entries);
        bytes.truncate(bytes.len() - 5);
        file::write_atomic(&path, &bytes, 0o644).unwrap();
    }
    let (read_back, damage) = read(&path);
    assert_eq!(read_back, replay(&entries[..1]));
    assert!(damage.is_none());
}

#[test]
fn a_later_version_is_refused() {
    let text = lines("later");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(fs::read(golden("later.journal")).unwrap(), framed(&lines));
    let (read_back, damage) = read(&golden("later.journal"));
    assert_eq!(read_back, replay(&[pod(small_pod())]));
    assert!(matches!(damage, Some(Damage::Newer(2))), "{damage:?}");
}

#[test]
fn unknown_optional_fields_are_ignored() {
    let text = lines("unknown");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(fs::read(golden("unknown.journal")).unwrap(), framed(&lines));
    let (read_back, damage) = read(&golden("unknown.journal"));
    let entries = [
        pod(small_pod()),
        Entry::Progress(progress(PodState::Ready)),
        container(small_container(1)),
    ];
    assert_eq!(read_back, replay(&entries));
    assert!(damage.is_none(), "{damage:?}");
}

#[test]
fn unknown_kinds_and_variants_are_refused() {
    for json in [
        r#"{"version":1,"entry":{"teleported":{}}}"#,
        r#"{"version":1,"entry":{"progress":{"phase":"paused","boot_id":"b"}}}"#,
        r#"{"version":1,"entry":{"progress":{"boot_id":"b"}}}"#,
        r#"{"version":1,"entry":{"gone":{"id":"../../etc"}}}"#,
        r#"{"entry":{"gone":{"id":"x"}}}"#,
    ] {
        let (_, damage) = read_bytes(&framed(&[json]));
        let is_content = matches!(damage, Some(Damage::Content { at: 8, .. }));
        assert!(is_content, "{json}: {damage:?}");
    }
}
