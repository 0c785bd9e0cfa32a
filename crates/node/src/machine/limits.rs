//! The limits that are in force after a change: what is not asked for stays.

use crisp_model::Resources;

/// The limits in force after `asked`: one that is not set leaves what was.
pub(super) fn merge(old: &Resources, asked: &Resources) -> Resources {
    let text = |old: &Option<String>, new: &Option<String>| new.clone().or_else(|| old.clone());
    let mut merged = Resources {
        cpu_period: asked.cpu_period.or(old.cpu_period),
        cpu_quota: asked.cpu_quota.or(old.cpu_quota),
        cpu_shares: asked.cpu_shares.or(old.cpu_shares),
        memory_limit: asked.memory_limit.or(old.memory_limit),
        memory_swap_limit: asked.memory_swap_limit.or(old.memory_swap_limit),
        oom_score_adj: asked.oom_score_adj.or(old.oom_score_adj),
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
            cpu_shares: Some(100),
            memory_limit: Some(1 << 20),
            cpuset_cpus: Some("0".into()),
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let asked = Resources {
            memory_limit: Some(2 << 20),
            unified: [("memory.min".to_owned(), "2".to_owned())].into(),
            ..Resources::default()
        };
        let merged = merge(&old, &asked);
        let numbers = (merged.cpu_shares, merged.memory_limit, merged.cpu_quota);
        assert_eq!(numbers, (Some(100), Some(2 << 20), None));
        assert_eq!(merged.cpuset_cpus.as_deref(), Some("0"));
        assert_eq!(merged.unified.len(), 2);
    }
}
