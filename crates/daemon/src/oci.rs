//! Handlers that another OCI runtime stands behind: that its program is one, and what it can do, by
//! its own word (`PROGRAM features`, the OCI's features document).

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use crisp_node::{OciRuntime, Support};
use crisp_sys::process::command;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;

use crate::config;
use crate::exit::{Exit, Fatal};

/// A program that does not tell by then is no OCI runtime.
const TELLS_WITHIN: Duration = Duration::from_secs(10);

/// More of what a stranger tells is not read.
const MOST_TOLD: u64 = 1024 * 1024;

/// The version of the specs that Crisp writes.
const SPEC: [u64; 3] = [1, 1, 0];

/// The part of a features document that is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Features {
    oci_version_min: String,
    oci_version_max: String,
    #[serde(default)]
    mount_options: Vec<String>,
}

/// The handlers as the engine wants them: each program is asked what it can do.
///
/// # Errors
/// When a program is missing, is no OCI runtime, or does not take the specs of this version.
pub async fn handlers(written: &[config::Handler]) -> Result<Vec<crisp_node::Handler>, Fatal> {
    let mut handlers = Vec::new();
    for handler in written {
        let oci = match &handler.program {
            Some((name, program)) => Some(ask(name, program).await?),
            None => None,
        };
        handlers.push(crisp_node::Handler {
            name: handler.name.clone(),
            cgroup_namespaces: handler.cgroup_namespaces,
            oci,
        });
    }
    Ok(handlers)
}

async fn ask(name: &str, program: &Path) -> Result<OciRuntime, Fatal> {
    let refuse = |why: String| {
        let reason = format!(
            "runtimes.{name}.path: {} cannot start containers: {why}; install runc 1.2 or later, or \
             crun 1.8.6 or later, and write its path there",
            program.display()
        );
        Fatal::new(Exit::Missing, reason)
    };
    let told = tokio::time::timeout(TELLS_WITHIN, tell(program)).await;
    let told = match told {
        Ok(Ok(told)) => told,
        Ok(Err(error)) => return Err(refuse(format!("it cannot be run: {error}"))),
        Err(_) => {
            let why = format!("asked for its features, it tells nothing within {TELLS_WITHIN:?}");
            return Err(refuse(why));
        }
    };
    let features: Features = serde_json::from_slice(&told).map_err(|error| {
        let said = String::from_utf8_lossy(&told);
        let said: String = said.trim().chars().take(80).collect();
        refuse(format!(
            "asked for its features, it says {said:?} ({error})"
        ))
    })?;
    if !features.take_our_specs() {
        let (min, max) = (&features.oci_version_min, &features.oci_version_max);
        let [major, minor, patch] = SPEC;
        return Err(refuse(format!(
            "it takes specs of the OCI's versions {min} to {max}, and Crisp writes {major}.{minor}.{patch}"
        )));
    }
    let has_recursive = features.mount_options.iter().any(|option| option == "rro");
    tracing::info!(handler = name, program = %program.display(), recursive_read_only = has_recursive, "an OCI runtime is there");
    Ok(OciRuntime {
        program: program.to_owned(),
        name: name.to_owned(),
        recursive_read_only: match has_recursive {
            true => Support::Yes,
            false => Support::No,
        },
    })
}

/// Asks the program for its features. It is killed when this is dropped.
async fn tell(program: &Path) -> std::io::Result<Vec<u8>> {
    let mut child = Command::from(command(program))
        .arg("features")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut told = Vec::new();
    if let Some(output) = child.stdout.take() {
        output.take(MOST_TOLD).read_to_end(&mut told).await?;
    }
    Ok(told)
}

impl Features {
    fn take_our_specs(&self) -> bool {
        let (min, max) = (&self.oci_version_min, &self.oci_version_max);
        version(min).is_some_and(|min| min <= SPEC) && version(max).is_some_and(|max| SPEC <= max)
    }
}

/// The numbers of a version; what follows a dash is left out.
fn version(text: &str) -> Option<[u64; 3]> {
    let numbers = text.split(['-', '+']).next()?.split('.').map(str::parse);
    let numbers: Vec<u64> = numbers.collect::<Result<_, _>>().ok()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        let takes = |min: &str, max: &str| {
            Features {
                oci_version_min: min.to_owned(),
                oci_version_max: max.to_owned(),
                mount_options: Vec::new(),
            }
            .take_our_specs()
        };
        assert!(takes("1.0.0", "1.2.1"));
        assert!(takes("1.0.0-rc1", "1.1.0+dev"));
        assert!(!takes("1.1.1", "1.2.0"));
        assert!(!takes("1.0.0", "1.0.1"));
        assert!(!takes("one", "1.2.0"));
    }

    #[tokio::test]
    async fn a_program_that_is_no_runtime_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, line: &str| {
            let path = dir.path().join(name);
            let text = format!("#!/bin/sh\n{line}\n");
            crisp_sys::file::write_atomic(&path, text.as_bytes(), 0o700).unwrap();
            path
        };
        let tells = |range: &str| format!("echo '{{{range}, \"mountOptions\": [\"rro\"]}}'");
        let ours = tells("\"ociVersionMin\": \"1.0.0\", \"ociVersionMax\": \"1.2.0\"");
        let good = ask("x", &script("good", &ours)).await.unwrap();
        assert_eq!(good.recursive_read_only, Support::Yes);
        let late = tells("\"ociVersionMin\": \"1.3.0\", \"ociVersionMax\": \"1.4.0\"");
        for (path, word) in [
            (script("late", &late), "versions 1.3.0 to 1.4.0"),
            (script("endless", "exec yes"), "it says \"y"),
            (script("silent", "exit 1"), "it says \"\""),
            (dir.path().join("missing"), "cannot be run: No such file"),
        ] {
            let reason = ask("x", &path).await.unwrap_err().reason;
            assert!(
                reason.starts_with("runtimes.x.path: ") && reason.contains(word),
                "{reason}"
            );
        }
    }
}
