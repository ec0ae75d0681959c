//! Stores on which another broker worked in between, one that knows nothing of our own files. Its part is played by our own without
//! these files, which come back as they were before.

use std::path::{Path, PathBuf};

use ringmq::server::storage;
use ringmq_shards::disk::{Disk, create_directories_durably, read_file, write_file};
use ringmq_shards::log::segment_table::file_name;
use ringmq_shards::queue::QueueEntry;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::sim::{CrashPattern, SimDisk, SimRandom};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset};

use super::crash::{Life, Past, ROOT, SEGMENT_BYTES, TOPICS, open, power_on};
use super::world::Mode;

const MODE: Mode = Mode::AsyncPageCache;

/// How the other broker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    InOrder,
    Killed,
    PowerCut,
}

const ENDS: [End; 3] = [End::InOrder, End::Killed, End::PowerCut];

/// Our own files of a store.
struct OwnFiles(Vec<(PathBuf, Vec<u8>)>);

impl OwnFiles {
    fn paths(disk: &SimDisk) -> Vec<PathBuf> {
        disk.paths().into_iter().filter(|path| path.starts_with(StorePaths::new(ROOT).own())).collect()
    }

    /// Takes them away.
    fn take(disk: &SimDisk) -> Self {
        let mut files = Vec::new();
        for path in Self::paths(disk) {
            if let Ok(Some(bytes)) = read_file(disk, &path) {
                disk.remove_file(&path).expect("removed");
                files.push((path, bytes));
            }
        }
        Self(files)
    }

    /// Puts them back in place of what is there now, durably.
    fn put_back(&self, disk: &SimDisk) {
        Self::take(disk);
        let own = StorePaths::new(ROOT).own();
        create_directories_durably(disk, &own).expect("created");
        for (path, bytes) in &self.0 {
            write_file(disk, path, bytes).expect("written");
        }
        disk.sync_directory(&own).expect("synced");
    }
}

/// Lets another broker work on a store: it does what `work` does, and ends; `work` says where its log begins then.
fn visited(disk: &SimDisk, end: End, seed: u64, work: impl FnOnce(&mut Life) -> u64) -> SimDisk {
    let (own, paths) = (OwnFiles::take(disk), StorePaths::new(ROOT));
    let mut other = open(disk, MODE, seed).expect("it opens for another broker");
    let begins = work(&mut other);
    other.flush_durably();
    if end == End::InOrder {
        other.storage.lock.mark_clean(disk, &paths).expect("marked");
    } else {
        write_file(disk, &paths.abort(), b"4711").expect("written");
        disk.sync_directory(Path::new(ROOT)).expect("synced");
    }
    drop(other);
    for start in (0..begins).step_by(SEGMENT_BYTES as usize) {
        disk.remove_file(&paths.commit_log.join(file_name(PhysicalOffset(start)))).expect("removed");
    }
    disk.sync_directory(&paths.commit_log).expect("synced");
    own.put_back(disk);
    match end {
        End::InOrder | End::Killed => disk.kill(),
        End::PowerCut => {
            let crashed = disk.crash(seed, CrashPattern::KeepNone);
            power_on(&crashed, &mut SimRandom::new(seed ^ 0xffff));
            crashed
        }
    }
}

/// Looks for each record at or behind a byte of the log in its queue; says how many there are.
fn check_served(life: &Life, past: &Past, from: u64) -> Result<usize, String> {
    for (at, record) in past.records.range(from..) {
        let queue = life.storage.queues.get(record.topic, QueueId(record.queue)).ok_or(format!("no queue for {at}"))?;
        let mut entry = [QueueEntry::default()];
        let read = life.storage.queues.read_entries(&queue, QueueOffset(record.queue_offset), &mut entry);
        if read.map_err(|error| error.to_string())? != 1 || entry[0].physical.0 != *at {
            let offset = record.queue_offset;
            return Err(format!("{queue:?} has {entry:?} at {offset}, the record is at {at}"));
        }
    }
    Ok(past.records.range(from..).count())
}

/// Opens a store once for each change that this makes, up to there; then the process dies or the power goes, and the next start is
/// looked at.
fn check_interrupted_starts(left: &SimDisk, past: &Past, from: u64, context: &str) {
    for changes in 0.. {
        let halted = left.kill();
        halted.halt_after(changes);
        let is_whole = open(&halted, MODE, changes).is_ok();
        for pattern in [None, Some(CrashPattern::KeepNone), Some(CrashPattern::SomeWrites)] {
            let crashed = pattern.map_or_else(|| halted.kill(), |pattern| halted.crash(changes, pattern));
            if pattern.is_some() {
                power_on(&crashed, &mut SimRandom::new(changes ^ 0xaaaa));
            }
            let context = format!("{context}, a start that ended after {changes} changes, {pattern:?}");
            let life = open(&crashed, MODE, changes).unwrap_or_else(|broken| panic!("{context}: {broken}"));
            check_served(&life, past, from).unwrap_or_else(|broken| panic!("{context}: {broken}"));
        }
        if is_whole {
            return;
        }
    }
}

fn append_some(life: &mut Life, past: &mut Past, topic: &'static str, records: usize) {
    let wanted = past.records.len() + records;
    while past.records.len() < wanted {
        let (ready, end) = (life.writer.ready_end(), life.writer.end());
        if ready - end < 2 * SEGMENT_BYTES {
            life.storage.segments.prepare_next(PhysicalOffset(end)).expect("prepared");
            life.writer.segment_ready(ready);
        }
        life.append_to(past, topic);
        life.write_all(past);
        life.writer.begin_turn();
    }
}

/// Goal: what another broker stored in a topic that we had deleted and it made again is served, although the power took the end of
/// our log right after the deletion, so that what is new lies below our barrier; and also if we died while the barrier had not been
/// given. Our start may be interrupted anywhere. Method: each way in which either can end; deletions with the barrier and without.
#[test]
fn what_another_broker_stored_below_a_barrier_is_there() {
    for (seed, end) in (1..=4).flat_map(|seed| ENDS.map(|end| (seed, end))) {
        for is_given in [true, false] {
            let (disk, mut random) = (SimDisk::new(), SimRandom::new(seed));
            power_on(&disk, &mut random);
            let mut past = Past::default();
            let mut life = open(&disk, MODE, seed).expect("an empty store opens");
            append_some(&mut life, &mut past, TOPICS[1], 3);
            life.flush_durably();
            let durable = life.view.confirmed();
            append_some(&mut life, &mut past, TOPICS[1], 20);
            let barrier = if is_given { life.writer.end() } else { u64::MAX };
            storage::note_barrier(&life.storage.queue_offsets, TOPICS[1], barrier);
            let paths = StorePaths::new(ROOT);
            storage::write_queue_offsets(&disk, &paths, &life.storage.queue_offsets).expect("written");
            drop(life);
            for is_cut in [true, false] {
                let left = if is_cut { disk.crash(seed, CrashPattern::KeepNone) } else { disk.kill() };
                if is_cut {
                    power_on(&left, &mut random);
                }
                let (mut again, mut begins) = (Past::default(), 0);
                let left = visited(&left, end, seed, |other| {
                    begins = other.writer.end();
                    assert!(begins >= durable && (!is_cut || begins < barrier), "the power took the end of the log");
                    other.storage.queues.remove_topic(TOPICS[1]);
                    append_some(other, &mut again, TOPICS[1], 2);
                    0
                });
                let context = format!("seed {seed}, {end:?}, given {is_given}, cut {is_cut}");
                if seed == 1 {
                    check_interrupted_starts(&left, &again, begins, &context);
                }
                let life = open(&left, MODE, seed).unwrap_or_else(|broken| panic!("{context}: {broken}"));
                let found = check_served(&life, &again, begins).unwrap_or_else(|broken| panic!("{context}: {broken}"));
                assert!(found >= 2, "{context}");
                if !is_cut && is_given && end != End::PowerCut {
                    let queues = life.storage.queues.topic_queues(TOPICS[1]);
                    let count: u64 = queues.iter().map(|queue| queue.published().0).sum();
                    assert_eq!(count, found as u64, "{context}: the deleted ones stay deleted");
                }
                drop(life);
                let life = open(&left.crash(seed, CrashPattern::KeepNone), MODE, seed).expect("it opens again");
                check_served(&life, &again, begins).unwrap_or_else(|broken| panic!("{context}, again: {broken}"));
            }
        }
    }
}

/// Goal: another broker may keep less of the log than our files speak of, and die: all that is left is served at its offsets, and no
/// offset is given twice. Method: it appends, removes all files of the log that we knew, and ends in each way; one queue gets its
/// last record in a file that goes, and a power cut takes the files of another behind its first.
#[test]
fn another_broker_may_have_removed_what_our_files_speak_of() {
    let mut torn = 0;
    for (seed, end) in (1..=8).flat_map(|seed| ENDS.map(|end| (seed, end))) {
        let (disk, mut random) = (SimDisk::new(), SimRandom::new(seed));
        power_on(&disk, &mut random);
        let mut past = Past::default();
        let mut life = open(&disk, MODE, seed).expect("an empty store opens");
        append_some(&mut life, &mut past, TOPICS[0], 10);
        append_some(&mut life, &mut past, TOPICS[1], 3);
        life.flush_durably();
        let noted = life.view.confirmed();
        drop(life);
        let mut begins = 0;
        let left = visited(&disk.kill(), end, seed, |other| {
            append_some(other, &mut past, TOPICS[2], 4);
            append_some(other, &mut past, TOPICS[0], 80);
            begins = (other.writer.end() - 1) / SEGMENT_BYTES * SEGMENT_BYTES;
            assert!(begins > noted + SEGMENT_BYTES, "files go that we knew, and more");
            begins
        });
        let context = format!("seed {seed}, {end:?}");
        if end == End::PowerCut {
            let record =
                past.records.range(begins..).map(|(_, record)| record).find(|record| record.topic == TOPICS[0]);
            let queue = record.expect("the last one is of this topic").queue;
            let directory = StorePaths::new(ROOT).consume_queue().join(TOPICS[0]).join(queue.to_string());
            let mut files: Vec<_> = left.paths().into_iter().filter(|path| path.parent() == Some(&directory)).collect();
            files.sort();
            for file in files.iter().skip(1) {
                left.remove_file(file).expect("removed");
            }
            torn += files.len().saturating_sub(1);
        }
        let mut life = open(&left, MODE, seed).unwrap_or_else(|broken| panic!("{context}: {broken}"));
        let found = check_served(&life, &past, begins).unwrap_or_else(|broken| panic!("{context}: {broken}"));
        assert!(found > 0, "{context}");
        for topic in TOPICS {
            for queue in life.storage.queues.topic_queues(topic) {
                let of_queue =
                    |record: &&super::crash::Bound| record.topic == topic && record.queue == queue.queue_id().0;
                let last = past.records.values().filter(of_queue).map(|record| record.queue_offset).max();
                assert_eq!(queue.published().0, last.map_or(0, |last| last + 1), "{context}: {queue:?}");
                let left = past.records.range(begins..).filter(|(_, record)| of_queue(record)).count() as u64;
                assert_eq!(queue.published().0 - queue.bounds().0.0, left, "{context}: {queue:?}");
            }
        }
        append_some(&mut life, &mut past, TOPICS[0], 5);
        check_served(&life, &past, begins).unwrap_or_else(|broken| panic!("{context}, then: {broken}"));
    }
    assert!(torn > 3, "{torn} files are too few");
}
