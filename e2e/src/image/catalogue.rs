//! The images that the tests use.

use std::collections::BTreeMap;

use serde_json::json;

use super::layer::{Layer, Packing};
use super::{Blob, Flavour, Image, Packed, busybox, index};

/// The page that the image `web` of [`catalogue`] serves.
pub const PAGE: &str = "hello from a pod\n";
/// Layers of the image `layers`, the base not counted.
pub const LAYERS: usize = 39;

/// An entry of a registry: the images, and an index over them when there are several.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Images, one for each platform.
    pub images: Vec<Packed>,
    /// The document that the tag points at, unless that is the only image's manifest.
    pub index: Option<Blob>,
}

impl From<&Image> for Entry {
    fn from(image: &Image) -> Self {
        Self {
            images: vec![image.pack()],
            index: None,
        }
    }
}

/// A web server with one page, on port 80.
#[must_use]
pub fn web() -> Image {
    let page = Layer::new().file("www/index.html", PAGE, 0o644);
    busybox::image().with(page, Packing::Gzip).config(json!({
        "Cmd": ["httpd", "-f", "-v", "-p", "80", "-h", "/www"],
        "ExposedPorts": {"80/tcp": {}},
    }))
}

/// All images by name; the tag of each is `1`.
#[must_use]
pub fn catalogue() -> BTreeMap<&'static str, Entry> {
    let base = busybox::image();
    let user = |user: &str| Entry::from(&base.clone().config(json!({"User": user})));
    let stop = |signal: &str| Entry::from(&base.clone().config(json!({"StopSignal": signal})));
    let packed = |packing| {
        let marker = Layer::new().file("marker", format!("{packing:?}"), 0o644);
        Entry::from(&base.clone().with(marker, packing))
    };
    let docker = Image {
        flavour: Flavour::Docker,
        ..base.clone()
    };
    BTreeMap::from([
        ("busybox", Entry::from(&base)),
        ("web", Entry::from(&web())),
        ("docker", Entry::from(&docker)),
        ("plain", packed(Packing::Plain)),
        ("zstd", packed(Packing::Zstd)),
        ("user-number", user("1002")),
        ("user-name", user("www-data")),
        ("user-group", user("1003:1004")),
        ("user-huge", user("4294967296")),
        ("user-unknown", user("nobody-knows")),
        ("stop-usr1", stop("SIGUSR1")),
        ("stop-rtmin", stop("RTMIN+3")),
        ("stop-none", stop("SIGNONE")),
        ("volume", volume(&base)),
        ("layers", layers(&base)),
        ("index", platforms(&base)),
        ("foreign", foreign(&base)),
        ("liar", liar()),
    ])
}

fn volume(base: &Image) -> Entry {
    let content = Layer::new()
        .dir("data", 0o750)
        .owned(1000, 1000)
        .file("data/first", "from the image\n", 0o640)
        .owned(1000, 1000);
    let config = json!({"Volumes": {"/data": {}}});
    Entry::from(&base.clone().with(content, Packing::Gzip).config(config))
}

/// Many layers: each writes `/n/NUMBER`, deletes the one before the last, rewrites `/last`.
fn layers(base: &Image) -> Entry {
    let mut image = base.clone();
    for number in 1..=LAYERS {
        let mut layer = Layer::new()
            .dir("n", 0o755)
            .file("last", number.to_string(), 0o644);
        if number > 2 {
            layer = layer.without(&format!("n/{}", number - 2));
        }
        layer = layer.file(&format!("n/{number}"), "x", 0o644);
        let packing = [Packing::Gzip, Packing::Zstd, Packing::Plain][number % 3];
        image = image.with(layer, packing);
    }
    Entry::from(&image)
}

fn platforms(base: &Image) -> Entry {
    let here = base.pack();
    let mut other = Image::new(Layer::new().file("other", "x", 0o644), json!({}));
    "s390x".clone_into(&mut other.architecture);
    let images = vec![other.pack(), here];
    Entry {
        index: Some(index(&images)),
        images,
    }
}

/// An index without an image for this machine.
fn foreign(base: &Image) -> Entry {
    let mut image = base.clone();
    "s390x".clone_into(&mut image.architecture);
    let images = vec![image.pack()];
    Entry {
        index: Some(index(&images)),
        images,
    }
}

/// A manifest whose config names another content for its layer than the layer has. No other image
/// has that layer: one that is there by its content is not fetched again.
fn liar() -> Entry {
    let honest = Image::new(Layer::new().file("honest", "x", 0o644), json!({})).pack();
    let other = Image::new(Layer::new().file("other", "x", 0o644), json!({})).pack();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": honest.manifest.media_type,
        "config": honest.blobs[0].descriptor(),
        "layers": [other.blobs[1].descriptor()],
    });
    let manifest = Blob::new(
        honest.manifest.media_type,
        manifest.to_string().into_bytes(),
    );
    let blobs = vec![honest.blobs[0].clone(), other.blobs[1].clone()];
    let platform = honest.platform;
    Entry {
        images: vec![Packed {
            blobs,
            manifest,
            platform,
        }],
        index: None,
    }
}
