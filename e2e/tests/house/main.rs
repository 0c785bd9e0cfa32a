//! The house test: rules about the structure that no compiler lint can hold.
//!
//! Each rule says why it is there. A rule that is wrong gets changed here, with its reason.

#![allow(clippy::unwrap_used, reason = "a test fails where it stands")]
#![allow(
    clippy::disallowed_methods,
    reason = "tests run cargo and read the tree directly"
)]

mod bans;
mod blocking;
mod circles;
mod docs;
mod fuzz;
mod modules;
mod prose;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of our crates each crate may name. Anything not listed is forbidden: an arrow that is
/// missing here is a decision to take, not an oversight to add.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("crisp-model", &[]),
    ("crisp-sys", &[]),
    ("crisp-api", &[]),
    ("crisp-bolt", &[]),
    ("crisp-seccomp", &[]),
    ("crisp-tasks", &[]),
    ("crisp-spec", &["crisp-model", "crisp-seccomp"]),
    (
        "crisp-runtime",
        &["crisp-model", "crisp-seccomp", "crisp-sys"],
    ),
    (
        "crisp-oci",
        &["crisp-cgroups", "crisp-model", "crisp-runtime", "crisp-sys"],
    ),
    ("crisp-shim-api", &["crisp-model"]),
    (
        "crisp-shim",
        &[
            "crisp-model",
            "crisp-runtime",
            "crisp-shim-api",
            "crisp-sys",
        ],
    ),
    ("crisp-cni", &["crisp-model", "crisp-sys", "crisp-tasks"]),
    ("crisp-registry", &["crisp-model", "crisp-tasks"]),
    ("crisp-cdi", &["crisp-sys"]),
    ("crisp-content", &["crisp-model", "crisp-sys"]),
    ("crisp-snapshotter", &["crisp-model", "crisp-sys"]),
    (
        "crisp-image",
        &[
            "crisp-content",
            "crisp-model",
            "crisp-registry",
            "crisp-snapshotter",
            "crisp-sys",
            "crisp-tasks",
        ],
    ),
    (
        "crisp-cgroups",
        &["crisp-model", "crisp-sys", "crisp-tasks"],
    ),
    (
        "crisp-records",
        &["crisp-model", "crisp-shim-api", "crisp-sys"],
    ),
    (
        "crisp-node",
        &[
            "crisp-cdi",
            "crisp-cgroups",
            "crisp-cni",
            "crisp-image",
            "crisp-model",
            "crisp-records",
            "crisp-shim-api",
            "crisp-snapshotter",
            "crisp-spec",
            "crisp-sys",
            "crisp-tasks",
        ],
    ),
    (
        "crisp-cri-server",
        &[
            "crisp-api",
            "crisp-cgroups",
            "crisp-cni",
            "crisp-door",
            "crisp-image",
            "crisp-model",
            "crisp-node",
            "crisp-registry",
            "crisp-streaming",
            "crisp-tasks",
            // For the record of calls, which goes on to the door.
            "crisp-telemetry",
        ],
    ),
    ("crisp-door", &["crisp-tasks", "crisp-telemetry"]),
    // The protocols alone: doors hand in closures, so it needs no engine and no CRI.
    ("crisp-streaming", &["crisp-tasks"]),
    ("crisp-telemetry", &["crisp-tasks"]),
    (
        "crisp-daemon",
        &[
            "crisp-cgroups",
            "crisp-cni",
            "crisp-cri-server",
            "crisp-image",
            "crisp-model",
            "crisp-node",
            "crisp-registry",
            "crisp-streaming",
            // For the umask and the signals that it was started with.
            "crisp-sys",
            "crisp-tasks",
            "crisp-telemetry",
        ],
    ),
    // For people: it speaks CRI to daemons, as every other client.
    (
        "crisp-cli",
        &[
            "crisp-api",
            "crisp-bolt",
            "crisp-model",
            "crisp-sys",
            "crisp-tasks",
        ],
    ),
    // The end-to-end tests see what a user sees: binaries, sockets and the wire.
    ("crisp-e2e", &["crisp-api"]),
    // Foreign code alone; only tests may know it, see `oracles_are_for_tests`.
    ("crisp-oracles", &[]),
];

/// Crates that may be async. Below these, code is sync: it can be called from the single-threaded
/// shim and read from top to bottom.
const MAY_USE_TOKIO: &[&str] = &[
    "crisp-cgroups",
    "crisp-cli",
    "crisp-cni",
    "crisp-cri-server",
    "crisp-daemon",
    "crisp-door",
    "crisp-e2e",
    "crisp-image",
    "crisp-node",
    "crisp-registry",
    "crisp-streaming",
    "crisp-tasks",
    "crisp-telemetry",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "utils.rs",
    "helpers.rs",
    "common.rs",
    "manager.rs",
    "types.rs",
];

const MAX_LINES: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Package name to the names of its normal (not dev, not build) dependencies.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let normal = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|d| d["kind"].is_null())
            .map(|d| d["name"].as_str().unwrap().to_owned())
            .collect()
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|package| {
            (
                package["name"].as_str().unwrap().to_owned(),
                normal(package),
            )
        })
        .collect()
}

fn sources() -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().to_owned(), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join("crates"), &mut found);
    walk(&root().join("e2e"), &mut found);
    walk(&root().join("fuzz"), &mut found);
    found
}

/// Collects every offender of one rule, so that a run shows them all.
fn check(rule: &str, offends: impl Fn(&Path, &str) -> Option<String>) {
    let offenders: Vec<String> = sources()
        .iter()
        .filter_map(|(path, text)| Some(format!("  {}: {}", path.display(), offends(path, text)?)))
        .collect();
    assert!(offenders.is_empty(), "{rule}\n{}", offenders.join("\n"));
}

#[test]
fn rooms_know_only_whom_they_may() {
    let allowed: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    for (package, known) in dependencies() {
        let may = allowed
            .get(package.as_str())
            .unwrap_or_else(|| panic!("{package} has no row"));
        let ours = known.iter().filter(|d| d.starts_with("crisp-"));
        let wrong: Vec<_> = ours.filter(|d| !may.contains(&d.as_str())).collect();
        assert!(wrong.is_empty(), "{package} may not know {wrong:?}");
        let idle: Vec<_> = may.iter().filter(|d| !known.contains(**d)).collect();
        assert!(
            idle.is_empty(),
            "{package} knows no {idle:?}: take them from its row"
        );
    }
}

#[test]
fn oracles_are_for_tests() {
    for (package, known) in dependencies() {
        let wrong = known.contains("crisp-oracles");
        assert!(
            !wrong,
            "{package} depends on crisp-oracles outside of tests: its dependencies would reach a \
             binary that is shipped"
        );
    }
}

/// The lines of a manifest's table.
fn table<'a>(manifest: &'a str, header: &str) -> impl Iterator<Item = &'a str> {
    let from = manifest.split_once(header).map_or("", |(_, rest)| rest);
    from.split("\n[").next().unwrap_or_default().lines()
}

#[test]
fn the_workspace_names_no_dependency_that_no_crate_has() {
    let read = |dir: &Path| fs::read_to_string(dir.join("Cargo.toml")).unwrap_or_default();
    let mut crates: Vec<String> = fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| read(&entry.unwrap().path()))
        .collect();
    crates.extend(["e2e", "e2e/oracles"].map(|dir| read(&root().join(dir))));
    let manifest = read(&root());
    let named = table(&manifest, "[workspace.dependencies]\n").filter_map(|line| {
        let (name, _) = line.split_once(" = ")?;
        (!name.starts_with('#')).then_some(name)
    });
    let has = |text: &String, name: &str| {
        text.lines().any(|line| {
            let rest = line.strip_prefix(name).unwrap_or_default();
            rest.starts_with(".workspace") || rest.starts_with(" = ")
        })
    };
    let unused: Vec<&str> = named
        .filter(|name| !crates.iter().any(|text| has(text, name)))
        .collect();
    assert!(
        unused.is_empty(),
        "cargo machete looks at crates alone, so here is no one who would notice {unused:?}"
    );
}

#[test]
fn async_stays_above() {
    for (package, known) in dependencies() {
        let uses = known.contains("tokio") || known.contains("futures");
        assert!(
            !uses || MAY_USE_TOKIO.contains(&package.as_str()),
            "{package} uses tokio"
        );
    }
}

#[test]
fn pure_crates_do_no_io() {
    const IO: &[&str] = &[
        "std::fs",
        "std::net::Tcp",
        "std::process::",
        "std::os::",
        "SystemTime",
    ];
    check(
        "model, spec and seccomp are pure: same input, same output, no kernel",
        |path, text| {
            let pure = ["crates/model/src", "crates/spec/src", "crates/seccomp/src"];
            // Texts as bytes and back, without the kernel.
            let code = text.replace("std::os::unix::ffi", "");
            let code = code.split("#[cfg(test)]").next()?;
            if !pure.iter().any(|p| path.starts_with(p)) {
                return None;
            }
            IO.iter()
                .find(|io| code.contains(**io))
                .map(|io| format!("uses {io}"))
        },
    );
}

#[test]
fn files_say_what_they_are_for() {
    check(
        "a file opens with //! that says what the room is for",
        |_, text| (!text.starts_with("//!")).then(|| "no //! on the first line".to_owned()),
    );
}

#[test]
fn files_stay_readable() {
    check(
        "a file that nobody can hold in mind is several files",
        |_, text| {
            let lines = text.lines().count();
            (lines > MAX_LINES).then(|| format!("{lines} lines, at most {MAX_LINES}"))
        },
    );
}

#[test]
fn names_say_something() {
    check("a file is named after a noun of the domain", |path, _| {
        let name = path.file_name()?.to_str()?;
        EMPTY_NAMES
            .contains(&name)
            .then(|| "an empty name".to_owned())
    });
}

#[test]
fn no_test_is_switched_off() {
    check(
        "tests that need root are named privileged_, not ignored",
        |path, text| {
            let here = path.starts_with("e2e/tests/house");
            (!here && text.contains("#[ignore")).then(|| "has #[ignore]".to_owned())
        },
    );
}

#[test]
fn promises_are_kept() {
    const EXCUSES: &[&str] = &["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("];
    check("a stub behind a success is a defect", |path, text| {
        if path.starts_with("e2e/tests/house") {
            return None;
        }
        EXCUSES
            .iter()
            .find(|word| text.contains(**word))
            .map(|word| format!("has {word}"))
    });
}

/// The root file of every crate: libraries, commands, and test programs.
fn crate_roots() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (path, _) in sources() {
        let text = path.to_string_lossy().into_owned();
        let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
            continue;
        };
        let is_root = name == "main.rs"
            || dir.ends_with("src/bin")
            || dir.ends_with("src") && name == "lib.rs"
            || dir.ends_with("tests") && !text.contains("/src/");
        if is_root {
            found.push(path);
        }
    }
    found
}

#[test]
fn files_are_in_no_circles() {
    let mut wrong = Vec::new();
    for file in crate_roots() {
        let prefix = format!("{}/", root().display());
        for (files, way) in circles::circles(&root().join(&file)) {
            let way = way.replace(&prefix, "");
            wrong.push(format!("{}: {files} files, {way}", file.display()));
        }
    }
    assert!(
        wrong.is_empty(),
        "a file can be read, tested and moved alone only when nothing that it uses uses it: \
         move what both need to a file of its own\n{}",
        wrong.join("\n")
    );
}

#[test]
fn journals_of_every_version_are_read() {
    let crate_dir = root().join("crates/records");
    let golden = fs::read_dir(crate_dir.join("tests/v1"))
        .into_iter()
        .flatten()
        .flatten();
    let journals: Vec<PathBuf> = golden.map(|entry| entry.path()).collect();
    assert!(
        !journals.is_empty(),
        "crates/records/tests/v1 has no journals: without them a change of a record's fields would \
         pass every test and stop the pods of each node that is upgraded"
    );
    let tests: Vec<(PathBuf, String)> = sources()
        .into_iter()
        .filter(|(path, _)| path.starts_with("crates/records"))
        .collect();
    for journal in journals {
        let name = journal.file_name().unwrap().to_string_lossy().into_owned();
        let stem = journal.file_stem().unwrap().to_string_lossy().into_owned();
        // By its name, or all that are in the directory.
        let read = |text: &String| {
            text.contains(&name)
                || text.contains(&format!("\"{stem}\""))
                || text.contains("tests/v1")
        };
        assert!(
            tests.iter().any(|(_, text)| read(text)),
            "no test of crates/records reads {name}"
        );
    }
}
