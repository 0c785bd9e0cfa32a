//! A pod's task and its slow steps: what acts for a pod, while `machine` decides.
//!
//! ```text
//! task       the loop: inputs to the machine, its effects performed; new, resumed, taken up again
//! hands      what a task holds, and the effects that are performed at once
//! jobs       slow steps as workers of the task
//! create     a new pod: what it is, and its task
//! record     the pod's journal and its twin, written beside the task's thread
//! resume     what is looked up before a pod of an earlier daemon is taken up
//! boot       makes what a pod has: namespaces, holder, network, files
//! users      the namespaces of a pod that has a user namespace
//! teardown   removes all of it; the only undo that there is
//! callers    who waits for an answer
//! death      crash points, for tests
//! notes      the log of a pod's life
//! message    what callers send; mailboxes: where to; naming: what goes to the names
//! ```

mod boot;
mod callers;
pub(crate) mod create;
pub(crate) mod death;
pub(crate) mod etc_files;
mod hands;
mod jobs;
pub(crate) mod mailboxes;
pub(crate) mod message;
pub(crate) mod naming;
mod notes;
mod record;
mod resume;
mod sessions;
pub(crate) mod sysctl;
pub(crate) mod task;
pub(crate) mod teardown;
mod users;
