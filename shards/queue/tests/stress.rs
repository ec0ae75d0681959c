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

#[test]
fn no_wake_up_is_lost() {
    // Goal: an owner that arms the flag and then sleeps until it is woken always gets on. Method: a writer publishes one
    // entry at a time; the owner waits for a wake-up whenever arming found nothing new. A lost one would hang the test.
    const ENTRIES: u64 = 20_000;
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 300_000, 16 << 20);
    let queue = queue(&store, "t", 0);
    let (wake, woken) = std::sync::mpsc::channel();
    thread::scope(|scope| {
        let queue = &queue;
        scope.spawn(move || {
            let mut seen = QueueOffset(0);
            while seen.0 < ENTRIES {
                seen = match queue.arm_waiters(seen) {
                    Some(published) => published,
                    None => {
                        woken.recv().unwrap();
                        queue.published()
                    }
                };
            }
        });
        for offset in 0..ENTRIES {
            queue.append(&pool, entry(0, offset)).unwrap();
            if queue.publish(QueueOffset(offset + 1), StoreTimestamp(0)) {
                // The owner may have seen the last entry already and be gone.
                let _ = wake.send(());
            }
        }
    });
}
