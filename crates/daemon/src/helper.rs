//! The helper programs, `crisp-shim` and `crisp-holder`: where they are, and that what is there is
//! one of them. A wrong program would be met first by the start of a container.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crisp_sys::process::command;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::exit::{Exit, Fatal};

/// Where packages put the helpers.
const HELPERS: &str = "/usr/libexec/crisp";

/// A program that does not say its version by then is none of ours.
const SAYS_WITHIN: Duration = Duration::from_secs(10);

/// More of what a stranger says is not read.
const MOST_SAID: u64 = 128;

/// Finds a helper program: at its configured path, beside this program, or where packages put it.
///
/// # Errors
/// When it is not there, or another program is.
pub async fn find(name: &str, written: Option<&Path>) -> Result<PathBuf, Fatal> {
    let path = place(name, written)?;
    let said = tokio::time::timeout(SAYS_WITHIN, version(&path)).await;
    let why = match said {
        Ok(Ok(said)) if said.starts_with(&format!("{name} ")) => return Ok(path),
        Ok(Ok(said)) => format!("asked for its version, it says {:?}", said.trim()),
        Ok(Err(error)) => format!("it cannot be run: {error}"),
        Err(_) => format!("asked for its version, it says nothing within {SAYS_WITHIN:?}"),
    };
    let reason = format!(
        "{} is not {name}: {why}; install {name} there or set daemon.{}",
        path.display(),
        key(name)
    );
    Err(Fatal::new(Exit::Missing, reason))
}

fn key(name: &str) -> &str {
    name.trim_start_matches("crisp-")
}

fn place(name: &str, written: Option<&Path>) -> Result<PathBuf, Fatal> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|p| Some(p.parent()?.join(name)));
    let candidates: Vec<PathBuf> = match written {
        Some(path) => vec![path.to_owned()],
        None => beside
            .into_iter()
            .chain([Path::new(HELPERS).join(name)])
            .collect(),
    };
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let tried: Vec<_> = candidates
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    let reason = format!(
        "{name} is not at {}: install it or set daemon.{}",
        tried.join(" or "),
        key(name)
    );
    Err(Fatal::new(Exit::Missing, reason))
}

/// The beginning of what a program says when it is asked for its version. It is killed when this is
/// dropped.
async fn version(path: &Path) -> std::io::Result<String> {
    let mut child = Command::from(command(path))
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut said = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MOST_SAID).read_to_end(&mut said).await?;
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// Whether pods can have user namespaces whose layers lie on the disk of this directory.
///
/// # Errors
/// Why not.
pub async fn can_map(holder: &Path, dir: &Path) -> Result<(), String> {
    let mut tries = command(holder);
    tries
        .arg("can-map")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    let tried = Command::from(tries).kill_on_drop(true).output();
    let tried = tokio::time::timeout(SAYS_WITHIN, tried).await;
    let told = tried.map_err(|_| format!("it was not found out within {SAYS_WITHIN:?}"))?;
    let told = told.map_err(|error| format!("{} cannot be run: {error}", holder.display()))?;
    if told.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&told.stderr);
    let why = why.trim().trim_start_matches("crisp-holder: ");
    Err(match why {
        "" => format!("{} ended with {}", holder.display(), told.status),
        why => why.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(name: &str, path: &Path) -> String {
        find(name, Some(path)).await.unwrap_err().reason
    }

    #[tokio::test]
    async fn a_program_that_is_no_helper_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, line: &str, mode: u32| {
            let path = dir.path().join(name);
            let text = format!("#!/bin/sh\n{line}\n");
            crisp_sys::file::write_atomic(&path, text.as_bytes(), mode).unwrap();
            path
        };
        let good = script("good", "echo crisp-shim 0.0.0", 0o700);
        assert_eq!(find("crisp-shim", Some(&good)).await.unwrap(), good);
        for (path, word) in [
            (PathBuf::from("/bin/true"), "/bin/true is not crisp-shim"),
            (script("endless", "exec yes", 0o700), "it says \"y"),
            (
                script("plain", "", 0o600),
                "cannot be run: Permission denied",
            ),
            (dir.path().join("missing"), "is not at"),
            (dir.path().to_owned(), "is not at"),
        ] {
            let reason = refused("crisp-shim", &path).await;
            assert!(
                reason.contains(word) && reason.contains("set daemon.shim"),
                "{reason}"
            );
        }
        let reason = refused("crisp-holder", &good).await;
        assert!(reason.contains("it says \"crisp-shim 0.0.0\""), "{reason}");
    }
}
