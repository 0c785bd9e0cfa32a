//! Laws for any bytes that a table of mounts may hold, whose names anybody on the
//! machine may choose: the fuzzer tries bytes of its own, the tests those of `fuzz/corpus`.

use std::os::unix::ffi::OsStrExt;

use crate::mountinfo;

/// A mount is a line, and no name in it is longer than the line.
pub fn mount_table(data: &[u8]) {
    let lines = data.split(|byte| *byte == b'\n').count();
    let mounts: Vec<_> = mountinfo::parse_all(data).collect();
    assert!(mounts.len() <= lines);
    for mount in mounts {
        let length = mount.target.as_os_str().as_bytes().len();
        assert!(length <= data.len(), "{} bytes of a name", length);
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("mount_table", mount_table)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
