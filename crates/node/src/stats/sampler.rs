//! The memory of stats between two looks: rates of CPU use, and the sizes of layers.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crisp_model::{CgroupPath, ContainerId};

use super::layers::Layers;
use crate::clock::SinceBoot;

/// Two looks that are closer give no rate: the last one stands.
const SHORTEST: i64 = 100_000_000;
const SECOND: u128 = 1_000_000_000;

/// Memory of earlier looks. The lock is held for a look-up, never across an await.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    cpu: Mutex<BTreeMap<CgroupPath, Look>>,
    pub(crate) layers: Layers,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    at: SinceBoot,
    usage_ns: u64,
    nanocores: Option<u64>,
}

impl Sampler {
    fn cpu(&self) -> MutexGuard<'_, BTreeMap<CgroupPath, Look>> {
        self.cpu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Billionths of a core since the last look; `None` at the first, for a caller would take 0 for
    /// a measure.
    pub(crate) fn nanocores(
        &self,
        cgroup: &CgroupPath,
        at: SinceBoot,
        usage_ns: u64,
    ) -> Option<u64> {
        let mut cpu = self.cpu();
        let fresh = Look {
            at,
            usage_ns,
            nanocores: None,
        };
        let Some(last) = cpu.get_mut(cgroup) else {
            cpu.insert(cgroup.clone(), fresh);
            return None;
        };
        let passed = at.since(last.at);
        if passed < SHORTEST {
            return last.nanocores;
        }
        let used = u128::from(usage_ns.saturating_sub(last.usage_ns));
        let rate = used * SECOND / u128::from(passed.unsigned_abs());
        *last = Look {
            nanocores: Some(u64::try_from(rate).unwrap_or(u64::MAX)),
            ..fresh
        };
        last.nanocores
    }

    /// Forgets a container.
    pub(crate) fn forget(&self, container: &ContainerId, cgroup: Option<&CgroupPath>) {
        self.layers.forget(container);
        if let Some(cgroup) = cgroup {
            self.cpu().remove(cgroup);
        }
    }

    /// Forgets the cgroup of a pod.
    pub(crate) fn forget_pod(&self, cgroup: &CgroupPath) {
        self.cpu().remove(cgroup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_time_between_two_looks() {
        let sampler = Sampler::default();
        let (second, at) = (1_000_000_000, SinceBoot);
        let path = |text| CgroupPath::parse(text).unwrap();
        let (a, b) = (path("a"), path("b"));
        assert_eq!(sampler.nanocores(&a, at(0), 500), None);
        // Half a core for a second.
        assert_eq!(
            sampler.nanocores(&a, at(second), 500 + 500_000_000),
            Some(500_000_000)
        );
        // Too soon for a new one.
        assert_eq!(
            sampler.nanocores(&a, at(second + 1), 600_000_000),
            Some(500_000_000)
        );
        // A container that was made anew under the name has used less.
        assert_eq!(sampler.nanocores(&a, at(3 * second), 0), Some(0));
        assert_eq!(sampler.nanocores(&b, at(3 * second), 7), None);
    }
}
