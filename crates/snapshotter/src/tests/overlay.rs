//! The kernel's overlayfs and our own look at layers agree.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::path::Path;

use crisp_sys::mount::{Depth, FsContext, MountAttributes, Propagation};

use super::maker::{Item, Lab, char_device, container, dir, file, id, symlink};
use crate::{Lookup, Snapshot};

/// Layers in which every kind of deletion and replacement happens, bottom first.
fn layers() -> Vec<Vec<Item>> {
    vec![
        vec![
            file("keep/a", "1"),
            file("gone-file", "1"),
            file("gone-dir/a/b", "1"),
            file("opaque/old", "1"),
            file("opaque/sub/old", "1"),
            file("replaced/old", "1"),
            file("implicit/old", "1"),
            file("late/old", "1"),
            file("to-dir", "1"),
            file("to-file/x", "1"),
            symlink("to-real-dir", "keep"),
            file("twice/x", "1"),
            char_device("zero-device-over", 1, 3),
        ],
        vec![
            file(".wh.gone-file", ""),
            file(".wh.gone-dir", ""),
            file("opaque/.wh..wh..opq", ""),
            file("opaque/new", "2"),
            // Deleted and made anew: what was below must not show through.
            file(".wh.replaced", ""),
            dir("replaced"),
            file("replaced/new", "2"),
            file(".wh.implicit", ""),
            file("implicit/new", "2"),
            // The mark comes after what replaces.
            dir("late"),
            file("late/new", "2"),
            file(".wh.late", ""),
            dir("to-dir"),
            file("to-dir/new", "2"),
            file("to-file", "2"),
            dir("to-real-dir"),
            file("to-real-dir/own", "2"),
            file("twice/.wh.x", ""),
        ],
        vec![
            file("twice/x", "3"),
            dir("keep"),
            file("keep/b", "3"),
            file("keep/.wh.a", ""),
        ],
    ]
}

fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            let kind = fs::symlink_metadata(&path).unwrap();
            let what = if kind.is_dir() {
                pending.push(path);
                "dir".to_owned()
            } else if kind.is_file() {
                fs::read_to_string(&path).unwrap()
            } else {
                "other".to_owned()
            };
            seen.insert(name, what);
        }
    }
    seen
}

/// Mounts a snapshot in a mount namespace of a thread of its own, and looks.
fn mounted(snapshot: &Snapshot, target: &Path) -> BTreeMap<String, String> {
    std::thread::scope(|scope| {
        let looked = scope.spawn(|| {
            crisp_sys::fork::unshare(crisp_sys::fork::CloneFlags::NEWNS).unwrap();
            let root = Path::new("/");
            crisp_sys::mount::set_propagation(root, Propagation::Private, Depth::Recursive)
                .unwrap();
            let mut context = FsContext::open("overlay").unwrap();
            for lower in &snapshot.lower {
                context = context.set_path("lowerdir+", lower).unwrap();
            }
            let context = context.set_path("upperdir", &snapshot.upper).unwrap();
            let context = context.set_path("workdir", &snapshot.work).unwrap();
            let tree_fd = context.mount(MountAttributes::default()).unwrap();
            let target_fd = crisp_sys::rootfs::open_root(target).unwrap();
            crisp_sys::mount::attach(tree_fd.as_fd(), target_fd.as_fd()).unwrap();
            tree(target)
        });
        looked.join().unwrap()
    })
}

#[test]
fn privileged_the_kernel_shows_what_the_layers_mean() {
    let lab = Lab::new();
    let mut chains = Vec::new();
    for (number, items) in (1..).zip(layers()) {
        lab.layer(number, items);
        chains.push(id(number));
    }
    let snapshot = lab.store.prepare(&container(1), &chains).unwrap();
    let target = lab.dir.path().join("merged");
    fs::create_dir(&target).unwrap();
    let seen = mounted(&snapshot, &target);
    let expected = [
        ("implicit", "dir"),
        ("implicit/new", "2"),
        ("keep", "dir"),
        ("keep/b", "3"),
        ("late", "dir"),
        ("late/new", "2"),
        ("opaque", "dir"),
        ("opaque/new", "2"),
        ("replaced", "dir"),
        ("replaced/new", "2"),
        ("to-dir", "dir"),
        ("to-dir/new", "2"),
        ("to-file", "2"),
        ("to-real-dir", "dir"),
        ("to-real-dir/own", "2"),
        ("twice", "dir"),
        ("twice/x", "3"),
        ("zero-device-over", "other"),
    ];
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(name, what)| (name.to_owned(), what.to_owned()))
        .collect();
    assert_eq!(seen, expected);
    for (name, what) in &seen {
        let found = lab.store.lookup(&chains, Path::new(name), 10).unwrap();
        let same = match what.as_str() {
            "dir" => Lookup::Dir,
            "other" => Lookup::Other,
            content => Lookup::File(content.as_bytes().to_vec()),
        };
        assert_eq!(found, same, "{name}");
    }
    for name in [
        "gone-file",
        "gone-dir/a/b",
        "opaque/old",
        "replaced/old",
        "keep/a",
    ] {
        let found = lab.store.lookup(&chains, Path::new(name), 10).unwrap();
        assert_eq!(found, Lookup::Absent, "{name}");
    }
}

#[test]
fn privileged_an_opaque_root_hides_all_layers_below() {
    let lab = Lab::new();
    lab.layer(1, vec![file("old", "1")]);
    let top = lab.layer(2, vec![file(".wh..wh..opq", ""), file("new", "2")]);
    let chains = [id(1), id(2)];
    let snapshot = lab.store.prepare(&container(1), &chains).unwrap();
    assert_eq!(snapshot.lower, [top]);
    let look = |name: &str| lab.store.lookup(&chains, Path::new(name), 10).unwrap();
    assert_eq!(
        (look("old"), look("new")),
        (Lookup::Absent, Lookup::File(b"2".to_vec()))
    );
}
