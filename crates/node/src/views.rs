//! The views of all pods: what List and Status read without asking anyone.
//!
//! Pods' tasks are the only writers, each of its own page. The lock is held for the moment of a
//! look-up or an exchange of pointers, never across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crisp_model::{ContainerId, Owner, PodId, PodPhase};

use crate::error::{Error, Result};
use crate::view::{ContainerView, PodView};

const POD: &str = "pod sandbox";
const CONTAINER: &str = "container";

/// The last view of every pod that callers may see, of all owners.
#[derive(Debug, Default)]
pub(crate) struct Views(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    pods: BTreeMap<PodId, Arc<PodView>>,
    containers: BTreeMap<ContainerId, PodId>,
}

impl Views {
    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a pod's new state.
    pub(crate) fn publish(&self, view: &Arc<PodView>) {
        let mut known = self.write();
        let Known { pods, containers } = &mut *known;
        for container in &view.containers {
            if !containers.contains_key(&container.id) {
                containers.insert(container.id.clone(), view.id.clone());
            }
        }
        let before = pods.insert(view.id.clone(), Arc::clone(view));
        for gone in before.iter().flat_map(|before| &before.containers) {
            if view.container(&gone.id).is_none() {
                containers.remove(&gone.id);
            }
        }
    }

    /// Forgets a pod.
    pub(crate) fn close(&self, id: &PodId) {
        let mut known = self.write();
        if let Some(view) = known.pods.remove(id) {
            for container in &view.containers {
                known.containers.remove(&container.id);
            }
        }
    }

    /// Every visible pod of an owner.
    pub(crate) fn pods(&self, owner: Owner) -> Vec<Arc<PodView>> {
        let known = self.read();
        let pods = known.pods.values().filter(|view| view.owner == owner);
        pods.cloned().collect()
    }

    /// How many pods of all owners are over.
    pub(crate) fn over(&self) -> usize {
        let known = self.read();
        let over = |view: &&Arc<PodView>| view.phase == PodPhase::NotReady;
        known.pods.values().filter(over).count()
    }

    /// Finds an owner's pod by its id or the unique beginning of it.
    pub(crate) fn pod(&self, owner: Owner, text: &str) -> Result<Arc<PodView>> {
        let known = self.read();
        let is_owners = |view: &&Arc<PodView>| view.owner == owner;
        if let Ok(id) = PodId::parse(text)
            && let Some(view) = known.pods.get(&id).filter(is_owners)
        {
            return Ok(Arc::clone(view));
        }
        let views = known.pods.values().filter(is_owners);
        unique(POD, text, views.map(|view| (view, view.id.as_str()))).cloned()
    }

    /// Finds an owner's container by its id or the unique beginning of it.
    pub(crate) fn container(&self, owner: Owner, text: &str) -> Result<Arc<ContainerView>> {
        let known = self.read();
        let view = |pod: &PodId| known.pods.get(pod).filter(|view| view.owner == owner);
        let find = |id: &ContainerId, pod: &PodId| view(pod)?.container(id).cloned();
        if let Ok(id) = ContainerId::parse(text)
            && let Some(container) = known.containers.get(&id).and_then(|pod| find(&id, pod))
        {
            return Ok(container);
        }
        let each = known.containers.iter();
        let owned = each.filter(|(_, pod)| view(pod).is_some());
        let (id, pod) = unique(CONTAINER, text, owned.map(|both| (both, both.0.as_str())))?;
        find(id, pod).ok_or_else(|| missing(CONTAINER, text))
    }
}

fn missing(what: &'static str, text: &str) -> Error {
    Error::NotFound {
        what,
        id: text.to_owned(),
    }
}

/// The one id that begins with `text`; the empty text begins none.
fn unique<'a, T>(
    what: &'static str,
    text: &str,
    ids: impl Iterator<Item = (T, &'a str)>,
) -> Result<T> {
    if text.is_empty() {
        return Err(missing(what, text));
    }
    let mut found: Vec<T> = ids
        .filter(|(_, id)| id.starts_with(text))
        .map(|(key, _)| key)
        .collect();
    match (found.pop(), found.len()) {
        (None, _) => Err(missing(what, text)),
        (Some(key), 0) => Ok(key),
        (Some(_), more) => Err(Error::Ambiguous {
            what,
            prefix: text.to_owned(),
            count: more + 1,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn ids_are_found_by_unique_beginnings() {
        let ids = ["aa11", "aa22", "bb11"];
        let find = |text: &str| unique("thing", text, ids.iter().map(|id| (*id, *id)));
        assert_eq!(find("bb").unwrap(), "bb11");
        assert_eq!(find("aa22").unwrap(), "aa22");
        assert_eq!(find("aa").unwrap_err().code(), Code::InvalidArgument);
        for nothing in ["", "cc", "aa111"] {
            assert_eq!(find(nothing).unwrap_err().code(), Code::NotFound);
        }
    }
}
