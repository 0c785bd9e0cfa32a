//! Paths of cgroups, which never leave the cgroup root.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The name of the cgroup of one exec'd process begins with this; it lies below its container's,
/// where a container may have cgroups of its own: no other program would use the name.
pub const EXEC_PREFIX: &str = "crisp-exec-";

/// Which containers get a cgroup namespace of their own, in which their cgroup is the root.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupNamespaces {
    /// On cgroup v2, each that is not privileged: what containers on other runtimes see.
    #[default]
    Unprivileged,
    /// All, privileged ones and those on cgroup v1 too: none can mount a hierarchy that the node
    /// does not have, nor change how the node's own are mounted.
    Private,
}

/// The path of a cgroup below the cgroup root, without a slash at either end; empty for the root
/// itself. Never leaves the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CgroupPath(String);

/// Why a text is not the path of a cgroup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} leaves the cgroup root")]
pub struct LeavesRoot(String);

impl CgroupPath {
    /// Reads a path with or without slashes around it.
    ///
    /// # Errors
    /// When a part of it is `.` or `..`, or it holds a NUL byte.
    pub fn parse(text: &str) -> Result<Self, LeavesRoot> {
        let parts = || text.split('/').filter(|part| !part.is_empty());
        if text.contains('\0') || parts().any(|part| part == "." || part == "..") {
            return Err(LeavesRoot(text.to_owned()));
        }
        Ok(Self(parts().collect::<Vec<_>>().join("/")))
    }

    /// The path as text: `kubepods/pod7/crisp-1`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the cgroup root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The cgroup with a name below this one. The name is one part, and neither `.` nor `..`.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        debug_assert!(!name.contains('/') && name != ".." && name != ".");
        match self.is_root() {
            true => Self(name.to_owned()),
            false => Self(format!("{}/{name}", self.0)),
        }
    }

    /// The cgroup around this one; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let parent = self.0.rsplit_once('/').map_or("", |(parent, _)| parent);
        Some(Self(parent.to_owned()))
    }

    /// The last part; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl fmt::Display for CgroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for CgroupPath {
    type Error = LeavesRoot;

    fn try_from(text: String) -> Result<Self, LeavesRoot> {
        Self::parse(&text)
    }
}

impl From<CgroupPath> for String {
    fn from(path: CgroupPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_the_root() {
        for (text, path) in [
            ("/kubepods/pod1/", Some("kubepods/pod1")),
            ("a//b", Some("a/b")),
            ("", Some("")),
            ("/", Some("")),
            ("a/../b", None),
            ("..", None),
            ("a/.", None),
            ("a\0b", None),
            ("a..b", Some("a..b")),
        ] {
            let parsed = CgroupPath::parse(text).ok();
            assert_eq!(parsed.as_ref().map(CgroupPath::as_str), path, "{text:?}");
        }
    }

    #[test]
    fn parents_and_children_meet() {
        let path = CgroupPath::parse("a/b").unwrap();
        assert_eq!(path.child("c").parent(), Some(path.clone()));
        assert_eq!((path.name(), path.parent().unwrap().as_str()), ("b", "a"));
        assert_eq!(CgroupPath::default().child("a").as_str(), "a");
        assert_eq!(CgroupPath::default().parent(), None);
    }
}
