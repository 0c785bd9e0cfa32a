//! Texts of version 1 that stand for more than text, and which values are left out.

use std::fmt;

/// Why a record is not read: the field and what is wrong with it.
pub(super) type Wrong = String;

/// Reads a text; `field` is where it stands.
pub(super) fn parse<T, E: fmt::Display>(field: &str, read: Result<T, E>) -> Result<T, Wrong> {
    read.map_err(|why| format!("{field}: {why}"))
}

/// Whether a value is left out, since its absence says the same.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Converts each element of a list.
pub(super) fn each<'a, A, B: From<&'a A>>(list: &'a [A]) -> Vec<B> {
    list.iter().map(B::from).collect()
}
