//! Finds the programs that tests need. A missing one fails the test and names the remedy.

use std::env;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A binary of this project: from `CRISP_BIN_DIR`, else from beside the running test.
#[must_use]
pub fn ours(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(
        path.is_file(),
        "{} is missing: build it with `cargo build` or hack/build, or set CRISP_BIN_DIR",
        path.display()
    );
    path
}

/// The directory of this project's binaries.
#[must_use]
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = env::var_os("CRISP_BIN_DIR") {
        return dir.into();
    }
    let test = env::current_exe().unwrap();
    // target/debug/deps/TEST or target/debug/PROGRAM
    let dir = test.parent().unwrap();
    match dir.ends_with("deps") {
        true => dir.parent().unwrap().to_owned(),
        false => dir.to_owned(),
    }
}

/// Where `hack/tools` keeps what it builds.
#[must_use]
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Path::new(&env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    base.unwrap_or_else(home).join("crisp/tools")
}

/// A program of the system or of `hack/tools`.
#[must_use]
pub fn tool(name: &str) -> PathBuf {
    find(name).unwrap_or_else(|| panic!("{name} is missing: run hack/tools"))
}

fn find(name: &str) -> Option<PathBuf> {
    let mut dirs = vec![cache().join("bin")];
    dirs.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.iter()
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Whether a program is there that only a run of `hack/tools` with this word builds. Where it is not,
/// the calling test is told to be left out.
#[must_use]
pub fn has(name: &str, word: &str, test: &str) -> bool {
    let there = find(name).is_some();
    if !there {
        say(&format!(
            "SKIPPED: {test}: no {name}: hack/tools {word} builds it"
        ));
    }
    there
}

/// Whether a containerd is there with its client; else the calling test is told to be left out.
#[must_use]
pub fn has_containerd(test: &str) -> bool {
    ["containerd", "ctr"]
        .iter()
        .all(|program| has(program, "containerd", test))
}

/// Says a line past the test runner, which keeps what a passing test prints.
pub fn say(line: &str) {
    let mut stderr = std::io::stderr();
    stderr.write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// Runs a tool to its end and returns its standard output; anything but success is a panic.
#[track_caller]
#[must_use]
pub fn run(name: &str, arguments: &[&str]) -> String {
    let output = Command::new(tool(name)).args(arguments).output().unwrap();
    succeeded(&format!("{name} {}", arguments.join(" ")), &output)
}

/// The output of a command that must have succeeded.
#[track_caller]
#[must_use]
pub fn succeeded(what: &str, output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}
