//! Queue files that are gone or damaged after a stop in order, and a start that makes them anew: what is in the log is served again,
//! what was deleted stays deleted, and a start that dies at any moment is made up for by the next.

use std::path::{Path, PathBuf};

use ringmq::server::storage::Storage;
use ringmq_shards::disk::{Disk, OpenOptions, read_file, write_file};
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::sim::{CrashPattern, SimDisk};
use ringmq_shards::types::QueueId;

use super::images::{Base, Kind, ROOT, base, open, serve};

/// What becomes of a store while no broker runs.
type Harm = fn(&SimDisk, &StorePaths);

/// A broker's table of topics.
pub(super) fn table_of(topics: &[&str]) -> String {
    let rows: Vec<_> =
        topics.iter().map(|name| format!(r#""{name}":{{"topicName":"{name}","readQueueNums":2}}"#)).collect();
    format!(r#"{{"topicConfigTable":{{{}}}}}"#, rows.join(","))
}

fn remove_below(disk: &SimDisk, folder: &Path) {
    for path in disk.paths().into_iter().filter(|path| path.starts_with(folder)) {
        // Folders stay, as if they had just been made.
        if disk.open(&path, OpenOptions::default()).is_ok_and(|file| file.length().is_ok()) {
            let _ = disk.remove_file(&path);
        }
    }
}

fn last_file(disk: &SimDisk, queue: &Path) -> PathBuf {
    disk.paths().into_iter().filter(|path| path.starts_with(queue)).max().expect("it has files")
}

/// Another broker starts here.
fn other_broker(disk: &SimDisk, paths: &StorePaths) {
    let lock = disk.open(&paths.lock(), OpenOptions { write: true, ..OpenOptions::default() }).expect("it is there");
    lock.write_all_at(b"lock", 0).expect("written");
}

fn no_queue(disk: &SimDisk, paths: &StorePaths) {
    remove_below(disk, &paths.consume_queue());
}

fn no_folder(disk: &SimDisk, paths: &StorePaths) {
    remove_below(disk, &paths.consume_queue().join("orders"));
}

fn no_last_file(disk: &SimDisk, paths: &StorePaths) {
    disk.remove_file(&last_file(disk, &paths.consume_queue().join("orders/0"))).expect("removed");
}

fn no_middle_file(disk: &SimDisk, paths: &StorePaths) {
    disk.remove_file(&paths.consume_queue().join("orders/0/00000000000000000320")).expect("removed");
}

fn zeroed_tail(disk: &SimDisk, paths: &StorePaths) {
    for file in ["00000000000000000000", "00000000000000000320", "00000000000000000640"] {
        let path = paths.consume_queue().join("orders/1").join(file);
        if disk.exists(&path).expect("an answer") {
            let from = if file.ends_with("000") { 100 } else { 0 };
            disk.damage(&path, from, &vec![0; 320 - from as usize]).expect("damaged");
        }
    }
}

fn short_last_file(disk: &SimDisk, paths: &StorePaths) {
    let path = last_file(disk, &paths.consume_queue().join("orders/0"));
    let file = disk.open(&path, OpenOptions { write: true, ..OpenOptions::default() }).expect("opened");
    file.set_length(7).expect("cut");
}

/// Deletes the topic `audit` as RocketMQ does: its queues and its place in the table are gone, its messages stay in the log.
fn audit_deleted(disk: &SimDisk, paths: &StorePaths) {
    other_broker(disk, paths);
    remove_below(disk, &paths.consume_queue().join("audit"));
    let table = table_of(&["orders", "%RETRY%group"]);
    write_file(disk, &paths.config().join("topics.json"), table.as_bytes()).expect("written");
}

/// As that, and makes it again.
fn audit_made_again(disk: &SimDisk, paths: &StorePaths) {
    other_broker(disk, paths);
    remove_below(disk, &paths.consume_queue().join("audit"));
}

/// A store that only RocketMQ knows.
fn nothing_of_ours(disk: &SimDisk, paths: &StorePaths) {
    other_broker(disk, paths);
    remove_below(disk, &paths.own());
}

fn next_offsets(storage: &Storage, topic: &str) -> Vec<u64> {
    (0..2).map(|id| storage.queues.get(topic, QueueId(id)).map_or(0, |queue| queue.next_offset().0)).collect()
}

/// Whether a topic has anything to show.
fn shows(storage: &Storage, topic: &str) -> bool {
    storage.queues.topic_queues(topic).iter().any(|queue| queue.bounds().0 < queue.bounds().1)
}

fn harmed(base: &Base, harms: &[Harm]) -> SimDisk {
    let (disk, paths) = (base.disk.kill(), StorePaths::new(ROOT));
    harms.iter().for_each(|harm| harm(&disk, &paths));
    disk.sync_file_system(Path::new(ROOT)).expect("synced");
    disk.kill()
}

/// Where a record lies in the log.
fn physical(record: &[u8]) -> u64 {
    u64::from_be_bytes(record[28..36].try_into().expect("eight bytes"))
}

/// Messages of a topic behind all others: a start gives them their entries without asking, as RocketMQ's does.
fn last_of(base: &Base, topic: &str) -> usize {
    let others = base.messages.iter().filter(|((of, ..), _)| of != topic).map(|(_, record)| physical(record)).max();
    base.messages.iter().filter(|((of, ..), record)| of == topic && Some(physical(record)) > others).count()
}

fn of_topic(base: &Base, topic: &str) -> usize {
    base.messages.keys().filter(|(of, ..)| of == topic).count()
}

/// Where the queues of a topic go on.
fn ends(base: &Base, topic: &str) -> Vec<u64> {
    let count = |queue| base.messages.keys().filter(|(of, id, _)| of == topic && *id == queue).count() as u64;
    (0..2).map(count).collect()
}

const HARMS: [(&str, Harm); 6] = [
    ("no queue", no_queue),
    ("no folder", no_folder),
    ("no last file", no_last_file),
    ("no middle file", no_middle_file),
    ("zeroed tail", zeroed_tail),
    ("short last file", short_last_file),
];

#[test]
fn what_was_lost_is_made_anew() {
    // Goal: after any loss every message is served at its offset, and the next one gets an offset of its own; twice equals once.
    // Method: each loss in a store of our own.
    let base = base(7, Kind::CLEAN);
    for (name, harm) in HARMS {
        let disk = harmed(&base, &[harm]);
        for round in 0..2 {
            let storage = open(&disk, Kind::CLEAN, false).unwrap_or_else(|error| panic!("{name}: {error}"));
            let served = serve(&storage, &disk, &base, name);
            assert_eq!((served.messages, served.refused), (base.messages.len(), 0), "{name}, round {round}");
            for topic in ["orders", "audit", "%RETRY%group"] {
                assert_eq!(next_offsets(&storage, topic), ends(&base, topic), "{name}: {topic}");
            }
            storage.lock.mark_clean(&disk, &StorePaths::new(ROOT)).expect("marked");
        }
        let saved = disk.paths().iter().filter(|path| path.ends_with("restore.txt")).count();
        assert_eq!(saved, 1, "{name}: it was made anew once, and what was left is kept");
    }
}

/// Wipes the entries of some queues from the first one on that is of a record at or behind an offset.
fn wipe(disk: &SimDisk, paths: &StorePaths, is_meant: fn(&Path) -> bool, from: u64) {
    for path in disk.paths().into_iter().filter(|path| path.starts_with(paths.consume_queue()) && is_meant(path)) {
        let Some(bytes) = read_file(disk, &path).ok().flatten() else { continue };
        let physical = |entry: &[u8]| u64::from_be_bytes(entry[..8].try_into().expect("eight bytes"));
        let kept = bytes.chunks(20).take_while(|entry| physical(entry) < from).count() * 20;
        disk.damage(&path, kept as u64, &vec![0; bytes.len() - kept]).expect("damaged");
    }
}

#[test]
fn all_queues_of_another_broker_lose_their_ends() {
    // Goal: queues that a start fills up from the end of the log, without making them anew, lack nothing when others are made anew in the
    // same start. Method: a store that only RocketMQ knows; all queues lose what is behind a place of the log, and one of them more.
    let base = base(7, Kind::CLEAN);
    let last = base.messages.values().map(|record| physical(record)).max().expect("a message");
    let whole = base.messages.len();
    let mut remade = 0;
    for (all_from, one_from) in
        [(last - 2_000, last - 5_000), (last - 4_000, last - 5_000), (last - 8_000, last - 12_000)]
    {
        let context = format!("all from {all_from}, one from {one_from} of {last}");
        let (disk, paths) = (harmed(&base, &[nothing_of_ours]), StorePaths::new(ROOT));
        wipe(&disk, &paths, |_| true, all_from);
        wipe(&disk, &paths, |path| path.parent().is_some_and(|folder| folder.ends_with("orders/0")), one_from);
        disk.sync_file_system(Path::new(ROOT)).expect("synced");
        let disk = disk.kill();
        for round in 0..2 {
            let storage = open(&disk, Kind::CLEAN, false).unwrap_or_else(|error| panic!("{context}: {error}"));
            let served = serve(&storage, &disk, &base, &context);
            assert_eq!((served.messages, served.refused), (whole, 0), "{context}, round {round}");
            for topic in ["orders", "audit", "%RETRY%group"] {
                assert_eq!(next_offsets(&storage, topic), ends(&base, topic), "{context}: {topic}");
            }
            storage.queues.sync().expect("synced");
            storage.lock.mark_clean(&disk, &paths).expect("marked");
        }
        remade += usize::from(disk.paths().iter().any(|path| path.ends_with("restore.txt")));
    }
    assert!(remade > 0, "nothing was made anew");
}

#[test]
fn queues_end_with_a_log_that_was_cut_when_others_are_made_anew() {
    // Goal: a start that cuts the log and makes a queue anew leaves no entry behind the cut in the others. Method: a store that only
    // RocketMQ knows, whose last two records are damaged, and one queue lost its end.
    let base = base(7, Kind::CLEAN);
    let mut places: Vec<u64> = base.messages.values().map(|record| physical(record)).collect();
    places.sort_unstable();
    let (cut, last) = (places[places.len() - 2], places[places.len() - 1]);
    let (disk, paths) = (harmed(&base, &[nothing_of_ours]), StorePaths::new(ROOT));
    let segment = disk.paths().into_iter().filter(|path| path.starts_with(&paths.commit_log)).max().expect("a file");
    let start: u64 =
        segment.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("an offset");
    for place in [cut, last] {
        disk.damage(&segment, place - start, &[0; 8]).expect("damaged");
    }
    wipe(&disk, &paths, |path| path.parent().is_some_and(|folder| folder.ends_with("orders/0")), last - 12_000);
    disk.sync_file_system(Path::new(ROOT)).expect("synced");
    let disk = disk.kill();
    let storage = open(&disk, Kind::CLEAN, false).expect("it opens");
    assert!(disk.paths().iter().any(|path| path.ends_with("restore.txt")), "a queue was made anew");
    assert_eq!(storage.recovered.end.0, cut);
    assert!(storage.queues.maximum_physical_end() <= storage.recovered.end, "no entry lies behind the log");
    let served = serve(&storage, &disk, &base, "cut");
    assert_eq!((served.messages, served.refused), (base.messages.len() - 2, 0));
}

#[test]
fn what_was_deleted_stays_deleted() {
    // Goal: another broker's deletions are no losses. Method: a topic that it deleted, or deleted and made again, alone and beside losses
    // of another topic, with our own files and without them.
    let base = base(7, Kind::CLEAN);
    let whole = base.messages.len();
    let deleted: [(&str, Harm); 2] = [("deleted", audit_deleted), ("made again", audit_made_again)];
    let losses = [("nothing", (|_, _| {}) as Harm), HARMS[2], HARMS[4]];
    for (how, delete) in deleted {
        for (name, harm) in losses {
            for strip in [false, true] {
                let context = format!("{how}, {name}, without our files {strip}");
                let keep: Harm = |_, _| {};
                let disk = harmed(&base, &[delete, harm, if strip { nothing_of_ours } else { keep }]);
                let storage = open(&disk, Kind::CLEAN, false).unwrap_or_else(|error| panic!("{context}: {error}"));
                let comes_back = if how == "deleted" { 0 } else { last_of(&base, "audit") };
                assert_eq!(shows(&storage, "audit"), comes_back > 0, "{context}");
                let served = serve(&storage, &disk, &base, &context).messages;
                assert_eq!(served, whole - of_topic(&base, "audit") + comes_back, "{context}");
                assert_eq!(next_offsets(&storage, "orders"), ends(&base, "orders"), "{context}");
                let is_remade = disk.paths().iter().any(|path| path.ends_with("restore.txt"));
                assert_eq!(is_remade, name != "nothing", "{context}");
            }
        }
    }
    // Without any queue nothing tells a deletion but the table.
    for (delete, expected) in [(deleted[0].1, whole - of_topic(&base, "audit")), (deleted[1].1, whole)] {
        let disk = harmed(&base, &[delete, no_queue, nothing_of_ours]);
        let storage = open(&disk, Kind::CLEAN, false).expect("it opens");
        assert_eq!(serve(&storage, &disk, &base, "no queue").messages, expected);
    }
}

#[test]
fn a_death_while_queues_are_made_anew_is_made_up_for() {
    // Goal: nothing is lost and nothing deleted comes back if the machine dies in such a start, whatever it was writing. Method: a power
    // cut at each change of the disk, in each pattern; then a start that is left alone.
    let base = base(7, Kind::CLEAN);
    let expected = base.messages.len() - of_topic(&base, "audit");
    let disk = harmed(&base, &[audit_deleted, no_last_file]);
    let whole = disk.kill();
    let before = whole.mutations();
    drop(open(&whole, Kind::CLEAN, false).expect("it opens"));
    let changes = whole.mutations() - before;
    assert!(changes > 30, "{changes}");
    for cut in 0..changes {
        for (seed, pattern) in CrashPattern::ALL.into_iter().enumerate() {
            let context = format!("cut after {cut} of {changes}, {pattern:?}");
            let disk = disk.kill();
            disk.halt_after(cut);
            assert!(open(&disk, Kind::CLEAN, false).is_err(), "{context}");
            let disk = disk.crash(seed as u64, pattern);
            let storage = open(&disk, Kind::CLEAN, false).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert!(!shows(&storage, "audit"), "{context}");
            let served = serve(&storage, &disk, &base, &context);
            assert_eq!((served.messages, served.refused), (expected, 0), "{context}");
            assert_eq!(next_offsets(&storage, "orders"), ends(&base, "orders"), "{context}");
        }
    }
}
