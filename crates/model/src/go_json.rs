//! JSON documents of strangers, read as Go's `encoding/json` reads them into its structs.
//!
//! Registries, build tools and other clients are written in Go, so its reader decides which
//! documents work in the field. It differs from serde's in four ways, all of them kept here:
//!
//! - The case of a struct's keys does not matter; that of a map's keys does.
//! - Of a key that is given twice the last value counts, and two objects become one.
//! - `null` leaves a field as it is, and elsewhere means the zero value of its type.
//! - Bytes that are no UTF-8 become U+FFFD.
//!
//! A document is held in memory as a whole: the caller bounds its length.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, forward_to_deserialize_any};
use serde_json::Error;

/// Reads a document (`json.Unmarshal`).
///
/// # Errors
/// When it is no JSON, something follows it, or a value has the wrong type.
pub fn from_slice<T: DeserializeOwned>(document: &[u8]) -> Result<T, Error> {
    let value: Value = serde_json::from_str(&String::from_utf8_lossy(document))?;
    T::deserialize(value)
}

/// Reads the document that comes first, whatever follows it (`json.Decoder`).
///
/// # Errors
/// When it is no JSON, or a value has the wrong type.
pub fn first_of_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = String::from_utf8_lossy(bytes);
    let value = Value::deserialize(&mut serde_json::Deserializer::from_str(&text))?;
    T::deserialize(value)
}

/// A value with every key that was written, in the order in which it was.
enum Value {
    Null,
    Bool(bool),
    Positive(u64),
    Negative(i64),
    Fraction(f64),
    Text(String),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// The entries of an object under the names of a struct's fields.
fn fields_of(
    entries: Vec<(String, Value)>,
    names: &'static [&'static str],
) -> Vec<(&'static str, Value)> {
    let mut found: Vec<(&'static str, Value)> = Vec::new();
    for (key, value) in entries {
        let Some(name) = field_of(&key, names) else {
            continue;
        };
        let at = found.iter().position(|(known, _)| *known == name);
        match (at, value) {
            (None, Value::Null) => {}
            (None, value) => found.push((name, value)),
            (Some(at), Value::Null) => {
                if matches!(found[at].1, Value::List(_)) {
                    found.remove(at);
                }
            }
            (Some(at), Value::Object(more)) => match &mut found[at].1 {
                Value::Object(entries) => entries.extend(more),
                other => *other = Value::Object(more),
            },
            (Some(at), value) => found[at].1 = value,
        }
    }
    found
}

/// The field that a key stands for: one spelled so, else one that differs in case only.
fn field_of(key: &str, names: &'static [&'static str]) -> Option<&'static str> {
    let exact = names.iter().find(|name| **name == key);
    let same = |name: &&&str| key.chars().map(fold).eq(name.chars().map(fold));
    exact.or_else(|| names.iter().find(same)).copied()
}

/// Go folds by Unicode: beside ASCII these two alone reach letters of our fields.
fn fold(letter: char) -> char {
    match letter {
        'ſ' => 's',
        '\u{212a}' => 'k',
        other => other.to_ascii_lowercase(),
    }
}

/// Answers the zero value of a type for `null`, and what there is for anything else.
macro_rules! zero_for_null {
    ($($method:ident: $visit:ident($zero:expr),)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self {
                Self::Null => visitor.$visit($zero),
                other => other.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => visitor.visit_unit(),
            Self::Bool(is) => visitor.visit_bool(is),
            Self::Positive(number) => visitor.visit_u64(number),
            Self::Negative(number) => visitor.visit_i64(number),
            Self::Fraction(number) => visitor.visit_f64(number),
            Self::Text(text) => visitor.visit_string(text),
            Self::List(values) => visitor.visit_seq(SeqDeserializer::new(values.into_iter())),
            Self::Object(entries) => visitor.visit_map(MapDeserializer::new(entries.into_iter())),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let entries = match self {
            Self::Null => Vec::new(),
            Self::Object(entries) => fields_of(entries, fields),
            // A list would be taken for the fields in order.
            Self::List(_) => {
                return Err(serde::de::Error::custom("a list where an object belongs"));
            }
            other => return other.deserialize_any(visitor),
        };
        visitor.visit_map(MapDeserializer::new(entries.into_iter()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => Self::List(Vec::new()).deserialize_any(visitor),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Null => Self::Object(Vec::new()).deserialize_any(visitor),
            other => other.deserialize_any(visitor),
        }
    }

    zero_for_null! {
        deserialize_bool: visit_bool(false),
        deserialize_str: visit_str(""),
        deserialize_string: visit_str(""),
        deserialize_u64: visit_u64(0),
        deserialize_i64: visit_i64(0),
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i128 u8 u16 u32 u128 f32 f64 char bytes byte_buf unit unit_struct tuple
        tuple_struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, Error> for Value {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsWritten)
    }
}

struct AsWritten;

impl<'de> Visitor<'de> for AsWritten {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E>(self, is: bool) -> Result<Value, E> {
        Ok(Value::Bool(is))
    }
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Positive(number))
    }
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Negative(number))
    }
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Fraction(number))
    }
    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }
    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::Text(text))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(Value::List(values))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Value::Object(entries))
    }
}

#[cfg(test)]
#[path = "go_json_tests.rs"]
mod tests;
