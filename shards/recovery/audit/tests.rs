//! A sound store has no findings; each kind of damage has its own, at the right place; a repair takes them away.

use std::path::Path;
use std::sync::Arc;

use ringmq_protocol::record::{RecordFields, RecordView, bind_record, encode_record, record_length, write_blank};

use super::*;
use crate::clock::Clock;
use crate::disk::{OpenOptions, create_directories_durably, read_file, write_file};
use crate::index::{IndexService, LastStop};
use crate::log::segment_table::file_name;
use crate::queue::{QueueStore, QueueStoreConfig};
use crate::recovery::adopt;
use crate::recovery::checkpoint::CheckpointFile;
use crate::recovery::durable_point::{DurablePointFile, LastRecord};
use crate::recovery::queue_offsets::QueueOffsets;
use crate::recovery::queue_place::queue_place;
use crate::recovery::repair::{RepairError, RepairOptions, Repaired, repair};
use crate::sim::{ManualClock, SimDisk};
use crate::types::{QueueId, QueueOffset, StoreTimestamp};

const SIZE: u64 = 8192;
const GEOMETRY: IndexGeometry = IndexGeometry { slots: 8, entries: 40 };

fn options() -> AuditOptions {
    AuditOptions {
        segment_bytes: SIZE,
        queue_file_entries: 10,
        index: GEOMETRY,
        is_sync: None,
        group_bytes: 1 << 10,
        is_signed: false,
    }
}

/// A store of three log files with everything that belongs to it.
struct Made {
    disk: SimDisk,
    paths: StorePaths,
    /// Where each record begins.
    starts: Vec<u64>,
    end: u64,
}

fn record(topic: &str, number: u64, queue_offset: u64, at: u64) -> Vec<u8> {
    let properties = format!("KEYS\u{1}k{number} all\u{2}UNIQ_KEY\u{1}U{number}\u{2}");
    let body = vec![number as u8 + 1; 300];
    let fields = RecordFields::plain(topic, 0, &body, properties.as_bytes());
    let mut bytes = vec![0; record_length(&fields)];
    encode_record(&fields, &mut bytes);
    bind_record(&mut bytes, queue_offset as i64, at as i64, 1_000_000 + number as i64 * 1000);
    bytes
}

/// Makes the store; `topic_of` names the topic of each record, and the queue's offset.
fn make(records: u64, topic_of: impl Fn(u64) -> (&'static str, u64)) -> Made {
    let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
    for directory in [paths.commit_log.clone(), paths.own(), paths.consume_queue(), paths.config()] {
        create_directories_durably(&disk, &directory).unwrap();
    }
    write_file(&disk, &paths.lock(), b"lock").unwrap();
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let config = QueueStoreConfig { file_entries: 10, ..QueueStoreConfig::default() };
    let (queues, pool) = QueueStore::new(Arc::clone(&shared), &paths.consume_queue(), config);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_000_000));
    let mut index = IndexService::open(shared, clock, &paths.index(), GEOMETRY, LastStop::Clean).unwrap();
    let create = OpenOptions { create: true, ..OpenOptions::default() };
    let (mut at, mut starts, mut last) = (0, Vec::new(), None);
    for number in 0..records {
        let (topic, queue_offset) = topic_of(number);
        let mut bytes = record(topic, number, queue_offset, at);
        let path = |at: u64| paths.commit_log.join(file_name(PhysicalOffset(at - at % SIZE)));
        if at % SIZE + bytes.len() as u64 + 8 > SIZE {
            let mut blank = [0; 8];
            write_blank(&mut blank, (SIZE - at % SIZE) as u32);
            disk.open(&path(at), create).unwrap().write_all_at(&blank, at % SIZE).unwrap();
            at = at - at % SIZE + SIZE;
            bytes = record(topic, number, queue_offset, at);
        }
        let file = disk.open(&path(at), create).unwrap();
        file.set_length(SIZE).unwrap();
        file.write_all_at(&bytes, at % SIZE).unwrap();
        let view = RecordView::parse(&bytes, ringmq_protocol::record::CrcCheck::Verify).unwrap();
        let (place, time) = (queue_place(&view, PhysicalOffset(at)).unwrap(), StoreTimestamp(number));
        let queue = queues.get_or_create(place.topic, place.queue_id).unwrap();
        if place.offset == QueueOffset(0) && queue.published() > QueueOffset(0) {
            queues.remove_topic(place.topic);
            queues.flush_dirty().unwrap();
            let queue = queues.get_or_create(place.topic, place.queue_id).unwrap();
            queues.rebuild_append(&pool, &queue, place.offset, place.entry, time).unwrap();
        } else {
            queues.rebuild_append(&pool, &queue, place.offset, place.entry, time).unwrap();
        }
        let time = StoreTimestamp(view.store_timestamp() as u64);
        index.put_record(&view, PhysicalOffset(at), time).unwrap();
        last = Some(LastRecord::of(PhysicalOffset(at), &bytes));
        starts.push(at);
        at += bytes.len() as u64;
    }
    queues.flush_dirty().unwrap();
    index.flush().unwrap();
    CheckpointFile::open(&disk, &paths).unwrap();
    let point = DurablePoint { offset: PhysicalOffset(at), last_record: last };
    DurablePointFile::open(&disk, &paths).unwrap().replace(point).unwrap();
    let mut offsets = QueueOffsets { log_offset: PhysicalOffset(at), ..QueueOffsets::default() };
    for (topic, queue_id, _, next) in queues.all_bounds() {
        offsets.next.entry(topic.to_string()).or_default().insert(queue_id, next);
    }
    offsets.persist(&disk, &paths).unwrap();
    Made { disk, paths, starts, end: at }
}

fn plain() -> Made {
    make(50, |number| (["A", "B"][number as usize % 2], number / 2))
}

impl Made {
    fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.disk.clone())
    }

    fn audit(&self) -> Audit {
        audit(&self.shared(), &self.paths, options(), &mut NoProgress).unwrap()
    }

    /// Findings that are worse than notes, as `area: text`.
    fn wrong(&self) -> Vec<String> {
        let kept = self.audit().findings.kept;
        let wrong = kept.into_iter().filter(|finding| finding.severity > Severity::Note);
        wrong.map(|finding| format!("{} {}: {}", finding.severity.name(), finding.area, finding.text)).collect()
    }

    fn log(&self, at: u64) -> std::path::PathBuf {
        self.paths.commit_log.join(file_name(PhysicalOffset(at - at % SIZE)))
    }

    fn queue(&self, topic: &str, file: u64) -> std::path::PathBuf {
        self.paths.consume_queue().join(format!("{topic}/0/{:020}", file * 200))
    }

    fn index_file(&self) -> std::path::PathBuf {
        let entries = self.disk.list(&self.paths.index()).unwrap();
        self.paths.index().join(&entries[0].name)
    }

    fn repair(&self, cut_log: bool) -> Result<Repaired, RepairError> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_000_000));
        let known_topics = ["A".to_string(), "B".to_string()].into();
        let options = RepairOptions { audit: options(), cut_log, queues: true, index: true, known_topics };
        repair(&self.shared(), &clock, &self.paths, &options, &mut NoProgress)
    }
}

/// Goal: nothing is found where nothing is wrong, and everything was looked at. Method: a whole store and its figures.
#[test]
fn a_sound_store() {
    let made = plain();
    let audit = made.audit();
    assert!(audit.findings.kept.is_empty(), "{:#?}", audit.findings.kept);
    let figures = audit.figures;
    assert_eq!((figures.segments, figures.records, figures.log_end), (3, 50, made.end));
    assert_eq!((figures.queues, figures.queue_entries), (2, 50));
    assert_eq!(figures.index_entries, 150);
    assert!(figures.index_files > 2 && figures.was_clean);
}

/// Goal: what is said of a torn tail is what the start does with it. Method: a durable point at the tenth record and a damaged twentieth;
/// valid records behind it near and farther than a group can be; every flush mode, and recovery itself.
#[test]
fn a_tail_is_told_of_as_the_start_sees_it() {
    let made = make(40, |number| ("A", number));
    made.disk.sync_file_system(&made.paths.root).unwrap();
    let (last, end) = (made.starts[9], made.starts[10]);
    let bytes = crate::disk::read_file(&made.disk, &made.log(last)).unwrap().unwrap();
    let last_record = &bytes[(last % SIZE) as usize..(last % SIZE + end - last) as usize];
    let last_record = Some(LastRecord::of(PhysicalOffset(last), last_record));
    let point = DurablePoint { offset: PhysicalOffset(end), last_record };
    DurablePointFile::open(&made.disk, &made.paths).unwrap().replace(point).unwrap();
    write_file(&made.disk, &made.paths.abort(), b"1").unwrap();
    let harmed = made.starts[20];
    made.disk.damage(&made.log(harmed), harmed % SIZE + 120, b"x").unwrap();
    let (near, far) = (1 << 10, made.end - harmed);
    for (group_bytes, is_far) in [(near, true), (far, false)] {
        for is_sync in [Some(false), Some(true), None] {
            let options = AuditOptions { is_sync, group_bytes, ..options() };
            let found = audit(&made.shared(), &made.paths, options, &mut NoProgress).unwrap().findings.kept;
            let told = found.iter().find(|finding| finding.offset == Some(harmed) && finding.area == "log").unwrap();
            let (cuts, refuses) = (told.text.contains("cuts them off"), told.text.contains("refuses it, since"));
            let expected = match is_sync {
                Some(is_sync) => (!(is_sync && is_far), is_sync && is_far),
                None => (true, is_far),
            };
            assert_eq!((cuts, refuses), expected, "{is_sync:?}, {group_bytes}: {}", told.text);
            assert_eq!(told.refuses_start, is_sync == Some(true) && is_far, "{is_sync:?}, {group_bytes}");
            let Some(is_sync) = is_sync else { continue };
            let recovery = crate::recovery::RecoveryOptions {
                segment_size: crate::log::segment_table::SegmentSize::new(SIZE).unwrap(),
                salvage: false,
                max_unsynced_bytes: is_sync.then_some(group_bytes),
                index_is_safe: false,
                verify_property_crc: false,
                kernel: crate::recovery::KernelRun::Restarted,
            };
            let (disk, mut sink) = (made.disk.kill(), Nothing);
            let started = crate::recovery::recover(&disk, &made.paths, &recovery, &mut sink);
            assert_eq!(started.is_err(), told.refuses_start, "{is_sync}, {group_bytes}: {started:?}");
        }
    }
}

struct Nothing;

impl crate::recovery::DispatchSink for Nothing {
    fn dispatch_from(&self) -> Option<PhysicalOffset> {
        None
    }

    fn record(&mut self, _: &RecordView<'_>, _: PhysicalOffset) -> std::io::Result<()> {
        Ok(())
    }
}

/// Goal: every kind of damage is found, in its place and class, and nothing else is blamed. Method: one row per damage: what is
/// done to the store, and what the finding says.
#[test]
fn each_kind_of_damage_is_named() {
    type Harm = fn(&Made);
    let rows: [(&str, Harm, &str); 13] = [
        (
            "a body",
            |made| made.disk.damage(&made.log(0), made.starts[3] + 120, b"x").unwrap(),
            "damage log: the body's CRC",
        ),
        ("a missing file", |made| made.disk.remove_file(&made.log(SIZE)).unwrap(), "damage log: files are missing"),
        (
            "the end of the log",
            |made| {
                let last = *made.starts.last().unwrap();
                made.disk.damage(&made.log(last), last % SIZE, &[0; 500]).unwrap();
            },
            "damage log: the log ends here although it was known to be synced",
        ),
        (
            "an entry",
            |made| made.disk.damage(&made.queue("A", 0), 47, b"x").unwrap(),
            "derived queues: queue A/0 has 1 entries that do not point",
        ),
        (
            "a tag",
            |made| made.disk.damage(&made.queue("A", 0), 59, b"x").unwrap(),
            "derived queues: queue A/0 has 1 entries that do not point",
        ),
        (
            "a lost entry",
            |made| made.disk.damage(&made.queue("B", 2), 60, &[0; 40]).unwrap(),
            "derived queues: queue B/0 lacks 2 entries",
        ),
        (
            "an entry too many",
            |made| {
                let entry = read_file(&made.disk, &made.queue("A", 0)).unwrap().unwrap()[..20].to_vec();
                made.disk.damage(&made.queue("A", 2), 100, &entry).unwrap();
            },
            "derived queues: queue A/0 has 1 entries too many",
        ),
        (
            "a queue file",
            |made| made.disk.remove_file(&made.queue("A", 1)).unwrap(),
            "derived queues: the file before this one is missing",
        ),
        (
            "an index entry",
            |made| made.disk.damage(&made.index_file(), 40 + 32 + 20 + 1, b"x").unwrap(),
            "derived index:",
        ),
        (
            "an index slot",
            |made| made.disk.damage(&made.index_file(), 40, &[0, 0, 0, 1, 0, 0, 0, 1]).unwrap(),
            "derived index:",
        ),
        (
            "an index header",
            |made| made.disk.damage(&made.index_file(), 36, &[0, 0, 0, 7]).unwrap(),
            "derived index: it is not full, and there is a newer one; the next start sets it and all behind it aside",
        ),
        (
            "a checkpoint of the future",
            |made| write_file(&made.disk, &made.paths.checkpoint(), &[0x01; 4096]).unwrap(),
            "derived checkpoint: its time of the log",
        ),
        (
            "the sidecar",
            |made| write_file(&made.disk, &made.paths.queue_offsets(), b"junk").unwrap(),
            "damage queue offsets: cannot understand",
        ),
    ];
    for (name, harm, expected) in rows {
        let made = plain();
        harm(&made);
        let wrong = made.wrong();
        assert!(wrong.iter().any(|text| text.starts_with(expected)), "{name}: {wrong:#?}");
        let area = expected.split(' ').nth(1).unwrap().trim_end_matches(':');
        let others: Vec<&String> =
            wrong.iter().filter(|text| !text.split(' ').nth(1).unwrap().starts_with(area)).collect();
        let may_spread = ["a missing file", "the end of the log"].contains(&name);
        assert!(others.is_empty() || may_spread, "{name}: {others:#?}");
    }
}

/// Goal: a repair makes queues and index right whatever happened to them, keeps what it replaces, and leaves the log alone.
/// Method: ruin both, repair, audit; put the old files back from where they were saved and find the old damage.
#[test]
fn a_repair_makes_queues_and_index_anew() {
    let made = plain();
    made.disk.damage(&made.queue("A", 0), 40, &[7; 60]).unwrap();
    made.disk.damage(&made.index_file(), 50, &[7; 60]).unwrap();
    let log = read_file(&made.disk, &made.log(0)).unwrap();
    let repaired = made.repair(false).unwrap();
    assert_eq!((repaired.queues, repaired.queue_entries, repaired.indexed_records), (2, 50, 50));
    assert_eq!(made.wrong(), Vec::<String>::new());
    assert_eq!(read_file(&made.disk, &made.log(0)).unwrap(), log);
    assert!(!made.disk.exists(&made.paths.abort()).unwrap(), "it was stopped in order before and is so again");
    let saved = Path::new("/store/ringmq/repair-1/consumequeue/A/0/00000000000000000000");
    assert_eq!(read_file(&made.disk, saved).unwrap().unwrap()[40..100], [7; 60]);
    let text = read_file(&made.disk, repaired.instructions.as_deref().unwrap()).unwrap().unwrap();
    assert!(String::from_utf8(text).unwrap().contains("mv '/store/ringmq/repair-1/index' '/store/index'"));
    assert!(made.repair(false).unwrap().instructions.unwrap().starts_with("/store/ringmq/repair-2"));
}

/// Goal: a damaged log is cut only when that is allowed, and then queues and index end where it ends. Method: damage a body in the
/// second file.
#[test]
fn the_log_is_cut_only_when_told() {
    let made = plain();
    let (number, at) =
        made.starts.iter().enumerate().find(|(_, at)| **at > SIZE).map(|(number, at)| (number, *at)).unwrap();
    made.disk.damage(&made.log(at), at % SIZE + 130, b"x").unwrap();
    let before = made.disk.mutations();
    assert!(matches!(made.repair(false), Err(RepairError::LogDamaged(offset)) if offset.0 == at));
    assert_eq!(made.disk.mutations(), before, "nothing was touched");
    let repaired = made.repair(true).unwrap();
    let cut = repaired.cut.unwrap();
    assert_eq!((cut.from.0, cut.bytes), (at, made.end - at));
    assert_eq!(repaired.queue_entries, number as u64);
    let saved = read_file(&made.disk, &cut.saved_to).unwrap().unwrap();
    assert_eq!(saved.len() as u64, made.end - at);
    assert_eq!(made.wrong(), Vec::<String>::new());
    assert_eq!(made.audit().figures.log_end, at);
}

/// Goal: each file of the log that a repair takes away is whole where the repair says, also when the log lies outside the store's
/// folder, and goes back from there. Method: a log elsewhere with a file missing in the middle; compare, put back, compare again;
/// a second repair takes other places.
#[test]
fn files_of_a_log_elsewhere_are_saved_one_by_one() {
    let mut made = make(120, |number| ("A", number));
    let elsewhere = std::path::PathBuf::from("/logs/first");
    create_directories_durably(&made.disk, &elsewhere).unwrap();
    let files: Vec<String> =
        made.disk.list(&made.paths.commit_log).unwrap().into_iter().map(|file| file.name).collect();
    for name in &files {
        made.disk.rename(&made.paths.commit_log.join(name), &elsewhere.join(name)).unwrap();
    }
    made.paths.commit_log = elsewhere.clone();
    assert!(files.len() >= 5 && made.wrong().is_empty());
    let read = |path: &Path| read_file(&made.disk, path).unwrap().unwrap();
    let whole: Vec<Vec<u8>> = files.iter().map(|name| read(&elsewhere.join(name))).collect();
    for round in 1..3 {
        made.disk.remove_file(&elsewhere.join(&files[1])).unwrap();
        let repaired = made.repair(true).unwrap();
        let saved: Vec<_> = repaired.saved.iter().filter(|aside| aside.from.starts_with(&elsewhere)).collect();
        assert_eq!(saved.len(), files.len() - 2);
        let text = String::from_utf8(read(&repaired.instructions.unwrap())).unwrap();
        for (aside, (name, content)) in saved.iter().zip(files.iter().zip(&whole).skip(2)) {
            assert_eq!((&aside.from, &read(&aside.to)), (&elsewhere.join(name), content));
            assert!(aside.to.starts_with(format!("/logs/ringmq/repair-{round}")), "beside the log: {:?}", aside.to);
            assert!(text.contains(&format!("mv '{}' '{}'", aside.to.display(), aside.from.display())), "{text}");
            made.disk.rename(&aside.to, &aside.from).unwrap();
        }
        write_file(&made.disk, &elsewhere.join(&files[1]), &whole[1]).unwrap();
    }
}

/// Goal: a topic that was made again counts from where it began anew, in the audit and in a repair; offsets of a queue without
/// records are kept. Method: offsets fall back to 0 in the middle of the log; a queue is known from the sidecar alone.
#[test]
fn generations_and_expired_queues() {
    let made = make(30, |number| if number < 20 { ("A", number) } else { ("A", number - 20) });
    assert_eq!(made.wrong(), Vec::<String>::new());
    let mut offsets = QueueOffsets::load(&made.disk, &made.paths).unwrap().unwrap().value;
    offsets.next.entry("gone".into()).or_default().insert(QueueId(3), QueueOffset(77));
    offsets.persist(&made.disk, &made.paths).unwrap();
    let repaired = made.repair(false).unwrap();
    assert_eq!((repaired.queues, repaired.queue_entries), (1, 10));
    let kept = QueueOffsets::load(&made.disk, &made.paths).unwrap().unwrap().value;
    assert_eq!(kept.next["gone"][&QueueId(3)], QueueOffset(77));
    assert_eq!(kept.next["A"][&QueueId(0)], QueueOffset(10));
    assert_eq!(made.wrong(), Vec::<String>::new());
}

/// Goal: a power cut at any moment of a repair leaves a store that a repair makes right. Method: cut at each change, in two
/// patterns, then repair again.
#[test]
fn a_repair_survives_power_cuts() {
    use crate::sim::CrashPattern;
    let made = plain();
    made.disk.damage(&made.queue("A", 0), 40, &[7; 60]).unwrap();
    let start = made.disk.crash(0, CrashPattern::KeepAll);
    let whole = Made { disk: start.kill(), paths: made.paths.clone(), starts: Vec::new(), end: made.end };
    let before = whole.disk.mutations();
    whole.repair(false).unwrap();
    let steps = whole.disk.mutations() - before;
    for cut in 0..steps {
        for pattern in [CrashPattern::KeepNone, CrashPattern::SomeWrites] {
            let broken = Made { disk: start.kill(), paths: made.paths.clone(), starts: Vec::new(), end: made.end };
            broken.disk.halt_after(cut);
            let _ = broken.repair(false);
            let after = Made { disk: broken.disk.crash(cut, pattern), ..broken };
            after.repair(false).unwrap_or_else(|error| panic!("cut {cut} {pattern:?}: {error}"));
            let (wrong, figures) = (after.wrong(), after.audit().figures);
            assert_eq!((wrong, figures.queue_entries), (Vec::new(), 50), "cut {cut} {pattern:?}");
        }
    }
}

/// Goal: `adopt` refuses what cannot be read, lists what stays alone, and finds nothing against a plain store. Method: the plain
/// store, then one foreign thing after the other.
#[test]
fn adoption_says_what_it_sees() {
    let plan = |made: &Made| adopt::plan(&made.disk, &made.paths, &made.audit()).unwrap();
    let made = plain();
    assert!(plan(&made).blockers.is_empty() && plan(&made).unknown.is_empty(), "{:#?}", plan(&made));
    let put = |name: &str, content: &[u8]| {
        let path = made.paths.root.join(name);
        create_directories_durably(&made.disk, path.parent().unwrap()).unwrap();
        write_file(&made.disk, &path, content).unwrap();
    };
    put("timerwheel", b"1");
    put("config/delayOffset.json", b"{}");
    put("notes.txt", b"mine");
    let listed = plan(&made);
    assert_eq!((listed.left_alone.len(), listed.unknown.len(), listed.blockers.len()), (2, 1, 0), "{listed:#?}");
    let batch = br#"{"topicConfigTable":{"batches":{"attributes":{"queue.type":"BatchCQ"}}}}"#;
    for (number, (name, content, expected)) in [
        ("consumequeue/CURRENT", &b"MANIFEST-1"[..], "RocksDB"),
        ("config/topics/CURRENT", b"MANIFEST-1", "RocksDB"),
        ("dledger-n0/data", b"x", "DLedger"),
        ("batchconsumequeue/T/0/00000000000000000000", b"x", "batch"),
        ("consumequeue_ext/T/0/00000000000000000000", b"x", "extension"),
        ("config/topics.json", batch, "BatchCQ"),
        ("config/topicQueueMapping.json", br#"{"topicQueueMappingInfoMap":{"s":{}}}"#, "static"),
    ]
    .into_iter()
    .enumerate()
    {
        put(name, content);
        let blockers = adopt::blockers(&made.disk, &made.paths).unwrap();
        assert_eq!(blockers.len(), number + 1, "{name}: {blockers:#?}");
        assert!(blockers.iter().any(|blocker| blocker.text.contains(expected)), "{name}: {blockers:#?}");
    }
}
