//! The store: names, removal, crashes, usage, lookups.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::maker::{Item, Lab, char_device, container, dir, file, id, symlink, tar};
use crate::{Compression, Doomed, Error, Lookup, Snapshotter};

#[test]
fn privileged_a_layer_has_a_name_when_it_is_whole() {
    let lab = Lab::new();
    let blob = tar(vec![file("a", "x")]);
    let unpacked = lab.unpack(&blob).unwrap();
    assert!(lab.store.layers().unwrap().is_empty());
    drop(unpacked);
    assert_eq!(lab.in_transit(), 0);
    // Each unpacking of a layer is a generation of its own.
    let twice = [lab.unpack(&blob).unwrap(), lab.unpack(&blob).unwrap()];
    let twice = twice.map(|layer| layer.commit().unwrap());
    assert_eq!(twice[0].chain, twice[1].chain);
    assert!(twice[0].generation < twice[1].generation);
    let mut layers = lab.store.layers().unwrap();
    layers.sort();
    assert_eq!(layers, twice);
    let later = Snapshotter::open(&lab.dir.path().join("snapshots")).unwrap();
    let next = later.begin_layer(&twice[0].chain).unwrap();
    let next = next.unpack(Compression::None, blob.as_slice()).unwrap();
    assert!(next.commit().unwrap().generation > twice[1].generation);
    assert_eq!(lab.store.layer_usage(&twice[0]).unwrap().bytes, 8192);
    lab.store.retire_layer(&twice[0]).unwrap().delete().unwrap();
    assert!(lab.store.retire_layer(&twice[0]).unwrap().is_empty());
    assert!(matches!(
        lab.store.layer_usage(&twice[0]),
        Err(Error::NoLayer(_))
    ));
    assert!(lab.store.layer_usage(&twice[1]).is_ok());
    assert_eq!(lab.in_transit(), 0);
}

#[test]
fn privileged_what_a_crash_left_is_collected() {
    let lab = Lab::new();
    let writer = lab.store.begin_layer(&id(1).chain).unwrap();
    std::mem::forget(writer.unpack(Compression::None, tar(vec![file("a/b", "x")]).as_slice()));
    assert_eq!(lab.in_transit(), 1);
    let again = Snapshotter::open(&lab.dir.path().join("snapshots")).unwrap();
    let under_way = again.begin_layer(&id(1).chain).unwrap();
    again.leftovers().unwrap().delete().unwrap();
    assert_eq!(lab.in_transit(), 1, "what is of this life stays");
    drop(under_way);
    assert_eq!(lab.in_transit(), 0);
    assert!(again.layers().unwrap().is_empty());
}

#[test]
fn privileged_names_go_at_once_and_trees_later() {
    let lab = Lab::new();
    for number in 1..=3 {
        lab.layer(number, vec![file("a", "x")]);
    }
    let mut doomed = Doomed::default();
    for number in [1, 9, 2] {
        doomed.add(lab.store.retire_layer(&id(number)).unwrap());
    }
    assert_eq!(lab.in_transit(), 2, "deleted before it returned");
    assert_eq!(lab.store.layers().unwrap(), [id(3)]);
    doomed.delete().unwrap();
    assert_eq!(lab.in_transit(), 0);
}

#[test]
fn privileged_snapshots_come_and_go() {
    let lab = Lab::new();
    let root = dir("./").mode(0o711).owner(5, 6);
    let bottom = lab.layer(1, vec![dir("./"), file("a", "x")]);
    let top = lab.layer(2, vec![root, file("b", "x")]);
    let layers = [id(1), id(2)];
    let snapshot = lab.store.prepare(&container(1), &layers).unwrap();
    assert_eq!(snapshot.lower, [top, bottom]);
    let upper = fs::metadata(&snapshot.upper).unwrap();
    assert_eq!(
        (upper.mode() & 0o7777, upper.uid(), upper.gid()),
        (0o711, 5, 6)
    );
    assert_eq!(lab.store.prepare(&container(1), &layers).unwrap(), snapshot);
    assert_eq!(lab.store.containers().unwrap(), [container(1)]);

    let before = lab.store.usage(&container(1)).unwrap();
    fs::write(snapshot.upper.join("data"), vec![7; 100_000]).unwrap();
    fs::hard_link(snapshot.upper.join("data"), snapshot.upper.join("same")).unwrap();
    std::os::unix::fs::symlink("/", snapshot.upper.join("root")).unwrap();
    fs::File::open(snapshot.upper.join("data"))
        .unwrap()
        .sync_all()
        .unwrap();
    let after = lab.store.usage(&container(1)).unwrap();
    assert_eq!(after.inodes, before.inodes + 2);
    assert!(
        (100_000..120_000).contains(&(after.bytes - before.bytes)),
        "{after:?}"
    );

    remove_container(&lab);
    remove_container(&lab);
    assert!(lab.store.containers().unwrap().is_empty());
    assert!(matches!(
        lab.store.usage(&container(1)),
        Err(Error::NotFound(_))
    ));
    assert!(matches!(
        lab.store.prepare(&container(2), &[id(9)]),
        Err(Error::NoLayer(_))
    ));
    assert!(lab.store.containers().unwrap().is_empty());
    let bare = lab.store.prepare(&container(3), &[]).unwrap();
    assert!(bare.lower[0].is_dir() && bare.lower.len() == 1);
}

fn remove_container(lab: &Lab) {
    let doomed = lab.store.retire_container(&container(1)).unwrap();
    doomed.delete().unwrap();
}

#[test]
fn privileged_trees_deeper_than_paths_are_measured_and_removed() {
    let lab = Lab::new();
    let snapshot = lab.store.prepare(&container(1), &[]).unwrap();
    let mut dir = rustix::fs::open(
        &snapshot.upper,
        rustix::fs::OFlags::DIRECTORY,
        rustix::fs::Mode::empty(),
    )
    .unwrap();
    for _ in 0..3000 {
        let mode = rustix::fs::Mode::from_raw_mode(0o700);
        rustix::fs::mkdirat(&dir, "deep", mode).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        dir = rustix::fs::openat(&dir, "deep", flags, rustix::fs::Mode::empty()).unwrap();
    }
    drop(dir);
    assert!(lab.store.usage(&container(1)).unwrap().inodes > 800);
    remove_container(&lab);
    assert_eq!(lab.in_transit(), 0);
}

fn stack() -> (Lab, Vec<crate::LayerId>) {
    let lab = Lab::new();
    let passwd = file("etc/passwd", "root:x:0:0");
    lab.layer(
        1,
        vec![
            passwd,
            file("etc/gone", "x"),
            file("opt/old/file", "x"),
            file("dir/below", "x"),
            file("was-file", "x"),
            char_device("dev/null", 1, 3),
            file("hidden/deep/file", "x"),
        ],
    );
    lab.layer(
        2,
        vec![
            file("etc/.wh.gone", ""),
            file("opt/old/.wh..wh..opq", ""),
            file("opt/old/new", "new"),
            file("dir", "now a file"),
            dir("was-file"),
            symlink("link", "/etc/passwd"),
            symlink("etc/up", "../../../../etc/passwd"),
            symlink("host", "/../../etc/hostname"),
            symlink("loop", "loop"),
            symlink("dirlink", "etc"),
            file(".wh.hidden", ""),
            file("hidden/own", "x"),
        ],
    );
    (lab, vec![id(1), id(2)])
}

#[test]
fn privileged_lookups_see_what_a_container_sees() {
    let (lab, layers) = stack();
    let passwd = || Lookup::File(b"root:x:0:0".to_vec());
    let cases = [
        ("/etc/passwd", passwd()),
        ("etc/../etc/./passwd", passwd()),
        ("../../etc/passwd", passwd()),
        ("link", passwd()),
        ("etc/up", passwd()),
        ("dirlink/passwd", passwd()),
        ("dirlink/up", passwd()),
        ("host", Lookup::Absent),
        ("loop", Lookup::Absent),
        ("etc/gone", Lookup::Absent),
        ("opt/old/file", Lookup::Absent),
        ("opt/old/new", Lookup::File(b"new".to_vec())),
        ("dir", Lookup::File(b"now a file".to_vec())),
        ("dir/below", Lookup::Absent),
        ("was-file", Lookup::Dir),
        ("/", Lookup::Dir),
        ("dev/null", Lookup::Other),
        ("hidden/own", Lookup::File(b"x".to_vec())),
        ("hidden/deep", Lookup::Absent),
        ("etc/passwd/x", Lookup::Absent),
    ];
    for (path, expected) in cases {
        let found = lab.store.lookup(&layers, Path::new(path), 100).unwrap();
        assert_eq!(found, expected, "{path}");
    }
}

#[test]
fn privileged_a_huge_file_is_not_read() {
    // CVE-2025-4437: a sparse /etc/passwd of 2 GB was read whole.
    let lab = Lab::new();
    let huge = file("etc/passwd", "")
        .pax("GNU.sparse.map", b"")
        .pax("GNU.sparse.realsize", b"2147483648");
    lab.layer(1, vec![huge]);
    let begun = Instant::now();
    let result = lab
        .store
        .lookup(&[id(1)], Path::new("/etc/passwd"), 1 << 20);
    assert!(matches!(result, Err(Error::TooLarge { .. })));
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn privileged_a_hole_of_a_volume_stays_a_hole() {
    let lab = Lab::new();
    let sparse = file("data/big", "headtail")
        .pax("GNU.sparse.map", b"0,4,1099511627772,4")
        .pax("GNU.sparse.realsize", b"1099511627776");
    lab.layer(1, vec![sparse]);
    let target = tempfile::tempdir().unwrap();
    let copied = lab.store.copy_up_volume(
        &[id(1)],
        Path::new("/data"),
        (target.path(), &AtomicBool::new(false)),
    );
    copied.unwrap();
    let stat = fs::metadata(target.path().join("big")).unwrap();
    assert_eq!(stat.len(), 1 << 40);
    assert!(stat.blocks() < 64, "{}", stat.blocks());
    let mut tail = [0; 4];
    let big = fs::File::open(target.path().join("big")).unwrap();
    std::os::unix::fs::FileExt::read_exact_at(&big, &mut tail, (1 << 40) - 4).unwrap();
    assert_eq!(&tail, b"tail");
}

#[test]
fn privileged_a_copy_that_nobody_wants_ends() {
    let lab = Lab::new();
    lab.layer(1, vec![file("data/first", "1"), file("data/second", "2")]);
    let target = tempfile::tempdir().unwrap();
    let unwanted = AtomicBool::new(true);
    let copied = lab
        .store
        .copy_up_volume(&[id(1)], Path::new("/data"), (target.path(), &unwanted));
    let error = copied.unwrap_err().to_string();
    assert!(error.contains("no longer wanted"), "{error}");
    assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
}

fn volume(items: Vec<Vec<Item>>, path: &str) -> tempfile::TempDir {
    let lab = Lab::new();
    let numbers = 1..=u8::try_from(items.len()).unwrap();
    let layers: Vec<_> = numbers.clone().map(id).collect();
    for (number, items) in numbers.zip(items) {
        lab.layer(number, items);
    }
    let target = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let copied = lab.store.copy_up_volume(
            &layers,
            Path::new(path),
            (target.path(), &AtomicBool::new(false)),
        );
        copied.unwrap();
    }
    target
}

#[test]
fn privileged_volumes_get_the_images_content_and_only_that() {
    let owned = |item: Item| item.owner(7, 8).mode(0o750);
    let bottom = vec![
        owned(dir("data")),
        file("data/kept", "kept").mode(0o4755).owner(9, 9),
        file("data/gone", "x"),
        symlink("data/out", "/etc/hostname"),
        char_device("data/sda", 8, 0),
    ];
    let top = vec![
        owned(dir("data")),
        file("data/.wh.gone", ""),
        file("data/sub/new", "new"),
    ];
    let target = volume(vec![bottom, top], "/data");
    let path = target.path();
    let stat = |name: &str| fs::symlink_metadata(path.join(name)).unwrap();
    assert_eq!(
        (stat("").mode() & 0o7777, stat("").uid(), stat("").gid()),
        (0o750, 7, 8)
    );
    assert_eq!(
        (stat("kept").mode() & 0o7777, stat("kept").uid()),
        (0o4755, 9)
    );
    assert_eq!(fs::read_to_string(path.join("sub/new")).unwrap(), "new");
    assert!(path.join("out").is_symlink());
    let names = fs::read_dir(path).unwrap().count();
    assert_eq!(names, 3, "only kept, out and sub");

    for items in [vec![dir("else")], vec![file("data", "no directory")]] {
        let target = volume(vec![items], "/data");
        let plain = fs::metadata(target.path()).unwrap();
        assert_eq!((plain.mode() & 0o7777, plain.uid()), (0o755, 0));
        assert_eq!(fs::read_dir(target.path()).unwrap().count(), 0);
    }

    // CVE-2022-23648: a volume whose path is a link or leads upwards copied files of the host.
    for path in ["/data", "/../../../etc", "/data/../../etc"] {
        let items = vec![symlink("data", "/etc"), file("etc/own", "image")];
        let target = volume(vec![items], path);
        let names = fs::read_dir(target.path()).unwrap();
        let names: Vec<_> = names.map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["own"], "{path}");
    }
}
