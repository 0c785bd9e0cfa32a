//! The machine against a model of the world: what exists, what runs, what is written down.

mod callers;
mod interleavings;
mod prefixes;
pub(crate) mod sample;
mod table;
mod world;
