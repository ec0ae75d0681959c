//! Queue files: bytes, roll, load, damage, truncation, rebuilding, removal.

use std::cell::Cell;

use super::super::{QueueError, Rebuilt, Shown};
use super::*;
use crate::disk::{OpenOptions, RealDisk, io_causes, is_no_space};
use crate::sim::{CrashPattern, Fault, OperationKind, SimDisk};

/// Entries of a file in these tests.
const FILE: u64 = 10;

fn sim() -> (Arc<SimDisk>, Arc<dyn Disk>) {
    let sim = Arc::new(SimDisk::new());
    (Arc::clone(&sim), sim)
}

fn names(disk: &Arc<dyn Disk>, queue: &str) -> Vec<String> {
    disk.list(&Path::new(ROOT).join(queue)).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn file(disk: &Arc<dyn Disk>, name: &str) -> Vec<u8> {
    let file = disk.open(&Path::new(ROOT).join(name), OpenOptions::default()).unwrap();
    let mut bytes = vec![0; file.length().unwrap() as usize];
    file.read_at(&mut bytes, 0).unwrap();
    bytes
}

/// A disk with one queue `t/0` of `length` entries in files.
fn with_queue(length: u64) -> (Arc<SimDisk>, Arc<dyn Disk>) {
    let (sim, disk) = sim();
    disk.create_directories(Path::new("/store")).unwrap();
    disk.sync_directory(Path::new("/")).unwrap();
    let (store, pool) = store(&disk, FILE, 1 << 20);
    fill(&queue(&store, "t", 0), &pool, 0, length).unwrap();
    store.flush_dirty().unwrap();
    store.sync().unwrap();
    (sim, disk)
}

#[test]
fn rolls_and_names_files() {
    // Goal: Java's names and lengths. Method: 25 entries in files of 10, flushed in two rounds, and all bytes.
    let (_, disk) = sim();
    let (store, pool) = store(&disk, FILE, 1 << 20);
    let queue = queue(&store, "t", 3);
    for end in [7, 25] {
        fill(&queue, &pool, 0, end).unwrap();
        store.flush_dirty().unwrap();
    }
    let all = ["00000000000000000000", "00000000000000000200", "00000000000000000400"];
    assert_eq!(names(&disk, "t/3"), all);
    let bytes: Vec<u8> = all.iter().flat_map(|name| file(&disk, &format!("t/3/{name}"))).collect();
    let mut wanted: Vec<u8> = (0..25).flat_map(|offset| entry(0, offset).to_bytes()).collect();
    wanted.resize(600, 0);
    assert_eq!(bytes, wanted);
    let location = store.locate(&queue, QueueOffset(23)).unwrap();
    assert_eq!((location.file_offset, location.available_entries), (60, 2));
    assert!(matches!(store.locate(&queue, QueueOffset(25)), Err(QueueError::Missing { .. })));
}

#[test]
fn first_file_is_filled_with_blanks() {
    // Goal: a queue that begins inside a file. Method: start at 13; the blanks are no messages after a restart.
    let (_, disk) = sim();
    let (store, pool) = store(&disk, FILE, 1 << 20);
    let queue = queue(&store, "t", 0);
    store.start_at(&queue, QueueOffset(13)).unwrap();
    fill(&queue, &pool, 0, 15).unwrap();
    store.flush_dirty().unwrap();
    assert_eq!(names(&disk, "t/0"), ["00000000000000000200"]);
    let bytes = file(&disk, "t/0/00000000000000000200");
    assert!(bytes[..60].as_chunks::<20>().0.iter().all(|bytes| *bytes == QueueEntry::BLANK.to_bytes()));
    assert_eq!(bytes[60..80], entry(0, 13).to_bytes());

    let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
    let queue = super::queue(&store, "t", 0);
    assert_eq!((queue.bounds().1, queue.physical_end()), (QueueOffset(15), entry(0, 14).physical_end()));
    store.correct_minimum(&queue, PhysicalOffset(0)).unwrap();
    assert_eq!(queue.bounds(), (QueueOffset(13), QueueOffset(15)));
}

#[test]
fn a_queue_of_blanks_begins_where_the_log_says() {
    // Goal: a crash between blanks and first entry. Method: a file with blanks only; the log continues at 17.
    let (sim, disk) = with_queue(5);
    let path = Path::new(ROOT).join("t/0/00000000000000000000");
    sim.damage(&path, 0, &QueueEntry::BLANK.to_bytes().repeat(5)).unwrap();
    let (store, pool) = reopen(&disk, FILE, FilesLeft::Uncertain);
    let queue = queue(&store, "t", 0);
    assert_eq!((queue.published(), queue.physical_end()), (QueueOffset(5), PhysicalOffset(0)));
    let append = |offset| store.rebuild_append(&pool, &queue, QueueOffset(offset), entry(0, offset), StoreTimestamp(1));
    assert_eq!(append(17).unwrap(), Rebuilt::Appended);
    store.flush_dirty().unwrap();
    assert_eq!(names(&disk, "t/0"), ["00000000000000000200"]);
    assert_eq!(queue.bounds(), (QueueOffset(17), QueueOffset(18)));
}

#[test]
fn load_finds_every_length() {
    // Goal: bisection finds the end, at file borders too. Method: all lengths over three files.
    for length in 0..=31 {
        let (_, disk) = with_queue(length);
        for left in [FilesLeft::Whole, FilesLeft::Written, FilesLeft::Uncertain] {
            let (store, _) = reopen(&disk, FILE, left);
            let queue = queue(&store, "t", 0);
            assert_eq!(queue.bounds(), (QueueOffset(0), QueueOffset(length)));
            assert_eq!((queue.next_offset().0, queue.flushed().0, queue.appended_end().0), (length, length, length));
            assert_entries(&store, &queue, 0, 0, length);
        }
    }
}

#[test]
fn loaded_queues_go_on() {
    // Goal: appending after a restart continues file and offsets. Method: restart inside a file and at its end.
    for length in [14, 20] {
        let (_, disk) = with_queue(length);
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
        fill(&queue(&store, "t", 0), &pool, 0, 33).unwrap();
        store.flush_dirty().unwrap();
        let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
        assert_entries(&store, &queue(&store, "t", 0), 0, 0, 33);
        assert_eq!(queue(&store, "t", 0).published().0, 33);
    }
}

#[test]
fn invalid_entries_end_a_queue() {
    // Goal: the queue is cut at the first invalid entry near its end, and nothing behind it comes back. Method: zeros,
    // a negative size, and a position that goes backwards, at entry 22 of 25; then appending one entry and reopening.
    for garbage in [[0; 20], [0xff; 20], entry(0, 3).to_bytes()] {
        let (sim, disk) = with_queue(25);
        sim.damage(&Path::new(ROOT).join("t/0/00000000000000000400"), 40, &garbage).unwrap();
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Uncertain);
        let queue = queue(&store, "t", 0);
        assert_eq!(queue.published().0, 22, "{garbage:?}");
        assert_eq!(store.maximum_physical_end(), entry(0, 21).physical_end());
        fill(&queue, &pool, 0, 23).unwrap();
        store.flush_dirty().unwrap();
        let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
        assert_eq!(super::queue(&store, "t", 0).published().0, 23, "{garbage:?}");
    }
}

#[test]
fn strange_directories_are_refused() {
    // Goal: what the broker did not write is named, not guessed at. Method: one oddity at a time.
    let cases: [(&str, u64, &str); 3] = [
        ("t/0/00000000000000000000", 199, "00000000000000000000 is damaged: it has 199 bytes instead of 200"),
        ("t/0/00000000000000000600", 200, "00000000000000000400 is damaged: it is missing between two others"),
        ("t/0/00000000000000000201", 200, "its name is not a multiple of 200 in 20 digits"),
    ];
    let with_file = |name: &str, length: u64| {
        let (_, disk) = with_queue(15);
        let path = Path::new(ROOT).join(name);
        disk.create_directories(path.parent().unwrap()).unwrap();
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        disk.open(&path, options).unwrap().set_length(length).unwrap();
        disk
    };
    for (name, length, message) in cases {
        for left in [FilesLeft::Whole, FilesLeft::Written] {
            let error = match store(&with_file(name, length), FILE, 1).0.load(left) {
                Err(error) => error,
                // Where the files should be whole the caller decides about parts that are gone.
                Ok(mut report) if left == FilesLeft::Whole => report.short.pop().expect("it is reported").into(),
                Ok(report) => panic!("{report:?}"),
            };
            assert!(error.to_string().contains(message), "{error}");
        }
    }
    for (name, foreign) in [("t/0/notes.txt", "t/0/notes.txt"), ("t/00/00000000000000000000", "t/00")] {
        let report = store(&with_file(name, 200), FILE, 1).0.load(FilesLeft::Whole).unwrap();
        assert_eq!(report.foreign, [Path::new(ROOT).join(foreign)]);
        assert_eq!((report.queues, report.files), (1, 2), "the queue beside it is whole");
    }
}

#[test]
fn empty_last_files_are_removed() {
    // Goal: what a crash at a roll leaves behind. Method: an empty file, and a file of zeros, behind a full one.
    for length in [0, 200] {
        let (_, disk) = with_queue(20);
        let path = Path::new(ROOT).join("t/0/00000000000000000400");
        let options = OpenOptions { create: true, ..OpenOptions::default() };
        disk.open(&path, options).unwrap().set_length(length).unwrap();
        let (store, _) = reopen(&disk, FILE, FilesLeft::Uncertain);
        assert_eq!(queue(&store, "t", 0).published().0, 20);
        assert_eq!(names(&disk, "t/0").len(), 2);
    }
}

#[test]
fn truncation_leaves_no_ghosts() {
    // Goal: cutting to the log's end, for entries in files and in memory, and a cut entry never comes back. Method: all
    // cuts of 25 entries of which 18 are flushed; then one new entry and a restart.
    for kept in 0..=25 {
        let (_, disk) = sim();
        let (store, pool) = store(&disk, FILE, 1 << 20);
        let queue = queue(&store, "t", 0);
        fill(&queue, &pool, 0, 18).unwrap();
        store.flush_dirty().unwrap();
        fill(&queue, &pool, 0, 25).unwrap();
        assert_eq!(store.truncate_all(entry(0, kept).physical).unwrap(), 25 - kept);
        assert_eq!((queue.published().0, queue.next_offset().0), (kept, kept));
        let end = if kept == 0 { PhysicalOffset(0) } else { entry(0, kept - 1).physical_end() };
        assert_eq!(queue.physical_end(), end);
        fill(&queue, &pool, 0, kept + 1).unwrap();
        store.flush_dirty().unwrap();
        let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
        assert_eq!(super::queue(&store, "t", 0).published().0, kept + 1);
        assert_entries(&store, &super::queue(&store, "t", 0), 0, 0, kept + 1);
    }
}

#[test]
fn rebuilding_is_idempotent() {
    // Goal: records may be offered any number of times; a gap is an error. Method: offer 0..30 from several starts, with
    // memory for less than that, then 31 before 30.
    let (_, disk) = with_queue(12);
    let (store, pool) = reopen(&disk, FILE, FilesLeft::Uncertain);
    let queue = queue(&store, "t", 0);
    let append = |offset| store.rebuild_append(&pool, &queue, QueueOffset(offset), entry(0, offset), StoreTimestamp(1));
    for start in [0, 5, 12, 29] {
        for offset in start..30 {
            let wanted = if offset < 12 || start > 0 { Rebuilt::Present } else { Rebuilt::Appended };
            assert_eq!(append(offset).unwrap(), wanted, "{offset} from {start}");
        }
    }
    let error = append(31).unwrap_err();
    assert!(matches!(error, QueueError::Gap { end: QueueOffset(30), found: QueueOffset(31), .. }), "{error}");
    assert_entries(&store, &queue, 0, 0, 30);
}

#[test]
fn rebuilding_flushes_when_memory_is_full() {
    // Goal: rebuilding more than fits into memory. Method: 20,000 entries through a pool of 8,192.
    let (_, disk) = sim();
    let (store, pool) = store(&disk, 3000, 1);
    let queue = queue(&store, "t", 0);
    for offset in 0..20_000 {
        store.rebuild_append(&pool, &queue, QueueOffset(offset), entry(0, offset), StoreTimestamp(1)).unwrap();
    }
    assert_entries(&store, &queue, 0, 0, 20_000);
}

#[test]
fn expired_files_go_but_offsets_stay() {
    // Goal: retention. Method: raise the log's minimum step by step, past the end too; the last file always stays.
    let (_, disk) = with_queue(25);
    let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
    let queue = queue(&store, "t", 0);
    for (first, minimum, files) in [(0, 0, 3), (9, 9, 3), (10, 10, 2), (24, 24, 1), (99, 25, 1)] {
        store.remove_expired_files(&queue, entry(0, first).physical).unwrap();
        assert_eq!(queue.bounds(), (QueueOffset(minimum), QueueOffset(25)), "{first}");
        assert_eq!(names(&disk, "t/0").len(), files, "{first}");
    }
    let mut out = [QueueEntry::default()];
    assert_eq!(store.read_entries(&queue, QueueOffset(3), &mut out).unwrap(), 0);
}

fn shown(end: u64) -> Shown {
    Shown { end: PhysicalOffset(end), store_timestamp: StoreTimestamp(1) }
}

#[test]
fn an_unfinished_round_goes_on_where_it_stopped() {
    // Goal: a round in several turns gives each queue one, is complete after the last, for the end of the log that it began with, and
    // what was marked meanwhile comes in the next. Method: five queues, two of them per turn, the first marked again in between; then
    // the same with a topic that is deleted and made again between two turns.
    let (_, disk) = sim();
    let (store, pool) = store(&disk, FILE, 1 << 20);
    let queues: Vec<_> = (0..5).map(|number| queue(&store, "t", number)).collect();
    queues.iter().for_each(|queue| fill(queue, &pool, 1, 7).unwrap());
    store.arena().note_appended(35);
    let turn = |log_end: u64| {
        let left = Cell::new(2);
        let goes_on = || {
            left.set(left.get() - 1);
            left.get() > 0
        };
        let report = store.flush_some(shown(log_end), &goes_on).unwrap();
        (report.queues, store.has_unfinished_round(), report.complete)
    };
    assert_eq!(turn(100), (2, true, None));
    fill(&queues[0], &pool, 1, 9).unwrap();
    store.arena().note_appended(2);
    assert_eq!(turn(200), (2, true, None));
    assert_eq!(store.arena().unflushed_entries(), 9);
    assert_eq!(turn(300), (1, false, Some(shown(100))));
    assert_eq!((queues[0].flushed(), store.arena().unflushed_entries()), (QueueOffset(7), 2));
    assert_eq!(turn(400), (1, false, Some(shown(400))));
    assert_eq!(store.arena().unflushed_entries(), 0);

    queues.iter().for_each(|queue| fill(queue, &pool, 1, 20).unwrap());
    assert_eq!(turn(500), (2, true, None));
    store.remove_topic("t");
    let successor = queue(&store, "t", 4);
    fill(&successor, &pool, 2, 3).unwrap();
    let report = store.flush_all(shown(600)).unwrap();
    assert_eq!((report.queues, report.removed_queues, report.complete), (1, 5, Some(shown(600))));
    assert_eq!(names(&disk, "t/4"), ["00000000000000000000"]);
    assert_entries(&store, &successor, 2, 0, 3);
}

#[test]
fn a_round_with_a_failure_is_not_complete() {
    // Goal: the last turn of a round does not make it complete when a queue of an earlier turn could not be written. Method: the first
    // creation of a file fails, and the turn ends there.
    let (sim, disk) = sim();
    let (store, pool) = store(&disk, FILE, 1 << 20);
    let queues: Vec<_> = (0..3).map(|number| queue(&store, "t", number)).collect();
    queues.iter().for_each(|queue| fill(queue, &pool, 1, 7).unwrap());
    store.arena().note_appended(21);
    sim.inject(Fault::once(OperationKind::Open, 0, libc::EIO));
    assert!(store.flush_some(shown(100), &|| false).is_err());
    let report = store.flush_some(shown(200), &|| true).unwrap();
    assert_eq!((report.queues, store.has_unfinished_round(), report.complete), (2, false, None));
    assert_eq!(store.arena().unflushed_entries(), 7);
    let report = store.flush_some(shown(300), &|| true).unwrap();
    assert_eq!((report.queues, report.complete), (1, Some(shown(300))));
    assert_eq!(store.arena().unflushed_entries(), 0);
    // Entries that were never counted as appended, as those that recovery makes anew, do not count against later ones.
    fill(&queues[0], &pool, 1, 9).unwrap();
    store.flush_dirty().unwrap();
    store.arena().note_appended(1);
    assert_eq!(store.arena().unflushed_entries(), 1);
}

#[test]
fn removed_topics_make_room_for_successors() {
    // Goal: a topic that is deleted and made again begins at 0, with only its own files. Method: both before one flush.
    let (_, disk) = sim();
    let (store, pool) = store(&disk, FILE, 1 << 20);
    let old = queue(&store, "t", 0);
    fill(&old, &pool, 1, 35).unwrap();
    store.flush_dirty().unwrap();
    fill(&old, &pool, 1, 40).unwrap();
    assert_eq!(store.remove_topic("t"), 1);
    assert!(old.is_retired() && store.get("t", QueueId(0)).is_none());
    let new = queue(&store, "t", 0);
    fill(&new, &pool, 2, 3).unwrap();
    fill(&old, &pool, 1, 45).unwrap();
    let report = store.flush_dirty().unwrap();
    assert_eq!((report.removed_queues, report.entries), (1, 3));
    assert_eq!(names(&disk, "t/0"), ["00000000000000000000"]);
    assert_entries(&store, &new, 2, 0, 3);
    store.sync().unwrap();
    store.remove_topic("t");
    store.flush_dirty().unwrap();
    assert!(!disk.exists(&Path::new(ROOT).join("t")).unwrap());
}

#[test]
fn a_removal_is_durable_although_the_topic_stays() {
    // Goal: single queues of a topic can go, and once synced they stay away. Method: one of two queues, then a power cut that
    // takes everything that was not synced.
    let (sim, disk) = with_queue(15);
    let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
    fill(&queue(&store, "t", 1), &pool, 1, 25).unwrap();
    store.flush_dirty().unwrap();
    store.sync().unwrap();
    assert_eq!(store.remove_queues("t", |queue| queue.queue_id() == QueueId(0)), 1);
    assert!(store.get("t", QueueId(0)).is_none() && !store.get("t", QueueId(1)).unwrap().is_retired());
    store.flush_dirty().unwrap();
    store.sync().unwrap();
    let disk: Arc<dyn Disk> = Arc::new(sim.crash(1, CrashPattern::KeepNone));
    let (store, _pool) = reopen(&disk, FILE, FilesLeft::Uncertain);
    assert!(store.get("t", QueueId(0)).is_none());
    assert_entries(&store, &queue(&store, "t", 1), 1, 0, 25);
}

#[test]
fn what_belongs_to_no_queue_stops_nobody() {
    // Goal: a folder of somebody else's in a deleted queue's directory stays, the queue's files go, and other queues are written.
    // Method: put one there, remove the topic, flush what another queue holds.
    let (_, disk) = with_queue(15);
    let foreign = Path::new(ROOT).join("t/0/foreign");
    disk.create_directories(&foreign).unwrap();
    let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
    assert_eq!(store.remove_topic("t"), 1);
    fill(&queue(&store, "other", 0), &pool, 0, 20).unwrap();
    let report = store.flush_dirty().unwrap();
    assert_eq!((report.removed_queues, report.entries), (1, 20));
    assert_eq!(names(&disk, "t/0"), ["foreign"]);
    store.sync().unwrap();
}

#[test]
fn a_removal_that_fails_is_tried_again() {
    // Goal: a queue whose files cannot be removed is tried again, and until then a successor of its name writes nothing
    // between the old entries. Method: fail the first removal of a file, then flush once more.
    let (sim, disk) = with_queue(150);
    let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
    assert_eq!(store.remove_topic("t"), 1);
    let successor = queue(&store, "t", 0);
    fill(&successor, &pool, 9, 20).unwrap();
    sim.inject(Fault::once(OperationKind::Remove, 1, libc::EIO));
    assert!(store.flush_dirty().is_err());
    assert_eq!(successor.flushed(), QueueOffset(0));
    let report = store.flush_dirty().unwrap();
    assert_eq!((report.removed_queues, report.entries), (1, 20));
    let (store, _pool) = reopen(&disk, FILE, FilesLeft::Whole);
    let successor = queue(&store, "t", 0);
    assert_eq!(successor.bounds(), (QueueOffset(0), QueueOffset(20)));
    assert_entries(&store, &successor, 9, 0, 20);
}

#[test]
fn topic_names_stay_inside_the_store() {
    // Goal: no path leaves the root. Method: names that would.
    let (_, disk) = sim();
    let (store, _) = store(&disk, FILE, 1);
    for name in ["", ".", "..", "a/b", "../x", "nul\0", &"x".repeat(256)] {
        assert!(matches!(store.get_or_create(name, QueueId(0)), Err(QueueError::TopicName(_))), "{name}");
    }
    store.get_or_create("%RETRY%group", QueueId(0)).unwrap();
}

#[test]
fn a_full_disk_only_delays() {
    // Goal: no space is not final: the queue stays on the list and loses nothing. Method: each kind of call fails once.
    for kind in [OperationKind::Open, OperationKind::SetLength, OperationKind::Write] {
        let (sim, disk) = sim();
        let (store, pool) = store(&disk, FILE, 1 << 20);
        let queue = queue(&store, "t", 0);
        fill(&queue, &pool, 0, 15).unwrap();
        sim.inject(Fault::once(kind, 0, libc::ENOSPC));
        let error = store.flush_dirty().unwrap_err();
        assert!(io_causes(&error).any(is_no_space) && !error.is_final(), "{kind:?}: {error}");
        assert_entries(&store, &queue, 0, 0, 15);
        assert_eq!(store.flush_dirty().unwrap().entries, 15, "{kind:?}");
        let (store, _) = reopen(&disk, FILE, FilesLeft::Uncertain);
        assert_entries(&store, &super::queue(&store, "t", 0), 0, 0, 15);
    }
}

#[test]
fn power_cuts_keep_what_was_synced() {
    // Goal: after any power cut, cutting to the synced log offset and rebuilding from there gives the whole queue.
    // Method: sync at 12, go on to 28, cut the power with many seeds, recover, rebuild, compare.
    for (seed, pattern) in (0..40).flat_map(|seed| CrashPattern::ALL.map(|pattern| (seed, pattern))) {
        let (sim, disk) = with_queue(12);
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
        let queue = queue(&store, "t", 0);
        for end in [17, 21, 28] {
            fill(&queue, &pool, 0, end).unwrap();
            store.flush_dirty().unwrap();
        }
        let disk: Arc<dyn Disk> = Arc::new(sim.crash(seed, pattern));
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Uncertain);
        store.truncate_all(entry(0, 12).physical).unwrap();
        let queue = super::queue(&store, "t", 0);
        assert_eq!(queue.published().0, 12, "seed {seed} {pattern:?}");
        for offset in 8..28 {
            store.rebuild_append(&pool, &queue, QueueOffset(offset), entry(0, offset), StoreTimestamp(1)).unwrap();
        }
        store.flush_dirty().unwrap();
        let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
        assert_eq!(super::queue(&store, "t", 0).published().0, 28, "seed {seed} {pattern:?}");
        assert_entries(&store, &super::queue(&store, "t", 0), 0, 0, 28);
    }
}

#[test]
fn expired_files_leave_no_hole() {
    // Goal: of several files that retention removes none comes back without those behind it, so that the queue loads. Method: three
    // of five files, the power cut after each step and with many seeds.
    let removed_from = entry(0, 3 * FILE).physical;
    for (seed, pattern) in (0..40).flat_map(|seed| CrashPattern::ALL.map(|pattern| (seed, pattern))) {
        let (sim, disk) = with_queue(5 * FILE);
        let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
        store.sync().unwrap();
        let queue = queue(&store, "t", 0);
        sim.halt_after(seed % 8);
        let finished = store.remove_expired_files(&queue, removed_from).ok();
        assert_eq!(finished, (seed % 8 >= 6).then_some(3));
        let disk: Arc<dyn Disk> = Arc::new(sim.crash(seed, pattern));
        let (store, _) = super::store(&disk, FILE, 1 << 20);
        store.load(FilesLeft::Uncertain).unwrap_or_else(|error| panic!("seed {seed} {pattern:?}: {error}"));
        let queue = super::queue(&store, "t", 0);
        store.correct_minimum(&queue, removed_from).unwrap();
        assert_eq!(queue.bounds(), (QueueOffset(3 * FILE), QueueOffset(5 * FILE)), "seed {seed} {pattern:?}");
    }
}

#[test]
fn recovery_survives_power_cuts_of_its_own() {
    // Goal: loading and cutting may be interrupted anywhere and begun again. Method: an unsynced queue loses power, then
    // its recovery does after each of its steps; the next one gives the same queue.
    for (steps, pattern) in (0..12).flat_map(|steps| CrashPattern::ALL.map(|pattern| (steps, pattern))) {
        let (sim, disk) = with_queue(12);
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
        fill(&queue(&store, "t", 0), &pool, 0, 28).unwrap();
        store.flush_dirty().unwrap();
        let first = sim.crash(steps, pattern);
        first.halt_after(steps);
        let disk: Arc<dyn Disk> = Arc::new(first.clone());
        let (store, _) = super::store(&disk, FILE, 1 << 20);
        // Fails where the power goes; that is the point.
        let _ = store.load(FilesLeft::Uncertain).and_then(|_| store.truncate_all(entry(0, 12).physical));
        let disk: Arc<dyn Disk> = Arc::new(first.crash(steps + 1, pattern));
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Uncertain);
        store.truncate_all(entry(0, 12).physical).unwrap();
        let queue = super::queue(&store, "t", 0);
        assert_eq!(queue.published().0, 12, "{steps} {pattern:?}");
        fill(&queue, &pool, 0, 13).unwrap();
        store.flush_dirty().unwrap();
        let (store, _) = reopen(&disk, FILE, FilesLeft::Whole);
        assert_eq!(super::queue(&store, "t", 0).published().0, 13, "{steps} {pattern:?}");
    }
}

#[test]
fn recovery_survives_kills_of_its_own() {
    // Goal: the same for the death of the process alone, when what was written is trusted: a start that is killed while it cuts the
    // files must not make the next one refuse them. Method: kill a queue, then its recovery after each of its steps.
    for steps in 0..12 {
        let (sim, disk) = with_queue(12);
        let (store, pool) = reopen(&disk, FILE, FilesLeft::Whole);
        fill(&queue(&store, "t", 0), &pool, 0, 28).unwrap();
        store.flush_dirty().unwrap();
        let first = sim.crash(steps, CrashPattern::KeepAll);
        first.halt_after(steps);
        let disk: Arc<dyn Disk> = Arc::new(first.clone());
        let (store, _) = super::store(&disk, FILE, 1 << 20);
        // Fails where the process dies; that is the point.
        let _ = store.load(FilesLeft::Written).and_then(|_| store.truncate_all(entry(0, 12).physical));
        let disk: Arc<dyn Disk> = Arc::new(first.crash(steps, CrashPattern::KeepAll));
        let (store, _) = reopen(&disk, FILE, FilesLeft::Written);
        store.truncate_all(entry(0, 12).physical).unwrap();
        assert_eq!(queue(&store, "t", 0).published().0, 12, "{steps}");
    }
}

#[test]
fn real_files() {
    // Goal: the same on a real file system, with Java's file size. Method: write, sync, load, delete.
    let directory = tempfile::tempdir().unwrap();
    let config = QueueStoreConfig { pool_bytes: 1 << 20, ..QueueStoreConfig::default() };
    let open = || QueueStore::new(Arc::new(RealDisk), &directory.path().join("consumequeue"), config);
    let (store, pool) = open();
    for number in 0..20 {
        fill(&queue(&store, "topic", number), &pool, 0, 1000).unwrap();
        store.flush_dirty().unwrap();
    }
    assert_eq!(store.sync().unwrap(), 20);
    let path = directory.path().join("consumequeue/topic/7/00000000000000000000");
    assert_eq!(std::fs::metadata(path).unwrap().len(), 6_000_000);
    let (store, _) = open();
    let report = store.load(FilesLeft::Uncertain).unwrap();
    assert_eq!((report.queues, report.files, report.cut_entries), (20, 20, 0));
    (0..20).for_each(|number| assert_entries(&store, &queue(&store, "topic", number), 0, 0, 1000));
    store.remove_topic("topic");
    assert_eq!(store.flush_dirty().unwrap().removed_queues, 20);
}
