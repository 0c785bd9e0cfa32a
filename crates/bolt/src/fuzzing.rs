//! Laws for any bytes that a file of a database may have: the fuzzer tries bytes of its own, the
//! tests those of `fuzz/corpus`.

use crate::bucket::{Bucket, Entry};
use crate::database::Database;
use crate::meta::fnv1a;

/// Buckets in buckets that are walked.
const DEPTH: usize = 6;
/// Entries of one walk: a page may be in many buckets, and each has all its entries.
const MOST: usize = 4096;

/// A file of bbolt. Walks end, and a search finds no key that a walk does not.
pub fn bolt(data: &[u8]) {
    // Checksums keep random bytes out; here they are made right.
    let mut bytes = data.to_owned();
    for begin in [16, 512 + 16] {
        if let Some(meta) = bytes.get_mut(begin..begin + 64) {
            let sum = fnv1a(&meta[..56]);
            meta[56..].copy_from_slice(&sum.to_le_bytes());
        }
    }
    for bytes in [data, &bytes] {
        if let Ok(database) = Database::open(bytes) {
            let mut left = MOST;
            walk(&database, &Bucket::outermost(&database), DEPTH, &mut left);
        }
    }
}

fn walk(database: &Database<&[u8]>, bucket: &Bucket, depth: usize, left: &mut usize) {
    let Ok(entries) = bucket.entries(database) else {
        return;
    };
    for (key, entry) in &entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        if let Ok(Some(found)) = bucket.get(database, key) {
            let is_there = entries
                .iter()
                .any(|(known, it)| known == key && *it == found);
            assert!(is_there, "a search finds what a walk does not");
        }
        if let (Entry::Bucket(inner), true) = (entry, depth > 0) {
            walk(database, inner, depth - 1, left);
        }
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("bolt", bolt)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
