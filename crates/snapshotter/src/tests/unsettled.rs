//! Open questions of a layer, settled above the layers below: the answers are containerd's where it
//! has a good one, and what applying the layers one by one to one tree gives where it has not.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

use super::maker::{Item, Lab, dir, file, id, symlink};
use crate::Snapshotter;

/// Unpacks layers, bottom first, the topmost first of all, and settles the stack.
fn stack(layers: Vec<Vec<Item>>) -> Lab {
    let lab = Lab::new();
    let count = u8::try_from(layers.len()).unwrap();
    for (number, items) in (1..=count).zip(layers).rev() {
        lab.layer(number, items);
    }
    let ids: Vec<_> = (1..=count).map(id).collect();
    lab.store.settle(&ids).unwrap();
    lab
}

fn attributes(path: &Path) -> (u32, u32, u32) {
    let stat = fs::symlink_metadata(path).unwrap();
    (stat.mode() & 0o7777, stat.uid(), stat.gid())
}

/// Directories that upper layers imply, in every relation to what is below.
fn layers() -> Vec<Vec<Item>> {
    vec![
        vec![
            dir("tmp").mode(0o1777).mtime(1000),
            dir("srv").mode(0o750),
            dir("srv/app").mode(0o700).owner(1000, 1000),
            dir("var/cache").mode(0o2775).owner(0, 10),
            dir("twice").mode(0o711),
            dir("real").mode(0o701).owner(3, 3),
            symlink("link", "real"),
            dir("told").mode(0o700),
            dir("told-late").mode(0o700),
            file("was-file", "x"),
            dir("opaque").mode(0o770),
            dir("opaque/sub").mode(0o707),
            dir("gone").mode(0o700).owner(9, 9),
            dir("gone-late").mode(0o700).owner(9, 9),
            dir("gone-between").mode(0o700),
            dir("attributes").pax("SCHILY.xattr.user.note", b"kept"),
        ],
        vec![
            file(".wh.gone-between", ""),
            file("twice/middle", "x"),
            file("only-here/x", "x"),
        ],
        vec![
            file("tmp/x", ""),
            file("srv/app/new", ""),
            file("var/cache/z", ""),
            file("twice/top", ""),
            file("link/x", ""),
            dir("told").mode(0o751),
            file("told/x", ""),
            file("told-late/x", ""),
            dir("told-late").mode(0o751),
            file("was-file/x", ""),
            file("opaque/.wh..wh..opq", ""),
            file("opaque/sub/x", ""),
            file(".wh.gone", ""),
            file("gone/x", ""),
            file("gone-late/x", ""),
            file(".wh.gone-late", ""),
            file("gone-between/x", ""),
            file("new/x", ""),
            file("only-here/y", ""),
            file("attributes/x", ""),
        ],
    ]
}

#[test]
fn privileged_implied_directories_keep_what_they_have_below() {
    let lab = stack(layers());
    for (name, expected) in [
        ("tmp", (0o1777, 0, 0)),
        ("srv", (0o750, 0, 0)),
        ("srv/app", (0o700, 1000, 1000)),
        ("var", (0o755, 0, 0)),
        ("var/cache", (0o2775, 0, 10)),
        // The layer between implies it as well.
        ("twice", (0o711, 0, 0)),
        // It stands where a link to a directory was.
        ("link", (0o701, 3, 3)),
        // An entry says otherwise, before or after what the directory holds.
        ("told", (0o751, 0, 0)),
        ("told-late", (0o751, 0, 0)),
        ("was-file", (0o755, 0, 0)),
        // It is the same directory, but what it held is gone.
        ("opaque", (0o770, 0, 0)),
        ("opaque/sub", (0o755, 0, 0)),
        // Another directory of the same name.
        ("gone", (0o755, 0, 0)),
        ("gone-late", (0o755, 0, 0)),
        ("gone-between", (0o755, 0, 0)),
        ("new", (0o755, 0, 0)),
        ("only-here", (0o755, 0, 0)),
    ] {
        assert_eq!(attributes(&lab.fs(3).join(name)), expected, "{name}");
    }
    assert_eq!(attributes(&lab.fs(2).join("twice")), (0o711, 0, 0));
    let mut value = [0; 8];
    let length = lgetxattr(
        lab.fs(3).join("attributes"),
        "user.note",
        value.as_mut_slice(),
    );
    assert_eq!(&value[..length.unwrap()], b"kept");
    assert_eq!(fs::metadata(lab.fs(3).join("tmp")).unwrap().mtime(), 1000);
}

#[test]
fn privileged_marks_of_overlayfs_are_not_taken_over() {
    let lab = Lab::new();
    let below = lab.layer(1, vec![dir("d").mode(0o700)]);
    let mark = "trusted.overlay.opaque";
    lsetxattr(below.join("d"), mark, b"y", XattrFlags::empty()).unwrap();
    let top = lab.layer(2, vec![file("d/x", "")]);
    lab.store.settle(&[id(1), id(2)]).unwrap();
    assert_eq!(attributes(&top.join("d")), (0o700, 0, 0));
    assert!(lgetxattr(top.join("d"), mark, [0; 8].as_mut_slice()).is_err());
}

#[test]
fn privileged_deletions_that_hide_nothing_are_not_made() {
    let lab = stack(vec![
        vec![
            file("d/.wh.never", ""),
            file("d/old", ""),
            file("e/old", ""),
            file("f/old", ""),
        ],
        vec![
            dir("d"),
            file("d/.wh..wh..opq", ""),
            file("d/new", ""),
            file("d/.wh.old", ""),
            file("e/.wh.old", ""),
            file("e/.wh.never", ""),
            file("alone/.wh.x", ""),
        ],
        vec![
            file("e/.wh.old", ""),
            file("f/.wh.old", ""),
            file("f/old", "again"),
        ],
    ]);
    let names = |number: u8, dir: &str| {
        let entries = fs::read_dir(lab.fs(number).join(dir)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    };
    assert_eq!(names(1, "d"), ["old"]);
    assert_eq!(names(2, "d"), ["new"]);
    assert_eq!(names(2, "e"), ["old"], "a deletion that hides a file stays");
    assert!(names(2, "alone").is_empty());
    assert!(names(3, "e").is_empty(), "deleted by a layer below already");
    let again = fs::read_to_string(lab.fs(3).join("f/old")).unwrap();
    assert_eq!(again, "again");
}

#[test]
fn privileged_a_layer_is_settled_once() {
    let lab = stack(vec![vec![dir("tmp").mode(0o1777)], vec![file("tmp/x", "")]]);
    let tmp = lab.fs(2).join("tmp");
    fs::set_permissions(&tmp, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    let again = Snapshotter::open(&lab.dir.path().join("snapshots")).unwrap();
    again.settle(&[id(1), id(2)]).unwrap();
    assert_eq!(attributes(&tmp).0, 0o700);
}

#[test]
fn privileged_replaced_directories_are_not_taken_for_implied_ones() {
    let lab = stack(vec![
        vec![dir("d").mode(0o700), dir("e").mode(0o700)],
        vec![
            // Implied, replaced by a file, and told after all.
            file("d/x", ""),
            file("d", "a file"),
            dir("d").mode(0o751),
            // Deleted and implied again by what follows.
            file(".wh.e", ""),
            file("e/x", ""),
            file("f/x", ""),
            file("f", "a file"),
        ],
    ]);
    assert_eq!(attributes(&lab.fs(2).join("d")), (0o751, 0, 0));
    assert_eq!(attributes(&lab.fs(2).join("e")), (0o755, 0, 0));
    assert!(lab.fs(2).join("f").is_file());
}

#[test]
fn privileged_names_with_dots_stay_inside() {
    let lab = stack(vec![vec![
        file("foo/../bar2", "x"),
        file("foo/../bar3", "x"),
        super::maker::hard_link("foo/l", "foo/../bar3"),
        dir("a/b/../../c"),
    ]]);
    let inode = |name: &str| fs::metadata(lab.fs(1).join(name)).unwrap().ino();
    assert_eq!(inode("foo/l"), inode("bar3"));
    assert!(lab.fs(1).join("bar2").is_file() && lab.fs(1).join("c").is_dir());
}
