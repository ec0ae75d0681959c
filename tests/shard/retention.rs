//! The retention thread on a disk that fills or fails, beat by beat.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use ringmq::config::Layers;
use ringmq::server::event_loop::Lifecycle;
use ringmq::server::retention::{Progress, RetentionThread};
use ringmq::server::shared::Shared;
use ringmq::server::store_thread::StoreJob;
use ringmq_shards::disk::Disk;
use ringmq_shards::probe::Registry;
use ringmq_shards::sim::{Fault, FaultAction, ManualClock, OperationKind, SimDisk, SimRandom};
use ringmq_shards::types::{PhysicalOffset, QueueId};

use super::crash::{Life, Past, open, power_on};
use super::world::Mode;

/// Far more than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    disk: SimDisk,
    thread: RetentionThread,
    progress: Progress,
    jobs: Receiver<StoreJob>,
}

impl Rig {
    /// A log of several files that may all go but the last, with three queues of several files.
    fn new(queue_file_pause_ms: u64) -> Self {
        let disk = SimDisk::new();
        power_on(&disk, &mut SimRandom::new(3));
        let mut past = Past::default();
        let mut life = open(&disk, Mode::AsyncPageCache, 3).expect("an empty store opens");
        for _ in 0..200 {
            life.append(&mut past);
            life.write_all(&mut past);
            life.writer.begin_turn();
            let (end, ready_end) = (life.writer.end(), life.writer.ready_end());
            if ready_end - end < life.storage.segments.options().size.bytes() {
                life.storage.segments.prepare_next(PhysicalOffset(end)).expect("there is room");
                life.writer.segment_ready(ready_end);
            }
        }
        life.flush_durably();
        let Life { storage, view, .. } = life;
        let sets = [
            "fileReservedTime=0".to_owned(),
            "deleteWhen=0;1;2;3;4;5;6;7;8;9;10;11;12;13;14;15;16;17;18;19;20;21;22;23".to_owned(),
            "cleanResourceInterval=100".to_owned(),
            "deleteCommitLogFilesInterval=0".to_owned(),
            "deleteFileBatchMax=10000".to_owned(),
            "redeleteHangedFileInterval=1000".to_owned(),
            format!("deleteConsumeQueueFilesInterval={queue_file_pause_ms}"),
        ];
        let config = Layers { sets: sets.to_vec(), ..Layers::default() }.build().expect("valid");
        let shared = Arc::new(Shared::new(&config, 1, 4 << 30, 32 << 10, 64 << 20));
        shared.retention.note_durable_point(view.confirmed());
        let (sender, jobs) = sync_channel(1);
        let thread = RetentionThread {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(ManualClock::new(1_000_000_000)),
            view,
            segments: Arc::clone(&storage.segments),
            queues: Arc::clone(&storage.queues),
            queue_offsets: Arc::clone(&storage.queue_offsets),
            directories: vec![storage.paths.commit_log.clone()],
            jobs: sender,
            shared,
            lifecycle: Arc::new(Lifecycle::default()),
            probe: Registry::new().probe("retention"),
        };
        let progress = thread.begin();
        Self { disk, thread, progress, jobs }
    }

    fn beat(&mut self) {
        let _wait = self.thread.beat(&mut self.progress);
    }

    fn is_full(&self) -> bool {
        self.thread.shared.retention.is_full()
    }

    /// Makes the disk as large as what is on it and this much more.
    fn leave(&self, bytes: u64) {
        let used = self.disk.space(Path::new("/store")).expect("it can be read").used;
        self.disk.set_capacity(Some(used + bytes));
    }

    /// Files whose paths contain a text.
    fn files(&self, part: &str) -> usize {
        self.disk.paths().iter().filter(|path| path.to_string_lossy().contains(part)).count()
    }

    /// Files of each queue.
    fn queue_files(&self) -> [usize; 3] {
        [0, 1, 2].map(|queue| self.files(&format!("/consumequeue/T/{queue}/")))
    }

    /// Removals of files whose paths contain a text fail so many times.
    fn fail_removals(&self, part: &str, times: u64) {
        let (kind, action) = (OperationKind::Remove, FaultAction::Fail(libc::EIO));
        self.disk.inject(Fault { kind, path_contains: part.to_owned(), after: 0, times, action });
    }

    /// Beats until it is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            assert!(began.elapsed() < PATIENCE, "{what}");
            self.beat();
            std::thread::yield_now();
        }
    }
}

/// Goal: while queue files go slowly, the room of log files is given back and the disk is looked at as ever; minimum offsets do not
/// wait for the files. Method: a pause of a minute between queues; fill the disk after the first, then empty it.
#[test]
fn slow_queue_files_keep_nothing_waiting() {
    let mut rig = Rig::new(60_000);
    let (segments, before) = (rig.files("/commitlog/"), rig.queue_files());
    assert!(segments >= 4 && before.iter().all(|files| *files >= 3), "{segments} {before:?}");
    rig.beat();
    assert!(rig.files("/commitlog/") < segments);
    assert_eq!(rig.files(".removed"), 0);
    let shrunk = |rig: &Rig| rig.queue_files().iter().zip(before).filter(|(now, before)| *now < before).count();
    assert_eq!(shrunk(&rig), 1);
    for queue in 0..3 {
        assert!(rig.thread.queues.get("T", QueueId(queue)).expect("a queue").bounds().0.0 > 0);
    }
    assert!(!rig.is_full());
    rig.leave(0);
    rig.beat();
    assert!(rig.is_full());
    rig.disk.set_capacity(None);
    rig.beat();
    assert!(!rig.is_full());
    assert_eq!(shrunk(&rig), 1);
}

/// Goal: a file of the log that cannot be removed keeps no other from going, and is tried again. Method: the first removal fails.
#[test]
fn a_log_file_that_cannot_be_removed_is_tried_again() {
    let mut rig = Rig::new(0);
    let segments = rig.files("/commitlog/");
    rig.fail_removals(".removed", 1);
    rig.beat();
    assert!(segments - rig.files("/commitlog/") >= 2, "several files went");
    assert_eq!(rig.files(".removed"), 1);
    rig.until("its room is given back", |rig| rig.files(".removed") == 0);
}

/// Goal: what of queues and index could not be cleaned is tried again although the log's minimum stays. Method: a job channel that
/// is full, and queue files that cannot be removed, for one pass.
#[test]
fn an_unfinished_cleaning_is_made_up_for() {
    let mut rig = Rig::new(0);
    let before = rig.queue_files();
    rig.thread.jobs.try_send(StoreJob::RemoveExpired).expect("there is room for one");
    rig.fail_removals("consumequeue", 3);
    rig.beat();
    let minimum = rig.thread.view.minimum();
    assert_eq!(rig.queue_files(), before);
    assert!(rig.jobs.try_iter().count() == 1);
    rig.until("the files go", |rig| rig.queue_files().iter().zip(before).all(|(now, before)| *now < before));
    assert_eq!((rig.thread.view.minimum(), rig.jobs.try_iter().count() > 0), (minimum, true));
}
