//! Damaged images of small stores in memory: each is audited, opened as a broker opens it, once to serve and once to salvage, and
//! everything that it then serves is compared with what was once written. Whatever was damaged, nothing panics, no wrong message
//! is served, and an image in which the audit finds nothing serves everything.
//!
//! What the start decides is compared with [`judge`]: it refuses where it has to and says where, cuts nowhere else, and never opens
//! with less than what lies below the durable point. A start may end before it comes to look at the log, and only for these reasons:
//!
//! - A queue file has a wrong length, or the log contradicts what queue files say: `store repair` makes them anew.
//! - `queue-offsets` and its backup cannot be read, or the digit of its format, which nothing covers, has become a higher one.
//!
//! An open store serves every message of its log that is whole, unless queue files were damaged; also then those of queues which are
//! known to lack messages. The log loses nothing, and after a repair all of it is served.
//!
//! `RINGMQ_IMAGE_SEED` repeats one image.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
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
use ringmq::server::storage::{self, Storage, StorageError, StorageOptions};
use ringmq::server::store_thread::StoreAccess;
use ringmq_protocol::command::{Command, SerializeType};
use ringmq_protocol::frame::{Split, split_frame};
use ringmq_protocol::record::{
    CrcCheck, RecordFields, RecordView, Records, bind_record, encode_record, record_length, write_blank,
};
use ringmq_shards::clock::Clock;
use ringmq_shards::disk::{Disk, OpenOptions, StateFileError, create_directories_durably, read_file, write_file};
use ringmq_shards::index::{IndexGeometry, LastStop};
use ringmq_shards::log::segment_table::file_name;
use ringmq_shards::log::segments::WritePath;
use ringmq_shards::log::{LogRing, LogView};
use ringmq_shards::probe::Registry;
use ringmq_shards::recovery::audit::{AuditOptions, NoProgress, audit};
use ringmq_shards::recovery::checkpoint::CheckpointFile;
use ringmq_shards::recovery::durable_point::{DurablePoint, DurablePointFile, LastRecord};
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::recovery::repair::{RepairError, RepairOptions, repair};
use ringmq_shards::recovery::{RecoveryError, StorePaths, adopt};
use ringmq_shards::runtime::PipePool;
use ringmq_shards::sim::damage::{Damage, Target};
use ringmq_shards::sim::judge::{Before, Decision, Judgement, Known, Start, judge};
use ringmq_shards::sim::{ManualClock, SimDisk, SimRandom};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

use super::crash::power_on;
use super::lost_queues::table_of;

pub(super) const ROOT: &str = "/store";
const SEGMENT_BYTES: u64 = 16 << 10;
const SEGMENTS: u64 = 4;
const FILE_ENTRIES: u64 = 16;
const GEOMETRY: IndexGeometry = IndexGeometry { slots: 16, entries: 60 };
const RING_BYTES: usize = 32 << 10;
const TOPICS: [&str; 3] = ["orders", "%RETRY%group", "audit"];
/// Images of each of the six stores.
const IMAGES: u64 = 1_700;
/// Where the number of its format is in `queue-offsets`.
const FORMAT_DIGIT: u64 = "ringmq-queue-offsets ".len() as u64;
/// What a group can have in flight where sends wait for syncs.
const GROUP_BYTES: u64 = 16 << 10;

/// What every store meets.
const COMMON: [&str; 4] = ["kept", "cut", "refused_length", "refused_queue_file"];
/// What a store with our own files meets as well.
const OURS: [&str; 5] = ["refused_damage", "salvaged", "by_the_older_point", "refused_sidecar", "refused_format"];

/// How a store was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Stopped in order.
    Clean,
    /// The machine died, or nobody knows.
    Crashed,
    /// The process died, the kernel still runs.
    Killed,
}

/// A kind of store.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    left: Left,
    /// Whether it has our own files. Otherwise only RocketMQ wrote here.
    is_ours: bool,
    is_sync: bool,
    /// The durable points that its file holds, the older first, in segments and tenths of them; the next record boundary.
    points: [u64; 2],
}

impl Kind {
    pub(super) const CLEAN: Self = Self { left: Left::Clean, is_ours: true, is_sync: false, points: [32, 35] };
    const CRASHED: Self = Self { left: Left::Crashed, points: [13, 24], ..Self::CLEAN };
    const KILLED: Self = Self { left: Left::Killed, ..Self::CRASHED };
    const CRASHED_SYNC: Self = Self { left: Left::Crashed, is_sync: true, points: [4, 9], ..Self::CLEAN };
    const FOREIGN: Self = Self { is_ours: false, ..Self::CLEAN };
    const FOREIGN_CRASHED: Self = Self { left: Left::Crashed, ..Self::FOREIGN };
}

/// Where a message is found.
pub(super) type Place = (String, u32, u64);

/// A store before it was damaged.
pub(super) struct Base {
    kind: Kind,
    pub(super) disk: SimDisk,
    before: Before,
    /// Every message as it was written.
    pub(super) messages: HashMap<Place, Vec<u8>>,
    targets: Vec<(Target, u64)>,
}

fn options(kind: Kind, salvage: bool) -> StorageOptions {
    StorageOptions {
        root: ROOT.into(),
        commit_log: Path::new(ROOT).join("commitlog"),
        segment_bytes: SEGMENT_BYTES,
        queue_file_entries: FILE_ENTRIES,
        write_path: WritePath::PageCache,
        zero_ahead_bytes: 0,
        ring_bytes: if kind.is_sync { GROUP_BYTES } else { RING_BYTES as u64 },
        tail_bytes: 1 << 20,
        queue_open_files: 4,
        is_sync: kind.is_sync,
        salvage,
        index: Some(GEOMETRY),
    }
}

fn audit_options() -> AuditOptions {
    AuditOptions {
        segment_bytes: SEGMENT_BYTES,
        queue_file_entries: FILE_ENTRIES,
        index: GEOMETRY,
        is_sync: Some(false),
        group_bytes: GROUP_BYTES,
        is_signed: false,
    }
}

fn arc(disk: &SimDisk) -> Arc<dyn Disk> {
    Arc::new(disk.clone())
}

pub(super) fn open(disk: &SimDisk, kind: Kind, salvage: bool) -> Result<Storage, StorageError> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_100_000));
    storage::open(&arc(disk), &clock, &options(kind, salvage))
}

/// Writes the log as a broker leaves it, then opens the store so that queues, index and our own files come into being.
pub(super) fn base(seed: u64, kind: Kind) -> Base {
    let (disk, paths) = (SimDisk::new(), StorePaths::new(ROOT));
    for directory in [paths.commit_log.clone(), paths.config(), paths.index()] {
        create_directories_durably(&disk, &directory).expect("made");
    }
    if kind.left == Left::Killed {
        power_on(&disk, &mut SimRandom::new(seed));
    }
    let mut random = SimRandom::new(seed);
    let (mut messages, mut records) = (HashMap::new(), BTreeMap::new());
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
            records.insert(at, record.clone());
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
        ("topics.json", table_of(&TOPICS)),
        ("consumerOffset.json", r#"{"offsetTable":{"orders@g":{0:3,1:4}}}"#.to_owned()),
    ] {
        write_file(&disk, &paths.config().join(name), text.as_bytes()).expect("written");
    }
    write_file(&disk, &paths.abort(), b"1").expect("written");
    let mut storage = open(&disk, kind, false).expect("a new store opens");
    index_everything(&mut storage, &disk);
    let (mut file, mut checkpoint) = CheckpointFile::open(&disk, &paths).expect("opens");
    checkpoint.physic_timestamp_ms = time_ms - 1_500;
    checkpoint.logics_timestamp_ms = time_ms - 1_500;
    checkpoint.index_timestamp_ms = time_ms - 1_500;
    file.store(&checkpoint).expect("written");
    storage.queues.sync().expect("synced");
    if kind.left == Left::Clean {
        storage.lock.mark_clean(&disk, &paths).expect("marked");
    }
    drop(storage);
    if kind.is_ours {
        kind.points.iter().for_each(|point| note_point(&disk, &paths, &records, point * SEGMENT_BYTES / 10));
    } else {
        for entry in disk.list(&paths.own()).expect("listed") {
            disk.remove_file(&paths.own().join(entry.name)).expect("removed");
        }
        if kind.left != Left::Clean {
            write_file(&disk, &paths.abort(), b"4711").expect("written");
        }
    }
    let durable_point = read_file(&disk, &paths.durable_point()).expect("read").unwrap_or_default();
    let before = Before { segment_bytes: SEGMENT_BYTES, records, durable_point };
    let mut targets = Vec::new();
    for path in disk.paths() {
        let Ok(file) = disk.open(&path, OpenOptions::default()) else { continue };
        let length = file.length().expect("a length");
        let in_log = path.strip_prefix(&paths.commit_log).ok().and_then(|name| name.to_str()?.parse::<u64>().ok());
        let meant = in_log.and_then(|start| used.get((start / SEGMENT_BYTES) as usize)).copied().unwrap_or(length);
        let is_special = path == paths.abort() || path == paths.lock() || !path.starts_with(ROOT);
        if length > 0 && !is_special && meant > 0 {
            // The log is what matters most.
            let weight = if in_log.is_some() { 8 } else { 1 };
            targets.extend(std::iter::repeat_n((Target { path, length }, meant), weight));
        }
    }
    assert!(messages.len() > 80 && targets.len() > 40, "{} messages, {} targets", messages.len(), targets.len());
    Base { kind, disk: disk.kill(), before, messages, targets }
}

/// Notes a durable point at the first record boundary from an offset on, and what queues had at that time.
fn note_point(disk: &SimDisk, paths: &StorePaths, records: &BTreeMap<u64, Vec<u8>>, wanted: u64) {
    let end_of = |(start, bytes): (&u64, &Vec<u8>)| *start + bytes.len() as u64;
    let last = records.iter().find(|record| end_of(*record) >= wanted).or(records.last_key_value()).expect("a record");
    let offset = PhysicalOffset(end_of(last));
    let last_record = Some(LastRecord::of(PhysicalOffset(*last.0), last.1));
    let mut file = DurablePointFile::open(disk, paths).expect("opened");
    file.replace(DurablePoint { offset, last_record }).expect("written");
    let mut noted = QueueOffsets { log_offset: offset, ..QueueOffsets::default() };
    for bytes in records.range(..offset.0).map(|(_, bytes)| bytes) {
        let view = RecordView::parse(bytes, CrcCheck::Verify).expect("whole");
        let next = QueueOffset(view.queue_offset() as u64 + 1);
        noted.next.entry(view.topic().to_owned()).or_default().insert(QueueId(view.queue_id() as u32), next);
    }
    noted.persist(disk, paths).expect("written");
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
pub(super) struct Served {
    pub(super) messages: usize,
    /// Messages in which something differs that no CRC covers.
    unprotected: usize,
    /// Of these, such whose queue or offset is another one.
    misfiled: usize,
    pub(super) refused: usize,
    /// Places of those that are as they were written.
    whole: BTreeSet<u64>,
}

/// Pulls everything from every queue as the reader threads serve it, and compares each message with the written one.
pub(super) fn serve(storage: &Storage, disk: &SimDisk, base: &Base, context: &str) -> Served {
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
    let Some(written) = base.before.records.get(&physical) else {
        panic!("{context}: nothing was written at {physical}")
    };
    let original = RecordView::parse(written, CrcCheck::Verify).expect("it was written whole");
    assert!(record.body() == original.body(), "{context}: the message at {physical} has another body");
    let is_same = (record.topic(), record.queue_id(), record.queue_offset())
        == (original.topic(), original.queue_id(), original.queue_offset());
    served.misfiled += usize::from(!is_same);
    served.messages += 1;
    if record.bytes() == &written[..] {
        served.whole.insert(physical);
    } else {
        served.unprotected += 1;
    }
}

fn damage(base: &Base, random: &mut SimRandom) -> (SimDisk, Vec<Damage>) {
    let (disk, paths) = (base.disk.kill(), StorePaths::new(ROOT));
    let mut chosen = Vec::new();
    for _ in 0..=random.below(8) / 6 {
        let (target, used) = &base.targets[random.below(base.targets.len() as u64) as usize];
        chosen.push(Damage::choose(random, target, *used));
    }
    if base.kind.is_ours && random.chance(1, 20) {
        // What chance brings too rarely: both generations of a file of ours, and the number of a format.
        let flip = |path: PathBuf, at| Damage::FlippedBit(path, at, 1);
        let (point, noted) = (paths.durable_point(), paths.queue_offsets());
        chosen.extend(match random.below(5) {
            4 => vec![Damage::ZeroedTail(point, 0)],
            0 => vec![flip(noted.clone(), 30), flip(noted.with_extension("bak"), 30)],
            1 => vec![flip(noted, FORMAT_DIGIT)],
            _ => vec![flip(point.clone(), 20), flip(point, 4096 + 20)],
        });
    }
    chosen.iter().for_each(|damage| damage.apply(&disk).expect("the disk in memory does not fail"));
    (disk, chosen)
}

/// What became of all images of a store.
#[derive(Default)]
struct Tally {
    /// By kind of damage: images, all served, fewer served, refused. Without salvage.
    kinds: BTreeMap<&'static str, [u64; 4]>,
    /// By what was decided and why.
    decisions: BTreeMap<&'static str, u64>,
    unprotected: usize,
    misfiled: usize,
}

impl Tally {
    fn count(&mut self, name: &'static str) {
        *self.decisions.entry(name).or_default() += 1;
    }
}

/// An image that is being tried.
struct Image<'a> {
    base: &'a Base,
    done: &'a [Damage],
    salvage: bool,
    /// What the start has to do, if it comes to look at the log.
    judgement: Option<Judgement>,
    context: &'a str,
}

impl Image<'_> {
    fn hurts(&self, part: &str) -> bool {
        self.done.iter().any(|damage| damage.path().strip_prefix(ROOT).is_ok_and(|path| path.starts_with(part)))
    }

    /// A start that was refused had to be.
    fn check_refusal(&self, error: &StorageError, tally: &mut Tally) {
        let (text, context) = (error.to_string(), self.context);
        match error {
            StorageError::Segments(_)
            | StorageError::Recovery(
                RecoveryError::Segments(_)
                | RecoveryError::Damage { .. }
                | RecoveryError::EndsBelowDurablePoint { .. }
                | RecoveryError::ValidBehindInvalid { .. },
            ) => {
                let judgement = self.judgement.as_ref().unwrap_or_else(|| panic!("{context}: refused for {text}"));
                let decision = &judgement.decision;
                assert!(!matches!(decision, Decision::Open { .. }), "{context}: {decision:?}, refused for {text}");
                for word in decision.words() {
                    assert!(text.contains(&word), "{context}: '{word}' is not in the reason: {text}");
                }
                tally.count(decision.name());
            }
            StorageError::Queues(_) => {
                let named = self.done.iter().filter(|damage| text.contains(&damage.path().display().to_string()));
                assert!(named.count() > 0, "{context}: refused for {text}");
                tally.count("refused_queue_file");
            }
            StorageError::Recovery(RecoveryError::Dispatch { .. }) => {
                let is_changed = self.judgement.as_ref().is_some_and(|judgement| !judgement.changed.is_empty());
                assert!(self.hurts("consumequeue") || is_changed, "{context}: refused for {text}");
                tally.count("refused_queue_contradicts");
            }
            StorageError::LostQueues(error) => {
                let judgement = self.judgement.as_ref().filter(|_| self.hurts("consumequeue"));
                let judgement = judgement.unwrap_or_else(|| panic!("{context}: refused for {text}"));
                match error {
                    RepairError::LogDamaged(at) => assert_eq!(at.0, judgement.whole_below, "{context}: {text}"),
                    RepairError::Queues(_) => assert!(!judgement.changed.is_empty(), "{context}: refused for {text}"),
                    other => panic!("{context}: refused for {other}"),
                }
                tally.count("refused_lost_queues");
            }
            StorageError::State(StateFileError::Unreadable { .. }) => {
                assert!(self.hurts("ringmq"), "{context}: refused for {text}");
                tally.count("refused_sidecar");
            }
            StorageError::NotAdoptable(_) => {
                let is_digit = |damage: &Damage| matches!(damage, Damage::FlippedBit(_, FORMAT_DIGIT, _));
                assert!(self.done.iter().any(is_digit) && text.contains("format"), "{context}: refused for {text}");
                tally.count("refused_format");
            }
            other => panic!("{context}: refused for {other}"),
        }
    }

    /// A store that was opened ends where it has to, and what was behind is saved.
    fn check_opened(&self, storage: &Storage, disk: &SimDisk, tally: &mut Tally) {
        let (context, recovered) = (self.context, &storage.recovered);
        let judgement = self.judgement.as_ref().unwrap_or_else(|| panic!("{context}: it could not be opened"));
        let Decision::Open { end, tail, salvaged } = &judgement.decision else {
            panic!("{context}: opened up to {}, had to be {:?}", recovered.end, judgement.decision);
        };
        if let Known::Below { offset, .. } = judgement.known
            && !self.salvage
        {
            assert!(recovered.end.0 >= offset, "{context}: opened up to {}, synced up to {offset}", recovered.end);
        }
        assert_eq!(recovered.end.0, *end, "{context}: the end, {:?}", recovered.messages);
        let discarded = recovered.discarded.as_ref();
        assert_eq!(discarded.map(|cut| cut.bytes).unwrap_or_default(), tail.len() as u64, "{context}: cut");
        if let Some(discarded) = discarded {
            let saved = read_file(disk, &discarded.saved_to).expect("read").expect("a file");
            assert!(discarded.from.0 == *end && saved == *tail, "{context}: what was cut is not what was saved");
            let named = format!("cut the log at {end}: ");
            assert!(recovered.messages.iter().any(|message| message.starts_with(&named)), "{context}: cut silently");
        }
        let mut behind = vec![1; (SEGMENT_BYTES - end % SEGMENT_BYTES) as usize];
        let read = storage.segments.snapshot().read_at(PhysicalOffset(*end), &mut behind).expect("read");
        assert!(read == behind.len() && behind.iter().all(|byte| *byte == 0), "{context}: something follows the end");
        let told = recovered.messages.iter().find(|message| message.starts_with("salvage: "));
        assert_eq!(told.is_some(), salvaged.is_some(), "{context}: {:?}", recovered.messages);
        if let Some(Decision::RefuseDamage { .. } | Decision::RefuseFarBehind { .. }) = salvaged.as_deref() {
            let (told, words) = (told.expect("told"), judgement.decision.words());
            assert!(words.iter().all(|word| told.contains(word)), "{context}: {words:?} in {told}");
        }
        // Nothing that is whole is lost: it is in the log or in what was saved.
        for (start, length) in judgement.intact.range(end..) {
            let from = (start - end) as usize;
            let kept = &tail[from..from + *length as usize];
            assert!(kept == &self.base.before.records[start][..], "{context}: the record at {start} was not saved");
        }
        tally.count(judgement.decision.name());
        match judgement.known {
            Known::Below { is_older: true, .. } => tally.count("by_the_older_point"),
            Known::Lost => {
                let is_told =
                    recovered.messages.iter().any(|message| message.contains("the durable point cannot be read"));
                assert!(is_told, "{context}: {:?}", recovered.messages);
                tally.count("without_the_lost_point");
            }
            Known::Below { is_older: false, .. } | Known::Nothing => {}
        }
        let is_unseen = |start: &u64| *start < judgement.from && !judgement.intact.contains_key(start);
        if self.base.before.records.keys().any(is_unseen) {
            tally.count("damage_farther_down");
        }
    }

    /// Every whole message of the log is served, unless queue files are damaged and were not made anew, or a record says that it belongs elsewhere.
    fn check_served(&self, end: u64, served: &Served, tally: &mut Tally) {
        let judgement = self.judgement.as_ref().expect("it was opened");
        if self.hurts("config") || !judgement.changed.is_empty() {
            return;
        }
        let is_made_anew = |start: &u64| {
            let view = RecordView::parse(&self.base.before.records[start], CrcCheck::Verify).expect("whole");
            judgement.lost.contains(&(view.topic().to_owned(), view.queue_id() as u32))
        };
        let intact = judgement.intact.range(..end).filter(|(start, _)| !served.whole.contains(start));
        let missing: Vec<_> = intact.filter(|(start, _)| !self.hurts("consumequeue") || is_made_anew(start)).collect();
        tally.count(if judgement.lost.is_empty() { "nothing_lost" } else { "made_anew" });
        assert!(missing.is_empty(), "{}: below {end} not served: {missing:?}", self.context);
    }
}

/// Tries all images of a kind; each of the `expected` decisions must have been met.
fn try_images(kind: Kind, expected: &[&str]) {
    let first: Option<u64> = std::env::var("RINGMQ_IMAGE_SEED").ok().and_then(|seed| seed.parse().ok());
    let base = base(7, kind);
    let whole = base.messages.len();
    let audit_options = AuditOptions { is_sync: Some(kind.is_sync), ..audit_options() };
    let clean_findings = audit(&arc(&base.disk), &StorePaths::new(ROOT), audit_options, &mut NoProgress);
    let clean_findings = clean_findings.expect("an audit").findings.kept;
    assert!(clean_findings.iter().all(|finding| finding.severity.name() == "note"), "{clean_findings:#?}");
    let mut tally = Tally::default();
    for seed in first.map_or(0..IMAGES, |seed| seed..seed + 1) {
        let mut random = SimRandom::new(seed);
        let (damaged, done) = damage(&base, &mut random);
        let text: Vec<String> = done.iter().map(ToString::to_string).collect();
        let context = format!("image {seed} of {kind:?}: {}", text.join(", "));
        let paths = StorePaths::new(ROOT);
        let found = audit(&arc(&damaged), &paths, audit_options, &mut NoProgress);
        let found = found.unwrap_or_else(|error| panic!("{context}: {error}"));
        adopt::plan(&damaged, &paths, &found).unwrap_or_else(|error| panic!("{context}: {error}"));
        let is_silent = found.findings.kept == clean_findings;
        tally.kinds.entry(done[0].kind()).or_default()[0] += 1;
        for salvage in [false, true] {
            let disk = damaged.kill();
            let context = format!("{context}, salvage {salvage}");
            let start = Start { salvage, group_bytes: kind.is_sync.then_some(GROUP_BYTES) };
            let judgement = judge(&disk, &paths, &base.before, start).expect("the disk in memory does not fail");
            if !salvage && let Some(judgement) = &judgement {
                assert!(judgement.decision.is_foreseen(&found.findings.kept), "{context}: {:?}", judgement.decision);
            }
            let image = Image { base: &base, done: &done, salvage, judgement, context: &context };
            let (is_all, is_refused) = match open(&disk, kind, salvage) {
                Ok(mut storage) => {
                    image.check_opened(&storage, &disk, &mut tally);
                    index_everything(&mut storage, &disk);
                    let served = serve(&storage, &disk, &base, &context);
                    image.check_served(storage.recovered.end.0, &served, &mut tally);
                    tally.unprotected += served.unprotected;
                    tally.misfiled += served.misfiled;
                    assert!(
                        !is_silent || served.messages == whole,
                        "{context}: the audit saw nothing, {} of {whole} messages are served",
                        served.messages
                    );
                    assert!(served.refused == 0 || !is_silent, "{context}");
                    if let Some(catch_up) = storage.recovered.catch_up.take() {
                        catch_up.run(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
                    }
                    let end = storage.recovered.end;
                    drop(storage);
                    if salvage {
                        check_again(&disk, &image, end);
                    }
                    (served.messages == whole, false)
                }
                Err(error) => {
                    image.check_refusal(&error, &mut tally);
                    (false, true)
                }
            };
            if !salvage {
                let row = tally.kinds.entry(done[0].kind()).or_default();
                row[if is_refused { 3 } else { 2 - usize::from(is_all) }] += 1;
            }
        }
        // One in eight is repaired and must then serve whatever its log still has.
        if seed % 8 == 0 {
            let (disk, _) = damage(&base, &mut SimRandom::new(seed));
            try_repair(&disk, &base, &context);
        }
    }
    println!("{kind:?}: damage [images, all served, fewer served, refused]: {:?}", tally.kinds);
    println!("messages that differ where no CRC is: {}, in another queue: {}", tally.unprotected, tally.misfiled);
    let sum = |column: usize| tally.kinds.values().map(|row| row[column]).sum::<u64>();
    let decisions: Vec<String> = tally.decisions.iter().map(|(name, count)| format!("{name}={count}")).collect();
    println!(
        "figures: images={} all_served={} fewer_served={} refused={} wrong_bodies=0 panics=0 wrong_decisions=0 {}",
        sum(0),
        sum(1),
        sum(2),
        sum(3),
        decisions.join(" ")
    );
    let missing: Vec<_> = expected.iter().filter(|name| !tally.decisions.contains_key(*name)).collect();
    assert!(first.is_some() || missing.is_empty(), "no image was {missing:?}: {:?}", tally.decisions);
}

/// A salvaged store needs no second salvage: it opens with the same end, and nothing more is cut. Unless the next start reads farther
/// down, since the cut went back to a file boundary or queues ask for more: then it may refuse damage that the first did not see.
fn check_again(disk: &SimDisk, image: &Image<'_>, end: PhysicalOffset) {
    let (context, base, paths) = (image.context, image.base, StorePaths::new(ROOT));
    let durable_point = read_file(disk, &paths.durable_point()).expect("read").unwrap_or_default();
    let before = Before { durable_point, ..base.before.clone() };
    let start = Start { salvage: false, group_bytes: base.kind.is_sync.then_some(GROUP_BYTES) };
    let judged = judge(disk, &paths, &before, start).expect("the disk in memory does not fail").expect("it was opened");
    let from = image.judgement.as_ref().map_or(0, |judgement| judgement.from);
    match open(disk, base.kind, false) {
        Ok(storage) => {
            assert_eq!(
                (storage.recovered.end, &storage.recovered.discarded),
                (end, &None),
                "{context}: the second start"
            );
        }
        // The first start believed queue files, as after a stop in order; this one compares them with the log.
        Err(StorageError::Recovery(RecoveryError::Dispatch { .. }))
            if image.hurts("consumequeue") || !judged.changed.is_empty() => {}
        Err(error) => {
            let (text, words) = (error.to_string(), judged.decision.words());
            let is_named = words.iter().all(|word| text.contains(word));
            let is_farther = matches!(judged.decision, Decision::RefuseDamage { offset, .. } if offset < from);
            assert!(is_farther && is_named, "{context}: the second start: {text}, judged {:?}", judged.decision);
        }
    }
}

fn try_repair(disk: &SimDisk, base: &Base, context: &str) {
    let paths = StorePaths::new(ROOT);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_700_000_100_000));
    let known_topics = TOPICS.map(String::from).into();
    let options = RepairOptions { audit: audit_options(), cut_log: true, queues: true, index: true, known_topics };
    let Ok(repaired) = repair(&arc(disk), &clock, &paths, &options, &mut NoProgress) else { return };
    let after = audit(&arc(disk), &paths, audit_options(), &mut NoProgress).expect("an audit");
    let wrong = after.findings.kept.iter().find(|finding| finding.severity.name() != "note");
    // The start makes a durable point anew, and refuses a sidecar that nobody can read.
    let is_left = |area: &str| ["queue offsets", "durable point"].contains(&area);
    assert!(wrong.is_none_or(|finding| is_left(finding.area)), "{context}: after a repair {wrong:#?}");
    match open(disk, base.kind, false) {
        Ok(storage) => {
            let served = serve(&storage, disk, base, context);
            assert_eq!(served.refused, 0, "{context}: after a repair everything can be read");
            assert_eq!(served.messages as u64, repaired.queue_entries, "{context}: every entry leads to its message");
            if served.unprotected == 0 {
                let end = storage.recovered.end.0;
                let lost = base.before.records.range(..end).filter(|(start, _)| !served.whole.contains(start)).count();
                assert_eq!(lost, 0, "{context}: after a repair everything below {end} is served");
            }
        }
        Err(error) => {
            let is_sidecar = matches!(error, StorageError::State(_) | StorageError::NotAdoptable(_));
            assert!(wrong.is_some() && is_sidecar, "{context}: after a repair {error}");
        }
    }
}

/// Goal: images of a store that was stopped in order. Method: see the module.
#[test]
fn images_of_a_clean_store() {
    try_images(
        Kind::CLEAN,
        &[
            &COMMON[..],
            &OURS,
            &["refused_short", "without_the_lost_point", "damage_farther_down", "made_anew", "refused_lost_queues"],
        ]
        .concat(),
    );
}

/// Goal: the same after a crash, with a good part of the log above the durable point.
#[test]
fn images_of_a_crashed_store() {
    try_images(
        Kind::CRASHED,
        &[&COMMON[..], &OURS, &["without_the_lost_point", "damage_farther_down", "refused_queue_contradicts"]].concat(),
    );
}

/// Goal: the same after the death of the process, when the start believes the page cache.
#[test]
fn images_of_a_killed_store() {
    try_images(
        Kind::KILLED,
        &[&COMMON[..], &OURS, &["without_the_lost_point", "damage_farther_down", "refused_queue_contradicts"]].concat(),
    );
}

/// Goal: the same after a crash where sends wait for syncs.
#[test]
fn images_of_a_crashed_sync_store() {
    try_images(
        Kind::CRASHED_SYNC,
        &[&COMMON[..], &OURS, &["refused_far_behind", "without_the_lost_point", "refused_queue_contradicts"]].concat(),
    );
}

/// Goal: the same of a store that only RocketMQ wrote, which has none of our files.
#[test]
fn images_of_a_clean_foreign_store() {
    try_images(Kind::FOREIGN, &[&COMMON[..], &["damage_farther_down", "refused_lost_queues"]].concat());
}

/// Goal: the same after a crash.
#[test]
fn images_of_a_crashed_foreign_store() {
    try_images(Kind::FOREIGN_CRASHED, &[&COMMON[..], &["damage_farther_down", "refused_queue_contradicts"]].concat());
}

/// Goal: the index of these stores is a real one, with several files. Method: in the undamaged store every key leads to its
/// message.
#[test]
fn every_key_is_found_in_the_whole_store() {
    let base = base(7, Kind::CLEAN);
    let storage = open(&base.disk, Kind::CLEAN, false).expect("it opens");
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
