//! Limits: merging what is asked with what is in force, and the bundle's spec.

use std::path::Path;

use crisp_model::Resources;
use crisp_sys::file;
use oci_spec::runtime::{LinuxResources, Spec};

use crate::error::{Error, Result};
use crate::shared::Shared;

/// No spec of ours is longer.
const MAX_SPEC: u64 = 8 << 20;

/// A change of limits of a container that runs.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) cgroup_path: String,
    pub(crate) old: Resources,
    pub(crate) new: Resources,
}

impl Change {
    /// Puts all of it in force, or nothing: what counts among siblings first, since whoever has to
    /// be asked for that may not answer.
    pub(crate) async fn put_in_force(
        &self,
        shared: &Shared,
        order: impl Future<Output = Result<()>>,
    ) -> Result<()> {
        let Self {
            cgroup_path,
            old,
            new,
        } = self;
        shared.cgroups.weigh(cgroup_path, old, new).await?;
        let ordered = order.await;
        if ordered.is_err()
            && let Err(error) = shared.cgroups.weigh(cgroup_path, new, old).await
        {
            tracing::warn!(cgroup_path, %error, "the weights of refused limits stay in force");
        }
        ordered
    }
}

/// What is in force after `asked`: 0 and empty leave what was.
pub(crate) fn merge(old: &Resources, asked: &Resources) -> Resources {
    let number = |old: i64, new: i64| if new == 0 { old } else { new };
    let text = |old: &str, new: &str| if new.is_empty() { old } else { new }.to_owned();
    let mut merged = Resources {
        cpu_period: number(old.cpu_period, asked.cpu_period),
        cpu_quota: number(old.cpu_quota, asked.cpu_quota),
        cpu_shares: number(old.cpu_shares, asked.cpu_shares),
        memory_limit: number(old.memory_limit, asked.memory_limit),
        memory_swap_limit: number(old.memory_swap_limit, asked.memory_swap_limit),
        oom_score_adj: number(old.oom_score_adj, asked.oom_score_adj),
        cpuset_cpus: text(&old.cpuset_cpus, &asked.cpuset_cpus),
        cpuset_mems: text(&old.cpuset_mems, &asked.cpuset_mems),
        hugepage_limits: old.hugepage_limits.clone(),
        unified: old.unified.clone(),
    };
    merged.hugepage_limits.extend(asked.hugepage_limits.clone());
    merged.unified.extend(asked.unified.clone());
    merged
}

/// Limits in the words of the OCI spec.
pub(crate) fn to_oci(resources: &Resources, v2: bool) -> Result<LinuxResources> {
    crisp_spec::linux_resources(resources, v2).map_err(super::create::spec_error)
}

/// Reads the spec of a bundle.
pub(crate) fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let step = || format!("read {}", path.display());
    let bytes = file::read_bounded(&path, MAX_SPEC).map_err(Error::step(step()))?;
    serde_json::from_slice(&bytes).map_err(Error::step(step()))
}

/// Writes the spec of a bundle.
pub(crate) fn write_spec(bundle: &Path, spec: &Spec) -> Result<()> {
    let path = bundle.join("config.json");
    let step = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(spec).map_err(Error::step(step()))?;
    file::write_atomic(&path, &bytes, 0o600).map_err(Error::step(step()))
}

/// Changes the limits of a container that is not started yet.
pub(crate) fn rewrite(bundle: &Path, limits: LinuxResources) -> Result<()> {
    let mut spec = read_spec(bundle)?;
    let mut linux = spec.linux().clone().unwrap_or_default();
    let mut limits = limits;
    // Device rules are no limits: they stay.
    let devices = linux.resources().as_ref().and_then(|r| r.devices().clone());
    limits.set_devices(devices);
    linux.set_resources(Some(limits));
    spec.set_linux(Some(linux));
    write_spec(bundle, &spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_stays() {
        let old = Resources {
            cpu_shares: 100,
            memory_limit: 1 << 20,
            cpuset_cpus: "0".into(),
            unified: [("memory.high".to_owned(), "1".to_owned())].into(),
            ..Resources::default()
        };
        let asked = Resources {
            memory_limit: 2 << 20,
            unified: [("memory.min".to_owned(), "2".to_owned())].into(),
            ..Resources::default()
        };
        let merged = merge(&old, &asked);
        assert_eq!((merged.cpu_shares, merged.memory_limit), (100, 2 << 20));
        assert_eq!(merged.cpuset_cpus, "0");
        assert_eq!(merged.unified.len(), 2);
    }
}
