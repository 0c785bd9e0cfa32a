//! Indexes and manifests: what of them a pull needs, checked.

use std::collections::BTreeMap;

use crisp_model::Digest;
use serde::Deserialize;

use crate::platform::{Platform, Runnable};

/// overlayfs takes at most this many lower layers.
const MAX_LAYERS: usize = 500;

/// A pointer to content.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

/// An image manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// What an index offers to this machine.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This one.
    Best(Descriptor),
    /// Nothing; the platforms that it does offer.
    Nothing(Vec<String>),
}

/// The best image of an index. Entries that name no platform are taken when nothing else fits:
/// their config will tell.
pub(crate) fn choose(index: &[u8], runnable: &Runnable) -> Result<Choice, String> {
    let index: Index = serde_json::from_slice(index).map_err(|e| format!("not an index: {e}"))?;
    let rank = |entry: &Descriptor| match &entry.platform {
        Some(platform) => runnable.rank(platform),
        None => Some(usize::MAX),
    };
    let best = index
        .manifests
        .iter()
        .filter(|entry| is_document(&entry.media_type))
        .filter_map(|entry| Some((rank(entry)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    Ok(match best {
        Some((_, entry)) => Choice::Best(entry.clone()),
        None => Choice::Nothing(
            index
                .manifests
                .iter()
                .filter_map(|entry| entry.platform.as_ref())
                .map(ToString::to_string)
                .filter(|name| name != "unknown/unknown")
                .take(32)
                .collect(),
        ),
    })
}

/// Parses an image manifest, and refuses what is not a container image.
pub(crate) fn parse(manifest: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest =
        serde_json::from_slice(manifest).map_err(|e| format!("not an image manifest: {e}"))?;
    let kind = manifest.config.media_type.as_str();
    if !matches!(
        kind,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
    ) {
        return Err(format!(
            "an artifact with a config of type {kind:?}, not a container image"
        ));
    }
    if manifest.layers.len() > MAX_LAYERS {
        let count = manifest.layers.len();
        return Err(format!("{count} layers: overlayfs takes {MAX_LAYERS}"));
    }
    match manifest.layers.iter().find(|l| !is_layer(&l.media_type)) {
        Some(layer) => Err(format!(
            "layer {} is of unsupported type {:?}",
            layer.digest, layer.media_type
        )),
        None => Ok(manifest),
    }
}

/// Whether a media type is that of an index.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.oci.image.index.v1+json"
            | "application/vnd.docker.distribution.manifest.list.v2+json"
    )
}

fn is_document(media_type: &str) -> bool {
    is_index(media_type)
        || matches!(
            media_type,
            "application/vnd.oci.image.manifest.v1+json"
                | "application/vnd.docker.distribution.manifest.v2+json"
        )
}

/// Whether a layer is a tar file in a compression that we know. Its first bytes say which: builders
/// are known to name the wrong one.
fn is_layer(media_type: &str) -> bool {
    let oci = ["", ".nondistributable"]
        .iter()
        .find_map(|kind| {
            let start = format!("application/vnd.oci.image.layer{kind}.v1.tar");
            media_type.strip_prefix(start.as_str())
        })
        .is_some_and(|rest| matches!(rest, "" | "+gzip" | "+zstd"));
    let docker = ["", ".foreign"]
        .iter()
        .find_map(|kind| {
            let start = format!("application/vnd.docker.image.rootfs{kind}.diff.tar");
            media_type.strip_prefix(start.as_str())
        })
        .is_some_and(|rest| matches!(rest, "" | ".gzip" | ".zstd"));
    oci || docker
}

/// `null` stands for an absent value in documents of many builders.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

    fn digest(n: u8) -> String {
        format!("sha256:{}", format!("{n:02x}").repeat(32))
    }

    fn entry(n: u8, media_type: &str, platform: &str) -> String {
        let platform = match platform.split_once('/') {
            Some((os, arch)) => {
                format!(r#","platform":{{"os":"{os}","architecture":"{arch}"}}"#)
            }
            None => String::new(),
        };
        let digest = digest(n);
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1{platform}}}"#)
    }

    fn check(entries: &[String], expected: Option<u8>) {
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let found = match choose(index.as_bytes(), &Runnable::here()).unwrap() {
            Choice::Best(entry) => Some(entry.digest.to_string()),
            Choice::Nothing(_) => None,
        };
        assert_eq!(found, expected.map(digest), "{index}");
    }

    #[test]
    fn the_index_entry_for_this_machine_is_chosen() {
        let here = &Runnable::here().name();
        let other = "linux/s390x";
        check(&[entry(1, OCI, other), entry(2, OCI, here)], Some(2));
        check(&[entry(1, OCI, ""), entry(2, OCI, here)], Some(2));
        check(&[entry(1, OCI, here), entry(2, OCI, here)], Some(1));
        check(&[entry(1, OCI, other), entry(2, OCI, "")], Some(2));
        check(&[entry(1, "text/plain", here)], None);
        check(&[entry(1, OCI, "unknown/unknown")], None);
        check(&[], None);
    }

    #[test]
    fn only_container_images_parse() {
        let manifest = |config: &str, layers: &[&str]| {
            let layers: Vec<String> = layers.iter().map(|l| entry(2, l, "")).collect();
            let config = entry(1, config, "");
            format!(
                r#"{{"config":{config},"layers":[{}],"annotations":null}}"#,
                layers.join(",")
            )
        };
        let config = "application/vnd.oci.image.config.v1+json";
        for (text, good) in [
            (manifest(config, &[]), true),
            (
                manifest(
                    config,
                    &[
                        "application/vnd.oci.image.layer.v1.tar",
                        "application/vnd.oci.image.layer.v1.tar+zstd",
                        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
                        "application/vnd.docker.image.rootfs.diff.tar.gzip",
                        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
                    ],
                ),
                true,
            ),
            (manifest("application/vnd.wasm.config.v0+json", &[]), false),
            (manifest(config, &["application/wasm"]), false),
            (
                manifest(
                    config,
                    &["application/vnd.oci.image.layer.v1.tar+gzip+encrypted"],
                ),
                false,
            ),
            (
                manifest(config, &["application/vnd.oci.image.layer.v1.tar"; 501]),
                false,
            ),
            ("{}".to_owned(), false),
            (
                manifest(config, &[]).replace("\"size\":1", "\"size\":-1"),
                false,
            ),
            (manifest(config, &[]).replace("sha256:", "md5:"), false),
        ] {
            assert_eq!(parse(text.as_bytes()).is_ok(), good, "{text:.300}");
        }
    }
}
