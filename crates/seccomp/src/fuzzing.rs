//! Laws for any bytes that a node's directory of profiles may hold: the fuzzer tries
//! bytes of its own, the tests those of `fuzz/corpus`.

use std::collections::BTreeSet;

use crate::{Arch, Instruction, compile, parse_profile};

/// `BPF_MAXINSNS` of linux/filter.h.
const LONGEST: usize = 4096;
/// `BPF_RET | BPF_K`.
const RETURN: u16 = 0x06;
/// `BPF_JMP | BPF_JA`.
const GO: u16 = 0x05;
/// Loads, tests and masks that filters of ours consist of beside those two.
const OTHERS: [u16; 6] = [0x00, 0x20, 0x54, 0x15, 0x25, 0x35];

/// A profile that compiles is a program that the kernel takes, the same one each time.
pub fn profile(data: &[u8]) {
    for arch in [Arch::X86_64, Arch::Aarch64] {
        for granted in [
            BTreeSet::new(),
            BTreeSet::from(["CAP_SYS_ADMIN".to_owned()]),
        ] {
            let Ok(profile) = parse_profile(data, arch, &granted) else {
                continue;
            };
            match (compile(&profile, arch), compile(&profile, arch)) {
                (Ok(program), Ok(again)) => {
                    assert_eq!(program.instructions, again.instructions);
                    check(&program.instructions);
                }
                (Err(why), Err(_)) => assert!(!why.to_string().is_empty()),
                _ => panic!("it compiles sometimes"),
            }
        }
    }
}

/// The demands on a filter (`bpf_check_classic`, `seccomp_check_filter`): jumps stay in
/// it, it ends with a verdict, and loads are of whole words of `struct seccomp_data`.
fn check(program: &[Instruction]) {
    assert!(
        (1..=LONGEST).contains(&program.len()),
        "{} long",
        program.len()
    );
    for (at, instruction) in program.iter().enumerate() {
        let left = program.len() - at - 1;
        match instruction.code {
            RETURN => {}
            GO => assert!((instruction.k as usize) < left, "{at}: beyond the end"),
            0x20 => assert!(
                instruction.k < 64 && instruction.k % 4 == 0,
                "{at}: reads outside"
            ),
            code => assert!(OTHERS.contains(&code), "{at}: {code:#x}"),
        }
        if matches!(instruction.code, 0x15 | 0x25 | 0x35) {
            let furthest = usize::from(instruction.jt.max(instruction.jf));
            assert!(furthest < left, "{at}: beyond the end");
        }
    }
    let last = program.last().map(|instruction| instruction.code);
    assert_eq!(last, Some(RETURN), "no verdict at the end");
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("seccomp_profile", profile)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
