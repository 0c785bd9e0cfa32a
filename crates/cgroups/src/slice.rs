//! systemd's slices: their names and paths (systemd.slice(5)), and a lock per slice that keeps a
//! stop from crossing with a start. No call to systemd is made here.

use std::sync::{Mutex, PoisonError};

use tokio::sync::Notify;

/// Leaves room below a slice for the names of a scope and its files (PATH_MAX is 4096).
const LONGEST: usize = 2048;

/// The path of a slice below the cgroup root: `a-b.slice` lies in `a.slice`.
///
/// # Errors
/// Says that it is not the name of a slice.
pub(crate) fn path_of(slice: &str) -> Result<String, String> {
    let bad = || {
        let why = "is not the name of a slice, such as \"kubepods-pod1.slice\"";
        format!("{slice:?} {why}; does the caller use the cgroup driver \"cgroupfs\"?")
    };
    let name = slice.strip_suffix(".slice").ok_or_else(bad)?;
    // systemd.unit(5): what else is in a name is written as \xHH.
    // "@" makes instances of templates, which slices have none of.
    let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\".contains(c);
    if name == "-" {
        return Ok(String::new());
    }
    if slice.len() > 255 || name.split('-').any(str::is_empty) || !name.chars().all(fits) {
        return Err(bad());
    }
    let ends = name.match_indices('-').map(|(at, _)| at);
    let parts: Vec<String> = ends
        .chain(std::iter::once(name.len()))
        .map(|end| format!("{}.slice", &name[..end]))
        .collect();
    let path = parts.join("/");
    match path.len() <= LONGEST {
        true => Ok(path),
        false => Err(format!(
            "{slice:?} lies too deep: its path has {} bytes",
            path.len()
        )),
    }
}

/// The slice at a path, if that is one.
pub(crate) fn unit_of(path: &str) -> Option<&str> {
    let name = last_part(path);
    path_of(name)
        .is_ok_and(|whole| whole == path)
        .then_some(name)
}

pub(crate) fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Keeps the stop of a slice and starts inside it apart: systemd would stop, with the slice, a scope
/// that is just being started in it.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    lanes: Mutex<Lanes>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Lanes {
    entering: Vec<String>,
    stopping: Vec<String>,
}

/// As long as this lives, neither the slice nor one around it is stopped.
#[derive(Debug)]
pub(crate) struct Entering<'a>(&'a Traffic, String);

/// As long as this lives, nothing is started in the slice or in one below it.
#[derive(Debug)]
pub(crate) struct Stopping<'a>(&'a Traffic, String);

impl Traffic {
    /// Waits until neither the slice at a path nor one around it is being stopped.
    pub(crate) async fn enter(&self, path: &str) -> Entering<'_> {
        loop {
            let changed = self.changed.notified();
            if let Some(entering) = self.try_enter(path) {
                return entering;
            }
            changed.await;
        }
    }

    fn try_enter(&self, path: &str) -> Option<Entering<'_>> {
        self.with_lanes(|lanes| {
            let is_free = !lanes.stopping.iter().any(|outer| contains(outer, path));
            is_free.then(|| {
                lanes.entering.push(path.to_owned());
                Entering(self, path.to_owned())
            })
        })
    }

    /// Keeps others out of the slice at a path; `None` when somebody is about to use it.
    pub(crate) fn stop(&self, path: &str) -> Option<Stopping<'_>> {
        self.with_lanes(|lanes| {
            let is_free = !lanes.entering.iter().any(|inner| contains(path, inner));
            is_free.then(|| {
                lanes.stopping.push(path.to_owned());
                Stopping(self, path.to_owned())
            })
        })
    }

    fn with_lanes<T>(&self, act: impl FnOnce(&mut Lanes) -> T) -> T {
        act(&mut self.lanes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Entering<'_> {
    fn drop(&mut self) {
        self.0
            .with_lanes(|lanes| take(&mut lanes.entering, &self.1));
    }
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0
            .with_lanes(|lanes| take(&mut lanes.stopping, &self.1));
        self.0.changed.notify_waiters();
    }
}

/// Whether a path is, or lies below, another.
pub(crate) fn contains(outer: &str, path: &str) -> bool {
    let rest = path.strip_prefix(outer);
    rest.is_some_and(|rest| outer.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

fn take(lane: &mut Vec<String>, path: &str) {
    if let Some(at) = lane.iter().position(|other| other == path) {
        lane.swap_remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_enters_what_is_being_stopped() {
        let traffic = Traffic::default();
        let inside = traffic.enter("a/b/c").await;
        for (path, is_stopped) in [
            ("a/b/c", false),
            ("a/b", false),
            ("a", false),
            ("a/bc", true),
        ] {
            assert_eq!(traffic.stop(path).is_some(), is_stopped, "{path}");
        }
        drop(inside);
        let stopping = traffic.stop("a/b").unwrap();
        assert!(traffic.try_enter("a/b/c").is_none());
        assert!(traffic.try_enter("a").is_some() && traffic.try_enter("a/bc").is_some());
        let waiting = traffic.enter("a/b");
        let freeing = async {
            tokio::task::yield_now().await;
            drop(stopping);
        };
        let (entered, ()) = tokio::join!(waiting, freeing);
        drop(entered);
        assert!(traffic.stop("a").is_some());
    }

    #[test]
    fn slices_lie_in_their_parents() {
        let path = "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice";
        for (slice, whole) in [
            ("kubepods-burstable-pod1.slice", path),
            ("kubepods.slice", "kubepods.slice"),
            ("a\\x2db_c.d.slice", "a\\x2db_c.d.slice"),
            ("-.slice", ""),
        ] {
            assert_eq!(path_of(slice).unwrap(), whole, "{slice}");
        }
        let long = format!("{}.slice", "a".repeat(250));
        let deep = format!("{}a.slice", "a-".repeat(100));
        for bad in [
            "kubepods",
            "a/b.slice",
            "a--b.slice",
            "-a.slice",
            ".slice",
            "a b.slice",
            "a\n.slice",
            "a-.slice",
            "a@1.slice",
            "",
            &long,
            &deep,
        ] {
            assert!(path_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_path_that_is_no_slices_has_no_unit() {
        for (path, unit) in [
            ("a.slice/a-b.slice", Some("a-b.slice")),
            ("crisp.slice", Some("crisp.slice")),
            ("a-b.slice", None),
            ("x/a.slice", None),
            ("crisp", None),
            ("", None),
        ] {
            assert_eq!(unit_of(path), unit, "{path}");
        }
    }
}
