//! The process around which systemd makes the scope of a container.
//!
//! A scope ends with its last process, and its figures with it. This one does nothing and needs
//! nothing; it lives until it is killed with the scope.

use std::io::{self, Read};
use std::path::Path;

use crisp_sys::caps::{self, CapSet};
use crisp_sys::credentials;
use crisp_sys::process::{self, Dumpable};

use crate::error::{Context, Result};
use crate::holder::NOBODY_ELSE;

/// The first argument that asks for a keeper.
pub const KEEP: &str = "keep";

/// The daemon writes this, then closes the pipe, once the keeper can be found in its scope.
const STAY: &[u8] = b"stay";

/// Nearly unkillable: if the OOM killer took the keeper, the scope and its `memory.events` would
/// vanish and the container's OOM kill would go unreported.
const OOM_SCORE_ADJ: i32 = -998;

/// Gives everything up, and stays when standard input says so before its end, for ever; else
/// returns.
///
/// # Errors
/// When the kernel refuses a step, all of which come before the word is heard.
pub fn run() -> Result<()> {
    process::close_from(3).context(|| "close what leaked")?;
    process::set_name(c"crisp-keeper").context(|| "set the name")?;
    process::change_dir(Path::new("/")).context(|| "change to /")?;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    // Lowering takes a capability that not every daemon has; then it stays as it is.
    drop(process::set_oom_score_adj(own, OOM_SCORE_ADJ));
    give_everything_up()?;
    let mut told = Vec::new();
    io::stdin()
        .take(64)
        .read_to_end(&mut told)
        .context(|| "hear from the maker")?;
    if told != STAY {
        return Ok(());
    }
    // The pipe has ended; a failure to close it would harm nobody.
    drop(process::close_from(0));
    loop {
        rustix::event::pause();
    }
}

fn give_everything_up() -> Result<()> {
    caps::limit_bounding(CapSet::default()).context(|| "limit the capability bounding set")?;
    credentials::set_groups(&[]).context(|| "drop the groups")?;
    credentials::set_gid(NOBODY_ELSE).context(|| "set the group")?;
    credentials::set_uid(NOBODY_ELSE).context(|| "set the user")?;
    let none = CapSet::default();
    caps::set(none, none, none).context(|| "drop the capabilities")?;
    process::set_no_new_privs().context(|| "set no_new_privs")?;
    process::set_dumpable(Dumpable::No).context(|| "clear the dumpable flag")
}
