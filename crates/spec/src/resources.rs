//! CRI's resource limits in the words of the OCI spec.

use crisp_model::{Field, Limit, Resources};
use oci_spec::runtime::{LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxResources};

use crate::{Error, Result};

/// Shares that the kernel takes.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;
/// The kernel takes no shorter quota or period, in microseconds.
const SHORTEST: i64 = 1000;
const LONGEST_PERIOD: i64 = 1_000_000;

/// Limits of a container; what is not set stays unset. Without a limit on swap, a limited
/// container gets none.
///
/// # Errors
/// When a value is one that no kernel takes, or asks for cgroup v2 (`v2` is false).
pub fn linux_resources(resources: &Resources, v2: bool) -> Result<LinuxResources> {
    let mut limits = LinuxResources::default();
    limits.set_devices(None);
    if let Some(memory) = memory(resources)? {
        limits.set_memory(Some(memory));
    }
    if let Some(cpu) = cpu(resources)? {
        limits.set_cpu(Some(cpu));
    }
    let pages = resources
        .hugepage_limits
        .iter()
        .map(|(size, limit)| hugepages(size, *limit));
    let pages = pages.collect::<Result<Vec<_>>>()?;
    if !pages.is_empty() {
        limits.set_hugepage_limits(Some(pages));
    }
    if !resources.unified.is_empty() {
        limits.set_unified(Some(unified(resources, v2)?));
    }
    Ok(limits)
}

fn refuse<T>(limit: Limit, why: String) -> Result<T> {
    Err(Error::invalid(Field::Limit(limit), why))
}

fn memory(resources: &Resources) -> Result<Option<LinuxMemory>> {
    let (limit, swap) = (resources.memory_limit, resources.memory_swap_limit);
    if let Some(limit) = limit.filter(|limit| *limit < -1) {
        let why = format!("{limit} is neither -1 (no limit) nor a number of bytes");
        return refuse(Limit::Memory, why);
    }
    if let (Some(-1), Some(swap @ 1..)) = (limit, swap) {
        let why = format!("{swap} counts memory too, which is to have no limit");
        return refuse(Limit::MemorySwap, why);
    }
    if let (Some(limit), Some(swap)) = (limit, swap)
        && (1..limit).contains(&swap)
    {
        let why = format!("{swap} counts memory too and is below its limit, {limit}");
        return refuse(Limit::MemorySwap, why);
    }
    let Some(swap) = swap.or(limit) else {
        return Ok(None);
    };
    let mut memory = LinuxMemory::default();
    memory.set_limit(limit);
    memory.set_swap(Some(swap));
    Ok(Some(memory))
}

fn cpu(resources: &Resources) -> Result<Option<LinuxCpu>> {
    let shares = resources.cpu_shares.map(u64::try_from).transpose();
    let Ok(shares) = shares else {
        return refuse(Limit::CpuShares, "it is negative".to_owned());
    };
    let (quota, period) = (resources.cpu_quota, resources.cpu_period);
    if let Some(quota) = quota.filter(|quota| *quota != -1 && *quota < SHORTEST) {
        let why = format!("{quota} is neither -1 (no limit) nor at least {SHORTEST} microseconds");
        return refuse(Limit::CpuQuota, why);
    }
    let periods = SHORTEST..=LONGEST_PERIOD;
    if let Some(period) = period.filter(|period| !periods.contains(period)) {
        let why = format!("{period} is not within {SHORTEST} to {LONGEST_PERIOD} microseconds");
        return refuse(Limit::CpuPeriod, why);
    }
    let (cpus, mems) = (&resources.cpuset_cpus, &resources.cpuset_mems);
    for (field, list) in [(Limit::CpusetCpus, cpus), (Limit::CpusetMems, mems)] {
        if let Some(list) = list.as_ref().filter(|list| !is_list(list)) {
            let why = format!("{list:?} is not a list like 0-2,7 (cpuset(7))");
            return refuse(field, why);
        }
    }
    let mut cpu = LinuxCpu::default();
    cpu.set_shares(shares.map(|shares| shares.clamp(*SHARES.start(), *SHARES.end())));
    cpu.set_quota(quota);
    cpu.set_period(period.and_then(|period| u64::try_from(period).ok()));
    cpu.set_cpus(cpus.clone());
    cpu.set_mems(mems.clone());
    Ok((cpu != LinuxCpu::default()).then_some(cpu))
}

fn is_list(list: &str) -> bool {
    let number = |text: &str| text.parse::<u16>().is_ok();
    list.split(',').all(|part| match part.split_once('-') {
        Some((from, to)) => number(from) && number(to),
        None => number(part),
    })
}

fn hugepages(size: &str, limit: u64) -> Result<LinuxHugepageLimit> {
    let digits = ["KB", "MB", "GB"]
        .iter()
        .find_map(|unit| size.strip_suffix(unit));
    if digits.is_none_or(|digits| digits.parse::<u32>().is_err()) {
        return refuse(
            Limit::HugePages,
            format!("{size:?} is not a page size like 2MB"),
        );
    }
    let Ok(limit) = i64::try_from(limit) else {
        return refuse(Limit::HugePages, format!("{limit} bytes of {size} pages"));
    };
    let mut page = LinuxHugepageLimit::default();
    page.set_page_size(size.to_owned());
    page.set_limit(limit);
    Ok(page)
}

fn unified(resources: &Resources, v2: bool) -> Result<std::collections::HashMap<String, String>> {
    if !v2 {
        return refuse(
            Limit::Unified,
            "needs cgroup v2, this node has v1".to_owned(),
        );
    }
    let wrong = |name: &&String| {
        let controller = name.split_once('.').map(|(controller, _)| controller);
        name.contains(['/', '\0']) || controller.is_none_or(|c| c.is_empty() || c == "cgroup")
    };
    if let Some(name) = resources.unified.keys().find(wrong) {
        return refuse(
            Limit::Unified,
            format!("{name:?} is not a file of a controller"),
        );
    }
    Ok(resources.unified.clone().into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_is_nothing_set() {
        let limits = linux_resources(&Resources::default(), false).unwrap();
        assert_eq!(serde_json::to_string(&limits).unwrap(), "{}");
    }

    #[test]
    fn limits_are_carried_over() {
        let asked = Resources {
            cpu_period: Some(100_000),
            cpu_quota: Some(50_000),
            cpu_shares: Some(1),
            memory_limit: Some(1 << 20),
            cpuset_cpus: Some("0-2,7".to_owned()),
            hugepage_limits: [("2MB".to_owned(), 0)].into(),
            unified: [("memory.high".to_owned(), "max".to_owned())].into(),
            ..Resources::default()
        };
        let limits = linux_resources(&asked, true).unwrap();
        let expected = serde_json::json!({
            "memory": { "limit": 1 << 20, "swap": 1 << 20 },
            "cpu": { "shares": 2, "quota": 50_000, "period": 100_000, "cpus": "0-2,7" },
            "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }],
            "unified": { "memory.high": "max" },
        });
        assert_eq!(serde_json::to_value(&limits).unwrap(), expected);
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        let asked = |change: fn(&mut Resources)| {
            let mut resources = Resources::default();
            change(&mut resources);
            resources
        };
        let table = [
            asked(|r| r.memory_limit = Some(-2)),
            asked(|r| (r.memory_limit, r.memory_swap_limit) = (Some(-1), Some(10))),
            asked(|r| (r.memory_limit, r.memory_swap_limit) = (Some(20), Some(10))),
            asked(|r| r.cpu_shares = Some(-1)),
            asked(|r| r.cpu_quota = Some(10)),
            asked(|r| r.cpu_quota = Some(-2)),
            asked(|r| r.cpu_period = Some(1)),
            asked(|r| r.cpu_period = Some(i64::MAX)),
            asked(|r| r.cpuset_cpus = Some("0-".to_owned())),
            asked(|r| r.cpuset_cpus = Some(String::new())),
            asked(|r| r.cpuset_mems = Some("a".to_owned())),
            asked(|r| r.hugepage_limits = [("../2MB".to_owned(), 1)].into()),
            asked(|r| r.hugepage_limits = [("2MB".to_owned(), u64::MAX)].into()),
            asked(|r| r.unified = [("../x.y".to_owned(), "1".to_owned())].into()),
            asked(|r| r.unified = [("cgroup.procs".to_owned(), "1".to_owned())].into()),
        ];
        for resources in table {
            assert!(linux_resources(&resources, true).is_err(), "{resources:?}");
        }
        let unified = asked(|r| r.unified = [("memory.high".to_owned(), "1".to_owned())].into());
        assert!(linux_resources(&unified, false).is_err());
    }
}
