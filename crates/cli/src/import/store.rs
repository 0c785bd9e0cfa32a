//! The store of a containerd: names of images in its database, and blobs in files that are named by
//! their digests.

use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crisp_bolt::{Bucket, Database, Entry};
use crisp_model::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::failure::{Context as _, Failure, Remedy as _, Result};
use crate::images::Content;

/// How long a containerd that is about to end may take to let go of its database.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// The version of the layout, the outermost bucket. A later one would be another layout.
const LAYOUT: &str = "v1";
/// A label of images that the kubelet may not collect, and its value.
const PINNED: [&str; 2] = ["io.cri-containerd.pinned", "pinned"];

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
    /// Whether the kubelet may not collect it.
    pub is_pinned: bool,
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
        let dir = root.join("io.containerd.metadata.v1.bolt");
        let path = dir.join("meta.db");
        let step = || format!("{}: open it", path.display());
        let file = crisp_sys::owned::open(&path).context(step).remedy(|| {
            "run this as root; --from DIR names the root of a containerd, as `containerd config dump` tells it"
                .to_owned()
        })?;
        // Blobs are what their digests say. Names are what this file says.
        trust(&path, &file.metadata().context(step)?)?;
        for above in [root, dir.as_path()] {
            let step = || format!("{}: look at it", above.display());
            trust(above, &above.metadata().context(step)?)?;
        }
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
                .ok_or_else(|| Failure::new(format!("{}: image {name:?} has no target", step())))?;
            let [key, value] = PINNED;
            let label = self.label(entry, key).context(step)?;
            Ok(Named {
                name,
                target,
                is_pinned: label.as_deref() == Some(value),
            })
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

    fn label(&self, image: &Entry, key: &str) -> crisp_bolt::Result<Option<String>> {
        let Entry::Bucket(image) = image else {
            return Ok(None);
        };
        let Some(labels) = self.inner(image, "labels")? else {
            return Ok(None);
        };
        let value = labels.value(&self.database, key.as_bytes())?;
        Ok(value.map(|bytes| text(&bytes)))
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
    // A link or a pipe is none of containerd's.
    let there = std::fs::symlink_metadata(&path)
        .ok()
        .filter(Metadata::is_file)?;
    Some(Content::Part {
        path,
        offset: 0,
        size: there.len(),
    })
}

/// Refuses a file or directory that others than root and the user of this program may change: they would
/// say which image is the one of a name.
fn trust(path: &Path, there: &Metadata) -> Result<()> {
    let us = geteuid().as_raw();
    let Some(who) = stranger(there.uid(), there.gid(), there.mode(), us) else {
        return Ok(());
    };
    let text = format!(
        "{}: {who} may change it, and so which image has which name",
        path.display()
    );
    Err(Failure::new(text).remedy(
        "containerd's own are root's: look what is in it, then `chown root:root` and `chmod go-w`",
    ))
}

/// The user or group beside root and us that may write to a file with this owner, group and mode.
fn stranger(user: u32, group: u32, mode: u32, us: u32) -> Option<String> {
    if user != 0 && user != us {
        return Some(format!("user {user}"));
    }
    if mode & 0o002 != 0 {
        return Some("everybody".to_owned());
    }
    // Root's group is root's.
    (mode & 0o020 != 0 && group != 0).then(|| format!("group {group}"))
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
    fn labels_are_containerds() {
        let (root, _) = root();
        let store = Store::open(root.path()).unwrap();
        let mut bucket = Bucket::outermost(&store.database);
        for name in ["v1", "k8s.io", "images"] {
            bucket = store.inner(&bucket, name).unwrap().unwrap();
        }
        let (_, image) = bucket.entries(&store.database).unwrap().remove(0);
        let label = |key: &str| store.label(&image, key).unwrap();
        assert_eq!(label("io.cri-containerd.image").as_deref(), Some("managed"));
        assert_eq!(label(PINNED[0]), None);
        let images = store.images("k8s.io").unwrap();
        assert!(images.iter().all(|named| !named.is_pinned));
    }

    /// Their writers would say which image is the one of a name.
    #[test]
    fn files_that_others_may_change_are_refused_by_their_path() {
        for (user, group, mode, who) in [
            (0, 0, 0o644, None),
            (0, 0, 0o775, None),
            (7, 7, 0o755, None),
            (8, 0, 0o600, Some("user 8")),
            (0, 5, 0o755, None),
            (0, 5, 0o775, Some("group 5")),
            (0, 0, 0o777, Some("everybody")),
            (7, 7, 0o757, Some("everybody")),
        ] {
            let told = stranger(user, group, mode, 7);
            assert_eq!(told.as_deref(), who, "{user} {group} {mode:o}");
        }
        let (root, file) = root();
        for path in [file.as_path(), file.parent().unwrap(), root.path()] {
            let before = path.metadata().unwrap().permissions();
            let mode = rustix::fs::Mode::from_raw_mode(0o777);
            rustix::fs::chmod(path, mode).unwrap();
            let told = refused(Store::open(root.path()));
            let begins = format!("{}: everybody may change it", path.display());
            assert!(told.starts_with(&begins), "{told}");
            std::fs::set_permissions(path, before).unwrap();
        }
        assert!(Store::open(root.path()).is_ok());
    }

    #[test]
    fn a_root_may_be_a_link_and_a_pipe_is_no_database() {
        let (root, file) = root();
        let link = root.path().join("link");
        std::os::unix::fs::symlink(root.path(), &link).unwrap();
        assert_eq!(
            Store::open(&link).unwrap().images("k8s.io").unwrap().len(),
            4
        );
        std::fs::remove_file(&file).unwrap();
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &file, kind, mode, 0).unwrap();
        let told = refused(Store::open(root.path()));
        assert!(told.contains("no regular file"), "{told}");
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
        let link = dir.path().join("sha256").join("1".repeat(64));
        std::os::unix::fs::symlink("x", link).unwrap();
        for wrong in ["sha256:x", "sha256:../sha256/x", "", &hex, &other] {
            assert!(blob(dir.path(), wrong).is_none(), "{wrong}");
        }
    }
}
