//! An archive of an image: an OCI layout in a tar, as tools write it that save images to files.

use serde_json::json;

use super::Packed;
use super::layer::Layer;

/// The archive of an image under a name.
#[must_use]
pub fn archive(image: &Packed, name: &str) -> Vec<u8> {
    let mut descriptor = image.manifest.descriptor();
    // The first is containerd's own; for it the other one is a tag alone.
    descriptor["annotations"] = json!({
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name,
    });
    let index = json!({"schemaVersion": 2, "manifests": [descriptor]});
    let mut tar = Layer::new()
        .file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)
        .file("index.json", index.to_string(), 0o644);
    for blob in image.blobs.iter().chain([&image.manifest]) {
        let path = format!("blobs/{}", blob.digest.replacen(':', "/", 1));
        tar = tar.file(&path, blob.bytes.clone(), 0o644);
    }
    tar.tar()
}
