//! Which boot of the machine this is.

use std::io;

/// The kernel's random id of this boot: what was alive under another one is dead.
///
/// # Errors
/// When procfs is not mounted.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}
