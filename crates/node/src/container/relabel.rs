//! Relabelling gives a volume's files the SELinux label of the container that mounts it, where its
//! caller asks for that. The node's own directories are never relabelled: its services could not read
//! them any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crisp_model::{Field, Mount};
use crisp_spec::ResolvedMount;
use crisp_sys::selinux;
use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat};
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
const MANY: &str = "it holds files of the whole node";
const SYSTEM: &str = "it lies in the node's own system";
const OURS: &str = "the engine keeps its own files there";
/// A path has 4,096 bytes, so whoever nests deeper than this means harm: each level takes a file.
const DEEPEST: usize = 256;

/// A directory by its device and inode, whatever path leads to it.
type Identity = (u64, u64);

/// The node's own directories as they are now. Links and bind mounts lead to them by other paths.
#[derive(Debug)]
pub(super) struct Protected {
    /// With all that is below them.
    whole: Vec<(Identity, &'static str)>,
    /// Alone: directories below them may be relabelled.
    alone: Vec<Identity>,
}

impl Protected {
    /// Looks at them; `ours` are those of the engine.
    pub(super) fn now(ours: &[PathBuf]) -> Self {
        let root = Path::new("/");
        let theirs = WHOLE.iter().map(|name| (root.join(name), SYSTEM));
        let ours = ours.iter().map(|path| (path.clone(), OURS));
        // A directory that is not there cannot be relabelled.
        let whole = theirs.chain(ours);
        let whole = whole.filter_map(|(path, why)| Some((identity_at(&path)?, why)));
        let first = std::fs::read_dir(root).into_iter().flatten().flatten();
        let first = first.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let alone = ALONE.iter().map(PathBuf::from).chain([root.to_owned()]);
        let alone = alone.chain(first.map(|entry| entry.path()));
        Self {
            whole: whole.collect(),
            alone: alone.filter_map(|path| identity_at(&path)).collect(),
        }
    }

    /// Why a directory is not relabelled, whatever it is called; none where it may be.
    fn is(&self, identity: Identity) -> Option<&'static str> {
        let many = || self.alone.contains(&identity).then_some(MANY);
        self.lies_in(identity).or_else(many)
    }

    /// Why nothing in a directory is relabelled; none where that may be.
    fn lies_in(&self, identity: Identity) -> Option<&'static str> {
        let mut whole = self.whole.iter();
        let found = whole.find(|(whole, _)| *whole == identity);
        found.map(|(_, why)| *why)
    }

    /// Why a path is not relabelled; none where it may be. The path leads through no symbolic link.
    fn why(&self, path: &Path) -> Option<&'static str> {
        let itself = || self.is(identity_at(path)?);
        let mut above = path.ancestors().skip(1);
        let lies = || above.find_map(|dir| self.lies_in(identity_at(dir)?));
        spelled(path).or_else(itself).or_else(lies)
    }
}

fn identity_at(path: &Path) -> Option<Identity> {
    rustix::fs::stat(path).ok().map(|found| identity(&found))
}

fn identity(found: &Stat) -> Identity {
    (found.st_dev, found.st_ino)
}

/// Why a path is not relabelled by its name alone.
fn spelled(path: &Path) -> Option<&'static str> {
    let mut below = path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    let Some(first) = below.next() else {
        return Some("it is the node's root");
    };
    if below.next().is_none() || ALONE.iter().any(|alone| path == Path::new(alone)) {
        return Some(MANY);
    }
    let is_node = WHOLE.iter().any(|whole| first == *whole);
    is_node.then_some(SYSTEM)
}

/// The sources of mounts for which relabelling is asked.
pub(super) fn asked_for(asked: &[Mount], found: &[ResolvedMount]) -> Vec<PathBuf> {
    let asked = asked.iter().filter(|mount| mount.selinux_relabel);
    let sources = asked.filter_map(|mount| {
        let mut found = found.iter();
        let found = found.find(|found| found.destination == mount.container_path);
        found.map(|found| found.source.clone())
    });
    sources.collect()
}

/// Refuses to relabel the node's own directories; changes nothing.
pub(super) fn check(paths: &[PathBuf], protected: &Protected) -> Result<()> {
    let mut refused = paths
        .iter()
        .filter_map(|path| Some((path, protected.why(path)?)));
    match refused.next() {
        None => Ok(()),
        Some((path, why)) => Err(Error::invalid(
            Field::MountSource,
            format!(
                "{} is not relabelled: {why}. Mount a directory below it, or do not ask for \
                 selinux_relabel",
                path.display()
            ),
        )),
    }
}

/// One relabelling. Its end may be a long time ahead: a volume can have millions of files.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relabelling<'a> {
    pub(super) label: &'a str,
    pub(super) protected: &'a Protected,
    /// Set when nobody wants it any more: no further file is labelled then.
    pub(super) unwanted: &'a AtomicBool,
}

impl Relabelling<'_> {
    /// Labels files, or directories with all in them.
    pub(super) fn all(self, paths: &[PathBuf]) -> Result<()> {
        for path in paths {
            if let Err(error) = self.one(path) {
                let why = format!("cannot label {} as {}: {error}", path.display(), self.label);
                return Err(Error::invalid(Field::MountSource, why));
            }
        }
        Ok(())
    }

    fn one(self, path: &Path) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = openat(CWD, path, flags, Mode::empty())?;
        self.give(&top, 0)
    }

    /// A file system that keeps no labels is passed over: the policy decides about all of it at once.
    /// A directory is looked at before it is labelled, since a mount in a volume may lead anywhere.
    fn give(self, file: &OwnedFd, depth: usize) -> io::Result<()> {
        if self.unwanted.load(Ordering::Relaxed) {
            return Err(io::Error::other("the relabelling is no longer wanted"));
        }
        let found = fstat(file)?;
        let is_dir = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let refused = || self.protected.is(identity(&found));
        if let Some(why) = is_dir.then(refused).flatten() {
            let path = std::fs::read_link(crisp_sys::rootfs::proc_path(file))?;
            let text = format!("{} in it is not relabelled: {why}", path.display());
            return Err(io::Error::other(text));
        }
        match selinux::label(file) {
            Ok(Some(found)) if found == self.label => {}
            _ => match selinux::set_label(file, self.label) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => return Ok(()),
                set => set?,
            },
        }
        if is_dir {
            self.inside(file.as_fd(), depth)?;
        }
        Ok(())
    }

    /// Labels all in a directory. A file that is removed meanwhile needs no label, and a symbolic link
    /// that takes the place of a directory is labelled itself.
    fn inside(self, dir: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
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
                found => self.give(&found?, depth + 1)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn relabel(path: &Path, label: &str) -> std::result::Result<(), String> {
        under(&Protected::now(&[]), &[path.to_owned()], label)
    }

    /// As for a container, for which all of it is checked first.
    fn under(
        protected: &Protected,
        paths: &[PathBuf],
        label: &str,
    ) -> std::result::Result<(), String> {
        let relabelling = Relabelling {
            label,
            protected,
            unwanted: &AtomicBool::new(false),
        };
        let checked = check(paths, protected);
        let done = checked.and_then(|()| relabelling.all(paths));
        done.map_err(|error| error.to_string())
    }

    fn label_of(path: &Path) -> Option<String> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        selinux::label(openat(CWD, path, flags, Mode::empty()).unwrap()).unwrap()
    }

    #[test]
    fn privileged_protected_directories_are_known_by_what_they_are() {
        if selinux::is_on() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("volume/state/x")).unwrap();
        std::fs::create_dir_all(at("other/x")).unwrap();
        let protected = Protected::now(&[at("volume/state"), at("missing")]);
        let refused = |path: &str| under(&protected, &[at(path)], LABEL).unwrap_err();
        for path in ["volume/state", "volume/state/x", "volume"] {
            assert!(refused(path).contains(OURS), "{path}");
        }
        // By another name it is the same directory.
        std::fs::rename(at("volume/state"), at("volume/elsewhere")).unwrap();
        for path in ["volume/elsewhere", "volume/elsewhere/x", "volume"] {
            let why = refused(path);
            assert!(
                why.contains(OURS) && why.contains("not relabelled"),
                "{why}"
            );
        }
        for path in ["volume/elsewhere", "volume/elsewhere/x"] {
            assert_eq!(label_of(&at(path)), None, "{path}");
        }
        under(&protected, &[at("other/x")], LABEL).unwrap();
        assert_eq!(label_of(&at("other/x")).as_deref(), Some(LABEL));
    }

    #[test]
    fn what_the_nodes_names_lead_to_is_protected() {
        let protected = Protected::now(&[]);
        for path in ["/", "/usr", "/etc", "/bin", "/var", "/var/lib"] {
            let found = identity_at(Path::new(path)).unwrap();
            assert!(protected.is(found).is_some(), "{path}");
        }
        let usr = identity_at(Path::new("/usr")).unwrap();
        assert_eq!(protected.lies_in(usr), Some(SYSTEM));
        let var = identity_at(Path::new("/var")).unwrap();
        assert_eq!(protected.lies_in(var), None);
    }

    #[test]
    fn privileged_an_unwanted_relabelling_labels_no_further_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::create_dir_all(path.join("x")).unwrap();
        let relabelling = Relabelling {
            label: LABEL,
            protected: &Protected::now(&[]),
            unwanted: &AtomicBool::new(true),
        };
        let ended = relabelling
            .all(std::slice::from_ref(&path))
            .unwrap_err()
            .to_string();
        assert!(ended.contains("no longer wanted"), "{ended}");
        assert!(label_of(&path).as_deref() != Some(LABEL));
    }

    #[test]
    fn privileged_a_check_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("volume");
        std::fs::create_dir_all(&path).unwrap();
        let before = label_of(&path);
        check(std::slice::from_ref(&path), &Protected::now(&[])).unwrap();
        assert_eq!(label_of(&path), before);
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
            assert_eq!(spelled(Path::new(path)), None, "{path}");
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
        let label = |name: &str| label_of(&at(name));
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
        assert!(under(&Protected::now(&[]), &both, LABEL).is_err());
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
