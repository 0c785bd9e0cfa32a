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
//! Only what a type has room for is built: a value is its text until a field takes it, and a field
//! that no one reads is passed over. So reading takes about as much memory as the document has
//! bytes, beside what is read; the caller bounds its length.

use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IgnoredAny, IntoDeserializer,
    MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::Error;

use parts::{Items, first_byte, key_of};

mod parts;

/// Values in values: more are no document of the field.
const MAX_DEPTH: u8 = 128;

/// Reads a document (`json.Unmarshal`).
///
/// # Errors
/// When it is no JSON, something follows it, or a value has the wrong type.
pub fn from_slice<T: DeserializeOwned>(document: &[u8]) -> Result<T, Error> {
    let text = String::from_utf8_lossy(document);
    serde_json::from_str::<IgnoredAny>(&text)?;
    T::deserialize(Value::of(text.trim_ascii(), 0))
}

/// Reads the document that comes first, whatever follows it (`json.Decoder`).
///
/// # Errors
/// When it is no JSON, or a value has the wrong type.
pub fn first_of_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    let text = String::from_utf8_lossy(bytes);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<IgnoredAny>();
    values
        .next()
        .unwrap_or_else(|| Err(Error::custom("nothing")))?;
    let end = values.byte_offset();
    T::deserialize(Value::of(text[..end].trim_ascii(), 0))
}

/// A value as it is written in a document that is known to be JSON.
struct Value<'d> {
    text: &'d str,
    /// Further objects that the same key was given, in the order in which they were.
    more: Vec<&'d str>,
    depth: u8,
}

impl<'d> Value<'d> {
    fn of(text: &'d str, depth: u8) -> Self {
        Self {
            text,
            more: Vec::new(),
            depth,
        }
    }

    fn is_null(&self) -> bool {
        first_byte(self.text) == b'n'
    }

    fn deeper(&self) -> Result<u8, Error> {
        let depth = self.depth + 1;
        let is_known = depth <= MAX_DEPTH;
        is_known
            .then_some(depth)
            .ok_or_else(|| Error::custom("values in values in values"))
    }

    /// The values under the names of a struct's fields.
    fn fields(
        self,
        names: &'static [&'static str],
    ) -> Result<Vec<(&'static str, Value<'d>)>, Error> {
        let depth = self.deeper()?;
        let mut found: Vec<(&'static str, Value<'d>)> = Vec::new();
        for object in std::iter::once(self.text).chain(self.more) {
            for (key, value) in Items::of(object).map(key_of) {
                if let Some(name) = field_of(&unquoted(key)?, names) {
                    give(&mut found, name, Value::of(value, depth));
                }
            }
        }
        Ok(found)
    }
}

/// Gives a field one more value.
fn give<'d>(found: &mut Vec<(&'static str, Value<'d>)>, name: &'static str, value: Value<'d>) {
    let at = found.iter().position(|(known, _)| *known == name);
    match (at, first_byte(value.text)) {
        (None, b'n') => {}
        (None, _) => found.push((name, value)),
        (Some(at), b'n') => {
            if first_byte(found[at].1.text) == b'[' {
                found.remove(at);
            }
        }
        (Some(at), b'{') if first_byte(found[at].1.text) == b'{' => {
            found[at].1.more.push(value.text);
        }
        (Some(at), _) => found[at].1 = value,
    }
}

/// The text of a string.
fn unquoted(string: &str) -> Result<std::borrow::Cow<'_, str>, Error> {
    match string.contains('\\') {
        true => serde_json::from_str::<String>(string).map(Into::into),
        false => Ok(string[1..string.len() - 1].into()),
    }
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
            match self.is_null() {
                true => visitor.$visit($zero),
                false => self.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Value<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match first_byte(self.text) {
            b'{' => {
                let depth = self.deeper()?;
                visitor.visit_map(Entries {
                    items: Items::of(self.text),
                    objects: self.more.into_iter(),
                    value: None,
                    depth,
                })
            }
            b'[' => {
                let depth = self.deeper()?;
                visitor.visit_seq(Elements {
                    items: Items::of(self.text),
                    depth,
                })
            }
            _ => serde_json::Deserializer::from_str(self.text).deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let fields = match first_byte(self.text) {
            b'n' => Vec::new(),
            b'{' => self.fields(names)?,
            // A list would be taken for the fields in order.
            b'[' => return Err(Error::custom("a list where an object belongs")),
            _ => return self.deserialize_any(visitor),
        };
        visitor.visit_map(MapDeserializer::new(fields.into_iter()))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_null() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
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
        match self.is_null() {
            true => Value::of("[]", self.depth).deserialize_any(visitor),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_null() {
            true => Value::of("{}", self.depth).deserialize_any(visitor),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
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
        tuple_struct enum identifier
    }
}

impl<'d> IntoDeserializer<'d, Error> for Value<'d> {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// The elements of a list, one after the other.
struct Elements<'d> {
    items: Items<'d>,
    depth: u8,
}

impl<'de> SeqAccess<'de> for Elements<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let element = self.items.next().map(|text| Value::of(text, self.depth));
        element.map(|element| seed.deserialize(element)).transpose()
    }
}

/// The entries of an object, and of further ones that count as one with it.
struct Entries<'d> {
    items: Items<'d>,
    objects: std::vec::IntoIter<&'d str>,
    value: Option<&'d str>,
    depth: u8,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let item = loop {
            match (self.items.next(), self.objects.len()) {
                (Some(item), _) => break item,
                (None, 0) => return Ok(None),
                (None, _) => self.items = self.objects.next().map_or(Items::of("{}"), Items::of),
            }
        };
        let (key, value) = key_of(item);
        self.value = Some(value);
        let key = unquoted(key)?;
        let key: StrDeserializer<'_, Error> = key.as_ref().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let value = self.value.take().unwrap_or("null");
        seed.deserialize(Value::of(value, self.depth))
    }
}

#[cfg(test)]
#[path = "go_json_tests.rs"]
mod tests;
