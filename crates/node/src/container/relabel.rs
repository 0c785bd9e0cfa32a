//! Relabelling gives a volume's files the SELinux label of the container that mounts it, where its
//! caller asks for that. The node's own directories are never relabelled: its services could not read
//! them any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path};

use crisp_model::{Field, Mount};
use crisp_spec::ResolvedMount;
use crisp_sys::selinux;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, fstat, openat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Directories of the node with all that is below them.
const WHOLE: [&str; 12] = [
    "bin", "boot", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "sbin", "sys", "usr",
];
/// Directories of the node that hold what belongs to many.
const ALONE: [&str; 5] = [
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/spool",
];
/// A path has 4,096 bytes, so whoever nests deeper than this means harm: each level takes a file.
const DEEPEST: usize = 256;

/// Why a path is not relabelled; none where it may be. The path leads through no symbolic link.
fn protected(path: &Path) -> Option<&'static str> {
    let mut below = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let Some(first) = below.next() else {
        return Some("it is the node's root");
    };
    if below.next().is_none() || ALONE.iter().any(|alone| path == Path::new(alone)) {
        return Some("it holds files of the whole node");
    }
    let is_node = WHOLE.iter().any(|whole| first == *whole);
    is_node.then_some("it lies in the node's own system")
}

/// Labels the sources of mounts for which that is asked.
pub(super) fn those_asked_for(asked: &[Mount], found: &[ResolvedMount], label: &str) -> Result<()> {
    let asked = asked.iter().filter(|mount| mount.selinux_relabel);
    let sources = asked.filter_map(|mount| {
        let mut found = found.iter();
        let found = found.find(|found| found.destination == mount.container_path);
        found.map(|found| found.source.as_path())
    });
    all(sources, label)
}

/// Labels files, or directories with all in them; nothing at all where one of them is refused.
pub(super) fn all<'a>(paths: impl Iterator<Item = &'a Path> + Clone, label: &str) -> Result<()> {
    let refuse = |why: String| Err(Error::invalid(Field::MountSource, why));
    for path in paths.clone() {
        if let Some(why) = protected(path) {
            return refuse(format!(
                "{} is not relabelled: {why}. Mount a directory below it, or do not ask for \
                 selinux_relabel",
                path.display()
            ));
        }
    }
    for path in paths {
        if let Err(error) = one(path, label) {
            return refuse(format!(
                "cannot label {} as {label}: {error}",
                path.display()
            ));
        }
    }
    Ok(())
}

fn one(path: &Path, label: &str) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let top = openat(CWD, path, flags, Mode::empty())?;
    give(&top, label, 0)
}

/// A file system that keeps no labels is passed over: the policy decides about all of it at once.
fn give(file: &OwnedFd, label: &str, depth: usize) -> io::Result<()> {
    match selinux::label(file) {
        Ok(Some(found)) if found == label => {}
        _ => match selinux::set_label(file, label) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
            set => set?,
        },
    }
    let is_dir = FileType::from_raw_mode(fstat(file)?.st_mode) == FileType::Directory;
    if is_dir {
        inside(file.as_fd(), label, depth)?;
    }
    Ok(())
}

/// Labels all in a directory. A file that is removed meanwhile needs no label, and a symbolic link that
/// takes the place of a directory is labelled itself.
fn inside(dir: BorrowedFd<'_>, label: &str, depth: usize) -> io::Result<()> {
    if depth >= DEEPEST {
        return Err(io::Error::other(format!(
            "directories are nested more than {DEEPEST} deep"
        )));
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = openat(dir, ".", flags, Mode::empty())?;
    for entry in Dir::read_from(&open)? {
        let entry = entry?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&open, entry.file_name(), flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            found => give(&found?, label, depth + 1)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    fn relabel(path: &Path, label: &str) -> std::result::Result<(), String> {
        all([path].into_iter(), label).map_err(|error| error.to_string())
    }

    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

    #[test]
    fn the_nodes_own_directories_are_never_relabelled() {
        for path in [
            "/",
            "/usr",
            "/usr/share/x",
            "/etc",
            "/etc/ssl/certs",
            "/home",
            "/root",
            "/var",
            "/tmp",
            "/run",
            "/data",
            "/var/lib",
            "/var/log",
            "/proc/self",
            "/dev/shm/x",
            "/lib64/x",
        ] {
            let refused = relabel(Path::new(path), LABEL).unwrap_err();
            let told = refused.contains(&format!("{path} is not relabelled: "));
            assert!(told && refused.contains("selinux_relabel"), "{refused}");
        }
        for path in [
            "/var/lib/kubelet/pods/x",
            "/data/x",
            "/home/me/x",
            "/srv/www",
            "/tmp/x",
        ] {
            assert_eq!(protected(Path::new(path)), None, "{path}");
        }
    }

    /// A kernel without SELinux keeps the attribute, which is all that is looked at here.
    #[test]
    fn privileged_all_of_a_volume_is_labelled_and_nothing_else() {
        if selinux::is_on() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["volume/a/b", "outside"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for name in ["volume/a/b/file", "outside/file"] {
            crisp_sys::file::write_atomic(&at(name), b"", 0o600).unwrap();
        }
        symlink(at("outside"), at("volume/link")).unwrap();
        let label = |name: &str| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            selinux::label(openat(CWD, at(name), flags, Mode::empty()).unwrap()).unwrap()
        };
        // Twice: the second finds all as it should be.
        for _ in 0..2 {
            relabel(&at("volume"), LABEL).unwrap();
            for name in [
                "volume",
                "volume/a",
                "volume/a/b",
                "volume/a/b/file",
                "volume/link",
            ] {
                assert_eq!(label(name).as_deref(), Some(LABEL), "{name}");
            }
            for name in ["outside", "outside/file"] {
                assert_eq!(label(name), None, "{name}");
            }
        }
        let both = [at("outside"), "/usr/share".into()];
        assert!(all(both.iter().map(PathBuf::as_path), LABEL).is_err());
        assert_eq!(
            label("outside"),
            None,
            "one is refused, so none is labelled"
        );
        relabel(&at("outside/file"), "other").unwrap();
        assert_eq!(
            label("outside/file").as_deref(),
            Some("other"),
            "a file alone"
        );
        assert_eq!(label("outside"), None);
        let missing = relabel(&at("missing"), LABEL).unwrap_err();
        assert!(missing.contains("missing"), "{missing}");
    }

    #[test]
    fn privileged_what_is_nested_to_harm_ends() {
        let dir = tempfile::tempdir().unwrap();
        let deep = ["d"; DEEPEST + 2].join("/");
        std::fs::create_dir_all(dir.path().join("v").join(deep)).unwrap();
        let refused = relabel(&dir.path().join("v"), LABEL);
        assert!(selinux::is_on() || refused.unwrap_err().contains("nested"));
    }
}
