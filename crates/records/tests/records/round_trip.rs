//! Random records are read as they were written.

use crisp_records::{Journal, Replay, read};
use proptest::prelude::*;
use tempfile::TempDir;

use crate::any::entries;

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn any_entries_read_back_as_they_were(entries in entries()) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::create(&path, &[]).unwrap();
        let mut expected = Replay::default();
        for entry in entries {
            journal.append(&entry).unwrap();
            expected.apply(entry);
            let (found, damage) = read(&path);
            prop_assert!(damage.is_none(), "{damage:?}");
            prop_assert_eq!(&found, &expected);
        }
    }
}
