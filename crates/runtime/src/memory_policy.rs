//! From which nodes of memory (NUMA) a container's processes get theirs: `linux.memoryPolicy` as
//! set_mempolicy(2) takes it. Checked whole in the parent, told to the kernel in the child.

use crisp_sys::schedule::{self, NODES};
use oci_spec::runtime::{Linux, LinuxMemoryPolicy, MemoryPolicyFlagType, MemoryPolicyModeType};

use crate::error::{Context, Error, Result};
use crate::number_list::list;

/// Each mode with its name and number (mempolicy.h).
const MODES: [(MemoryPolicyModeType, &str, u32); 7] = [
    (MemoryPolicyModeType::MpolDefault, "MPOL_DEFAULT", 0),
    (MemoryPolicyModeType::MpolPreferred, "MPOL_PREFERRED", 1),
    (MemoryPolicyModeType::MpolBind, "MPOL_BIND", 2),
    (MemoryPolicyModeType::MpolInterleave, "MPOL_INTERLEAVE", 3),
    (MemoryPolicyModeType::MpolLocal, "MPOL_LOCAL", 4),
    (
        MemoryPolicyModeType::MpolPreferredMany,
        "MPOL_PREFERRED_MANY",
        5,
    ),
    (
        MemoryPolicyModeType::MpolWeightedInterleave,
        "MPOL_WEIGHTED_INTERLEAVE",
        6,
    ),
];

/// Each flag with its name and bit.
const FLAGS: [(MemoryPolicyFlagType, &str, u32); 3] = [
    (
        MemoryPolicyFlagType::MpolFNumaBalancing,
        "MPOL_F_NUMA_BALANCING",
        1 << 13,
    ),
    (
        MemoryPolicyFlagType::MpolFRelativeNodes,
        "MPOL_F_RELATIVE_NODES",
        1 << 14,
    ),
    (
        MemoryPolicyFlagType::MpolFStaticNodes,
        "MPOL_F_STATIC_NODES",
        1 << 15,
    ),
];

/// A policy that can be tried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    name: &'static str,
    mode: u32,
    nodes: Vec<u32>,
}

impl MemoryPolicy {
    /// The policy that a container asks for.
    pub(crate) fn of(linux: Option<&Linux>) -> Result<Option<Self>> {
        let asked = linux.and_then(|linux| linux.memory_policy().as_ref());
        asked.map(Self::read).transpose()
    }

    fn read(asked: &LinuxMemoryPolicy) -> Result<Self> {
        use MemoryPolicyModeType as Mode;
        const FIELD: &str = "linux.memoryPolicy.nodes";
        let nodes = asked.nodes().as_deref().unwrap_or_default();
        let nodes = list(FIELD, "nodes", nodes, NODES)?;
        let mode = asked.mode();
        let known = MODES.iter().find(|(known, ..)| *known == mode);
        let (_, name, number) = known.ok_or_else(|| {
            Error::invalid("linux.memoryPolicy.mode", format!("{mode} is not known"))
        })?;
        let refuse = |why: &str| Err(Error::invalid(FIELD, format!("{name} {why}")));
        match mode {
            Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
                return refuse("goes without nodes");
            }
            Mode::MpolDefault | Mode::MpolLocal | Mode::MpolPreferred => {}
            _ if nodes.is_empty() => return refuse("needs a node"),
            _ => {}
        }
        let flags = asked.flags().iter().flatten();
        let bits = |flag| FLAGS.iter().find(|(known, ..)| known == flag);
        let flags = flags.filter_map(bits).fold(0, |all, (.., bit)| all | bit);
        Ok(Self {
            name,
            mode: number | flags,
            nodes,
        })
    }

    /// In the child, once it is in its cgroup, which bounds the nodes.
    pub(crate) fn enter(&self) -> Result<()> {
        schedule::set_memory_policy(self.mode, &self.nodes).context(|| {
            let nodes = &self.nodes;
            format!(
                "set the memory policy {} for the nodes {nodes:?}",
                self.name
            )
        })
    }
}

/// Names of the modes that are done.
pub(crate) fn modes() -> Vec<&'static str> {
    MODES.iter().map(|(_, name, _)| *name).collect()
}

/// Names of the flags that are done.
pub(crate) fn flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(_, name, _)| *name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(policy: Value) -> std::result::Result<MemoryPolicy, String> {
        let asked = serde_json::from_value(policy).map_err(|error| error.to_string())?;
        MemoryPolicy::read(&asked).map_err(|error| error.to_string())
    }

    #[test]
    fn modes_and_flags_are_one_number() {
        let flags = ["MPOL_F_STATIC_NODES", "MPOL_F_NUMA_BALANCING"];
        let policy = json!({ "mode": "MPOL_BIND", "nodes": "0-1,3", "flags": flags });
        let policy = read(policy).unwrap();
        assert_eq!(policy.mode, 2 | 1 << 15 | 1 << 13);
        assert_eq!(policy.nodes, [0, 1, 3]);
        for (number, name) in modes().into_iter().enumerate() {
            let nodes = match name {
                "MPOL_DEFAULT" | "MPOL_LOCAL" => "",
                _ => "0",
            };
            let policy = read(json!({ "mode": name, "nodes": nodes })).unwrap();
            assert_eq!(usize::try_from(policy.mode).unwrap(), number, "{name}");
        }
    }

    #[test]
    fn nodes_go_with_their_mode() {
        for (mode, nodes, good) in [
            ("MPOL_DEFAULT", "", true),
            ("MPOL_DEFAULT", "0", false),
            ("MPOL_LOCAL", "0", false),
            ("MPOL_PREFERRED", "", true),
            ("MPOL_BIND", "", false),
            ("MPOL_INTERLEAVE", "", false),
            ("MPOL_WEIGHTED_INTERLEAVE", "", false),
            ("MPOL_PREFERRED_MANY", "", false),
            ("MPOL_BIND", "1-0", false),
            ("MPOL_BIND", "1024", false),
            ("MPOL_BIND", "x", false),
            ("MPOL_TOMORROW", "0", false),
        ] {
            let policy = read(json!({ "mode": mode, "nodes": nodes }));
            assert_eq!(policy.is_ok(), good, "{mode} {nodes}: {policy:?}");
        }
    }
}
