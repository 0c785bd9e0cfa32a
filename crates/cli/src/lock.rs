//! Locks by which commands wait for each other. A file is locked as long as the command runs, and names
//! its holder. It may be removed by its holder: who waited for it then locks the one that is there now.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crisp_sys::{file, holder};

use crate::disk;
use crate::failure::{Context as _, Failure, Result};

/// How long a command waits for another one to end.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long it waits without a word.
const SILENT: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(100);

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Takes the lock of a path for the change of something, and makes the directories above where they
/// are missing.
pub fn take(path: &Path, what: &str) -> Result<Lock> {
    take_within(path, what, PATIENCE)
}

fn take_within(path: &Path, what: &str, patience: Duration) -> Result<Lock> {
    let begun = Instant::now();
    let mut is_told = false;
    loop {
        if let Some(file) = disk::told(try_take(path), path, "lock")? {
            // A lock without a name holds as well.
            holder::name(&file).ok();
            return Ok(Lock { _file: file });
        }
        let who = || match holder::other(path) {
            Some(pid) => format!("process {pid} changes {what}"),
            None => format!("another `crisp cluster` changes {what}"),
        };
        if begun.elapsed() > patience {
            let text = format!("{}, and has for {} s", who(), patience.as_secs());
            return Err(Failure::new(text).remedy("end it, or wait, and try again"));
        }
        if begun.elapsed() > SILENT && !is_told {
            crate::progress::say(format_args!("crisp: {}: waiting for it", who()));
            is_told = true;
        }
        std::thread::sleep(PAUSE);
    }
}

/// The lock, where nobody else has it and it is the one that others find at this path.
fn try_take(path: &Path) -> io::Result<Option<File>> {
    file::make_public_dirs(path.parent().unwrap_or(Path::new("/")))?;
    match file::lock_exclusive(path) {
        // The directory went in this moment, with the last cluster in it.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Ok(Some(file)) if is_at(&file, path)? => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let held = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a lock that nobody holds; one that is held stays.
pub fn remove_free(path: &Path) -> Result<()> {
    let step = || format!("{}: remove it", path.display());
    if !path.exists() {
        return Ok(());
    }
    match file::lock_exclusive(path).context(step)? {
        Some(_held) => file::remove_if_there(path).context(step),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_held_is_told_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("locks/x");
        let held = take(&path, "cluster x").unwrap();
        let refused = take_within(&path, "cluster x", Duration::ZERO).unwrap_err();
        assert!(
            refused.to_string().contains("changes cluster x"),
            "{refused}"
        );
        remove_free(&path).unwrap();
        assert!(path.exists());
        drop(held);
        remove_free(&path).unwrap();
        remove_free(&path).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_that_was_removed_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let file = file::lock_exclusive(&path).unwrap().unwrap();
        assert!(is_at(&file, &path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
        let _another = File::create(&path).unwrap();
        assert!(!is_at(&file, &path).unwrap());
    }

    #[test]
    fn who_waits_while_all_goes_has_the_lock_that_others_find() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("home/lock");
        let held = take(&path, "it").unwrap();
        let second = std::thread::scope(|scope| {
            let waits = scope.spawn(|| take(&path, "it").unwrap());
            // It has opened the file that goes now.
            std::thread::sleep(PAUSE * 2);
            fs::remove_dir_all(path.parent().unwrap()).unwrap();
            drop(held);
            waits.join().unwrap()
        });
        assert!(take_within(&path, "it", Duration::ZERO).is_err());
        drop(second);
        assert!(take(&path, "it").is_ok());
    }
}
