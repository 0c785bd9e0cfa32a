//! A ban keeps something in one room: unsafe code, re-exports of our crates, workers.

use proc_macro2::{TokenStream, TokenTree};

use crate::{check, modules};

#[test]
fn unsafe_and_raw_fds_stay_behind_the_wall() {
    check(
        "crates/sys is the only home of unsafe and of bare descriptors",
        |path, text| {
            if path.starts_with("crates/sys") || path.starts_with("e2e/tests/house") {
                return None;
            }
            if path.starts_with("e2e") {
                return None;
            }
            let words = [
                "unsafe {",
                "unsafe fn",
                "unsafe impl",
                "from_raw_fd",
                "RawFd",
            ];
            words
                .iter()
                .find(|word| text.contains(**word))
                .map(|word| format!("has `{word}`"))
        },
    );
}

#[test]
fn every_crate_forbids_unsafe() {
    check(
        "a crate root outside sys forbids unsafe code",
        |path, text| {
            let root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
            let ours = path.starts_with("crates") && !path.starts_with("crates/sys");
            (root && ours && !text.contains("#![forbid(unsafe_code)]"))
                .then(|| "does not".to_owned())
        },
    );
}

#[test]
fn no_crate_hands_on_another() {
    check(
        "a re-export of our own crates lets its users reach past the table of who may know whom",
        |_, text| {
            let tokens = modules::without_tests(text.parse().ok()?);
            hands_on(&tokens).then(|| "has `pub use crisp_…`".to_owned())
        },
    );
}

/// Whether there is a `pub use`, also `pub(crate) use`, of a crate of ours.
fn hands_on(tokens: &[TokenTree]) -> bool {
    let words: Vec<String> = tokens.iter().map(ToString::to_string).collect();
    (0..words.len()).any(|at| {
        let group = words.get(at + 1).is_some_and(|next| next.starts_with('('));
        let rest = &words[at + 1 + usize::from(group)..];
        let rest = rest.strip_prefix(&["use".to_owned()]).unwrap_or_default();
        let name = rest.iter().find(|word| *word != ":");
        words[at] == "pub" && name.is_some_and(|name| name.starts_with("crisp_"))
    })
}

/// Files that start a thread themselves, each with the reason. A thread that is scoped is joined and
/// no matter.
const OWN_THREADS: &[(&str, &str)] = &[
    (
        "crates/sys/src/keyring.rs",
        "a session keyring belongs to a thread; this one ends before its function returns",
    ),
    (
        "crates/sys/src/ns.rs",
        "namespaces are made by a thread that leaves its own; it ends before its function returns",
    ),
];

#[test]
fn workers_are_started_in_one_place() {
    const SPAWNS: &[&str] = &[
        "tokio::spawn",
        "task::spawn",
        "spawn_blocking",
        "JoinSet",
        "thread::spawn",
        "thread::Builder",
    ];
    check(
        "only crates/tasks starts workers: there they have an owner, a name and a span, and end \
         with what they work for",
        |path, text| {
            let part = |name| path.iter().any(|part| part == name);
            let tests = part("tests") || path.file_stem()?.to_str()?.ends_with("_tests");
            let production = path.starts_with("crates") && part("src") && !tests;
            let excused = OWN_THREADS.iter().map(|(file, _)| file);
            let excused = excused
                .chain(&["crates/tasks"])
                .any(|at| path.starts_with(at));
            if !production || excused {
                return None;
            }
            let code: TokenStream = modules::without_tests(text.parse().ok()?)
                .into_iter()
                .collect();
            let code = code.to_string().replace([' ', '\n'], "");
            SPAWNS
                .iter()
                .find(|word| code.contains(**word))
                .map(|word| format!("has `{word}`"))
        },
    );
}

#[test]
fn the_engine_speaks_no_cri() {
    const ROOMS: &[&str] = &["cgroups", "model", "node", "records", "spec"];
    // As string literals begin.
    const PATHS: &[&str] = &[
        "\"linux.",
        "\"security_context",
        "\"mounts.",
        "\"devices.host_path",
        "\"devices.container_path",
        "\"runtime_handler\"",
    ];
    check(
        "a caller's fields are named by its door: the engine says which `Field` of its nouns it \
         cannot meet",
        |path, text| {
            let room = path.strip_prefix("crates").ok()?.iter().next()?.to_str()?;
            if !ROOMS.contains(&room) {
                return None;
            }
            let code: TokenStream = modules::without_tests(text.parse().ok()?)
                .into_iter()
                .collect();
            let code = code.to_string();
            let named = PATHS.iter().find(|path| code.contains(**path));
            named.map(|path| format!("has {path}"))
        },
    );
}
