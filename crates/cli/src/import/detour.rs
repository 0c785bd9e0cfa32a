//! Settings of a crispd about registries give way while it is to ask this program, and are their
//! owner's again afterwards. A file that gives way stays beside the other one, so that the next import
//! can put back what a killed one has left.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::disk::{make_dir, write};
use crate::failure::{Context as _, Failure, Remedy as _, Result};

/// How a file of ours begins, and one in a directory that was made for it.
const MARK: &str = "# Of `crisp import`, for the time that it takes.\n";
const MADE: &str = "# The directory as well.\n";
/// The owner's file while ours is in its place.
const KEPT: &str = "hosts.toml.before-import";
/// A directory that is about to become one of a host.
const NEW: &str = ".crisp-import";

/// Directories of hosts that lead elsewhere until it is dropped.
#[derive(Debug)]
pub struct Detour {
    dir: PathBuf,
    /// Whether it was made for this.
    is_new: bool,
    /// Keeps other imports out.
    _lock: File,
}

impl Detour {
    /// Puts back what a killed import has left, and keeps others out.
    pub fn begin(dir: &Path) -> Result<Self> {
        let step = || format!("{}: lock it", dir.display());
        let is_new = !dir.exists();
        make_dir(dir).remedy(|| {
            "run this as root; --registry-config names the directory that crispd's configuration \
             calls images.registry_config"
                .to_owned()
        })?;
        let lock = File::open(dir).context(step)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            let text = format!("{}: another import is at work there", dir.display());
            Failure::new(text).remedy("wait until it has ended")
        })?;
        put_back(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            is_new,
            _lock: lock,
        })
    }

    /// Where crispd looks for them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Has images of a host looked for where the content of a `hosts.toml` says.
    pub fn lead(&self, host: &str, content: &str) -> Result<()> {
        let text = format!("{MARK}{content}");
        let Some(place) = self.place(host) else {
            return self.lead_new(host, &format!("{MARK}{MADE}{content}"));
        };
        let (file, kept) = (place.join("hosts.toml"), place.join(KEPT));
        match fs::hard_link(&file, &kept) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            linked => linked.context(|| format!("{}: keep it aside", file.display()))?,
        }
        write(&file, text.as_bytes())
    }

    /// The directory of a host, where there is one; the first that crispd looks for.
    fn place(&self, host: &str) -> Option<PathBuf> {
        let by_port = host.rsplit_once(':');
        let by_port = by_port.map(|(name, port)| format!("{name}_{port}_"));
        let names = by_port.into_iter().chain([host.to_owned()]);
        let mut places = names.map(|name| self.dir.join(name));
        places.find(|place| place.is_dir())
    }

    /// The directory appears with its file: an empty one would be found by crispd, and be no one's.
    fn lead_new(&self, host: &str, text: &str) -> Result<()> {
        let (new, place) = (self.dir.join(NEW), self.dir.join(host));
        make_dir(&new)?;
        write(&new.join("hosts.toml"), text.as_bytes())?;
        fs::rename(&new, &place).context(|| format!("{}: make it", place.display()))
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        if let Err(failure) = put_back(&self.dir) {
            crate::progress::say(format_args!(
                "crisp: {failure}; the next `crisp import` does it again"
            ));
        }
        if self.is_new {
            // It stays where somebody has put more into it.
            fs::remove_dir(&self.dir).ok();
        }
    }
}

fn put_back(dir: &Path) -> Result<()> {
    let step = || format!("{}: put the settings of registries back", dir.display());
    crisp_sys::file::remove_tree_if_there(&dir.join(NEW)).context(step)?;
    for entry in fs::read_dir(dir).context(step)? {
        let place = entry.context(step)?.path();
        if place.is_dir() {
            put_back_one(&place).context(|| format!("{}: put it back", place.display()))?;
        }
    }
    Ok(())
}

fn put_back_one(place: &Path) -> std::io::Result<()> {
    let (file, kept) = (place.join("hosts.toml"), place.join(KEPT));
    let text = match fs::read(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        read => Some(read?),
    };
    let is_ours = |text: &Vec<u8>| text.starts_with(MARK.as_bytes());
    // Also a link that leads nowhere is one that was kept.
    let is_kept = fs::symlink_metadata(&kept).is_ok();
    match text.filter(is_ours) {
        Some(_) if is_kept => fs::rename(&kept, &file),
        Some(text) => {
            fs::remove_file(&file)?;
            match text[MARK.len()..].starts_with(MADE.as_bytes()) {
                // It stays where somebody has put more into it.
                true => fs::remove_dir(place).or_else(|error| match error.kind() {
                    ErrorKind::DirectoryNotEmpty => Ok(()),
                    _ => Err(error),
                }),
                false => Ok(()),
            }
        }
        // Ours was never written, or the owner has written or removed one meanwhile.
        None if is_kept => fs::remove_file(&kept),
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "detour_tests.rs"]
mod tests;
