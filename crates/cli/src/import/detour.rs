//! Settings of a crispd about registries give way while it is to ask this program, and are their
//! owner's again afterwards. A file that gives way stays beside the other one, so that the next import
//! can put back what a killed one has left.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::disk::make_dir;
use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::{CERTIFICATE, Way};

/// How a file of ours begins, and one in a directory that was made for it.
const MARK: &str = "# Of `crisp import`, for the time that it takes.\n";
const MADE: &str = "# The directory as well.\n";
/// The owner's file while ours is in its place.
const KEPT: &str = "hosts.toml.before-import";
/// A directory that is about to become one of a host.
const NEW: &str = ".crisp-import";

/// Whose settings are in the directories of hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settings {
    Ours,
    Owners,
}

/// Directories of hosts that lead elsewhere until it is dropped.
#[derive(Debug)]
pub struct Detour {
    dir: PathBuf,
    /// Whether it was made for this.
    is_new: bool,
    settings: Settings,
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
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => {
                let text = format!("{}: another import is at work there", dir.display());
                return Err(Failure::new(text).remedy("wait until it has ended"));
            }
            locked => locked.context(step)?,
        }
        put_back(dir)?;
        Ok(Self {
            dir: dir.to_owned(),
            is_new,
            settings: Settings::Ours,
            _lock: lock,
        })
    }

    /// Where crispd looks for them.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Gives all back to its owner, and fails where that cannot be done.
    pub fn end(mut self) -> Result<()> {
        self.settings = Settings::Owners;
        self.leave()
            .remedy(|| "the next `crisp import` does it again".to_owned())
    }

    fn leave(&self) -> Result<()> {
        let outcome = put_back(&self.dir);
        if self.is_new {
            // It stays where somebody has put more into it.
            fs::remove_dir(&self.dir).ok();
        }
        outcome
    }

    /// Has images of a host looked for at a registry of ours.
    pub fn lead(&self, host: &str, way: &Way) -> Result<()> {
        let Some(place) = self.place(host) else {
            return self.lead_new(host, &marked(way, &format!("{MARK}{MADE}")));
        };
        let (file, kept) = (place.join("hosts.toml"), place.join(KEPT));
        match fs::hard_link(&file, &kept) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            linked => linked.context(|| format!("{}: keep it aside", file.display()))?,
        }
        marked(way, MARK).write(&place)
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
    fn lead_new(&self, host: &str, way: &Way) -> Result<()> {
        let (new, place) = (self.dir.join(NEW), self.dir.join(host));
        way.write(&new)?;
        fs::rename(&new, &place).context(|| format!("{}: make it", place.display()))
    }
}

/// A way whose `hosts.toml` says that it is of an import.
fn marked(way: &Way, mark: &str) -> Way {
    Way {
        hosts: format!("{mark}{}", way.hosts),
        ..way.clone()
    }
}

impl Drop for Detour {
    fn drop(&mut self) {
        if self.settings == Settings::Owners {
            return;
        }
        if let Err(failure) = self.leave() {
            crate::progress::say(format_args!(
                "crisp: {failure}; the next `crisp import` does it again"
            ));
        }
    }
}

/// Puts back what an import has left. Hosts do not wait for one that cannot be put back, which is told in the
/// end.
fn put_back(dir: &Path) -> Result<()> {
    let step = || format!("{}: put the settings of registries back", dir.display());
    let mut outcome = crisp_sys::file::remove_tree_if_there(&dir.join(NEW)).context(step);
    for place in crate::disk::entries(dir)? {
        if place.is_dir() {
            let one = put_back_one(&place);
            let one = one.context(|| format!("{}: put its settings back", place.display()));
            outcome = outcome.and(one);
        }
    }
    outcome
}

fn put_back_one(place: &Path) -> io::Result<()> {
    let (file, kept) = (place.join("hosts.toml"), place.join(KEPT));
    // Also a link that leads nowhere is one that was kept.
    let is_kept = fs::symlink_metadata(&kept).is_ok();
    match beginning(&file) {
        Ok(text) if text.starts_with(MARK.as_bytes()) => {
            if text[MARK.len()..].starts_with(MADE.as_bytes()) && has_ours_alone(place)? {
                return remove_whole(place);
            }
            match is_kept {
                true => fs::rename(&kept, &file)?,
                false => fs::remove_file(&file)?,
            }
        }
        // Ours was never written, or the owner has written or removed one meanwhile.
        Ok(_) if is_kept => fs::remove_file(&kept)?,
        Err(error) if is_kept => return Err(error),
        // Nothing of ours was here, and faults in their place are the owner's.
        Ok(_) | Err(_) => {}
    }
    // Settings that need it are gone.
    crisp_sys::file::remove_if_there(&place.join(CERTIFICATE))
}

/// Whether nobody has put more into a directory that was made for an import.
fn has_ours_alone(place: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(place)? {
        let name = entry?.file_name();
        if name != "hosts.toml" && name != CERTIFICATE {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes a host's directory at once: an empty one would hide the owner's `_default`.
fn remove_whole(place: &Path) -> io::Result<()> {
    let goes = place.with_file_name(NEW);
    fs::rename(place, &goes)?;
    crisp_sys::file::remove_tree_if_there(&goes)
}

/// The first bytes of a file, by which ours are known; none of anything else.
fn beginning(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // To open a pipe would be to wait for a writer.
    if fs::metadata(file).is_ok_and(|there| there.is_file()) {
        let length = MARK.len() + MADE.len();
        let file = File::open(file)?;
        file.take(length as u64).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
#[path = "detour_tests.rs"]
mod tests;
