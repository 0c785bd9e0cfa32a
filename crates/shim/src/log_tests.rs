//! The log file against a disk that fills up.

#![allow(clippy::disallowed_methods, reason = "tests make files as they like")]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn texts(path: &Path) -> Vec<String> {
    let log = fs::read_to_string(path).unwrap();
    assert!(log.is_empty() || log.ends_with('\n'), "{log:?}");
    log.lines()
        .map(|line| line[crisp_sys::rfc3339::LENGTH + 1..].to_owned())
        .collect()
}

#[test]
fn lines_are_written_as_cri_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut log = Log::open(&path).unwrap();
    log.write(Channel::Stdout, b"be");
    log.write(Channel::Stderr, b"oh");
    assert_eq!(texts(&path), [""; 0], "lines are held until they end");
    log.write(Channel::Stdout, b"gun\n\nnot yet");
    log.write(Channel::Stderr, b"\r\n");
    log.end(Channel::Stdout);
    log.end(Channel::Stdout);
    log.end(Channel::Stderr);
    let expected = [
        "stdout F begun",
        "stdout F ",
        "stderr F oh",
        "stdout P not yet",
    ];
    let read: Vec<String> = texts(&path)
        .iter()
        .map(|text| text.trim_end_matches('\r').to_owned())
        .collect();
    assert_eq!(read, expected);
}

#[test]
fn many_short_lines_take_several_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    Log::open(&path)
        .unwrap()
        .write(Channel::Stdout, "x\n".repeat(5000).as_bytes());
    assert_eq!(texts(&path).len(), 5000);
}

#[test]
fn a_reopened_log_goes_on_in_a_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, old) = (dir.path().join("0.log"), dir.path().join("0.log.1"));
    let mut log = Log::open(&path).unwrap();
    log.write(Channel::Stdout, b"one\n");
    fs::rename(&path, &old).unwrap();
    log.write(Channel::Stdout, b"two\n");
    log.reopen().unwrap();
    log.write(Channel::Stdout, b"three\n");
    assert_eq!(texts(&old), ["stdout F one", "stdout F two"]);
    assert_eq!(texts(&path), ["stdout F three"]);
    fs::remove_dir_all(dir.path()).unwrap();
    assert!(log.reopen().is_err());
    log.write(Channel::Stdout, b"nobody reads this, and nothing breaks\n");
}

#[test]
fn only_regular_files_are_logs() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("link");
    symlink("/etc/passwd", &link).unwrap();
    assert!(Log::open(&link).is_err());
    assert!(Log::open(Path::new("/dev/null")).is_err());
    assert!(Log::open(&dir.path().join("none/0.log")).is_err());
}

#[test]
fn privileged_a_full_disk_leaves_a_marked_gap_and_no_torn_line() {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join("disk");
    fs::create_dir(&disk).unwrap();
    crisp_sys::mount::mount_classic("tmpfs", &disk, "tmpfs", "size=64k").unwrap();
    let (path, ballast) = (disk.join("0.log"), disk.join("ballast"));
    let mut log = Log::open(&path).unwrap();
    fs::write(&ballast, vec![0; 50 * 1024]).unwrap();
    let line = [&[b'y'; 999][..], b"\n"].concat();
    log.write(Channel::Stdout, &line.repeat(40));
    let before = texts(&path).len();
    assert!((5..20).contains(&before), "{before}");
    log.write(Channel::Stdout, b"lost too\n");
    fs::remove_file(&ballast).unwrap();
    log.write(Channel::Stdout, b"back\n");
    let after = texts(&path);
    crisp_sys::mount::unmount(&disk).unwrap();
    // A short line may still fit where a long one did not.
    let missing = |text: &String| {
        let rest = text.strip_prefix("stderr F crisp: ")?;
        rest.split_once(" log lines are missing")?
            .0
            .parse::<usize>()
            .ok()
    };
    let lost: usize = after.iter().filter_map(missing).sum();
    let marks = after.iter().filter_map(missing).count();
    assert!(lost >= 40 - before && marks >= 1);
    assert_eq!(
        after.len() - marks + lost,
        42,
        "each line is there or counted"
    );
    assert_eq!(after.last().map(String::as_str), Some("stdout F back"));
}

#[test]
fn a_line_that_a_killed_shim_was_writing_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("0.log");
    let mut log = Log::open(&path).unwrap();
    log.write(Channel::Stdout, b"whole\n");
    let whole = fs::read(&path).unwrap();
    let longest = [&whole[..HEADER], &[b'x'; MAX_TEXT][..]].concat();
    for torn in [&b""[..], b"2", &whole[..HEADER], &longest] {
        for before in [&whole[..], b""] {
            fs::write(&path, [before, torn].concat()).unwrap();
            Log::resume(&path).unwrap();
            assert_eq!(fs::read(&path).unwrap(), before, "{}", torn.len());
        }
    }
    // No line of ours is so long: it is left as it is.
    let foreign = [b'x'; LONGEST];
    fs::write(&path, foreign).unwrap();
    let mut log = Log::resume(&path).unwrap();
    log.write(Channel::Stdout, b"goes on\n");
    let read = fs::read(&path).unwrap();
    assert!(read.starts_with(&foreign) && read.ends_with(b"goes on\n"));
}
