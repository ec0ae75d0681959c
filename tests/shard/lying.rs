//! Disks that say a sync is done when it is not.
//!
//! Nobody can keep a promise on such a disk, so the limit is this: what is lost below the durable point is noticed, and the start
//! refuses with the place; what is lost at or above it looks like any torn tail and is cut, acknowledged or not. A gap in files that
//! a start does not read is found when a consumer gets there, or by the store doctor. Never is anything served that was not written.

use ringmq_shards::disk::read_file;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::sim::judge::{Before, Decision, Known, Start, judge};
use ringmq_shards::sim::{CrashPattern, Fault, FaultAction, OperationKind, SimRandom};

use super::crash::{RING_BYTES, ROOT, SEGMENT_BYTES, begin, is_sync, open, power_on, promised};
use super::world::Mode;

const SEEDS: u64 = 100;

/// How often what happened.
#[derive(Debug, Default)]
struct Seen {
    /// Refused as damage.
    refused: u64,
    /// Cut like a torn tail, with what had been acknowledged as durable.
    cut: u64,
    /// A gap in a file that the start did not read.
    unread: u64,
    /// Nothing that was promised is missing.
    whole: u64,
}

/// Goal: see the module. Method: a broker at work on a disk that begins to lie about its log, and in half of the cases about the
/// durable point, for one sync, for some or for ever; then the power goes. What the next start does is compared with the judge's
/// decision, and what it keeps with what was written.
#[test]
fn a_lying_disk_is_noticed_or_looks_torn() {
    let mut all = [0; 4];
    for mode in Mode::ALL {
        let mut seen = Seen::default();
        for seed in 0..SEEDS {
            lie(mode, seed, &mut seen);
        }
        println!(
            "figures: mode={mode:?} seeds={SEEDS} refused={} cut={} unread={} whole={} wrong_messages=0",
            seen.refused, seen.cut, seen.unread, seen.whole
        );
        assert!(seen.refused > 0 && seen.cut > 0 && seen.whole > 0, "{mode:?}: {seen:?}");
        for (sum, count) in all.iter_mut().zip([seen.refused, seen.cut, seen.unread, seen.whole]) {
            *sum += count;
        }
    }
    assert!(all.iter().all(|sum| *sum > 0), "every outcome is met: {all:?}");
}

fn lie(mode: Mode, seed: u64, seen: &mut Seen) {
    let (disk, mut past) = begin(mode, seed);
    let mut random = SimRandom::new(seed);
    let mut life = open(&disk, mode, seed + 1).expect("a killed store opens");
    let at_kill = promised(mode, &past, true);
    life.check(&mut past, at_kill).expect("the disk was honest");
    let kind = if mode == Mode::SyncDurable { OperationKind::Write } else { OperationKind::Sync };
    let times = [1, 3, u64::MAX][random.below(3) as usize];
    let after = random.below(12);
    disk.inject(Fault { kind, path_contains: "commitlog".into(), after, times, action: FaultAction::Lie });
    if random.chance(1, 2) {
        // What is said of the log is lost as well.
        let kind = OperationKind::Sync;
        disk.inject(Fault { kind, path_contains: "durable-point".into(), after: 0, times, action: FaultAction::Lie });
    }
    life.work(&mut past, 80);
    drop(life);
    let pattern = CrashPattern::ALL[random.below(5) as usize];
    let crashed = disk.crash(random.next_u64(), pattern);
    power_on(&crashed, &mut random);

    let context = format!("{mode:?}, seed {seed}, {times} lies after {after}, {pattern:?}");
    let paths = StorePaths::new(ROOT);
    let before = Before {
        segment_bytes: SEGMENT_BYTES,
        records: past.records.iter().map(|(at, record)| (*at, record.bytes.clone())).collect(),
        durable_point: read_file(&crashed, &paths.durable_point()).expect("read").unwrap_or_default(),
    };
    let start = Start { salvage: false, group_bytes: is_sync(mode).then_some(RING_BYTES as u64) };
    let judgement = judge(&crashed, &paths, &before, start).expect("the disk in memory does not fail");
    let judgement = judgement.expect("nothing else is lied about");
    let promise = promised(mode, &past, false);
    match (open(&crashed, mode, 0), &judgement.decision) {
        (Ok(life), Decision::Open { end, .. }) => {
            assert_eq!(life.storage.recovered.end.0, *end, "{context}");
            let durable = match judgement.known {
                Known::Below { offset, .. } => offset,
                Known::Nothing | Known::Lost => 0,
            };
            assert!(*end >= durable, "{context}: opened up to {end}, synced up to {durable}");
            let is_unread = past.records.keys().any(|at| *at < judgement.from && !judgement.intact.contains_key(at));
            if is_unread {
                seen.unread += 1;
                return;
            }
            let is_cut = past.records.iter().any(|(at, record)| at + record.bytes.len() as u64 <= promise && at >= end);
            life.check(&mut past, durable).unwrap_or_else(|broken| panic!("{context}: {broken}"));
            if is_cut {
                seen.cut += 1;
            } else {
                seen.whole += 1;
            }
        }
        (Err(text), decision) => {
            assert!(!matches!(decision, Decision::Open { .. }), "{context}: {decision:?}, refused for {text}");
            assert!(decision.words().iter().all(|word| text.contains(word)), "{context}: {decision:?}: {text}");
            seen.refused += 1;
        }
        (Ok(life), decision) => {
            panic!("{context}: opened up to {}, had to be {decision:?}", life.storage.recovered.end)
        }
    }
}
