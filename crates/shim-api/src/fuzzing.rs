//! Laws for any bytes between daemon and shim, which may be of different versions: the
//! fuzzer tries bytes of its own, the tests those of `fuzz/corpus`.

use crate::exit::SLOT_SIZE;
use crate::{Adoption, Error, ExitRecord, FromShim, Launch, Result, ToShim};

/// A frame that is understood is understood again as it is written.
pub fn frame(data: &[u8]) {
    again(data, ToShim::decode, ToShim::encode);
    again(data, FromShim::decode, FromShim::encode);
    again(data, Launch::decode, Launch::encode);
    again(data, Adoption::decode, Adoption::encode);
    if let Some(record) = ExitRecord::from_slot(data) {
        // Bytes that say nothing may be any.
        assert_eq!(ExitRecord::from_slot(&record.to_slot()), Some(record));
        assert!(data.len() >= SLOT_SIZE);
    }
}

fn again<T: PartialEq + std::fmt::Debug>(
    data: &[u8],
    decode: impl Fn(&[u8]) -> Result<T>,
    encode: impl Fn(&T) -> Result<Vec<u8>>,
) {
    let Ok(found) = decode(data) else {
        return;
    };
    match encode(&found) {
        Ok(bytes) => assert_eq!(decode(&bytes).ok(), Some(found)),
        // Escapes may make a text longer.
        Err(Error::TooLong { .. }) => {}
        Err(error) => panic!("{found:?} cannot be written: {error}"),
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("shim_frame", frame)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
