//! Writing cgroup files, and errors that name them. Nothing here knows what a cgroup is.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use crate::refusal;

/// Names the step and the directory that an error is about.
pub(super) fn explain(error: io::Error, step: &str, path: &Path) -> io::Error {
    let text = format!("{step} {}: {error}", path.display());
    refusal::told(error.kind(), text, error)
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
/// The kernel's refusal, with file and value in the message; `NotFound` when the cgroup is gone.
pub(super) fn write_values<T: AsRef<str>>(path: &Path, values: &[T]) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path);
    let first = values.first().map_or("", T::as_ref);
    let mut file = file.map_err(|error| refused(path, first, error))?;
    let mut values = values.iter().map(T::as_ref);
    values.try_for_each(|value| write_opened(&mut file, path, value))
}

fn write_opened(file: &mut fs::File, path: &Path, value: &str) -> io::Result<()> {
    let written = file.write_all(value.as_bytes());
    written.map_err(|error| refused(path, value, error))
}

fn refused(path: &Path, value: &str, error: io::Error) -> io::Error {
    let text = format!("write {value:?} to {}: {error}", path.display());
    refusal::told(kind(&error, path), text, error)
}

/// Reads a cgroup file.
///
/// # Errors
/// The errors of reading; `NotFound` when the cgroup is gone.
pub(super) fn read_file(path: &Path) -> io::Result<String> {
    fs::read_to_string(path).map_err(|error| match kind(&error, path) {
        io::ErrorKind::NotFound => io::ErrorKind::NotFound.into(),
        _ => error,
    })
}

/// A file that was opened just before its cgroup was removed has no device behind it, as the kernel
/// says; so has a limit for a device that the machine lacks, whose file is still there.
fn kind(error: &io::Error, path: &Path) -> io::ErrorKind {
    match error.raw_os_error() {
        Some(libc::ENODEV) if !path.exists() => io::ErrorKind::NotFound,
        _ => error.kind(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Cgroup, Layout};
    use super::*;

    #[test]
    fn privileged_a_cgroup_that_goes_while_it_is_written_is_not_found() {
        let layout = Arc::new(Layout::detect().unwrap());
        let name = format!("crisp-sys-test-goes-{}", std::process::id());
        let cgroup = Cgroup::new(layout, &name);
        cgroup.create().unwrap();
        let path = cgroup.unified_dir().unwrap().join("cgroup.procs");
        let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        cgroup.remove().unwrap();
        let error = write_opened(&mut file, &path, "0").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
        let missing = io::Error::from_raw_os_error(libc::ENODEV);
        assert_ne!(kind(&missing, Path::new("/")), io::ErrorKind::NotFound);
    }
}
