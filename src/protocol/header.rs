//! Decodes command headers without allocating per field (`RemotingCommand`, `RocketMQSerializable`).
//!
//! [`HeaderDecoder`] is scratch space that a connection's owner keeps and reuses. JSON headers take a strict one-pass
//! path; the first byte that is not what Java, Go and C++ clients write sends the header to the lenient parser, which
//! accepts what fastjson accepts. Text is checked for UTF-8 once, as a whole. Binary headers are copied into the scratch.

use thiserror::Error;

use crate::command::Command;
use crate::frame::{Frame, SerializeType};
use crate::language::Language;
use crate::lenient;
use crate::scan::{Text, string_end};
use crate::text::hex_value;

/// Most ext fields of one header. Java has no bound; real headers have fewer than forty.
pub const MAX_EXT_FIELDS: usize = 1024;

/// Why a header cannot be decoded. There is no response to it: the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HeaderError {
    /// A JSON header without a JSON object.
    #[error("the header is empty")]
    Empty,
    /// A JSON header that is not UTF-8.
    #[error("the header is not UTF-8")]
    NotUtf8,
    /// Not the JSON that fastjson accepts.
    #[error("the JSON header is malformed at byte {0}")]
    Syntax(usize),
    /// A top-level number that is no 32-bit integer, or a language ordinal that does not exist.
    #[error("the header field {0} has a bad value")]
    BadValue(&'static str),
    /// A binary header that ends too early, or with a length that is negative or leads outside.
    #[error("the binary header is malformed at byte {0}")]
    Malformed(usize),
    /// More ext fields than [`MAX_EXT_FIELDS`].
    #[error("the header has more than {MAX_EXT_FIELDS} ext fields")]
    TooManyFields,
}

/// A piece of text, in the header or in the scratch text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) in_text: bool,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize, in_text: bool) -> Option<Span> {
        Some(Span { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()?, in_text })
    }

    /// The text, out of the header or of the gathered text.
    #[inline]
    pub(crate) fn of<'a>(self, source: &'a str, text: &'a str) -> &'a str {
        // Spans are made from positions of ASCII marks or of whole pushes, so they always lie on boundaries.
        (if self.in_text { text } else { source }).get(self.start as usize..self.end as usize).unwrap_or("")
    }

    /// [`Span::of`] while the text is still being gathered: looks at this piece alone.
    pub(crate) fn of_unfinished<'a>(self, source: &'a str, text: &'a Text) -> &'a str {
        let (start, end) = (self.start as usize, self.end as usize);
        if self.in_text { text.piece(start, end) } else { source.get(start..end).unwrap_or("") }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct RawField {
    pub(crate) key: Span,
    pub(crate) value: Span,
}

/// Everything but the ext fields, with text as spans.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalars {
    pub(crate) code: i32,
    pub(crate) language: Option<Language>,
    pub(crate) version: i32,
    pub(crate) opaque: i32,
    pub(crate) flag: i32,
    pub(crate) remark: Option<Span>,
    pub(crate) has_ext_fields: bool,
}

impl Default for Scalars {
    fn default() -> Scalars {
        Scalars {
            code: 0,
            language: Some(Language::Java),
            version: 0,
            opaque: 0,
            flag: 0,
            remark: None,
            has_ext_fields: false,
        }
    }
}

/// Reusable scratch of header decoding. One per shard or connection is enough.
#[derive(Debug, Default)]
pub struct HeaderDecoder {
    fields: Vec<RawField>,
    text: Text,
}

/// A decoded header; borrows the frame and the decoder.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// Request or response code.
    pub code: i32,
    /// Language of the sender; `None` if it named an unknown one.
    pub language: Option<Language>,
    /// Version of the sender.
    pub version: i32,
    /// Request id.
    pub opaque: i32,
    /// Command flags.
    pub flag: i32,
    /// Free text.
    pub remark: Option<&'a str>,
    /// Whether there was an ext map at all, be it empty. Java treats its absence differently.
    pub has_ext_fields: bool,
    /// How the header was written.
    pub serialize_type: SerializeType,
    source: &'a str,
    text: &'a str,
    fields: &'a [RawField],
}

impl<'a> Header<'a> {
    /// The ext fields in the order of the wire. Where a key comes twice, the later one counts.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = (&'a str, &'a str)> + use<'a> {
        let (source, text) = (self.source, self.text);
        self.fields.iter().map(move |field| (field.key.of(source, text), field.value.of(source, text)))
    }

    /// The ext fields whose key is a single ASCII character, in the order of the wire.
    pub(crate) fn letter_fields(&self) -> impl Iterator<Item = (u8, &'a str)> + use<'a> {
        let (source, text) = (self.source, self.text);
        self.fields.iter().filter_map(move |field| {
            let key = field.key;
            if key.end - key.start != 1 {
                return None;
            }
            let letter = (if key.in_text { text } else { source }).as_bytes().get(key.start as usize)?;
            Some((*letter, field.value.of(source, text)))
        })
    }

    /// Value of an ext field. Linear in the number of fields: hot paths iterate once instead.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        let field = self.fields.iter().rev().find(|field| field.key.of(self.source, self.text) == key)?;
        Some(field.value.of(self.source, self.text))
    }

    /// Whether the command is a response.
    pub fn is_response(&self) -> bool {
        self.flag & crate::flags::RPC_RESPONSE != 0
    }

    /// Whether nobody waits for a response.
    pub fn is_oneway(&self) -> bool {
        self.flag & crate::flags::RPC_ONEWAY != 0
    }

    /// Copies the header and a body into an owned command.
    pub fn to_command(&self, body: &[u8]) -> Command {
        Command {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.map(str::to_owned),
            ext_fields: self
                .has_ext_fields
                .then(|| self.fields().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
            body: (!body.is_empty()).then(|| body.to_vec()),
            serialize_type: self.serialize_type,
        }
    }
}

impl HeaderDecoder {
    /// Empty scratch.
    pub fn new() -> HeaderDecoder {
        HeaderDecoder::default()
    }

    /// Decodes the header of a frame.
    ///
    /// # Errors
    /// Whatever makes Java close the connection; see [`HeaderError`].
    pub fn decode<'a>(
        &'a mut self,
        serialize_type: SerializeType,
        header: &'a [u8],
    ) -> Result<Header<'a>, HeaderError> {
        self.clear(header.len());
        match serialize_type {
            SerializeType::Json => {
                let source = std::str::from_utf8(header).map_err(|_| HeaderError::NotUtf8)?;
                let scalars = match strict(source, &mut self.fields, &mut self.text) {
                    Some(scalars) => scalars,
                    None => {
                        self.clear(header.len());
                        lenient::parse(source, &mut self.fields, &mut self.text)?
                    }
                };
                Ok(self.header(scalars, source, serialize_type))
            }
            SerializeType::RocketMq => {
                let scalars = binary(header, &mut self.fields, &mut self.text)?;
                Ok(self.header(scalars, "", serialize_type))
            }
        }
    }

    /// Decodes a whole frame's header.
    ///
    /// # Errors
    /// As [`HeaderDecoder::decode`].
    pub fn decode_frame<'a>(&'a mut self, frame: &Frame<'a>) -> Result<Header<'a>, HeaderError> {
        self.decode(frame.serialize_type, frame.header)
    }

    /// Decodes a JSON header with the lenient parser alone: for tests that compare the two parsers.
    ///
    /// # Errors
    /// As [`HeaderDecoder::decode`].
    pub fn decode_lenient<'a>(&'a mut self, header: &'a [u8]) -> Result<Header<'a>, HeaderError> {
        self.clear(header.len());
        let source = std::str::from_utf8(header).map_err(|_| HeaderError::NotUtf8)?;
        let scalars = lenient::parse(source, &mut self.fields, &mut self.text)?;
        Ok(self.header(scalars, source, SerializeType::Json))
    }

    /// Nothing that is unescaped gets longer than it was, so the header's length is room enough.
    fn clear(&mut self, header_bytes: usize) {
        self.fields.clear();
        self.text.reset(header_bytes);
    }

    fn header<'a>(&'a self, scalars: Scalars, source: &'a str, serialize_type: SerializeType) -> Header<'a> {
        let text = self.text.as_str();
        Header {
            code: scalars.code,
            language: scalars.language,
            version: scalars.version,
            opaque: scalars.opaque,
            flag: scalars.flag,
            remark: scalars.remark.map(|span| span.of(source, text)),
            has_ext_fields: scalars.has_ext_fields,
            serialize_type,
            source,
            text,
            fields: &self.fields,
        }
    }
}

/// The strict path. `None` means: not strict, ask the lenient parser.
fn strict(source: &str, fields: &mut Vec<RawField>, text: &mut Text) -> Option<Scalars> {
    let bytes = source.as_bytes();
    let mut scalars = Scalars::default();
    if *bytes.first()? != b'{' {
        return None;
    }
    let mut at = 1;
    loop {
        if *bytes.get(at)? != b'"' {
            return None;
        }
        let key_end = string_end(bytes, at + 1);
        let key = bytes.get(at + 1..key_end)?;
        if *bytes.get(key_end)? != b'"' || *bytes.get(key_end + 1)? != b':' {
            return None;
        }
        at = key_end + 2;
        match key {
            b"code" => (scalars.code, at) = strict_integer(bytes, at)?,
            b"opaque" => (scalars.opaque, at) = strict_integer(bytes, at)?,
            b"flag" => (scalars.flag, at) = strict_integer(bytes, at)?,
            b"version" => (scalars.version, at) = strict_integer(bytes, at)?,
            b"language" => {
                let (span, end) = strict_string(source, at, text)?;
                scalars.language = Language::from_name(span.of_unfinished(source, text));
                at = end;
            }
            b"remark" => {
                let (span, end) = strict_string(source, at, text)?;
                scalars.remark = Some(span);
                at = end;
            }
            b"serializeTypeCurrentRPC" => at = strict_string(source, at, text)?.1,
            b"extFields" if !scalars.has_ext_fields => {
                at = strict_ext(source, at, fields, text)?;
                scalars.has_ext_fields = true;
            }
            _ => return None,
        }
        match *bytes.get(at)? {
            b',' => at += 1,
            b'}' => break,
            _ => return None,
        }
    }
    bytes.get(at + 1..)?.iter().all(u8::is_ascii_whitespace).then_some(scalars)
}

/// The object at `at`; returns the position behind it.
#[inline(always)]
fn strict_ext(source: &str, mut at: usize, fields: &mut Vec<RawField>, text: &mut Text) -> Option<usize> {
    let bytes = source.as_bytes();
    if *bytes.get(at)? != b'{' {
        return None;
    }
    at += 1;
    if *bytes.get(at)? == b'}' {
        return Some(at + 1);
    }
    loop {
        if *bytes.get(at)? != b'"' || fields.len() == MAX_EXT_FIELDS {
            return None;
        }
        // Single letters are the rule on the send path: look for their closing quote before searching.
        let single = *bytes.get(at + 2)? == b'"' && !matches!(bytes.get(at + 1)?, b'"' | b'\\');
        let key_end = if single { at + 2 } else { string_end(bytes, at + 1) };
        if *bytes.get(key_end)? != b'"' || *bytes.get(key_end + 1)? != b':' {
            return None;
        }
        let key = Span::new(at + 1, key_end, false)?;
        at = key_end + 2;
        let value = match *bytes.get(at)? {
            b'"' => {
                let (span, end) = strict_string(source, at, text)?;
                at = end;
                span
            }
            // C++ clients send numbers and booleans bare. Canonical ones are their own text.
            b'-' | b'0'..=b'9' | b't' | b'f' => {
                let start = at;
                while matches!(bytes.get(at)?, b'-' | b'0'..=b'9' | b'a'..=b'z') {
                    at += 1;
                }
                is_canonical_literal(&bytes[start..at]).then_some(())?;
                Span::new(start, at, false)?
            }
            _ => return None,
        };
        fields.push(RawField { key, value });
        match *bytes.get(at)? {
            b',' => at += 1,
            b'}' => return Some(at + 1),
            _ => return None,
        }
    }
}

/// Whether a bare ext value is an integer or boolean whose text Java would reproduce unchanged.
pub(crate) fn is_canonical_literal(literal: &[u8]) -> bool {
    match literal {
        b"true" | b"false" | b"0" => true,
        [b'-', digits @ ..] | digits => {
            matches!(digits.first(), Some(b'1'..=b'9')) && digits.iter().all(u8::is_ascii_digit)
        }
    }
}

/// A decimal integer at `at` and the position behind it.
#[inline]
fn strict_integer(bytes: &[u8], mut at: usize) -> Option<(i32, usize)> {
    let negative = *bytes.get(at)? == b'-';
    at += usize::from(negative);
    let start = at;
    let mut value: i64 = 0;
    loop {
        let digit = bytes.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value * 10 + i64::from(digit);
        at += 1;
        if at - start > 10 {
            return None;
        }
    }
    if at == start {
        return None;
    }
    Some((i32::try_from(if negative { -value } else { value }).ok()?, at))
}

/// The string whose opening quote is at `at`, and the position behind its closing quote.
#[inline(always)]
fn strict_string(source: &str, at: usize, text: &mut Text) -> Option<(Span, usize)> {
    let bytes = source.as_bytes();
    if *bytes.get(at)? != b'"' {
        return None;
    }
    let end = string_end(bytes, at + 1);
    match *bytes.get(end)? {
        b'"' => Some((Span::new(at + 1, end, false)?, end + 1)),
        _ => unescape(source, at + 1, text),
    }
}

/// Copies a string with escapes into `text`. `start` is its first byte.
fn unescape(source: &str, start: usize, text: &mut Text) -> Option<(Span, usize)> {
    let bytes = source.as_bytes();
    let text_start = text.len();
    let mut at = text.copy_to_mark(source, start);
    loop {
        if *bytes.get(at)? == b'"' {
            return Some((Span::new(text_start, text.len(), true)?, at + 1));
        }
        // The separators of property strings come as \u0001 and \u0002.
        at = match bytes.get(at..)?.first_chunk() {
            Some([b'\\', b'u', b'0', b'0', high @ b'0'..=b'7', low @ b'0'..=b'9']) => {
                text.push_ascii((high - b'0') << 4 | (low - b'0'));
                at + 6
            }
            _ => unescape_one(bytes, at, text)?,
        };
        at = text.copy_to_mark(source, at);
    }
}

/// Decodes the escape whose backslash is at `at`; returns the position behind it. `None` for escapes that JSON does not
/// know and for the end of input.
#[inline]
pub(crate) fn unescape_one(bytes: &[u8], at: usize, text: &mut Text) -> Option<usize> {
    let plain = match *bytes.get(at + 1)? {
        b'u' => {
            let unit = hex_unit(bytes, at + 2)?;
            if !(0xd800..0xe000).contains(&unit) {
                text.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
                return Some(at + 6);
            }
            let follows = unit < 0xdc00 && bytes.get(at + 6..at + 8) == Some(b"\\u".as_slice());
            let low = if follows { hex_unit(bytes, at + 8).filter(|low| (0xdc00..0xe000).contains(low)) } else { None };
            let Some(low) = low else {
                // Half a surrogate pair has no UTF-8 form.
                text.push(char::REPLACEMENT_CHARACTER);
                return Some(at + 6);
            };
            let scalar = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            text.push(char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER));
            return Some(at + 12);
        }
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    };
    text.push(plain);
    Some(at + 2)
}

#[inline]
fn hex_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits: &[u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    let mut unit = 0;
    for digit in digits {
        unit = unit << 4 | u32::from(hex_value(*digit)?);
    }
    Some(unit)
}

/// Reads binary headers front to back.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], HeaderError> {
        let end = self.at.checked_add(length).ok_or(HeaderError::Malformed(self.at))?;
        let taken = self.bytes.get(self.at..end).ok_or(HeaderError::Malformed(self.at))?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], HeaderError> {
        let at = self.at;
        self.take(N)?.try_into().map_err(|_| HeaderError::Malformed(at))
    }

    fn long_length(&mut self) -> Result<usize, HeaderError> {
        let at = self.at;
        usize::try_from(i32::from_be_bytes(self.array()?)).map_err(|_| HeaderError::Malformed(at))
    }

    fn short_length(&mut self) -> Result<usize, HeaderError> {
        let at = self.at;
        usize::try_from(i16::from_be_bytes(self.array()?)).map_err(|_| HeaderError::Malformed(at))
    }
}

/// The binary form. Zero-length text is null, as in Java.
fn binary(header: &[u8], fields: &mut Vec<RawField>, text: &mut Text) -> Result<Scalars, HeaderError> {
    let mut cursor = Cursor { bytes: header, at: 0 };
    let code = i32::from(i16::from_be_bytes(cursor.array()?));
    let [language] = cursor.array()?;
    let version = i32::from(i16::from_be_bytes(cursor.array()?));
    let opaque = i32::from_be_bytes(cursor.array()?);
    let flag = i32::from_be_bytes(cursor.array()?);
    let remark_length = cursor.long_length()?;
    let remark_bytes = cursor.take(remark_length)?;
    let remark = if remark_bytes.is_empty() { None } else { Some(push_lossy(remark_bytes, text)?) };
    let ext_length = cursor.long_length()?;
    let mut cursor = Cursor { bytes: cursor.take(ext_length)?, at: 0 };
    let mut nulls = false;
    while cursor.at < cursor.bytes.len() {
        let key_length = cursor.short_length()?;
        let key = cursor.take(key_length)?;
        let value_length = cursor.long_length()?;
        let value = cursor.take(value_length)?;
        if key.is_empty() {
            continue;
        }
        if fields.len() == MAX_EXT_FIELDS {
            return Err(HeaderError::TooManyFields);
        }
        nulls |= value.is_empty();
        fields.push(RawField { key: push_lossy(key, text)?, value: push_lossy(value, text)? });
    }
    if nulls {
        drop_nulls(fields, "", text.as_str(), |field| field.value.start == field.value.end);
    }
    let language = Language::from_ordinal(language);
    Ok(Scalars { code, language, version, opaque, flag, remark, has_ext_fields: ext_length > 0 })
}

/// Removes null entries together with what they override: in a Java map a later null replaces an earlier value.
pub(crate) fn drop_nulls(fields: &mut Vec<RawField>, source: &str, text: &str, is_null: impl Fn(&RawField) -> bool) {
    let mut kept = 0;
    for index in 0..fields.len() {
        let field = fields[index];
        let key = field.key.of(source, text);
        // Bounded by MAX_EXT_FIELDS squared, and only headers with nulls come here.
        let overridden = fields[index + 1..].iter().any(|later| later.key.of(source, text) == key);
        if !overridden && !is_null(&field) {
            fields[kept] = field;
            kept += 1;
        }
    }
    fields.truncate(kept);
}

fn push_lossy(bytes: &[u8], text: &mut Text) -> Result<Span, HeaderError> {
    let start = text.len();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        if !chunk.invalid().is_empty() {
            text.push(char::REPLACEMENT_CHARACTER);
        }
    }
    Span::new(start, text.len(), true).ok_or(HeaderError::Malformed(start))
}
