//! The engine: pods and containers, decided by a pure machine and acted for by one task each.
//!
//! [`Engine`] is the only door. Behind it every pod has one task with one mailbox; what happens to
//! the pod is an input of its machine, and what the machine wants done is performed by the task.
//! After each transition the task publishes a view, which is all that List and Status ever read.
//!
//! ```text
//! engine      the door: sends messages, waits for answers; one handle for each owner of pods
//! names       one task: which pod has which name; new pods start here
//! machine/    what a pod does when something happens to it; pure
//! pod/        the task of a pod: effects performed, slow steps as workers
//! container/  slow steps of containers: make, stop, clear, change limits
//! shim/       talking with a shim, launching one, finding out about one that is gone
//! views       the published views, found by id or the beginning of one
//! port_forward  connections to ports of a pod
//! session/    processes as callers far away have them: streams, size, end
//! events      what listeners are told
//! debts       remains that nobody sees and that could not be removed yet
//! stats/      figures, read from cgroup files and netlink
//! recovery    after a start: records against what the kernel has
//! retirement  before the end: records to disk, away with what no pod uses
//! host        what this machine can do
//! figures     plain numbers about all of this, with those of the tally
//! ```
//!
//! Deliberately absent: CRI types, streaming, image pulls, any knowledge of how a process is
//! started (the shim's) or a network made (the network's).

#![forbid(unsafe_code)]

mod blocking;
mod clock;
pub mod config;
mod container;
mod debts;
mod engine;
pub mod error;
pub mod events;
pub mod exec;
mod figures;
mod handlers;
pub mod host;
mod levels;
mod machine;
mod names;
mod paths;
mod pod;
mod pool;
mod port_forward;
mod recovery;
mod reply;
mod retirement;
pub mod session;
mod shared;
mod shim;
pub mod stats;
mod tally;
mod twin;
pub mod view;
mod views;

pub use blocking::give_memory_back;
pub use config::{
    Abilities, Config, Confinement, Features, Handler, OciRuntime, Support, Timeouts,
};
pub use debts::OwedRemains;
pub use engine::Engine;
pub use error::{Code, Error, Result};
pub use events::{ContainerEvent, EventKind, Lagged, Listener, Subject};
pub use exec::ExecOutput;
pub use figures::Figures;
pub use session::{Ended, Session, Wanted};
pub use stats::{ContainerStats, LayerStats, PodStats};
pub use view::{ContainerView, PodView};
