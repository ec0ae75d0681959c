//! State files on their way to the persister: what is to be written next, what could not be written and is tried again with every
//! tick, and who waits for what.

use std::path::Path;
use std::sync::mpsc::TryRecvError;

use super::*;
use crate::server::persister::{Content, Order, Persister, Written};
use crate::server::trouble::Trouble;

/// State files, of which the newest content counts.
pub(super) struct StateFiles {
    persister: Persister,
    /// What the persister gets when it is free: a file is in here once.
    next: Vec<Order>,
    is_writing: bool,
    last_ticket: u64,
    /// The newest order of each file that is not done.
    outstanding: BTreeMap<PathBuf, u64>,
    /// What could not be written, for want of space as a rule.
    unwritten: BTreeMap<PathBuf, Unwritten>,
}

/// A state file whose last content could not be written.
struct Unwritten {
    content: Content,
    error: String,
    trouble: Trouble,
}

/// Files that somebody waits for.
#[derive(Debug, Default)]
pub(super) struct Needs {
    files: Vec<(PathBuf, u64)>,
    /// The first that could not be written, and why.
    pub(super) failure: Option<(PathBuf, String)>,
}

const TROUBLE: Trouble = Trouble::new(
    "a state file could not be written; it is tried again until it can",
    "a state file is written that could not be",
);

const BARRIERS_TROUBLE: Trouble = Trouble::new(
    "deleted topics come back after a crash, and none of their names can be used, until this can be written",
    "what tells that topics are deleted is written",
);

impl Needs {
    /// One more file.
    pub(super) fn add(&mut self, path: PathBuf, ticket: u64) {
        self.files.push((path, ticket));
    }

    /// Whether nothing is waited for any more.
    pub(super) fn are_met(&self) -> bool {
        self.files.is_empty()
    }

    /// Takes note of what was written, or could not be. A later content of the same file will do as well.
    pub(super) fn note(&mut self, batch: &[Written]) {
        for Written { order, outcome } in batch {
            let before = self.files.len();
            self.files.retain(|(path, ticket)| *path != order.path || *ticket > order.ticket);
            if let (true, Err(error), None) = (self.files.len() < before, outcome, &self.failure) {
                self.failure = Some((order.path.clone(), error.to_string()));
            }
        }
    }
}

impl StateFiles {
    pub(super) fn new(persister: Persister) -> Self {
        Self {
            persister,
            next: Vec::new(),
            is_writing: false,
            last_ticket: 0,
            outstanding: BTreeMap::new(),
            unwritten: BTreeMap::new(),
        }
    }

    /// Has a file written, after all that were ordered before. Returns the number of the order.
    pub(super) fn order(&mut self, path: &Path, content: Content) -> u64 {
        self.last_ticket += 1;
        let ticket = self.last_ticket;
        self.next.retain(|order| order.path != path);
        self.next.push(Order { ticket, path: path.to_path_buf(), content });
        self.outstanding.insert(path.to_path_buf(), ticket);
        self.begin();
        ticket
    }

    /// Gives the persister what there is, if it is free.
    fn begin(&mut self) {
        if !self.is_writing && !self.next.is_empty() {
            self.is_writing = self.persister.order(std::mem::take(&mut self.next));
        }
    }

    /// Lets the persister look after its reserve, if it has nothing better to do.
    pub(super) fn look_after_reserve(&mut self) {
        if !self.is_writing {
            self.is_writing = self.persister.order(std::mem::take(&mut self.next));
        }
    }

    /// Tries again what could not be written.
    pub(super) fn try_again(&mut self) {
        let failed: Vec<_> = self.unwritten.iter().map(|(path, file)| (path.clone(), file.content.clone())).collect();
        for (path, content) in failed {
            if !self.outstanding.contains_key(&path) {
                self.order(&path, content);
            }
        }
    }

    /// The order of this file that is not done yet, if there is one.
    pub(super) fn outstanding(&self, path: &Path) -> Option<u64> {
        self.outstanding.get(path).copied()
    }

    /// A batch that is done, if there is one; `waits` for it while there is one under way.
    pub(super) fn written(&mut self, waits: bool) -> Option<Vec<Written>> {
        if !self.is_writing {
            return None;
        }
        let batch = match (waits, self.persister.try_written()) {
            (_, Ok(batch)) => Some(batch),
            (true, Err(TryRecvError::Empty)) => self.persister.wait_written(),
            (false, Err(TryRecvError::Empty)) => return None,
            (_, Err(TryRecvError::Disconnected)) => None,
        };
        // Without the thread nothing is written any more; its panic was told of.
        self.is_writing = batch.is_none();
        for written in batch.iter().flatten() {
            self.note(written);
        }
        self.begin();
        batch
    }

    fn note(&mut self, Written { order, outcome }: &Written) {
        let path = &order.path;
        if self.outstanding.get(path) == Some(&order.ticket) {
            self.outstanding.remove(path);
        }
        let new = if matches!(order.content, Content::Barriers) { BARRIERS_TROUBLE } else { TROUBLE };
        let mut trouble = self.unwritten.remove(path).map_or(new, |unwritten| unwritten.trouble);
        let error = outcome.as_ref().err().map(ToString::to_string);
        trouble.note(error.clone().map_or(Ok(()), Err));
        if let Some(error) = error {
            let content = order.content.clone();
            self.unwritten.insert(path.clone(), Unwritten { content, error, trouble });
        }
    }

    /// Says what is lost at the end. False if there is something.
    pub(super) fn end(&self) -> bool {
        for (path, unwritten) in &self.unwritten {
            let (path, error) = (path.display(), &unwritten.error);
            tracing::error!(%path, error, "a state file could not be written before the end; its last changes are lost");
        }
        self.unwritten.is_empty() && self.outstanding.is_empty()
    }
}

impl ControlThread {
    /// Has a state file written that the answer to the request at hand waits for.
    pub(super) fn persist(&mut self, path: &Path, bytes: &[u8]) {
        let ticket = self.files.order(path, Content::Bytes(bytes.to_vec()));
        self.awaited.add(path.to_path_buf(), ticket);
    }

    /// Has state files written that are due: topics and groups, unless newer ones are on their way, and offsets.
    pub(super) fn write_state(&mut self, at_stop: bool) {
        let steady_ms = if at_stop { u64::MAX } else { self.now().steady_ms };
        let tables_wait = self.changes.is_busy();
        let Some(broker) = &mut self.broker else { return };
        let mut files = if tables_wait { Vec::new() } else { broker.control.dirty_tables() };
        files.extend(broker.control.dirty_offsets(steady_ms));
        for (name, bytes) in files {
            self.files.order(&broker.state_directory.join(name), Content::Bytes(bytes));
        }
    }

    /// Goes on with whatever waited for files that are written now, or could not be.
    pub(super) fn take_written(&mut self) {
        while let Some(batch) = self.files.written(false) {
            self.go_on_after(&batch);
        }
    }

    /// Waits until all is written that was ordered.
    pub(super) fn settle(&mut self) {
        while let Some(batch) = self.files.written(true) {
            self.go_on_after(&batch);
        }
    }

    fn go_on_after(&mut self, batch: &[Written]) {
        self.note_barriers(batch);
        self.go_on_with_deletions();
        self.answer_awaited(batch);
        self.go_on_with_changes(batch);
    }

    /// Everything that is not on disk yet, for the last time. False if something is lost.
    pub(super) fn write_last(&mut self) -> bool {
        self.settle();
        self.files.try_again();
        self.settle();
        self.go_on_with_deletions();
        self.write_state(true);
        self.settle();
        self.files.end()
    }
}
