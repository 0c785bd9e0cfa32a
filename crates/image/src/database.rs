//! `images.db`: names, images and layers in one checksummed file.
//!
//! A node has some kilobytes of this. So every commit writes all of it anew, beside the old file,
//! flushes it and renames it into place: a reader finds the state before a commit or after it. The
//! first line is the SHA-256 of the rest, so no damage is taken for content.
//!
//! The file is a cache: registries have the images, and leases name the layers below containers.
//! Damage therefore never keeps the daemon from starting: the file is set aside as
//! `images.damaged`, and an empty one takes its place.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crisp_model::Digest;
use crisp_sys::{file, owned};
use serde::{Deserialize, Serialize};

use crate::error::{Context as _, Error, Result};
use crate::record::{Edit, ImageRecord, LayerRecord, VERSION};
use crate::sealed::{seal, unseal};

/// More than a million layers.
const LARGEST: u64 = 256 << 20;
/// A daemon that is being replaced may still be on its way out.
const PATIENCE: Duration = Duration::from_secs(5);
/// Where releases before kept the same.
const EARLIER: &str = "images.redb";

/// The open database.
#[derive(Debug)]
pub(crate) struct Database {
    path: PathBuf,
    saved: Mutex<Saved>,
    /// Lets no second daemon in.
    _lock: File,
}

/// Everything in it.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Saved {
    pub(crate) images: BTreeMap<Digest, ImageRecord>,
    pub(crate) names: BTreeMap<String, Digest>,
    pub(crate) layers: BTreeMap<Digest, LayerRecord>,
}

#[derive(Serialize)]
struct Written<'a> {
    version: u64,
    #[serde(flatten)]
    saved: &'a Saved,
}

/// The version, read before the rest to know whether the rest can be understood.
#[derive(Deserialize)]
struct Envelope {
    version: u64,
}

impl Database {
    /// Opens the database below `root`, and sets aside one that is damaged.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let lock = lock(&root.join("images.lock"))?;
        let path = root.join("images.db");
        let saved = match read(&path)? {
            Content::Whole(saved) => saved,
            Content::Absent => Saved::default(),
            Content::Damaged(why) => {
                set_aside(root, &path, &why)?;
                Saved::default()
            }
        };
        let next = unfinished(&path);
        owned::remove(&next).context(|| ("remove", &next))?;
        let earlier = root.join(EARLIER);
        if earlier.symlink_metadata().is_ok() {
            tracing::warn!(
                file = %earlier.display(),
                "an earlier release kept image names here; this one does not read it: \
                 images are pulled again, running containers keep their layers"
            );
            owned::remove(&earlier).context(|| ("remove", &earlier))?;
        }
        Ok(Self {
            path,
            saved: Mutex::new(saved),
            _lock: lock,
        })
    }

    /// Everything in it.
    pub(crate) fn load(&self) -> Saved {
        let saved = self.saved.lock();
        saved.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies all edits or none, and returns when they are on the disk.
    pub(crate) fn apply(&self, edits: &[Edit]) -> Result<()> {
        if edits.is_empty() {
            return Ok(());
        }
        let mut saved = self.saved.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = saved.clone();
        next.apply(edits);
        match write(&self.path, &next) {
            // To remove images is what makes room again. A crash before the next commit brings back
            // records whose layers are gone; they are dropped when the store is opened.
            Err(error) if owned::is_full(&error) && edits.iter().all(Edit::is_loss) => {
                tracing::warn!(
                    path = %self.path.display(), %error,
                    "removing images without a record of it: the disk is full"
                );
            }
            written => written.context(|| ("write", &self.path))?,
        }
        *saved = next;
        Ok(())
    }
}

impl Saved {
    fn apply(&mut self, edits: &[Edit]) {
        for edit in edits.iter().cloned() {
            match edit {
                Edit::PutImage(id, image) => {
                    drop(self.images.insert(id, image.record.clone()));
                }
                Edit::PutName(name, id) => drop(self.names.insert(name, id)),
                Edit::PutLayer(id, layer) => drop(self.layers.insert(id, layer)),
                Edit::DropImage(id) => drop(self.images.remove(&id)),
                Edit::DropName(name) => drop(self.names.remove(&name)),
                Edit::DropLayer(id) => {
                    let is_meant = |layer: &LayerRecord| layer.generation == id.generation;
                    if self.layers.get(&id.chain).is_some_and(is_meant) {
                        self.layers.remove(&id.chain);
                    }
                }
            }
        }
    }
}

/// The outcome of reading the database's file.
enum Content {
    Absent,
    Whole(Saved),
    /// Something else, and why it cannot be used.
    Damaged(String),
}

fn read(path: &Path) -> Result<Content> {
    let bytes = match owned::read(path, LARGEST) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Content::Absent),
        Err(error) => return Ok(Content::Damaged(error.to_string())),
    };
    let Some(body) = unseal(&bytes) else {
        return Ok(Content::Damaged("its checksum does not match".to_owned()));
    };
    match serde_json::from_slice::<Envelope>(body) {
        Ok(Envelope { version }) if version > VERSION => Err(Error::Newer {
            path: path.to_owned(),
            version,
            known: VERSION,
        }),
        Ok(_) => Ok(serde_json::from_slice(body).map_or_else(
            |error| Content::Damaged(format!("its records cannot be read: {error}")),
            Content::Whole,
        )),
        Err(error) => Ok(Content::Damaged(format!("it has no version: {error}"))),
    }
}

/// The file that becomes the database. It has one name, for there is one writer: what a killed one
/// left is found.
fn unfinished(path: &Path) -> PathBuf {
    path.with_extension("next")
}

fn write(path: &Path, saved: &Saved) -> io::Result<()> {
    let version = VERSION;
    let bytes = seal(&serde_json::to_vec(&Written { version, saved })?);
    // The rename must not reach the disk before the content: the content is flushed under a name
    // of its own first.
    let next = unfinished(path);
    owned::remove(&next)?;
    if let Err(error) = write_new(&next, &bytes).and_then(|()| owned::rename(&next, path)) {
        // A part of it takes what room there is; the next commit would remove it as well.
        drop(owned::remove(&next));
        return Err(error);
    }
    file::sync_dir(path.parent().unwrap_or(Path::new("/")))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Keeps the damaged file for whoever wants to know what happened. One is kept: the newest.
fn set_aside(root: &Path, path: &Path, why: &str) -> Result<()> {
    let kept = root.join("images.damaged");
    owned::remove(&kept).context(|| ("remove", &kept))?;
    fs::rename(path, &kept).context(|| ("set aside", path))?;
    tracing::error!(
        file = %path.display(), kept = %kept.display(), why,
        "the image database is damaged and was set aside: images are pulled again, running \
         containers keep their layers; look at the disk and its log, then delete the kept file"
    );
    Ok(())
}

fn lock(path: &Path) -> Result<File> {
    let begun = Instant::now();
    if !owned::is_file(path) {
        owned::remove(path).context(|| ("remove", path))?;
    }
    loop {
        match file::lock_exclusive(path).context(|| ("lock", path))? {
            Some(lock) => return Ok(lock),
            None if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(20)),
            None => return Err(Error::InUse(path.to_owned())),
        }
    }
}

#[cfg(test)]
#[path = "database_tests.rs"]
mod tests;
