//! The SELinux levels that pods have: no two have the same, and a level is free again with the end of
//! its pod.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crisp_model::{PodId, SelinuxLevel};
use crisp_sys::selinux;

/// Labels such as containers and their files get.
const LABELS: [&str; 3] = [
    "system_u:system_r:container_t:s0:c0,c1023",
    "system_u:system_r:spc_t:s0:c0,c1023",
    "system_u:object_r:container_file_t:s0:c0,c1023",
];

/// Whether labels mean something here: a policy is loaded, and it knows the types of containers. Asked
/// once, since a container with a label that nobody knows could not be started.
pub(crate) fn policy_knows_containers() -> bool {
    selinux::is_on() && LABELS.iter().all(|label| selinux::check(label).is_ok())
}

/// The pods that have each level.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    taken: Mutex<BTreeMap<SelinuxLevel, PodId>>,
}

impl Levels {
    fn taken(&self) -> MutexGuard<'_, BTreeMap<SelinuxLevel, PodId>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Picks one for a pod. The first that is tried follows from its id, which is random, so that pods
    /// of nodes that share a disk seldom have the same. A node has fewer pods than there are levels.
    pub(crate) fn pick(&self, pod: &PodId) -> SelinuxLevel {
        let digits = pod.as_str().get(..8).unwrap_or_default();
        let first = u32::from_str_radix(digits, 16).unwrap_or_default() % SelinuxLevel::COUNT;
        let mut taken = self.taken();
        let all = (0..SelinuxLevel::COUNT).map(|next| SelinuxLevel::numbered(first + next));
        let mut free = all.filter(|level| !taken.contains_key(level));
        let level = free.next().unwrap_or(SelinuxLevel::numbered(first));
        drop(free);
        taken.insert(level, pod.clone());
        level
    }

    /// A pod of an earlier daemon has this one.
    pub(crate) fn adopt(&self, pod: &PodId, level: SelinuxLevel) {
        self.taken().insert(level, pod.clone());
    }

    /// A pod is over.
    pub(crate) fn forget(&self, pod: &PodId, level: Option<SelinuxLevel>) {
        let mut taken = self.taken();
        if let Some(level) = level.filter(|level| taken.get(level) == Some(pod)) {
            taken.remove(&level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(byte: u8, last: u8) -> PodId {
        let mut entropy = [byte; 32];
        entropy[31] = last;
        PodId::from_entropy(entropy)
    }

    #[test]
    fn pods_have_levels_of_their_own_until_they_end() {
        let levels = Levels::default();
        // Ids with the same beginning try the same level first.
        let [one, two, three] = [1, 2, 3].map(|last| pod(0, last));
        let first = levels.pick(&one);
        let second = levels.pick(&two);
        assert_eq!(first, SelinuxLevel::numbered(0));
        assert_eq!(second, SelinuxLevel::numbered(1));
        levels.forget(&three, Some(first));
        assert_eq!(
            levels.pick(&three),
            SelinuxLevel::numbered(2),
            "not its own"
        );
        levels.forget(&one, Some(first));
        assert_eq!(levels.pick(&pod(0, 4)), first, "free again");
    }

    #[test]
    fn levels_of_earlier_daemons_are_taken() {
        let levels = Levels::default();
        levels.adopt(&pod(0, 1), SelinuxLevel::numbered(0));
        assert_eq!(levels.pick(&pod(0, 2)), SelinuxLevel::numbered(1));
    }
}
