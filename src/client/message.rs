//! Messages as applications see them: what is sent, and how a stored body is shown. Pure.

use std::borrow::Cow;
use std::io::Read;
use std::net::IpAddr;

use flate2::read::ZlibDecoder;
use ringmq_protocol::batch::{BatchEntry, write_batch_entry};
use ringmq_protocol::flags::message::{
    COMPRESSED, COMPRESSION_LZ4, COMPRESSION_MASK, COMPRESSION_ZLIB, COMPRESSION_ZSTD,
};
use ringmq_protocol::message_id::{UniqueKeyParts, write_unique_key};
use ringmq_protocol::properties::{
    MAX_PROPERTIES_BYTES, NAME_VALUE_SEPARATOR, PROPERTY_SEPARATOR, names, write_property,
};

use super::error::{BodyError, MessageError};
use super::limits::MAX_UNPACKED_BYTES;

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// The tag by which consumers filter.
    pub tags: Option<String>,
    /// The keys by which tools find it; they must not contain spaces.
    pub keys: Vec<String>,
    /// Further properties, in order.
    pub properties: Vec<(String, String)>,
    /// What is sent; not empty.
    pub body: Vec<u8>,
}

impl Message {
    /// A message that is nothing but a body.
    pub fn new(body: impl Into<Vec<u8>>) -> Message {
        Message { body: body.into(), ..Message::default() }
    }

    /// The same with a tag.
    #[must_use]
    pub fn with_tag(self, tag: impl Into<String>) -> Message {
        Message { tags: Some(tag.into()), ..self }
    }

    /// The same with one more key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<String>) -> Message {
        self.keys.push(key.into());
        self
    }

    /// The same with one more property.
    #[must_use]
    pub fn with_property(mut self, name: impl Into<String>, value: impl Into<String>) -> Message {
        self.properties.push((name.into(), value.into()));
        self
    }

    /// The property string. `unique_key` is added unless it is empty or the message brings its own; `WAIT` is added as
    /// Java's producers do.
    ///
    /// # Errors
    /// A property that cannot be written down, or all of them together.
    pub fn property_string(&self, unique_key: &str) -> Result<String, MessageError> {
        let mut pairs: Vec<(&str, Cow<'_, str>)> = Vec::with_capacity(self.properties.len() + 4);
        if !self.keys.is_empty() {
            pairs.push((names::KEYS, Cow::Owned(self.keys.join(" "))));
        }
        if let Some(tags) = &self.tags {
            pairs.push((names::TAGS, Cow::Borrowed(tags)));
        }
        pairs.extend(self.properties.iter().map(|(name, value)| (name.as_str(), Cow::Borrowed(value.as_str()))));
        for (name, value) in [(names::UNIQ_KEY, unique_key), (names::WAIT, "true")] {
            if !value.is_empty() && self.properties.iter().all(|pair| pair.0 != name) {
                pairs.push((name, Cow::Borrowed(value)));
            }
        }
        let mut out = Vec::new();
        for (name, value) in pairs {
            let separator = |byte: u8| byte == NAME_VALUE_SEPARATOR || byte == PROPERTY_SEPARATOR;
            if name.is_empty() || value.is_empty() || name.bytes().chain(value.bytes()).any(separator) {
                return Err(MessageError::Property(name.to_owned()));
            }
            write_property(&mut out, name.as_bytes(), value.as_bytes());
        }
        if out.len() > MAX_PROPERTIES_BYTES {
            return Err(MessageError::Properties(out.len()));
        }
        // Concatenated strings and ASCII separators.
        Ok(String::from_utf8_lossy(&out).into_owned())
    }
}

/// The body of a batch send.
///
/// # Errors
/// No messages, or one that cannot be written down.
pub fn batch_body<'a>(entries: impl IntoIterator<Item = (&'a Message, String)>) -> Result<Vec<u8>, MessageError> {
    let mut out = Vec::new();
    for (message, unique_key) in entries {
        let properties = message.property_string(&unique_key)?;
        write_batch_entry(&mut out, &BatchEntry { flag: 0, body: &message.body, properties: properties.as_bytes() });
    }
    if out.is_empty() { Err(MessageError::EmptyBatch) } else { Ok(out) }
}

/// Makes the unique keys of one process's messages. Two makers of a process need different seeds.
#[derive(Debug, Clone)]
pub struct UniqueKeys {
    ip: IpAddr,
    process_constant: u32,
    counter: u16,
}

impl UniqueKeys {
    /// Keys that carry this address of the client.
    pub fn new(ip: IpAddr, seed: u32) -> UniqueKeys {
        UniqueKeys { ip, process_constant: seed, counter: 0 }
    }

    /// The next key. The time in it begins with the month, so that it fits; tools read it for orientation only.
    pub fn next(&mut self, now_ms: u64) -> String {
        const MONTH_MS: u64 = 31 * 24 * 3_600_000;
        let [low, high, ..] = std::process::id().to_le_bytes();
        let parts = UniqueKeyParts {
            ip: self.ip,
            process_id: u16::from_le_bytes([low, high]),
            process_constant: self.process_constant,
            month_ms: u32::try_from(now_ms % MONTH_MS).unwrap_or(0),
            counter: self.counter,
        };
        self.counter = self.counter.wrapping_add(1);
        let mut out = Vec::with_capacity(56);
        write_unique_key(&mut out, &parts);
        out.into_iter().map(char::from).collect()
    }
}

/// The body as the application sent it.
///
/// # Errors
/// It is compressed in another way than ZLIB, damaged, or too long.
pub fn unpack_body(sys_flag: i32, stored: &[u8]) -> Result<Cow<'_, [u8]>, BodyError> {
    if sys_flag & COMPRESSED == 0 {
        return Ok(Cow::Borrowed(stored));
    }
    match sys_flag & COMPRESSION_MASK {
        0 | COMPRESSION_ZLIB => {}
        COMPRESSION_LZ4 => return Err(BodyError::Compression("LZ4")),
        COMPRESSION_ZSTD => return Err(BodyError::Compression("ZSTD")),
        _ => return Err(BodyError::Compression("an unknown type")),
    }
    let mut out = Vec::new();
    let bound = u64::try_from(MAX_UNPACKED_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    ZlibDecoder::new(stored).take(bound).read_to_end(&mut out).map_err(|_| BodyError::Damaged)?;
    if out.len() > MAX_UNPACKED_BYTES { Err(BodyError::TooLong(MAX_UNPACKED_BYTES)) } else { Ok(Cow::Owned(out)) }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use ringmq_protocol::batch::BatchReader;
    use ringmq_protocol::properties::find_property;

    use super::*;

    fn zlib(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(5));
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    /// Goal: properties are written as producers do and bad ones are refused. Method: one message with everything, and
    /// one mistake each.
    #[test]
    fn property_strings() {
        let message = Message::new("b").with_tag("t").with_key("k1").with_key("k2").with_property("a", "ü");
        let text = message.property_string("U").expect("valid");
        assert_eq!(text, "KEYS\u{1}k1 k2\u{2}TAGS\u{1}t\u{2}a\u{1}ü\u{2}UNIQ_KEY\u{1}U\u{2}WAIT\u{1}true\u{2}");
        let own = Message::new("b").with_property("WAIT", "false").property_string("").expect("valid");
        assert_eq!(own, "WAIT\u{1}false\u{2}");
        for (name, value) in [("", "v"), ("n", ""), ("n\u{1}", "v"), ("n", "v\u{2}")] {
            let refused = Message::new("b").with_property(name, value).property_string("");
            assert_eq!(refused, Err(MessageError::Property(name.into())));
        }
        let long = Message::new("b").with_property("n", "v".repeat(32_767)).property_string("");
        assert!(matches!(long, Err(MessageError::Properties(_))), "{long:?}");
    }

    /// Goal: a batch holds its messages. Method: read back what was written.
    #[test]
    fn batches() {
        let messages = [Message::new("one").with_tag("t"), Message::new("two")];
        let body = batch_body(messages.iter().map(|message| (message, "U".to_string()))).expect("valid");
        let entries: Vec<_> = BatchReader::new(&body).map(|entry| entry.expect("whole")).collect();
        assert_eq!(entries.iter().map(|entry| entry.body).collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(find_property(entries[0].properties, names::TAGS), Some(&b"t"[..]));
        assert_eq!(batch_body([]), Err(MessageError::EmptyBatch));
    }

    /// Goal: keys have the shape that tools expect and differ. Method: two of them.
    #[test]
    fn unique_keys() {
        let mut keys = UniqueKeys::new(IpAddr::from([127, 0, 0, 1]), 7);
        let (first, second) = (keys.next(5), keys.next(5));
        assert_eq!((first.len(), &first[..8]), (32, "7F000001"));
        assert_ne!(first, second);
    }

    /// Goal: compressed bodies are shown as sent, within a bound. Method: ZLIB under both of its numbers, damage, other
    /// types, and a body that would grow too far.
    #[test]
    fn compressed_bodies() {
        let packed = zlib(b"hello");
        assert_eq!(unpack_body(0, &packed), Ok(Cow::Borrowed(&packed[..])));
        for flags in [COMPRESSED, COMPRESSED | COMPRESSION_ZLIB] {
            assert_eq!(unpack_body(flags, &packed).as_deref(), Ok(&b"hello"[..]));
            assert_eq!(unpack_body(flags, &packed[..4]), Err(BodyError::Damaged));
        }
        assert_eq!(unpack_body(COMPRESSED | COMPRESSION_LZ4, &packed), Err(BodyError::Compression("LZ4")));
        let bomb = zlib(&vec![0; MAX_UNPACKED_BYTES + 1]);
        assert_eq!(unpack_body(COMPRESSED, &bomb), Err(BodyError::TooLong(MAX_UNPACKED_BYTES)));
    }
}
