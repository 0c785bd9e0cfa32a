//! The compiled program against a naive reading of the profile, on a small BPF machine.

use oci_spec::runtime::{LinuxSeccompArgBuilder, LinuxSeccompBuilder, LinuxSyscallBuilder};

use super::*;
use crate::assemble::{JA, RET};
use crate::default_profile;

const ALLOW: u32 = 0x7fff_0000;

fn run(program: &[Instruction], arch: u32, nr: u32, args: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        0 => nr,
        4 => arch,
        offset => {
            let (high, low) = halves(args[((offset - 16) / 8) as usize]);
            if offset % 8 == 0 { low } else { high }
        }
    };
    let (mut a, mut at) = (0_u32, 0_usize);
    loop {
        let i = program[at];
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { i.jt } else { i.jf });
        match i.code {
            LD_ABS => a = load(i.k),
            AND => a &= i.k,
            JEQ => jump(a == i.k),
            JGT => jump(a > i.k),
            JGE => jump(a >= i.k),
            JA => at += i.k as usize,
            RET => return i.k,
            other => panic!("{other:#x}"),
        }
    }
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
                (Op::ScmpCmpMaskedEq, given & value == 1),
            ];
            for (op, allowed) in cases {
                let program = one_rule(op, value, 1);
                let verdict = native(&program, "ioctl", [7, given, 7, 7, 7, 7]);
                assert_eq!(verdict == ALLOW, allowed, "{given:#x} {op:?} {value:#x}");
                assert_eq!(native(&program, "read", [0; 6]), errno(EPERM));
            }
        }
    }
}

#[test]
fn the_default_profile_is_small_and_says_what_it_should() {
    let profile = default_profile(Arch::X86_64, &std::collections::BTreeSet::new());
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
fn every_number_gets_what_a_plain_reading_gives() {
    for (arch, caps) in [(Arch::X86_64, ""), (Arch::Aarch64, "CAP_SYS_ADMIN")] {
        let caps = caps.split_whitespace().map(str::to_owned).collect();
        let profile = default_profile(arch, &caps);
        let program = compile(&profile, arch).unwrap();
        let default = action(profile.default_action(), profile.default_errno_ret()).unwrap();
        let (bodies, _) = bodies(&profile, arch, default).unwrap();
        for nr in 0..600 {
            let plain = bodies.get(&nr).filter(|body| body.guarded.is_empty());
            if !bodies.contains_key(&nr) || plain.is_some() {
                let expected = plain.map_or(default, |body| body.otherwise);
                let got = run(&program.instructions, arch.audit(), nr, [0; 6]);
                assert_eq!(got, expected, "{arch:?} {nr}");
            }
        }
    }
}
