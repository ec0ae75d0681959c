//! When the oldest files of the log go, and when no more is taken in: a pure decision over files, clock and disk use.
//!
//! The rules are RocketMQ's (`DefaultMessageStore.CleanCommitLogService`): files older than the reserved time go in certain
//! hours, or when the disk is fuller than a first ratio, or when somebody asks; above a second ratio files go whatever their
//! age; above a third no message is taken until use is down to the second. What may go at all is the caller's to say:
//! [`Facts::removable_end`]. The file that is being written, and what is not yet durable everywhere, lie behind it.

use crate::types::PhysicalOffset;

/// RocketMQ keeps `diskMaxUsedSpaceRatio` within these, in percent.
const USED_RANGE: (u8, u8) = (10, 95);
/// The same for `diskSpaceCleanForciblyRatio`.
const FORCIBLE_RANGE: (u8, u8) = (30, 85);
/// The same for `diskSpaceWarningLevelRatio`.
const WARNING_RANGE: (u8, u8) = (35, 90);

/// The configured rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetentionRules {
    /// `fileReservedTime`, milliseconds since a file was last written.
    pub reserved_ms: u64,
    /// `deleteWhen`: bit `n` stands for the local hour `n`.
    pub delete_hours: u32,
    /// `diskMaxUsedSpaceRatio`, percent: above it expired files go at any hour.
    pub used_percent: u8,
    /// `diskSpaceCleanForciblyRatio`, percent: above it files go whatever their age.
    pub forcible_percent: u8,
    /// `diskSpaceWarningLevelRatio`, percent: above it no message is taken.
    pub warning_percent: u8,
    /// `cleanFileForciblyEnable`: whether the second ratio acts.
    pub cleans_forcibly: bool,
    /// `deleteFileBatchMax`: files per round.
    pub batch_files: usize,
}

impl RetentionRules {
    /// Brings the ratios within RocketMQ's bounds.
    #[must_use]
    pub fn clamped(self) -> Self {
        let within = |value: u8, (least, most): (u8, u8)| value.clamp(least, most);
        Self {
            used_percent: within(self.used_percent, USED_RANGE),
            forcible_percent: within(self.forcible_percent, FORCIBLE_RANGE),
            warning_percent: within(self.warning_percent, WARNING_RANGE),
            ..self
        }
    }
}

/// The hours of `deleteWhen` (numbers from 0 to 23, separated by `;`) as bits; the error names what is no hour.
pub fn parse_hours(text: &str) -> Result<u32, String> {
    let mut words = text.split(';').map(str::trim).filter(|word| !word.is_empty());
    words.try_fold(0, |hours, word| match word.parse::<u32>() {
        Ok(hour) if hour < 24 => Ok(hours | 1 << hour),
        _ => Err(format!("{word:?} is no hour: write numbers from 00 to 23, separated by ;")),
    })
}

/// One file of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogFile {
    /// Physical offset behind its last byte.
    pub end: PhysicalOffset,
    /// When it was last written, milliseconds since the epoch; `None` when that cannot be told: it then counts as fresh.
    pub modified_ms: Option<u64>,
}

/// What a decision looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The files, oldest first.
    pub files: &'a [LogFile],
    /// Only files that end at or below this may go. Never reaches into the file that is being written.
    pub removable_end: PhysicalOffset,
    /// The clock, milliseconds since the epoch.
    pub now_ms: u64,
    /// The local hour, 0 to 23.
    pub hour: u32,
    /// Used part of each file system that holds the store, percent; `None` when it cannot be told, which counts as above
    /// the first ratio, as in RocketMQ.
    pub disk_percents: &'a [Option<u8>],
    /// Whether somebody asked for it (`DELETE_EXPIRED_COMMITLOG`).
    pub is_asked: bool,
    /// Whether messages are refused now for want of space.
    pub is_full: bool,
}

/// Why files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Expired, and it is the hour.
    Hour,
    /// Expired, and the disk is fuller than the first ratio.
    Used,
    /// Expired, and somebody asked.
    Asked,
    /// The disk is fuller than the second ratio.
    Forced,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How many of the oldest files go.
    pub remove: usize,
    /// Why; `None` when none goes.
    pub reason: Option<Reason>,
    /// Whether messages are refused from now on for want of space.
    pub is_full: bool,
}

/// Decides. See the module's text.
pub fn decide(rules: &RetentionRules, facts: &Facts<'_>) -> Decision {
    let fullest = facts.disk_percents.iter().flatten().copied().max();
    let above = |percent: u8| fullest.is_some_and(|used| used > percent);
    let is_full = above(rules.warning_percent) || facts.is_full && above(rules.forcible_percent);
    let is_forced = rules.cleans_forcibly && (above(rules.forcible_percent) || above(rules.warning_percent));
    let is_used = above(rules.used_percent) || facts.disk_percents.iter().any(Option::is_none);
    let reason = if is_forced {
        Some(Reason::Forced)
    } else if rules.delete_hours & 1 << facts.hour != 0 {
        Some(Reason::Hour)
    } else if is_used {
        Some(Reason::Used)
    } else {
        facts.is_asked.then_some(Reason::Asked)
    };
    let is_expired = |file: &&LogFile| {
        let last = file.modified_ms.unwrap_or(u64::MAX);
        is_forced || facts.now_ms >= last.saturating_add(rules.reserved_ms)
    };
    // The last file stays whatever the caller says.
    let candidates = &facts.files[..facts.files.len().saturating_sub(1)];
    let goes = |file: &&LogFile| file.end <= facts.removable_end && is_expired(file);
    let remove = match reason {
        Some(_) => candidates.iter().take(rules.batch_files).take_while(goes).count(),
        None => 0,
    };
    Decision { remove, reason: reason.filter(|_| remove > 0), is_full }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const NOW_MS: u64 = 1_000 * HOUR_MS;

    fn rules() -> RetentionRules {
        RetentionRules {
            reserved_ms: 72 * HOUR_MS,
            delete_hours: 1 << 4,
            used_percent: 75,
            forcible_percent: 85,
            warning_percent: 90,
            cleans_forcibly: true,
            batch_files: 10,
        }
    }

    /// Files of these ages in hours, oldest first, each 100 bytes.
    fn files(ages: &[u64]) -> Vec<LogFile> {
        let file = |(index, age): (usize, &u64)| LogFile {
            end: PhysicalOffset(100 * (index as u64 + 1)),
            modified_ms: Some(NOW_MS - age * HOUR_MS),
        };
        ages.iter().enumerate().map(file).collect()
    }

    fn facts<'a>(files: &'a [LogFile], disk_percents: &'a [Option<u8>]) -> Facts<'a> {
        Facts {
            files,
            removable_end: PhysicalOffset(u64::MAX),
            now_ms: NOW_MS,
            hour: 12,
            disk_percents,
            is_asked: false,
            is_full: false,
        }
    }

    /// Each rule of RocketMQ in one row: when, how full, what was asked, and what goes for which reason.
    #[test]
    fn rules_of_rocketmq() {
        let old = files(&[100, 80, 71, 90, 1]);
        let decide_with = |used: Option<u8>, hour: u32, is_asked: bool| {
            decide(&rules(), &Facts { hour, is_asked, ..facts(&old, &[Some(3), used]) })
        };
        let gone = |decision: Decision| (decision.remove, decision.reason);
        assert_eq!(gone(decide_with(Some(75), 12, false)), (0, None));
        assert_eq!(gone(decide_with(Some(20), 4, false)), (2, Some(Reason::Hour)), "it stops at the first fresh file");
        assert_eq!(gone(decide_with(Some(76), 12, false)), (2, Some(Reason::Used)));
        assert_eq!(gone(decide_with(None, 12, false)), (2, Some(Reason::Used)));
        assert_eq!(gone(decide_with(Some(20), 12, true)), (2, Some(Reason::Asked)));
        assert_eq!(gone(decide_with(Some(86), 12, false)), (4, Some(Reason::Forced)), "the last file stays");
        let gentle = RetentionRules { cleans_forcibly: false, ..rules() };
        assert_eq!(gone(decide(&gentle, &facts(&old, &[Some(99)]))), (2, Some(Reason::Used)));
        let few = RetentionRules { batch_files: 1, ..rules() };
        assert_eq!(decide(&few, &facts(&old, &[Some(86)])).remove, 1);
        let held = Facts { removable_end: PhysicalOffset(199), ..facts(&old, &[Some(86)]) };
        assert_eq!(decide(&rules(), &held).remove, 1, "what may not go stays");
    }

    /// Refusing begins above the third ratio and ends at the second: a row per step.
    #[test]
    fn refusing_has_hysteresis() {
        let mut is_full = false;
        for (used, expected) in [(90, false), (91, true), (86, true), (90, true), (85, false), (90, false)] {
            is_full = decide(&rules(), &Facts { is_full, ..facts(&[], &[Some(used)]) }).is_full;
            assert_eq!(is_full, expected, "{used}");
        }
    }

    /// A clock that was set back, or a file from the future, removes nothing early; one set forward does what it says.
    #[test]
    fn clock_steps() {
        let old = files(&[100, 1]);
        let at = |now_ms: u64| decide(&rules(), &Facts { now_ms, hour: 4, ..facts(&old, &[Some(1)]) }).remove;
        assert_eq!((at(0), at(NOW_MS - 29 * HOUR_MS), at(NOW_MS - 28 * HOUR_MS), at(u64::MAX)), (0, 0, 1, 1));
        let unknown = [LogFile { end: PhysicalOffset(1), modified_ms: None }, old[1]];
        assert_eq!(decide(&rules(), &Facts { hour: 4, ..facts(&unknown, &[Some(1)]) }).remove, 0);
    }

    /// The forms of `deleteWhen`, right and wrong, and the bounds of the ratios.
    #[test]
    fn settings() {
        assert_eq!(parse_hours("04"), Ok(1 << 4));
        assert_eq!(parse_hours(" 0;23; "), Ok(1 | 1 << 23));
        assert!(parse_hours("24").is_err() && parse_hours("four").is_err() && parse_hours("-1").is_err());
        let wild = RetentionRules { used_percent: 99, forcible_percent: 0, warning_percent: 100, ..rules() }.clamped();
        assert_eq!((wild.used_percent, wild.forcible_percent, wild.warning_percent), (95, 30, 90));
    }

    proptest! {
        /// Whatever the facts: the last file and everything behind the removable end stay, and no more than a batch goes.
        #[test]
        fn never_too_much(
            ages in proptest::collection::vec(0u64..200, 0..30),
            end in 0u64..4_000,
            used in proptest::option::of(0u8..=100),
            hour in 0u32..24,
            is_asked in any::<bool>(),
        ) {
            let files = files(&ages);
            let disk = [used];
            let facts = Facts { removable_end: PhysicalOffset(end), hour, is_asked, ..facts(&files, &disk) };
            let decision = decide(&rules(), &facts);
            prop_assert!(decision.remove <= rules().batch_files && decision.remove <= files.len().saturating_sub(1));
            prop_assert!(files[..decision.remove].iter().all(|file| file.end.0 <= end));
        }
    }
}
