//! Threads at once: the claims of the tail and the waiters' flag.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use super::super::TailRead;
use super::*;
use crate::sim::{SimDisk, SimRandom};

#[test]
fn readers_never_see_a_wrong_entry() {
    // Goal: the seqlock. Method: one writer fills two queues through a pool of one slab, so that chunks are reused all the
    // time, the flush thread follows, two readers read at random places. Every entry's content follows from its queue and
    // offset; what is not in memory must be flushed.
    const ENTRIES: u64 = 150_000;
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 20_000, 1);
    let queues = [queue(&store, "a", 0), queue(&store, "b", 0)];
    let done = AtomicBool::new(false);
    let hits = AtomicU64::new(0);
    thread::scope(|scope| {
        let (store, queues, done, hits) = (&store, &queues, &done, &hits);
        for seed in 0..2 {
            scope.spawn(move || {
                let mut random = SimRandom::new(seed);
                let mut out = [QueueEntry::default(); 200];
                while !done.load(Ordering::Relaxed) {
                    let which = random.below(2) as usize;
                    let queue = &queues[which];
                    let end = queue.published().0;
                    let from = end.saturating_sub(random.below(12_000));
                    match queue.read(QueueOffset(from), &mut out) {
                        TailRead::Read(count) => {
                            for (index, found) in out[..count].iter().enumerate() {
                                let offset = from + index as u64;
                                assert_eq!(*found, entry(which as u64, offset), "queue {which} at {offset}");
                            }
                            hits.fetch_add(1, Ordering::Relaxed);
                        }
                        TailRead::NotInMemory => assert!(from < queue.flushed().0, "{from} is lost"),
                        TailRead::AtEnd => assert!(from >= end),
                    }
                }
            });
        }
        scope.spawn(move || {
            while queues.iter().any(|queue| queue.flushed().0 < ENTRIES) {
                store.flush_dirty().unwrap();
                thread::yield_now();
            }
        });
        let mut random = SimRandom::new(9);
        while queues.iter().any(|queue| queue.published().0 < ENTRIES) {
            let which = random.below(2) as usize;
            let end = (queues[which].published().0 + 1 + random.below(200)).min(ENTRIES);
            if fill(&queues[which], &pool, which as u64, end).is_err() {
                thread::yield_now();
            }
        }
        while queues.iter().any(|queue| queue.flushed().0 < ENTRIES) {
            thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(hits.load(Ordering::Relaxed) > 0);
    for (which, queue) in queues.iter().enumerate() {
        assert_entries(&store, queue, which as u64, 0, ENTRIES);
    }
}

/// Waits until a counter reaches a value: spins, so that both sides start a round within nanoseconds, but not forever.
fn meet(counter: &AtomicU64, value: u64) {
    let mut spins = 0u32;
    while counter.load(Ordering::Acquire) < value {
        spins += 1;
        if spins.is_multiple_of(200) {
            thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

#[test]
fn no_wake_up_is_lost() {
    // Goal: when a publish and an arming of the flag meet, at least one side sees the other. Method: many rounds in which
    // both happen at nearly the same instant. It finds a wrong order of steps; that the fences are needed is argued at
    // `Queue::publish`, since how close two threads come is the machine's business.
    const ROUNDS: u64 = 20_000;
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 300_000, 16 << 20);
    let queue = queue(&store, "t", 0);
    let (begin, armed) = (AtomicU64::new(0), AtomicU64::new(0));
    let owner_saw = AtomicBool::new(false);
    thread::scope(|scope| {
        let (queue, begin, armed, owner_saw) = (&queue, &begin, &armed, &owner_saw);
        scope.spawn(move || {
            for round in 0..ROUNDS {
                meet(begin, round + 1);
                let saw = queue.arm_waiters(0, QueueOffset(round)).is_some();
                owner_saw.store(saw, Ordering::Relaxed);
                armed.store(round + 1, Ordering::Release);
            }
        });
        for round in 0..ROUNDS {
            // Takes the bit that the last round may have left.
            let _ = queue.publish(QueueOffset(round), StoreTimestamp(0));
            queue.append(&pool, entry(0, round)).unwrap();
            begin.store(round + 1, Ordering::Release);
            // Somewhere within the time that the other thread takes to notice.
            (0..round % 8).for_each(|_| std::hint::spin_loop());
            let writer_saw = queue.publish(QueueOffset(round + 1), StoreTimestamp(0)) != 0;
            meet(armed, round + 1);
            assert!(writer_saw || owner_saw.load(Ordering::Relaxed), "both slept through round {round}");
        }
    });
}
