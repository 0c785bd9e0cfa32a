//! The CRI log: whole, in order, over rotations and terminals.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crisp_shim_api::{Reply, Request};
use serde_json::json;

use crate::lab::{Lab, texts, until};

#[test]
fn privileged_rotation_loses_and_splits_nothing() {
    const LINES: usize = 60_000;
    let mut lab = Lab::new(&format!("seq 1 {LINES}"));
    lab.start();
    let log = lab.launch.log.clone().unwrap();
    let mut files = Vec::new();
    for number in 0..30 {
        let old = log.with_extension(format!("{number}"));
        fs::rename(&log, &old).unwrap();
        files.push(old);
        match lab.ask(Request::ReopenLog) {
            Reply::Done => {}
            // The container may be over by now; then there is nothing to rotate any more.
            Reply::Failed { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    lab.exited();
    files.push(log);
    files.retain(|file| file.exists());
    let all: Vec<String> = files.iter().flat_map(|file| texts(file)).collect();
    let expected: Vec<String> = (1..=LINES).map(|n| format!("stdout F {n}")).collect();
    assert_eq!(all.len(), LINES);
    assert!(all == expected);
    lab.shut_down();
}

#[test]
fn privileged_long_lines_go_on_in_further_ones() {
    let mut lab =
        Lab::new("dd if=/dev/zero bs=1000 count=40 2>/dev/null | tr '\\0' x; echo; echo end");
    let rootfs = lab.dir.path().join("rootfs/bin");
    std::os::unix::fs::symlink("busybox", rootfs.join("tr")).unwrap();
    lab.start();
    lab.exited();
    let log = lab.log();
    let shape: Vec<(&str, usize)> = log.iter().map(|l| (&l[..8], l.len() - 9)).collect();
    let expected = [
        ("stdout P", 16_384),
        ("stdout P", 16_384),
        ("stdout F", 40_000 - 2 * 16_384),
        ("stdout F", 3),
    ];
    assert_eq!(shape, expected);
    let mode = fs::metadata(lab.launch.log.as_ref().unwrap())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
    lab.shut_down();
}

#[test]
fn privileged_a_terminals_output_is_logged_as_it_comes() {
    let mut lab = Lab::new("echo one; echo two >&2; test -t 0 && test -t 1 && echo terminal");
    lab.spec["process"]["terminal"] = json!(true);
    lab.start();
    lab.exited();
    assert_eq!(
        lab.log(),
        ["stdout F one\r", "stdout F two\r", "stdout F terminal\r"]
    );
    lab.shut_down();
}

/// An init closes its streams, and opens the console later.
#[test]
fn privileged_a_terminal_outlives_its_last_user() {
    let script = "echo one; exec <&- >&- 2>&-; read on </tmp/go; echo two >/dev/console; \
        read on </tmp/go; echo three >/dev/tty";
    let mut lab = Lab::new(script);
    lab.spec["process"]["terminal"] = json!(true);
    let go = lab.dir.path().join("rootfs/tmp/go");
    crisp_sys::process::command("mkfifo")
        .arg(&go)
        .status()
        .unwrap();
    lab.start();
    let word = |word: &str| {
        fs::OpenOptions::new()
            .write(true)
            .open(word)
            .map(drop)
            .unwrap()
    };
    until("one", || lab.log() == ["stdout F one\r"]);
    word(go.to_str().unwrap());
    until("two", || lab.log().last().unwrap() == "stdout F two\r");
    word(go.to_str().unwrap());
    let record = lab.exited();
    assert_eq!(record.status.code(), 0);
    assert_eq!(lab.log().last().unwrap(), "stdout F three\r");
    lab.shut_down();
}

#[test]
fn privileged_a_full_disk_never_blocks_the_container() {
    let mut lab = Lab::new("seq 1 200000; echo done > /tmp/done; sleep 1000");
    let disk = lab.dir.path().join("logs");
    crisp_sys::mount::mount_classic("tmpfs", &disk, "tmpfs", "size=64k").unwrap();
    lab.start();
    until("done", || lab.dir.path().join("rootfs/tmp/done").exists());
    let lines = lab.log();
    lab.ask(Request::KillAll);
    lab.exited();
    crisp_sys::mount::unmount(&disk).unwrap();
    let numbered = (1..).map(|n| format!("stdout F {n}"));
    assert!(lines.len() > 500 && lines.iter().zip(numbered).all(|(line, n)| *line == n));
    lab.shut_down();
}

#[test]
fn privileged_without_a_log_output_is_discarded() {
    let mut lab = Lab::new("seq 1 200000");
    lab.launch.log = None;
    lab.start();
    assert_eq!(lab.exited().status.code(), 0);
    assert_eq!(lab.ask(Request::Shutdown), Reply::Done);
}
