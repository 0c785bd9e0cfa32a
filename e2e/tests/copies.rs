//! Trees of files that are copied into a container and out of it as `kubectl cp` does: an archive on the
//! standard input of a `tar` in the container, and one on the standard output of another.

#![allow(
    clippy::unwrap_used,
    reason = "a test: what goes wrong is a panic that says where"
)]

use std::collections::BTreeMap;
use std::io::Read as _;

use crisp_e2e::streams::{TRANSPORTS, crictl, fed};
use crisp_e2e::{configs, trial};
use sha2::{Digest as _, Sha256};
use tar::{Archive, Builder, EntryType, Header};

/// All that an archive says of one file: its kind, mode, owner and time, the digest of its content
/// and the place that it links to.
type Kept = (EntryType, [u64; 4], Vec<u8>, String);

/// Data that no layer on its way could have made up: each file has other bytes.
fn data(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2) | 1;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect()
}

fn header(kind: EntryType, mode: u32, number: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(0);
    header.set_mode(mode);
    header.set_mtime(1_500_000_000 + number);
    header.set_uid(number % 3 * 500);
    header.set_gid(number % 5 * 7);
    header
}

/// A tree of 200 MiB as an archive: sizes around the blocks of tar, a large file, many small ones, long
/// names, links.
fn tree() -> Vec<u8> {
    let sizes = [0, 1, 511, 512, 513, 10_239, 10_241, 32 << 10, 65_537];
    let mut files: Vec<usize> = sizes.to_vec();
    files.extend((0..400).map(|number| number * 37 % 5000));
    files.extend((0..130).map(|number| (1 << 20) + number));
    files.push(70 << 20);
    let mut archive = Builder::new(Vec::with_capacity(210 << 20));
    let modes = [0o644, 0o755, 0o600].into_iter().cycle();
    for ((number, size), mode) in (0..).zip(files).zip(modes) {
        let dir = format!("dir {}", number % 7);
        if number < 7 {
            let mut made = header(EntryType::Directory, 0o755, number);
            archive.append_data(&mut made, &dir, &[][..]).unwrap();
        }
        let long = "é".repeat(usize::try_from(number % 4 * 30).unwrap());
        let mut made = header(EntryType::Regular, mode, number);
        made.set_size(size as u64);
        let name = format!("{dir}/file-{number}{long}");
        archive
            .append_data(&mut made, name, &data(number, size)[..])
            .unwrap();
        if number < 7 {
            let mut made = header(EntryType::Symlink, 0o777, number);
            let name = format!("{dir}/link");
            archive
                .append_link(&mut made, name, format!("../{dir}/file-{number}"))
                .unwrap();
        }
    }
    archive.into_inner().unwrap()
}

/// The files of an archive by their paths.
fn files(archive: &[u8]) -> BTreeMap<String, Kept> {
    let mut found = BTreeMap::new();
    for entry in Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let path = path
            .trim_start_matches("./")
            .trim_end_matches('/')
            .to_owned();
        let link = entry.link_name_bytes().unwrap_or_default();
        let link = String::from_utf8(link.into_owned()).unwrap();
        let head = entry.header();
        let kind = head.entry_type();
        let mut numbers = [
            u64::from(head.mode().unwrap()),
            head.uid().unwrap(),
            head.gid().unwrap(),
            head.mtime().unwrap(),
        ];
        // Busybox's tar restores nothing of a link but its place, and files that come into a
        // directory change its time.
        match kind {
            EntryType::Symlink => numbers = [0; 4],
            EntryType::Directory => numbers[3] = 0,
            _ => {}
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let digest = Sha256::digest(&content).to_vec();
        if !path.is_empty() {
            found.insert(path, (kind, numbers, digest, link));
        }
    }
    found
}

#[test]
fn privileged_trees_come_out_as_they_went_in() {
    let sent = tree();
    let wanted = files(&sent);
    assert!(wanted.len() > 500 && sent.len() > 200 << 20);
    trial(|node| {
        let mut cri = node.cri();
        let pod = node.pod("copies");
        let id = cri.run_pod(&pod);
        let container = cri.run(&id, &pod, &configs::idle("main"));
        for transport in TRANSPORTS {
            let shell = |line: &str| {
                let words = ["-i", &container, "sh", "-c", line];
                crictl(node, "exec", transport, &words)
            };
            // The last word comes only after tar, and whoever reads behind it, has seen the end.
            let line = "mkdir /copy && tar -xf - -C /copy && cat && echo unpacked";
            let ended = fed(node, shell(line), &sent);
            let said = String::from_utf8_lossy(&ended.stdout);
            assert_eq!(said.trim_start_matches('\0'), "unpacked\n", "{transport}");
            // All of the output follows the end of the input: only one direction was closed.
            let line = "test $(cat) = now && tar -cf - -C /copy .";
            let ended = fed(node, shell(line), b"now");
            assert!(ended.status.success(), "{transport}");
            let got = files(&ended.stdout);
            let differs = |(path, kept): &(&String, &Kept)| got.get(*path) != Some(*kept);
            let first = wanted.iter().find(differs);
            assert!(
                first.is_none() && got.len() == wanted.len(),
                "{transport}: {first:?} of {}, {}",
                wanted.len(),
                got.len()
            );
            cri.shell(&container, "rm -r /copy");
        }
        let kib = node.peak_memory();
        assert!(kib < 100 * 1024, "the daemon's peak memory: {kib} KiB");
        cri.remove_pod(&id);
    });
}
