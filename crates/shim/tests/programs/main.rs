//! The built programs, driven as the daemon drives them, on the real kernel.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests start programs and make files as they like"
)]

mod adoption;
mod attach;
mod descriptors;
mod early;
mod ending;
mod exec;
mod guard;
mod holder;
mod keeper;
mod lab;
mod launch;
mod logging;
mod slow_directory;
