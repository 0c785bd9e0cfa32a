//! Calls that the default profile refuses, also when the upper half of a register says otherwise:
//! the kernel takes 32 bits of it (CVE-2026-123876).

use std::fs;

use cri::security_profile::ProfileType;
use crisp_api::runtime::v1 as cri;
use crisp_e2e::{configs, tools};

use crate::field::{Field, Row};

pub const ROWS: &[Row] = &[("calls that the default profile refuses", refused)];

/// Prints the name of each call that was not refused.
const PROBE: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>
#define TRY(name, ...) do { errno = 0; long r = syscall(__VA_ARGS__); \
  if (r >= 0 || (errno != EPERM && errno != ENOSYS)) printf("%s %ld %d\n", name, r, errno); } while (0)
int main(void) {
  long high = 1L << 32;
  TRY("vsock", SYS_socket, 40L, 1L, 0L);
  TRY("vsock, upper bits", SYS_socket, 40L | high, 1L, 0L);
  TRY("unshare user", SYS_unshare, (long)CLONE_NEWUSER);
  TRY("unshare mount", SYS_unshare, (long)CLONE_NEWNS);
  TRY("clone user", SYS_clone, CLONE_NEWUSER | 17L, 0L, 0L, 0L, 0L);
  TRY("clone3", SYS_clone3, 0L, 0L);
  TRY("setns", SYS_setns, 0L, 0L);
  TRY("mount", SYS_mount, "none", "/tmp", "tmpfs", 0L, 0L);
  TRY("fsopen", SYS_fsopen, "tmpfs", 0L);
  TRY("open_tree", SYS_open_tree, -100L, "/", 1L);
  TRY("bpf", SYS_bpf, 0L, 0L, 0L);
  TRY("keyctl", SYS_keyctl, 0L, 0L, 0L);
  TRY("add_key", SYS_add_key, 0L, 0L, 0L, 0L, 0L);
  TRY("userfaultfd", SYS_userfaultfd, 0L);
  TRY("perf_event_open", SYS_perf_event_open, 0L, 0L, 0L, 0L, 0L);
  TRY("io_uring_setup", SYS_io_uring_setup, 1L, 0L);
  TRY("kexec_load", SYS_kexec_load, 0L, 0L, 0L, 0L);
  TRY("init_module", SYS_init_module, 0L, 0L, 0L);
  TRY("open_by_handle_at", SYS_open_by_handle_at, 0L, 0L, 0L);
  TRY("personality", SYS_personality, 0x0040000L);
  TRY("personality, upper bits", SYS_personality, 0x0040000L | high);
#ifdef __x86_64__
  TRY("x32", 0x40000000L | SYS_mount, "none", "/tmp", "tmpfs", 0L, 0L);
#endif
  return 0;
}
"#;

fn refused(field: &mut Field<'_>) {
    let dir = field.volume("probe");
    let (source, program) = (format!("{dir}/probe.c"), format!("{dir}/probe"));
    fs::write(&source, PROBE).unwrap();
    drop(tools::run("gcc", &["-static", "-o", &program, &source]));
    let pod = field.pod("probe");
    let mut seen = Vec::new();
    for (attempt, kind) in (0..).zip([ProfileType::RuntimeDefault, ProfileType::Unconfined]) {
        let mut config = configs::idle("main");
        config.metadata.as_mut().unwrap().attempt = attempt;
        config.mounts = vec![configs::mount(&dir, "/probe")];
        configs::security(&mut config).seccomp = Some(cri::SecurityProfile {
            profile_type: kind.into(),
            localhost_ref: String::new(),
        });
        let container = field.run(&pod, &config);
        seen.push(field.cri.shell(&container, "/probe/probe"));
    }
    assert_eq!(seen[0], "", "calls that went through");
    assert!(
        seen[1].contains("vsock"),
        "the probe sees nothing: {}",
        seen[1]
    );
}
