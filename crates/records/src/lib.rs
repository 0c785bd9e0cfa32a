//! Records: what is on disk about each pod and its containers, so that a daemon that starts finds
//! what the last one had made.
//!
//! A *journal* is one file per pod; its frames hold *entries*, of which the last about one thing
//! wins. The types of this crate are what the engine works with. The written form is
//! separate from them: `v1` has its own type for every object of the JSON and converts both ways.
//! Both conversions destructure their source completely, so a new field of a live type fails to
//! compile until somebody has decided how it is written. The golden journals in `tests/v1` hold the
//! format: a change that reads or writes one of them differently fails a test.
//!
//! # Which change needs a new version
//! Each frame names its version. A reader refuses frames of a later version ([`Damage::Newer`]),
//! and the daemon does not start: it would act on half of what it knows.
//!
//! - **A new optional field** needs no new version. It is left out when it is empty, a reader that
//!   does not know it ignores it, and one that does takes its absence for "empty". The test for
//!   whether a field may come in this way: a daemon that was downgraded still stops and removes the
//!   pod completely although it does not see the field. It loses the field when it shortens the
//!   journal.
//! - **Anything else needs a new version**: a new kind of entry, a new variant of any enum (an
//!   older reader refuses either as [`Damage::Content`]), a new meaning of a field, a new required
//!   field, or an optional one that fails the test above, such as something on the node that only
//!   the record names.
//!
//! A reader reads its own version and all earlier ones. Names on disk are in snake_case; empty and
//! default values are left out. Nothing here decides what a record means for a pod's life, and
//! nothing looks at the machine.

#![forbid(unsafe_code)]

mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod journal;
mod record;
mod v1;

pub use frame::Frame;
pub use journal::{Damage, Journal, read};
pub use record::{
    ContainerRecord, ContainerState, Entry, MadeRecord, PodProgress, PodRecord, PodState, Replay,
};
