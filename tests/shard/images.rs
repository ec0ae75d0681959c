//! Damaged images of small stores in memory: each is audited, opened as a broker opens it, and everything that it then serves is
//! compared with what was once written. Whatever was damaged, nothing panics, no wrong message is served, and an image in which
//! the audit finds nothing serves everything.
//!
//! `RINGMQ_IMAGE_SEED` repeats one image.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};

use ringmq::broker::filter::TagFilter;
use ringmq::broker::pull::TransferLimits;
use ringmq::config::Layers;
use ringmq::server::cold::BufferPool;
use ringmq::server::messages::ColdPull;
use ringmq::server::metrics::StoreFigures;
use ringmq::server::reader_thread::Reader;
use ringmq::server::shared::Shared;
use ringmq::server::storage::{self, Storage, StorageOptions};
use ringmq::server::store_thread::StoreAccess;
use ringmq_protocol::command::{Command, SerializeType};
use ringmq_protocol::frame::{Split, split_frame};
use ringmq_protocol::record::{
    CrcCheck, RecordFields, RecordView, Records, bind_record, encode_record, record_length, write_blank,
};
use ringmq_shards::clock::Clock;
use ringmq_shards::disk::{Disk, OpenOptions, create_directories_durably, write_file};
use ringmq_shards::index::{IndexGeometry, LastStop};
use ringmq_shards::log::segment_table::file_name;
use ringmq_shards::log::segments::WritePath;
use ringmq_shards::log::{LogRing, LogView};
use ringmq_shards::probe::Registry;
use ringmq_shards::recovery::audit::{AuditOptions, NoProgress, audit};
use ringmq_shards::recovery::checkpoint::CheckpointFile;
use ringmq_shards::recovery::repair::{RepairOptions, repair};
use ringmq_shards::recovery::{StorePaths, adopt};
use ringmq_shards::runtime::PipePool;
use ringmq_shards::sim::damage::{Damage, Target};
use ringmq_shards::sim::{ManualClock, SimDisk, SimRandom};
use ringmq_shards::types::{PhysicalOffset, QueueOffset, StoreTimestamp};

const ROOT: &str = "/store";
const SEGMENT_BYTES: u64 = 16 << 10;
const SEGMENTS: u64 = 4;
const FILE_ENTRIES: u64 = 16;
const GEOMETRY: IndexGeometry = IndexGeometry { slots: 16, entries: 60 };
const RING_BYTES: usize = 32 << 10;
const TOPICS: [&str; 3] = ["orders", "%RETRY%group", "audit"];
/// Images of each of the four stores.
const IMAGES: u64 = 2_500;

/// Where a message is found.
type Place = (String, u32, u64);

/// A store before it was damaged.
struct Base {
    disk: SimDisk,
    /// Every message as it was written.
    messages: HashMap<Place, Vec<u8>>,
    /// The same by offset in the log.
    by_physical: HashMap<u64, Vec<u8>>,
    targets: Vec<(Target, u64)>,
}

fn options(salvage: bool) -> StorageOptions {
    StorageOptions {
        root: ROOT.into(),
        commit_log: Path::new(ROOT).join("commitlog"),
        segment_bytes: SEGMENT_BYTES,
        queue_file_entries: FILE_ENTRIES,
        write_path: WritePath::PageCache,
        zero_ahead_bytes: 0,
        ring_bytes: RING_BYTES as u64,
        tail_bytes: 1 << 20,
        queue_open_files: 4,
        is_sync: false,
        salvage,
        index: Some(GEOMETRY),
    }
}

fn audit_options() -> AuditOptions {
    AuditOptions { segment_bytes: SEGMENT_BYTES, queue_file_entries: FILE_ENTRIES, index: GEOMETRY }
}

fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

fn open(disk: &SimDisk, salvage: bool) -> Result<Storage, String> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_100_000));
    storage::open(&arc(disk), &clock, &options(salvage)).map_err(|error| error.to_string())
}

/// Writes the log as a broker leaves it, then opens the store so that queues, index and our own files come into being.
fn base(seed: u64, was_clean: bool, is_ours: bool) -> Base {
    let (disk, paths) = (SimDisk::new(), StorePaths::new(ROOT));
    for directory in [paths.commit_log.clone(), paths.config(), paths.index()] {
        create_directories_durably(&disk, &directory).expect("made");
    }
    let mut random = SimRandom::new(seed);
    let (mut messages, mut by_physical) = (HashMap::new(), HashMap::new());
    let mut next: BTreeMap<(String, u32), u64> = BTreeMap::new();
    let create = OpenOptions { create: true, ..OpenOptions::default() };
    let (mut at, mut time_ms) = (0, 1_700_000_000_000);
    let mut used = Vec::new();
    for segment in 0..SEGMENTS {
        let start = segment * SEGMENT_BYTES;
        let file = disk.open(&paths.commit_log.join(file_name(PhysicalOffset(start))), create).expect("made");
        file.allocate(SEGMENT_BYTES).expect("room");
        let end = if segment + 1 == SEGMENTS { start + SEGMENT_BYTES / 2 } else { start + SEGMENT_BYTES };
        loop {
            let topic = TOPICS[random.below(3) as usize];
            let queue = random.below(2) as u32;
            let mut body = vec![0; 1 + random.below(700) as usize];
            random.fill(&mut body);
            let key = random.below(1 << 40);
            let properties = format!("KEYS\u{1}k{key:x} common\u{2}UNIQ_KEY\u{1}U{at:032X}\u{2}TAGS\u{1}t\u{2}");
            let fields = RecordFields {
                born_timestamp: time_ms,
                ..RecordFields::plain(topic, queue, &body, properties.as_bytes())
            };
            let length = record_length(&fields) as u64;
            if at + length + 8 > end {
                break;
            }
            let mut record = vec![0; length as usize];
            encode_record(&fields, &mut record);
            let offset = next.entry((topic.to_string(), queue)).or_default();
            bind_record(&mut record, *offset as i64, at as i64, time_ms);
            file.write_all_at(&record, at - start).expect("written");
            by_physical.insert(at, record.clone());
            messages.insert((topic.to_string(), queue, *offset), record);
            *offset += 1;
            at += length;
            time_ms += 1_500;
        }
        used.push(at - start);
        if segment + 1 < SEGMENTS {
            let mut blank = [0; 8];
            write_blank(&mut blank, (start + SEGMENT_BYTES - at) as u32);
            file.write_all_at(&blank, at - start).expect("written");
            at = start + SEGMENT_BYTES;
        }
        file.sync_data().expect("synced");
    }
    for (name, text) in [
        ("topics.json", r#"{"topicConfigTable":{"orders":{"topicName":"orders","readQueueNums":2}}}"#),
        ("consumerOffset.json", r#"{"offsetTable":{"orders@g":{0:3,1:4}}}"#),
    ] {
        write_file(&disk, &paths.config().join(name), text.as_bytes()).expect("written");
    }
    write_file(&disk, &paths.abort(), b"1").expect("written");
    let mut storage = open(&disk, false).expect("a new store opens");
    index_everything(&mut storage, &disk);
    let (mut file, mut checkpoint) = CheckpointFile::open(&disk, &paths).expect("opens");
    checkpoint.physic_timestamp_ms = time_ms - 1_500;
    checkpoint.logics_timestamp_ms = time_ms - 1_500;
    checkpoint.index_timestamp_ms = time_ms - 1_500;
    file.store(&checkpoint).expect("written");
    storage.queues.sync().expect("synced");
    if was_clean {
        storage.lock.mark_clean(&disk, &paths).expect("marked");
    }
    drop(storage);
    if !is_ours {
        for entry in disk.list(&paths.own()).expect("listed") {
            disk.remove_file(&paths.own().join(entry.name)).expect("removed");
        }
    }
    let mut targets = Vec::new();
    for path in disk.paths() {
        let Ok(file) = disk.open(&path, OpenOptions::default()) else { continue };
        let length = file.length().expect("a length");
        let in_log = path.strip_prefix(&paths.commit_log).ok().and_then(|name| name.to_str()?.parse::<u64>().ok());
        let meant = in_log.and_then(|start| used.get((start / SEGMENT_BYTES) as usize)).copied().unwrap_or(length);
        let is_special = path == paths.abort() || path == paths.lock();
        if length > 0 && !is_special && meant > 0 {
            // The log is what matters most.
            let weight = if in_log.is_some() { 8 } else { 1 };
            targets.extend(std::iter::repeat_n((Target { path, length }, meant), weight));
        }
    }
    assert!(messages.len() > 80 && targets.len() > 40, "{} messages, {} targets", messages.len(), targets.len());
    Base { disk: disk.kill(), messages, by_physical, targets }
}

/// Feeds the index with what it lacks, as the store thread does.
fn index_everything(storage: &mut Storage, disk: &SimDisk) {
    let Some(opening) = storage.index.take() else { return };
    let Ok(mut index) = opening.open() else { return };
    let mut at = index.last().map_or(storage.recovered.min.0, |last| last.physical.0);
    while at < storage.recovered.end.0 {
        let mut bytes = vec![0; (SEGMENT_BYTES - at % SEGMENT_BYTES) as usize];
        let Ok(read) = storage.segments.snapshot().read_at(PhysicalOffset(at), &mut bytes) else { break };
        match RecordView::parse(&bytes[..read], CrcCheck::Verify) {
            Ok(view) => {
                let time = StoreTimestamp(view.store_timestamp() as u64);
                index.put_record(&view, PhysicalOffset(at), time).expect("there is room");
                at += view.total_size() as u64;
            }
            Err(_) => at += SEGMENT_BYTES - at % SEGMENT_BYTES,
        }
    }
    index.flush().expect("flushed");
    let _ = disk;
}

/// What an opened store serves.
#[derive(Default)]
struct Served {
    messages: usize,
    /// Messages in which something differs that no CRC covers.
    unprotected: usize,
    /// Of these, such whose queue or offset is another one.
    misfiled: usize,
    refused: usize,
}

/// Pulls everything from every queue as the reader threads serve it, and compares each message with the written one.
fn serve(storage: &Storage, disk: &SimDisk, base: &Base, context: &str) -> Served {
    let recovered = &storage.recovered;
    let ring = LogRing::new(RING_BYTES).expect("memory");
    let view = LogView::new(ring, 1, recovered.min.0, recovered.end.0, recovered.last_store_timestamp.0);
    let config = Layers::default().build().expect("the defaults are a configuration");
    let registry = Arc::new(Registry::new());
    let shared = Arc::new(Shared::new(&config, 1, 4 << 30, RING_BYTES as u64, 1 << 20));
    let figures = Arc::new(StoreFigures::new(Arc::clone(&registry), Arc::clone(&shared)));
    let (segments, queues) = (Arc::clone(&storage.segments), Arc::clone(&storage.queues));
    let access = StoreAccess::new(view, segments, queues, arc(disk), 0, 1 << 30, 0, figures);
    let (_, pulls) = sync_channel(1);
    let reader = Reader {
        pulls: Arc::new(Mutex::new(pulls)),
        access: Arc::new(access),
        shards: Vec::new(),
        shared,
        lifecycle: Arc::default(),
        probe: registry.probe("reader"),
        buffers: BufferPool::default(),
        pipes: PipePool::new(1, 64 << 10),
        blocks: Arc::default(),
        verified: Arc::default(),
    };
    let mut served = Served::default();
    // A broker answers pulls of topics in its table only.
    let known = |topic: &str| TOPICS.contains(&topic);
    for queue in storage.queues.queues().into_iter().filter(|queue| known(queue.topic())) {
        let (min, max) = queue.bounds();
        let mut offset = min.0;
        while offset < max.0 {
            let pull = ColdPull {
                connection: 0,
                answers: 0,
                opaque: 1,
                serialize_type: SerializeType::Json,
                queue: Arc::clone(&queue),
                transfer: TransferLimits::default(),
                received_ns: None,
                offset,
                max_messages: 32,
                filter: TagFilter::everything(),
                topic_sys_flag: 0,
                group_sys_flag: 0,
            };
            let answer = reader.answer(&pull);
            let Ok(Split::Frame { frame, .. }) = split_frame(&answer.frame, 64 << 20) else {
                panic!("{context}: no frame")
            };
            let answer = Command::decode(frame).expect("an answer");
            let body = answer.body.as_deref().filter(|_| answer.code == 0).unwrap_or_default();
            for record in Records::new(body, CrcCheck::Verify) {
                let record = record.unwrap_or_else(|error| panic!("{context}: a consumer gets {error}"));
                compare(&record, queue.topic(), queue.queue_id().0, base, &mut served, context);
            }
            let next = answer.ext("nextBeginOffset").and_then(|next| next.parse::<u64>().ok());
            match next.filter(|next| answer.code != 1 && *next > offset) {
                Some(next) => offset = next,
                None => {
                    served.refused += 1;
                    offset += 1;
                }
            }
        }
    }
    served
}

fn compare(record: &RecordView<'_>, topic: &str, queue: u32, base: &Base, served: &mut Served, context: &str) {
    let stated = (record.topic(), record.queue_id() as u32);
    assert_eq!(stated, (topic, queue), "{context}: a message of another queue");
    // RocketMQ's records carry a CRC of the body alone: a flipped bit in topic, queue or offset can put a message into another
    // queue when the queues are made anew from the log. Its body is still the one that was written there.
    let physical = record.physical_offset() as u64;
    let Some(written) = base.by_physical.get(&physical) else { panic!("{context}: nothing was written at {physical}") };
    let original = RecordView::parse(written, CrcCheck::Verify).expect("it was written whole");
    assert!(record.body() == original.body(), "{context}: the message at {physical} has another body");
    let is_same = (record.topic(), record.queue_id(), record.queue_offset())
        == (original.topic(), original.queue_id(), original.queue_offset());
    served.misfiled += usize::from(!is_same);
    served.messages += 1;
    served.unprotected += usize::from(record.bytes() != &written[..]);
}

fn damage(base: &Base, random: &mut SimRandom) -> (SimDisk, Vec<Damage>) {
    let disk = base.disk.kill();
    let mut done = Vec::new();
    for _ in 0..=random.below(8) / 6 {
        let (target, used) = &base.targets[random.below(base.targets.len() as u64) as usize];
        let damage = Damage::choose(random, target, *used);
        damage.apply(&disk).expect("the disk in memory does not fail");
        done.push(damage);
    }
    (disk, done)
}

fn try_images(was_clean: bool, is_ours: bool) {
    let first: Option<u64> = std::env::var("RINGMQ_IMAGE_SEED").ok().and_then(|seed| seed.parse().ok());
    let base = base(7, was_clean, is_ours);
    let whole = base.messages.len();
    let clean_findings = audit(&arc(&base.disk), &StorePaths::new(ROOT), audit_options(), &mut NoProgress);
    let clean_findings = clean_findings.expect("an audit").findings.kept;
    assert!(clean_findings.iter().all(|finding| finding.severity.name() == "note"), "{clean_findings:#?}");
    let (mut unprotected, mut misfiled) = (0, 0);
    let mut kinds: BTreeMap<&str, [u64; 4]> = BTreeMap::new();
    for seed in first.map_or(0..IMAGES, |seed| seed..seed + 1) {
        let mut random = SimRandom::new(seed);
        let (disk, done) = damage(&base, &mut random);
        let text: Vec<String> = done.iter().map(ToString::to_string).collect();
        let context = format!("image {seed} (clean {was_clean}, ours {is_ours}): {}", text.join(", "));
        let paths = StorePaths::new(ROOT);
        let found = audit(&arc(&disk), &paths, audit_options(), &mut NoProgress);
        let found = found.unwrap_or_else(|error| panic!("{context}: {error}"));
        adopt::plan(&disk, &paths, &found).unwrap_or_else(|error| panic!("{context}: {error}"));
        let salvage = random.chance(1, 3);
        let row = kinds.entry(done[0].kind()).or_default();
        row[0] += 1;
        match open(&disk, salvage) {
            Ok(mut storage) => {
                index_everything(&mut storage, &disk);
                let served = serve(&storage, &disk, &base, &context);
                row[1] += u64::from(served.messages == whole);
                row[2] += u64::from(served.messages < whole);
                unprotected += served.unprotected;
                misfiled += served.misfiled;
                let is_silent = found.findings.kept == clean_findings;
                assert!(
                    !is_silent || served.messages == whole,
                    "{context}: the audit saw nothing, {} of {whole} messages are served",
                    served.messages
                );
                assert!(served.refused == 0 || !is_silent, "{context}");
            }
            Err(_) => row[3] += 1,
        }
        // One in eight is repaired and must then serve whatever its log still has.
        if seed % 8 == 0 {
            let (disk, _) = damage(&base, &mut SimRandom::new(seed));
            try_repair(&disk, &base, &context);
        }
    }
    println!("clean {was_clean}, ours {is_ours}: kind [images, all served, fewer served, refused]: {kinds:?}");
    println!("messages that differ where no CRC is: {unprotected}, in another queue: {misfiled}");
    let sum = |column: usize| kinds.values().map(|row| row[column]).sum::<u64>();
    println!(
        "figures: images={} all_served={} fewer_served={} refused={} wrong_bodies=0 panics=0",
        sum(0),
        sum(1),
        sum(2),
        sum(3)
    );
}

fn try_repair(disk: &SimDisk, base: &Base, context: &str) {
    let paths = StorePaths::new(ROOT);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_100_000));
    let known_topics = TOPICS.map(String::from).into();
    let options = RepairOptions { audit: audit_options(), cut_log: true, queues: true, index: true, known_topics };
    let Ok(repaired) = repair(&arc(disk), &clock, &paths, &options, &mut NoProgress) else { return };
    let after = audit(&arc(disk), &paths, audit_options(), &mut NoProgress).expect("an audit");
    let wrong = after.findings.kept.iter().find(|finding| finding.severity.name() != "note");
    assert!(wrong.is_none_or(|finding| finding.area == "queue offsets"), "{context}: after a repair {wrong:#?}");
    match open(disk, false) {
        Ok(storage) => {
            let served = serve(&storage, disk, base, context);
            assert_eq!(served.refused, 0, "{context}: after a repair everything can be read");
            assert_eq!(served.messages as u64, repaired.queue_entries, "{context}: every entry leads to its message");
        }
        Err(error) => assert!(wrong.is_some(), "{context}: after a repair {error}"),
    }
}

/// Goal: images of a store that was stopped in order. Method: see the module.
#[test]
fn images_of_a_clean_store() {
    try_images(true, true);
}

/// Goal: the same after a crash.
#[test]
fn images_of_a_crashed_store() {
    try_images(false, true);
}

/// Goal: the same of a store that only RocketMQ wrote, which has none of our files.
#[test]
fn images_of_a_clean_foreign_store() {
    try_images(true, false);
}

/// Goal: the same after a crash.
#[test]
fn images_of_a_crashed_foreign_store() {
    try_images(false, false);
}

/// Goal: the index of these stores is a real one, with several files. Method: in the undamaged store every key leads to its
/// message.
#[test]
fn every_key_is_found_in_the_whole_store() {
    let base = base(7, true, true);
    let storage = open(&base.disk, false).expect("it opens");
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1));
    let directory = StorePaths::new(ROOT).index();
    let index = ringmq_shards::index::IndexService::open(arc(&base.disk), clock, &directory, GEOMETRY, LastStop::Clean);
    let index = index.expect("it opens");
    assert!(index.file_count() > 3, "several files");
    for ((topic, _, _), written) in &base.messages {
        let record = RecordView::parse(written, CrcCheck::Verify).expect("whole");
        let keys = String::from_utf8_lossy(record.keys().unwrap_or_default()).into_owned();
        let key = keys.split(' ').next().unwrap_or_default();
        let found = index.query(topic, key, 64, 0, i64::MAX).expect("an answer");
        assert!(found.contains(&PhysicalOffset(record.physical_offset() as u64)), "{topic} {key}");
    }
    let queue = storage.queues.queues().remove(0);
    assert_eq!(queue.bounds().0, QueueOffset(0));
}
