//! Pulling: the checks of a pull request, and the choice of messages from a queue's tail (codes 11 and 361).
//!
//! Pure over the serving picture and the published tails. The order of the checks is that of RocketMQ's `PullMessageProcessor`;
//! the limits of one answer are those of `DefaultMessageStore.getMessage`.

use std::borrow::Cow;
use std::sync::Arc;

use ringmq_protocol::bodies::{ConsumeType, MessageModel};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::flags::{permission, pull};
use ringmq_protocol::pull::PullHeader;
use ringmq_shards::queue::{Queue, QueueEntry, TailRead};
use ringmq_shards::types::{PhysicalOffset, QueueOffset};

use super::ConnectionId;
use super::filter::{TagFilter, is_tag_type};
use super::names::{check_group, pulls_unregistered};
use super::snapshot::GroupEntry;
use crate::server::serving::{Serving, ServingTopic};

/// Bounds of one answer, as configured; the defaults are RocketMQ's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferLimits {
    /// Most messages while they are in memory (`maxTransferCountOnMessageInMemory`).
    pub memory_messages: usize,
    /// Most bytes while they are in memory (`maxTransferBytesOnMessageInMemory`).
    pub memory_bytes: usize,
    /// Most messages from disk (`maxTransferCountOnMessageInDisk`).
    pub disk_messages: usize,
    /// Most bytes from disk (`maxTransferBytesOnMessageInDisk`).
    pub disk_bytes: usize,
    /// Most messages whatever the client asks for (`pullBatchMaxMessageCount`).
    pub batch_messages: usize,
}

impl TransferLimits {
    /// The same with at most this many bytes, for when memory is short.
    #[must_use]
    pub fn shortened(self, bytes: usize) -> TransferLimits {
        TransferLimits { memory_bytes: self.memory_bytes.min(bytes), disk_bytes: self.disk_bytes.min(bytes), ..self }
    }
}

impl Default for TransferLimits {
    fn default() -> Self {
        Self { memory_messages: 32, memory_bytes: 262_144, disk_messages: 8, disk_bytes: 65_536, batch_messages: 160 }
    }
}

/// Why a pull whose first message is long is refused for the time being.
pub const MEMORY_IS_SHORT: &str = "memory for answers is short; try again";

/// Queue entries that one filtered read looks at (`maxFilterMessageSize` of 16,000 bytes), or as many as messages are asked for.
pub const SCAN_ENTRIES: usize = 800;
/// But never more than this, whatever is asked for: clients of RocketMQ ask for 1,024 messages at most. Who gets no match is told
/// where to go on, so that only the steps are shorter.
pub const SCAN_ENTRIES_MAX: usize = 16_384;
/// Entries that are read from a tail at once.
const CHUNK: usize = 32;

/// A refused pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullRefusal {
    /// Response code.
    pub code: i32,
    /// What the client reads.
    pub remark: Cow<'static, str>,
    /// Ext field `forbiddenType`.
    pub forbidden_type: Option<i32>,
}

impl PullRefusal {
    /// Whether a newer picture might have what is missing: a topic or a subscription that was confirmed a moment ago, on a
    /// connection of another shard. A shard asks the control thread before it refuses for such a reason; a group that is
    /// missing comes as [`PullCheck::CreateGroup`].
    pub fn may_be_outdated(&self) -> bool {
        matches!(
            self.code,
            response::TOPIC_NOT_EXIST | response::SUBSCRIPTION_NOT_EXIST | response::SUBSCRIPTION_NOT_LATEST
        )
    }
}

/// Outcome of the checks.
pub enum PullCheck<'a> {
    /// It may read.
    Go {
        /// Topic.
        topic: &'a Arc<ServingTopic>,
        /// Group.
        group: &'a Arc<GroupEntry>,
        /// Name of the group.
        group_name: &'a Arc<str>,
        /// Queue, below the topic's number of readable queues.
        queue_id: u32,
        /// What it wants of the queue.
        filter: Cow<'a, TagFilter>,
    },
    /// The group does not exist: the control thread may create it.
    CreateGroup,
    /// It may not.
    Refused(PullRefusal),
}

/// What the checks of a pull look at.
#[derive(Clone, Copy)]
struct Asked<'a> {
    code: i32,
    group: &'a str,
    topic: &'a str,
    queue_id: i32,
    wants: Wants<'a>,
}

#[derive(Clone, Copy)]
enum Wants<'a> {
    /// The expression came with the request.
    Expression { kind: Option<&'a str>, text: Option<&'a str> },
    /// The same, parsed when the request came.
    Parsed(&'a TagFilter),
    /// What the group's consumers have announced, at least in this version.
    OfGroup { sub_version: i64 },
}

/// What a held pull keeps of its request, to be checked again. `queue_id` is that of a pull that has passed.
#[derive(Debug, Clone)]
pub struct HeldRequest {
    /// Request code.
    pub code: i32,
    /// Group.
    pub group: Arc<str>,
    /// Topic.
    pub topic: Arc<str>,
    /// Queue.
    pub queue_id: i32,
    /// Version of the subscription; `None` when the expression came with the request.
    pub sub_version: Option<i64>,
}

/// Checks a held pull as if it came now. `filter` is what it was parsed to when its expression came with the request.
pub fn check_again<'a>(
    serving: &'a Serving,
    held: &'a HeldRequest,
    filter: &'a TagFilter,
    connection: u64,
) -> PullCheck<'a> {
    let HeldRequest { code, group, topic, queue_id, sub_version } = held;
    let wants = match *sub_version {
        Some(sub_version) => Wants::OfGroup { sub_version },
        None => Wants::Parsed(filter),
    };
    check_asked(serving, Asked { code: *code, group, topic, queue_id: *queue_id, wants }, connection)
}

fn refuse<'a>(code: i32, forbidden_type: Option<i32>, remark: impl Into<Cow<'static, str>>) -> PullCheck<'a> {
    PullCheck::Refused(PullRefusal { code, remark: remark.into(), forbidden_type })
}

/// The queue exists, but cannot be read yet.
pub fn queue_not_open() -> PullRefusal {
    PullRefusal { code: response::SYSTEM_ERROR, remark: "the queue is not open yet".into(), forbidden_type: None }
}

/// The check order. `connection` is the number of the client's connection.
pub fn check<'a>(serving: &'a Serving, code: i32, header: &PullHeader<'a>, connection: u64) -> PullCheck<'a> {
    let wants = if header.sys_flag & pull::SUBSCRIPTION != 0 {
        Wants::Expression { kind: header.expression_type, text: header.subscription }
    } else {
        Wants::OfGroup { sub_version: header.sub_version }
    };
    let PullHeader { consumer_group: group, topic, queue_id, .. } = *header;
    check_asked(serving, Asked { code, group, topic, queue_id, wants }, connection)
}

fn check_asked<'a>(serving: &'a Serving, asked: Asked<'a>, connection: u64) -> PullCheck<'a> {
    if !permission::is_readable(serving.broker_permission) {
        let remark = format!("the broker[{}] pulling message is forbidden", serving.identity.store_host);
        return refuse(response::NO_PERMISSION, Some(1), remark);
    }
    if asked.code == request::LITE_PULL_MESSAGE && !serving.lite_pull {
        return refuse(response::NO_PERMISSION, Some(1), "the broker forbids lite pulls (litePullMessageEnable)");
    }
    let Some((group_name, group)) = serving.groups.get_key_value(asked.group) else {
        return match check_group(asked.group) {
            Ok(()) => PullCheck::CreateGroup,
            Err(error) => refuse(
                response::SUBSCRIPTION_GROUP_NOT_EXIST,
                None,
                format!("subscription group [{}] does not exist, {error}", asked.group),
            ),
        };
    };
    if !group.config.consume_enable {
        return refuse(response::NO_PERMISSION, Some(2), format!("subscription group no permission, {}", asked.group));
    }
    let Some(topic) = serving.topics.get(asked.topic) else {
        let remark = format!("topic[{}] not exist, apply first please!", asked.topic);
        return refuse(response::TOPIC_NOT_EXIST, None, remark);
    };
    if !permission::is_readable(topic.permission) {
        return refuse(
            response::NO_PERMISSION,
            Some(3),
            format!("the topic[{}] pulling message is forbidden", topic.name),
        );
    }
    let Some(queue_id) = u32::try_from(asked.queue_id).ok().filter(|queue_id| *queue_id < topic.read_queues) else {
        return refuse(
            response::INVALID_PARAMETER,
            None,
            format!(
                "queueId[{}] is illegal, topic:[{}] topicConfig.readQueueNums:[{}]",
                asked.queue_id, topic.name, topic.read_queues
            ),
        );
    };
    match subscription(group_name, group, topic, asked.wants) {
        Ok(_)
            if serving.reject_pull_consumers
                && !is_registered(group, connection)
                && !pulls_unregistered(group_name) =>
        {
            refuse(
                response::SUBSCRIPTION_NOT_EXIST,
                None,
                "the consumer's group info not exist, or the pull consumer is rejected by server",
            )
        }
        Ok(filter) => PullCheck::Go { topic, group, group_name, queue_id, filter },
        Err(refusal) => PullCheck::Refused(refusal),
    }
}

/// Step 10 (`rejectPullConsumerEnable`): a group that is offline or pulls on its own account must at least have announced
/// this connection by a heartbeat.
fn is_registered(group: &GroupEntry, connection: u64) -> bool {
    group.live.as_ref().is_some_and(|live| {
        live.consume_type != Some(ConsumeType::Actively)
            || live.connections.binary_search(&ConnectionId(connection)).is_ok()
    })
}

/// Step 8: the expression comes with the request, or from what the group's consumers have announced.
fn subscription<'a>(
    group_name: &str,
    group: &'a GroupEntry,
    topic: &ServingTopic,
    wants: Wants<'a>,
) -> Result<Cow<'a, TagFilter>, PullRefusal> {
    let refusal = |code, forbidden_type, remark: String| PullRefusal { code, remark: remark.into(), forbidden_type };
    let not_tag = || {
        let remark = "The broker does not support consumer to filter message by SQL92".to_owned();
        refusal(response::SYSTEM_ERROR, None, remark)
    };
    let sub_version = match wants {
        Wants::Expression { kind, .. } if !is_tag_type(kind) => return Err(not_tag()),
        Wants::Expression { text, .. } => {
            return TagFilter::parse(text).map(Cow::Owned).map_err(|_| {
                let remark = "parse the consumer's subscription failed".to_owned();
                refusal(response::SUBSCRIPTION_PARSE_FAILED, None, remark)
            });
        }
        Wants::Parsed(filter) => return Ok(Cow::Borrowed(filter)),
        Wants::OfGroup { sub_version } => sub_version,
    };
    let Some(live) = &group.live else {
        let remark = format!("the consumer's group info not exist, group: {group_name}");
        return Err(refusal(response::SUBSCRIPTION_NOT_EXIST, None, remark));
    };
    if !group.config.consume_broadcast_enable && live.message_model == Some(MessageModel::Broadcasting) {
        let remark = format!("the consumer group[{group_name}] can not consume by broadcast way");
        return Err(refusal(response::NO_PERMISSION, Some(4), remark));
    }
    if group.is_read_forbidden(&topic.name) {
        let remark = format!("the consumer group[{group_name}] is forbidden for topic[{}]", topic.name);
        return Err(refusal(response::NO_PERMISSION, Some(5), remark));
    }
    let Some(subscription) = live.subscriptions.get(&*topic.name) else {
        let remark = format!("the consumer's subscription not exist, group: {group_name}, topic: {}", topic.name);
        return Err(refusal(response::SUBSCRIPTION_NOT_EXIST, None, remark));
    };
    if subscription.data.sub_version < sub_version {
        let remark = "the consumer's subscription not latest".to_owned();
        return Err(refusal(response::SUBSCRIPTION_NOT_LATEST, None, remark));
    }
    if !is_tag_type(Some(&subscription.data.expression_type)) {
        return Err(not_tag());
    }
    Ok(Cow::Borrowed(&subscription.filter))
}

/// What became of a read (RocketMQ `GetMessageStatus`); its name is the answer's remark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// At least one message.
    Found,
    /// Looked at messages, none passed the filter.
    NoMatchedMessage,
    /// The queue never had a message.
    NoMessageInQueue,
    /// Below the queue's first message.
    OffsetTooSmall,
    /// Exactly at the end.
    OffsetOverflowOne,
    /// Beyond the end.
    OffsetOverflowBadly,
    /// Records were removed while the queue still points to them.
    MessageWasRemoving,
}

impl Status {
    /// RocketMQ's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => "FOUND",
            Self::NoMatchedMessage => "NO_MATCHED_MESSAGE",
            Self::NoMessageInQueue => "NO_MESSAGE_IN_QUEUE",
            Self::OffsetTooSmall => "OFFSET_TOO_SMALL",
            Self::OffsetOverflowOne => "OFFSET_OVERFLOW_ONE",
            Self::OffsetOverflowBadly => "OFFSET_OVERFLOW_BADLY",
            Self::MessageWasRemoving => "MESSAGE_WAS_REMOVING",
        }
    }

    /// The response code for a request at `offset`.
    pub fn code(self, offset: i64) -> i32 {
        match self {
            Self::Found => response::SUCCESS,
            Self::NoMatchedMessage | Self::MessageWasRemoving => response::PULL_RETRY_IMMEDIATELY,
            Self::NoMessageInQueue if offset != 0 => response::PULL_OFFSET_MOVED,
            Self::NoMessageInQueue | Self::OffsetOverflowOne => response::PULL_NOT_FOUND,
            Self::OffsetTooSmall | Self::OffsetOverflowBadly => response::PULL_OFFSET_MOVED,
        }
    }
}

/// A slice of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First byte.
    pub physical: u64,
    /// Bytes.
    pub length: usize,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// Outcome.
    pub status: Status,
    /// `nextBeginOffset`.
    pub next: i64,
    /// `minOffset`.
    pub min: i64,
    /// `maxOffset`.
    pub max: i64,
    /// Bytes of all ranges.
    pub bytes: usize,
    /// Messages in them.
    pub messages: usize,
    /// Entries that were looked at.
    pub scanned: usize,
}

/// The limits of one answer, and how they shrink when messages are no longer in memory.
#[derive(Debug, Clone, Copy)]
pub struct ReadLimits {
    /// Most messages asked for.
    pub max_messages: usize,
    /// Messages at or above this offset of the log count as being in memory (40 % of the machine's, as in RocketMQ).
    pub memory_from: u64,
    /// The configured bounds.
    pub transfer: TransferLimits,
}

/// Chooses messages entry by entry until an answer is full.
#[derive(Debug)]
pub struct Collector<'a> {
    limits: ReadLimits,
    filter: &'a TagFilter,
    most_scanned: usize,
    scanned: usize,
    messages: usize,
    bytes: usize,
}

/// Entries that a read for so many messages looks at.
fn most_scanned(max_messages: usize) -> usize {
    max_messages.clamp(SCAN_ENTRIES, SCAN_ENTRIES_MAX)
}

impl<'a> Collector<'a> {
    /// An empty answer.
    pub fn new(limits: ReadLimits, filter: &'a TagFilter) -> Self {
        Self { limits, filter, most_scanned: most_scanned(limits.max_messages), scanned: 0, messages: 0, bytes: 0 }
    }

    /// Looks at the next entry: false when the answer is complete without it. A chosen one is appended to `ranges`.
    pub fn take(&mut self, entry: &QueueEntry, ranges: &mut Vec<Range>) -> bool {
        if self.scanned >= self.most_scanned {
            return false;
        }
        let size = entry.size as usize;
        let transfer = &self.limits.transfer;
        let (most_messages, most_bytes) = if entry.physical.0 >= self.limits.memory_from {
            (transfer.memory_messages, transfer.memory_bytes)
        } else {
            (transfer.disk_messages, transfer.disk_bytes)
        };
        let most_messages = most_messages.min(transfer.batch_messages);
        let is_full = self.messages >= self.limits.max_messages.min(most_messages) || self.bytes + size > most_bytes;
        if self.messages > 0 && is_full {
            return false;
        }
        self.scanned += 1;
        if self.filter.matches(entry.tags_code) {
            self.messages += 1;
            self.bytes += size;
            match ranges.last_mut() {
                Some(last) if last.physical + last.length as u64 == entry.physical.0 => last.length += size,
                _ => ranges.push(Range { physical: entry.physical.0, length: size }),
            }
        }
        true
    }

    /// Entries looked at.
    pub fn scanned(&self) -> usize {
        self.scanned
    }

    /// Bytes chosen.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Messages chosen.
    pub fn messages(&self) -> usize {
        self.messages
    }
}

fn signed(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// Answers what the bounds alone decide; `None` when entries have to be read.
pub fn outside(offset: i64, min: u64, max: u64) -> Option<Reading> {
    let (min, max) = (signed(min), signed(max));
    let reading = |status, next| Some(Reading { status, next, min, max, bytes: 0, messages: 0, scanned: 0 });
    if max == 0 {
        reading(Status::NoMessageInQueue, 0)
    } else if offset < min {
        reading(Status::OffsetTooSmall, min)
    } else if offset == max {
        reading(Status::OffsetOverflowOne, offset)
    } else if offset > max {
        reading(Status::OffsetOverflowBadly, max)
    } else {
        None
    }
}

/// Reads from a queue's tail into `ranges` (cleared first). `None` when entries are needed that memory no longer holds.
pub fn read_tail(
    queue: &Queue,
    offset: i64,
    limits: ReadLimits,
    filter: &TagFilter,
    ranges: &mut Vec<Range>,
) -> Option<Reading> {
    ranges.clear();
    let (min, max) = queue.bounds();
    if let Some(reading) = outside(offset, min.0, max.0) {
        return Some(reading);
    }
    let mut at = u64::try_from(offset).ok()?;
    let mut collector = Collector::new(limits, filter);
    let mut entries = [QueueEntry { physical: PhysicalOffset(0), size: 0, tags_code: 0 }; CHUNK];
    'reading: loop {
        match queue.read(QueueOffset(at), &mut entries) {
            TailRead::Read(count) => {
                for entry in &entries[..count] {
                    if !collector.take(entry, ranges) {
                        break 'reading;
                    }
                    at += 1;
                }
            }
            TailRead::AtEnd => break,
            // What was gathered so far is a fine answer; only a read that has nothing yet must look at the file.
            TailRead::NotInMemory if collector.scanned() > 0 => break,
            TailRead::NotInMemory => return None,
        }
    }
    let status = if collector.messages() > 0 { Status::Found } else { Status::NoMatchedMessage };
    let (bytes, messages, scanned) = (collector.bytes(), collector.messages(), collector.scanned());
    Some(Reading { status, next: signed(at), min: signed(min.0), max: signed(max.0), bytes, messages, scanned })
}
