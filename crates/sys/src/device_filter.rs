//! Which devices the processes of a cgroup may use: `devices.*` files or a BPF program.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::cgroup::Cgroup;
use crate::syscall::check;

/// Character or block devices, or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceType {
    /// Both.
    All,
    /// Character devices.
    Char,
    /// Block devices.
    Block,
}

/// One rule; later rules win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceRule {
    /// Whether it allows or denies.
    pub allow: bool,
    /// Which devices.
    pub kind: DeviceType,
    /// Major number; `None` is any.
    pub major: Option<u32>,
    /// Minor number; `None` is any.
    pub minor: Option<u32>,
    /// Some of `r`, `w`, `m`; the rule is about these.
    pub access: String,
}

/// Puts the rules in force. On version 2 nothing is allowed that no rule allows.
///
/// # Errors
/// The errors of the devices files, or of bpf(2).
pub fn apply(cgroup: &Cgroup, rules: &[DeviceRule]) -> io::Result<()> {
    if cgroup.layout().is_v2() {
        attach_program(cgroup, rules)
    } else {
        write_rules(cgroup, rules)
    }
}

fn write_rules(cgroup: &Cgroup, rules: &[DeviceRule]) -> io::Result<()> {
    let file = |rule: &DeviceRule| match rule.allow {
        true => "devices.allow",
        false => "devices.deny",
    };
    // The kernel reads one rule a write, as many writes as come. Most lists are one denial and many
    // permissions.
    for same in rules.chunk_by(|one, next| one.allow == next.allow) {
        let lines: Vec<String> = same.iter().map(line).collect();
        cgroup.write_all("devices", file(&same[0]), &lines)?;
    }
    Ok(())
}

fn line(rule: &DeviceRule) -> String {
    let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
    let kind = match rule.kind {
        DeviceType::All => return "a".to_owned(),
        DeviceType::Char => 'c',
        DeviceType::Block => 'b',
    };
    format!(
        "{kind} {}:{} {}",
        number(rule.major),
        number(rule.minor),
        rule.access
    )
}

/// One eBPF instruction (`struct bpf_insn`): registers are `dst | src << 4`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Insn {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> Insn {
    Insn {
        code,
        registers,
        offset,
        immediate,
    }
}

const LDX_W: u8 = 0x61;
const MOV32_X: u8 = 0xbc;
const MOV64_K: u8 = 0xb7;
const AND32_K: u8 = 0x54;
const RSH32_K: u8 = 0x74;
const JNE32_K: u8 = 0x56;
const EXIT: u8 = 0x95;

/// The program of linux/bpf.h's `BPF_PROG_TYPE_CGROUP_DEVICE`: r2 type, r3 access, r4 major,
/// r5 minor. The last rule that matches decides, so the rules are tried from the last.
fn program(rules: &[DeviceRule]) -> Vec<Insn> {
    let mut code = vec![
        insn(LDX_W, 0x12, 0, 0),
        insn(MOV32_X, 0x23, 0, 0),
        insn(AND32_K, 0x02, 0, 0xffff),
        insn(RSH32_K, 0x03, 0, 16),
        insn(LDX_W, 0x14, 4, 0),
        insn(LDX_W, 0x15, 8, 0),
    ];
    for rule in rules.iter().rev() {
        rule_code(rule, &mut code);
        if rule.kind == DeviceType::All {
            // It decides about everything: the verifier refuses code that cannot be reached.
            return code;
        }
    }
    code.extend([insn(MOV64_K, 0, 0, 0), insn(EXIT, 0, 0, 0)]);
    code
}

fn rule_code(rule: &DeviceRule, code: &mut Vec<Insn>) {
    let access = rule.access.bytes().fold(0, |bits, letter| match letter {
        b'm' => bits | 1,
        b'r' => bits | 2,
        b'w' => bits | 4,
        _ => bits,
    });
    let mut tests: Vec<(u8, i32)> = Vec::new();
    match rule.kind {
        DeviceType::All => {}
        DeviceType::Block => tests.push((2, 1)),
        DeviceType::Char => tests.push((2, 2)),
    }
    if rule.kind != DeviceType::All {
        tests.extend(rule.major.map(|n| (4, i32::from_ne_bytes(n.to_ne_bytes()))));
        tests.extend(rule.minor.map(|n| (5, i32::from_ne_bytes(n.to_ne_bytes()))));
    }
    let masked = rule.kind != DeviceType::All && access != 7;
    let verdict = [
        insn(MOV64_K, 0, 0, i32::from(rule.allow)),
        insn(EXIT, 0, 0, 0),
    ];
    let mut left = tests.len() + usize::from(masked) * 3 + verdict.len();
    // An allowing rule must cover all that is asked; a denying one applies when it covers any.
    if masked && rule.allow {
        left -= 3;
        let skip = i16::try_from(left).unwrap_or(i16::MAX);
        code.push(insn(MOV32_X, 0x31, 0, 0));
        code.push(insn(AND32_K, 0x01, 0, !access & 7));
        code.push(insn(JNE32_K, 0x01, skip, 0));
    } else if masked {
        left -= 3;
        let skip = i16::try_from(left).unwrap_or(i16::MAX);
        code.push(insn(MOV32_X, 0x31, 0, 0));
        code.push(insn(AND32_K, 0x01, 0, access));
        // JEQ32: none of the denied accesses is asked for.
        code.push(insn(0x16, 0x01, skip, 0));
    }
    for (register, value) in tests {
        left -= 1;
        code.push(insn(
            JNE32_K,
            register,
            i16::try_from(left).unwrap_or(i16::MAX),
            value,
        ));
    }
    code.extend(verdict);
}

/// The parts of `union bpf_attr` for `BPF_PROG_LOAD`, up to `kern_version`.
#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The parts for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

fn attach_program(cgroup: &Cgroup, rules: &[DeviceRule]) -> io::Result<()> {
    let code = program(rules);
    let attr = LoadAttr {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        count: u32::try_from(code.len()).map_err(io::Error::other)?,
        instructions: code.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    let size = std::mem::size_of::<LoadAttr>();
    // SAFETY: the attr and the instructions and string it points to outlive the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attr, size) })?;
    // SAFETY: the kernel has just handed us this descriptor.
    let loaded = unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(io::Error::other)?) };
    let dir = cgroup.unified_dir().ok_or(io::ErrorKind::Unsupported)?;
    let dir = File::open(dir)?;
    let attr = AttachAttr {
        target: dir.as_raw_fd().unsigned_abs(),
        program: loaded.as_raw_fd().unsigned_abs(),
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
        replaced: 0,
    };
    let size = std::mem::size_of::<AttachAttr>();
    // SAFETY: the attr outlives the call.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attr, size) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for the few operations it uses.
    fn run(code: &[Insn], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0_u32; 11];
        let mut at = 0_usize;
        loop {
            let i = code[at];
            let (dst, src) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            at += 1;
            let k = u32::from_ne_bytes(i.immediate.to_ne_bytes());
            let skip = usize::try_from(i.offset).unwrap_or(0);
            match i.code {
                LDX_W => r[dst] = context[skip / 4],
                MOV32_X => r[dst] = r[src],
                MOV64_K => r[dst] = k,
                AND32_K => r[dst] &= k,
                RSH32_K => r[dst] >>= k,
                JNE32_K => at += if r[dst] == k { 0 } else { skip },
                0x16 => at += if r[dst] == k { skip } else { 0 },
                EXIT => return r[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn rule(allow: bool, kind: DeviceType, numbers: (u32, u32), access: &str) -> DeviceRule {
        let (major, minor) = (Some(numbers.0), Some(numbers.1));
        DeviceRule {
            allow,
            kind,
            major,
            minor,
            access: access.to_owned(),
        }
    }

    #[test]
    fn later_rules_win_and_access_is_covered() {
        let all = DeviceRule {
            allow: false,
            kind: DeviceType::All,
            major: None,
            minor: None,
            access: "rwm".to_owned(),
        };
        let any_char = DeviceRule {
            major: None,
            minor: None,
            ..rule(true, DeviceType::Char, (0, 0), "m")
        };
        let rules = [
            all,
            any_char,
            rule(true, DeviceType::Char, (1, 3), "rwm"),
            rule(true, DeviceType::Block, (8, 0), "r"),
        ];
        let code = program(&rules);
        let (mknod, read, write) = (1, 2, 4);
        let cases = [
            (2, 1, 3, read | write, true),
            (2, 1, 3, mknod, true),
            (2, 5, 5, mknod, true),
            (2, 5, 5, read, false),
            (1, 8, 0, read, true),
            (1, 8, 0, read | write, false),
            (1, 8, 1, read, false),
        ];
        for (kind, major, minor, access, allowed) in cases {
            let got = run(&code, kind, access, major, minor);
            assert_eq!(got, allowed, "{kind} {major}:{minor} {access}");
        }
        assert_eq!(line(&rules[3]), "b 8:0 r");
        assert_eq!(line(&rules[0]), "a");
    }
}
