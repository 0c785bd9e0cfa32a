//! Whiteouts and opaque directories as containerd applies them, row by row.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

use rustix::fs::lgetxattr;

use super::maker::{Item, Lab, dir, file, id, symlink};
use There::{Dir, File, Link, Nothing, Opaque, Whiteout};

/// The entry of a layer under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum There {
    Nothing,
    /// A deletion of what is below.
    Whiteout,
    File,
    /// A directory that shows what is below.
    Dir,
    /// A directory that hides it.
    Opaque,
    Link,
}

fn there(path: &Path) -> There {
    let Ok(stat) = fs::symlink_metadata(path) else {
        return There::Nothing;
    };
    let kind = stat.file_type();
    let mut value = [0; 4];
    if kind.is_char_device() && stat.rdev() == 0 {
        There::Whiteout
    } else if kind.is_symlink() {
        There::Link
    } else if !kind.is_dir() {
        There::File
    } else if lgetxattr(path, "trusted.overlay.opaque", value.as_mut_slice()).is_ok() {
        There::Opaque
    } else {
        There::Dir
    }
}

type Row = (
    &'static str,
    Vec<Item>,
    Option<&'static [(&'static str, There)]>,
);

/// Whiteouts of what is below.
fn deleted_names() -> Vec<Row> {
    vec![
        (
            "a file",
            vec![file(".wh.file", "")],
            Some(&[("file", Whiteout)]),
        ),
        (
            "a directory",
            vec![file(".wh.d", "")],
            Some(&[("d", Whiteout)]),
        ),
        (
            "a link, not its target",
            vec![file(".wh.link", "")],
            Some(&[("link", Whiteout), ("d", Nothing)]),
        ),
        (
            "one name of a directory",
            vec![file("d/.wh.old", "")],
            Some(&[("d", Dir), ("d/old", Whiteout)]),
        ),
        (
            "any kind of entry marks",
            vec![dir(".wh.file"), symlink(".wh.d", "x")],
            Some(&[("file", Whiteout), ("d", Whiteout)]),
        ),
        (
            "told twice",
            vec![file(".wh.file", ""), file(".wh.file", "")],
            Some(&[("file", Whiteout)]),
        ),
    ]
}

/// Whiteouts of what the layer has as well.
fn deleted_and_made() -> Vec<Row> {
    vec![
        (
            "deleted, then made",
            vec![file(".wh.file", ""), file("file", "2")],
            Some(&[("file", File)]),
        ),
        (
            "made, then deleted below",
            vec![file("file", "2"), file(".wh.file", "")],
            Some(&[("file", File)]),
        ),
        (
            "deleted, then another directory",
            vec![file(".wh.d", ""), dir("d")],
            Some(&[("d", Opaque)]),
        ),
        (
            "another directory, then deleted below",
            vec![dir("d"), file(".wh.d", "")],
            Some(&[("d", Opaque)]),
        ),
    ]
}

/// The mark of an opaque directory.
fn opaque_directories() -> Vec<Row> {
    vec![
        (
            "opaque before",
            vec![dir("d"), file("d/.wh..wh..opq", ""), file("d/new", "2")],
            Some(&[("d", Opaque), ("d/new", File), ("d/old", Nothing)]),
        ),
        (
            "opaque after",
            vec![dir("d"), file("d/new", "2"), file("d/.wh..wh..opq", "")],
            Some(&[("d", Opaque), ("d/new", File)]),
        ),
        (
            "opaque alone",
            vec![file("d/.wh..wh..opq", "")],
            Some(&[("d", Opaque)]),
        ),
        (
            "opaque only itself",
            vec![file("d/.wh..wh..opq", ""), file("d/sub/new", "2")],
            Some(&[("d", Opaque), ("d/sub", Dir)]),
        ),
    ]
}

/// Other kinds over what is below, and names that no reader knows.
fn replaced_kinds() -> Vec<Row> {
    vec![
        (
            "a file over a directory",
            vec![file("d", "2")],
            Some(&[("d", File)]),
        ),
        (
            "a directory over a link",
            vec![dir("link")],
            Some(&[("link", Dir)]),
        ),
        (
            "a link over a directory",
            vec![symlink("d", "x")],
            Some(&[("d", Link)]),
        ),
        (
            "what never was",
            vec![file(".wh.never", "")],
            Some(&[("never", Nothing)]),
        ),
    ]
}

/// Names that mean nothing, or must not.
fn names_of_no_name() -> Vec<Row> {
    vec![
        (
            "aufs' own names",
            vec![
                dir(".wh..wh.plnk"),
                file(".wh..wh.aufs", ""),
                file(".wh..wh.plnk/1.2", ""),
            ],
            Some(&[(".wh..wh.plnk", Nothing), (".wh..wh.aufs", Nothing)]),
        ),
        (
            "a name that only looks so",
            vec![file("wh.file", ""), file("x.wh.y", "")],
            Some(&[("wh.file", File), ("x.wh.y", File)]),
        ),
        ("no name", vec![file(".wh.", "")], None),
        ("the directory itself", vec![file("d/.wh..", "")], None),
        ("the one above", vec![file("d/.wh...", "")], None),
    ]
}

/// A mark costs the same in a full directory as in an empty one, however often it is said: else a
/// small layer keeps a machine busy for hours.
#[test]
fn privileged_repeated_marks_of_a_full_directory_are_cheap() {
    const FEW: usize = 3000;
    let unpack = |marked: &str| {
        let lab = Lab::new();
        let files = (0..FEW).map(|number| file(&format!("full/{number}"), ""));
        let mark = format!("{marked}/.wh..wh..opq");
        let marks = (0..FEW).map(|_| file(&mark, ""));
        let dirs = [dir("full"), dir("empty")];
        let archive = super::maker::tar(dirs.into_iter().chain(files).chain(marks).collect());
        let writer = lab.store.begin_layer(&id(1).chain).unwrap();
        let begun = Instant::now();
        let unpacked = writer.unpack(crate::Compression::None, archive.as_slice());
        let took = begun.elapsed();
        let layer = lab.commit(unpacked.unwrap(), 1);
        assert_eq!(there(&layer.join(marked)), Opaque);
        assert_eq!(fs::read_dir(layer.join("full")).unwrap().count(), FEW);
        took
    };
    let (empty, full) = (unpack("empty"), unpack("full"));
    assert!(full < empty * 8, "{full:?}, and {empty:?} in an empty one");
}

#[test]
fn privileged_each_mark_means_what_containerd_makes_of_it() {
    let below = || {
        vec![
            file("file", "1"),
            dir("d"),
            file("d/old", "1"),
            file("d/sub/old", "1"),
            symlink("link", "d"),
        ]
    };
    let rows = [
        deleted_names(),
        deleted_and_made(),
        opaque_directories(),
        replaced_kinds(),
        names_of_no_name(),
    ];
    for (what, items, expected) in rows.into_iter().flatten() {
        let lab = Lab::new();
        lab.layer(1, below());
        let writer = lab.store.begin_layer(&id(2).chain).unwrap();
        let archive = super::maker::tar(items);
        let unpacked = writer.unpack(crate::Compression::None, archive.as_slice());
        let Some(expected) = expected else {
            assert!(unpacked.is_err(), "{what}");
            continue;
        };
        let unpacked = unpacked.unwrap_or_else(|error| panic!("{what}: {error}"));
        let layer = lab.commit(unpacked, 2);
        lab.store.settle(&[id(1), id(2)]).unwrap();
        for (name, expected) in expected {
            assert_eq!(there(&layer.join(name)), *expected, "{what}: {name}");
        }
    }
}
