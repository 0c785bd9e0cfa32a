//! The keeper of a scope: it leaves with its maker, and has nothing once it stays.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use crisp_sys::signals;

use crate::lab::until;

fn make() -> Child {
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_crisp-holder"));
    keeper.args(["keep", "77"]).stdin(Stdio::piped());
    keeper.stdout(Stdio::null()).spawn().unwrap()
}

#[test]
fn privileged_it_leaves_when_its_maker_hangs_up_before_it_is_told_to_stay() {
    for words in ["", "sta", "stay here"] {
        let mut keeper = make();
        keeper
            .stdin
            .take()
            .unwrap()
            .write_all(words.as_bytes())
            .unwrap();
        assert!(keeper.wait().unwrap().success(), "{words:?}");
    }
}

#[test]
fn privileged_it_stays_with_nothing_until_it_is_killed() {
    let mut keeper = make();
    keeper.stdin.take().unwrap().write_all(b"stay").unwrap();
    let pid = i32::try_from(keeper.id()).unwrap();
    let status = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    until("it gives everything up", || {
        status().contains("NoNewPrivs:\t1")
    });
    let told = status();
    assert!(told.starts_with("Name:\tcrisp-keeper\n"), "{told}");
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"] {
        assert!(told.contains(line), "{told}");
    }
    assert!(!told.contains("Uid:\t0"), "{told}");
    let fds = format!("/proc/{pid}/fd");
    until("it has closed everything", || {
        fs::read_dir(&fds).unwrap().count() == 0
    });
    // As at the end of the machine, and by whoever ends the scope.
    signals::kill(pid, 15).unwrap();
    assert_eq!(keeper.wait().unwrap().signal(), Some(15));
}
