//! A container's scope: a cgroup that systemd makes around a keeper and delegates to Crisp. Names
//! and paths of scopes, and the properties that systemd has to know of a container's limits. Pure:
//! no call to systemd is made here.

use std::collections::BTreeMap;

use crisp_model::{CgroupPath, Resources, cpu_weight};

use crate::slice;

/// systemd's word for "infinity", and for a weight that is not set.
const INFINITY: u64 = u64::MAX;

/// The scope of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    path: CgroupPath,
}

impl Scope {
    /// The scope of a container below its pod's cgroup; `None` when that is no slice: a pod from
    /// before a change of the driver.
    pub(crate) fn in_parent(parent: &CgroupPath, id: &str) -> Option<Self> {
        let is_slice = parent.is_root() || slice::unit_of(parent.as_str()).is_some();
        let path = parent.child(&format!("crisp-{id}.scope"));
        is_slice.then_some(Self { path })
    }

    /// The scope around a container's cgroup; `None` when Crisp made that by itself.
    pub(crate) fn of(container: &CgroupPath) -> Option<Self> {
        let path = container
            .parent()
            .filter(|_| container.name() == "container")?;
        let scope = Self { path };
        let is_ours = scope.unit().starts_with("crisp-") && scope.unit().ends_with(".scope");
        is_ours.then_some(scope)
    }

    /// Its path below the cgroup root.
    pub(crate) fn path(&self) -> &CgroupPath {
        &self.path
    }

    /// Its unit's name.
    pub(crate) fn unit(&self) -> &str {
        self.path.name()
    }

    /// The name of the slice that it lies in.
    pub(crate) fn slice(&self) -> &str {
        let slice = self.path.as_str().rsplit_once('/');
        slice.map_or("-.slice", |(slice, _)| slice::last_part(slice))
    }

    /// The id of its container.
    pub(crate) fn id(&self) -> &str {
        let unit = self.unit();
        let id = unit.strip_prefix("crisp-").unwrap_or(unit);
        id.strip_suffix(".scope").unwrap_or(id)
    }

    /// The cgroup of its container.
    pub(crate) fn container(&self) -> CgroupPath {
        self.path.child("container")
    }

    /// The cgroup of the process that keeps it from being empty.
    pub(crate) fn keeper(&self) -> CgroupPath {
        self.path.child("keeper")
    }
}

/// Properties of a unit, under systemd's names for them.
pub(crate) type Weights = BTreeMap<&'static str, u64>;

/// Each property with the cgroup file that it stands for and its value when it is not set.
const PROPERTIES: [(&str, &str, u64); 4] = [
    ("CPUWeight", "cpu.weight", INFINITY),
    ("IOWeight", "io.weight", INFINITY),
    ("MemoryMin", "memory.min", 0),
    ("MemoryLow", "memory.low", 0),
];

/// The properties that a container's limits give its scope. Weights and protections count among
/// siblings, and it is the scope that has siblings. A value that is no number is left out: the
/// kernel refuses it when the runtime writes it.
pub(crate) fn weights(resources: &Resources) -> Weights {
    let mut weights = Weights::new();
    let shares = resources.cpu_shares.map(u64::try_from);
    if let Some(Ok(shares)) = shares {
        weights.insert("CPUWeight", cpu_weight(shares));
    }
    let unified = |file: &str| resources.unified.get(file).and_then(|text| number(text));
    for (property, file, _) in PROPERTIES {
        weights.extend(unified(file).map(|value| (property, value)));
    }
    // systemd's weight "idle".
    if unified("cpu.idle") == Some(1) {
        weights.insert("CPUWeight", 0);
    }
    weights
}

/// The properties to set so that new limits count in place of old ones.
pub(crate) fn changes(old: &Weights, new: &Weights) -> Weights {
    let each = PROPERTIES.iter().map(|(property, _, unset)| {
        let value = |weights: &Weights| weights.get(property).copied().unwrap_or(*unset);
        (*property, value(old), value(new))
    });
    each.filter(|(_, old, new)| old != new)
        .map(|(property, _, new)| (property, new))
        .collect()
}

/// `100`, `default 100`, `max`, or with a suffix as the kernel takes it for memory (memparse).
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let text = text.strip_prefix("default ").unwrap_or(text);
    if text == "max" {
        return Some(INFINITY);
    }
    let suffix = text.chars().next_back()?.to_ascii_uppercase();
    let power = "KMGTPE".find(suffix);
    let digits = power.map_or(text, |_| &text[..text.len() - 1]);
    let factor = 1_u64 << power.map_or(0, |power| 10 * (power + 1));
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_known_by_its_containers_path() {
        let path = |text| CgroupPath::parse(text).unwrap();
        let scope = Scope::in_parent(&path("a.slice/a-b.slice"), "77").unwrap();
        let container = scope.container();
        let expected = "a.slice/a-b.slice/crisp-77.scope/container";
        assert_eq!(container.as_str(), expected);
        assert_eq!(Scope::of(&container), Some(scope.clone()));
        assert_eq!((scope.unit(), scope.id()), ("crisp-77.scope", "77"));
        assert_eq!(scope.slice(), "a-b.slice");
        let of_root = Scope::in_parent(&path(""), "7").unwrap();
        assert_eq!(of_root.slice(), "-.slice");
        assert_eq!(Scope::in_parent(&path("crisp"), "7"), None);
        for other in [
            "crisp/crisp-77",
            "a.slice/b.scope/container",
            "container",
            "",
        ] {
            assert_eq!(Scope::of(&path(other)), None, "{other}");
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
        let table: [(Resources, &[(&'static str, u64)]); 6] = [
            (resources(None, &[]), &[]),
            (resources(Some(512), &[]), &[("CPUWeight", 59)]),
            (
                resources(Some(512), &[("cpu.weight", "7"), ("memory.low", "max")]),
                &[("CPUWeight", 7), ("MemoryLow", INFINITY)],
            ),
            (
                resources(
                    Some(-1),
                    &[("io.weight", "default 50"), ("memory.min", "4k\n")],
                ),
                &[("IOWeight", 50), ("MemoryMin", 4096)],
            ),
            (
                resources(Some(512), &[("cpu.idle", "1"), ("memory.low", "5G")]),
                &[("CPUWeight", 0), ("MemoryLow", 5 << 30)],
            ),
            (
                resources(
                    None,
                    &[
                        ("io.weight", "8:0 50"),
                        ("memory.low", "é"),
                        ("memory.min", ""),
                    ],
                ),
                &[],
            ),
        ];
        for (resources, expected) in table {
            let expected: Weights = expected.iter().copied().collect();
            assert_eq!(weights(&resources), expected, "{resources:?}");
        }
    }

    #[test]
    fn only_what_changes_is_set() {
        let of = |each: &[(&'static str, u64)]| each.iter().copied().collect::<Weights>();
        let cpu = of(&[("CPUWeight", 59)]);
        let both = of(&[("CPUWeight", 59), ("MemoryLow", 7)]);
        assert_eq!(changes(&cpu, &cpu), of(&[]));
        assert_eq!(changes(&cpu, &both), of(&[("MemoryLow", 7)]));
        assert_eq!(changes(&both, &cpu), of(&[("MemoryLow", 0)]));
        assert_eq!(changes(&cpu, &of(&[])), of(&[("CPUWeight", INFINITY)]));
    }
}
