//! The id of this boot of the machine, by which a record tells whether its processes can be alive.

use std::io;

/// The kernel's random id of this boot: what was alive under another one is dead.
///
/// # Errors
/// When procfs is not mounted.
pub fn boot_id() -> io::Result<String> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(text.trim().to_owned())
}
