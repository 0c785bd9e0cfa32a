//! `--systemd-cgroup`: the container's cgroup is that of a scope, which systemd makes around a process
//! of ours (the *tenant*); that leaves once the container's init is there.
//!
//! The runtime writes limits as anywhere else. systemd is told of those that it knows, for it writes
//! the files of its units anew when it is reloaded. Rules for devices are the runtime's alone: systemd
//! has none for a unit that names none.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use crisp_cgroups::{Property, Unit};
use crisp_model::cpu_weight;
use crisp_sys::fork::{CloneFlags, fork_with};
use crisp_sys::{pipe, process};
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources, Spec};

use crate::failure::{Context, Failure, Result};
use crate::record::Id;
use crate::status::layout;

/// Before the names of scopes of containers that name none.
const PREFIX: &str = "crisp-oci";
/// Annotations with properties of the scope begin so.
const ANNOTATION: &str = "org.systemd.property.";
/// systemd's word for "no limit".
const INFINITY: u64 = u64::MAX;
/// systemd rounds up to the hundredth of a CPU when it reads its own file again.
const HUNDREDTH: u64 = 10_000;
const USUAL_PERIOD: u64 = 100_000;

/// The scope that a spec names.
pub(crate) fn of(spec: &Spec, id: &Id) -> Result<Unit> {
    if !layout()?.is_v2() {
        let why = "--systemd-cgroup needs cgroup version 2 alone: let the caller use cgroupfs";
        return Err(Failure::refused(why));
    }
    let linux = spec.linux().as_ref();
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let path = path.map(|path| path.to_string_lossy()).unwrap_or_default();
    Ok(Unit::parse(&path, PREFIX, id.as_str())?)
}

/// All properties of a new container's scope.
pub(crate) fn properties(spec: &Spec) -> Result<Vec<Property>> {
    let linux = spec.linux().as_ref();
    let resources = linux.and_then(|linux| linux.resources().as_ref());
    let mut properties = resources.map(of_limits).transpose()?.unwrap_or_default();
    // In one order, so that the same annotations give the same error.
    let annotations = spec
        .annotations()
        .iter()
        .flatten()
        .collect::<BTreeMap<_, _>>();
    for (name, text) in annotations {
        if let Some(name) = name.strip_prefix(ANNOTATION) {
            properties.push(Property::parse(name, text)?);
        }
    }
    Ok(properties)
}

/// Limits as systemd names them. `unified` comes last, as it does for the files.
pub(crate) fn of_limits(resources: &LinuxResources) -> Result<Vec<Property>> {
    let mut known = BTreeMap::new();
    if let Some(memory) = resources.memory() {
        of_memory(memory, &mut known);
    }
    if let Some(cpu) = resources.cpu() {
        of_cpu(cpu, &mut known);
    }
    if let Some(pids) = resources.pids() {
        // An init is there already.
        known.insert("TasksMax", amount(pids.limit()).max(1));
    }
    for (file, value) in resources
        .unified()
        .iter()
        .flatten()
        .collect::<BTreeMap<_, _>>()
    {
        of_file(file, value.trim(), &mut known);
    }
    let numbers = known
        .iter()
        .map(|(name, value)| Property::number(name, *value));
    let mut properties: Vec<Property> = numbers.collect();
    properties.extend(lists(resources)?);
    Ok(properties)
}

fn of_memory(memory: &LinuxMemory, known: &mut BTreeMap<&'static str, u64>) {
    let set = |value: Option<i64>| value.filter(|value| *value != 0);
    let limit = set(memory.limit());
    known.extend(limit.map(|limit| ("MemoryMax", amount(limit))));
    let low = set(memory.reservation());
    known.extend(low.map(|low| ("MemoryLow", amount(low))));
    // systemd counts swap alone.
    match (set(memory.swap()), limit) {
        (Some(..0), _) | (_, Some(..0)) => {
            known.insert("MemorySwapMax", INFINITY);
        }
        (Some(total), Some(limit)) => {
            known.insert("MemorySwapMax", amount((total - limit).max(0)));
        }
        _ => {}
    }
}

fn of_cpu(cpu: &LinuxCpu, known: &mut BTreeMap<&'static str, u64>) {
    let shares = cpu.shares().filter(|shares| *shares != 0);
    known.extend(shares.map(|shares| ("CPUWeight", cpu_weight(shares))));
    if cpu.idle() == Some(1) {
        known.insert("CPUWeight", 0);
    }
    let period = cpu.period().filter(|period| *period != 0);
    let quota = cpu.quota().filter(|quota| *quota != 0);
    of_quota(quota, period, known);
}

fn of_quota(quota: Option<i64>, period: Option<u64>, known: &mut BTreeMap<&'static str, u64>) {
    known.extend(period.map(|period| ("CPUQuotaPeriodUSec", period)));
    if let Some(quota) = quota {
        let period = period.unwrap_or(USUAL_PERIOD);
        let second = |quota: u64| quota.saturating_mul(1_000_000) / period;
        let second = u64::try_from(quota).map(second);
        let rounded = second.map_or(INFINITY, |micros| micros.next_multiple_of(HUNDREDTH));
        known.insert("CPUQuotaPerSecUSec", rounded);
    }
}

/// A file of `unified` that systemd has a property for.
fn of_file(file: &str, value: &str, known: &mut BTreeMap<&'static str, u64>) {
    let property = match file {
        "memory.min" => "MemoryMin",
        "memory.low" => "MemoryLow",
        "memory.high" => "MemoryHigh",
        "memory.max" => "MemoryMax",
        "memory.swap.max" => "MemorySwapMax",
        "cpu.weight" => "CPUWeight",
        "pids.max" => "TasksMax",
        "cpu.idle" if value == "1" => {
            known.insert("CPUWeight", 0);
            return;
        }
        "cpu.max" => {
            let mut words = value.split_whitespace();
            let quota = words.next().map(|word| word.parse().unwrap_or(-1));
            return of_quota(
                quota,
                words.next().and_then(|word| word.parse().ok()),
                known,
            );
        }
        _ => return,
    };
    let number = match value {
        "max" => Some(INFINITY),
        value => value.parse().ok(),
    };
    known.extend(number.map(|number| (property, number)));
}

/// Lists of CPUs and memory nodes, as masks.
fn lists(resources: &LinuxResources) -> Result<Vec<Property>> {
    let cpu = resources.cpu().as_ref();
    let file = |name: &str| resources.unified().as_ref()?.get(name).map(String::as_str);
    let cpus = file("cpuset.cpus").or(cpu.and_then(|cpu| cpu.cpus().as_deref()));
    let mems = file("cpuset.mems").or(cpu.and_then(|cpu| cpu.mems().as_deref()));
    let mut properties = Vec::new();
    for (name, list) in [("AllowedCPUs", cpus), ("AllowedMemoryNodes", mems)] {
        if let Some(list) = list.filter(|list| !list.trim().is_empty()) {
            properties.push(Property::bytes(name, &mask(list.trim())?));
        }
    }
    Ok(properties)
}

/// `0-2,8` as bits, the lowest first.
fn mask(list: &str) -> Result<Vec<u8>> {
    const GREATEST: usize = 8191;
    let refuse = || Failure::Refused(format!("{list:?} is no list of CPUs or memory nodes"));
    let mut bits = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok().filter(|n| *n <= GREATEST);
        let (first, last) = number(first).zip(number(last)).ok_or_else(refuse)?;
        for number in first..=last {
            bits.resize(bits.len().max(number / 8 + 1), 0);
            if let Some(byte) = bits.get_mut(number / 8) {
                *byte |= 1_u8 << (number % 8);
            }
        }
    }
    Ok(bits)
}

/// A negative amount is none at all.
fn amount(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(INFINITY)
}

/// A process that lives in a scope until the container does.
#[derive(Debug)]
pub(crate) struct Tenant {
    pid: i32,
    /// The tenant ends when this is closed, so with this process too.
    wish: OwnedFd,
}

impl Tenant {
    /// Has systemd make the scope around a new tenant.
    pub(crate) fn in_scope(unit: &Unit, properties: Vec<Property>) -> Result<Self> {
        let (end, wish) = pipe::pipe().context(|| "make a pipe")?;
        let stay = || {
            // Its own copy, or it would wait for itself.
            drop(process::close_all_but(0, &[std::os::fd::AsFd::as_fd(&end)]));
            let mut byte = [0];
            match rustix::io::read(&end, &mut byte) {
                Ok(_) => 0,
                Err(_) => 1,
            }
        };
        let forked = fork_with(CloneFlags::NONE, None, stay);
        let (pid, _) = forked.context(|| "fork a process for the scope")?;
        let tenant = Self { pid, wish };
        match unit.make(pid, properties) {
            Ok(()) => Ok(tenant),
            Err(error) => {
                tenant.leave()?;
                Err(error.into())
            }
        }
    }

    pub(crate) fn pid(&self) -> i32 {
        self.pid
    }

    /// Ends it: what is in the scope by now keeps it, or nothing does.
    pub(crate) fn leave(self) -> Result<()> {
        drop(self.wish);
        let ended = process::wait(self.pid);
        ended
            .map(drop)
            .context(|| "wait for the process of the scope")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn limits(resources: Value) -> Vec<Property> {
        of_limits(&serde_json::from_value(resources).unwrap()).unwrap()
    }

    fn numbers(each: &[(&str, u64)]) -> Vec<Property> {
        each.iter()
            .map(|(name, value)| Property::number(name, *value))
            .collect()
    }

    #[test]
    fn limits_have_systemds_names() {
        let table: [(Value, &[(&str, u64)]); 9] = [
            (json!({}), &[]),
            (
                json!({ "memory": { "limit": 100, "swap": 130, "reservation": 50 } }),
                &[("MemoryLow", 50), ("MemoryMax", 100), ("MemorySwapMax", 30)],
            ),
            (
                json!({ "memory": { "limit": -1 } }),
                &[("MemoryMax", INFINITY), ("MemorySwapMax", INFINITY)],
            ),
            (
                json!({ "cpu": { "shares": 512, "quota": 12_345, "period": 100_000 } }),
                &[
                    ("CPUQuotaPerSecUSec", 130_000),
                    ("CPUQuotaPeriodUSec", 100_000),
                    ("CPUWeight", 59),
                ],
            ),
            (
                json!({ "cpu": { "quota": -1 } }),
                &[("CPUQuotaPerSecUSec", INFINITY)],
            ),
            (
                json!({ "cpu": { "shares": 512, "idle": 1 } }),
                &[("CPUWeight", 0)],
            ),
            (
                json!({ "pids": { "limit": -1 } }),
                &[("TasksMax", INFINITY)],
            ),
            (json!({ "pids": { "limit": 0 } }), &[("TasksMax", 1)]),
            (
                json!({ "memory": { "limit": 100 }, "unified": {
                    "memory.max": "200", "memory.high": "max", "cpu.max": "50000 100000",
                    "memory.oom.group": "1" } }),
                &[
                    ("CPUQuotaPerSecUSec", 500_000),
                    ("CPUQuotaPeriodUSec", 100_000),
                    ("MemoryHigh", INFINITY),
                    ("MemoryMax", 200),
                ],
            ),
        ];
        for (resources, expected) in table {
            assert_eq!(limits(resources.clone()), numbers(expected), "{resources}");
        }
    }

    #[test]
    fn lists_are_masks() {
        let cpus = limits(json!({ "cpu": { "cpus": "0-2,8", "mems": "0" } }));
        let expected = [
            Property::bytes("AllowedCPUs", &[7, 1]),
            Property::bytes("AllowedMemoryNodes", &[1]),
        ];
        assert_eq!(cpus, expected);
        for bad in ["a", "8192", "1-", "-1"] {
            assert!(mask(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn annotations_are_properties_too() {
        let spec = |name: &str, text: &str| -> Spec {
            let annotations = json!({ name: text, "other": "1" });
            serde_json::from_value(json!({ "ociVersion": "1.0.0", "annotations": annotations }))
                .unwrap()
        };
        let good = properties(&spec("org.systemd.property.TimeoutStopSec", "3")).unwrap();
        assert_eq!(good, [Property::number("TimeoutStopUSec", 3_000_000)]);
        let error = properties(&spec("org.systemd.property.TasksMax", "many")).unwrap_err();
        assert!(error.to_string().contains("\"TasksMax\""), "{error}");
    }
}
