//! Workloads: TOML files that say how much load, of what kind, and what that models and hides.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::load::body::BODY_HEADER_BYTES;
use crate::plan::{PlanError, Process};
use crate::result::{LoopKind, WorkloadRecord};

/// Why a workload cannot be used.
#[derive(Debug, Error)]
pub enum WorkloadError {
    /// Neither a name nor a file.
    #[error("there is no workload {0:?}; `ringmq-bench list` shows all, a path to a TOML file also serves{1}")]
    Unknown(String, String),
    /// The file cannot be read.
    #[error("read the workload {path}: {reason}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// It says something impossible.
    #[error("workload {name}: {reason}")]
    Invalid {
        /// Which.
        name: String,
        /// What.
        reason: String,
    },
    /// Its arrivals cannot be planned.
    #[error("workload {name}: {source}")]
    Plan {
        /// Which.
        name: String,
        /// Why.
        source: PlanError,
    },
}

/// What one operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Sending a message or a batch.
    #[default]
    Send,
    /// Connecting, one small request, closing.
    Connect,
}

/// The load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    /// What is done.
    #[serde(default)]
    pub operation: Operation,
    /// Open or closed.
    #[serde(rename = "loop")]
    pub loop_kind: LoopKind,
    /// Arrival process.
    #[serde(default = "uniform")]
    pub arrivals: String,
    /// Operations per second; 0 for closed loops.
    #[serde(default)]
    pub rate_per_s: f64,
    /// Body bytes of a message.
    #[serde(default = "kib")]
    pub message_bytes: usize,
    /// Messages per request.
    #[serde(default = "one")]
    pub batch: u32,
    /// Producing connections.
    #[serde(default = "one")]
    pub connections: u32,
    /// Requests under way per connection.
    #[serde(default = "one")]
    pub depth: u32,
    /// Topics.
    #[serde(default = "one")]
    pub topics: u32,
    /// Queues per topic.
    #[serde(default = "eight")]
    pub queues: u32,
    /// Length of the measured phase.
    #[serde(default = "minute")]
    pub measure_s: f64,
    /// Shortest warm-up.
    #[serde(default = "ten")]
    pub warm_up_min_s: f64,
    /// Longest warm-up.
    #[serde(default = "two_minutes")]
    pub warm_up_max_s: f64,
    /// How long an answer may take.
    #[serde(default = "five")]
    pub timeout_s: f64,
    /// Seed of the plan.
    #[serde(default = "one_seed")]
    pub seed: u64,
    /// Whether all messages are read back at the end if no consumer has read them.
    #[serde(default = "yes")]
    pub verify: bool,
    /// Bytes of messages that wait for the consumers when the run begins; grows with `--scale`.
    #[serde(default)]
    pub preload_bytes: u64,
    /// Connections that do nothing; grows with `--scale`.
    #[serde(default)]
    pub idle_connections: u32,
}

/// Who reads.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumers {
    /// Groups; each reads everything.
    pub groups: u32,
    /// Most messages per pull.
    #[serde(default = "pull_batch")]
    pub pull_batch: u32,
    /// How long a pull may be held.
    #[serde(default = "hold")]
    pub hold_ms: u64,
    /// Pause of a consumer after each pull.
    #[serde(default)]
    pub pull_pause_ms: u64,
    /// Of so many messages consumers want one, by tag.
    #[serde(default = "one_seed")]
    pub wanted_every: u64,
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Stable name.
    pub name: String,
    /// What it models.
    pub models: String,
    /// What it hides.
    pub hides: String,
    /// What a broker must be able to do for it, beyond sends and pulls. Not empty: it cannot be run yet against brokers that
    /// lack it.
    #[serde(default)]
    pub requires: Vec<String>,
    /// The load.
    pub load: Load,
    /// Who reads while it runs.
    #[serde(default)]
    pub consumers: Option<Consumers>,
    /// Settings for a broker that is started for this workload, as RocketMQ spells them.
    #[serde(default)]
    pub broker: BTreeMap<String, String>,
}

fn uniform() -> String {
    "uniform".to_owned()
}
fn kib() -> usize {
    1024
}
fn one() -> u32 {
    1
}
fn one_seed() -> u64 {
    1
}
fn eight() -> u32 {
    8
}
fn minute() -> f64 {
    60.0
}
fn ten() -> f64 {
    10.0
}
fn five() -> f64 {
    5.0
}
fn two_minutes() -> f64 {
    120.0
}
fn pull_batch() -> u32 {
    32
}
fn hold() -> u64 {
    15_000
}
fn yes() -> bool {
    true
}

/// What RingMQ does not serve yet, of what workloads may require.
pub const NOT_SERVED_BY_RINGMQ: &[&str] = &["delay-level"];

macro_rules! catalogue {
    ($($name:literal),* $(,)?) => {
        /// Names and files of the catalogue, in its order.
        pub const CATALOGUE: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../workloads/", $name, ".toml")))),*];
    };
}

catalogue!(
    "rtt-128",
    "rtt-1k",
    "steady-1k-1k",
    "steady-1k-10k",
    "steady-1k-50k",
    "steady-1k-100k",
    "queues-16",
    "queues-1024",
    "topics-1000",
    "size-64",
    "size-1k",
    "size-16k",
    "size-256k",
    "size-4m-max",
    "batch-32",
    "fanout-10",
    "longpoll-wakeup",
    "end-to-end",
    "catchup",
    "slow-consumer",
    "conn-10k-idle",
    "conn-1k-active",
    "conn-storm-1k",
    "tags-filter",
    "delay-level",
    "ordered",
    "segment-roll",
    "retention",
    "saturate-16x1",
    "saturate-64x16",
    "saturate-batch-32",
);

impl Workload {
    /// A workload of the catalogue, or a file.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be read.
    pub fn find(name: &str) -> Result<(Workload, String), WorkloadError> {
        if let Some((_, text)) = CATALOGUE.iter().find(|(known, _)| *known == name) {
            return Ok((Workload::parse(name, text)?, (*text).to_owned()));
        }
        if !Path::new(name).is_file() {
            let near = CATALOGUE
                .iter()
                .map(|(known, _)| *known)
                .find(|known| known.starts_with(name) || name.starts_with(known));
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(WorkloadError::Unknown(name.to_owned(), hint));
        }
        let text = std::fs::read_to_string(name)
            .map_err(|error| WorkloadError::Unreadable { path: name.to_owned(), reason: error.to_string() })?;
        Ok((Workload::parse(name, &text)?, text))
    }

    /// Reads the text of a workload.
    ///
    /// # Errors
    /// It is malformed or says something impossible.
    pub fn parse(path: &str, text: &str) -> Result<Workload, WorkloadError> {
        let workload: Workload = toml::from_str(text)
            .map_err(|error| WorkloadError::Unreadable { path: path.to_owned(), reason: error.to_string() })?;
        workload.check()?;
        Ok(workload)
    }

    /// Looks for contradictions.
    ///
    /// # Errors
    /// The first one.
    pub fn check(&self) -> Result<(), WorkloadError> {
        let load = &self.load;
        let consumers = self.consumers.as_ref();
        let process = self.process()?;
        let is_open = load.loop_kind == LoopKind::Open;
        let rules = [
            (load.message_bytes >= BODY_HEADER_BYTES, "message_bytes is below 40, the header of a body"),
            (load.message_bytes <= 4 << 20, "message_bytes is above 4 MiB, the largest message of a broker"),
            (
                load.batch >= 1 && load.connections >= 1 && load.depth >= 1,
                "batch, connections and depth are at least 1",
            ),
            (
                u64::from(load.connections) * u64::from(load.depth) <= 1 << 20,
                "connections times depth is above 1,048,576",
            ),
            (load.topics >= 1 && load.queues >= 1, "topics and queues are at least 1"),
            (u64::from(load.topics) * u64::from(load.queues) <= 65_536, "topics times queues is above 65,536"),
            (load.message_bytes * load.batch as usize <= 4 << 20, "a batch is larger than 4 MiB"),
            (
                is_open == (load.rate_per_s > 0.0) || process != Process::Uniform,
                "open loops have a rate, closed ones have none",
            ),
            (load.measure_s > 0.0 && load.timeout_s > 0.0, "measure_s and timeout_s are above 0"),
            (
                load.warm_up_min_s >= 0.0 && load.warm_up_min_s <= load.warm_up_max_s,
                "warm_up_min_s exceeds warm_up_max_s",
            ),
            (load.batch == 1 || consumers.is_none_or(|consumers| consumers.wanted_every == 1), "batches have no tags"),
            (consumers.is_none_or(|consumers| consumers.groups >= 1 && consumers.wanted_every >= 1), "a group reads"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, reason)) => Err(WorkloadError::Invalid { name: self.name.clone(), reason: (*reason).to_owned() }),
            None => Ok(()),
        }
    }

    /// The arrival process.
    ///
    /// # Errors
    /// It is none.
    pub fn process(&self) -> Result<Process, WorkloadError> {
        self.load.arrivals.parse().map_err(|source| WorkloadError::Plan { name: self.name.clone(), source })
    }

    /// Whether [`Workload::scale`] changes anything.
    pub fn has_scale(&self) -> bool {
        self.load.preload_bytes > 0 || self.load.idle_connections > 0
    }

    /// Multiplies the sizes of backlog and idle connections.
    pub fn scale(&mut self, factor: f64) {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as casts of floats saturate")]
        #[expect(clippy::cast_precision_loss, reason = "a backlog is far below 2^53 bytes")]
        {
            self.load.preload_bytes = (self.load.preload_bytes as f64 * factor) as u64;
            self.load.idle_connections = (f64::from(self.load.idle_connections) * factor) as u32;
        }
    }

    /// What RingMQ lacks for it.
    pub fn lacks_in_ringmq(&self) -> Option<&str> {
        self.requires.iter().map(String::as_str).find(|needed| NOT_SERVED_BY_RINGMQ.contains(needed))
    }

    /// For the result.
    pub fn record(&self, definition: &str) -> WorkloadRecord {
        WorkloadRecord {
            name: self.name.clone(),
            models: self.models.clone(),
            hides: self.hides.clone(),
            definition: definition.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every file of the catalogue is valid and named as its file. Method: read them all.
    #[test]
    fn catalogue_is_valid() {
        for (name, text) in CATALOGUE {
            let workload = Workload::parse(name, text).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(workload.name, *name);
            assert!(workload.models.len() > 20 && workload.hides.len() > 20, "{name} says what it models and hides");
        }
    }

    /// Goal: mistakes are named. Method: a typing error, a contradiction, an unknown name.
    #[test]
    fn refuses_mistakes() {
        let parse = |text: &str| Workload::parse("w", text).unwrap_err().to_string();
        let head = "name = 'w'\nmodels = 'm'\nhides = 'h'\n[load]\n";
        assert!(parse(&format!("{head}loop = 'open'\nrate = 5")).contains("unknown field `rate`"));
        assert!(parse(&format!("{head}loop = 'open'")).contains("open loops have a rate"));
        assert!(parse(&format!("{head}loop = 'closed'\nmessage_bytes = 4")).contains("below 40"));
        assert!(parse(&format!("{head}loop = 'open'\nrate_per_s = 5\narrivals = 'gauss'")).contains("gauss"));
        let unknown = Workload::find("steady").unwrap_err().to_string();
        assert!(unknown.contains("did you mean steady-1k-1k?"), "{unknown}");
    }

    /// Goal: the scale reaches what is long. Method: scale a backlog.
    #[test]
    fn scales() {
        let (mut workload, _) = Workload::find("catchup").unwrap();
        let before = workload.load.preload_bytes;
        workload.scale(0.5);
        assert_eq!(workload.load.preload_bytes, before / 2);
    }
}
