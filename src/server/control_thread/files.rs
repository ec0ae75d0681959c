//! State files: written when they change, and again with every tick while they could not be.

use std::sync::mpsc::TryRecvError;

use super::*;
use crate::broker::groups::GroupsBefore;
use crate::broker::topics::TopicsBefore;
use crate::server::trouble::Trouble;

/// A state file whose last content could not be written.
pub(super) struct Unwritten {
    bytes: Vec<u8>,
    /// Why.
    pub(super) error: String,
    trouble: Trouble,
}

const TROUBLE: Trouble = Trouble::new(
    "a state file could not be written; it is tried again until it can",
    "a state file is written that could not be",
);

impl ControlThread {
    /// Writes a state file; if that fails, again with every tick until it works.
    pub(super) fn persist(&mut self, path: &std::path::Path, bytes: &[u8]) {
        let is_json_file = path.extension().is_some_and(|extension| extension == "json");
        let is_valid = |content: &[u8]| !is_json_file || is_json(content);
        let disk = self.disk.as_ref();
        let write = || StateFile::new(path).persist(disk, bytes, is_valid);
        let written = match &mut self.broker {
            Some(broker) => broker.reserve.write(disk, write),
            None => write(),
        };
        let mut trouble = self.unwritten.remove(path).map_or(TROUBLE, |unwritten| unwritten.trouble);
        let error = written.as_ref().err().map(ToString::to_string);
        trouble.note(written);
        if let Some(error) = error {
            self.unwritten.insert(path.to_path_buf(), Unwritten { bytes: bytes.to_vec(), error, trouble });
        }
    }

    /// Tries again what could not be written, and takes the reserve back.
    pub(super) fn write_unwritten(&mut self) {
        let unwritten: Vec<_> =
            self.unwritten.iter().map(|(path, unwritten)| (path.clone(), unwritten.bytes.clone())).collect();
        for (path, bytes) in unwritten {
            self.persist(&path, &bytes);
        }
        self.write_barriers();
        self.refill_reserve();
    }

    pub(super) fn refill_reserve(&mut self) {
        if let Some(broker) = &mut self.broker
            && let Err(error) = broker.reserve.refill(self.disk.as_ref())
        {
            tracing::debug!(%error, "no room can be kept back for state files");
        }
    }

    /// Writes state files that are due: topics and groups before anybody uses them, offsets by the flush thread.
    pub(super) fn write_state(&mut self, at_stop: bool) {
        let offsets_failed = self.offsets_failed(at_stop);
        let steady_ms = self.now().steady_ms;
        let Some(broker) = &mut self.broker else { return };
        if offsets_failed {
            broker.control.offsets.note_unwritten(true);
        }
        let files = if at_stop { broker.control.last_files() } else { broker.control.dirty_files(steady_ms) };
        let directory = broker.state_directory.clone();
        for (name, bytes) in files {
            let path = directory.join(name);
            // What the flush thread cannot write is written here, where the reserve is.
            let later = name == OFFSETS_FILE && !at_stop && !offsets_failed && !self.unwritten.contains_key(&path);
            if later {
                self.write_offsets_later(path, bytes);
            } else {
                self.persist(&path, &bytes);
            }
        }
    }

    /// Writes the topics if they are not those of `before`. On failure they become those again, also in what is left to be written;
    /// so they do when one of them could not be served yet.
    pub(super) fn write_topics(&mut self, before: TopicsBefore) -> Result<(), String> {
        let wall_ms = self.clock.now_ms();
        let Some(broker) = &mut self.broker else { return Ok(()) };
        if !broker.control.topics.differ_from(&before) {
            return Ok(());
        }
        if self.unfenced.iter().flat_map(Unfenced::topics).any(|topic| broker.control.topics.contains(topic)) {
            broker.control.topics.restore(before, wall_ms);
            return Err("the topic was just deleted and that is not on disk: the log is stuck, or there is no room; try again later".to_owned());
        }
        self.write_table(TOPICS_FILE, "topics", |control, wall_ms| control.topics.restore(before, wall_ms))
    }

    /// The same for groups.
    pub(super) fn write_groups(&mut self, before: GroupsBefore) -> Result<(), String> {
        if !self.broker.as_ref().is_some_and(|broker| broker.control.groups.differ_from(&before)) {
            return Ok(());
        }
        self.write_table(GROUPS_FILE, "groups", |control, wall_ms| control.undo_groups(before, wall_ms))
    }

    /// Writes a table that has changed, or undoes the change.
    fn write_table(&mut self, file: &str, name: &str, undo: impl FnOnce(&mut Control, u64)) -> Result<(), String> {
        self.write_state(false);
        let wall_ms = self.clock.now_ms();
        let Some(broker) = &mut self.broker else { return Ok(()) };
        let Some(unwritten) = self.unwritten.get(&broker.state_directory.join(file)) else { return Ok(()) };
        let remark = format!("the table of {name} cannot be changed: {}; try again later", unwritten.error);
        undo(&mut broker.control, wall_ms);
        self.write_state(false);
        Err(remark)
    }

    /// Hands the consumer offsets to the flush thread; if it is busy they stay due.
    fn write_offsets_later(&mut self, path: PathBuf, bytes: Vec<u8>) {
        let Some(broker) = &mut self.broker else { return };
        let (sender, outcome) = channel();
        if self.offsets_outcome.is_some() {
            tracing::debug!("the consumer offsets before are not written yet");
            broker.control.offsets.note_unwritten(false);
        } else if let Err(error) = broker.flush.try_send(FlushRequest::Persist { path, bytes, outcome: sender }) {
            tracing::warn!(%error, "consumer offsets are written later: the flush thread is busy");
            broker.control.offsets.note_unwritten(false);
        } else {
            self.offsets_outcome = Some(outcome);
        }
    }

    /// Whether the flush thread has failed to write what it was given; `waits` until it has said so.
    fn offsets_failed(&mut self, waits: bool) -> bool {
        let Some(outcome) = &self.offsets_outcome else { return false };
        let written = match (waits, outcome.try_recv()) {
            (true, Err(TryRecvError::Empty)) => outcome.recv().ok(),
            (false, Err(TryRecvError::Empty)) => return false,
            (_, written) => written.ok(),
        };
        self.offsets_outcome = None;
        if let Some(Err(error)) = &written {
            tracing::debug!(%error, "consumer offsets were not written; they are tried again with the reserve");
        }
        !matches!(written, Some(Ok(())))
    }

    /// Everything that is not on disk yet, for the last time. False if something is lost.
    pub(super) fn write_last(&mut self) -> bool {
        self.write_unwritten();
        self.go_on_with_deletions();
        self.write_state(true);
        for (path, unwritten) in &self.unwritten {
            let (path, error) = (path.display(), &unwritten.error);
            tracing::error!(%path, error, "a state file could not be written before the end; its last changes are lost");
        }
        self.unwritten.is_empty()
    }
}
