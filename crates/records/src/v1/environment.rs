//! Environment variables, whose values are bytes. JSON carries text alone, so a value that is no
//! text is written twice: as near as text comes to it, and as numbers beside the list.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use super::text::Wrong;

/// Names and values, in order.
pub(super) type Texts = Vec<(String, String)>;
/// Places in the list, from 0, with the value's bytes.
pub(super) type Bytes = Vec<(usize, Vec<u8>)>;

pub(super) fn write(variables: &[(String, OsString)]) -> (Texts, Bytes) {
    let text =
        |(name, value): &(String, OsString)| (name.clone(), value.to_string_lossy().into_owned());
    let bytes = variables.iter().enumerate().filter_map(|(at, (_, value))| {
        let is_text = value.to_str().is_some();
        (!is_text).then(|| (at, value.as_bytes().to_vec()))
    });
    (variables.iter().map(text).collect(), bytes.collect())
}

pub(super) fn read(texts: Texts, bytes: Bytes) -> Result<Vec<(String, OsString)>, Wrong> {
    let each = texts.into_iter().map(|(name, value)| (name, value.into()));
    let mut variables: Vec<(String, OsString)> = each.collect();
    for (at, value) in bytes {
        let variable = variables.get_mut(at);
        let (_, known) = variable.ok_or_else(|| format!("env_bytes: no variable {at}"))?;
        *known = OsString::from_vec(value);
    }
    Ok(variables)
}
