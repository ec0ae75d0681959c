//! Which queue entry belongs to a record of the log: one answer for the start, the store doctor and repairs.
//!
//! Source: RocketMQ `CommitLog.checkMessageAndReturnSize`, `CommitLogDispatcherBuildConsumeQueue`.

use ringmq_protocol::flags::message;
use ringmq_protocol::properties::find_property;
use ringmq_protocol::record::RecordView;

use crate::queue::QueueEntry;
use crate::types::{PhysicalOffset, QueueId, QueueOffset};

/// Where RocketMQ keeps messages until their delay is over (`TopicValidator.RMQ_SYS_SCHEDULE_TOPIC`).
pub const SCHEDULE_TOPIC: &str = "SCHEDULE_TOPIC_XXXX";
/// RocketMQ's default `messageDelayLevel` in seconds: 1s 5s 10s 30s 1m 2m … 10m 20m 30m 1h 2h.
const DELAY_LEVEL_SECONDS: [i64; 18] =
    [1, 5, 10, 30, 60, 120, 180, 240, 300, 360, 420, 480, 540, 600, 1200, 1800, 3600, 7200];

/// The place of a record in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueuePlace<'a> {
    /// Topic of the queue.
    pub topic: &'a str,
    /// Number of the queue.
    pub queue_id: QueueId,
    /// Offset of the entry.
    pub offset: QueueOffset,
    /// What the entry holds.
    pub entry: QueueEntry,
}

/// The place of a record that lies at `physical`. `None` for records that belong to no queue: prepared and rolled back
/// transactions, and negative numbers, which no broker writes.
pub fn queue_place<'a>(view: &RecordView<'a>, physical: PhysicalOffset) -> Option<QueuePlace<'a>> {
    let kind = message::transaction_type(view.sys_flag());
    if kind == message::TRANSACTION_PREPARED || kind == message::TRANSACTION_ROLLBACK {
        return None;
    }
    let entry = QueueEntry { physical, size: u32::try_from(view.total_size()).ok()?, tags_code: entry_tags_code(view) };
    Some(QueuePlace {
        topic: view.topic(),
        queue_id: QueueId(u32::try_from(view.queue_id()).ok()?),
        offset: QueueOffset(u64::try_from(view.queue_offset()).ok()?),
        entry,
    })
}

/// The tags code of a record's entry. For a delayed message it is the time of its delivery, by RocketMQ's default levels: a
/// broker with other levels delivers it by its own table, which it reads from the record.
fn entry_tags_code(view: &RecordView<'_>) -> i64 {
    let level = (view.topic() == SCHEDULE_TOPIC)
        .then(|| find_property(view.properties(), "DELAY"))
        .flatten()
        .and_then(|value| std::str::from_utf8(value).ok()?.parse::<usize>().ok())
        .filter(|level| *level > 0);
    match level {
        Some(level) => {
            let seconds = DELAY_LEVEL_SECONDS[level.min(DELAY_LEVEL_SECONDS.len()) - 1];
            view.store_timestamp().saturating_add(seconds * 1000)
        }
        None => view.tags_code(),
    }
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::record::{CrcCheck, RecordFields, bind_record, encode_record, record_length};

    use super::*;

    fn record(topic: &str, sys_flag: i32, properties: &[u8]) -> Vec<u8> {
        let fields = RecordFields { sys_flag, ..RecordFields::plain(topic, 2, b"body", properties) };
        let mut bytes = vec![0; record_length(&fields)];
        encode_record(&fields, &mut bytes);
        bind_record(&mut bytes, 7, 1000, 1_700_000_000_000);
        bytes
    }

    fn tags_code(topic: &str, properties: &[u8]) -> i64 {
        let bytes = record(topic, 0, properties);
        let view = RecordView::parse(&bytes, CrcCheck::Verify).unwrap();
        queue_place(&view, PhysicalOffset(1000)).unwrap().entry.tags_code
    }

    /// Goal: the entry is Java's. Method: an ordinary record, delayed ones of a known, the highest and a too high level, and
    /// the two kinds of transaction records that no queue gets.
    #[test]
    fn entries_are_javas() {
        assert_eq!(tags_code("T", b"TAGS\x01TagA\x02DELAY\x013\x02"), 2_598_919);
        assert_eq!(tags_code(SCHEDULE_TOPIC, b"TAGS\x01TagA\x02DELAY\x013\x02"), 1_700_000_010_000);
        assert_eq!(tags_code(SCHEDULE_TOPIC, b"DELAY\x0199\x02"), 1_700_007_200_000);
        assert_eq!(tags_code(SCHEDULE_TOPIC, b"TAGS\x01TagA\x02"), 2_598_919);
        assert_eq!(tags_code(SCHEDULE_TOPIC, b"TAGS\x01TagA\x02DELAY\x010\x02"), 2_598_919);
        for kind in [message::TRANSACTION_PREPARED, message::TRANSACTION_ROLLBACK] {
            let bytes = record("T", kind, b"");
            let view = RecordView::parse(&bytes, CrcCheck::Verify).unwrap();
            assert_eq!(queue_place(&view, PhysicalOffset(1000)), None);
        }
    }
}
