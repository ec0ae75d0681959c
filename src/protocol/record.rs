//! The stored message record (`MessageExtEncoder`, `MessageDecoder`, `CommitLog.checkMessageAndReturnSize`).
//!
//! A record is prepared with everything but its queue offset, physical offset and store time, and bound later by patching
//! those three. Reading is bounded by the bytes given and never panics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use thiserror::Error;

use crate::flags::message::{BORN_HOST_V6, STORE_HOST_V6};
use crate::prefetch::{CACHE_LINE_BYTES, prefetch};
use crate::properties::{
    MAX_PROPERTIES_BYTES, PROPERTY_SEPARATOR, PropertySummary, find_property, index_keys, key_words, names,
    scan_properties,
};

pub use crate::hash::{index_key_hash, java_hash, java_hash_bytes, tags_code};

/// Magic of records with a one-byte topic length.
pub const MAGIC_V1: u32 = 0xDAA3_20A7;
/// Magic of records with a two-byte topic length.
pub const MAGIC_V2: u32 = 0xDAA3_20AB;
/// Magic of the blank at the end of a file.
pub const MAGIC_BLANK: u32 = 0xCBD4_3194;
/// Smallest record: V1, IPv4 hosts, nothing in it.
pub const MIN_RECORD_BYTES: usize = 91;
/// Bytes of a blank's mark. A record is appended only if this much stays free behind it.
pub const BLANK_BYTES: usize = 8;
/// Topics longer than this need a V2 record.
pub const MAX_V1_TOPIC_BYTES: usize = 127;
/// Longest topic that a broker stores, a retry topic. Source: TopicValidator and the limit of groups, 255.
pub const MAX_RETRY_TOPIC_BYTES: usize = 255;
/// The most that a record has besides its body: IPv6 hosts, two bytes of topic length, the longest topic and properties.
pub const MAX_RECORD_OVERHEAD_BYTES: usize =
    MIN_RECORD_BYTES + 2 * (HOST_V6_BYTES - HOST_V4_BYTES) + 1 + MAX_RETRY_TOPIC_BYTES + MAX_PROPERTIES_BYTES;

const QUEUE_OFFSET_AT: usize = 20;
const PHYSICAL_OFFSET_AT: usize = 28;
const SYS_FLAG_AT: usize = 36;
const BORN_TIMESTAMP_AT: usize = 40;
const BORN_HOST_AT: usize = 48;
const HOST_V4_BYTES: usize = 8;
const HOST_V6_BYTES: usize = 20;

/// Everything that a record is prepared from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordFields<'a> {
    /// Topic, at most 32767 bytes; validation upstream is stricter.
    pub topic: &'a str,
    /// Queue.
    pub queue_id: u32,
    /// Application flag.
    pub flag: i32,
    /// System flags. The two host bits are set here, from the addresses.
    pub sys_flag: i32,
    /// The producer's clock, ms since the Unix epoch.
    pub born_timestamp: i64,
    /// Address of the producer's connection.
    pub born_host: SocketAddr,
    /// Advertised address of this broker.
    pub store_host: SocketAddr,
    /// How often the message was consumed in vain.
    pub reconsume_times: i32,
    /// Physical offset of the half message, for commits.
    pub prepared_transaction_offset: i64,
    /// Body as it is stored, possibly compressed.
    pub body: &'a [u8],
    /// [`body_crc`] of the body, if it is known already.
    pub body_crc: Option<u32>,
    /// Property string, at most [`MAX_PROPERTIES_BYTES`].
    pub properties: &'a [u8],
}

impl<'a> RecordFields<'a> {
    /// A plain message, where nothing depends on who sent it and when: no flags, never consumed, no part of a transaction, born
    /// 1 ms after 1970 began at the broker's own host, which is 127.0.0.1 with RocketMQ's port.
    pub fn plain(topic: &'a str, queue_id: u32, body: &'a [u8], properties: &'a [u8]) -> RecordFields<'a> {
        let host = SocketAddr::from((Ipv4Addr::LOCALHOST, 10911));
        RecordFields {
            topic,
            queue_id,
            flag: 0,
            sys_flag: 0,
            born_timestamp: 1,
            born_host: host,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body,
            body_crc: None,
            properties,
        }
    }
}

/// CRC-32 (IEEE) of a body with the sign bit cleared, as records carry it.
pub fn body_crc(body: &[u8]) -> u32 {
    crc32fast::hash(body) & 0x7FFF_FFFF
}

fn host_length(host: SocketAddr) -> usize {
    if host.ip().to_canonical().is_ipv4() { HOST_V4_BYTES } else { HOST_V6_BYTES }
}

fn topic_length_bytes(topic: &str) -> usize {
    if topic.len() > MAX_V1_TOPIC_BYTES { 2 } else { 1 }
}

/// Whether a separator comes between a message's own properties and those that it shares with others.
fn needs_separator(own: &[u8], shared: &[u8]) -> bool {
    !shared.is_empty() && own.last().is_some_and(|last| *last != PROPERTY_SEPARATOR)
}

/// Bytes of a message's own properties with shared ones behind them.
pub fn joined_properties_length(own: &[u8], shared: &[u8]) -> usize {
    own.len() + usize::from(needs_separator(own, shared)) + shared.len()
}

/// Bytes of the record that these fields make.
pub fn record_length(fields: &RecordFields<'_>) -> usize {
    joined_record_length(fields, &[])
}

/// Bytes of the record that these fields make, with shared properties behind its own.
pub fn joined_record_length(fields: &RecordFields<'_>, shared_properties: &[u8]) -> usize {
    // The smallest record counts two IPv4 hosts and one byte of topic length.
    MIN_RECORD_BYTES - 2 * HOST_V4_BYTES - 1
        + host_length(fields.born_host)
        + host_length(fields.store_host)
        + topic_length_bytes(fields.topic)
        + fields.topic.len()
        + fields.body.len()
        + joined_properties_length(fields.properties, shared_properties)
}

struct Put<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Put<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.out[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    fn host(&mut self, host: SocketAddr) {
        match host.ip().to_canonical() {
            IpAddr::V4(address) => self.bytes(&address.octets()),
            IpAddr::V6(address) => self.bytes(&address.octets()),
        }
        self.bytes(&u32::from(host.port()).to_be_bytes());
    }
}

/// Writes a record that is not bound yet: queue offset, physical offset and store time are 0.
///
/// # Panics
/// `out` is not exactly [`record_length`] bytes long, or topic, properties or the whole exceed their length fields.
pub fn encode_record(fields: &RecordFields<'_>, out: &mut [u8]) {
    encode_joined_record(fields, &[], out);
}

/// As [`encode_record`], with properties behind the record's own that it shares with the other messages of its batch.
///
/// # Panics
/// As [`encode_record`], with [`joined_record_length`].
pub fn encode_joined_record(fields: &RecordFields<'_>, shared_properties: &[u8], out: &mut [u8]) {
    let total = joined_record_length(fields, shared_properties);
    assert_eq!(out.len(), total, "the buffer of a record has its exact length");
    let properties_length = joined_properties_length(fields.properties, shared_properties);
    assert!(properties_length <= MAX_PROPERTIES_BYTES, "properties fit into a record");
    let total = i32::try_from(total).expect("a record is shorter than 2 GiB");
    let mut sys_flag = fields.sys_flag & !(BORN_HOST_V6 | STORE_HOST_V6);
    if host_length(fields.born_host) == HOST_V6_BYTES {
        sys_flag |= BORN_HOST_V6;
    }
    if host_length(fields.store_host) == HOST_V6_BYTES {
        sys_flag |= STORE_HOST_V6;
    }
    let long_topic = topic_length_bytes(fields.topic) == 2;
    let topic_length = i16::try_from(fields.topic.len()).expect("a topic is shorter than 32 KiB").to_be_bytes();
    let body_length = u32::try_from(fields.body.len()).expect("the body is shorter than its record");
    let properties_length = u16::try_from(properties_length).expect("properties fit into a record");
    let mut put = Put { out, at: 0 };
    put.bytes(&total.to_be_bytes());
    put.bytes(&(if long_topic { MAGIC_V2 } else { MAGIC_V1 }).to_be_bytes());
    put.bytes(&fields.body_crc.unwrap_or_else(|| body_crc(fields.body)).to_be_bytes());
    put.bytes(&fields.queue_id.to_be_bytes());
    put.bytes(&fields.flag.to_be_bytes());
    put.bytes(&[0; 16]);
    put.bytes(&sys_flag.to_be_bytes());
    put.bytes(&fields.born_timestamp.to_be_bytes());
    put.host(fields.born_host);
    put.bytes(&[0; 8]);
    put.host(fields.store_host);
    put.bytes(&fields.reconsume_times.to_be_bytes());
    put.bytes(&fields.prepared_transaction_offset.to_be_bytes());
    put.bytes(&body_length.to_be_bytes());
    put.bytes(fields.body);
    put.bytes(if long_topic { &topic_length } else { &topic_length[1..] });
    put.bytes(fields.topic.as_bytes());
    put.bytes(&properties_length.to_be_bytes());
    put.bytes(fields.properties);
    if needs_separator(fields.properties, shared_properties) {
        put.bytes(&[PROPERTY_SEPARATOR]);
    }
    put.bytes(shared_properties);
    assert_eq!(put.at, put.out.len(), "a record fills its buffer");
}

/// Binds a prepared record to its place in queue and log. Prepared and rollback half messages take queue offset 0; that
/// is the caller's rule.
///
/// # Panics
/// `record` is shorter than a record.
pub fn bind_record(record: &mut [u8], queue_offset: i64, physical_offset: i64, store_timestamp: i64) {
    assert!(record.len() >= MIN_RECORD_BYTES, "only a whole record is bound");
    let born_v6 = i32_at(record, SYS_FLAG_AT) & BORN_HOST_V6 != 0;
    let store_timestamp_at = BORN_HOST_AT + if born_v6 { HOST_V6_BYTES } else { HOST_V4_BYTES };
    record[QUEUE_OFFSET_AT..QUEUE_OFFSET_AT + 8].copy_from_slice(&queue_offset.to_be_bytes());
    record[PHYSICAL_OFFSET_AT..PHYSICAL_OFFSET_AT + 8].copy_from_slice(&physical_offset.to_be_bytes());
    record[store_timestamp_at..store_timestamp_at + 8].copy_from_slice(&store_timestamp.to_be_bytes());
}

/// Writes the mark of a blank that covers the `remaining` bytes of a file, its own eight included.
///
/// # Panics
/// `out` is shorter than [`BLANK_BYTES`].
pub fn write_blank(out: &mut [u8], remaining: u32) {
    out[..4].copy_from_slice(&remaining.to_be_bytes());
    out[4..BLANK_BYTES].copy_from_slice(&MAGIC_BLANK.to_be_bytes());
}

/// Whether a parse computes the CRC of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrcCheck {
    /// Compute it and refuse a difference.
    Verify,
    /// Trust the bytes.
    Skip,
}

/// What is in the place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RecordError {
    /// The blank at the end of a file: go on in the next one.
    #[error("a blank of {remaining} bytes")]
    Blank {
        /// Bytes to the end of the file, from the start of the blank.
        remaining: u32,
    },
    /// The size is zero, or the bytes end before the record does.
    #[error("the data ends; {needed} bytes would be needed")]
    EndOfData {
        /// Bytes that would have to be there, 0 if the size is zero.
        needed: u32,
    },
    /// Something that is no record.
    #[error("the record is corrupt: {0}")]
    Corrupt(#[from] Corruption),
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Corruption {
    /// Neither a record's magic nor a blank's.
    #[error("magic {0:#010x} is unknown")]
    Magic(u32),
    /// The total size is below that of the smallest record, or negative.
    #[error("total size {0} is impossible")]
    TotalSize(i32),
    /// A blank's length is below 8, or negative.
    #[error("blank length {0} is impossible")]
    BlankLength(i32),
    /// The body length is negative or leads out of the record.
    #[error("body length {0} is impossible")]
    BodyLength(i32),
    /// The topic length is negative, as Java reads it, or leads out of the record.
    #[error("topic length {0} is impossible")]
    TopicLength(i16),
    /// The properties' length is negative or does not end where the record ends.
    #[error("properties length {0} does not end at the end of the record")]
    PropertiesLength(i16),
    /// The body's CRC differs.
    #[error("the body's CRC is {computed:#010x}, the record says {stored:#010x}")]
    BodyCrc {
        /// In the record.
        stored: u32,
        /// Of the body.
        computed: u32,
    },
    /// The topic is not UTF-8. No broker stores such a name.
    #[error("the topic is not UTF-8")]
    TopicNotUtf8,
}

/// A valid record inside somebody's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordView<'a> {
    bytes: &'a [u8],
    store_timestamp_at: usize,
    /// Position of `reconsumeTimes`, behind the store host.
    tail_at: usize,
    body: &'a [u8],
    topic: &'a str,
    properties: &'a [u8],
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, i32::from_be_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_be_bytes)
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, i64::from_be_bytes)
}

fn host_at(bytes: &[u8], at: usize, v6: bool) -> SocketAddr {
    let address_length = if v6 { 16 } else { 4 };
    let address = bytes.get(at..at + address_length).unwrap_or_default();
    let ip = if v6 {
        <[u8; 16]>::try_from(address).map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::from)
    } else {
        <[u8; 4]>::try_from(address).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::from)
    };
    // Java keeps ports in 32 bits; the upper half of a real one is zero.
    let [_, _, high, low] = u32_at(bytes, at + address_length).to_be_bytes();
    SocketAddr::new(ip, u16::from_be_bytes([high, low]))
}

/// How many records a scout is ahead of the reader: their lines arrive while those before them are read.
const SCOUTED_RECORDS: usize = 4;

/// How many records a scout looks beyond those that it has passed, for the next lengths to be there in time.
const GUESSED_RECORDS: usize = 3;

/// Bytes at the end of a record that a scout asks for at most. Properties are shorter, as a rule.
const SCOUTED_TAIL_BYTES: usize = 512;

/// Bytes at the beginning of a record that a scout asks for: all before the body, with IPv4 hosts.
const SCOUTED_HEAD_BYTES: usize = 88;

/// Runs ahead of who reads records that lie one behind the other, and asks the processor for the lines that reading them takes:
/// their beginnings and their ends. Reading waits for memory most of the time otherwise. Reads lengths only, and believes none
/// that leads out of the bytes.
#[derive(Debug)]
pub struct RecordScout<'a> {
    bytes: &'a [u8],
    /// Where the next record begins that was not scouted yet.
    at: usize,
}

impl<'a> RecordScout<'a> {
    /// Goes ahead from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> RecordScout<'a> {
        let mut scout = RecordScout { bytes, at: 0 };
        for _ in 0..SCOUTED_RECORDS {
            scout.pass_record(SCOUTED_TAIL_BYTES / 2);
        }
        scout
    }

    /// To be called for each record that was read: goes on by one. `tail_bytes` is how long everything behind the body was there.
    #[inline]
    pub fn pass_record(&mut self, tail_bytes: usize) {
        let length = usize::try_from(i32_at(self.bytes, self.at)).unwrap_or(0);
        if length < MIN_RECORD_BYTES || length > self.bytes.len().saturating_sub(self.at) {
            self.at = self.bytes.len();
            return;
        }
        self.at += length;
        let tail_bytes = tail_bytes.min(SCOUTED_TAIL_BYTES).min(length);
        let last = self.at + SCOUTED_HEAD_BYTES - 1;
        for line in (self.at - tail_bytes..last).step_by(CACHE_LINE_BYTES) {
            self.ask_for(line);
        }
        self.ask_for(last);
        // A length that is read soon: records are of one size, as a rule.
        self.ask_for(self.at + GUESSED_RECORDS * length);
    }

    #[inline]
    fn ask_for(&self, at: usize) {
        if let Some(byte) = self.bytes.get(at) {
            prefetch(byte);
        }
    }
}

impl<'a> RecordView<'a> {
    /// Reads the record at the start of `bytes`, which may go on behind it.
    ///
    /// # Errors
    /// What is there instead: the end, a blank, or damage. As in Java, the physical offset is not compared with anything
    /// and the CRC of an empty body is not checked.
    pub fn parse(bytes: &'a [u8], check: CrcCheck) -> Result<RecordView<'a>, RecordError> {
        let end_of_data = |needed| RecordError::EndOfData { needed };
        if bytes.len() < BLANK_BYTES {
            let zero = bytes.len() >= 4 && i32_at(bytes, 0) == 0;
            return Err(end_of_data(if zero { 0 } else { 8 }));
        }
        let total = i32_at(bytes, 0);
        let magic = u32_at(bytes, 4);
        if magic == MAGIC_BLANK {
            return Err(match u32::try_from(total) {
                Ok(remaining) if remaining >= 8 => RecordError::Blank { remaining },
                _ => Corruption::BlankLength(total).into(),
            });
        }
        if total == 0 {
            return Err(end_of_data(0));
        }
        if magic != MAGIC_V1 && magic != MAGIC_V2 {
            return Err(Corruption::Magic(magic).into());
        }
        let length = usize::try_from(total)
            .ok()
            .filter(|length| *length >= MIN_RECORD_BYTES)
            .ok_or(Corruption::TotalSize(total))?;
        let bytes = bytes.get(..length).ok_or(end_of_data(total.unsigned_abs()))?;
        let view = RecordView::parse_exact(bytes, magic == MAGIC_V2)?;
        if check == CrcCheck::Verify && !view.body.is_empty() {
            let (stored, computed) = (view.body_crc(), body_crc(view.body));
            if stored != computed {
                return Err(Corruption::BodyCrc { stored, computed }.into());
            }
        }
        Ok(view)
    }

    fn parse_exact(bytes: &'a [u8], long_topic: bool) -> Result<RecordView<'a>, Corruption> {
        let sys_flag = i32_at(bytes, SYS_FLAG_AT);
        let host = |v6| if v6 { HOST_V6_BYTES } else { HOST_V4_BYTES };
        let store_timestamp_at = BORN_HOST_AT + host(sys_flag & BORN_HOST_V6 != 0);
        let tail_at = store_timestamp_at + 8 + host(sys_flag & STORE_HOST_V6 != 0);
        // At most 104: beyond the smallest record when both hosts are IPv6.
        let (body_length, rest) = bytes
            .get(tail_at + 12..)
            .and_then(|rest| rest.split_first_chunk::<4>())
            .ok_or(Corruption::TotalSize(i32_at(bytes, 0)))?;
        let body_length = i32::from_be_bytes(*body_length);
        let (body, rest) = usize::try_from(body_length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(Corruption::BodyLength(body_length))?;
        let (topic_length, rest) = if long_topic {
            rest.split_first_chunk::<2>().map(|(length, rest)| (i16::from_be_bytes(*length), rest))
        } else {
            rest.split_first_chunk::<1>().map(|(length, rest)| (i16::from(i8::from_be_bytes(*length)), rest))
        }
        .ok_or(Corruption::BodyLength(body_length))?;
        let (topic, rest) = usize::try_from(topic_length)
            .ok()
            .and_then(|length| rest.split_at_checked(length))
            .ok_or(Corruption::TopicLength(topic_length))?;
        let (properties_length, properties) =
            rest.split_first_chunk::<2>().ok_or(Corruption::TopicLength(topic_length))?;
        let properties_length = i16::from_be_bytes(*properties_length);
        if usize::try_from(properties_length).ok() != Some(properties.len()) {
            return Err(Corruption::PropertiesLength(properties_length));
        }
        let topic = std::str::from_utf8(topic).map_err(|_| Corruption::TopicNotUtf8)?;
        Ok(RecordView { bytes, store_timestamp_at, tail_at, body, topic, properties })
    }

    /// Bytes behind the body: topic and properties with their lengths.
    pub fn tail_bytes(&self) -> usize {
        self.bytes.len() - self.tail_at - 16 - self.body.len()
    }

    /// The whole record.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the record.
    pub fn total_size(&self) -> usize {
        self.bytes.len()
    }

    /// [`MAGIC_V1`] or [`MAGIC_V2`].
    pub fn magic(&self) -> u32 {
        u32_at(self.bytes, 4)
    }

    /// The stored CRC of the body.
    pub fn body_crc(&self) -> u32 {
        u32_at(self.bytes, 8)
    }

    /// Queue; negative only in records that no broker wrote.
    pub fn queue_id(&self) -> i32 {
        i32_at(self.bytes, 12)
    }

    /// Application flag.
    pub fn flag(&self) -> i32 {
        i32_at(self.bytes, 16)
    }

    /// Index in the queue.
    pub fn queue_offset(&self) -> i64 {
        i64_at(self.bytes, QUEUE_OFFSET_AT)
    }

    /// Position in the log, as the record states it.
    pub fn physical_offset(&self) -> i64 {
        i64_at(self.bytes, PHYSICAL_OFFSET_AT)
    }

    /// System flags.
    pub fn sys_flag(&self) -> i32 {
        i32_at(self.bytes, SYS_FLAG_AT)
    }

    /// The producer's clock, ms since the Unix epoch.
    pub fn born_timestamp(&self) -> i64 {
        i64_at(self.bytes, BORN_TIMESTAMP_AT)
    }

    /// Address of the producer.
    pub fn born_host(&self) -> SocketAddr {
        host_at(self.bytes, BORN_HOST_AT, self.sys_flag() & BORN_HOST_V6 != 0)
    }

    /// When the record was bound, ms since the Unix epoch.
    pub fn store_timestamp(&self) -> i64 {
        i64_at(self.bytes, self.store_timestamp_at)
    }

    /// Advertised address of the broker that stored it.
    pub fn store_host(&self) -> SocketAddr {
        host_at(self.bytes, self.store_timestamp_at + 8, self.sys_flag() & STORE_HOST_V6 != 0)
    }

    /// How often the message was consumed in vain.
    pub fn reconsume_times(&self) -> i32 {
        i32_at(self.bytes, self.tail_at)
    }

    /// Physical offset of the half message, for commits.
    pub fn prepared_transaction_offset(&self) -> i64 {
        i64_at(self.bytes, self.tail_at + 4)
    }

    /// Body as stored.
    pub fn body(&self) -> &'a [u8] {
        self.body
    }

    /// Topic.
    pub fn topic(&self) -> &'a str {
        self.topic
    }

    /// Property string.
    pub fn properties(&self) -> &'a [u8] {
        self.properties
    }

    /// What the broker looks at in the properties; ranges into [`RecordView::properties`].
    pub fn property_summary(&self) -> PropertySummary {
        scan_properties(self.properties)
    }

    /// `TAGS`, if present.
    pub fn tags(&self) -> Option<&'a [u8]> {
        find_property(self.properties, names::TAGS)
    }

    /// `KEYS`, separated by spaces, if present.
    pub fn keys(&self) -> Option<&'a [u8]> {
        find_property(self.properties, names::KEYS)
    }

    /// The words of [`RecordView::keys`].
    pub fn key_words(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        key_words(self.keys().unwrap_or_default())
    }

    /// `UNIQ_KEY`, if present.
    pub fn unique_key(&self) -> Option<&'a [u8]> {
        find_property(self.properties, names::UNIQ_KEY)
    }

    /// [`RecordView::unique_key`] and [`RecordView::keys`] in one pass.
    pub fn index_keys(&self) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
        index_keys(self.properties)
    }

    /// Code of the tags for a queue entry; 0 without tags.
    pub fn tags_code(&self) -> i64 {
        self.tags().map_or(0, tags_code)
    }
}

/// Records that lie one behind the other, as in the body of an answer. Ends behind the first one that is damaged or cut short.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    rest: &'a [u8],
    crc: CrcCheck,
}

impl<'a> Records<'a> {
    /// The records in these bytes.
    pub fn new(bytes: &'a [u8], crc: CrcCheck) -> Records<'a> {
        Records { rest: bytes, crc }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<RecordView<'a>, RecordError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let record = RecordView::parse(self.rest, self.crc);
        self.rest = match &record {
            Ok(record) => self.rest.get(record.total_size()..).unwrap_or_default(),
            Err(_) => &[],
        };
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields<'a>() -> RecordFields<'a> {
        RecordFields {
            topic: "TopicTest",
            queue_id: 2,
            flag: 7,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_000,
            born_host: "192.168.1.2:54321".parse().unwrap(),
            store_host: "127.0.0.1:10911".parse().unwrap(),
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: b"hello",
            body_crc: None,
            properties: b"TAGS\x01TagA\x02KEYS\x01K1\x02",
        }
    }

    fn encode(fields: &RecordFields<'_>) -> Vec<u8> {
        let mut record = vec![0xee; record_length(fields)];
        encode_record(fields, &mut record);
        record
    }

    /// Goal: a scout keeps its distance and never leaves the bytes. Method: records of many lengths, whole and cut off anywhere,
    /// and lengths that cannot be.
    #[test]
    fn scout_goes_from_record_to_record() {
        let records: Vec<_> =
            (0..20).map(|length| encode(&RecordFields { body: &[7; 20][..length], ..fields() })).collect();
        let bytes = records.concat();
        let mut ends = vec![0];
        ends.extend(records.iter().scan(0, |end, record| {
            *end += record.len();
            Some(*end)
        }));
        for cut in [0, 1, 3, 4, 90, 91, 500, 1000, bytes.len()] {
            let bytes = &bytes[..cut];
            let mut scout = RecordScout::new(bytes);
            for end in &ends[SCOUTED_RECORDS..] {
                assert_eq!(scout.at, if *end <= cut { *end } else { cut }, "of {cut}");
                scout.pass_record(40);
            }
        }
        for length in [0, 4, 90, -1, i32::MAX] {
            let mut bytes = bytes.clone();
            bytes[..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(RecordScout::new(&bytes).at, bytes.len(), "{length}");
        }
        let view = RecordView::parse(&bytes, CrcCheck::Verify).unwrap();
        assert_eq!(view.tail_bytes(), 1 + view.topic().len() + 2 + view.properties().len());
    }

    /// Goal: bytes and accessors are Java's. Method: a record captured from Java is made, bound and read back.
    #[test]
    fn record_is_byte_equal() {
        let mut record = encode(&fields());
        bind_record(&mut record, 100, 4096, 1_700_000_000_123);
        let mut expected = Vec::new();
        crate::text::write_hex_upper(&mut expected, &record);
        let captured = "0000007BDAA320A73610A6860000000200000007000000000000006400000000000010000000000\
            00000018BCFE56800C0A801020000D4310000018BCFE5687B7F00000100002A9F0000000000000000000000000000000568656C6C6F\
            09546F7069635465737400125441475301546167410\
            24B455953014B3102";
        assert_eq!(String::from_utf8(expected).unwrap(), captured);
        let view = RecordView::parse(&record, CrcCheck::Verify).unwrap();
        assert_eq!(
            (view.queue_offset(), view.physical_offset(), view.store_timestamp()),
            (100, 4096, 1_700_000_000_123)
        );
        assert_eq!((view.born_host(), view.store_host()), (fields().born_host, fields().store_host));
        assert_eq!((view.topic(), view.body(), view.queue_id(), view.flag()), ("TopicTest", &b"hello"[..], 2, 7));
        assert_eq!((view.tags_code(), view.keys(), view.unique_key()), (2_598_919, Some(&b"K1"[..]), None));
    }

    /// Goal: the bound of what a record has besides its body is the exact one. Method: the longest of everything.
    #[test]
    fn the_overhead_is_bounded() {
        let topic = "t".repeat(MAX_RETRY_TOPIC_BYTES);
        let properties = vec![b'p'; MAX_PROPERTIES_BYTES];
        let host = "[2001:db8::1]:10911".parse().unwrap();
        let longest =
            RecordFields { topic: &topic, born_host: host, store_host: host, properties: &properties, ..fields() };
        assert_eq!(record_length(&longest), longest.body.len() + MAX_RECORD_OVERHEAD_BYTES);
    }

    /// Goal: IPv6 hosts and long topics choose the other layout. Method: a record with both, read back.
    #[test]
    fn v6_hosts_and_long_topics() {
        let topic = format!("%RETRY%{}", "g".repeat(130));
        let mut with = fields();
        with.topic = &topic;
        with.born_host = "[2001:db8::2]:1".parse().unwrap();
        with.store_host = "[2001:db8::1]:10911".parse().unwrap();
        let mut record = encode(&with);
        assert_eq!(record.len(), 91 + 24 + 1 + 137 + 5 + 18);
        bind_record(&mut record, 1, 2, 3);
        let view = RecordView::parse(&record, CrcCheck::Verify).unwrap();
        assert_eq!((view.magic(), view.sys_flag()), (MAGIC_V2, 0x30));
        assert_eq!((view.born_host(), view.store_host(), view.store_timestamp()), (with.born_host, with.store_host, 3));
        assert_eq!(view.topic(), topic);
    }

    /// Goal: each kind of non-record is told apart. Method: a valid record with one thing changed at a time.
    #[test]
    fn damage_is_named() {
        let record = encode(&fields());
        let parse =
            |bytes: &[u8]| RecordView::parse(bytes, CrcCheck::Verify).map(|view| view.total_size()).unwrap_err();
        let changed = |at: usize, byte: u8| {
            let mut copy = record.clone();
            copy[at] = byte;
            RecordView::parse(&copy, CrcCheck::Verify).map(|view| view.total_size()).unwrap_err()
        };
        for end in 8..record.len() {
            assert_eq!(parse(&record[..end]), RecordError::EndOfData { needed: 123 });
        }
        assert_eq!(parse(&[0; 100]), RecordError::EndOfData { needed: 0 });
        assert_eq!(parse(&[]), RecordError::EndOfData { needed: 8 });
        assert_eq!(changed(4, 0), Corruption::Magic(0x00a3_20a7).into());
        assert_eq!(changed(3, 90), Corruption::TotalSize(90).into());
        assert_eq!(changed(0, 0x80), Corruption::TotalSize(i32::MIN + 123).into());
        assert_eq!(changed(84, 0x80), Corruption::BodyLength(i32::MIN + 5).into());
        assert_eq!(changed(93, 0x80), Corruption::TopicLength(-128).into());
        assert_eq!(changed(104, 17), Corruption::PropertiesLength(17).into());
        assert!(matches!(changed(88, b'H'), RecordError::Corrupt(Corruption::BodyCrc { .. })));
        assert_eq!(changed(94, 0xff), Corruption::TopicNotUtf8.into());
        let mut blank = [0u8; 8];
        write_blank(&mut blank, 4711);
        assert_eq!(parse(&blank), RecordError::Blank { remaining: 4711 });
        write_blank(&mut blank, 7);
        assert_eq!(parse(&blank), Corruption::BlankLength(7).into());
    }
}
