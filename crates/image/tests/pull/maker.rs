//! Makes small images: layers, config, manifest, index.

use std::io::Write;

use crisp_model::Digest;
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// How a layer is packed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packing {
    Plain,
    Gzip,
    Zstd,
    DockerGzip,
}

/// A made image: everything that a registry serves for it.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// Digest of its config.
    pub(crate) id: Digest,
    /// Digest of its manifest, or of the index over it.
    pub(crate) root: Digest,
    /// Manifest and index with their media types.
    pub(crate) documents: Vec<(Digest, &'static str, Vec<u8>)>,
    /// Config and layers; the config is the first.
    pub(crate) blobs: Vec<(Digest, Vec<u8>)>,
}

pub(crate) fn sha256(content: &[u8]) -> Digest {
    Digest::sha256(Sha256::digest(content).into())
}

/// A tar file of regular files.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_entry_type(tar::EntryType::Regular);
        tar.append_data(&mut header, path, content.as_bytes())
            .unwrap();
    }
    tar.into_inner().unwrap()
}

fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Zstd => zstd::encode_all(tar, 3).unwrap(),
        Packing::Gzip | Packing::DockerGzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(tar).unwrap();
            encoder.finish().unwrap()
        }
    }
}

fn descriptor(kind: &str, content: &[u8]) -> String {
    let (digest, size) = (sha256(content), content.len());
    format!(r#"{{"mediaType":"{kind}","digest":"{digest}","size":{size}}}"#)
}

/// An image with these layers, bottom first.
pub(crate) fn image(layers: &[(Packing, Vec<u8>)]) -> Image {
    let diff_ids: Vec<String> = layers
        .iter()
        .map(|(_, tar)| format!("\"{}\"", sha256(tar)))
        .collect();
    let config = format!(
        r#"{{"os":"linux","architecture":"amd64","created":"2024-01-01T00:00:00Z",
            "config":{{"User":"7","Env":["A=b"],"Cmd":["/run"]}},
            "rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        diff_ids.join(",")
    )
    .into_bytes();
    with_config(&config, layers)
}

/// An image with this config and these layers, whether they agree or not.
pub(crate) fn with_config(config: &[u8], layers: &[(Packing, Vec<u8>)]) -> Image {
    let docker = layers
        .iter()
        .any(|(packing, _)| matches!(packing, Packing::DockerGzip));
    let mut blobs = vec![(sha256(config), config.to_vec())];
    let mut entries = Vec::new();
    for (packing, tar) in layers {
        let blob = pack(tar, *packing);
        let kind = match packing {
            Packing::Plain => OCI_LAYER.to_owned(),
            Packing::Gzip => format!("{OCI_LAYER}+gzip"),
            Packing::Zstd => format!("{OCI_LAYER}+zstd"),
            Packing::DockerGzip => format!("{DOCKER_LAYER}.gzip"),
        };
        entries.push(descriptor(&kind, &blob));
        blobs.push((sha256(&blob), blob));
    }
    let kind = if docker {
        DOCKER_MANIFEST
    } else {
        OCI_MANIFEST
    };
    let config_kind = if docker { DOCKER_CONFIG } else { OCI_CONFIG };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}","config":{},"layers":[{}]}}"#,
        descriptor(config_kind, config),
        entries.join(",")
    )
    .into_bytes();
    let root = sha256(&manifest);
    let id = sha256(config);
    Image {
        id,
        root: root.clone(),
        documents: vec![(root, kind, manifest)],
        blobs,
    }
}

/// Puts an index over an image, with a decoy for another machine before it.
pub(crate) fn index(mut image: Image) -> Image {
    let (digest, kind, manifest) = image.documents[0].clone();
    let decoy = format!("sha256:{}", "0d".repeat(32));
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[
            {{"mediaType":"{kind}","digest":"{decoy}","size":9,
              "platform":{{"os":"linux","architecture":"s390x"}}}},
            {{"mediaType":"{kind}","digest":"{digest}","size":{},
              "platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        manifest.len()
    )
    .into_bytes();
    image.root = sha256(&index);
    image.documents.push((image.root.clone(), OCI_INDEX, index));
    image
}

/// Takes the decoy and the platform out of an image's index: only the config tells then.
pub(crate) fn without_platforms(mut image: Image) -> Image {
    let (digest, kind, manifest) = image.documents[0].clone();
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}","digest":"{digest}","size":{}}}]}}"#,
        manifest.len()
    )
    .into_bytes();
    image.documents.truncate(1);
    image.root = sha256(&index);
    image.documents.push((image.root.clone(), OCI_INDEX, index));
    image
}

/// The image with another manifest over the same blobs.
pub(crate) fn with_manifest(mut image: Image, change: impl Fn(&str) -> String) -> Image {
    let (_, kind, manifest) = image.documents.swap_remove(0);
    let manifest = change(std::str::from_utf8(&manifest).unwrap()).into_bytes();
    image.root = sha256(&manifest);
    image.documents = vec![(image.root.clone(), kind, manifest)];
    image
}

/// A one-layer image with one file.
pub(crate) fn simple(content: &str) -> Image {
    image(&[(Packing::Gzip, tar(&[("etc/motd", content)]))])
}
