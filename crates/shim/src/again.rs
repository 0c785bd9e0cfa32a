//! The parts of a container's spec that every further process in it needs. The worker that starts
//! the container writes them down for the shim, so that an exec neither parses the whole
//! `config.json` nor compiles the seccomp filter a second time.

use std::path::Path;

use crisp_runtime::Filter;
use oci_spec::runtime::{Process, Spec};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// More than this is not kept in a shim's memory, nor fits it into a worker's report: environments
/// may be megabytes long.
const MAX_KEPT: usize = 24 * 1024;

/// The process that others are modelled on, and the filter that they get.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Again {
    /// The container's own process.
    pub process: Process,
    /// Its compiled seccomp filter.
    pub filter: Option<Filter>,
}

impl Again {
    /// Takes them from a spec, and compiles the filter.
    pub(crate) fn of(spec: &Spec, id: &str, bundle: &Path) -> Result<Self> {
        Ok(Self {
            process: spec.process().clone().unwrap_or_default(),
            filter: Filter::of(spec, id, bundle)?,
        })
    }

    /// For the shim to keep; `None` when it is too long, and is taken from the spec each time.
    pub(crate) fn write_down(process: &Process, filter: Option<&Filter>) -> Option<String> {
        let text = serde_json::to_string(&Borrowed { process, filter }).ok()?;
        (text.len() <= MAX_KEPT).then_some(text)
    }

    /// Reads what was written down.
    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// The same, borrowed.
#[derive(Serialize)]
struct Borrowed<'a> {
    process: &'a Process,
    filter: Option<&'a Filter>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        let seccomp = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        });
        serde_json::from_value(serde_json::json!({
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {
                "cwd": "/", "user": {"uid": 7, "gid": 8}, "args": ["sh"], "env": ["A=b"],
                "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 4}],
            },
            "linux": {"seccomp": seccomp},
        }))
        .unwrap()
    }

    #[test]
    fn what_was_written_down_is_what_the_spec_says() {
        let said = Again::of(&spec(), "one", Path::new("/")).unwrap();
        assert!(said.filter.is_some());
        let text = Again::write_down(&said.process, said.filter.as_ref()).unwrap();
        assert_eq!(Again::read(&text), Some(said));
    }

    #[test]
    fn a_long_environment_is_not_kept() {
        let mut said = Again::of(&spec(), "one", Path::new("/")).unwrap();
        let long = vec!["LONG=".to_owned() + &"x".repeat(MAX_KEPT)];
        said.process.set_env(Some(long));
        assert_eq!(Again::write_down(&said.process, None), None);
    }
}
