//! Reading ahead for cold pulls, in small pieces: the kernel's own read-ahead is switched off for the log's files, because its
//! pieces can be so large that a shard on the same processor waits for milliseconds.
//!
//! Shared by the reader threads. Nothing depends on it: what was not asked for is read when it is needed.

use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_shards::log::segments::SegmentList;
use ringmq_shards::types::PhysicalOffset;

use super::limits::{READ_AHEAD_BLOCK_BYTES, READ_AHEAD_SPAN_BYTES};
use crate::broker::pull::Range;

/// Blocks that are remembered as asked for, by their number modulo this.
const REMEMBERED_BLOCKS: usize = 1_024;

/// Bits of the second in which a block was asked for.
const SECOND_BITS: u32 = 12;

/// Which blocks of the log were asked for lately.
#[derive(Debug)]
pub struct ReadAhead {
    asked: Vec<AtomicU64>,
}

impl Default for ReadAhead {
    fn default() -> Self {
        Self { asked: (0..REMEMBERED_BLOCKS).map(|_| AtomicU64::new(u64::MAX)).collect() }
    }
}

impl ReadAhead {
    /// Asks the disk for the blocks of these ranges and for as much behind them, up to `end`. Ranges that lie far apart are left to be
    /// read one by one: most of what is between them is not wanted.
    pub fn ask(&self, segments: &SegmentList, ranges: &[Range], end: u64, now_ns: u64) {
        let (Some(first), Some(last)) = (ranges.first(), ranges.last()) else { return };
        let behind = last.physical + last.length as u64;
        let span = behind.saturating_sub(first.physical);
        if span > READ_AHEAD_SPAN_BYTES {
            return;
        }
        let until = (behind + span.max(READ_AHEAD_BLOCK_BYTES)).min(end);
        for block in first.physical / READ_AHEAD_BLOCK_BYTES..until / READ_AHEAD_BLOCK_BYTES {
            if self.is_new(block, now_ns / 1_000_000_000) {
                read_ahead(segments, block * READ_AHEAD_BLOCK_BYTES);
            }
        }
    }

    /// Whether nobody has asked for a block in this second. Its pages may be dropped later and are then asked for again.
    fn is_new(&self, block: u64, second: u64) -> bool {
        let mark = block << SECOND_BITS | second & ((1 << SECOND_BITS) - 1);
        let slot = &self.asked[block as usize % REMEMBERED_BLOCKS];
        slot.swap(mark, Ordering::Relaxed) != mark
    }
}

fn read_ahead(segments: &SegmentList, start: u64) {
    let Some((segment, in_file)) = segments.locate(PhysicalOffset(start)) else { return };
    let length = READ_AHEAD_BLOCK_BYTES.min(segments.size().bytes_left(PhysicalOffset(start)));
    if let Err(error) = segment.page_cache().read_ahead(in_file, length) {
        tracing::debug!(%error, start, "the log could not be read ahead");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_asked_for_once_a_second() {
        // Goal: a block that many pulls touch costs one call, and is asked for again when its pages may be gone. Method: the same block
        // now and a second later, and another block that shares its slot.
        let ahead = ReadAhead::default();
        assert!(ahead.is_new(7, 1) && !ahead.is_new(7, 1) && ahead.is_new(8, 1));
        assert!(ahead.is_new(7, 2) && !ahead.is_new(7, 2));
        assert!(ahead.is_new(7 + REMEMBERED_BLOCKS as u64, 2) && ahead.is_new(7, 2));
    }
}
