//! Images that are not as the specification has them, and that run everywhere all the same.

use crisp_image::{ImageInfo, Images};

use crate::maker::{
    Image, OCI_CONFIG, Packing, image, index, sha256, simple, tar, with_config, with_manifest,
    without_platforms,
};
use crate::{Registry, open};

/// The config of an image with one layer.
fn config(platform: &str, section: &str, rootfs: &str) -> Vec<u8> {
    let diff_id = sha256(&layer().1);
    format!(
        r#"{{{platform},"config":{{{section}}},"{rootfs}":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#
    )
    .into_bytes()
}

fn layer() -> (Packing, Vec<u8>) {
    (Packing::Gzip, tar(&[("etc/motd", "x")]))
}

fn platform(os: &str, architecture: &str) -> Vec<u8> {
    let platform = format!(r#""os":"{os}","architecture":"{architecture}""#);
    config(&platform, "", "rootfs")
}

async fn pull(images: &Images, registry: &Registry, what: &str, made: &Image) -> ImageInfo {
    let name = registry.push(made, "a/b:t");
    let pulled = images.pull(&name, None).await;
    let id = pulled.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(id, made.id, "{what}");
    images.find(&name).unwrap().unwrap()
}

#[tokio::test]
async fn privileged_a_label_of_another_platform_stops_no_image() {
    let registry = Registry::start().await;
    let root = tempfile::tempdir().unwrap();
    let images = open(root.path());
    let one = |config: &[u8]| with_config(config, &[layer()]);
    let v8 = r#""os":"linux","architecture":"amd64","variant":"v8""#;
    for (what, made) in [
        (
            "index amd64, config arm64",
            index(one(&platform("linux", "arm64"))),
        ),
        ("config arm64 alone", one(&platform("linux", "arm64"))),
        ("config amd64/v8", one(&config(v8, "", "rootfs"))),
        (
            "index amd64, config darwin",
            index(one(&platform("darwin", "amd64"))),
        ),
        (
            "index without platforms",
            without_platforms(index(simple("x"))),
        ),
    ] {
        pull(&images, &registry, what, &made).await;
    }
}

#[tokio::test]
async fn privileged_keys_of_any_case_are_read() {
    let registry = Registry::start().await;
    let root = tempfile::tempdir().unwrap();
    let images = open(root.path());
    let amd64 = r#""OS":"linux","Architecture":"amd64""#;
    let section = r#""cmd":["/bin/sh"],"env":["FOO=1"],"workingdir":"/tmp","user":"1000""#;
    let lower = with_config(&config(amd64, section, "rootfS"), &[layer()]);
    let found = pull(&images, &registry, "lower case", &lower).await;
    assert_eq!(found.config.user, "1000");
    assert_eq!(found.config.env, ["FOO=1"]);
    assert_eq!(
        (found.os.as_str(), found.architecture.as_str()),
        ("linux", "amd64")
    );
    let capitals = |manifest: &str| {
        let words = [
            "schemaVersion",
            "mediaType",
            "config",
            "layers",
            "digest",
            "size",
        ];
        words.iter().fold(manifest.to_owned(), |text, word| {
            let capital = word[..1].to_uppercase() + &word[1..];
            text.replace(&format!("\"{word}\""), &format!("\"{capital}\""))
        })
    };
    let made = with_manifest(simple("capitals"), capitals);
    pull(&images, &registry, "capitals", &made).await;
}

#[tokio::test]
async fn privileged_configs_of_old_tools_are_known_by_their_content() {
    let registry = Registry::start().await;
    let root = tempfile::tempdir().unwrap();
    let images = open(root.path());
    for kind in [
        "application/octet-stream",
        "application/json",
        "text/html",
        "",
        "application/vnd.docker.container.image.v1+json; charset=utf-8",
    ] {
        let made = with_manifest(simple(kind), |text| text.replace(OCI_CONFIG, kind));
        let found = pull(&images, &registry, kind, &made).await;
        assert_eq!(found.config.user, "7", "{kind}");
        let other = with_config(b"what an artifact has", &[layer()]);
        let other = with_manifest(other, |text| text.replace(OCI_CONFIG, kind));
        let name = registry.push(&other, "a/c:t");
        let error = images.pull(&name, None).await.unwrap_err().to_string();
        assert!(error.contains("not an image config"), "{kind}: {error}");
    }
}

#[tokio::test]
async fn privileged_an_image_may_have_no_layers() {
    let registry = Registry::start().await;
    let root = tempfile::tempdir().unwrap();
    let images = open(root.path());
    for (what, layers) in [
        ("an empty list", r#","layers":[]"#),
        ("null", r#","layers":null"#),
        ("no key", ""),
    ] {
        let made = with_manifest(image(&[]), |text| text.replace(r#","layers":[]"#, layers));
        let found = pull(&images, &registry, what, &made).await;
        assert!(found.layers.is_empty(), "{what}");
    }
}
