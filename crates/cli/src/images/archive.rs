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

/// An image of an archive, with the names that it has there.
struct Found {
    names: Vec<String>,
    digest: String,
    blobs: Vec<Blob>,
}

impl Found {
    /// An image for each of its names.
    fn images(self) -> Vec<Image> {
        let images = self.names.into_iter().map(|name| Image {
            name,
            digest: self.digest.clone(),
            blobs: self.blobs.clone(),
        });
        images.collect()
    }
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

    /// The images in it. One without a name gets the one that is given, and so does the only one there is,
    /// whatever its name.
    pub fn images(&self, given: Option<&str>) -> Result<Vec<Image>> {
        let mut found = match self.files.contains_key("index.json") {
            true => self.of_layout()?,
            false => self.of_docker()?,
        };
        let refuse = |why: &str, remedy: &str| {
            let text = format!("{}: {why}", self.path.display());
            Err(Failure::new(text).remedy(remedy))
        };
        let nameless = found.iter().filter(|image| image.names.is_empty()).count();
        if let Some(given) = given {
            match (&mut found[..], nameless) {
                ([only], _) => only.names = vec![given.to_owned()],
                (all, 1) => {
                    let of_none = all.iter_mut().filter(|image| image.names.is_empty());
                    of_none.for_each(|image| image.names.push(given.to_owned()));
                }
                (_, 0) => {
                    return refuse("all images in it have names", "leave --as out");
                }
                _ => {
                    let remedy = "save them one by one, or with their names";
                    return refuse("--as gives one name, and it has several images", remedy);
                }
            }
        }
        let images: Vec<Image> = found.into_iter().flat_map(Found::images).collect();
        match images.is_empty() {
            false => Ok(images),
            true => refuse("no image in it has a name", "--as NAME gives it one"),
        }
    }

    fn of_layout(&self) -> Result<Vec<Found>> {
        let index = self.json("index.json")?;
        let mut found = Vec::new();
        for descriptor in index["manifests"].as_array().into_iter().flatten() {
            let mut noted = NAMES
                .iter()
                .filter_map(|key| descriptor["annotations"][key].as_str());
            // Some tools note a bare tag there, which names no image.
            let name = noted.find(|name| name.contains(['/', ':']));
            let mut blobs = Vec::new();
            self.collect(descriptor, &mut blobs)?;
            found.push(Found {
                names: name.map(str::to_owned).into_iter().collect(),
                digest: text(descriptor, "digest"),
                blobs,
            });
        }
        Ok(found)
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

    fn of_docker(&self) -> Result<Vec<Found>> {
        let step = || format!("{}: read its manifest.json", self.path.display());
        let saved: Vec<Saved> =
            serde_json::from_value(self.json("manifest.json")?).context(step)?;
        let mut found = Vec::new();
        for image in saved {
            let blobs = self.saved(&image)?;
            let digest = blobs.last().map(|blob| blob.digest.clone());
            found.push(Found {
                names: image.repo_tags.unwrap_or_default(),
                digest: digest.unwrap_or_default(),
                blobs,
            });
        }
        Ok(found)
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
    fn a_name_is_given_to_the_one_image_that_it_can_be_for() {
        let image = |tags: &str| format!(r#"{{"Config":"c.json","RepoTags":{tags},"Layers":[]}}"#);
        let names = |images: &[String], given: Option<&str>| {
            let manifest = format!("[{}]", images.join(","));
            let files: [(&str, &[u8]); 2] =
                [("manifest.json", manifest.as_bytes()), ("c.json", b"{}")];
            let (_dir, archive) = archive(&files);
            let images = archive
                .images(given)
                .map_err(|failure| failure.to_string())?;
            Ok(images
                .into_iter()
                .map(|image| image.name)
                .collect::<Vec<_>>()
                .join(" "))
        };
        let (a, b, none) = (image(r#"["a:1"]"#), image(r#"["b:2"]"#), image("null"));
        let ok = |text: &str| Ok::<_, String>(text.to_owned());
        assert_eq!(names(std::slice::from_ref(&a), Some("x:1")), ok("x:1"));
        assert_eq!(names(std::slice::from_ref(&none), Some("x:1")), ok("x:1"));
        assert_eq!(
            names(&[a.clone(), none.clone()], Some("x:1")),
            ok("a:1 x:1")
        );
        assert_eq!(names(&[a.clone(), none.clone()], None), ok("a:1"));
        let refused = names(&[a, b], Some("x:1")).unwrap_err();
        assert!(refused.contains("leave --as out"), "{refused}");
        let refused = names(&[none.clone(), none], Some("x:1")).unwrap_err();
        assert!(refused.contains("several images"), "{refused}");
    }

    #[test]
    fn a_tag_alone_is_no_name() {
        let index = br#"{"manifests":[{"mediaType":"x.manifest","digest":"sha256:1",
            "annotations":{"org.opencontainers.image.ref.name":"latest"}}]}"#;
        let files: [(&str, &[u8]); 2] = [("index.json", index), ("blobs/sha256/1", b"{}")];
        let (_dir, archive) = archive(&files);
        let refused = archive.images(None).unwrap_err().to_string();
        assert!(refused.contains("--as NAME"), "{refused}");
        assert_eq!(archive.images(Some("web:1")).unwrap()[0].name, "web:1");
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
