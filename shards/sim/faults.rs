//! Which operations a simulated disk has seen, and which ones it is told to fail.

use std::io;
use std::path::{Path, PathBuf};

/// What was asked of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// A file was opened (and created, if it was missing and that was asked for).
    Open,
    /// Bytes were read.
    Read,
    /// Bytes were written.
    Write,
    /// Blocks were allocated.
    Allocate,
    /// A length was set.
    SetLength,
    /// A file was synced.
    Sync,
    /// A directory was synced.
    SyncDirectory,
    /// A file was renamed.
    Rename,
    /// A file or directory was removed.
    Remove,
    /// Directories were created.
    CreateDirectory,
}

/// One operation, in the order of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What was asked.
    pub kind: OperationKind,
    /// The file or directory.
    pub path: PathBuf,
    /// Where in the file, in bytes; 0 where it has no meaning.
    pub offset: u64,
    /// How many bytes; 0 where it has no meaning.
    pub length: u64,
}

/// What happens to an operation that a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultAction {
    /// It does nothing and fails with this errno. A failed sync loses what it should have made durable, and the next
    /// sync succeeds, as on Linux.
    Fail(i32),
    /// A write puts down only its first bytes, then fails with this errno.
    ShortWrite {
        /// Bytes that arrive.
        bytes: usize,
        /// The error afterwards.
        errno: i32,
    },
    /// A sync, or a write that is synced with itself, answers that all is durable, and the disk forgets it. Readers see it until the
    /// power goes; no later sync brings it to the disk.
    Lie,
}

/// An order to fail operations of one kind.
#[derive(Debug, Clone)]
pub struct Fault {
    /// Which operations count.
    pub kind: OperationKind,
    /// Only paths that contain this text count; empty counts all.
    pub path_contains: String,
    /// How many of them pass before the fault strikes.
    pub after: u64,
    /// How many fail from then on; `u64::MAX` means for ever.
    pub times: u64,
    /// What happens to them.
    pub action: FaultAction,
}

impl Fault {
    /// Fails one operation of a kind, after `after` others have passed, with an errno.
    pub fn once(kind: OperationKind, after: u64, errno: i32) -> Self {
        Self { kind, path_contains: String::new(), after, times: 1, action: FaultAction::Fail(errno) }
    }
}

/// What the bookkeeping says about an operation.
pub(super) enum Verdict {
    /// Carry it out.
    Proceed,
    /// Fail, perhaps after some bytes.
    Fail(FaultAction),
    /// The power goes while it is under way: its effect is in flight, and the caller hears an error.
    InFlight,
}

/// Counters, log and orders of one disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Faults {
    pub(super) log: Vec<Operation>,
    pub(super) faults: Vec<Fault>,
    pub(super) mutations: u64,
    pub(super) halt_after: Option<u64>,
    halted: bool,
}

impl Faults {
    /// Notes an operation and decides its fate. Reads, and opens that create nothing, are no mutations.
    pub(super) fn begin(
        &mut self,
        kind: OperationKind,
        path: &Path,
        offset: u64,
        length: u64,
        mutates: bool,
    ) -> io::Result<Verdict> {
        if self.halted {
            return Err(power_cut());
        }
        self.log.push(Operation { kind, path: path.to_path_buf(), offset, length });
        if mutates {
            if self.halt_after.is_some_and(|limit| self.mutations >= limit) {
                self.halted = true;
                return Ok(Verdict::InFlight);
            }
            self.mutations += 1;
        }
        let text = path.to_string_lossy();
        for fault in &mut self.faults {
            if fault.kind != kind || !text.contains(&fault.path_contains) || fault.times == 0 {
                continue;
            }
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            if fault.times != u64::MAX {
                fault.times -= 1;
            }
            return Ok(Verdict::Fail(fault.action));
        }
        Ok(Verdict::Proceed)
    }
}

/// What every operation answers once the power is gone.
pub(super) fn power_cut() -> io::Error {
    io::Error::other("simulated power cut")
}
