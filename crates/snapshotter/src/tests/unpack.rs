//! Honest archives: what comes out is what was meant.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use crisp_model::Digest;
use rustix::fs::{getxattr, lgetxattr};
use sha2::{Digest as _, Sha256};

use super::maker::{Item, Lab, char_device, dir, fifo, file, hard_link, raw, symlink, tar};

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let length = lgetxattr(path, name, &mut value[..]).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn privileged_attributes_are_those_of_the_archive() {
    let lab = Lab::new();
    let fs = lab.layer(
        0,
        vec![
            dir("./").mode(0o751).owner(3, 4).mtime(1000),
            dir("bin").mode(0o1777).mtime(2000),
            file("bin/su", "x").mode(0o4755).owner(1_000_000, 2_097_152),
            symlink("bin/sh", "/nowhere").owner(7, 8).mtime(3000),
            fifo("pipe").mode(0o620),
            char_device("null", 1, 3).mode(0o666).owner(0, 5),
            file("late", "").pax("mtime", b"1.25").pax("atime", b"2.5"),
            file("big", "").pax("uid", b"4000000000").pax("gid", b"11"),
        ],
    );
    let stat = |name: &str| fs::symlink_metadata(fs.join(name)).unwrap();
    let row = |name: &str| {
        let stat = stat(name);
        (stat.mode() & 0o7777, stat.uid(), stat.gid(), stat.mtime())
    };
    assert_eq!(row(""), (0o751, 3, 4, 1000));
    assert_eq!(row("bin"), (0o1777, 0, 0, 2000));
    assert_eq!(row("bin/su"), (0o4755, 1_000_000, 2_097_152, 1_600_000_000));
    assert_eq!(row("bin/sh"), (0o777, 7, 8, 3000));
    assert_eq!(row("pipe").0, 0o620);
    assert_eq!(
        (row("null").0, row("null").2, stat("null").rdev()),
        (0o666, 5, 0x103)
    );
    assert!(stat("null").file_type().is_char_device() && stat("pipe").file_type().is_fifo());
    let late = stat("late");
    assert_eq!((late.mtime(), late.mtime_nsec()), (1, 250_000_000));
    assert_eq!((late.atime(), late.atime_nsec()), (2, 500_000_000));
    assert_eq!((row("big").1, row("big").2), (4_000_000_000, 11));
}

#[test]
fn privileged_xattrs_are_taken_but_never_overlays() {
    // cap_net_raw=ep, with a newline byte inside: PAX values are not lines.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let lab = Lab::new();
    let fs = lab.layer(
        0,
        vec![
            file("ping", "x")
                .pax("SCHILY.xattr.security.capability", &capability)
                .pax("SCHILY.xattr.user.note", b"a\nb=\0c")
                .pax("SCHILY.xattr.trusted.overlay.redirect", b"/etc")
                .pax("SCHILY.xattr.security.selinux", b"label"),
            dir("d")
                .pax("SCHILY.xattr.trusted.overlay.opaque", b"y")
                .pax("SCHILY.xattr.user.overlay.opaque", b"y"),
        ],
    );
    assert_eq!(
        xattr(&fs.join("ping"), "security.capability"),
        Some(capability.to_vec())
    );
    assert_eq!(
        xattr(&fs.join("ping"), "user.note"),
        Some(b"a\nb=\0c".to_vec())
    );
    for (name, attribute) in [
        ("ping", "trusted.overlay.redirect"),
        ("ping", "security.selinux"),
        ("d", "trusted.overlay.opaque"),
        ("d", "user.overlay.opaque"),
    ] {
        assert_eq!(xattr(&fs.join(name), attribute), None, "{name} {attribute}");
    }
}

#[test]
fn privileged_long_names_of_every_format() {
    let lab = Lab::new();
    let gnu = format!("gnu/{}/{}", "d".repeat(200), "f".repeat(255));
    let pax = format!("pax/{}/{}", "ä".repeat(100), "é".repeat(120));
    let target = format!("/{}", "t".repeat(300));
    let fs = lab.layer(
        0,
        vec![
            file(&gnu, "gnu"),
            file("short", "pax").pax("path", pax.as_bytes()),
            symlink("gnu-link", &target),
            symlink("pax-link", "x").pax("linkpath", target.as_bytes()),
        ],
    );
    assert_eq!(fs::read_to_string(fs.join(gnu)).unwrap(), "gnu");
    assert_eq!(fs::read_to_string(fs.join(pax)).unwrap(), "pax");
    for link in ["gnu-link", "pax-link"] {
        assert_eq!(fs::read_link(fs.join(link)).unwrap(), Path::new(&target));
    }
}

#[test]
fn privileged_later_entries_replace_earlier_ones() {
    let lab = Lab::new();
    let fs = lab.layer(
        0,
        vec![
            file("file-file", "old"),
            file("file-file", "new"),
            dir("dir-file"),
            file("dir-file/below", "x"),
            file("dir-file", "new"),
            file("file-dir", "old"),
            dir("file-dir"),
            dir("dir-dir"),
            file("dir-dir/below", "kept"),
            dir("dir-dir").mode(0o700),
            symlink("link-dir", "dir-dir"),
            dir("link-dir"),
            file("link-dir/own", "x"),
            symlink("link-file", "dir-dir/below"),
            file("link-file", "own"),
        ],
    );
    let read = |name: &str| fs::read_to_string(fs.join(name)).unwrap();
    assert_eq!(
        (read("file-file"), read("dir-file")),
        ("new".into(), "new".into())
    );
    assert!(fs.join("file-dir").is_dir());
    assert_eq!(read("dir-dir/below"), "kept");
    assert_eq!(
        fs::metadata(fs.join("dir-dir")).unwrap().mode() & 0o777,
        0o700
    );
    assert!(!fs.join("link-dir").is_symlink() && fs.join("link-dir/own").exists());
    assert!(!fs.join("dir-dir/own").exists());
    assert_eq!(read("link-file"), "own");
}

#[test]
fn privileged_hard_links_share_an_inode() {
    let lab = Lab::new();
    let fs = lab.layer(
        0,
        vec![
            file("a", "shared"),
            hard_link("dir/b", "/a"),
            hard_link("a", "a"),
            symlink("to-a", "a"),
            hard_link("link", "to-a"),
            symlink("etc", "dir"),
            hard_link("through", "etc/b"),
        ],
    );
    let inode = |name: &str| fs::symlink_metadata(fs.join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("dir/b"));
    assert_eq!(inode("a"), inode("through"));
    assert_eq!(inode("link"), inode("to-a"));
    assert!(fs.join("link").is_symlink());
}

#[test]
fn privileged_parents_that_are_links_lead_within_the_layer() {
    let lab = Lab::new();
    let fs = lab.layer(
        0,
        vec![
            symlink("bin", "usr/bin"),
            file("bin/tool", "x"),
            symlink("var/run", "/run"),
            file("var/run/pid", "1"),
            dir("a/b"),
            symlink("a/b/up", "../../c"),
            file("a/b/up/file", "x"),
        ],
    );
    for name in ["usr/bin/tool", "run/pid", "c/file"] {
        assert!(fs.join(name).is_file(), "{name}");
    }
    for (name, mode) in [("usr", 0o755), ("usr/bin", 0o755), ("run", 0o755)] {
        assert_eq!(
            fs::metadata(fs.join(name)).unwrap().mode() & 0o7777,
            mode,
            "{name}"
        );
    }
}

/// A sparse file of 1 MiB with "head" at its start and "tail" at its end, as GNU tar writes it.
fn sparse(format: &str) -> Vec<u8> {
    const SIZE: u64 = 1 << 20;
    let tail = SIZE - 4;
    match format {
        "old" => {
            let mut block = raw(b'S', "sparse", b"headtail");
            let header = tar::Header::from_byte_slice(&block[..512]);
            let mut header = header.clone();
            let gnu = header.as_gnu_mut().unwrap();
            for (slot, offset) in gnu.sparse.iter_mut().zip([0, tail]) {
                slot.offset
                    .copy_from_slice(format!("{offset:011o}\0").as_bytes());
                slot.numbytes.copy_from_slice(b"00000000004\0");
            }
            // The data of each fragment is not padded: "headtail" follows as a whole.
            gnu.realsize
                .copy_from_slice(format!("{SIZE:011o}\0").as_bytes());
            header.set_cksum();
            block[..512].copy_from_slice(header.as_bytes());
            block.extend([0; 1024]);
            block
        }
        "0.0" => {
            let size = SIZE.to_string();
            let item = file("sparse", "headtail")
                .pax("GNU.sparse.size", size.as_bytes())
                .pax("GNU.sparse.offset", b"0")
                .pax("GNU.sparse.numbytes", b"4")
                .pax("GNU.sparse.offset", tail.to_string().as_bytes())
                .pax("GNU.sparse.numbytes", b"4");
            tar(vec![item])
        }
        "0.1" => {
            let item = named_sparse("headtail", "0", "1", SIZE);
            tar(vec![
                item.pax("GNU.sparse.map", format!("0,4,{tail},4").as_bytes()),
            ])
        }
        _ => {
            let mut content = format!("2\n0\n4\n{tail}\n4\n");
            content.extend(std::iter::repeat_n('\0', 512 - content.len()));
            content.push_str("headtail");
            tar(vec![named_sparse(&content, "1", "0", SIZE)])
        }
    }
}

fn named_sparse(content: &str, major: &str, minor: &str, size: u64) -> Item {
    file("GNUSparseFile.0/sparse", content)
        .pax("GNU.sparse.major", major.as_bytes())
        .pax("GNU.sparse.minor", minor.as_bytes())
        .pax("GNU.sparse.name", b"sparse")
        .pax("GNU.sparse.realsize", size.to_string().as_bytes())
}

#[test]
fn privileged_sparse_files_of_every_format() {
    for format in ["old", "0.0", "0.1", "1.0"] {
        let lab = Lab::new();
        let unpacked = lab.unpack(&sparse(format));
        let unpacked = unpacked.unwrap_or_else(|e| panic!("{format}: {e}"));
        let path = lab.commit(unpacked, u8::MAX).join("sparse");
        let content = fs::read(&path).unwrap();
        assert_eq!(content.len(), 1 << 20, "{format}");
        assert!(
            content.starts_with(b"head\0") && content.ends_with(b"\0tail"),
            "{format}"
        );
        assert!(fs::metadata(&path).unwrap().blocks() < 64, "{format}");
    }
}

#[test]
fn privileged_the_digest_covers_every_byte() {
    let lab = Lab::new();
    let mut padded = tar(vec![file("a", "x")]);
    padded.extend([0; 9 * 512]);
    padded.extend(b"whatever follows");
    let unpacked = lab
        .unpack(&zstd::encode_all(padded.as_slice(), 1).unwrap())
        .unwrap();
    assert_eq!(
        unpacked.diff_id,
        Digest::sha256(Sha256::digest(&padded).into())
    );
    assert_eq!((unpacked.size, unpacked.inodes), (8192, 2));
}

#[test]
fn privileged_what_gnu_tar_packs_comes_out_the_same() {
    let lab = Lab::new();
    let tree = lab.dir.path().join("tree");
    fs::create_dir_all(tree.join("deep/er")).unwrap();
    fs::write(tree.join("deep/er/file"), vec![7; 300_000]).unwrap();
    fs::hard_link(tree.join("deep/er/file"), tree.join("deep/other")).unwrap();
    std::os::unix::fs::symlink("deep", tree.join("link")).unwrap();
    let hole = fs::File::create(tree.join("hole")).unwrap();
    hole.set_len(8 << 20).unwrap();
    for format in ["gnu", "posix", "ustar", "v7", "oldgnu"] {
        let sparse: &[&str] = match format {
            "ustar" | "v7" => &[],
            _ => &["--sparse"],
        };
        let mut tar = crisp_sys::process::command("tar");
        tar.arg(format!("--format={format}")).args(sparse);
        let output = tar.arg("-cC").arg(&tree).arg(".").output().unwrap();
        assert!(output.status.success(), "{format}");
        let lab = Lab::new();
        let fs = lab.commit(lab.unpack(&output.stdout).unwrap(), u8::MAX);
        let mut diff = crisp_sys::process::command("diff");
        let same = diff.args(["-r", "--no-dereference"]).arg(&tree).arg(&fs);
        assert!(same.status().unwrap().success(), "{format}");
        let inode = |name: &str| fs::metadata(fs.join(name)).unwrap().ino();
        assert_eq!(inode("deep/er/file"), inode("deep/other"), "{format}");
    }
    assert!(getxattr(&tree, "user.none", &mut [0; 8][..]).is_err());
}
