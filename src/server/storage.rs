//! Opens the store: lock, queues, recovery, segments, index. Everything here runs before the first connection.

use std::collections::{BTreeMap, BTreeSet};
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
use ringmq_shards::recovery::audit::AuditOptions;
use ringmq_shards::recovery::checkpoint::{Checkpoint, CheckpointFile};
use ringmq_shards::recovery::durable_point::{DurablePointFile, StoredPoint};
use ringmq_shards::recovery::process_lock::{LockError, ProcessLock, is_ours};
use ringmq_shards::recovery::queue_flushed::{self, QueueFlushedFile};
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::recovery::queue_place::queue_place;
use ringmq_shards::recovery::repair::{QueueScope, RepairError, rebuild_queues};
use ringmq_shards::recovery::{
    DispatchSink, KernelRun, Recovered, RecoveryError, RecoveryOptions, StorePaths, recover,
};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

use super::lost_queues::{self, LostQueues, ToldProgress, TopicBegins};

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
    /// Queues lack messages and cannot be made anew.
    #[error("queue files are missing or damaged and cannot be made anew: {0}")]
    LostQueues(#[from] RepairError),
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
    /// Topics that are not among these were deleted, and their records below `deleted_below` count no more; `None` where all count.
    topics: Option<&'a BTreeSet<String>>,
    deleted_below: PhysicalOffset,
    /// Takes note of queues that lack messages; without it a gap ends the start.
    lost: Option<LostQueues<'a>>,
    /// After a clean stop the queues know every record below this, and what they lack was deleted on purpose (RocketMQ
    /// `CommitLog.recoverNormally`).
    known_below: PhysicalOffset,
    /// Below this some of them do, since they were made anew. What is added to the others must not be of a topic that was deleted.
    some_know_below: PhysicalOffset,
    begins: TopicBegins,
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
        let is_unknown = self.topics.is_some_and(|topics| !topics.contains(place.topic));
        if (is_unknown && physical_offset < self.deleted_below) || !self.offsets.counts(place.topic, physical_offset) {
            return Ok(());
        }
        if physical_offset < self.known_below {
            let Some(lost) = &mut self.lost else { return Ok(()) };
            return lost.look_at(self.queues, &place).map_err(io::Error::other);
        }
        if physical_offset < self.some_know_below {
            let begins_before = self.begins.has_entry_before(self.queues, place.topic, physical_offset);
            if !begins_before.map_err(io::Error::other)? {
                return Ok(());
            }
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
        if let Some(lost) = self.lost.as_mut().filter(|_| is_behind && place.offset > queue.appended_end()) {
            lost.note_gap(&place);
            return Ok(());
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
    let opened = match open_locked(disk, clock, options, &paths, lock, Attempt::First) {
        Ok(Opened::Rebuilt { lock, first, known_below }) => {
            let last = Attempt::Last { known_below, was_cut: first.discarded.is_some() };
            open_locked(disk, clock, options, &paths, lock, last).map(|opened| opened.after(*first))
        }
        opened => opened,
    };
    match opened {
        Ok(Opened::Open(storage)) => Ok(*storage),
        Ok(Opened::Rebuilt { .. }) => unreachable!("the last attempt makes no queues anew"),
        Err(error) => {
            if is_disk_error(&error)
                && let Err(error) = queue_flushed::distrust(disk.as_ref(), &paths)
            {
                tracing::warn!(%error, "queue-flushed cannot be taken back");
            }
            Err(error)
        }
    }
}

/// Which of two times the store is being opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    /// Queues that lack messages are looked for and made anew.
    First,
    /// They have been made anew.
    Last {
        /// What the queues knew before: what the others lack behind it was added by the first attempt, and is in no file.
        known_below: PhysicalOffset,
        /// Whether the first attempt has cut the log.
        was_cut: bool,
    },
}

/// What became of an attempt.
enum Opened {
    Open(Box<Storage>),
    /// Queues were made anew; what was loaded before counts no more.
    Rebuilt {
        lock: ProcessLock,
        /// What recovery did.
        first: Box<Recovered>,
        /// Below this the queues knew every record.
        known_below: PhysicalOffset,
    },
}

impl Opened {
    /// Adds what recovery did in the attempt before: this one found the log as that had left it.
    fn after(mut self, first: Recovered) -> Self {
        if let Self::Open(storage) = &mut self {
            let recovered = &mut storage.recovered;
            recovered.messages.splice(0..0, first.messages);
            recovered.discarded = first.discarded.or(recovered.discarded.take());
        }
        self
    }
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
    paths: &StorePaths,
    lock: ProcessLock,
    attempt: Attempt,
) -> Result<Opened, StorageError> {
    let io_error = |action, path: PathBuf| move |source| StorageError::Io { action, path, source };
    let blockers = adopt::blockers(disk.as_ref(), paths).map_err(io_error("look at what is", paths.root.clone()))?;
    if !blockers.is_empty() {
        let texts = blockers.iter().map(|blocker| format!("{}: {}", blocker.path.display(), blocker.text));
        return Err(StorageError::NotAdoptable(texts.collect::<Vec<_>>().join("; ")));
    }
    let was_clean = lock.was_clean(disk.as_ref(), paths).map_err(io_error("look for abort", paths.abort()))?;

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
        false => queue_flushed::load(disk.as_ref(), paths, boot_id.as_deref())
            .map_err(io_error("read queue-flushed", paths.queue_flushed()))?,
    };
    let report = queues.load(match (was_clean, &flushed) {
        (true, _) => FilesLeft::Whole,
        (false, Some(_)) => FilesLeft::Written,
        (false, None) => FilesLeft::Uncertain,
    })?;
    if !report.foreign.is_empty() {
        let foreign: Vec<String> = report.foreign.iter().map(|path| path.display().to_string()).collect();
        tracing::warn!("the folder of the queues holds what belongs to no queue, ignored: {}", foreign.join(", "));
    }
    if !was_clean {
        queues.mark_all_unsynced();
    }
    let loaded = QueueOffsets::load(disk.as_ref(), paths)?;
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
    // So it is left by a repair that was interrupted while queue files changed places.
    let is_interrupted = has_sidecar && queue_offsets.log_offset == PhysicalOffset(0);
    let known_topics = lost_queues::known_topics(disk.as_ref(), paths);
    let noted = has_sidecar.then_some(&queue_offsets);
    let lost = match &known_topics {
        Some(known) if was_clean && attempt == Attempt::First => {
            Some(LostQueues::compare(known, &queues, &report.short, noted, lock.is_signed())?)
        }
        _ => None,
    };
    if let Some(short) = report.short.into_iter().next().filter(|_| lost.is_none()) {
        return Err(QueueError::from(short).into());
    }
    let durable = DurablePointFile::load(disk.as_ref(), paths)
        .map_err(io_error("read the durable point", paths.durable_point()))?;
    let is_marked =
        flushed.is_some() && is_ours(disk.as_ref(), paths).map_err(io_error("read abort", paths.abort()))?;
    let has_yielded = queue_offsets
        .heed_others(disk.as_ref(), paths, durable, flushed)
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
        queue_offsets.persist(disk.as_ref(), paths)?;
    }
    if flushed.is_some() {
        queues.owe_proof(queue_offsets.log_offset)?;
    }
    let known_below = match attempt {
        Attempt::Last { known_below, .. } => known_below,
        Attempt::First if was_clean => {
            // Where nobody else has worked since, every entry of a record below the note has been compared with it. Without one such a
            // record belongs to a topic that another broker deleted before, also if it is the last of the log.
            let is_compared = lock.is_signed() && known_topics.is_some();
            let noted_below = if is_compared { queue_offsets.log_offset } else { PhysicalOffset(0) };
            queues.maximum_physical_end().max(noted_below)
        }
        Attempt::First => PhysicalOffset(0),
    };
    let some_know_below = match attempt {
        Attempt::First => PhysicalOffset(0),
        Attempt::Last { .. } => queues.maximum_physical_end(),
    };
    // What was stored lately counts after a crash, since the table may be the older one of two; below that queues have what they need.
    let deleted_below = match was_clean || is_interrupted {
        true => PhysicalOffset(u64::MAX),
        false => from.unwrap_or_default(),
    };
    let mut sink = Rebuild {
        queues: &queues,
        pool: &pool,
        offsets: &queue_offsets,
        from,
        topics: known_topics.as_ref(),
        deleted_below,
        lost,
        known_below,
        some_know_below,
        begins: TopicBegins::default(),
        lacks_below,
    };
    let recovered = recover(disk.as_ref(), paths, &recovery_options, &mut sink)?;
    for message in &recovered.messages {
        tracing::warn!("{message}");
    }
    if let Some(scope) = sink.lost.and_then(LostQueues::scope).filter(|_| recovered.end > recovered.min) {
        drop((queues, pool));
        make_anew(disk, options, paths, &scope, recovered.end)?;
        return Ok(Opened::Rebuilt { lock, first: Box::new(recovered), known_below });
    }
    // What is written from here on is none of the past, whatever a barrier says that lies behind a cut, or was never given.
    if queue_offsets.lower_barriers_to(recovered.end) {
        // A lowered barrier no longer tells that files with entries behind the cut are old, should they come back.
        queues.sync_removals()?;
        queue_offsets.persist(disk.as_ref(), paths)?;
    }
    // After a cut the queues may know more than the log, however the last stop was.
    let was_cut =
        recovered.discarded.is_some() || options.salvage || matches!(attempt, Attempt::Last { was_cut: true, .. });
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
        note_queue_offsets(disk.as_ref(), paths, &queues, &queue_offsets, recovered.end.0, recovered.min.0)?;
    }
    let queue_flushed = QueueFlushedFile::open(disk.as_ref(), paths, boot_id)
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
        CheckpointFile::open(disk.as_ref(), paths).map_err(io_error("open the checkpoint", paths.checkpoint()))?;
    let durable_point = DurablePointFile::open(disk.as_ref(), paths)
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
        true => lock.mark_running_again(disk.as_ref(), paths, pid),
        false => lock.mark_running(disk.as_ref(), paths, pid),
    }
    .map_err(io_error("write abort", paths.abort()))?;
    queue_flushed.note(recovered.end).map_err(io_error("write queue-flushed", paths.queue_flushed()))?;
    Ok(Opened::Open(Box::new(Storage {
        paths: paths.clone(),
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
    })))
}

/// Makes queues anew that lack messages of the log.
fn make_anew(
    disk: &Arc<dyn Disk>,
    options: &StorageOptions,
    paths: &StorePaths,
    scope: &QueueScope,
    end: PhysicalOffset,
) -> Result<(), StorageError> {
    let audit = AuditOptions {
        segment_bytes: options.segment_bytes,
        queue_file_entries: options.queue_file_entries,
        index: options.index.unwrap_or_default(),
        is_sync: Some(options.is_sync),
        group_bytes: options.ring_bytes,
        is_signed: false,
    };
    tracing::info!("queue files are missing or damaged: the whole log is read to make queues anew");
    let rebuilt = rebuild_queues(disk, paths, audit, scope, end, &mut ToldProgress::default())?;
    let (queues, entries) = (rebuilt.queues, rebuilt.queue_entries);
    let saved = rebuilt.instructions.map_or_else(|| "nothing".to_owned(), |path| path.display().to_string());
    lost_queues::tell(scope);
    tracing::info!(queues, entries, saved, "queues were made anew; what was in their place is saved as the text says");
    Ok(())
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
    let mut empty: BTreeMap<String, BTreeSet<QueueId>> = BTreeMap::new();
    for (topic, queue_id, minimum, offset) in queues.all_bounds() {
        // Those of a topic whose deletion has begun count no more for whoever reads this, retired or not: made again, it begins at 0.
        let is_ending = barriers.get(&*topic).is_some_and(|barrier| barrier.0 == u64::MAX);
        if offset.0 > 0 && !is_ending {
            next.entry(topic.to_string()).or_default().insert(queue_id, offset);
            if minimum == offset {
                empty.entry(topic.to_string()).or_default().insert(queue_id);
            }
        }
    }
    let mut noted = QueueOffsets { log_offset: PhysicalOffset(log_offset), next, barriers: barriers.clone(), empty };
    noted.forget_barriers_below(PhysicalOffset(log_minimum));
    noted.persist(disk, paths)?;
    let mut known = sidecar.lock();
    // Barriers that were noted meanwhile are in no file yet.
    for (topic, barrier) in &known.barriers {
        if barriers.get(topic) != Some(barrier) {
            noted.next.remove(topic);
            noted.empty.remove(topic);
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
    known.empty.remove(topic);
    known.barriers.insert(topic.to_owned(), PhysicalOffset(barrier));
}

/// Writes what is known of queues and barriers as it stands.
pub fn write_queue_offsets(disk: &dyn Disk, paths: &StorePaths, sidecar: &Sidecar) -> Result<(), StateFileError> {
    let _writing = sidecar.begin_write();
    let known = sidecar.lock().clone();
    known.persist(disk, paths)
}

#[cfg(test)]
mod tests;
