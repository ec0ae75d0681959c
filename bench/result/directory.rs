//! The result directory: its file names, and a writer that leaves either the old or the new content of a file.
//!
//! ```text
//! result.json   the result set                     env.json     the machine
//! ID.hlog       interval histograms of run ID      brokers/     configuration and log of each broker
//! ID.phases.hlog   histograms of its preload, warm-up and drain
//! plots/*.svg   report.html                        SHA256SUMS   of all files but itself
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use thiserror::Error;

use super::{EARLIER_RESULT_SCHEMAS, ENVIRONMENT_SCHEMA, EnvironmentRecord, RESULT_SCHEMA, ResultSet};

/// Why a result directory cannot be read or written.
#[derive(Debug, Error)]
pub enum ResultError {
    /// The operating system says no.
    #[error("{action} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("read {path}: {reason}", path = path.display())]
    Malformed {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Name of a run's histogram log.
pub fn hlog_name(run_id: &str) -> String {
    format!("{run_id}.hlog")
}

/// Name of the histogram log of what a run did outside of its measured phase.
pub fn phases_hlog_name(run_id: &str) -> String {
    format!("{run_id}.phases.hlog")
}

/// A directory with a result.
#[derive(Debug, Clone)]
pub struct ResultDirectory {
    path: PathBuf,
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ResultError {
    let path = path.to_owned();
    move |source| ResultError::Io { action, path, source }
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl ResultDirectory {
    /// Makes the directory and its folders.
    ///
    /// # Errors
    /// A folder cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<ResultDirectory, ResultError> {
        let path = path.into();
        for folder in [path.clone(), path.join("brokers"), path.join("plots")] {
            fs::create_dir_all(&folder).map_err(io("make", &folder))?;
        }
        Ok(ResultDirectory { path })
    }

    /// A directory that is there.
    pub fn open(path: impl Into<PathBuf>) -> ResultDirectory {
        ResultDirectory { path: path.into() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file as a whole: beside its place first, then moved there.
    ///
    /// # Errors
    /// It cannot be written; what was there before stays.
    pub fn write(&self, name: &str, content: &[u8]) -> Result<(), ResultError> {
        let path = self.file(name);
        let mut draft = path.clone().into_os_string();
        draft.push(".new");
        let draft = PathBuf::from(draft);
        fs::write(&draft, content).map_err(|error| {
            // A draft that did not fit takes room from what did.
            let _ = fs::remove_file(&draft);
            io("write", &draft)(error)
        })?;
        fs::rename(&draft, &path).map_err(io("replace", &path))
    }

    /// Writes `env.json` and returns its SHA-256 for [`ResultSet::environment_sha256`].
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_environment(&self, environment: &EnvironmentRecord) -> Result<String, ResultError> {
        let text = to_json(environment, true, &self.file("env.json"))?;
        self.write("env.json", text.as_bytes())?;
        Ok(sha256_hex(text.as_bytes()))
    }

    /// Writes `result.json`, without blanks: most of it is series and spectra.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_result(&self, result: &ResultSet) -> Result<(), ResultError> {
        self.write("result.json", self.result_text(result)?.as_bytes())
    }

    /// What [`ResultDirectory::write_result`] writes.
    ///
    /// # Errors
    /// It cannot be put into JSON.
    pub fn result_text(&self, result: &ResultSet) -> Result<String, ResultError> {
        to_json(result, false, &self.file("result.json"))
    }

    /// Reads `result.json`.
    ///
    /// # Errors
    /// It is not there, or is of another form.
    pub fn read_result(&self) -> Result<ResultSet, ResultError> {
        self.read_json("result.json", RESULT_SCHEMA, EARLIER_RESULT_SCHEMAS)
    }

    /// Reads `env.json`.
    ///
    /// # Errors
    /// It is not there, or is of another form.
    pub fn read_environment(&self) -> Result<EnvironmentRecord, ResultError> {
        self.read_json("env.json", ENVIRONMENT_SCHEMA, &[])
    }

    fn read_json<T: serde::de::DeserializeOwned>(
        &self,
        name: &str,
        schema: &str,
        earlier: &[&str],
    ) -> Result<T, ResultError> {
        let path = self.file(name);
        let text = fs::read_to_string(&path).map_err(io("read", &path))?;
        let malformed = |reason: String| ResultError::Malformed { path: path.clone(), reason };
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let found = value.get("schema").and_then(serde_json::Value::as_str).unwrap_or("none");
        if found != schema && !earlier.contains(&found) {
            return Err(malformed(format!("its schema is {found}; this program reads {schema}")));
        }
        serde_json::from_value(value).map_err(|error| malformed(error.to_string()))
    }

    /// Writes `SHA256SUMS` over all other files, in the form of `sha256sum`.
    ///
    /// # Errors
    /// A file cannot be read or the sums cannot be written.
    pub fn write_sums(&self) -> Result<(), ResultError> {
        let mut names = Vec::new();
        self.collect(Path::new(""), &mut names)?;
        names.sort();
        let mut sums = String::new();
        for name in names.iter().filter(|name| *name != "SHA256SUMS") {
            let path = self.file(name);
            let content = fs::read(&path).map_err(io("read", &path))?;
            sums.push_str(&format!("{}  {name}\n", sha256_hex(&content)));
        }
        self.write("SHA256SUMS", sums.as_bytes())
    }

    fn collect(&self, below: &Path, names: &mut Vec<String>) -> Result<(), ResultError> {
        let folder = self.path.join(below);
        for entry in fs::read_dir(&folder).map_err(io("list", &folder))? {
            let entry = entry.map_err(io("list", &folder))?;
            let relative = below.join(entry.file_name());
            if entry.path().is_dir() {
                self.collect(&relative, names)?;
            } else if let Some(name) = relative.to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(())
    }
}

fn to_json<T: serde::Serialize>(value: &T, is_pretty: bool, path: &Path) -> Result<String, ResultError> {
    let text = if is_pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    let text = text.map_err(|error| ResultError::Malformed { path: path.to_owned(), reason: error.to_string() })?;
    Ok(text + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::example;
    use super::*;

    /// Goal: what is written is read back the same, other schemas are refused, and the sums name every file. Method: the
    /// example set in a temporary directory.
    #[test]
    fn round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let directory = ResultDirectory::create(folder.path().join("r")).unwrap();
        let environment = example::environment();
        let mut set = example::result_set();
        set.environment_sha256 = directory.write_environment(&environment).unwrap();
        directory.write_result(&set).unwrap();
        directory.write_sums().unwrap();
        assert_eq!(directory.read_result().unwrap(), set);
        assert_eq!(directory.read_environment().unwrap(), environment);
        let sums = fs::read_to_string(directory.file("SHA256SUMS")).unwrap();
        assert_eq!(sums.lines().count(), 2);
        assert!(sums.contains(&format!("{}  env.json", set.environment_sha256)));
        for earlier in EARLIER_RESULT_SCHEMAS {
            set.schema = (*earlier).to_owned();
            directory.write_result(&set).unwrap();
            assert_eq!(directory.read_result().unwrap(), set);
        }
        set.schema = "something else".to_owned();
        directory.write_result(&set).unwrap();
        assert!(directory.read_result().unwrap_err().to_string().contains("something else"));
    }
}
