//! Processes are recognised, begin with plain signals, and end with who began them.

use std::os::unix::process::ExitStatusExt as _;

use super::*;

/// The end of a command whose spawner is a thread that does something first, and ends.
fn end_after_spawner(first: impl FnOnce() + Send + 'static) -> Option<i32> {
    let spawner = std::thread::spawn(move || {
        first();
        let mut sleep = command("sleep");
        end_with_parent(sleep.arg("60"));
        sleep.spawn().unwrap()
    });
    spawner.join().unwrap().wait().unwrap().signal()
}

#[test]
fn a_command_ends_with_its_spawner() {
    assert_eq!(end_after_spawner(|| ()), Some(Signal::KILL.as_raw()));
}

#[test]
fn privileged_a_command_ends_with_its_spawner_outside_of_its_pid_namespace() {
    let end = end_after_spawner(|| {
        // SAFETY: it changes where children of this thread are, and touches no memory.
        assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWPID) }, 0);
    });
    assert_eq!(end, Some(Signal::KILL.as_raw()));
}

/// The test runs itself in a new PID namespace, where its group is one of outside.
#[test]
fn privileged_a_group_of_outside_has_no_number() {
    const INSIDE: &str = "CRISP_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        assert_eq!(own_group(), None);
        return;
    }
    let mut inside = command("unshare");
    inside.args(["--pid", "--fork"]);
    inside.arg(std::env::current_exe().unwrap());
    let name = "process::tests::privileged_a_group_of_outside_has_no_number";
    inside.args(["--exact", name]).env(INSIDE, "1");
    let status = inside.status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn stat_lines_with_hostile_names_parse() {
    let line = "7 (a) b (R 1) S 3 4 5 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 991 0 0";
    let stat = Stat::parse(line).unwrap();
    assert_eq!(
        (stat.state, stat.ppid, stat.session, stat.start_time),
        (b'S', 3, 5, 991)
    );
    assert_eq!(Stat::parse("7 (x"), None);
}

#[test]
fn a_process_is_recognised_by_its_start() {
    let me = ProcessId::of(i32::try_from(std::process::id()).unwrap()).unwrap();
    assert!(me.is_alive());
    assert!(
        !ProcessId {
            start_time: me.start_time + 1,
            ..me
        }
        .is_alive()
    );
}

#[test]
fn a_helper_begins_with_no_signal_blocked_or_ignored() {
    let look = || {
        nix::sys::signal::SigSet::all().thread_set_mask().unwrap();
        let mut look = command("grep");
        reset_signals(&mut look);
        look.args(["-E", "^Sig(Blk|Ign)", "/proc/self/status"]);
        String::from_utf8(look.output().unwrap().stdout).unwrap()
    };
    let lines = std::thread::spawn(look).join().unwrap();
    assert_eq!(lines.matches("\t0000000000000000\n").count(), 2, "{lines}");
}
