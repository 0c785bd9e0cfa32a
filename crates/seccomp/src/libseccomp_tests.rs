//! Random profiles under our compiler and under libseccomp, told of them as runc tells it: both
//! programs give the same verdict for the same call.
//!
//! Two things are left out on purpose. When conditions with different actions hold for one call,
//! libseccomp's order of its tree decides, which is nobody's contract; here the first rule does.
//! And libseccomp loses or invents rules when an argument is compared by anything but equality
//! and once more for the same call: `LT 1 << 32` besides `LT 0` refuses 2, and `NE 2` (with a
//! condition on another argument that fails) besides `EQ 0` allows 1. There, the profile read
//! plainly judges ours alone.
//!
//! libseccomp 2.5 goes round in circles for one profile in some thousands: such a profile is left
//! out, and told.

use std::collections::BTreeSet;
use std::io::{Read as _, Seek as _};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use libseccomp::{
    ScmpAction, ScmpArgCompare, ScmpCompareOp, ScmpFilterContext, ScmpSyscall, error::SeccompError,
};
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator as Op, LinuxSyscall,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::machine::{Call, run};
use crate::{Arch, Instruction, compile};

const NAMES: [&str; 5] = ["read", "kill", "socket", "personality", "statx"];
const VALUES: [u64; 9] = [
    0,
    1,
    2,
    40,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0001,
    0x2800_0000_0000,
    u64::MAX,
];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

fn verdict() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"action": "SCMP_ACT_ALLOW"})),
        Just(json!({"action": "SCMP_ACT_ERRNO"})),
        Just(json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 13})),
        Just(json!({"action": "SCMP_ACT_KILL_PROCESS"})),
        Just(json!({"action": "SCMP_ACT_LOG"})),
    ]
}

fn condition() -> impl Strategy<Value = Value> {
    let number = || prop::sample::select(&VALUES);
    let operator = prop::sample::select(&OPERATORS);
    (0..3, number(), number(), operator).prop_map(|(index, value, second, operator)| {
        let operator = format!("SCMP_CMP_{operator}");
        json!({"index": index, "value": value, "valueTwo": second, "op": operator})
    })
}

fn profile() -> impl Strategy<Value = LinuxSeccomp> {
    let names = prop::collection::vec(prop::sample::select(&NAMES), 1..3);
    let conditions = prop::collection::vec(condition(), 0..4);
    let rule = (names, verdict(), conditions).prop_map(|(names, mut rule, conditions)| {
        rule["names"] = json!(names);
        rule["args"] = json!(conditions);
        rule
    });
    let rules = prop::collection::vec(rule, 0..5);
    (verdict(), rules).prop_map(|(default, rules)| {
        let mut profile = json!({"defaultAction": default["action"], "syscalls": rules});
        if let Some(errno) = default.get("errnoRet") {
            profile["defaultErrnoRet"] = errno.clone();
        }
        serde_json::from_value(profile).unwrap()
    })
}

fn calls() -> impl Strategy<Value = Vec<(u32, [u64; 6])>> {
    let numbers = NAMES.map(|name| Arch::X86_64.number(name).unwrap());
    let number = prop_oneof![9 => prop::sample::select(numbers.to_vec()), 1 => 0..300_u32];
    let argument = prop_oneof![prop::sample::select(&VALUES), any::<u64>()];
    prop::collection::vec((number, prop::array::uniform6(argument)), 64)
}

/// The action, in libseccomp's words.
fn action(action: LinuxSeccompAction, errno: Option<u32>) -> ScmpAction {
    match action {
        LinuxSeccompAction::ScmpActAllow => ScmpAction::Allow,
        LinuxSeccompAction::ScmpActLog => ScmpAction::Log,
        LinuxSeccompAction::ScmpActKillProcess => ScmpAction::KillProcess,
        _ => ScmpAction::Errno(errno.unwrap_or(1).try_into().unwrap()),
    }
}

/// The kernel's word for an action: seccomp(2), `SECCOMP_RET_*`.
fn returned(action: ScmpAction) -> u32 {
    match action {
        ScmpAction::Allow => 0x7fff_0000,
        ScmpAction::Log => 0x7ffc_0000,
        ScmpAction::KillProcess => 0x8000_0000,
        ScmpAction::Errno(errno) => 0x0005_0000 | errno.unsigned_abs(),
        _ => unreachable!("the profiles name no other action"),
    }
}

fn comparison(argument: &LinuxSeccompArg) -> ScmpArgCompare {
    let second = argument.value_two().unwrap_or(0);
    let (op, datum) = match argument.op() {
        Op::ScmpCmpNe => (ScmpCompareOp::NotEqual, argument.value()),
        Op::ScmpCmpLt => (ScmpCompareOp::Less, argument.value()),
        Op::ScmpCmpLe => (ScmpCompareOp::LessOrEqual, argument.value()),
        Op::ScmpCmpEq => (ScmpCompareOp::Equal, argument.value()),
        Op::ScmpCmpGe => (ScmpCompareOp::GreaterEqual, argument.value()),
        Op::ScmpCmpGt => (ScmpCompareOp::Greater, argument.value()),
        Op::ScmpCmpMaskedEq => (ScmpCompareOp::MaskedEqual(argument.value()), second),
    };
    ScmpArgCompare::new(argument.index().try_into().unwrap(), op, datum)
}

fn holds(argument: &LinuxSeccompArg, arguments: &[u64; 6]) -> bool {
    let (given, value) = (arguments[argument.index()], argument.value());
    match argument.op() {
        Op::ScmpCmpNe => given != value,
        Op::ScmpCmpLt => given < value,
        Op::ScmpCmpLe => given <= value,
        Op::ScmpCmpEq => given == value,
        Op::ScmpCmpGe => given >= value,
        Op::ScmpCmpGt => given > value,
        Op::ScmpCmpMaskedEq => given & value == argument.value_two().unwrap_or(0) & value,
    }
}

/// Conditions that have to hold at once: runc gives libseccomp a rule for each of these.
fn rules_of(rule: &LinuxSyscall) -> Vec<Vec<LinuxSeccompArg>> {
    let arguments = rule.args().clone().unwrap_or_default();
    let indexes: BTreeSet<_> = arguments.iter().map(LinuxSeccompArg::index).collect();
    if indexes.len() == arguments.len() {
        return vec![arguments];
    }
    arguments.into_iter().map(|one| vec![one]).collect()
}

fn rules(profile: &LinuxSeccomp) -> Vec<LinuxSyscall> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut rules = profile.syscalls().clone().unwrap_or_default();
    rules.retain(|rule| action(rule.action(), rule.errno_ret()) != default);
    rules
}

fn libseccomp(profile: &LinuxSeccomp) -> Result<Vec<Instruction>, SeccompError> {
    let default = action(profile.default_action(), profile.default_errno_ret());
    let mut filter = ScmpFilterContext::new(default)?;
    for rule in rules(profile) {
        let action = action(rule.action(), rule.errno_ret());
        for name in rule.names() {
            let number = ScmpSyscall::from_name(name)?;
            for all in rules_of(&rule) {
                let comparisons: Vec<_> = all.iter().map(comparison).collect();
                if comparisons.is_empty() {
                    filter.add_rule(action, number)?;
                } else {
                    filter.add_rule_conditional(action, number, &comparisons)?;
                }
            }
        }
    }
    let mut file = tempfile::tempfile().unwrap();
    filter.export_bpf(&file)?;
    let mut bytes = Vec::new();
    file.rewind().unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let half = |bytes: &[u8]| u16::from_le_bytes(bytes.try_into().unwrap());
    let instructions = bytes.chunks_exact(8).map(|i| Instruction {
        code: half(&i[..2]),
        jt: i[2],
        jf: i[3],
        k: u32::from_le_bytes(i[4..].try_into().unwrap()),
    });
    Ok(instructions.collect())
}

/// How long libseccomp may take for a profile; it takes some milliseconds, or for ever.
const WITHIN: Duration = Duration::from_secs(10);
/// Profiles that may be left out for that: each keeps a processor busy to the end.
const ENDLESS: u32 = 16;

/// The program that libseccomp makes; none where it refuses the profile, or never ends.
fn judge(profile: &LinuxSeccomp) -> Option<Vec<Instruction>> {
    static LEFT_OUT: AtomicU32 = AtomicU32::new(0);
    let (sender, receiver) = mpsc::channel();
    let owned = profile.clone();
    // The other end is gone when it ends late.
    std::thread::spawn(move || sender.send(libseccomp(&owned).ok()).ok());
    receiver.recv_timeout(WITHIN).unwrap_or_else(|_| {
        let before = LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        assert!(before < ENDLESS, "libseccomp ends for too few profiles");
        let text = serde_json::to_string(profile).unwrap();
        eprintln!("left out, libseccomp goes round in circles: {text}");
        None
    })
}

/// The rules of one call, each with a list of conditions that have to hold at once.
fn about(profile: &LinuxSeccomp, number: u32) -> Vec<(ScmpAction, Vec<LinuxSeccompArg>)> {
    let mut rules = rules(profile);
    rules.retain(|rule| {
        let mut names = rule.names().iter();
        names.any(|name| Arch::X86_64.number(name) == Some(number))
    });
    let alternatives = rules.iter().flat_map(|rule| {
        let action = action(rule.action(), rule.errno_ret());
        rules_of(rule).into_iter().map(move |all| (action, all))
    });
    alternatives.collect()
}

/// The verdict on a call when the profile is read plainly; none if rules with different actions
/// hold for it.
fn plainly(profile: &LinuxSeccomp, number: u32, arguments: &[u64; 6]) -> Option<ScmpAction> {
    let rules = about(profile, number);
    let mut holding = rules
        .iter()
        .filter(|(_, all)| all.iter().all(|one| holds(one, arguments)))
        .map(|(action, _)| *action);
    let default = action(profile.default_action(), profile.default_errno_ret());
    let first = holding.next().unwrap_or(default);
    holding.all(|other| other == first).then_some(first)
}

/// Whether libseccomp's tree of comparisons keeps every rule of this call.
fn keeps_all(profile: &LinuxSeccomp, number: u32) -> bool {
    let rules = about(profile, number);
    let conditions: Vec<_> = rules.iter().flat_map(|(_, all)| all).collect();
    (0..6).all(|index| {
        let same = conditions.iter().filter(|one| one.index() == index);
        let operators: Vec<_> = same.map(|one| one.op()).collect();
        let is_equality = |op: &Op| matches!(op, Op::ScmpCmpEq | Op::ScmpCmpMaskedEq);
        operators.len() < 2 || operators.into_iter().all(|op| is_equality(&op))
    })
}

/// How many profiles are tried.
fn cases() -> u32 {
    let asked = std::env::var("CRISP_DIFFERENTIAL");
    asked.map_or(500, |number| number.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn both_compilers_mean_the_same(profile in profile(), calls in calls()) {
        // It refuses the same conditions with different actions.
        let Some(theirs) = judge(&profile) else { return Ok(()) };
        let ours = compile(&profile, Arch::X86_64).unwrap().instructions;
        let newest = profile.syscalls().iter().flatten().flat_map(LinuxSyscall::names);
        let newest = newest.filter_map(|name| Arch::X86_64.number(name)).max();
        for (number, arguments) in calls {
            // Above it our program holds what runc puts before libseccomp's.
            let is_newer = newest.is_some_and(|newest| number > newest);
            if is_newer {
                continue;
            }
            let call = Call { arch: Arch::X86_64.audit(), number, arguments };
            let verdict = run(&ours, &call);
            let plain = plainly(&profile, number, &arguments);
            if let Some(plain) = plain {
                prop_assert_eq!(verdict, returned(plain), "{:x?}", call);
            }
            let is_unconditional = about(&profile, number).iter().any(|(_, all)| all.is_empty());
            if is_unconditional || (plain.is_some() && keeps_all(&profile, number)) {
                prop_assert_eq!(verdict, run(&theirs, &call), "{:x?}", call);
            }
        }
    }
}
