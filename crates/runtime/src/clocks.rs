//! The clocks of a new time namespace: boot time and monotonic time, moved by what the spec says.
//!
//! A time namespace takes in the children that its maker has from then on, and its clocks cannot be
//! set once one is in it. So the parent makes it before the fork, sets its clocks, and returns to
//! its own afterwards (time_namespaces(7)).

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

use crisp_sys::fork;
use crisp_sys::ns::{self, Kind};
use oci_spec::runtime::Spec;

use crate::error::{Context, Error, Result};
use crate::namespaces::Namespaces;

const FIELD: &str = "linux.timeOffsets";
const FILE: &str = "/proc/self/timens_offsets";
const CLOCKS: [&str; 2] = ["monotonic", "boottime"];
const NANOSECONDS: u32 = 1_000_000_000;

/// The clocks of a container to be.
#[derive(Debug)]
pub(crate) enum Clocks {
    /// The caller's, or those of a namespace that is joined.
    Others,
    /// Its own: the lines that move them.
    Own(String),
}

impl Clocks {
    /// Reads the spec.
    pub(crate) fn of(spec: &Spec, namespaces: &Namespaces) -> Result<Self> {
        let offsets = offsets(spec)?;
        if namespaces.is_new(Kind::Time) {
            if !Path::new(FILE).exists() {
                let what = "a time namespace on this kernel (CONFIG_TIME_NS)";
                return Err(Error::Unsupported(what.to_owned()));
            }
            return Ok(Self::Own(offsets));
        }
        if !offsets.is_empty() {
            let why = "needs a time namespace that is made for the container";
            return Err(Error::invalid(FIELD, why));
        }
        Ok(Self::Others)
    }

    /// Runs `fork` so that the child is born in the time namespace.
    pub(crate) fn around<T>(&self, fork: impl FnOnce() -> Result<T>) -> Result<T> {
        let Self::Own(offsets) = self else {
            return fork();
        };
        let own = ns::open_own(Kind::Time).context(|| "open the own time namespace")?;
        fork::unshare(Kind::Time.flag()).context(|| "make a time namespace")?;
        let forked = set(offsets).and_then(|()| fork());
        ns::enter(own.as_fd(), Kind::Time).context(|| "return to the own time namespace")?;
        forked
    }
}

fn set(offsets: &str) -> Result<()> {
    if offsets.is_empty() {
        return Ok(());
    }
    let opened = File::options().write(true).open(FILE);
    let written = opened.and_then(|mut file| file.write_all(offsets.as_bytes()));
    written.context(|| format!("move the clocks by {:?}", offsets.trim()))
}

/// A line for each clock that is moved.
fn offsets(spec: &Spec) -> Result<String> {
    let linux = spec.linux().as_ref();
    let offsets = linux.and_then(|linux| linux.time_offsets().as_ref());
    let mut lines = String::new();
    for (clock, offset) in offsets.into_iter().flatten() {
        if !CLOCKS.contains(&clock.as_str()) {
            let why = format!("{clock:?}: monotonic or boottime");
            return Err(Error::invalid(FIELD, why));
        }
        let nanoseconds = offset.nanosecs().unwrap_or(0);
        if nanoseconds >= NANOSECONDS {
            let why = format!("{clock}: {nanoseconds} nanoseconds are more than a second");
            return Err(Error::invalid(FIELD, why));
        }
        let seconds = offset.secs().unwrap_or(0);
        lines.push_str(&format!("{clock} {seconds} {nanoseconds}\n"));
    }
    Ok(lines)
}
