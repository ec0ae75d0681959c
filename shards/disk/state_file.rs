//! Small state files with two generations, the way RocketMQ keeps its JSON files (`ConfigManager`, `MixAll`).
//!
//! A file `X` has a sibling `X.bak`, the generation before. At every moment, also across a power cut, at least one of
//! the two that existed before a persist is whole. An unreadable `X` never replaces a good `X.bak`. The caller owns the
//! file: two writers of one path are a bug.

use std::io;
use std::path::{Path, PathBuf};

use super::{Disk, read_file, write_file};

/// Why a state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Neither the file nor its backup can be understood.
    #[error("cannot understand {path} nor its backup: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with the newer of the two.
        reason: String,
    },
}

/// What was loaded, and from which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedState<T> {
    /// The decoded content.
    pub value: T,
    /// Why the backup had to be used; `None` when the file itself was good.
    pub backup_used: Option<String>,
}

/// One state file and its backup.
#[derive(Debug, Clone)]
pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// Names the file; nothing is opened.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The path of the current generation.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn sibling(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    }

    fn failed(action: &'static str, path: &Path, source: io::Error) -> StateFileError {
        StateFileError::Io { action, path: path.to_path_buf(), source }
    }

    /// Loads the newest generation that `decode` accepts. `None` when neither exists or both are empty; as in Java an
    /// empty file counts as missing. `decode` gets the bytes and returns what is wrong as text.
    pub fn load<T>(
        &self,
        disk: &dyn Disk,
        mut decode: impl FnMut(&[u8]) -> Result<T, String>,
    ) -> Result<Option<LoadedState<T>>, StateFileError> {
        let mut problem = None;
        for (path, is_backup) in [(self.path.clone(), false), (self.sibling(".bak"), true)] {
            let content = read_file(disk, &path).map_err(|source| Self::failed("read", &path, source))?;
            let Some(content) = content.filter(|content| !content.is_empty()) else { continue };
            match decode(&content) {
                Ok(value) => {
                    let missing = || format!("{} is missing or empty", self.path.display());
                    let backup_used = is_backup.then(|| problem.unwrap_or_else(missing));
                    return Ok(Some(LoadedState { value, backup_used }));
                }
                Err(reason) => problem = problem.or(Some(reason)),
            }
        }
        match problem {
            Some(reason) => Err(StateFileError::Unreadable { path: self.path.clone(), reason }),
            None => Ok(None),
        }
    }

    /// Replaces the content durably: a new file is written and synced under a temporary name, the current generation
    /// becomes the backup if `is_valid` accepts it, and the new one takes its name.
    pub fn persist(
        &self,
        disk: &dyn Disk,
        content: &[u8],
        is_valid: impl Fn(&[u8]) -> bool,
    ) -> Result<(), StateFileError> {
        let temporary = self.sibling(".tmp");
        write_file(disk, &temporary, content).map_err(|source| Self::failed("write", &temporary, source))?;
        let current = read_file(disk, &self.path).map_err(|source| Self::failed("read", &self.path, source))?;
        if current.is_some_and(|current| !current.is_empty() && is_valid(&current)) {
            let backup = self.sibling(".bak");
            disk.rename(&self.path, &backup).map_err(|source| Self::failed("rename to backup", &self.path, source))?;
        }
        disk.rename(&temporary, &self.path).map_err(|source| Self::failed("rename", &temporary, source))?;
        let directory = self.path.parent().unwrap_or(Path::new("."));
        disk.sync_directory(directory).map_err(|source| Self::failed("sync directory", directory, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{CrashPattern, SimDisk};

    fn decode(content: &[u8]) -> Result<String, String> {
        let text = std::str::from_utf8(content).map_err(|error| error.to_string())?;
        text.starts_with('{').then(|| text.to_string()).ok_or_else(|| format!("no object: {text}"))
    }

    fn valid(content: &[u8]) -> bool {
        decode(content).is_ok()
    }

    fn setup() -> (SimDisk, StateFile) {
        let disk = SimDisk::new();
        super::super::create_directories_durably(&disk, Path::new("/store/config")).unwrap();
        (disk, StateFile::new("/store/config/topics.json"))
    }

    /// The load order of RocketMQ: file, then backup, nothing when both are missing or empty, an error when what exists
    /// cannot be understood.
    #[test]
    fn loads_the_newest_generation_that_can_be_understood() {
        let (disk, file) = setup();
        assert!(file.load(&disk, decode).unwrap().is_none());
        file.persist(&disk, b"{1", valid).unwrap();
        file.persist(&disk, b"{2", valid).unwrap();
        let loaded = file.load(&disk, decode).unwrap().unwrap();
        assert_eq!(loaded, LoadedState { value: "{2".to_string(), backup_used: None });
        write_file(&disk, file.path(), b"broken").unwrap();
        let loaded = file.load(&disk, decode).unwrap().unwrap();
        assert_eq!(loaded.value, "{1");
        assert_eq!(loaded.backup_used.as_deref(), Some("no object: broken"));
        file.persist(&disk, b"{3", valid).unwrap();
        assert_eq!(read_file(&disk, Path::new("/store/config/topics.json.bak")).unwrap().unwrap(), b"{1");
        write_file(&disk, file.path(), b"").unwrap();
        assert_eq!(file.load(&disk, decode).unwrap().unwrap().value, "{1");
        write_file(&disk, file.path(), b"x").unwrap();
        write_file(&disk, &file.sibling(".bak"), b"y").unwrap();
        assert!(matches!(file.load(&disk, decode), Err(StateFileError::Unreadable { .. })));
    }

    /// A power cut anywhere inside a persist leaves the old or the new generation: cut before every operation, with
    /// every crash pattern.
    #[test]
    fn a_power_cut_leaves_one_generation_whole() {
        for pattern in CrashPattern::ALL {
            for cut in 0..12 {
                for seed in 0..4 {
                    let (disk, file) = setup();
                    file.persist(&disk, b"{1", valid).unwrap();
                    file.persist(&disk, b"{2", valid).unwrap();
                    disk.halt_after(cut);
                    let finished = file.persist(&disk, b"{3", valid).is_ok();
                    let disk = disk.crash(seed, pattern);
                    let loaded = file.load(&disk, decode).unwrap().unwrap().value;
                    let allowed: &[&str] = if finished { &["{3"] } else { &["{2", "{3"] };
                    assert!(allowed.contains(&loaded.as_str()), "cut {cut} seed {seed} {pattern:?}: {loaded}");
                }
            }
        }
    }
}
