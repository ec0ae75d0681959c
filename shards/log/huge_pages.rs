//! Which parts of the log ring the kernel should put on huge pages, and when.
//!
//! The writer fills the ring from one end to the other, and each page of 4 KiB costs it a fault once and, in a virtual
//! machine above all, two walks through page tables per lap. A thread that may wait therefore moves the ring to huge
//! pages piece by piece. It does so well ahead of the writer: there the memory is either untouched or the oldest part of
//! the log in the ring, so that whoever reads near the end never waits for a move.
//!
//! A broker without traffic keeps its small footprint: nothing is moved before the log has grown by a piece.

use std::io;

use super::LogView;
use super::ring::{HUGE_PAGE_BYTES, LogRing};

/// Pieces between the writer and the nearest one that is moved. What lies nearer would be overtaken.
const DISTANCE: usize = 2;

/// Moves per call, so that the calling thread is soon back at its other work. One takes some 100 microseconds.
const MOVES_PER_CALL: usize = 4;

/// After so many failed moves in a row no more are tried: this machine has no huge pages to give.
const FAILURES_MAX: u32 = 64;

/// What has been moved so far.
#[derive(Debug)]
pub struct HugePages {
    start: u64,
    is_moved: Vec<bool>,
    failures: u32,
}

impl HugePages {
    /// For the ring of a log that has just been opened.
    pub fn new(view: &LogView) -> Self {
        Self::of(view.ring.size(), view.confirmed())
    }

    fn of(ring_bytes: usize, end: u64) -> Self {
        Self { start: end, is_moved: vec![false; ring_bytes / HUGE_PAGE_BYTES], failures: 0 }
    }

    /// For a ring that stays as it is.
    pub fn none() -> Self {
        Self::of(0, 0)
    }

    /// Bytes of the ring on huge pages.
    pub fn bytes(&self) -> u64 {
        (self.is_moved.iter().filter(|moved| **moved).count() * HUGE_PAGE_BYTES) as u64
    }

    /// The piece to move while the log ends at `end`: the nearest ahead of the writer, up to half a ring away, and no further than
    /// the log has grown, so that memory is taken as it is needed.
    fn next(&self, end: u64) -> Option<usize> {
        let pieces = self.is_moved.len();
        let grown = usize::try_from(end.saturating_sub(self.start) / HUGE_PAGE_BYTES as u64).unwrap_or(usize::MAX);
        if self.failures >= FAILURES_MAX || grown == 0 {
            return None;
        }
        let reach = (DISTANCE + grown).min(pieces / 2);
        let current = usize::try_from(end / HUGE_PAGE_BYTES as u64 % pieces.max(1) as u64).unwrap_or(0);
        (DISTANCE..=reach).map(|ahead| (current + ahead) % pieces).find(|piece| !self.is_moved[*piece])
    }

    /// Moves a few pieces, if any are due while the log ends at `end`. Errors: the kernel's, told once it has refused for
    /// good; the ring works on as it is.
    pub fn advance(&mut self, view: &LogView, end: u64) -> io::Result<()> {
        self.advance_in(&view.ring, end)
    }

    fn advance_in(&mut self, ring: &LogRing, end: u64) -> io::Result<()> {
        for _ in 0..MOVES_PER_CALL {
            let Some(piece) = self.next(end) else { return Ok(()) };
            match ring.use_huge_page(piece * HUGE_PAGE_BYTES) {
                Ok(()) => {
                    self.is_moved[piece] = true;
                    self.failures = 0;
                }
                Err(error) => {
                    // No memory, or pages in use just now: these pass. The rest does not.
                    let passes = matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM));
                    self.failures = if passes { self.failures + 1 } else { FAILURES_MAX };
                    return if self.failures >= FAILURES_MAX { Err(error) } else { Ok(()) };
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIECES: usize = 8;
    const PIECE: u64 = HUGE_PAGE_BYTES as u64;

    /// Nothing is moved before there is traffic, then only what is well ahead of the writer, no further than the log has grown, also
    /// across the ring's end: the choice is asked for along two laps.
    #[test]
    fn moves_only_what_is_well_ahead() {
        let start = 5 * PIECE + 100;
        let mut pages = HugePages::of(PIECES * HUGE_PAGE_BYTES, start);
        assert_eq!(pages.next(start + PIECE - 1), None, "without traffic");
        for end in (start + PIECE..start + 16 * PIECE).step_by(HUGE_PAGE_BYTES / 2) {
            while let Some(piece) = pages.next(end) {
                let writing = (end / PIECE) as usize % PIECES;
                let ahead = (piece + PIECES - writing) % PIECES;
                let grown = ((end - start) / PIECE) as usize;
                let reach = (DISTANCE + grown).min(PIECES / 2);
                assert!((DISTANCE..=reach).contains(&ahead), "piece {piece} while piece {writing} is written");
                pages.is_moved[piece] = true;
            }
        }
        assert_eq!(pages.bytes(), PIECES as u64 * PIECE, "two laps are enough for all");
    }

    /// A moved piece keeps its bytes in both mappings, whether it was full or nothing of it was touched, and a machine that
    /// refuses is told of once and left in peace.
    #[test]
    fn bytes_survive_the_move() {
        let size = PIECES * HUGE_PAGE_BYTES;
        let ring = LogRing::new(size).expect("map a ring");
        let half = size / 2;
        let mut pattern: Vec<u8> = (0..size).map(|at| (at / 4096 % 251) as u8).collect();
        pattern[half..].fill(0);
        // SAFETY: single-threaded test, the slices do not overlap in time.
        unsafe { ring.slice_mut(0, half).copy_from_slice(&pattern[..half]) };
        let mut pages = HugePages::of(size, 0);
        let mut refusals = 0;
        for lap_end in (0..4 * size as u64).step_by(HUGE_PAGE_BYTES) {
            refusals += u32::from(pages.advance_in(&ring, lap_end).is_err());
        }
        assert!(refusals <= 1, "told {refusals} times");
        assert!(refusals == 1 || pages.failures > 0 || pages.bytes() == size as u64, "{pages:?}");
        // SAFETY: as above.
        unsafe {
            assert!(ring.slice(0, size) == pattern, "the bytes of the ring");
            assert_eq!(ring.slice(size as u64 - 1, 2), [pattern[size - 1], pattern[0]], "the bytes across its end");
        }
    }

    /// Without pieces there is nothing to do: a ring smaller than a huge page, or one that stays as it is.
    #[test]
    fn small_rings_stay() {
        let ring = LogRing::new(8192).expect("map a ring");
        let mut pages = HugePages::of(ring.size(), 0);
        for end in [0, 1 << 20, 1 << 30] {
            pages.advance_in(&ring, end).expect("nothing to move");
        }
        assert_eq!(pages.bytes(), 0);
        assert_eq!(HugePages::none().next(1 << 40), None);
    }
}
