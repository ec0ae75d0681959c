//! Up to where a segment is zeroed ahead of the writer, and who may touch the bytes behind that.
//!
//! Two threads write one file: the log writer appends, the flush thread zeroes ahead of it. The frontier keeps them
//! apart without locks: the zeroing thread claims a chunk that starts at the frontier, and while it holds the claim no
//! append is admitted behind the frontier. An append that overtakes an unclaimed frontier pushes it. So no byte that was
//! appended is ever zeroed.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::DIRECT_ALIGNMENT;

/// Set while the chunk at the frontier is being zeroed. Positions are multiples of 4,096, so the bit is free.
const CLAIMED: u64 = 1;

/// The frontier of one segment; positions are bytes within its file.
#[derive(Debug)]
pub struct ZeroFrontier {
    state: AtomicU64,
}

impl ZeroFrontier {
    /// A frontier at a position, rounded up to the next block.
    pub fn new(position: u64) -> Self {
        Self { state: AtomicU64::new(position.next_multiple_of(DIRECT_ALIGNMENT)) }
    }

    /// Where the zeroed part ends.
    pub fn position(&self) -> u64 {
        self.state.load(Ordering::Acquire) & !CLAIMED
    }

    /// Called by the log writer before it writes up to `end`: true when it may. False only while the flush thread is
    /// zeroing that very place; ask again when it is done, which takes one chunk's write.
    #[must_use]
    pub fn admit(&self, end: u64) -> bool {
        let end = end.next_multiple_of(DIRECT_ALIGNMENT);
        let mut state = self.state.load(Ordering::Acquire);
        loop {
            if end <= state & !CLAIMED {
                return true;
            }
            if state & CLAIMED != 0 {
                return false;
            }
            match self.state.compare_exchange_weak(state, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(changed) => state = changed,
            }
        }
    }

    /// Called by the one zeroing thread: claims what lies at the frontier and tells where that is.
    pub(super) fn claim(&self) -> u64 {
        let before = self.state.fetch_or(CLAIMED, Ordering::AcqRel);
        assert_eq!(before & CLAIMED, 0, "one thread zeroes a segment");
        before
    }

    /// Ends a claim with the frontier at `position`.
    pub(super) fn release(&self, position: u64) {
        assert!(position.is_multiple_of(DIRECT_ALIGNMENT));
        self.state.store(position, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU8;

    use super::*;

    /// The three answers of the frontier: below it always, behind it when unclaimed (and it moves), never when claimed.
    #[test]
    fn appends_wait_only_for_a_claimed_chunk() {
        let frontier = ZeroFrontier::new(5000);
        assert_eq!(frontier.position(), 8192);
        assert!(frontier.admit(8192));
        assert_eq!(frontier.claim(), 8192);
        assert!(frontier.admit(8000));
        assert!(!frontier.admit(8193));
        frontier.release(16384);
        assert!(frontier.admit(8193));
        assert!(frontier.admit(16385));
        assert_eq!(frontier.position(), 20480);
    }

    /// No appended block is ever zeroed: one thread appends, one zeroes, over an array of blocks, and at the end every
    /// appended block still says so.
    #[test]
    fn appended_blocks_are_never_zeroed() {
        const BLOCKS: usize = 20_000;
        let frontier = Arc::new(ZeroFrontier::new(0));
        let blocks: Arc<Vec<AtomicU8>> = Arc::new((0..BLOCKS).map(|_| AtomicU8::new(9)).collect());
        let zeroing = {
            let (frontier, blocks) = (frontier.clone(), blocks.clone());
            std::thread::spawn(move || {
                loop {
                    let start = frontier.claim();
                    let first = (start / 4096) as usize;
                    let last = (first + 3).min(BLOCKS);
                    blocks[first..last].iter().for_each(|block| block.store(0, Ordering::Relaxed));
                    frontier.release((last as u64 * 4096).max(start));
                    if last == BLOCKS {
                        return;
                    }
                }
            })
        };
        for (index, block) in blocks.iter().enumerate() {
            while !frontier.admit((index as u64 + 1) * 4096) {
                std::thread::yield_now();
            }
            block.store(1, Ordering::Relaxed);
        }
        zeroing.join().unwrap();
        assert!(blocks.iter().all(|block| block.load(Ordering::Relaxed) == 1));
    }
}
