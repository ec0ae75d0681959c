//! The slow JSON header parser: accepts what fastjson accepts, for peers whose JSON is not the usual one.
//!
//! Differences to strict JSON: white space, unquoted and single-quoted keys, trailing and doubled commas, numbers,
//! booleans and nulls as ext values, integers as strings, comments, keys in any case, unknown keys with anything nested in them.

use crate::header::{
    HeaderError, MAX_EXT_FIELDS, RawField, Scalars, Span, drop_nulls, is_canonical_literal, unescape_one,
};
use crate::language::Language;
use crate::scan::Text;
use crate::text::{hex_value, parse_i32, parse_i64};

/// Deepest nesting that is skipped over.
const MAX_DEPTH: usize = 64;

/// Parses a header.
pub(crate) fn parse(source: &str, fields: &mut Vec<RawField>, text: &mut Text) -> Result<Scalars, HeaderError> {
    let mut parser = Parser { source, bytes: source.as_bytes(), at: 0, text };
    parser.skip_space();
    if parser.at == parser.bytes.len() {
        return Err(HeaderError::Empty);
    }
    let mut scalars = Scalars::default();
    let mut nulls = false;
    parser.expect(b'{')?;
    while let Some(key) = parser.next_key()? {
        let name = field_name(parser.text_of(key));
        match name {
            Some("code") => parser.integer("code", &mut scalars.code)?,
            Some("opaque") => parser.integer("opaque", &mut scalars.opaque)?,
            Some("flag") => parser.integer("flag", &mut scalars.flag)?,
            Some("version") => parser.integer("version", &mut scalars.version)?,
            Some("language") => scalars.language = parser.language()?,
            Some("remark") => scalars.remark = parser.value(0)?.text(),
            Some("extFields") => {
                fields.clear();
                let map = parser.ext_fields(fields)?;
                scalars.has_ext_fields = map.is_some();
                nulls = map.unwrap_or(false);
            }
            _ => {
                parser.value(0)?;
            }
        }
        parser.end_pair()?;
    }
    parser.skip_space();
    if parser.at != parser.bytes.len() {
        return Err(HeaderError::Syntax(parser.at));
    }
    // Once, at the end: a header may repeat the whole map thousands of times.
    if nulls {
        drop_nulls(fields, source, text.as_str(), |field| field.key == field.value);
    }
    Ok(scalars)
}

/// The real name of a top-level key, which may come in any case and with `_` or `-` in it.
fn field_name(key: &str) -> Option<&'static str> {
    const NAMES: [&str; 7] = ["code", "extFields", "flag", "language", "opaque", "remark", "version"];
    let plain = || key.bytes().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase());
    NAMES.into_iter().find(|name| plain().eq(name.bytes().map(|byte| byte.to_ascii_lowercase())))
}

#[derive(Debug, Clone, Copy)]
enum Value {
    String(Span),
    /// A number, a boolean, or an object or array as it was written.
    Literal(Span),
    Null,
}

impl Value {
    fn text(self) -> Option<Span> {
        match self {
            Value::String(span) | Value::Literal(span) => Some(span),
            Value::Null => None,
        }
    }
}

struct Parser<'a> {
    source: &'a str,
    bytes: &'a [u8],
    at: usize,
    text: &'a mut Text,
}

impl Parser<'_> {
    fn text_of(&self, span: Span) -> &str {
        span.of_unfinished(self.source, self.text)
    }

    fn fail<T>(&self) -> Result<T, HeaderError> {
        Err(HeaderError::Syntax(self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let length = match rest {
                [b' ' | b'\n' | b'\r' | b'\t' | 0x0c | 0x08, ..] => 1,
                [b'/', b'*', comment @ ..] => {
                    4 + comment.windows(2).position(|pair| pair == b"*/").unwrap_or(comment.len())
                }
                [b'/', b'/', comment @ ..] => {
                    2 + comment.iter().position(|byte| *byte == b'\n').unwrap_or(comment.len())
                }
                _ => return,
            };
            self.at = (self.at + length).min(self.bytes.len());
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), HeaderError> {
        if self.peek() != Some(byte) {
            return self.fail();
        }
        self.at += 1;
        Ok(())
    }

    /// The next key of the object around, positioned before its value, or `None` behind the closing brace.
    fn next_key(&mut self) -> Result<Option<Span>, HeaderError> {
        self.skip_space();
        while self.peek() == Some(b',') {
            self.at += 1;
            self.skip_space();
        }
        let key = match self.peek() {
            Some(b'}') => {
                self.at += 1;
                return Ok(None);
            }
            Some(quote @ (b'"' | b'\'')) => self.string(quote)?,
            Some(_) => {
                let start = self.at;
                while matches!(self.peek(), Some(byte) if byte.is_ascii_alphanumeric() || b"_$-.".contains(&byte) || byte >= 0x80)
                {
                    self.at += 1;
                }
                if self.at == start {
                    return self.fail();
                }
                self.span(start, self.at, false)?
            }
            None => return self.fail(),
        };
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Ok(Some(key))
    }

    /// A pair is followed by a comma or by the end of its object.
    fn end_pair(&mut self) -> Result<(), HeaderError> {
        self.skip_space();
        if matches!(self.peek(), Some(b',' | b'}')) { Ok(()) } else { self.fail() }
    }

    fn span(&self, start: usize, end: usize, in_text: bool) -> Result<Span, HeaderError> {
        Span::new(start, end, in_text).ok_or(HeaderError::Syntax(self.at))
    }

    /// A string in the given quotes. Always copied: simple, and rare enough.
    fn string(&mut self, quote: u8) -> Result<Span, HeaderError> {
        self.at += 1;
        let text_start = self.text.len();
        let mut run = self.at;
        loop {
            let Some(byte) = self.peek() else { return self.fail() };
            if byte != quote && byte != b'\\' {
                self.at += 1;
                continue;
            }
            self.text.push_str(self.source.get(run..self.at).unwrap_or(""));
            if byte == quote {
                self.at += 1;
                return self.span(text_start, self.text.len(), true);
            }
            self.at = match unescape_one(self.bytes, self.at, self.text) {
                Some(at) => at,
                None => self.odd_escape()?,
            };
            run = self.at;
        }
    }

    /// Escapes that only fastjson knows.
    fn odd_escape(&mut self) -> Result<usize, HeaderError> {
        let Some(byte) = self.bytes.get(self.at + 1).copied() else { return self.fail() };
        let plain = match byte {
            b'0'..=b'7' => char::from(byte - b'0'),
            b'v' => '\u{b}',
            b'F' => '\u{c}',
            b'\'' => '\'',
            b'x' => {
                let digit = |index: usize| self.bytes.get(index).copied().and_then(hex_value);
                let (Some(high), Some(low)) = (digit(self.at + 2), digit(self.at + 3)) else { return self.fail() };
                self.text.push(char::from(high << 4 | low));
                return Ok(self.at + 4);
            }
            _ => return self.fail(),
        };
        self.text.push(plain);
        Ok(self.at + 2)
    }

    fn value(&mut self, depth: usize) -> Result<Value, HeaderError> {
        let start = self.at;
        match self.peek() {
            Some(quote @ (b'"' | b'\'')) => Ok(Value::String(self.string(quote)?)),
            Some(b'{') => {
                self.check_depth(depth)?;
                self.at += 1;
                let kept = self.text.len();
                while self.next_key()?.is_some() {
                    self.value(depth + 1)?;
                    self.text.truncate(kept);
                    self.end_pair()?;
                }
                Ok(Value::Literal(self.span(start, self.at, false)?))
            }
            Some(b'[') => {
                self.check_depth(depth)?;
                self.at += 1;
                self.array(depth)?;
                Ok(Value::Literal(self.span(start, self.at, false)?))
            }
            _ => self.literal(),
        }
    }

    fn check_depth(&self, depth: usize) -> Result<(), HeaderError> {
        if depth >= MAX_DEPTH { self.fail() } else { Ok(()) }
    }

    fn array(&mut self, depth: usize) -> Result<(), HeaderError> {
        let kept = self.text.len();
        loop {
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(());
                }
                _ => {
                    self.value(depth + 1)?;
                    self.text.truncate(kept);
                }
            }
        }
    }

    fn literal(&mut self) -> Result<Value, HeaderError> {
        let start = self.at;
        while matches!(self.peek(), Some(byte) if byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
            self.at += 1;
        }
        let literal = &self.bytes[start..self.at];
        match literal {
            b"null" => Ok(Value::Null),
            _ if is_canonical_literal(literal) => Ok(Value::Literal(self.span(start, self.at, false)?)),
            [b'-' | b'+' | b'0'..=b'9', ..] => match integer_of(literal) {
                // A number with a fraction or an exponent, or with leading zeros: kept as it was written.
                Some(_) => Ok(Value::Literal(self.span(start, self.at, false)?)),
                None => self.fail(),
            },
            _ => {
                self.at = start;
                self.fail()
            }
        }
    }

    /// A top-level integer, also as a string, a boolean or a number with a fraction; null leaves the default.
    fn integer(&mut self, name: &'static str, target: &mut i32) -> Result<(), HeaderError> {
        let value = self.value(0)?;
        let bad = HeaderError::BadValue(name);
        match value {
            Value::Null => {}
            Value::String(span) => {
                let digits: String = self.text_of(span).chars().filter(|letter| *letter != ',').collect();
                if !matches!(digits.as_str(), "" | "null" | "NULL") {
                    *target = parse_i32(&digits).ok_or(bad)?;
                }
            }
            Value::Literal(span) => {
                *target = match self.text_of(span) {
                    "true" => 1,
                    "false" => 0,
                    digits => integer_of(digits.as_bytes()).and_then(|whole| i32::try_from(whole).ok()).ok_or(bad)?,
                }
            }
        }
        Ok(())
    }

    fn language(&mut self) -> Result<Option<Language>, HeaderError> {
        match self.value(0)? {
            Value::Null => Ok(None),
            Value::String(span) => Ok(Language::from_name(self.text_of(span))),
            Value::Literal(span) => {
                let ordinal = self.text_of(span).parse::<u8>().ok().and_then(Language::from_ordinal);
                ordinal.map(Some).ok_or(HeaderError::BadValue("language"))
            }
        }
    }

    /// The ext map, and whether it has null entries; `None` if the map itself is null. A null entry is recognised by its
    /// value being the very span of its key.
    fn ext_fields(&mut self, fields: &mut Vec<RawField>) -> Result<Option<bool>, HeaderError> {
        if self.bytes.get(self.at..).is_some_and(|rest| rest.starts_with(b"null")) {
            self.value(0)?;
            return Ok(None);
        }
        self.expect(b'{')?;
        let mut nulls = false;
        while let Some(key) = self.next_key()? {
            if fields.len() == MAX_EXT_FIELDS {
                return Err(HeaderError::TooManyFields);
            }
            let value = self.value(0)?.text();
            nulls |= value.is_none();
            fields.push(RawField { key, value: value.unwrap_or(key) });
            self.end_pair()?;
        }
        Ok(Some(nulls))
    }
}

/// The integer part of a number, saturating, or `None` if it is no number. Beyond JSON: a plus sign and leading zeros.
fn integer_of(literal: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(literal).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) {
        return None;
    }
    if let Some(whole) = parse_i64(text) {
        return Some(whole);
    }
    // Fractions, exponents and numbers beyond 64 bits; the precision suffices to tell what fits into 32.
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite())?;
    Some(number as i64)
}
