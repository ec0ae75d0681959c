use std::path::Path;

use ringmq_protocol::record::{CrcCheck, RecordFields, bind_record, encode_record, record_length};
use ringmq_shards::queue::{QueueEntry, Rebuilt};
use ringmq_shards::sim::{Fault, FaultAction, OperationKind, SimDisk};

use super::*;

const BARRIER: PhysicalOffset = PhysicalOffset(2_000);

/// Which of three queues are left: one of the deleted topic whose last entry lies behind a cut, one as the deletion left
/// it, and one of the topic that was made again.
fn left(rebuilt_from: Option<PhysicalOffset>) -> Vec<u32> {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let config = QueueStoreConfig { file_entries: 10, open_files: 4, pool_bytes: 1 << 20 };
    let (queues, pool) = QueueStore::new(disk, Path::new("/store/consumequeue"), config);
    for (number, entries) in [[1_000, 9_000], [1_100, 1_200], [2_000, 2_100]].iter().enumerate() {
        let queue = queues.get_or_create("again", QueueId(number as u32)).unwrap();
        for (offset, physical) in entries.iter().enumerate() {
            let entry = QueueEntry { physical: PhysicalOffset(*physical), size: 100, tags_code: 0 };
            let offset = QueueOffset(offset as u64);
            let added = queues.rebuild_append(&pool, &queue, offset, entry, StoreTimestamp(1)).unwrap();
            assert_eq!(added, Rebuilt::Appended);
        }
    }
    queues.flush_dirty().unwrap();
    let mut offsets = QueueOffsets::default();
    offsets.barriers.insert("again".to_owned(), BARRIER);
    remove_deleted_topics(&queues, &offsets, rebuilt_from).unwrap();
    queues.topic_queues("again").iter().map(|queue| queue.queue_id().0).collect()
}

/// Goal: no file of a deleted topic is taken for one of the topic that was made again, and none of that goes which the log
/// does not give again. Method: the log is read from the barrier at the latest, from behind it, or not at all.
#[test]
fn files_of_deleted_topics_go() {
    assert_eq!(left(Some(PhysicalOffset(500))), [0; 0]);
    assert_eq!(left(Some(BARRIER)), [0; 0]);
    for rebuilt_from in [Some(PhysicalOffset(2_100)), None] {
        let left = left(rebuilt_from);
        assert!(!left.contains(&1) && left.contains(&2), "{rebuilt_from:?}: {left:?}");
    }
}

/// Goal: what was stored in a topic after it was made again is there, whoever deleted it. Method: records as a recovery finds
/// them behind the point that the sidecar knows: the last ones of a queue that another broker deleted, then those of its
/// successor; twice, since a recovery may be repeated.
#[test]
fn a_queue_whose_offsets_fall_back_to_zero_begins_anew() {
    let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
    let config = QueueStoreConfig { file_entries: 4, open_files: 4, pool_bytes: 1 << 20 };
    let root = Path::new("/store/consumequeue");
    for round in 0..2 {
        let (queues, pool) = QueueStore::new(Arc::clone(&disk), root, config);
        queues.load(FilesLeft::Written).unwrap();
        let offsets = QueueOffsets::default();
        let (from, known_below) = (Some(PhysicalOffset(0)), PhysicalOffset(0));
        let mut sink = Rebuild {
            queues: &queues,
            pool: &pool,
            offsets: &offsets,
            from,
            topics: None,
            deleted_below: PhysicalOffset(0),
            lost: None,
            known_below,
            some_know_below: PhysicalOffset(0),
            begins: TopicBegins::default(),
            lacks_below: None,
        };
        for (number, offset) in [57, 58, 59, 60, 61, 62, 0, 1, 2].into_iter().enumerate() {
            let physical = PhysicalOffset(1_000 + 200 * number as u64);
            let fields = RecordFields::plain("again", 0, b"body", b"");
            let mut record = vec![0; record_length(&fields)];
            encode_record(&fields, &mut record);
            bind_record(&mut record, offset, physical.0 as i64, 1_000_000);
            sink.record(&RecordView::parse(&record, CrcCheck::Verify).unwrap(), physical).unwrap();
        }
        queues.flush_dirty().unwrap();
        let queue = queues.get("again", QueueId(0)).expect("it is there");
        assert_eq!(queue.bounds(), (QueueOffset(0), QueueOffset(3)), "round {round}");
        let mut entries = [QueueEntry::default(); 3];
        assert_eq!(queues.read_entries(&queue, QueueOffset(0), &mut entries).unwrap(), 3);
        assert_eq!(entries.map(|entry| entry.physical.0), [2_200, 2_400, 2_600]);
    }
}

/// Goal: a topic that is made again begins at 0, even if the sidecar is written between the end of its queues and their
/// removal. Method: note the offsets of a retired queue beside one that is not.
#[test]
fn retired_queues_have_no_next_offset() {
    let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
    create_directories_durably(&disk, &paths.own()).unwrap();
    let (queues, pool) = QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
    for topic in ["gone", "orders"] {
        let queue = queues.get_or_create(topic, QueueId(0)).unwrap();
        let entry = QueueEntry { physical: PhysicalOffset(1_000), size: 100, tags_code: 0 };
        queues.rebuild_append(&pool, &queue, QueueOffset(0), entry, StoreTimestamp(1)).unwrap();
    }
    queues.get("gone", QueueId(0)).unwrap().retire();
    let offsets = Sidecar::default();
    note_queue_offsets(&disk, &paths, &queues, &offsets, 1_100, 0).unwrap();
    let noted = offsets.lock();
    assert_eq!(noted.next.keys().collect::<Vec<_>>(), ["orders"]);
}

/// Goal: memory never claims more of the sidecar than its file holds. Method: note twice, the second time with each of the
/// file's writes, renames and syncs failing.
#[test]
fn what_could_not_be_noted_counts_as_little_as_on_disk() {
    let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
    create_directories_durably(&disk, &paths.own()).unwrap();
    let (queues, pool) = QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
    let offsets = Sidecar::default();
    note_barrier(&offsets, "gone", BARRIER.0);
    let add = |offset| {
        let queue = queues.get_or_create("orders", QueueId(0)).unwrap();
        let entry = QueueEntry { physical: PhysicalOffset(1_000 + offset * 100), size: 100, tags_code: 0 };
        queues.rebuild_append(&pool, &queue, QueueOffset(offset), entry, StoreTimestamp(1)).unwrap();
    };
    add(0);
    let note = |end, minimum| note_queue_offsets(&disk, &paths, &queues, &offsets, end, minimum);
    note(1_100, 0).unwrap();
    let noted = offsets.lock().clone();
    assert_eq!((noted.log_offset, noted.barriers.len()), (PhysicalOffset(1_100), 1));
    add(1);
    for kind in [OperationKind::Write, OperationKind::Sync, OperationKind::Rename] {
        let action = FaultAction::Fail(libc::EIO);
        disk.inject(Fault { kind, path_contains: "queue-offsets".to_owned(), after: 0, times: 1, action });
        note(3_000, BARRIER.0).expect_err("it cannot be written");
        assert_eq!(*offsets.lock(), noted, "{kind:?}");
        assert_eq!(QueueOffsets::load(&disk, &paths).unwrap().unwrap().value, noted);
    }
    note(3_000, BARRIER.0).unwrap();
    let later = offsets.lock().clone();
    assert_eq!((later.log_offset, later.barriers.len()), (PhysicalOffset(3_000), 0));
    assert_eq!(QueueOffsets::load(&disk, &paths).unwrap().unwrap().value, later);
}

/// Goal: who looks at the sidecar or notes a barrier waits for no disk, and what is noted while the file is being written is not
/// forgotten. Method: a disk that hangs in the middle of it; a barrier; then a disk that goes on, and the file written again.
#[test]
fn barriers_can_be_noted_while_the_disk_hangs() {
    let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
    create_directories_durably(&disk, &paths.own()).unwrap();
    let (queues, _pool) = QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
    let sidecar = Sidecar::default();
    note_barrier(&sidecar, "before", 1_000);
    disk.hang("queue-offsets");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| note_queue_offsets(&disk, &paths, &queues, &sidecar, 1_100, 0));
        while sidecar.file.try_lock().is_ok() {
            std::thread::yield_now();
        }
        note_barrier(&sidecar, "meanwhile", BARRIER.0);
        let meanwhile = sidecar.lock().log_offset;
        disk.go_on();
        writing.join().expect("no panic").unwrap();
        assert_eq!(meanwhile, PhysicalOffset(0));
    });
    let known = sidecar.lock().clone();
    assert_eq!((known.log_offset, known.barriers.len()), (PhysicalOffset(1_100), 2));
    write_queue_offsets(&disk, &paths, &sidecar).unwrap();
    assert_eq!(QueueOffsets::load(&disk, &paths).unwrap().unwrap().value, known);
}
