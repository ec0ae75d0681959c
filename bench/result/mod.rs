//! What a measurement leaves behind: the types of `result.json` and `env.json`, the names of the files beside them, and
//! their writer.
//!
//! Invariants: a report, a comparison and a plot are made from these types alone, so whatever they show is in
//! `result.json`. Times are nanoseconds in `u64`, named `…_ns`; shares are 0 to 1, named `…_share`. What could not be
//! measured is `None`, never 0. Unknown members are refused when reading, so a new member needs a new schema id (a test holds
//! the members of each), and a program says which forms it reads.

mod directory;
mod distribution;
mod environment;
#[cfg(test)]
pub mod example;
mod run;
mod series;
mod set;

pub use directory::{ResultDirectory, ResultError, hlog_name, phases_hlog_name, sha256_hex};
pub use distribution::{Distribution, SPECTRUM_QUANTILES, SpectrumPoint};
pub use environment::{EnvironmentFact, EnvironmentRecord};
pub use run::{
    BOOKS_FULL, Durability, EndToEnd, ErrorCount, GeneratorRecord, HiccupRecord, INTERRUPTED, IntegrityRecord,
    LoopKind, OperationRecord, PhaseRecord, ResourceCost, RunParameters, RunRecord, RunRole, RunStatus, Validity,
};
pub use series::{BrokerEvent, BrokerEventKind, SecondPoint};
pub use set::{
    Curve, CurvePoint, Distance, ExitRecord, Goal, Headroom, ResultSet, SetKind, SetStatus, Slo, SystemRecord,
    ToolRecord, WorkloadRecord,
};

/// Schema id of `result.json`.
pub const RESULT_SCHEMA: &str = "ringmq-bench/result/4";
/// Schema ids whose files can be read as well: what they lack has a default.
pub const EARLIER_RESULT_SCHEMAS: &[&str] =
    &["ringmq-bench/result/1", "ringmq-bench/result/2", "ringmq-bench/result/3"];
/// Schema id of `env.json`.
pub const ENVIRONMENT_SCHEMA: &str = "ringmq-bench/environment/1";
