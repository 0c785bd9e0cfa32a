//! The book of the parents of pods' cgroups: which pod uses which parent, which of them Crisp made,
//! and those that should be gone but are not. Pure but for the file that keeps the last of these
//! over a restart of the daemon.
//!
//! A parent that Crisp made belongs to all pods that use it, whoever came first: it is removed when
//! none of them lives any more. A cgroup that its caller made is never removed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crisp_model::PodId;
use crisp_sys::file;

use crate::slice::contains;

/// Between the attempts to remove a parent that stays.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// The file is no longer than this, or it is not ours.
const MAX_FILE: u64 = 4 << 20;

/// Parents of pods' cgroups.
#[derive(Debug, Default)]
pub(crate) struct Parents {
    book: Mutex<Book>,
    /// Keeps what is owed over a restart.
    file: PathBuf,
}

#[derive(Debug, Default)]
struct Book {
    users: BTreeMap<PodId, User>,
    /// By the bottom of the path.
    owed: BTreeMap<String, Debt>,
}

/// A pod and its parent.
#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    made: Made,
    lives: bool,
}

/// A parent cgroup, and how far up it was made by Crisp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Made {
    /// `None` when the caller made all of it.
    pub(crate) top: Option<String>,
    pub(crate) bottom: String,
}

#[derive(Debug)]
struct Debt {
    top: String,
    why: String,
    since: Instant,
    pause: Duration,
    due: Instant,
}

/// A cgroup that no pod uses any more and that could not be removed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    /// Below the cgroup root.
    pub path: String,
    /// Why it stays.
    pub why: String,
    /// For how long it has been tried.
    pub since: Duration,
}

impl Made {
    /// The paths that are to be removed, from the bottom up.
    pub(crate) fn paths(&self) -> Vec<&str> {
        let Some(top) = &self.top else {
            return Vec::new();
        };
        let prefixes = prefixes(&self.bottom);
        prefixes.filter(|path| path.len() >= top.len()).collect()
    }
}

/// A path and all those around it, from the bottom up.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let whole = Some(path).filter(|path| !path.is_empty());
    std::iter::successors(whole, |path| Some(path.rsplit_once('/')?.0))
}

impl Parents {
    /// The book, with what an earlier daemon owed.
    pub(crate) fn load(path: PathBuf) -> Self {
        let parents = Self {
            book: Mutex::default(),
            file: path,
        };
        let swept = parents.file.parent().map_or(Ok(()), file::sweep_unfinished);
        if let Err(error) = swept {
            tracing::warn!(path = %parents.file.display(), %error, "an unfinished list of cgroups stays");
        }
        let text = file::read_bounded(&parents.file, MAX_FILE).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        let pairs = text.lines().filter_map(|line| line.split_once('\t'));
        for (top, bottom) in pairs.filter(|(top, bottom)| contains(top, bottom)) {
            parents.owe(top, bottom, "an earlier daemon could not remove it");
        }
        parents
    }

    /// A new pod uses a parent. `is_free` tells of a cgroup whether Crisp is to make it.
    pub(crate) fn claim(
        &self,
        pod: &PodId,
        bottom: &str,
        is_free: impl Fn(&str) -> bool,
    ) -> Option<String> {
        self.with(|book| {
            let ours = |path: &&str| book.is_ours(path) || is_free(path);
            let top = prefixes(bottom).take_while(ours).last().map(str::to_owned);
            let made = Made {
                top: top.clone(),
                bottom: bottom.to_owned(),
            };
            let user = User { made, lives: true };
            book.users.insert(pod.clone(), user);
            top
        })
    }

    /// A pod that a record tells of.
    pub(crate) fn adopt(&self, pod: &PodId, made: Made, lives: bool) {
        self.with(|book| book.users.insert(pod.clone(), User { made, lives }));
    }

    /// A pod has no use for its parent any more.
    pub(crate) fn leave(&self, pod: &PodId) {
        self.with(|book| {
            if let Some(user) = book.users.get_mut(pod) {
                user.lives = false;
            }
        });
    }

    /// The parent of a pod that has left it.
    pub(crate) fn left_by(&self, pod: &PodId) -> Option<Made> {
        let of = |book: &mut Book| book.users.get(pod).cloned();
        let user = self.with(of)?;
        (!user.lives).then_some(user.made)
    }

    /// Whether a living pod uses a cgroup or one below it.
    pub(crate) fn is_used(&self, path: &str) -> bool {
        self.with(|book| {
            let mut users = book.users.values();
            users.any(|user| user.lives && contains(path, &user.made.bottom))
        })
    }

    /// A pod's record is gone; its parent.
    pub(crate) fn forget(&self, pod: &PodId) -> Option<Made> {
        self.with(|book| book.users.remove(pod))
            .map(|user| user.made)
    }

    /// Notes that a parent should be gone but is not; logs it the first time.
    pub(crate) fn owe(&self, top: &str, bottom: &str, why: &str) {
        let now = Instant::now();
        let is_new = self.with(|book| {
            let is_new = !book.owed.contains_key(bottom);
            let fresh = || Debt {
                top: top.to_owned(),
                why: String::new(),
                since: now,
                pause: FIRST_PAUSE / 2,
                due: now,
            };
            let debt = book.owed.entry(bottom.to_owned()).or_insert_with(fresh);
            why.clone_into(&mut debt.why);
            debt.pause = (debt.pause * 2).min(LONGEST_PAUSE);
            debt.due = now + debt.pause;
            is_new
        });
        if is_new {
            tracing::warn!(
                path = bottom,
                why,
                "a cgroup of pods that are gone stays; its removal is tried again"
            );
            self.save();
        }
    }

    /// A parent is gone, or in use again.
    pub(crate) fn settle(&self, bottom: &str) {
        if self.with(|book| book.owed.remove(bottom)).is_some() {
            self.save();
        }
    }

    /// The owed parents whose next attempt is due.
    pub(crate) fn due(&self) -> Vec<Made> {
        let now = Instant::now();
        self.owed_if(|debt| debt.due <= now)
    }

    /// All owed parents.
    pub(crate) fn all_owed(&self) -> Vec<Made> {
        self.owed_if(|_| true)
    }

    fn owed_if(&self, is_meant: impl Fn(&Debt) -> bool) -> Vec<Made> {
        let of = |(bottom, debt): (&String, &Debt)| Made {
            top: Some(debt.top.clone()),
            bottom: bottom.clone(),
        };
        self.with(|book| {
            let meant = book.owed.iter().filter(|(_, debt)| is_meant(debt));
            meant.map(of).collect()
        })
    }

    /// Whether a parent is owed.
    pub(crate) fn owes(&self, bottom: &str) -> bool {
        self.with(|book| book.owed.contains_key(bottom))
    }

    /// All that is owed.
    pub(crate) fn owed(&self) -> Vec<Owed> {
        let of = |(bottom, debt): (&String, &Debt)| Owed {
            path: bottom.clone(),
            why: debt.why.clone(),
            since: debt.since.elapsed(),
        };
        self.with(|book| book.owed.iter().map(of).collect())
    }

    /// Writes down what is owed. Best effort: the list lives on in memory.
    fn save(&self) {
        let text: String = self.with(|book| {
            let lines = book.owed.iter();
            lines
                .map(|(bottom, debt)| format!("{}\t{bottom}\n", debt.top))
                .collect()
        });
        let saved = match text.is_empty() {
            true => file::remove_if_there(&self.file),
            false => file::write_atomic(&self.file, text.as_bytes(), 0o600),
        };
        if let Err(error) = saved {
            tracing::warn!(path = %self.file.display(), %error, "cannot note which cgroups stay");
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Book) -> T) -> T {
        act(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Book {
    /// Whether Crisp made a cgroup, for whichever pod.
    fn is_ours(&self, path: &str) -> bool {
        let made = |top: &str, bottom: &str| contains(top, path) && contains(path, bottom);
        let mut users = self.users.values().map(|user| &user.made);
        let by_user = |of: &Made| of.top.as_ref().is_some_and(|top| made(top, &of.bottom));
        let mut owed = self.owed.iter();
        users.any(by_user) || owed.any(|(bottom, debt)| made(&debt.top, bottom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(number: u8) -> PodId {
        PodId::from_entropy([number; 32])
    }

    fn parents() -> (tempfile::TempDir, Parents) {
        let dir = tempfile::tempdir().unwrap();
        let parents = Parents::load(dir.path().join("owed"));
        (dir, parents)
    }

    #[test]
    fn an_unfinished_list_goes() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(".owed.0a1b2c3d.tmp");
        file::write_atomic(&left, b"a\ta/b\n", 0o600).unwrap();
        let parents = Parents::load(dir.path().join("owed"));
        assert!(!left.exists() && parents.owed().is_empty());
    }

    #[test]
    fn a_parent_that_crisp_made_belongs_to_all_that_use_it() {
        let (_dir, parents) = parents();
        let made = parents.claim(&pod(1), "a/b/c", |path| path != "a");
        assert_eq!(made.as_deref(), Some("a/b"));
        // Both are there by now; the pod's caller made none of them.
        let second = parents.claim(&pod(2), "a/b/c", |_| false);
        assert_eq!(second.as_deref(), Some("a/b"));
        parents.leave(&pod(1));
        assert!(parents.is_used("a/b/c") && parents.is_used("a"));
        assert!(!parents.is_used("a/b/c/d") && !parents.is_used("a/b/cc"));
        assert_eq!(parents.left_by(&pod(2)), None);
        parents.leave(&pod(2));
        assert!(!parents.is_used("a/b/c"));
        let left = parents.left_by(&pod(2)).unwrap();
        assert_eq!(left.paths(), ["a/b/c", "a/b"]);
    }

    #[test]
    fn a_cgroup_that_its_caller_made_is_not_ours() {
        let (_dir, parents) = parents();
        parents.claim(&pod(1), "a/b", |_| true);
        // Made by its caller below what Crisp made.
        assert_eq!(parents.claim(&pod(2), "a/x", |_| false), None);
        assert_eq!(parents.claim(&pod(3), "k", |_| false), None);
        let below = parents.claim(&pod(4), "a/x/y", |path| path == "a/x/y");
        assert_eq!(below.as_deref(), Some("a/x/y"));
        parents.leave(&pod(2));
        assert!(parents.left_by(&pod(2)).unwrap().paths().is_empty());
    }

    #[test]
    fn what_stays_is_owed_over_a_restart_and_tried_ever_later() {
        let (_dir, parents) = parents();
        parents.owe("a", "a/b", "busy");
        parents.owe("a", "a/b", "still busy");
        let owed = parents.owed();
        assert_eq!((owed.len(), owed[0].why.as_str()), (1, "still busy"));
        assert!(parents.due().is_empty());
        // A pod that comes meanwhile takes it over.
        let taken = parents.claim(&pod(1), "a/b", |_| false);
        assert_eq!(taken.as_deref(), Some("a"));
        let later = Parents::load(parents.file.clone());
        assert_eq!(later.owed()[0].path, "a/b");
        later.settle("a/b");
        assert!(!later.file.exists() && later.owed().is_empty());
    }
}
