//! The CNI specification's own data: versions and results.
//!
//! Client and built-in plugin both speak it, so it knows neither.

mod result;
mod version;

pub(crate) use result::{CniInterface, CniIp, CniResult};
pub(crate) use version::Version;
