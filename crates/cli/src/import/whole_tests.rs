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
    let mut index = shelf.image(architecture());
    for _ in 0..=DEEPEST {
        index = shelf.put_json(INDEX, &json!({"manifests": [index]}));
    }
    let told = shelf.collect(&index).unwrap_err();
    assert!(told.contains("deep"), "{told}");
    let schema_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
    let old = shelf.put(schema_1, b"{\"fsLayers\":[]}");
    let told = shelf.collect(&old).unwrap_err();
    assert!(
        told.contains("manifest.v1") && told.contains("no image"),
        "{told}"
    );
}

/// An owner of an image could have all that follows from it walked through, which never ends.
#[test]
fn an_index_that_leads_to_others_over_and_over_is_told() {
    let mut shelf = Shelf::default();
    let mut index = shelf.image(architecture());
    for _ in 0..DEEPEST {
        let many = vec![index.clone(); 1000];
        index = shelf.put_json(INDEX, &json!({"manifests": many}));
    }
    let blobs = shelf.collect(&index);
    assert_eq!(blobs, Ok(DEEPEST + 4));
    let config = shelf.put("config", b"{}");
    let layers = vec![shelf.put("layer", b"x"); MOST_LAYERS + 1];
    let manifest = json!({"config": config, "layers": layers});
    let manifest = shelf.put_json(MANIFEST, &manifest);
    let told = shelf.collect(&manifest).unwrap_err();
    assert!(told.contains("501 layers"), "{told}");
}

/// containerd has run them, and crispd takes them.
#[test]
fn odd_but_common_forms_are_read_as_go_reads_them() {
    let mut shelf = Shelf::default();
    let ours = shelf.image(architecture());
    let digest = ours["digest"].as_str().unwrap().to_owned();
    let entries = [
        json!({"mediaType": MANIFEST, "digest": "blake3:0", "size": -1, "platform": {}}),
        json!({"digest": 3.to_string()}),
        json!({"MediaType": MANIFEST, "Digest": digest, "Size": ours["size"],
            "Platform": {"OS": "Linux", "Architecture": architecture().to_uppercase()}}),
        json!({"mediaType": MANIFEST, "digest": digest, "platform": null}),
    ];
    for (entries, expected) in [(&entries[..3], 5), (&entries[3..], 5)] {
        let index = shelf.put_json(INDEX, &json!({"manifests": entries}));
        assert_eq!(shelf.collect(&index), Ok(expected), "{entries:?}");
    }
    let mut config = shelf.put("config", b"{}");
    config.as_object_mut().unwrap().remove("mediaType");
    for layers in [json!([]), Value::Null] {
        let manifest = json!({"config": config, "layers": layers});
        let manifest = shelf.put_json(MANIFEST, &manifest);
        assert_eq!(shelf.collect(&manifest), Ok(2), "{layers}");
    }
    let nothing = shelf.put_json(INDEX, &json!({"manifests": null}));
    let told = shelf.collect(&nothing).unwrap_err();
    assert!(told.contains("names no image"), "{told}");
}

#[test]
fn images_for_other_machines_are_told_by_what_they_are_for() {
    let mut shelf = Shelf::default();
    let other = shelf.image("other");
    let mut attestation = shelf.image("unknown");
    attestation["platform"] = json!({"os": "unknown", "architecture": "unknown"});
    let index = json!({"manifests": [other, attestation]});
    let index = shelf.put_json(INDEX, &index);
    let told = shelf.collect(&index).unwrap_err();
    assert!(
        told.contains("it is for linux/other, and not for"),
        "{told}"
    );
    assert!(!told.contains("unknown"), "{told}");
    let fit = |os: &str, named: &str, processor: &str| {
        let [os, architecture] = [os, named].map(str::to_owned);
        Platform { os, architecture }.fit(processor)
    };
    for (os, named, processor, expected) in [
        ("linux", "amd64", "amd64", Some(Fit::Own)),
        ("Linux", "x86_64", "amd64", Some(Fit::Own)),
        ("linux", "aarch64", "arm64", Some(Fit::Own)),
        ("linux", "386", "amd64", Some(Fit::Older)),
        ("linux", "arm", "arm64", Some(Fit::Older)),
        ("linux", "amd64", "386", None),
        ("linux", "arm64", "amd64", None),
        ("windows", "amd64", "amd64", None),
        ("", "", "amd64", None),
    ] {
        assert_eq!(fit(os, named, processor), expected, "{os}/{named}");
    }
    assert!(Fit::Own < Fit::Older && Fit::Older < Fit::Unnamed);
}

#[test]
fn layers_are_brought_in_any_form_but_encrypted() {
    let mut shelf = Shelf::default();
    let config = shelf.put("config", b"{}");
    let kind = "application/vnd.oci.image.layer";
    for (media_type, is_whole) in [
        (format!("{kind}.v1.tar+zstd"), true),
        (format!("{kind}.nondistributable.v1.tar+gzip"), true),
        (format!("{kind}.v1.tar+gzip+encrypted"), false),
    ] {
        let layer = shelf.put(&media_type, b"layer");
        let manifest = json!({"config": config, "layers": [layer]});
        let manifest = shelf.put_json(MANIFEST, &manifest);
        let outcome = shelf.collect(&manifest);
        assert_eq!(outcome.is_ok(), is_whole, "{media_type}: {outcome:?}");
    }
}
