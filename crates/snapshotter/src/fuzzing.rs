//! Laws for any bytes that come as a layer: the fuzzer tries bytes of its own, the
//! tests those of `fuzz/corpus`.

use std::fs;
use std::io::Read;
use std::path::Path;

use crisp_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::pax::Extended;
use crate::stream::with_stream;
use crate::{Compression, Snapshotter};

/// Most decompressed bytes that are looked at: a small blob may hold any number of zeros.
const MOST: u64 = 16 << 20;

/// A layer is unpacked as a whole, or nothing of it is left; what is beside the store stays as it
/// was. `dir` is a directory for this alone.
pub fn layer(dir: &Path, data: &[u8]) {
    let bait = dir.join("bait");
    if !bait.exists() {
        fs::create_dir(&bait).expect("make the bait");
    }
    let store = Snapshotter::open(&dir.join("store")).expect("open a store");
    let chain = Digest::sha256([7; 32]);
    let writer = store.begin_layer(&chain).expect("begin a layer");
    // As it is, so that the size of the input bounds what is written.
    match writer.unpack(Compression::None, data) {
        Ok(unpacked) => {
            assert_eq!(
                unpacked.diff_id,
                Digest::sha256(Sha256::digest(data).into())
            );
            assert!(unpacked.inodes > 0, "a layer has a root");
            let id = unpacked.commit().expect("name the layer");
            store.layer_usage(&id).expect("its size");
            let doomed = store.retire_layer(&id).expect("take its name");
            doomed.delete().expect("delete its tree");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let count = |dir: &Path| fs::read_dir(dir).expect("list").count();
    assert_eq!(count(&dir.join("store/ingest")), 0, "a half layer was left");
    assert_eq!(count(&dir.join("store/layers")), 0, "a layer was left");
    assert_eq!(
        (count(&bait), count(dir)),
        (0, 2),
        "something beside the store"
    );
}

/// A blob of any compression ends, in whole or with an error.
pub fn blob(data: &[u8]) {
    let plain = with_stream(Compression::None, data, |stream| stream.finish());
    let digest = Digest::sha256(Sha256::digest(data).into());
    assert_eq!(
        plain.ok(),
        Some(digest),
        "a plain stream is its own content"
    );
    with_stream(Compression::Detect, data, |stream| {
        let mut bytes = Vec::new();
        drop(stream.take(MOST).read_to_end(&mut bytes));
    });
}

/// An extended header says what its records say.
pub fn pax(data: &[u8]) {
    let mut extended = Extended::default();
    if extended.parse(data).is_err() {
        return;
    }
    for name in [&extended.path, &extended.link, &extended.sparse.name] {
        assert!(name.as_ref().is_none_or(|name| !name.contains(&0)), "a NUL");
    }
    let moments = [extended.mtime, extended.atime].into_iter().flatten();
    for moment in moments {
        assert!(moment.seconds >= 0 && moment.nanoseconds < 1_000_000_000);
    }
    let held: usize = extended.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
    assert!(held <= data.len(), "attributes from nowhere");
    drop(extended.sparse.fragments());
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("layer_blob", blob), ("pax", pax)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    #[test]
    fn privileged_what_was_written_to_harm_unpacks_to_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        super::replay::replay("layer", |data| super::layer(dir.path(), data));
    }
}
