//! Laws for any bytes that the disk may give back as a journal: the fuzzer tries bytes
//! of its own, the tests those of `fuzz/corpus`.

use crate::frame::frame;
use crate::journal::scan;

/// The sound part of a journal is read again as it is written anew; so is each entry alone.
pub fn journal(data: &[u8]) {
    for bytes in [data.to_vec(), as_frame(data)] {
        let found = scan(&bytes);
        assert!(found.damage.is_some() || found.end <= bytes.len().max(8));
        let entries = found.replay.entries();
        let mut anew = b"crispjn1".to_vec();
        for entry in &entries {
            anew.extend(frame(entry).expect("an entry can be written"));
        }
        let again = scan(&anew);
        assert!(again.damage.is_none(), "{:?}", again.damage);
        assert_eq!(again.end, anew.len());
        assert_eq!(again.replay.entries(), entries);
    }
}

/// A journal whose only frame has any content and a sound checksum, which no fuzzer would guess.
fn as_frame(json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len())
        .expect("a short input")
        .to_le_bytes();
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(json);
    let sum = hasher.finalize().to_le_bytes();
    [b"crispjn1".as_slice(), &length, &sum, json].concat()
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("journal", journal)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
