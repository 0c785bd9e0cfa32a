//! Makes images from Debian's busybox and pushes them to a registry.
//!
//! Nothing in an image depends on time or chance: the same machine makes the same digests.

pub mod archive;
pub mod busybox;
pub mod catalogue;
pub mod layer;
pub mod push;
pub mod suites;

use layer::{Layer, Packing};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const OCI: &str = "application/vnd.oci.image";
const DOCKER: &str = "application/vnd.docker";

/// Which media types an image has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// OCI image specification.
    Oci,
    /// Docker image manifest, version 2, schema 2.
    Docker,
}

/// An image that is described and can be pushed.
#[derive(Debug, Clone)]
pub struct Image {
    /// Layers, bottom first, with the packing of each.
    pub layers: Vec<(Layer, Packing)>,
    /// The `config` object of the image config: `Cmd`, `Env`, `User` and so on.
    pub config: Value,
    /// Processor, in Go's words.
    pub architecture: String,
    /// Media types.
    pub flavour: Flavour,
}

/// A document or blob of a registry.
#[derive(Debug, Clone)]
pub struct Blob {
    /// `sha256:…`
    pub digest: String,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    /// Takes bytes and computes their digest.
    #[must_use]
    pub fn new(media_type: impl Into<String>, bytes: Vec<u8>) -> Self {
        Self {
            digest: digest(&bytes),
            media_type: media_type.into(),
            bytes,
        }
    }

    /// The descriptor by which a manifest or index names it.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image as a registry holds it.
#[derive(Debug, Clone)]
pub struct Packed {
    /// Config and layers.
    pub blobs: Vec<Blob>,
    /// The manifest.
    pub manifest: Blob,
    /// `os` and `architecture`.
    pub platform: Value,
}

impl Packed {
    /// Digest of the image config: what CRI calls the image's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.blobs[0].digest
    }
}

impl Image {
    /// An image with one layer.
    #[must_use]
    pub fn new(layer: Layer, config: Value) -> Self {
        Self {
            layers: vec![(layer, Packing::Gzip)],
            config,
            architecture: native().to_owned(),
            flavour: Flavour::Oci,
        }
    }

    /// Adds a layer on top.
    #[must_use]
    pub fn with(mut self, layer: Layer, packing: Packing) -> Self {
        self.layers.push((layer, packing));
        self
    }

    /// Replaces fields of the config.
    #[must_use]
    pub fn config(mut self, fields: Value) -> Self {
        if let (Value::Object(config), Value::Object(fields)) = (&mut self.config, fields) {
            config.extend(fields);
        }
        self
    }

    /// Makes the image's documents and blobs.
    #[must_use]
    pub fn pack(&self) -> Packed {
        let tars: Vec<(Vec<u8>, Packing)> = self
            .layers
            .iter()
            .map(|(layer, packing)| (layer.tar(), *packing))
            .collect();
        let diff_ids: Vec<String> = tars.iter().map(|(tar, _)| digest(tar)).collect();
        let platform = json!({"os": "linux", "architecture": self.architecture});
        let mut config = json!({
            "created": "2024-01-01T00:00:00Z",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        config["os"] = platform["os"].clone();
        config["architecture"] = platform["architecture"].clone();
        let layers = tars
            .iter()
            .map(|(tar, packing)| Blob::new(self.layer_type(*packing), packing.pack(tar)));
        let layers: Vec<Blob> = layers.collect();
        self.assemble(config.to_string().into_bytes(), layers, platform)
    }

    fn assemble(&self, config: Vec<u8>, layers: Vec<Blob>, platform: Value) -> Packed {
        let (config_type, manifest_type) = match self.flavour {
            Flavour::Oci => (
                format!("{OCI}.config.v1+json"),
                format!("{OCI}.manifest.v1+json"),
            ),
            Flavour::Docker => (
                format!("{DOCKER}.container.image.v1+json"),
                format!("{DOCKER}.distribution.manifest.v2+json"),
            ),
        };
        let config = Blob::new(config_type, config);
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": config.descriptor(),
            "layers": layers.iter().map(Blob::descriptor).collect::<Vec<_>>(),
        });
        let manifest = Blob::new(manifest_type, manifest.to_string().into_bytes());
        let mut blobs = vec![config];
        blobs.extend(layers);
        Packed {
            blobs,
            manifest,
            platform,
        }
    }

    fn layer_type(&self, packing: Packing) -> String {
        match (self.flavour, packing) {
            (Flavour::Docker, _) => format!("{DOCKER}.image.rootfs.diff.tar.gzip"),
            (Flavour::Oci, Packing::Plain) => format!("{OCI}.layer.v1.tar"),
            (Flavour::Oci, Packing::Gzip) => format!("{OCI}.layer.v1.tar+gzip"),
            (Flavour::Oci, Packing::Zstd) => format!("{OCI}.layer.v1.tar+zstd"),
        }
    }
}

/// An index over images for several platforms.
#[must_use]
pub fn index(images: &[Packed]) -> Blob {
    let manifests: Vec<Value> = images
        .iter()
        .map(|image| {
            let mut descriptor = image.manifest.descriptor();
            descriptor["platform"] = image.platform.clone();
            descriptor
        })
        .collect();
    let kind = format!("{OCI}.index.v1+json");
    let index = json!({"schemaVersion": 2, "mediaType": kind, "manifests": manifests});
    Blob::new(kind, index.to_string().into_bytes())
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// This machine's processor, in Go's words.
#[must_use]
pub fn native() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
