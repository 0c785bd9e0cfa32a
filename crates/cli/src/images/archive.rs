//! An archive of images, as `docker save` and tools of the OCI write them: a tar with an OCI layout, or
//! with Docker's `manifest.json`, or with both. Its layers stay in the file.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};
use tar::EntryType;

use super::blob::{Blob, Content, Image};
use crate::failure::{Context as _, Failure, Remedy as _, Result};

/// Manifests and configs are this small.
const MOST: u64 = 16 << 20;
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Where tools note an image's name, the more exact one first.
const NAMES: [&str; 2] = [
    "io.containerd.image.name",
    "org.opencontainers.image.ref.name",
];

/// The files of an archive.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    files: HashMap<String, Content>,
}

/// An entry of Docker's `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Archive {
    /// Reads which files there are.
    pub fn open(path: &Path) -> Result<Self> {
        let step = || format!("{}: read the archive", path.display());
        let file = File::open(path).context(step)?;
        let mut files = HashMap::new();
        let mut links = Vec::new();
        let mut tar = tar::Archive::new(file);
        let entries = tar.entries().context(step)?;
        for entry in entries {
            let entry = entry.context(step).remedy(|| {
                "it has to be a tar that is not compressed (gunzip or zstd -d makes one)".to_owned()
            })?;
            let name = entry.path().context(step)?.display().to_string();
            let name = name.trim_start_matches("./").to_owned();
            match entry.header().entry_type() {
                EntryType::Regular => {
                    let part = Content::Part {
                        path: path.to_owned(),
                        offset: entry.raw_file_position(),
                        size: entry.size(),
                    };
                    files.insert(name, part);
                }
                // Docker has links for layers that images share.
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name().context(step)?.unwrap_or_default();
                    links.push((name, target.into_owned()));
                }
                _ => {}
            }
        }
        for (name, target) in links {
            let beside = Path::new(&name).parent().unwrap_or(Path::new(""));
            let there = files.get(&flat(&beside.join(target)));
            if let Some(content) = there.cloned() {
                files.insert(name, content);
            }
        }
        Ok(Self {
            path: path.to_owned(),
            files,
        })
    }

    /// The images in it; one that has no name gets the one that is given.
    pub fn images(&self, name: Option<&str>) -> Result<Vec<Image>> {
        let images = match self.files.contains_key("index.json") {
            true => self.of_layout(name)?,
            false => self.of_docker(name)?,
        };
        match images.is_empty() {
            false => Ok(images),
            true => Err(Failure::new(format!(
                "{}: no image in it has a name",
                self.path.display()
            ))
            .remedy("--as NAME gives it one")),
        }
    }

    fn of_layout(&self, name: Option<&str>) -> Result<Vec<Image>> {
        let index = self.json("index.json")?;
        let mut images = Vec::new();
        for descriptor in index["manifests"].as_array().into_iter().flatten() {
            let noted = NAMES
                .iter()
                .find_map(|key| descriptor["annotations"][key].as_str());
            let Some(name) = name.or(noted) else {
                continue;
            };
            let mut blobs = Vec::new();
            self.collect(descriptor, &mut blobs)?;
            images.push(Image {
                name: name.to_owned(),
                digest: text(descriptor, "digest"),
                blobs,
            });
        }
        Ok(images)
    }

    /// A blob and all that it leads to; platforms of an index that are not in the archive are left out.
    fn collect(&self, descriptor: &Value, blobs: &mut Vec<Blob>) -> Result<()> {
        let digest = text(descriptor, "digest");
        let path = format!("blobs/{}", digest.replacen(':', "/", 1));
        let content = self.file(&path)?;
        let media_type = text(descriptor, "mediaType");
        let leads_on = media_type.contains("manifest") || media_type.contains("index");
        if blobs.iter().any(|blob| blob.digest == digest) {
            return Ok(());
        }
        blobs.push(Blob {
            digest,
            media_type,
            content: content.clone(),
        });
        if !leads_on {
            return Ok(());
        }
        let document = self.parse(&path, content)?;
        for manifest in document["manifests"].as_array().into_iter().flatten() {
            let digest = text(manifest, "digest");
            let path = format!("blobs/{}", digest.replacen(':', "/", 1));
            if self.files.contains_key(&path) {
                self.collect(manifest, blobs)?;
            }
        }
        if document["config"].is_object() {
            self.collect(&document["config"], blobs)?;
        }
        for layer in document["layers"].as_array().into_iter().flatten() {
            self.collect(layer, blobs)?;
        }
        Ok(())
    }

    fn of_docker(&self, name: Option<&str>) -> Result<Vec<Image>> {
        let step = || format!("{}: read its manifest.json", self.path.display());
        let saved: Vec<Saved> =
            serde_json::from_value(self.json("manifest.json")?).context(step)?;
        let mut images = Vec::new();
        for image in saved {
            let tags = image.repo_tags.clone().unwrap_or_default();
            let names = match name {
                Some(name) => vec![name.to_owned()],
                None => tags,
            };
            if names.is_empty() {
                continue;
            }
            let blobs = self.saved(&image)?;
            let digest = blobs.last().map(|blob| blob.digest.clone());
            images.extend(names.into_iter().map(|name| Image {
                name,
                digest: digest.clone().unwrap_or_default(),
                blobs: blobs.clone(),
            }));
        }
        Ok(images)
    }

    /// The blobs of an image that has no manifest of the registry's kind, and one for it.
    fn saved(&self, image: &Saved) -> Result<Vec<Blob>> {
        let blob = |file: &str, media_type: &str| {
            let content = self.file(file)?.clone();
            let digest = content.digest();
            Ok(Blob {
                digest: digest.context(|| format!("{}: read {file}", self.path.display()))?,
                media_type: media_type.to_owned(),
                content,
            })
        };
        let mut blobs = vec![blob(&image.config, CONFIG)?];
        for layer in &image.layers {
            blobs.push(blob(layer, LAYER)?);
        }
        let descriptors = blobs.iter().map(|blob| {
            json!({"mediaType": blob.media_type, "digest": blob.digest, "size": blob.content.size()})
        });
        let descriptors: Vec<Value> = descriptors.collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptors[0],
            "layers": descriptors[1..],
        });
        let content = Content::of(manifest.to_string().into_bytes());
        blobs.push(Blob {
            digest: content
                .digest()
                .context(|| format!("{}: make a manifest", self.path.display()))?,
            media_type: MANIFEST.to_owned(),
            content,
        });
        Ok(blobs)
    }

    fn file(&self, name: &str) -> Result<&Content> {
        self.files.get(name).ok_or_else(|| {
            Failure::new(format!("{}: it has no {name}", self.path.display()))
                .remedy("it has to be an archive of `docker save`, or of an OCI layout")
        })
    }

    fn json(&self, name: &str) -> Result<Value> {
        self.parse(name, self.file(name)?)
    }

    fn parse(&self, name: &str, content: &Content) -> Result<Value> {
        let step = || format!("{}: read {name}", self.path.display());
        if content.size() > MOST {
            return Err(Failure::new(format!("{}: more than {MOST} bytes", step())));
        }
        serde_json::from_reader(content.open().context(step)?).context(step)
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// A path without `..`, by its words alone.
fn flat(path: &Path) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.to_str().unwrap_or_default().split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn archive(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Archive) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.tar");
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        let bytes = tar.into_inner().unwrap();
        File::create(&path).unwrap().write_all(&bytes).unwrap();
        (dir, Archive::open(&path).unwrap())
    }

    #[test]
    fn what_docker_saves_becomes_an_image_with_a_manifest() {
        let manifest =
            br#"[{"Config":"c.json","RepoTags":["a:1","b:2"],"Layers":["l/layer.tar"]}]"#;
        let files: [(&str, &[u8]); 3] = [
            ("manifest.json", manifest),
            ("c.json", b"{}"),
            ("l/layer.tar", b"x"),
        ];
        let (_dir, archive) = archive(&files);
        let images = archive.images(None).unwrap();
        let names: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["a:1", "b:2"]);
        assert_eq!(images[0].blobs.len(), 3);
        let manifest = &images[0].blobs[2];
        assert_eq!(manifest.digest, images[0].digest);
        let renamed = archive.images(Some("c:3")).unwrap();
        assert_eq!((renamed.len(), renamed[0].name.as_str()), (1, "c:3"));
    }

    #[test]
    fn a_layout_is_followed_to_its_layers() {
        let manifest = br#"{"config":{"mediaType":"c","digest":"sha256:2"},"layers":[{"mediaType":"l","digest":"sha256:3"}]}"#;
        let index = br#"{"manifests":[
            {"mediaType":"x.index","digest":"sha256:9","annotations":{"org.opencontainers.image.ref.name":"a:1"}},
            {"mediaType":"x.manifest","digest":"sha256:1"}]}"#;
        let inner = br#"{"manifests":[{"mediaType":"x.manifest","digest":"sha256:1"},
            {"mediaType":"x.manifest","digest":"sha256:other"}]}"#;
        let files: [(&str, &[u8]); 5] = [
            ("./index.json", index),
            ("blobs/sha256/9", inner),
            ("blobs/sha256/1", manifest),
            ("blobs/sha256/2", b"{}"),
            ("blobs/sha256/3", b"x"),
        ];
        let (_dir, archive) = archive(&files);
        let images = archive.images(None).unwrap();
        assert_eq!(images.len(), 1, "the other has no name");
        let digests: Vec<&str> = images[0]
            .blobs
            .iter()
            .map(|blob| blob.digest.as_str())
            .collect();
        assert_eq!(digests, ["sha256:9", "sha256:1", "sha256:2", "sha256:3"]);
    }

    #[test]
    fn archives_of_something_else_are_refused_with_their_name() {
        let (_dir, archive) = archive(&[("x", b"y")]);
        let error = archive.images(None).unwrap_err().to_string();
        assert!(
            error.contains("a.tar") && error.contains("manifest.json"),
            "{error}"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b");
        crate::disk::write(&path, &[0x1f, 0x8b, 8, 0, 1, 2, 3]).unwrap();
        let error = Archive::open(&path).unwrap_err().to_string();
        assert!(error.contains("gunzip"), "{error}");
    }

    #[test]
    fn links_of_an_archive_lead_only_into_it() {
        assert_eq!(flat(Path::new("a/../b/./c")), "b/c");
        assert_eq!(flat(Path::new("../../etc/passwd")), "etc/passwd");
    }
}
