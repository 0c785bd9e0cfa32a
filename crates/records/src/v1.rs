//! Version 1 of a frame's JSON: `{"version":1,"entry":{KIND:…}}`. The only module that knows how
//! entries are spelled.
//!
//! ```text
//! entry       the kinds of entries, progress of pods, states of containers
//! pod         a pod's record
//! container   a container's record, what it was asked to be, its root file system
//! environment variables of a container, whose values may be no text
//! ids         which ids of a user namespace stand for which of the host
//! mount       images, mounts and devices of a container
//! security    a container's security context
//! parts       objects that pods and containers have: limits, users, profiles, namespaces
//! text        reading of texts that stand for ids and digests; which values are left out
//! ```

mod container;
mod entry;
mod environment;
mod ids;
mod mount;
mod parts;
mod pod;
mod security;
mod text;

use std::io;

use serde::{Deserialize, Serialize};

use crate::record;

/// The version that is written. Later ones are refused.
pub(crate) const VERSION: u32 = 1;

/// Why a frame is not read.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It has a later version.
    Newer(u32),
    /// It is not what version 1 writes.
    Content(String),
}

#[derive(Serialize)]
struct Frame {
    version: u32,
    entry: entry::Entry,
}

/// All of a frame that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Deserialize)]
struct Content {
    entry: entry::Entry,
}

/// Writes an entry as JSON behind what is in `bytes`.
pub(crate) fn write(entry: &record::Entry, bytes: &mut Vec<u8>) -> io::Result<()> {
    let frame = Frame {
        version: VERSION,
        entry: entry.into(),
    };
    Ok(serde_json::to_writer(bytes, &frame)?)
}

/// Reads the JSON of an entry. Fields that are not known are ignored; kinds and variants are not.
pub(crate) fn read(json: &[u8]) -> Result<record::Entry, Refused> {
    let strange = |error: serde_json::Error| Refused::Content(error.to_string());
    let Version { version } = serde_json::from_slice(json).map_err(strange)?;
    if version > VERSION {
        return Err(Refused::Newer(version));
    }
    let Content { entry } = serde_json::from_slice(json).map_err(strange)?;
    entry.try_into().map_err(Refused::Content)
}
