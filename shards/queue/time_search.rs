//! Which offset of a queue belongs to a point in time. Pure: entries and store times come from the caller.
//!
//! Store times never decrease along the log, so a queue is sorted by them. Source: RocketMQ
//! `ConsumeQueue.getOffsetInQueueByTime`, its answers; not its walk over files, which gives the same ones.

use super::entry::QueueEntry;
use crate::types::{QueueOffset, StoreTimestamp};

/// Which side of the point in time is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Boundary {
    /// The first message stored at the time or later; the end of the queue if there is none.
    #[default]
    Lower,
    /// The last message stored at the time or earlier; the first message if there is none.
    Upper,
}

/// Searches `[minimum, maximum)`; the answer lies in `[minimum, maximum]`. `entry_at` returns `None` for an entry that
/// is gone, `store_time_at` for a record that is gone (deleted with the oldest part of the log): both count as older than
/// any time. Calls each closure at most once per bit of the queue's length.
pub fn offset_by_time<E>(
    (minimum, maximum): (QueueOffset, QueueOffset),
    timestamp: i64,
    boundary: Boundary,
    mut entry_at: impl FnMut(QueueOffset) -> Result<Option<QueueEntry>, E>,
    mut store_time_at: impl FnMut(&QueueEntry) -> Result<Option<StoreTimestamp>, E>,
) -> Result<QueueOffset, E> {
    // First offset whose message is not on the left side of the point in time, and the first message that still exists.
    let (mut low, mut high) = (minimum.0, maximum.0);
    let mut first_existing = minimum.0;
    while low < high {
        let middle = low + (high - low) / 2;
        let time = match entry_at(QueueOffset(middle))? {
            Some(entry) if !entry.is_blank() => store_time_at(&entry)?,
            _ => None,
        };
        let on_the_left = match time {
            None => {
                first_existing = middle + 1;
                true
            }
            Some(time) => {
                let time = i64::try_from(time.0).unwrap_or(i64::MAX);
                match boundary {
                    Boundary::Lower => time < timestamp,
                    Boundary::Upper => time <= timestamp,
                }
            }
        };
        if on_the_left {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(QueueOffset(match boundary {
        Boundary::Lower => low,
        Boundary::Upper => low.saturating_sub(1).max(first_existing.min(maximum.0.saturating_sub(1))).max(minimum.0),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::PhysicalOffset;

    /// Searches a queue whose message `base + i` was stored at `times[i]`; 0 stands for a record that is gone.
    fn search(base: u64, times: &[u64], timestamp: i64, boundary: Boundary) -> u64 {
        let bounds = (QueueOffset(base), QueueOffset(base + times.len() as u64));
        offset_by_time::<()>(
            bounds,
            timestamp,
            boundary,
            |offset| Ok(Some(QueueEntry { physical: PhysicalOffset(offset.0 - base), size: 1, tags_code: 0 })),
            |entry| {
                let time = times[entry.physical.0 as usize];
                Ok((time > 0).then_some(StoreTimestamp(time)))
            },
        )
        .unwrap()
        .0
    }

    #[test]
    fn table_of_cases() {
        // Goal: every row of the protocol's table. Method: a queue from offset 10 with a run of equal times.
        let times = [100, 200, 200, 200, 300];
        for (timestamp, lower, upper) in [
            (200, 11, 13),
            (100, 10, 10),
            (300, 14, 14),
            (150, 11, 10),
            (250, 14, 13),
            (301, 15, 14),
            (i64::MAX, 15, 14),
            (99, 10, 10),
            (0, 10, 10),
            (-1, 10, 10),
        ] {
            assert_eq!(search(10, &times, timestamp, Boundary::Lower), lower, "lower {timestamp}");
            assert_eq!(search(10, &times, timestamp, Boundary::Upper), upper, "upper {timestamp}");
        }
    }

    #[test]
    fn empty_and_expired() {
        // Goal: no message, and records that are gone. Method: an empty queue at 0 and at 7; two lost records in front.
        for boundary in [Boundary::Lower, Boundary::Upper] {
            assert_eq!(search(0, &[], 5, boundary), 0);
            assert_eq!(search(7, &[], 5, boundary), 7);
            assert_eq!(search(0, &[0, 0, 300, 400], 5, boundary), 2);
        }
        assert_eq!(search(0, &[0, 0], 5, Boundary::Lower), 2);
        assert_eq!(search(0, &[0, 0], 5, Boundary::Upper), 1);
    }

    #[test]
    fn agrees_with_a_scan() {
        // Goal: bisection equals the definition. Method: all short queues over few distinct times, all timestamps.
        for pattern in 0..3u32.pow(6) {
            let mut times: Vec<u64> = (0..6).map(|digit| u64::from(pattern / 3u32.pow(digit) % 3) * 2 + 1).collect();
            times.sort_unstable();
            for timestamp in 0..8i64 {
                let lower = times.iter().position(|&time| time as i64 >= timestamp).unwrap_or(times.len());
                let upper = times.iter().rposition(|&time| time as i64 <= timestamp).unwrap_or(0);
                assert_eq!(search(0, &times, timestamp, Boundary::Lower), lower as u64);
                assert_eq!(search(0, &times, timestamp, Boundary::Upper), upper as u64);
            }
        }
    }
}
