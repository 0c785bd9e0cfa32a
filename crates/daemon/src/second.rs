//! A second daemon on the directories of one that lives is told so at once. A daemon that is
//! leaving is waited for, by whoever takes its locks.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crisp_sys::{file, holder};

use crate::exit::{Exit, Fatal};

/// The engine's lock, by which a directory of an earlier daemon is known.
pub const LOCK: &str = "crispd.lock";

/// Refuses a directory that another daemon uses and goes on to use. Nothing is changed there.
///
/// # Errors
/// When there is such a daemon, with its pid.
pub fn refuse(dir: &Path) -> Result<(), Fatal> {
    holder::other(&dir.join(LOCK)).map_or(Ok(()), |pid| {
        Err(busy(&format!(
            "another crispd (process {pid}) uses {}",
            dir.display()
        )))
    })
}

/// Directories whose locks this daemon holds, and which it keeps until this is dropped: from then
/// on it is about to end, and another daemon waits for them.
#[derive(Debug)]
pub struct Stay([PathBuf; 2]);

impl Stay {
    /// Says so to others.
    pub fn at(dirs: [PathBuf; 2]) -> Self {
        let stay = Self(dirs);
        stay.tell(holder::name);
        stay
    }

    /// Best effort, on a full disk too: the lock counts.
    fn tell(&self, what: impl Fn(&File) -> io::Result<()>) {
        for dir in &self.0 {
            let told = file::open_or_make(&dir.join(LOCK)).and_then(|lock| what(&lock));
            if let Err(error) = told {
                tracing::debug!(dir = %dir.display(), %error, "others cannot know whether to wait");
            }
        }
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.tell(holder::unname);
    }
}

/// The daemon cannot start beside another.
pub fn busy(why: &str) -> Fatal {
    let reason = format!("{why}: stop it, or choose other --root, --state and --listen");
    Fatal::new(Exit::Busy, reason)
}
