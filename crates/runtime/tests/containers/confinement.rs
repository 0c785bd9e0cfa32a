//! Confinement: what a container's process may do, seen from inside.

use std::collections::BTreeSet;

use crisp_seccomp::Arch;
use serde_json::json;

use crate::bench::{Bench, Case};

pub const CASES: &[Case] = &[
    ("privileged_capabilities_are_exactly_those", capabilities),
    ("privileged_no_capabilities_means_none", no_capabilities),
    ("privileged_the_user_is_exactly_that", user),
    ("privileged_a_filter_filters", seccomp),
    (
        "privileged_a_filter_without_no_new_privs",
        seccomp_without_no_new_privs,
    ),
    (
        "privileged_the_default_filter_meets_the_kernel",
        default_filter,
    ),
    ("privileged_two_conditions_on_one_argument", alternatives),
    ("privileged_limits_and_scores_are_set_or_clamped", limits),
    ("privileged_sysctls_reach_the_namespace", sysctls),
    ("privileged_devices_are_made_and_guarded", devices),
    ("privileged_cgroup_limits_are_in_force", cgroup_limits),
    (
        "privileged_missing_limits_of_huge_pages_are_told",
        missing_hugepages,
    ),
    ("privileged_limits_change_in_any_order", limits_change),
    ("privileged_the_setup_cannot_be_looked_into", untraceable),
    ("privileged_the_runtimes_binary_is_out_of_reach", own_binary),
];

fn status_lines(bench: &Bench) -> String {
    bench
        .output()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

fn capabilities() {
    let mut bench = Bench::new("grep -E '^(Cap|NoNew|Seccomp:)' /proc/self/status");
    let few = "0000000008000081";
    let zero = "0000000000000000";
    // CHOWN 0, SETUID 7, MKNOD 27.
    for set in ["bounding", "effective", "permitted"] {
        bench.spec["process"]["capabilities"][set] =
            json!(["CAP_CHOWN", "CAP_SETUID", "CAP_MKNOD"]);
    }
    let expected = |eff: &str| {
        format!(
            "CapInh: {zero} CapPrm: {eff} CapEff: {eff} CapBnd: {few} CapAmb: {zero} NoNewPrivs: 1 Seccomp: 0"
        )
    };
    assert_eq!(status_lines(&bench), expected(few));
    bench.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    assert_eq!(
        status_lines(&bench),
        expected(zero),
        "an execve by others than root"
    );
    for set in ["inheritable", "ambient"] {
        bench.spec["process"]["capabilities"][set] = json!(["CAP_CHOWN"]);
    }
    let lines = status_lines(&bench);
    assert!(lines.contains("CapAmb: 0000000000000001"), "{lines}");
}

fn no_capabilities() {
    let mut bench = Bench::new("grep -E '^Cap(Bnd|Eff)' /proc/self/status");
    bench.spec["process"]
        .as_object_mut()
        .unwrap()
        .remove("capabilities");
    let zero = "0000000000000000";
    assert_eq!(
        status_lines(&bench),
        format!("CapEff: {zero} CapBnd: {zero}")
    );
}

fn user() {
    let mut bench = Bench::new(
        "id -u; id -g; grep ^Groups /proc/self/status; umask; pwd; echo out > /dev/stdout; \
         touch /tmp/x; echo $HOME",
    );
    bench.spec["process"]["user"] =
        json!({ "uid": 1000, "gid": 2000, "umask": 0o77, "additionalGids": [5, 3000] });
    bench.spec["process"]["cwd"] = json!("/root");
    std::fs::create_dir(bench.upper().join("tmp")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(bench.upper().join("tmp"), mode).unwrap();
    assert_eq!(
        bench.output(),
        "1000\n2000\nGroups:\t5 3000 \n0077\n/root\nout\n/root\n",
    );
}

fn profile() -> serde_json::Value {
    json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 100 }
        ]
    })
}

fn seccomp() {
    let mut bench = Bench::new("mkdir /tmp/x; echo $?; grep ^Seccomp: /proc/self/status");
    bench.spec["linux"]["seccomp"] = profile();
    let output = bench.output();
    assert!(output.contains("Network is down"), "{output}");
    assert!(output.ends_with("1\nSeccomp:\t2\n"), "{output}");
}

fn seccomp_without_no_new_privs() {
    let mut bench =
        Bench::new("mkdir /tmp/x; grep -E '^(Seccomp:|NoNew|CapEff)' /proc/self/status");
    bench.spec["linux"]["seccomp"] = profile();
    bench.spec["process"]["noNewPrivileges"] = json!(false);
    bench.spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let output = bench.output();
    assert!(
        output.contains("NoNewPrivs:\t0") && output.contains("Seccomp:\t2"),
        "{output}"
    );
    assert!(output.contains("CapEff:\t0000000000000000"), "{output}");
}

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;

/// Makes the system call that its arguments name, and prints its error's number.
const PROBE: &str = r#"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(int n, char **v) {
    long a[4] = {0};
    for (int i = 1; i < n && i < 5; i++) a[i - 1] = strtoul(v[i], 0, 0);
    long r = syscall(a[0], a[1], a[2], a[3]);
    printf("%d\n", r < 0 ? errno : 0);
    return 0;
}
"#;

/// Error numbers of calls under a filter; a call is a number and arguments.
fn probed(profile: serde_json::Value, calls: &[(u32, &str)]) -> Vec<i32> {
    let lines = calls
        .iter()
        .map(|(number, arguments)| format!("/bin/probe {number} {arguments}"));
    let mut bench = Bench::new(&lines.collect::<Vec<_>>().join("; "));
    bench.spec["linux"]["seccomp"] = profile;
    let source = bench.dir.path().join("probe.c");
    std::fs::write(&source, PROBE).unwrap();
    std::fs::create_dir(bench.upper().join("bin")).unwrap();
    let made = crisp_sys::process::command("gcc")
        .args(["-static", "-o"])
        .arg(bench.upper().join("bin/probe"))
        .arg(&source)
        .status()
        .unwrap();
    assert!(made.success());
    let output = bench.output();
    output.lines().map(|line| line.parse().unwrap()).collect()
}

fn number(name: &str) -> u32 {
    Arch::native().number(name).unwrap()
}

fn default_filter() {
    let profile = crisp_seccomp::default_profile(Arch::native(), &BTreeSet::new());
    let socket = number("socket");
    let mut calls = vec![
        (number("getpid"), ""),
        (number("keyctl"), ""),
        (socket, "1 1 0"),
        (socket, "0x100000001 1 0"),
        (socket, "40 1 0"),
        (socket, "0x100000028 1 0"),
        (number("open_tree_attr"), ""),
    ];
    let newer = calls.len();
    calls.extend(
        (number("open_tree_attr") + 1..=600)
            .step_by(11)
            .map(|nr| (nr, "")),
    );
    let errors = probed(serde_json::to_value(profile).unwrap(), &calls);
    assert_eq!(errors[..newer], [0, EPERM, 0, 0, EPERM, EPERM, EPERM]);
    assert_eq!(errors.len(), calls.len());
    let later = &errors[newer..];
    assert!(later.iter().all(|error| *error == ENOSYS), "{later:?}");
}

fn alternatives() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" },
            { "index": 0, "value": 16, "op": "SCMP_CMP_EQ" },
        ]}]
    });
    let socket = number("socket");
    let calls = [(socket, "1 1 0"), (socket, "16 3 0"), (socket, "2 1 0")];
    assert_eq!(probed(profile, &calls), [EPERM, EPERM, 0]);
}

fn limits() {
    let mut bench = Bench::new("ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj");
    bench.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 64, "hard": 128 }]);
    bench.spec["process"]["oomScoreAdj"] = json!(900);
    assert_eq!(bench.output(), "64\n128\n900\n");
    bench.spec["process"]["rlimits"] =
        json!([{ "type": "RLIMIT_NOFILE", "soft": 1u64 << 30, "hard": 1u64 << 30 }]);
    // Raised where this machine may, clamped with a warning where not: never an error.
    drop(bench.run());
}

fn sysctls() {
    let mut bench =
        Bench::new("cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shmmni");
    bench.spec["linux"]["sysctl"] =
        json!({ "net.ipv4.ip_unprivileged_port_start": "81", "kernel.shmmni": "77" });
    assert_eq!(bench.output(), "81\n77\n");
    for (key, value) in [
        ("kernel.core_pattern", "x"),
        ("net.../../kernel/core_pattern", "x"),
        ("kernel.shmmni", "1\nkernel.core_pattern=x"),
    ] {
        bench.spec["linux"]["sysctl"] = json!({ key: value });
        let error = bench.run().unwrap_err().to_string();
        assert!(error.contains("linux.sysctl"), "{error}");
    }
    bench.spec["linux"]["sysctl"] = json!({ "net.core.somaxconn": "77" });
    bench.spec["linux"]["namespaces"]
        .as_array_mut()
        .unwrap()
        .retain(|n| n["type"] != "network");
    assert!(
        bench
            .run()
            .unwrap_err()
            .to_string()
            .contains("host's Net namespace")
    );
}

fn devices() {
    let mut bench = Bench::new(
        "stat -c '%t:%T %a %u' /dev/mine; echo > /dev/mine && echo written; echo > /dev/full; \
         head -c 1 /dev/zero | cat > /dev/null && echo zero",
    );
    bench.spec["linux"]["devices"] = json!([
        { "path": "/dev/mine", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 0, "gid": 0 }
    ]);
    bench.spec["linux"]["resources"] = json!({ "devices": [
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "access": "m" },
        { "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm" },
        { "allow": true, "type": "c", "major": 1, "minor": 5, "access": "r" }
    ]});
    let output = bench.output();
    assert!(output.starts_with("1:3 640 0\nwritten\n"), "{output}");
    assert!(
        output.contains("Operation not permitted") && output.ends_with("zero\n"),
        "{output}"
    );
}

fn cgroup_limits() {
    let mut bench = Bench::new("true");
    bench.spec["linux"]["resources"] = json!({
        "memory": { "limit": 64 * 1024 * 1024 },
        "pids": { "limit": 33 },
        "cpu": { "shares": 512, "quota": 50000, "period": 100_000 }
    });
    let (_read, stdio) = crate::bench::piped();
    let created = bench.create(stdio, crisp_runtime::Gate::Socket).unwrap();
    let v2 = bench.cgroup.layout().is_v2();
    let file = if v2 {
        "memory.max"
    } else {
        "memory.limit_in_bytes"
    };
    assert_eq!(
        bench.cgroup.read("memory", file).unwrap().trim(),
        "67108864"
    );
    assert_eq!(bench.cgroup.read("pids", "pids.max").unwrap().trim(), "33");
    let member = std::fs::read_to_string(format!("/proc/{}/cgroup", created.pid)).unwrap();
    let outside = member
        .lines()
        .filter(|line| !line.ends_with(bench.cgroup.path()));
    assert_eq!(outside.count(), 0, "{member}");
}

/// The kubelet asks for 0 of each size on every machine, which is worth a word only where pages are;
/// sizes that no machine has stand for the missing files.
fn missing_hugepages() {
    let mut bench = Bench::new("true");
    bench.spec["linux"]["resources"] = json!({ "hugepageLimits": [
        { "pageSize": "2MB", "limit": 0 },
        { "pageSize": "3MB", "limit": 3 << 20 },
        { "pageSize": "5MB", "limit": 0 },
    ]});
    let (_read, stdio) = crate::bench::piped();
    let created = bench.create(stdio, crisp_runtime::Gate::Socket).unwrap();
    let warned = |warning: &String| warning.contains("3MB pages are ignored");
    assert_eq!(
        created.warnings.iter().filter(|w| warned(w)).count(),
        1,
        "{:?}",
        created.warnings
    );
    let of_none = |warning: &String| warning.contains("5MB");
    assert!(
        !created.warnings.iter().any(of_none),
        "{:?}",
        created.warnings
    );
    let resources = json!({ "hugepageLimits": [{ "pageSize": "../2MB", "limit": 0 }] });
    let resources = serde_json::from_value(resources).unwrap();
    assert!(crisp_runtime::update(&bench.cgroup, &resources).is_err());
}

/// Each of these on top of the last, in the terms of both versions.
fn limits_change() {
    let bench = Bench::new("true");
    bench.cgroup.create().unwrap();
    let v2 = bench.cgroup.layout().is_v2();
    let file = |controller: &str, v1: &str, in_v2: &str| {
        let file = if v2 { in_v2 } else { v1 };
        bench
            .cgroup
            .read(controller, file)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let mib = |count: u64| count << 20;
    let memory =
        |limit: u64, swap: u64| json!({ "memory": { "limit": mib(limit), "swap": mib(swap) } });
    let steps = [
        memory(64, 64),
        json!({ "cpu": { "quota": 30000, "period": 100_000 } }),
        json!({ "cpu": { "period": 50_000 } }),
        memory(256, 256),
        json!({ "memory": { "limit": mib(512) } }),
        memory(32, 48),
        json!({ "memory": { "limit": mib(96), "swap": mib(48) } }),
    ];
    for step in steps {
        let resources = serde_json::from_value(step.clone()).unwrap();
        crisp_runtime::update(&bench.cgroup, &resources).unwrap_or_else(|e| panic!("{step}: {e}"));
    }
    let limit = file("memory", "memory.limit_in_bytes", "memory.max");
    assert_eq!(limit, mib(96).to_string());
    let total = file("memory", "memory.memsw.limit_in_bytes", "memory.swap.max");
    let expected = if v2 { 0 } else { mib(96) };
    assert!(total.is_empty() || total == expected.to_string(), "{total}");
    assert_eq!(
        file("cpu", "cpu.cfs_quota_us", "cpu.max").split(' ').next(),
        Some("30000")
    );
    let period = file("cpu", "cpu.cfs_period_us", "cpu.max");
    assert!(period.ends_with("50000"), "{period}");
}

/// Before its program starts, init is a copy of the runtime: nobody may open it.
fn untraceable() {
    let bench = Bench::new("true");
    let (_read, stdio) = crate::bench::piped();
    let created = bench.create(stdio, crisp_runtime::Gate::Socket).unwrap();
    let owner = std::fs::metadata(format!("/proc/{}/environ", created.pid)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    assert_eq!(
        crisp_sys::process::dumpable().unwrap(),
        crisp_sys::process::Dumpable::No
    );
}

/// CVE-2019-5736: an image whose program is `/proc/self/exe` runs a copy of the runtime, and what
/// it can then open must not be the host's file.
fn own_binary() {
    let mut bench = Bench::new("");
    for set in ["bounding", "effective", "permitted"] {
        bench.spec["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE", "CAP_SYS_PTRACE"]);
    }
    let script = "sleep 0.2; for p in /proc/[0-9]*; do echo x 2>/dev/null > $p/exe; done; true";
    bench.spec["process"]["args"] = json!(["sh", "-c", script]);
    // Opening it would say ETXTBSY while it runs; access(2) tells what holds for ever.
    let access = rustix::fs::access("/proc/self/exe", rustix::fs::Access::WRITE_OK);
    assert_eq!(access.unwrap_err(), rustix::io::Errno::ROFS);
    let before = crisp_sys::file::read_bounded("/proc/self/exe".as_ref(), u64::MAX).unwrap();
    drop(bench.run());
    let mut bench = Bench::new("");
    bench.spec["process"]["args"] = json!(["/proc/self/exe", "--list"]);
    drop(bench.run());
    let after = crisp_sys::file::read_bounded("/proc/self/exe".as_ref(), u64::MAX).unwrap();
    assert!(before == after);
}
