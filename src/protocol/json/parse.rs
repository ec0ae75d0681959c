//! The reader of the dialect: bytes to a tree of values.
//!
//! One pass, recursive with a bounded depth. Object keys become the compact JSON text of the object, numeric keys their
//! digits. Back references are resolved at the end, and only if there is one.

use super::limits::{MAX_DEPTH, MAX_NODES};
use super::{JsonError, Value, refs};
use serde_json::{Map, Number};

/// Parses one value of the fastjson dialect; white space may follow it, nothing else. A later member replaces an earlier
/// one of the same name, as in fastjson. Source: DefaultJSONParser, JSONLexerBase.
pub fn parse(bytes: &[u8]) -> Result<Value, JsonError> {
    let mut parser = Parser { bytes, at: 0, nodes: 0, saw_reference: false };
    parser.skip_space();
    let value = parser.value(0, true)?;
    parser.skip_space();
    if let Some(&byte) = bytes.get(parser.at) {
        return Err(JsonError::UnexpectedByte { byte, at: parser.at });
    }
    if parser.saw_reference { refs::resolve(&value) } else { Ok(value) }
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
    nodes: usize,
    saw_reference: bool,
}

impl Parser<'_> {
    fn peek(&self) -> Result<u8, JsonError> {
        self.bytes.get(self.at).copied().ok_or(JsonError::UnexpectedEnd { at: self.at })
    }

    fn unexpected<T>(&self) -> Result<T, JsonError> {
        Err(JsonError::UnexpectedByte { byte: self.peek()?, at: self.at })
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c | 0x08) = self.bytes.get(self.at) {
            self.at += 1;
        }
    }

    /// Skips the separators between members. fastjson accepts any number of commas there
    /// (AllowArbitraryCommas is on by default), which covers trailing ones.
    fn skip_commas(&mut self) -> bool {
        let mut seen = false;
        loop {
            self.skip_space();
            if self.bytes.get(self.at) != Some(&b',') {
                return seen;
            }
            seen = true;
            self.at += 1;
        }
    }

    /// `object_keys`: whether an object may be a key here. Not inside a key: each level would double the escapes of the
    /// text that stands for it.
    fn value(&mut self, depth: usize, object_keys: bool) -> Result<Value, JsonError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(JsonError::TooLarge);
        }
        if depth > MAX_DEPTH {
            return Err(JsonError::TooDeep);
        }
        match self.peek()? {
            b'{' => self.object(depth, object_keys),
            b'[' => self.array(depth, object_keys),
            b'"' | b'\'' => self.string().map(Value::String),
            b'-' | b'+' | b'.' | b'0'..=b'9' => self.number(),
            b't' => self.word(b"true", Value::Bool(true)),
            b'f' => self.word(b"false", Value::Bool(false)),
            b'n' => self.word(b"null", Value::Null),
            b'N' => self.word(b"NaN", Value::Null),
            b'u' => self.word(b"undefined", Value::Null),
            _ => self.unexpected(),
        }
    }

    fn word(&mut self, word: &[u8], value: Value) -> Result<Value, JsonError> {
        if !self.bytes[self.at..].starts_with(word) {
            return self.unexpected();
        }
        self.at += word.len();
        match self.bytes.get(self.at) {
            Some(&byte) if byte.is_ascii_alphanumeric() || byte == b'_' => self.unexpected(),
            _ => Ok(value),
        }
    }

    fn array(&mut self, depth: usize, object_keys: bool) -> Result<Value, JsonError> {
        self.at += 1;
        let mut items = Vec::new();
        let mut separated = true;
        loop {
            separated |= self.skip_commas();
            if self.peek()? == b']' {
                self.at += 1;
                return Ok(Value::Array(items));
            }
            if !separated {
                return self.unexpected();
            }
            items.push(self.value(depth + 1, object_keys)?);
            separated = false;
        }
    }

    fn object(&mut self, depth: usize, object_keys: bool) -> Result<Value, JsonError> {
        self.at += 1;
        let mut members = Map::new();
        let mut separated = true;
        loop {
            separated |= self.skip_commas();
            if self.peek()? == b'}' {
                self.at += 1;
                return Ok(Value::Object(members));
            }
            if !separated {
                return self.unexpected();
            }
            let key = self.key(depth, object_keys)?;
            self.skip_space();
            if self.peek()? != b':' {
                return self.unexpected();
            }
            self.at += 1;
            self.skip_space();
            let value = self.value(depth + 1, object_keys)?;
            self.saw_reference |= key == refs::REFERENCE_KEY;
            members.insert(key, value);
            separated = false;
        }
    }

    fn key(&mut self, depth: usize, object_keys: bool) -> Result<String, JsonError> {
        match self.peek()? {
            b'"' | b'\'' => self.string(),
            b'{' | b'[' if object_keys => {
                let key = self.value(depth + 1, false)?;
                Ok(key.to_string())
            }
            _ => self.bare_key(),
        }
    }

    /// An unquoted name or number: everything up to white space or a structural character.
    fn bare_key(&mut self) -> Result<String, JsonError> {
        let start = self.at;
        while let Some(&byte) = self.bytes.get(self.at) {
            let is_name =
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'-' | b'+' | b'.') || byte >= 0x80;
            if !is_name {
                break;
            }
            self.at += 1;
        }
        if start == self.at {
            return self.unexpected();
        }
        let text = &self.bytes[start..self.at];
        Ok(str::from_utf8(text).map_err(|_| JsonError::BadString { at: start })?.to_owned())
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        while let Some(b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9') = self.bytes.get(self.at) {
            self.at += 1;
        }
        let bad = JsonError::BadNumber { at: start };
        let text = str::from_utf8(&self.bytes[start..self.at]).map_err(|_| bad.clone())?;
        // A Java type suffix (WriteClassName mode); it carries no information here.
        if let Some(b'L' | b'S' | b'B' | b'F' | b'D') = self.bytes.get(self.at) {
            self.at += 1;
        }
        if let Ok(number) = text.parse::<i64>() {
            return Ok(Value::Number(number.into()));
        }
        if let Ok(number) = text.parse::<u64>() {
            return Ok(Value::Number(number.into()));
        }
        let number = text.parse::<f64>().map_err(|_| bad.clone())?;
        Number::from_f64(number).map(Value::Number).ok_or(bad)
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let quote = self.bytes[self.at];
        let start = self.at;
        self.at += 1;
        let mut text: Vec<u8> = Vec::new();
        loop {
            let rest = &self.bytes[self.at..];
            let plain = rest
                .iter()
                .position(|&byte| byte == quote || byte == b'\\')
                .ok_or(JsonError::UnexpectedEnd { at: self.bytes.len() })?;
            text.extend_from_slice(&rest[..plain]);
            self.at += plain + 1;
            if rest[plain] == quote {
                return String::from_utf8(text).map_err(|_| JsonError::BadString { at: start });
            }
            self.escape(&mut text)?;
        }
    }

    /// One escape; the backslash has been read. Source: JSONLexerBase.scanString.
    fn escape(&mut self, text: &mut Vec<u8>) -> Result<(), JsonError> {
        let byte = self.peek()?;
        self.at += 1;
        let plain = match byte {
            b'b' => 0x08,
            b'f' | b'F' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0b,
            b'"' | b'\'' | b'\\' | b'/' => byte,
            b'0'..=b'7' => byte - b'0',
            b'x' => {
                let code = self.hex(2)?;
                push_char(text, char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                return Ok(());
            }
            b'u' => {
                let unit = self.hex(4)?;
                let character = self.finish_utf16(unit)?;
                push_char(text, character);
                return Ok(());
            }
            _ => return Err(JsonError::BadString { at: self.at - 1 }),
        };
        text.push(plain);
        Ok(())
    }

    /// Joins a surrogate pair. A lone surrogate has no UTF-8 form; Java encodes it as `?`.
    fn finish_utf16(&mut self, unit: u32) -> Result<char, JsonError> {
        if let Some(character) = char::from_u32(unit) {
            return Ok(character);
        }
        let is_high = (0xd800..0xdc00).contains(&unit);
        if is_high && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex(4)?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or('?'));
            }
            self.at = before;
        }
        Ok('?')
    }

    fn hex(&mut self, digits: usize) -> Result<u32, JsonError> {
        let end = self.at + digits;
        let text = self.bytes.get(self.at..end).ok_or(JsonError::UnexpectedEnd { at: self.bytes.len() })?;
        let mut code = 0;
        for &digit in text {
            let value = char::from(digit).to_digit(16).ok_or(JsonError::BadString { at: self.at })?;
            code = code * 16 + value;
        }
        self.at = end;
        Ok(code)
    }
}

fn push_char(text: &mut Vec<u8>, character: char) {
    let mut buffer = [0; 4];
    text.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
}
