//! A note beside certificates says for whom they were made, until when they hold, and which files they
//! are. It is written after them: files that were half written, or that somebody changed, do not fit it,
//! and are made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::disk::write_private;
use crate::failure::{Context as _, Result};

/// How long a certificate holds.
pub const HOLDS: Duration = Duration::from_secs(3 * 365 * 86_400);
/// A certificate that does not hold as long as this is made anew.
const RENEWED: Duration = Duration::from_secs(365 * 86_400);

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Digest of all that the certificates were made from.
    made_from: String,
    /// Seconds since 1970.
    until: u64,
    /// Digests of the files.
    files: Vec<String>,
}

/// The note of certificates in a directory, by the name that their files begin with.
#[derive(Debug)]
pub struct Issued {
    note: PathBuf,
    files: Vec<PathBuf>,
    made_from: String,
}

impl Issued {
    /// Of files that are to be made from this.
    pub fn of(dir: &Path, name: &str, files: &[&str], made_from: &[&str]) -> Self {
        Self {
            note: dir.join(format!(".{name}.issued")),
            files: files.iter().map(|file| dir.join(file)).collect(),
            made_from: digest(made_from.join("\n").as_bytes()),
        }
    }

    /// Whether they are there, whole, and hold long enough.
    pub fn is_good(&self, now: SystemTime) -> bool {
        let note = fs::read(&self.note).ok();
        let note = note.and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        note.is_some_and(|note| {
            note.made_from == self.made_from
                && note.until > seconds(now + RENEWED)
                && self.digests().is_ok_and(|files| files == note.files)
        })
    }

    /// Notes that they were made now.
    pub fn note(&self, now: SystemTime) -> Result<()> {
        let step = || format!("{}: note what was made", self.note.display());
        let note = Note {
            made_from: self.made_from.clone(),
            until: seconds(now + HOLDS),
            files: self.digests().context(step)?,
        };
        write_private(&self.note, &serde_json::to_vec(&note).context(step)?)
    }

    fn digests(&self) -> std::io::Result<Vec<String>> {
        let all = self.files.iter();
        all.map(|file| Ok(digest(&fs::read(file)?))).collect()
    }
}

fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::write;

    #[test]
    fn what_is_whole_and_holds_is_good() {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let issued =
            |made_from: &str| Issued::of(dir.path(), "a", &["a.crt", "a.key"], &[made_from]);
        let write = |name: &str, text: &[u8]| write(&dir.path().join(name), text).unwrap();
        assert!(!issued("x").is_good(now));
        write("a.crt", b"1");
        write("a.key", b"1");
        assert!(!issued("x").is_good(now), "it was not noted");
        issued("x").note(now).unwrap();
        assert!(issued("x").is_good(now));
        assert!(!issued("y").is_good(now), "it is another's");
        assert!(issued("x").is_good(now + HOLDS - RENEWED - RENEWED));
        assert!(!issued("x").is_good(now + HOLDS - RENEWED), "too old");
        write("a.crt", b"2");
        assert!(!issued("x").is_good(now), "the key is of another");
        write("a.crt", b"1");
        assert!(issued("x").is_good(now));
        write(".a.issued", b"{");
        assert!(!issued("x").is_good(now));
    }
}
