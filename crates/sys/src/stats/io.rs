//! Transfers of a cgroup by disk, and the name of a disk by its number.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor, statvfs};

use super::files::{Files, number};

/// Transfers of one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceIo {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Its node, `/dev/sda`, or its numbers when the kernel names none.
    pub device: String,
    /// Bytes by operation, as version 1 names them: `Read`, `Write`, …
    pub bytes: Vec<(String, u64)>,
    /// Transfers by operation.
    pub transfers: Vec<(String, u64)>,
}

impl DeviceIo {
    fn new(major: u32, minor: u32) -> Self {
        Self {
            device: device(major, minor),
            major,
            minor,
            ..Self::default()
        }
    }
}

/// A file system, by a file in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The node of its device, or its numbers when it lies on none that has a node.
    pub device: String,
    /// Its size, bytes.
    pub bytes: u64,
    /// Its inodes.
    pub inodes: u64,
    /// Inodes that are free.
    pub inodes_free: u64,
}

/// Looks at the file system below a path.
///
/// # Errors
/// Those of stat(2) and statvfs(3).
pub fn disk(path: &Path) -> std::io::Result<Disk> {
    let (found, disk) = (fs::metadata(path)?.dev(), statvfs(path)?);
    Ok(Disk {
        device: device(major(found), minor(found)),
        bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
        inodes: disk.f_files,
        inodes_free: disk.f_ffree,
    })
}

fn device(major: u32, minor: u32) -> String {
    let numbers = format!("{major}:{minor}");
    let link = fs::read_link(format!("/sys/dev/block/{numbers}")).unwrap_or_default();
    let name = link.file_name().and_then(|name| name.to_str());
    name.map_or(numbers, |name| format!("/dev/{name}"))
}

pub(super) fn devices_v1(files: &mut Files<'_>) -> Vec<DeviceIo> {
    let mut all = Vec::new();
    let mut read = |name, to: fn(&mut DeviceIo) -> &mut Vec<(String, u64)>| {
        let text = files.read("blkio", name).unwrap_or_default();
        for (numbers, operation, value) in text.lines().filter_map(line_v1) {
            to(of(&mut all, numbers)).push((operation, value));
        }
    };
    read("blkio.throttle.io_service_bytes_recursive", |io| {
        &mut io.bytes
    });
    read("blkio.throttle.io_serviced_recursive", |io| {
        &mut io.transfers
    });
    all
}

/// `8:0 Read 4096`; the last line is a sum of all disks.
fn line_v1(line: &str) -> Option<((u32, u32), String, u64)> {
    let mut words = line.split_whitespace();
    let numbers = numbers(words.next()?)?;
    let operation = words.next()?.to_owned();
    Some((numbers, operation, number(words.next()?)?))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0`
pub(super) fn devices_v2(files: &mut Files<'_>) -> Vec<DeviceIo> {
    let text = files.read("io", "io.stat").unwrap_or_default();
    let each = text.lines().filter_map(|line| {
        let (numbers_, rest) = line.split_once(' ')?;
        let (major, minor) = numbers(numbers_)?;
        let mut io = DeviceIo::new(major, minor);
        for (name, value) in rest.split(' ').filter_map(|pair| pair.split_once('=')) {
            let (to, operation) = match name {
                "rbytes" => (&mut io.bytes, "Read"),
                "wbytes" => (&mut io.bytes, "Write"),
                "dbytes" => (&mut io.bytes, "Discard"),
                "rios" => (&mut io.transfers, "Read"),
                "wios" => (&mut io.transfers, "Write"),
                "dios" => (&mut io.transfers, "Discard"),
                _ => continue,
            };
            to.push((operation.to_owned(), number(value)?));
        }
        Some(io)
    });
    each.collect()
}

fn numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The disk of these numbers, new when it is the first time that they are met.
fn of(all: &mut Vec<DeviceIo>, (major, minor): (u32, u32)) -> &mut DeviceIo {
    let is_it = |io: &DeviceIo| (io.major, io.minor) == (major, minor);
    let at = all.iter().position(is_it).unwrap_or_else(|| {
        all.push(DeviceIo::new(major, minor));
        all.len() - 1
    });
    &mut all[at]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_and_odd_lines_are_no_disk() {
        let wanted = ((8, 16), "Read".to_owned(), 4096);
        assert_eq!(line_v1("8:16 Read 4096"), Some(wanted));
        for odd in ["Total 4096", "", "8 Read 1", "8:0 Read x", "8:0"] {
            assert_eq!(line_v1(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_disk_has_a_size() {
        let root = disk(Path::new("/")).unwrap();
        assert!(root.bytes > 0, "{root:?}");
    }
}
