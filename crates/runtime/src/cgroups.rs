//! OCI resource limits to cgroup files, for both versions.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::str::FromStr;

use crisp_model::cpu_weight;
use crisp_sys::cgroup::Cgroup;
use crisp_sys::device_filter;
use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use crate::change::{Before, Change};
use crate::error::{Error, Result};
use crate::limits::{self, LIMIT_V2, SWAP_V2, TOTAL_V1, max_or};
use crate::{block_io, device_rules, hugepages, rare_limits};

/// Puts limits of a new cgroup in force, which is removed when one is refused. Returns what could
/// not be done to the letter.
pub(crate) fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<String>> {
    if let Some(memory) = resources.memory() {
        limits::check_memory(memory)?;
    }
    make(&Change::of(cgroup, Before::Lost), resources)
}

/// Changes limits: all of them, or none.
pub(crate) fn update(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<String>> {
    if resources.devices().is_some() {
        // The kernel takes rules one by one, and does not tell which ones a container has.
        let what = "to change the devices of a container that is there";
        return Err(Error::Unsupported(what.to_owned()));
    }
    let change = Change::of(cgroup, Before::Kept);
    let made = make(&change, resources);
    made.map_err(|error| change.take_back(error))
}

fn make(change: &Change<'_>, resources: &LinuxResources) -> Result<Vec<String>> {
    let rules = resources.devices().as_deref().map(device_rules::all);
    let rules = rules.transpose()?;
    let limits = Limits {
        change,
        v2: change.cgroup.layout().is_v2(),
    };
    if let Some(memory) = resources.memory() {
        rare_limits::check_memory(change, memory)?;
        limits.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        limits.cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        limits.set("pids", "pids.max", &limits::pids_max(pids.limit()))?;
    }
    let mut warnings = rare_limits::limit(change, resources)?;
    if let Some(io) = resources.block_io() {
        warnings.extend(block_io::limit(change, io)?);
    }
    warnings.extend(hugepages::limit(change, resources)?);
    limits.unified(resources)?;
    if let Some(rules) = rules {
        let applied = device_filter::apply(change.cgroup, &rules);
        match applied.map_err(|error| (error.kind(), error)) {
            Ok(()) => {}
            // A node in a user namespace of its own may not load the program, and may use no device
            // but what its host lends it.
            Err((ErrorKind::PermissionDenied, _)) if limits.v2 && in_user_namespace() => {
                let why = "a user namespace may not load the program for them";
                warnings.push(format!("rules for devices are ignored: {why}"));
            }
            Err((_, error)) => return Err(Error::cgroup("set the devices of", error)),
        }
    }
    Ok(warnings)
}

/// Whether the machine is a container itself, by whose ids those of the first namespace are hidden.
fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().ne(["0", "0", "4294967295"])
}

struct Limits<'a> {
    change: &'a Change<'a>,
    v2: bool,
}

impl Limits<'_> {
    fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        self.change.set(controller, file, value)
    }

    fn read(&self, controller: &str, file: &str) -> Option<String> {
        self.change.cgroup.read(controller, file).ok()
    }

    fn is_v2(&self, controller: &str) -> bool {
        self.change.cgroup.layout().is_v2_for(controller)
    }

    fn memory(&self, memory: &LinuxMemory) -> Result<()> {
        if self.is_v2("memory") {
            self.memory_v2(memory)
        } else {
            self.memory_v1(memory)
        }
    }

    fn memory_v2(&self, memory: &LinuxMemory) -> Result<()> {
        let present = self.read_number(LIMIT_V2);
        for (file, value) in limits::memory_v2(memory, present) {
            match self.set("memory", file, &value) {
                // Without swap, both are so by themselves.
                Err(_)
                    if file == SWAP_V2
                        && matches!(value.as_str(), "0" | "max")
                        && !self.has_file(SWAP_V2) => {}
                other => other?,
            }
        }
        if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
            self.set("memory", "memory.low", &max_or(reservation))?;
        }
        Ok(())
    }

    fn has_file(&self, file: &str) -> bool {
        self.read("memory", file).is_some()
    }

    fn read_number<T: FromStr>(&self, file: &str) -> Option<T> {
        self.read("memory", file)?.trim().parse().ok()
    }

    fn memory_v1(&self, memory: &LinuxMemory) -> Result<()> {
        for (file, value) in limits::memory_v1(memory, self.read_number(TOTAL_V1)) {
            self.set("memory", file, &value)?;
        }
        if let Some(reservation) = memory.reservation().filter(|value| *value != 0) {
            self.set(
                "memory",
                "memory.soft_limit_in_bytes",
                &reservation.to_string(),
            )?;
        }
        if let Some(swappiness) = memory.swappiness() {
            self.set("memory", "memory.swappiness", &swappiness.to_string())?;
        }
        if memory.disable_oom_killer() == Some(true) {
            self.set("memory", "memory.oom_control", "1")?;
        }
        Ok(())
    }

    fn cpu(&self, cpu: &LinuxCpu) -> Result<()> {
        let shares = cpu.shares().filter(|shares| *shares != 0);
        if let Some(shares) = shares {
            self.wake()?;
            if self.is_v2("cpu") {
                self.set("cpu", "cpu.weight", &cpu_weight(shares).to_string())?;
            } else {
                self.set("cpu", "cpu.shares", &shares.to_string())?;
            }
        }
        // A burst is never above its quota: whichever order keeps it so is taken.
        let is_set = self.burst(cpu).is_ok();
        if self.is_v2("cpu") {
            let present = || self.read("cpu", "cpu.max");
            if let Some(max) = limits::cpu_max(cpu, present) {
                self.set("cpu", "cpu.max", &max)?;
            }
        } else {
            self.quota_v1(cpu)?;
        }
        if !is_set {
            self.burst(cpu)?;
        }
        if let Some(idle) = cpu.idle() {
            // An idle cgroup has no weight of its own.
            let weight = if self.is_v2("cpu") {
                "cpu.weight"
            } else {
                "cpu.shares"
            };
            self.change.remember("cpu", weight);
            self.set("cpu", "cpu.idle", &idle.to_string())?;
        }
        for (list, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                self.set("cpuset", file, list)?;
            }
        }
        Ok(())
    }

    fn burst(&self, cpu: &LinuxCpu) -> Result<()> {
        let Some(burst) = cpu.burst() else {
            return Ok(());
        };
        let file = if self.is_v2("cpu") {
            "cpu.max.burst"
        } else {
            "cpu.cfs_burst_us"
        };
        self.set("cpu", file, &burst.to_string())
    }

    /// The kernel refuses a weight while `cpu.idle` is set. It is cleared first; the rest of the
    /// limits may set it again.
    fn wake(&self) -> Result<()> {
        match self.read("cpu", "cpu.idle") {
            Some(idle) if idle.trim() == "1" => self.set("cpu", "cpu.idle", "0"),
            _ => Ok(()),
        }
    }

    /// The parent's quota bounds the ratio of both: whichever order keeps it valid is taken.
    fn quota_v1(&self, cpu: &LinuxCpu) -> Result<()> {
        let quota = cpu.quota().filter(|quota| *quota != 0);
        let period = cpu.period().filter(|period| *period != 0);
        let set_period = || {
            period.map_or(Ok(()), |p| {
                self.set("cpu", "cpu.cfs_period_us", &p.to_string())
            })
        };
        let set_quota = || {
            quota.map_or(Ok(()), |q| {
                self.set("cpu", "cpu.cfs_quota_us", &q.to_string())
            })
        };
        if set_period().is_ok() {
            return set_quota();
        }
        set_quota()?;
        set_period()
    }

    fn unified(&self, resources: &LinuxResources) -> Result<()> {
        let Some(files) = resources
            .unified()
            .as_ref()
            .filter(|files| !files.is_empty())
        else {
            return Ok(());
        };
        if !self.v2 {
            let what = "linux.resources.unified with cgroup version 1";
            return Err(Error::Unsupported(what.to_owned()));
        }
        // In one order, so that the same files give the same error.
        for (file, value) in files.iter().collect::<BTreeMap<_, _>>() {
            let plain = !file.contains('/') && file.contains('.');
            let Some((controller, _)) = file.split_once('.').filter(|_| plain) else {
                return Err(Error::invalid(
                    "linux.resources.unified",
                    format!("{file:?}"),
                ));
            };
            self.set(controller, file, value)?;
        }
        Ok(())
    }
}
