//! Gives a check every input of its corpus: those that the fuzzer begins with, and those that a
//! parser once fell over. The unit tests of each crate with a `fuzzing` module have this file, and
//! list there the names of targets with their checks.

use std::fs;
use std::path::Path;

/// The name of a target, and its check.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// Calls the check with each file of `fuzz/corpus/TARGET`.
pub(crate) fn replay(target: &str, check: impl Fn(&[u8])) {
    let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus")).join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&dir).expect("the corpus of the target") {
        let path = entry.expect("an entry of the corpus").path();
        eprintln!("input {}", path.display());
        check(&fs::read(&path).expect("an input of the corpus"));
        inputs += 1;
    }
    assert!(inputs > 0, "{}: no input", dir.display());
}

#[test]
fn what_was_written_to_harm_harms_no_parser() {
    for (target, check) in super::TARGETS {
        replay(target, check);
    }
}
