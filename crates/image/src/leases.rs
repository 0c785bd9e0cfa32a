//! Leases on the disk: a file per container that names the layers below its snapshot.
//!
//! A container may be running while its lease is damaged or gone. Such a container is taken to
//! stand on every layer that there is, until it is released: too much is kept, nothing is taken
//! away under it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crisp_model::{ContainerId, Digest};
use crisp_snapshotter::LayerId;
use crisp_sys::{file, owned};

use crate::error::{Context as _, Result};
use crate::sealed::{seal, unseal};

const MAX_LEASE: u64 = 1 << 20;

/// The directory of leases.
#[derive(Debug, Clone)]
pub(crate) struct Leases(PathBuf);

impl Leases {
    /// Opens the directory below `root`, making it where there is none.
    pub(crate) fn open(root: &Path) -> Result<Self> {
        let dir = root.join("leases");
        owned::make_dirs(&dir).context(|| ("create", &dir))?;
        Ok(Self(dir))
    }

    /// Writes a lease. Blocks.
    pub(crate) fn write(&self, container: &ContainerId, layers: &[LayerId]) -> Result<()> {
        let path = self.path(container);
        let names: Vec<String> = layers.iter().map(ToString::to_string).collect();
        let written = serde_json::to_vec(&names)
            .map_err(std::io::Error::from)
            .and_then(|bytes| {
                let sealed = seal(&bytes);
                // It could not be read again.
                if sealed.len() as u64 > MAX_LEASE {
                    let why = "the container needs too many layers: show fewer images in it";
                    return Err(std::io::Error::other(why));
                }
                file::write_atomic(&path, &sealed, 0o600)
            });
        written.context(|| ("write", &path))
    }

    /// Removes a lease; none is fine. Blocks.
    pub(crate) fn remove(&self, container: &ContainerId) -> Result<()> {
        let path = self.path(container);
        owned::remove(&path).context(|| ("remove", &path))
    }

    /// Leases of an earlier life of the daemon. `containers` have snapshots: one without a lease
    /// that can be read stands on all of `unpacked`.
    pub(crate) fn read(
        &self,
        containers: &[ContainerId],
        unpacked: &BTreeSet<LayerId>,
    ) -> Result<BTreeMap<ContainerId, Vec<LayerId>>> {
        let mut leases = BTreeMap::new();
        let mut lost: BTreeSet<ContainerId> = containers.iter().cloned().collect();
        for entry in fs::read_dir(&self.0).context(|| ("list", &self.0))? {
            let path = entry.context(|| ("list", &self.0))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let Ok(container) = ContainerId::parse(name.unwrap_or_default()) else {
                // A write that a crash cut short.
                drop(owned::remove(&path));
                continue;
            };
            match read_one(&path) {
                Ok(layers) => {
                    lost.remove(&container);
                    leases.insert(container, layers);
                }
                Err(why) => {
                    self.set_aside(&path, &container, &why);
                    lost.insert(container);
                }
            }
        }
        for container in lost {
            let all: Vec<LayerId> = unpacked.iter().cloned().collect();
            tracing::warn!(
                %container,
                "no lease says which layers this container stands on: all that are here stay \
                 until the container is removed"
            );
            if let Err(error) = self.write(&container, &all) {
                tracing::warn!(%container, %error, "cannot write a lease anew");
            }
            leases.insert(container, all);
        }
        Ok(leases)
    }

    fn set_aside(&self, path: &Path, container: &ContainerId, why: &str) {
        let dir = self.0.with_extension("damaged");
        let kept = dir.join(container.as_str());
        let moved = owned::make_dirs(&dir)
            .and_then(|()| owned::remove(&kept))
            .and_then(|()| fs::rename(path, &kept));
        match moved {
            Ok(()) => tracing::error!(
                %container, kept = %kept.display(), why,
                "a lease of layers is damaged and was set aside: look at the disk and its log, \
                 then delete the kept file"
            ),
            Err(error) => tracing::error!(%container, why, %error, "cannot set a lease aside"),
        }
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.0.join(container.as_str())
    }
}

fn read_one(path: &Path) -> std::result::Result<Vec<LayerId>, String> {
    let bytes = owned::read(path, MAX_LEASE).map_err(|error| error.to_string())?;
    layers(&bytes)
}

/// The layers that a lease's content names.
pub(crate) fn layers(bytes: &[u8]) -> std::result::Result<Vec<LayerId>, String> {
    // Leases of earlier releases have no checksum and name no generation.
    let content = match bytes.first() {
        Some(b'[') => Some(bytes),
        _ => unseal(bytes),
    };
    let content = content.ok_or("its checksum does not match")?;
    let names: Vec<String> = serde_json::from_slice(content).map_err(|error| error.to_string())?;
    let layers = names.iter().map(|name| parse(name));
    layers
        .collect::<Option<_>>()
        .ok_or_else(|| "it names no layers".to_owned())
}

fn parse(name: &str) -> Option<LayerId> {
    let (chain, generation) = match name.split_once('.') {
        Some((chain, generation)) => (chain, generation.parse().ok()?),
        None => (name, 0),
    };
    Some(LayerId {
        chain: Digest::parse(chain).ok()?,
        generation,
    })
}
