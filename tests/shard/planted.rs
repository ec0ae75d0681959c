//! Mistakes on purpose: each is planted behind a switch that only tests have, and the ordinary checks must fail.
//!
//! | mistake | switch | noticed by |
//! |---|---|---|
//! | acknowledged before the write has completed | `PlantedBug::AcknowledgeUnwritten` | `held::an_acknowledgement_before_the_write_is_noticed`, `an_acknowledgement_before_the_write_is_lost_in_a_crash` |
//! | acknowledged before the sync | `PlantedBug::AcknowledgeUnsynced` | `held::an_acknowledgement_before_the_sync_is_noticed`, `an_acknowledgement_before_the_sync_is_lost_in_a_crash` |
//! | sync submitted before the write has completed | `PlantedBug::SyncClaimsWriteInFlight` | `held::a_sync_before_the_write_is_noticed` |
//! | wake-up before the message is confirmed | `PlantedBug::PublishUnconfirmed` | `held::a_wake_up_before_the_confirmation_is_noticed` |
//! | no zeroing after a cut | `PlantedMistake::NoZeroing` | `ghosts_behind_a_cut_are_noticed`; `a_missing_zeroing_is_noticed` beside recovery |
//! | an offset bound twice | `PlantedBug::BindOffsetTwice` | `an_offset_that_is_bound_twice_is_noticed` |
//! | durable point ahead | `PlantedMistake::DurablePointAhead` | `a_durable_point_that_is_ahead_is_noticed` |
//! | page cache called synced | `Mistake::ClaimUnsynced` | `a_claim_without_a_sync_is_noticed` |
//! | sidecar ignored | `PlantedMistake::SidecarIgnored` | `a_sidecar_that_is_ignored_is_noticed` |
//! | zeroing ahead of a writer that does not ask | `Mistake::IgnoreFrontier` | `a_writer_that_ignores_the_zeroing_is_noticed` |
//! | ring memory reused under a pin | `PlantedBug::IgnorePins` | `pins` beside the writer |
//! | rest of a page left as it was | `PlantedBug::LeaveRestOfPage` | `basics` beside the writer |
//!
//! The checks here are those of [`explore`](super::crash), which without a mistake pass in `crash::promises_survive_crashes` and
//! `crash::deletions_survive_crashes`.

use std::fmt::Debug;

use ringmq_shards::log::writer::PlantedBug;
use ringmq_shards::planted::PlantedMistake;

use super::crash::{Mistake, Setting, explore};
use super::world::Mode;

/// Explores with the mistake until it is noticed; the words must be in what the check says.
fn noticed(modes: &[impl Into<Setting> + Copy + Debug], deletes: bool, mistake: Mistake, words: &[&str]) {
    for mode in modes {
        let broken = (1..8).find_map(|seed| explore(*mode, seed, deletes, Some(mistake)).err());
        assert!(
            broken.as_ref().is_some_and(|broken| words.iter().any(|word| broken.contains(word))),
            "{mode:?}, {mistake:?} goes unnoticed: {broken:?}"
        );
    }
}

/// Goal: an acknowledgement from memory is noticed. Method: plant it, crash everywhere.
#[test]
fn an_acknowledgement_before_the_write_is_lost_in_a_crash() {
    noticed(&[Mode::SyncSeparate], false, Mistake::Writer(PlantedBug::AcknowledgeUnwritten), &["promised"]);
}

/// Goal: an acknowledgement without its sync is noticed. Method: plant it, crash everywhere.
#[test]
fn an_acknowledgement_before_the_sync_is_lost_in_a_crash() {
    noticed(&[Mode::SyncSeparate], false, Mistake::Writer(PlantedBug::AcknowledgeUnsynced), &["promised"]);
}

/// Goal: it is noticed when the page cache is called durable. Method: plant it, crash everywhere.
#[test]
fn a_claim_without_a_sync_is_noticed() {
    noticed(&[Mode::AsyncPageCache, Mode::AsyncDirect], false, Mistake::ClaimUnsynced, &["promised"]);
}

/// Goal: two records with one offset in their queue are noticed. Method: plant it in the writer, crash everywhere.
#[test]
fn an_offset_that_is_bound_twice_is_noticed() {
    noticed(&Mode::ALL, false, Mistake::Writer(PlantedBug::BindOffsetTwice), &["has offset"]);
}

/// Goal: stale bytes behind the end of the log are noticed. Method: recoveries that cut and do not zero.
#[test]
fn ghosts_behind_a_cut_are_noticed() {
    noticed(&Mode::ALL, false, Mistake::Planted(PlantedMistake::NoZeroing), &["ghosts behind"]);
}

/// Goal: a durable point above what was synced is noticed: after a power cut the log ends below it, and the start refuses.
/// Method: plant it; in SYNC_FLUSH everything that is confirmed is synced.
#[test]
fn a_durable_point_that_is_ahead_is_noticed() {
    let modes = [Mode::AsyncPageCache, Mode::AsyncDirect];
    noticed(&modes, false, Mistake::Planted(PlantedMistake::DurablePointAhead), &["although it was synced", "damaged"]);
}

/// Goal: it is noticed when a start does not know of deleted topics. Method: plant it, delete topics and make them again.
#[test]
fn a_sidecar_that_is_ignored_is_noticed() {
    noticed(
        &Mode::ALL,
        true,
        Mistake::Planted(PlantedMistake::SidecarIgnored),
        &["the log says", "continues it at", "is at"],
    );
}

/// Goal: zeros over bytes that were appended are noticed. Method: a writer that does not ask how far the log is zeroed.
#[test]
fn a_writer_that_ignores_the_zeroing_is_noticed() {
    noticed(&Setting::ZEROED, false, Mistake::IgnoreFrontier, &["promised", "has changed", "damaged", "synced"]);
}
