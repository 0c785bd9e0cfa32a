//! Properties of systemd's units as others write them: in annotations of a runtime spec, in the text
//! form of GVariant, such as `uint64 5`, `'inactive'` or `['a', 'b']`.

use zbus::Variant;

use crate::error::{Error, Part, Result};

/// One property of a unit.
#[derive(Debug, PartialEq)]
pub struct Property {
    pub(crate) name: String,
    pub(crate) value: Variant<'static>,
}

impl Property {
    /// A number without a sign.
    #[must_use]
    pub fn number(name: &str, value: u64) -> Self {
        Self::of(name, value)
    }

    /// Bytes, such as a mask of CPUs.
    #[must_use]
    pub fn bytes(name: &str, value: &[u8]) -> Self {
        Self::of(name, value.to_vec())
    }

    pub(crate) fn of(name: &str, value: impl Into<Variant<'static>>) -> Self {
        Self {
            name: name.to_owned(),
            value: value.into(),
        }
    }

    /// A property with its value as text. A time in seconds (`TimeoutStopSec`) has another name on the
    /// bus, and is in microseconds there (`TimeoutStopUSec`).
    ///
    /// # Errors
    /// When the name is none, or the value is no text that is understood.
    pub fn parse(name: &str, text: &str) -> Result<Self> {
        let refuse = |why: &str| Error::Invalid {
            part: Part::Property,
            why: format!("{name:?} with the value {text:?}: {why}"),
        };
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(refuse("is no name of a property"));
        }
        let value = value(text.trim()).ok_or_else(|| refuse("the value is not understood"))?;
        let seconds = name.strip_suffix("Sec");
        let seconds = seconds.filter(|name| name.ends_with(|c: char| c.is_ascii_lowercase()));
        match seconds {
            None => Ok(Self::of(name, value)),
            Some(name) => {
                let micros = micros(&value).ok_or_else(|| refuse("is no time in seconds"))?;
                Ok(Self::of(&format!("{name}USec"), micros))
            }
        }
    }
}

/// A value as text: a list, a text, a truth value, or a number with or without its type.
fn value(text: &str) -> Option<Variant<'static>> {
    match text.as_bytes().first()? {
        b'[' => list(text),
        b'\'' | b'"' => match quoted(text)? {
            (word, "") => Some(word.into()),
            _ => None,
        },
        _ => match text {
            "true" => Some(true.into()),
            "false" => Some(false.into()),
            _ => match text.split_once(char::is_whitespace) {
                Some((kind, rest)) => typed(kind, rest.trim()),
                None if text.contains('.') => Some(text.parse::<f64>().ok()?.into()),
                None => Some(text.parse::<i32>().ok()?.into()),
            },
        },
    }
}

/// A value with its type before it, as a word or as a letter.
fn typed(kind: &str, text: &str) -> Option<Variant<'static>> {
    let number = || match text.strip_prefix("0x") {
        Some(digits) => i128::from_str_radix(digits, 16).ok(),
        None => text.parse::<i128>().ok(),
    };
    Some(match kind {
        "byte" | "@y" => u8::try_from(number()?).ok()?.into(),
        "int16" | "@n" => i16::try_from(number()?).ok()?.into(),
        "uint16" | "@q" => u16::try_from(number()?).ok()?.into(),
        "int32" | "@i" => i32::try_from(number()?).ok()?.into(),
        "uint32" | "@u" => u32::try_from(number()?).ok()?.into(),
        "int64" | "@x" => i64::try_from(number()?).ok()?.into(),
        "uint64" | "@t" => u64::try_from(number()?).ok()?.into(),
        "double" | "@d" => text.parse::<f64>().ok()?.into(),
        "boolean" | "@b" => text.parse::<bool>().ok()?.into(),
        "@as" if text == "[]" => Vec::<String>::new().into(),
        "@ay" if text == "[]" => Vec::<u8>::new().into(),
        "string" | "@s" => match quoted(text)? {
            (word, "") => word.into(),
            _ => return None,
        },
        "@as" => match list(text)? {
            texts @ Variant::Array(_) if text.contains(['\'', '"']) => texts,
            _ => return None,
        },
        _ => return None,
    })
}

/// Texts, or numbers of the type that the first of them names.
fn list(text: &str) -> Option<Variant<'static>> {
    let mut rest = text.strip_prefix('[')?.strip_suffix(']')?.trim();
    if rest.starts_with(['\'', '"']) {
        let mut words = Vec::new();
        loop {
            let (word, after) = quoted(rest)?;
            words.push(word);
            match after.trim_start().strip_prefix(',') {
                Some(more) => rest = more.trim_start(),
                None if after.trim().is_empty() => return Some(words.into()),
                None => return None,
            }
        }
    }
    let (kind, rest) = rest
        .split_once(char::is_whitespace)
        .unwrap_or(("int32", rest));
    let kind_is_first = matches!(kind, "byte" | "int32" | "uint32" | "int64" | "uint64");
    let (kind, items) = match kind_is_first {
        true => (kind, rest),
        false => ("int32", text.get(1..text.len() - 1)?),
    };
    let numbers = items
        .split(',')
        .map(|item| item.trim().parse::<i128>().ok());
    let numbers: Vec<i128> = numbers.collect::<Option<_>>()?;
    match kind {
        "byte" => all::<u8>(&numbers).map(Into::into),
        "uint32" => all::<u32>(&numbers).map(Into::into),
        "int64" => all::<i64>(&numbers).map(Into::into),
        "uint64" => all::<u64>(&numbers).map(Into::into),
        _ => all::<i32>(&numbers).map(Into::into),
    }
}

fn all<T: TryFrom<i128>>(numbers: &[i128]) -> Option<Vec<T>> {
    let each = numbers.iter().map(|number| T::try_from(*number).ok());
    each.collect()
}

/// A text in quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut letters = text.char_indices();
    let (_, quote) = letters.next().filter(|(_, c)| matches!(c, '\'' | '"'))?;
    let mut word = String::new();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' => word.push(match letters.next()?.1 {
                'n' => '\n',
                't' => '\t',
                same @ ('\\' | '\'' | '"') => same,
                _ => return None,
            }),
            _ if letter == quote => return Some((word, text.get(at + 1..)?)),
            _ => word.push(letter),
        }
    }
    None
}

/// Seconds in microseconds.
fn micros(value: &Variant<'_>) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole = |seconds: i128| u64::try_from(seconds).ok()?.checked_mul(SECOND);
    match value {
        Variant::U8(n) => whole((*n).into()),
        Variant::I16(n) => whole((*n).into()),
        Variant::U16(n) => whole((*n).into()),
        Variant::I32(n) => whole((*n).into()),
        Variant::U32(n) => whole((*n).into()),
        Variant::I64(n) => whole((*n).into()),
        Variant::U64(n) => whole((*n).into()),
        Variant::F64(n) if (0.0..1e12).contains(n) => {
            let duration = std::time::Duration::from_secs_f64(*n);
            u64::try_from(duration.as_micros()).ok()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_gvariant_writes_them() {
        let table: [(&str, Variant<'static>); 14] = [
            ("'inactive-or-failed'", "inactive-or-failed".into()),
            (r#""a \"b\" 'c'\\""#, r#"a "b" 'c'\"#.into()),
            ("true", true.into()),
            ("5", 5_i32.into()),
            ("-5", (-5_i32).into()),
            ("1.5", 1.5_f64.into()),
            ("uint64 18446744073709551615", u64::MAX.into()),
            ("@u 0x10", 16_u32.into()),
            ("byte 7", 7_u8.into()),
            ("['a', \"b\"]", vec!["a".to_owned(), "b".to_owned()].into()),
            ("@as []", Vec::<String>::new().into()),
            ("[1, 2]", vec![1_i32, 2].into()),
            ("[uint32 1, 2]", vec![1_u32, 2].into()),
            ("[byte 1]", vec![1_u8].into()),
        ];
        for (text, expected) in table {
            assert_eq!(value(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "'a",
            "'a' b",
            "uint32 -1",
            "byte 256",
            "[1, 'a']",
            "['a' 'b']",
            "words",
            "5 5",
            "(1, 2)",
            "[]",
        ] {
            assert_eq!(value(bad), None, "{bad}");
        }
    }

    #[test]
    fn seconds_are_microseconds_on_the_bus() {
        let parse = |name, text| Property::parse(name, text).unwrap();
        assert_eq!(
            parse("TimeoutStopSec", "5"),
            Property::number("TimeoutStopUSec", 5_000_000)
        );
        assert_eq!(
            parse("TimeoutStopSec", "0.5"),
            Property::number("TimeoutStopUSec", 500_000)
        );
        assert_eq!(
            parse("TimeoutStopUSec", "uint64 5"),
            Property::number("TimeoutStopUSec", 5)
        );
        for (name, text) in [
            ("TimeoutStopSec", "-1"),
            ("TimeoutStopSec", "'a'"),
            ("a b", "5"),
            ("Ab", "5"),
            ("A=Sec", "5"),
        ] {
            assert!(Property::parse(name, text).is_err(), "{name} {text}");
        }
    }
}
