//! Opening: what the last life of the daemon left behind is believed as far as it can be.
//!
//! Crashes leave layers that no record names and records of layers that a power cut hollowed out.
//! Both go; an image whose layers or documents went goes with them and is pulled again. One bad
//! record never keeps the daemon from starting.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use crisp_model::{Digest, ImageRef};
use crisp_registry::Client;
use crisp_snapshotter::Snapshotter;
use crisp_sys::{boot, file};

use crate::catalog::{Catalog, named};
use crate::config::Config;
use crate::database::{Database, Saved};
use crate::error::{Result, io};
use crate::image_config::{self, MAX_CONFIG};
use crate::record::{Edit, Image, ImageRecord, LayerRecord};
use crate::store::{Parts, Store, Trees, read_leases};

/// Opens everything and drops what cannot be trusted.
pub(crate) fn open(config: Config) -> Result<Arc<Store>> {
    let root = config.root;
    for dir in [root.clone(), Store::lease_dir(&root)] {
        file::make_private_dirs(&dir).map_err(io("create", &dir))?;
    }
    let proc_file = Path::new("/proc/sys/kernel/random/boot_id");
    let boot = boot::boot_id().map_err(io("read", proc_file))?;
    let content = crisp_content::Store::open(&root.join("content"))?;
    let snapshotter = Snapshotter::open(&root.join("snapshots"))?;
    let database = Database::open(&root.join("images.redb"))?;
    let saved = database.load()?;
    let unpacked: BTreeSet<Digest> = snapshotter.layers()?.into_iter().collect();
    let review = Review {
        boot: &boot,
        unpacked: &unpacked,
        content: &content,
    };
    let (keep, drop) = review.sort(saved);
    database.apply(&drop)?;
    let mut catalog = Catalog::new(pinned(&config.pinned)?);
    catalog.apply(&keep);
    for (container, layers) in read_leases(&root)? {
        catalog.restore_lease(container, layers);
    }
    adopt_leased(&mut catalog, &snapshotter, (&unpacked, &boot));
    let store = Arc::new(Store::new(Parts {
        registry: Client::new(config.registry)?,
        parallel_layers: config.max_parallel_layers,
        grace: config.grace,
        root,
        boot,
        content,
        snapshotter,
        database,
        catalog,
    }));
    clear(&store, &unpacked);
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
    unpacked: &'a BTreeSet<Digest>,
    content: &'a crisp_content::Store,
}

impl Review<'_> {
    /// What to keep, and what to drop from the database.
    fn sort(&self, saved: Saved) -> (Vec<Edit>, Vec<Edit>) {
        let (mut keep, mut drop) = (Vec::new(), Vec::new());
        let mut layers = BTreeSet::new();
        for (id, layer) in saved.layers {
            if self.is_whole(&id, &layer) {
                layers.insert(id.clone());
                keep.push(Edit::PutLayer(id, layer));
            } else {
                tracing::warn!(layer = %id, "dropping a layer that a crash may have damaged");
                drop.push(Edit::DropLayer(id));
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
        (keep, drop)
    }

    fn is_whole(&self, id: &Digest, layer: &LayerRecord) -> bool {
        let boot = layer.unsynced_boot.as_deref();
        self.unpacked.contains(id) && boot.is_none_or(|boot| boot == self.boot)
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

/// Layers below containers stay although their records are lost with the database: the containers
/// may be running.
fn adopt_leased(
    catalog: &mut Catalog,
    snapshotter: &Snapshotter,
    (unpacked, boot): (&BTreeSet<Digest>, &str),
) {
    for id in unpacked {
        if catalog.layer(id).is_none() && catalog.is_leased(id) {
            // Its size is for statistics only.
            let usage = snapshotter.layer_usage(id).unwrap_or_default();
            let layer = LayerRecord {
                bytes: usage.bytes,
                inodes: usage.inodes,
                unsynced_boot: Some(boot.to_owned()),
            };
            catalog.apply(&[Edit::PutLayer(id.clone(), layer)]);
        }
    }
}

/// Removes layers and blobs that no record names. Layers lose their names at once, lest a pull
/// believe in them, and their trees in the background: the first answer does not wait for the disk.
/// What cannot be removed now is no reason not to start: it is tried again at the next sweep that
/// finds it, or the next start.
fn clear(store: &Store, unpacked: &BTreeSet<Digest>) {
    let unnamed: Vec<Digest> = unpacked
        .iter()
        .filter(|id| store.catalog().layer(id).is_none())
        .cloned()
        .collect();
    for layer in &unnamed {
        tracing::info!(%layer, "removing a layer that no image names");
    }
    if let Err(error) = store.snapshotter.remove_layers_later(&unnamed) {
        tracing::warn!(%error, "cannot remove a layer that no image names");
    }
    if let Err(error) = store.remove_idle(Trees::Later) {
        tracing::warn!(%error, "cannot remove what no image needs");
    }
}
