//! Calls that older kernels lack, hidden by a filter as a nested node may have one.

use crisp_runtime::{Gate, Stdio};
use crisp_sys::fork::{self, CloneFlags, fork_with};
use crisp_sys::process::WaitStatus;
use crisp_sys::seccomp::{self, SockFilter};

use crate::bench::{Bench, Case, finish, process};

pub const CASES: &[Case] = &[(
    "privileged_containers_do_without_newer_calls",
    without_newer_calls,
)];

/// Their numbers are the same on every architecture.
const CLONE3: u32 = 435;
const CLOSE_RANGE: u32 = 436;
const ENOSYS: u32 = 38;

/// Has the kernel say that it does not know these calls.
fn hide() {
    let step = |code, jt, k| SockFilter { code, jt, jf: 0, k };
    let (load, jump, answer) = (0x20, 0x15, 0x06);
    let filter = [
        step(load, 0, 0),
        step(jump, 2, CLONE3),
        step(jump, 1, CLOSE_RANGE),
        step(answer, 0, 0x7fff_0000),
        step(answer, 0, 0x0005_0000 | ENOSYS),
    ];
    seccomp::load(&filter, 0).unwrap();
}

fn without_newer_calls() {
    let inside = || {
        assert!(fork::is_born_in_cgroup());
        hide();
        assert!(!fork::is_born_in_cgroup());
        let bench = Bench::new("echo $$; ls /proc/self/fd; read on");
        let (stay, write) = crisp_sys::pipe::pipe().unwrap();
        let (read, out) = crisp_sys::pipe::pipe().unwrap();
        let stdio = Stdio::Fds {
            stdin: Some(stay),
            stderr: out.try_clone().unwrap(),
            stdout: out,
        };
        let mut created = bench.create(stdio, Gate::Socket).unwrap();
        created.start().unwrap();
        // Beside it may be the program that it runs first.
        let there = bench.cgroup.procs().unwrap();
        assert!(there.contains(&created.pid), "moved there: {there:?}");
        let outcome = bench
            .exec(&created, process("ls /proc/self/fd; exit 3"))
            .unwrap();
        assert_eq!(outcome.output, "0\n1\n2\n3\n");
        assert_eq!(outcome.status, WaitStatus::Code(3));
        drop(write);
        let outcome = finish(created.pid, read.into());
        assert_eq!(outcome.output, "1\n0\n1\n2\n3\n");
        0
    };
    let (pid, _) = fork_with(CloneFlags::NONE, None, inside).unwrap();
    let status = crisp_sys::process::wait(pid).unwrap();
    assert_eq!(status, WaitStatus::Code(0), "see the panic above");
}
