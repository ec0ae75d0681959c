//! State files: written when they change, and again with every tick while they could not be.

use super::*;

/// A state file whose last content could not be written.
pub(super) struct Unwritten {
    bytes: Vec<u8>,
    /// Why.
    pub(super) error: String,
}

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
        match written {
            Ok(()) => {
                self.unwritten.remove(path);
            }
            Err(error) => {
                let unwritten = Unwritten { bytes: bytes.to_vec(), error: error.to_string() };
                if self.unwritten.insert(path.to_path_buf(), unwritten).is_none() {
                    tracing::warn!(%error, "a state file could not be written; it is tried again until it can");
                }
            }
        }
    }

    /// Tries again what could not be written, and takes the reserve back.
    pub(super) fn write_unwritten(&mut self) {
        for (path, unwritten) in std::mem::take(&mut self.unwritten) {
            // Put back first: it was complained about already.
            let bytes = unwritten.bytes.clone();
            self.unwritten.insert(path.clone(), unwritten);
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
        let steady_ms = self.now().steady_ms;
        let Some(broker) = &mut self.broker else { return };
        let files = if at_stop { broker.control.last_files() } else { broker.control.dirty_files(steady_ms) };
        let directory = broker.state_directory.clone();
        for (name, bytes) in files {
            let path = directory.join(name);
            let later = name == OFFSETS_FILE && !at_stop;
            if later {
                let request = FlushRequest::Persist { path, bytes };
                if let Some(broker) = &self.broker
                    && let Err(error) = broker.flush.try_send(request)
                {
                    tracing::warn!(%error, "consumer offsets are written later: the flush thread is busy");
                }
            } else {
                self.persist(&path, &bytes);
            }
        }
    }
}
