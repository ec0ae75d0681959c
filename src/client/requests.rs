//! The requests that clients make, as commands. Pure.

use ringmq_protocol::bodies::{HeartbeatData, JsonBody};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::flags::pull;

use super::error::MessageError;
use super::limits::{NEW_TOPIC_QUEUES, PULL_MESSAGES};
use super::message::Message;

/// The topic whose configuration new topics take, and whose route producers of new topics use.
pub const TEMPLATE_TOPIC: &str = "TBW102";

/// What a send carries besides the message.
#[derive(Debug, Clone, Copy)]
pub struct SendTarget<'a> {
    /// Group of the producer.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Queue, or −1 for any.
    pub queue_id: i32,
    /// The client's clock, ms since the Unix epoch.
    pub now_ms: u64,
}

/// What a pull asks for.
#[derive(Debug, Clone, Copy)]
pub struct PullRequest<'a> {
    /// Group of the consumer.
    pub group: &'a str,
    /// Topic.
    pub topic: &'a str,
    /// Queue.
    pub queue_id: i32,
    /// First wanted queue offset.
    pub offset: i64,
    /// Most messages wanted.
    pub max_messages: i32,
    /// How long the broker may wait for a message, in milliseconds; 0 does not wait.
    pub hold_ms: u64,
    /// Tags as `a || b`, or `*`.
    pub subscription: &'a str,
    /// Offset to commit for the group along the way.
    pub commit_offset: Option<i64>,
}

impl<'a> PullRequest<'a> {
    /// A pull of whatever there is from this offset on, answered at once: no tag is chosen and nothing is committed.
    pub fn new(group: &'a str, topic: &'a str, queue_id: i32, offset: i64) -> PullRequest<'a> {
        PullRequest {
            group,
            topic,
            queue_id,
            offset,
            max_messages: PULL_MESSAGES,
            hold_ms: 0,
            subscription: "*",
            commit_offset: None,
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// SEND_MESSAGE_V2 (310).
///
/// # Errors
/// The message cannot be written down.
pub fn send(target: &SendTarget<'_>, message: &Message, unique_key: &str) -> Result<Command, MessageError> {
    if message.body.is_empty() {
        return Err(MessageError::EmptyBody);
    }
    let properties = message.property_string(unique_key)?;
    Ok(send_header(request::SEND_MESSAGE_V2, target, &properties, false).with_body(message.body.clone()))
}

/// SEND_BATCH_MESSAGE (320) with a body of [`super::message::batch_body`].
pub fn send_batch(target: &SendTarget<'_>, body: Vec<u8>, unique_key: &str) -> Command {
    let properties = format!("UNIQ_KEY\u{1}{unique_key}\u{2}WAIT\u{1}true\u{2}");
    send_header(request::SEND_BATCH_MESSAGE, target, &properties, true).with_body(body)
}

fn send_header(code: i32, target: &SendTarget<'_>, properties: &str, batch: bool) -> Command {
    Command::request(code)
        .with_ext("a", target.group)
        .with_ext("b", target.topic)
        .with_ext("c", TEMPLATE_TOPIC)
        .with_ext("d", NEW_TOPIC_QUEUES)
        .with_ext("e", target.queue_id)
        .with_ext("f", 0)
        .with_ext("g", signed(target.now_ms))
        .with_ext("h", 0)
        .with_ext("i", properties)
        .with_ext("j", 0)
        .with_ext("k", false)
        .with_ext("m", batch)
}

/// PULL_MESSAGE (11). The subscription always comes with the request, so that no heartbeat has to precede it.
pub fn pull(wanted: &PullRequest<'_>) -> Command {
    let mut flags = pull::SUBSCRIPTION;
    if wanted.hold_ms > 0 {
        flags |= pull::SUSPEND;
    }
    if wanted.commit_offset.is_some() {
        flags |= pull::COMMIT_OFFSET;
    }
    Command::request(request::PULL_MESSAGE)
        .with_ext("consumerGroup", wanted.group)
        .with_ext("topic", wanted.topic)
        .with_ext("queueId", wanted.queue_id)
        .with_ext("queueOffset", wanted.offset)
        .with_ext("maxMsgNums", wanted.max_messages)
        .with_ext("sysFlag", flags)
        .with_ext("commitOffset", wanted.commit_offset.unwrap_or(0))
        .with_ext("suspendTimeoutMillis", wanted.hold_ms)
        .with_ext("subscription", wanted.subscription)
        .with_ext("subVersion", 0)
        .with_ext("expressionType", "TAG")
}

fn of_queue(code: i32, topic: &str, queue_id: i32) -> Command {
    Command::request(code).with_ext("topic", topic).with_ext("queueId", queue_id)
}

/// GET_MAX_OFFSET (30): the offset that the next message of the queue will have.
pub fn max_offset(topic: &str, queue_id: i32) -> Command {
    of_queue(request::GET_MAX_OFFSET, topic, queue_id)
}

/// GET_MIN_OFFSET (31): the offset of the oldest message of the queue.
pub fn min_offset(topic: &str, queue_id: i32) -> Command {
    of_queue(request::GET_MIN_OFFSET, topic, queue_id)
}

/// SEARCH_OFFSET_BY_TIMESTAMP (29): the first message that was stored at or after a time.
pub fn search_offset(topic: &str, queue_id: i32, timestamp_ms: u64) -> Command {
    of_queue(request::SEARCH_OFFSET_BY_TIMESTAMP, topic, queue_id)
        .with_ext("timestamp", signed(timestamp_ms))
        .with_ext("boundaryType", "LOWER")
}

/// QUERY_CONSUMER_OFFSET (14). Without a committed offset the answer is always QUERY_NOT_FOUND.
pub fn query_offset(group: &str, topic: &str, queue_id: i32) -> Command {
    of_queue(request::QUERY_CONSUMER_OFFSET, topic, queue_id)
        .with_ext("consumerGroup", group)
        .with_ext("setZeroIfNotFound", false)
}

/// UPDATE_CONSUMER_OFFSET (15).
pub fn commit_offset(group: &str, topic: &str, queue_id: i32, offset: i64) -> Command {
    of_queue(request::UPDATE_CONSUMER_OFFSET, topic, queue_id)
        .with_ext("consumerGroup", group)
        .with_ext("commitOffset", offset)
}

/// HEART_BEAT (34).
pub fn heartbeat(data: &HeartbeatData) -> Command {
    Command::request(request::HEART_BEAT).with_body(data.encode())
}

/// UNREGISTER_CLIENT (35).
pub fn unregister(client_id: &str, consumer_group: &str) -> Command {
    Command::request(request::UNREGISTER_CLIENT)
        .with_ext("clientID", client_id)
        .with_ext("consumerGroup", consumer_group)
}

/// GET_CONSUMER_LIST_BY_GROUP (38).
pub fn consumer_list(group: &str) -> Command {
    Command::request(request::GET_CONSUMER_LIST_BY_GROUP).with_ext("consumerGroup", group)
}

/// GET_ROUTEINFO_BY_TOPIC (105).
pub fn route(topic: &str) -> Command {
    Command::request(request::GET_ROUTEINFO_BY_TOPIC).with_ext("topic", topic)
}

/// GET_BROKER_CLUSTER_INFO (106).
pub fn cluster() -> Command {
    Command::request(request::GET_BROKER_CLUSTER_INFO)
}

/// UPDATE_AND_CREATE_TOPIC (17) with as many queues to read as to write.
pub fn create_topic(topic: &str, queues: u32) -> Command {
    Command::request(request::UPDATE_AND_CREATE_TOPIC)
        .with_ext("topic", topic)
        .with_ext("defaultTopic", TEMPLATE_TOPIC)
        .with_ext("readQueueNums", queues)
        .with_ext("writeQueueNums", queues)
        .with_ext("perm", 6)
        .with_ext("topicFilterType", "SINGLE_TAG")
        .with_ext("topicSysFlag", 0)
        .with_ext("order", false)
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};
    use ringmq_protocol::header::HeaderDecoder;
    use ringmq_protocol::pull::PullHeader;
    use ringmq_protocol::send::SendHeader;

    use super::*;

    fn with_header<T>(command: &Command, look: impl FnOnce(&ringmq_protocol::header::Header<'_>) -> T) -> T {
        let bytes = command.encode();
        let Ok(Split::Frame { frame, .. }) = split_frame(&bytes, MAX_FRAME_BYTES) else { panic!("a frame") };
        let mut decoder = HeaderDecoder::new();
        let header = decoder.decode_frame(&frame).expect("a header");
        look(&header)
    }

    /// Goal: a broker reads what was meant. Method: decode a send and a batch with the broker's decoder.
    #[test]
    fn sends() {
        let target = SendTarget { group: "g", topic: "t", queue_id: 3, now_ms: 5 };
        let command = send(&target, &Message::new("b").with_tag("x"), "U").expect("valid");
        with_header(&command, |header| {
            let decoded = SendHeader::decode(command.code, header).expect("complete");
            assert_eq!((decoded.topic, decoded.queue_id, decoded.born_timestamp, decoded.batch), ("t", 3, 5, false));
            assert_eq!(decoded.properties, "TAGS\u{1}x\u{2}UNIQ_KEY\u{1}U\u{2}WAIT\u{1}true\u{2}");
        });
        let batch = send_batch(&target, vec![1], "U");
        with_header(&batch, |header| assert!(SendHeader::decode(batch.code, header).expect("complete").batch));
        assert_eq!(send(&target, &Message::default(), "U"), Err(MessageError::EmptyBody));
    }

    /// Goal: a broker reads what was meant. Method: decode pulls with the broker's decoder.
    #[test]
    fn pulls() {
        let wanted = PullRequest::new("g", "t", 1, 9);
        let command = pull(&wanted);
        with_header(&command, |header| {
            let decoded = PullHeader::decode(header).expect("complete");
            assert_eq!((decoded.queue_offset, decoded.sys_flag, decoded.subscription), (9, 4, Some("*")));
        });
        let held = pull(&PullRequest { hold_ms: 7, commit_offset: Some(8), ..wanted });
        with_header(&held, |header| {
            let decoded = PullHeader::decode(header).expect("complete");
            assert_eq!((decoded.sys_flag, decoded.suspend_timeout_ms, decoded.commit_offset), (7, 7, 8));
        });
    }
}
