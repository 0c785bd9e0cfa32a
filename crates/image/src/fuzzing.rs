//! Laws for any bytes that a registry may send as a document, or that a disk may give
//! back as records: the fuzzer tries bytes of its own, the tests those of `fuzz/corpus`.

use crate::database::Saved;
use crate::manifest::{self, Choice};
use crate::platform::Runnable;
use crate::sealed::{seal, unseal};
use crate::{image_config, leases};

/// Most layers of an image that is taken.
const MOST_LAYERS: usize = 500;
/// Most platforms that an answer about an index names.
const MOST_NAMES: usize = 32;

/// Index, manifest and image config: each is taken as a whole or refused with a reason.
pub fn documents(data: &[u8]) {
    match manifest::choose(data, &Runnable::here()) {
        Ok(Choice::Best(entry)) => assert!(entry.media_type.starts_with("application/vnd.")),
        Ok(Choice::Unnamed(entries)) => assert!(!entries.is_empty()),
        Ok(Choice::Nothing(names)) => assert!(names.len() <= MOST_NAMES),
        Err(why) => assert!(!why.is_empty()),
    }
    match manifest::parse(data) {
        Ok(manifest) => assert!(manifest.layers.len() <= MOST_LAYERS),
        Err(why) => assert!(!why.is_empty()),
    }
    if let Ok(parsed) = image_config::parse(data) {
        let chain = image_config::chain_ids(&parsed.diff_ids);
        assert_eq!(chain.len(), parsed.diff_ids.len());
        assert_eq!(chain.first(), parsed.diff_ids.first());
        assert!(
            parsed
                .config
                .stop_signal
                .is_none_or(|name| !name.is_empty())
        );
    }
}

/// Records of images and leases of layers: what is read is what would be written.
pub fn records(data: &[u8]) {
    let sealed = seal(data);
    assert_eq!(unseal(&sealed), Some(data));
    if let Some((last, rest)) = sealed.split_last() {
        assert_eq!(unseal(rest), None, "a byte short");
        assert_eq!(unseal(&[rest, &[last ^ 1]].concat()), None, "a bit off");
    }
    if let Ok(saved) = serde_json::from_slice::<Saved>(data) {
        let written = serde_json::to_vec(&saved).expect("records can be written");
        let again: Saved = serde_json::from_slice(&written).expect("what was written is read");
        assert_eq!(serde_json::to_vec(&again).ok(), Some(written));
    }
    for bytes in [data, &sealed] {
        if let Err(why) = leases::layers(bytes) {
            assert!(!why.is_empty());
        }
    }
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("image_documents", documents), ("image_records", records)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
