//! A container's bundle: the OCI runtime spec that its shim reads.

use std::path::Path;

use crisp_sys::file;
use oci_spec::runtime::Spec;

use crate::error::{Context, Result};

/// No spec of ours is longer.
const MAX_SPEC: u64 = 8 << 20;

/// Reads the spec of a bundle.
pub(crate) fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let step = || format!("read {}", path.display());
    let bytes = file::read_bounded(&path, MAX_SPEC).context(step)?;
    serde_json::from_slice(&bytes).context(step)
}

/// Writes the spec of a bundle.
pub(crate) fn write_spec(bundle: &Path, spec: &Spec) -> Result<()> {
    let path = bundle.join("config.json");
    let step = || format!("write {}", path.display());
    let bytes = serde_json::to_vec(spec).context(step)?;
    file::write_atomic(&path, &bytes, 0o600).context(step)
}
