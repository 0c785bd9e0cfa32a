//! A container's scope: made by systemd around a keeper, delegated to Crisp.

use std::collections::BTreeMap;

use crisp_model::{Resources, cpu_weight};

/// What no weight or protection of systemd's is above; it stands for infinity.
const INFINITY: u64 = u64::MAX;

/// The scope of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope {
    path: String,
}

impl Scope {
    /// The scope of a container, below a slice's path.
    pub(super) fn in_slice(slice: &str, id: &str) -> Self {
        let path = format!("{}/crisp-{id}.scope", slice.trim_matches('/'));
        Self {
            path: path.trim_start_matches('/').to_owned(),
        }
    }

    /// The scope around a container's cgroup; `None` when Crisp made that by itself.
    pub(super) fn of(container: &str) -> Option<Self> {
        let path = container.strip_suffix("/container")?;
        let scope = Self {
            path: path.to_owned(),
        };
        let is_ours = scope.unit().starts_with("crisp-") && path.ends_with(".scope");
        is_ours.then_some(scope)
    }

    /// Its path below the cgroup root.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// Its unit's name.
    pub(super) fn unit(&self) -> &str {
        super::slice::last_part(&self.path)
    }

    /// The name of the slice that it lies in.
    pub(super) fn slice(&self) -> &str {
        match self.path.rsplit_once('/') {
            Some((slice, _)) => super::slice::last_part(slice),
            None => "-.slice",
        }
    }

    /// The id of its container.
    pub(super) fn id(&self) -> &str {
        let unit = self.unit();
        let id = unit.strip_prefix("crisp-").unwrap_or(unit);
        id.strip_suffix(".scope").unwrap_or(id)
    }

    /// The cgroup of its container.
    pub(super) fn container(&self) -> String {
        format!("{}/container", self.path)
    }

    /// The cgroup of the process that keeps it from being empty.
    pub(super) fn keeper(&self) -> String {
        format!("{}/keeper", self.path)
    }
}

/// What systemd has to know of a container's limits, under its names for them: they count among
/// siblings, and the scope is what has siblings. What is no number is left to the kernel to refuse.
pub(crate) fn weights(resources: &Resources) -> Vec<(&'static str, u64)> {
    let shares = u64::try_from(resources.cpu_shares).ok();
    let shares = shares.filter(|shares| *shares > 0);
    let mut weights: BTreeMap<_, _> = shares
        .map(|shares| ("CPUWeight", cpu_weight(shares)))
        .into_iter()
        .collect();
    for (property, file) in [
        ("CPUWeight", "cpu.weight"),
        ("IOWeight", "io.weight"),
        ("MemoryMin", "memory.min"),
        ("MemoryLow", "memory.low"),
    ] {
        let value = resources.unified.get(file);
        weights.extend(value.and_then(|text| Some((property, number(text)?))));
    }
    weights.into_iter().collect()
}

/// `100`, `default 100`, or `max`.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    match text.strip_prefix("default ").unwrap_or(text) {
        "max" => Some(INFINITY),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_known_by_its_containers_path() {
        let scope = Scope::in_slice("a.slice/a-b.slice", "77");
        let container = scope.container();
        assert_eq!(container, "a.slice/a-b.slice/crisp-77.scope/container");
        assert_eq!(Scope::of(&container), Some(scope.clone()));
        assert_eq!((scope.unit(), scope.id()), ("crisp-77.scope", "77"));
        assert_eq!(scope.slice(), "a-b.slice");
        assert_eq!(Scope::in_slice("", "7").slice(), "-.slice");
        for other in [
            "crisp/crisp-77",
            "a.slice/b.scope/container",
            "container",
            "",
        ] {
            assert_eq!(Scope::of(other), None, "{other}");
        }
    }

    #[test]
    fn weights_are_those_of_the_limits() {
        let resources = |shares, unified: &[(&str, &str)]| Resources {
            cpu_shares: shares,
            unified: unified
                .iter()
                .map(|(file, value)| ((*file).to_owned(), (*value).to_owned()))
                .collect(),
            ..Resources::default()
        };
        let table: [(Resources, &[(&str, u64)]); 5] = [
            (resources(0, &[]), &[]),
            (resources(512, &[]), &[("CPUWeight", 59)]),
            (
                resources(512, &[("cpu.weight", "7"), ("memory.low", "max")]),
                &[("CPUWeight", 7), ("MemoryLow", INFINITY)],
            ),
            (
                resources(-1, &[("io.weight", "default 50"), ("memory.min", "4096\n")]),
                &[("IOWeight", 50), ("MemoryMin", 4096)],
            ),
            (
                resources(0, &[("io.weight", "8:0 50"), ("cpu.max", "1")]),
                &[],
            ),
        ];
        for (resources, expected) in table {
            assert_eq!(weights(&resources), expected, "{resources:?}");
        }
    }
}
