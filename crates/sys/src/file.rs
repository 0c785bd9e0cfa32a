//! Files that are whole or absent, reads with a bound, locks.

use std::ffi::{CStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{
    FallocateFlags, FlockOperation, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, flock,
    memfd_create,
};

/// A name for a file that takes the place of `path` once it is written. Two writers of one file do
/// not meet in it but by a chance of one in 2^32, and then one of them fails.
fn beside(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    let [a, b, c, d, ..] = crate::rand::entropy32()?;
    temporary.push(format!(".{a:02x}{b:02x}{c:02x}{d:02x}.tmp"));
    Ok(path.with_file_name(temporary))
}

/// Replaces a file as a whole; readers see the old content or the new. Not flushed to disk.
///
/// # Errors
/// The errors of creating, writing and renaming.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_finished(path, bytes, mode, |_| Ok(()))
}

/// As [`write_atomic`], and flushed to disk with the file's name: after a power cut the file is the old one or the
/// new one, and never empty.
///
/// # Errors
/// The errors of [`write_atomic`] and of fsync.
pub fn write_durable(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_finished(path, bytes, mode, File::sync_all)?;
    sync_dir(path.parent().ok_or(io::ErrorKind::InvalidInput)?)
}

/// As [`write_atomic`], for a file that needs more than content and mode before it has its name, such
/// as an owner or a label.
///
/// # Errors
/// The errors of creating, writing, `finish` and renaming.
pub fn write_finished(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    finish: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    match write_once(path, bytes, mode, &finish) {
        // A sweep met the new file in the moment before it was locked.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            write_once(path, bytes, mode, &finish)
        }
        outcome => outcome,
    }
}

fn write_once(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    finish: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let temporary = beside(path)?;
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&temporary)?;
        // Tells a sweep that the writer lives; a file system without locks is not swept.
        flock(&file, FlockOperation::NonBlockingLockExclusive).ok();
        file.write_all(bytes)?;
        finish(&file)?;
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        // The error of the write is the one to tell; the file may not even be there.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Writes a file that nobody looks for before it is whole, such as a part of something that is being
/// made: that saves a rename, for which a disk's journal is written. A file that has its name already
/// is replaced as by [`write_finished`].
///
/// # Errors
/// The errors of creating, writing and `finish`; the file is not there then.
pub fn write_new(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    finish: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let made = options.write(true).create_new(true).mode(mode).open(path);
    let mut file = match made {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return write_finished(path, bytes, mode, finish);
        }
        made => made?,
    };
    let written = file.write_all(bytes).and_then(|()| finish(&file));
    if written.is_err() {
        // The error of the write is the one to tell.
        drop(fs::remove_file(path));
    }
    written
}

/// Removes what killed processes were writing into a directory with [`write_atomic`], and nothing
/// that a living one is writing; a directory that is missing is fine.
///
/// # Errors
/// The errors of readdir, open and unlink.
pub fn sweep_unfinished(dir: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if is_temporary(entry.file_name().as_encoded_bytes()) && entry.file_type()?.is_file() {
            sweep_one(&entry.path())?;
        }
    }
    Ok(())
}

fn sweep_one(path: &Path) -> io::Result<()> {
    let file = match File::open(path) {
        // It has its name by now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => remove_if_there(path),
        Err(_a_writer_has_it) => Ok(()),
    }
}

/// Whether a name is of the form that [`beside`] makes.
fn is_temporary(name: &[u8]) -> bool {
    let inner = name
        .strip_prefix(b".")
        .and_then(|name| name.strip_suffix(b".tmp"));
    inner
        .and_then(|inner| inner.split_last_chunk::<9>())
        .is_some_and(|(of, [dot, digits @ ..])| {
            !of.is_empty() && *dot == b'.' && digits.iter().all(u8::is_ascii_hexdigit)
        })
}

/// Flushes a directory's entries to disk.
///
/// # Errors
/// The errors of open and fsync.
pub fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Flushes the whole file system that the path is on.
///
/// # Errors
/// The errors of open and syncfs.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(path)?)?)
}

/// Makes a directory and its parents, mode 0700; one that is there already is fine.
///
/// # Errors
/// The errors of mkdir.
pub fn make_private_dirs(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

/// Makes a directory and its missing parents, mode 0755 whatever the umask; one that is there
/// already is left as it is.
///
/// # Errors
/// The errors of mkdir and chmod; `AlreadyExists` for what is there and is no directory, such as a
/// symbolic link to nothing.
pub fn make_public_dirs(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        make_public_dirs(parent)?;
    }
    match fs::create_dir(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(0o755)),
        // Made by somebody else meanwhile.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads at most `max` bytes; a longer source is an error, so that nobody can fill our memory.
///
/// # Errors
/// `FileTooLarge` beyond `max`, else those of reading.
pub fn read_all_bounded(reader: impl Read, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = reader.take(max.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > max {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than the {max} bytes that are accepted here"),
        ));
    }
    Ok(bytes)
}

/// A file in memory that nobody can change any more, to be handed to another process.
///
/// # Errors
/// When memory or descriptors run out.
pub fn sealed(name: &CStr, bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know the flag; later ones may insist on it (vm.memfd_noexec).
    let made = memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| memfd_create(name, flags))?;
    let mut file = File::from(made);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// Reads a file of at most `max` bytes.
///
/// # Errors
/// `FileTooLarge` beyond `max`, else those of opening and reading.
pub fn read_bounded(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    read_all_bounded(File::open(path)?, max)
}

/// Reserves disk space, so that later writes within it succeed on a full disk. File systems
/// without fallocate(2) are left as they are.
///
/// # Errors
/// When there is no space.
pub fn preallocate(file: impl AsFd, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes a file of `bytes` zeros whose space is reserved: a slot that one write fills later.
///
/// # Errors
/// The errors of creating and writing.
pub fn make_slot(path: &Path, bytes: usize) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all_at(&vec![0; bytes], 0)
}

/// Fills a slot with one write.
///
/// # Errors
/// The errors of opening and writing; a short write is an error.
pub fn fill_slot(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all_at(bytes, 0)
}

/// Takes an exclusive lock on a file, made if missing; `None` when somebody else holds it.
///
/// The lock lasts as long as the returned file and vanishes with the process. An empty directory in
/// the file's place goes: it holds nothing, and would end every start of the daemon.
///
/// # Errors
/// The errors of opening and locking.
pub fn lock_exclusive(path: &Path) -> io::Result<Option<File>> {
    let file = match open_or_make(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            fs::remove_dir(path)?;
            open_or_make(path)?
        }
        opened => opened?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Opens a file for writing as it is, or makes an empty one for its owner alone.
///
/// # Errors
/// `open(2)`.
pub fn open_or_make(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
}

/// Removes a file; one that is not there is fine. A directory in its place goes too, or a disk that
/// was repaired would keep what the name belongs to from ever being removed.
///
/// # Errors
/// The errors of unlink, but for `NotFound`.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => remove_tree_if_there(path),
        removed => ignore_missing(removed),
    }
}

/// Removes a directory tree; one that is not there is fine.
///
/// # Errors
/// The errors of reading and removing, but for `NotFound` of the tree itself.
pub fn remove_tree_if_there(path: &Path) -> io::Result<()> {
    ignore_missing(fs::remove_dir_all(path))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("crisp-sys-{name}-{}", std::process::id()));
        make_private_dirs(&dir).unwrap();
        dir
    }

    #[test]
    fn public_directories_are_readable_and_links_to_nothing_are_left() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = scratch("public");
        let path = dir.join("a/b");
        make_public_dirs(&path).unwrap();
        make_public_dirs(&path).unwrap();
        for made in [dir.join("a"), path] {
            assert_eq!(made.metadata().unwrap().permissions().mode() & 0o777, 0o755);
        }
        symlink("nowhere", dir.join("link")).unwrap();
        for refused in ["link", "link/below"] {
            let error = make_public_dirs(&dir.join(refused)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "{refused}");
        }
        assert!(!dir.join("nowhere").exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn new_files_are_whole_or_not_there() {
        let dir = scratch("new");
        let path = dir.join("file");
        let no_luck = |_: &File| Err(io::ErrorKind::Unsupported.into());
        write_new(&path, b"one", 0o600, no_luck).unwrap_err();
        assert!(!path.exists());
        for content in ["one", "two"] {
            write_new(&path, content.as_bytes(), 0o600, |_| Ok(())).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        write_new(&path, b"three", 0o600, no_luck).unwrap_err();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two");
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn atomic_writes_replace_and_leave_nothing_else() {
        let dir = scratch("atomic");
        let path = dir.join("file");
        for write in [write_atomic, write_durable] {
            for content in ["one", "two"] {
                write(&path, content.as_bytes(), 0o600).unwrap();
                assert_eq!(fs::read_to_string(&path).unwrap(), content);
            }
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn files_of_killed_writers_are_swept() {
        let dir = scratch("sweep");
        sweep_unfinished(&dir.join("missing")).unwrap();
        let left = beside(&dir.join("file")).unwrap();
        let others = [
            ".file.tmp",
            ".00000000.tmp",
            ".file.0000000g.tmp",
            "file.00000000.tmp",
        ];
        let others = others.map(|name| dir.join(name));
        for path in others.iter().chain([&left, &dir.join("file")]) {
            fs::File::create(path).unwrap();
        }
        let writer = fs::File::open(&left).unwrap();
        flock(&writer, FlockOperation::LockExclusive).unwrap();
        sweep_unfinished(&dir).unwrap();
        assert!(left.exists(), "its writer lives");
        drop(writer);
        sweep_unfinished(&dir).unwrap();
        assert!(!left.exists());
        assert!(
            others
                .iter()
                .chain([&dir.join("file")])
                .all(|path| path.exists())
        );
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn reads_are_bounded() {
        let dir = scratch("bounded");
        let path = dir.join("file");
        write_atomic(&path, &[7; 100], 0o600).unwrap();
        assert_eq!(read_bounded(&path, 100).unwrap().len(), 100);
        let error = read_bounded(&path, 99).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn whatever_has_a_files_name_is_removed() {
        let dir = scratch("remove");
        let path = dir.join("file");
        remove_if_there(&path).unwrap();
        fs::File::create(&path).unwrap();
        remove_if_there(&path).unwrap();
        make_private_dirs(&path.join("below")).unwrap();
        remove_if_there(&path).unwrap();
        assert!(!path.exists());
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_lock_has_one_holder() {
        let dir = scratch("lock");
        let path = dir.join("lock");
        let held = lock_exclusive(&path).unwrap();
        assert!(held.is_some());
        assert!(lock_exclusive(&path).unwrap().is_none());
        drop(held);
        assert!(lock_exclusive(&path).unwrap().is_some());
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(lock_exclusive(&path).unwrap().is_some());
        fs::remove_dir_all(&dir).unwrap();
    }
}
