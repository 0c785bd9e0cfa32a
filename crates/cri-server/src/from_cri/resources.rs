//! From CRI's resource limits to ours.

use std::collections::BTreeMap;

use crisp_api::runtime::v1 as cri;
use crisp_model::Resources;

use super::check::number;
use super::{Result, invalid};

/// Limits of a container, or the sums of a pod.
pub(crate) fn resources(at: &str, wire: cri::LinuxContainerResources) -> Result<Resources> {
    let field = |name: &str| format!("{at}.{name}");
    // 0 is CRI's word for a number that is not set.
    let bounded = |name: &str, value: i64, low: i64, high: i64| -> Result<Option<i64>> {
        if value == 0 {
            Ok(None)
        } else {
            number(&field(name), value, low..=high).map(Some)
        }
    };
    let memory_limit = bounded(
        "memory_limit_in_bytes",
        wire.memory_limit_in_bytes,
        -1,
        i64::MAX,
    )?;
    let memory_swap_limit = bounded(
        "memory_swap_limit_in_bytes",
        wire.memory_swap_limit_in_bytes,
        -1,
        i64::MAX,
    )?;
    if memory_swap_limit.is_some_and(|swap| swap > 0 && Some(swap) < memory_limit) {
        return invalid(
            field("memory_swap_limit_in_bytes"),
            "counts memory and swap together, so it cannot be below memory_limit_in_bytes",
        );
    }
    Ok(Resources {
        // The kernel takes periods of 1 ms to 1 s and quotas from 1 ms (sched/core.c); any
        // negative quota lifts the limit.
        cpu_period: bounded("cpu_period", wire.cpu_period, 1_000, 1_000_000)?,
        cpu_quota: match wire.cpu_quota {
            negative if negative < 0 => Some(-1),
            quota => bounded("cpu_quota", quota, 1_000, i64::MAX / 1_000)?,
        },
        cpu_shares: bounded("cpu_shares", wire.cpu_shares, 1, i64::MAX)?
            .map(|shares| shares.min(262_144)),
        memory_limit,
        memory_swap_limit,
        oom_score_adj: bounded("oom_score_adj", wire.oom_score_adj, -1000, 1000)?,
        cpuset_cpus: list(&field("cpuset_cpus"), wire.cpuset_cpus)?,
        cpuset_mems: list(&field("cpuset_mems"), wire.cpuset_mems)?,
        hugepage_limits: hugepages(&field("hugepage_limits"), wire.hugepage_limits)?,
        unified: unified(&field("unified"), wire.unified)?,
    })
}

/// The list format of cpuset(7): `0-3,7`; empty is CRI's word for a list that is not set.
fn list(at: &str, text: String) -> Result<Option<String>> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| !text.starts_with('+'));
    let range = |part: &str| match part.split_once('-') {
        Some((low, high)) => {
            matches!((number(low), number(high)), (Some(low), Some(high)) if low <= high)
        }
        None => number(part).is_some(),
    };
    if text.is_empty() {
        Ok(None)
    } else if text.split(',').all(range) {
        Ok(Some(text))
    } else {
        invalid(at, format!("{text:?} is not a list like 0-3,7"))
    }
}

fn hugepages(at: &str, limits: Vec<cri::HugepageLimit>) -> Result<BTreeMap<String, u64>> {
    let mut known = BTreeMap::new();
    for (i, limit) in limits.into_iter().enumerate() {
        let size = limit
            .page_size
            .trim_end_matches(|c: char| c.is_ascii_uppercase());
        let unit = &limit.page_size[size.len()..];
        let is_number = !size.is_empty() && size.bytes().all(|b| b.is_ascii_digit());
        if !is_number || !["KB", "MB", "GB"].contains(&unit) {
            let why = format!("{:?} is not a page size like 2MB or 1GB", limit.page_size);
            return invalid(format!("{at}[{i}].page_size"), why);
        }
        known.insert(limit.page_size, limit.limit);
    }
    Ok(known)
}

/// File names of the cgroup itself: a path would reach other cgroups.
fn unified(at: &str, files: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
    for (file, value) in &files {
        let letter = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if !file.contains('.') || file.starts_with('.') || !file.chars().all(letter) {
            return invalid(
                at,
                format!("{file:?} is not a file of cgroup v2 like memory.high"),
            );
        }
        if value.contains('\0') {
            return invalid(format!("{at}[{file:?}]"), "holds a NUL byte");
        }
    }
    Ok(files)
}
