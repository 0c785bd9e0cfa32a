//! Which images of a store can be imported, and what is said of the others.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;

const INDEX: &str = INDEXES[0];
const MANIFEST: &str = MANIFESTS[0];

/// Blobs by their digests.
#[derive(Default)]
struct Shelf(HashMap<String, Content>);

impl Shelf {
    fn put(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let content = Content::of(bytes.to_vec());
        let digest = content.digest().unwrap();
        self.0.insert(digest.clone(), content);
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    fn put_json(&mut self, media_type: &str, document: &Value) -> Value {
        self.put(media_type, document.to_string().as_bytes())
    }

    /// A manifest with two layers, for a platform.
    fn image(&mut self, architecture: &str) -> Value {
        let config = self.put("config", format!("config of {architecture}").as_bytes());
        let layers = ["one", "two"].map(|text| {
            let text = format!("{text} of {architecture}");
            self.put("layer", text.as_bytes())
        });
        let manifest = json!({"config": config, "layers": layers});
        let mut descriptor = self.put_json(MANIFEST, &manifest);
        descriptor["platform"] = json!({"os": "linux", "architecture": architecture});
        descriptor
    }

    fn remove(&mut self, bytes: &str) {
        let digest = Content::of(bytes.as_bytes().to_vec()).digest().unwrap();
        self.0.remove(&digest).unwrap();
    }

    fn collect(&self, descriptor: &Value) -> std::result::Result<usize, String> {
        let text = |key: &str| descriptor[key].as_str().unwrap().to_owned();
        let target = Target {
            digest: text("digest"),
            media_type: text("mediaType"),
        };
        let blobs = collect(&target, &|digest| self.0.get(digest).cloned());
        blobs
            .map(|blobs| blobs.len())
            .map_err(|why| why.to_string())
    }
}

#[test]
fn what_other_machines_need_may_be_missing() {
    let mut shelf = Shelf::default();
    let ours = shelf.image(architecture());
    assert_eq!(shelf.collect(&ours), Ok(4));
    let other = shelf.image("other");
    let index = shelf.put_json(INDEX, &json!({"manifests": [other, ours]}));
    assert_eq!(shelf.collect(&index), Ok(5));
    shelf.remove("one of other");
    assert_eq!(shelf.collect(&index), Ok(5));
    let outer = shelf.put_json(INDEX, &json!({"manifests": [index]}));
    assert_eq!(shelf.collect(&outer), Ok(6));
}

#[test]
fn an_image_that_lacks_something_of_ours_is_told_by_what_it_lacks() {
    let mut shelf = Shelf::default();
    let ours = shelf.image(architecture());
    let other = shelf.image("other");
    let index = shelf.put_json(INDEX, &json!({"manifests": [other, ours]}));
    shelf.remove(&format!("two of {}", architecture()));
    let told = shelf.collect(&index).unwrap_err();
    assert!(told.contains("1 of its 2 layers"), "{told}");
    shelf.remove(&format!("config of {}", architecture()));
    let told = shelf.collect(&ours).unwrap_err();
    assert!(told.contains("no config"), "{told}");
    let digest = ours["digest"].as_str().unwrap().to_owned();
    shelf.0.remove(&digest).unwrap();
    let told = shelf.collect(&index).unwrap_err();
    assert!(told.contains(&digest), "{told}");
}

#[test]
fn a_layer_that_was_cut_is_none() {
    let mut shelf = Shelf::default();
    let ours = shelf.image(architecture());
    let whole = Content::of(format!("one of {}", architecture()).into_bytes());
    let digest = whole.digest().unwrap();
    shelf.0.insert(digest, Content::of(b"one".to_vec()));
    let told = shelf.collect(&ours).unwrap_err();
    assert!(told.contains("1 of its 2 layers"), "{told}");
}

#[test]
fn other_things_and_damaged_documents_are_told() {
    let mut shelf = Shelf::default();
    let chart = shelf.put("application/vnd.cncf.helm.chart", b"{}");
    let told = shelf.collect(&chart).unwrap_err();
    assert!(told.contains("helm") && told.contains("no image"), "{told}");
    let torn = shelf.put(MANIFEST, b"{\"config\":");
    let told = shelf.collect(&torn).unwrap_err();
    assert!(told.contains("read sha256:"), "{told}");
    let empty = shelf.put_json(INDEX, &json!({"manifests": []}));
    let told = shelf.collect(&empty).unwrap_err();
    assert!(told.contains("names no image"), "{told}");
    let mut index = shelf.image("other");
    for _ in 0..=DEEPEST {
        index = shelf.put_json(INDEX, &json!({"manifests": [index]}));
    }
    let told = shelf.collect(&index).unwrap_err();
    assert!(told.contains("deep"), "{told}");
}
