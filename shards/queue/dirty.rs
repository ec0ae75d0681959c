//! The set of queues with published entries that are in no file yet.
//!
//! One bit per queue. The log writer marks, the flush thread drains; neither waits for the other. Marking happens after
//! the published length is stored and a sequentially consistent fence; draining swaps the word, passes such a fence, and
//! only then reads the length: either the drain sees the new length or the mark lands behind the swap.

use std::sync::OnceLock;

use super::limits::{DIRTY_SEGMENT_WORDS, DIRTY_SEGMENTS};
use crate::sync::{AtomicU64, Ordering, fence};

/// Where a queue's bit is; fixed while the queue lives, reused afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueNumber(pub(crate) usize);

pub(crate) struct DirtySet {
    segments: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl DirtySet {
    /// Queues that fit.
    pub(crate) const CAPACITY: usize = DIRTY_SEGMENTS * DIRTY_SEGMENT_WORDS * 64;

    pub(crate) fn new() -> Self {
        Self { segments: (0..DIRTY_SEGMENTS).map(|_| OnceLock::new()).collect() }
    }

    /// Makes room for a queue; before its first mark.
    pub(crate) fn prepare(&self, number: QueueNumber) {
        self.segments[number.0 / (DIRTY_SEGMENT_WORDS * 64)]
            .get_or_init(|| (0..DIRTY_SEGMENT_WORDS).map(|_| AtomicU64::new(0)).collect());
    }

    /// Marks a queue. The caller has stored the published length and passed a sequentially consistent fence.
    pub(crate) fn mark(&self, number: QueueNumber) {
        let word = number.0 / 64;
        let Some(segment) = self.segments[word / DIRTY_SEGMENT_WORDS].get() else { return };
        let (word, bit) = (&segment[word % DIRTY_SEGMENT_WORDS], 1 << (number.0 % 64));
        if word.load(Ordering::Relaxed) & bit == 0 {
            word.fetch_or(bit, Ordering::Release);
        }
    }

    /// Takes all marks; the lengths that are read afterwards include what was published before each mark.
    pub(crate) fn drain(&self) -> Vec<QueueNumber> {
        let mut numbers = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let Some(segment) = segment.get() else { continue };
            for (word_index, word) in segment.iter().enumerate() {
                if word.load(Ordering::Relaxed) == 0 {
                    continue;
                }
                let mut bits = word.swap(0, Ordering::AcqRel);
                while bits != 0 {
                    let bit = bits.trailing_zeros() as usize;
                    numbers.push(QueueNumber((index * DIRTY_SEGMENT_WORDS + word_index) * 64 + bit));
                    bits &= bits - 1;
                }
            }
        }
        fence(Ordering::SeqCst);
        numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_drained_once() {
        // Goal: each marked queue comes out once. Method: marks in two segments, one of them twice.
        let set = DirtySet::new();
        let far = DIRTY_SEGMENT_WORDS * 64 + 65;
        for number in [0, 63, 64, far] {
            set.prepare(QueueNumber(number));
            set.mark(QueueNumber(number));
        }
        set.mark(QueueNumber(63));
        let drained: Vec<usize> = set.drain().into_iter().map(|number| number.0).collect();
        assert_eq!(drained, [0, 63, 64, far]);
        assert!(set.drain().is_empty());
    }
}
