//! Files are read and written on the shared threads, or in brief steps, whose worker another thread
//! takes over. The daemon has few async workers: a disk that is busy must not hold one, or every call
//! waits.

use std::path::Path;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

use crate::{check, modules};

/// Rooms of a pod's task that touch files, each with the reason why that holds up no worker.
const FILES: &[(&str, &str)] = &[
    ("boot.rs", "its steps are called by `brief`"),
    ("etc_files.rs", "the last step of a boot, called by `brief`"),
    ("record.rs", "it exists to write beside the workers"),
    (
        "resume.rs",
        "whoever takes pods up again does so in `blocking`",
    ),
    ("sysctl.rs", "a step of a boot, called by `brief`"),
    (
        "task.rs",
        "a pod whose task failed is taken up again in `blocking`",
    ),
    ("teardown.rs", "its steps are called by `brief`"),
];

/// Names that stand before calls of files.
const NAMES: &[&str] = &["fs", "file", "File", "OpenOptions", "Journal"];

#[test]
fn a_pods_task_leaves_files_to_its_rooms() {
    check(
        "a pod's task runs on an async worker: only listed rooms of it touch files, elsewhere",
        |path, text| {
            let room = path.strip_prefix("crates/node/src/pod").ok()?;
            if FILES.iter().any(|(file, _)| room == Path::new(file)) {
                return None;
            }
            let tokens = modules::without_tests(text.parse().ok()?);
            calls(&tokens).map(|name| format!("has `{name}::…`"))
        },
    );
}

#[test]
fn no_async_code_of_the_engine_calls_files() {
    check(
        "async code awaits `blocking(move || …)` for its files, or a slow disk stalls every call",
        |path, text| {
            if !path.starts_with("crates/node/src") {
                return None;
            }
            let tokens = modules::without_tests(text.parse().ok()?);
            in_async(&tokens).map(|name| format!("calls `{name}::…` in async code"))
        },
    );
}

/// The first call of files in what runs on a worker: in bodies of `async`, but for closures that
/// are moved to another thread.
fn in_async(tokens: &[TokenTree]) -> Option<&'static str> {
    let mut is_async = false;
    for token in tokens {
        match token {
            TokenTree::Ident(word) if word == "async" => is_async = true,
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_body = is_async && group.delimiter() == Delimiter::Brace;
                let stays = without_moved(&inner);
                let found = if is_body {
                    calls(&stays)
                } else {
                    in_async(&inner)
                };
                if found.is_some() {
                    return found;
                }
                is_async &= !is_body;
            }
            _ => {}
        }
    }
    None
}

/// The tokens without closures that are moved, each up to the end of its statement.
fn without_moved(tokens: &[TokenTree]) -> Vec<TokenTree> {
    let mut left = Vec::new();
    let mut is_moved = false;
    for (at, token) in tokens.iter().enumerate() {
        let text = token.to_string();
        let next = tokens.get(at + 1).map(ToString::to_string);
        is_moved |= text == "move" && next.is_some_and(|next| next == "|");
        is_moved &= text != ";";
        if is_moved {
            continue;
        }
        left.push(match token {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let stays: TokenStream = without_moved(&inner).into_iter().collect();
                TokenTree::Group(proc_macro2::Group::new(group.delimiter(), stays))
            }
            other => other.clone(),
        });
    }
    left
}

/// The name before the first call of files, at any depth; tokio's own files are no matter.
fn calls(tokens: &[TokenTree]) -> Option<&'static str> {
    for (at, token) in tokens.iter().enumerate() {
        let found = match token {
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                calls(&inner)
            }
            TokenTree::Ident(word) => {
                let is = |at: usize, text: &str| {
                    tokens
                        .get(at)
                        .is_some_and(|token| token.to_string() == text)
                };
                let is_path = is(at + 1, ":") && is(at + 2, ":");
                let of_tokio = (3..=6).any(|back| at >= back && is(at - back, "tokio"));
                let is_import = tokens[..at]
                    .iter()
                    .rev()
                    .take(8)
                    .any(|t| t.to_string() == "use");
                let name = NAMES.iter().find(|name| word == **name).copied();
                name.filter(|_| is_path && !of_tokio && !is_import)
            }
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

#[test]
fn moved_closures_are_told_from_what_stays() {
    let check = |code: &str, found: Option<&str>| {
        let tokens: Vec<TokenTree> = code.parse::<TokenStream>().unwrap().into_iter().collect();
        assert_eq!(in_async(&tokens), found, "{code}");
    };
    check("async fn f() { fs::read(p)?; }", Some("fs"));
    check(
        "fn f() { let a = async move { g(file::x()) }; }",
        Some("file"),
    );
    check("async fn f() { blocking(move || fs::read(p)).await }", None);
    check(
        "async fn f() { let a = move || { fs::read(p) }; b(a); }",
        None,
    );
    check(
        "async fn f() { let a = move || b; fs::read(p); }",
        Some("fs"),
    );
    check("async fn f() { tokio::fs::File::open(p).await }", None);
    check("fn f() { fs::read(p) }", None);
}
