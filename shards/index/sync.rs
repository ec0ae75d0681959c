//! The second half of a flush: what blocks on the disk for tens of milliseconds, apart from the index it belongs to, so that
//! another thread can do it while records go on being put.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::IndexError;
use super::layout::HEADER_LENGTH;
use super::service::Indexed;
use crate::disk::{Disk, DiskFile};

/// What was written of one file, and the header that may say so once it is synced.
pub(crate) struct FileSync {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: [u8; HEADER_LENGTH],
}

impl FileSync {
    /// Sync, header, sync: the header never promises what is not there.
    fn complete(&self) -> Result<(), IndexError> {
        self.file.sync_data().map_err(IndexError::io("sync index file", &self.path))?;
        self.file
            .write_all_at(&self.header, 0)
            .and_then(|()| self.file.sync_data())
            .map_err(IndexError::io("write header of index file", &self.path))
    }
}

/// A flush that has written and not synced yet: see [`super::IndexService::begin_flush`].
pub struct IndexSync {
    /// Oldest first: a file never becomes durable before the ones in front of it.
    pub(crate) files: Vec<FileSync>,
    pub(crate) directory: Option<(Arc<dyn Disk>, PathBuf)>,
    pub(crate) last: Option<Indexed>,
}

impl IndexSync {
    /// Makes everything durable that was put before the flush began and gives its last record, as
    /// [`super::IndexService::flush`] does. On any thread; the index may change meanwhile. After an error the
    /// index must let go of it: [`super::IndexService::discard`].
    pub fn complete(&self) -> Result<Option<Indexed>, IndexError> {
        self.files.iter().try_for_each(FileSync::complete)?;
        if let Some((disk, directory)) = &self.directory {
            disk.sync_directory(directory).map_err(IndexError::io("sync", directory))?;
        }
        Ok(self.last)
    }

    /// Whether the file at `path` is part of it.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        self.files.iter().any(|file| file.path == path)
    }
}
