//! The CNI client: configurations, results, plugin calls, and what is kept on disk between them.

mod cache;
mod call;
mod conf;
mod exec;
mod result;
mod runtime_config;
mod watch;

pub(crate) use cache::{Cache, Found, Record};
pub(crate) use call::{Caller, Target};
pub(crate) use conf::{ConfList, Version};

pub(crate) use result::{CniInterface, CniIp, CniResult};
pub(crate) use watch::Watch;
