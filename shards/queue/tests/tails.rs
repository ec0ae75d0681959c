//! Tails: bounds of memory, reuse of chunks, admission, waiters.

use super::super::limits::{CHUNK_ENTRIES, DIRECTORY_SLOTS, SLAB_CHUNKS, UNFLUSHED_SHARE};
use super::super::{ChunkArena, TailRead};
use super::*;
use crate::sim::{Fault, OperationKind, SimDisk};

fn slab_entries() -> u64 {
    u64::from(SLAB_CHUNKS) * CHUNK_ENTRIES
}

#[test]
fn memory_is_bounded_and_reused() {
    // Goal: a full pool refuses, a flush makes room, the oldest flushed chunks of any queue go first. Method: a pool of
    // one slab, filled by one queue, needed by another.
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 1000, 1);
    let (first, second) = (queue(&store, "first", 0), queue(&store, "second", 0));
    assert_eq!(fill(&first, &pool, 1, slab_entries() + 1), Err(TailFull));
    assert_eq!(first.published().0, slab_entries());
    assert_eq!(fill(&second, &pool, 2, 1), Err(TailFull));
    assert!(!second.can_append(&pool, 1));
    assert_eq!(store.arena().used_bytes(), store.arena().limit_bytes());
    assert_eq!(store.arena().limit_bytes(), u64::from(SLAB_CHUNKS) * ChunkArena::CHUNK_BYTES);

    let report = store.flush_dirty().unwrap();
    assert_eq!((report.queues, report.entries), (1, slab_entries()));
    assert!(second.can_append(&pool, 1));
    fill(&second, &pool, 2, 1).unwrap();
    let mut out = [QueueEntry::default()];
    assert_eq!(first.read(QueueOffset(0), &mut out), TailRead::NotInMemory);
    assert_eq!(first.read(QueueOffset(slab_entries() - 1), &mut out), TailRead::Read(1));
    assert_eq!(first.read(QueueOffset(slab_entries()), &mut out), TailRead::AtEnd);
    assert_entries(&store, &first, 1, 0, slab_entries());
    assert_entries(&store, &second, 2, 0, 1);
    assert_eq!(store.arena().allocated_bytes(), store.arena().limit_bytes());
}

#[test]
fn unflushed_entries_are_counted() {
    // Goal: the flush thread learns how full the tails are. Method: entries as the writer notes them, up to a share of the room
    // of a pool of one slab, a round that fails because of a write, one that works.
    let disk = SimDisk::new();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (store, pool) = store(&shared, 1000, 1);
    let queue = queue(&store, "counted", 0);
    let share = slab_entries() / UNFLUSHED_SHARE;
    fill(&queue, &pool, 1, share).unwrap();
    store.arena().note_appended(share - 1);
    assert!(!store.is_filling());
    store.arena().note_appended(1);
    assert!(store.is_filling());
    disk.inject(Fault::once(OperationKind::Write, 0, libc::EIO));
    store.flush_dirty().unwrap_err();
    assert!(store.is_filling());
    store.flush_dirty().unwrap();
    assert!(!store.is_filling());
}

#[test]
fn used_up_chunks_call_for_a_flush() {
    // Goal: with a few entries in each of very many queues the tails are full long before a share of their entries is used, and
    // the flush thread learns of it. Method: as many queues as there are chunks, with one entry each, one more, a flush.
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 1000, 1);
    for number in 0..SLAB_CHUNKS {
        assert!(!store.is_filling());
        fill(&queue(&store, "many", number), &pool, 1, 1).unwrap();
        store.arena().note_appended(1);
    }
    let last = queue(&store, "last", 0);
    assert!(!last.can_append(&pool, 1));
    assert!(store.is_filling());
    store.flush_dirty().unwrap();
    assert!(!store.is_filling() && last.can_append(&pool, 1));
}

#[test]
fn directory_grows_only_for_unflushed_entries() {
    // Goal: one queue can hold as much as its largest directory, no more, and all of it is readable. Method: fill to the
    // refusal, ask for admission around the limit, flush, go on.
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 300_000, 64 << 20);
    let queue = queue(&store, "busy", 0);
    let capacity = DIRECTORY_SLOTS[2] * CHUNK_ENTRIES;
    assert!(queue.can_append(&pool, capacity) && !queue.can_append(&pool, capacity + 1));
    assert_eq!(fill(&queue, &pool, 3, capacity + 1), Err(TailFull));
    assert_eq!((queue.published().0, queue.unflushed_percent()), (capacity, 100));
    assert_eq!(store.unflushed_percent(), 100);
    let mut out = [QueueEntry::default(); 300];
    for from in [0, 64 * CHUNK_ENTRIES - 1, 1024 * CHUNK_ENTRIES - 150, capacity - 300] {
        assert_eq!(queue.read(QueueOffset(from), &mut out), TailRead::Read(300));
        assert!((0..300).all(|index| out[index as usize] == entry(3, from + index)));
    }
    // One queue calls for a flush although all tails together have room.
    assert!(store.arena().unflushed_entries() == 0 && !queue.can_append(&pool, 1) && store.is_filling());
    assert_eq!(store.flush_dirty().unwrap().entries, capacity);
    assert!(!store.is_filling());
    assert!(queue.can_append(&pool, 1000));
    fill(&queue, &pool, 3, capacity + 1000).unwrap();
    assert_entries(&store, &queue, 3, capacity - 1000, capacity + 1000);
}

#[test]
fn bound_entries_count_for_admission() {
    // Goal: offsets that are bound but not appended yet are not promised twice. Method: take all, ask again.
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 1000, 64 << 20);
    let queue = queue(&store, "t", 0);
    assert_eq!(queue.take_offsets(DIRECTORY_SLOTS[2] * CHUNK_ENTRIES), QueueOffset(0));
    assert!(!queue.can_append(&pool, 1));
    assert_eq!(queue.next_offset().0, DIRECTORY_SLOTS[2] * CHUNK_ENTRIES);
    assert_eq!(queue.bounds(), (QueueOffset(0), QueueOffset(0)));
}

#[test]
fn idle_queues_give_their_memory_back() {
    // Goal: more queues than chunks can be used one after the other, each continuing inside a chunk that it lost.
    // Method: three rounds over twice as many queues as there are chunks.
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 1000, 1);
    let queues: Vec<_> = (0..SLAB_CHUNKS * 2).map(|number| queue(&store, "many", number)).collect();
    for round in 1..=3 {
        for queue in &queues {
            if fill(queue, &pool, 7, round * 5).is_err() {
                store.flush_dirty().unwrap();
                fill(queue, &pool, 7, round * 5).unwrap();
            }
        }
    }
    queues.iter().for_each(|queue| assert_entries(&store, queue, 7, 0, 15));
}

#[test]
fn waiters_are_woken_once() {
    // Goal: the flag is taken by one publish, and arming sees what was published before. Method: the steps in turn.
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let (store, pool) = store(&disk, 1000, 1 << 20);
    let queue = queue(&store, "t", 0);
    assert_eq!(queue.arm_waiters(0, QueueOffset(0)), None);
    assert_eq!(queue.arm_waiters(5, QueueOffset(0)), None);
    queue.append(&pool, entry(0, 0)).unwrap();
    assert_eq!(queue.publish(QueueOffset(1), StoreTimestamp(5)), 0b10_0001);
    assert_eq!(queue.publish(QueueOffset(1), StoreTimestamp(5)), 0);
    assert_eq!(queue.arm_waiters(0, QueueOffset(0)), Some(QueueOffset(1)));
    assert_eq!(queue.arm_waiters(0, QueueOffset(1)), None);
    assert_eq!(queue.publish(QueueOffset(1), StoreTimestamp(5)), 1);
    assert_eq!((queue.last_store_timestamp(), queue.physical_end()), (StoreTimestamp(5), PhysicalOffset(1100)));
}
