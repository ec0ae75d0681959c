//! Blocks of the log that were read for cold pulls, past the page cache: a backlog that is read once neither drives out pages that
//! others use nor takes fresh ones, which costs the kernel more than the copy and cannot be interrupted by a shard.
//!
//! The file that is being written is read through the page cache, for direct reads keep its writes waiting. That too is done a block at
//! a time: the kernel is told to read no more of the log's files than it is asked for, so it would fetch page by page.
//!
//! Shared by the reader threads. The memory is taken as it is needed, used again for ever, and bounded by [`COLD_BLOCKS`]. Invariant: a block holds only whole pages below the ring's floor, which are never written again.

use std::sync::{Mutex, PoisonError};

use ringmq_shards::disk::{AlignedBuffer, DIRECT_ALIGNMENT, Disk};
use ringmq_shards::log::segments::{SegmentList, WritePath};
use ringmq_shards::types::PhysicalOffset;

use super::limits::{COLD_BLOCK_BYTES, COLD_BLOCKS, COLD_BLOCKS_PER_SET};

/// The blocks, in sets by their number. Each set has a lock of its own, which its reader holds while it waits for the disk.
#[derive(Default)]
pub struct ColdBlocks {
    sets: [Mutex<Set>; COLD_BLOCKS / COLD_BLOCKS_PER_SET],
}

#[derive(Default)]
struct Set {
    /// Most recently used first.
    blocks: Vec<Block>,
}

struct Block {
    number: u64,
    /// Bytes at its front that hold the log.
    filled: usize,
    memory: AlignedBuffer,
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockRead {
    /// All bytes are there. How many were fetched from the disk for it.
    Done {
        /// 0 when all of them were in memory.
        fetched: u64,
    },
    /// Not this way: the file system knows no direct reads, or part of it is above the floor or gone.
    Impossible,
}

impl ColdBlocks {
    /// Copies `[physical, physical + out.len())` from blocks in memory, as far as these have it; whether that was all.
    pub fn copy(&self, physical: u64, out: &mut [u8]) -> bool {
        each_block(physical, out, |number, from, part| {
            let mut set = self.set(number);
            let Some(block) = set.find(number).filter(|block| block.filled >= from + part.len()) else { return false };
            part.copy_from_slice(&block.memory[from..from + part.len()]);
            true
        })
    }

    /// Copies `[physical, physical + out.len())`, and fetches the blocks that are missing, past the page cache or through it. Blocks on
    /// the disk.
    pub fn read(
        &self,
        disk: &dyn Disk,
        (segments, way): (&SegmentList, WritePath),
        floor: u64,
        physical: u64,
        out: &mut [u8],
    ) -> BlockRead {
        let mut fetched = 0;
        let done = each_block(physical, out, |number, from, part| {
            let mut set = self.set(number);
            let end = from + part.len();
            if set.find(number).is_none_or(|block| block.filled < end) {
                fetched += set.fetch(disk, (segments, way), floor, number) as u64;
            }
            let Some(block) = set.find(number).filter(|block| block.filled >= end) else { return false };
            part.copy_from_slice(&block.memory[from..end]);
            true
        });
        if done { BlockRead::Done { fetched } } else { BlockRead::Impossible }
    }

    fn set(&self, number: u64) -> std::sync::MutexGuard<'_, Set> {
        self.sets[number as usize % self.sets.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Set {
    /// The block, which is the most recently used one from here.
    fn find(&mut self, number: u64) -> Option<&Block> {
        let index = self.blocks.iter().position(|block| block.number == number)?;
        self.blocks[..=index].rotate_right(1);
        self.blocks.first()
    }

    /// Reads a block in the place of the least recently used one, as far as the file and the floor go. Returns how many bytes.
    fn fetch(&mut self, disk: &dyn Disk, (segments, way): (&SegmentList, WritePath), floor: u64, number: u64) -> usize {
        let start = PhysicalOffset(number * COLD_BLOCK_BYTES as u64);
        let Some((segment, in_file)) = segments.locate(start) else { return 0 };
        if !segments.size().bytes().is_multiple_of(COLD_BLOCK_BYTES as u64) {
            return 0;
        }
        let file = match way {
            WritePath::Direct | WritePath::DirectSync => segment.direct_reads(disk),
            WritePath::PageCache => Some(segment.page_cache()),
        };
        let Some(file) = file else { return 0 };
        let below = floor.saturating_sub(start.0).min(segments.size().bytes_left(start));
        let length = usize::try_from(below - below % DIRECT_ALIGNMENT).unwrap_or(usize::MAX).min(COLD_BLOCK_BYTES);
        if length == 0 {
            return 0;
        }
        let known = self.blocks.iter().position(|block| block.number == number);
        let memory = match known {
            Some(index) => self.blocks.remove(index).memory,
            None if self.blocks.len() < COLD_BLOCKS_PER_SET => AlignedBuffer::zeroed(COLD_BLOCK_BYTES),
            None => match self.blocks.pop() {
                Some(oldest) => oldest.memory,
                None => return 0,
            },
        };
        let mut block = Block { number, filled: 0, memory };
        match file.read_at(&mut block.memory[..length], in_file) {
            Ok(filled) => {
                block.filled = filled;
                self.blocks.insert(0, block);
                filled
            }
            Err(error) => {
                tracing::debug!(%error, offset = start.0, "a block of the log could not be read");
                self.blocks.push(block);
                0
            }
        }
    }
}

/// Calls `with` for each block that `[physical, physical + out.len())` touches: its number, where in it the part begins,
/// and the part. Stops at the first refusal; whether there was none.
fn each_block(physical: u64, mut out: &mut [u8], mut with: impl FnMut(u64, usize, &mut [u8]) -> bool) -> bool {
    let mut at = physical;
    while !out.is_empty() {
        let from = (at % COLD_BLOCK_BYTES as u64) as usize;
        let (part, rest) = out.split_at_mut((COLD_BLOCK_BYTES - from).min(out.len()));
        if !with(at / COLD_BLOCK_BYTES as u64, from, part) {
            return false;
        }
        at += part.len() as u64;
        out = rest;
    }
    true
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;

    use ringmq_shards::log::segment_table::SegmentSize;
    use ringmq_shards::log::segments::{SegmentOptions, Segments, WritePath};
    use ringmq_shards::sim::{Fault, OperationKind, SimDisk};

    use super::*;

    const BLOCK: u64 = COLD_BLOCK_BYTES as u64;

    /// A log of two files of so many blocks each; each byte tells its offset.
    fn log(blocks_per_file: u64) -> (Arc<SimDisk>, Segments) {
        let sim = Arc::new(SimDisk::new());
        let disk: Arc<dyn Disk> = Arc::clone(&sim) as _;
        let options = SegmentOptions {
            directory: PathBuf::from("/store/commitlog"),
            scratch_directory: PathBuf::from("/store/ringmq"),
            size: SegmentSize::new(blocks_per_file * BLOCK).expect("a size"),
            write_path: WritePath::PageCache,
            zero_ahead_bytes: 0,
        };
        let (segments, _) = Segments::open(disk, options, PhysicalOffset(0)).expect("an empty log");
        for _ in 0..2 {
            let list = segments.prepare_next(PhysicalOffset(0)).expect("a segment");
            let segment = list.segments().last().expect("the new one");
            let content: Vec<u8> = (0..blocks_per_file * BLOCK).map(|at| byte_at(segment.start().0 + at)).collect();
            segment.page_cache().write_all_at(&content, 0).expect("room");
        }
        (sim, segments)
    }

    fn byte_at(physical: u64) -> u8 {
        (physical ^ (physical >> 8) ^ (physical >> 16)) as u8
    }

    fn is_right(physical: u64, bytes: &[u8]) -> bool {
        bytes.iter().zip(physical..).all(|(byte, at)| *byte == byte_at(at))
    }

    #[test]
    fn blocks_are_fetched_once_and_hold_nothing_above_the_floor() {
        [WritePath::Direct, WritePath::PageCache].into_iter().for_each(fetched_once);
    }

    fn fetched_once(way: WritePath) {
        // Goal: right bytes, from the disk once, across blocks and files, and never from a page that may be written again.
        // Method: reads below, across and above a floor in the middle of a page, then with a floor that has risen.
        let (sim, segments) = log(2);
        let (list, blocks) = (segments.snapshot(), ColdBlocks::default());
        let floor = 3 * BLOCK + 10_000;
        let read = |at: u64, length: usize, floor: u64| {
            let mut out = vec![0; length];
            let outcome = blocks.read(&*sim, (&list, way), floor, at, &mut out);
            assert!(outcome == BlockRead::Impossible || is_right(at, &out), "{at} {length}");
            outcome
        };
        let mut out = vec![0; 100];
        assert!(!blocks.copy(5, &mut out), "nothing is there yet");
        assert_eq!(read(5, 100, floor), BlockRead::Done { fetched: BLOCK });
        assert!(blocks.copy(5, &mut out) && is_right(5, &out));
        assert_eq!(read(BLOCK - 1, 2, floor), BlockRead::Done { fetched: BLOCK });
        assert_eq!(read(2 * BLOCK - 7_000, 14_000, floor), BlockRead::Done { fetched: BLOCK }, "across files");
        assert_eq!(read(3 * BLOCK, 8_192, floor), BlockRead::Done { fetched: 8_192 });
        assert_eq!(read(3 * BLOCK, 9_000, floor), BlockRead::Impossible, "its page is written again");
        assert_eq!(read(3 * BLOCK, 9_000, 4 * BLOCK), BlockRead::Done { fetched: BLOCK });
        assert_eq!(read(4 * BLOCK - 1, 2, 5 * BLOCK), BlockRead::Impossible, "the log ends there");
        assert_eq!(read(10, 3 * COLD_BLOCK_BYTES, floor), BlockRead::Done { fetched: 0 });
    }

    #[test]
    fn blocks_are_bounded_and_failures_are_not_kept() {
        // Goal: no more memory than is said, the least recently used block goes first, and an error leaves nothing behind.
        // Method: more blocks of one set than it has room for, with the first one used in between; a read that fails once.
        let sets = (COLD_BLOCKS / COLD_BLOCKS_PER_SET) as u64;
        let of_one_set = COLD_BLOCKS_PER_SET as u64 + 1;
        let (sim, segments) = log(sets * of_one_set / 2 + 1);
        let (list, blocks) = (segments.snapshot(), ColdBlocks::default());
        let mut out = vec![0; 1_000];
        let mut read = |number: u64| {
            let outcome = blocks.read(&*sim, (&list, WritePath::Direct), u64::MAX, number * sets * BLOCK, &mut out);
            assert!(outcome == BlockRead::Impossible || is_right(number * sets * BLOCK, &out), "{number}");
            outcome
        };
        for number in 0..of_one_set {
            assert_eq!(read(number), BlockRead::Done { fetched: BLOCK });
            assert_eq!(read(0), BlockRead::Done { fetched: 0 });
        }
        assert_eq!(read(1), BlockRead::Done { fetched: BLOCK }, "it had to go");
        assert_eq!(blocks.sets[0].lock().expect("held by nobody").blocks.len(), COLD_BLOCKS_PER_SET);
        sim.inject(Fault::once(OperationKind::Read, 0, libc::EIO));
        assert_eq!(read(2), BlockRead::Impossible);
        assert_eq!(read(2), BlockRead::Done { fetched: BLOCK });
    }
}
