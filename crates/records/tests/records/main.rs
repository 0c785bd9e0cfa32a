//! The format of records: golden journals of version 1, and random records there and back.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure is the outcome"
)]

mod any;
mod golden;
mod round_trip;
mod values;
