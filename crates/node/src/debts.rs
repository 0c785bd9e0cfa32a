//! Remains of failed creations and boots that could not be removed yet: no list has such a pod
//! or container, so the status tells of it until it is gone.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crisp_model::{ContainerId, PodId};

/// Remains that are tried again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwedRemains {
    /// The pod.
    pub pod: PodId,
    /// The container; `None` for a pod whose boot failed.
    pub container: Option<ContainerId>,
    /// Why they are still there.
    pub why: String,
    /// Since when.
    pub since: Duration,
}

type Key = (PodId, Option<ContainerId>);

/// All that is owed, as the pods' tasks tell.
#[derive(Debug, Default)]
pub(crate) struct Debts(Mutex<BTreeMap<Key, (Instant, String)>>);

impl Debts {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, (Instant, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An attempt has failed, or, without a reason, has not.
    pub(crate) fn note(&self, key: Key, why: Option<String>) {
        let mut all = self.all();
        match why {
            Some(why) => {
                all.entry(key)
                    .or_insert_with(|| (Instant::now(), String::new()))
                    .1 = why;
            }
            None => drop(all.remove(&key)),
        }
    }

    /// A pod is gone, with all that it owed.
    pub(crate) fn forget(&self, pod: &PodId) {
        self.all().retain(|(owner, _), _| owner != pod);
    }

    pub(crate) fn list(&self) -> Vec<OwedRemains> {
        let of = |((pod, container), (began, why)): (&Key, &(Instant, String))| OwedRemains {
            pod: pod.clone(),
            container: container.clone(),
            why: why.clone(),
            since: began.elapsed(),
        };
        self.all().iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_debt_is_told_until_it_is_paid() {
        let (debts, pod) = (Debts::default(), PodId::from_entropy([1; 32]));
        let container = Some(ContainerId::from_entropy([2; 32]));
        debts.note((pod.clone(), container.clone()), Some("busy".to_owned()));
        debts.note(
            (pod.clone(), container.clone()),
            Some("still busy".to_owned()),
        );
        debts.note((pod.clone(), None), Some("no plugin".to_owned()));
        let told: Vec<String> = debts.list().into_iter().map(|owed| owed.why).collect();
        assert_eq!(told, ["no plugin", "still busy"]);
        debts.note((pod.clone(), container), None);
        assert_eq!(debts.list().len(), 1);
        debts.forget(&pod);
        assert!(debts.list().is_empty());
    }
}
