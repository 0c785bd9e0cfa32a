//! The *catalog*: all that is known about images while the daemon runs, and which layers and blobs
//! are needed by what. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crisp_model::{ContainerId, Digest, ImageRef};
use crisp_snapshotter::{LayerId, Usage};

use crate::error::Ambiguous;
use crate::info::ImageInfo;
use crate::record::{Edit, Image, LayerRecord};

/// The images, their names and layers, and what keeps layers and blobs from being collected.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    images: BTreeMap<Digest, Arc<Image>>,
    names: BTreeMap<String, Digest>,
    /// The one generation of each layer that images and new snapshots use.
    layers: BTreeMap<Digest, LayerRecord>,
    /// Generations that may be damaged, or whose record was lost: containers keep them, and nobody
    /// else gets them.
    distrusted: BTreeMap<LayerId, Usage>,
    /// Layers below the snapshots of containers.
    leases: BTreeMap<ContainerId, Vec<LayerId>>,
    /// Layers and blobs of pulls under way, counted.
    claims: BTreeMap<Digest, usize>,
    pinned: BTreeSet<String>,
}

impl Catalog {
    pub(crate) fn new(pinned: BTreeSet<String>) -> Self {
        Self {
            pinned,
            ..Self::default()
        }
    }

    /// Makes the losses among edits visible; the edits that would make them good again.
    pub(crate) fn lose(&mut self, edits: &[Edit]) -> Vec<Edit> {
        let losses: Vec<Edit> = edits.iter().filter(|e| e.is_loss()).cloned().collect();
        let regained = losses.iter().filter_map(|edit| self.regain(edit)).collect();
        self.apply(&losses);
        regained
    }

    fn regain(&self, loss: &Edit) -> Option<Edit> {
        Some(match loss {
            Edit::DropImage(id) => Edit::PutImage(id.clone(), Arc::clone(self.images.get(id)?)),
            Edit::DropName(name) => Edit::PutName(name.clone(), self.names.get(name)?.clone()),
            Edit::DropLayer(id) => {
                let layer = self.layers.get(&id.chain)?;
                let is_meant = layer.generation == id.generation;
                is_meant.then(|| Edit::PutLayer(id.chain.clone(), layer.clone()))?
            }
            Edit::PutImage(..) | Edit::PutName(..) | Edit::PutLayer(..) => return None,
        })
    }

    /// Repeats in memory what the database has.
    pub(crate) fn apply(&mut self, edits: &[Edit]) {
        for edit in edits.iter().cloned() {
            match edit {
                Edit::PutImage(id, image) => drop(self.images.insert(id, image)),
                Edit::DropImage(id) => drop(self.images.remove(&id)),
                Edit::PutName(name, id) => drop(self.names.insert(name, id)),
                Edit::DropName(name) => drop(self.names.remove(&name)),
                Edit::PutLayer(id, layer) => drop(self.layers.insert(id, layer)),
                Edit::DropLayer(id) => {
                    if self.generation(&id.chain).as_ref() == Some(&id) {
                        self.layers.remove(&id.chain);
                    }
                    self.distrusted.remove(&id);
                }
            }
        }
    }

    pub(crate) fn image(&self, id: &Digest) -> Option<&Arc<Image>> {
        self.images.get(id)
    }

    pub(crate) fn layer(&self, id: &Digest) -> Option<&LayerRecord> {
        self.layers.get(id)
    }

    /// The generation of a layer that new snapshots use.
    fn generation(&self, chain: &Digest) -> Option<LayerId> {
        let generation = self.layers.get(chain)?.generation;
        Some(LayerId {
            chain: chain.clone(),
            generation,
        })
    }

    /// The layers of an image as they lie on the disk; `None` when one is gone.
    pub(crate) fn generations(&self, layers: &[Digest]) -> Option<Vec<LayerId>> {
        layers.iter().map(|chain| self.generation(chain)).collect()
    }

    /// Keeps a generation for those who have a lease of it.
    pub(crate) fn distrust(&mut self, layer: LayerId, usage: Usage) {
        self.distrusted.insert(layer, usage);
    }

    /// The image that a full name stands for.
    pub(crate) fn target(&self, name: &str) -> Option<Digest> {
        self.names.get(name).cloned()
    }

    /// Whether `name` stands for `id` already.
    pub(crate) fn is_named(&self, name: &str, id: &Digest) -> bool {
        self.names.get(name) == Some(id)
    }

    /// The image whose manifest or index this is.
    pub(crate) fn by_document(&self, digest: &Digest) -> Option<Digest> {
        let mut images = self.images.iter();
        let found = images.find(|(id, i)| *id != digest && i.record.documents.contains(digest));
        found.map(|(id, _)| id.clone())
    }

    /// Every image.
    pub(crate) fn list(&self) -> Vec<ImageInfo> {
        let ids = self.images.keys();
        ids.filter_map(|id| self.info(id)).collect()
    }

    /// The image that a text stands for: a name in any spelling, an id, or the beginning of one.
    pub(crate) fn find(&self, text: &str) -> Result<Option<ImageInfo>, Ambiguous> {
        if text.is_empty() {
            return Ok(None);
        }
        let named = ImageRef::parse(text)
            .ok()
            .map(|reference| named(&reference));
        if let Some(id) = named.and_then(|name| self.names.get(&name)) {
            return Ok(self.info(id));
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.is_empty() || !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let begins = |id: &&Digest| id.hex().starts_with(hex);
        let matches: Vec<&Digest> = self.images.keys().filter(begins).collect();
        match matches.as_slice() {
            [] => Ok(None),
            [one] => Ok(self.info(one)),
            many => Err(Ambiguous {
                prefix: text.to_owned(),
                matches: many.iter().map(|id| (*id).clone()).collect(),
            }),
        }
    }

    /// The edits that remove an image with all its names.
    pub(crate) fn removal(&self, id: &Digest) -> Vec<Edit> {
        let names = self.names.iter().filter(|(_, target)| *target == id);
        let mut edits: Vec<Edit> = names.map(|(n, _)| Edit::DropName(n.clone())).collect();
        edits.push(Edit::DropImage(id.clone()));
        edits
    }

    pub(crate) fn info(&self, id: &Digest) -> Option<ImageInfo> {
        let image = self.images.get(id)?;
        let names = self.names.iter().filter(|(_, target)| *target == id);
        let (repo_digests, repo_tags): (Vec<String>, Vec<String>) = names
            .map(|(name, _)| name.clone())
            .partition(|n| n.contains('@'));
        let record = &image.record;
        let sizes = record.layers.iter().filter_map(|l| self.layers.get(l));
        Some(ImageInfo {
            id: id.clone(),
            pinned: repo_tags
                .iter()
                .chain(&repo_digests)
                .any(|n| self.pinned.contains(n)),
            repo_tags,
            repo_digests,
            size: record.size,
            unpacked_size: sizes.map(|layer| layer.bytes).sum(),
            config: image.parsed.config.clone(),
            layers: record.layers.clone(),
            os: image.parsed.platform.os.clone(),
            architecture: image.parsed.platform.architecture.clone(),
            created: image.parsed.created.clone(),
            manifest: record.manifest.clone(),
            annotations: record.annotations.clone(),
        })
    }

    /// Notes that a container's snapshot needs these layers; `None` when one of them is gone.
    pub(crate) fn lease(
        &mut self,
        container: &ContainerId,
        layers: &[Digest],
    ) -> Option<Vec<LayerId>> {
        let layers = self.generations(layers)?;
        self.leases.insert(container.clone(), layers.clone());
        Some(layers)
    }

    /// Notes a lease of an earlier time.
    pub(crate) fn restore_lease(&mut self, container: ContainerId, layers: Vec<LayerId>) {
        self.leases.insert(container, layers);
    }

    pub(crate) fn is_leased(&self, layer: &LayerId) -> bool {
        self.leases.values().flatten().any(|leased| leased == layer)
    }

    pub(crate) fn lease_of(&self, container: &ContainerId) -> Option<&Vec<LayerId>> {
        self.leases.get(container)
    }

    pub(crate) fn end_lease(&mut self, container: &ContainerId) {
        self.leases.remove(container);
    }

    pub(crate) fn leases(&self) -> impl Iterator<Item = &ContainerId> {
        self.leases.keys()
    }

    /// Keeps layers and blobs from being collected until [`Catalog::unclaim`].
    pub(crate) fn claim(&mut self, digests: &[Digest]) {
        for digest in digests {
            *self.claims.entry(digest.clone()).or_default() += 1;
        }
    }

    pub(crate) fn unclaim(&mut self, digests: &[Digest]) {
        for digest in digests {
            if let Some(count) = self.claims.get_mut(digest) {
                *count -= 1;
                if *count == 0 {
                    self.claims.remove(digest);
                }
            }
        }
    }

    /// Layers that no image, snapshot or pull needs.
    pub(crate) fn idle_layers(&self) -> Vec<LayerId> {
        let images = self.images.values().flat_map(|image| &image.record.layers);
        let needed: BTreeSet<&Digest> = images.chain(self.claims.keys()).collect();
        let leased: BTreeSet<&LayerId> = self.leases.values().flatten().collect();
        let unnamed = self.layers.keys().filter(|chain| !needed.contains(chain));
        let unnamed = unnamed.filter_map(|chain| self.generation(chain));
        let all = unnamed.chain(self.distrusted.keys().cloned());
        all.filter(|layer| !leased.contains(layer)).collect()
    }

    /// Blobs that an image or a pull needs.
    pub(crate) fn needed_blobs(&self) -> BTreeSet<Digest> {
        let images = self
            .images
            .values()
            .flat_map(|image| &image.record.documents);
        images.chain(self.claims.keys()).cloned().collect()
    }

    /// Layers of images that are not known to be on the disk. Layers without an image still change:
    /// they are settled just before an image has them.
    pub(crate) fn unsynced(&self) -> Vec<(Digest, LayerRecord)> {
        let images = self.images.values().flat_map(|image| &image.record.layers);
        let settled: BTreeSet<&Digest> = images.collect();
        let layers = self.layers.iter();
        let unsynced =
            layers.filter(|(id, layer)| layer.unsynced_boot.is_some() && settled.contains(id));
        unsynced
            .map(|(id, layer)| (id.clone(), layer.clone()))
            .collect()
    }

    /// How many images and layers there are.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let layers = self.layers.len() + self.distrusted.len();
        (self.images.len(), layers)
    }

    /// Bytes of one layer.
    pub(crate) fn size_of(&self, layer: &LayerId) -> u64 {
        let known = self.layers.get(&layer.chain);
        let known = known.filter(|known| known.generation == layer.generation);
        let distrusted = || self.distrusted.get(layer).map_or(0, |usage| usage.bytes);
        known.map_or_else(distrusted, |known| known.bytes)
    }

    /// Bytes and inodes of all layers.
    pub(crate) fn layer_usage(&self) -> (u64, u64) {
        let layers = self.layers.values().map(|l| (l.bytes, l.inodes));
        let distrusted = self.distrusted.values().map(|u| (u.bytes, u.inodes));
        let sum = |(b, i): (u64, u64), (bytes, inodes)| (b + bytes, i + inodes);
        layers.chain(distrusted).fold((0, 0), sum)
    }
}

/// The one name that a reference is kept under: its digest decides, as it does for the registry.
pub(crate) fn named(reference: &ImageRef) -> String {
    match reference.digest() {
        Some(digest) => reference.with_digest(digest).to_string(),
        None => reference.to_string(),
    }
}

#[cfg(test)]
#[path = "catalog_tests.rs"]
mod tests;
