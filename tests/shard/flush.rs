//! The flush thread on a disk that fails: what it claims afterwards, and what the next start makes of it.

use std::io::Write;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, Once};

use ringmq::config::Layers;
use ringmq::server::event_loop::Lifecycle;
use ringmq::server::flush_thread::{FlushRequest, FlushThread};
use ringmq::server::messages::{SegmentNews, ShardMessage};
use ringmq::server::shared::Shared;
use ringmq_shards::disk::{DiskFile, LockOutcome, OpenOptions};
use ringmq_shards::log::huge_pages::HugePages;
use ringmq_shards::probe::Registry;
use ringmq_shards::recovery::queue_flushed::{self, QueueFlushedFile};
use ringmq_shards::recovery::{StorePaths, queue_offsets::QueueOffsets};
use ringmq_shards::runtime::{CountedSender, Mailbox, WakeHandle, counted_channel};
use ringmq_shards::sim::{CrashPattern, Fault, FaultAction, OperationKind, SimDisk, SimRandom};
use ringmq_shards::types::PhysicalOffset;

use super::crash::{Life, Past, open, power_on};
use super::world::Mode;

/// A flush thread over what a life has written, with both ends of what it is asked and tells.
struct Rig {
    thread: FlushThread,
    requests: CountedSender<FlushRequest>,
    writer: Mailbox<ShardMessage>,
    lifecycle: Arc<Lifecycle>,
}

fn flush_thread(life: Life) -> Rig {
    let Life { disk, storage, writer, view, catch_up, .. } = life;
    let config = Layers::default().build().expect("the defaults are a configuration");
    let shared = Arc::new(Shared::new(&config, 1, 4 << 30, 32 << 10, 64 << 20));
    let lifecycle = Arc::new(Lifecycle::default());
    let (mailbox_sender, mailbox) = Mailbox::new(64, WakeHandle::new().expect("an eventfd"));
    let (requests, receiver) = counted_channel(4);
    let thread = FlushThread {
        requests: receiver,
        disk,
        view,
        pin_slot: 0,
        segments: Arc::clone(&storage.segments),
        zeroes_ahead: false,
        wrote_directly: Arc::default(),
        huge_pages: HugePages::none(),
        queues: Arc::clone(&storage.queues),
        paths: storage.paths.clone(),
        queue_offsets: Arc::clone(&storage.queue_offsets),
        queue_flushed: storage.queue_flushed,
        writer: mailbox_sender,
        checkpoint_file: storage.checkpoint_file,
        checkpoint: storage.checkpoint,
        durable_point: storage.durable_point,
        catch_up,
        index_timestamp_ms: Arc::new(AtomicU64::new(0)),
        shared,
        lifecycle: Arc::clone(&lifecycle),
        probe: Registry::new().probe("flush"),
        end: writer.end(),
        ready_end: writer.ready_end(),
    };
    Rig { thread, requests, writer: mailbox, lifecycle }
}

/// The flush thread's last round on what a life has written. True when all of it worked, and whether it failed for good.
fn stop_in_order(life: Life) -> (bool, bool) {
    let Rig { thread, requests, lifecycle, writer: _writer } = flush_thread(life);
    let (done, finished) = channel();
    requests.send(FlushRequest::Stop(done)).expect("there is room");
    thread.run();
    let is_complete = finished.try_recv().unwrap_or(false);
    (is_complete, lifecycle.failed.load(Ordering::Acquire))
}

/// A file that notes at each write whether shards knew of a failure by then.
struct Watched {
    file: Box<dyn DiskFile>,
    lifecycle: Arc<Lifecycle>,
    known_at_writes: Arc<Mutex<Vec<bool>>>,
}

impl DiskFile for Watched {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_all_at(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        let known = self.lifecycle.failed.load(Ordering::Acquire);
        self.known_at_writes.lock().expect("one thread").push(known);
        self.file.write_all_at(data, offset)
    }
    fn allocate(&self, length: u64) -> std::io::Result<()> {
        self.file.allocate(length)
    }
    fn set_length(&self, length: u64) -> std::io::Result<()> {
        self.file.set_length(length)
    }
    fn length(&self) -> std::io::Result<u64> {
        self.file.length()
    }
    fn sync_data(&self) -> std::io::Result<()> {
        self.file.sync_data()
    }
    fn start_write_back(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.file.start_write_back(offset, length)
    }
    fn data_from(&self, offset: u64) -> std::io::Result<Option<u64>> {
        self.file.data_from(offset)
    }
    fn try_lock(&self) -> std::io::Result<LockOutcome> {
        self.file.try_lock()
    }
    fn drop_cached(&self, offset: u64, length: u64) -> std::io::Result<()> {
        self.file.drop_cached(offset, length)
    }
    fn expect_scattered_reads(&self) -> std::io::Result<()> {
        self.file.expect_scattered_reads()
    }
    fn is_cached(&self, offset: u64, length: u64) -> std::io::Result<bool> {
        self.file.is_cached(offset, length)
    }
    fn raw_fd(&self) -> Option<RawFd> {
        self.file.raw_fd()
    }
}

/// What is logged meanwhile on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// Notes what `run` logs.
    fn of(&self, run: impl FnOnce()) {
        // While there is only one subscriber, a thread without it that comes to a line first has that line left out for all.
        static OTHERS: Once = Once::new();
        OTHERS.call_once(|| {
            let nobody = tracing_subscriber::fmt().with_writer(std::io::sink).finish();
            tracing::subscriber::set_global_default(nobody).expect("the only one of this program");
        });
        let lines = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || lines.clone()).finish();
        tracing::subscriber::with_default(subscriber, run);
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Goal: a full disk is told of once, however often it is met, and once more when there is room again; the writer is told each
/// time. Method: four segments that cannot be allocated, half a second apart, then one that can.
#[test]
fn a_full_disk_is_told_of_once() {
    let (disk, life, _) = written();
    let before = life.storage.segments.snapshot().segments().len();
    let action = FaultAction::Fail(libc::ENOSPC);
    disk.inject(Fault { kind: OperationKind::Allocate, path_contains: String::new(), after: 0, times: 4, action });
    let Rig { thread, requests, writer, .. } = flush_thread(life);
    let segments = Arc::clone(&thread.segments);
    let lines = Lines::default();
    let stopping = std::thread::spawn(move || {
        while segments.snapshot().segments().len() == before {
            std::thread::yield_now();
        }
        let news = std::iter::from_fn(|| writer.receive());
        let full = news.filter(|news| matches!(news, ShardMessage::Segment(SegmentNews::DiskFull))).count();
        let (done, finished) = channel();
        requests.send(FlushRequest::Stop(done)).expect("it runs");
        (full, finished.recv().expect("it ends"))
    });
    lines.of(|| thread.run());
    assert_eq!(stopping.join().expect("it ends"), (4, true));
    let text = String::from_utf8(lines.0.lock().expect("unpoisoned").clone()).expect("text");
    let of_space: Vec<_> = text.lines().filter(|line| line.contains("space for the next log segment")).collect();
    assert!(of_space.len() == 2 && of_space[0].contains("WARN") && of_space[1].contains("INFO"), "{text}");
}

/// Goal: too many open files do not end the process: the next segment is there soon after one may be opened again. Method: two attempts
/// without a descriptor, at each of the files that an attempt opens.
#[test]
fn too_many_open_files_are_waited_for() {
    for after in 0..3 {
        too_many_open_files_from(after);
    }
}

fn too_many_open_files_from(after: u64) {
    let (disk, life, _) = written();
    let before = life.storage.segments.snapshot().segments().len();
    let action = FaultAction::Fail(libc::EMFILE);
    disk.inject(Fault { kind: OperationKind::Open, path_contains: String::new(), after, times: 2, action });
    let Rig { thread, requests, writer: _writer, .. } = flush_thread(life);
    let (segments, lifecycle) = (Arc::clone(&thread.segments), Arc::clone(&thread.lifecycle));
    let running = std::thread::spawn(move || thread.run());
    while segments.snapshot().segments().len() == before && !running.is_finished() {
        std::thread::yield_now();
    }
    assert!(!lifecycle.failed.load(std::sync::atomic::Ordering::Acquire), "nothing is lost");
    let (done, finished) = channel();
    requests.send(FlushRequest::Stop(done)).expect("it runs");
    assert_eq!(finished.recv(), Ok(true));
    running.join().expect("it ends");
}

/// What the note about queue files says to a start under the running kernel.
fn trusted(disk: &SimDisk) -> Option<PhysicalOffset> {
    let boot_id = queue_flushed::boot_id(disk);
    queue_flushed::load(disk, &StorePaths::new("/store"), boot_id.as_deref()).expect("it can be read")
}

/// Where the queue files are durable by the sidecar.
fn durable(disk: &SimDisk) -> u64 {
    let loaded = QueueOffsets::load(disk, &StorePaths::new("/store")).expect("it can be read");
    loaded.map_or(0, |loaded| loaded.value.log_offset.0)
}

/// A store with messages in log and queues, of which the last were written to their files and not synced.
fn written() -> (SimDisk, Life, Past) {
    let disk = SimDisk::new();
    power_on(&disk, &mut SimRandom::new(3));
    let mut past = Past::default();
    let mut life = open(&disk, Mode::AsyncPageCache, 3).expect("an empty store opens");
    for _ in 0..12 {
        life.append(&mut past);
        life.write_all(&mut past);
        life.writer.begin_turn();
    }
    life.storage.queues.flush_dirty().expect("written");
    life.storage.queue_flushed.note(PhysicalOffset(life.view.shown().0)).expect("noted");
    (disk, life, past)
}

fn fail_queue_syncs(disk: &SimDisk) {
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "consumequeue".to_owned();
    disk.inject(Fault { kind: OperationKind::Sync, path_contains, after: 0, times: 1, action });
}

/// Everything is there: as the process left it, and also after the power went.
fn recovers(disk: &SimDisk, past: &Past) {
    let mut life = open(disk, Mode::AsyncPageCache, 5).expect("it opens");
    let mut past = past.clone();
    let acknowledged = past.acknowledged;
    life.check(&mut past, acknowledged).expect("nothing is missing");
    life.flush_durably();
    assert_eq!(stop_in_order(life), (true, false));
    let cut = disk.crash(1, CrashPattern::KeepNone);
    power_on(&cut, &mut SimRandom::new(9));
    let life = open(&cut, Mode::AsyncPageCache, 6).expect("it opens");
    life.check(&mut past, acknowledged).expect("nothing is missing after a power cut");
}

/// Goal: the flush thread's last round on a good disk claims everything. Method: the round, then a look at what is claimed.
#[test]
fn a_last_round_makes_everything_durable() {
    let (disk, life, past) = written();
    let end = life.view.confirmed();
    assert_eq!(stop_in_order(life), (true, false));
    assert_eq!(durable(&disk), end);
    recovers(&disk.kill(), &past);
}

/// Goal: a stop whose durable point cannot be written is not clean, as a start would then doubt what the point does not cover; nothing is
/// lost. Method: a disk that fails the write of the point in the last round.
#[test]
fn a_stop_without_its_durable_point_is_not_clean() {
    let (disk, life, past) = written();
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "durable-point".to_owned();
    disk.inject(Fault { kind: OperationKind::Write, path_contains, after: 0, times: 1, action });
    assert_eq!(stop_in_order(life), (false, false));
    recovers(&disk.kill(), &past);
}

/// Goal: a failed sync of queue files ends the process, claims nothing, and takes the note back that the next start would
/// believe; that start makes the entries anew. Method: one EIO under the last round.
#[test]
fn a_failed_sync_of_queue_files_is_final() {
    let (disk, life, past) = written();
    let (before, end) = (durable(&disk), life.view.confirmed());
    assert_eq!(trusted(&disk), Some(PhysicalOffset(end)));
    fail_queue_syncs(&disk);
    assert_eq!(stop_in_order(life), (false, true));
    assert_eq!((trusted(&disk), durable(&disk)), (None, before));
    recovers(&disk.kill(), &past);
}

/// Goal: shards know of a failure before the flush thread turns to the disk again, which may not answer: they would go on to
/// acknowledge. Method: the EIO, and a look at what they know whenever the note about queue files is written.
#[test]
fn a_failure_is_told_before_the_disk_is_asked_again() {
    let (disk, life, _past) = written();
    fail_queue_syncs(&disk);
    let Rig { mut thread, requests, lifecycle, writer: _writer } = flush_thread(life);
    let known_at_writes = Arc::default();
    let options = OpenOptions { create: true, ..OpenOptions::default() };
    let watched = Watched {
        file: thread.disk.open(&thread.paths.queue_flushed(), options).expect("it opens"),
        lifecycle: Arc::clone(&lifecycle),
        known_at_writes: Arc::clone(&known_at_writes),
    };
    thread.queue_flushed = QueueFlushedFile::of_file(Box::new(watched), queue_flushed::boot_id(&disk));
    let (done, finished) = channel();
    requests.send(FlushRequest::Stop(done)).expect("there is room");
    thread.run();
    assert!(!finished.try_recv().unwrap_or(false) && lifecycle.failed.load(Ordering::Acquire));
    assert_eq!(known_at_writes.lock().expect("one thread").last(), Some(&true));
}

/// Goal: whatever fails for good is one ERROR with the file, the place in it and the error's number, and what fails because of it is
/// none. Method: the sync of the log's files, then another thread's word of the same disk.
#[test]
fn a_final_failure_is_one_line() {
    let (disk, life, _past) = written();
    let list = life.storage.segments.snapshot();
    let size = list.size().bytes();
    let synced = life.view.synced();
    let file = list.segments().iter().find(|file| file.start().0 + size > synced).expect("a file");
    let place = format!("sync {} at offset {}: ", file.path().display(), synced.saturating_sub(file.start().0));
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "commitlog".to_owned();
    disk.inject(Fault { kind: OperationKind::Sync, path_contains, after: 0, times: u64::MAX, action });
    let Rig { thread, requests, lifecycle, writer: _writer } = flush_thread(life);
    let (done, _finished) = channel();
    requests.send(FlushRequest::Stop(done)).expect("there is room");
    let lines = Lines::default();
    lines.of(|| {
        thread.run();
        lifecycle.fail("the log", &"write of the same file");
    });
    let text = String::from_utf8(lines.0.lock().expect("unpoisoned").clone()).expect("text");
    let errors: Vec<_> = text.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains(&place) && errors[0].contains("(os error 5)"), "{place}: {text}");
    assert!(lifecycle.failed.load(Ordering::Acquire) && text.contains("failed as well"), "{text}");
}

/// Goal: a process that died with a failed sync of queue files cannot take the note back; the next one finds out by the disk
/// itself, claims nothing, ends, and the start after that makes the entries anew. Method: the EIO, a kill, a start, its last
/// round.
#[test]
fn a_failed_sync_of_the_last_process_is_found_out() {
    let (disk, life, past) = written();
    let end = life.view.confirmed();
    fail_queue_syncs(&disk);
    assert!(life.storage.queues.sync().is_err());
    drop(life);
    let disk = disk.kill();
    assert_eq!(trusted(&disk), Some(PhysicalOffset(end)));
    let before = durable(&disk);
    let life = open(&disk, Mode::AsyncPageCache, 4).expect("it opens");
    let acknowledged = past.acknowledged;
    life.check(&mut past.clone(), acknowledged).expect("the page cache shows everything");
    assert_eq!(stop_in_order(life), (false, true));
    assert_eq!((trusted(&disk), durable(&disk)), (None, before));
    recovers(&disk.kill(), &past);
}

/// Goal: a start that the disk fails takes the note back too, because the kernel tells of a failed write only once. Method:
/// fail the sync of the log in a start of SYNC_FLUSH, which believes the note about queue files.
#[test]
fn a_start_that_the_disk_fails_is_not_believed_later() {
    let (disk, life, past) = written();
    drop(life);
    let disk = disk.kill();
    let action = FaultAction::Fail(libc::EIO);
    let path_contains = "commitlog/".to_owned();
    disk.inject(Fault { kind: OperationKind::Sync, path_contains, after: 0, times: 1, action });
    assert!(trusted(&disk).is_some());
    assert!(open(&disk, Mode::SyncSeparate, 4).is_err());
    assert_eq!(trusted(&disk), None);
    // What that sync should have covered is lost, and was never promised to survive a disk that fails.
    let mut past = past.clone();
    let life = open(&disk.kill(), Mode::AsyncPageCache, 5).expect("it opens");
    life.check(&mut past, 0).expect("what is there is right");
}

/// Goal: queue files do not count as complete while a deletion is under way that a crash would undo: the topic must come back whole.
/// Method: entries that are in no file when their queues are retired; the flush thread's round; with no deletion under way the
/// same round does count them.
#[test]
fn queues_that_may_come_back_are_not_called_complete() {
    for deletes in [true, false] {
        let (disk, mut life, mut past) = written();
        let noted = trusted(&disk);
        let start = life.writer.ready_end();
        life.storage.segments.prepare_next(PhysicalOffset(life.writer.end())).expect("prepared");
        life.writer.segment_ready(start);
        life.append(&mut past);
        life.write_all(&mut past);
        let end = PhysicalOffset(life.view.shown().0);
        assert!(Some(end) > noted);
        if deletes {
            life.storage.queues.begin_deletion();
            life.storage.queues.queues().iter().for_each(|queue| queue.retire());
        }
        let Rig { mut thread, requests, writer: _writer, .. } = flush_thread(life);
        // The log has grown since the thread began.
        thread.end = noted.map_or(0, |noted| noted.0);
        let (done, finished) = channel();
        requests.send(FlushRequest::Stop(done)).expect("there is room");
        thread.run();
        assert_eq!(finished.try_recv(), Ok(!deletes), "nor does a stop count as one in order");
        assert_eq!(trusted(&disk), if deletes { noted } else { Some(end) });
    }
}
