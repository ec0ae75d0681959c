//! Rust types to the text that fastjson 1.x would write for the Java classes.
//!
//! Members of objects are sorted by key; members that are null are left out (nulls in arrays stay). Keys of maps follow
//! their Rust type: strings are quoted, integers stand unquoted, structs are written as objects. Doubles always have a
//! fraction.

use super::JsonError;
use serde::Serialize;
use serde::ser::{self, Serializer};
use std::io::Write;

/// How the text is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// fastjson's default: compact, unquoted integer keys, raw non-ASCII.
    Compact,
    /// `PrettyFormat`: the form of state files.
    Pretty,
    /// `BrowserCompatible`: quoted keys, ASCII only.
    Standard,
}

/// The default form: what `RemotingSerializable.encode` writes. Infallible for types whose map keys are strings,
/// integers or structs; other keys and non-JSON types give an empty body in release and are caught by tests.
pub fn to_fastjson<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write(value, Style::Compact)
}

/// The indented form of the Java broker's state files: `RemotingSerializable.toJson(.., true)`.
pub fn to_fastjson_pretty<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write(value, Style::Pretty)
}

/// Standard JSON: quoted keys, non-ASCII as `\uXXXX`. Source: ClientRequestProcessor (route answers).
pub fn to_standard<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    write(value, Style::Standard)
}

fn write<T: Serialize + ?Sized>(value: &T, style: Style) -> Vec<u8> {
    let mut writer = Writer { out: Vec::with_capacity(256), style, indent: 0 };
    let result = value.serialize(&mut writer);
    debug_assert!(result.is_ok(), "the type has no JSON form: {result:?}");
    if result.is_err() {
        return Vec::new();
    }
    writer.out
}

struct Writer {
    out: Vec<u8>,
    style: Style,
    indent: usize,
}

impl Writer {
    fn new_line(&mut self) {
        if self.style == Style::Pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + self.indent, b'\t');
        }
    }

    fn decimal(&mut self, value: impl std::fmt::Display) {
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "{value}");
    }

    fn string(&mut self, text: &str) {
        self.out.push(b'"');
        let is_plain = |byte: u8| (b' '..0x7f).contains(&byte) && !matches!(byte, b'"' | b'\\' | b'/');
        if text.bytes().all(is_plain) {
            self.out.extend_from_slice(text.as_bytes());
        } else {
            text.chars().for_each(|character| self.character(character));
        }
        self.out.push(b'"');
    }

    /// Source: SerializeWriter.writeStringWithDoubleQuote, IOUtils.specicalFlags_doubleQuotes.
    fn character(&mut self, character: char) {
        let short = match character {
            '"' => b'"',
            '\\' => b'\\',
            '/' if self.style == Style::Standard => b'/',
            '\u{8}' => b'b',
            '\u{c}' => b'f',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            _ => 0,
        };
        if short != 0 {
            self.out.extend_from_slice(&[b'\\', short]);
            return;
        }
        let escape = match character {
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => true,
            _ => self.style == Style::Standard && !character.is_ascii(),
        };
        let mut buffer = [0; 4];
        if !escape {
            self.out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
            return;
        }
        let mut units = [0; 2];
        for unit in character.encode_utf16(&mut units) {
            self.out.extend_from_slice(format!("\\u{unit:04X}").as_bytes());
        }
    }
}

/// The text of `Double.toString`; not-a-number and infinities are null, as in fastjson.
fn java_double(value: f64) -> String {
    if !value.is_finite() {
        return "null".to_owned();
    }
    let magnitude = value.abs();
    if magnitude == 0.0 || (1e-3..1e7).contains(&magnitude) {
        return format!("{value:?}");
    }
    let text = format!("{value:E}");
    match text.split_once('E') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0E{exponent}"),
        _ => text,
    }
}

/// One object or map being written. Members go straight into the shared buffer; if they came in order, which field order
/// in the types arranges, nothing moves afterwards.
struct Members<'a> {
    writer: &'a mut Writer,
    start: usize,
    entries: Vec<Entry>,
    in_order: bool,
    /// Key written, value still to come: where its separator and its key begin, and the key's number.
    pending: Option<(usize, usize, Option<i128>)>,
}

/// A written member, without its separator.
struct Entry {
    key_start: usize,
    value_start: usize,
    end: usize,
    number: Option<i128>,
}

impl<'a> Members<'a> {
    fn open(writer: &'a mut Writer) -> Self {
        let start = writer.out.len();
        writer.out.push(b'{');
        writer.indent += 1;
        Members { writer, start, entries: Vec::new(), in_order: true, pending: None }
    }

    fn separate(writer: &mut Writer, is_first: bool, is_name: bool) {
        if !is_first {
            writer.out.push(b',');
        }
        // The indented form breaks lines before names only: `{0:5,1:7`. Source: MapSerializer.
        if is_name {
            writer.new_line();
        }
    }

    fn key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        let key = key.serialize(KeyText)?;
        let separator_start = self.writer.out.len();
        Self::separate(self.writer, self.entries.is_empty(), key.is_name);
        let key_start = self.writer.out.len();
        if key.is_name || self.writer.style == Style::Standard {
            self.writer.string(&key.text);
        } else {
            self.writer.out.extend_from_slice(key.text.as_bytes());
        }
        self.pending = Some((separator_start, key_start, key.number));
        Ok(())
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        let pending = self.pending.take();
        let (separator_start, key_start, number) =
            pending.ok_or_else(|| JsonError::Type("a value without a key".to_owned()))?;
        self.writer.out.push(b':');
        let value_start = self.writer.out.len();
        value.serialize(&mut *self.writer)?;
        if &self.writer.out[value_start..] == b"null" {
            self.writer.out.truncate(separator_start);
            return Ok(());
        }
        let entry = Entry { key_start, value_start, end: self.writer.out.len(), number };
        if let Some(last) = self.entries.last() {
            self.in_order &= compare(&self.writer.out, last, &entry).is_le();
        }
        self.entries.push(entry);
        Ok(())
    }

    fn close(self) {
        let Members { writer, start, mut entries, in_order, .. } = self;
        if !in_order {
            let unsorted = writer.out.split_off(start);
            let shift = |entry: Entry| Entry {
                key_start: entry.key_start - start,
                value_start: entry.value_start - start,
                end: entry.end - start,
                number: entry.number,
            };
            entries = entries.into_iter().map(shift).collect();
            entries.sort_by(|left, right| compare(&unsorted, left, right));
            writer.out.push(b'{');
            for (position, entry) in entries.iter().enumerate() {
                Self::separate(writer, position == 0, unsorted[entry.key_start] == b'"');
                writer.out.extend_from_slice(&unsorted[entry.key_start..entry.end]);
            }
        }
        writer.indent -= 1;
        if !entries.is_empty() {
            writer.new_line();
        }
        writer.out.push(b'}');
    }
}

/// Numbers by value; names by their text without the closing quote, so that `a` comes before `a-b`.
fn compare(text: &[u8], left: &Entry, right: &Entry) -> std::cmp::Ordering {
    let name = |entry: &Entry| -> &[u8] {
        let key = &text[entry.key_start..entry.value_start - 1];
        key.strip_suffix(b"\"").unwrap_or(key)
    };
    match (left.number, right.number) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => name(left).cmp(name(right)),
    }
}

/// The text of a map's key, before quoting.
struct KeyParts {
    text: String,
    is_name: bool,
    number: Option<i128>,
}

/// Serializes keys: strings stay names, integers and structs are written bare.
struct KeyText;

macro_rules! integer_keys {
    ($($method:ident $type:ty),+) => {
        $(fn $method(self, value: $type) -> Result<KeyParts, JsonError> {
            Ok(KeyParts { text: value.to_string(), is_name: false, number: Some(i128::from(value)) })
        })+
    };
}

macro_rules! no_key {
    ($($method:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)+) => {
        $(no_key!(@one $method($($argument: $type),*) $(-> $result)?);)+
    };
    (@one $method:ident($($argument:ident: $type:ty),*)) => {
        no_key!(@one $method($($argument: $type),*) -> KeyParts);
    };
    (@one $method:ident($($argument:ident: $type:ty),*) -> $result:ty) => {
        fn $method(self, $($argument: $type),*) -> Result<$result, JsonError> {
            Err(JsonError::Type("a map key that is neither text, number nor object".to_owned()))
        }
    };
}

type NoCompound = ser::Impossible<KeyParts, JsonError>;

impl Serializer for KeyText {
    type Ok = KeyParts;
    type Error = JsonError;
    type SerializeSeq = NoCompound;
    type SerializeTuple = NoCompound;
    type SerializeTupleStruct = NoCompound;
    type SerializeTupleVariant = NoCompound;
    type SerializeMap = NoCompound;
    type SerializeStruct = StructKey;
    type SerializeStructVariant = NoCompound;

    integer_keys! {
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    }

    fn serialize_str(self, text: &str) -> Result<KeyParts, JsonError> {
        Ok(KeyParts { text: text.to_owned(), is_name: true, number: None })
    }

    fn serialize_char(self, character: char) -> Result<KeyParts, JsonError> {
        self.serialize_str(character.encode_utf8(&mut [0; 4]))
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<KeyParts, JsonError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<KeyParts, JsonError> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<KeyParts, JsonError> {
        value.serialize(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<StructKey, JsonError> {
        Ok(StructKey { writer: Writer { out: Vec::new(), style: Style::Compact, indent: 0 }, entries: Vec::new() })
    }

    no_key! {
        serialize_bool(_value: bool);
        serialize_f32(_value: f32);
        serialize_f64(_value: f64);
        serialize_bytes(_value: &[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(_name: &'static str);
        serialize_seq(_length: Option<usize>) -> NoCompound;
        serialize_tuple(_length: usize) -> NoCompound;
        serialize_tuple_struct(_name: &'static str, _length: usize) -> NoCompound;
        serialize_tuple_variant(_n: &'static str, _i: u32, _v: &'static str, _length: usize) -> NoCompound;
        serialize_map(_length: Option<usize>) -> NoCompound;
        serialize_struct_variant(_n: &'static str, _i: u32, _v: &'static str, _length: usize) -> NoCompound;
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<KeyParts, JsonError> {
        self.serialize_unit()
    }
}

/// A key that is an object: its members are written apart and sorted at the end.
struct StructKey {
    writer: Writer,
    entries: Vec<(&'static str, Vec<u8>)>,
}

impl ser::SerializeStruct for StructKey {
    type Ok = KeyParts;
    type Error = JsonError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), JsonError> {
        value.serialize(&mut self.writer)?;
        let text = std::mem::take(&mut self.writer.out);
        if text != b"null" {
            self.entries.push((name, text));
        }
        Ok(())
    }

    fn end(mut self) -> Result<KeyParts, JsonError> {
        self.entries.sort_by_key(|&(name, _)| name);
        self.writer.out.push(b'{');
        for (position, (name, value)) in self.entries.iter().enumerate() {
            if position > 0 {
                self.writer.out.push(b',');
            }
            self.writer.string(name);
            self.writer.out.push(b':');
            self.writer.out.extend_from_slice(value);
        }
        self.writer.out.push(b'}');
        let text = String::from_utf8(self.writer.out).map_err(|_| JsonError::BadString { at: 0 })?;
        Ok(KeyParts { text, is_name: false, number: None })
    }
}

macro_rules! write_integers {
    ($($method:ident $type:ty),+) => {
        $(fn $method(self, value: $type) -> Result<(), JsonError> {
            self.decimal(value);
            Ok(())
        })+
    };
}

impl<'a> Serializer for &'a mut Writer {
    type Ok = ();
    type Error = JsonError;
    type SerializeSeq = Items<'a>;
    type SerializeTuple = Items<'a>;
    type SerializeTupleStruct = Items<'a>;
    type SerializeTupleVariant = ser::Impossible<(), JsonError>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = ser::Impossible<(), JsonError>;

    write_integers! {
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64
    }

    fn serialize_bool(self, value: bool) -> Result<(), JsonError> {
        self.out.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), JsonError> {
        self.serialize_f64(f64::from(value))
    }

    fn serialize_f64(self, value: f64) -> Result<(), JsonError> {
        self.out.extend_from_slice(java_double(value).as_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), JsonError> {
        self.string(value.encode_utf8(&mut [0; 4]));
        Ok(())
    }

    fn serialize_str(self, value: &str) -> Result<(), JsonError> {
        self.string(value);
        Ok(())
    }

    fn serialize_bytes(self, _value: &[u8]) -> Result<(), JsonError> {
        Err(JsonError::Type("bytes have no JSON form".to_owned()))
    }

    fn serialize_none(self) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), JsonError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), JsonError> {
        self.out.extend_from_slice(b"null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), JsonError> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), JsonError> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<(), JsonError> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), JsonError> {
        Err(no_enum_form())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Items<'a>, JsonError> {
        self.out.push(b'[');
        Ok(Items { writer: self, is_first: true })
    }

    fn serialize_tuple(self, length: usize) -> Result<Items<'a>, JsonError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Items<'a>, JsonError> {
        self.serialize_seq(Some(length))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, JsonError> {
        Err(no_enum_form())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, JsonError> {
        Ok(Members::open(self))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, JsonError> {
        Ok(Members::open(self))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, JsonError> {
        Err(no_enum_form())
    }
}

fn no_enum_form() -> JsonError {
    JsonError::Type("enums with data have no JSON form".to_owned())
}

/// An array being written.
struct Items<'a> {
    writer: &'a mut Writer,
    is_first: bool,
}

impl Items<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        if !std::mem::take(&mut self.is_first) {
            self.writer.out.push(b',');
        }
        value.serialize(&mut *self.writer)
    }

    fn close(self) {
        self.writer.out.push(b']');
    }
}

macro_rules! array_parts {
    ($($part:ident $method:ident),+) => {
        $(impl ser::$part for Items<'_> {
            type Ok = ();
            type Error = JsonError;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
                self.item(value)
            }

            fn end(self) -> Result<(), JsonError> {
                self.close();
                Ok(())
            }
        })+
    };
}

array_parts! { SerializeSeq serialize_element, SerializeTuple serialize_element, SerializeTupleStruct serialize_field }

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), JsonError> {
        self.key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), JsonError> {
        self.value(value)
    }

    fn end(self) -> Result<(), JsonError> {
        self.close();
        Ok(())
    }
}

impl ser::SerializeStruct for Members<'_> {
    type Ok = ();
    type Error = JsonError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), JsonError> {
        self.key(name)?;
        self.value(value)
    }

    fn end(self) -> Result<(), JsonError> {
        self.close();
        Ok(())
    }
}
