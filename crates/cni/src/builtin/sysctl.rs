//! Network sysctls: the files below `/proc/sys/net` of the calling thread's network namespace.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use crate::error::{Context, Result};

/// Writes a sysctl unless it has the value already.
pub(crate) fn set_sysctl(path: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(path);
    let current =
        fs::read_to_string(&path).context(|| format!("read sysctl {}", path.display()))?;
    if current.trim() == value {
        return Ok(());
    }
    OpenOptions::new()
        .write(true)
        .open(&path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .context(|| format!("write {value:?} to sysctl {}", path.display()))
}

/// Whether the kernel was built, and booted, with IPv6.
pub(crate) fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}
