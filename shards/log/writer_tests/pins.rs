//! The ring is reused, but never under a reader.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::*;

/// Appends records until the writer says no for `turns` turns in a row. Returns how many went in.
fn fill(rig: &mut Rig, most: usize) -> usize {
    let mut refusals = 0;
    let mut count = 0;
    while count < most && refusals < 3 {
        match rig.offer(count % 3, &[1_500], true) {
            Ok(_) => {
                refusals = 0;
                count += 1;
            }
            Err(AppendError::SegmentPending) => rig.add_segment(),
            Err(AppendError::RingFull) => {
                refusals += 1;
                rig.run();
            }
            Err(error) => panic!("{error}"),
        }
    }
    rig.run();
    count
}

/// Goal: the ring goes round, and tail readers always find the most recent headroom of it. Method: ten rings of records; the rig
/// compares what the ring claims to hold after each turn.
#[test]
fn the_ring_goes_round() {
    let mut rig = Rig::new(Shape::default());
    assert_eq!(fill(&mut rig, 430), 430);
    assert!(rig.writer.end() > 10 * (64 << 10));
    let kept = rig.view.confirmed() - rig.view.floor();
    assert!((24 << 10..=32 << 10).contains(&kept), "{kept}");
}

/// Goal: a pinned range is never overwritten; the writer waits instead, and goes on when it is let go. Method: pin the first record
/// that the ring holds and append until the writer refuses.
#[test]
fn the_writer_waits_for_pins() {
    let mut rig = Rig::new(Shape::default());
    fill(&mut rig, 40);
    let floor = rig.view.floor();
    let (pinned, record) = rig.records.range(floor..).next().map(|(at, record)| (*at, record.clone())).unwrap();
    assert!(rig.view.pin(1, pinned) && rig.view.is_pinned(1));
    let room = fill(&mut rig, 1000);
    assert!(room < 64, "{room} records went into a ring of 43");
    let mut bytes = vec![0; record.bytes.len()];
    let mut seen = Vec::new();
    rig.view.append_pinned(1, pinned, bytes.len(), &mut seen);
    assert_eq!(seen, record.bytes);
    assert!(!rig.view.copy(0, pinned, &mut bytes), "the floor has passed it: new readers are sent to the file");
    assert!(!rig.view.is_pinned(0));
    rig.view.unpin(1);
    assert_eq!(fill(&mut rig, 100), 100);
}

/// Goal: memory that is not pinned is never copied as if it were. Method: a range below the slot's pin, and one behind the
/// confirmed offset.
#[test]
fn only_pinned_memory_is_appended() {
    let mut rig = Rig::new(Shape::default());
    fill(&mut rig, 40);
    let (floor, confirmed) = (rig.view.floor(), rig.view.confirmed());
    assert!(rig.view.pin(1, floor + 100));
    let panics = |slot: usize, physical: u64, length: usize| {
        let append = || rig.view.append_pinned(slot, physical, length, &mut Vec::new());
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(append)).is_err()
    };
    assert!(!panics(1, floor + 100, 8) && !panics(1, confirmed - 8, 8));
    assert!(panics(1, floor + 99, 8) && panics(0, floor + 100, 8), "not pinned");
    assert!(panics(1, confirmed - 8, 9), "not confirmed");
}

/// Goal: the check of waiting writers notices one that looks at no pins. Method: plant that.
#[test]
fn ignored_pins_are_noticed() {
    let mut rig = Rig::new(Shape::default());
    rig.writer.plant(PlantedBug::IgnorePins);
    fill(&mut rig, 40);
    let (pinned, record) =
        rig.records.range(rig.view.floor()..).next().map(|(at, record)| (*at, record.clone())).unwrap();
    assert!(rig.view.pin(1, pinned));
    assert_eq!(fill(&mut rig, 100), 100);
    // SAFETY: one thread.
    assert_ne!(unsafe { rig.view.ring.slice(pinned, record.bytes.len()) }, record.bytes);
}

/// Goal: a slot keeps the lowest of its pins, and a refused pin changes nothing. Method: the steps in turn.
#[test]
fn a_slot_keeps_its_lowest_pin() {
    let mut rig = Rig::new(Shape::default());
    fill(&mut rig, 60);
    let floor = rig.view.floor();
    assert!(rig.view.pin(0, floor + 5_000));
    assert!(rig.view.pin(0, floor + 9_000));
    assert_eq!(rig.view.lowest_pin(), floor + 5_000);
    assert!(!rig.view.pin(0, floor - 1));
    assert_eq!(rig.view.lowest_pin(), floor + 5_000);
    assert!(rig.view.pin(0, floor));
    assert_eq!(rig.view.lowest_pin(), floor);
    let mut byte = [0];
    assert!(rig.view.copy(0, floor + 100, &mut byte));
    assert_eq!(rig.view.lowest_pin(), floor, "a copy keeps the pin");
    assert!(!rig.view.copy(0, rig.view.confirmed(), &mut byte), "nothing behind the confirmed offset is copied");
    rig.view.unpin(0);
    assert_eq!(rig.view.lowest_pin(), u64::MAX);
}

/// What a reading thread has met: records that it could pin, and others.
#[derive(Debug, Default)]
struct Met {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Met {
    fn is_enough(&self) -> bool {
        self.hits.load(Ordering::Relaxed) >= 1_000 && self.misses.load(Ordering::Relaxed) >= 100
    }
}

/// What a reading thread does: remembers where records were, and reads them again under a pin.
fn read_again(view: &LogView, slot: usize, stop: &AtomicBool, met: &Met) {
    let mut known: Vec<u64> = Vec::new();
    let mut random = SimRandom::new(slot as u64);
    while !stop.load(Ordering::Relaxed) {
        if let Some((_, last)) = view.confirmed_record()
            && known.last() != Some(&last)
        {
            known.push(last);
        }
        let Some(back) = known.len().checked_sub(1) else { continue };
        let physical = known[back - random.below(back as u64 + 1).min(60) as usize];
        if !view.pin(slot, physical) {
            met.misses.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        for round in 0..2 {
            // SAFETY: confirmed and pinned: the protocol under test says that nobody writes there.
            let header = unsafe { view.ring.slice(physical, 4) };
            let size = u32::from_be_bytes(header.try_into().unwrap()) as usize;
            assert!((100..4096).contains(&size), "{size}");
            // SAFETY: as above.
            let record = RecordView::parse(unsafe { view.ring.slice(physical, size) }, CrcCheck::Verify).unwrap();
            assert_eq!(record.physical_offset() as u64, physical);
            assert!(record.body().iter().all(|byte| *byte == (physical % 251) as u8));
            if round == 0 && random.chance(1, 4) {
                thread::yield_now();
            }
        }
        view.unpin(slot);
        met.hits.fetch_add(1, Ordering::Relaxed);
    }
}

/// Goal: floor and pins hold between threads. Method: two readers pin and read records, old and new, CRC and all, while the writer
/// goes round the ring as fast as it can; a byte that changes under a pin breaks a record.
#[test]
fn readers_and_writer_never_meet() {
    let mut rig = Rig::new(Shape { pool_bytes: 8 << 20, ..Shape::default() });
    let (stop, met) = (AtomicBool::new(false), [Met::default(), Met::default()]);
    let view = Arc::clone(&rig.view);
    thread::scope(|scope| {
        let readers: Vec<_> = met
            .iter()
            .enumerate()
            .map(|(slot, met)| {
                let (view, stop) = (&view, &stop);
                scope.spawn(move || read_again(view, slot, stop, met))
            })
            .collect();
        let mut random = SimRandom::new(3);
        let mut appended = 0;
        let mut turn_is_over = false;
        // At least this many records, and until each reader had its share, or has found something wrong.
        let is_over = || met.iter().all(Met::is_enough) || readers.iter().any(|reader| reader.is_finished());
        while appended < 20_000 || !is_over() {
            let size = 100 + random.below(1_500) as usize;
            match rig.offer((appended % 3) as usize, &[size], true) {
                Ok(_) => appended += 1,
                Err(AppendError::SegmentPending) => {
                    rig.add_segment();
                    // The model is not compared here; old files and records are of no interest.
                    let oldest = rig.writer.end().saturating_sub(1 << 20);
                    rig.files.retain(|start, _| *start >= oldest);
                    rig.records = rig.records.split_off(&oldest);
                }
                Err(AppendError::QueueFull) => _ = rig.store.flush_dirty().unwrap(),
                Err(AppendError::RingFull) => {
                    thread::yield_now();
                    turn_is_over = true;
                }
                Err(error) => panic!("{error}"),
            }
            if turn_is_over || appended % 4 == 0 {
                turn_is_over = false;
                rig.write_all();
                rig.writer.settle(rig.now.steady_ms, &mut rig.heard);
                rig.heard.settled.clear();
                rig.requests.clear();
                rig.writer.begin_turn();
            }
        }
        stop.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}
