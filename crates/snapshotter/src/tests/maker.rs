//! Makes tar archives entry by entry, honest and hostile, and unpacks them.

use std::path::PathBuf;

use crisp_model::{ContainerId, Digest};
use tar::{EntryType, Header};

use crate::{Compression, LayerId, Result, Snapshotter, UnpackedLayer};

/// One entry of an archive, as a test says it.
#[derive(Clone)]
pub(super) struct Item {
    header: Header,
    name: Vec<u8>,
    link: Vec<u8>,
    content: Vec<u8>,
    pax: Vec<(String, Vec<u8>)>,
}

impl Item {
    fn new(kind: EntryType, name: &str, mode: u32) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        Self {
            header,
            name: name.as_bytes().to_vec(),
            link: Vec::new(),
            content: Vec::new(),
            pax: Vec::new(),
        }
    }

    pub(super) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.header.set_uid(uid);
        self.header.set_gid(gid);
        self
    }

    pub(super) fn mode(mut self, mode: u32) -> Self {
        self.header.set_mode(mode);
        self
    }

    pub(super) fn mtime(mut self, seconds: u64) -> Self {
        self.header.set_mtime(seconds);
        self
    }

    pub(super) fn pax(mut self, key: &str, value: &[u8]) -> Self {
        self.pax.push((key.to_owned(), value.to_vec()));
        self
    }

    /// With the header of POSIX instead of GNU's: GNU tar takes PAX words about holes only there.
    pub(super) fn posix(mut self) -> Self {
        self.header.as_mut_bytes()[257..265].copy_from_slice(b"ustar\x0000");
        self
    }

    /// The entry's blocks, long names as GNU tar writes them.
    fn bytes(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.pax.is_empty() {
            let records: Vec<u8> = self.pax.iter().flat_map(|(k, v)| record(k, v)).collect();
            bytes.extend(raw(b'x', "pax", &records));
        }
        let old = self.header.as_old_mut();
        for (text, field, flag) in [
            (&self.name, &mut old.name, b'L'),
            (&self.link, &mut old.linkname, b'K'),
        ] {
            if text.len() > field.len() {
                bytes.extend(raw(flag, "././@LongLink", text));
            }
            let count = text.len().min(field.len());
            field.fill(0);
            field[..count].copy_from_slice(&text[..count]);
        }
        self.header.set_size(self.content.len() as u64);
        self.header.set_cksum();
        bytes.extend_from_slice(self.header.as_bytes());
        bytes.extend_from_slice(&self.content);
        pad(&mut bytes);
        bytes
    }
}

pub(super) fn file(name: &str, content: &str) -> Item {
    let mut item = Item::new(EntryType::Regular, name, 0o644);
    item.content = content.as_bytes().to_vec();
    item
}

pub(super) fn dir(name: &str) -> Item {
    Item::new(EntryType::Directory, name, 0o755)
}

pub(super) fn symlink(name: &str, target: &str) -> Item {
    let mut item = Item::new(EntryType::Symlink, name, 0o777);
    item.link = target.as_bytes().to_vec();
    item
}

pub(super) fn hard_link(name: &str, target: &str) -> Item {
    let mut item = Item::new(EntryType::Link, name, 0o644);
    item.link = target.as_bytes().to_vec();
    item
}

pub(super) fn fifo(name: &str) -> Item {
    Item::new(EntryType::Fifo, name, 0o644)
}

pub(super) fn char_device(name: &str, major: u32, minor: u32) -> Item {
    let mut item = Item::new(EntryType::Char, name, 0o666);
    item.header.set_device_major(major).unwrap();
    item.header.set_device_minor(minor).unwrap();
    item
}

/// An entry of any type with any content, as a hostile archive may have.
pub(super) fn raw(flag: u8, name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().linkflag[0] = flag;
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(content);
    pad(&mut bytes);
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
}

fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let body = [b" ", key.as_bytes(), b"=", value, b"\n"].concat();
    let mut length = body.len();
    while length != body.len() + length.to_string().len() {
        length = body.len() + length.to_string().len();
    }
    [length.to_string().into_bytes(), body].concat()
}

/// A whole archive.
pub(super) fn tar(items: Vec<Item>) -> Vec<u8> {
    let mut bytes: Vec<u8> = items.into_iter().flat_map(Item::bytes).collect();
    bytes.extend([0; 1024]);
    bytes
}

/// A store in a directory of its own.
pub(super) struct Lab {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Snapshotter,
}

impl Lab {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Snapshotter::open(&dir.path().join("snapshots")).unwrap();
        Self { dir, store }
    }

    pub(super) fn unpack(&self, blob: &[u8]) -> Result<UnpackedLayer> {
        let writer = self.store.begin_layer(&chain(u8::MAX))?;
        writer.unpack(Compression::Detect, blob)
    }

    /// Unpacks and names a layer; tells its directory.
    pub(super) fn layer(&self, number: u8, items: Vec<Item>) -> PathBuf {
        let writer = self.store.begin_layer(&chain(number)).unwrap();
        let unpacked = writer.unpack(Compression::None, tar(items).as_slice());
        self.commit(unpacked.unwrap(), number)
    }

    /// Names a layer; tells its directory. Tests know a layer by its number alone.
    pub(super) fn commit(&self, unpacked: UnpackedLayer, number: u8) -> PathBuf {
        let layer = unpacked.commit().unwrap();
        let layers = self.dir.path().join("snapshots/layers");
        let plain = layers.join(id(number).dir_name());
        std::fs::rename(layers.join(layer.dir_name()), plain).unwrap();
        self.fs(number)
    }

    pub(super) fn fs(&self, number: u8) -> PathBuf {
        let layers = self.dir.path().join("snapshots/layers");
        layers.join(chain(number).hex()).join("fs")
    }

    /// How many trees are on their way in or out.
    pub(super) fn in_transit(&self) -> usize {
        let ingest = self.dir.path().join("snapshots/ingest");
        std::fs::read_dir(ingest).unwrap().count()
    }
}

pub(super) fn chain(number: u8) -> Digest {
    Digest::sha256([number; 32])
}

pub(super) fn id(number: u8) -> LayerId {
    LayerId {
        chain: chain(number),
        generation: 0,
    }
}

pub(super) fn container(number: u8) -> ContainerId {
    ContainerId::from_entropy([number; 32])
}
