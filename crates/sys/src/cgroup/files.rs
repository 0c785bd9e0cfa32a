//! Writing cgroup files, and errors that name them. Nothing here knows what a cgroup is.

use std::fs;
use std::io::{self, Write};
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
    write_values(path, &[value])
}

/// Writes values to a cgroup file, each with one write.
///
/// # Errors
/// The kernel's refusal, with file and value in the message.
pub(super) fn write_values<T: AsRef<str>>(path: &Path, values: &[T]) -> io::Result<()> {
    let refused = |error: io::Error, value: Option<&T>| {
        let value = value.map_or("", T::as_ref);
        let text = format!("write {value:?} to {}: {error}", path.display());
        io::Error::new(error.kind(), text)
    };
    let file = fs::OpenOptions::new().write(true).open(path);
    let mut file = file.map_err(|error| refused(error, values.first()))?;
    values.iter().try_for_each(|value| {
        let written = file.write_all(value.as_ref().as_bytes());
        written.map_err(|error| refused(error, Some(value)))
    })
}
