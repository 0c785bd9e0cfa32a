//! The compiler: rules by system call, equal neighbours as one range, ranges in a decision tree.
//!
//! A profile means here what it means under runc, whose readings are not in the specification:
//!
//! * A rule whose action is the default one is passed over, so it does not weaken another.
//! * Conditions of one rule must all hold, unless two of them are about the same argument: then
//!   each condition is a rule of its own.
//! * The first rule without conditions decides its call alone, wherever it stands.
//! * A call newer than every call that the profile names gets `ENOSYS` when the default action
//!   refuses: C libraries take an older call then, and give up at any other error.
//! * `SCMP_ACT_NOTIFY` leaves the decision to a listener, to which the process itself hands its
//!   filter by write(2): that call, and the default action, cannot wait for it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};

use crate::assemble::{AND, Assembler, JEQ, JGE, JGT, LD_ABS, Label};
use crate::{Arch, Error, Instruction, Result};

/// A filter ready for seccomp(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The filter.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u32,
    /// Whether calls wait for a listener: loading the filter makes the descriptor on which it
    /// hears of them (`SECCOMP_FILTER_FLAG_NEW_LISTENER` is among the flags).
    pub listens: bool,
    /// Names that the architecture does not have; their rules were passed over.
    pub unknown: Vec<String>,
}

const OFFSET_NR: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;
const X32_BIT: u32 = 0x4000_0000;
const MAX_INSTRUCTIONS: usize = 4096;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 8;

/// The decision about one system call: guarded verdicts in order, then the last one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Body {
    guarded: Vec<(Vec<Condition>, u32)>,
    otherwise: u32,
}

impl Body {
    fn of(verdict: u32) -> Self {
        Self {
            guarded: Vec::new(),
            otherwise: verdict,
        }
    }
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Condition {
    index: u32,
    test: Test,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Test {
    Equal(u64),
    NotEqual(u64),
    Greater(u64),
    GreaterOrEqual(u64),
    Less(u64),
    LessOrEqual(u64),
    MaskedEqual { mask: u64, value: u64 },
}

/// Compiles a profile. Calls of other architectures and ABIs get `ENOSYS`.
///
/// # Errors
/// When the profile asks for what is not supported, or gets too long.
pub fn compile(profile: &LinuxSeccomp, arch: Arch) -> Result<Program> {
    let listens = listens(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret());
    let (bodies, unknown) = bodies(profile, arch, default)?;
    let mut assembler = Assembler::default();
    let newer = newer(profile, arch);
    let tree = tree(&mut assembler, &ranges(bodies, default, newer));
    let refused = assembler.verdict(errno(ENOSYS));
    let tree = match arch {
        Arch::X86_64 => assembler.branch(JGE, X32_BIT, refused, tree),
        Arch::Aarch64 => tree,
    };
    let load = assembler.then(LD_ABS, OFFSET_NR, tree);
    let check = assembler.branch(JEQ, arch.audit(), load, refused);
    assembler.then(LD_ABS, OFFSET_ARCH, check);
    let instructions = assembler.finish();
    if instructions.len() > MAX_INSTRUCTIONS {
        return Err(Error::TooLong(instructions.len()));
    }
    Ok(Program {
        instructions,
        flags: flags(profile, listens),
        listens,
        unknown,
    })
}

/// Whether a rule leaves calls to a listener.
fn listens(profile: &LinuxSeccomp) -> Result<bool> {
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notifies(profile.default_action()) {
        let what = "SCMP_ACT_NOTIFY as its default action (name the calls that a listener decides)";
        return Err(Error::Unsupported(what.to_owned()));
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let mut left: Vec<&LinuxSyscall> = rules.iter().collect();
    left.retain(|rule| notifies(rule.action()));
    let mut names = left.iter().flat_map(|rule| rule.names());
    if names.any(|name| name == "write") {
        let what = "SCMP_ACT_NOTIFY for write, by which the listener is given the filter";
        return Err(Error::Unsupported(what.to_owned()));
    }
    Ok(!left.is_empty())
}

fn flags(profile: &LinuxSeccomp, listens: bool) -> u32 {
    let mut bits = if listens { NEW_LISTENER } else { 0 };
    for flag in profile.flags().as_deref().unwrap_or_default() {
        bits |= match flag {
            // The kernel has one answer only, a descriptor or the thread that it failed for. The
            // process that loads a filter is single-threaded: there is nothing to keep in step.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync if listens => 0,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => 1,
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => 2,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => 4,
            // It says how a call waits for a listener's answer. The kernel refuses it in a filter
            // that has no listener, where it would say nothing.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listens => 32,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        };
    }
    bits
}

fn errno(number: u32) -> u32 {
    0x0005_0000 | number & 0xffff
}

fn action(action: LinuxSeccompAction, errno_ret: Option<u32>) -> u32 {
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => 0,
        LinuxSeccompAction::ScmpActKillProcess => 0x8000_0000,
        LinuxSeccompAction::ScmpActTrap => 0x0003_0000,
        LinuxSeccompAction::ScmpActErrno => errno(errno_ret.unwrap_or(EPERM)),
        LinuxSeccompAction::ScmpActTrace => 0x7ff0_0000 | errno_ret.unwrap_or(EPERM) & 0xffff,
        LinuxSeccompAction::ScmpActLog => 0x7ffc_0000,
        LinuxSeccompAction::ScmpActAllow => 0x7fff_0000,
        LinuxSeccompAction::ScmpActNotify => 0x7fc0_0000,
    }
}

/// The first number that gets `ENOSYS`, as all above it; `None` when the default decides them.
///
/// Rules count whatever their action: a call that the profile names is one that it knows.
fn newer(profile: &LinuxSeccomp, arch: Arch) -> Option<u32> {
    use LinuxSeccompAction as Action;
    let permits = match profile.default_action() {
        // A tracer answers calls that it does not know itself.
        Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace => true,
        Action::ScmpActKill
        | Action::ScmpActKillThread
        | Action::ScmpActKillProcess
        | Action::ScmpActTrap
        | Action::ScmpActErrno
        | Action::ScmpActNotify => false,
    };
    if permits || profile.default_errno_ret() == Some(ENOSYS) {
        return None;
    }
    let rules = profile.syscalls().as_deref().unwrap_or_default();
    let names = rules.iter().flat_map(LinuxSyscall::names);
    let newest = names.filter_map(|name| arch.number(name)).max()?;
    newest.checked_add(1)
}

type Bodies = BTreeMap<u32, Body>;

/// A call that is in the map has guarded verdicts, or one that nothing adds to.
fn bodies(profile: &LinuxSeccomp, arch: Arch, default: u32) -> Result<(Bodies, Vec<String>)> {
    let mut bodies = Bodies::new();
    let mut unknown = Vec::new();
    for rule in profile.syscalls().as_deref().unwrap_or_default() {
        let verdict = action(rule.action(), rule.errno_ret());
        let alternatives = alternatives(rule.args().as_deref().unwrap_or_default())?;
        for name in rule.names() {
            let Some(number) = arch.number(name) else {
                unknown.push(name.clone());
                continue;
            };
            if verdict == default {
                continue;
            }
            for all in &alternatives {
                match bodies.entry(number) {
                    Entry::Occupied(decided) if decided.get().guarded.is_empty() => {}
                    body if all.is_empty() => drop(body.insert_entry(Body::of(verdict))),
                    body => {
                        let body = body.or_insert_with(|| Body::of(default));
                        body.guarded.push((all.clone(), verdict));
                    }
                }
            }
        }
    }
    Ok((bodies, unknown))
}

/// Lists of conditions of which one has to hold; an empty list always does.
fn alternatives(arguments: &[LinuxSeccompArg]) -> Result<Vec<Vec<Condition>>> {
    let conditions = arguments
        .iter()
        .map(condition)
        .collect::<Result<Vec<_>>>()?;
    let indexes: BTreeSet<u32> = conditions.iter().map(|c| c.index).collect();
    let mut alternatives: Vec<Vec<Condition>> = if indexes.len() == conditions.len() {
        vec![conditions]
    } else {
        conditions.into_iter().map(|one| vec![one]).collect()
    };
    for all in &mut alternatives {
        all.retain(|one| !matches!(one.test, Test::MaskedEqual { mask: 0, .. }));
    }
    Ok(alternatives)
}

fn condition(argument: &LinuxSeccompArg) -> Result<Condition> {
    let index = u32::try_from(argument.index())
        .ok()
        .filter(|index| *index < 6);
    let index = index.ok_or_else(|| Error::Unsupported("an argument beyond the sixth".into()))?;
    let value = argument.value();
    let test = match argument.op() {
        LinuxSeccompOperator::ScmpCmpNe => Test::NotEqual(value),
        LinuxSeccompOperator::ScmpCmpLt => Test::Less(value),
        LinuxSeccompOperator::ScmpCmpLe => Test::LessOrEqual(value),
        LinuxSeccompOperator::ScmpCmpEq => Test::Equal(value),
        LinuxSeccompOperator::ScmpCmpGe => Test::GreaterOrEqual(value),
        LinuxSeccompOperator::ScmpCmpGt => Test::Greater(value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => Test::MaskedEqual {
            mask: value,
            // Bits outside of the mask are not compared.
            value: argument.value_two().unwrap_or(0) & value,
        },
    };
    Ok(Condition { index, test })
}

/// `(first number, body)`, each up to the next; neighbours differ.
fn ranges(bodies: Bodies, default: u32, newer: Option<u32>) -> Vec<(u32, Body)> {
    let plain = Body::of(default);
    let mut ranges = vec![(0, plain.clone())];
    let mut push = |start: u32, body: Body| match ranges.last_mut() {
        Some((last, present)) if *last == start => *present = body,
        Some((_, present)) if *present == body => {}
        _ => ranges.push((start, body)),
    };
    for (number, body) in bodies {
        push(number, body);
        push(number + 1, plain.clone());
    }
    if let Some(number) = newer {
        push(number, Body::of(errno(ENOSYS)));
    }
    ranges.dedup_by(|later, earlier| later.1 == earlier.1);
    ranges
}

fn tree(assembler: &mut Assembler, ranges: &[(u32, Body)]) -> Label {
    match ranges {
        [] => assembler.verdict(errno(ENOSYS)),
        [(_, body)] => leaf(assembler, body),
        _ => {
            let (low, high) = ranges.split_at(ranges.len() / 2);
            let pivot = high[0].0;
            let high = tree(assembler, high);
            let low = tree(assembler, low);
            assembler.branch(JGE, pivot, high, low)
        }
    }
}

fn leaf(assembler: &mut Assembler, body: &Body) -> Label {
    let mut next = assembler.verdict(body.otherwise);
    for (conditions, verdict) in body.guarded.iter().rev() {
        let mut holds = assembler.verdict(*verdict);
        for condition in conditions.iter().rev() {
            holds = argument(assembler, *condition, holds, next);
        }
        next = holds;
    }
    next
}

fn halves(value: u64) -> (u32, u32) {
    let half = |value: u64| u32::try_from(value & 0xffff_ffff).unwrap_or(0);
    (half(value >> 32), half(value))
}

/// Code that tests one argument; arguments have 64 bits, the machine 32.
fn argument(asm: &mut Assembler, condition: Condition, holds: Label, fails: Label) -> Label {
    let low = 16 + condition.index * 8;
    let high = low + 4;
    match condition.test {
        Test::Equal(value) => masked(asm, (high, low), (u64::MAX, value), (holds, fails)),
        Test::NotEqual(value) => masked(asm, (high, low), (u64::MAX, value), (fails, holds)),
        Test::MaskedEqual { mask, value } => {
            masked(asm, (high, low), (mask, value), (holds, fails))
        }
        Test::Greater(value) => ordered(asm, JGT, (high, low), value, (holds, fails)),
        Test::GreaterOrEqual(value) => ordered(asm, JGE, (high, low), value, (holds, fails)),
        Test::Less(value) => ordered(asm, JGE, (high, low), value, (fails, holds)),
        Test::LessOrEqual(value) => ordered(asm, JGT, (high, low), value, (fails, holds)),
    }
}

fn masked(
    asm: &mut Assembler,
    (high, low): (u32, u32),
    (mask, value): (u64, u64),
    (holds, fails): (Label, Label),
) -> Label {
    let ((mask_high, mask_low), (value_high, value_low)) = (halves(mask), halves(value));
    let mut half = |offset, mask, value, holds| {
        let test = asm.branch(JEQ, value, holds, fails);
        let test = if mask == u32::MAX {
            test
        } else {
            asm.then(AND, mask, test)
        };
        asm.then(LD_ABS, offset, test)
    };
    let second = half(low, mask_low, value_low, holds);
    half(high, mask_high, value_high, second)
}

fn ordered(
    asm: &mut Assembler,
    test: u16,
    (high, low): (u32, u32),
    value: u64,
    (holds, fails): (Label, Label),
) -> Label {
    let (value_high, value_low) = halves(value);
    let second = asm.branch(test, value_low, holds, fails);
    let second = asm.then(LD_ABS, low, second);
    let equal = asm.branch(JEQ, value_high, second, fails);
    let first = asm.branch(JGT, value_high, holds, equal);
    asm.then(LD_ABS, high, first)
}

#[cfg(test)]
#[path = "compile_tests.rs"]
mod tests;
