//! The modules of one crate: which file each is in, which items it has, and which paths it writes.
//!
//! This reads Rust as the compiler's tokens and no further: no types, no macros expanded. Code
//! under `#[cfg(test)]` is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Words that an item's name follows.
const ITEMS: &[&str] = &[
    "fn", "struct", "enum", "union", "trait", "type", "const", "static",
];

/// A path as it is written, without generics: `crate::pod::State`.
pub type Written = Vec<String>;

/// A module, in a file of its own or in braces.
#[derive(Debug, Default)]
pub struct Module {
    pub file: PathBuf,
    pub parent: Option<usize>,
    pub children: BTreeMap<String, usize>,
    pub items: BTreeSet<String>,
    /// Names that `use` brings in, with the paths they stand for.
    pub names: BTreeMap<String, Written>,
    /// Modules and enums that `use …::*` opens.
    pub globs: Vec<Written>,
    /// Paths that code follows: all but those that `pub use` hands on.
    pub paths: Vec<Written>,
}

/// All modules of a crate; the first is its root.
#[derive(Debug, Default)]
pub struct Modules(pub Vec<Module>);

impl Modules {
    /// Reads a crate from its root file.
    pub fn read(root: &Path) -> Self {
        let mut modules = Self::default();
        let dir = root.parent().unwrap();
        modules.file(root, dir, None);
        modules
    }

    /// Reads a file; the files of its child modules are in `dir`.
    fn file(&mut self, file: &Path, dir: &Path, parent: Option<usize>) -> usize {
        let text = std::fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        self.module(file, dir, parent, tokens)
    }

    fn module(
        &mut self,
        file: &Path,
        dir: &Path,
        parent: Option<usize>,
        tokens: TokenStream,
    ) -> usize {
        let id = self.0.len();
        self.0.push(Module {
            file: file.to_owned(),
            parent,
            ..Module::default()
        });
        let tokens = without_tests(tokens);
        let mut at = 0;
        let mut rest = Vec::new();
        while at < tokens.len() {
            let name = tokens
                .get(at + 1)
                .map(ToString::to_string)
                .unwrap_or_default();
            match (word(&tokens[at]).as_str(), tokens.get(at + 2)) {
                ("mod", Some(TokenTree::Group(body))) => {
                    let child = self.module(file, &dir.join(&name), Some(id), body.stream());
                    self.0[id].children.insert(name, child);
                    at += 3;
                }
                ("mod", Some(TokenTree::Punct(_))) => {
                    // A file that lies elsewhere, by `#[path]`, is not this crate's own.
                    if let Some(child) = self.child_file(dir, &name, id) {
                        self.0[id].children.insert(name, child);
                    }
                    at += 3;
                }
                _ => {
                    rest.push(tokens[at].clone());
                    at += 1;
                }
            }
        }
        self.0[id].items = items(&rest);
        self.paths(id, &rest);
        id
    }

    fn child_file(&mut self, dir: &Path, name: &str, parent: usize) -> Option<usize> {
        let folder = dir.join(name);
        let places = [dir.join(format!("{name}.rs")), folder.join("mod.rs")];
        let file = places.iter().find(|place| place.is_file())?;
        Some(self.file(file, &folder, Some(parent)))
    }

    /// Collects what is used and what is written, in bodies too.
    fn paths(&mut self, id: usize, tokens: &[TokenTree]) {
        let mut at = 0;
        while at < tokens.len() {
            if word(&tokens[at]) == "use" && !follows_colons(tokens, at) {
                let end = (at..tokens.len())
                    .find(|end| punct(&tokens[*end]) == Some(';'))
                    .unwrap_or(tokens.len());
                let shared = at > 0 && is_visibility(tokens, at - 1);
                self.used(id, &[], &tokens[at + 1..end], shared);
                at = end;
            } else if let TokenTree::Group(group) = &tokens[at] {
                let inner = without_tests(group.stream());
                self.paths(id, &inner);
                at += 1;
            } else {
                let (path, next) = path(tokens, at);
                if path.len() > 1 {
                    self.0[id].paths.push(path);
                }
                at = next;
            }
        }
    }

    /// The leaves of a tree as `a::{b, c::d as e, f::*}`.
    fn used(&mut self, id: usize, before: &[String], tree: &[TokenTree], shared: bool) {
        for branch in tree.split(|token| punct(token) == Some(',')) {
            let mut path = before.to_vec();
            let mut alias = None;
            for (at, token) in branch.iter().enumerate() {
                match token {
                    TokenTree::Ident(_) if at > 0 && word(&branch[at - 1]) == "as" => {
                        alias = Some(word(token));
                    }
                    TokenTree::Ident(name) if name != "as" => path.push(name.to_string()),
                    TokenTree::Punct(star) if star.as_char() == '*' => {
                        if !shared {
                            let all = [path.as_slice(), &["*".to_owned()]].concat();
                            self.0[id].paths.push(all);
                        }
                        self.0[id].globs.push(std::mem::take(&mut path));
                    }
                    TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                        let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                        self.used(id, &path, &inner, shared);
                        path.clear();
                    }
                    _ => {}
                }
            }
            if path.last().is_some_and(|last| last == "self") {
                path.pop();
            }
            let Some(last) = path.last().cloned() else {
                continue;
            };
            if !shared {
                self.0[id].paths.push(path.clone());
            }
            self.0[id].names.insert(alias.unwrap_or(last), path);
        }
    }
}

/// The names of the items between a module's braces.
fn items(tokens: &[TokenTree]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pair in tokens.windows(3) {
        if ITEMS.contains(&word(&pair[0]).as_str()) {
            found.insert(pair[1].to_string());
        }
        if word(&pair[0]) == "macro_rules" {
            found.insert(pair[2].to_string());
        }
    }
    found
}

/// The path that begins at a token, and where it ends.
fn path(tokens: &[TokenTree], at: usize) -> (Written, usize) {
    let mut path = Vec::new();
    let mut next = at;
    if follows_colons(tokens, at) {
        return (path, at + 1);
    }
    while let Some(TokenTree::Ident(name)) = tokens.get(next) {
        path.push(name.to_string());
        let colons = [next + 1, next + 2].map(|at| tokens.get(at).and_then(punct));
        if colons != [Some(':'), Some(':')] {
            return (path, next + 1);
        }
        next += 3;
    }
    (path, next.max(at + 1))
}

fn follows_colons(tokens: &[TokenTree], at: usize) -> bool {
    at > 1 && punct(&tokens[at - 1]) == Some(':') && punct(&tokens[at - 2]) == Some(':')
}

/// Whether the token ends `pub` or `pub(…)`.
fn is_visibility(tokens: &[TokenTree], at: usize) -> bool {
    word(&tokens[at]) == "pub"
        || matches!(&tokens[at], TokenTree::Group(_)) && at > 0 && word(&tokens[at - 1]) == "pub"
}

fn word(token: &TokenTree) -> String {
    match token {
        TokenTree::Ident(name) => name.to_string(),
        _ => String::new(),
    }
}

fn punct(token: &TokenTree) -> Option<char> {
    match token {
        TokenTree::Punct(punct) => Some(punct.as_char()),
        _ => None,
    }
}

/// The tokens without the items under `#[cfg(test)]` and without attributes.
pub fn without_tests(tokens: TokenStream) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    let mut test = false;
    while let Some(token) = tokens.next() {
        if punct(&token) == Some('#') {
            tokens.next_if(|token| punct(token) == Some('!'));
            if let Some(TokenTree::Group(attribute)) = tokens.peek() {
                let text = attribute.stream().to_string().replace(' ', "");
                test |= text.starts_with("cfg(test") || text.starts_with("cfg(all(test");
                tokens.next();
                continue;
            }
        }
        if !test {
            kept.push(token);
            continue;
        }
        let ends = match &token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            token => punct(token) == Some(';'),
        };
        test = !ends;
    }
    kept
}
