//! An image is whole when all is there that its name leads to on this machine. A containerd has seldom
//! what it leads to on others, and may have dropped layers that it has unpacked.
//!
//! Documents are the image's owner's: they are read as Go reads them, as containerd and crispd do, and
//! how many are followed is bounded.

use std::cell::Cell;
use std::fmt;
use std::io::Read as _;

use crisp_model::go_json;
use serde::Deserialize;

use super::store::Target;
use crate::images::{Blob, Content, architecture};

/// Indexes in indexes: more would be a circle.
const DEEPEST: usize = 4;
/// Documents that one name leads to. An index may name others many times, each of which does so again.
const MOST_DOCUMENTS: usize = 64;
/// Layers of an image: overlayfs takes no more.
const MOST_LAYERS: usize = 500;
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
/// The end of a media type of layers that are encrypted (ocicrypt).
const ENCRYPTED: &str = "+encrypted";

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

/// Words of a document about another one or about a blob. A fault in them matters where they are needed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Descriptor {
    digest: String,
    media_type: String,
    size: i64,
    platform: Option<Platform>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Platform {
    os: String,
    architecture: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Index {
    manifests: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// How well a machine runs an entry of an index, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It is for its processor.
    Own,
    /// It is for an older one, whose programs it runs as well.
    Older,
    /// It does not say what it is for.
    Unnamed,
}

impl Platform {
    /// How well a machine with this processor runs it.
    fn fit(&self, processor: &str) -> Option<Fit> {
        if !self.os.eq_ignore_ascii_case("linux") {
            return None;
        }
        let named = self.architecture.to_ascii_lowercase();
        let named = match named.as_str() {
            "x86_64" | "x86-64" => "amd64",
            "i386" | "i486" | "i586" | "i686" => "386",
            "aarch64" => "arm64",
            "armhf" | "armel" => "arm",
            other => other,
        };
        match (processor, named) {
            (own, named) if own == named => Some(Fit::Own),
            ("amd64", "386") | ("arm64", "arm") => Some(Fit::Older),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

impl Descriptor {
    fn target(&self) -> Target {
        Target {
            digest: self.digest.clone(),
            media_type: self.media_type.clone(),
        }
    }

    fn fit(&self) -> Option<Fit> {
        match &self.platform {
            Some(platform) => platform.fit(architecture()),
            None => Some(Fit::Unnamed),
        }
    }
}

/// All blobs of an image, of those that a store finds by their digests.
pub fn collect(
    target: &Target,
    find: &impl Fn(&str) -> Option<Content>,
) -> std::result::Result<Vec<Blob>, Why> {
    let walk = Walk {
        find,
        left: Cell::new(MOST_DOCUMENTS),
    };
    let mut blobs = walk.of_document(target, DEEPEST)?;
    blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
    blobs.dedup_by(|one, other| one.digest == other.digest);
    Ok(blobs)
}

fn is_document(media_type: &str) -> bool {
    INDEXES.contains(&media_type) || MANIFESTS.contains(&media_type)
}

fn read<T: serde::de::DeserializeOwned>(
    digest: &str,
    content: &Content,
) -> std::result::Result<T, Why> {
    if content.size() > LONGEST {
        return Err(format!("{digest} is longer than documents of images are").into());
    }
    let mut bytes = Vec::new();
    let read = content
        .open()
        .and_then(|mut reader| reader.read_to_end(&mut bytes));
    read.map_err(|error| format!("read {digest}: {error}"))?;
    let document = go_json::from_slice(&bytes);
    Ok(document.map_err(|error| format!("read {digest}: {error}"))?)
}

/// A way from a name to all that it leads to.
struct Walk<'f, F> {
    find: &'f F,
    /// Documents that it may still take.
    left: Cell<usize>,
}

impl<F: Fn(&str) -> Option<Content>> Walk<'_, F> {
    fn of_document(&self, target: &Target, depth: usize) -> std::result::Result<Vec<Blob>, Why> {
        let (digest, media_type) = (&target.digest, &target.media_type);
        if !is_document(media_type) {
            let text = format!("{digest} is of the kind {media_type:?}, and no image");
            return Err(text.into());
        }
        let Some(left) = self.left.get().checked_sub(1) else {
            return Err(format!("it leads to more than {MOST_DOCUMENTS} documents").into());
        };
        self.left.set(left);
        let content = (self.find)(digest);
        let content =
            content.ok_or_else(|| format!("containerd's store has no {digest} any more"))?;
        let mut blobs = match INDEXES.contains(&media_type.as_str()) {
            true => self.of_index(&read(digest, &content)?, depth)?,
            false => self.of_manifest(&read(digest, &content)?)?,
        };
        blobs.push(Blob {
            digest: digest.clone(),
            media_type: media_type.clone(),
            content,
        });
        Ok(blobs)
    }

    fn of_index(&self, index: &Index, depth: usize) -> std::result::Result<Vec<Blob>, Why> {
        let Some(depth) = depth.checked_sub(1) else {
            return Err(format!("its indexes are more than {DEEPEST} deep").into());
        };
        let documents = index.manifests.iter();
        let documents = documents.filter(|entry| is_document(&entry.media_type));
        let fits = documents.filter_map(|entry| Some((entry.fit()?, entry)));
        let fits: Vec<(Fit, &Descriptor)> = fits.collect();
        // The best ones alone are what crispd takes: others that are there are no help.
        let Some(best) = fits.iter().map(|(fit, _)| *fit).min() else {
            return Err(no_platform(index));
        };
        let mut blobs = Vec::new();
        let mut why = None;
        for (_, entry) in fits.iter().filter(|(fit, _)| *fit == best) {
            match self.of_document(&entry.target(), depth) {
                Ok(found) => blobs.extend(found),
                Err(failed) => drop(why.get_or_insert(failed)),
            }
        }
        match (blobs.is_empty(), why) {
            (true, Some(why)) => Err(why),
            _ => Ok(blobs),
        }
    }

    fn of_manifest(&self, manifest: &Manifest) -> std::result::Result<Vec<Blob>, Why> {
        let layers = &manifest.layers;
        if layers.len() > MOST_LAYERS {
            let text = format!(
                "it has {} layers, and overlayfs takes {MOST_LAYERS}",
                layers.len()
            );
            return Err(text.into());
        }
        if layers
            .iter()
            .any(|layer| layer.media_type.ends_with(ENCRYPTED))
        {
            return Err("its layers are encrypted, and crispd has no keys"
                .to_owned()
                .into());
        }
        let Some(config) = self.blob(&manifest.config) else {
            return Err("containerd's store has no config of it".to_owned().into());
        };
        let mut blobs: Vec<Blob> = layers.iter().filter_map(|layer| self.blob(layer)).collect();
        let (all, missing) = (layers.len(), layers.len() - blobs.len());
        if missing > 0 {
            return Err(Why::Layers { missing, all });
        }
        blobs.push(config);
        Ok(blobs)
    }

    fn blob(&self, descriptor: &Descriptor) -> Option<Blob> {
        let content = (self.find)(&descriptor.digest);
        let size = u64::try_from(descriptor.size).ok();
        Some(Blob {
            digest: descriptor.digest.clone(),
            media_type: descriptor.media_type.clone(),
            content: content.filter(|content| Some(content.size()) == size)?,
        })
    }
}

fn no_platform(index: &Index) -> Why {
    let named = index.manifests.iter();
    let named = named.filter_map(|entry| entry.platform.as_ref());
    let named = named.map(ToString::to_string);
    let named: Vec<String> = named.filter(|it| it != "unknown/unknown").take(8).collect();
    let here = architecture();
    match named.is_empty() {
        true => "its index names no image at all".to_owned().into(),
        false => format!("it is for {}, and not for linux/{here}", named.join(", ")).into(),
    }
}

#[cfg(test)]
#[path = "whole_tests.rs"]
mod tests;
