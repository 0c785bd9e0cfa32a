//! The directories of spec files, and the devices that are found in them.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crisp_sys::file;

use crate::document::{Document, Edits};
use crate::name::Name;
use crate::{Error, Result};

/// No vendor writes a larger file.
const MAX_FILE: u64 = 1 << 20;
/// No directory has more files: one for each claim of a device on the node.
const MAX_FILES: usize = 2048;
/// All files of one look together, bytes.
const MAX_ALL: usize = 32 << 20;

/// Directories of spec files, the last one first in rank.
#[derive(Debug)]
pub struct Library {
    dirs: Vec<PathBuf>,
    /// The faults that were told already, by file.
    told: Mutex<BTreeMap<PathBuf, String>>,
}

/// All files of one look.
#[derive(Default)]
struct Shelf {
    /// With the rank of its directory.
    files: Vec<(usize, PathBuf, Document)>,
    broken: BTreeMap<PathBuf, String>,
    bytes: usize,
}

impl Library {
    /// A library in these directories, the later of which win.
    #[must_use]
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            told: Mutex::default(),
        }
    }

    /// The directories.
    #[must_use]
    pub fn dirs(&self) -> &[PathBuf] {
        &self.dirs
    }

    /// Reads the directories, and finds what the devices need: for each spec file the edits for all
    /// of its devices, before those of the first one. Blocks.
    ///
    /// # Errors
    /// When a device is not there or is there twice, or a directory cannot be read.
    pub fn resolve(&self, names: &[Name]) -> Result<Edits> {
        if names.is_empty() {
            return Ok(Edits::default());
        }
        let mut shelf = Shelf::default();
        for (rank, dir) in self.dirs.iter().enumerate() {
            shelf.read(rank, dir)?;
        }
        self.tell(&shelf.broken);
        let mut edits = Edits::default();
        let mut begun = Vec::new();
        for name in names {
            let at = self.find(&shelf, name)?;
            let document = &shelf.files[at].2;
            if !begun.contains(&at) {
                begun.push(at);
                edits.extend(&document.container_edits);
            }
            let device = document.devices.iter().find(|d| d.name == name.device);
            if let Some(device) = device {
                edits.extend(&device.container_edits);
            }
        }
        Ok(edits)
    }

    /// The file of a device: the only one of the last directory that has it.
    fn find(&self, shelf: &Shelf, name: &Name) -> Result<usize> {
        let has = |at: &usize| {
            let document = &shelf.files[*at].2;
            let mut devices = document.devices.iter();
            document.kind == name.kind && devices.any(|device| device.name == name.device)
        };
        let all: Vec<usize> = (0..shelf.files.len()).filter(has).collect();
        let rank = |at: &usize| shelf.files[*at].0;
        let last = all.iter().map(rank).max();
        let best: Vec<usize> = all
            .into_iter()
            .filter(|at| Some(rank(at)) == last)
            .collect();
        let path = |at: usize| shelf.files[at].1.display().to_string();
        match best[..] {
            [] => Err(self.unknown(shelf, name)),
            [only] => Ok(only),
            [first, second, ..] => Err(Error::Conflict {
                name: name.to_string(),
                first: path(first),
                second: path(second),
            }),
        }
    }

    fn unknown(&self, shelf: &Shelf, name: &Name) -> Error {
        let shown = |path: &PathBuf| path.display().to_string();
        let dirs: Vec<String> = self.dirs.iter().map(shown).collect();
        let broken: String = shelf
            .broken
            .iter()
            .map(|(path, why)| format!(", and {} cannot be used: {why}", path.display()))
            .collect();
        Error::Unknown {
            name: name.to_string(),
            dirs: dirs.join(" and "),
            broken,
        }
    }

    /// Tells of files that cannot be read, each fault once.
    fn tell(&self, broken: &BTreeMap<PathBuf, String>) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, why) in broken {
            if told.get(path) != Some(why) {
                tracing::warn!(file = %path.display(), why, "passing over a device spec (CDI) that cannot be used: its devices cannot be had");
            }
        }
        told.clone_from(broken);
    }
}

impl Shelf {
    /// Reads the files of a directory, in the order of their names. A directory that is not there
    /// has none.
    fn read(&mut self, rank: usize, dir: &Path) -> Result<()> {
        let refuse = |why: String| Error::Dir {
            dir: dir.display().to_string(),
            why,
        };
        let entries = match fs::read_dir(dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(refuse(error.to_string())),
        };
        let mut paths = Vec::new();
        for entry in entries {
            let path = entry.map_err(|error| refuse(error.to_string()))?.path();
            let ending = path.extension().and_then(|ending| ending.to_str());
            if matches!(ending, Some("json" | "yaml")) {
                paths.push(path);
            }
            if paths.len() > MAX_FILES {
                return Err(refuse(format!("it has more than {MAX_FILES} files")));
            }
        }
        paths.sort();
        for path in paths {
            match self.file(&path) {
                Ok(document) => self.files.push((rank, path, document)),
                Err(why) => drop(self.broken.insert(path, why)),
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> std::result::Result<Document, String> {
        let is_file = fs::metadata(path).map(|stat| stat.is_file());
        if !is_file.map_err(|error| error.to_string())? {
            return Err("it is no regular file".to_owned());
        }
        let bytes = file::read_bounded(path, MAX_FILE).map_err(|error| error.to_string())?;
        self.bytes += bytes.len();
        if self.bytes > MAX_ALL {
            return Err(format!("all files have more than {MAX_ALL} bytes"));
        }
        Document::parse(&bytes)
    }
}

#[cfg(test)]
#[path = "library_tests.rs"]
mod tests;
