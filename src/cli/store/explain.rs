//! `store explain`: everything that a store knows about one place.

use std::ops::ControlFlow;
use std::sync::Arc;

use ringmq_protocol::message_id::decode_message_id;
use ringmq_protocol::record::RecordView;
use ringmq_shards::clock::SystemClock;
use ringmq_shards::disk::{Disk, ReadOnlyDisk};
use ringmq_shards::index::{IndexService, LastStop};
use ringmq_shards::log::segment_table::file_name;
use ringmq_shards::recovery::StorePaths;
use ringmq_shards::recovery::durable_point::{DurablePointFile, StoredPoint};
use ringmq_shards::recovery::queue_offsets::QueueOffsets;
use ringmq_shards::recovery::queue_place::queue_place;
use ringmq_shards::recovery::reader::{Item, StoreReader};
use ringmq_shards::types::{PhysicalOffset, QueueId, QueueOffset};
use serde_json::{Map, Value, json};

use super::report::print;
use super::{Failure, Opened, dump, state_files};
use crate::broker::state::OFFSETS_FILE;
use crate::process::ExitStatus;

/// A place that a person can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A byte of the log.
    Log(u64),
    /// A message of a queue.
    Queue(String, u32, u64),
}

impl Place {
    /// Reads `OFFSET`, `TOPIC/QUEUE/OFFSET` or a message id.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.rsplitn(3, '/').collect();
        if let [offset, queue, topic] = parts[..] {
            let (offset, queue) = (offset.parse().ok()?, queue.parse().ok()?);
            return (!topic.is_empty()).then(|| Self::Queue(topic.to_owned(), queue, offset));
        }
        if matches!(text.len(), 32 | 56) && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return decode_message_id(text).ok().and_then(|(_, at)| u64::try_from(at).ok()).map(Self::Log);
        }
        text.parse().ok().map(Self::Log)
    }
}

/// Facts in the order in which they are told, as lines and as JSON.
#[derive(Default)]
struct Facts {
    lines: Vec<String>,
    values: Map<String, Value>,
    is_wrong: bool,
    /// There is no such place: nothing is wrong with the store.
    is_missing: bool,
}

impl Facts {
    fn tell(&mut self, name: &str, line: impl Into<String>, value: Value) {
        self.lines.push(format!("{name:12} {}", line.into()));
        self.values.insert(name.to_owned(), value);
    }

    fn missing(&mut self, name: &str, line: impl Into<String>) {
        self.is_missing = true;
        self.tell(name, line, Value::Null);
    }

    fn wrong(&mut self, name: &str, line: impl Into<String>, value: Value) {
        self.is_wrong = true;
        self.tell(name, line, value);
    }
}

/// Tells everything about a place.
pub(super) fn run(store: &Opened, place: &str) -> Result<ExitStatus, Failure> {
    let Some(place) = Place::parse(place) else {
        let text = format!("'{place}' is neither a log offset nor TOPIC/QUEUE/OFFSET nor a message id");
        return Err(Failure(ExitStatus::Usage, text));
    };
    let reader = StoreReader::open(&store.disk, &store.paths, store.options)?;
    let mut facts = Facts::default();
    let physical = match place {
        Place::Log(physical) => Some(physical),
        Place::Queue(topic, queue, offset) => queue_facts(&reader, &topic, queue, offset, &mut facts)?,
    };
    if let Some(physical) = physical {
        log_facts(store, &reader, PhysicalOffset(physical), &mut facts)?;
    }
    print(store.format, &facts.lines, &Value::Object(std::mem::take(&mut facts.values)))?;
    Ok(match facts {
        Facts { is_wrong: true, .. } => ExitStatus::NeedsRepair,
        Facts { is_missing: true, .. } => ExitStatus::Failure,
        _ => ExitStatus::Ok,
    })
}

fn queue_facts(
    reader: &StoreReader<'_>,
    topic: &str,
    queue: u32,
    offset: u64,
    facts: &mut Facts,
) -> Result<Option<u64>, Failure> {
    let place = format!("{topic}/{queue}/{offset}");
    match reader.queue_entry(topic, QueueId(queue), QueueOffset(offset))? {
        None => {
            facts.missing("entry", format!("{place} has no entry in a queue file"));
            Ok(None)
        }
        Some(entry) if entry.is_blank() => {
            facts.tell("entry", format!("{place} is blank: the queue begins behind it"), json!("blank"));
            Ok(None)
        }
        Some(entry) => {
            let line =
                format!("{place} points to {} ({} bytes, tags code {})", entry.physical, entry.size, entry.tags_code);
            let value = json!({ "offset": entry.physical.0, "size": entry.size, "tagsCode": entry.tags_code });
            facts.tell("entry", line, value);
            Ok(Some(entry.physical.0))
        }
    }
}

fn log_facts(
    store: &Opened,
    reader: &StoreReader<'_>,
    physical: PhysicalOffset,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let survey = reader.survey();
    if physical < survey.min() || physical >= survey.limit() {
        let (min, limit) = (survey.min(), survey.limit());
        facts.missing("log", format!("offset {physical} is in no file; they hold {min} to {limit}"));
        return Ok(());
    }
    let path = store.paths.commit_log.join(file_name(survey.size.start_of(physical)));
    let position = survey.size.position_in_file(physical);
    let value = json!({ "path": path.display().to_string(), "position": position });
    facts.tell("file", format!("{} byte {position}", path.display()), value);
    if let StoredPoint::Valid(point) = DurablePointFile::load(&*store.disk, &store.paths)? {
        let relation = if physical < point.offset { "below" } else { "at or above" };
        facts.tell("durable", format!("{relation} the durable point {}", point.offset), json!(point.offset.0));
    }
    let mut outcome: Result<(), Failure> = Ok(());
    reader.each(physical, &mut |item| {
        match item {
            Item::Record(view, at) if at.0 + view.total_size() as u64 > physical.0 => {
                outcome = record_facts(store, reader, view, at, physical, facts);
            }
            Item::Blank(from, to) if to > physical => {
                let line = format!("in the blank end of its file, from {from} to {to}");
                facts.tell("record", line, Value::Null);
            }
            Item::Hole(hole) if hole.to > physical => {
                let line = format!("in bytes that are no record, from {} to {}: {}", hole.from, hole.to, hole.reason);
                facts.wrong("record", line, Value::Null);
            }
            Item::End(at, problem) => {
                let problem = problem.unwrap_or("zeros where a record should be");
                facts.tell("record", format!("behind the end of the log, which is at {at}: {problem}"), Value::Null);
            }
            _ => return ControlFlow::Continue(()),
        }
        ControlFlow::Break(())
    })?;
    outcome
}

fn record_facts(
    store: &Opened,
    reader: &StoreReader<'_>,
    view: &RecordView<'_>,
    at: PhysicalOffset,
    asked: PhysicalOffset,
    facts: &mut Facts,
) -> Result<(), Failure> {
    let inside = if at == asked { String::new() } else { format!(", byte {} of it", asked.0 - at.0) };
    facts.tell("record", format!("{}{inside}", dump::record_line(view, at, false)), dump::record_json(view, at, false));
    facts.tell("body", format!("{} bytes, the CRC fits", view.body().len()), json!(view.body().len()));
    match queue_place(view, at) {
        None => facts.tell("queue", "none: a transaction that is prepared or rolled back", Value::Null),
        Some(place) => {
            let found = reader.queue_entry(place.topic, place.queue_id, place.offset)?;
            let name = format!("{}/{}/{}", place.topic, place.queue_id, place.offset);
            match found {
                Some(entry) if entry.physical == at && entry.size == place.entry.size => {
                    facts.tell("queue", format!("{name} points here"), json!(name));
                }
                Some(entry) => {
                    facts.wrong("queue", format!("{name} points to {} instead", entry.physical), json!(name));
                }
                None => facts.wrong("queue", format!("{name} has no entry in a queue file"), json!(name)),
            }
            barrier_facts(&*store.disk, &store.paths, place.topic, at, facts);
            group_facts(store, place.topic, place.queue_id.0, place.offset.0, facts)?;
        }
    }
    index_facts(store, view, at, facts);
    Ok(())
}

/// Whether the topic was deleted later, as the next start will see it.
fn barrier_facts(disk: &dyn Disk, paths: &StorePaths, topic: &str, at: PhysicalOffset, facts: &mut Facts) {
    let foreseen = QueueOffsets::load(disk, paths).map_err(|error| error.to_string()).and_then(|loaded| {
        let mut offsets = loaded.map(|loaded| loaded.value).unwrap_or_default();
        offsets.foresee_start(disk, paths).map_err(|error| error.to_string())?;
        Ok(offsets)
    });
    match foreseen {
        Ok(offsets) => {
            if let Some(barrier) = offsets.barriers.get(topic).filter(|barrier| at < **barrier) {
                let line = format!("the topic was deleted later, at {barrier}: this record counts no more");
                facts.tell("deleted", line, json!(barrier.0));
            }
        }
        Err(error) => {
            let line = format!("whether the topic was deleted later is not known: {error}");
            facts.wrong("deleted", line, Value::Null);
        }
    }
}

/// Which groups have consumed the message, by their committed offsets.
fn group_facts(store: &Opened, topic: &str, queue: u32, offset: u64, facts: &mut Facts) -> Result<(), Failure> {
    let value = state_files::json(&*store.disk, &store.paths, OFFSETS_FILE)?;
    let table = value.as_ref().and_then(|value| value.get("offsetTable")?.as_object());
    let mut groups = Map::new();
    for (key, queues) in table.into_iter().flatten() {
        let committed = queues.get(queue.to_string()).and_then(Value::as_u64);
        if let (Some(group), Some(next)) = (key.strip_prefix(&format!("{topic}@")), committed) {
            groups.insert(group.to_owned(), json!({ "next": next, "consumed": next > offset }));
        }
    }
    let line = match groups.is_empty() {
        true => "no group has offsets in this queue".to_string(),
        false => {
            let told = groups.iter().map(|(group, state)| {
                let verb = if state["consumed"] == json!(true) { "has consumed it" } else { "has not consumed it" };
                format!("{group} {verb} (next {})", state["next"])
            });
            told.collect::<Vec<_>>().join(", ")
        }
    };
    facts.tell("groups", line, Value::Object(groups));
    Ok(())
}

fn index_facts(store: &Opened, view: &RecordView<'_>, at: PhysicalOffset, facts: &mut Facts) {
    let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk::new(Arc::clone(&store.disk)));
    let directory = store.paths.index();
    let service =
        match IndexService::open(disk, Arc::new(SystemClock), &directory, store.options.index, LastStop::Clean) {
            Ok(service) => service,
            Err(error) => return facts.wrong("index", format!("cannot be read: {error}"), Value::Null),
        };
    if service.last().is_none_or(|last| last.physical < at) {
        return facts.tell("index", "not indexed yet; a start goes on with it", Value::Null);
    }
    let mut keys = Map::new();
    for key in view.unique_key().into_iter().chain(view.key_words()) {
        let key = String::from_utf8_lossy(key).into_owned();
        let time = view.store_timestamp();
        // Times in the index are exact to a second, and count from the file's first one.
        let found = service.query(view.topic(), &key, usize::MAX, time.saturating_sub(2000), time.saturating_add(2000));
        let is_there = match found {
            Ok(found) => found.contains(&at),
            Err(error) => return facts.wrong("index", format!("cannot be read: {error}"), Value::Null),
        };
        facts.is_wrong |= !is_there;
        keys.insert(key, json!(is_there));
    }
    let told = keys.iter().map(|(key, found)| {
        format!("{key} {}", if found == &json!(true) { "leads here" } else { "does not lead here" })
    });
    let line =
        if keys.is_empty() { "the message has no keys".to_string() } else { told.collect::<Vec<_>>().join(", ") };
    facts.tell("index", line, Value::Object(keys));
}

#[cfg(test)]
mod tests {
    use ringmq_shards::disk::create_directories_durably;
    use ringmq_shards::recovery::durable_point::DurablePoint;
    use ringmq_shards::recovery::process_lock::ProcessLock;
    use ringmq_shards::sim::SimDisk;

    use super::*;

    /// Goal: a record is called deleted only if the next start takes it for deleted. Method: a barrier behind the durable point, which
    /// counts for a store of ours that was killed, and beyond the point no more once another broker may have worked there.
    #[test]
    fn barriers_are_told_as_a_start_takes_them() {
        let (disk, paths) = (SimDisk::new(), StorePaths::new("/store"));
        create_directories_durably(&disk, &paths.own()).expect("created");
        let mut offsets = QueueOffsets::default();
        offsets.barriers.insert("t".to_owned(), PhysicalOffset(900));
        offsets.persist(&disk, &paths).expect("written");
        let mut point = DurablePointFile::open(&disk, &paths).expect("opened");
        point.advance(DurablePoint { offset: PhysicalOffset(500), last_record: None }).expect("written");
        let told = |at: u64| {
            let mut facts = Facts::default();
            barrier_facts(&disk, &paths, "t", PhysicalOffset(at), &mut facts);
            facts.values.remove("deleted")
        };
        let lock = ProcessLock::acquire(&disk, &paths).expect("free");
        lock.mark_running(&disk, &paths, 1).expect("marked");
        assert_eq!([400, 600, 900].map(told), [Some(json!(900)), Some(json!(900)), None]);
        lock.mark_clean(&disk, &paths).expect("unmarked");
        assert_eq!([400, 600, 900].map(told), [Some(json!(500)), None, None]);
    }
}
