//! The harness of the end-to-end tests: daemons, registries, images and the independent checker.
//!
//! It sees what a user sees: built binaries, their sockets, and the kernel. The test
//! machine is one for all, so a [`Node`] holds a lock: one daemon under test at a time.
//!
//! ```text
//! tools      where the programs are that a test needs
//! netns      the network namespace that a daemon lives in, and a neighbour to call it from
//! image/     makes images from Debian's busybox and pushes them to a registry
//! registry   Debian's docker-registry on loopback
//! fake_registry  one that says what a test wants it to say
//! node       a daemon with its own root, state and registry; stopped, killed, started again
//! clock_speed  of processors, for kubelets
//! emulated   whether processors are, and how much longer all takes then
//! cluster    a cluster by `crisp cluster` with all that it left behind in the end
//! containerd_node  a node with containerd in the place of its crispd
//! moving     a node of it that moves from containerd to Crisp and back
//! crictl     runs crictl against an endpoint
//! crictl_files  the files that crictl reads pods and containers from
//! forwarding crictl port-forward, left running
//! streams    other clients of streams
//! terminal   a terminal with a program at it
//! cri        calls a node by gRPC
//! raw        calls of a client that sends anything, or leaves half-way
//! configs    pods and containers as tests want them
//! owners     finds shims and holders among the processes
//! patience   waits for conditions, not for times
//! cgroups    where a container's cgroup is
//! debris     what a node leaves whose daemon cannot be started
//! mounts     a test whose mounts are its own
//! bait       what an attack would change
//! checker/   an own look at kernel and disk, before and after
//! suite/     Kubernetes' own suites: their images, their run, how their specs ended
//! trial      the frame of a test: a node, a look before, the test, a look after
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::missing_panics_doc,
    reason = "a harness of tests: what goes wrong is a panic that says where"
)]

pub mod bait;
pub mod cgroups;
pub mod checker;
pub mod clock_speed;
pub mod cluster;
pub mod configs;
pub mod containerd_node;
pub mod cri;
pub mod crictl;
pub mod crictl_files;
mod debris;
pub mod emulated;
pub mod fake_registry;
pub mod forwarding;
pub mod image;
pub mod mounts;
pub mod moving;
pub mod netns;
pub mod node;
pub mod owners;
pub mod patience;
pub mod raw;
pub mod registry;
#[path = "../../crates/registry/tests/protocol/served.rs"]
mod served;
pub mod streams;
pub mod suite;
pub mod terminal;
pub mod tools;
pub mod trial;

pub use bait::Watched;
pub use configs::{container, pod};
pub use cri::{Cri, Events};
pub use mounts::in_own_mounts;
pub use node::{Network, Node, Options};
pub use patience::{eventually, still};
pub use trial::{in_pod, trial, trial_with};
