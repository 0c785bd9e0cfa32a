//! Devices of the host that a container gets: those asked for, or all when it is privileged.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use crisp_model::{ContainerConfig, Device, Field};
use crisp_spec::{DeviceKind, ResolvedDevice};
use rustix::fs::{major, minor};

use crate::error::{Error, Result};

/// Below `/dev`, what is a file system of each container's own.
const OWN: [&str; 5] = ["pts", "shm", "fd", "mqueue", "console"];

/// Nodes that every container has anyway.
const USUAL: [&str; 7] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx"];

/// How deep directories of devices are searched.
const DEPTH: usize = 8;

/// Finds the numbers of every device. Blocks.
pub(crate) fn resolve(config: &ContainerConfig) -> Result<Vec<ResolvedDevice>> {
    let mut found = Vec::new();
    if config.security.privileged {
        // A node that vanishes while we look is none of ours.
        drop(walk(
            Path::new("/dev"),
            Path::new("/dev"),
            "rwm",
            DEPTH,
            &mut found,
        ));
        found.retain(|device| !is_own(&device.path));
    }
    for device in &config.devices {
        let path = &device.container_path;
        found.retain(|known| known.path != *path);
        let before = found.len();
        resolve_one(device, &mut found).map_err(|error| {
            let why = format!("cannot use {}: {error}", device.host_path.display());
            Error::invalid(Field::DeviceSource, why)
        })?;
        if found.len() == before {
            let why = format!("{} is not a device", device.host_path.display());
            return Err(Error::invalid(Field::DeviceSource, why));
        }
    }
    Ok(found)
}

fn is_own(path: &Path) -> bool {
    let below = path.strip_prefix("/dev").ok();
    let first = below.and_then(|below| below.components().next());
    let name = first.map(|first| first.as_os_str());
    name.is_some_and(|name| OWN.iter().chain(&USUAL).any(|own| name == *own))
}

fn resolve_one(device: &Device, found: &mut Vec<ResolvedDevice>) -> io::Result<()> {
    // The host's names may be symbolic links (/dev/disk/by-id/…).
    let source = device.host_path.canonicalize()?;
    let metadata = fs::metadata(&source)?;
    if metadata.is_dir() {
        return walk(
            &source,
            &device.container_path,
            &device.permissions,
            DEPTH,
            found,
        );
    }
    let path = device.container_path.clone();
    found.extend(node((&source, &metadata), path, &device.permissions));
    Ok(())
}

/// All device nodes below a directory; symbolic links are not followed.
fn walk(
    dir: &Path,
    shown: &Path,
    permissions: &str,
    depth: usize,
    found: &mut Vec<ResolvedDevice>,
) -> io::Result<()> {
    if depth == 0 {
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let shown = shown.join(entry.file_name());
        // It may have vanished since.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        if metadata.is_dir() && !is_own(&entry.path()) {
            walk(&entry.path(), &shown, permissions, depth - 1, found)?;
        } else {
            found.extend(node((&entry.path(), &metadata), shown, permissions));
        }
    }
    Ok(())
}

/// `None` for what is not a device node.
pub(super) fn node(
    (source, metadata): (&Path, &Metadata),
    path: PathBuf,
    permissions: &str,
) -> Option<ResolvedDevice> {
    let kind = if metadata.file_type().is_char_device() {
        DeviceKind::Char
    } else if metadata.file_type().is_block_device() {
        DeviceKind::Block
    } else {
        return None;
    };
    let number = metadata.rdev();
    Some(ResolvedDevice {
        path,
        source: source.to_owned(),
        kind,
        major: i64::from(major(number)),
        minor: i64::from(minor(number)),
        mode: metadata.mode(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        permissions: permissions.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_directories_of_nodes_are_found() {
        let device = |host: &str, container: &str| Device {
            host_path: host.into(),
            container_path: container.into(),
            permissions: "rw".into(),
        };
        let mut found = Vec::new();
        resolve_one(&device("/dev/null", "/dev/nothing"), &mut found).unwrap();
        let null = &found[0];
        assert_eq!(
            (null.major, null.minor, null.kind),
            (1, 3, DeviceKind::Char)
        );
        assert_eq!(null.path, Path::new("/dev/nothing"));
        assert_eq!(null.source, Path::new("/dev/null"));
        assert!(resolve_one(&device("/dev/absent", "/dev/x"), &mut found).is_err());
        found.clear();
        resolve_one(&device("/etc/hosts", "/dev/x"), &mut found).unwrap();
        assert!(found.is_empty());
    }

    #[test]
    fn what_each_container_has_of_its_own_is_not_the_hosts() {
        for own in ["/dev/pts/0", "/dev/shm/x", "/dev/null", "/dev/console"] {
            assert!(is_own(Path::new(own)), "{own}");
        }
        for host in ["/dev/fuse", "/dev/net/tun", "/dev"] {
            assert!(!is_own(Path::new(host)), "{host}");
        }
    }
}
