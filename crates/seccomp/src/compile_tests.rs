//! The compiled program against a naive reading of the profile, on a small BPF machine.

use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

use super::*;
use crate::machine::{self, Call};
use crate::{default_profile, parse_profile};

const ALLOW: u32 = 0x7fff_0000;

fn run(program: &[Instruction], arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let call = Call {
        arch,
        number,
        arguments,
    };
    machine::run(program, &call)
}

fn native(program: &Program, name: &str, args: [u64; 6]) -> u32 {
    let arch = Arch::X86_64;
    run(
        &program.instructions,
        arch.audit(),
        arch.number(name).unwrap(),
        args,
    )
}

fn one_rule(op: LinuxSeccompOperator, value: u64, value_two: u64) -> Program {
    let arg = LinuxSeccompArgBuilder::default()
        .index(1_usize)
        .value(value)
        .op(op);
    let arg = arg.value_two(value_two).build().unwrap();
    let rule = LinuxSyscallBuilder::default()
        .names(vec!["ioctl".to_owned()])
        .args(vec![arg]);
    let rule = rule
        .action(LinuxSeccompAction::ScmpActAllow)
        .build()
        .unwrap();
    let profile = LinuxSeccompBuilder::default().syscalls(vec![rule]);
    let profile = profile
        .default_action(LinuxSeccompAction::ScmpActErrno)
        .build()
        .unwrap();
    compile(&profile, Arch::X86_64).unwrap()
}

#[test]
fn every_operator_compares_64_bits() {
    use LinuxSeccompOperator as Op;
    let values = [0, 1, 0xffff_ffff, 0x1_0000_0000, 0x1_0000_0001, u64::MAX];
    for value in values {
        for given in values {
            let cases = [
                (Op::ScmpCmpEq, given == value),
                (Op::ScmpCmpNe, given != value),
                (Op::ScmpCmpGt, given > value),
                (Op::ScmpCmpGe, given >= value),
                (Op::ScmpCmpLt, given < value),
                (Op::ScmpCmpLe, given <= value),
                (Op::ScmpCmpMaskedEq, given & value == 1 & value),
            ];
            for (op, allowed) in cases {
                let program = one_rule(op, value, 1);
                let verdict = native(&program, "ioctl", [7, given, 7, 7, 7, 7]);
                assert_eq!(verdict == ALLOW, allowed, "{given:#x} {op:?} {value:#x}");
                assert_eq!(native(&program, "read", [0; 6]), errno(EPERM));
                assert_eq!(native(&program, "openat", [0; 6]), errno(ENOSYS), "newer");
            }
        }
    }
}

#[test]
fn the_default_profile_is_small_and_says_what_it_should() {
    let profile = default_profile(Arch::X86_64, &BTreeSet::new());
    let program = compile(&profile, Arch::X86_64).unwrap();
    assert!(
        program.instructions.len() < 150,
        "{}",
        program.instructions.len()
    );
    assert_eq!(program.unknown, Vec::<String>::new());
    let clone_newuser = 0x1000_0000;
    let cases = [
        ("read", 0, ALLOW),
        ("clone", 0, ALLOW),
        ("clone", clone_newuser, errno(EPERM)),
        ("clone3", 0, errno(ENOSYS)),
        ("mount", 0, errno(EPERM)),
        ("bpf", 0, errno(EPERM)),
        ("keyctl", 0, errno(EPERM)),
        ("io_uring_setup", 0, errno(EPERM)),
        ("socket", 2, ALLOW),
        ("socket", 40, errno(EPERM)),
        ("socket", 40 | 1 << 32, errno(EPERM)),
        ("socket", 2 | 1 << 32, ALLOW),
        ("socket", 0, ALLOW),
        ("socket", 41, ALLOW),
        ("clone", clone_newuser | 1 << 33, errno(EPERM)),
        ("personality", 8 | 1 << 32, ALLOW),
        ("personality", 0x0004_0000 | 1 << 32, errno(EPERM)),
        ("open_tree_attr", 0, errno(EPERM)),
        ("personality", 8, ALLOW),
        ("personality", 0x0004_0000, errno(EPERM)),
    ];
    for (name, arg, verdict) in cases {
        let got = native(&program, name, [arg, 0, 0, 0, 0, 0]);
        assert_eq!(got, verdict, "{name}({arg:#x})");
    }
    let foreign = run(&program.instructions, 0x4000_0003, 0, [0; 6]);
    assert_eq!(foreign, errno(ENOSYS), "i386");
    let x32 = run(&program.instructions, Arch::X86_64.audit(), X32_BIT, [0; 6]);
    assert_eq!(x32, errno(ENOSYS), "x32");
}

#[test]
fn every_family_but_one_has_sockets() {
    let profile = default_profile(Arch::X86_64, &BTreeSet::new());
    let program = compile(&profile, Arch::X86_64).unwrap();
    for family in 0..64 {
        let verdict = native(&program, "socket", [family, 0, 0, 0, 0, 0]);
        assert_eq!(verdict == ALLOW, family != 40, "{family}");
    }
}

fn local(json: &str) -> Program {
    let profile = parse_profile(json.as_bytes(), Arch::X86_64, &BTreeSet::new()).unwrap();
    compile(&profile, Arch::X86_64).unwrap()
}

#[test]
fn conditions_on_one_argument_are_alternatives() {
    let program = local(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 2, "op": "SCMP_CMP_EQ"},
                {"index": 0, "value": 16, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 5, "op": "SCMP_CMP_EQ"}]},
            {"names": ["kill"], "action": "SCMP_ACT_ERRNO", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                {"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    let cases = [
        ("socket", [2, 1], errno(EPERM)),
        ("socket", [16, 1], errno(EPERM)),
        ("socket", [1, 5], errno(EPERM)),
        ("socket", [1, 1], ALLOW),
        ("kill", [1, 9], errno(EPERM)),
        ("kill", [1, 15], ALLOW),
        ("kill", [2, 9], ALLOW),
    ];
    for (name, [first, second], verdict) in cases {
        let got = native(&program, name, [first, second, 0, 0, 0, 0]);
        assert_eq!(got, verdict, "{name}({first}, {second})");
    }
}

#[test]
fn a_rule_that_says_the_default_weakens_no_other() {
    let program = local(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["kill", "mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["kill"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["mkdir"], "action": "SCMP_ACT_LOG", "args": [
                {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]}]}"#,
    );
    for name in ["kill", "mkdir"] {
        assert_eq!(native(&program, name, [1; 6]), errno(13), "{name}");
    }
}

#[test]
fn newer_calls_are_unknown_where_the_default_refuses() {
    let cases = [
        (r#""SCMP_ACT_ERRNO""#, errno(ENOSYS)),
        (r#""SCMP_ACT_ERRNO", "defaultErrnoRet": 13"#, errno(ENOSYS)),
        (r#""SCMP_ACT_KILL""#, errno(ENOSYS)),
        (r#""SCMP_ACT_KILL_PROCESS""#, errno(ENOSYS)),
        (
            r#""SCMP_ACT_KILL_PROCESS", "defaultErrnoRet": 38"#,
            0x8000_0000,
        ),
        (r#""SCMP_ACT_TRAP""#, errno(ENOSYS)),
        (r#""SCMP_ACT_TRACE""#, 0x7ff0_0001),
        (r#""SCMP_ACT_LOG""#, 0x7ffc_0000),
        (r#""SCMP_ACT_ALLOW""#, ALLOW),
    ];
    for (default, newer) in cases {
        // The newest that is named counts, also where its rule says what the default says.
        let program = local(&format!(
            r#"{{"defaultAction": {default}, "syscalls": [
                {{"names": ["read", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}},
                {{"names": ["futex_wait"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}}]}}"#
        ));
        assert_eq!(native(&program, "read", [0; 6]), errno(7));
        assert_eq!(native(&program, "futex_wait", [0; 6]), errno(EPERM));
        assert_eq!(
            native(&program, "futex_requeue", [0; 6]),
            newer,
            "{default}"
        );
        let last = run(&program.instructions, Arch::X86_64.audit(), 600, [0; 6]);
        assert_eq!(last, newer, "{default}");
        let nothing = local(&format!(
            r#"{{"defaultAction": {default}, "syscalls": []}}"#
        ));
        let any = native(&nothing, "read", [0; 6]);
        let expected = action_of(default);
        assert_eq!(
            any, expected,
            "{default}: nothing is known, so nothing is newer"
        );
    }
}

fn action_of(default: &str) -> u32 {
    let json = format!(r#"{{"defaultAction": {default}}}"#);
    let profile = parse_profile(json.as_bytes(), Arch::X86_64, &BTreeSet::new()).unwrap();
    action(profile.default_action(), profile.default_errno_ret())
}

#[test]
fn every_number_gets_what_a_plain_reading_gives() {
    for (arch, caps) in [(Arch::X86_64, ""), (Arch::Aarch64, "CAP_SYS_ADMIN")] {
        let caps = caps.split_whitespace().map(str::to_owned).collect();
        let profile = default_profile(arch, &caps);
        let program = compile(&profile, arch).unwrap();
        let default = action(profile.default_action(), profile.default_errno_ret());
        let (bodies, _) = bodies(&profile, arch, default).unwrap();
        for nr in 0..600 {
            let plain = bodies.get(&nr).filter(|body| body.guarded.is_empty());
            if !bodies.contains_key(&nr) || plain.is_some() {
                let newest = arch.number("open_tree_attr").unwrap();
                let other = if nr > newest { errno(ENOSYS) } else { default };
                let expected = plain.map_or(other, |body| body.otherwise);
                let got = run(&program.instructions, arch.audit(), nr, [0; 6]);
                assert_eq!(got, expected, "{arch:?} {nr}");
            }
        }
    }
}

/// Profiles name flags that only those of them with a listener need.
#[test]
fn a_flag_for_listeners_changes_nothing_without_one() {
    let profile = |flags: &str| {
        let text = format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","flags":[{flags}]}}"#);
        let profile: LinuxSeccomp = serde_json::from_str(&text).unwrap();
        compile(&profile, Arch::X86_64).unwrap()
    };
    let waits = r#""SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV""#;
    assert_eq!(profile(waits).flags, 0);
    assert_eq!(
        profile(&format!(r#"{waits},"SECCOMP_FILTER_FLAG_LOG""#)).flags,
        2
    );
    assert_eq!(profile(waits).instructions, profile("").instructions);
}

#[test]
fn calls_are_left_to_a_listener() {
    let program = local(
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"},
            {"names": ["kill"], "action": "SCMP_ACT_NOTIFY", "args": [{"index": 1, "value": 9, "op": "SCMP_CMP_EQ"}]}],
            "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}"#,
    );
    let (notified, allowed) = (0x7fc0_0000, 0x7fff_0000);
    assert_eq!(native(&program, "mkdirat", [0; 6]), notified);
    assert_eq!(native(&program, "kill", [1, 9, 0, 0, 0, 0]), notified);
    assert_eq!(native(&program, "kill", [1, 15, 0, 0, 0, 0]), allowed);
    assert!(program.listens);
    assert_eq!(
        program.flags,
        8 | 32,
        "a listener, and no threads to keep in step"
    );
}

#[test]
fn a_listener_cannot_decide_how_it_is_reached() {
    for (default, call, told) in [
        ("SCMP_ACT_NOTIFY", "mkdir", "as its default action"),
        ("SCMP_ACT_ALLOW", "write", "for write"),
    ] {
        let text = format!(
            r#"{{"defaultAction": "{default}",
                 "syscalls": [{{"names": ["{call}"], "action": "SCMP_ACT_NOTIFY"}}]}}"#
        );
        let profile: LinuxSeccomp = serde_json::from_str(&text).unwrap();
        let error = compile(&profile, Arch::X86_64).unwrap_err().to_string();
        assert!(error.contains(told), "{error}");
    }
}
