//! An image is whole when all is there that its name leads to on this machine. A containerd has seldom
//! what it leads to on others, and may have dropped layers that it has unpacked.

use std::fmt;

use serde::Deserialize;

use super::store::Target;
use crate::images::{Blob, Content, architecture};

/// Indexes in indexes: more would be a circle.
const DEEPEST: usize = 4;
/// Longest index or manifest; registries take no longer ones.
const LONGEST: u64 = 4 << 20;
/// Media types of documents that lead on: those of the OCI and of Docker.
const INDEXES: [&str; 2] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
];
const MANIFESTS: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];

/// Why an image stays behind.
#[derive(Debug, PartialEq, Eq)]
pub enum Why {
    /// Some of its layers are no more.
    Layers {
        /// How many are not there.
        missing: usize,
        /// How many it has.
        all: usize,
    },
    /// Another reason, as its user is told.
    Other(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layers { missing, all } => {
                write!(
                    f,
                    "containerd's store has {missing} of its {all} layers no more"
                )
            }
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl From<String> for Why {
    fn from(text: String) -> Self {
        Self::Other(text)
    }
}

/// Words of a document about another one or about a blob.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    digest: String,
    media_type: String,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Deserialize)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

impl Descriptor {
    fn target(&self) -> Target {
        Target {
            digest: self.digest.clone(),
            media_type: self.media_type.clone(),
        }
    }

    /// Whether it is for this machine above others.
    fn is_ours(&self) -> bool {
        let platform = self.platform.as_ref();
        platform.is_some_and(|it| it.os == "linux" && it.architecture == architecture())
    }
}

/// All blobs of an image, of those that a store finds by their digests.
pub fn collect(
    target: &Target,
    find: &impl Fn(&str) -> Option<Content>,
) -> std::result::Result<Vec<Blob>, Why> {
    let mut blobs = of_document(target, find, DEEPEST)?;
    blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
    blobs.dedup_by(|one, other| one.digest == other.digest);
    Ok(blobs)
}

fn of_document(
    target: &Target,
    find: &impl Fn(&str) -> Option<Content>,
    depth: usize,
) -> std::result::Result<Vec<Blob>, Why> {
    let (digest, media_type) = (&target.digest, &target.media_type);
    let is_index = INDEXES.contains(&media_type.as_str());
    if !is_index && !MANIFESTS.contains(&media_type.as_str()) {
        let text = format!("{digest} is of the kind {media_type:?}, and no image");
        return Err(text.into());
    }
    let content = find(digest);
    let content = content.ok_or_else(|| format!("containerd's store has no {digest} any more"))?;
    let mut blobs = match is_index {
        true => of_index(&read(digest, &content)?, find, depth)?,
        false => of_manifest(&read(digest, &content)?, find)?,
    };
    blobs.push(Blob {
        digest: digest.clone(),
        media_type: media_type.clone(),
        content,
    });
    Ok(blobs)
}

fn read<T: serde::de::DeserializeOwned>(
    digest: &str,
    content: &Content,
) -> std::result::Result<T, Why> {
    if content.size() > LONGEST {
        return Err(format!("{digest} is longer than documents of images are").into());
    }
    let reader = content
        .open()
        .map_err(|error| format!("read {digest}: {error}"))?;
    let document = serde_json::from_reader(reader);
    Ok(document.map_err(|error| format!("read {digest}: {error}"))?)
}

fn of_index(
    index: &Index,
    find: &impl Fn(&str) -> Option<Content>,
    depth: usize,
) -> std::result::Result<Vec<Blob>, Why> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(format!("its indexes are more than {DEEPEST} deep").into());
    };
    // With one for this machine, those for others are no help.
    let has_ours = index.manifests.iter().any(Descriptor::is_ours);
    let wanted = index
        .manifests
        .iter()
        .filter(|it| !has_ours || it.is_ours());
    let mut blobs = Vec::new();
    let mut why = None;
    for descriptor in wanted {
        match of_document(&descriptor.target(), find, depth) {
            Ok(found) => blobs.extend(found),
            Err(failed) => drop(why.get_or_insert(failed)),
        }
    }
    match (blobs.is_empty(), why) {
        (false, _) => Ok(blobs),
        (true, Some(why)) => Err(why),
        (true, None) => Err("its index names no image at all".to_owned().into()),
    }
}

fn of_manifest(
    manifest: &Manifest,
    find: &impl Fn(&str) -> Option<Content>,
) -> std::result::Result<Vec<Blob>, Why> {
    let blob = |descriptor: &Descriptor| {
        let content = find(&descriptor.digest);
        let content = content.filter(|content| content.size() == descriptor.size)?;
        Some(Blob {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
            content,
        })
    };
    let Some(config) = blob(&manifest.config) else {
        return Err("containerd's store has no config of it".to_owned().into());
    };
    let mut blobs: Vec<Blob> = manifest.layers.iter().filter_map(blob).collect();
    let (all, missing) = (manifest.layers.len(), manifest.layers.len() - blobs.len());
    if missing > 0 {
        return Err(Why::Layers { missing, all });
    }
    blobs.push(config);
    Ok(blobs)
}

#[cfg(test)]
#[path = "whole_tests.rs"]
mod tests;
