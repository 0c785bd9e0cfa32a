//! The list of DELs that are owed, in a line for each plugin that failed.

use std::collections::VecDeque;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crisp_model::PodId;

use crate::attachment::PodNetwork;
use crate::client::Target;
use crate::error::Error;

/// A pod that is to be detached.
#[derive(Debug, Clone)]
pub(super) struct Leaving {
    pub(super) id: PodId,
    /// `None` when only the id is known.
    pub(super) pod: Option<PodNetwork>,
}

impl Leaving {
    /// The attachment, for when its record is damaged or lost.
    pub(super) fn target(&self) -> Target {
        let named = self.pod.as_ref().map(Target::unasked);
        named.unwrap_or_else(|| Target::nameless(&self.id))
    }
}

/// The pause before the first repetition; each one that fails doubles it.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// As often it is doubled: to a minute, since a plugin that is back is to be noticed.
pub(super) const DOUBLED: u32 = 6;

pub(super) fn pause(tries: u32) -> Duration {
    AGAIN_AFTER * 2_u32.pow(tries.min(DOUBLED))
}

/// A DEL that has not succeeded yet. The network tries again: its caller need not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("DEL of pod {pod} is owed and tried again: {why}")]
pub struct OwedDel {
    /// The pod, which may be gone.
    pub pod: PodId,
    /// Why the last attempt failed.
    pub why: String,
    /// Since when it is owed.
    pub since: Duration,
}

#[derive(Debug)]
struct Debt {
    leaving: Leaving,
    why: String,
    began: Instant,
}

impl Debt {
    fn told(&self) -> OwedDel {
        OwedDel {
            pod: self.leaving.id.clone(),
            why: self.why.clone(),
            since: self.began.elapsed(),
        }
    }
}

/// The debts of one plugin, the one that is tried next first.
#[derive(Debug, Default)]
struct Line {
    debts: VecDeque<Debt>,
    /// A worker tries them.
    is_served: bool,
}

/// All that is owed, by the plugin that failed.
#[derive(Debug, Default)]
pub(super) struct Debts(Mutex<BTreeMap<String, Line>>);

impl Debts {
    fn lines(&self) -> MutexGuard<'_, BTreeMap<String, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self) -> Vec<OwedDel> {
        let lines = self.lines();
        let debts = lines.values().flat_map(|line| &line.debts);
        debts.map(Debt::told).collect()
    }

    pub(super) fn count(&self) -> usize {
        self.lines().values().map(|line| line.debts.len()).sum()
    }

    pub(super) fn of(&self, pod: &PodId) -> Option<OwedDel> {
        let lines = self.lines();
        let mut debts = lines.values().flat_map(|line| &line.debts);
        debts.find(|debt| debt.leaving.id == *pod).map(Debt::told)
    }

    /// An attempt has failed: the debt goes to the end of its plugin's line. Whether it is the
    /// first one there.
    pub(super) fn add(&self, leaving: Leaving, error: &Error) -> bool {
        let mut lines = self.lines();
        let began = take(&mut lines, &leaving.id).map_or_else(Instant::now, |debt| debt.began);
        let line = lines.entry(error.plugin().unwrap_or_default().to_owned());
        let is_first = matches!(line, Entry::Vacant(_));
        line.or_default().debts.push_back(Debt {
            leaving,
            why: error.to_string(),
            began,
        });
        is_first
    }

    /// The pod is detached.
    pub(super) fn settle(&self, pod: &PodId) {
        take(&mut self.lines(), pod);
    }

    /// Plugins whose debts nobody tries yet: the caller does from now on.
    pub(super) fn unserved(&self) -> Vec<String> {
        let mut lines = self.lines();
        let each = lines.iter_mut();
        let new = each.filter_map(|(plugin, line)| {
            (!std::mem::replace(&mut line.is_served, true)).then(|| plugin.clone())
        });
        new.collect()
    }

    /// The pods that a plugin owes something, in the order of their turns.
    pub(super) fn pods(&self, plugin: &str) -> Vec<Leaving> {
        let lines = self.lines();
        let debts = lines.get(plugin).into_iter().flat_map(|line| &line.debts);
        debts.map(|debt| debt.leaving.clone()).collect()
    }

    /// Forgets a plugin that owes nothing any more.
    pub(super) fn close(&self, plugin: &str) -> bool {
        let mut lines = self.lines();
        let is_paid = lines.get(plugin).is_none_or(|line| line.debts.is_empty());
        if is_paid {
            lines.remove(plugin);
        }
        is_paid
    }
}

/// Takes a pod's debt out of the line that it stands in.
fn take(lines: &mut BTreeMap<String, Line>, pod: &PodId) -> Option<Debt> {
    lines.values_mut().find_map(|line| {
        let at = line.debts.iter().position(|debt| debt.leaving.id == *pod)?;
        line.debts.remove(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(number: u8) -> PodId {
        PodId::from_entropy([number; 32])
    }

    fn leaving(number: u8) -> Leaving {
        Leaving {
            id: pod(number),
            pod: None,
        }
    }

    fn refused(plugin: &str) -> Error {
        Error::Several(vec![
            Error::NotReady("no list".to_owned()),
            Error::NotStarted {
                call: crate::PluginCall {
                    plugin: plugin.to_owned(),
                    network: "net".to_owned(),
                    verb: "DEL",
                    pod: "a pod".to_owned(),
                },
                why: "not there".to_owned(),
            },
        ])
    }

    #[test]
    fn the_debts_of_a_plugin_stand_in_one_line() {
        let debts = Debts::default();
        assert!(debts.add(leaving(1), &refused("a")), "the first is told of");
        assert!(!debts.add(leaving(2), &refused("a")));
        assert!(debts.add(leaving(3), &refused("b")));
        assert_eq!(debts.unserved(), ["a", "b"]);
        assert!(debts.unserved().is_empty(), "each has one worker");
        // Failed once more, and at another plugin of the chain.
        assert!(!debts.add(leaving(1), &refused("a")));
        let order =
            |plugin: &str| -> Vec<PodId> { debts.pods(plugin).into_iter().map(|l| l.id).collect() };
        assert_eq!(order("a"), [pod(2), pod(1)]);
        assert!(!debts.add(leaving(2), &refused("b")));
        assert_eq!(
            (order("a"), order("b")),
            (vec![pod(1)], vec![pod(3), pod(2)])
        );
        assert_eq!(debts.count(), 3);
        assert!(debts.of(&pod(2)).unwrap().why.contains("not there"));
        debts.settle(&pod(1));
        assert!(debts.of(&pod(1)).is_none());
        assert!(debts.close("a") && !debts.close("b"));
        assert_eq!(debts.list().len(), 2);
    }

    #[test]
    fn a_plugin_that_fails_is_asked_ever_more_rarely() {
        let pauses = [0, 1, 5, 6, 7, u32::MAX].map(|tries| pause(tries).as_secs());
        assert_eq!(pauses, [1, 2, 32, 64, 64, 64]);
    }
}
