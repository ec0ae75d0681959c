//! A file system in memory that knows what would survive a power cut.
//!
//! Each file has live content (what readers see) and durable content (what was synced), and between them the changes
//! in order, as images of whole 512-byte sectors. Names are kept the same way: creating, renaming and removing become
//! durable by syncing a directory that they touch. [`SimDisk::crash`] decides what became of the rest. Clones of a
//! `SimDisk` are handles of one disk; `crash` and `kill` make an independent one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::SimRandom;
use super::content::{Change, Content, SECTOR_BYTES};
use super::faults::{Fault, FaultAction, Faults, Operation, OperationKind, Verdict, power_cut};
use crate::disk::{DIRECT_ALIGNMENT, DirectoryEntry, Disk, DiskFile, DiskSpace, LockOutcome, OpenOptions};

/// What a power cut does to changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPattern {
    /// All of them are lost.
    KeepNone,
    /// All of them arrived.
    KeepAll,
    /// Each write and each name arrived or not.
    SomeWrites,
    /// Each sector of each write arrived or not, and each name.
    SomeSectors,
    /// All arrived but the last write, of which only some first sectors did.
    TornLastWrite,
}

impl CrashPattern {
    /// Every pattern, for tests that try all.
    pub const ALL: [Self; 5] =
        [Self::KeepNone, Self::KeepAll, Self::SomeWrites, Self::SomeSectors, Self::TornLastWrite];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Directory,
}

/// A change of names that a power cut may undo: one name goes, one comes, or both.
#[derive(Debug, Clone)]
struct NameChange {
    removed: Option<PathBuf>,
    added: Option<(PathBuf, Node)>,
}

impl NameChange {
    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.removed.as_deref().into_iter().chain(self.added.as_ref().map(|(path, _)| path.as_path()))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(path) = &self.removed {
            names.remove(path);
        }
        if let Some((path, node)) = &self.added {
            names.insert(path.clone(), *node);
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Inode {
    live: Content,
    durable: Content,
    pending: Vec<Change>,
    allocated: u64,
    locked: bool,
    modified_ms: u64,
}

impl Inode {
    /// Bytes of the disk that it takes.
    fn blocks(&self) -> u64 {
        self.allocated + self.live.page_bytes_from(self.allocated, u64::MAX)
    }

    /// Bytes that it takes more after a write.
    fn growth(&self, offset: u64, length: u64) -> u64 {
        let page = DIRECT_ALIGNMENT;
        let from = offset.max(self.allocated);
        let (start, end) = (from - from % page, (offset + length).next_multiple_of(page));
        end.saturating_sub(start).saturating_sub(self.live.page_bytes_from(start, end))
    }

    /// Clean pages inside `[start, end)` show what the disk has. Dirty ones stay, as on Linux.
    fn forget_clean_pages(&mut self, start: u64, end: u64) {
        let end = end.min(self.live.length().next_multiple_of(DIRECT_ALIGNMENT));
        let mut page = vec![0; DIRECT_ALIGNMENT as usize];
        let first = start.next_multiple_of(DIRECT_ALIGNMENT);
        for from in (first..end).step_by(DIRECT_ALIGNMENT as usize) {
            let to = from + DIRECT_ALIGNMENT;
            if to <= end && !self.pending.iter().any(|change| change.overlaps(from, to)) {
                self.durable.read(&mut page, from);
                self.live.place(&page, from);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
struct State {
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    name_changes: Vec<NameChange>,
    inodes: Vec<Inode>,
    faults: Faults,
    sequence: u64,
    capacity: Option<u64>,
    now_ms: u64,
}

/// An in-memory disk. See the module's description.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    hanging: Arc<Hanging>,
}

/// Files that cannot be opened for the time being: whoever tries waits.
#[derive(Debug, Default)]
struct Hanging {
    path_contains: Mutex<Option<String>>,
    over: Condvar,
}

struct SimFile {
    state: Arc<Mutex<State>>,
    inode: usize,
    path: PathBuf,
    options: OpenOptions,
    holds_lock: Mutex<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failed(action: FaultAction) -> io::Error {
    match action {
        FaultAction::Fail(errno) | FaultAction::ShortWrite { errno, .. } => io::Error::from_raw_os_error(errno),
        FaultAction::Lie => io::Error::other("only syncs and synced writes can lie"),
    }
}

fn is_root(path: &Path) -> bool {
    path.parent().is_none() || path.as_os_str() == "."
}

fn parent_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl State {
    fn node(&self, path: &Path) -> io::Result<Node> {
        if is_root(path) {
            return Ok(Node::Directory);
        }
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.node(path)? {
            Node::File(inode) => Ok(inode),
            Node::Directory => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.name_changes.push(change);
    }

    fn children<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Node)> {
        self.names.iter().filter(move |(child, _)| child.parent() == Some(path))
    }

    /// Bytes of files that still have a name: what was allocated, and pages that were written elsewhere.
    fn used(&self) -> u64 {
        let named = self.names.values().filter_map(|node| match node {
            Node::File(inode) => Some(*inode),
            Node::Directory => None,
        });
        named.map(|inode| self.inodes[inode].blocks()).sum()
    }

    /// Whether there is room for a write. Only a write past what was allocated can lack it.
    fn has_room(&self, inode: usize, offset: u64, length: u64) -> bool {
        let Some(capacity) = self.capacity else { return true };
        let growth = self.inodes[inode].growth(offset, length);
        growth == 0 || self.used() + growth <= capacity
    }

    /// Makes the names durable that a synced directory covers, and whatever earlier change they build upon.
    fn sync_names(&mut self, directory: &Path) {
        let mut needed: BTreeSet<PathBuf> = BTreeSet::new();
        let mut kept = Vec::new();
        let mut durable = Vec::new();
        for change in std::mem::take(&mut self.name_changes).into_iter().rev() {
            let covered = change.paths().any(|path| parent_of(path) == directory || needed.contains(path));
            if covered {
                needed.extend(change.paths().map(Path::to_path_buf));
                durable.push(change);
            } else {
                kept.push(change);
            }
        }
        durable.iter().rev().for_each(|change| change.apply(&mut self.durable_names));
        kept.reverse();
        self.name_changes = kept;
    }

    /// Makes the sectors of a range durable, as write-back of pages does; other sectors of the same writes stay pending. A
    /// change of the length goes with everything before it.
    fn flush_range(inode: &mut Inode, start: u64, end: u64) {
        let (start, end) = (start - start % SECTOR_BYTES, end.next_multiple_of(SECTOR_BYTES));
        let ordered = inode.pending.iter().rposition(|change| change.sequence().is_none()).map_or(0, |last| last + 1);
        for change in inode.pending.drain(..ordered) {
            change.apply(&mut inode.durable, |_| true);
        }
        let mut pending = Vec::with_capacity(inode.pending.len());
        for change in std::mem::take(&mut inode.pending) {
            if !change.overlaps(start, end) {
                pending.push(change);
                continue;
            }
            change.apply_within(&mut inode.durable, start, end);
            pending.extend(change.outside(start, end));
        }
        inode.pending = pending;
    }

    fn write(&mut self, inode: usize, data: &[u8], offset: u64, durable: bool) {
        if data.is_empty() {
            return;
        }
        self.sequence += 1;
        let sequence = self.sequence;
        let now_ms = self.now_ms;
        let inode = &mut self.inodes[inode];
        inode.modified_ms = now_ms;
        inode.live.write(data, offset);
        let start = offset - offset % SECTOR_BYTES;
        let end = (offset + data.len() as u64).next_multiple_of(SECTOR_BYTES);
        let mut sectors = vec![0; (end - start) as usize];
        inode.live.read(&mut sectors, start);
        // The image of the last sector may hold bytes of an older, longer write: the length covers what it shows.
        let length_after = inode.live.length().min(end);
        let change = Change::Write { sequence, offset: start, sectors, length_after };
        if durable {
            // Older changes of the same sectors are inside this image; applied later they would undo it.
            Self::flush_range(inode, start, end);
            change.apply(&mut inode.durable, |_| true);
        } else {
            inode.pending.push(change);
        }
    }
}

/// Which pending changes of names a crash keeps: a dropped change drops all later ones that touch its paths.
fn crash_names(state: &State, random: &mut SimRandom, pattern: CrashPattern, odds: u64) -> BTreeMap<PathBuf, Node> {
    let mut names = state.durable_names.clone();
    let mut lost: BTreeSet<&Path> = BTreeSet::new();
    for change in &state.name_changes {
        let keep = match pattern {
            CrashPattern::KeepNone => false,
            CrashPattern::KeepAll | CrashPattern::TornLastWrite => true,
            CrashPattern::SomeWrites | CrashPattern::SomeSectors => random.chance(odds, 8),
        };
        if keep && !change.paths().any(|path| lost.contains(path)) {
            change.apply(&mut names);
        } else {
            lost.extend(change.paths());
        }
    }
    let mut reachable: BTreeMap<PathBuf, Node> = BTreeMap::new();
    for (path, node) in names {
        if is_root(parent_of(&path)) || reachable.get(parent_of(&path)) == Some(&Node::Directory) {
            reachable.insert(path, node);
        }
    }
    reachable
}

fn crash_content(inode: &Inode, random: &mut SimRandom, pattern: CrashPattern, odds: u64, last: u64) -> Content {
    let mut content = inode.durable.clone();
    for change in &inode.pending {
        match pattern {
            CrashPattern::KeepNone => {}
            CrashPattern::KeepAll => change.apply(&mut content, |_| true),
            CrashPattern::SomeWrites => {
                let keep = random.chance(odds, 8);
                change.apply(&mut content, |_| keep);
            }
            CrashPattern::SomeSectors => change.apply(&mut content, |_| random.chance(odds, 8)),
            CrashPattern::TornLastWrite if change.sequence() == Some(last) => {
                let kept = random.below(change.sector_count() as u64) as usize;
                change.apply(&mut content, |sector| sector < kept);
            }
            CrashPattern::TornLastWrite => change.apply(&mut content, |_| true),
        }
    }
    content
}

impl SimDisk {
    /// An empty disk of unlimited size.
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk after a power cut now. The seed decides what the pattern leaves open.
    pub fn crash(&self, seed: u64, pattern: CrashPattern) -> Self {
        let state = lock(&self.state);
        let mut random = SimRandom::new(seed);
        let odds = [1, 4, 7][random.below(3) as usize];
        let last = state.inodes.iter().flat_map(|inode| inode.pending.iter().filter_map(Change::sequence)).max();
        let last = last.unwrap_or_default();
        let names = crash_names(&state, &mut random, pattern, odds);
        let after = |inode: &Inode| {
            let content = crash_content(inode, &mut random, pattern, odds, last);
            let allocated = inode.allocated.min(content.length());
            let modified_ms = inode.modified_ms;
            Inode {
                live: content.clone(),
                durable: content,
                pending: Vec::new(),
                allocated,
                locked: false,
                modified_ms,
            }
        };
        let inodes = state.inodes.iter().map(after).collect();
        let crashed = State {
            durable_names: names.clone(),
            names,
            inodes,
            sequence: state.sequence,
            capacity: state.capacity,
            now_ms: state.now_ms,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(crashed)), hanging: Arc::default() }
    }

    /// The disk after the process died: every completed write is there, but what was not synced is still at risk.
    pub fn kill(&self) -> Self {
        let mut state = lock(&self.state).clone();
        state.faults = Faults::default();
        state.inodes.iter_mut().for_each(|inode| inode.locked = false);
        Self { state: Arc::new(Mutex::new(state)), hanging: Arc::default() }
    }

    /// Lets `mutations` more changing operations complete; the power goes during the one after. That one is in flight
    /// and answers an error, as does everything later. Follow with [`SimDisk::crash`].
    pub fn halt_after(&self, mutations: u64) {
        let faults = &mut lock(&self.state).faults;
        faults.halt_after = Some(faults.mutations + mutations);
    }

    /// Orders a fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.state).faults.faults.push(fault);
    }

    /// Takes back all faults.
    pub fn clear_faults(&self) {
        lock(&self.state).faults.faults.clear();
    }

    /// Limits the bytes that files can take in total; `None` lifts the limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.state).capacity = bytes;
    }

    /// All operations since the disk was made, in order.
    pub fn operations(&self) -> Vec<Operation> {
        lock(&self.state).faults.log.clone()
    }

    /// How many operations of a kind there were.
    pub fn count(&self, kind: OperationKind) -> u64 {
        lock(&self.state).faults.log.iter().filter(|operation| operation.kind == kind).count() as u64
    }

    /// How many operations changed, or tried to change, anything.
    pub fn mutations(&self) -> u64 {
        lock(&self.state).faults.mutations
    }

    /// Paths of all files and directories.
    pub fn paths(&self) -> Vec<PathBuf> {
        lock(&self.state).names.keys().cloned().collect()
    }

    /// Overwrites bytes at rest, durably and behind everyone's back: damage of the medium.
    pub fn damage(&self, path: &Path, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let inode = state.file(path)?;
        state.inodes[inode].live.write(data, offset);
        state.inodes[inode].durable.write(data, offset);
        Ok(())
    }

    /// From now on whoever opens a file whose path contains this text waits until [`Self::go_on`].
    pub fn hang(&self, path_contains: &str) {
        *lock(&self.hanging.path_contains) = Some(path_contains.to_owned());
    }

    /// Ends what [`Self::hang`] began.
    pub fn go_on(&self) {
        *lock(&self.hanging.path_contains) = None;
        self.hanging.over.notify_all();
    }

    /// Notes an operation on names; `Ok(true)` means that the caller hears of a power cut after the effect.
    fn begin(&self, state: &mut State, kind: OperationKind, path: &Path, mutates: bool) -> io::Result<bool> {
        match state.faults.begin(kind, path, 0, 0, mutates)? {
            Verdict::Proceed => Ok(false),
            Verdict::InFlight => Ok(true),
            Verdict::Fail(action) => Err(failed(action)),
        }
    }
}

/// The answer to an operation whose effect took place, perhaps while the power went.
fn finish<T>(in_flight: bool, value: T) -> io::Result<T> {
    if in_flight { Err(power_cut()) } else { Ok(value) }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, options: OpenOptions) -> io::Result<Box<dyn DiskFile>> {
        let hangs = |text: &mut Option<String>| text.as_ref().is_some_and(|text| path.to_string_lossy().contains(text));
        let waited = self.hanging.over.wait_while(lock(&self.hanging.path_contains), hangs);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        let mut state = lock(&self.state);
        let found = state.file(path);
        let creates = options.create && found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        let in_flight = self.begin(&mut state, OperationKind::Open, path, creates)?;
        let inode = if creates {
            if state.node(parent_of(path))? != Node::Directory {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            state.inodes.push(Inode::default());
            let inode = state.inodes.len() - 1;
            state.change_names(NameChange { removed: None, added: Some((path.to_path_buf(), Node::File(inode))) });
            inode
        } else {
            found?
        };
        let (state, path) = (self.state.clone(), path.to_path_buf());
        let file = SimFile { state, inode, path, options, holds_lock: Mutex::new(false) };
        finish(in_flight, Box::new(file))
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirectoryEntry>> {
        let mut state = lock(&self.state);
        self.begin(&mut state, OperationKind::Read, path, false)?;
        if state.node(path)? != Node::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let entry = |(child, node): (&PathBuf, &Node)| DirectoryEntry {
            name: child.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            length: if let Node::File(inode) = node { state.inodes[*inode].live.length() } else { 0 },
            is_directory: *node == Node::Directory,
            modified_ms: if let Node::File(inode) = node { Some(state.inodes[*inode].modified_ms) } else { None },
        };
        Ok(state.children(path).map(entry).collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = lock(&self.state);
        self.begin(&mut state, OperationKind::Read, path, false)?;
        Ok(state.node(path).is_ok())
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        let missing: Vec<PathBuf> = path
            .ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty() && state.node(ancestor).is_err())
            .map(Path::to_path_buf)
            .collect();
        let in_flight = self.begin(&mut state, OperationKind::CreateDirectory, path, !missing.is_empty())?;
        for directory in missing.into_iter().rev() {
            state.change_names(NameChange { removed: None, added: Some((directory, Node::Directory)) });
        }
        match state.node(path)? {
            Node::Directory => finish(in_flight, ()),
            Node::File(_) => Err(io::ErrorKind::AlreadyExists.into()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        let in_flight = self.begin(&mut state, OperationKind::Remove, path, true)?;
        state.file(path)?;
        state.change_names(NameChange { removed: Some(path.to_path_buf()), added: None });
        finish(in_flight, ())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        let in_flight = self.begin(&mut state, OperationKind::Remove, path, true)?;
        if state.node(path)? != Node::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if state.children(path).next().is_some() {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        state.change_names(NameChange { removed: Some(path.to_path_buf()), added: None });
        finish(in_flight, ())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        let in_flight = self.begin(&mut state, OperationKind::Rename, from, true)?;
        let inode = state.file(from)?;
        if state.node(parent_of(to))? != Node::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        let added = Some((to.to_path_buf(), Node::File(inode)));
        state.change_names(NameChange { removed: Some(from.to_path_buf()), added });
        finish(in_flight, ())
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        if self.begin(&mut state, OperationKind::SyncDirectory, path, true)? {
            return Err(power_cut());
        }
        if state.node(path)? != Node::Directory {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        state.sync_names(path);
        Ok(())
    }

    fn sync_file_system(&self, path: &Path) -> io::Result<()> {
        let mut state = lock(&self.state);
        if self.begin(&mut state, OperationKind::Sync, path, true)? {
            return Err(power_cut());
        }
        for inode in state.inodes.iter_mut() {
            for change in std::mem::take(&mut inode.pending) {
                change.apply(&mut inode.durable, |_| true);
            }
        }
        state.durable_names = state.names.clone();
        state.name_changes.clear();
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<DiskSpace> {
        let state = lock(&self.state);
        let total = state.capacity.unwrap_or(1 << 50);
        let used = state.used();
        Ok(DiskSpace { total, available: total.saturating_sub(used), used })
    }
}

impl SimFile {
    fn check_direct(&self, memory: &[u8], offset: u64) {
        if self.options.direct {
            let aligned = |value: u64| value.is_multiple_of(DIRECT_ALIGNMENT);
            let address = memory.as_ptr() as u64;
            assert!(
                aligned(offset) && aligned(memory.len() as u64) && aligned(address),
                "unaligned direct access of {}: offset {offset}, length {}",
                self.path.display(),
                memory.len()
            );
        }
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.options.write || self.options.create {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(libc::EBADF))
    }

    fn set_length_to(&self, kind: OperationKind, length: u64, shrink: bool, allocate: bool) -> io::Result<()> {
        self.check_writable()?;
        let mut state = lock(&self.state);
        let verdict = state.faults.begin(kind, &self.path, 0, length, true)?;
        if let Verdict::Fail(action) = verdict {
            return Err(failed(action));
        }
        if allocate {
            let growth = length.saturating_sub(state.inodes[self.inode].allocated);
            if state.capacity.is_some_and(|capacity| state.used() + growth > capacity) {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
        }
        let now_ms = state.now_ms;
        let inode = &mut state.inodes[self.inode];
        inode.modified_ms = now_ms;
        if shrink || length > inode.live.length() {
            inode.live.set_length(length);
            inode.pending.push(Change::SetLength(length));
        }
        inode.allocated = if allocate { inode.allocated.max(length) } else { inode.allocated.min(length) };
        finish(matches!(verdict, Verdict::InFlight), ())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_direct(buffer, offset);
        let mut state = lock(&self.state);
        let verdict = state.faults.begin(OperationKind::Read, &self.path, offset, buffer.len() as u64, false)?;
        if let Verdict::Fail(action) = verdict {
            return Err(failed(action));
        }
        let inode = &mut state.inodes[self.inode];
        let live = &inode.live;
        let count = usize::try_from(live.length().saturating_sub(offset)).unwrap_or(usize::MAX).min(buffer.len());
        live.read(&mut buffer[..count], offset);
        if self.options.direct {
            // As on Linux: dirty pages are written first, then the disk is read, whatever clean pages say.
            State::flush_range(inode, offset, offset + count as u64);
            inode.durable.read(&mut buffer[..count], offset);
        }
        Ok(count)
    }

    fn write_all_at(&self, data: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable()?;
        self.check_direct(data, offset);
        let mut state = lock(&self.state);
        match state.faults.begin(OperationKind::Write, &self.path, offset, data.len() as u64, true)? {
            Verdict::Proceed if !state.has_room(self.inode, offset, data.len() as u64) => {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            Verdict::Proceed => {
                state.write(self.inode, data, offset, self.options.data_sync);
                Ok(())
            }
            Verdict::InFlight => {
                state.write(self.inode, data, offset, false);
                Err(power_cut())
            }
            Verdict::Fail(FaultAction::Lie) => {
                match self.options.data_sync {
                    true => state.inodes[self.inode].live.write(data, offset),
                    // It promises nothing, so it cannot lie.
                    false => state.write(self.inode, data, offset, false),
                }
                Ok(())
            }
            Verdict::Fail(action) => {
                if let FaultAction::ShortWrite { bytes, .. } = action {
                    state.write(self.inode, &data[..bytes.min(data.len())], offset, false);
                }
                Err(failed(action))
            }
        }
    }

    fn allocate(&self, length: u64) -> io::Result<()> {
        self.set_length_to(OperationKind::Allocate, length, false, true)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.set_length_to(OperationKind::SetLength, length, true, false)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(lock(&self.state).inodes[self.inode].live.length())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = lock(&self.state);
        let verdict = state.faults.begin(OperationKind::Sync, &self.path, 0, 0, true)?;
        let inode = &mut state.inodes[self.inode];
        match verdict {
            Verdict::Proceed => {
                for change in std::mem::take(&mut inode.pending) {
                    change.apply(&mut inode.durable, |_| true);
                }
                Ok(())
            }
            Verdict::InFlight => Err(power_cut()),
            Verdict::Fail(action) => {
                inode.pending.clear();
                if action == FaultAction::Lie { Ok(()) } else { Err(failed(action)) }
            }
        }
    }

    fn drop_cached(&self, offset: u64, length: u64) -> io::Result<()> {
        lock(&self.state).inodes[self.inode].forget_clean_pages(offset, offset.saturating_add(length));
        Ok(())
    }

    fn expect_scattered_reads(&self) -> io::Result<()> {
        Ok(())
    }

    fn is_cached(&self, _offset: u64, _length: u64) -> io::Result<bool> {
        Ok(true)
    }

    fn start_write_back(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<u64>> {
        Ok(lock(&self.state).inodes[self.inode].live.data_from(offset))
    }

    fn try_lock(&self) -> io::Result<LockOutcome> {
        let mut holds = lock(&self.holds_lock);
        let inode = &mut lock(&self.state).inodes[self.inode];
        if inode.locked && !*holds {
            return Ok(LockOutcome::HeldBy(None));
        }
        inode.locked = true;
        *holds = true;
        Ok(LockOutcome::Acquired)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        None
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        if *lock(&self.holds_lock) {
            lock(&self.state).inodes[self.inode].locked = false;
        }
    }
}
