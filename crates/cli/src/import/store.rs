//! The store of a containerd: names of images in its database, and blobs in files that are named by
//! their digests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_bolt::{Bucket, Database, Entry};
use crisp_model::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::Content;

/// How long a containerd that is about to end may take to let go of its database.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// The version of the layout, the outermost bucket. A later one would be another layout.
const LAYOUT: &str = "v1";

/// An index, a manifest or a blob, as a name or one of the first two leads there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `sha256:…`
    pub digest: String,
    /// Media type.
    pub media_type: String,
}

/// A name of an image, as containerd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// As containerd has it, which is any text.
    pub name: String,
    /// An index or a manifest.
    pub target: Target,
}

/// The store of a containerd that does not run. As long as this is there, none can be started with it.
#[derive(Debug)]
pub struct Store {
    file: PathBuf,
    blobs: PathBuf,
    database: Database<File>,
}

impl Store {
    /// Opens the store below containerd's root.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_within(root, PATIENCE)
    }

    fn open_within(root: &Path, patience: Duration) -> Result<Self> {
        let path = root.join("io.containerd.metadata.v1.bolt/meta.db");
        let step = || format!("{}: open it", path.display());
        let file = File::open(&path).context(step).remedy(|| {
            "run this as root; --from DIR names the root of a containerd, as `containerd config dump` tells it"
                .to_owned()
        })?;
        let begun = Instant::now();
        // containerd has it locked while it runs, and reads it only with the lock.
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockShared) {
            if error != Errno::WOULDBLOCK {
                return Err(error).context(|| format!("{}: lock it", path.display()));
            }
            if begun.elapsed() > patience {
                let text = format!("{}: containerd runs, and changes it", path.display());
                return Err(Failure::new(text).remedy(
                    "stop the kubelet and containerd first: `systemctl stop kubelet containerd`",
                ));
            }
            std::thread::sleep(PAUSE);
        }
        let database = Database::open(file).context(step)?;
        Ok(Self {
            file: path,
            blobs: root.join("io.containerd.content.v1.content/blobs"),
            database,
        })
    }

    /// All names of a namespace.
    pub fn images(&self, namespace: &str) -> Result<Vec<Named>> {
        let step = || format!("{}: read its images", self.file.display());
        let root = Bucket::outermost(&self.database);
        let layout = self.inner(&root, LAYOUT).context(step)?;
        let layout = layout.ok_or_else(|| {
            let text = format!(
                "{}: it has no {LAYOUT}, as containerd 1.0 to 2.x have",
                step()
            );
            Failure::new(text)
        })?;
        let inside = self.inner(&layout, namespace).context(step)?;
        let Some(inside) = inside else {
            let text = format!("{}: it has no namespace {namespace}", self.file.display());
            let known = self.namespaces(&layout).context(step)?;
            return Err(Failure::new(text).remedy(match known.is_empty() {
                true => "it has none at all: no image was ever pulled with this root".to_owned(),
                false => format!("--namespace names one that it has: {}", known.join(", ")),
            }));
        };
        let Some(images) = self.inner(&inside, "images").context(step)? else {
            return Ok(Vec::new());
        };
        let entries = images.entries(&self.database).context(step)?;
        let named = entries.iter().map(|(name, entry)| {
            let name = text(name);
            let target = self.target(entry).context(step)?;
            let target = target
                .ok_or_else(|| Failure::new(format!("{}: image {name} has no target", step())))?;
            Ok(Named { name, target })
        });
        named.collect()
    }

    fn target(&self, image: &Entry) -> crisp_bolt::Result<Option<Target>> {
        let Entry::Bucket(image) = image else {
            return Ok(None);
        };
        let Some(target) = self.inner(image, "target")? else {
            return Ok(None);
        };
        let field = |name: &str| {
            let value = target.value(&self.database, name.as_bytes())?;
            Ok::<_, crisp_bolt::Error>(value.map(|bytes| text(&bytes)))
        };
        let both = field("digest")?.zip(field("mediatype")?);
        Ok(both.map(|(digest, media_type)| Target { digest, media_type }))
    }

    fn namespaces(&self, layout: &Bucket) -> crisp_bolt::Result<Vec<String>> {
        let entries = layout.entries(&self.database)?;
        let buckets = entries
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Bucket(_)));
        Ok(buckets.map(|(name, _)| text(name)).collect())
    }

    fn inner(&self, bucket: &Bucket, name: &str) -> crisp_bolt::Result<Option<Bucket>> {
        bucket.bucket(&self.database, name.as_bytes())
    }

    /// The blob of a digest, where it is there.
    pub fn blob(&self, digest: &str) -> Option<Content> {
        blob(&self.blobs, digest)
    }
}

/// The blob of a digest, as a file below a directory.
pub fn blob(blobs: &Path, digest: &str) -> Option<Content> {
    // Another text could lead out of the directory.
    let digest = Digest::parse(digest).ok()?;
    let path = blobs.join(digest.as_str().replacen(':', "/", 1));
    let there = std::fs::metadata(&path)
        .ok()
        .filter(std::fs::Metadata::is_file)?;
    Some(Content::Part {
        path,
        offset: 0,
        size: there.len(),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{make_dir, write};

    const FILE: &[u8] = include_bytes!("../../../bolt/tests/containerd.db");

    fn root() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("io.containerd.metadata.v1.bolt");
        make_dir(&dir).unwrap();
        let file = dir.join("meta.db");
        write(&file, FILE).unwrap();
        (root, file)
    }

    fn refused<T: std::fmt::Debug>(outcome: Result<T>) -> String {
        outcome.unwrap_err().to_string()
    }

    #[test]
    fn names_and_targets_are_containerds() {
        let (root, _) = root();
        let store = Store::open(root.path()).unwrap();
        let images = store.images("k8s.io").unwrap();
        assert_eq!(images.len(), 4);
        let by_tag = &images[0];
        assert_eq!(by_tag.name, "docker.io/library/web:1");
        assert!(images[1].name.ends_with(&by_tag.target.digest));
        assert_eq!(images[1].target, by_tag.target);
        assert!(by_tag.target.media_type.ends_with("index.v1+json"));
        assert!(store.images("default").unwrap().is_empty());
    }

    #[test]
    fn other_namespaces_and_other_files_are_refused_with_what_there_is() {
        let (root, file) = root();
        let store = Store::open(root.path()).unwrap();
        let told = refused(store.images("moby"));
        assert!(
            told.contains("no namespace moby") && told.contains("default, k8s.io"),
            "{told}"
        );
        let told = refused(Store::open(&root.path().join("x")));
        assert!(
            told.contains("x/io.containerd") && told.contains("--from"),
            "{told}"
        );
        write(&file, &[0; 8192]).unwrap();
        let told = refused(Store::open(root.path()));
        assert!(told.contains("no file of bbolt"), "{told}");
        write(&file, &FILE[..1024]).unwrap();
        let told = refused(Store::open(root.path()).unwrap().images("k8s.io"));
        let why = "is damaged: the file ends before it does";
        assert!(
            told.contains("read its images: ") && told.contains(why),
            "{told}"
        );
    }

    #[test]
    fn a_containerd_that_runs_is_told_and_none_starts_meanwhile() {
        let (root, file) = root();
        let containerd = File::open(&file).unwrap();
        flock(&containerd, FlockOperation::LockExclusive).unwrap();
        let told = refused(Store::open_within(root.path(), Duration::ZERO));
        assert!(told.contains("systemctl stop"), "{told}");
        flock(&containerd, FlockOperation::Unlock).unwrap();
        let store = Store::open(root.path()).unwrap();
        let starts = || flock(&containerd, FlockOperation::NonBlockingLockExclusive);
        assert_eq!(starts(), Err(Errno::WOULDBLOCK));
        drop(store);
        assert_eq!(starts(), Ok(()));
    }

    #[test]
    fn only_digests_lead_to_files() {
        let dir = tempfile::tempdir().unwrap();
        let hex = "0".repeat(64);
        make_dir(&dir.path().join("sha256")).unwrap();
        for name in [&hex[..], "x"] {
            write(&dir.path().join("sha256").join(name), b"abc").unwrap();
        }
        let found = blob(dir.path(), &format!("sha256:{hex}")).unwrap();
        assert_eq!(found.size(), 3);
        let other = format!("sha256:{}", "1".repeat(64));
        for wrong in ["sha256:x", "sha256:../sha256/x", "", &hex, &other] {
            assert!(blob(dir.path(), wrong).is_none(), "{wrong}");
        }
    }
}
