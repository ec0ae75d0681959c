//! Request frames with holes: built once per queue, copied and patched for each send.
//!
//! What changes has a fixed width: the request id is drawn from ten-digit numbers, a time has thirteen digits until the
//! year 2286, and the unique key 32 hexadecimal digits.

use ringmq_protocol::batch::{BATCH_ENTRY_OVERHEAD_BYTES, BatchEntry, write_batch_entry};
use ringmq_protocol::codes::request::{PULL_MESSAGE, SEND_BATCH_MESSAGE, SEND_MESSAGE_V2};
use ringmq_protocol::flags::pull;
use ringmq_protocol::frame::SerializeType;
use ringmq_protocol::language::Language;
use ringmq_protocol::version;
use ringmq_protocol::writer::{FrameWriter, Head};

use crate::load::body::{BODY_HEADER_BYTES, BodyHeader, Filler};

/// Smallest request id of a send: all ids up to the largest have ten digits.
pub const FIRST_SEND_ID: i32 = 1_000_000_000;

const ID_MARK: i32 = 1_999_999_999;
const TIME_MARK: i64 = 1_234_567_890_123;
const KEY_MARK: &str = "fedcba9876543210FEDCBA9876543210";

/// Group of all producers.
pub const PRODUCER_GROUP: &str = "ringmq-bench";

/// The header of a send to one queue.
#[derive(Debug, Clone)]
pub struct SendTemplate {
    bytes: Vec<u8>,
    id_at: usize,
    is_binary: bool,
    time_at: usize,
    key_at: usize,
}

/// What a template is made for.
#[derive(Debug, Clone, Copy)]
pub struct SendShape<'a> {
    /// Form of the header.
    pub header: SerializeType,
    /// Topic.
    pub topic: &'a str,
    /// Queue of the topic.
    pub queue_id: u32,
    /// Tag, if any.
    pub tag: Option<&'a str>,
    /// Whether the body is a batch.
    pub is_batch: bool,
    /// Bytes of the frame's body.
    pub body_bytes: usize,
}

fn find(bytes: &[u8], mark: &[u8]) -> usize {
    bytes.windows(mark.len()).position(|window| window == mark).unwrap_or_else(|| panic!("a template has its marks"))
}

impl SendTemplate {
    /// Builds a template.
    pub fn new(shape: &SendShape<'_>) -> SendTemplate {
        let tag = shape.tag.map(|tag| format!("TAGS\u{1}{tag}\u{2}")).unwrap_or_default();
        let properties = format!("{tag}UNIQ_KEY\u{1}{KEY_MARK}\u{2}WAIT\u{1}true\u{2}");
        let head = Head {
            code: if shape.is_batch { SEND_BATCH_MESSAGE } else { SEND_MESSAGE_V2 },
            language: Some(Language::Java),
            version: version::CURRENT,
            opaque: ID_MARK,
            flag: 0,
            remark: None,
        };
        let mut bytes = Vec::new();
        let mut writer = FrameWriter::begin(&mut bytes, shape.header, head);
        writer.text("a", PRODUCER_GROUP);
        writer.text("b", shape.topic);
        writer.text("c", "TBW102");
        writer.number("d", 4);
        writer.number("e", i64::from(shape.queue_id));
        writer.number("f", 0);
        writer.number("g", TIME_MARK);
        writer.number("h", 0);
        writer.text("i", &properties);
        writer.number("j", 0);
        writer.boolean("k", false);
        writer.boolean("m", shape.is_batch);
        writer.finish(shape.body_bytes);
        let is_binary = shape.header == SerializeType::RocketMq;
        let id_at =
            if is_binary { find(&bytes, &ID_MARK.to_be_bytes()) } else { find(&bytes, ID_MARK.to_string().as_bytes()) };
        SendTemplate {
            id_at,
            is_binary,
            time_at: find(&bytes, TIME_MARK.to_string().as_bytes()),
            key_at: find(&bytes, KEY_MARK.as_bytes()),
            bytes,
        }
    }

    /// Bytes of the header with its lengths.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the header. Does not allocate if there is room.
    pub fn write(&self, id: i32, born_ms: u64, key: (u64, u64), out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let frame = &mut out[start..];
        if self.is_binary {
            frame[self.id_at..self.id_at + 4].copy_from_slice(&id.to_be_bytes());
        } else {
            decimal(&mut frame[self.id_at..self.id_at + 10], u64::from(id.unsigned_abs()));
        }
        decimal(&mut frame[self.time_at..self.time_at + 13], born_ms);
        hexadecimal(&mut frame[self.key_at..self.key_at + 16], key.0);
        hexadecimal(&mut frame[self.key_at + 16..self.key_at + 32], key.1);
    }
}

fn decimal(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn hexadecimal(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789ABCDEF"[(value & 15) as usize];
        value >>= 4;
    }
}

/// The body of a batch with holes: everything but the headers of its messages and their keys.
#[derive(Debug, Clone)]
pub struct BatchTemplate {
    bytes: Vec<u8>,
    entry_bytes: usize,
    body_at: usize,
    key_at: usize,
    count: u32,
}

impl BatchTemplate {
    /// A batch of `count` messages.
    pub fn new(filler: &Filler, count: u32) -> BatchTemplate {
        let nobody = BodyHeader { run_id: 0, producer: 0, sequence: 0, intended_ns: 0, open_distance: 0 };
        let mut body = Vec::new();
        filler.write(&nobody, &mut body);
        let properties = format!("UNIQ_KEY\u{1}{KEY_MARK}\u{2}WAIT\u{1}true\u{2}");
        let mut bytes = Vec::new();
        for _ in 0..count {
            write_batch_entry(&mut bytes, &BatchEntry { flag: 0, body: &body, properties: properties.as_bytes() });
        }
        let entry_bytes = BATCH_ENTRY_OVERHEAD_BYTES + body.len() + properties.len();
        BatchTemplate { key_at: find(&bytes, KEY_MARK.as_bytes()), bytes, entry_bytes, body_at: 20, count }
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }

    /// Appends the body of a batch whose first message has `first`; the others follow in number.
    pub fn write(&self, filler: &Filler, run_id: u64, first: &BodyHeader, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        for index in 0..self.count {
            let entry = &mut out[start + index as usize * self.entry_bytes..];
            let header = BodyHeader {
                sequence: first.sequence + u64::from(index),
                open_distance: first.open_distance.saturating_add(index),
                ..*first
            };
            filler.rewrite_header(&header, &mut entry[self.body_at..self.body_at + BODY_HEADER_BYTES]);
            hexadecimal(&mut entry[self.key_at..self.key_at + 16], run_id);
            hexadecimal(&mut entry[self.key_at + 16..self.key_at + 32], header.sequence);
        }
    }
}

/// What a pull asks for.
#[derive(Debug, Clone, Copy)]
pub struct PullShape<'a> {
    /// Form of the header.
    pub header: SerializeType,
    /// Consumer group.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Queue of the topic.
    pub queue_id: u32,
    /// First wanted message.
    pub offset: i64,
    /// Most messages.
    pub max_messages: u32,
    /// How long the broker may wait for the first one.
    pub hold_ms: u64,
    /// Tags or `*`.
    pub subscription: &'a str,
}

/// Appends a pull request. Does not allocate if there is room.
pub fn write_pull(shape: &PullShape<'_>, id: i32, out: &mut Vec<u8>) {
    let head = Head {
        code: PULL_MESSAGE,
        language: Some(Language::Java),
        version: version::CURRENT,
        opaque: id,
        flag: 0,
        remark: None,
    };
    let flags = pull::SUBSCRIPTION | if shape.hold_ms > 0 { pull::SUSPEND } else { 0 };
    let mut writer = FrameWriter::begin(out, shape.header, head);
    writer.text("consumerGroup", shape.group);
    writer.text("topic", shape.topic);
    writer.number("queueId", i64::from(shape.queue_id));
    writer.number("queueOffset", shape.offset);
    writer.number("maxMsgNums", i64::from(shape.max_messages));
    writer.number("sysFlag", i64::from(flags));
    writer.number("commitOffset", 0);
    writer.number("suspendTimeoutMillis", i64::try_from(shape.hold_ms).unwrap_or(i64::MAX));
    writer.text("subscription", shape.subscription);
    writer.number("subVersion", 0);
    writer.text("expressionType", "TAG");
    writer.finish(0);
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::batch::BatchReader;
    use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};
    use ringmq_protocol::header::HeaderDecoder;
    use ringmq_protocol::pull::PullHeader;
    use ringmq_protocol::send::SendHeader;

    use super::*;
    use crate::load::body::read_body;

    /// Goal: a broker reads what was meant, whatever is patched in. Method: decode patched frames of both header forms
    /// with the broker's decoder.
    #[test]
    fn patched_sends_decode() {
        for header in [SerializeType::Json, SerializeType::RocketMq] {
            let shape =
                SendShape { header, topic: "t-1", queue_id: 12, tag: Some("wanted"), is_batch: false, body_bytes: 3 };
            let template = SendTemplate::new(&shape);
            let mut out = vec![9; 5];
            template.write(1_234_567_891, 1_795_239_000_123, (0xabc, 0xffff_ffff_ffff_fffe), &mut out);
            out.extend_from_slice(b"abc");
            let Ok(Split::Frame { frame, length }) = split_frame(&out[5..], MAX_FRAME_BYTES) else { panic!("a frame") };
            assert_eq!((length, frame.body), (out.len() - 5, &b"abc"[..]));
            let mut decoder = HeaderDecoder::new();
            let decoded = decoder.decode_frame(&frame).unwrap();
            assert_eq!((decoded.code, decoded.opaque), (SEND_MESSAGE_V2, 1_234_567_891));
            let send = SendHeader::decode(decoded.code, &decoded).unwrap();
            assert_eq!((send.topic, send.queue_id, send.born_timestamp), ("t-1", 12, 1_795_239_000_123));
            assert_eq!(
                send.properties,
                "TAGS\u{1}wanted\u{2}UNIQ_KEY\u{1}0000000000000ABCFFFFFFFFFFFFFFFE\u{2}WAIT\u{1}true\u{2}"
            );
        }
    }

    /// Goal: the messages of a batch are whole and numbered. Method: read a patched batch.
    #[test]
    fn patched_batches_decode() {
        let filler = Filler::new(64);
        let template = BatchTemplate::new(&filler, 3);
        let first = BodyHeader { run_id: 5, producer: 1, sequence: 30, intended_ns: 9, open_distance: 6 };
        let mut out = vec![1];
        template.write(&filler, 5, &first, &mut out);
        let entries: Vec<_> = BatchReader::new(&out[1..]).map(Result::unwrap).collect();
        assert_eq!((entries.len(), template.length()), (3, out.len() - 1));
        let headers: Vec<_> = entries.iter().map(|entry| read_body(entry.body).unwrap()).collect();
        assert_eq!(headers[0], first);
        assert_eq!(headers[2], BodyHeader { sequence: 32, open_distance: 8, ..first });
        assert!(entries[2].properties.starts_with(b"UNIQ_KEY\x0100000000000000050000000000000020\x02"));
    }

    /// Goal: a broker reads the pull that was meant. Method: decode a held and a plain one.
    #[test]
    fn pulls_decode() {
        for (hold_ms, flags) in [(0, 4), (15_000, 6)] {
            let mut out = Vec::new();
            let shape = PullShape {
                header: SerializeType::Json,
                group: "g",
                topic: "t",
                queue_id: 3,
                offset: 1 << 40,
                max_messages: 32,
                hold_ms,
                subscription: "*",
            };
            write_pull(&shape, 7, &mut out);
            let Ok(Split::Frame { frame, .. }) = split_frame(&out, MAX_FRAME_BYTES) else { panic!("a frame") };
            let mut decoder = HeaderDecoder::new();
            let decoded = decoder.decode_frame(&frame).unwrap();
            let pull = PullHeader::decode(&decoded).unwrap();
            assert_eq!((pull.queue_offset, pull.sys_flag, pull.subscription), (1 << 40, flags, Some("*")));
        }
    }
}
