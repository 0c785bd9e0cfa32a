//! The limits that are in force after a change: what is not asked for stays.

use crisp_model::Resources;

/// The limits in force after `asked`: 0 and empty leave what was.
pub(super) fn merge(old: &Resources, asked: &Resources) -> Resources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &str, new: &str| if new.is_empty() { old } else { new }.to_owned();
    let mut merged = Resources {
        cpu_period: number(old.cpu_period, asked.cpu_period),
        cpu_quota: number(old.cpu_quota, asked.cpu_quota),
        cpu_shares: number(old.cpu_shares, asked.cpu_shares),
        memory_limit: number(old.memory_limit, asked.memory_limit),
        memory_swap_limit: number(old.memory_swap_limit, asked.memory_swap_limit),
        oom_score_adj: number(old.oom_score_adj, asked.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &asked.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &asked.cpuset_mems),
        hugepage_limits: old.hugepage_limits.clone(),
        unified: old.unified.clone(),
    };
    merged.hugepage_limits.extend(asked.hugepage_limits.clone());
    merged.unified.extend(asked.unified.clone());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_stays() {
        let old = Resources {
            cpu_shares: 100,
            memory_limit: 1 << 20,
            cpuset_cpus: "0".into(),
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let asked = Resources {
            memory_limit: 2 << 20,
            unified: [("memory.min".to_owned(), "2".to_owned())].into(),
            ..Resources::default()
        };
        let merged = merge(&old, &asked);
        assert_eq!((merged.cpu_shares, merged.memory_limit), (100, 2 << 20));
        assert_eq!(merged.cpuset_cpus, "0");
        assert_eq!(merged.unified.len(), 2);
    }
}
