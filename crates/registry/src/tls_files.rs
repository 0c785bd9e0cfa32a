//! The files that an operator lays down for a registry host, as names and as bounded content. `tls`
//! decides what the certificates in them mean.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// Largest configuration file that is read.
const MAX_FILE: u64 = 1 << 20;

/// The files that decide whom an endpoint is taken for, and whom we are to it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TlsFiles {
    /// Roots besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Client certificates with their keys.
    pub(crate) clients: Vec<(PathBuf, PathBuf)>,
    /// Whether any server certificate is taken.
    pub(crate) skip_verify: bool,
}

impl TlsFiles {
    /// A directory without `hosts.toml`: `*.crt` are roots, `NAME.cert` with `NAME.key` are pairs.
    pub(crate) fn in_docker_layout(dir: &Path) -> Result<Self> {
        let step = || ("read", dir.display());
        let mut files = Self::default();
        for entry in std::fs::read_dir(dir).context(step)? {
            let path = entry.context(step)?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => files.ca.push(path),
                Some("cert") => {
                    let key = path.with_extension("key");
                    files.clients.push((path, key));
                }
                _ => {}
            }
        }
        files.ca.sort();
        files.clients.sort();
        Ok(files)
    }
}

/// The content of a small configuration file; `None` when there is none.
pub(crate) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>> {
    let step = || ("read", path.display());
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.context(step)?,
    };
    let mut content = Vec::new();
    let read = file.take(MAX_FILE + 1).read_to_end(&mut content);
    read.context(step)?;
    if content.len() as u64 > MAX_FILE {
        return Err(format!("it is larger than {MAX_FILE} bytes")).context(step);
    }
    Ok(Some(content))
}
