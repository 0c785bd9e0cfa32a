//! The engine: pods and containers as tasks, records, recovery, events, stats.
//!
//! [`Engine`] is the only door. Behind it every pod is one task with one mailbox that owns the
//! pod's state with `&mut`; slow steps are child tasks that report back, so nothing here waits for
//! anything but its mailbox. After each transition the task publishes a snapshot, which is all
//! that List and Status ever read.
//!
//! ```text
//! engine      the door: sends messages, waits for answers
//! names       one task: which pod has which name; pods are born here
//! book        the published snapshots, found by id or the beginning of one
//! pod/        a pod's task: boot, transitions, the one teardown
//! container/  what a pod's task does for its containers: create, start, exec, stop, clear
//! host        what the machine can do, looked up once
//! cgroups/    where cgroups are, and who makes them: Crisp, or systemd
//! journal     records on disk: frames with a checksum, the last one of an entity wins
//! recovery    after a start: records against what the kernel has
//! ```
//!
//! What is absent: CRI types, streaming, image pulls, any knowledge of how a process is started
//! (the shim's) or a network made (the network's).

#![forbid(unsafe_code)]

mod book;
mod cgroups;
pub mod config;
mod container;
mod engine;
pub mod error;
pub mod events;
pub mod exec;
mod files;
pub mod host;
mod journal;
mod message;
mod names;
mod paths;
mod pod;
mod record;
mod recovery;
mod shared;
mod shim_client;
pub mod stats;
pub mod view;

pub use config::{CgroupConfig, CgroupDriver, Config, Handler, Support, Timeouts};
pub use engine::Engine;
pub use error::{Code, Error, Result};
pub use events::{ContainerEvent, EventKind};
pub use exec::ExecOutput;
pub use stats::{ContainerStats, PodStats};
pub use view::{ContainerUser, ContainerView, PodView};
