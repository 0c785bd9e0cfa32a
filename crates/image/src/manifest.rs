//! Indexes and manifests: what of them a pull needs, checked.

use std::collections::BTreeMap;

use crisp_model::{Digest, go_json};
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
    #[serde(default)]
    pub(crate) size: u64,
}

/// An entry of an index. A fault in it matters only when it is the entry for this machine.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Entry {
    media_type: String,
    digest: String,
    size: i64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Entry>,
}

/// An image manifest.
#[derive(Debug, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) config: Descriptor,
    #[serde(default)]
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default)]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// The manifest that an index offers to this machine.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This one, by its platform.
    Best(Descriptor),
    /// These name no platform: their configs tell.
    Unnamed(Vec<Descriptor>),
    /// Nothing; the platforms that it does offer.
    Nothing(Vec<String>),
}

/// Entries without a platform that are looked into.
const MAX_UNNAMED: usize = 8;

impl Entry {
    fn descriptor(&self) -> Result<Descriptor, String> {
        let digest = Digest::parse(&self.digest).map_err(|e| e.to_string())?;
        let size = u64::try_from(self.size);
        let size = size.map_err(|_| format!("entry {digest} has size {}", self.size))?;
        let media_type = self.media_type.clone();
        Ok(Descriptor {
            media_type,
            digest,
            size,
        })
    }
}

/// The best image of an index. Entries that name no platform are taken when nothing else fits.
pub(crate) fn choose(index: &[u8], runnable: &Runnable) -> Result<Choice, String> {
    let index: Index = go_json::from_slice(index).map_err(|e| format!("not an index: {e}"))?;
    let documents = || {
        let entries = index.manifests.iter();
        entries.filter(|entry| is_document(&entry.media_type))
    };
    let best = documents()
        .filter_map(|entry| Some((runnable.rank(entry.platform.as_ref()?)?, entry)))
        .min_by_key(|(rank, _)| *rank);
    if let Some((_, entry)) = best {
        return entry.descriptor().map(Choice::Best);
    }
    let unnamed = documents().filter(|entry| entry.platform.is_none());
    let unnamed: Vec<Descriptor> = unnamed
        .take(MAX_UNNAMED)
        .map(Entry::descriptor)
        .collect::<Result<_, _>>()?;
    if !unnamed.is_empty() {
        return Ok(Choice::Unnamed(unnamed));
    }
    let named = index.manifests.iter();
    let named = named.filter_map(|entry| entry.platform.as_ref());
    let offered = named.map(ToString::to_string);
    let offered = offered.filter(|name| name != "unknown/unknown");
    Ok(Choice::Nothing(offered.take(32).collect()))
}

/// Parses an image manifest, and refuses what is not a container image.
pub(crate) fn parse(manifest: &[u8]) -> Result<Manifest, String> {
    let manifest: Manifest =
        go_json::from_slice(manifest).map_err(|e| format!("not an image manifest: {e}"))?;
    let kind = manifest.config.media_type.as_str();
    if !is_config(kind) {
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

/// Whether a config may be that of an image. Tools of old gave it the type of any file, or none, as
/// Docker knows them too: what it holds will tell.
fn is_config(media_type: &str) -> bool {
    let bare = media_type.split(';').next().unwrap_or_default().trim();
    matches!(
        bare,
        "application/vnd.oci.image.config.v1+json"
            | "application/vnd.docker.container.image.v1+json"
            | "application/octet-stream"
            | "application/json"
            | "text/html"
            | ""
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
            Choice::Unnamed(entries) => Some(entries[0].digest.to_string()),
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
            (manifest("application/vnd.oci.empty.v1+json", &[]), false),
            (
                manifest("application/vnd.docker.plugin.v1+json", &[]),
                false,
            ),
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
    /// Forms that containerd takes are taken, except where said.
    #[test]
    fn odd_but_common_forms_of_a_manifest() {
        let config = |kind: &str| format!(r#""config":{}"#, entry(1, kind, ""));
        let oci = config("application/vnd.oci.image.config.v1+json");
        let layer = entry(2, "application/vnd.oci.image.layer.v1.tar", "");
        let untyped = format!(r#""config":{{"digest":"{}","size":1}}"#, digest(1));
        for (layers, text) in [
            (0, format!("{{{oci}}}")),
            (0, format!(r#"{{{oci},"layers":null}}"#)),
            (0, format!(r#"{{{oci},"layers":[]}}"#)),
            (
                1,
                format!(r#"{{{oci},"Layers":[{layer}],"SchemaVersion":2}}"#),
            ),
            (
                1,
                format!(
                    r#"{{{oci},"LAYERS":[{}]}}"#,
                    layer.to_uppercase().replace("SHA256", "sha256").replace(
                        "APPLICATION/VND.OCI.IMAGE.LAYER.V1.TAR",
                        "application/vnd.oci.image.layer.v1.tar"
                    )
                ),
            ),
            (0, format!(r#"{{{oci},"layers":[{layer}],"layers":[]}}"#)),
            (
                0,
                format!(r#"{{"config":{{"size":3}},{oci},"annotations":{{"a":null}}}}"#),
            ),
            // containerd fetches these and cannot unpack them; Docker and CRI-O run them.
            (0, format!("{{{untyped}}}")),
            (0, format!("{{{}}}", config("application/octet-stream"))),
            (0, format!("{{{}}}", config("application/json"))),
            (0, format!("{{{}}}", config("text/html"))),
            (
                0,
                format!(
                    "{{{}}}",
                    config("application/vnd.docker.container.image.v1+json; charset=utf-8")
                ),
            ),
        ] {
            let parsed = parse(text.as_bytes());
            let parsed = parsed.unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed.layers.len(), layers, "{text}");
        }
    }

    #[test]
    fn odd_but_common_forms_of_an_index() {
        let here = &Runnable::here().name();
        let good = entry(1, OCI, here);
        let upper = good.replace("platform", "Platform").replace("\"os", "\"OS");
        check(&[upper.replace("mediaType", "MediaType")], Some(1));
        // An error in an entry for other platforms is nothing to us.
        let foreign = entry(2, OCI, "linux/s390x");
        check(
            &[foreign.replace("sha256:", "blake3:"), good.clone()],
            Some(1),
        );
        check(&[foreign.replace(":1,", ":-1,"), good.clone()], Some(1));
        check(
            &[entry(2, OCI, "").replace('}', r#","platform":null}"#), good],
            Some(1),
        );
        for index in [r#"{"manifests":null}"#, "{}"] {
            let found = choose(index.as_bytes(), &Runnable::here()).unwrap();
            assert!(matches!(found, Choice::Nothing(_)));
        }
        let wrong = entry(1, OCI, here).replace("sha256:", "blake3:");
        let wrong = format!(r#"{{"manifests":[{wrong}]}}"#);
        assert!(choose(wrong.as_bytes(), &Runnable::here()).is_err());
    }
}
