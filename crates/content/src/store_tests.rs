//! Tests of the store: blobs that it keeps, and blobs that it refuses.
#![allow(clippy::disallowed_methods, reason = "tests damage blobs in place")]

use std::io::Write as _;

use super::*;

struct Fixture {
    dir: tempfile::TempDir,
    store: Store,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    Fixture { dir, store }
}

impl Fixture {
    fn on_the_way(&self) -> usize {
        fs::read_dir(self.dir.path().join("ingest"))
            .unwrap()
            .count()
    }
}

#[test]
fn verified_content_gets_its_name() {
    let f = fixture();
    let digest = Hasher::sha256(b"hello");
    let mut ingest = f.store.ingest(&digest, Some(5)).unwrap();
    ingest.write_all(b"hel").unwrap();
    assert!(!f.store.contains(&digest));
    ingest.write_all(b"lo").unwrap();
    ingest.commit().unwrap();
    assert_eq!(f.store.read(&digest, 5).unwrap(), b"hello");
    assert_eq!(f.store.list().unwrap(), [(digest.clone(), 5)]);
    assert_eq!(f.store.usage().unwrap().1, 1);
    assert_eq!(f.on_the_way(), 0);
    f.store.put(&digest, b"hello").unwrap();
    f.store.remove(&digest).unwrap();
    f.store.remove(&digest).unwrap();
    assert!(f.store.get(&digest).unwrap().is_none());
    assert!(matches!(f.store.read(&digest, 5), Err(Error::NotFound(_))));
}

#[test]
fn content_that_is_not_as_announced_leaves_nothing() {
    let f = fixture();
    let digest = Hasher::sha256(b"hello");
    for (size, content) in [
        (None, "hellO"),
        (Some(5), "hellO"),
        (Some(6), "hello"),
        (Some(4), "hello"),
    ] {
        let ingest = f.store.ingest(&digest, size).unwrap();
        let kept = |mut ingest: Ingest| {
            ingest.write_all(content.as_bytes()).is_ok() && ingest.commit().is_ok()
        };
        assert!(!kept(ingest), "{size:?} {content}");
        assert!(!f.store.contains(&digest));
        assert_eq!(f.on_the_way(), 0);
    }
    assert!(f.store.put(&digest, b"other").is_err());
}

#[test]
fn reads_are_bounded_and_verified() {
    let f = fixture();
    let digest = Hasher::sha256(b"hello");
    f.store.put(&digest, b"hello").unwrap();
    assert!(matches!(
        f.store.read(&digest, 4),
        Err(Error::TooLarge { .. })
    ));
    fs::write(f.store.path(&digest), "hellO").unwrap();
    let read = f.store.read(&digest, 9);
    assert!(matches!(read, Err(Error::DigestMismatch { .. })));
}

#[test]
fn opening_drops_what_was_on_the_way_and_keeps_the_rest() {
    let f = fixture();
    let digest = Hasher::sha256(b"hello");
    f.store.put(&digest, b"hello").unwrap();
    let mut half = f.store.ingest(&digest, None).unwrap();
    half.write_all(b"he").unwrap();
    std::mem::forget(half);
    assert_eq!(f.on_the_way(), 1);
    let again = Store::open(f.dir.path()).unwrap();
    assert_eq!(f.on_the_way(), 0);
    assert!(again.contains(&digest));
}

#[test]
fn collection_keeps_what_is_named() {
    let f = fixture();
    let digests: Vec<Digest> = (0..4u8).map(|n| Hasher::sha256(&[n])).collect();
    for (n, digest) in (0..).zip(&digests) {
        f.store.put(digest, &[n]).unwrap();
    }
    fs::write(f.dir.path().join("blobs/sha256/README"), "not ours").unwrap();
    let keep = digests[..2].iter().cloned().collect();
    let mut removed = f.store.collect(&keep).unwrap();
    removed.sort();
    let mut expected = digests[2..].to_vec();
    expected.sort();
    assert_eq!(removed, expected);
    assert_eq!(f.store.list().unwrap().len(), 2);
}

#[test]
fn directories_are_private() {
    let f = fixture();
    for dir in ["blobs", "blobs/sha256", "ingest"] {
        let mode = fs::metadata(f.dir.path().join(dir)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o700, "{dir}");
    }
}

#[test]
fn what_lies_in_the_place_of_a_blob_gives_way() {
    type Wrong = (&'static str, fn(&Path));
    let f = fixture();
    let digest = Hasher::sha256(b"hello");
    let path = f.store.path(&digest);
    let wrong: [Wrong; 3] = [
        ("a directory", |path| {
            fs::create_dir_all(path.join("a")).unwrap()
        }),
        ("a link", |path| {
            std::os::unix::fs::symlink("/proc/version", path).unwrap();
        }),
        ("other bytes", |path| fs::write(path, "hellO").unwrap()),
    ];
    for (what, make) in wrong {
        make(&path);
        assert!(f.store.read(&digest, 5).is_err(), "{what}");
        f.store.put(&digest, b"hello").unwrap();
        assert_eq!(f.store.read(&digest, 5).unwrap(), b"hello", "{what}");
        f.store.remove(&digest).unwrap();
        make(&path);
        let removed = f.store.collect(&BTreeSet::new()).unwrap();
        assert_eq!(removed, std::slice::from_ref(&digest), "{what}");
        assert!(f.store.list().unwrap().is_empty(), "{what}");
    }
}
