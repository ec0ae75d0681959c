//! Queries by key on a disk that fails.

use std::path::Path;

use ringmq_protocol::record::{RecordFields, bind_record, encode_record, record_length};
use ringmq_shards::disk::write_file;
use ringmq_shards::index::{IndexGeometry, LastStop};
use ringmq_shards::log::LogRing;
use ringmq_shards::log::segment_table::{SegmentSize, file_name};
use ringmq_shards::log::segments::{SegmentOptions, WritePath};
use ringmq_shards::probe::Registry;
use ringmq_shards::queue::QueueStoreConfig;
use ringmq_shards::sim::{Fault, FaultAction, ManualClock, OperationKind, SimDisk};

use super::*;
use crate::config::Layers;

const SEGMENT_BYTES: usize = 64 << 10;
const RING_BYTES: usize = 64 << 10;

fn record() -> Vec<u8> {
    let address = "127.0.0.1:10911".parse().unwrap();
    let fields = RecordFields {
        topic: "T",
        queue_id: 0,
        flag: 0,
        sys_flag: 0,
        born_timestamp: 1,
        born_host: address,
        store_host: address,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: b"body",
        body_crc: None,
        properties: b"KEYS\x01K\x02",
    };
    let mut record = vec![0; record_length(&fields)];
    encode_record(&fields, &mut record);
    bind_record(&mut record, 0, 0, 1_000);
    record
}

/// A log with one record, which is in no memory any more.
fn access(disk: &SimDisk) -> (StoreAccess, Vec<u8>) {
    let record = record();
    let directory = Path::new("/store/commitlog");
    disk.create_directories(directory).unwrap();
    let mut file = record.clone();
    file.resize(SEGMENT_BYTES, 0);
    write_file(disk, &directory.join(file_name(PhysicalOffset(0))), &file).unwrap();
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let end = record.len() as u64;
    let options = SegmentOptions {
        directory: directory.to_path_buf(),
        scratch_directory: "/store/ringmq".into(),
        size: SegmentSize::new(SEGMENT_BYTES as u64).unwrap(),
        write_path: WritePath::PageCache,
        zero_ahead_bytes: 0,
    };
    let (segments, _) = Segments::open(Arc::clone(&disk), options, PhysicalOffset(end)).unwrap();
    let view = LogView::new(LogRing::new(RING_BYTES).unwrap(), 1, 0, end, 1_000);
    let (queues, _) = QueueStore::new(Arc::clone(&disk), Path::new("/store/consumequeue"), QueueStoreConfig::default());
    let config = Layers::default().build().unwrap();
    let shared = Arc::new(Shared::new(&config, 1, 4 << 30, RING_BYTES as u64, 1 << 20));
    let figures = Arc::new(StoreFigures::new(Arc::new(Registry::new()), shared));
    let access = StoreAccess::new(view, Arc::new(segments), Arc::new(queues), disk, 0, RING_BYTES as u64, 0, figures);
    (access, record)
}

/// Goal: a query that cannot be answered is not answered with "there is none": neither while the index cannot be opened, nor when the
/// disk fails under it or under the log. Method: a key in a full index file; each of the two directories fails reads once.
#[test]
fn a_query_that_cannot_be_answered_fails() {
    let disk = SimDisk::new();
    let (access, record) = access(&disk);
    let query = |access: &StoreAccess, key: &str| access.query("T", key, 32, 0, i64::MAX).map(|found| found.records);
    assert_eq!(query(&access, "K"), Ok(Vec::new()), "there is no index and should be none");
    let access = access.with_index(true);
    assert!(query(&access, "K").unwrap_err().contains("cannot be opened"));
    let directory = Path::new("/store/index");
    disk.create_directories(directory).unwrap();
    let geometry = IndexGeometry { slots: 2, entries: 3 };
    let opened: Arc<dyn Disk> = Arc::new(disk.clone());
    let mut index =
        IndexService::open(opened, Arc::new(ManualClock::new(1)), directory, geometry, LastStop::Clean).unwrap();
    for (number, key) in ["K", "a", "b", "c", "d"].iter().enumerate() {
        let at = Indexed { physical: PhysicalOffset(1_000 * number as u64), store_timestamp: StoreTimestamp(1_000) };
        index.put_keys("T", None, key.as_bytes(), at).unwrap();
    }
    index.flush().unwrap();
    assert_eq!(index.file_count(), 3);
    *access.index() = Some(index);
    assert_eq!(query(&access, "K"), Ok(record.clone()));
    assert_eq!(query(&access, "unknown"), Ok(Vec::new()));
    for (path, word) in [("/index/", "index"), ("/commitlog/", "log")] {
        let action = FaultAction::Fail(libc::EIO);
        let path_contains = path.to_owned();
        disk.inject(Fault { kind: OperationKind::Read, path_contains, after: 0, times: 1, action });
        let reason = query(&access, "K").unwrap_err();
        assert!(reason.contains(word) && !reason.contains("/store"), "{reason}");
        assert_eq!(query(&access, "K"), Ok(record.clone()), "{path} can be read again");
    }
    assert_eq!(access.failed_queries.load(Ordering::Relaxed), 3);
}

#[test]
fn the_index_rests_for_less_than_the_ring_lasts() {
    // Goal: a moment without messages is not taken for the end of them, and no rest is so long that a shard at its limit, with
    // 1 GB/s, fills the smallest part of the ring that readers have. Method: rounds that came forward and rounds that did not.
    let busy = index_pause(INDEX_PERIOD, true, 0);
    assert_eq!(busy, INDEX_BUSY_PERIOD);
    assert_eq!(index_pause(busy, true, INDEX_ROUND_BYTES), Duration::ZERO);
    let mut pause = Duration::ZERO;
    for wanted_ms in [10, 20, 40, 40] {
        pause = index_pause(pause, false, 0);
        assert_eq!(pause, Duration::from_millis(wanted_ms));
    }
    let bytes = 1_000_000_000 * INDEX_PERIOD.as_millis() / 1000;
    assert!(bytes < u128::from(Layers::default().build().unwrap().log_ring_bytes) * 3 / 4, "{bytes} bytes");
}
