//! Checks of single values. `at` is the field's path in the request.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};

use crisp_model::path::clean_from_root;

use super::{Result, invalid};

/// Names become parts of paths (NAME_MAX) and of log lines.
const LONGEST_NAME: usize = 255;
const ABSOLUTE: &str = "is not an absolute path";
/// PATH_MAX, which counts the NUL byte at the end.
const LONGEST_PATH: usize = 4095;

/// A message that must be there.
pub(crate) fn required<T>(at: &str, value: Option<T>) -> Result<T> {
    match value {
        Some(value) => Ok(value),
        None => invalid(at, "is missing"),
    }
}

/// A text that must not be empty.
pub(crate) fn some_text(at: &str, text: String) -> Result<String> {
    if text.is_empty() {
        invalid(at, "is empty")
    } else {
        line(at, text)
    }
}

/// A text of one line.
pub(crate) fn line(at: &str, text: String) -> Result<String> {
    if text.chars().any(char::is_control) {
        return invalid(at, "holds control characters");
    }
    Ok(text)
}

/// A text that becomes an argument of a program, or a part of its environment.
pub(crate) fn no_nul(at: &str, text: String) -> Result<String> {
    if text.contains('\0') {
        invalid(at, "holds a NUL byte")
    } else {
        Ok(text)
    }
}

/// Each of several texts.
pub(crate) fn each<T>(
    at: &str,
    values: Vec<T>,
    check: impl Fn(&str, T) -> Result<T>,
) -> Result<Vec<T>> {
    let numbered = values.into_iter().enumerate();
    numbered
        .map(|(i, value)| check(&format!("{at}[{i}]"), value))
        .collect()
}

/// A name that may become part of a path.
pub(crate) fn name(at: &str, text: String) -> Result<String> {
    let text = some_text(at, text)?;
    if text.len() > LONGEST_NAME {
        return invalid(at, format!("is longer than {LONGEST_NAME} bytes"));
    }
    if text.contains('/') || text == "." || text == ".." {
        return invalid(at, format!("{text:?} cannot be part of a path"));
    }
    Ok(text)
}

/// Keys and values of labels and annotations are opaque, but the keys exist.
pub(crate) fn labels(
    at: &str,
    labels: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    if labels.contains_key("") {
        invalid(at, "has an empty key")
    } else {
        Ok(labels)
    }
}

/// A path that starts with `/` and never goes up.
pub(crate) fn absolute(at: &str, text: &str) -> Result<PathBuf> {
    path(at, text, Path::is_absolute, ABSOLUTE)
}

/// A path that does not start with `/` and never goes up.
pub(crate) fn relative(at: &str, text: &str) -> Result<PathBuf> {
    path(at, text, Path::is_relative, "is not a relative path")
}

/// A path that starts with `/`; `.` and `..` in it are resolved by their names alone, as Go's
/// readers of the same request do, before any symbolic link is looked at.
pub(crate) fn cleaned(at: &str, text: &str) -> Result<PathBuf> {
    let path = one_path(at, text)?;
    if path.is_absolute() {
        Ok(clean_from_root(&path))
    } else {
        invalid(at, format!("{text:?} {ABSOLUTE}"))
    }
}

/// A path in a container: one that does not start with `/` lies below the container's root, and
/// `..` never leads out of it.
pub(crate) fn container_path(at: &str, text: &str) -> Result<PathBuf> {
    Ok(clean_from_root(&one_path(at, text)?))
}

fn path(at: &str, text: &str, wanted: fn(&Path) -> bool, otherwise: &str) -> Result<PathBuf> {
    let path = one_path(at, text)?;
    if !wanted(&path) {
        return invalid(at, format!("{text:?} {otherwise}"));
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return invalid(at, format!("{text:?} holds \"..\""));
    }
    Ok(path)
}

fn one_path(at: &str, text: &str) -> Result<PathBuf> {
    if text.is_empty() {
        return invalid(at, "is empty");
    }
    if text.len() > LONGEST_PATH || text.contains('\0') {
        return invalid(
            at,
            format!("is no path: NUL, or more than {LONGEST_PATH} bytes"),
        );
    }
    if text.split('/').any(|part| part.len() > LONGEST_NAME) {
        return invalid(
            at,
            format!("a part of it is longer than {LONGEST_NAME} bytes"),
        );
    }
    Ok(PathBuf::from(text))
}

/// A number within bounds.
pub(crate) fn number<T: TryFrom<i64>>(
    at: &str,
    value: i64,
    bounds: RangeInclusive<i64>,
) -> Result<T> {
    let inside = bounds
        .contains(&value)
        .then(|| T::try_from(value).ok())
        .flatten();
    match inside {
        Some(value) => Ok(value),
        None => invalid(
            at,
            format!(
                "{value} is not within {} to {}",
                bounds.start(),
                bounds.end()
            ),
        ),
    }
}

/// A value of an enumeration of the wire.
pub(crate) fn enumeration<T: TryFrom<i32>>(at: &str, value: i32) -> Result<T> {
    match T::try_from(value) {
        Ok(value) => Ok(value),
        Err(_) => invalid(at, format!("{value} is not a value that CRI knows")),
    }
}
