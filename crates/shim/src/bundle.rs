//! The bundle of a container: what the daemon wrote for its start.

use std::io::ErrorKind;
use std::path::Path;

use crisp_runtime::Rootfs;
use crisp_shim_api::{MAX_SPEC, RootfsSpec};
use crisp_sys::file;
use oci_spec::runtime::Spec;

use crate::error::{Context, Error, Result};

/// The file that holds the spec.
const CONFIG: &str = "config.json";

/// The text of a bundle's spec.
pub(crate) fn read_spec(bundle: &Path) -> Result<Vec<u8>> {
    let path = bundle.join(CONFIG);
    file::read_bounded(&path, MAX_SPEC).context(|| format!("read {}", path.display()))
}

/// Parses the text of a spec.
pub(crate) fn parse(bundle: &Path, bytes: &[u8]) -> Result<Spec> {
    serde_json::from_slice(bytes).map_err(|source| {
        let path = bundle.join(CONFIG);
        Error::Spec { path, source }
    })
}

/// The variables that the spec cannot hold; most containers have none, and no such file.
pub(crate) fn raw_environment(bundle: &Path) -> Result<Vec<Vec<u8>>> {
    let path = bundle.join(crisp_shim_api::RAW_ENVIRONMENT);
    let bytes = match file::read_bounded(&path, MAX_SPEC) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        read => read.context(|| format!("read {}", path.display()))?,
    };
    let entries = bytes.split(|byte| *byte == 0);
    let entries = entries.filter(|entry| !entry.is_empty());
    Ok(entries.map(<[u8]>::to_vec).collect())
}

/// A root file system in the runtime's words.
pub(crate) fn rootfs(rootfs: &RootfsSpec) -> Rootfs {
    match rootfs.clone() {
        RootfsSpec::Dir(path) => Rootfs::Dir(path),
        RootfsSpec::Overlay { lower, upper, work } => Rootfs::Overlay { lower, upper, work },
    }
}
