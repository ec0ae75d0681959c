//! Writes that do not do what they were asked, on both ways to the disk.

use std::path::Path;
use std::time::Duration;

use ringmq_shards::clock::Now;
use ringmq_shards::disk::{Disk, RealDisk};
use ringmq_shards::log::segment_table::SegmentSize;
use ringmq_shards::log::segments::{SegmentOptions, Segments};
use ringmq_shards::log::writer::{Piece, SettleSink, Ticket, WriterOptions};
use ringmq_shards::log::{AppendError, FlushMode, LogRing, LogView, Settled, Verdict, WriteKind};
use ringmq_shards::probe::Registry;
use ringmq_shards::queue::{Queue, QueueStore, QueueStoreConfig};
use ringmq_shards::runtime::{RingOptions, counted_channel};
use ringmq_shards::sim::{Fault, FaultAction, OperationKind, SimDisk};
use ringmq_shards::types::QueueId;

use super::*;
use crate::config::Layers;

const SEGMENT_BYTES: u64 = 1 << 20;
const RECORD_BYTES: usize = 300;

/// What the kernel says of a write of so many bytes.
type Report<'a> = &'a dyn Fn(usize) -> io::Result<usize>;

#[derive(Default)]
struct Heard(Vec<Settled>);

impl SettleSink for Heard {
    fn settled(&mut self, settled: Settled) {
        self.0.push(settled);
    }

    fn wake(&mut self, _: &Arc<Queue>, _: u64) {}
}

/// A writer with its shell, over a disk.
struct Rig {
    writer: Writer,
    shell: LogShell,
    ring: Ring,
    heard: Heard,
    queue: Arc<Queue>,
    view: Arc<LogView>,
    file: std::path::PathBuf,
    _flush: ringmq_shards::runtime::CountedReceiver<FlushRequest>,
}

impl Rig {
    fn new(disk: &Arc<dyn Disk>, root: &Path, path: WritePath) -> Self {
        let size = SegmentSize::new(SEGMENT_BYTES).expect("a size");
        let (directory, scratch_directory) = (root.join("commitlog"), root.join("ringmq"));
        let options = SegmentOptions { directory, scratch_directory, size, write_path: path, zero_ahead_bytes: 0 };
        let (segments, _) = Segments::open(Arc::clone(disk), options, PhysicalOffset(0)).expect("segments");
        let list = segments.prepare_next(PhysicalOffset(0)).expect("room");
        let (queues, pool) = QueueStore::new(Arc::clone(disk), &root.join("queues"), QueueStoreConfig::default());
        let queue = queues.get_or_create("T", QueueId(0)).expect("a queue");
        let view = LogView::new(LogRing::new(256 << 10).expect("memory"), 1, 0, 0, 0);
        let options = WriterOptions {
            segment_bytes: SEGMENT_BYTES,
            flush_mode: if path == WritePath::DirectSync { FlushMode::Sync } else { FlushMode::Async },
            write_kind: if path == WritePath::DirectSync { WriteKind::Durable } else { WriteKind::Volatile },
            sync_flush_timeout_ms: 5_000,
        };
        let writer = Writer::new(Arc::clone(&view), pool, options, 0, SEGMENT_BYTES, 0, &[]);
        let (flush, flush_receiver) = counted_channel(16);
        let config = Layers::default().build().expect("the defaults are a configuration");
        let shell = LogShell::new(LogShellOptions {
            segments: list.segments().to_vec(),
            segment_bytes: SEGMENT_BYTES,
            path,
            chooser: None,
            delay: (path == WritePath::DirectSync).then(|| CommitDelay::new(60_000_000_000)),
            zeroes_ahead: false,
            wrote_directly: Arc::default(),
            write_back_bytes: 0,
            end: 0,
            write_token: Token::new(1, 0, 0),
            sync_token: Token::new(2, 0, 0),
            flush,
            shared: Arc::new(Shared::new(&config, 1, 1 << 30, 0, 0)),
            probe: Registry::new().probe("shard-0"),
        });
        let options = RingOptions { entries: 8, receive_buffers: 2, receive_buffer_bytes: 4_096 };
        let ring = Ring::new(options).expect("a ring");
        let file = list.segments()[0].path().to_owned();
        Self { writer, shell, ring, heard: Heard::default(), queue, view, file, _flush: flush_receiver }
    }

    fn offer(&mut self, slot: u32) -> Result<(), AppendError> {
        self.writer.begin_turn();
        let admission = self.writer.admit(RECORD_BYTES, 1, &self.queue)?;
        self.writer.slot(admission).fill(b'x');
        let piece = Piece { size: RECORD_BYTES as u32, tags_code: 0 };
        let now = Now { steady_ms: 1, wall_ms: 1 };
        self.writer.bind(admission, &self.queue, &[piece], Some(Ticket { shard: 0, slot }), true, now);
        Ok(())
    }

    fn push(&mut self) -> Pushed {
        self.shell.push(&mut self.writer, &mut self.ring, 1)
    }

    /// What the kernel says of the write in flight.
    fn completion(&mut self) -> io::Result<usize> {
        let mut completions = Vec::new();
        while completions.is_empty() {
            self.ring.wait(Some(Duration::from_millis(10))).expect("the ring works");
            self.ring.completions(&mut completions);
        }
        completions[0].outcome()
    }

    fn verdicts(&mut self) -> Vec<(u32, Verdict)> {
        self.writer.settle(1, &mut self.heard);
        self.heard.0.drain(..).map(|settled| (settled.ticket.slot, settled.verdict)).collect()
    }

    /// What every failure must come to: the place is named, nobody hears of success, and nothing more is written.
    fn assert_failed(&mut self, cause: &str) {
        let failure = self.shell.failure().expect("a failure").to_owned();
        let place = format!("write {} at offset 0: ", self.file.display());
        assert!(failure.starts_with(&place) && failure.contains(cause), "{failure}");
        assert_eq!((self.verdicts(), self.view.confirmed()), (vec![(1, Verdict::Stored)], RECORD_BYTES as u64));
        self.writer.fail(&mut self.heard);
        assert_eq!(self.verdicts(), [(2, Verdict::Failed)]);
        assert_eq!(self.offer(3), Err(AppendError::Failed));
        assert_eq!(self.push(), Pushed::Nothing);
    }
}

/// Goal: a write around the page cache of which the kernel reports fewer bytes than it was given, or an error, acknowledges nothing and
/// is final; one of which it reports all acknowledges. Method: real writes on the host's disk; of the second the rig reports what
/// a failing disk would.
#[test]
fn a_short_direct_write_is_final() {
    // A folder of a real disk that every user may write to: memory file systems know no direct access.
    let cases: [(Report<'_>, &str); 5] = [
        (&|length| Ok(length - 1), "only 4095 of 4096 bytes were written"),
        (&|_| Ok(RECORD_BYTES), "only 300 of 4096 bytes were written"),
        (&|_| Ok(512), "only 512 of 4096 bytes were written"),
        (&|_| Ok(0), "only 0 of 4096 bytes were written"),
        (&|_| Err(io::Error::from_raw_os_error(libc::EIO)), "(os error 5)"),
    ];
    for path in [WritePath::Direct, WritePath::DirectSync] {
        for (report, cause) in cases {
            let directory = tempfile::tempdir_in("/var/tmp").expect("a folder");
            let mut rig = Rig::new(&(Arc::new(RealDisk) as Arc<dyn Disk>), directory.path(), path);
            rig.offer(1).expect("room");
            assert_eq!(rig.push(), Pushed::InFlight);
            assert!(rig.verdicts().is_empty());
            let outcome = rig.completion();
            assert!(rig.shell.write_finished(&mut rig.writer, outcome));
            rig.offer(2).expect("room");
            assert_eq!(rig.push(), Pushed::InFlight);
            let length = rig.completion().expect("the disk of the host works");
            assert!(!rig.shell.write_finished(&mut rig.writer, report(length)), "{path:?} {cause}");
            // The first is settled here too: nothing has asked since its completion.
            rig.assert_failed(cause);
        }
    }
}

/// Goal: the same for a write to the page cache: what a disk takes only the beginning of is not acknowledged. Method: a simulated disk
/// that puts down a part of the second write, then fails.
#[test]
fn a_short_page_cache_write_is_final() {
    for bytes in [0, 1, 300, 700, 4_095] {
        for errno in [libc::EIO, libc::ENOSPC, libc::EROFS] {
            let disk = SimDisk::new();
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            let mut rig = Rig::new(&shared, Path::new("/store"), WritePath::PageCache);
            rig.offer(1).expect("room");
            assert_eq!(rig.push(), Pushed::Written);
            let action = FaultAction::ShortWrite { bytes, errno };
            let path_contains = "commitlog".to_owned();
            disk.inject(Fault { kind: OperationKind::Write, path_contains, after: 0, times: u64::MAX, action });
            rig.offer(2).expect("room");
            assert_eq!(rig.push(), Pushed::Nothing);
            rig.assert_failed(&format!("(os error {errno})"));
        }
    }
}

/// Goal: a group waits for the senders of the one before, and is written when they are back. Method: four senders that send again when
/// they are answered, two of them first, on the host's disk.
#[test]
fn a_group_waits_for_senders_that_come_back() {
    let directory = tempfile::tempdir_in("/var/tmp").expect("a folder");
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut rig = Rig::new(&disk, directory.path(), WritePath::DirectSync);
    let offer =
        |rig: &mut Rig, senders: &mut Vec<u32>| senders.drain(..).for_each(|slot| rig.offer(slot).expect("room"));
    let (mut answered, mut delayed) = (vec![3, 4], 0);
    offer(&mut rig, &mut vec![1, 2]);
    // A trial whose time passes before it is asked, as may be on a busy machine, is followed by another.
    while delayed == 0 {
        if rig.push() == Pushed::Nothing {
            delayed += 1;
            assert!(rig.shell.delayed_until_ns().is_some() && rig.verdicts().is_empty(), "nothing else keeps it");
            offer(&mut rig, &mut answered);
            assert_eq!(rig.push(), Pushed::InFlight);
        }
        assert_eq!(rig.shell.delayed_until_ns(), None);
        // Those who are not in this group send while it is on its way.
        offer(&mut rig, &mut answered);
        let outcome = rig.completion();
        assert!(rig.shell.write_finished(&mut rig.writer, outcome));
        for (slot, verdict) in rig.verdicts() {
            assert_eq!(verdict, Verdict::Stored);
            answered.push(slot);
        }
    }
}
