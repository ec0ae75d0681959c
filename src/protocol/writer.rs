//! Writes whole frames into a caller's buffer, without any other allocation (`NettyEncoder`, `RemotingCommand`,
//! `RocketMQSerializable`).
//!
//! Top-level JSON keys come in Java's sorted order; values in `extFields` are always quoted strings, because C++ and Go
//! clients accept nothing else.

use crate::flags::RPC_RESPONSE;
use crate::frame::SerializeType;
use crate::language::Language;
use crate::text::write_decimal;
use crate::version;

/// The fixed part of a header.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Request or response code. Binary headers carry its low 16 bits only, as Java's do.
    pub code: i32,
    /// Left out of JSON headers when `None`, written as `OTHER` in binary ones.
    pub language: Option<Language>,
    /// Version of the sender (`MQVersion`).
    pub version: i32,
    /// Request id.
    pub opaque: i32,
    /// Command flags.
    pub flag: i32,
    /// Free text, for errors.
    pub remark: Option<&'a str>,
}

impl<'a> Head<'a> {
    /// Head of a response of this implementation.
    pub fn response(code: i32, opaque: i32, remark: Option<&'a str>) -> Head<'a> {
        Head { code, language: Some(Language::Java), version: version::CURRENT, opaque, flag: RPC_RESPONSE, remark }
    }
}

/// A frame being appended to a buffer. Nothing is valid until [`FrameWriter::finish`].
#[derive(Debug)]
pub struct FrameWriter<'a> {
    out: &'a mut Vec<u8>,
    head: Head<'a>,
    serialize_type: SerializeType,
    start: usize,
    /// Start of the binary ext block (behind its length), or 0.
    ext_start: usize,
    ext_open: bool,
    ext_empty: bool,
}

impl<'a> FrameWriter<'a> {
    /// Starts a frame at the end of `out`.
    pub fn begin(out: &'a mut Vec<u8>, serialize_type: SerializeType, head: Head<'a>) -> FrameWriter<'a> {
        let start = out.len();
        out.extend_from_slice(&[0; 8]);
        let mut ext_start = 0;
        match serialize_type {
            SerializeType::Json => {
                out.extend_from_slice(b"{\"code\":");
                write_decimal(out, i64::from(head.code));
            }
            SerializeType::RocketMq => {
                out.extend_from_slice(&low_half(head.code));
                out.push(head.language.unwrap_or(Language::Other).ordinal());
                out.extend_from_slice(&low_half(head.version));
                out.extend_from_slice(&head.opaque.to_be_bytes());
                out.extend_from_slice(&head.flag.to_be_bytes());
                let remark = head.remark.unwrap_or("");
                out.extend_from_slice(&length_bytes(remark.len()));
                out.extend_from_slice(remark.as_bytes());
                out.extend_from_slice(&[0; 4]);
                ext_start = out.len();
            }
        }
        FrameWriter { out, head, serialize_type, start, ext_start, ext_open: false, ext_empty: true }
    }

    /// Makes `extFields` present even if no field follows.
    pub fn open_ext(&mut self) {
        if !self.ext_open {
            self.ext_open = true;
            if self.serialize_type == SerializeType::Json {
                self.out.extend_from_slice(b",\"extFields\":{");
            }
        }
    }

    /// Appends one ext field of any text.
    pub fn text(&mut self, key: &str, value: &str) {
        let json = self.serialize_type == SerializeType::Json;
        self.field(
            key,
            |out| if json { write_json_escaped(out, value) } else { out.extend_from_slice(value.as_bytes()) },
        );
    }

    /// Appends one ext field that is a number.
    pub fn number(&mut self, key: &str, value: i64) {
        self.field(key, |out| write_decimal(out, value));
    }

    /// Appends one ext field that is a boolean.
    pub fn boolean(&mut self, key: &str, value: bool) {
        self.field(key, |out| out.extend_from_slice(if value { b"true" } else { b"false" }));
    }

    /// Appends one ext field whose value `write` appends: ASCII that needs no JSON escape, such as hexadecimal digits.
    pub fn field(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.open_ext();
        match self.serialize_type {
            SerializeType::Json => {
                self.out.extend_from_slice(if self.ext_empty { b"\"" } else { b",\"" });
                write_json_escaped(self.out, key);
                self.out.extend_from_slice(b"\":\"");
                write(self.out);
                self.out.push(b'"');
            }
            SerializeType::RocketMq => {
                let key_length = u16::try_from(key.len()).ok().filter(|length| *length < 0x8000);
                self.out.extend_from_slice(&key_length.expect("ext keys are short names").to_be_bytes());
                self.out.extend_from_slice(key.as_bytes());
                let at = self.out.len();
                self.out.extend_from_slice(&[0; 4]);
                write(self.out);
                let length = length_bytes(self.out.len() - at - 4);
                self.out[at..at + 4].copy_from_slice(&length);
            }
        }
        self.ext_empty = false;
    }

    /// Ends the header and fills in the lengths for a body of `body_length` bytes, which the caller appends or sends
    /// behind what is in the buffer.
    pub fn finish(self, body_length: usize) {
        let FrameWriter { out, head, serialize_type, start, ext_start, ext_open, .. } = self;
        match serialize_type {
            SerializeType::Json => {
                if ext_open {
                    out.push(b'}');
                }
                out.extend_from_slice(b",\"flag\":");
                write_decimal(out, i64::from(head.flag));
                if let Some(language) = head.language {
                    out.extend_from_slice(b",\"language\":\"");
                    out.extend_from_slice(language.name().as_bytes());
                    out.push(b'"');
                }
                out.extend_from_slice(b",\"opaque\":");
                write_decimal(out, i64::from(head.opaque));
                if let Some(remark) = head.remark {
                    out.extend_from_slice(b",\"remark\":\"");
                    write_json_escaped(out, remark);
                    out.push(b'"');
                }
                out.extend_from_slice(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
                write_decimal(out, i64::from(head.version));
                out.push(b'}');
            }
            SerializeType::RocketMq => {
                let length = length_bytes(out.len() - ext_start);
                out[ext_start - 4..ext_start].copy_from_slice(&length);
            }
        }
        let header_length = out.len() - start - 8;
        assert!(header_length < 1 << 24, "a header's length has 24 bits");
        let length = length_bytes(4 + header_length + body_length);
        let mut mark = length_bytes(header_length);
        mark[0] = serialize_type as u8;
        out[start..start + 4].copy_from_slice(&length);
        out[start + 4..start + 8].copy_from_slice(&mark);
    }
}

fn length_bytes(length: usize) -> [u8; 4] {
    i32::try_from(length).expect("frames are shorter than 2 GiB").to_be_bytes()
}

/// The low 16 bits, big-endian: binary headers truncate codes and versions.
fn low_half(value: i32) -> [u8; 2] {
    let [_, _, high, low] = value.to_be_bytes();
    [high, low]
}

/// Appends the inside of a JSON string. Escapes what Java's encoder escapes: control characters, `"` and `\`.
pub fn write_json_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut run = 0;
    for (index, byte) in bytes.iter().enumerate() {
        if *byte >= 0x20 && *byte != b'"' && *byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[run..index]);
        run = index + 1;
        let short = match byte {
            b'"' => b'"',
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            _ => {
                out.extend_from_slice(b"\\u00");
                crate::text::write_hex_upper(out, &[*byte]);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.extend_from_slice(&bytes[run..]);
}
