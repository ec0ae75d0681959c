//! An owned command: what everything off the hot path works with (`RemotingCommand`).

use std::collections::BTreeMap;
use std::fmt::Display;

use thiserror::Error;

pub use crate::frame::SerializeType;

use crate::flags::{RPC_ONEWAY, RPC_RESPONSE};
use crate::frame::Frame;
use crate::header::{HeaderDecoder, HeaderError};
use crate::language::Language;
use crate::text::{parse_bool, parse_i32, parse_i64};
use crate::version;
use crate::writer::{FrameWriter, Head};

/// A field of a request that is missing or has no valid value. Answered with `SYSTEM_ERROR` and this text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FieldError {
    /// A required field is missing.
    #[error("the field {0} is missing")]
    Missing(&'static str),
    /// A number is none, or is out of range.
    #[error("the field {0} is not a valid number")]
    BadNumber(&'static str),
}

/// A request or response with everything owned.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Command {
    /// Request or response code.
    pub code: i32,
    /// Language of the sender; `None` if it named an unknown one.
    pub language: Option<Language>,
    /// Version of the sender (`MQVersion`).
    pub version: i32,
    /// Request id, chosen by the requester, echoed by the response.
    pub opaque: i32,
    /// Command flags.
    pub flag: i32,
    /// Free text, mostly of errors.
    pub remark: Option<String>,
    /// Named text fields; `None` and an empty map are different things to Java.
    pub ext_fields: Option<BTreeMap<String, String>>,
    /// Body; never `Some` of nothing after decoding.
    pub body: Option<Vec<u8>>,
    /// How the header is or was written.
    pub serialize_type: SerializeType,
}

impl Command {
    /// A request with this implementation's language and version, and opaque 0.
    pub fn request(code: i32) -> Command {
        Command { code, language: Some(Language::Java), version: version::CURRENT, ..Command::default() }
    }

    /// A response to the request with this `opaque`.
    pub fn response(code: i32, opaque: i32) -> Command {
        Command { opaque, flag: RPC_RESPONSE, ..Command::request(code) }
    }

    /// A response with a remark; its opaque is filled in where the request is known.
    pub fn error(code: i32, remark: impl Into<String>) -> Command {
        Command { remark: Some(remark.into()), ..Command::response(code, 0) }
    }

    /// Adds an ext field.
    #[must_use]
    pub fn with_ext(mut self, key: &str, value: impl Display) -> Command {
        self.ext_fields.get_or_insert_default().insert(key.to_owned(), value.to_string());
        self
    }

    /// Sets the body; an empty one is absent.
    #[must_use]
    pub fn with_body(mut self, body: Vec<u8>) -> Command {
        self.body = (!body.is_empty()).then_some(body);
        self
    }

    /// Value of an ext field.
    pub fn ext(&self, key: &str) -> Option<&str> {
        self.ext_fields.as_ref()?.get(key).map(String::as_str)
    }

    /// A required text field.
    ///
    /// # Errors
    /// The field is missing.
    pub fn ext_text(&self, key: &'static str) -> Result<&str, FieldError> {
        self.ext(key).ok_or(FieldError::Missing(key))
    }

    /// A required `int` field.
    ///
    /// # Errors
    /// The field is missing or no 32-bit integer.
    pub fn ext_i32(&self, key: &'static str) -> Result<i32, FieldError> {
        parse_i32(self.ext_text(key)?).ok_or(FieldError::BadNumber(key))
    }

    /// A required `long` field.
    ///
    /// # Errors
    /// The field is missing or no 64-bit integer.
    pub fn ext_i64(&self, key: &'static str) -> Result<i64, FieldError> {
        parse_i64(self.ext_text(key)?).ok_or(FieldError::BadNumber(key))
    }

    /// An optional `int` field.
    ///
    /// # Errors
    /// The field is there and no 32-bit integer.
    pub fn optional_i32(&self, key: &'static str) -> Result<Option<i32>, FieldError> {
        self.ext(key).map(|text| parse_i32(text).ok_or(FieldError::BadNumber(key))).transpose()
    }

    /// An optional `long` field.
    ///
    /// # Errors
    /// The field is there and no 64-bit integer.
    pub fn optional_i64(&self, key: &'static str) -> Result<Option<i64>, FieldError> {
        self.ext(key).map(|text| parse_i64(text).ok_or(FieldError::BadNumber(key))).transpose()
    }

    /// An optional `boolean` field.
    pub fn optional_bool(&self, key: &str) -> Option<bool> {
        self.ext(key).map(parse_bool)
    }

    /// Whether this is a response.
    pub fn is_response(&self) -> bool {
        self.flag & RPC_RESPONSE != 0
    }

    /// Whether nobody waits for a response.
    pub fn is_oneway(&self) -> bool {
        self.flag & RPC_ONEWAY != 0
    }

    /// The whole frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(256 + self.body.as_ref().map_or(0, Vec::len));
        self.encode_into(&mut out);
        out
    }

    /// Appends the whole frame. Ext fields come in key order, null-free; the body follows.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        let body = self.body.as_deref().unwrap_or_default();
        let head = Head {
            code: self.code,
            language: self.language,
            version: self.version,
            opaque: self.opaque,
            flag: self.flag,
            remark: self.remark.as_deref(),
        };
        let mut writer = FrameWriter::begin(out, self.serialize_type, head);
        if let Some(fields) = &self.ext_fields {
            writer.open_ext();
            for (key, value) in fields {
                writer.text(key, value);
            }
        }
        writer.finish(body.len());
        out.extend_from_slice(body);
    }

    /// Decodes a frame.
    ///
    /// # Errors
    /// The header is malformed; the connection is to be closed.
    pub fn decode(frame: Frame<'_>) -> Result<Command, HeaderError> {
        let mut decoder = HeaderDecoder::new();
        Ok(decoder.decode_frame(&frame)?.to_command(frame.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codes::request::GET_ROUTEINFO_BY_TOPIC;
    use crate::frame::{MAX_FRAME_BYTES, Split, split_frame};

    fn decode(bytes: &[u8]) -> Command {
        match split_frame(bytes, MAX_FRAME_BYTES) {
            Ok(Split::Frame { frame, length }) if length == bytes.len() => Command::decode(frame).unwrap(),
            other => panic!("not one frame: {other:?}"),
        }
    }

    /// Goal: the bytes are Java's. Method: the JSON and binary forms of one route query are compared with captured ones.
    #[test]
    fn route_query_is_byte_equal() {
        let mut query =
            Command { opaque: 7, ..Command::request(GET_ROUTEINFO_BY_TOPIC) }.with_ext("topic", "TopicTest");
        let text = br#"{"code":105,"extFields":{"topic":"TopicTest"},"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}"#;
        let json = query.encode();
        assert_eq!(json[..8], [0, 0, 0, 0x87, 0, 0, 0, 0x83]);
        assert_eq!(&json[8..], text);
        assert_eq!(decode(&json), query);
        query.serialize_type = SerializeType::RocketMq;
        let binary = query.encode();
        let expected =
            b"\0\0\0\x2d\x01\0\0\x29\0\x69\0\x01\xdf\0\0\0\x07\0\0\0\0\0\0\0\0\0\0\0\x14\0\x05topic\0\0\0\x09TopicTest";
        assert_eq!(binary, expected);
        assert_eq!(decode(&binary), query);
    }

    /// Goal: typed fields follow Java and errors name the field. Method: one command with good, bad and missing fields.
    #[test]
    fn typed_fields() {
        let command = Command::response(0, 9).with_ext("a", 5).with_ext("b", "x").with_ext("c", "TRUE");
        assert_eq!(command.ext_i32("a"), Ok(5));
        assert_eq!(command.ext_i64("b"), Err(FieldError::BadNumber("b")));
        assert_eq!(command.ext_i64("z"), Err(FieldError::Missing("z")));
        assert_eq!((command.optional_bool("a"), command.optional_bool("c")), (Some(false), Some(true)));
        assert_eq!(command.optional_i32("z"), Ok(None));
        assert!(command.is_response() && !command.is_oneway());
    }
}
