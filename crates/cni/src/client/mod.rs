//! The CNI client: configurations, plugin calls, and the records of attachments on disk.

mod cache;
mod call;
mod conf;
mod exec;
mod runtime_config;
mod watch;

pub(crate) use cache::{Cache, Found, Record};
pub(crate) use call::{Caller, Target};
pub(crate) use conf::ConfList;
pub(crate) use watch::Watch;
