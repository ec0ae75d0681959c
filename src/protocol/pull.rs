//! The pull path's headers (`PullMessageRequestHeader`, `PullMessageResponseHeader`), without allocation.

use crate::command::FieldError;
use crate::frame::SerializeType;
use crate::header::Header;
use crate::text::{parse_i32, parse_i64};
use crate::writer::{FrameWriter, Head};

/// A pull request. Borrows the frame and the header decoder's scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullHeader<'a> {
    /// Group of the consumer.
    pub consumer_group: &'a str,
    /// Topic, unchecked.
    pub topic: &'a str,
    /// Queue, unchecked.
    pub queue_id: i32,
    /// First wanted queue offset.
    pub queue_offset: i64,
    /// Most messages wanted.
    pub max_msg_nums: i32,
    /// Pull flags, see [`crate::flags::pull`].
    pub sys_flag: i32,
    /// The consumer's position, committed if the flag says so.
    pub commit_offset: i64,
    /// How long the request may be held.
    pub suspend_timeout_ms: i64,
    /// Subscription expression, if the flag says so.
    pub subscription: Option<&'a str>,
    /// Version of the subscription: the client's clock.
    pub sub_version: i64,
    /// `TAG` (also if absent or empty) or `SQL92`.
    pub expression_type: Option<&'a str>,
    /// Most bytes wanted. Java's broker ignores it.
    pub max_msg_bytes: Option<i32>,
    /// Who asks: absent or −1 an SDK, otherwise a kind of proxy.
    pub request_source: Option<i32>,
    /// Client behind a proxy (`proxyFrowardClientId`, spelt so on the wire).
    pub proxy_forward_client_id: Option<&'a str>,
    /// Broker that the request is meant for.
    pub broker_name: Option<&'a str>,
}

impl<'a> PullHeader<'a> {
    /// Decodes the fields in one pass.
    ///
    /// # Errors
    /// A required field is missing, or a number is none.
    pub fn decode(header: &Header<'a>) -> Result<PullHeader<'a>, FieldError> {
        let mut consumer_group = None;
        let mut topic = None;
        let mut queue_id = None;
        let mut queue_offset = None;
        let mut max_msg_nums = None;
        let mut sys_flag = None;
        let mut commit_offset = None;
        let mut suspend_timeout_ms = None;
        let mut subscription = None;
        let mut sub_version = None;
        let mut expression_type = None;
        let mut max_msg_bytes = None;
        let mut request_source = None;
        let mut proxy_forward_client_id = None;
        let mut broker_name = None;
        for (key, value) in header.fields() {
            match key {
                "consumerGroup" => consumer_group = Some(value),
                "topic" => topic = Some(value),
                "queueId" => queue_id = Some(int(value, "queueId")?),
                "queueOffset" => queue_offset = Some(long(value, "queueOffset")?),
                "maxMsgNums" => max_msg_nums = Some(int(value, "maxMsgNums")?),
                "sysFlag" => sys_flag = Some(int(value, "sysFlag")?),
                "commitOffset" => commit_offset = Some(long(value, "commitOffset")?),
                "suspendTimeoutMillis" => suspend_timeout_ms = Some(long(value, "suspendTimeoutMillis")?),
                "subscription" => subscription = Some(value),
                "subVersion" => sub_version = Some(long(value, "subVersion")?),
                "expressionType" => expression_type = Some(value),
                "maxMsgBytes" => max_msg_bytes = Some(int(value, "maxMsgBytes")?),
                "requestSource" => request_source = Some(int(value, "requestSource")?),
                "proxyFrowardClientId" => proxy_forward_client_id = Some(value),
                "bname" => broker_name = Some(value),
                _ => {}
            }
        }
        Ok(PullHeader {
            consumer_group: consumer_group.ok_or(FieldError::Missing("consumerGroup"))?,
            topic: topic.ok_or(FieldError::Missing("topic"))?,
            queue_id: queue_id.ok_or(FieldError::Missing("queueId"))?,
            queue_offset: queue_offset.ok_or(FieldError::Missing("queueOffset"))?,
            max_msg_nums: max_msg_nums.ok_or(FieldError::Missing("maxMsgNums"))?,
            sys_flag: sys_flag.ok_or(FieldError::Missing("sysFlag"))?,
            commit_offset: commit_offset.ok_or(FieldError::Missing("commitOffset"))?,
            suspend_timeout_ms: suspend_timeout_ms.ok_or(FieldError::Missing("suspendTimeoutMillis"))?,
            subscription,
            sub_version: sub_version.ok_or(FieldError::Missing("subVersion"))?,
            expression_type,
            max_msg_bytes,
            request_source,
            proxy_forward_client_id,
            broker_name,
        })
    }
}

fn int(value: &str, name: &'static str) -> Result<i32, FieldError> {
    parse_i32(value).ok_or(FieldError::BadNumber(name))
}

fn long(value: &str, name: &'static str) -> Result<i64, FieldError> {
    parse_i64(value).ok_or(FieldError::BadNumber(name))
}

/// What a consumer is told with or without messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullResult {
    /// Broker id to ask next.
    pub suggest_which_broker_id: i64,
    /// Offset to ask for next.
    pub next_begin_offset: i64,
    /// First offset of the queue.
    pub min_offset: i64,
    /// End of the queue.
    pub max_offset: i64,
    /// Flags of the topic.
    pub topic_sys_flag: i32,
    /// Flags of the group.
    pub group_sys_flag: i32,
    /// Which permission is lacking: 1 broker, 2 group, 3 topic, 4 broadcast, 5 subscription.
    pub forbidden_type: Option<i32>,
}

/// Appends lengths and header of a pull response. The caller sends `body_length` bytes of records behind it.
pub fn write_pull_response_head(
    out: &mut Vec<u8>,
    serialize_type: SerializeType,
    opaque: i32,
    code: i32,
    remark: Option<&str>,
    result: &PullResult,
    body_length: usize,
) {
    let mut writer = FrameWriter::begin(out, serialize_type, Head::response(code, opaque, remark));
    if let Some(forbidden_type) = result.forbidden_type {
        writer.number("forbiddenType", i64::from(forbidden_type));
    }
    writer.number("groupSysFlag", i64::from(result.group_sys_flag));
    writer.number("maxOffset", result.max_offset);
    writer.number("minOffset", result.min_offset);
    writer.number("nextBeginOffset", result.next_begin_offset);
    writer.number("suggestWhichBrokerId", result.suggest_which_broker_id);
    writer.number("topicSysFlag", i64::from(result.topic_sys_flag));
    writer.finish(body_length);
}
