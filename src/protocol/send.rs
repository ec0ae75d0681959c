//! The send path's headers: the request in its long and its single-letter form (`SendMessageRequestHeader`,
//! `SendMessageRequestHeaderV2`) and the response (`SendMessageResponseHeader`), all without allocation.

use std::mem::MaybeUninit;

use crate::codes::request::{SEND_MESSAGE, SEND_REPLY_MESSAGE};
use crate::command::FieldError;
use crate::frame::SerializeType;
use crate::header::Header;
use crate::message_id::{MessageIdPrefix, write_message_ids};
use crate::text::{DECIMAL_CHARACTERS, decimal_at_end, hex_upper_of, parse_bool, parse_i32, parse_i64};
use crate::writer::{FrameWriter, Head};

/// A send request. Borrows the frame and the header decoder's scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendHeader<'a> {
    /// Group of the producer.
    pub producer_group: &'a str,
    /// Topic, unchecked.
    pub topic: &'a str,
    /// Topic whose configuration serves as the template of a new one.
    pub default_topic: &'a str,
    /// Queues wanted for a new topic.
    pub default_topic_queue_nums: i32,
    /// Queue, or negative for any.
    pub queue_id: i32,
    /// Message system flags.
    pub sys_flag: i32,
    /// The producer's clock, ms since the Unix epoch.
    pub born_timestamp: i64,
    /// Application flag, opaque.
    pub flag: i32,
    /// Property string; empty if absent.
    pub properties: &'a str,
    /// How often the message was consumed in vain; 0 if absent.
    pub reconsume_times: i32,
    /// Unit mode; false if absent.
    pub unit_mode: bool,
    /// The consumer's limit of `reconsume_times`.
    pub max_reconsume_times: Option<i32>,
    /// Whether the body is a batch. This field alone decides it, not the request code.
    pub batch: bool,
    /// Broker that the request is meant for.
    pub broker_name: Option<&'a str>,
}

#[derive(Default)]
struct Draft<'a> {
    producer_group: Option<&'a str>,
    topic: Option<&'a str>,
    default_topic: Option<&'a str>,
    default_topic_queue_nums: Option<&'a str>,
    queue_id: Option<&'a str>,
    sys_flag: Option<&'a str>,
    born_timestamp: Option<&'a str>,
    flag: Option<&'a str>,
    properties: Option<&'a str>,
    reconsume_times: Option<&'a str>,
    unit_mode: Option<&'a str>,
    max_reconsume_times: Option<&'a str>,
    batch: Option<&'a str>,
    broker_name: Option<&'a str>,
}

fn text<'a>(value: Option<&'a str>, name: &'static str) -> Result<&'a str, FieldError> {
    value.ok_or(FieldError::Missing(name))
}

fn int(value: Option<&str>, name: &'static str) -> Result<i32, FieldError> {
    parse_i32(text(value, name)?).ok_or(FieldError::BadNumber(name))
}

fn optional_int(value: Option<&str>, name: &'static str) -> Result<Option<i32>, FieldError> {
    value.map(|text| parse_i32(text).ok_or(FieldError::BadNumber(name))).transpose()
}

impl<'a> SendHeader<'a> {
    /// Decodes the form that belongs to a request code: long names for 10 and 324, single letters for 310, 320 and 325.
    ///
    /// # Errors
    /// A required field is missing, or a number is none. Named by the long name.
    pub fn decode(code: i32, header: &Header<'a>) -> Result<SendHeader<'a>, FieldError> {
        match code {
            SEND_MESSAGE | SEND_REPLY_MESSAGE => SendHeader::decode_long(header),
            _ => SendHeader::decode_short(header),
        }
    }

    /// Decodes the form with long names.
    ///
    /// # Errors
    /// As [`SendHeader::decode`].
    pub fn decode_long(header: &Header<'a>) -> Result<SendHeader<'a>, FieldError> {
        let mut draft = Draft::default();
        for (key, value) in header.fields() {
            let target = match key {
                "producerGroup" => &mut draft.producer_group,
                "topic" => &mut draft.topic,
                "defaultTopic" => &mut draft.default_topic,
                "defaultTopicQueueNums" => &mut draft.default_topic_queue_nums,
                "queueId" => &mut draft.queue_id,
                "sysFlag" => &mut draft.sys_flag,
                "bornTimestamp" => &mut draft.born_timestamp,
                "flag" => &mut draft.flag,
                "properties" => &mut draft.properties,
                "reconsumeTimes" => &mut draft.reconsume_times,
                "unitMode" => &mut draft.unit_mode,
                "maxReconsumeTimes" => &mut draft.max_reconsume_times,
                "batch" => &mut draft.batch,
                "bname" => &mut draft.broker_name,
                _ => continue,
            };
            *target = Some(value);
        }
        draft.finish()
    }

    /// Decodes the form with single letters.
    ///
    /// # Errors
    /// As [`SendHeader::decode`].
    pub fn decode_short(header: &Header<'a>) -> Result<SendHeader<'a>, FieldError> {
        let mut draft = Draft::default();
        for (letter, value) in header.letter_fields() {
            let target = match letter {
                b'a' => &mut draft.producer_group,
                b'b' => &mut draft.topic,
                b'c' => &mut draft.default_topic,
                b'd' => &mut draft.default_topic_queue_nums,
                b'e' => &mut draft.queue_id,
                b'f' => &mut draft.sys_flag,
                b'g' => &mut draft.born_timestamp,
                b'h' => &mut draft.flag,
                b'i' => &mut draft.properties,
                b'j' => &mut draft.reconsume_times,
                b'k' => &mut draft.unit_mode,
                b'l' => &mut draft.max_reconsume_times,
                b'm' => &mut draft.batch,
                b'n' => &mut draft.broker_name,
                _ => continue,
            };
            *target = Some(value);
        }
        draft.finish()
    }
}

impl<'a> Draft<'a> {
    fn finish(self) -> Result<SendHeader<'a>, FieldError> {
        Ok(SendHeader {
            producer_group: text(self.producer_group, "producerGroup")?,
            topic: text(self.topic, "topic")?,
            default_topic: text(self.default_topic, "defaultTopic")?,
            default_topic_queue_nums: int(self.default_topic_queue_nums, "defaultTopicQueueNums")?,
            queue_id: int(self.queue_id, "queueId")?,
            sys_flag: int(self.sys_flag, "sysFlag")?,
            born_timestamp: parse_i64(text(self.born_timestamp, "bornTimestamp")?)
                .ok_or(FieldError::BadNumber("bornTimestamp"))?,
            flag: int(self.flag, "flag")?,
            properties: self.properties.unwrap_or(""),
            reconsume_times: optional_int(self.reconsume_times, "reconsumeTimes")?.unwrap_or(0),
            unit_mode: self.unit_mode.is_some_and(parse_bool),
            max_reconsume_times: optional_int(self.max_reconsume_times, "maxReconsumeTimes")?,
            batch: self.batch.is_some_and(parse_bool),
            broker_name: self.broker_name,
        })
    }
}

/// The ids of what was stored: one physical offset for a single message, one per message for a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageIds<'a> {
    /// Of the advertised address of this broker, as in the records.
    pub prefix: &'a MessageIdPrefix,
    /// Commit log positions, in the order of the batch.
    pub physical_offsets: &'a [i64],
}

/// What a stored message's producer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendResult<'a> {
    /// Offset message ids.
    pub message_ids: MessageIds<'a>,
    /// Queue that the producer addressed, after the choice of a random one.
    pub queue_id: i32,
    /// Queue offset of the (first) message.
    pub queue_offset: i64,
    /// The message's UNIQ_KEY.
    pub transaction_id: Option<&'a str>,
    /// `MSG_REGION`.
    pub region_id: &'a str,
    /// `TRACE_ON`.
    pub trace_on: bool,
}

/// Appends the response of a stored message (codes 0, 10, 11, 12): a whole frame.
pub fn write_send_response(
    out: &mut Vec<u8>,
    serialize_type: SerializeType,
    opaque: i32,
    code: i32,
    remark: Option<&str>,
    result: &SendResult<'_>,
) {
    if serialize_type == SerializeType::Json && remark.is_none() && write_plain_response(out, opaque, code, result) {
        return;
    }
    write_general_response(out, serialize_type, opaque, code, remark, result);
}

fn write_general_response(
    out: &mut Vec<u8>,
    serialize_type: SerializeType,
    opaque: i32,
    code: i32,
    remark: Option<&str>,
    result: &SendResult<'_>,
) {
    let mut writer = FrameWriter::begin(out, serialize_type, Head::response(code, opaque, remark));
    let ids = &result.message_ids;
    writer.text("MSG_REGION", result.region_id);
    writer.boolean("TRACE_ON", result.trace_on);
    writer.field("msgId", |out| write_message_ids(out, ids.prefix, ids.physical_offsets));
    writer.number("queueId", i64::from(result.queue_id));
    writer.number("queueOffset", result.queue_offset);
    if let Some(transaction_id) = result.transaction_id {
        writer.text("transactionId", transaction_id);
    }
    writer.finish(0);
}

/// Room for the longest such answer: 230 bytes of names, two texts, an id and numbers.
const PLAIN_RESPONSE_BYTES: usize = 512;

/// Longest region and key that fit there.
const PLAIN_TEXT_BYTES: usize = 64;

/// Writes pieces one behind the other into space that is there already. Everything below `at` is initialised.
struct Line<'a> {
    space: &'a mut [MaybeUninit<u8>],
    at: usize,
}

impl Line<'_> {
    #[inline(always)]
    fn put(&mut self, piece: &[u8]) {
        self.space[self.at..self.at + piece.len()].write_copy_of_slice(piece);
        self.at += piece.len();
    }

    #[inline(always)]
    fn number(&mut self, value: i64) {
        let mut digits = [0; DECIMAL_CHARACTERS];
        let start = decimal_at_end(&mut digits, value);
        self.put(&digits[start..]);
    }
}

/// Whether a text is short and stands in JSON as it is.
fn is_plain(text: &str) -> bool {
    let is_odd = |byte: u8| !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\';
    text.len() <= PLAIN_TEXT_BYTES && !text.bytes().fold(false, |odd, byte| odd | is_odd(byte))
}

/// The answer that nearly every send gets, a JSON header for one message: as [`FrameWriter`] writes it, without looking at each
/// of its thirty pieces for room and escapes. False, and nothing is written, if it is not that answer.
fn write_plain_response(out: &mut Vec<u8>, opaque: i32, code: i32, result: &SendResult<'_>) -> bool {
    let [physical_offset] = result.message_ids.physical_offsets else { return false };
    if !is_plain(result.region_id) || !result.transaction_id.is_none_or(is_plain) {
        return false;
    }
    let begin = out.len();
    out.reserve(PLAIN_RESPONSE_BYTES);
    let mut line = Line { space: out.spare_capacity_mut(), at: 0 };
    // Both lengths, which are known at the end.
    line.put(&[0; 8]);
    line.put(b"{\"code\":");
    line.number(i64::from(code));
    line.put(b",\"extFields\":{\"MSG_REGION\":\"");
    line.put(result.region_id.as_bytes());
    line.put(if result.trace_on { b"\",\"TRACE_ON\":\"true" } else { b"\",\"TRACE_ON\":\"false" });
    line.put(b"\",\"msgId\":\"");
    line.put(result.message_ids.prefix.as_bytes());
    line.put(&hex_upper_of(*physical_offset));
    line.put(b"\",\"queueId\":\"");
    line.number(i64::from(result.queue_id));
    line.put(b"\",\"queueOffset\":\"");
    line.number(result.queue_offset);
    if let Some(transaction_id) = result.transaction_id {
        line.put(b"\",\"transactionId\":\"");
        line.put(transaction_id.as_bytes());
    }
    let head = Head::response(code, opaque, None);
    line.put(b"\"},\"flag\":");
    line.number(i64::from(head.flag));
    line.put(b",\"language\":\"JAVA\",\"opaque\":");
    line.number(i64::from(opaque));
    line.put(b",\"serializeTypeCurrentRPC\":\"JSON\",\"version\":");
    line.number(i64::from(head.version));
    line.put(b"}");
    let length = line.at;
    // SAFETY: `put` has filled the first `length` bytes behind the end, and has checked that they fit there.
    unsafe { out.set_len(begin + length) };
    // Both are below the size of the space; the upper byte of the second says JSON, which is 0.
    out[begin..begin + 4].copy_from_slice(&(length as u32 - 4).to_be_bytes());
    out[begin + 4..begin + 8].copy_from_slice(&(length as u32 - 8).to_be_bytes());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the short way writes what the general one does. Method: many answers, with and without each optional part and at
    /// the bounds of texts and numbers; those that are not plain must be left to the general way.
    #[test]
    fn the_short_way_writes_the_same() {
        let long = "x".repeat(PLAIN_TEXT_BYTES + 1);
        let keys =
            [None, Some(""), Some("7F0000010001AABBCCDD000000010000"), Some(&long[1..]), Some(&long), Some("\u{1}é\"")];
        let hosts = ["127.0.0.1:10911", "[::ffff:10.0.0.1]:1", "[2001:db8::1]:65535"];
        for (number, transaction_id) in keys.into_iter().enumerate() {
            for store_host in hosts {
                for (region_id, trace_on) in [("DefaultRegion", true), ("", false), (&long[1..], false), ("a\\b", true)]
                {
                    for value in [0, 7, 10, 99, 100, 12_345, i64::MAX, i64::MIN] {
                        let offsets = [value];
                        let prefix = MessageIdPrefix::of(store_host.parse().expect("an address"));
                        let message_ids = MessageIds { prefix: &prefix, physical_offsets: &offsets };
                        let queue_id = value as i32;
                        let result = SendResult {
                            message_ids,
                            queue_id,
                            queue_offset: value,
                            transaction_id,
                            region_id,
                            trace_on,
                        };
                        let mut general = b"before".to_vec();
                        write_general_response(&mut general, SerializeType::Json, 9 - queue_id, 11, None, &result);
                        let mut short = b"before".to_vec();
                        let is_plain = write_plain_response(&mut short, 9 - queue_id, 11, &result);
                        assert_eq!(is_plain, number < 4 && region_id != "a\\b");
                        assert_eq!(short, if is_plain { general } else { b"before".to_vec() });
                    }
                }
            }
        }
    }
}
