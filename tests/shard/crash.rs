//! Power cuts and kills at every operation of a broker's store at work: the writer's own operations go to a simulated disk, the
//! store is opened as the broker opens it, and what comes back is compared with what was bound and what was promised.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ringmq::server::deletion::Deletion;
use ringmq::server::storage::{self, Storage, StorageOptions};
use ringmq_protocol::record::{CrcCheck, RecordFields, RecordView, encode_record, record_length};
use ringmq_shards::clock::{Clock, Now};
use ringmq_shards::disk::{Disk, write_file};
use ringmq_shards::log::segments::WritePath;
use ringmq_shards::log::writer::{Piece, PlantedBug, SettleSink, Ticket, WriterOptions};
use ringmq_shards::log::{AppendError, FlushMode, LogRing, LogView, Settled, Verdict, WriteKind, Writer};
use ringmq_shards::planted::{PlantedMistake, plant};
use ringmq_shards::queue::{Queue, QueueEntry};
use ringmq_shards::recovery::CatchUp;
use ringmq_shards::recovery::durable_point::{DurablePoint, LastRecord};
use ringmq_shards::recovery::queue_flushed::BOOT_ID_FILE;
use ringmq_shards::sim::{CrashPattern, ManualClock, SimDisk, SimRandom};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset};

use super::world::Mode;

pub(super) const SEGMENT_BYTES: u64 = 8 << 10;
pub(super) const RING_BYTES: usize = 32 << 10;
pub(super) const ROOT: &str = "/store";

/// How a life writes its log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Setting {
    mode: Mode,
    /// How far segments are zeroed ahead of direct writes; 0 for not at all.
    zero_ahead_bytes: u64,
}

impl Setting {
    /// All that the server has: it zeroes ahead of writes around the page cache if at all, here half a segment.
    fn all() -> impl Iterator<Item = Self> {
        Mode::ALL.map(Self::from).into_iter().chain(Self::ZEROED)
    }

    pub(super) const ZEROED: [Self; 2] = [Self::zeroed(Mode::SyncDurable), Self::zeroed(Mode::AsyncDirect)];

    const fn zeroed(mode: Mode) -> Self {
        Self { mode, zero_ahead_bytes: SEGMENT_BYTES / 2 }
    }

    /// In ASYNC_FLUSH each group takes one way or the other.
    fn chooses(self) -> bool {
        self.mode == Mode::AsyncDirect && self.zero_ahead_bytes > 0
    }
}

impl From<Mode> for Setting {
    fn from(mode: Mode) -> Self {
        Self { mode, zero_ahead_bytes: 0 }
    }
}

impl std::fmt::Debug for Setting {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}{}", self.mode, if self.zero_ahead_bytes > 0 { "ZeroedAhead" } else { "" })
    }
}

fn write_path(mode: Mode) -> WritePath {
    match mode {
        Mode::AsyncPageCache => WritePath::PageCache,
        Mode::AsyncDirect | Mode::SyncSeparate => WritePath::Direct,
        Mode::SyncDurable => WritePath::DirectSync,
    }
}

pub(super) fn is_sync(mode: Mode) -> bool {
    matches!(mode, Mode::SyncDurable | Mode::SyncSeparate)
}

/// A record as it was bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) topic: &'static str,
    pub(super) queue: u32,
    pub(super) queue_offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// All that must be known of the past to judge a recovery.
#[derive(Debug, Clone, Default)]
pub(super) struct Past {
    /// By offset in the log; a cut forgets what it cut.
    pub(super) records: BTreeMap<u64, Bound>,
    /// End of the last acknowledged request.
    pub(super) acknowledged: u64,
    /// What was known to be synced.
    synced: u64,
    /// What a consumer may have seen.
    seen: u64,
    /// Whether topics are deleted and made again all the time.
    deletes: bool,
    /// By topic: the end of the log at its last confirmed deletion.
    deleted: BTreeMap<&'static str, u64>,
    /// By topic whose deletion is under way: the end of the log when it began.
    deleting: BTreeMap<&'static str, u64>,
}

/// All that lives use; without deletions only the first.
pub(super) const TOPICS: [&str; 3] = ["T", "U", "V"];

#[derive(Default)]
struct Verdicts(Vec<Settled>);

impl SettleSink for Verdicts {
    fn settled(&mut self, settled: Settled) {
        self.0.push(settled);
    }

    fn wake(&mut self, _: &Arc<Queue>, _: u64) {}
}

/// What a test does wrong on purpose.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mistake {
    /// In the writer.
    Writer(PlantedBug),
    /// In recovery, or in what the flush thread claims.
    Planted(PlantedMistake),
    /// What was taken from the page cache counts as synced at once.
    ClaimUnsynced,
    /// The writer does not ask how far the log is zeroed.
    IgnoreFrontier,
}

/// Starts the kernel, under an id that no other start has.
pub(super) fn power_on(disk: &SimDisk, random: &mut SimRandom) {
    let path = Path::new(BOOT_ID_FILE);
    disk.create_directories(path.parent().expect("a directory")).expect("no fault is planned yet");
    write_file(disk, path, format!("boot-{:016x}", random.next_u64()).as_bytes()).expect("no fault is planned yet");
}

/// A deletion under way.
struct OpenDeletion {
    deletion: Deletion,
    topic: &'static str,
    retiring: Vec<Arc<Queue>>,
    /// The end of the log when the writer retired the queues.
    barrier: Option<u64>,
}

/// One life of the store.
pub(super) struct Life {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) storage: Storage,
    pub(super) writer: Writer,
    pub(super) view: Arc<LogView>,
    setting: Setting,
    ignores_frontier: bool,
    random: SimRandom,
    verdicts: Verdicts,
    /// Ends of requests by their ticket.
    requests: Vec<u64>,
    pub(super) now_ms: u64,
    pub(super) catch_up: Option<CatchUp>,
    deletions: Vec<OpenDeletion>,
}

/// Opens the store as the broker does.
pub(super) fn open(disk: &SimDisk, setting: impl Into<Setting>, seed: u64) -> Result<Life, String> {
    let setting = setting.into();
    let mode = setting.mode;
    let options = StorageOptions {
        root: PathBuf::from(ROOT),
        commit_log: Path::new(ROOT).join("commitlog"),
        segment_bytes: SEGMENT_BYTES,
        queue_file_entries: 16,
        queue_open_files: 4,
        write_path: write_path(mode),
        zero_ahead_bytes: setting.zero_ahead_bytes,
        ring_bytes: RING_BYTES as u64,
        tail_bytes: 64 << 20,
        is_sync: is_sync(mode),
        salvage: false,
        index: None,
    };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_000_000));
    let mut storage = storage::open(&disk, &clock, &options).map_err(|error| error.to_string())?;
    let (end, last_ms) = (storage.recovered.end.0, storage.recovered.last_store_timestamp.0);
    let ring = LogRing::new(RING_BYTES).map_err(|error| error.to_string())?;
    let view = LogView::new(ring, 1, storage.recovered.min.0, end, last_ms);
    view.begin_synced_at(storage.recovered.durable_point.offset.0);
    let catch_up = storage.recovered.catch_up.take();
    if is_sync(mode) && catch_up.is_some() {
        return Err("a store that acknowledges syncs must not begin unsynced".to_owned());
    }
    let ready_end = storage.segments.snapshot().limit().map_or(0, |limit| limit.0);
    let writer_options = WriterOptions {
        segment_bytes: SEGMENT_BYTES,
        flush_mode: if is_sync(mode) { FlushMode::Sync } else { FlushMode::Async },
        write_kind: if mode == Mode::SyncDurable { WriteKind::Durable } else { WriteKind::Volatile },
        sync_flush_timeout_ms: 5_000,
    };
    let pool = std::mem::replace(&mut storage.pool, ringmq_shards::queue::ChunkPool::new(1));
    let mut writer = Writer::new(Arc::clone(&view), pool, writer_options, end, ready_end, last_ms, &storage.tail_page);
    writer.begin_turn();
    let random = SimRandom::new(seed);
    let verdicts = Verdicts::default();
    Ok(Life {
        disk,
        storage,
        writer,
        view,
        setting,
        ignores_frontier: false,
        random,
        verdicts,
        requests: Vec::new(),
        now_ms: 2_000_000,
        catch_up,
        deletions: Vec::new(),
    })
}

impl Life {
    /// Offers one request to the first topic; a batch in one of four cases.
    pub(super) fn append(&mut self, past: &mut Past) {
        self.append_to(past, TOPICS[0]);
    }

    pub(super) fn append_to(&mut self, past: &mut Past, topic: &'static str) {
        if self.deletions.iter().any(|open| open.topic == topic && open.barrier.is_some()) {
            // Its name is taken until the deletion has ended. Before, a shard may not know yet.
            return;
        }
        let queue_id = self.random.below(3) as u32;
        let Ok(queue) = self.storage.queues.get_or_create(topic, QueueId(queue_id)) else { return };
        let count = if self.random.chance(1, 4) { 1 + self.random.below(5) } else { 1 };
        let mut records = Vec::new();
        for _ in 0..count {
            let most = if self.random.chance(1, 4) { 3_000 } else { 400 };
            let mut body = vec![0; 1 + self.random.below(most) as usize];
            self.random.fill(&mut body);
            let fields = RecordFields::plain(topic, queue_id, &body, b"TAGS\x01TagA\x02");
            let mut record = vec![0; record_length(&fields)];
            encode_record(&fields, &mut record);
            records.push(record);
        }
        let pieces: Vec<_> = records.iter().map(|record| Piece { size: record.len() as u32, tags_code: 5 }).collect();
        let admission = match self.writer.admit(records.iter().map(Vec::len).sum(), records.len(), &queue) {
            Ok(admission) => admission,
            Err(error) => {
                assert!(error.is_temporary() || matches!(error, AppendError::TooLarge(_)), "{error}");
                return;
            }
        };
        self.writer.slot(admission).copy_from_slice(&records.concat());
        let ticket = Ticket { shard: 0, slot: self.requests.len() as u32 };
        self.now_ms += self.random.below(3);
        self.writer.bind(
            admission,
            &queue,
            &pieces,
            Some(ticket),
            true,
            Now { steady_ms: self.now_ms, wall_ms: self.now_ms },
        );
        self.requests.push(self.writer.end());
        let mut at = admission.physical;
        for record in &records {
            // SAFETY: this thread is the writer's, and the record was just bound there.
            let bytes = unsafe { std::slice::from_raw_parts(self.view.address(at), record.len()) }.to_vec();
            let queue_offset = RecordView::parse(&bytes, CrcCheck::Verify).expect("a record").queue_offset() as u64;
            past.records.insert(at, Bound { topic, queue: queue_id, queue_offset, bytes });
            at += record.len() as u64;
        }
    }

    /// Writes one group, and in sync mode syncs it. An error is the power.
    pub(super) fn write(&mut self) -> std::io::Result<()> {
        while let Some(operation) = self.writer.next_write() {
            let list = self.storage.segments.snapshot();
            let (segment, _) = list.locate(PhysicalOffset(operation.segment)).expect("the segment is open");
            let way = match self.setting.chooses() && self.random.chance(1, 2) {
                true => WritePath::PageCache,
                false => write_path(self.setting.mode),
            };
            let file = segment.file(way).expect("it is opened for writing");
            if self.setting.zero_ahead_bytes > 0 && !self.ignores_frontier {
                let is_clear = segment.frontier().admit(operation.file_offset + operation.length as u64);
                assert!(is_clear, "nobody zeroes meanwhile");
            }
            // SAFETY: this thread is the writer's; the memory stays as it is until the completion.
            let bytes = unsafe { std::slice::from_raw_parts(self.writer.write_source(&operation), operation.length) };
            file.write_all_at(bytes, operation.file_offset)?;
            self.writer.write_completed();
            if self.random.chance(1, 3) {
                break;
            }
        }
        if let Some(sync) = self.writer.next_sync() {
            let list = self.storage.segments.snapshot();
            for segment in list.segments() {
                if segment.start().0 < sync.end && segment.start().0 + SEGMENT_BYTES > sync.from {
                    segment.file(write_path(self.setting.mode)).expect("opened for writing").sync_data()?;
                }
            }
            self.writer.sync_completed();
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, past: &mut Past) {
        self.writer.settle(self.now_ms, &mut self.verdicts);
        for settled in self.verdicts.0.drain(..) {
            if settled.verdict == Verdict::Stored {
                past.acknowledged = past.acknowledged.max(self.requests[settled.ticket.slot as usize]);
            }
        }
        past.synced = past.synced.max(self.view.synced());
        past.seen = past.seen.max(self.view.confirmed());
    }

    /// Begins to delete a topic as the control thread does.
    fn begin_deletion(&mut self, past: &mut Past, topic: &'static str) {
        past.deleting.insert(topic, self.writer.end());
        let (queues, offsets) = (&self.storage.queues, &self.storage.queue_offsets);
        let (deletion, retiring) = Deletion::begin(vec![topic.to_owned()], queues, offsets);
        self.deletions.push(OpenDeletion { deletion, topic, retiring, barrier: None });
    }

    /// Takes a deletion a step further, in the order of the control thread. An error is the power.
    fn go_on_with(&mut self, past: &mut Past, mut open: OpenDeletion) -> Result<(), String> {
        let offsets = &self.storage.queue_offsets;
        let write = || {
            storage::write_queue_offsets(&*self.disk, &self.storage.paths, offsets).map_err(|error| error.to_string())
        };
        let Some(barrier) = open.barrier else {
            if self.random.chance(1, 4) {
                // The writer does not answer in time.
                write()?;
            } else {
                open.retiring.iter().for_each(|queue| queue.retire());
                open.barrier = Some(self.writer.end());
            }
            self.deletions.push(open);
            return Ok(());
        };
        open.deletion.fence(offsets, barrier);
        write()?;
        open.deletion.end(&self.storage.queues);
        past.deleting.remove(open.topic);
        past.deleted.insert(open.topic, barrier);
        Ok(())
    }

    /// Deletes a topic with its last queues still in the writer's hands.
    pub(super) fn delete(&mut self, past: &mut Past, topic: &'static str) -> Result<(), String> {
        self.begin_deletion(past, topic);
        while let Some(open) = self.deletions.pop() {
            self.go_on_with(past, open)?;
        }
        Ok(())
    }

    /// What the flush thread does each second, in its order.
    pub(super) fn flush(&mut self) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        if self.random.chance(1, 3)
            && let Some(catch_up) = self.catch_up.take()
        {
            catch_up.run(&*self.disk).map_err(|error| text(&error))?;
            self.view.publish_synced(catch_up.point().offset.0);
            self.storage.durable_point.advance(catch_up.point()).map_err(|error| text(&error))?;
        }
        if self.catch_up.is_none() {
            let confirmed = self.view.confirmed();
            for segment in self.storage.segments.snapshot().segments() {
                segment.page_cache().sync_data().map_err(|error| text(&error))?;
            }
            self.view.publish_synced(confirmed);
        }
        let (shown, _) = self.view.shown();
        self.storage.queues.flush_dirty().map_err(|error| text(&error))?;
        if self.random.chance(3, 4) && !self.storage.queues.has_open_deletion() {
            self.storage.queue_flushed.note(PhysicalOffset(shown)).map_err(|error| text(&error))?;
        }
        if self.random.chance(1, 2) {
            self.storage.queues.sync().map_err(|error| text(&error))?;
            let (paths, queues) = (&self.storage.paths, &self.storage.queues);
            storage::note_queue_offsets(
                &*self.disk,
                paths,
                queues,
                &self.storage.queue_offsets,
                shown,
                self.view.minimum(),
            )
            .map_err(|error| text(&error))?;
        }
        if let Some((confirmed, start)) = self.view.confirmed_record()
            && self.view.is_synced(confirmed)
        {
            let mut record = vec![0; (confirmed - start) as usize];
            let list = self.storage.segments.snapshot();
            list.read_at(PhysicalOffset(start), &mut record).map_err(|error| text(&error))?;
            let last_record = Some(LastRecord::of(PhysicalOffset(start), &record));
            let point = DurablePoint { offset: PhysicalOffset(confirmed), last_record };
            self.storage.durable_point.advance(point).map_err(|error| text(&error))?;
        }
        Ok(())
    }

    /// Writes and confirms everything that was bound.
    pub(super) fn write_all(&mut self, past: &mut Past) {
        while !self.writer.is_idle() || self.writer.has_unwritten() {
            self.write().expect("written");
            self.settle(past);
        }
    }

    /// A flush after which everything that is confirmed is on the disk, noted, and what a recovery relies on.
    pub(super) fn flush_durably(&mut self) {
        while self.storage.queue_offsets.lock().log_offset.0 < self.view.confirmed() {
            self.flush().expect("flushed");
        }
    }

    /// Works until the power goes, or for so many steps.
    pub(super) fn work(&mut self, past: &mut Past, steps: usize) {
        for _ in 0..steps {
            if past.deletes {
                let topic = TOPICS[self.random.below(TOPICS.len() as u64) as usize];
                let is_open = past.deleting.contains_key(topic);
                match self.random.below(8) {
                    0 if !is_open => self.begin_deletion(past, topic),
                    1..=3 => self.append_to(past, topic),
                    4..=5 if !self.deletions.is_empty() => {
                        let open = self.deletions.swap_remove(self.random.below(self.deletions.len() as u64) as usize);
                        if self.go_on_with(past, open).is_err() {
                            return;
                        }
                    }
                    _ => {}
                }
            }
            let zeroed = match self.setting.zero_ahead_bytes > 0 && self.random.chance(1, 4) {
                // As the flush thread does, which knows an end that may be old.
                true => self.storage.segments.zero_ahead(PhysicalOffset(self.view.confirmed())),
                false => Ok(0),
            };
            if zeroed.is_err() {
                return;
            }
            let outcome = match self.random.below(12) {
                0..=5 => {
                    self.append(past);
                    Ok(())
                }
                6..=9 => {
                    let outcome = self.write().map_err(|error| error.to_string());
                    self.settle(past);
                    self.writer.begin_turn();
                    outcome
                }
                10 => self.flush(),
                _ => {
                    if self.writer.ready_end() - self.writer.end() < 2 * SEGMENT_BYTES {
                        let start = self.writer.ready_end();
                        let end = PhysicalOffset(self.writer.end());
                        self.storage
                            .segments
                            .prepare_next(end)
                            .map(|_| self.writer.segment_ready(start))
                            .map_err(|error| error.to_string())
                    } else {
                        Ok(())
                    }
                }
            };
            if outcome.is_err() {
                return;
            }
            past.synced = past.synced.max(self.view.synced());
        }
    }

    /// What was recovered is a prefix of the past that holds everything below `promised`; queues and log agree. Forgets what was
    /// cut.
    pub(super) fn check(&self, past: &mut Past, promised: u64) -> Result<(), String> {
        let end = self.storage.recovered.end.0;
        let lost = past.records.split_off(&end);
        if let Some((at, _)) = lost.iter().find(|(at, record)| *at + record.bytes.len() as u64 <= promised) {
            return Err(format!("the record at {at} was promised (up to {promised}), the log ends at {end}"));
        }
        if let Some((at, last)) = past.records.last_key_value()
            && at + last.bytes.len() as u64 > end
        {
            return Err(format!("the log ends at {end}, inside the record at {at}"));
        }
        past.settle_deletions(&self.storage);
        let list = self.storage.segments.snapshot();
        let mut next = BTreeMap::new();
        for (at, record) in &past.records {
            let mut bytes = vec![0; record.bytes.len()];
            list.read_at(PhysicalOffset(*at), &mut bytes).map_err(|error| error.to_string())?;
            if bytes != record.bytes {
                return Err(format!("the record at {at} has changed"));
            }
            if past.deleted.get(record.topic).is_some_and(|barrier| at < barrier) {
                continue;
            }
            let next = next.entry((record.topic, record.queue)).or_insert(0);
            if record.queue_offset != *next {
                let (topic, queue, offset) = (record.topic, record.queue, record.queue_offset);
                return Err(format!("queue {topic}/{queue} has offset {offset} where {next} follows"));
            }
            *next += 1;
            let queue = self.storage.queues.get(record.topic, QueueId(record.queue)).ok_or("a queue is missing")?;
            let mut entry = [QueueEntry::default()];
            let read = self.storage.queues.read_entries(&queue, QueueOffset(record.queue_offset), &mut entry);
            if read.map_err(|error| error.to_string())? != 1 || entry[0].physical.0 != *at {
                return Err(format!("{queue:?} has {entry:?} at {}, the record is at {at}", record.queue_offset));
            }
        }
        for queue in self.storage.queues.queues() {
            let expected = next.get(&(&**queue.topic(), queue.queue_id().0)).copied().unwrap_or(0);
            if queue.bounds() != (QueueOffset(0), QueueOffset(expected)) || queue.next_offset().0 != expected {
                return Err(format!("{queue:?} goes on at {}, the log says {expected}", queue.next_offset()));
            }
        }
        let mut behind = vec![0; list.limit().map_or(0, |limit| limit.0 - end) as usize];
        list.read_at(PhysicalOffset(end), &mut behind).map_err(|error| error.to_string())?;
        if behind.iter().any(|byte| *byte != 0) {
            return Err(format!("there are ghosts behind {end}"));
        }
        past.acknowledged = past.acknowledged.min(end);
        past.synced = past.synced.min(end);
        past.seen = past.seen.min(end);
        Ok(())
    }
}

impl Past {
    /// A deletion that the power interrupted has happened or not: as the store says. What is written behind the end of the log
    /// counts, wherever a barrier was.
    fn settle_deletions(&mut self, storage: &Storage) {
        let end = storage.recovered.end.0;
        let offsets = storage.queue_offsets.lock();
        for (topic, began) in std::mem::take(&mut self.deleting) {
            let barrier = offsets.barriers.get(topic).map_or(0, |barrier| barrier.0);
            if barrier >= began.min(end) && barrier > self.deleted.get(topic).copied().unwrap_or(0) {
                self.deleted.insert(topic, barrier);
            }
        }
        self.deleted.values_mut().for_each(|barrier| *barrier = (*barrier).min(end));
    }

    /// Store times in the order of the log.
    pub(super) fn store_times(&self) -> Vec<i64> {
        let time =
            |record: &Bound| RecordView::parse(&record.bytes, CrcCheck::Verify).expect("a record").store_timestamp();
        self.records.values().map(time).collect()
    }

    /// Where a queue goes on.
    pub(super) fn next_offset(&self, queue: u32) -> u64 {
        let last = self.records.values().filter(|record| record.queue == queue).map(|record| record.queue_offset).max();
        last.map_or(0, |last| last + 1)
    }

    /// The first offset of a queue whose record lies at or behind a byte of the log.
    pub(super) fn first_offset_from(&self, queue: u32, minimum: u64) -> u64 {
        let first = self.records.range(minimum..).find(|(_, record)| record.queue == queue);
        first.map_or_else(|| self.next_offset(queue), |(_, record)| record.queue_offset)
    }
}

/// What must be there again after the power went, or after the process was killed.
pub(super) fn promised(setting: impl Into<Setting>, past: &Past, is_kill: bool) -> u64 {
    if is_kill || is_sync(setting.into().mode) {
        past.acknowledged.max(past.synced).max(past.seen)
    } else {
        past.synced
    }
}

/// A disk on which a broker has worked for a while and was stopped by a kill, with its past.
pub(super) fn begin(mode: Mode, seed: u64) -> (SimDisk, Past) {
    begin_with(mode.into(), seed, Past::default())
}

fn begin_with(mode: Setting, seed: u64, mut past: Past) -> (SimDisk, Past) {
    let disk = SimDisk::new();
    power_on(&disk, &mut SimRandom::new(seed));
    let mut life = open(&disk, mode, seed).expect("an empty store opens");
    life.work(&mut past, 30);
    drop(life);
    (disk.kill(), past)
}

/// How much an exploration saw.
#[derive(Debug, Default)]
pub(super) struct Explored {
    /// Operations after which it ended.
    cuts: u64,
    crashes: u64,
    /// While the life still owed the sync of what the life before had left.
    while_owing: u64,
}

/// Cuts the power after each operation of a life, in each pattern, and once kills the process there; goes on for a second life on
/// what was recovered, cuts again, and recovers again. The kernel survives kills and not cuts, so a life after a kill begins
/// with unsynced bytes. The first broken promise ends it.
pub(super) fn explore(
    setting: impl Into<Setting>,
    seed: u64,
    deletes: bool,
    mistake: Option<Mistake>,
) -> Result<Explored, String> {
    let mode = setting.into();
    let (start, before) = begin_with(mode, seed, Past { deletes, ..Past::default() });
    let _planting = match mistake {
        Some(Mistake::Planted(mistake)) => Some(plant(mistake)),
        _ => None,
    };
    let mut explored = Explored::default();
    for cut in 0.. {
        let disk = start.kill();
        let mut past = before.clone();
        let mut life = open(&disk, mode, seed + 1)?;
        let at_kill = promised(mode, &past, true);
        life.check(&mut past, at_kill)?;
        match mistake {
            Some(Mistake::Writer(bug)) => life.writer.plant(bug),
            Some(Mistake::ClaimUnsynced) => life.view.publish_synced(life.view.confirmed()),
            Some(Mistake::IgnoreFrontier) => life.ignores_frontier = true,
            Some(Mistake::Planted(_)) | None => {}
        }
        let mutations = disk.mutations();
        disk.halt_after(cut);
        life.work(&mut past, 60);
        let is_last = disk.mutations() < mutations + cut;
        let owes_sync = u64::from(life.catch_up.is_some());
        drop(life);
        for (number, pattern) in CrashPattern::ALL.into_iter().map(Some).chain([None]).enumerate() {
            let context = |error| format!("{mode:?}, seed {seed}, cut {cut}, {pattern:?}: {error}");
            let mut random = SimRandom::new(seed ^ (cut << 8) ^ number as u64);
            let crashed = match pattern {
                Some(pattern) => disk.crash(random.next_u64(), pattern),
                None => disk.kill(),
            };
            if pattern.is_some() {
                power_on(&crashed, &mut random);
            }
            let mut past = past.clone();
            let mut life = open(&crashed, mode, random.next_u64()).map_err(context)?;
            let at_crash = promised(mode, &past, pattern.is_none());
            life.check(&mut past, at_crash).map_err(context)?;
            crashed.halt_after(random.below(30));
            life.work(&mut past, 40);
            drop(life);
            let pattern = CrashPattern::ALL[random.below(5) as usize];
            let again = crashed.crash(random.next_u64(), pattern);
            power_on(&again, &mut random);
            let life = open(&again, mode, 0).map_err(|error| context(format!("second life, {pattern:?}: {error}")))?;
            life.check(&mut past.clone(), promised(mode, &past, false))
                .map_err(|error| context(format!("second life, {pattern:?}: {error}")))?;
            explored.crashes += 1;
            explored.while_owing += owes_sync;
        }
        explored.cuts += 1;
        if is_last {
            return Ok(explored);
        }
    }
    unreachable!("a life has a last operation")
}

/// Seeds per mode: `RINGMQ_CRASH_SEEDS`, or 2.
fn seeds() -> u64 {
    std::env::var("RINGMQ_CRASH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(2)
}

/// Goal: what was promised survives, what was not survives as a prefix or not at all, in every mode. Method: [`explore`].
#[test]
fn promises_survive_crashes() {
    for mode in Setting::all() {
        let (mut owing, mut cuts, mut crashes) = (0, 0, 0);
        for seed in 1..=seeds() {
            let explored = explore(mode, seed, false, None).unwrap_or_else(|broken| panic!("{broken}"));
            assert!(explored.crashes > 100, "{mode:?}: {explored:?} is too few");
            owing += explored.while_owing;
            cuts += explored.cuts;
            crashes += explored.crashes;
        }
        // After each crash a second life is cut as well.
        println!("figures: mode={mode:?} lives={} cuts={cuts} recoveries={} lost=0", seeds(), 2 * crashes);
        assert!(is_sync(mode.mode) || owing > 30, "{mode:?}: {owing} crashes before the sync are too few");
    }
}

/// Goal: a deleted topic stays deleted, and a topic that was made again has what it was given since and nothing else, in every
/// mode. Method: [`explore`] with deletions.
#[test]
fn deletions_survive_crashes() {
    for mode in Setting::all() {
        for seed in 1..=seeds() {
            let explored = explore(mode, 100 + seed, true, None).unwrap_or_else(|broken| panic!("{broken}"));
            assert!(explored.crashes > 100, "{mode:?}: {explored:?} is too few");
        }
    }
}

/// Goal: a start that dies at any of its changes, by a kill or a power cut, is recovered by the next as if it had not been. Method: stores
/// after a kill and after a power cut, in every mode; each is opened once for each change that opening makes, up to there, then the
/// process dies or the power goes, and what the next start recovers is compared with what was promised.
#[test]
fn recovery_survives_its_own_deaths() {
    let mut deaths = 0;
    for (mode, seed) in Setting::all().flat_map(|mode| (1..=4 * seeds()).map(move |seed| (mode, seed))) {
        let deletes = seed % 2 == 0;
        let (start, mut before) = begin_with(mode, 200 + seed, Past { deletes, ..Past::default() });
        let mut life = open(&start, mode, seed).expect("a killed store opens");
        let at_kill = promised(mode, &before, true);
        life.check(&mut before, at_kill).expect("whole");
        life.work(&mut before, 60);
        drop(life);
        for first in [None, Some(CrashPattern::SomeWrites)] {
            let mut random = SimRandom::new(seed);
            let left = match first {
                None => start.kill(),
                Some(pattern) => start.crash(seed, pattern),
            };
            if first.is_some() {
                power_on(&left, &mut random);
            }
            for changes in 0.. {
                let halted = left.kill();
                halted.halt_after(changes);
                let is_whole = open(&halted, mode, seed).is_ok();
                for second in CrashPattern::ALL.into_iter().map(Some).chain([None]) {
                    let crashed = match second {
                        None => halted.kill(),
                        Some(pattern) => halted.crash(seed ^ changes, pattern),
                    };
                    if second.is_some() {
                        power_on(&crashed, &mut random);
                    }
                    let context = |error| {
                        format!("{mode:?}, seed {seed}, {first:?}, death after {changes} changes, {second:?}: {error}")
                    };
                    let life = open(&crashed, mode, seed).map_err(context).unwrap_or_else(|broken| panic!("{broken}"));
                    let mut past = before.clone();
                    let at_death = promised(mode, &past, first.is_none() && second.is_none());
                    life.check(&mut past, at_death).map_err(context).unwrap_or_else(|broken| panic!("{broken}"));
                    deaths += 1;
                }
                if is_whole {
                    break;
                }
            }
        }
    }
    println!("figures: deaths_in_recovery={deaths} lost=0");
    assert!(deaths > 500, "{deaths} are too few");
}
