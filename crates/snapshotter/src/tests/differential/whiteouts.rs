//! Random whiteouts over a random layer, beside a model of what containerd makes of them.
//!
//! The model applies the upper archive to one plain tree, as a runtime without overlayfs would: a
//! whiteout removes what is below, an opaque mark removes all that a directory had below, and both
//! spare what the archive itself brings. Names that one archive deletes and makes are left to the
//! table of `tests/whiteouts.rs`: there the order counts.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;

use super::count;
use super::random::Random;
use crate::merged::{Found, Merged, MergedDir};
use crate::tests::maker::{Item, Lab, dir, file, id};

/// The kind of a path: a directory, or a file with this content.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Dir,
    File(String),
}

type Tree = BTreeMap<String, Node>;

fn below(tree: &Tree, path: &str) -> Vec<String> {
    let prefix = format!("{path}/");
    let names = tree.keys().filter(|name| name.starts_with(&prefix));
    names.cloned().collect()
}

fn forget(tree: &mut Tree, path: &str) {
    for name in below(tree, path) {
        tree.remove(&name);
    }
    tree.remove(path);
}

/// Two archives on the way, and the tree that they should show.
struct Layers {
    random: Random,
    lower: Vec<Item>,
    upper: Vec<Item>,
    /// The part of the lower archive that nothing hides.
    shown: Tree,
    /// The content of the upper archive.
    own: Tree,
    deleted: Vec<String>,
}

impl Layers {
    fn random(seed: u64) -> Self {
        let mut layers = Self {
            random: Random(seed),
            lower: Vec::new(),
            upper: Vec::new(),
            shown: Tree::new(),
            own: Tree::new(),
            deleted: Vec::new(),
        };
        for _ in 0..4 + layers.random.below(20) {
            layers.lower_entry();
        }
        for _ in 0..1 + layers.random.below(15) {
            match layers.random.below(6) {
                0..=1 => layers.delete(),
                2 => layers.make_opaque(),
                _ => layers.upper_entry(),
            }
        }
        layers
    }

    /// A name of few, so that layers meet, in a directory of `tree`.
    fn name(&mut self, tree: &Tree) -> String {
        let dirs = tree.iter().filter(|(_, node)| **node == Node::Dir);
        let mut dirs: Vec<String> = dirs.map(|(name, _)| format!("{name}/")).collect();
        dirs.push(String::new());
        let dir = self.random.below(dirs.len() as u64) as usize;
        let name = self.random.of(&["a", "b", "c", "d", "e"]);
        format!("{}{name}", dirs[dir])
    }

    fn node(&mut self, tag: &str) -> Node {
        match self.random.one_in(2) {
            true => Node::Dir,
            false => Node::File(format!("{tag}{}", self.random.below(1000))),
        }
    }

    fn lower_entry(&mut self) {
        let tree = self.shown.clone();
        let (name, node) = (self.name(&tree), self.node("lower"));
        if !tree.contains_key(&name) {
            self.lower.push(item(&name, &node));
            self.shown.insert(name, node);
        }
    }

    /// A file or directory of the upper archive, whose parents may be only the lower one's.
    fn upper_entry(&mut self) {
        let tree = self.merged();
        let (name, node) = (self.name(&tree), self.node("upper"));
        let is_deleted = |gone: &String| name == *gone || name.starts_with(&format!("{gone}/"));
        let known = self.own.get(&name);
        if self.deleted.iter().any(is_deleted) || known.is_some_and(|known| *known != node) {
            return;
        }
        self.upper.push(item(&name, &node));
        self.bring(&name, node);
    }

    fn bring(&mut self, name: &str, node: Node) {
        for (end, _) in name.match_indices('/') {
            self.own.insert(name[..end].to_owned(), Node::Dir);
        }
        if self
            .shown
            .get(name)
            .is_some_and(|there| *there != Node::Dir)
            || node != Node::Dir
        {
            forget(&mut self.shown, name);
        }
        self.own.insert(name.to_owned(), node);
    }

    fn delete(&mut self) {
        let tree = self.shown.clone();
        let name = self.name(&tree);
        if self.own.contains_key(&name) {
            return;
        }
        let (dir, base) = name.rsplit_once('/').map_or(("", &*name), |(d, b)| (d, b));
        let slash = if dir.is_empty() { "" } else { "/" };
        self.upper
            .push(file(&format!("{dir}{slash}.wh.{base}"), ""));
        if !dir.is_empty() {
            self.bring(dir, Node::Dir);
        }
        forget(&mut self.shown, &name);
        self.deleted.push(name);
    }

    fn make_opaque(&mut self) {
        let dirs = self.merged().into_iter();
        let dirs: Vec<String> = dirs
            .filter(|(_, node)| *node == Node::Dir)
            .map(|(n, _)| n)
            .collect();
        if dirs.is_empty() {
            return;
        }
        let dir = dirs[self.random.below(dirs.len() as u64) as usize].clone();
        self.upper.push(file(&format!("{dir}/.wh..wh..opq"), ""));
        self.bring(&dir, Node::Dir);
        for name in below(&self.shown, &dir) {
            self.shown.remove(&name);
        }
    }

    fn merged(&self) -> Tree {
        let mut tree = self.shown.clone();
        tree.extend(self.own.clone());
        tree
    }
}

fn item(name: &str, node: &Node) -> Item {
    match node {
        Node::Dir => dir(name),
        Node::File(content) => file(name, content),
    }
}

/// All that a merged directory shows.
fn show(dir: &MergedDir, path: &str, tree: &mut Tree) {
    for name in dir.names().unwrap() {
        let name = std::ffi::OsStr::from_bytes(name.as_bytes());
        let path = format!("{path}{}", name.to_str().unwrap());
        match dir.child(name).unwrap() {
            Found::Absent => {}
            Found::Dir(below) => {
                tree.insert(path.clone(), Node::Dir);
                show(&below, &format!("{path}/"), tree);
            }
            Found::Leaf(leaf) => {
                let content = std::io::read_to_string(leaf.open().unwrap()).unwrap();
                tree.insert(path, Node::File(content));
            }
            Found::Link(_) => panic!("{path} is a link"),
        }
    }
}

#[test]
fn privileged_random_whiteouts_hide_what_they_name() {
    let mut hidden = 0;
    for seed in 0..count() {
        let layers = Layers::random(seed);
        let expected = layers.merged();
        hidden += layers.deleted.len();
        let lab = Lab::new();
        let bottom = lab.layer(1, layers.lower);
        let top = lab.layer(2, layers.upper);
        lab.store.settle(&[id(1), id(2)]).unwrap();
        let merged = Merged::open(&[top, bottom]).unwrap();
        let mut shown = Tree::new();
        show(&merged.root(), "", &mut shown);
        assert_eq!(shown, expected, "seed {seed}");
    }
    assert!(hidden > 10, "{hidden} whiteouts are no test");
}
