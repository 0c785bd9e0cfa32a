//! A circle of files is a way from a file along the names that it uses back to the file itself.
//!
//! An arrow leads from a file to another of the same crate when production code of the first
//! writes a path (`crate::…`, `super::…`, `self::…`, a child module's or an imported name) that
//! ends at an item which the second file has. Three things are no arrows: `mod x;`, an import of a
//! module whose items are then not used, and `pub use`, which only hands a name on. A path through
//! a `pub use` leads to the file that has the item. So a `mod.rs` or `lib.rs` that declares
//! modules and re-exports their items is in no circle, and one with items of its own is like any
//! other file. Calls of methods need no path and are not seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::modules::{Modules, Written};

/// How often a name may stand for another.
const MAX_ALIASES: usize = 12;

/// To each file the files it uses, with a path that shows it.
type Arrows = BTreeMap<PathBuf, BTreeMap<PathBuf, String>>;

/// Finds a way around for each group of files that all reach each other: how many files the group
/// has, and the shortest circle as `a.rs -> b.rs (crate::b::B) -> a.rs (super::A)`.
pub fn circles(root_file: &Path) -> Vec<(usize, String)> {
    let arrows = arrows(&Modules::read(root_file));
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in arrows.keys() {
        if seen.contains(file) || way(&arrows, file, file).is_none() {
            continue;
        }
        let group: Vec<&PathBuf> = arrows
            .keys()
            .filter(|other| {
                *other == file
                    || way(&arrows, file, other).is_some() && way(&arrows, other, file).is_some()
            })
            .collect();
        let shortest = group
            .iter()
            .filter_map(|member| way(&arrows, member, member));
        let shortest = shortest.min_by_key(Vec::len).unwrap();
        found.push((group.len(), told(&arrows, &shortest)));
        seen.extend(group.into_iter().cloned());
    }
    found
}

/// The shortest way of at least one arrow, with both ends.
fn way(arrows: &Arrows, from: &Path, to: &Path) -> Option<Vec<PathBuf>> {
    let mut queue = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(walked) = queue.pop_front() {
        for next in arrows
            .get(walked.last()?)
            .into_iter()
            .flat_map(BTreeMap::keys)
        {
            let further = [walked.as_slice(), std::slice::from_ref(next)].concat();
            if next == to {
                return Some(further);
            }
            if seen.insert(next.clone()) {
                queue.push_back(further);
            }
        }
    }
    None
}

fn told(arrows: &Arrows, way: &[PathBuf]) -> String {
    let mut text = way[0].display().to_string();
    for pair in way.windows(2) {
        let why = &arrows[&pair[0]][&pair[1]];
        text.push_str(&format!(" -> {} ({why})", pair[1].display()));
    }
    text
}

fn arrows(modules: &Modules) -> Arrows {
    let mut arrows = Arrows::new();
    for (id, module) in modules.0.iter().enumerate() {
        for path in &module.paths {
            if let Some(to) = file_of(modules, id, path, 0)
                && to != module.file
            {
                let from = arrows.entry(module.file.clone()).or_default();
                from.entry(to).or_insert_with(|| path.join("::"));
            }
        }
    }
    arrows
}

/// The file that has the item at the end of a path; none for a module itself and for other crates.
fn file_of(modules: &Modules, from: usize, path: &[String], aliases: usize) -> Option<PathBuf> {
    if aliases > MAX_ALIASES {
        return None;
    }
    let (mut here, mut rest) = start(modules, from, path)?;
    while let [name, further @ ..] = rest {
        let module = &modules.0[here];
        match module.children.get(name) {
            Some(child) => (here, rest) = (*child, further),
            None if name == "super" => (here, rest) = (module.parent?, further),
            None => return item(modules, here, name, further, aliases),
        }
    }
    None
}

/// Where a path begins, and what is left of it.
fn start<'a>(modules: &Modules, from: usize, path: &'a [String]) -> Option<(usize, &'a [String])> {
    let (first, rest) = path.split_first()?;
    let module = &modules.0[from];
    match first.as_str() {
        "crate" => Some((0, rest)),
        "self" => Some((from, rest)),
        "super" => Some((module.parent?, rest)),
        name if module.children.contains_key(name) => Some((from, path)),
        name => {
            // A name that was imported; the import itself is a path too and counts on its own.
            let imported = module.names.get(name)?;
            (imported[0] != *name).then_some((from, path))
        }
    }
}

/// The file of an item that a module has or hands on.
fn item(
    modules: &Modules,
    here: usize,
    name: &str,
    further: &[String],
    aliases: usize,
) -> Option<PathBuf> {
    let module = &modules.0[here];
    if module.items.contains(name) {
        return Some(module.file.clone());
    }
    if let Some(meant) = module.names.get(name) {
        let path: Written = [meant.as_slice(), further].concat();
        return file_of(modules, here, &path, aliases + 1);
    }
    let opened = module.globs.iter().find_map(|glob| {
        let path: Written = [glob.as_slice(), &[name.to_owned()], further].concat();
        file_of(modules, here, &path, aliases + 1)
    });
    // An item that is declared nowhere was made there by a macro.
    opened.or_else(|| Some(module.file.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a crate of some files and tells its circles.
    fn check(files: &[(&str, &str)]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let found = circles(&dir.path().join("lib.rs"));
        let prefix = format!("{}/", dir.path().display());
        found
            .iter()
            .map(|(_, told)| told.replace(&prefix, ""))
            .collect()
    }

    #[test]
    fn two_files_that_use_each_other_are_a_circle() {
        let found = check(&[
            ("lib.rs", "mod a; mod b;"),
            ("a.rs", "use crate::b::B; pub struct A(B);"),
            ("b.rs", "pub struct B; fn f(_: &super::a::A) {}"),
        ]);
        assert_eq!(found, ["a.rs -> b.rs (crate::b::B) -> a.rs (super::a::A)"]);
    }

    #[test]
    fn a_file_that_declares_and_hands_on_is_in_none() {
        let found = check(&[
            (
                "lib.rs",
                "mod a; mod b; pub use a::A; pub(crate) use b::{B, C as D};",
            ),
            ("a.rs", "pub struct A;"),
            ("b.rs", "use crate::A; pub struct B(A); pub struct C;"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_name_that_is_handed_on_leads_to_its_file() {
        let found = check(&[
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::*;"),
            ("a.rs", "pub struct A(crate::B);"),
            ("b.rs", "pub struct B; impl B { fn f() { use crate::A; } }"),
        ]);
        assert_eq!(found, ["a.rs -> b.rs (crate::B) -> a.rs (crate::A)"]);
    }

    #[test]
    fn a_folder_and_its_file_can_be_one() {
        let found = check(&[
            ("lib.rs", "mod m;"),
            ("m/mod.rs", "mod c; pub fn f() { c::g(); } pub struct S;"),
            ("m/c.rs", "use super::S; pub fn g() -> S { S }"),
        ]);
        assert_eq!(found, ["m/c.rs -> m/mod.rs (super::S) -> m/c.rs (c::g)"]);
    }

    #[test]
    fn tests_and_other_crates_and_words_make_no_arrows() {
        let found = check(&[
            ("lib.rs", "mod a; mod b;"),
            (
                "a.rs",
                "pub struct A; #[cfg(test)] mod tests { use crate::b::B; }",
            ),
            (
                "b.rs",
                "use crate::a::A; pub struct B; // crate::b::B\nfn f() { std::b::B; \"crate::b\"; }",
            ),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_module_that_is_imported_counts_where_its_items_are_used() {
        let files = |code| {
            [
                ("lib.rs", "mod a; mod b;"),
                ("a.rs", "use crate::b; pub struct A;"),
                ("b.rs", code),
            ]
        };
        assert!(check(&files("use crate::a::A; pub struct B;")).is_empty());
        let mut both = files("use crate::a::A; pub struct B;");
        both[1].1 = "use crate::b; pub struct A(b::B);";
        assert_eq!(check(&both).len(), 1);
    }
}
