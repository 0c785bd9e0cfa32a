//! The scope of one container for a command that has no daemon: made around a process, given the
//! container's limits, stopped. Its cgroup is the container's own, as callers of runc find it; the
//! daemon's containers have one below their scope's (`scope.rs`).
//!
//! Each call waits for systemd's answer on a runtime of its own, which is gone when the call returns:
//! the caller forks afterwards, and has one thread.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Part, Result};
use crate::property::Property;
use crate::slice;
use crate::systemd::Systemd;

/// The slice of a container that names none.
const USUAL_SLICE: &str = "system.slice";
/// The longest name of a unit (systemd.unit(5)).
const LONGEST: usize = 255;

/// A container's scope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    slice: String,
    name: String,
}

impl Unit {
    /// Reads `SLICE:PREFIX:NAME`, as specs have it where systemd makes the cgroups; without it the
    /// scope is named by a prefix and an id.
    ///
    /// # Errors
    /// When it is of another form, or a part is no name.
    pub fn parse(path: &str, prefix: &str, id: &str) -> Result<Self> {
        let refuse = |why: &str| Error::Invalid {
            part: Part::Unit,
            why: format!("{path:?} {why}"),
        };
        let parts: Vec<&str> = path.split(':').collect();
        let (slice, name) = match parts[..] {
            [""] => (USUAL_SLICE, format!("{prefix}-{id}.scope")),
            [slice, prefix, name] => (slice, format!("{prefix}-{name}.scope")),
            _ => {
                return Err(refuse(
                    "is not of the form SLICE:PREFIX:NAME, as with systemd",
                ));
            }
        };
        let slice = if slice.is_empty() { USUAL_SLICE } else { slice };
        slice::path_of(slice).map_err(|why| refuse(&format!("names a slice: {why}")))?;
        let fits = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        if name.ends_with(".slice.scope") {
            return Err(refuse(
                "names a slice for the container itself, which has no process",
            ));
        }
        if name.len() > LONGEST || !name.chars().all(fits) {
            return Err(refuse(&format!(
                "leads to {name:?}, which is no name of a unit"
            )));
        }
        Ok(Self {
            slice: slice.to_owned(),
            name,
        })
    }

    /// Its cgroup, below the root.
    #[must_use]
    pub fn cgroup(&self) -> String {
        let slice = slice::path_of(&self.slice).unwrap_or_default();
        format!("{slice}/{}", self.name)
            .trim_start_matches('/')
            .to_owned()
    }

    /// Has systemd make it around a process, with these properties over the usual ones.
    ///
    /// # Errors
    /// When systemd does not run here, or refuses: one of this name is there already.
    pub fn make(&self, process: i32, properties: Vec<Property>) -> Result<()> {
        if !Path::new("/run/systemd/system").is_dir() {
            let text = format!("make {}: systemd does not run this machine", self.name);
            return Err(Error::Unavailable(text));
        }
        let systemd = Systemd::default();
        wait(systemd.start_unit_around(&self.name, &self.slice, (process, properties)))
    }

    /// Tells systemd of changed limits; a scope that is gone is fine.
    ///
    /// # Errors
    /// When systemd refuses or does not answer.
    pub fn set(&self, properties: Vec<Property>) -> Result<()> {
        if properties.is_empty() {
            return Ok(());
        }
        let systemd = Systemd::default();
        wait(systemd.set_properties(&self.name, properties))
    }

    /// Has systemd forget it; a scope that is gone is fine.
    ///
    /// # Errors
    /// When systemd does not answer.
    pub fn stop(&self) -> Result<()> {
        let systemd = Systemd::default();
        wait(systemd.stop(&self.name))
    }
}

fn wait(call: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.context(|| "wait for systemd")?.block_on(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_named_as_specs_have_it() {
        for (path, cgroup) in [
            ("", Some("system.slice/crisp-oci-7.scope")),
            (
                "a-b.slice:docker:x",
                Some("a.slice/a-b.slice/docker-x.scope"),
            ),
            (":docker:x", Some("system.slice/docker-x.scope")),
            ("-.slice:p:x", Some("p-x.scope")),
            ("/a/b", None),
            ("a.slice:x", None),
            ("a:p:x", None),
            ("a.slice:p:x/y", None),
            ("a.slice:p:b.slice", None),
            ("a.slice:p:x y", None),
        ] {
            let unit = Unit::parse(path, "crisp-oci", "7").ok();
            let found = unit.map(|unit| unit.cgroup());
            assert_eq!(found.as_deref(), cgroup, "{path:?}");
        }
    }
}
