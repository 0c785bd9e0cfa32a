//! A container's bundle: the OCI runtime spec that its shim reads.

use std::path::{Path, PathBuf};

use crisp_model::Field;
use crisp_model::nul::place_of_nul_in;
use crisp_shim_api::{FOREIGN, Foreign, MAX_FOREIGN, MAX_SPEC};
use crisp_sys::file;
use oci_spec::runtime::Spec;

use crate::error::{Context, Error, Result};

/// Reads the spec of a bundle.
pub(crate) fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join("config.json");
    let step = || format!("read {}", path.display());
    let bytes = file::read_bounded(&path, MAX_SPEC).context(step)?;
    serde_json::from_slice(&bytes).context(step)
}

/// A container as its shim reads it.
#[derive(Debug)]
pub(crate) struct Bundle {
    pub(crate) spec: Spec,
    /// Environment variables that the spec cannot hold, because their values are no text.
    pub(crate) raw_environment: Vec<Vec<u8>>,
    /// The program that starts it, if Crisp itself does not.
    pub(crate) foreign: Option<Foreign>,
}

impl Bundle {
    /// Writes it into a directory, which is made.
    pub(crate) fn write(&self, dir: &Path) -> Result<()> {
        let made = file::make_private_dirs(dir);
        made.context(|| format!("make {}", dir.display()))?;
        write_raw_environment(dir, &self.raw_environment)?;
        write_foreign(dir, self.foreign.as_ref())?;
        let (path, bytes) = encoded(dir, &self.spec)?;
        // A container whose creation is not recorded as over is unmade.
        let written = file::write_new(&path, &bytes, 0o600, |_| Ok(()));
        written.context(|| format!("write {}", path.display()))
    }
}

fn write_raw_environment(bundle: &Path, variables: &[Vec<u8>]) -> Result<()> {
    if variables.is_empty() {
        return Ok(());
    }
    let path = bundle.join(crisp_shim_api::RAW_ENVIRONMENT);
    let ended = variables
        .iter()
        .map(|variable| [variable, &[0][..]].concat());
    let bytes: Vec<u8> = ended.flatten().collect();
    file::write_atomic(&path, &bytes, 0o600).context(|| format!("write {}", path.display()))
}

fn write_foreign(bundle: &Path, foreign: Option<&Foreign>) -> Result<()> {
    let path = bundle.join(FOREIGN);
    let step = || format!("write {}", path.display());
    let Some(foreign) = foreign else {
        return Ok(());
    };
    let bytes = foreign.encode().context(step)?;
    file::write_atomic(&path, &bytes, 0o600).context(step)
}

/// The program that starts the container of a bundle; `None` for Crisp itself, and where the file
/// that says so cannot be read.
pub(crate) fn read_foreign(bundle: &Path) -> Option<Foreign> {
    let bytes = file::read_bounded(&bundle.join(FOREIGN), MAX_FOREIGN).ok()?;
    Foreign::decode(&bytes).ok()
}

/// Writes the spec of a bundle anew, unless nobody would read all of it.
pub(crate) fn write_spec(bundle: &Path, spec: &Spec) -> Result<()> {
    let (path, bytes) = encoded(bundle, spec)?;
    let written = file::write_atomic(&path, &bytes, 0o600);
    written.context(|| format!("write {}", path.display()))
}

/// The file of a spec and its content, which is refused if nobody would read all of it.
fn encoded(bundle: &Path, spec: &Spec) -> Result<(PathBuf, Vec<u8>)> {
    let path = bundle.join("config.json");
    let step = || format!("encode {}", path.display());
    let bytes = serde_json::to_vec(spec).context(step)?;
    if bytes.len() as u64 > MAX_SPEC {
        return Err(Error::invalid(
            Field::RuntimeSpec,
            format!(
                "{} bytes, of {MAX_SPEC} at most: shorten annotations, environment or arguments",
                bytes.len()
            ),
        ));
    }
    if let Some(place) = place_of_nul_in(&bytes).context(step)? {
        let why = format!("{place} holds a NUL byte: no path, argument or variable can have one");
        return Err(Error::invalid(Field::RuntimeSpec, why));
    }
    Ok((path, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_that_would_not_be_read_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::default();
        write_spec(dir.path(), &spec).unwrap();
        // A newline takes two bytes of JSON.
        let words = "\n".repeat(usize::try_from(MAX_SPEC).unwrap() / 2);
        spec.set_annotations(Some([("long".to_owned(), words)].into()));
        let error = write_spec(dir.path(), &spec).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        assert_eq!(read_spec(dir.path()).unwrap(), Spec::default());
    }

    /// From an image or a device: what a request says was looked at before.
    #[test]
    fn a_text_that_the_kernel_would_cut_is_refused_by_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let mut spec = Spec::default();
        spec.set_annotations(Some([("a".to_owned(), "\0".to_owned())].into()));
        write_spec(dir.path(), &spec).unwrap();
        spec.set_hostname(Some("a\0b".to_owned()));
        let error = write_spec(dir.path(), &spec).unwrap_err();
        assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
        assert!(
            error.to_string().contains("hostname holds a NUL"),
            "{error}"
        );
    }
}
