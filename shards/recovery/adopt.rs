//! What becomes of a store when RingMQ opens it: what fits, what would be cut, what is left alone, and what speaks against it.
//!
//! [`blockers`] looks at a few names and is asked at every start; [`plan`] also takes the result of an audit.

use std::io;
use std::path::{Path, PathBuf};

use ringmq_protocol::json::{Value, parse};

use super::audit::Audit;
use super::audit::segments::list;
use super::formats;
use super::paths::StorePaths;
use super::queue_place::SCHEDULE_TOPIC;
use crate::disk::{DirectoryEntry, Disk, read_file};
use crate::queue::limits::ENTRY_BYTES;

/// Something about a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// The file or folder.
    pub path: PathBuf,
    /// What about it.
    pub text: String,
}

/// What would become of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Why it cannot be adopted; empty when it can.
    pub blockers: Vec<Remark>,
    /// What is taken over.
    pub fits: Vec<Remark>,
    /// What would be cut or made anew.
    pub changes: Vec<Remark>,
    /// What stays as it is, for the broker that knows it.
    pub left_alone: Vec<Remark>,
    /// What nobody here knows; it stays as it is.
    pub unknown: Vec<Remark>,
}

/// Files and folders that stay as they are, and what they are.
const LEFT_ALONE: &[(&str, &str)] = &[
    ("timerwheel", "timed messages wait in it; with timerlog and config/timercheck it is one unit"),
    ("timerlog", "timed messages wait in it; with timerwheel and config/timercheck it is one unit"),
    ("config/timercheck", "belongs to timerwheel and timerlog"),
    ("config/timermetrics", "counts of timed messages"),
    ("config/transactionMetrics", "counts of transactions"),
    ("config/delayOffset.json", "how far delayed messages were delivered"),
    ("config/consumerFilter.json", "filters by expression"),
    ("config/consumerOrderInfo.json", "what orderly consumers by POP have under way"),
    ("config/messageRequestMode.json", "which groups consume by POP"),
    ("config/lmqConsumerOffset.json", "offsets of light queues"),
    ("config/users", "users of RocketMQ's access control, a RocksDB database"),
    ("config/acls", "rules of RocketMQ's access control, a RocksDB database"),
    ("compaction", "what compacted topics keep; their messages are served from the log"),
    ("kvStore", "what POP has under way, a RocksDB database"),
    ("transaction", "names that RocketMQ reserves"),
    ("epochFileCheckpoint", "terms of a controller"),
    ("brokerIdentity", "the name that a controller gave"),
    ("abort.bak", "RocketMQ leaves it behind"),
];

/// Names below the root that are taken over or are ours.
const KNOWN: &[&str] = &[
    "abort",
    "checkpoint",
    "commitlog",
    "config",
    "consumequeue",
    "consumequeue_ext",
    "batchconsumequeue",
    "index",
    "lock",
    "ringmq",
    "namesrv",
    "tuning",
];

/// Names in `config` that are taken over.
const KNOWN_CONFIG: &[&str] =
    &["topics.json", "subscriptionGroup.json", "consumerOffset.json", "topicQueueMapping.json", "broker.properties"];

fn names(disk: &dyn Disk, path: &Path) -> io::Result<Vec<String>> {
    Ok(entries(disk, path)?.into_iter().map(|entry| entry.name).collect())
}

/// What a folder holds: nothing if there is none, or if it is a file.
fn entries(disk: &dyn Disk, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
    match list(disk, path).map_err(|error| error.source) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(Vec::new()),
        listed => listed,
    }
}

fn is_rocks_db(names: &[String]) -> bool {
    names.iter().any(|name| name == "CURRENT" || name.starts_with("MANIFEST-"))
}

/// Whether a folder of queues (topic, number, file) holds any file with something in it.
fn has_queue_files(disk: &dyn Disk, root: &Path) -> io::Result<bool> {
    for topic in names(disk, root)? {
        for queue in names(disk, &root.join(&topic))? {
            let files = entries(disk, &root.join(&topic).join(queue))?;
            if files.iter().any(|file| file.length > 0) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Whether there is a store: anything below the root that a broker of either kind makes.
///
/// # Errors
/// The file system does not answer.
pub fn is_store(disk: &dyn Disk, paths: &StorePaths) -> io::Result<bool> {
    let made = |name: &String| KNOWN.contains(&name.as_str()) || name.starts_with("dledger-");
    Ok(names(disk, &paths.root)?.iter().any(made) || !names(disk, &paths.commit_log)?.is_empty())
}

/// What speaks against opening a store, from a few look-ups. Empty for a store that can be opened, and for a new one.
///
/// # Errors
/// The file system does not answer.
pub fn blockers(disk: &dyn Disk, paths: &StorePaths) -> io::Result<Vec<Remark>> {
    let mut blockers = Vec::new();
    let mut add = |path: PathBuf, text: &str| blockers.push(Remark { path, text: text.to_string() });
    if is_rocks_db(&names(disk, &paths.consume_queue())?) {
        add(
            paths.consume_queue(),
            "queues are kept in RocksDB (storeType=defaultRocksDB); only queue files can be read",
        );
    }
    for name in ["topics", "subscriptionGroups", "consumerOffsets", "rdb"] {
        let path = paths.config().join(name);
        if is_rocks_db(&names(disk, &path)?) {
            add(path, "topics, groups or offsets are kept in RocksDB; only JSON files can be read");
        }
    }
    for name in names(disk, &paths.root)?.iter().filter(|name| name.starts_with("dledger-")) {
        add(paths.root.join(name), "the log is kept by DLedger, whose entries have another form");
    }
    let batch = paths.root.join("batchconsumequeue");
    if has_queue_files(disk, &batch)? {
        add(batch, "batch queues (queue.type=BatchCQ) cannot be read");
    }
    let extension = paths.root.join("consumequeue_ext");
    if has_queue_files(disk, &extension)? {
        add(extension, "tags are kept in extension files (enableConsumeQueueExt), which cannot be read");
    }
    let topics = paths.config().join("topics.json");
    for name in batch_topics(disk, &topics)? {
        add(topics.clone(), &format!("topic {name} is a batch queue (queue.type=BatchCQ)"));
    }
    let mappings = paths.config().join("topicQueueMapping.json");
    let mapped = read_json(disk, &mappings)?;
    let table = mapped.as_ref().and_then(|value| value.get("topicQueueMappingInfoMap")?.as_object());
    if let Some(name) = table.and_then(|table| table.keys().next()) {
        add(mappings, &format!("topic {name} is static: its queues are mapped between brokers"));
    }
    for newer in formats::newer(disk, paths)? {
        let text = newer.text();
        add(newer.path, &text);
    }
    Ok(blockers)
}

fn read_json(disk: &dyn Disk, path: &Path) -> io::Result<Option<Value>> {
    Ok(read_file(disk, path)?.and_then(|bytes| parse(&bytes).ok()))
}

fn batch_topics(disk: &dyn Disk, path: &Path) -> io::Result<Vec<String>> {
    let Some(value) = read_json(disk, path)? else { return Ok(Vec::new()) };
    let Some(table) = value.get("topicConfigTable").and_then(Value::as_object) else { return Ok(Vec::new()) };
    let is_batch = |topic: &Value| {
        let kind = topic.get("attributes").and_then(|attributes| attributes.get("queue.type"));
        kind.and_then(Value::as_str).is_some_and(|kind| kind.eq_ignore_ascii_case("BatchCQ"))
    };
    Ok(table.iter().filter(|(_, topic)| is_batch(topic)).map(|(name, _)| name.clone()).collect())
}

/// Says what would become of a store that was audited.
///
/// # Errors
/// The file system does not answer.
pub fn plan(disk: &dyn Disk, paths: &StorePaths, audit: &Audit) -> io::Result<Plan> {
    let mut plan = Plan { blockers: blockers(disk, paths)?, ..Plan::default() };
    let figures = &audit.figures;
    let remark = |path: PathBuf, text: String| Remark { path, text };
    for finding in &audit.findings.kept {
        let text = finding.text.clone();
        let list = if finding.refuses_start { &mut plan.blockers } else { &mut plan.changes };
        list.push(remark(finding.path.clone(), text));
    }
    if audit.findings.dropped_refusals > 0 {
        let text = format!("{} more that a start refuses", audit.findings.dropped_refusals);
        plan.blockers.push(remark(paths.root.clone(), text));
    }
    if figures.segments == 0 && has_queue_files(disk, &paths.consume_queue())? {
        let text = "there are queues but no log here: does storePathCommitLog lead elsewhere, or to several folders?";
        plan.blockers.push(remark(paths.commit_log.clone(), text.to_string()));
    }
    let fits = [
        (
            paths.commit_log.clone(),
            format!(
                "{} files of {} bytes with {} records, offsets {} to {}",
                figures.segments, figures.segment_bytes, figures.records, figures.log_min, figures.log_end
            ),
        ),
        (
            paths.consume_queue(),
            format!("{} queues with {} entries that point to their records", figures.queues, figures.queue_entries),
        ),
        (paths.index(), format!("{} files with {} entries", figures.index_files, figures.index_entries)),
    ];
    plan.fits.extend(fits.map(|(path, text)| remark(path, text)));
    for name in &KNOWN_CONFIG[..3] {
        let path = paths.config().join(name);
        match read_file(disk, &path)?.map(|bytes| parse(&bytes).is_ok()) {
            Some(true) => plan.fits.push(remark(path, "can be read".to_string())),
            Some(false) => plan.changes.push(remark(path, "cannot be understood; its backup is used".to_string())),
            None => {}
        }
    }
    for (name, text) in LEFT_ALONE {
        let path = paths.root.join(name);
        if disk.exists(&path)? {
            plan.left_alone.push(remark(path, (*text).to_string()));
        }
    }
    let schedule = paths.consume_queue().join(SCHEDULE_TOPIC);
    if has_files(disk, &schedule)? {
        let text = "delayed messages: they stay where they are, with the time at which each is due".to_string();
        plan.left_alone.push(remark(schedule, text));
    }
    for (directory, known, prefix) in [(paths.root.clone(), KNOWN, ""), (paths.config(), KNOWN_CONFIG, "config/")] {
        for name in names(disk, &directory)? {
            let base = name.strip_suffix(".bak").unwrap_or(&name);
            let full = format!("{prefix}{base}");
            let listed = LEFT_ALONE.iter().any(|(path, _)| {
                *path == full || *path == format!("{prefix}{name}") || path.starts_with(&format!("{full}/"))
            });
            let blocked = plan.blockers.iter().any(|blocker| blocker.path == directory.join(&name));
            if !known.contains(&base) && !listed && !blocked {
                plan.unknown.push(remark(directory.join(&name), "not known here, it is not touched".to_string()));
            }
        }
    }
    Ok(plan)
}

/// Whether any queue of a topic holds an entry.
fn has_files(disk: &dyn Disk, topic: &Path) -> io::Result<bool> {
    for queue in names(disk, topic)? {
        let directory = topic.join(queue);
        for file in entries(disk, &directory)?.iter().filter(|file| !file.is_directory) {
            let opened = disk.open(&directory.join(&file.name), crate::disk::OpenOptions::default())?;
            let mut entry = [0; ENTRY_BYTES as usize];
            if opened.read_at(&mut entry, 0)? == entry.len() && entry != [0; ENTRY_BYTES as usize] {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
