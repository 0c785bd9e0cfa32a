//! The SELinux levels that pods have: no two have the same, and a level is free again with the end of
//! its pod.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crisp_model::{ContainerConfig, PodId, SelinuxLevel};
use crisp_records::PodRecord;
use crisp_sys::selinux;

use crate::error::{Error, Result};

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

/// The levels that are held.
#[derive(Debug, Default)]
pub(crate) struct Levels {
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// How many pods hold each: a caller may ask for one level for several.
    holders: BTreeMap<SelinuxLevel, usize>,
    of: BTreeMap<PodId, BTreeSet<SelinuxLevel>>,
}

impl Held {
    fn add(&mut self, pod: &PodId, level: SelinuxLevel) {
        if self.of.entry(pod.clone()).or_default().insert(level) {
            *self.holders.entry(level).or_default() += 1;
        }
    }
}

impl Levels {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Picks one for a pod, which no other has. The first that is tried follows from its id, which is
    /// random, so that pods of nodes that share a disk seldom have the same.
    ///
    /// # Errors
    /// When all are held.
    pub(crate) fn pick(&self, pod: &PodId) -> Result<SelinuxLevel> {
        let digits = pod.as_str().get(..8).unwrap_or_default();
        let first = u32::from_str_radix(digits, 16).unwrap_or_default() % SelinuxLevel::COUNT;
        let mut held = self.held();
        let all = (0..SelinuxLevel::COUNT).map(|next| SelinuxLevel::numbered(first + next));
        let mut free = all.filter(|level| !held.holders.contains_key(level));
        let Some(level) = free.next() else {
            let count = SelinuxLevel::COUNT;
            return Err(Error::Unavailable(format!(
                "all {count} SELinux levels of two categories are held by pods: remove pods that are \
                 over, or name a level for this one"
            )));
        };
        drop(free);
        held.add(pod, level);
        Ok(level)
    }

    /// A pod of an earlier daemon has the level that was picked for it, and those that it and its
    /// containers were asked to have.
    pub(crate) fn adopt<'a>(
        &self,
        pod: &'a PodRecord,
        containers: impl Iterator<Item = &'a ContainerConfig>,
    ) {
        if let Some(level) = pod.selinux_level {
            self.held().add(&pod.id, level);
        }
        let theirs = containers.map(|container| &container.security.selinux.level);
        for asked in theirs.chain([&pod.config.security.selinux.level]) {
            self.ask(&pod.id, asked);
        }
    }

    /// A pod, or a container of it, is asked to have this one: it is picked for no other pod. Several
    /// pods may be asked to have the same. Levels with other than two categories are never picked.
    pub(crate) fn ask(&self, pod: &PodId, text: &str) {
        if let Some(level) = pair_of(text) {
            self.held().add(pod, level);
        }
    }

    /// A pod is over.
    pub(crate) fn forget(&self, pod: &PodId) {
        let mut held = self.held();
        for level in held.of.remove(pod).into_iter().flatten() {
            if let Entry::Occupied(mut holders) = held.holders.entry(level) {
                *holders.get_mut() -= 1;
                if *holders.get() == 0 {
                    holders.remove();
                }
            }
        }
    }
}

/// The pair of categories that a level has, in whichever order it names them.
fn pair_of(text: &str) -> Option<SelinuxLevel> {
    let swapped = || {
        let (first, second) = text.strip_prefix("s0:")?.split_once(',')?;
        format!("s0:{second},{first}").parse().ok()
    };
    text.parse().ok().or_else(swapped)
}

#[cfg(test)]
mod tests {
    use crisp_model::{CgroupPath, Owner, Timestamp};

    use super::*;
    use crate::machine::tests::sample;

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
        let first = levels.pick(&one).unwrap();
        let second = levels.pick(&two).unwrap();
        assert_eq!(first, SelinuxLevel::numbered(0));
        assert_eq!(second, SelinuxLevel::numbered(1));
        levels.forget(&three);
        assert_eq!(
            levels.pick(&three).unwrap(),
            SelinuxLevel::numbered(2),
            "not its own"
        );
        levels.forget(&one);
        assert_eq!(levels.pick(&pod(0, 4)).unwrap(), first, "free again");
    }

    #[test]
    fn levels_of_earlier_daemons_are_taken() {
        let mut config = sample::pod_config();
        config.security.selinux.level = "s0:c0,c2".to_owned();
        let mut container = sample::config(1);
        container.security.selinux.level = "s0:c1,c2".to_owned();
        let record = PodRecord {
            id: pod(0, 1),
            owner: Owner::Cri,
            config,
            created_at: Timestamp(1),
            cgroup_path: CgroupPath::parse("crisp").unwrap(),
            selinux_level: Some(SelinuxLevel::numbered(0)),
        };
        let levels = Levels::default();
        levels.adopt(&record, [&container].into_iter());
        let next = levels.pick(&pod(0, 2)).unwrap();
        assert_eq!(next, SelinuxLevel::numbered(3));
    }

    #[test]
    fn levels_that_are_asked_for_are_picked_for_no_other_pod() {
        let levels = Levels::default();
        let [one, two] = [1, 2].map(|last| pod(0, last));
        for text in ["s0:c1,c0", "s0:c0,c1"] {
            levels.ask(&one, text);
            levels.ask(&two, text);
        }
        for other in ["", "s0", "s0:c0.c1023", "s0:c0,c1,c2"] {
            levels.ask(&two, other);
        }
        let pick = |last| levels.pick(&pod(0, last)).unwrap();
        assert_eq!(pick(3), SelinuxLevel::numbered(1));
        levels.forget(&one);
        assert_eq!(pick(4), SelinuxLevel::numbered(2), "the other has it still");
        levels.forget(&two);
        assert_eq!(pick(5), SelinuxLevel::numbered(0), "free again");
    }

    #[test]
    fn no_level_is_given_twice_where_none_is_left() {
        let levels = Levels::default();
        let many = pod(0, 1);
        for number in 0..SelinuxLevel::COUNT {
            levels.held().add(&many, SelinuxLevel::numbered(number));
        }
        let refused = levels.pick(&pod(0, 2)).unwrap_err();
        assert!(refused.to_string().contains("523776"), "{refused}");
        levels.forget(&many);
        assert!(levels.pick(&pod(0, 2)).is_ok());
    }
}
