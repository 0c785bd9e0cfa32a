//! `crisp-oci` as its callers use it: real bundles, real containers, nothing left.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    missing_docs,
    missing_debug_implementations,
    reason = "tests"
)]

mod bench;
mod bundles;
mod callers;
mod exec;
mod fields;
mod lifecycle;
mod limits;
mod listings;
mod networks;
mod roots;
mod terminals;
