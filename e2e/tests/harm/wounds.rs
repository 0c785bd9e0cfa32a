//! The ways in which a file is harmed.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// A name, and what is done to a file.
pub(crate) type Wound = (&'static str, fn(&Path));

/// So many are tried where nobody asks for more.
const USUAL: usize = 3;

/// The unlike ones first.
const WOUNDS: [Wound; 15] = [
    ("missing", |path| fs::remove_file(path).unwrap()),
    ("a directory", |path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    }),
    ("bit flipped in the middle", |path| flip(path, 50)),
    ("empty", |path| cut(path, 0, 0)),
    ("cut at 30 %", |path| cut(path, 30, 0)),
    ("cut at 50 %", |path| cut(path, 50, 0)),
    ("cut at 70 %", |path| cut(path, 70, 0)),
    ("cut at 90 %", |path| cut(path, 90, 0)),
    ("a byte cut", |path| cut(path, 100, 1)),
    ("a byte more", |path| {
        let mut bytes = fs::read(path).unwrap();
        bytes.push(b'x');
        write(path, &bytes);
    }),
    ("zeroed", |path| zero(path, usize::MAX)),
    ("header zeroed", |path| zero(path, 16)),
    ("bit flipped at the start", |path| flip(path, 0)),
    ("bit flipped at the end", |path| flip(path, 100)),
    ("garbage", |path| {
        let length = fs::metadata(path).unwrap().len().max(64);
        let bytes: Vec<u8> = (0..length)
            .map(|at| (at * 167 + 13).to_le_bytes()[0])
            .collect();
        write(path, &bytes);
    }),
];

/// As many as `HARM_WOUNDS` says.
pub(crate) fn wounds() -> impl Iterator<Item = Wound> {
    let wanted = std::env::var("HARM_WOUNDS");
    let wanted = wanted.map_or(USUAL, |text| text.parse().unwrap());
    WOUNDS.into_iter().take(wanted)
}

/// As it was written, in the same file: who holds it open sees it too.
fn write(path: &Path, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// Where content ends: what follows was reserved, and is zero.
fn content(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1)
}

/// Keeps a part of the content, less some bytes.
fn cut(path: &Path, percent: usize, less: usize) {
    let bytes = fs::read(path).unwrap();
    let kept = (content(&bytes) * percent / 100).saturating_sub(less);
    write(path, &bytes[..kept]);
}

fn zero(path: &Path, most: usize) {
    let mut bytes = fs::read(path).unwrap();
    let end = most.min(bytes.len());
    bytes[..end].fill(0);
    write(path, &bytes);
}

fn flip(path: &Path, percent: usize) {
    let mut bytes = fs::read(path).unwrap();
    let last = content(&bytes).saturating_sub(1);
    if let Some(byte) = bytes.get_mut(last * percent / 100) {
        *byte ^= 0x10;
    }
    write(path, &bytes);
}
