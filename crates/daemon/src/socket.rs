//! The CRI socket: mode 0600, in a directory that only root enters when we make it. A socket that a
//! living daemon serves is never taken over.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_sys::{file, holder};

use crate::exit::{Context as _, Exit, Fatal};
use crate::second;

/// A socket that this daemon alone serves.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: UnixListener,
    /// Held as long as the socket: without it two daemons that start at once would both find a dead
    /// socket and take it.
    _lock: File,
}

impl Socket {
    /// Takes the socket at `path`.
    ///
    /// # Errors
    /// When a daemon serves it, something else stands there, or it cannot be made.
    pub fn take(path: &Path) -> Result<Self, Fatal> {
        let listen = || format!("listen on {}", path.display());
        make_parent(path).context(Exit::CannotCreate, || {
            format!("make the directory of {}", path.display())
        })?;
        let lock = lock(path)?;
        clear(path)?;
        // A client must not connect between bind and chmod, so the name appears only afterwards.
        let fresh = beside(path, "new");
        remove(&fresh).context(Exit::CannotCreate, || {
            format!("replace {}", fresh.display())
        })?;
        let listener = UnixListener::bind(&fresh).context(Exit::CannotCreate, listen)?;
        fs::set_permissions(&fresh, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&fresh, path))
            .context(Exit::CannotCreate, listen)?;
        listener
            .set_nonblocking(true)
            .context(Exit::CannotCreate, listen)?;
        Ok(Self {
            path: path.to_owned(),
            listener,
            _lock: lock,
        })
    }

    /// The listening socket for the server.
    ///
    /// # Errors
    /// The errors of dup(2).
    pub fn listener(&self) -> io::Result<UnixListener> {
        self.listener.try_clone()
    }
}

impl Drop for Socket {
    /// Removes the name, so that clients fail at once instead of waiting.
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Makes missing directories for root alone; directories that exist keep their mode.
fn make_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(parent)
}

/// A child of a killed daemon may hold the lock for a moment; wait this long for it.
const LOCK_WITHIN: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

fn lock(path: &Path) -> Result<File, Fatal> {
    let name = beside(path, "lock");
    let step = || format!("lock {}", name.display());
    // A child that a daemon forked before it was killed holds its locks until it executes the shim.
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        if let Some(lock) = file::lock_exclusive(&name).context(Exit::CannotCreate, step)? {
            // Best effort, on a full disk too: the lock counts.
            holder::name(&lock).ok();
            return Ok(lock);
        }
        if let Some(pid) = holder::other(&name) {
            return Err(busy(path, &format!(" (process {pid})")));
        }
        if Instant::now() > deadline {
            return Err(busy(path, ""));
        }
        std::thread::sleep(LOCK_PAUSE);
    }
}

fn busy(path: &Path, which: &str) -> Fatal {
    second::busy(&format!("another daemon{which} serves {}", path.display()))
}

/// Makes sure that no daemon serves `path` and that it is a socket, which we may replace.
fn clear(path: &Path) -> Result<(), Fatal> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        other => other,
    };
    if !there.is_ok_and(|meta| meta.file_type().is_socket()) {
        let reason = format!("{} is there and is no socket: remove it", path.display());
        return Err(Fatal::new(Exit::CannotCreate, reason));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // An error such as a full backlog is a sign of a living daemon as well.
        Ok(_) | Err(_) => Err(busy(path, "")),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_socket_is_private_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/crisp.sock");
        let socket = Socket::take(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert!(UnixStream::connect(&path).is_ok());
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn a_directory_in_the_place_of_the_lock_gives_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crisp.sock");
        fs::create_dir(beside(&path, "lock")).unwrap();
        let ours = Socket::take(&path).unwrap();
        assert!(beside(&path, "lock").is_file());
        assert_eq!(Socket::take(&path).unwrap_err().exit, Exit::Busy);
        drop(ours);
    }

    #[test]
    fn a_live_socket_is_not_taken_and_a_dead_one_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crisp.sock");
        let ours = Socket::take(&path).unwrap();
        assert_eq!(Socket::take(&path).unwrap_err().exit, Exit::Busy);
        drop(ours);
        let theirs = UnixListener::bind(&path).unwrap();
        assert_eq!(Socket::take(&path).unwrap_err().exit, Exit::Busy);
        assert!(UnixStream::connect(&path).is_ok(), "it was left alone");
        drop(theirs);
        assert!(path.exists(), "a daemon that was killed leaves its socket");
        assert!(Socket::take(&path).is_ok());
    }

    #[test]
    fn what_is_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("crisp.sock");
        File::create(&path).unwrap();
        let fatal = Socket::take(&path).unwrap_err();
        assert_eq!(fatal.exit, Exit::CannotCreate);
        assert!(
            fatal.reason.contains("no socket") && path.exists(),
            "{fatal}"
        );
    }
}
