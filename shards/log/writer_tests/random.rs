//! Random lives of the writer against the model.

use super::*;

/// One random step. Returns a short name of it, for the trace.
fn step(rig: &mut Rig, random: &mut SimRandom) -> &'static str {
    match random.below(20) {
        0..=7 => {
            let queue = random.below(3) as usize;
            let count = if random.chance(1, 4) { 1 + random.below(6) } else { 1 };
            let most = [60, 900, 5_000][random.below(3) as usize];
            let sizes: Vec<usize> = (0..count).map(|_| overhead() + random.below(most) as usize).collect();
            match rig.offer(queue, &sizes, random.chance(3, 4)) {
                Err(AppendError::SegmentPending) if random.chance(1, 2) => rig.add_segment(),
                Err(AppendError::Failed | AppendError::DiskFull) => panic!("nothing failed"),
                Ok(_) | Err(_) => {}
            }
            "offer"
        }
        8..=9 => {
            rig.begin_write();
            "begin write"
        }
        10 => {
            rig.advance_write(random.below(6) as usize);
            "part of the write"
        }
        11..=12 => {
            rig.finish_write();
            "finish write"
        }
        13 => {
            rig.begin_sync();
            "begin sync"
        }
        14 => {
            rig.finish_sync();
            "finish sync"
        }
        15 => {
            rig.now.steady_ms += random.below(3_000);
            rig.now.wall_ms = (rig.now.wall_ms + random.below(3_000)).saturating_sub(random.below(1_000));
            "time"
        }
        16 => {
            let slot = random.below(2) as usize;
            if rig.view.is_pinned(slot) || random.chance(1, 2) {
                rig.view.unpin(slot);
            } else {
                let from = rig.view.floor().saturating_sub(500);
                rig.view.pin(slot, from + random.below(20_000));
            }
            "pin"
        }
        17 => {
            rig.store.flush_dirty().unwrap();
            "flush queues"
        }
        _ => {
            rig.writer.begin_turn();
            "turn"
        }
    }
}

/// Ends a life: everything completes, and then everything is confirmed, shown and answered.
fn finish(rig: &mut Rig) {
    (0..2).for_each(|slot| rig.view.unpin(slot));
    for _ in 0..4 {
        rig.finish_write();
        rig.write_all();
        rig.finish_sync();
        if rig.begin_sync().is_some() {
            rig.finish_sync();
        }
        rig.store.flush_dirty().unwrap();
        rig.settle();
    }
    assert!(rig.writer.is_idle());
    assert!(rig.requests.iter().all(|request| request.answers.len() == 1));
    for (index, queue) in rig.queues.iter().enumerate() {
        assert_eq!(queue.published().0, rig.next_offsets[index]);
    }
    if let Some((last, record)) = rig.records.last_key_value() {
        assert_eq!(rig.view.confirmed(), last + record.bytes.len() as u64);
    }
    for (physical, record) in &rig.records {
        assert_eq!(rig.in_file(*physical, record.bytes.len()), record.bytes, "the record at {physical}");
    }
}

/// Goal: whatever the order of appends, completions, pins and turns, the rules hold after each step. Method: random lives in every
/// mode, with small rings and segments, compared with the model; the seed is part of the message.
#[test]
fn random_lives() {
    let mut confirmed = 0;
    for seed in 0..120 {
        let mut random = SimRandom::new(seed);
        let (flush_mode, write_kind) = [
            (FlushMode::Async, WriteKind::Volatile),
            (FlushMode::Sync, WriteKind::Volatile),
            (FlushMode::Sync, WriteKind::Durable),
        ][(seed % 3) as usize];
        let shape = Shape {
            ring_bytes: 16 << (10 + random.below(4)),
            segment_bytes: 8 << (10 + random.below(3)),
            flush_mode,
            write_kind,
            pool_bytes: 1 << 20,
            start: random.below(8_000),
        };
        let mut rig = Rig::new(shape);
        let mut trace = Vec::new();
        for _ in 0..500 {
            trace.push(step(&mut rig, &mut random));
            if random.chance(1, 3) {
                rig.writer.settle(rig.now.steady_ms, &mut rig.heard);
            }
            if let Some(broken) = rig.broken_rule() {
                panic!("seed {seed}, {shape:?}, after {:?}: {broken}", &trace[trace.len().saturating_sub(12)..]);
            }
        }
        finish(&mut rig);
        confirmed += rig.records.len();
    }
    assert!(confirmed > 5_000, "the lives are too quiet: {confirmed} records");
}

/// Goal: the random lives would find each planted mistake. Method: plant it, and expect a broken rule within a few lives. (That a
/// sync covers only completed writes is asserted by the rig itself when it takes a sync.)
#[test]
fn random_lives_find_planted_mistakes() {
    for bug in [PlantedBug::AcknowledgeUnwritten, PlantedBug::AcknowledgeUnsynced, PlantedBug::PublishUnconfirmed] {
        let found = (0..20).any(|seed| {
            let mut random = SimRandom::new(seed);
            let mut rig = Rig::new(SYNC);
            rig.writer.plant(bug);
            (0..400).any(|_| {
                step(&mut rig, &mut random);
                rig.writer.settle(rig.now.steady_ms, &mut rig.heard);
                rig.broken_rule().is_some()
            })
        });
        assert!(found, "{bug:?} goes unnoticed");
    }
}

/// Goal: as above, for a sync that claims the write in flight. Method: as above; the rig's assertion has to strike.
#[test]
#[should_panic(expected = "a sync covers completed writes")]
fn random_lives_find_a_sync_that_claims_too_much() {
    for seed in 0..20 {
        let mut random = SimRandom::new(seed);
        let mut rig = Rig::new(SYNC);
        rig.writer.plant(PlantedBug::SyncClaimsWriteInFlight);
        (0..400).for_each(|_| _ = step(&mut rig, &mut random));
    }
}
