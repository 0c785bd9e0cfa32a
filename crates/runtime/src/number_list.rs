//! Lists of numbers as the kernel writes them: `0-3,7`.

use crate::error::{Error, Result};

/// `0-3,7`: numbers and ranges, as the kernel's own lists, all below a bound.
pub(crate) fn list(field: &str, things: &str, text: &str, bound: u32) -> Result<Vec<u32>> {
    let refuse = || Error::invalid(field, format!("{text:?} is no list of {things}"));
    let number = |text: &str| text.trim().parse().ok().filter(|n: &u32| *n < bound);
    let mut numbers = Vec::new();
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = number(first).zip(number(last)).ok_or_else(refuse)?;
        if first > last {
            return Err(refuse());
        }
        numbers.extend(first..=last);
    }
    Ok(numbers)
}
