//! Writes whole frames into a caller's buffer, without any other allocation (`NettyEncoder`, `RemotingCommand`,
//! `RocketMQSerializable`).
//!
//! Top-level JSON keys come in Java's sorted order; values in `extFields` are always quoted strings, because C++ and Go
//! clients accept nothing else.

use crate::codes::response::SYSTEM_ERROR;
use crate::flags::RPC_RESPONSE;
use crate::frame::SerializeType;
use crate::language::Language;
use crate::text::write_decimal;
use crate::version;

/// Longest header: its length has 24 bits.
pub const MAX_HEADER_BYTES: usize = (1 << 24) - 1;

/// Longest ext key of a binary header.
const MAX_BINARY_KEY_BYTES: usize = 0x7fff;

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

    /// Appends one ext field (unless its key is too long for the binary form) whose value `write` appends: ASCII that needs no JSON escape, such as hexadecimal digits.
    pub fn field(&mut self, key: &str, write: impl FnOnce(&mut Vec<u8>)) {
        self.open_ext();
        // A binary key's length is an i16. Real keys are short names; only a relayed one could be longer.
        if self.serialize_type == SerializeType::RocketMq && key.len() > MAX_BINARY_KEY_BYTES {
            return;
        }
        match self.serialize_type {
            SerializeType::Json => {
                self.out.extend_from_slice(if self.ext_empty { b"\"" } else { b",\"" });
                write_json_escaped(self.out, key);
                self.out.extend_from_slice(b"\":\"");
                write(self.out);
                self.out.push(b'"');
            }
            SerializeType::RocketMq => {
                let [_, _, high, low] = length_bytes(key.len());
                self.out.extend_from_slice(&[high, low]);
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
    /// behind what is in the buffer. Where echoed text has made the header longer than [`MAX_HEADER_BYTES`], it is
    /// replaced by one without ext fields and remark, a response also becomes `SYSTEM_ERROR`.
    pub fn finish(mut self, body_length: usize) {
        self.end_header();
        if self.out.len() - self.start - 8 > MAX_HEADER_BYTES {
            self.out.truncate(self.start);
            let head = Head {
                code: if self.head.flag & RPC_RESPONSE != 0 { SYSTEM_ERROR } else { self.head.code },
                remark: Some("the header is too long"),
                ..self.head
            };
            self = FrameWriter::begin(self.out, self.serialize_type, head);
            self.end_header();
        }
        let FrameWriter { out, start, .. } = self;
        let header_length = out.len() - start - 8;
        let length = length_bytes(4 + header_length + body_length);
        let mut mark = length_bytes(header_length);
        mark[0] = self.serialize_type as u8;
        out[start..start + 4].copy_from_slice(&length);
        out[start + 4..start + 8].copy_from_slice(&mark);
    }

    fn end_header(&mut self) {
        let (out, head) = (&mut *self.out, &self.head);
        match self.serialize_type {
            SerializeType::Json => {
                if self.ext_open {
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
                let length = length_bytes(out.len() - self.ext_start);
                out[self.ext_start - 4..self.ext_start].copy_from_slice(&length);
            }
        }
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

/// How many bytes at the front, in steps of eight, are printable ASCII that needs no escape: nearly always all of them.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // Sets the high bit of each byte that is zero (and perhaps of one above such a byte, which does no harm here).
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let needs_care = |chunk: &[u8; 8]| {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let quote = zeros(word ^ (ONES * u64::from(b'"')));
        let backslash = zeros(word ^ (ONES * u64::from(b'\\')));
        let delete = zeros(word ^ (ONES * 0x7f));
        (control | quote | backslash | delete | (word & HIGH)) != 0
    };
    let chunks = bytes.as_chunks::<8>().0;
    8 * chunks.iter().position(needs_care).unwrap_or(chunks.len())
}

/// Appends the inside of a JSON string. Escapes what Java's encoder escapes: control characters of both ranges, `"`, `\`
/// and the two Unicode line separators.
pub fn write_json_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let plain = plain_prefix(bytes);
    out.extend_from_slice(&bytes[..plain]);
    let bytes = &bytes[plain..];
    let mut run = 0;
    for (index, byte) in bytes.iter().enumerate() {
        // C2 begins U+0080 to U+00BF, E2 begins U+2000 to U+2FFF.
        if *byte >= 0x20 && !matches!(byte, b'"' | b'\\' | 0x7f | 0xc2 | 0xe2) {
            continue;
        }
        let (escape, length) = match (byte, bytes.get(index + 1), bytes.get(index + 2)) {
            (b'"', ..) => (&b"\\\""[..], 1),
            (b'\\', ..) => (&b"\\\\"[..], 1),
            (b'\n', ..) => (&b"\\n"[..], 1),
            (b'\r', ..) => (&b"\\r"[..], 1),
            (b'\t', ..) => (&b"\\t"[..], 1),
            (0x08, ..) => (&b"\\b"[..], 1),
            (0x0c, ..) => (&b"\\f"[..], 1),
            (0xe2, Some(0x80), Some(0xa8)) => (&b"\\u2028"[..], 3),
            (0xe2, Some(0x80), Some(0xa9)) => (&b"\\u2029"[..], 3),
            (0xc2, Some(0x80..=0x9f), _) => (&b"\\u00"[..], 2),
            (0xc2 | 0xe2, ..) => continue,
            _ => (&b"\\u00"[..], 1),
        };
        out.extend_from_slice(&bytes[run..index]);
        out.extend_from_slice(escape);
        run = index + length;
        if escape == b"\\u00" {
            // The low byte of the code point is the last byte of its UTF-8 form, for these two ranges.
            crate::text::write_hex_upper(out, &bytes[run - 1..run]);
        }
    }
    out.extend_from_slice(&bytes[run..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use crate::frame::{MAX_FRAME_BYTES, Split, split_frame};

    /// Goal: text that a peer made us echo can never break the frame or the process. Method: a remark and a field that
    /// escape to more than a header holds, and a key beyond the binary limit.
    #[test]
    fn oversized_echoes_are_replaced() {
        let control = "\u{1}".repeat(3 << 20);
        for serialize_type in [SerializeType::Json, SerializeType::RocketMq] {
            let mut command =
                Command::error(17, control.clone()).with_ext("k", "\u{1}".repeat(14 << 20)).with_body(vec![5]);
            command.serialize_type = serialize_type;
            let bytes = command.encode();
            let Ok(Split::Frame { frame, .. }) = split_frame(&bytes, MAX_FRAME_BYTES) else { panic!("no frame") };
            let decoded = Command::decode(frame).unwrap();
            assert_eq!((decoded.code, decoded.ext_fields, decoded.body), (SYSTEM_ERROR, None, Some(vec![5])));
        }
        let mut command = Command::request(1).with_ext(&"k".repeat(0x8000), "x").with_ext("k", "v");
        command.serialize_type = SerializeType::RocketMq;
        let bytes = command.encode();
        let Ok(Split::Frame { frame, .. }) = split_frame(&bytes, MAX_FRAME_BYTES) else { panic!("no frame") };
        assert_eq!(Command::decode(frame).unwrap().ext_fields.unwrap().len(), 1);
    }
}
