//! Sending: the checks of a send request and the record it becomes (codes 10, 310, 320).
//!
//! Pure: takes the request, the serving picture and the clock, gives what the log has to store or the refusal. The order of the
//! checks is that of RocketMQ's `SendMessageProcessor` and the store's hooks.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::Arc;

use ringmq_protocol::batch::BatchReader;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::FieldError;
use ringmq_protocol::flags::{message, permission};
use ringmq_protocol::hash::tags_code;
use ringmq_protocol::header::Header;
use ringmq_protocol::message_id::{UniqueKeyParts, write_unique_key};
use ringmq_protocol::properties::{
    MAX_PROPERTIES_BYTES, PropertySummary, ValueRange, names, rewrite_properties, scan_properties,
};
use ringmq_protocol::record::{
    RecordFields, encode_joined_record, encode_record, joined_properties_length, joined_record_length, record_length,
};
use ringmq_protocol::send::SendHeader;
use ringmq_shards::clock::{Now, local_month_start};
use ringmq_shards::log::writer::Piece;

use super::names::{RETRY_PREFIX, check_topic, dead_letter_topic, is_sendable};
use super::snapshot::GroupEntry;
use crate::server::serving::{Serving, ServingTopic};

/// Longest stored name of a topic that is not a retry topic, bytes.
const MAX_TOPIC_BYTES: usize = 127;

/// Room that a whole record may take beyond `maxMessageSize` (RocketMQ `MessageExtEncoder`).
const RECORD_OVERHEAD_BYTES: usize = 64 << 10;

/// A refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Response code.
    pub code: i32,
    /// What the client reads.
    pub remark: Cow<'static, str>,
}

impl Refusal {
    /// A refusal with a text that says what was wrong.
    pub fn new(code: i32, remark: impl Into<Cow<'static, str>>) -> Self {
        Self { code, remark: remark.into() }
    }
}

/// Why a request does not go to the log now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotNow {
    /// It never will.
    Refused(Refusal),
    /// The topic does not exist, or the group of a retry topic: the control thread may create it.
    CreateTopic,
}

impl From<Refusal> for NotNow {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Where the request goes.
pub struct Target<'a> {
    /// Topic.
    pub topic: &'a Arc<ServingTopic>,
    /// Queue: the asked one, or a random one.
    pub queue_id: u32,
    /// It was sent to a retry topic and goes to the group's dead-letter topic instead.
    pub is_dead_letter: bool,
}

/// Version ordinal of 3.4.9: from it on a client's own limit of attempts counts instead of its group's.
const VERSION_WITH_MAX_RECONSUME_TIMES: i32 = 121;

/// The header of a send.
pub fn decode_header<'a>(header: &Header<'a>) -> Result<SendHeader<'a>, FieldError> {
    let mut request = SendHeader::decode(header.code, header)?;
    if header.version < VERSION_WITH_MAX_RECONSUME_TIMES {
        request.max_reconsume_times = None;
    }
    Ok(request)
}

/// Whether a message to the retry topic of a group is given up: it was consumed too often, or the group consumes in order, whose
/// consumers send back only what they give up. Source: SendMessageProcessor.handleRetryAndDLQ.
pub fn is_dead_letter(group: &GroupEntry, header: &SendHeader<'_>, steady_ms: u64) -> bool {
    let most = header.max_reconsume_times.unwrap_or(group.config.retry_max_times);
    header.reconsume_times > most || group.holds_locks(steady_ms)
}

/// Makes keys for messages that come without one, and random choices of queues.
#[derive(Debug)]
pub struct SendState {
    ip: IpAddr,
    process_constant: u32,
    counter: u16,
    random: u64,
    /// When the local month began and until when that holds, milliseconds since the epoch.
    month: Range<u64>,
    properties: Vec<u8>,
    pieces: Vec<Piece>,
}

impl SendState {
    /// State of one shard; `seed` makes shards differ.
    pub fn new(ip: IpAddr, seed: u64) -> Self {
        let process_constant = (seed as u32) ^ std::process::id();
        let random = seed | 1;
        Self { ip, process_constant, counter: 0, random, month: 0..0, properties: Vec::new(), pieces: Vec::new() }
    }

    /// Milliseconds since the local month began: tools search for a message from the time in its key on. The
    /// calendar is asked again every quarter of an hour, when a month may begin in some zone.
    fn month_ms(&mut self, now_ms: u64) -> u32 {
        if !self.month.contains(&now_ms) {
            let quarter_ms = 15 * 60 * 1_000;
            self.month = local_month_start(now_ms)..(now_ms / quarter_ms + 1) * quarter_ms;
        }
        u32::try_from(now_ms.saturating_sub(self.month.start)).unwrap_or(0)
    }

    /// xorshift64: spreads messages over queues, nothing more is asked of it.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Takes back the memory that a batch had borrowed for properties.
    pub fn give_back(&mut self, batch: Batch<'_>) {
        self.properties = batch.shared_properties;
    }

    /// Lengths and tags of the records that were prepared last.
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }
}

/// Steps 3 to 8 of the check order: time, permission, name, topic, queue.
pub fn check_target<'a>(
    state: &mut SendState,
    serving: &'a Serving,
    header: &SendHeader<'_>,
    now: Now,
) -> Result<Target<'a>, NotNow> {
    if i64::try_from(now.wall_ms).is_ok_and(|now_ms| now_ms < serving.accept_sends_from_ms) {
        let remark = format!("broker unable to service, until {} ms since 1970", serving.accept_sends_from_ms);
        return Err(Refusal::new(response::SYSTEM_ERROR, remark).into());
    }
    let topic = serving.topics.get(header.topic);
    if !permission::is_writeable(serving.broker_permission) && topic.is_some_and(|topic| topic.is_ordered) {
        let remark = format!("the broker[{}] sending message is forbidden", serving.identity.store_host);
        return Err(Refusal::new(response::NO_PERMISSION, remark).into());
    }
    let not_sendable = || {
        let remark = format!("Sending message to topic[{}] is forbidden.", header.topic);
        Refusal::new(response::NO_PERMISSION, remark)
    };
    let Some(topic) = topic else {
        check_topic(header.topic).map_err(|error| Refusal::new(response::INVALID_PARAMETER, error.to_string()))?;
        // Also those that come into being only when they are needed.
        return Err(if is_sendable(header.topic) { NotNow::CreateTopic } else { not_sendable().into() });
    };
    if topic.not_sendable {
        return Err(not_sendable().into());
    }
    let most = topic.read_queues.max(topic.write_queues);
    let queue_id = match u32::try_from(header.queue_id) {
        Ok(queue_id) if queue_id < most => queue_id,
        Ok(queue_id) => {
            let remark = format!(
                "request queueId[{queue_id}] is illegal, topic {} has {} read and {} write queues",
                topic.name, topic.read_queues, topic.write_queues
            );
            return Err(Refusal::new(response::INVALID_PARAMETER, remark).into());
        }
        Err(_) if topic.write_queues == 0 => {
            let remark = format!("topic {} has no write queue", topic.name);
            return Err(Refusal::new(response::INVALID_PARAMETER, remark).into());
        }
        Err(_) => (state.next_random() % u64::from(topic.write_queues)) as u32,
    };
    let mut target = Target { topic, queue_id, is_dead_letter: false };
    if !header.batch
        && let Some(group) = topic.name.strip_prefix(RETRY_PREFIX)
    {
        let Some(entry) = serving.groups.get(group) else { return Err(NotNow::CreateTopic) };
        if is_dead_letter(entry, header, now.steady_ms) {
            let dead = serving.topics.get(dead_letter_topic(group).as_str());
            let Some(topic) = dead else { return Err(NotNow::CreateTopic) };
            target = Target { topic, queue_id: 0, is_dead_letter: true };
        }
    }
    if let Some(attribute) = topic.unserved {
        // Only a RocketMQ broker can have made such a topic.
        let remark = format!("topics with {attribute} are not served yet by this broker; nothing was stored");
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, remark).into());
    }
    Ok(target)
}

fn is_true(value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| value.eq_ignore_ascii_case(b"true"))
}

/// The request's properties as they are stored: what cannot be read is dropped, and the broker's own are added.
fn store_properties(serving: &Serving, input: &[u8], is_dead_letter: bool, out: &mut Vec<u8>) -> PropertySummary {
    let identity = &serving.identity;
    let additions = [
        (names::MSG_REGION, identity.region_id.as_str()),
        (names::TRACE_ON, if identity.trace_on { "true" } else { "false" }),
        (names::CLUSTER, identity.cluster_name.as_str()),
        // What is given up is not delayed any more.
        (names::DELAY, "-1"),
    ];
    let additions = if is_dead_letter { &additions[..] } else { &additions[..3] };
    rewrite_properties(input, &[names::POP_CK], additions, out)
}

/// Whether a property asks for a feature that is not served: stored as an ordinary message it would be delivered at the wrong
/// time.
fn check_features(properties: &[u8], summary: &PropertySummary, sys_flag: i32) -> Result<(), Refusal> {
    let value = |range: Option<ValueRange>| range.map(|range| range.of(properties));
    if properties.contains(&0) {
        // Recovery takes a sector of zeros inside a record for a write that never arrived.
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, "properties must not contain the character U+0000"));
    }
    let feature = if value(summary.delay).is_some_and(|level| level != b"0" && !level.starts_with(b"-")) {
        Some("delayed messages (property DELAY) are")
    } else if summary.timer_delay_seconds.is_some()
        || summary.timer_delay_ms.is_some()
        || summary.timer_deliver_ms.is_some()
        || summary.timer_delete_unique_key.is_some()
    {
        Some("timer messages (properties TIMER_*) are")
    } else if is_true(value(summary.transaction_message))
        || message::transaction_type(sys_flag) != message::TRANSACTION_NOT
    {
        Some("transactional messages (property TRAN_MSG) are")
    } else if summary.inner_number.is_some() || sys_flag & (message::INNER_BATCH | message::NEED_UNWRAP) != 0 {
        Some("inner batches (property INNER_NUM) are")
    } else {
        None
    };
    match feature {
        Some(feature) => Err(Refusal::new(
            response::MESSAGE_ILLEGAL,
            format!("{feature} not served by this broker yet; nothing was stored"),
        )),
        None => Ok(()),
    }
}

fn too_large(what: &str, length: usize, limit: usize) -> Refusal {
    Refusal::new(
        response::MESSAGE_ILLEGAL,
        format!("the message is illegal: {what} of {length} bytes exceeds the limit of {limit}"),
    )
}

fn check_topic_length(topic: &str) -> Result<(), Refusal> {
    let limit = if topic.starts_with(RETRY_PREFIX) { 255 } else { MAX_TOPIC_BYTES };
    if topic.len() > limit { Err(too_large("the topic name", topic.len(), limit)) } else { Ok(()) }
}

/// A single message, ready to be encoded.
pub struct Single<'a> {
    fields: RecordFields<'a>,
    /// Bytes of the record.
    pub length: usize,
    /// Where the message's unique key is in its properties.
    unique_key: Range<usize>,
    /// The `WAIT` property.
    pub wait: bool,
    /// Tags code of the queue entry.
    pub tags_code: i64,
}

impl Single<'_> {
    /// Writes the record without its offsets.
    pub fn encode(&self, out: &mut [u8]) {
        encode_record(&self.fields, out);
    }

    /// The unique key, given or made.
    pub fn unique_key(&self) -> &[u8] {
        &self.fields.properties[self.unique_key.clone()]
    }
}

/// What besides the request decides about a message.
pub struct Circumstances {
    /// Who sends it.
    pub peer: SocketAddr,
    /// When.
    pub now: Now,
    /// The refusal of a store that takes no messages now. It comes before the store's other checks and behind all that would
    /// refuse the message at any time.
    pub unavailable: Option<Refusal>,
}

/// Steps 9 to 14 for a single message.
pub fn prepare_single<'a>(
    state: &'a mut SendState,
    serving: &'a Serving,
    target: &Target<'a>,
    header: &SendHeader<'_>,
    body: &'a [u8],
    circumstances: Circumstances,
) -> Result<Single<'a>, Refusal> {
    let Circumstances { peer, now, unavailable } = circumstances;
    let topic = target.topic;
    if body.is_empty() {
        // Java meets a null body and answers with its own failure; the code is the same, the text says what is wrong.
        return Err(Refusal::new(response::SYSTEM_ERROR, "the message has no body"));
    }
    state.properties.clear();
    let summary = store_properties(serving, header.properties.as_bytes(), target.is_dead_letter, &mut state.properties);
    check_features(&state.properties, &summary, header.sys_flag)?;
    unavailable.map_or(Ok(()), Err)?;
    if body.len() > serving.max_message_bytes {
        return Err(too_large("a body", body.len(), serving.max_message_bytes));
    }
    check_topic_length(&topic.name)?;
    let unique_key = match summary.unique_key {
        Some(range) => range.start as usize..range.end as usize,
        None => append_unique_key(state, now.wall_ms),
    };
    if state.properties.len() > MAX_PROPERTIES_BYTES {
        return Err(too_large("a property string", state.properties.len(), MAX_PROPERTIES_BYTES));
    }
    let properties: &'a [u8] = &state.properties;
    let value = |range: Option<ValueRange>| range.map(|range| range.of(properties));
    let sys_flag = if topic.is_multi_tag { header.sys_flag | message::MULTI_TAGS } else { header.sys_flag };
    let tags_code = value(summary.tags).map_or(0, tags_code);
    let wait = !value(summary.wait).is_some_and(|wait| wait.eq_ignore_ascii_case(b"false"));
    let fields = RecordFields {
        topic: &topic.name,
        queue_id: target.queue_id,
        flag: header.flag,
        sys_flag,
        born_timestamp: header.born_timestamp,
        born_host: peer,
        store_host: serving.identity.store_host,
        reconsume_times: header.reconsume_times,
        prepared_transaction_offset: 0,
        body,
        body_crc: None,
        properties,
    };
    let length = record_length(&fields);
    let limit = serving.max_message_bytes + RECORD_OVERHEAD_BYTES;
    if length > limit {
        return Err(too_large("a record", length, limit));
    }
    Ok(Single { fields, length, unique_key, wait, tags_code })
}

fn append_unique_key(state: &mut SendState, now_ms: u64) -> Range<usize> {
    let parts = UniqueKeyParts {
        ip: state.ip,
        process_id: std::process::id() as u16,
        process_constant: state.process_constant,
        month_ms: state.month_ms(now_ms),
        counter: state.counter,
    };
    state.counter = state.counter.wrapping_add(1);
    state.properties.extend_from_slice(names::UNIQ_KEY.as_bytes());
    state.properties.push(1);
    let start = state.properties.len();
    write_unique_key(&mut state.properties, &parts);
    let end = state.properties.len();
    state.properties.push(2);
    start..end
}

/// A batch, ready to be encoded: every message becomes a record of its own.
pub struct Batch<'a> {
    serving: &'a Serving,
    topic: &'a ServingTopic,
    queue_id: u32,
    sys_flag: i32,
    born_timestamp: i64,
    reconsume_times: i32,
    peer: SocketAddr,
    body: &'a [u8],
    /// The request's own properties, which Java stores behind those of each message.
    shared_properties: Vec<u8>,
    /// Bytes of all records.
    pub length: usize,
    /// The `WAIT` property of the request.
    pub wait: bool,
}

/// The batch path: the request's own checks, then one pass over its messages for their lengths, which land in
/// [`SendState::pieces`].
pub fn prepare_batch<'a>(
    state: &mut SendState,
    serving: &'a Serving,
    target: &Target<'a>,
    header: &SendHeader<'_>,
    body: &'a [u8],
    circumstances: Circumstances,
) -> Result<Batch<'a>, Refusal> {
    let Circumstances { peer, unavailable, .. } = circumstances;
    let topic = target.topic;
    if topic.name.len() > MAX_TOPIC_BYTES {
        return Err(too_large("the topic name", topic.name.len(), MAX_TOPIC_BYTES));
    }
    if topic.name.starts_with(RETRY_PREFIX) {
        return Err(Refusal::new(response::MESSAGE_ILLEGAL, "batch request does not support retry group"));
    }
    let mut shared_properties = std::mem::take(&mut state.properties);
    shared_properties.clear();
    let summary = store_properties(serving, header.properties.as_bytes(), false, &mut shared_properties);
    check_features(&shared_properties, &summary, header.sys_flag)?;
    unavailable.map_or(Ok(()), Err)?;
    if body.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "the batch has no body"));
    }
    if body.len() > serving.max_message_bytes {
        let remark = format!("message body size exceeded: {} of {} bytes", body.len(), serving.max_message_bytes);
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    }
    let wait = summary.wait.map(|range| range.of(&shared_properties));
    let wait = !wait.is_some_and(|wait| wait.eq_ignore_ascii_case(b"false"));
    let shared_tags = summary.tags.map(|range| tags_code(range.of(&shared_properties)));
    let sys_flag = if topic.is_multi_tag { header.sys_flag | message::MULTI_TAGS } else { header.sys_flag };
    let mut batch = Batch {
        serving,
        topic,
        queue_id: target.queue_id,
        sys_flag,
        born_timestamp: header.born_timestamp,
        reconsume_times: header.reconsume_times,
        peer,
        body,
        shared_properties,
        length: 0,
        wait,
    };
    state.pieces.clear();
    for entry in BatchReader::new(body) {
        let entry = entry.map_err(|error| Refusal::new(response::SYSTEM_ERROR, error.to_string()))?;
        let properties_length = joined_properties_length(entry.properties, &batch.shared_properties);
        if properties_length > MAX_PROPERTIES_BYTES {
            return Err(too_large("a property string", properties_length, MAX_PROPERTIES_BYTES));
        }
        let fields = batch.fields(entry.flag, entry.body, entry.properties);
        let size = joined_record_length(&fields, &batch.shared_properties);
        let summary = scan_properties(entry.properties);
        check_features(entry.properties, &summary, 0)?;
        let own_tags = summary.tags.map_or(0, |range| tags_code(range.of(entry.properties)));
        let tags_code = shared_tags.unwrap_or(own_tags);
        let piece_size = u32::try_from(size).unwrap_or(u32::MAX);
        state.pieces.push(Piece { size: piece_size, tags_code });
        batch.length += size;
    }
    if state.pieces.is_empty() {
        return Err(Refusal::new(response::SYSTEM_ERROR, "the batch has no message"));
    }
    Ok(batch)
}

impl<'a> Batch<'a> {
    fn fields<'b>(&self, flag: i32, body: &'b [u8], properties: &'b [u8]) -> RecordFields<'b>
    where
        'a: 'b,
    {
        RecordFields {
            topic: &self.topic.name,
            queue_id: self.queue_id,
            flag,
            sys_flag: self.sys_flag,
            born_timestamp: self.born_timestamp,
            born_host: self.peer,
            store_host: self.serving.identity.store_host,
            reconsume_times: self.reconsume_times,
            prepared_transaction_offset: 0,
            body,
            body_crc: None,
            properties,
        }
    }

    /// Writes all records without their offsets, one behind the other.
    pub fn encode(&self, out: &mut [u8]) {
        let mut at = 0;
        for entry in BatchReader::new(self.body).flatten() {
            let fields = self.fields(entry.flag, entry.body, entry.properties);
            let length = joined_record_length(&fields, &self.shared_properties);
            encode_joined_record(&fields, &self.shared_properties, &mut out[at..at + length]);
            at += length;
        }
        assert_eq!(at, self.length, "a batch is encoded as it was measured");
    }
}
