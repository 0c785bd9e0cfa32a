//! Laws for any text that a caller or an image may give as a name: the fuzzer tries
//! texts of its own, the tests those of `fuzz/corpus`.

use std::path::{Component, Path};

use crate::{CgroupPath, ContainerId, Digest, ImageRef, PodId, Signal};

/// A name that is taken is one word, leads nowhere, and is taken again as it is shown.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(image) = ImageRef::parse(&text) {
        let shown = image.to_string();
        assert_eq!(ImageRef::parse(&shown).as_ref(), Ok(&image), "{shown}");
        let odd = |part: &str| matches!(part, "" | "." | "..");
        assert!(!image.repository().split('/').any(odd) && !image.host().contains('/'));
        assert!(image.tag().is_some() || image.digest().is_some());
    }
    if let Ok(digest) = Digest::parse(&text) {
        assert_eq!(digest.to_string(), text);
    }
    let ids = [
        PodId::parse(&text).map(|id| id.to_string()),
        ContainerId::parse(&text).map(|id| id.to_string()),
    ];
    for id in ids.into_iter().flatten() {
        assert_eq!(id, text);
        assert!(
            !id.contains(['/', '.', '\0']),
            "an id is the name of a file"
        );
    }
    if let Ok(path) = CgroupPath::parse(&text) {
        let parts = path.as_str().split('/');
        assert!(path.is_root() || parts.clone().all(|part| !matches!(part, "" | "." | "..")));
        assert_eq!(CgroupPath::parse(path.as_str()), Ok(path));
    }
    let clean = crate::path::clean_from_root(Path::new(text.as_ref()));
    let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
    assert!(clean.is_absolute() && clean.components().all(plain));
    drop(Signal::parse(&text));
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("names", names)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
