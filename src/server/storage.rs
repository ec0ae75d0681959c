//! Opens the store: lock, queues, recovery, segments, index. Everything here runs before the first connection.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ringmq_protocol::record::RecordView;
use ringmq_shards::clock::Clock;
use ringmq_shards::disk::{Disk, StateFileError, create_directories_durably, io_causes, is_no_space};
use ringmq_shards::index::{IndexError, IndexGeometry, IndexService, LastStop, SetAside};
use ringmq_shards::log::segment_table::{SegmentError, SegmentSize, load_table};
use ringmq_shards::log::segments::{SegmentOptions, Segments, WritePath};
use ringmq_shards::queue::{ChunkPool, FilesLeft, Queue, QueueError, QueueStore, QueueStoreConfig};
use ringmq_shards::recovery::adopt;
use ringmq_shards::recovery::checkpoint::{Checkpoint, CheckpointFile};
use ringmq_shards::recovery::durable_point::{DurablePointFile, StoredPoint};
use ringmq_shards::recovery::process_lock::{LockError, ProcessLock, is_ours};
use ringmq_shards::recovery::queue_flushed::{self, QueueFlushedFile};
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::recovery::queue_place::queue_place;
use ringmq_shards::recovery::{
    DispatchSink, KernelRun, Recovered, RecoveryError, RecoveryOptions, StorePaths, recover,
};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

use super::lost_queues;

/// How the store is opened.
#[derive(Debug, Clone)]
pub struct StorageOptions {
    /// Data directory.
    pub root: PathBuf,
    /// Directory of the commit log.
    pub commit_log: PathBuf,
    /// Size of its files.
    pub segment_bytes: u64,
    /// Entries of a queue file.
    pub queue_file_entries: u64,
    /// Queue files that are kept open.
    pub queue_open_files: usize,
    /// Memory of all queue tails.
    pub tail_bytes: u64,
    /// How the log is written besides the page cache.
    pub write_path: WritePath,
    /// How far to zero ahead; 0 for none.
    pub zero_ahead_bytes: u64,
    /// Size of the log ring: the most that one group can have had in flight.
    pub ring_bytes: u64,
    /// Whether acknowledgements wait for syncs.
    pub is_sync: bool,
    /// Cut the log at damage instead of refusing; what is cut is saved aside.
    pub salvage: bool,
    /// Slots and entries of an index file; `None` without an index.
    pub index: Option<IndexGeometry>,
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The log must not be used as it is.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The log's files.
    #[error(transparent)]
    Segments(#[from] SegmentError),
    /// The store holds what nobody here can read; the remarks, joined.
    #[error("this store cannot be opened: {0}")]
    NotAdoptable(String),
    /// Queue files.
    #[error(transparent)]
    Queues(#[from] QueueError),
    /// State files.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// Anything else of the file system.
    #[error("cannot {action} in {}: {source}", path.display())]
    Io {
        /// What was done.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// Everything that opening the index takes.
pub struct IndexOpening {
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    /// Where files go that cannot be used.
    room: PathBuf,
    geometry: IndexGeometry,
    last_stop: LastStop,
    log_end: PhysicalOffset,
}

impl IndexOpening {
    /// Opens the index. Files that cannot be used are set aside; files with records behind the log's end go: what will be
    /// written there must be indexed anew. May be tried again.
    pub fn open(&self) -> Result<IndexService, IndexError> {
        let (mut index, set_aside) = IndexService::open_or_set_aside(
            &self.disk,
            &self.clock,
            &self.directory,
            self.geometry,
            self.last_stop,
            &self.room,
        )?;
        for SetAside { reason, files, to } in set_aside {
            let to = to.display();
            tracing::warn!(
                reason,
                files,
                %to,
                "index files were set aside; what they hold is indexed anew from the log while serving"
            );
        }
        let removed = index.cut(self.log_end)?;
        if removed > 0 {
            tracing::warn!(files = removed, "made index files anew that pointed behind the end of the log");
        }
        Ok(index)
    }
}

/// An open store.
pub struct Storage {
    /// Where everything lies.
    pub paths: StorePaths,
    /// Held as long as the process uses the store.
    pub lock: ProcessLock,
    /// The log's files.
    pub segments: Arc<Segments>,
    /// Queues.
    pub queues: Arc<QueueStore>,
    /// Memory of their tails, for the writer.
    pub pool: ChunkPool,
    /// How to open the index, if there is one: the store thread does it, because after a crash it reads up to 400 MB.
    pub index: Option<IndexOpening>,
    /// How far the queue files are complete as long as this kernel runs.
    pub queue_flushed: QueueFlushedFile,
    /// Where the log ends, and how it was found.
    pub recovered: Recovered,
    /// Checkpoint.
    pub checkpoint_file: CheckpointFile,
    /// Its values.
    pub checkpoint: Checkpoint,
    /// Durable point.
    pub durable_point: DurablePointFile,
    /// What the log cannot tell about queues.
    pub queue_offsets: Arc<Sidecar>,
    /// The bytes of the page that the end lies in, up to the end.
    pub tail_page: Vec<u8>,
}

/// Adds what the log has and the queue files lack.
struct Rebuild<'a> {
    queues: &'a QueueStore,
    pool: &'a ChunkPool,
    offsets: &'a QueueOffsets,
    from: Option<PhysicalOffset>,
    /// After a clean stop the queues know every record below this, and what they lack was deleted on purpose (RocketMQ
    /// `CommitLog.recoverNormally`).
    known_below: PhysicalOffset,
    /// Where the log begins, if another broker has removed files of it that should have been read: then a queue may lack
    /// entries of records below, which nobody can read any more.
    lacks_below: Option<PhysicalOffset>,
}

impl DispatchSink for Rebuild<'_> {
    fn dispatch_from(&self) -> Option<PhysicalOffset> {
        self.from
    }

    fn record(&mut self, view: &RecordView<'_>, physical_offset: PhysicalOffset) -> io::Result<()> {
        let Some(place) = queue_place(view, physical_offset) else { return Ok(()) };
        if physical_offset < self.known_below || !self.offsets.counts(place.topic, physical_offset) {
            return Ok(());
        }
        let mut queue = self.queues.get_or_create(place.topic, place.queue_id).map_err(io::Error::other)?;
        let is_behind = queue.physical_end().0 > 0 && queue.physical_end() <= physical_offset;
        if place.offset == QueueOffset(0) && is_behind {
            // The topic was deleted and made again, and no barrier tells: another broker did it, or the sidecar is lost.
            tracing::info!(
                ?queue,
                log_offset = physical_offset.0,
                "a queue begins anew: its topic was made again here"
            );
            self.queues.remove_queues(place.topic, |other| other.queue_id() == place.queue_id);
            queue = self.queues.get_or_create(place.topic, place.queue_id).map_err(io::Error::other)?;
        }
        let has_nothing = self.lacks_below.is_some_and(|minimum| queue.physical_end() <= minimum);
        if has_nothing && queue.physical_end().0 > 0 && queue.appended_end() != place.offset {
            self.queues.skip_to(&queue, place.offset).map_err(io::Error::other)?;
        }
        let time = StoreTimestamp(u64::try_from(view.store_timestamp()).unwrap_or(0));
        self.queues.rebuild_append(self.pool, &queue, place.offset, place.entry, time).map_err(io::Error::other)?;
        Ok(())
    }
}

/// Opens (and if need be recovers) the store. The process lock is taken first, before anything is read or cut.
pub fn open(disk: &Arc<dyn Disk>, clock: &Arc<dyn Clock>, options: &StorageOptions) -> Result<Storage, StorageError> {
    let io_error = |action, path: PathBuf| move |source| StorageError::Io { action, path, source };
    let mut paths = StorePaths::new(&options.root);
    paths.commit_log.clone_from(&options.commit_log);
    for directory in [paths.root.clone(), paths.own(), paths.commit_log.clone(), paths.consume_queue(), paths.config()]
    {
        create_directories_durably(disk.as_ref(), &directory).map_err(io_error("create directories", directory))?;
    }
    let lock = ProcessLock::acquire(disk.as_ref(), &paths)?;
    let opened = open_locked(disk, clock, options, paths.clone(), lock);
    if let Err(error) = &opened
        && is_disk_error(error)
        && let Err(error) = queue_flushed::distrust(disk.as_ref(), &paths)
    {
        tracing::warn!(%error, "queue-flushed cannot be taken back");
    }
    opened
}

/// Whether a start failed at the file system, and not for want of room: then the page cache may show what the disk does not
/// have, and as the kernel tells of a failed write only once, the next start would not hear of it.
fn is_disk_error(error: &(dyn std::error::Error + 'static)) -> bool {
    io_causes(error).any(|error| error.raw_os_error().is_some() && !is_no_space(error))
}

fn open_locked(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    options: &StorageOptions,
    paths: StorePaths,
    lock: ProcessLock,
) -> Result<Storage, StorageError> {
    let io_error = |action, path: PathBuf| move |source| StorageError::Io { action, path, source };
    let blockers = adopt::blockers(disk.as_ref(), &paths).map_err(io_error("look at what is", paths.root.clone()))?;
    if !blockers.is_empty() {
        let texts = blockers.iter().map(|blocker| format!("{}: {}", blocker.path.display(), blocker.text));
        return Err(StorageError::NotAdoptable(texts.collect::<Vec<_>>().join("; ")));
    }
    let was_clean = lock.was_clean(disk.as_ref(), &paths).map_err(io_error("look for abort", paths.abort()))?;

    let queue_config = QueueStoreConfig {
        file_entries: options.queue_file_entries,
        open_files: options.queue_open_files,
        pool_bytes: options.tail_bytes,
    };
    let (queues, pool) = QueueStore::new(Arc::clone(disk), &paths.consume_queue(), queue_config);
    let boot_id = queue_flushed::boot_id(disk.as_ref());
    // Only after the death of the process, not of the machine: what was written is still in the page cache.
    let flushed = match was_clean {
        true => None,
        false => queue_flushed::load(disk.as_ref(), &paths, boot_id.as_deref())
            .map_err(io_error("read queue-flushed", paths.queue_flushed()))?,
    };
    let loaded = queues.load(match (was_clean, &flushed) {
        (true, _) => FilesLeft::Whole,
        (false, Some(_)) => FilesLeft::Written,
        (false, None) => FilesLeft::Uncertain,
    })?;
    if !loaded.foreign.is_empty() {
        let foreign: Vec<String> = loaded.foreign.iter().map(|path| path.display().to_string()).collect();
        tracing::warn!("the folder of the queues holds what belongs to no queue, ignored: {}", foreign.join(", "));
    }
    if !was_clean {
        queues.mark_all_unsynced();
    }
    let loaded = QueueOffsets::load(disk.as_ref(), &paths)?;
    if !was_clean {
        // The last process may have died before it synced the name. What is bound from here on relies on these barriers: the
        // ones before them must not come back, and as little the topics and offsets before those that are loaded.
        for directory in [paths.own(), paths.config()] {
            if disk.exists(&directory).map_err(io_error("look up", directory.clone()))? {
                disk.sync_directory(&directory).map_err(io_error("sync the directory", directory))?;
            }
        }
    }
    let has_sidecar = loaded.is_some();
    let mut queue_offsets = loaded.map(|loaded| loaded.value).unwrap_or_default();
    let lacking = if was_clean { lost_queues::lacking(&queues, &queue_offsets) } else { Vec::new() };
    let durable = DurablePointFile::load(disk.as_ref(), &paths)
        .map_err(io_error("read the durable point", paths.durable_point()))?;
    let is_marked =
        flushed.is_some() && is_ours(disk.as_ref(), &paths).map_err(io_error("read abort", paths.abort()))?;
    let has_yielded = queue_offsets
        .heed_others(disk.as_ref(), &paths, durable, flushed)
        .map_err(io_error("read abort", paths.abort()))?;

    let segment_size = SegmentSize::new(options.segment_bytes)?;
    let recovery_options = RecoveryOptions {
        segment_size,
        salvage: options.salvage,
        max_unsynced_bytes: options.is_sync.then_some(options.ring_bytes),
        index_is_safe: false,
        verify_property_crc: false,
        kernel: match flushed {
            None => KernelRun::Restarted,
            // What is unsynced there is one group at most, and the next acknowledgement promises it.
            Some(_) if options.is_sync => KernelRun::Same,
            Some(_) => KernelRun::SameWithoutSync,
        },
    };
    // After a clean stop the queue files are complete. After a crash they are as far as the sidecar says; a store without one
    // comes from Java, whose checkpoint recovery follows, or lost it, and then the whole log is read.
    let is_ours = !matches!(durable, StoredPoint::Missing);
    let from = match (was_clean, flushed, has_sidecar) {
        (true, ..) => None,
        // What was synced was also written. Never cut below that: the entries may be lost again before they are rewritten.
        (false, Some(flushed), _) => Some(flushed.max(queue_offsets.log_offset)),
        (false, None, true) => Some(queue_offsets.log_offset),
        (false, None, false) => is_ours.then_some(PhysicalOffset(0)),
    };
    let log_begins = load_table(disk.as_ref(), &paths.commit_log, segment_size)?.min().unwrap_or_default();
    let lacks_below = from.filter(|from| *from < log_begins).map(|_| log_begins);
    remove_deleted_topics(&queues, &queue_offsets, from)?;
    if let Some(complete) = from.filter(|_| flushed.is_some() || has_sidecar) {
        // Behind it entries may be torn or missing; the log gives them again. What it no longer has at least tells how far its
        // queue had come.
        queues.truncate_all(complete.max(log_begins))?;
    }
    if has_yielded {
        // Before the durable point moves on: should this start be interrupted, the next one must not take for ours what lies
        // between the point as we left it and the new one.
        queues.sync_removals()?;
        queue_offsets.persist(disk.as_ref(), &paths)?;
    }
    if flushed.is_some() {
        queues.owe_proof(queue_offsets.log_offset)?;
    }
    let known_below = if was_clean { queues.maximum_physical_end() } else { PhysicalOffset(0) };
    let mut sink = Rebuild { queues: &queues, pool: &pool, offsets: &queue_offsets, from, known_below, lacks_below };
    let recovered = recover(disk.as_ref(), &paths, &recovery_options, &mut sink)?;
    for message in &recovered.messages {
        tracing::warn!("{message}");
    }
    lost_queues::warn(&lacking, disk.as_ref(), &paths, &queue_offsets, recovered.end);
    // What is written from here on is none of the past, whatever a barrier says that lies behind a cut, or was never given.
    if queue_offsets.lower_barriers_to(recovered.end) {
        // A lowered barrier no longer tells that files with entries behind the cut are old, should they come back.
        queues.sync_removals()?;
        queue_offsets.persist(disk.as_ref(), &paths)?;
    }
    // After a cut the queues may know more than the log, however the last stop was.
    let was_cut = recovered.discarded.is_some() || options.salvage;
    if (!was_clean && from.is_none_or(|from| from > recovered.end)) || was_cut {
        let cut = queues.truncate_all(recovered.end)?;
        if cut > 0 {
            tracing::warn!(entries = cut, "cut queue entries that point behind the end of the log");
        }
    }
    restore_next_offsets(&queues, &queue_offsets, &recovered)?;
    if recovered.min.0 > 0 {
        for queue in queues.queues() {
            queues.correct_minimum(&queue, recovered.min)?;
        }
    }
    queues.flush_dirty()?;
    let is_ahead = queue_offsets.log_offset > recovered.end;
    let queue_offsets = Sidecar::new(queue_offsets);
    // A sidecar that was ahead of the log would claim entries of records that are still to come.
    if !has_sidecar || is_ahead {
        queues.sync()?;
        note_queue_offsets(disk.as_ref(), &paths, &queues, &queue_offsets, recovered.end.0, recovered.min.0)?;
    }
    let queue_flushed = QueueFlushedFile::open(disk.as_ref(), &paths, boot_id)
        .map_err(io_error("open queue-flushed", paths.queue_flushed()))?;
    if flushed.is_none() {
        // A note always means that the mark `abort`, which its process made, is durable.
        queue_flushed.distrust().map_err(io_error("write queue-flushed", paths.queue_flushed()))?;
    }

    let segment_options = SegmentOptions {
        directory: paths.commit_log.clone(),
        scratch_directory: paths.scratch(),
        size: segment_size,
        write_path: options.write_path,
        zero_ahead_bytes: options.zero_ahead_bytes,
    };
    let (segments, warnings) = Segments::open(Arc::clone(disk), segment_options, recovered.end)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let needs_segment = segments.snapshot().limit().is_none_or(|limit| limit <= recovered.end);
    if needs_segment {
        segments.prepare_next(recovered.end)?;
    }
    let tail_page = read_tail_page(&segments, recovered.end)?;

    let (checkpoint_file, checkpoint) =
        CheckpointFile::open(disk.as_ref(), &paths).map_err(io_error("open the checkpoint", paths.checkpoint()))?;
    let durable_point = DurablePointFile::open(disk.as_ref(), &paths)
        .map_err(io_error("open the durable point", paths.durable_point()))?;
    let last_stop = match was_clean {
        true => LastStop::Clean,
        false => LastStop::Crash { checkpoint_ms: checkpoint.index_timestamp_ms },
    };
    let index = options.index.map(|geometry| IndexOpening {
        disk: Arc::clone(disk),
        clock: Arc::clone(clock),
        directory: paths.index(),
        room: paths.own(),
        geometry,
        last_stop,
        log_end: recovered.end,
    });
    let pid = std::process::id();
    match is_marked {
        true => lock.mark_running_again(disk.as_ref(), &paths, pid),
        false => lock.mark_running(disk.as_ref(), &paths, pid),
    }
    .map_err(io_error("write abort", paths.abort()))?;
    queue_flushed.note(recovered.end).map_err(io_error("write queue-flushed", paths.queue_flushed()))?;
    Ok(Storage {
        paths,
        lock,
        segments: Arc::new(segments),
        queues: Arc::new(queues),
        pool,
        index,
        recovered,
        checkpoint_file,
        checkpoint,
        durable_point,
        queue_offsets: Arc::new(queue_offsets),
        queue_flushed,
        tail_page,
    })
}

/// The files of a deleted topic may have outlived it: they go before a topic of the same name is filled. From `rebuilt_from`
/// on the log gives every entry again.
fn remove_deleted_topics(
    queues: &QueueStore,
    offsets: &QueueOffsets,
    rebuilt_from: Option<PhysicalOffset>,
) -> Result<(), QueueError> {
    for (topic, barrier) in &offsets.barriers {
        // Whatever counts is made anew, so no file is needed. And none can be told by its end: one whose removal was lost
        // may hold entries of records behind a cut, to which the barrier was lowered since.
        let is_remade = rebuilt_from.is_some_and(|from| from <= *barrier);
        // A queue's new files are written only after its old ones are gone, so they are of one kind.
        let is_old = |queue: &Queue| queue.physical_end().0 > 0 && queue.physical_end() <= *barrier;
        queues.remove_queues(topic, |queue| is_remade || is_old(queue));
    }
    queues.flush_dirty().map(|_| ())
}

/// A queue whose records have all expired keeps its place.
fn restore_next_offsets(
    queues: &QueueStore,
    offsets: &QueueOffsets,
    recovered: &Recovered,
) -> Result<(), StorageError> {
    if offsets.log_offset > recovered.end {
        return Ok(());
    }
    for (topic, next) in &offsets.next {
        for (queue_id, next) in next {
            if next.0 == 0 {
                continue;
            }
            let queue = queues.get_or_create(topic, *queue_id)?;
            if queue.physical_end() == PhysicalOffset(0) && queue.published() < *next {
                queues.start_at(&queue, *next)?;
            }
        }
    }
    Ok(())
}

fn read_tail_page(segments: &Segments, end: PhysicalOffset) -> Result<Vec<u8>, StorageError> {
    let page = ringmq_shards::log::limits::PAGE_BYTES;
    let start = end.0 - end.0 % page;
    let mut bytes = vec![0; (end.0 - start) as usize];
    let path = segments.options().directory.clone();
    let read = segments.snapshot().read_at(PhysicalOffset(start), &mut bytes).map_err(|source| StorageError::Io {
        action: "read the log's last page",
        path: path.clone(),
        source,
    })?;
    if read != bytes.len() {
        let source = io::Error::from(io::ErrorKind::UnexpectedEof);
        return Err(StorageError::Io { action: "read the log's last page", path, source });
    }
    Ok(bytes)
}

/// What the log alone cannot tell about queues, and the right to write it down. Nobody who looks at it waits for the disk.
#[derive(Debug, Default)]
pub struct Sidecar {
    known: Mutex<QueueOffsets>,
    /// Held while the file is written: there is one writer at a time, and the file never gets older.
    file: Mutex<()>,
}

impl Sidecar {
    /// What a start has found.
    pub fn new(known: QueueOffsets) -> Self {
        Self { known: Mutex::new(known), file: Mutex::new(()) }
    }

    /// What is known. Not to be held while anything may wait.
    pub fn lock(&self) -> MutexGuard<'_, QueueOffsets> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin_write(&self) -> MutexGuard<'_, ()> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes where every queue stands, for a recovery that begins at `log_offset`. What is in memory changes only with the file:
/// retention trusts it to tell which part of the log no recovery reads.
pub fn note_queue_offsets(
    disk: &dyn Disk,
    paths: &StorePaths,
    queues: &QueueStore,
    sidecar: &Sidecar,
    log_offset: u64,
    log_minimum: u64,
) -> Result<(), StateFileError> {
    let _writing = sidecar.begin_write();
    let barriers = sidecar.lock().barriers.clone();
    let mut next: BTreeMap<String, BTreeMap<QueueId, QueueOffset>> = BTreeMap::new();
    for (topic, queue_id, _, offset) in queues.all_bounds() {
        // Those of a topic whose deletion has begun count no more for whoever reads this, retired or not: made again, it begins at 0.
        let is_ending = barriers.get(&*topic).is_some_and(|barrier| barrier.0 == u64::MAX);
        if offset.0 > 0 && !is_ending {
            next.entry(topic.to_string()).or_default().insert(queue_id, offset);
        }
    }
    let mut noted = QueueOffsets { log_offset: PhysicalOffset(log_offset), next, barriers: barriers.clone() };
    noted.forget_barriers_below(PhysicalOffset(log_minimum));
    noted.persist(disk, paths)?;
    let mut known = sidecar.lock();
    // Barriers that were noted meanwhile are in no file yet.
    for (topic, barrier) in &known.barriers {
        if barriers.get(topic) != Some(barrier) {
            noted.next.remove(topic);
            noted.barriers.insert(topic.clone(), *barrier);
        }
    }
    *known = noted;
    Ok(())
}

/// Records of a topic that was just deleted count no more: what the log holds of it below `barrier` belongs to the past. In
/// memory only: see [`write_queue_offsets`].
pub fn note_barrier(sidecar: &Sidecar, topic: &str, barrier: u64) {
    let mut known = sidecar.lock();
    known.next.remove(topic);
    known.barriers.insert(topic.to_owned(), PhysicalOffset(barrier));
}

/// Writes what is known of queues and barriers as it stands.
pub fn write_queue_offsets(disk: &dyn Disk, paths: &StorePaths, sidecar: &Sidecar) -> Result<(), StateFileError> {
    let _writing = sidecar.begin_write();
    let known = sidecar.lock().clone();
    known.persist(disk, paths)
}

#[cfg(test)]
mod tests {
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
            let mut sink =
                Rebuild { queues: &queues, pool: &pool, offsets: &offsets, from, known_below, lacks_below: None };
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
        let (queues, pool) =
            QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
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
        let (queues, pool) =
            QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
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
        let (queues, _pool) =
            QueueStore::new(Arc::new(disk.clone()), &paths.consume_queue(), QueueStoreConfig::default());
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
}
