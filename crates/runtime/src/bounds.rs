//! Bounds of one spec: far more mounts and hooks than anybody needs, and few enough that a spec that
//! was written by mistake, or to do harm, is refused at once. Each mount takes a descriptor and a
//! place in the kernel's table, each hook a process while the container waits.

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::hooks;

/// A tenth of what the kernel lets one mount namespace have (`fs.mount-max`).
const MOUNTS: usize = 10_000;
/// Of all kinds together.
const HOOKS: usize = 1_000;

/// Refuses a spec with more than that.
pub(crate) fn check(spec: &Spec) -> Result<()> {
    let mounts = spec.mounts().as_ref().map_or(0, Vec::len);
    at_most("mounts", mounts, MOUNTS)?;
    at_most("hooks", hooks::all(spec).len(), HOOKS)
}

fn at_most(field: &'static str, given: usize, most: usize) -> Result<()> {
    if given <= most {
        return Ok(());
    }
    let text = format!("{given} are more than the {most} that a container may have");
    Err(Error::invalid(field, text))
}
