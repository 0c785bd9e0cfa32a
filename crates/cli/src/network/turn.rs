//! Homes choose their ranges one after another: what one has chosen is seen by others once its bridge is
//! there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::failure::{Context as _, Result};
use crate::lock::{self, Lock};

/// A directory in which root alone can make files: no other user holds anybody up.
const DIR: &str = "/run/crisp-clusters";
/// The network of this program; each has ranges of its own.
const NETWORK: &str = "/proc/self/ns/net";

/// The turn of one home in this machine's network, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    path: PathBuf,
    _lock: Lock,
}

impl Turn {
    /// Waits for it.
    pub fn take() -> Result<Self> {
        let network =
            fs::metadata(NETWORK).context(|| "network of the machine: find it".to_owned());
        Self::at(Path::new(DIR).join(format!("ranges-{}.lock", network?.ino())))
    }

    fn at(path: PathBuf) -> Result<Self> {
        let lock = lock::take(&path, "the ranges of clusters on this machine")?;
        Ok(Self { path, _lock: lock })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // While it is held: a home that waits for this file takes another one then.
        fs::remove_file(&self.path).ok();
        // The note of the machine's settings may be there.
        if let Some(dir) = self.path.parent() {
            fs::remove_dir(dir).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_home_at_a_time_has_its_turn_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/ranges-1.lock");
        let first = Turn::at(path.clone()).unwrap();
        let is_free = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| {
                let second = Turn::at(path.clone()).unwrap();
                assert!(is_free.load(Ordering::SeqCst), "two have it");
                second
            });
            std::thread::sleep(Duration::from_millis(150));
            is_free.store(true, Ordering::SeqCst);
            drop(first);
            drop(waits.join().unwrap());
        });
        assert!(!dir.path().join("run").exists());
    }
}
