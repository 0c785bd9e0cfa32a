//! The owner of a pod: the door that it was asked for through.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The front door through which a pod was asked for. Each door sees its own pods alone: a kubelet
/// removes every pod that it does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// The Kubernetes Container Runtime Interface.
    Cri,
    /// The Docker Engine API.
    Docker,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cri => "cri",
            Self::Docker => "docker",
        })
    }
}
