//! The store of layers and of what containers write above them.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crisp_model::{ContainerId, Digest};
use crisp_sys::{file, owned};

use crate::doomed::Doomed;
use crate::error::{Context as _, Error, Result};
use crate::layer::{LayerWriter, recorded_usage};
use crate::layer_id::LayerId;
use crate::merged::{Lookup, Merged};
use crate::place::{open_dir, set_mode};
use crate::reserve::Reserve;
use crate::usage::{Usage, measure};
use crate::{metadata, unsettled, volume};

/// The directories that an overlay mount is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Layers, topmost first; never empty.
    pub lower: Vec<PathBuf>,
    /// Where changes go.
    pub upper: PathBuf,
    /// overlayfs' own scratch space.
    pub work: PathBuf,
}

/// The store. One process at a time may have it open.
#[derive(Debug)]
pub struct Snapshotter {
    root: PathBuf,
    /// Of this life: what is below it in `ingest` was left by another.
    first: u64,
    serial: AtomicU64,
    generation: AtomicU64,
    reserve: Reserve,
}

impl Snapshotter {
    /// Opens the store below `root`, making it where there is none.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn open(root: &Path) -> Result<Self> {
        owned::make_dirs(root).context(|| ("make", root))?;
        let empty = root.join("empty");
        if empty.is_symlink() {
            // It holds nothing that could lie on another disk, and its mode is set below.
            owned::remove(&empty).context(|| ("remove", &empty))?;
        }
        for name in ["layers", "containers", "ingest", "empty"] {
            let dir = root.join(name);
            owned::make_dirs(&dir).context(|| ("make", &dir))?;
        }
        set_mode(&empty, 0o755)?;
        let left = entries(&root.join("ingest"))?;
        let numbers = left.iter().filter_map(|name| name.parse::<u64>().ok());
        let first = numbers.max().map_or(0, |last| last.saturating_add(1));
        let layers = entries(&root.join("layers"))?;
        let layers = layers
            .iter()
            .filter_map(|name| LayerId::from_dir_name(name));
        let newest = layers.map(|layer| layer.generation).max();
        Ok(Self {
            root: root.to_owned(),
            first,
            serial: AtomicU64::new(first),
            generation: AtomicU64::new(newest.unwrap_or(0).saturating_add(1)),
            reserve: Reserve::percent(0),
        })
    }

    /// The same store, which leaves this much of its disk free when it unpacks.
    #[must_use]
    pub fn with_reserve(self, reserve: Reserve) -> Self {
        Self { reserve, ..self }
    }

    /// The trees that a crash before this opening left behind.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn leftovers(&self) -> Result<Doomed> {
        let ingest = self.root.join("ingest");
        let is_old = |name: &String| name.parse().is_ok_and(|number: u64| number < self.first);
        let names = entries(&ingest)?.into_iter();
        let old = names.filter(|name| is_old(name) || name.parse::<u64>().is_err());
        let mut doomed: Vec<PathBuf> = old.map(|name| ingest.join(name)).collect();
        for name in entries(&self.root.join("layers"))? {
            let dir = self.root.join("layers").join(&name);
            if LayerId::from_dir_name(&name).is_some() && !is_layer(&dir) {
                doomed.extend(self.take_name(&dir)?);
            }
        }
        Ok(Doomed::of(doomed))
    }

    /// Begins a layer, which is a new generation of its chain id whatever else there is.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn begin_layer(&self, chain_id: &Digest) -> Result<LayerWriter> {
        let layer = LayerId {
            chain: chain_id.clone(),
            generation: self.generation.fetch_add(1, Ordering::Relaxed),
        };
        let dir = self.layer_dir(&layer);
        LayerWriter::new(self.fresh(), layer, dir, self.reserve)
    }

    /// Settles what the layers of a stack, given bottom first, say only above each other: the
    /// attributes of directories that one implies, and deletions that hide nothing. Done once for
    /// a layer, and before anybody uses it; not by two at a time.
    ///
    /// # Errors
    /// [`Error::NoLayer`], [`Error::Damaged`], or when the disk fails.
    pub fn settle(&self, layers: &[LayerId]) -> Result<()> {
        for (at, layer) in layers.iter().enumerate() {
            let dir = self.layer_dir(layer);
            let noted = unsettled::noted(&dir).map_err(|error| damaged(layer, error))?;
            let Some(paths) = noted else {
                continue;
            };
            let stack = self.lower(&layers[..=at])?;
            unsettled::settle(&dir, &stack[0], &paths, &stack[1..])?;
        }
        Ok(())
    }

    /// All layers. A file that only has the name of a layer is none, and goes with the leftovers.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn layers(&self) -> Result<Vec<LayerId>> {
        let dir = self.root.join("layers");
        let names = entries(&dir)?.into_iter();
        let layers = names.filter(|name| is_layer(&dir.join(name)));
        let layers = layers.filter_map(|name| LayerId::from_dir_name(&name));
        Ok(layers.collect())
    }

    /// Bytes and inodes that a layer takes.
    ///
    /// # Errors
    /// [`Error::NoLayer`], or when the disk fails.
    pub fn layer_usage(&self, layer: &LayerId) -> Result<Usage> {
        let dir = self.layer_dir(layer);
        if !dir.is_dir() {
            return Err(Error::NoLayer(layer.clone()));
        }
        recorded_usage(&dir)
    }

    /// Takes a layer's name away, by one rename; one that is not there is fine. Its tree is the
    /// caller's to delete: that may take long, and nobody has to wait for it.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn retire_layer(&self, layer: &LayerId) -> Result<Doomed> {
        let taken = self.take_name(&self.layer_dir(layer))?;
        Ok(Doomed::of(taken.into_iter().collect()))
    }

    /// Makes the writable part of a container above its layers, given bottom first. A part
    /// that is there already is returned as it is.
    ///
    /// # Errors
    /// [`Error::NoLayer`], or when the disk fails.
    pub fn prepare(&self, container: &ContainerId, layers: &[LayerId]) -> Result<Snapshot> {
        let lower = self.lower(layers)?;
        let dir = self.container_dir(container);
        let snapshot = Snapshot {
            upper: dir.join("fs"),
            work: dir.join("work"),
            lower,
        };
        for path in [&snapshot.work, &snapshot.upper] {
            file::make_private_dirs(path).context(|| ("make", path))?;
        }
        self.take_root_over(&snapshot)?;
        Ok(snapshot)
    }

    /// Takes the name of a container's writable part away, by one rename; nothing there is fine. Its
    /// tree is the caller's to delete, as with [`Self::retire_layer`].
    ///
    /// # Errors
    /// When the disk fails.
    pub fn retire_container(&self, container: &ContainerId) -> Result<Doomed> {
        let taken = self.take_name(&self.container_dir(container))?;
        Ok(Doomed::of(taken.into_iter().collect()))
    }

    /// Containers that have a writable part.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn containers(&self) -> Result<Vec<ContainerId>> {
        let names = entries(&self.root.join("containers"))?;
        let ids = names.iter().map(|name| ContainerId::parse(name));
        Ok(ids.filter_map(std::result::Result::ok).collect())
    }

    /// The size of a container's writable layer, measured now.
    ///
    /// # Errors
    /// [`Error::NotFound`] without a snapshot, or when the disk fails.
    pub fn usage(&self, container: &ContainerId) -> Result<Usage> {
        let upper = self.container_dir(container).join("fs");
        if !upper.is_dir() {
            return Err(Error::NotFound(upper));
        }
        measure(&open_dir(&upper)?).context(|| ("measure", &upper))
    }

    /// Looks a path up through layers, given bottom first, as a container would see it, without
    /// a mount. Symlinks are followed inside the image's root.
    ///
    /// # Errors
    /// [`Error::NoLayer`], [`Error::TooLarge`] beyond `max` bytes, or when the disk fails.
    pub fn lookup(&self, layers: &[LayerId], path: &Path, max: u64) -> Result<Lookup> {
        let [found] = self.lookup_each(layers, [path], max)?;
        Ok(found)
    }

    /// As [`Self::lookup`], for several paths of the same layers.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    pub fn lookup_each<const N: usize>(
        &self,
        layers: &[LayerId],
        paths: [&Path; N],
        max: u64,
    ) -> Result<[Lookup; N]> {
        let merged = Merged::open(&self.lower(layers)?)?;
        let mut found = [const { Lookup::Absent }; N];
        for (found, path) in found.iter_mut().zip(paths) {
            *found = merged.lookup(path, max)?;
        }
        Ok(found)
    }

    /// Whether layers, given bottom first, have a directory or a regular file behind a path.
    /// Symlinks are followed inside the image's root.
    ///
    /// # Errors
    /// [`Error::NoLayer`], or when the disk fails.
    pub fn has_content_at(&self, layers: &[LayerId], path: &Path) -> Result<bool> {
        let found = Merged::open(&self.lower(layers)?)?.file_type(path)?;
        Ok(found.is_some_and(|kind| kind.is_dir() || kind.is_file()))
    }

    /// The directories that show layers, given bottom first, as one tree that nobody can write to:
    /// the lower ones of an overlay without an upper one, topmost first. overlayfs wants two at
    /// least. There is none for an image without layers.
    ///
    /// # Errors
    /// [`Error::NoLayer`], or when the disk fails.
    pub fn view(&self, layers: &[LayerId]) -> Result<Vec<PathBuf>> {
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        let mut lower = self.lower(layers)?;
        if lower.len() == 1 {
            lower.push(self.root.join("empty"));
        }
        Ok(lower)
    }

    /// Copies what the image has below the directory `path` into the existing directory `target`
    /// of the host, which gets the directory's own attributes; an image without that directory
    /// copies nothing, and `target` is for everybody to enter and read, as one that an image's
    /// builder makes.
    ///
    /// # Errors
    /// [`Error::NoLayer`], when the disk fails, or soon after it is said that the copy is no longer
    /// wanted.
    pub fn copy_up_volume(
        &self,
        layers: &[LayerId],
        path: &Path,
        (target, unwanted): (&Path, &AtomicBool),
    ) -> Result<()> {
        let merged = Merged::open(&self.lower(layers)?)?;
        let target_dir = open_dir(target)?;
        let copied = volume::copy(&merged, path, &target_dir, (self.reserve, unwanted));
        copied.context(|| ("copy an image's content to", target))
    }

    /// The layers' directories, topmost first, down to one whose root hides the others.
    fn lower(&self, layers: &[LayerId]) -> Result<Vec<PathBuf>> {
        let mut lower = Vec::with_capacity(layers.len());
        for layer in layers.iter().rev() {
            let fs = self.layer_dir(layer).join("fs");
            if !fs.is_dir() {
                return Err(Error::NoLayer(layer.clone()));
            }
            // overlayfs does not ask the root of a layer whether it is opaque.
            let is_opaque = metadata::is_opaque(open_dir(&fs)?);
            let is_opaque = is_opaque.context(|| ("look at", &fs))?;
            lower.push(fs);
            if is_opaque {
                break;
            }
        }
        if lower.is_empty() {
            lower.push(self.root.join("empty"));
        }
        Ok(lower)
    }

    /// The root of the mount shows the attributes of the upper directory: those of the topmost
    /// layer are what the image means.
    fn take_root_over(&self, snapshot: &Snapshot) -> Result<()> {
        let (top, upper) = (&snapshot.lower[0], &snapshot.upper);
        let root = fs::metadata(top).context(|| ("look at", top))?;
        std::os::unix::fs::chown(upper, Some(root.uid()), Some(root.gid()))
            .context(|| ("chown", upper))?;
        set_mode(upper, root.mode() & 0o7777)
    }

    fn layer_dir(&self, layer: &LayerId) -> PathBuf {
        self.root.join("layers").join(layer.dir_name())
    }

    fn container_dir(&self, container: &ContainerId) -> PathBuf {
        self.root.join("containers").join(container.as_str())
    }

    fn fresh(&self) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.root.join("ingest").join(serial.to_string())
    }

    /// Takes a tree's name away; where it is then, if it was there.
    fn take_name(&self, path: &Path) -> Result<Option<PathBuf>> {
        let doomed = self.fresh();
        match fs::rename(path, &doomed) {
            Ok(()) => Ok(Some(doomed)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context(|| ("remove", path)),
        }
    }
}

/// The failure of reading a file that tells of a layer. A missing file, or a name that is no file,
/// says nothing more about the layer, whatever the disk does later.
fn damaged(layer: &LayerId, error: Error) -> Error {
    match error {
        Error::Io { path, source, .. }
            if matches!(
                source.kind(),
                ErrorKind::InvalidData | ErrorKind::FileTooLarge
            ) =>
        {
            let layer = layer.clone();
            Error::Damaged {
                layer,
                path,
                source,
            }
        }
        other => other,
    }
}

/// Whether a directory holds a tree that could be a layer's.
fn is_layer(dir: &Path) -> bool {
    let fs = fs::symlink_metadata(dir.join("fs"));
    fs.is_ok_and(|stat| stat.is_dir())
}

fn entries(dir: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).context(|| ("list", dir))? {
        let name = entry.context(|| ("list", dir))?.file_name();
        names.extend(name.into_string());
    }
    Ok(names)
}
