//! Syncs of queue files that fail, and pages that were lost before a start.

use super::*;
use crate::queue::QueueError;
use crate::sim::{CrashPattern, Fault, OperationKind, SimDisk};

/// Entries of a file in these tests.
const FILE_ENTRIES: u64 = 100;

fn sim() -> (Arc<SimDisk>, Arc<dyn Disk>) {
    let sim = Arc::new(SimDisk::new());
    (Arc::clone(&sim), sim)
}

/// Three queues of 150 entries in two files each, written and not synced; the first file of each is durable.
fn three_queues(disk: &Arc<dyn Disk>) -> (QueueStore, ChunkPool) {
    let (store, pool) = store(disk, FILE_ENTRIES, 1 << 20);
    for number in 0..3 {
        let queue = queue(&store, "t", number);
        fill(&queue, &pool, u64::from(number), 150).unwrap();
    }
    store.flush_dirty().unwrap();
    (store, pool)
}

/// A sync that fails is final: nothing is forgotten, and no later sync says that all is well, whether of all files or of the
/// one before a new file. Fail each of the syncs in turn; the disk itself succeeds afterwards.
#[test]
fn a_failed_sync_is_final() {
    let syncs = {
        let (sim, disk) = sim();
        let (store, _pool) = three_queues(&disk);
        let before = (sim.count(OperationKind::Sync), sim.count(OperationKind::SyncDirectory));
        store.sync().unwrap();
        assert_eq!(store.unsynced_files(), 0);
        (sim.count(OperationKind::Sync) - before.0, sim.count(OperationKind::SyncDirectory) - before.1)
    };
    assert!(syncs.0 >= 3 && syncs.1 >= 3, "{syncs:?}");
    let each = |kind, count| (0..count).map(move |after| (kind, after));
    for (kind, after) in each(OperationKind::Sync, syncs.0).chain(each(OperationKind::SyncDirectory, syncs.1)) {
        let (sim, disk) = sim();
        let (store, pool) = three_queues(&disk);
        let unsynced = store.unsynced_files();
        sim.inject(Fault::once(kind, after, libc::EIO));
        let error = store.sync().unwrap_err();
        assert!(matches!(error, QueueError::SyncFailed { .. }) && error.is_final(), "{kind:?} {after}: {error}");
        assert_eq!(store.unsynced_files(), unsynced, "{kind:?} {after}");
        assert!(matches!(store.sync(), Err(QueueError::SyncedNoMore)), "{kind:?} {after}");
        fill(&queue(&store, "t", 0), &pool, 0, 250).unwrap();
        let error = store.flush_dirty().unwrap_err();
        assert!(error.is_final(), "{kind:?} {after}: {error}");
    }
}

/// A file that cannot be opened for its sync has lost nothing: the next sync covers it and all others. Fail the opening once,
/// with a cache of one handle, then sync again and cut the power.
#[test]
fn a_sync_that_could_not_begin_is_made_up_for() {
    for after in 0..2 {
        let (sim, disk) = sim();
        crate::disk::create_directories_durably(&*disk, Path::new(ROOT)).unwrap();
        let config = QueueStoreConfig { file_entries: FILE_ENTRIES, open_files: 1, pool_bytes: 1 << 20 };
        let (store, pool) = QueueStore::new(Arc::clone(&disk), Path::new(ROOT), config);
        for number in 0..3 {
            fill(&queue(&store, "t", number), &pool, u64::from(number), 50).unwrap();
        }
        store.flush_dirty().unwrap();
        sim.inject(Fault::once(OperationKind::Open, after, libc::EMFILE));
        let error = store.sync().unwrap_err();
        assert!(!error.is_final(), "{error}");
        assert_eq!(store.unsynced_files(), 3);
        assert_eq!(store.sync().unwrap(), 3);
        let disk: Arc<dyn Disk> = Arc::new(sim.crash(1, CrashPattern::KeepNone));
        let (store, _pool) = reopen(&disk, FILE_ENTRIES, FilesLeft::Uncertain);
        for number in 0..3 {
            let queue = queue(&store, "t", number);
            assert_eq!(queue.bounds().1, QueueOffset(50));
            assert_entries(&store, &queue, u64::from(number), 0, 50);
        }
    }
}

/// A process dies with a failed sync that nobody has told of; the page cache still shows the entries. The next one believes it,
/// and finds out with its first sync, from the disk itself. Without a failure the proof is given; entries that were durable
/// before are not looked at.
#[test]
fn entries_that_the_disk_lost_are_noticed() {
    for fails in [false, true] {
        let (sim, disk) = sim();
        let (store, pool) = three_queues(&disk);
        store.sync().unwrap();
        for number in 0..3 {
            fill(&queue(&store, "t", number), &pool, u64::from(number), 190).unwrap();
        }
        store.flush_dirty().unwrap();
        if fails {
            sim.inject(Fault::once(OperationKind::Sync, 1, libc::EIO));
            assert!(store.sync().is_err());
        }
        let killed = sim.kill();
        let disk: Arc<dyn Disk> = Arc::new(killed.clone());
        let (store, _pool) = reopen(&disk, FILE_ENTRIES, FilesLeft::Whole);
        store.mark_all_unsynced();
        store.owe_proof(entry(0, 150).physical).unwrap();
        assert_entries(&store, &queue(&store, "t", 0), 0, 150, 190);
        let before = killed.operations().len();
        match store.sync() {
            Ok(_) => assert!(!fails),
            Err(error) => assert!(fails && matches!(error, QueueError::Lost { .. }) && error.is_final(), "{error}"),
        }
        let looked_at = |name: &str| {
            let is_it = |operation: &crate::sim::Operation| {
                operation.kind == OperationKind::Read && operation.path.ends_with(name)
            };
            killed.operations()[before..].iter().any(is_it)
        };
        assert!(looked_at("00000000000000002000") && !looked_at("00000000000000000000"));
    }
}
