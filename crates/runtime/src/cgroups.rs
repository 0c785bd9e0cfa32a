//! OCI resource limits to cgroup files, for both versions.

use std::io::ErrorKind;
use std::str::FromStr;

use crisp_model::cpu_weight;
use crisp_sys::cgroup::Cgroup;
use crisp_sys::device_filter;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use crate::device_rules;
use crate::error::{Error, Result};
use crate::limits::{self, LIMIT_V2, SWAP_V2, TOTAL_V1, max_or};

/// Puts limits in force; what is absent stays as it is. Returns what could not be done to the
/// letter.
///
/// # Errors
/// When the kernel refuses a value, or lacks a controller that a limit needs.
pub fn apply(cgroup: &Cgroup, resources: &LinuxResources) -> Result<Vec<String>> {
    let limits = Limits {
        cgroup,
        v2: cgroup.layout().is_v2(),
    };
    if let Some(devices) = resources.devices() {
        let rules = device_rules::all(devices)?;
        device_filter::apply(cgroup, &rules).map_err(|e| Error::cgroup("set the devices of", e))?;
    }
    if let Some(memory) = resources.memory() {
        limits.memory(memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        limits.cpu(cpu)?;
    }
    if let Some(pids) = resources.pids() {
        let limit = if pids.limit() > 0 {
            pids.limit().to_string()
        } else {
            "max".to_owned()
        };
        limits.set("pids", "pids.max", &limit)?;
    }
    if let Some(io) = resources.block_io() {
        limits.io(io)?;
    }
    let mut warnings = limits.hugepages(resources)?;
    warnings.extend(limits.unified(resources)?);
    Ok(warnings)
}

/// Whether the machine keeps huge pages of a size, such as `2MB`, or would make some when asked.
fn machine_has_pages(size: &str) -> bool {
    let units = [("KB", 1), ("MB", 1 << 10), ("GB", 1 << 20)];
    let in_kib = units.iter().find_map(|(unit, kib)| {
        let number: u64 = size.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*kib)
    });
    let Some(kib) = in_kib else { return false };
    ["nr_hugepages", "nr_overcommit_hugepages"]
        .iter()
        .any(|file| {
            let path = format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB/{file}");
            std::fs::read_to_string(path).is_ok_and(|count| count.trim() != "0")
        })
}

/// blkio weight (10 to 1000) to io.weight (1 to 10000).
fn weight_of_blkio(weight: u16) -> u64 {
    1 + (u64::from(weight).saturating_sub(10)) * 9999 / 990
}

struct Limits<'a> {
    cgroup: &'a Cgroup,
    v2: bool,
}

impl Limits<'_> {
    fn set(&self, controller: &str, file: &str, value: &str) -> Result<()> {
        let written = self.cgroup.write(controller, file, value);
        written.map_err(|error| Error::cgroup("limit", error))
    }

    fn memory(&self, memory: &LinuxMemory) -> Result<()> {
        if self.v2 {
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
        self.cgroup.read("memory", file).is_ok()
    }

    fn read_number<T: FromStr>(&self, file: &str) -> Option<T> {
        self.cgroup.read("memory", file).ok()?.trim().parse().ok()
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
        if self.v2 {
            if let Some(shares) = shares {
                self.wake()?;
                let weight = cpu_weight(shares).to_string();
                self.set("cpu", "cpu.weight", &weight)?;
            }
            let present = || self.cgroup.read("cpu", "cpu.max").ok();
            if let Some(max) = limits::cpu_max(cpu, present) {
                self.set("cpu", "cpu.max", &max)?;
            }
        } else {
            if let Some(shares) = shares {
                self.set("cpu", "cpu.shares", &shares.to_string())?;
            }
            self.quota_v1(cpu)?;
        }
        if let Some(burst) = cpu.burst() {
            let file = if self.v2 {
                "cpu.max.burst"
            } else {
                "cpu.cfs_burst_us"
            };
            self.set("cpu", file, &burst.to_string())?;
        }
        if let Some(idle) = cpu.idle() {
            self.set("cpu", "cpu.idle", &idle.to_string())?;
        }
        for (list, file) in [(cpu.cpus(), "cpuset.cpus"), (cpu.mems(), "cpuset.mems")] {
            if let Some(list) = list.as_deref().filter(|list| !list.is_empty()) {
                self.set("cpuset", file, list)?;
            }
        }
        Ok(())
    }

    /// The kernel refuses a weight while `cpu.idle` is set. It is cleared first; the rest of the
    /// limits may set it again.
    fn wake(&self) -> Result<()> {
        let idle = self.cgroup.read("cpu", "cpu.idle");
        match idle.is_ok_and(|idle| idle.trim() == "1") {
            true => self.set("cpu", "cpu.idle", "0"),
            false => Ok(()),
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

    fn io(&self, io: &LinuxBlockIo) -> Result<()> {
        if let Some(weight) = io.weight().filter(|weight| *weight != 0) {
            if self.v2 {
                self.set(
                    "io",
                    "io.weight",
                    &format!("default {}", weight_of_blkio(weight)),
                )?;
            } else {
                // Which file a kernel has depends on its I/O scheduler.
                let bfq = "blkio.bfq.weight";
                let file = match self.cgroup.read("blkio", bfq) {
                    Ok(_) => bfq,
                    Err(_) => "blkio.weight",
                };
                self.set("blkio", file, &weight.to_string())?;
            }
        }
        let throttles = [
            (io.throttle_read_bps_device(), "read_bps", "rbps"),
            (io.throttle_write_bps_device(), "write_bps", "wbps"),
            (io.throttle_read_iops_device(), "read_iops", "riops"),
            (io.throttle_write_iops_device(), "write_iops", "wiops"),
        ];
        for (devices, v1, v2) in throttles {
            for device in devices.as_deref().unwrap_or_default() {
                self.throttle(device, v1, v2)?;
            }
        }
        Ok(())
    }

    fn throttle(&self, device: &LinuxThrottleDevice, v1: &str, v2: &str) -> Result<()> {
        let (major, minor, rate) = (device.major(), device.minor(), device.rate());
        if self.v2 {
            return self.set("io", "io.max", &format!("{major}:{minor} {v2}={rate}"));
        }
        let file = format!("blkio.throttle.{v1}_device");
        self.set("blkio", &file, &format!("{major}:{minor} {rate}"))
    }

    /// The kubelet limits pages of every size in every container, whatever the machine has: without
    /// the controller they are passed over, and told where pages might be taken or were asked for.
    fn hugepages(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        for limit in resources.hugepage_limits().as_deref().unwrap_or_default() {
            let size = limit.page_size();
            if size.contains('/') {
                let field = "linux.resources.hugepageLimits";
                return Err(Error::invalid(field, format!("{size:?}")));
            }
            let file = if self.v2 { "max" } else { "limit_in_bytes" };
            let file = format!("hugetlb.{size}.{file}");
            let written = self
                .cgroup
                .write("hugetlb", &file, &limit.limit().to_string());
            match written.map_err(|error| (error.kind(), error)) {
                Ok(()) => {}
                Err((ErrorKind::NotFound | ErrorKind::Unsupported, _)) => {
                    if limit.limit() > 0 || machine_has_pages(size) {
                        missing.push(size.as_str());
                    }
                }
                Err((_, error)) => return Err(Error::cgroup("limit", error)),
            }
        }
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let sizes = missing.join(", ");
        Ok(vec![format!(
            "limits of {sizes} pages are ignored: this machine has no cgroup files for them"
        )])
    }

    fn unified(&self, resources: &LinuxResources) -> Result<Vec<String>> {
        let Some(files) = resources
            .unified()
            .as_ref()
            .filter(|files| !files.is_empty())
        else {
            return Ok(Vec::new());
        };
        if !self.v2 {
            return Ok(vec![
                "resources.unified is ignored: this machine has cgroup v1".to_owned(),
            ]);
        }
        for (file, value) in files {
            let plain = !file.contains('/') && file.contains('.');
            let Some((controller, _)) = file.split_once('.').filter(|_| plain) else {
                return Err(Error::invalid(
                    "linux.resources.unified",
                    format!("{file:?}"),
                ));
            };
            self.set(controller, file, value)?;
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_keep_their_meaning() {
        assert_eq!((weight_of_blkio(10), weight_of_blkio(1000)), (1, 10_000));
    }
}
