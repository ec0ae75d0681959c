//! Something that is tried again until it works: the log tells of it when it begins, at most once a minute while it lasts, and
//! when it is over. A full disk lasts for hours and is met twice a second.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How often a trouble that lasts is told of.
const REMINDER_PERIOD: Duration = Duration::from_secs(60);

/// One thing that may fail for a while. Owned by whoever tries it.
#[derive(Debug)]
pub struct Trouble {
    /// What is said of it while it fails.
    failing: &'static str,
    /// And when it works again.
    working: &'static str,
    lasting: Option<Lasting>,
}

#[derive(Debug)]
struct Lasting {
    since: Instant,
    told: Instant,
}

/// What there is to say after a try.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// It fails, for so long by now.
    Fails(Duration),
    /// It works again after so long.
    Works(Duration),
}

impl Trouble {
    /// Something that works until now.
    pub const fn new(failing: &'static str, working: &'static str) -> Self {
        Self { failing, working, lasting: None }
    }

    /// Takes note of how a try ended, and logs it if it is news. True when it worked.
    pub fn note<E: Display>(&mut self, outcome: Result<(), E>) -> bool {
        let word = self.word(outcome.is_ok(), Instant::now());
        match (outcome, word) {
            (Err(error), Some(Word::Fails(lasted))) => {
                let (failing, lasts_s) = (self.failing, lasted.as_secs());
                tracing::warn!(%error, lasts_s, "{failing}");
                false
            }
            (Ok(()), Some(Word::Works(lasted))) => {
                let (working, lasted_s) = (self.working, lasted.as_secs());
                tracing::info!(lasted_s, "{working}");
                true
            }
            (outcome, _) => outcome.is_ok(),
        }
    }

    /// Whether the last try failed.
    pub fn lasts(&self) -> bool {
        self.lasting.is_some()
    }

    fn word(&mut self, works: bool, now: Instant) -> Option<Word> {
        match (&mut self.lasting, works) {
            (None, true) => None,
            (None, false) => {
                self.lasting = Some(Lasting { since: now, told: now });
                Some(Word::Fails(Duration::ZERO))
            }
            (Some(Lasting { since, .. }), true) => {
                let lasted = now.saturating_duration_since(*since);
                self.lasting = None;
                Some(Word::Works(lasted))
            }
            (Some(Lasting { since, told }), false) => {
                if now.saturating_duration_since(*told) < REMINDER_PERIOD {
                    return None;
                }
                *told = now;
                Some(Word::Fails(now.saturating_duration_since(*since)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line when it begins, one a minute, one when it ends. Method: two tries a second for some minutes, by a clock that
    /// is a number.
    #[test]
    fn a_trouble_is_told_of_rarely() {
        let (mut trouble, began) = (Trouble::new("fails", "works"), Instant::now());
        assert_eq!(trouble.word(true, began), None);
        let at = |half_seconds: u32| began + Duration::from_millis(500) * half_seconds;
        let words: Vec<_> = (0..=600).filter_map(|number| trouble.word(false, at(number))).collect();
        let minutes: Vec<_> = (0..=5).map(|minute| Word::Fails(Duration::from_secs(60 * minute))).collect();
        assert_eq!(words, minutes);
        assert!(trouble.lasts());
        assert_eq!(trouble.word(true, at(601)), Some(Word::Works(Duration::from_millis(300_500))));
        assert_eq!(trouble.word(true, at(602)), None);
        assert_eq!(trouble.word(false, at(603)), Some(Word::Fails(Duration::ZERO)));
    }
}
