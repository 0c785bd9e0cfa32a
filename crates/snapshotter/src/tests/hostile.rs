//! Hostile archives: nothing outside the layer changes, whatever they say.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink as link};
use std::path::{Path, PathBuf};

use super::maker::{Item, Lab, char_device, dir, file, hard_link, raw, symlink, tar};

/// All that can be seen of a tree: kinds, modes, owners, times, contents.
fn picture(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        let content = match stat.is_file() {
            true => fs::read_to_string(&path).unwrap(),
            false => String::new(),
        };
        let (mode, nlink, mtime) = (stat.mode(), stat.nlink(), stat.mtime());
        let row = format!("{mode:o} {nlink} {} {mtime} {content}", stat.uid());
        if stat.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        seen.insert(path, row);
    }
    seen
}

/// A store beside a directory of the host that must not change.
fn attack(name: &str, items: impl FnOnce(&str) -> Vec<Item>, expected: Expected) {
    let lab = Lab::new();
    let host = lab.dir.path().join("host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("secret"), "host").unwrap();
    link("secret", host.join("alias")).unwrap();
    let before = picture(&host);
    let result = lab.unpack(&tar(items(host.to_str().unwrap())));
    assert_eq!(
        result.is_ok(),
        expected == Expected::Contained,
        "{name}: {result:?}"
    );
    drop(result);
    assert_eq!(picture(&host), before, "{name}");
    assert_eq!(lab.in_transit(), 0, "{name}");
    let entries = fs::read_dir(lab.dir.path()).unwrap().count();
    assert_eq!(entries, 2, "{name}: something was made beside the store");
}

#[derive(Clone, Copy, PartialEq)]
enum Expected {
    /// Taken, and kept within the layer.
    Contained,
    /// An error.
    Refused,
}

#[test]
fn privileged_names_that_lead_upwards_are_refused() {
    let long = format!("a/{}", "../".repeat(64)) + "tmp/x";
    for name in ["../x", "a/../../x", "/../x", "..", &long] {
        let items = |_: &str| vec![file(name, "evil")];
        attack(name, items, Expected::Refused);
        attack(name, |_| vec![dir(name)], Expected::Refused);
        attack(name, |_| vec![hard_link("x", name)], Expected::Refused);
    }
    // The root itself: a directory, and nothing else.
    attack("a/..", |_| vec![dir("a/..")], Expected::Contained);
    attack("a/..", |_| vec![file("a/..", "evil")], Expected::Refused);
    attack("a/..", |_| vec![hard_link("x", "a/..")], Expected::Refused);
}

#[test]
fn privileged_links_lead_nowhere_outside() {
    // CVE-2021-32760: an entry behind a symlink changed modes of files of the host.
    attack(
        "file through an absolute link",
        |host| vec![symlink("out", host), file("out/secret", "evil").mode(0o777)],
        Expected::Contained,
    );
    attack(
        "directory entry over a link",
        |host| vec![symlink("out", host), dir("out").mode(0o777).owner(7, 7)],
        Expected::Contained,
    );
    attack(
        "file over a link to a file",
        |host| {
            vec![
                symlink("out", &format!("{host}/secret")),
                file("out", "evil"),
            ]
        },
        Expected::Contained,
    );
    attack(
        "relative link upwards",
        |_| {
            vec![
                symlink("out", "../../../../host"),
                file("out/secret", "evil"),
            ]
        },
        Expected::Contained,
    );
    attack(
        "links in a chain",
        |host| {
            vec![
                symlink("a", host),
                symlink("b", "a"),
                file("b/secret", "evil"),
            ]
        },
        Expected::Contained,
    );
    // CVE-2025-47290: the link is swapped in after the directory was seen.
    attack(
        "directory swapped for a link",
        |host| {
            let inside = file("d/first", "x");
            vec![
                dir("d"),
                inside,
                file("d", "x"),
                symlink("d", host),
                file("d/secret", "evil"),
            ]
        },
        Expected::Contained,
    );
}

#[test]
fn privileged_hard_links_and_marks_stay_inside() {
    attack(
        "hard link through a link",
        |host| vec![symlink("out", host), hard_link("stolen", "out/secret")],
        Expected::Refused,
    );
    attack(
        "hard link to a file of the host",
        |host| vec![hard_link("stolen", &format!("{host}/secret"))],
        Expected::Refused,
    );
    attack(
        "hard link to a link, then written",
        |host| {
            let secret = format!("{host}/secret");
            vec![
                symlink("a", &secret),
                hard_link("b", "a"),
                file("b", "evil").mode(0o777),
            ]
        },
        Expected::Contained,
    );
    attack(
        "links in a circle",
        |_| vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "evil")],
        Expected::Refused,
    );
    attack(
        "whiteout through a link",
        |host| vec![symlink("out", host), file("out/.wh.secret", "")],
        Expected::Contained,
    );
    attack(
        "opaque through a link",
        |host| vec![symlink("out", host), file("out/.wh..wh..opq", "")],
        Expected::Contained,
    );
}

#[test]
fn privileged_marks_that_are_none_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh..."] {
        attack(name, |_| vec![file(name, "")], Expected::Refused);
    }
    attack(
        "unknown mark",
        |_| vec![file(".wh..wh.plnk/1.2", "x")],
        Expected::Contained,
    );
}

#[test]
fn privileged_a_parent_that_is_no_directory_is_refused() {
    attack(
        "file",
        |_| vec![file("a", "x"), file("a/b", "evil")],
        Expected::Refused,
    );
    let device = |_: &str| vec![char_device("a", 1, 3), file("a/b", "evil")];
    attack("device", device, Expected::Refused);
    attack(
        "root is a file",
        |_| vec![file("./", "x")],
        Expected::Refused,
    );
    attack(
        "root is a link",
        |host| vec![symlink("/", host)],
        Expected::Refused,
    );
}

#[test]
fn privileged_absurd_headers_are_refused() {
    let huge_name = "n/".repeat(3000);
    attack("path", |_| vec![file(&huge_name, "x")], Expected::Refused);
    attack(
        "component",
        |_| vec![file(&"n".repeat(256), "x")],
        Expected::Refused,
    );
    attack(
        "owner",
        |_| vec![file("a", "x").owner(4_294_967_295, 0)],
        Expected::Refused,
    );
    attack(
        "owner",
        |_| vec![file("a", "x").pax("uid", b"4294967296")],
        Expected::Refused,
    );
    attack(
        "owner",
        |_| vec![file("a", "x").pax("uid", b"-1")],
        Expected::Refused,
    );
    attack(
        "size",
        |_| vec![file("a", "x").pax("size", b"99999999999999")],
        Expected::Refused,
    );
    attack(
        "NUL",
        |_| vec![file("a", "x").pax("path", b"a\0b")],
        Expected::Refused,
    );
    attack("empty", |_| vec![file("", "x")], Expected::Refused);
    attack(
        "sparse",
        |_| {
            let item = file("a", "x").pax("GNU.sparse.map", b"5,1");
            vec![item.pax("GNU.sparse.realsize", b"3")]
        },
        Expected::Refused,
    );
}

#[test]
fn privileged_broken_archives_leave_nothing() {
    let lab = Lab::new();
    let good = tar(vec![file("a", &"x".repeat(2000))]);
    let with_end = |mut bytes: Vec<u8>| {
        bytes.extend([0; 1024]);
        bytes
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("cut in a header", good[..100].to_vec()),
        ("cut in a file", good[..1500].to_vec()),
        ("no archive", b"this is no archive at all".repeat(100)),
        (
            "huge extended header",
            with_end(raw(b'x', "pax", &vec![b'1'; (1 << 20) + 1])),
        ),
        (
            "huge long name",
            with_end(raw(b'L', "l", &vec![b'n'; (1 << 20) + 1])),
        ),
        (
            "malformed extended header",
            with_end(raw(b'x', "pax", b"12 path=x")),
        ),
        ("unknown type", with_end(raw(b'Z', "z", b""))),
        ("volume header", with_end(raw(b'V', "v", b""))),
        (
            "old sparse without a map",
            with_end(raw(b'S', "s", b"data")),
        ),
        ("cut gzip", vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 1]),
        ("cut zstd", vec![0x28, 0xb5, 0x2f, 0xfd, 4]),
    ];
    for (name, blob) in cases {
        assert!(lab.unpack(&blob).is_err(), "{name}");
        assert_eq!(lab.in_transit(), 0, "{name}");
    }
    assert!(lab.store.layers().unwrap().is_empty());
}

#[test]
fn privileged_a_row_of_extended_headers_is_the_last_of_them() {
    let record = |number: usize| {
        let body = format!(" SCHILY.xattr.user.n{number}={}\n", "x".repeat(9000));
        format!("{}{body}", body.len() + 4)
    };
    let mut archive: Vec<u8> = (0..200)
        .flat_map(|number| raw(b'x', "pax", record(number).as_bytes()))
        .collect();
    archive.extend(tar(vec![
        file("a", "1").pax("SCHILY.xattr.user.last", b"1"),
    ]));
    let lab = Lab::new();
    let fs = lab.commit(lab.unpack(&archive).unwrap(), u8::MAX);
    let mut names = [0; 4096];
    let length = rustix::fs::llistxattr(fs.join("a"), names.as_mut_slice()).unwrap();
    assert_eq!(&names[..length], b"user.last\0");
}

/// A link may lead down hundreds of directories that are not there yet, and up again.
#[test]
fn privileged_a_deep_way_ends_where_it_says() {
    let way = format!("{}{}t", "d/".repeat(600), "../".repeat(600));
    let lab = Lab::new();
    let items = vec![
        dir("base"),
        symlink("base/link", &way),
        file("base/link/end", "x"),
    ];
    let fs = lab.commit(lab.unpack(&tar(items)).unwrap(), u8::MAX);
    assert_eq!(fs::read_to_string(fs.join("base/t/end")).unwrap(), "x");
    assert!(fs.join("base").join("d/".repeat(600)).is_dir());
}
