//! Where the parts of a store lie (RocketMQ `StorePathConfigHelper`); our own files are in `ringmq/`.

use std::path::{Path, PathBuf};

/// The paths of one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorePaths {
    /// RocketMQ's `storePathRootDir`.
    pub root: PathBuf,
    /// The log's files; RocketMQ's `storePathCommitLog`.
    pub commit_log: PathBuf,
}

impl StorePaths {
    /// The usual layout below a root.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self { commit_log: root.join("commitlog"), root }
    }

    /// The queues' files.
    pub fn consume_queue(&self) -> PathBuf {
        self.root.join("consumequeue")
    }

    /// The hash index.
    pub fn index(&self) -> PathBuf {
        self.root.join("index")
    }

    /// JSON state files.
    pub fn config(&self) -> PathBuf {
        self.root.join("config")
    }

    /// RocketMQ's checkpoint.
    pub fn checkpoint(&self) -> PathBuf {
        self.root.join("checkpoint")
    }

    /// Exists while a broker runs.
    pub fn abort(&self) -> PathBuf {
        self.root.join("abort")
    }

    /// The process lock.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Folder of our own files. On the file system of the log when `commit_log` lies below the root; segments under
    /// construction need [`StorePaths::scratch`].
    pub fn own(&self) -> PathBuf {
        self.root.join("ringmq")
    }

    /// Folder for segments under construction: always on the log's file system, so that a rename can place them.
    pub fn scratch(&self) -> PathBuf {
        if self.commit_log.starts_with(&self.root) {
            return self.own();
        }
        self.commit_log.parent().unwrap_or(Path::new(".")).join("ringmq")
    }

    /// The durable point.
    pub fn durable_point(&self) -> PathBuf {
        self.own().join("durable-point")
    }

    /// How far the queue files are complete as long as this kernel runs.
    pub fn queue_flushed(&self) -> PathBuf {
        self.own().join("queue-flushed")
    }

    /// Room that is kept back for state files.
    pub fn reserve(&self) -> PathBuf {
        self.own().join("reserve")
    }

    /// Next offsets of queues, and barriers of deleted topics.
    pub fn queue_offsets(&self) -> PathBuf {
        self.own().join("queue-offsets")
    }
}
