//! The writer against a file that is a byte array: each operation is carried out by hand, at the moment that a test wants.

mod basics;
mod pins;
mod random;
mod verdicts;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ringmq_protocol::record::{CrcCheck, RecordFields, RecordView, encode_record, record_length};

use super::limits::PAGE_BYTES;
use super::writer::{Piece, PlantedBug, SettleSink, SyncOperation, Ticket, WriterOptions};
use super::*;
use crate::clock::Now;
use crate::disk::Disk;
use crate::queue::{Queue, QueueEntry, QueueStore, QueueStoreConfig, TailRead};
use crate::sim::{SimDisk, SimRandom};
use crate::types::{QueueId, QueueOffset};

const TIMEOUT_MS: u64 = 5_000;

/// Notes what the writer says.
#[derive(Default)]
struct Heard {
    settled: Vec<Settled>,
    woken: Vec<(u32, u64)>,
}

impl SettleSink for Heard {
    fn settled(&mut self, settled: Settled) {
        self.settled.push(settled);
    }

    fn wake(&mut self, queue: &Arc<Queue>, shards: u64) {
        self.woken.push((queue.queue_id().0, shards));
    }
}

/// A record as it was bound.
#[derive(Debug, Clone)]
struct Expected {
    queue: usize,
    queue_offset: u64,
    bytes: Vec<u8>,
}

/// What a request was promised.
#[derive(Debug, Clone)]
struct Request {
    first: u64,
    end: u64,
    queue_offset: u64,
    wait: bool,
    answers: Vec<Verdict>,
}

/// The shape of a test.
#[derive(Debug, Clone, Copy)]
struct Shape {
    ring_bytes: usize,
    segment_bytes: u64,
    flush_mode: FlushMode,
    write_kind: WriteKind,
    pool_bytes: u64,
    start: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            ring_bytes: 64 << 10,
            segment_bytes: 16 << 10,
            flush_mode: FlushMode::Async,
            write_kind: WriteKind::Volatile,
            pool_bytes: 1 << 20,
            start: 0,
        }
    }
}

const SYNC: Shape = Shape {
    ring_bytes: 64 << 10,
    segment_bytes: 16 << 10,
    flush_mode: FlushMode::Sync,
    write_kind: WriteKind::Volatile,
    pool_bytes: 1 << 20,
    start: 0,
};

/// The writer, the world around it, and a model of what must be.
struct Rig {
    shape: Shape,
    writer: Writer,
    view: Arc<LogView>,
    store: QueueStore,
    queues: Vec<Arc<Queue>>,
    heard: Heard,
    now: Now,
    /// Files by their start.
    files: BTreeMap<u64, Vec<u8>>,
    /// What a write in flight will put down.
    write: Option<(WriteOperation, Vec<u8>)>,
    sync: Option<SyncOperation>,
    /// Offsets that completed writes and syncs have reached, noted here and not asked of the writer.
    written: u64,
    synced: u64,
    records: BTreeMap<u64, Expected>,
    requests: Vec<Request>,
    next_offsets: Vec<u64>,
    heard_before: usize,
    last_store_timestamp: i64,
}

fn encode(queue: usize, body: &[u8]) -> Vec<u8> {
    let fields = RecordFields { born_timestamp: 7, ..RecordFields::plain("t", queue as u32, body, b"") };
    let mut record = vec![0; record_length(&fields)];
    encode_record(&fields, &mut record);
    record
}

/// Bytes of a record around its body.
fn overhead() -> usize {
    encode(0, b"").len()
}

impl Rig {
    fn new(shape: Shape) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let config = QueueStoreConfig { pool_bytes: shape.pool_bytes, ..QueueStoreConfig::default() };
        let (store, pool) = QueueStore::new(disk, Path::new("/queues"), config);
        let queues = (0..3).map(|id| store.get_or_create("t", QueueId(id)).unwrap()).collect();
        let ring = LogRing::new(shape.ring_bytes).unwrap();
        let first = shape.start - shape.start % shape.segment_bytes;
        let view = LogView::new(ring, 2, first, shape.start, 0);
        let options = WriterOptions {
            segment_bytes: shape.segment_bytes,
            flush_mode: shape.flush_mode,
            write_kind: shape.write_kind,
            sync_flush_timeout_ms: TIMEOUT_MS,
        };
        let tail = vec![0xA5; (shape.start % PAGE_BYTES) as usize];
        let mut file = vec![0; shape.segment_bytes as usize];
        let in_file = (shape.start % shape.segment_bytes) as usize;
        file[in_file - tail.len()..in_file].copy_from_slice(&tail);
        let ready_end = first + shape.segment_bytes;
        let mut rig = Self {
            shape,
            writer: Writer::new(Arc::clone(&view), pool, options, shape.start, ready_end, 0, &tail),
            view,
            store,
            queues,
            heard: Heard::default(),
            now: Now { steady_ms: 50_000, wall_ms: 1_000_000 },
            files: BTreeMap::from([(first, file)]),
            write: None,
            sync: None,
            written: shape.start,
            synced: shape.start,
            records: BTreeMap::new(),
            requests: Vec::new(),
            next_offsets: vec![0; 3],
            heard_before: 0,
            last_store_timestamp: 0,
        };
        rig.writer.begin_turn();
        rig
    }

    /// One more segment is ready.
    fn add_segment(&mut self) {
        let start = self.writer.ready_end();
        self.files.insert(start, vec![0; self.shape.segment_bytes as usize]);
        self.writer.segment_ready(start);
    }

    /// Offers a request of records of these sizes (whole records, at least [`overhead`] bytes).
    fn offer(&mut self, queue: usize, sizes: &[usize], wait: bool) -> Result<u64, AppendError> {
        let total: usize = sizes.iter().sum();
        let admission = self.writer.admit(total, sizes.len(), &self.queues[queue])?;
        assert_eq!(admission.length, total);
        let mut pieces = Vec::new();
        let mut at = 0;
        let slot = self.writer.slot(admission);
        for size in sizes {
            let physical = admission.physical + at as u64;
            let record = encode(queue, &vec![(physical % 251) as u8; size - overhead()]);
            slot[at..at + size].copy_from_slice(&record);
            pieces.push(Piece { size: *size as u32, tags_code: physical as i64 });
            at += size;
        }
        let ticket = Ticket { shard: 0, slot: self.requests.len() as u32 };
        self.writer.bind(admission, &self.queues[queue], &pieces, Some(ticket), wait, self.now);
        self.note(queue, admission, sizes, wait);
        Ok(admission.physical)
    }

    /// Reads the bound records back and compares them with what they must be.
    fn note(&mut self, queue: usize, admission: Admission, sizes: &[usize], wait: bool) {
        let (first, end) = (admission.physical, admission.physical + admission.length as u64);
        let queue_offset = self.next_offsets[queue];
        self.requests.push(Request { first, end, queue_offset, wait, answers: Vec::new() });
        let segment = first / self.shape.segment_bytes;
        assert_eq!((end + 7) / self.shape.segment_bytes, segment, "a request leaves room for the end mark");
        let mut physical = first;
        for size in sizes {
            // SAFETY: one thread, and the writer hands out no slice now.
            let bytes = unsafe { self.view.ring.slice(physical, *size) }.to_vec();
            let record = RecordView::parse(&bytes, CrcCheck::Verify).unwrap();
            assert_eq!(record.total_size(), *size);
            assert_eq!(record.physical_offset() as u64, physical, "bound to its place in the log");
            assert_eq!(record.queue_offset() as u64, self.next_offsets[queue], "bound to its place in the queue");
            assert!(record.store_timestamp() >= self.last_store_timestamp, "store times never fall");
            self.last_store_timestamp = record.store_timestamp();
            let expected = Expected { queue, queue_offset: self.next_offsets[queue], bytes };
            self.records.insert(physical, expected);
            self.next_offsets[queue] += 1;
            physical += *size as u64;
        }
        assert_eq!(self.writer.end(), physical);
    }

    /// Takes the next write, if there is one, without carrying it out.
    fn begin_write(&mut self) -> Option<WriteOperation> {
        let operation = self.writer.next_write()?;
        assert!(self.write.is_none(), "one write at a time");
        assert!(
            operation.file_offset.is_multiple_of(PAGE_BYTES) && operation.length.is_multiple_of(PAGE_BYTES as usize)
        );
        assert_eq!(operation.physical, operation.segment + operation.file_offset);
        assert!(operation.file_offset + operation.length as u64 <= self.shape.segment_bytes, "within one segment");
        assert!(operation.end > self.written, "something new");
        assert!(operation.physical <= self.written || operation.physical == operation.segment, "no gap");
        // SAFETY: one thread, and the writer hands out no slice now.
        let bytes = unsafe { std::slice::from_raw_parts(self.writer.write_source(&operation), operation.length) };
        let data = (operation.end - operation.physical) as usize;
        assert!(data <= bytes.len() && bytes.len() - data < PAGE_BYTES as usize);
        assert!(bytes[data..].iter().all(|byte| *byte == 0), "zeros follow the data of a write");
        self.write = Some((operation, bytes.to_vec()));
        Some(operation)
    }

    /// The first pages of the write in flight arrive; the kernel reads the ring as it is now.
    fn advance_write(&mut self, pages: usize) {
        let Some((operation, taken)) = &mut self.write else { return };
        let until = (pages * PAGE_BYTES as usize).min(operation.length);
        // SAFETY: as above.
        let bytes = unsafe { std::slice::from_raw_parts(self.writer.write_source(operation), operation.length) };
        taken[..until].copy_from_slice(&bytes[..until]);
        let file = self.files.get_mut(&operation.segment).unwrap();
        file[operation.file_offset as usize..][..until].copy_from_slice(&taken[..until]);
    }

    /// The write in flight arrives and is reported.
    fn finish_write(&mut self) {
        let Some((operation, bytes)) = self.write.take() else { return };
        let file = self.files.get_mut(&operation.segment).expect("writes go to segments that are ready");
        file[operation.file_offset as usize..][..operation.length].copy_from_slice(&bytes);
        self.written = operation.end;
        if self.shape.write_kind == WriteKind::Durable {
            self.synced = operation.end;
        }
        self.writer.write_completed();
    }

    fn write_all(&mut self) {
        while self.begin_write().is_some() {
            self.finish_write();
        }
    }

    fn begin_sync(&mut self) -> Option<SyncOperation> {
        let operation = self.writer.next_sync()?;
        assert!(self.sync.is_none(), "one sync at a time");
        assert_eq!(operation.end, self.written, "a sync covers completed writes, and all of them");
        self.sync = Some(operation);
        Some(operation)
    }

    fn finish_sync(&mut self) {
        let Some(operation) = self.sync.take() else { return };
        self.synced = operation.end;
        self.writer.sync_completed();
    }

    fn settle(&mut self) {
        self.writer.settle(self.now.steady_ms, &mut self.heard);
        self.check();
    }

    /// Everything at once: write, sync, settle, next turn.
    fn run(&mut self) {
        self.write_all();
        if self.begin_sync().is_some() {
            self.finish_sync();
        }
        self.settle();
        self.writer.begin_turn();
    }

    fn safe(&self) -> u64 {
        match self.shape.flush_mode {
            FlushMode::Async => self.written,
            FlushMode::Sync => self.written.min(self.synced),
        }
    }

    fn in_file(&self, physical: u64, length: usize) -> &[u8] {
        let start = physical - physical % self.shape.segment_bytes;
        &self.files[&start][(physical - start) as usize..][..length]
    }

    /// The rules that hold at any moment. See [`Rig::broken_rule`].
    fn check(&mut self) {
        if let Some(broken) = self.broken_rule() {
            panic!("{broken}");
        }
    }

    /// The first rule that does not hold.
    fn broken_rule(&mut self) -> Option<String> {
        let (safe, confirmed) = (self.safe(), self.view.confirmed());
        if confirmed > safe {
            return Some(format!("confirmed {confirmed} although only {safe} is safe"));
        }
        for settled in self.heard.settled.split_off(self.heard_before) {
            let request = &mut self.requests[settled.ticket.slot as usize];
            request.answers.push(settled.verdict);
            if request.answers.len() > 1 {
                return Some(format!("answered twice: {:?}", request.answers));
            }
            if settled.verdict != Verdict::Failed
                && (settled.physical, settled.queue_offset) != (request.first, request.queue_offset)
            {
                return Some(format!("wrong offsets in {settled:?}, bound as {request:?}"));
            }
            let request = request.clone();
            let limit = if request.wait { safe } else { self.written };
            if settled.verdict == Verdict::Stored {
                if request.end > limit {
                    return Some(format!("{request:?} was acknowledged when only {limit} was safe"));
                }
                for (physical, record) in self.records.range(request.first..request.end) {
                    if self.in_file(*physical, record.bytes.len()) != record.bytes {
                        return Some(format!("the record at {physical} was acknowledged and is not in the file"));
                    }
                }
            }
            self.heard.settled.push(settled);
            self.heard_before = self.heard.settled.len();
        }
        self.broken_queue(safe).or_else(|| self.broken_ring())
    }

    /// Queue tails show exactly records that are safe, in order.
    fn broken_queue(&self, safe: u64) -> Option<String> {
        for (index, queue) in self.queues.iter().enumerate() {
            let published = queue.published().0;
            let mut safe_records = 0;
            let mut entries = vec![QueueEntry::default(); published as usize];
            let mut filled = 0;
            while filled < entries.len() {
                match queue.read(QueueOffset(filled as u64), &mut entries[filled..]) {
                    TailRead::Read(count) => filled += count,
                    _ => break,
                }
            }
            for (physical, record) in self.records.iter().filter(|(_, record)| record.queue == index) {
                let end = physical + record.bytes.len() as u64;
                safe_records += u64::from(end <= safe);
                let Some(entry) = entries[..filled].get(record.queue_offset as usize) else { continue };
                if (entry.physical.0, entry.size as usize) != (*physical, record.bytes.len()) {
                    return Some(format!("{queue:?} has {entry:?} at {}, not {physical}", record.queue_offset));
                }
            }
            if published > safe_records {
                return Some(format!("{queue:?} shows {published} entries when {safe_records} were safe"));
            }
        }
        None
    }

    /// What the ring claims to hold is there.
    fn broken_ring(&self) -> Option<String> {
        let (floor, confirmed) = (self.view.floor(), self.view.confirmed());
        for (physical, record) in self.records.range(floor..confirmed.max(floor)) {
            // SAFETY: one thread, and the writer hands out no slice now.
            if unsafe { self.view.ring.slice(*physical, record.bytes.len()) } != record.bytes {
                return Some(format!("the ring lost the record at {physical}, with floor {floor}"));
            }
        }
        None
    }

    fn answers(&self, request: usize) -> &[Verdict] {
        &self.requests[request].answers
    }
}
