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
    // Of memory without a limit there is none on both together.
    if asked.memory_limit == Some(-1) && asked.memory_swap_limit.is_none() {
        merged.memory_swap_limit = old.memory_swap_limit.map(|_| -1);
    }
    // Memory and swap as one: raised or lowered alone, memory takes along a limit of both that was
    // the same as its own. Of another one, the part that is swap stays.
    let limited = |limit: Option<i64>| limit.filter(|limit| *limit > 0);
    if let (Some(memory), None) = (limited(asked.memory_limit), asked.memory_swap_limit)
        && let (Some(was), Some(both)) = (limited(old.memory_limit), limited(old.memory_swap_limit))
    {
        let swap = both.saturating_sub(was).max(0);
        merged.memory_swap_limit = Some(memory.saturating_add(swap));
    }
    merged.hugepage_limits.extend(asked.hugepage_limits.clone());
    merged.unified.extend(asked.unified.clone());
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_moves_with_memory_that_is_asked_for_alone() {
        let limits = |(memory, both)| Resources {
            memory_limit: memory,
            memory_swap_limit: both,
            ..Resources::default()
        };
        let some = |memory, both| (Some(memory), Some(both));
        for (old, asked, expected) in [
            (some(64, 64), (Some(128), None), some(128, 128)),
            (some(64, 96), (Some(128), None), some(128, 160)),
            (some(64, 96), (Some(32), None), some(32, 64)),
            (some(64, 64), some(128, 256), some(128, 256)),
            // No limit of both, or none that was set.
            (some(64, -1), (Some(128), None), some(128, -1)),
            ((Some(64), None), (Some(128), None), (Some(128), None)),
            ((None, Some(64)), (Some(32), None), some(32, 64)),
            (some(64, 96), (None, Some(128)), some(64, 128)),
            (some(64, 96), (Some(-1), None), some(-1, -1)),
            ((Some(64), None), (Some(-1), None), (Some(-1), None)),
        ] {
            let merged = merge(&limits(old), &limits(asked));
            let found = (merged.memory_limit, merged.memory_swap_limit);
            assert_eq!(found, expected, "{old:?} asked for {asked:?}");
        }
    }

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
