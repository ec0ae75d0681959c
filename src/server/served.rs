//! The last look at messages that were read from files, before a consumer gets them: a damaged disk may cost messages, but
//! it must not pass anything else off as one.
//!
//! Messages that are served from the log ring need no such look: they have not been on a disk since they were prepared.
//! What a record's CRC does not cover (properties, times, addresses) cannot be judged here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use ringmq_protocol::record::{CrcCheck, RecordView};
use ringmq_shards::queue::Queue;

use super::limits::{RECORD_BYTES_MAX, VERIFIED_RANGES};

/// A message that a pull has chosen by its queue entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Where the entry says that the record begins.
    pub physical: u64,
    /// How long it says that the record is, in bytes.
    pub size: usize,
    /// Offset of the entry.
    pub offset: u64,
}

/// Something that a consumer must not see.
#[derive(Debug, thiserror::Error)]
#[error(
    "offset {offset} of queue {topic}/{queue_id} cannot be read from log offset {physical}: {reason}; check the store with 'ringmq store verify'"
)]
pub struct Damaged {
    /// Topic of the queue.
    pub topic: String,
    /// Number of the queue.
    pub queue_id: u32,
    /// Offset of the message.
    pub offset: u64,
    /// Where its record should be.
    pub physical: u64,
    /// What is wrong.
    pub reason: String,
}

impl Damaged {
    /// Names the message.
    pub fn new(queue: &Queue, offset: u64, physical: u64, reason: String) -> Self {
        Self { topic: queue.topic().to_string(), queue_id: queue.queue_id().0, offset, physical, reason }
    }
}

/// Ranges of the log whose messages were looked at since the start, so that a second reader of a backlog costs no second look.
/// Bounded: when there are too many ranges all are forgotten.
#[derive(Debug, Default)]
pub struct Verified(Mutex<BTreeMap<u64, u64>>);

impl Verified {
    /// Whether all of a range has been looked at.
    pub fn contains(&self, start: u64, length: usize) -> bool {
        let ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ranges.range(..=start).next_back().is_some_and(|(_, end)| start + length as u64 <= *end)
    }

    /// Notes a range; those that touch become one.
    pub fn add(&self, start: u64, length: usize) {
        let (mut start, mut end) = (start, start + length as u64);
        let mut ranges = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some((&from, &to)) = ranges.range(..=end).next_back().filter(|(_, to)| **to >= start) {
            ranges.remove(&from);
            (start, end) = (start.min(from), end.max(to));
        }
        if ranges.len() >= VERIFIED_RANGES {
            ranges.clear();
        }
        ranges.insert(start, end);
    }
}

/// Whether an entry can belong to a record at all. Asked before memory is taken for it.
pub fn is_plausible(physical: u64, size: usize, log_end: u64) -> bool {
    size <= RECORD_BYTES_MAX && physical.checked_add(size as u64).is_some_and(|end| end <= log_end)
}

/// Looks at the records of `chosen`, which lie one after the other in `bytes` as far as these go. Returns how many bytes at the
/// front are the right messages, and what is wrong behind them.
pub fn check(bytes: &[u8], chosen: &[Place], queue: &Queue) -> (usize, Option<Damaged>) {
    let mut good = 0;
    for choice in chosen {
        let Some(record) = bytes.get(good..good + choice.size) else { return (good, None) };
        if let Err(reason) = check_one(record, choice, queue.topic(), queue.queue_id().0) {
            return (good, Some(Damaged::new(queue, choice.offset, choice.physical, reason)));
        }
        good += choice.size;
    }
    (good, None)
}

fn check_one(record: &[u8], choice: &Place, topic: &str, queue_id: u32) -> Result<(), String> {
    let view = RecordView::parse(record, CrcCheck::Verify).map_err(|error| error.to_string())?;
    if view.total_size() != choice.size {
        return Err(format!("the record has {} bytes, the entry says {}", view.total_size(), choice.size));
    }
    if u64::try_from(view.physical_offset()).ok() != Some(choice.physical) {
        return Err(format!("the record says that it lies at {}", view.physical_offset()));
    }
    let stated = (view.topic(), view.queue_id(), view.queue_offset());
    let is_this = u32::try_from(stated.1).ok() == Some(queue_id) && u64::try_from(stated.2).ok() == Some(choice.offset);
    // Light queues list records that name another topic and queue.
    if (stated.0 != topic || !is_this) && !topic.starts_with("%LMQ%") {
        return Err(format!("the record is offset {} of queue {}/{}", stated.2, stated.0, stated.1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use ringmq_protocol::record::{RecordFields, bind_record, encode_record, record_length};
    use ringmq_shards::queue::{QueueStore, QueueStoreConfig};
    use ringmq_shards::sim::SimDisk;
    use ringmq_shards::types::QueueId;

    use super::*;

    fn record(topic: &str, queue_id: u32, offset: i64, physical: i64) -> Vec<u8> {
        let fields = RecordFields::plain(topic, queue_id, b"some body", b"");
        let mut bytes = vec![0; record_length(&fields)];
        encode_record(&fields, &mut bytes);
        bind_record(&mut bytes, offset, physical, 1_000);
        bytes
    }

    #[test]
    fn only_the_right_records_pass() {
        // Goal: nothing but the asked-for messages is served. Method: two good records, then the second with each thing that
        // can be wrong: its body, its place, its queue, its offset, its length; and one that is only half there.
        let first = record("T", 1, 5, 1000);
        let size = first.len();
        let chosen = [(1000, 5), (2000, 6)].map(|(physical, offset)| Place { physical, size, offset });
        let (store, _) = QueueStore::new(Arc::new(SimDisk::new()), Path::new("/queues"), QueueStoreConfig::default());
        let queue = &*store.get_or_create("T", QueueId(1)).expect("a queue");
        let with = |second: Vec<u8>| [first.clone(), second].concat();
        let good = with(record("T", 1, 6, 2000));
        assert!(matches!(check(&good, &chosen, queue), (all, None) if all == 2 * size));
        assert!(matches!(check(&good[..2 * size - 1], &chosen, queue), (half, None) if half == size));
        let mut flipped = good.clone();
        *flipped.iter_mut().rev().nth(8).expect("a byte of the body") ^= 1;
        for (bytes, reason) in [
            (flipped, "CRC"),
            (with(record("T", 1, 6, 3000)), "lies at 3000"),
            (with(record("U", 1, 6, 2000)), "queue U/1"),
            (with(record("T", 2, 6, 2000)), "queue T/2"),
            (with(record("T", 1, 7, 2000)), "offset 7"),
            (with(vec![0; size]), "needed"),
        ] {
            let (bytes, damaged) = check(&bytes, &chosen, queue);
            let damaged = damaged.expect("it is noticed").to_string();
            assert!(bytes == size && damaged.contains(reason), "{damaged}");
        }
        let short = [Place { size: size - 1, ..chosen[0] }];
        assert!(check(&first, &short, queue).1.is_some());
        assert!(is_plausible(10, 20, 30) && !is_plausible(10, 21, 30) && !is_plausible(u64::MAX, 1, u64::MAX));
        assert!(!is_plausible(0, RECORD_BYTES_MAX + 1, u64::MAX));
    }

    #[test]
    fn ranges_grow_together_and_are_bounded() {
        // Goal: what was looked at is known, nothing else is, and the memory is bounded. Method: ranges that touch, overlap and leave a
        // gap; then more of them than are kept.
        let verified = Verified::default();
        verified.add(100, 50);
        verified.add(150, 50);
        verified.add(300, 10);
        assert!(verified.contains(100, 100) && verified.contains(120, 40) && verified.contains(300, 10));
        assert!(!verified.contains(99, 2) && !verified.contains(190, 20) && !verified.contains(305, 6));
        verified.add(180, 130);
        assert!(verified.contains(100, 210));
        for number in 0..2 * VERIFIED_RANGES as u64 {
            verified.add(1000 + number * 10, 5);
        }
        assert!(verified.0.lock().expect("held by nobody").len() <= VERIFIED_RANGES);
    }
}
