//! The retention thread: removes what is too old or too much, and says when the disk is too full to take more.
//!
//! What goes is decided by [`ringmq_shards::log::retention`]; this is its shell. It looks at the file systems several times a
//! second, and at the files each `cleanResourceInterval`. Unlinking a file of a gigabyte keeps a file system busy for long, so
//! a file leaves the log by a new name, and its blocks go in steps, once nobody reads it any more.
//!
//! Invariants: a file goes only when everything in it is synced, its queue entries are durable, and the durable point lies
//! behind it, so that no recovery ever needs it; minimum offsets move before the bytes go. Nothing here is ever waited for by
//! a shard.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ringmq_shards::clock::{Clock, local_hour};
use ringmq_shards::disk::Disk;
use ringmq_shards::log::LogView;
use ringmq_shards::log::retention::{Facts, LogFile, Reason, RetentionRules, decide, parse_hours};
use ringmq_shards::log::segment_table::SegmentError;
use ringmq_shards::log::segments::{RemovedSegment, Segments};
use ringmq_shards::probe::{Counter, Histogram, Probe};
use ringmq_shards::queue::{Queue, QueueError, QueueStore};
use ringmq_shards::types::PhysicalOffset;

use super::event_loop::Lifecycle;
use super::shared::Shared;
use super::storage::Sidecar;
use super::store_thread::StoreJob;
use super::trouble::Trouble;
use crate::config::Config;

/// How often the file systems are looked at: a sender that was refused may go on at most so long after space came back.
const BEAT: Duration = Duration::from_millis(250);

/// Bytes of a removed file that go in one step, and the pause after it: together almost 1 GB/s, and a synchronous write
/// beside it waits for some milliseconds at most where free blocks are discarded.
const STEP_BYTES: u64 = 8 << 20;
const STEP_PAUSE: Duration = Duration::from_millis(5);

/// Rounds that one request to delete stands for, as in RocketMQ (`manualDeleteFileSeveralTimes`).
const ASKED_ROUNDS: u32 = 20;

/// The configured rules and paces.
#[derive(Debug, Clone)]
pub struct RetentionSettings {
    /// What goes when.
    pub rules: RetentionRules,
    /// `cleanResourceInterval`.
    pub period: Duration,
    /// `deleteCommitLogFilesInterval`.
    pub log_file_pause: Duration,
    /// `deleteConsumeQueueFilesInterval`.
    pub queue_file_pause: Duration,
    /// `destroyMapedFileIntervalForcibly`: how long a file that is read is left alone.
    pub reader_patience: Duration,
    /// `redeleteHangedFileInterval`: how soon a removal that failed is tried again.
    pub retry: Duration,
}

impl From<&Config> for RetentionSettings {
    fn from(config: &Config) -> Self {
        let percent = |value: u32| u8::try_from(value).unwrap_or(100);
        let rules = RetentionRules {
            reserved_ms: config.file_reserved_time.saturating_mul(3_600_000),
            // Checked with the configuration.
            delete_hours: parse_hours(&config.delete_when).unwrap_or(0),
            used_percent: percent(config.disk_max_used_space_ratio),
            forcible_percent: percent(config.disk_space_clean_forcibly_ratio),
            warning_percent: percent(config.disk_space_warning_level_ratio),
            cleans_forcibly: config.clean_file_forcibly_enable,
            batch_files: config.delete_file_batch_max as usize,
        };
        Self {
            rules: rules.clamped(),
            period: Duration::from_millis(config.clean_resource_interval),
            log_file_pause: Duration::from_millis(config.delete_commit_log_files_interval),
            queue_file_pause: Duration::from_millis(config.delete_consume_queue_files_interval),
            reader_patience: Duration::from_millis(config.destroy_maped_file_interval_forcibly),
            retry: Duration::from_millis(config.redelete_hanged_file_interval),
        }
    }
}

/// What other threads and the retention thread tell each other.
#[derive(Debug)]
pub struct RetentionState {
    settings: Mutex<RetentionSettings>,
    /// Rounds that were asked for and not made yet.
    asked_rounds: AtomicU32,
    /// Whether queue files are to be looked at.
    queues_asked: AtomicBool,
    /// Whether sends are refused for want of space.
    is_full: AtomicBool,
    /// The two ratios of the refusal, for the sender's text: a shard asks without a lock.
    warning_percent: AtomicU32,
    forcible_percent: AtomicU32,
    /// Use of the fullest file system, percent.
    used_percent: AtomicU32,
    /// The durable point as it is on disk; set by the flush thread.
    durable_point: AtomicU64,
}

impl RetentionState {
    /// The state before the first look.
    pub fn new(config: &Config) -> Self {
        let settings = RetentionSettings::from(config);
        Self {
            warning_percent: AtomicU32::new(settings.rules.warning_percent.into()),
            forcible_percent: AtomicU32::new(settings.rules.forcible_percent.into()),
            settings: Mutex::new(settings),
            asked_rounds: AtomicU32::new(0),
            queues_asked: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            used_percent: AtomicU32::new(0),
            durable_point: AtomicU64::new(0),
        }
    }

    /// Takes over a changed configuration.
    pub fn adopt(&self, config: &Config) {
        let settings = RetentionSettings::from(config);
        self.warning_percent.store(settings.rules.warning_percent.into(), Ordering::Relaxed);
        self.forcible_percent.store(settings.rules.forcible_percent.into(), Ordering::Relaxed);
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }

    fn settings(&self) -> RetentionSettings {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody wants expired files to go now (`DELETE_EXPIRED_COMMITLOG`).
    pub fn ask(&self) {
        self.asked_rounds.store(ASKED_ROUNDS, Ordering::Release);
    }

    /// Somebody wants queue files without messages to go now (`CLEAN_EXPIRED_CONSUMEQUEUE`).
    pub fn ask_for_queues(&self) {
        self.queues_asked.store(true, Ordering::Release);
    }

    /// Whether sends are refused for want of space. One load: asked for each send.
    pub fn is_full(&self) -> bool {
        self.is_full.load(Ordering::Relaxed)
    }

    /// Begins or ends refusing.
    pub fn set_full(&self, is_full: bool) {
        self.is_full.store(is_full, Ordering::Relaxed);
    }

    /// Why sends are refused, for the sender.
    pub fn refusal(&self) -> String {
        format!(
            "service not available now: the broker's disk is full [used: {} %]; messages are refused above {} % \
             (diskSpaceWarningLevelRatio) until use is down to {} % (diskSpaceCleanForciblyRatio)",
            self.used_percent.load(Ordering::Relaxed),
            self.warning_percent.load(Ordering::Relaxed),
            self.forcible_percent.load(Ordering::Relaxed)
        )
    }

    /// Use of the fullest file system, percent.
    pub fn used_percent(&self) -> u64 {
        self.used_percent.load(Ordering::Relaxed).into()
    }

    /// The durable point on disk is at least this.
    pub fn note_durable_point(&self, offset: u64) {
        self.durable_point.fetch_max(offset, Ordering::AcqRel);
    }
}

/// A file that was taken out of the log.
struct Leaving {
    segment: RemovedSegment,
    since: Instant,
    /// When its removal may be tried again, after one that failed.
    retry_at: Option<Instant>,
}

/// What is under way between two beats.
pub struct Progress {
    leaving: VecDeque<Leaving>,
    next_round: Instant,
    /// The log's minimum that those of the queues were last raised to.
    raised_to: u64,
    /// Queues whose files are to be looked at now, when the next of them may be, and whether all are to be once more.
    queues: std::vec::IntoIter<Arc<Queue>>,
    next_queue: Instant,
    is_wanted_again: bool,
    /// Something of it failed: all of it again with the next round.
    has_failed: bool,
    troubles: Troubles,
}

/// What may fail for many rounds.
struct Troubles {
    listing: Trouble,
    log_files: Trouble,
    minimums: Trouble,
    queue_files: Trouble,
    /// Whether a queue of this pass could not be cleaned.
    has_pass_failed: bool,
}

impl Troubles {
    const NONE: Self = Self {
        listing: Trouble::new(
            "the log's files cannot be listed: none is removed",
            "the log's files can be listed again",
        ),
        log_files: Trouble::new(
            "a file of the log could not be removed; it is tried again",
            "files of the log can be removed again",
        ),
        minimums: Trouble::new(
            "the minimum offset of a queue could not be raised",
            "the minimum offsets of queues are raised again",
        ),
        queue_files: Trouble::new(
            "files of a queue could not be removed; it is tried again",
            "files of queues can be removed again",
        ),
        has_pass_failed: false,
    };
}

/// The retention thread.
pub struct RetentionThread {
    /// Files.
    pub disk: Arc<dyn Disk>,
    /// Clock, for the age of files.
    pub clock: Arc<dyn Clock>,
    /// The log in memory.
    pub view: Arc<LogView>,
    /// The log's files.
    pub segments: Arc<Segments>,
    /// Queues.
    pub queues: Arc<QueueStore>,
    /// What recovery knows of the queues.
    pub queue_offsets: Arc<Sidecar>,
    /// Directories whose file systems count.
    pub directories: Vec<PathBuf>,
    /// The store thread, which owns the index.
    pub jobs: SyncSender<StoreJob>,
    /// Shared state.
    pub shared: Arc<Shared>,
    /// Life of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// Figures.
    pub probe: Probe,
}

impl RetentionThread {
    /// Runs until the process stops.
    pub fn run(self) {
        let mut progress = self.begin();
        while !self.is_over() {
            let wait = self.beat(&mut progress);
            std::thread::park_timeout(wait);
        }
    }

    /// Nothing is under way.
    pub fn begin(&self) -> Progress {
        let now = Instant::now();
        Progress {
            leaving: VecDeque::new(),
            next_round: now,
            raised_to: self.view.minimum(),
            queues: Vec::new().into_iter(),
            next_queue: now,
            is_wanted_again: false,
            has_failed: false,
            troubles: Troubles::NONE,
        }
    }

    /// Does what is due, in the order of its worth: disks, files of the log, minimum offsets, room, queue files. Says how long
    /// to wait for the next time.
    pub fn beat(&self, progress: &mut Progress) -> Duration {
        let settings = self.shared.retention.settings();
        let percents = self.look_at_disks(&settings);
        let is_asked = self.shared.retention.asked_rounds.load(Ordering::Acquire) > 0;
        let now = Instant::now();
        let is_round = now >= progress.next_round || is_asked;
        if is_round {
            progress.next_round = now + settings.period;
            self.round(&settings, &percents, is_asked, progress);
        }
        let minimum = self.view.minimum();
        let is_asked = self.shared.retention.queues_asked.swap(false, Ordering::AcqRel);
        if is_asked || minimum > progress.raised_to || (is_round && progress.has_failed) {
            progress.raised_to = minimum;
            progress.is_wanted_again = true;
            let raised = self.raise_minimums(&settings, PhysicalOffset(minimum));
            progress.has_failed = !progress.troubles.minimums.note(raised);
            if self.jobs.try_send(StoreJob::RemoveExpired).is_err() {
                tracing::debug!("the store thread is busy: index files go with the next round");
                progress.has_failed = true;
            }
        }
        self.free(&settings, &mut progress.leaving);
        self.clean_queues(&settings, progress)
    }

    fn is_over(&self) -> bool {
        self.lifecycle.stopping.load(Ordering::Acquire) || self.lifecycle.failed.load(Ordering::Acquire)
    }

    /// Notes how full the file systems are, and whether sends are refused.
    fn look_at_disks(&self, settings: &RetentionSettings) -> Vec<Option<u8>> {
        let percent = |path: &PathBuf| match self.disk.space(path) {
            Ok(space) => Some(space.used_percent()),
            Err(error) => {
                tracing::debug!(%error, path = %path.display(), "the disk's room cannot be read");
                None
            }
        };
        let percents: Vec<Option<u8>> = self.directories.iter().map(percent).collect();
        let state = &self.shared.retention;
        let fullest = percents.iter().flatten().copied().max().unwrap_or(0);
        state.used_percent.store(fullest.into(), Ordering::Relaxed);
        let was_full = state.is_full();
        let facts = Facts { is_full: was_full, ..self.facts(&[], &percents, false) };
        let is_full = decide(&settings.rules, &facts).is_full;
        state.set_full(is_full);
        match (was_full, is_full) {
            (false, true) => tracing::warn!(used_percent = fullest, "the disk is too full: sends are refused"),
            (true, false) => tracing::info!(used_percent = fullest, "there is room again: sends are taken"),
            _ => {}
        }
        percents
    }

    fn facts<'a>(&self, files: &'a [LogFile], disk_percents: &'a [Option<u8>], is_asked: bool) -> Facts<'a> {
        let now_ms = self.clock.now_ms();
        let noted = self.queue_offsets.lock().log_offset.0;
        let durable = self.shared.retention.durable_point.load(Ordering::Acquire);
        // A recovery must find everything that it reads: from the durable point, and from where queue files may lack entries.
        let removable_end = self.view.confirmed().min(self.view.synced()).min(noted).min(durable);
        Facts {
            files,
            removable_end: PhysicalOffset(removable_end),
            now_ms,
            hour: local_hour(now_ms),
            disk_percents,
            is_asked,
            is_full: self.shared.retention.is_full(),
        }
    }

    /// One look at the files.
    fn round(&self, settings: &RetentionSettings, percents: &[Option<u8>], is_asked: bool, progress: &mut Progress) {
        self.probe.count(Counter::RetentionRounds);
        let Progress { leaving, troubles, .. } = progress;
        let times = match self.segments.modified() {
            Ok(times) => times,
            Err(error) => {
                troubles.listing.note(Err(error));
                return;
            }
        };
        troubles.listing.note(Ok::<_, SegmentError>(()));
        let list = self.segments.snapshot();
        let file = |segment: &Arc<ringmq_shards::log::segments::Segment>| LogFile {
            end: list.size().next_start(segment.start()),
            modified_ms: times.iter().find(|(start, _)| *start == segment.start()).and_then(|(_, time)| *time),
        };
        let files: Vec<LogFile> = list.segments().iter().map(file).collect();
        drop(list);
        let decision = decide(&settings.rules, &self.facts(&files, percents, is_asked));
        if is_asked {
            // Asked for once more in the meantime: all rounds again.
            let left = self.shared.retention.asked_rounds.load(Ordering::Acquire).saturating_sub(1);
            self.shared.retention.asked_rounds.store(if decision.remove == 0 { 0 } else { left }, Ordering::Release);
        }
        let Some(reason) = decision.reason else { return };
        for file in &files[..decision.remove] {
            if self.is_over() {
                return;
            }
            match self.take(file.end) {
                Ok(Some(segment)) => {
                    troubles.log_files.note(Ok::<_, SegmentError>(()));
                    tracing::info!(file = segment.start().0, reason = why(reason), "a file of the log is removed");
                    if let Some(error) = segment.unsynced() {
                        tracing::warn!(%error, file = segment.start().0, "a power cut may bring the file back");
                    }
                    self.probe.count(Counter::LogSegmentsRemoved);
                    leaving.push_back(Leaving { segment, since: Instant::now(), retry_at: None });
                }
                Ok(None) => return,
                Err(error) => {
                    troubles.log_files.note(Err(error));
                    return;
                }
            }
            self.pause(settings, settings.log_file_pause);
        }
    }

    /// Takes the oldest file, which ends at `end`, out of the log.
    fn take(&self, end: PhysicalOffset) -> Result<Option<RemovedSegment>, SegmentError> {
        // First, so that whoever does not find the bytes any more also finds why.
        self.view.set_minimum(end.0);
        self.segments.take_oldest()
    }

    /// Raises the minimum of all queues; gives the first error, and goes on behind it.
    fn raise_minimums(&self, settings: &RetentionSettings, minimum: PhysicalOffset) -> Result<(), QueueError> {
        let mut outcome = Ok(());
        let mut looked = Instant::now();
        for queue in self.queues.queues() {
            if self.is_over() {
                break;
            }
            if looked.elapsed() >= BEAT {
                self.look_at_disks(settings);
                looked = Instant::now();
            }
            let raised = self.queues.correct_minimum(&queue, minimum);
            if raised.is_err() && !queue.is_retired() {
                outcome = outcome.and(raised);
            }
        }
        outcome
    }

    /// Removes files of queues below their minimum, a few queues per beat: one pass over all of them may take minutes. Says how
    /// long to wait for the next.
    fn clean_queues(&self, settings: &RetentionSettings, progress: &mut Progress) -> Duration {
        let began = Instant::now();
        while !self.is_over() && began.elapsed() < BEAT {
            let now = Instant::now();
            if now < progress.next_queue {
                return BEAT.min(progress.next_queue - now);
            }
            let Some(queue) = progress.queues.next() else {
                if !progress.troubles.has_pass_failed {
                    progress.troubles.queue_files.note(Ok::<_, QueueError>(()));
                }
                if !std::mem::take(&mut progress.is_wanted_again) {
                    return BEAT;
                }
                progress.queues = self.queues.queues().into_iter();
                progress.troubles.has_pass_failed = false;
                continue;
            };
            match self.queues.remove_expired_files(&queue, PhysicalOffset(progress.raised_to)) {
                Ok(0) => {}
                Ok(files) => {
                    self.probe.add(Counter::QueueFilesRemoved, files);
                    progress.next_queue = Instant::now() + settings.queue_file_pause;
                }
                Err(_) if queue.is_retired() => {}
                Err(error) => {
                    progress.troubles.queue_files.note(Err(error));
                    progress.troubles.has_pass_failed = true;
                    progress.has_failed = true;
                }
            }
        }
        Duration::ZERO
    }

    /// Frees the blocks of files that nobody reads any more, or that were waited for long enough. One that cannot be removed is
    /// tried again after a while, and keeps no other from its turn.
    fn free(&self, settings: &RetentionSettings, leaving: &mut VecDeque<Leaving>) {
        for _ in 0..leaving.len() {
            let Some(mut one) = leaving.pop_front() else { return };
            let is_read = one.segment.is_read();
            if is_read && one.since.elapsed() < settings.reader_patience
                || one.retry_at.is_some_and(|retry_at| Instant::now() < retry_at)
            {
                leaving.push_back(one);
                continue;
            }
            let began = Instant::now();
            let start = one.segment.start().0;
            while !is_read && !self.is_over() {
                match one.segment.shrink(STEP_BYTES) {
                    Ok(true) => self.pause(settings, STEP_PAUSE),
                    Ok(false) => break,
                    Err(error) => {
                        tracing::warn!(%error, file = start, "a removed file of the log goes at once, and not in steps");
                        break;
                    }
                }
            }
            if let Err(error) = one.segment.remove() {
                tracing::warn!(%error, file = start, "a removed file of the log still takes space; it is tried again");
                one.retry_at = Some(Instant::now() + settings.retry);
                leaving.push_back(one);
                continue;
            }
            self.probe
                .record(Histogram::SegmentRemoveTime, u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }

    /// Waits, but not for a stop, and with an eye on the disks.
    fn pause(&self, settings: &RetentionSettings, length: Duration) {
        let until = Instant::now() + length;
        while !self.is_over() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::park_timeout(left.min(BEAT));
            self.look_at_disks(settings);
        }
    }
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::Hour => "expired (fileReservedTime), and it is the hour (deleteWhen)",
        Reason::Used => "expired (fileReservedTime), and the disk is fuller than diskMaxUsedSpaceRatio",
        Reason::Asked => "expired (fileReservedTime), and a tool asked for it",
        Reason::Forced => "the disk is fuller than diskSpaceCleanForciblyRatio",
    }
}
