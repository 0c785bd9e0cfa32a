//! A fuzz target is whole when it has its bounds, a corpus, and a unit test that passes the corpus
//! without the fuzzer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::{root, sources};

/// Most bytes of all corpora: they are chosen by people, not collected.
const MOST: u64 = 300_000;

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).unwrap();
    let stem = |path: &Path| path.file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| stem(&entry.unwrap().path())).collect()
}

#[test]
fn fuzz_targets_are_whole() {
    let targets = names(&root().join("fuzz/targets"));
    let corpora = names(&root().join("fuzz/corpus"));
    assert_eq!(targets, corpora, "targets, and corpora");
    let bounds = fs::read_to_string(root().join("hack/test.d/fuzz-bounds")).unwrap();
    let rows = bounds.lines().filter(|line| !line.starts_with('#'));
    let rows = rows.filter_map(|line| line.split(' ').next().map(str::to_owned));
    assert_eq!(targets, rows.collect(), "targets, and those with bounds");
    let tests = sources();
    for target in &targets {
        let (row, call) = (format!("(\"{target}\", "), format!("replay(\"{target}\", "));
        let mut checks = tests
            .iter()
            .filter(|(path, _)| path.ends_with("fuzzing.rs"));
        let has = checks.any(|(_, text)| text.contains(&row) || text.contains(&call));
        assert!(has, "no unit test passes the corpus of {target}");
    }
}

#[test]
fn corpora_stay_small() {
    let corpora = names(&root().join("fuzz/corpus"));
    let files = corpora.iter().flat_map(|name| {
        let dir = root().join("fuzz/corpus").join(name);
        fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
    });
    let bytes: u64 = files.sum();
    assert!(bytes <= MOST, "{bytes} bytes of corpora, {MOST} at most");
}
