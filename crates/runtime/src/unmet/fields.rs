//! The fields of a type, by what its derived `Deserialize` asks for: private ones too, and those
//! that no document has.

use std::collections::BTreeMap;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

/// Structs by name, each with its fields as a document writes them.
pub(super) type Structs = BTreeMap<&'static str, Vec<&'static str>>;

/// All structs that a document of this type can hold.
pub(super) fn of<T: DeserializeOwned>() -> Structs {
    let mut structs = Structs::new();
    let asked = Asked {
        structs: &mut structs,
        word: "1",
    };
    T::deserialize(asked).map(drop).unwrap();
    structs
}

/// Hands a type something of everything that it asks for, and writes down what that was.
struct Asked<'a> {
    structs: &'a mut Structs,
    /// Stands for every text.
    word: &'static str,
}

impl<'de> Deserializer<'de> for Asked<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_u64(1)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.word)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.word)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements(Some(Self {
            word: "CAP_KILL",
            ..self
        })))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Entries {
            names: &["1"],
            structs: self.structs,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.structs.insert(name, fields.to_vec());
        visitor.visit_map(Entries {
            names: fields,
            structs: self.structs,
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let first = variants.first().ok_or_else(|| Error::custom(name))?;
        let first: StrDeserializer<'_, Error> = first.into_deserializer();
        visitor.visit_enum(first)
    }

    forward_to_deserialize_any! {
        i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        newtype_struct tuple tuple_struct identifier ignored_any
    }
}

/// A list of one element.
struct Elements<'a>(Option<Asked<'a>>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0
            .take()
            .map(|asked| seed.deserialize(asked))
            .transpose()
    }
}

/// A value for each of some names.
struct Entries<'a> {
    names: &'static [&'static str],
    structs: &'a mut Structs,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((first, rest)) = self.names.split_first() else {
            return Ok(None);
        };
        self.names = rest;
        let name: StrDeserializer<'_, Error> = first.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(Asked {
            structs: self.structs,
            word: "1",
        })
    }
}
