//! The files that an operator lays down for a registry host, as names and as bounded content. `tls`
//! decides what the certificates in them mean.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

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
        let fail = |e: std::io::Error| Error::Io {
            path: dir.display().to_string(),
            why: e.to_string(),
        };
        let mut files = Self::default();
        for entry in std::fs::read_dir(dir).map_err(fail)? {
            let path = entry.map_err(fail)?.path();
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
    let fail = |why: String| Error::Io {
        path: path.display().to_string(),
        why,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail(e.to_string())),
    };
    let mut content = Vec::new();
    file.take(MAX_FILE + 1)
        .read_to_end(&mut content)
        .map_err(|e| fail(e.to_string()))?;
    if content.len() as u64 > MAX_FILE {
        return Err(fail(format!("larger than {MAX_FILE} bytes")));
    }
    Ok(Some(content))
}
