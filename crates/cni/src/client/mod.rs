//! The CNI client: configurations, plugin calls, and the records of attachments on disk.

mod cache;
mod call;
mod complaint;
mod conf;
mod exec;
mod group;
mod orphans;
mod runtime_config;
mod target;
mod watch;

#[cfg(any(test, fuzzing))]
pub(crate) use cache::parse as parse_record;
pub(crate) use cache::{Cache, Found, Record};
pub(crate) use call::{Caller, NotAdded};
#[cfg(any(test, fuzzing))]
pub(crate) use complaint::Complaint;
pub(crate) use conf::ConfList;
pub(crate) use runtime_config::unasked;
pub(crate) use target::Target;
pub(crate) use watch::{Watch, not_ready};
