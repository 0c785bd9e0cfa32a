//! Laws for any text that a caller or an image may give as a name, and for JSON: the fuzzer tries
//! texts of its own, the tests those of `fuzz/corpus`.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use crate::{CgroupPath, ContainerId, Digest, IdMap, IdRange, ImageRef, PodId, Signal, go_json};

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

/// Ranges of ids, of twelve bytes each. In a map that is taken no id stands for two, on neither side,
/// and none for the last one, which means "none"; its table says the same.
pub fn id_map(data: &[u8]) {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u32::from(*byte));
    let ranges = data.chunks_exact(12).map(|range| IdRange {
        container: number(&range[..4]),
        host: number(&range[4..8]),
        length: number(&range[8..]),
    });
    let ranges: Vec<IdRange> = ranges.collect();
    let Ok(map) = IdMap::new(ranges.clone(), ranges.clone()) else {
        return;
    };
    for side in [
        |range: &IdRange| range.container,
        |range: &IdRange| range.host,
    ] {
        let of = |range: &IdRange| (u64::from(side(range)), u64::from(range.length));
        let mut spans: Vec<(u64, u64)> = ranges.iter().map(of).collect();
        spans.sort_unstable();
        assert!(
            spans
                .iter()
                .all(|(first, length)| *length > 0 && first + length <= 0xffff_ffff)
        );
        assert!(spans.windows(2).all(|two| two[0].0 + two[0].1 <= two[1].0));
    }
    for range in &ranges {
        let last = range.length - 1;
        let ends = [0, last].map(|offset| map.user(range.container + offset));
        assert_eq!(ends, [Some(range.host), Some(range.host + last)]);
    }
    let root = map.group(0).is_some();
    let [table, groups] = map.tables();
    assert_eq!(table, groups);
    let lines = table.lines().map(|line| {
        let mut numbers = line
            .split(' ')
            .map(|number| number.parse().expect("a number"));
        [(); 3].map(|()| numbers.next().expect("three numbers"))
    });
    let again = lines.map(|[container, host, length]| IdRange {
        container,
        host,
        length,
    });
    assert_eq!(again.collect::<Vec<_>>(), ranges);
    assert_eq!(map.with_root().is_ok(), root);
}

/// The content that a document of a stranger may have.
#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Document {
    media_type: String,
    size: i64,
    is_it: bool,
    list: Vec<String>,
    labels: BTreeMap<String, String>,
    maybe: Option<Box<Document>>,
    inner: Vec<Document>,
}

/// A document that is read as Go reads it is JSON, and reads the same with something behind it.
pub fn go_json(data: &[u8]) {
    let Ok(document) = go_json::from_slice::<Document>(data) else {
        return;
    };
    let text = String::from_utf8_lossy(data);
    assert!(serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok());
    let followed = [data, b" {"].concat();
    let again = go_json::first_of_slice::<Document>(&followed);
    assert_eq!(again.ok(), Some(document));
}

/// Checks by the names of their targets.
#[cfg(test)]
const TARGETS: &[replay::Target] = &[("names", names), ("go_json", go_json), ("id_map", id_map)];

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;
