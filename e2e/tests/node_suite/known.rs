//! Specs that do not pass, each with the reason. A listed spec that passes all the same is told; a spec
//! that is not listed has to pass.

use crisp_e2e::suite::Known;

/// All of them.
pub(crate) const KNOWN: [Known; 3] = [
    (
        "A restartable init container has its image updated during pod termination",
        "it deletes its pod as soon as that runs, and TERM may come before the shell of the last container has \
     its trap: the first process of a namespace takes none without one, and the spec waits for less than \
     the grace period. Most specs beside it have a hook that waits for the shell. It is so with containerd too",
    ),
    (
        "ContainerMetrics [LinuxOnly]",
        "it looks at cAdvisor's series, and leaves itself out where the kubelet has its figures from CRI",
    ),
    (
        "when the runtime does not support recursive read-only mounts",
        "it leaves itself out where the runtime does",
    ),
];
