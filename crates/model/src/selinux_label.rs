//! The grammar of the parts of an SELinux label, `user:role:type:level`. Labels go into option strings
//! of mounts and onto the files of volumes, so a text that is no part of a label must not reach them.

/// Sensitivities that policies have, `s0` to `s15`.
const SENSITIVITIES: u16 = 16;
/// Categories that policies have, `c0` to `c1023`.
const CATEGORIES: u16 = 1024;

/// A text that cannot be that part of a label, and what that part looks like.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {wanted}")]
pub struct BadPart {
    text: String,
    wanted: &'static str,
}

/// Checks a user, role or type.
///
/// # Errors
/// [`BadPart`] for the empty text, and for one with other characters than names of policies have.
pub fn check_name(text: &str) -> Result<(), BadPart> {
    let may = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !text.is_empty() && text.bytes().all(may) {
        return Ok(());
    }
    Err(BadPart {
        text: text.to_owned(),
        wanted: "a name of letters, digits, _, . and -",
    })
}

/// Checks a level: `s0`, `s0:c1,c2`, `s0-s0:c0.c1023`.
///
/// # Errors
/// [`BadPart`] for a text that no policy with levels could know.
pub fn check_level(text: &str) -> Result<(), BadPart> {
    if is_range(text) {
        return Ok(());
    }
    Err(BadPart {
        text: text.to_owned(),
        wanted: "a level such as s0, s0:c1,c2 or s0-s0:c0.c1023 (sensitivities s0 to s15, \
                 categories c0 to c1023)",
    })
}

/// One level, or two of which the first is the lower.
fn is_range(text: &str) -> bool {
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    match (sensitivity(low), sensitivity(high)) {
        (Some(low), Some(high)) => low <= high,
        _ => false,
    }
}

/// The sensitivity of a well-formed level.
fn sensitivity(level: &str) -> Option<u16> {
    let (sensitivity, categories) = match level.split_once(':') {
        Some((sensitivity, categories)) => (sensitivity, Some(categories)),
        None => (level, None),
    };
    let are_known = categories.is_none_or(|all| all.split(',').all(is_set));
    number(sensitivity, 's', SENSITIVITIES).filter(|_| are_known)
}

/// A category, or all from one to a higher one.
fn is_set(text: &str) -> bool {
    let category = |text| number(text, 'c', CATEGORIES);
    match text.split_once('.') {
        None => category(text).is_some(),
        Some((first, last)) => match (category(first), category(last)) {
            (Some(first), Some(last)) => first < last,
            _ => false,
        },
    }
}

/// The number after a letter, written as policies write it: without zeros before it.
fn number(text: &str, letter: char, end: u16) -> Option<u16> {
    let digits = text.strip_prefix(letter)?;
    let number: u16 = digits.parse().ok()?;
    (number < end && number.to_string() == digits).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ranges_of_sensitivities_with_sets_of_categories() {
        for level in [
            "s0",
            "s15",
            "s0-s15",
            "s0-s0",
            "s0:c1",
            "s0:c1,c2",
            "s0:c0.c1023",
            "s0:c1,c3.c5,c1023",
            "s0-s0:c0.c1023",
            "s0:c1-s15:c0.c1023",
        ] {
            assert_eq!(check_level(level), Ok(()), "{level}");
        }
        for wrong in [
            "",
            "0",
            "s",
            "s16",
            "s00",
            "s-1",
            "s+1",
            "S0",
            "s1-s0",
            "s0-",
            "s0-s1-s2",
            "s0:",
            "s0:c",
            "s0:c1,",
            "s0:c1024",
            "s0:c01",
            "s0:c2.c1",
            "s0:c1.c1",
            "s0:c1.c2.c3",
            "s0:c1:c2",
            "s0:1,2",
            " s0",
            "s0 ",
            "s0:c1, c2",
            "s0\n",
            "SystemLow",
            "s0\",lowerdir=/,upperdir=/x,workdir=/y,fscontext=\"s0",
        ] {
            let refused = check_level(wrong).unwrap_err();
            assert!(refused.to_string().contains("s0:c1,c2"), "{refused}");
        }
    }

    #[test]
    fn users_roles_and_types_are_names() {
        for name in ["system_u", "container_t", "my.type-2", "0"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for wrong in [
            "", "a b", "a:b", "a,b", "a\"b", "a\\b", "a/b", "\u{e4}", "a\0",
        ] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
