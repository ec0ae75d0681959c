//! What can go wrong with queue files.

use std::io;
use std::path::{Path, PathBuf};

use super::tail::TailFull;
use crate::types::QueueOffset;

/// An error of the queue room. Queue files are derived from the log, so none of these threatens acknowledged messages: after
/// a final one ([`QueueError::is_final`]) a new start makes them anew.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The file system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried, in the present tense.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A queue directory is not as the writer of a queue leaves it; nothing was changed.
    #[error("queue file {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong and what was expected.
        reason: String,
    },
    /// Rebuilding met an offset above the queue's end: entries in between are missing.
    #[error("queue {topic}/{queue_id} ends at {end} but the log continues it at {found}")]
    Gap {
        /// Topic of the queue.
        topic: String,
        /// Number of the queue.
        queue_id: u32,
        /// The queue's end.
        end: QueueOffset,
        /// Offset of the record that does not follow.
        found: QueueOffset,
    },
    /// A name that cannot be a directory.
    #[error("topic name {0:?} cannot name a directory of queues")]
    TopicName(String),
    /// More queues than the store can number.
    #[error("the store already has {0} queues")]
    TooManyQueues(usize),
    /// An entry that must be in memory or in a file is in neither.
    #[error("entry {offset} of queue {topic}/{queue_id} is missing")]
    Missing {
        /// Topic of the queue.
        topic: String,
        /// Number of the queue.
        queue_id: u32,
        /// Offset of the entry.
        offset: QueueOffset,
    },
    /// A sync failed. What it should have covered may be lost, whatever the page cache shows and later syncs say.
    #[error("{action} {}: {source}", path.display())]
    SyncFailed {
        /// What was tried, in the present tense.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// An earlier sync failed, and nothing is claimed any more.
    #[error("queue files cannot be synced: an earlier sync of them failed")]
    SyncedNoMore,
    /// The page cache showed entries that the disk does not have.
    #[error("the disk lost entries of queue file {} that were written before the restart", path.display())]
    Lost {
        /// The file.
        path: PathBuf,
    },
    /// Rebuilding found no memory although everything is flushed.
    #[error(transparent)]
    TailFull(#[from] TailFull),
}

impl QueueError {
    /// For `map_err`: remembers what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }

    /// As [`Self::io`], for syncs.
    pub(crate) fn sync(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::SyncFailed { action, path, source }
    }

    /// Whether this process must not go on: what it would read from queue files may not be what was written.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::SyncFailed { .. } | Self::SyncedNoMore | Self::Lost { .. })
    }
}
