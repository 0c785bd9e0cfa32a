//! The pod machine: what a pod does when something happens to it. Pure.
//!
//! [`Pod::on`](pod::Pod::on) takes an [`Input`](input::Input), changes the pod, and answers a list
//! of [`Effect`](effect::Effect)s: what is to be recorded, shown, told, answered and run because
//! of it. `pod::task` performs them, in their order, and nothing else acts for a pod.
//!
//! Nothing in this folder opens, waits, spawns, logs or reads a clock: the time comes with the
//! input, callers are numbers, and processes, sockets and paths stay with the task. That is why
//! each transition is tested as a row of a table, and why a test can stop after every single
//! effect, replay the journal and see whether anything would be left behind.
//!
//! ```text
//! facts           nouns that both lists share
//! input           everything that can happen to a pod and to its containers
//! effect          everything that is to be done about it
//! pod             the pod: its phases, and the way in
//! life            its transitions: booted, stopped, torn down, removed
//! container       a container: its states
//! container_life  its transitions: started, over, cleared
//! container_create its creation
//! container_calls exec, log, limits of one that is there
//! container_stop  the steps of its stop, each one harder
//! limits          what is in force after a change of limits
//! revive          the pod that a journal tells of
//! view            what callers see of it
//! ```

pub(crate) mod container;
mod container_calls;
mod container_create;
mod container_life;
mod container_stop;
pub(crate) mod effect;
pub(crate) mod facts;
pub(crate) mod input;
mod life;
mod limits;
pub(crate) mod pod;
pub(crate) mod revive;
pub(crate) mod view;

#[cfg(test)]
pub(crate) mod tests;
