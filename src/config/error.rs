//! What can be wrong with a configuration, in sentences that say what to change.

use std::num::NonZeroU32;
use std::path::PathBuf;

/// Where a value came from, weakest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The table of keys.
    Default,
    /// The environment variable `NAMESRV_ADDR`.
    Environment,
    /// `--config FILE`.
    File(PathBuf),
    /// `--broker-conf FILE`.
    BrokerConf(PathBuf),
    /// `--set KEY=VALUE`.
    Set,
    /// An option of its own, such as `--data`.
    Option,
    /// A change made while running, now in the file of live changes.
    Live,
    /// Derived at start, for instance the host name.
    Derived,
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Default => formatter.write_str("the defaults"),
            Source::Environment => formatter.write_str("the environment"),
            Source::File(path) | Source::BrokerConf(path) => write!(formatter, "{}", path.display()),
            Source::Set => formatter.write_str("--set"),
            Source::Option => formatter.write_str("the command line"),
            Source::Live => formatter.write_str("the live changes"),
            Source::Derived => formatter.write_str("the machine"),
        }
    }
}

/// A source, and where in it if it is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Which layer.
    pub source: Source,
    /// Line from 1.
    pub line: Option<NonZeroU32>,
}

impl From<&Source> for Place {
    fn from(source: &Source) -> Place {
        Place { source: source.clone(), line: None }
    }
}

impl Place {
    /// A line, from 1, of a source.
    pub fn at(source: &Source, line: usize) -> Place {
        Place { source: source.clone(), line: u32::try_from(line).ok().and_then(NonZeroU32::new) }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.line {
            Some(line) => write!(formatter, "{}, line {line}", self.source),
            None => write!(formatter, "{}", self.source),
        }
    }
}

/// Why a configuration, or a change of it, is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// No key has this name.
    #[error("unknown key \"{key}\" in {origin}; the nearest known key is \"{nearest}\"")]
    UnknownKey {
        /// As it was written.
        key: String,
        /// A known name.
        nearest: &'static str,
        /// Where it was written.
        origin: Place,
    },
    /// The value does not fit the key.
    #[error("{key} = \"{value}\" in {origin}: {problem}")]
    BadValue {
        /// As it was written.
        key: String,
        /// As it was written.
        value: String,
        /// Where it was written.
        origin: Place,
        /// What is expected.
        problem: String,
    },
    /// The value asks for something that RingMQ does not do; going on without it would surprise.
    #[error("{key} = \"{value}\" in {origin} cannot be honoured: {reason} (possible here: {allowed})")]
    Unserved {
        /// RocketMQ's name.
        key: &'static str,
        /// As it was written.
        value: String,
        /// Where it was written.
        origin: Place,
        /// Why.
        reason: &'static str,
        /// Values that are accepted.
        allowed: String,
    },
    /// Two values do not go together.
    #[error("{0}")]
    Conflict(String),
    /// A file or option that is not of its form.
    #[error("cannot read {origin}: {problem}")]
    Syntax {
        /// Where.
        origin: Place,
        /// What.
        problem: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A key that must not be changed from outside. RocketMQ answers 16 (NO_PERMISSION).
    #[error("{key} is on the black list and cannot be changed")]
    NoPermission {
        /// As it was sent.
        key: String,
    },
    /// A key that says where the stored changes are found.
    #[error("{key} cannot be changed while running: set it in the configuration file or on the command line")]
    Fixed {
        /// RocketMQ's name or ours.
        key: &'static str,
    },
    /// More than one of these, so that nobody has to start again for each.
    #[error("{} mistakes in the configuration:{}", .0.len(), .0.iter().map(|mistake| format!("\n  {mistake}")).collect::<String>())]
    Several(Vec<ConfigError>),
}

/// Mistakes as they are met: reading goes on behind them.
#[derive(Debug, Default)]
pub(super) struct Mistakes(Vec<ConfigError>);

impl Mistakes {
    /// The value, or nothing and a mistake more.
    pub(super) fn note<T>(&mut self, result: Result<T, ConfigError>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(ConfigError::Several(mistakes)) => self.0.extend(mistakes),
            Err(mistake) => self.0.push(mistake),
        }
        None
    }

    /// `value`, if there was no mistake.
    pub(super) fn unless_any<T>(mut self, value: T) -> Result<T, ConfigError> {
        match self.0.len() {
            0 => Ok(value),
            1 => Err(self.0.remove(0)),
            _ => Err(ConfigError::Several(self.0)),
        }
    }
}
