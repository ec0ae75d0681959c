//! What can go wrong with index files.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the index room. The index is derived from the log: nothing that was acknowledged depends on it.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
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
    /// A file's header cannot be right; it was not touched.
    #[error("index file {} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file has another length than the configured numbers of slots and entries give; it was not touched.
    #[error("index file {} has {found} bytes instead of {wanted}: were other slot or entry counts configured?", path.display())]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length.
        found: u64,
        /// The length that fits the configuration.
        wanted: u64,
        /// Entries that its header promises; none before its first sync.
        promised: u32,
    },
}

/// What a disk says of a file that it cannot give back, or not to us. Want of memory or descriptors is no such thing.
const UNREADABLE: [i32; 6] = [libc::EIO, libc::EUCLEAN, libc::EBADMSG, libc::ENODATA, libc::EACCES, libc::EPERM];

impl IndexError {
    /// The file that cannot be used as it is, however often that is tried; `None` for any other trouble.
    pub(crate) fn unusable_file(&self) -> Option<&Path> {
        match self {
            Self::Damaged { path, .. } | Self::WrongLength { path, .. } => Some(path),
            Self::Io { path, source, .. } => {
                source.raw_os_error().is_some_and(|error| UNREADABLE.contains(&error)).then_some(path)
            }
        }
    }

    /// For `map_err`: remembers what was tried on which path.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}
