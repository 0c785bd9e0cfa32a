//! Writing cgroup files, and errors that name them. Nothing here knows what a cgroup is.

use std::fs::{self, File};
use std::io;
use std::path::Path;

/// Names the step and the directory that an error is about.
pub(super) fn explain(error: &io::Error, step: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{step} {}: {error}", path.display()))
}

/// Writes a cgroup file with one write, as its parser wants it.
///
/// # Errors
/// The kernel's refusal, with file and value in the message.
pub(crate) fn write_file(path: &Path, value: &str) -> io::Result<()> {
    let written = fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file: File| io::Write::write_all(&mut &file, value.as_bytes()));
    written.map_err(|error| {
        let text = format!("write {value:?} to {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    })
}
