//! A random archive: what builders and packers write, in odd spellings.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::random::Random;
use crate::tests::maker::{Item, char_device, dir, fifo, file, hard_link, symlink};

/// An archive that is being made, and the facts about it.
pub(super) struct Archive {
    random: Random,
    items: Vec<Item>,
    dirs: Vec<String>,
    files: Vec<String>,
    taken: BTreeSet<String>,
    told: BTreeSet<String>,
}

impl Archive {
    /// The entries of the archive with this seed.
    pub(super) fn random(seed: u64) -> Vec<Item> {
        let mut made = Self::new(seed);
        made.fill();
        made.items
    }

    fn new(seed: u64) -> Self {
        Self {
            random: Random(seed),
            items: Vec::new(),
            dirs: vec![String::new()],
            files: Vec::new(),
            taken: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }

    fn fill(&mut self) {
        let count = 5 + self.random.below(40);
        for _ in 0..count {
            let item = match self.random.below(12) {
                0..=3 => self.directory(),
                4..=6 => self.file(),
                7 => self.sparse_file(),
                8 => self.link(),
                9 => self.hard_link(),
                10 => self.again(),
                _ => self.special(),
            };
            self.items.extend(item);
        }
    }

    /// A name that nothing has yet, in a directory that may not have been told.
    fn name(&mut self) -> String {
        loop {
            let dirs: Vec<&str> = self.dirs.iter().map(String::as_str).collect();
            let dir = self.random.of(&dirs).to_owned();
            let stem = self.random.of(&[
                "a",
                "file",
                "ümlaut",
                "with space",
                "-dash",
                "tab\there",
                "new\nline",
                "back\\slash",
                "'quote\"",
                "dot.",
                "...",
                "long",
            ]);
            let mut name = format!("{dir}{stem}{}", self.random.below(30));
            if self.random.one_in(5) {
                let length = 60 + self.random.below(180) as usize;
                name.push_str(&"x".repeat(length));
            }
            if name.len() < 900 && self.taken.insert(name.clone()) {
                return name;
            }
        }
    }

    /// The same name as it may be spelled in an archive.
    fn spelled(&mut self, name: &str) -> String {
        match self.random.below(6) {
            0 => format!("./{name}"),
            1 => name.replacen('/', "//", 1),
            2 => name.replacen('/', "/./", 1),
            _ => name.to_owned(),
        }
    }

    fn dress(&mut self, item: Item) -> Item {
        let mode = self.random.of(&[
            &0o644, &0o755, &0o600, &0o4755, &0o2755, &0o1777, &0o000, &0o7777, &0o444,
        ]);
        let (uid, gid) = (self.random.below(3) * 70_000, self.random.below(5000));
        let mut item = item.mode(*mode).owner(uid, gid);
        item = item.mtime(self.random.below(2_000_000_000));
        if self.random.one_in(4) {
            let seconds = self.random.below(1_900_000_000);
            let moment = format!("{seconds}.{:09}", self.random.below(1_000_000_000));
            item = item.pax("mtime", moment.as_bytes());
        }
        if self.random.one_in(6) {
            let id = (3_000_000 + self.random.below(1_000_000_000)).to_string();
            item = item.pax("uid", id.as_bytes()).pax("gid", id.as_bytes());
        }
        item
    }

    fn attributed(&mut self, mut item: Item) -> Item {
        for number in 0..self.random.below(3) {
            let value: Vec<u8> = (0..self.random.below(40))
                .map(|_| self.random.next() as u8)
                .collect();
            item = item.pax(&format!("SCHILY.xattr.user.n{number}"), &value);
        }
        item
    }

    fn content(&mut self) -> String {
        let length = self.random.of(&[&0, &1, &511, &512, &513, &4096, &70_000]);
        let letter = char::from(b'a' + self.random.below(26) as u8);
        letter.to_string().repeat(*length)
    }

    fn directory(&mut self) -> Option<Item> {
        let name = self.name();
        self.dirs.push(format!("{name}/"));
        if self.random.one_in(4) {
            // Only what it holds tells of it, if it comes to hold anything.
            return None;
        }
        self.told.insert(name.clone());
        let slash = self.random.of(&["", "/"]);
        let item = dir(&format!("{}{slash}", self.spelled(&name)));
        let item = self.dress(item);
        Some(self.attributed(item))
    }

    fn file(&mut self) -> Option<Item> {
        let name = self.name();
        self.files.push(name.clone());
        let content = self.content();
        let item = match self.random.one_in(4) {
            true => file("short", &content).pax("path", name.as_bytes()),
            false => file(&self.spelled(&name), &content),
        };
        let item = self.dress(item);
        Some(self.attributed(item))
    }

    /// Fragments of a sparse file, and its size.
    fn map(&mut self) -> (Vec<(u64, u64)>, u64) {
        let (mut map, mut end): (Vec<(u64, u64)>, u64) = (Vec::new(), 0);
        for _ in 0..self.random.below(5) {
            // Whole blocks, as GNU tar makes them and expects them.
            let offset = end + self.random.below(20) * 512;
            let length = 512 * (1 + self.random.below(4));
            map.push((offset, length));
            end = offset + length;
        }
        let mut size = end;
        match map.last_mut() {
            Some((_, length)) if self.random.one_in(2) => {
                let cut = self.random.below(512);
                *length -= cut;
                size -= cut;
            }
            // A file that ends with a hole has an empty fragment at its end.
            _ => {
                size += self.random.below(10_000);
                map.push((size, 0));
            }
        }
        (map, size)
    }

    fn sparse_file(&mut self) -> Option<Item> {
        let name = self.name();
        self.files.push(name.clone());
        let (map, size) = self.map();
        let lengths = map.iter().map(|(_, length)| *length as usize);
        let data = "s".repeat(lengths.sum());
        // GNU tar wants the count before what it counts.
        let counted = |name: &str, data: &str| {
            file(name, data)
                .pax("GNU.sparse.size", size.to_string().as_bytes())
                .pax("GNU.sparse.numblocks", map.len().to_string().as_bytes())
        };
        let item = match self.random.below(3) {
            0 => map
                .iter()
                .fold(counted(&name, &data), |item, (offset, length)| {
                    item.pax("GNU.sparse.offset", offset.to_string().as_bytes())
                        .pax("GNU.sparse.numbytes", length.to_string().as_bytes())
                }),
            1 => {
                let words = map.iter().flat_map(|(offset, length)| [offset, length]);
                let words: Vec<String> = words.map(u64::to_string).collect();
                counted("GNUSparseFile.0/x", &data)
                    .pax("GNU.sparse.map", words.join(",").as_bytes())
                    .pax("GNU.sparse.name", name.as_bytes())
            }
            _ => {
                let mut head = format!("{}\n", map.len());
                for (offset, length) in &map {
                    write!(head, "{offset}\n{length}\n").unwrap();
                }
                let padding = head.len().next_multiple_of(512) - head.len();
                head.push_str(&"\0".repeat(padding));
                file("GNUSparseFile.0/x", &(head + &data))
                    .pax("GNU.sparse.major", b"1")
                    .pax("GNU.sparse.minor", b"0")
                    .pax("GNU.sparse.name", name.as_bytes())
                    .pax("GNU.sparse.realsize", size.to_string().as_bytes())
            }
        };
        Some(self.dress(item.posix()))
    }

    fn link(&mut self) -> Option<Item> {
        let name = self.name();
        let long = "t/".repeat(150);
        let target = self
            .random
            .of(&["a", "../..", "/etc/passwd", "no\nwhere", long.as_str()]);
        let item = symlink(&self.spelled(&name), target);
        Some(self.dress(item))
    }

    fn hard_link(&mut self) -> Option<Item> {
        let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
        if files.is_empty() {
            return None;
        }
        let target = self.random.of(&files).to_owned();
        let name = self.name();
        self.files.push(name.clone());
        Some(hard_link(&name, &target))
    }

    /// A file of the archive once more, with other attributes. Of a directory that is told of
    /// twice GNU tar keeps what it was told first, and we, as Go's readers, what came last.
    fn again(&mut self) -> Option<Item> {
        let files: Vec<&str> = self.files.iter().map(String::as_str).collect();
        if files.is_empty() {
            return None;
        }
        let name = self.random.of(&files).to_owned();
        let content = self.content();
        Some(self.dress(file(&name, &content)))
    }

    fn special(&mut self) -> Option<Item> {
        let name = self.name();
        let item = match self.random.one_in(2) {
            true => fifo(&name),
            false => char_device(&name, 1, 3),
        };
        Some(self.dress(item))
    }
}
