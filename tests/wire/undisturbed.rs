//! What a cold reader costs a tail reader on the same shard, with controls. Not part of the usual tests, because it needs a quiet
//! machine and a minute:
//!
//! ```text
//! cargo test --release --test undisturbed -- --ignored --nocapture --test-threads 1
//! ```
//!
//! One shard on the first processor, clients on the last one. Rounds of three phases: the tail alone; the tail beside two readers
//! that fetch old messages from the disk at full speed, the page cache dropped; the tail beside the same readers with the same
//! rate of bytes, the messages now in the page cache. The difference between the last two is what the disk costs, the
//! difference between the first and the last is what sharing processors costs. Latencies are printed and judge nothing: they belong to a
//! machine. Asserted are counts: the shard never waited for a page or a disk, and the readers did.

#[allow(dead_code, reason = "the other tests need more of it")]
mod broker;
#[allow(dead_code, reason = "the other tests need more of it")]
mod threads;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use broker::{Broker, Store};
use ringmq::client::requests::{self, PullRequest, SendTarget};
use ringmq::client::{Message, PullAnswer, PullStatus};
use threads::{ThreadFigures, is_in_disk_wait, threads};

/// Rounds of phases: neighbours on the machine come and go.
const ROUNDS: usize = 3;
/// Longest phase. It ends when a reader has read all, so that nobody has to drop pages meanwhile.
const PHASE: Duration = Duration::from_secs(3);
/// Sends of the tail per second.
const TAIL_RATE: u32 = 1_000;
/// Body of a message of the tail.
const TAIL_BYTES: usize = 1_024;
/// Readers of old messages, each with a queue and a connection of its own.
const READERS: i32 = 2;
/// The last files of the log: the one that is written and the next one.
const UNFINISHED_FILES: usize = 2;
/// Old messages, in bytes of their bodies: many times the ring of 16 MiB.
const HISTORY_BYTES: usize = 1 << 30;
/// How often the state of the shard's thread is looked at.
const SAMPLE: Duration = Duration::from_millis(1);
/// Bytes that a shard may fetch while GiB are read beside it: pages of its own program, on a machine in need.
const SHARD_BYTES: u64 = 256 << 10;

/// How old messages are read in a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nothing,
    Cold,
    /// At this many bytes per second, all readers together.
    Warm(u64),
}

/// What was seen in the phases of one kind.
#[derive(Default)]
struct Seen {
    latencies_us: Vec<u32>,
    shard: ThreadFigures,
    readers: ThreadFigures,
    read_bytes: u64,
    disk_waits: u64,
    samples: u64,
    elapsed: Duration,
}

/// Lets the calling thread run on one processor.
fn pin(core: usize) {
    // SAFETY: a zeroed set is an empty one; the calls take a valid set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set), 0, "core {core} exists");
    }
}

/// The calling thread steps back behind the tail's clients: what is measured is the broker.
fn step_back() {
    // SAFETY: no memory is involved. The number of a thread is what Linux takes here.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, libc::gettid().unsigned_abs(), 19) };
}

fn pull(topic: &str, queue_id: i32, offset: i64, hold_ms: u64) -> PullRequest<'_> {
    PullRequest { hold_ms, ..PullRequest::new("undisturbed", topic, queue_id, offset) }
}

/// Finished files of the log. The last one is being written.
fn history_files(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.join("commitlog")).expect("a commit log");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.truncate(files.len().saturating_sub(UNFINISHED_FILES));
    files
}

/// Makes the kernel forget these files' pages.
fn forget(files: &[PathBuf]) {
    for path in files {
        let file = File::open(path).expect("readable");
        file.sync_all().expect("clean pages can be dropped");
        // SAFETY: an open file and plain integers.
        assert_eq!(unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) }, 0);
    }
}

/// Makes the kernel have these files' pages.
fn remember(files: &[PathBuf]) {
    let mut buffer = vec![0; 1 << 20];
    for path in files {
        let mut file = File::open(path).expect("readable");
        while file.read(&mut buffer).expect("readable") > 0 {}
    }
}

/// A broker with old messages, and what the phases need.
struct Scene {
    broker: Broker,
    files: Vec<PathBuf>,
    /// Messages of each old queue that certainly lie in these files.
    messages: i64,
    client_core: usize,
    epoch: Instant,
    /// Where the tail's queue ends.
    tail_end: i64,
}

impl Scene {
    fn new(store: &mut Store, body_bytes: usize, batch_bytes: usize) -> Scene {
        let cores = core_affinity::get_core_ids().expect("processors");
        let (first, last) = (cores.first().expect("a processor").id, cores.last().expect("a processor").id);
        let core = format!("cores={first}");
        let broker = store.start(&["shards=1", &core, "mappedFileSizeCommitLog=64 MiB"]);
        broker.topic("history", READERS.unsigned_abs());
        broker.topic("tail", 1);
        let mut client = broker.client();
        let batch: Vec<Message> = (0..batch_bytes / body_bytes).map(|_| Message::new("x".repeat(body_bytes))).collect();
        for _ in 0..HISTORY_BYTES / batch_bytes {
            client.send_batch("history", &batch).expect("stored");
        }
        let files = history_files(&store.path());
        let stored = client.max_offset(&broker.queue("history", 0)).expect("an offset");
        let whole = i64::try_from(files.len()).expect("few files");
        let messages = stored * whole / (whole + UNFINISHED_FILES as i64);
        let scene = Scene { broker, files, messages, client_core: last, epoch: Instant::now(), tail_end: 0 };
        // Readers look at each message once: not in a phase.
        let stop = AtomicBool::new(false);
        for queue_id in 0..READERS {
            scene.read_history(queue_id, Beside::Cold, &stop);
        }
        scene
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).expect("centuries")
    }

    /// Sends the tail's messages at their rate, without waiting for anything, until told to stop. Gives their number.
    fn produce(&self, stop: &AtomicBool) -> i64 {
        pin(self.client_core);
        let mut connection = self.broker.connection();
        let begin = Instant::now();
        let mut sent: u32 = 0;
        while !stop.load(Ordering::Relaxed) {
            let due = begin + Duration::from_secs(1) * sent / TAIL_RATE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            let mut body = self.now_ns().to_be_bytes().to_vec();
            body.resize(TAIL_BYTES, b'x');
            let target = SendTarget { group: "undisturbed", topic: "tail", queue_id: 0, now_ms: 0 };
            let request = requests::send(&target, &Message::new(body), "").expect("a message");
            connection.oneway(request).expect("written");
            sent += 1;
        }
        i64::from(sent)
    }

    /// Receives the tail's messages until all of those that `sent` says have come. Gives their times under way.
    fn consume(&self, sent: &Mutex<Option<i64>>) -> (Vec<u32>, i64) {
        pin(self.client_core);
        let mut connection = self.broker.connection();
        let mut at = self.tail_end;
        let mut latencies_us = Vec::new();
        loop {
            let known = *sent.lock().expect("held by nobody");
            if known.is_some_and(|sent| at >= self.tail_end + sent) {
                return (latencies_us, at);
            }
            let hold_ms = if known.is_some() { 0 } else { 200 };
            let answer = connection.call(requests::pull(&pull("tail", 0, at, hold_ms))).expect("an answer");
            let received_ns = self.now_ns();
            let answer = PullAnswer::decode(answer).expect("complete").expect("no refusal");
            for message in answer.messages() {
                let message = message.expect("whole");
                let sent_ns = u64::from_be_bytes(message.body()[..8].try_into().expect("eight bytes"));
                let latency_us = (received_ns - sent_ns) / 1_000;
                latencies_us.push(u32::try_from(latency_us).expect("below an hour"));
            }
            at = answer.next_offset;
        }
    }

    /// Reads an old queue from its beginning to its end, or until told to stop. Gives the bytes of the answers.
    fn read_history(&self, queue_id: i32, beside: Beside, stop: &AtomicBool) -> u64 {
        let mut connection = self.broker.connection();
        let begin = Instant::now();
        let (mut at, mut bytes) = (0, 0);
        while at < self.messages && !stop.load(Ordering::Relaxed) {
            if let Beside::Warm(rate) = beside {
                let due = Duration::from_secs_f64(bytes as f64 / (rate as f64 / f64::from(READERS)));
                thread::sleep((begin + due).saturating_duration_since(Instant::now()));
            }
            let answer = connection.call(requests::pull(&pull("history", queue_id, at, 0))).expect("an answer");
            bytes += answer.body.as_ref().map_or(0, |body| body.len() as u64);
            let answer = PullAnswer::decode(answer).expect("complete").expect("no refusal");
            assert_eq!(answer.status, PullStatus::Found, "at {at}");
            at = answer.next_offset;
        }
        bytes
    }

    /// One phase; gives the bytes that the readers got per second.
    fn phase(&mut self, beside: Beside, seen: &mut Seen) -> u64 {
        match beside {
            Beside::Cold => forget(&self.files),
            Beside::Nothing | Beside::Warm(_) => remember(&self.files),
        }
        let process = self.broker.process();
        let (shard, readers) = (threads(process, "shard-0"), threads(process, "reader"));
        assert!(!shard.is_empty() && readers.len() == 2, "{shard:?} {readers:?}");
        let (stop, sent) = (AtomicBool::new(false), Mutex::new(None));
        let read_bytes = AtomicU64::new(0);
        let before = (ThreadFigures::of(process, &shard), ThreadFigures::of(process, &readers));
        let begin = Instant::now();
        let scene = &*self;
        let (latencies, tail_end) = thread::scope(|scope| {
            let consumer = scope.spawn(|| scene.consume(&sent));
            let producer = scope.spawn(|| scene.produce(&stop));
            let reading = (0..READERS).filter(|_| beside != Beside::Nothing);
            reading.for_each(|queue_id| {
                let (stop, read_bytes) = (&stop, &read_bytes);
                scope.spawn(move || {
                    pin(scene.client_core);
                    step_back();
                    read_bytes.fetch_add(scene.read_history(queue_id, beside, stop), Ordering::Relaxed);
                    stop.store(true, Ordering::Relaxed);
                });
            });
            while begin.elapsed() < PHASE && !stop.load(Ordering::Relaxed) {
                thread::sleep(SAMPLE);
                seen.samples += 1;
                seen.disk_waits += u64::from(shard.iter().any(|thread| is_in_disk_wait(process, *thread)));
            }
            stop.store(true, Ordering::Relaxed);
            let count = producer.join().expect("a producer");
            *sent.lock().expect("held by nobody") = Some(count);
            consumer.join().expect("a consumer")
        });
        let elapsed = begin.elapsed();
        self.tail_end = tail_end;
        seen.shard += ThreadFigures::of(process, &shard) - before.0;
        seen.readers += ThreadFigures::of(process, &readers) - before.1;
        seen.latencies_us.extend(latencies);
        seen.elapsed += elapsed;
        let bytes = read_bytes.into_inner();
        seen.read_bytes += bytes;
        (bytes as f64 / elapsed.as_secs_f64()) as u64
    }
}

impl Seen {
    fn percentile_us(&self, part: f64) -> u32 {
        let last = self.latencies_us.len().saturating_sub(1);
        self.latencies_us.get((last as f64 * part) as usize).copied().unwrap_or(0)
    }

    fn print(&mut self, name: &str) {
        self.latencies_us.sort_unstable();
        let (seconds, figures) = (self.elapsed.as_secs_f64(), self.shard);
        let [p50, p90, p99, p999] = [0.5, 0.9, 0.99, 0.999].map(|part| self.percentile_us(part));
        println!(
            "{name:14} {:6} {p50:6} {p90:6} {p99:6} {p999:6} {:8.0} {:7} {:7} {:7} {:4}/{:<5} {:8.1} {:8.1} {:8.0} {:8.0}",
            self.latencies_us.len(),
            self.read_bytes as f64 / seconds / 1e6,
            self.readers.read_bytes >> 20,
            figures.major_faults,
            figures.read_bytes,
            self.disk_waits,
            self.samples,
            figures.run_ns as f64 / seconds / 1e7,
            figures.waited_ns as f64 / seconds / 1e7,
            figures.own_switches as f64 / seconds,
            figures.forced_switches as f64 / seconds,
        );
    }
}

fn measure(body_bytes: usize, batch_bytes: usize) {
    let mut store = Store::new();
    let mut scene = Scene::new(&mut store, body_bytes, batch_bytes);
    let (mut alone, mut cold, mut warm) = (Seen::default(), Seen::default(), Seen::default());
    for _ in 0..ROUNDS {
        scene.phase(Beside::Nothing, &mut alone);
        let rate = scene.phase(Beside::Cold, &mut cold);
        scene.phase(Beside::Warm(rate), &mut warm);
    }
    println!(
        "{body_bytes} byte bodies: {ROUNDS} rounds, {TAIL_RATE}/s on the tail\n{:14} {:>6} {:>6} {:>6} {:>6} {:>6} {:>8} {:>8} {:>7} {:>7} {:>9} {:>8} {:>8} {:>8} {:>8}",
        "beside",
        "count",
        "p50us",
        "p90us",
        "p99us",
        "p999us",
        "readMB/s",
        "diskMiB",
        "majflt",
        "io B",
        "D",
        "run %",
        "wait %",
        "own/s",
        "forced/s"
    );
    alone.print("nothing");
    cold.print("cold readers");
    warm.print("warm readers");
    if cold.readers.read_bytes == 0 {
        println!("the readers fetched nothing from a disk: the store is in memory, and this shows nothing");
        return;
    }
    assert!(cold.readers.read_bytes * 2 > cold.read_bytes, "what the cold readers got came from the disk");
    assert!(warm.readers.read_bytes * 10 < warm.read_bytes, "what the warm readers got did not");
    for seen in [&alone, &cold, &warm] {
        assert_eq!(seen.shard.major_faults, 0, "the shard waited for no page");
        assert!(seen.shard.read_bytes <= SHARD_BYTES, "the shard fetched {} bytes itself", seen.shard.read_bytes);
    }
}

#[test]
#[ignore = "a measurement: needs a quiet machine"]
fn short_old_messages() {
    // Goal: copied cold reads. Method: 1 KiB bodies in short runs, so that a pull has several ranges.
    measure(1 << 10, 16 << 10);
}

#[test]
#[ignore = "a measurement: needs a quiet machine"]
fn long_old_messages() {
    // Goal: spliced cold reads. Method: 16 KiB bodies in long runs, so that a pull has one long range.
    measure(16 << 10, 1 << 20);
}
