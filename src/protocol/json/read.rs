//! From a tree of values to Rust types, with fastjson's leniency in one place.
//!
//! What a type gets without asking: numbers and booleans from strings (and the reverse for strings), members that are
//! null treated as missing, member names matched whatever their case and underscores, keys of maps parsed as numbers or
//! as the JSON text of an object. Types add `#[serde(default)]` for missing members.

use super::parse::parse;
use super::{JsonError, Value};
use serde::de::value::StringDeserializer;
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number};

/// Parses bytes of the dialect into `T`.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, JsonError> {
    from_value(parse(bytes)?)
}

/// Converts a parsed value into `T`.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, JsonError> {
    T::deserialize(Lenient(value))
}

struct Lenient(Value);

impl Lenient {
    fn mismatch<T>(&self, wanted: &str) -> Result<T, JsonError> {
        let found = match &self.0 {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        Err(JsonError::Type(format!("expected {wanted}, found {found}")))
    }

    /// The value as an integer. fastjson cuts fractions off, and reads an empty string or null as missing; there is no
    /// "missing" left at this point, so both are 0.
    fn integer(&self) -> Result<i64, JsonError> {
        match &self.0 {
            Value::Number(number) => {
                number_as_i64(number).ok_or_else(|| JsonError::Type(format!("{number} overflows")))
            }
            Value::String(text) if matches!(text.as_str(), "" | "null" | "NULL") => Ok(0),
            Value::String(text) => {
                text.trim().parse().map_err(|_| JsonError::Type(format!("{:?} is not an integer", clip(text))))
            }
            Value::Bool(flag) => Ok(i64::from(*flag)),
            Value::Null => Ok(0),
            _ => self.mismatch("an integer"),
        }
    }

    fn double(&self) -> Result<f64, JsonError> {
        match &self.0 {
            Value::Number(number) => number.as_f64().ok_or_else(|| JsonError::Type(format!("{number} overflows"))),
            Value::String(text) if text.is_empty() => Ok(0.0),
            Value::String(text) => {
                text.trim().parse().map_err(|_| JsonError::Type(format!("{:?} is not a number", clip(text))))
            }
            Value::Null => Ok(0.0),
            _ => self.mismatch("a number"),
        }
    }

    fn boolean(&self) -> Result<bool, JsonError> {
        match &self.0 {
            Value::Bool(flag) => Ok(*flag),
            Value::Number(number) => Ok(number_as_i64(number) == Some(1)),
            Value::String(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "y" | "t" => Ok(true),
                "false" | "0" | "n" | "f" | "" | "null" => Ok(false),
                _ => Err(JsonError::Type(format!("{:?} is not a boolean", clip(text)))),
            },
            Value::Null => Ok(false),
            _ => self.mismatch("a boolean"),
        }
    }
}

fn number_as_i64(number: &Number) -> Option<i64> {
    if let Some(integer) = number.as_i64() {
        return Some(integer);
    }
    let double = number.as_f64()?;
    // The bounds are exact in f64; inside them the cast only drops the fraction.
    (-9.0e18..=9.0e18).contains(&double).then_some(double as i64)
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty),+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            let integer = self.integer()?;
            let narrow = <$type>::try_from(integer)
                .map_err(|_| JsonError::Type(format!("{integer} is out of range")))?;
            visitor.$visit(narrow)
        })+
    };
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::Number(number) => {
                if let Some(integer) = number.as_u64() {
                    visitor.visit_u64(integer)
                } else if let Some(integer) = number.as_i64() {
                    visitor.visit_i64(integer)
                } else {
                    visitor.visit_f64(number.as_f64().unwrap_or_default())
                }
            }
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Object(members) => visitor.visit_map(Members::raw(members)),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        if let Value::Number(number) = &self.0
            && let Some(integer) = number.as_u64()
        {
            return visitor.visit_u64(integer);
        }
        let integer = self.integer()?;
        visitor.visit_u64(u64::try_from(integer).map_err(|_| JsonError::Type(format!("{integer} is out of range")))?)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_f64(self.double()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_f64(self.double()?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        visitor.visit_bool(self.boolean()?)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        self.deserialize_string(visitor)
    }

    /// fastjson gives a string member the JSON text of whatever stands there.
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::String(text) => visitor.visit_string(text),
            Value::Null => visitor.visit_str(""),
            other => visitor.visit_string(other.to_string()),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            other => visitor.visit_some(Lenient(other)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(Items(items.into_iter())),
            Value::Null => visitor.visit_seq(Items(Vec::new().into_iter())),
            _ => self.mismatch("an array"),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members::without_nulls(members, &[])),
            Value::Null => visitor.visit_map(Members::raw(Map::new())),
            _ => self.mismatch("an object"),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        match self.0 {
            Value::Object(members) => visitor.visit_map(Members::without_nulls(members, fields)),
            // The object as a string of JSON, as fastjson accepts for keys of maps.
            Value::String(text) => match parse(text.as_bytes())? {
                Value::Object(members) => visitor.visit_map(Members::without_nulls(members, fields)),
                _ => Err(JsonError::Type("expected an object, found a string".to_owned())),
            },
            _ => self.mismatch("an object"),
        }
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier ignored_any
    }
}

impl IntoDeserializer<'_, JsonError> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Items(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for Items {
    type Error = JsonError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, JsonError> {
        self.0.next().map(|item| seed.deserialize(Lenient(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

struct Members {
    entries: std::vec::IntoIter<(String, Value)>,
    value: Option<Value>,
}

impl Members {
    fn raw(members: Map<String, Value>) -> Self {
        let entries: Vec<_> = members.into_iter().collect();
        Members { entries: entries.into_iter(), value: None }
    }

    /// Leaves out nulls, renames members to the field they match, and leaves out a second match of one field, which
    /// serde would refuse: an exact name wins.
    fn without_nulls(members: Map<String, Value>, fields: &[&'static str]) -> Self {
        let mut inexact = Vec::new();
        let mut entries = Vec::with_capacity(members.len());
        for (name, value) in members {
            if value.is_null() {
                continue;
            }
            if fields.is_empty() || fields.contains(&name.as_str()) {
                entries.push((name, value));
            } else if let Some(field) = fields.iter().find(|field| matches_loosely(field, &name)) {
                inexact.push((*field, value));
            }
        }
        for (field, value) in inexact {
            if entries.iter().all(|(name, _)| name != field) {
                entries.push((field.to_owned(), value));
            }
        }
        Members { entries: entries.into_iter(), value: None }
    }
}

/// fastjson's "smart match": case, `_` and `-` do not count. Source: JavaBeanDeserializer.smartMatch.
fn matches_loosely(field: &str, name: &str) -> bool {
    fn significant(text: &str) -> impl Iterator<Item = u8> {
        text.bytes().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase())
    }
    significant(field).eq(significant(name))
}

impl<'de> MapAccess<'de> for Members {
    type Error = JsonError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, JsonError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        seed.deserialize(Key(key)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, JsonError> {
        seed.deserialize(Lenient(self.value.take().unwrap_or(Value::Null)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// A key: a string that may have to become a number or an object.
struct Key(String);

macro_rules! key_forwards {
    ($($method:ident),+) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
            Lenient(Value::String(self.0)).$method(visitor)
        })+
    };
}

impl<'de> Deserializer<'de> for Key {
    type Error = JsonError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, JsonError> {
        StringDeserializer::<JsonError>::new(self.0).deserialize_any(visitor)
    }

    key_forwards! {
        deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64, deserialize_u8, deserialize_u16,
        deserialize_u32, deserialize_u64, deserialize_bool
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        Lenient(Value::String(self.0)).deserialize_struct(name, fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, JsonError> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        f32 f64 i128 u128 char str string bytes byte_buf option unit unit_struct seq tuple tuple_struct map enum
        identifier ignored_any
    }
}
