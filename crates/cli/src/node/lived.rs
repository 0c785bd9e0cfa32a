//! The settings that a node has lived with since its container began, by a digest that the container carries.
//! Files on disk alone do not tell them: an `up` that ended early has changed those, and the node has not
//! read them.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::failure::{Context as _, Result};
use crate::init::OBJECTS_MADE;

/// The digest of what is in a node's directory, and of the directories of its programs.
pub fn settings(dir: &Path, programs: &[&Path]) -> Result<String> {
    let mut files = Vec::new();
    for dir in [dir.to_owned(), dir.join("net.d")] {
        files.extend(files_in(&dir).context(|| format!("{}: read it", dir.display()))?);
    }
    files.sort();
    let mut hash = Sha256::new();
    for program in programs {
        hash.update(program.as_os_str().as_encoded_bytes());
        hash.update([0]);
    }
    for path in files {
        let bytes = fs::read(&path).context(|| format!("{}: read it", path.display()))?;
        let name = path.strip_prefix(dir).unwrap_or(&path);
        hash.update(name.as_os_str().as_encoded_bytes());
        hash.update([0]);
        hash.update(Sha256::digest(&bytes));
    }
    let hex = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(hex)
}

/// Files that a node reads when it begins: no sockets and locks of its crispd, no notes of ours.
fn files_in(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = match fs::read_dir(dir) {
        // The control plane has no network of pods.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let is_ours =
            name.starts_with('.') || name == OBJECTS_MADE || name.starts_with("crisp.sock");
        if !is_ours && entry.file_type()?.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{make_dir, write};

    #[test]
    fn settings_are_others_by_each_file_that_a_node_reads() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path();
        let of =
            |kubernetes: &str| settings(dir, &[Path::new("/o"), Path::new(kubernetes)]).unwrap();
        let mut former = of("/k");
        make_dir(&dir.join("net.d")).unwrap();
        assert_eq!(of("/k"), former);
        for (file, text) in [
            ("resolv.conf", "a"),
            ("resolv.conf", "b"),
            ("net.d/10", "a"),
        ] {
            write(&dir.join(file), text.as_bytes()).unwrap();
            assert_ne!(of("/k"), former, "{file}");
            former = of("/k");
        }
        for file in [".node.issued", OBJECTS_MADE, "crisp.sock.lock"] {
            write(&dir.join(file), b"x").unwrap();
            assert_eq!(of("/k"), former, "{file}");
        }
        assert_ne!(of("/other"), former);
    }
}
