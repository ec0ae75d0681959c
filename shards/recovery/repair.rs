//! Makes anew what follows from the log: queue files and index. On request cuts the log at its first damage.
//!
//! Nothing is deleted: what is replaced moves to `ringmq/repair-N`, with a text that says how to put it back; files of a log that
//! lies elsewhere move to a folder of that name beside it, where a rename can take them. The new files are built in the former
//! too and take their places only when they are complete and synced. While files change places the store counts as not stopped in
//! order and its note of next offsets as of the log's beginning, so that a start after a crash in between makes all queues anew
//! from the log.
//!
//! The next offset of a queue whose records have all expired is in no record: it is taken from the old files and the sidecar
//! before anything moves.
//!
//! A start that finds queues lacking has these alone made anew, in the same way ([`rebuild_queues`]).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::audit::log::walk;
use super::audit::queues::QueueAudit;
use super::audit::segments::{list, survey};
use super::audit::{Audit, AuditError, AuditOptions, Progress, Scene, audit, sidecars};
use super::checkpoint::CheckpointFile;
use super::cut::Discarded;
use super::decide::{DispatchSink, KernelRun, RecoveryError, RecoveryOptions, recover};
use super::paths::StorePaths;
use super::queue_offsets::QueueOffsets;
use super::queue_place::QueuePlace;
use crate::clock::Clock;
use crate::disk::{Disk, OpenOptions, StateFileError, create_directories_durably, remove_if_present, write_file};
use crate::index::{IndexError, IndexService, LastStop};
use crate::log::segment_table::{SegmentSize, parse_file_name};
use crate::queue::limits::MAXIMUM_TOPIC_BYTES;
use crate::queue::{QueueError, QueueStore, QueueStoreConfig};
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

/// What to do.
#[derive(Debug, Clone)]
pub struct RepairOptions {
    /// What the store looks like.
    pub audit: AuditOptions,
    /// Cut the log at its first damage. Queues and index are made anew then.
    pub cut_log: bool,
    /// Make the queue files anew.
    pub queues: bool,
    /// Make the index anew.
    pub index: bool,
    /// Topics that get queues although they have no folder: those of the broker's table. Records of other topics without a
    /// folder are taken for what a deleted topic left.
    pub known_topics: BTreeSet<String>,
}

/// Some queues of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueScope {
    /// All of these topics.
    Topics(BTreeSet<String>),
    /// These, by topic.
    Queues(BTreeMap<String, BTreeSet<QueueId>>),
}

impl QueueScope {
    fn contains(&self, topic: &str, queue_id: QueueId) -> bool {
        match self {
            Self::Topics(topics) => topics.contains(topic),
            Self::Queues(queues) => queues.get(topic).is_some_and(|ids| ids.contains(&queue_id)),
        }
    }
}

/// What was moved out of the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedAside {
    /// Where it was.
    pub from: PathBuf,
    /// Where it is.
    pub to: PathBuf,
}

/// What was done.
#[derive(Debug, Clone, Default)]
pub struct Repaired {
    /// Everything that was moved.
    pub saved: Vec<SavedAside>,
    /// The text that says how to put it back; `None` when nothing was moved.
    pub instructions: Option<PathBuf>,
    /// What was cut off the log.
    pub cut: Option<Discarded>,
    /// Queues and entries that were made anew.
    pub queues: u64,
    /// Entries of these queues.
    pub queue_entries: u64,
    /// Records that were indexed anew.
    pub indexed_records: u64,
    /// What an operator should read.
    pub messages: Vec<String>,
}

/// Why nothing, or not everything, was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The store cannot be read.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The log is damaged and may not be cut.
    #[error(
        "the log is damaged at offset {0}: queues and index cannot be made anew beyond it. Copy the store, then allow the cut"
    )]
    LogDamaged(PhysicalOffset),
    /// A file of the log is longer than the others, which no broker makes.
    #[error("{} has {length} bytes instead of {expected}: remove what does not belong there by hand", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
        /// The length of the others.
        expected: u64,
    },
    /// The log cannot be cut.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// Queue files cannot be made. Nothing was replaced.
    #[error(transparent)]
    Queues(#[from] QueueError),
    /// Index files cannot be made. Nothing was replaced.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A state file cannot be used.
    #[error(transparent)]
    State(#[from] StateFileError),
    /// The file system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> RepairError {
    let path = path.to_path_buf();
    move |source| RepairError::Io { action, path, source }
}

/// Makes the scan see the whole log and keeps nothing.
struct WholeLog;

impl DispatchSink for WholeLog {
    fn dispatch_from(&self) -> Option<PhysicalOffset> {
        Some(PhysicalOffset(0))
    }

    fn record(&mut self, _: &ringmq_protocol::record::RecordView<'_>, _: PhysicalOffset) -> io::Result<()> {
        Ok(())
    }
}

struct Repair<'a> {
    disk: &'a Arc<dyn Disk>,
    paths: &'a StorePaths,
    options: &'a RepairOptions,
    /// `ringmq/repair-N`.
    room: PathBuf,
    /// The same on the file system of the log.
    log_room: PathBuf,
    done: Repaired,
}

/// Repairs a store. The caller holds its lock.
///
/// # Errors
/// See [`RepairError`]; what had moved by then is under `ringmq/repair-N`.
pub fn repair(
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    paths: &StorePaths,
    options: &RepairOptions,
    progress: &mut dyn Progress,
) -> Result<Repaired, RepairError> {
    let (room, log_room) = free_rooms(&**disk, paths)?;
    let mut repair = Repair { disk, paths, options, room, log_room, done: Repaired::default() };
    let mut found = audit(disk, paths, options.audit, progress)?;
    let is_damaged = found.first_damage.is_some() || found.is_log_refused;
    if is_damaged && !options.cut_log {
        return Err(RepairError::LogDamaged(found.first_damage.unwrap_or(PhysicalOffset(found.figures.log_end))));
    }
    // What looks like a torn tail refuses a start as well if sends wait for syncs and too much that is valid follows.
    if is_damaged || (options.cut_log && found.tail_bytes > 0) {
        repair.cut_log(&found)?;
        found = audit(disk, paths, options.audit, progress)?;
    }
    let was_cut = repair.done.cut.is_some();
    if options.queues || was_cut {
        repair.queues(PhysicalOffset(found.figures.log_end), None, progress)?;
    }
    if options.index || was_cut {
        repair.index(clock, progress)?;
    }
    repair.checkpoint(&found)?;
    repair.write_instructions()?;
    Ok(repair.done)
}

/// Makes some queues anew from the whole log, which ends at `end`, and leaves everything else as it is. The caller holds the lock.
///
/// # Errors
/// See [`RepairError`]; if the log is damaged or there is no room, nothing has changed.
pub fn rebuild_queues(
    disk: &Arc<dyn Disk>,
    paths: &StorePaths,
    audit: AuditOptions,
    scope: &QueueScope,
    end: PhysicalOffset,
    progress: &mut dyn Progress,
) -> Result<Repaired, RepairError> {
    let (room, log_room) = free_rooms(&**disk, paths)?;
    let options = RepairOptions { audit, cut_log: false, queues: true, index: false, known_topics: BTreeSet::new() };
    let mut repair = Repair { disk, paths, options: &options, room, log_room, done: Repaired::default() };
    repair.queues(end, Some(scope), progress)?;
    repair.write_instructions()?;
    Ok(repair.done)
}

/// Where this repair puts things: a name that is free in the store's own folder and in the one beside the log.
fn free_rooms(disk: &dyn Disk, paths: &StorePaths) -> Result<(PathBuf, PathBuf), RepairError> {
    let mut number = 0;
    loop {
        number += 1;
        let name = format!("repair-{number}");
        let (room, log_room) = (paths.own().join(&name), paths.scratch().join(&name));
        let is_taken = |path: &Path| disk.exists(path).map_err(failed("look for", path));
        if !is_taken(&room)? && !is_taken(&log_room)? {
            return Ok((room, log_room));
        }
    }
}

impl<'a> Repair<'a> {
    fn make_room(&self) -> Result<(), RepairError> {
        create_directories_durably(&**self.disk, &self.room).map_err(failed("create", &self.room))
    }

    /// Moves a file or folder to the room, under its own name. What is there already is never replaced.
    fn save_aside(&mut self, path: &Path) -> Result<(), RepairError> {
        let disk = &**self.disk;
        if !disk.exists(path).map_err(failed("look for", path))? {
            return Ok(());
        }
        self.make_room()?;
        let to = match path.strip_prefix(&self.paths.commit_log) {
            Ok(name) => self.log_room.join("commitlog").join(name),
            Err(_) => self.room.join(path.strip_prefix(&self.paths.root).unwrap_or(path)),
        };
        move_tree(disk, path, &to)?;
        self.done.saved.push(SavedAside { from: path.to_path_buf(), to });
        Ok(())
    }

    /// Makes the files of the log such that a start would take them, then lets recovery cut at the first damage.
    fn cut_log(&mut self, found: &Audit) -> Result<(), RepairError> {
        let disk = &**self.disk;
        let size = found.figures.segment_bytes;
        let mut expected: Option<u64> = None;
        let mut is_gone = false;
        for entry in list(disk, &self.paths.commit_log)? {
            let path = self.paths.commit_log.join(&entry.name);
            let Some(start) = parse_file_name(&entry.name).filter(|_| !entry.is_directory) else { continue };
            if entry.length > size {
                return Err(RepairError::TooLong { path, length: entry.length, expected: size });
            }
            is_gone = is_gone || start.0 % size != 0 || expected.is_some_and(|expected| expected != start.0);
            if is_gone {
                self.save_aside(&path)?;
                continue;
            }
            if entry.length > 0 && entry.length < size {
                let write = OpenOptions { write: true, ..OpenOptions::default() };
                let file = disk.open(&path, write).map_err(failed("open", &path))?;
                file.set_length(size).and_then(|()| file.sync_data()).map_err(failed("extend", &path))?;
                self.done.messages.push(format!("extended {} from {} to {size} bytes", path.display(), entry.length));
            }
            expected = Some(start.0 + size);
        }
        let segment_size = SegmentSize::new(size).map_err(RecoveryError::from)?;
        let options = RecoveryOptions {
            segment_size,
            salvage: true,
            max_unsynced_bytes: None,
            index_is_safe: false,
            verify_property_crc: false,
            kernel: KernelRun::Restarted,
        };
        let recovered = recover(disk, self.paths, &options, &mut WholeLog)?;
        self.done.messages.extend(recovered.messages);
        let from = recovered.end;
        let nothing = || Discarded { from, bytes: 0, saved_to: self.room.clone() };
        self.done.cut = Some(recovered.discarded.unwrap_or_else(nothing));
        Ok(())
    }

    fn scene(&self, audit: &mut Audit) -> Result<Scene<'a>, AuditError> {
        sidecars::scene(Arc::clone(self.disk), self.paths, self.options.audit, audit)
    }

    /// Makes all queues anew, or those of a scope.
    fn queues(
        &mut self,
        end: PhysicalOffset,
        scope: Option<&QueueScope>,
        progress: &mut dyn Progress,
    ) -> Result<(), RepairError> {
        let disk = &**self.disk;
        let mut scratch = Audit::default();
        let scene = self.scene(&mut scratch)?;
        let survey = survey(disk, self.paths, self.options.audit.segment_bytes, &mut scratch.findings)?;
        let mut next = scene.barriers.next.clone();
        if scope.is_none() {
            let old = QueueAudit::load(&scene, &mut scratch.findings)?;
            for (topic, queue_id, end) in old.ends() {
                let place = next.entry(topic.to_owned()).or_default().entry(QueueId(queue_id)).or_default();
                *place = (*place).max(QueueOffset(end));
            }
        }
        let topics: BTreeSet<String> = next.keys().chain(&self.options.known_topics).cloned().collect();
        let wanted = |topic: &str, queue_id| match scope {
            Some(scope) => scope.contains(topic, queue_id),
            None => topics.contains(topic),
        };
        // First pass: where each queue begins for the last time.
        let mut begins: HashMap<(String, u32), PhysicalOffset> = HashMap::new();
        let walked = walk(&scene, &survey, end, progress, &mut |_, place| {
            let begins_here = |place: &&QueuePlace<'_>| place.offset.0 == 0 && place.entry.physical < end;
            if let Some(place) = place.filter(begins_here).filter(|place| wanted(place.topic, place.queue_id)) {
                begins.insert((place.topic.to_owned(), place.queue_id.0), place.entry.physical);
            }
            Ok(())
        })?;
        let hole = walked.holes.first().map(|hole| hole.from).or((walked.end < end).then_some(walked.end));
        if let Some(hole) = hole {
            return Err(RepairError::LogDamaged(hole));
        }
        self.make_room()?;
        let new = self.room.join("new-consumequeue");
        create_directories_durably(disk, &new).map_err(failed("create", &new))?;
        let file_entries = self.options.audit.queue_file_entries;
        let config = QueueStoreConfig { file_entries, ..QueueStoreConfig::default() };
        let (queues, pool) = QueueStore::new(Arc::clone(self.disk), &new, config);
        let mut outcome: Result<(), QueueError> = Ok(());
        let mut skipped: BTreeMap<String, u64> = BTreeMap::new();
        walk(&scene, &survey, end, progress, &mut |view, place| {
            let Some(place) = place.filter(|place| place.entry.physical < end && outcome.is_ok()) else {
                return Ok(());
            };
            let physical = place.entry.physical;
            if !scene.barriers.counts(place.topic, physical) {
                return Ok(());
            }
            let is_name = place.topic.len() <= MAXIMUM_TOPIC_BYTES && !place.topic.contains(['/', '\0']);
            if !wanted(place.topic, place.queue_id) || !is_name {
                *skipped.entry(place.topic.to_owned()).or_default() += 1;
                return Ok(());
            }
            let begin = begins.get(&(place.topic.to_owned(), place.queue_id.0));
            if begin.is_some_and(|begin| physical < *begin) {
                return Ok(());
            }
            let time = StoreTimestamp(u64::try_from(view.store_timestamp()).unwrap_or(0));
            outcome = queues.get_or_create(place.topic, place.queue_id).and_then(|queue| {
                queues.rebuild_append(&pool, &queue, place.offset, place.entry, time)?;
                Ok(())
            });
            Ok(())
        })?;
        let made = outcome.and_then(|()| queues.flush_dirty()).and_then(|_| queues.sync());
        if let Err(error) = made {
            // What this leaves could be what another attempt lacks room for.
            remove_tree(disk, &self.room)?;
            return Err(error.into());
        }
        let mut empty = scene.barriers.empty.clone();
        for (topic, next) in &next {
            for id in next.keys() {
                // What a start finds without files and does not have made anew goes on there without messages.
                let place = self.paths.consume_queue().join(topic).join(id.to_string());
                if wanted(topic, *id) || list(disk, &place)?.is_empty() {
                    empty.entry(topic.clone()).or_default().insert(*id);
                }
            }
        }
        let mut places: BTreeSet<PathBuf> = BTreeSet::new();
        for (topic, ids) in &empty {
            places.extend(ids.iter().filter(|id| wanted(topic, **id)).map(|id| Path::new(topic).join(id.to_string())));
        }
        for (topic, queue_id, min, max) in queues.all_bounds() {
            self.done.queues += 1;
            self.done.queue_entries += max.0 - min.0;
            // What the log says wins over what damaged files seemed to say.
            next.entry(topic.to_string()).or_default().insert(queue_id, max);
            empty.entry(topic.to_string()).or_default().remove(&queue_id);
            places.insert(Path::new(&*topic).join(queue_id.to_string()));
        }
        empty.retain(|_, ids| !ids.is_empty());
        for (topic, count) in skipped.into_iter().filter(|_| scope.is_none()) {
            self.done.messages.push(format!(
                "left out {count} records of topic {topic}: it has no folder and no entry in topics.json"
            ));
        }
        let barriers = scene.barriers.barriers.clone();
        let mut offsets = QueueOffsets { next, log_offset: PhysicalOffset(0), barriers, empty };
        let was_clean = scene.was_clean;
        drop(queues);
        let places = if scope.is_some() { places } else { BTreeSet::from([PathBuf::new()]) };
        self.swap_queues(&new, &places, &offsets, was_clean)?;
        offsets.log_offset = end;
        offsets.persist(&**self.disk, self.paths)?;
        if was_clean {
            remove_if_present(&**self.disk, &self.paths.abort()).map_err(failed("remove", &self.paths.abort()))?;
            self.disk.sync_directory(&self.paths.root).map_err(failed("sync", &self.paths.root))?;
        }
        Ok(())
    }

    /// Puts the new queue files in the `places` of the old ones, which are folders below that of the queues. On return they are
    /// durable.
    fn swap_queues(
        &mut self,
        new: &Path,
        places: &BTreeSet<PathBuf>,
        offsets: &QueueOffsets,
        was_clean: bool,
    ) -> Result<(), RepairError> {
        let disk = &**self.disk;
        offsets.persist(disk, self.paths)?;
        let flushed = self.paths.queue_flushed();
        remove_if_present(disk, &flushed).map_err(failed("remove", &flushed))?;
        if was_clean {
            let abort = self.paths.abort();
            write_file(disk, &abort, std::process::id().to_string().as_bytes()).map_err(failed("create", &abort))?;
        }
        for directory in [self.paths.own(), self.paths.root.clone()] {
            disk.sync_directory(&directory).map_err(failed("sync", &directory))?;
        }
        for place in places {
            let below = |root: &Path| -> PathBuf { root.components().chain(place.components()).collect() };
            let (from, to) = (below(new), below(&self.paths.consume_queue()));
            self.save_aside(&to)?;
            if disk.exists(&from).map_err(failed("look for", &from))? {
                move_tree(disk, &from, &to)?;
            }
        }
        if disk.exists(new).map_err(failed("look for", new))? {
            remove_tree(disk, new)?;
        }
        disk.sync_file_system(&self.paths.root).map_err(failed("sync", &self.paths.root))
    }

    fn index(&mut self, clock: &Arc<dyn Clock>, progress: &mut dyn Progress) -> Result<(), RepairError> {
        let disk = &**self.disk;
        let mut scratch = Audit::default();
        let scene = self.scene(&mut scratch)?;
        let survey = survey(disk, self.paths, self.options.audit.segment_bytes, &mut scratch.findings)?;
        self.make_room()?;
        let new = self.room.join("new-index");
        create_directories_durably(disk, &new).map_err(failed("create", &new))?;
        let geometry = self.options.audit.index;
        let mut index = IndexService::open(Arc::clone(self.disk), Arc::clone(clock), &new, geometry, LastStop::Clean)?;
        let mut outcome: Result<(), IndexError> = Ok(());
        let mut records = 0;
        walk(&scene, &survey, PhysicalOffset(0), progress, &mut |view, _| {
            let physical = PhysicalOffset(u64::try_from(view.physical_offset()).unwrap_or(0));
            let time = StoreTimestamp(u64::try_from(view.store_timestamp()).unwrap_or(0));
            if outcome.is_ok() {
                outcome = index.put_record(view, physical, time);
                records += 1;
            }
            Ok(())
        })?;
        outcome?;
        let last = index.flush()?;
        drop(index);
        self.done.indexed_records = records;
        let place = self.paths.index();
        self.save_aside(&place)?;
        let disk = &**self.disk;
        move_tree(disk, &new, &place)?;
        disk.sync_file_system(&self.paths.root).map_err(failed("sync", &self.paths.root))?;
        let path = self.paths.checkpoint();
        let (mut file, mut checkpoint) = CheckpointFile::open(disk, self.paths).map_err(failed("open", &path))?;
        let time_ms = last.map_or(0, |last| i64::try_from(last.store_timestamp.0).unwrap_or(0));
        checkpoint.index_timestamp_ms = time_ms;
        file.store(&checkpoint).map_err(failed("write", &path))
    }

    /// Takes back times that are ahead of the log.
    fn checkpoint(&mut self, found: &Audit) -> Result<(), RepairError> {
        let (disk, path) = (&**self.disk, self.paths.checkpoint());
        if !disk.exists(&path).map_err(failed("look for", &path))? {
            return Ok(());
        }
        let (mut file, before) = CheckpointFile::open(disk, self.paths).map_err(failed("open", &path))?;
        let last_ms = found.figures.last_store_timestamp_ms;
        let mut after = before;
        for time_ms in [&mut after.physic_timestamp_ms, &mut after.logics_timestamp_ms, &mut after.index_timestamp_ms] {
            *time_ms = (*time_ms).clamp(0, last_ms.max(0));
        }
        if after != before {
            file.store(&after).map_err(failed("write", &path))?;
            self.done.messages.push("took back times of the checkpoint that were ahead of the log".to_string());
        }
        Ok(())
    }

    fn write_instructions(&mut self) -> Result<(), RepairError> {
        if self.done.saved.is_empty() {
            return Ok(());
        }
        let path = self.room.join("restore.txt");
        let mut text = String::from(
            "A repair has put these aside. To go back: stop the broker, move away what is in the old place now, then\n\n",
        );
        for SavedAside { from, to } in &self.done.saved {
            text.push_str(&format!("mv '{}' '{}'\n", to.display(), from.display()));
        }
        if let Some(cut) = self.done.cut.as_ref().filter(|cut| cut.bytes > 0) {
            text.push_str(&format!(
                "\nThe log was cut at offset {}; the {} bytes behind it are in '{}'.\n",
                cut.from,
                cut.bytes,
                cut.saved_to.display()
            ));
        }
        text.push_str("\nWhen the store serves as it should, this folder can be deleted.\n");
        write_file(&**self.disk, &path, text.as_bytes()).map_err(failed("write", &path))?;
        self.disk.sync_directory(&self.room).map_err(failed("sync", &self.room))?;
        self.done.instructions = Some(path);
        Ok(())
    }
}

/// Renames a file; one that is there already is not replaced.
fn move_file(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), RepairError> {
    if disk.exists(to).map_err(failed("look for", to))? {
        return Err(failed("replace", to)(io::ErrorKind::AlreadyExists.into()));
    }
    disk.rename(from, to).map_err(failed("rename", from))
}

/// Removes a folder with everything in it.
fn remove_tree(disk: &dyn Disk, path: &Path) -> Result<(), RepairError> {
    for entry in disk.list(path).map_err(failed("list", path))? {
        let path = path.join(&entry.name);
        match entry.is_directory {
            true => remove_tree(disk, &path)?,
            false => disk.remove_file(&path).map_err(failed("remove", &path))?,
        }
    }
    disk.remove_directory(path).map_err(failed("remove", path))
}

/// Moves a file, or a folder with everything in it, by renaming files: a folder that is there already is filled.
fn move_tree(disk: &dyn Disk, from: &Path, to: &Path) -> Result<(), RepairError> {
    let parent = to.parent().unwrap_or(Path::new("."));
    let entries = match disk.list(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            create_directories_durably(disk, parent).map_err(failed("create", parent))?;
            return move_file(disk, from, to);
        }
        Err(source) => return Err(failed("list", from)(source)),
    };
    disk.create_directories(to).map_err(failed("create", to))?;
    for entry in entries {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_directory {
            move_tree(disk, &from, &to)?;
        } else {
            move_file(disk, &from, &to)?;
        }
    }
    disk.remove_directory(from).map_err(failed("remove", from))
}
