//! Whether the disk answers.
//!
//! The flush thread gives a sign of life after each operation on files that may have waited for the disk. A long silence means that one
//! of them does not return: the disk is very slow, or hangs.
//! Then the log's writer must not touch the page cache: a file system that commits its journal holds the block of the file's
//! inode until the disk has taken it, and a write that only wants to note its time waits for that, with its whole shard.

use std::sync::atomic::{AtomicU64, Ordering};

use super::shared::monotonic_ns;

/// A silence of this length is told of: services are killed for less than half a minute of it.
const TOLD_MS: u64 = 5_000;

/// How often it is told of while it lasts.
const REMINDER_MS: u64 = 60_000;

/// The flush thread's sign of life.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct DiskWatch {
    /// When it was last given, by the steady clock; 0 when there is no flush thread.
    signed_ms: AtomicU64,
}

impl DiskWatch {
    /// The flush thread waits for nothing just now.
    pub fn sign(&self) {
        self.sign_at(monotonic_ns() / 1_000_000);
    }

    /// The same, at a time of the steady clock.
    pub fn sign_at(&self, now_ms: u64) {
        self.signed_ms.store(now_ms, Ordering::Relaxed);
    }

    /// For how long there has been no sign, milliseconds. One load: asked for each group.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        match self.signed_ms.load(Ordering::Relaxed) {
            0 => 0,
            signed_ms => now_ms.saturating_sub(signed_ms),
        }
    }
}

/// What the log output says about it: once when it begins, now and then while it lasts, and when it is over.
#[derive(Debug, Default)]
pub struct DiskReport {
    /// The longest silence of the one that lasts, and when it was last told of.
    told: Option<(u64, u64)>,
}

/// What there is to say.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    Silent(u64),
    Over(u64),
}

impl DiskReport {
    /// Looks, and tells if there is news.
    pub fn look(&mut self, watch: &DiskWatch) {
        let now_ms = monotonic_ns() / 1_000_000;
        match self.word(watch.silent_ms(now_ms), now_ms) {
            Some(Word::Silent(silent_ms)) => tracing::error!(
                silent_ms,
                "the disk does not answer: what is sent waits for it, and the rest is served as long as memory has it"
            ),
            Some(Word::Over(silent_ms)) => tracing::info!(silent_ms, "the disk answers again"),
            None => {}
        }
    }

    fn word(&mut self, silent_ms: u64, now_ms: u64) -> Option<Word> {
        match &mut self.told {
            None if silent_ms >= TOLD_MS => {
                self.told = Some((silent_ms, now_ms));
                Some(Word::Silent(silent_ms))
            }
            None => None,
            Some((longest_ms, _)) if silent_ms < TOLD_MS => {
                let longest_ms = *longest_ms;
                self.told = None;
                Some(Word::Over(longest_ms))
            }
            Some((longest_ms, told_ms)) => {
                *longest_ms = silent_ms.max(*longest_ms);
                (now_ms - *told_ms >= REMINDER_MS).then(|| {
                    *told_ms = now_ms;
                    Word::Silent(silent_ms)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_begins_with_the_first_sign() {
        // Goal: a process without a flush thread, or before it runs, is not taken for one whose disk hangs, and afterwards the time
        // since the last sign counts. Method: ask before and after a sign.
        let watch = DiskWatch::default();
        assert_eq!(watch.silent_ms(1 << 40), 0);
        watch.sign();
        let signed_ms = watch.signed_ms.load(Ordering::Relaxed);
        assert_eq!(watch.silent_ms(signed_ms + 700), 700);
        assert_eq!(watch.silent_ms(signed_ms - 1), 0, "a sign that came after the clock was read");
    }

    #[test]
    fn a_silence_is_told_of_rarely() {
        // Goal: one line within ten seconds of the disk's last answer, one a minute, one at the end. Method: two silences, looked
        // at four times a second, by a clock that is a number.
        let mut report = DiskReport::default();
        assert_eq!(report.word(TOLD_MS - 1, 100_000), None);
        let words: Vec<_> = (0..=500).filter_map(|look| report.word(look * 250, 200_000 + look * 250)).collect();
        assert_eq!(words, [5_000, 65_000, 125_000].map(Word::Silent));
        assert_eq!(report.word(10, 400_000), Some(Word::Over(125_000)));
        assert_eq!(report.word(10, 400_250), None);
        assert_eq!(report.word(TOLD_MS, 500_000), Some(Word::Silent(TOLD_MS)));
    }
}
