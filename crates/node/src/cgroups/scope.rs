//! A container's scope: made by systemd around a keeper, delegated to Crisp.

use crisp_sys::cgroup::Cgroup;

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
/// siblings, and the scope is what has siblings.
pub(super) fn weights(container: &Cgroup) -> Vec<(&'static str, u64)> {
    let files = [
        ("CPUWeight", "cpu", "cpu.weight"),
        ("IOWeight", "io", "io.weight"),
        ("MemoryMin", "memory", "memory.min"),
        ("MemoryLow", "memory", "memory.low"),
    ];
    let read = files
        .into_iter()
        .filter_map(|(property, controller, file)| {
            let text = container.read(controller, file).ok()?;
            Some((property, number(&text)?))
        });
    read.collect()
}

/// `100`, `default 100`, or `max`.
fn number(text: &str) -> Option<u64> {
    let first = text.lines().next()?.trim();
    match first.strip_prefix("default ").unwrap_or(first) {
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
    fn weights_are_read_as_the_kernel_writes_them() {
        for (text, read) in [
            ("100\n", Some(100)),
            ("default 59\n8:0 100\n", Some(59)),
            ("max\n", Some(INFINITY)),
            ("", None),
            ("none\n", None),
        ] {
            assert_eq!(number(text), read, "{text:?}");
        }
    }
}
