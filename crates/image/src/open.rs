//! Opening of the store: files that the last daemon left are trusted as far as they can be checked.
//!
//! Crashes leave layers that no record names and records of layers that a power cut hollowed out.
//! Both go; an image whose layers or documents went goes with them and is pulled again. One bad
//! record never keeps the daemon from starting.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crisp_model::{Digest, ImageRef};
use crisp_registry::Client;
use crisp_snapshotter::{LayerId, Reserve, Snapshotter};
use crisp_sys::{boot, file};

use crate::catalog::{Catalog, named};
use crate::config::Config;
use crate::database::{Database, Saved};
use crate::error::{Context as _, Result};
use crate::image_config::{self, MAX_CONFIG};
use crate::leases::Leases;
use crate::record::{Edit, Image, ImageRecord, LayerRecord};
use crate::store::{Parts, Store, delete_later};

/// Opens everything and drops what cannot be trusted.
pub(crate) fn open(config: Config) -> Result<Arc<Store>> {
    let root = config.root;
    file::make_private_dirs(&root).context(|| ("create", &root))?;
    let proc_file = Path::new("/proc/sys/kernel/random/boot_id");
    let boot = boot::boot_id().context(|| ("read", proc_file))?;
    let database = Database::open(&root)?;
    let leases = Leases::open(&root)?;
    let content = crisp_content::Store::open(&root.join("content"))?;
    let snapshotter = Snapshotter::open(&root.join("snapshots"))?;
    let snapshotter = snapshotter.with_reserve(Reserve::percent(config.keep_free_percent));
    let unpacked: BTreeSet<LayerId> = snapshotter.layers()?.into_iter().collect();
    let review = Review {
        boot: &boot,
        unpacked: &unpacked,
        content: &content,
    };
    let sorted = review.sort(database.load());
    database.apply(&sorted.drop)?;
    let mut catalog = Catalog::new(pinned(&config.pinned)?);
    catalog.apply(&sorted.keep);
    for (container, layers) in leases.read(&snapshotter.containers()?, &unpacked)? {
        catalog.restore_lease(container, layers);
    }
    let unnamed = distrust(&mut catalog, &snapshotter, unpacked);
    let store = Arc::new(Store::new(Parts {
        registry: Client::new(config.registry)?,
        parallel_layers: config.max_parallel_layers,
        grace: config.grace,
        root,
        boot,
        content,
        snapshotter,
        leases,
        database,
        catalog,
    }));
    clear(&store, &unnamed);
    store.promote_later();
    Ok(store)
}

fn pinned(names: &[String]) -> Result<BTreeSet<String>> {
    let parsed = names.iter().map(|name| Ok(named(&ImageRef::parse(name)?)));
    parsed.collect()
}

/// Decides about the saved records.
struct Review<'a> {
    boot: &'a str,
    unpacked: &'a BTreeSet<LayerId>,
    content: &'a crisp_content::Store,
}

/// The fate of the saved records.
#[derive(Default)]
struct Sorted {
    /// The records that enter memory.
    keep: Vec<Edit>,
    /// The records that leave the database.
    drop: Vec<Edit>,
}

impl Review<'_> {
    fn sort(&self, saved: Saved) -> Sorted {
        let Sorted { mut keep, mut drop } = Sorted::default();
        let mut layers = BTreeSet::new();
        for (id, layer) in saved.layers {
            if self.is_whole(&id, &layer) {
                layers.insert(id.clone());
                keep.push(Edit::PutLayer(id, layer));
            } else {
                tracing::warn!(layer = %id, "dropping a layer that a crash may have damaged");
                drop.push(Edit::DropLayer(layer_id(&id, &layer)));
            }
        }
        let mut images = BTreeSet::new();
        for (id, record) in saved.images {
            match self.image(&id, record, &layers) {
                Ok(image) => {
                    images.insert(id.clone());
                    keep.push(Edit::PutImage(id, Arc::new(image)));
                }
                Err(why) => {
                    tracing::warn!(image = %id, why, "dropping an image: pull it again");
                    drop.push(Edit::DropImage(id));
                }
            }
        }
        for (name, id) in saved.names {
            if images.contains(&id) {
                keep.push(Edit::PutName(name, id));
            } else {
                drop.push(Edit::DropName(name));
            }
        }
        Sorted { keep, drop }
    }

    fn is_whole(&self, id: &Digest, layer: &LayerRecord) -> bool {
        let boot = layer.unsynced_boot.as_deref();
        self.unpacked.contains(&layer_id(id, layer)) && boot.is_none_or(|boot| boot == self.boot)
    }

    fn image(
        &self,
        id: &Digest,
        record: ImageRecord,
        layers: &BTreeSet<Digest>,
    ) -> std::result::Result<Image, String> {
        if let Some(layer) = record.layers.iter().find(|layer| !layers.contains(layer)) {
            return Err(format!("layer {layer} is missing"));
        }
        let config = self
            .content
            .read(id, MAX_CONFIG)
            .map_err(|e| e.to_string())?;
        let parsed = image_config::parse(&config)?;
        Ok(Image { record, parsed })
    }
}

fn layer_id(chain: &Digest, record: &LayerRecord) -> LayerId {
    LayerId {
        chain: chain.clone(),
        generation: record.generation,
    }
}

/// Layers below containers stay although a power cut may have damaged them or their records are
/// lost: the containers may be running. New containers do not get them. Returns the layers that are
/// not needed at all.
fn distrust(
    catalog: &mut Catalog,
    snapshotter: &Snapshotter,
    unpacked: BTreeSet<LayerId>,
) -> Vec<LayerId> {
    let mut unnamed = Vec::new();
    for layer in unpacked {
        let record = catalog.layer(&layer.chain);
        if record.is_some_and(|record| record.generation == layer.generation) {
            continue;
        }
        if catalog.is_leased(&layer) {
            // Its size is for statistics only.
            let usage = snapshotter.layer_usage(&layer).unwrap_or_default();
            catalog.distrust(layer, usage);
        } else {
            unnamed.push(layer);
        }
    }
    unnamed
}

/// Removes layers and blobs that no record names. Layers lose their names at once, lest a pull
/// believe in them, and their trees in the background: the first answer does not wait for the disk.
/// A layer that cannot be removed now is no reason not to start: it is tried again at the next
/// sweep that finds it, or the next start.
fn clear(store: &Store, unnamed: &[LayerId]) {
    for layer in unnamed {
        tracing::info!(%layer, "removing a layer that no image names");
    }
    if let Err(error) = store.remove_layers(unnamed) {
        tracing::warn!(%error, "cannot remove a layer that no image names");
    }
    if let Err(error) = store.remove_idle() {
        tracing::warn!(%error, "cannot remove layers and blobs that no image needs");
    }
    match store.snapshotter.leftovers() {
        Ok(left) => delete_later(left),
        Err(error) => tracing::warn!(%error, "cannot list the leftovers of a crash"),
    }
}
