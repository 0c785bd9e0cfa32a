//! Small files of the kernel, read with one buffer: no look at their size, which they do not tell,
//! and no allocation a file.

use std::io;
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::cgroup::Cgroup;

/// Room for a read: most files have less than this, and end with the first one.
const PIECE: usize = 8 << 10;

/// The files of one cgroup.
#[derive(Debug)]
pub(super) struct Files<'a> {
    cgroup: &'a Cgroup,
    text: Vec<u8>,
}

impl<'a> Files<'a> {
    pub(super) fn new(cgroup: &'a Cgroup) -> Self {
        let text = Vec::with_capacity(PIECE);
        Self { cgroup, text }
    }

    pub(super) fn cgroup(&self) -> &'a Cgroup {
        self.cgroup
    }

    /// The text of a controller's file.
    ///
    /// # Errors
    /// `Unsupported` when the machine lacks the controller, else those of reading.
    pub(super) fn read(&mut self, controller: &str, file: &str) -> io::Result<&str> {
        let dir = self.cgroup.dir(controller);
        self.read_at(&dir.ok_or(io::ErrorKind::Unsupported)?.join(file))
    }

    /// The text of any file.
    ///
    /// # Errors
    /// Those of reading, and when it is no text.
    pub(super) fn read_at(&mut self, path: &Path) -> io::Result<&str> {
        self.text.clear();
        let file = openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        loop {
            self.text.reserve(PIECE);
            if rustix::io::read(&file, spare_capacity(&mut self.text))? == 0 {
                break;
            }
        }
        let text = std::str::from_utf8(&self.text);
        text.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// The number in a file, when there is one.
    pub(super) fn number(&mut self, controller: &str, file: &str) -> Option<u64> {
        self.read(controller, file).ok().and_then(number)
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// Lines of a name and a number.
pub(super) fn fields(text: &str) -> impl Iterator<Item = (&str, u64)> {
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(name, value)| Some((name, number(value)?)))
}

/// The number of one name.
pub(super) fn field(text: &str, wanted: &str) -> Option<u64> {
    let mut fields = fields(text);
    fields
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn fields_are_found_by_whole_name() {
        let text = "inactive_file_x 1\ninactive_file 42\nodd\nodder x\n";
        assert_eq!(field(text, "inactive_file"), Some(42));
        assert_eq!(field(text, "absent"), None);
        assert_eq!(fields(text).count(), 2);
    }

    #[test]
    fn files_longer_than_a_read_are_read_whole() {
        let long = "x".repeat(3 * PIECE + 1);
        let file = rustix::fs::memfd_create("long", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        assert_eq!(rustix::io::write(&file, long.as_bytes()), Ok(long.len()));
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let layout = std::sync::Arc::new(crate::cgroup::Layout::detect().unwrap());
        let cgroup = Cgroup::new(layout, "none");
        let mut files = Files::new(&cgroup);
        assert_eq!(files.read_at(Path::new(&path)).unwrap(), long);
        assert!(files.read_at(Path::new("/proc/self/none")).is_err());
    }
}
