//! Files that bbolt itself wrote, by `tests/maker`, and what may have become of them.

use crate::meta::fnv1a;
use crate::{Bucket, Database, Entry, Error, Result};

const CONTAINERD: &[u8] = include_bytes!("../tests/containerd.db");
const WIDE: &[u8] = include_bytes!("../tests/wide.db");

/// The bucket at the end of a way through buckets.
fn at(database: &Database<&[u8]>, way: &[&str]) -> Result<Option<Bucket>> {
    let mut bucket = Some(Bucket::outermost(database));
    for name in way {
        let Some(outer) = bucket else {
            return Ok(None);
        };
        bucket = outer.bucket(database, name.as_bytes())?;
    }
    Ok(bucket)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Names of images with the types of their targets.
fn images(file: &[u8]) -> Result<Vec<(String, String)>> {
    let database = Database::open(file)?;
    let images = at(&database, &["v1", "k8s.io", "images"])?.unwrap();
    let mut found = Vec::new();
    for (name, entry) in images.entries(&database)? {
        let Entry::Bucket(image) = entry else {
            panic!("{} is no bucket", text(&name));
        };
        let target = image.bucket(&database, b"target")?.unwrap();
        let digest = target.value(&database, b"digest")?.unwrap();
        assert!(digest.starts_with(b"sha256:") && digest.len() == 71);
        let media_type = target.value(&database, b"mediatype")?.unwrap();
        found.push((text(&name), text(&media_type)));
    }
    Ok(found)
}

/// A file with bytes changed, and the checksums of both metas made right.
fn changed(file: &[u8], change: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = file.to_owned();
    change(&mut bytes);
    for begin in [16, 512 + 16] {
        let sum = fnv1a(&bytes[begin..begin + 56]);
        bytes[begin + 56..begin + 64].copy_from_slice(&sum.to_le_bytes());
    }
    bytes
}

#[test]
fn all_images_of_a_file_in_containerds_layout_are_found() {
    let images = images(CONTAINERD).unwrap();
    let names: Vec<&str> = images.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
    assert_eq!(names[0], "docker.io/library/web:1");
    assert!(names[1].starts_with("docker.io/library/web@sha256:"));
    assert_eq!(names[2], "registry.example:5000/team/tool:2");
    assert!(names[3].starts_with("sha256:"));
    assert!(images[2].1.contains("docker"), "{:?}", images[2]);
}

#[test]
fn other_keys_are_none() {
    let database = Database::open(CONTAINERD).unwrap();
    for way in [&["v1", "moby"][..], &["v2"], &["v1", "k8s.io", "imagesx"]] {
        assert_eq!(at(&database, way).unwrap(), None, "{way:?}");
    }
    let version = at(&database, &["v1"]).unwrap().unwrap();
    assert_eq!(version.bucket(&database, b"version").unwrap(), None);
    assert_eq!(version.value(&database, b"k8s.io").unwrap(), None);
    assert!(version.value(&database, b"version").unwrap().is_some());
    let labels = at(&database, &["v1", "default", "labels"]).unwrap();
    assert_eq!(labels.unwrap().entries(&database).unwrap(), []);
}

#[test]
fn trees_of_several_levels_and_values_of_several_pages_are_whole() {
    let database = Database::open(WIDE).unwrap();
    let many = at(&database, &["many"]).unwrap().unwrap();
    let entries = many.entries(&database).unwrap();
    assert_eq!(entries.len(), 201);
    assert!(entries.is_sorted_by_key(|(key, _)| key.clone()));
    for number in 0..200 {
        let key = format!("a key of some length, number {number:03}");
        let value = many.value(&database, key.as_bytes()).unwrap();
        assert_eq!(value.unwrap(), number.to_string().as_bytes(), "{key}");
    }
    let long = many.value(&database, b"long").unwrap().unwrap();
    assert_eq!(long, b"0123456789".repeat(500));
    for missing in ["", "a key of some length, number 1000", "zzz"] {
        assert_eq!(many.get(&database, missing.as_bytes()).unwrap(), None);
    }
    let empty = at(&database, &["empty"]).unwrap().unwrap();
    assert_eq!(empty.entries(&database).unwrap(), []);
}

#[test]
fn one_meta_is_enough_and_none_is_told() {
    let mut first_is_torn = CONTAINERD.to_owned();
    first_is_torn[20] ^= 1;
    assert_eq!(images(&first_is_torn).unwrap().len(), 4);
    let mut second_is_torn = CONTAINERD.to_owned();
    second_is_torn[512 + 16 + 60] ^= 1;
    assert_eq!(images(&second_is_torn).unwrap().len(), 4);
    second_is_torn[20] ^= 1;
    for foreign in [&second_is_torn[..], b"", b"SQLite format 3", &[0; 9000]] {
        assert!(matches!(Database::open(foreign), Err(Error::Foreign)));
    }
}

#[test]
fn the_newer_meta_is_the_one() {
    let root_of = |file: &[u8]| Database::open(file).unwrap().root();
    let (first, second) = (16, 512 + 16);
    for (newer, older) in [(first, second), (second, first)] {
        let file = changed(CONTAINERD, |bytes| {
            bytes[newer + 48..newer + 56].copy_from_slice(&90_u64.to_le_bytes());
            bytes[older + 48..older + 56].copy_from_slice(&89_u64.to_le_bytes());
            bytes[older + 16..older + 24].copy_from_slice(&0_u64.to_le_bytes());
        });
        assert_ne!(root_of(&file), 0, "from byte {newer}");
    }
}

#[test]
fn a_file_that_is_cut_is_told_with_the_place() {
    let lengths = (600..CONTAINERD.len()).step_by(512);
    let failed = lengths.filter_map(|length| images(&CONTAINERD[..length]).err());
    let failed: Vec<String> = failed.map(|error| error.to_string()).collect();
    assert!(failed.len() > 5, "{failed:?}");
    let is_told = |text: &String| text.starts_with("page ") && text.contains("the file ends");
    assert!(failed.iter().all(is_told), "{failed:?}");
}

/// A file whose root is page 5: a branch whose elements, without keys, all lead to this page.
fn with_branch(elements: u8, leads_to: u64) -> Vec<u8> {
    let page = 5_u64;
    let mut file = vec![0; 6 * 512];
    file[..1024].copy_from_slice(&CONTAINERD[..1024]);
    let begin = 5 * 512;
    file[begin..begin + 8].copy_from_slice(&page.to_le_bytes());
    file[begin + 8..begin + 12].copy_from_slice(&[1, 0, elements, 0]);
    for element in 0..usize::from(elements) {
        let at = begin + 16 + element * 16;
        file[at + 8..at + 16].copy_from_slice(&leads_to.to_le_bytes());
    }
    changed(&file, |bytes| {
        for begin in [16, 512 + 16] {
            bytes[begin + 16..begin + 24].copy_from_slice(&page.to_le_bytes());
        }
    })
}

/// Else a search would find no image in a file that is damaged, and a walk would find none at all.
#[test]
fn a_branch_that_leads_nowhere_is_told() {
    let file = with_branch(0, 0);
    let database = Database::open(&file[..]).unwrap();
    let root = Bucket::outermost(&database);
    let told = [
        root.entries(&database).unwrap_err(),
        root.get(&database, b"v1").unwrap_err(),
    ];
    for error in told {
        let told = error.to_string();
        assert!(
            told.contains("page 5 is damaged") && told.contains("nowhere"),
            "{told}"
        );
    }
}

#[test]
fn a_tree_that_leads_back_to_itself_is_told() {
    let file = with_branch(2, 5);
    let database = Database::open(&file[..]).unwrap();
    let root = Bucket::outermost(&database);
    let walk = root.entries(&database).unwrap_err();
    assert!(walk.to_string().contains("page 5 is damaged"), "{walk}");
    let search = root.get(&database, b"x").unwrap_err();
    assert!(search.to_string().contains("longer than any"), "{search}");
}

#[test]
fn no_changed_byte_makes_a_panic() {
    for at in 0..CONTAINERD.len() {
        let bits = [1, 0x80, 0xff][at % 3];
        let file = changed(CONTAINERD, |bytes| bytes[at] ^= bits);
        crate::fuzzing::bolt(&file);
    }
}
