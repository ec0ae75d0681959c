//! Tests that need more than one part of the queue room.

mod durable;
mod files;
mod model;
mod stress;
mod tails;

use std::path::Path;
use std::sync::Arc;

use super::{ChunkPool, FilesLeft, Queue, QueueEntry, QueueStore, QueueStoreConfig, TailFull};
use crate::disk::Disk;
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

const ROOT: &str = "/store/consumequeue";

/// The entry that the tests put at an offset of a queue: everything in it follows from `seed` and the offset.
fn entry(seed: u64, offset: u64) -> QueueEntry {
    let tags_code = (seed ^ offset.wrapping_mul(0x9E37_79B9_7F4A_7C15)).cast_signed();
    QueueEntry { physical: PhysicalOffset(1000 + offset * 100), size: 100, tags_code }
}

/// A store with files of `file_entries` entries.
fn store(disk: &Arc<dyn Disk>, file_entries: u64, pool_bytes: u64) -> (QueueStore, ChunkPool) {
    let config = QueueStoreConfig { file_entries, open_files: 4, pool_bytes };
    QueueStore::new(Arc::clone(disk), Path::new(ROOT), config)
}

/// Loads the queues of a disk into a new store, as the next start would.
fn reopen(disk: &Arc<dyn Disk>, file_entries: u64, left: FilesLeft) -> (QueueStore, ChunkPool) {
    let (store, pool) = store(disk, file_entries, 1 << 20);
    store.load(left).unwrap();
    (store, pool)
}

fn queue(store: &QueueStore, topic: &str, number: u32) -> Arc<Queue> {
    store.get_or_create(topic, QueueId(number)).unwrap()
}

/// Appends and publishes entries up to `end`.
fn fill(queue: &Queue, pool: &ChunkPool, seed: u64, end: u64) -> Result<(), TailFull> {
    let mut result = Ok(());
    while result.is_ok() && queue.appended_end().0 < end {
        result = queue.append(pool, entry(seed, queue.appended_end().0));
    }
    let _ = queue.publish(queue.appended_end(), StoreTimestamp(1));
    result
}

/// Checks that a range of a queue reads back as it was filled.
fn assert_entries(store: &QueueStore, queue: &Queue, seed: u64, from: u64, end: u64) {
    let mut offset = from;
    let mut out = [QueueEntry::default(); 300];
    while offset < end {
        let count = store.read_entries(queue, QueueOffset(offset), &mut out).unwrap();
        assert!(count > 0, "{queue:?} has nothing at {offset}");
        for found in &out[..count] {
            assert_eq!(*found, entry(seed, offset), "{queue:?} at {offset}");
            offset += 1;
        }
    }
}
