//! The published state of all pods: what List and Status read without asking anyone.
//!
//! Pods' tasks are the only writers, each of its own page. The lock is held for the moment of a
//! look-up or an exchange of pointers, never across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crisp_model::{ContainerId, PodId};
use tokio::sync::mpsc::UnboundedSender;

use crate::error::{Error, Result};
use crate::message::Message;
use crate::view::{ContainerView, PodView};

/// Where a pod's task gets its messages.
pub(crate) type Mailbox = UnboundedSender<Message>;

const POD: &str = "pod sandbox";
const CONTAINER: &str = "container";

#[derive(Debug, Default)]
pub(crate) struct Book(RwLock<Pages>);

#[derive(Debug, Default)]
struct Pages {
    pods: BTreeMap<PodId, Page>,
    containers: BTreeMap<ContainerId, PodId>,
}

#[derive(Debug)]
struct Page {
    mailbox: Mailbox,
    /// `None` while it boots.
    view: Option<Arc<PodView>>,
}

impl Book {
    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a page for a pod that nobody sees yet.
    pub(crate) fn open(&self, id: PodId, mailbox: Mailbox) {
        self.write().pods.insert(
            id,
            Page {
                mailbox,
                view: None,
            },
        );
    }

    /// Shows a pod's new state.
    pub(crate) fn publish(&self, view: Arc<PodView>) {
        let mut pages = self.write();
        let pages = &mut *pages;
        let Some(page) = pages.pods.get_mut(&view.id) else {
            return;
        };
        for container in page.view.iter().flat_map(|old| &old.containers) {
            pages.containers.remove(&container.id);
        }
        for container in &view.containers {
            pages
                .containers
                .insert(container.id.clone(), view.id.clone());
        }
        page.view = Some(view);
    }

    /// Forgets a pod.
    pub(crate) fn close(&self, id: &PodId) {
        let mut pages = self.write();
        pages.pods.remove(id);
        pages.containers.retain(|_, pod| pod != id);
    }

    /// Every visible pod.
    pub(crate) fn pods(&self) -> Vec<Arc<PodView>> {
        let pages = self.read();
        pages
            .pods
            .values()
            .filter_map(|page| page.view.clone())
            .collect()
    }

    /// How many pods there are, visible or not.
    pub(crate) fn count(&self) -> usize {
        self.read().pods.len()
    }

    /// A task's mailbox by its pod's whole id, visible or not.
    pub(crate) fn mailbox(&self, id: &PodId) -> Option<Mailbox> {
        Some(self.read().pods.get(id)?.mailbox.clone())
    }

    /// Finds a visible pod by its id or the unique beginning of it.
    pub(crate) fn pod(&self, text: &str) -> Result<(Mailbox, Arc<PodView>)> {
        let pages = self.read();
        let is_seen = |id: &PodId| pages.pods.get(id).is_some_and(|page| page.view.is_some());
        let whole = PodId::parse(text).ok().filter(is_seen);
        let visible = pages.pods.keys().filter(|id| is_seen(id));
        let id = whole.map_or_else(
            || unique(POD, text, visible.map(|id| (id, id.as_str()))).cloned(),
            Ok,
        )?;
        let found = pages
            .pods
            .get(&id)
            .and_then(|page| Some((page.mailbox.clone(), page.view.clone()?)));
        found.ok_or_else(|| missing(POD, text))
    }

    /// Finds a container by its id or the unique beginning of it.
    pub(crate) fn container(&self, text: &str) -> Result<(Mailbox, Arc<ContainerView>)> {
        let pages = self.read();
        let whole = ContainerId::parse(text).ok();
        let whole = whole.filter(|id| pages.containers.contains_key(id));
        let ids = pages.containers.keys().map(|id| (id, id.as_str()));
        let id = whole.map_or_else(|| unique(CONTAINER, text, ids).cloned(), Ok)?;
        let page = pages
            .containers
            .get(&id)
            .and_then(|pod| pages.pods.get(pod));
        let found = page.and_then(|page| {
            let view = page.view.as_ref()?.container(&id)?;
            Some((page.mailbox.clone(), Arc::clone(view)))
        });
        found.ok_or_else(|| missing(CONTAINER, text))
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
