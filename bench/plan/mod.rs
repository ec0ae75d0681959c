//! When operations are meant to start: computed from seed, rate and process alone, before anything is sent.
//!
//! Invariant: nothing here knows of answers, so a stalled broker cannot move a planned time.

mod random;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use thiserror::Error;

pub use random::Random;

/// How operations are spread over time.
#[derive(Debug, Clone, PartialEq)]
pub enum Process {
    /// Equal gaps.
    Uniform,
    /// Independent arrivals: exponential gaps.
    Poisson,
    /// `count` operations at once, every `every_ns`; the rate is what follows from it.
    Burst {
        /// Operations of one burst.
        count: u32,
        /// Time between the starts of two bursts.
        every_ns: u64,
    },
    /// Equal gaps that shrink from the rate times `from` to the rate over the length of the plan.
    Ramp {
        /// Share of the rate at the start, above 0, at most 1.
        from: f64,
    },
    /// Nanoseconds since the start, one per line, rising.
    Trace(PathBuf),
}

/// Why a plan cannot be made.
#[derive(Debug, Error)]
pub enum PlanError {
    /// The text names no process.
    #[error("read the arrival process {0:?}: it is none of uniform, poisson, burst(N, TIME), ramp(SHARE), trace(FILE)")]
    UnknownProcess(String),
    /// A rate that cannot be planned.
    #[error("plan {0} operations per second: the rate must be above 0 and at most {MAX_RATE_PER_S}")]
    BadRate(f64),
    /// The trace cannot be read.
    #[error("read the trace {0}: {1}")]
    Trace(PathBuf, String),
    /// More operations than fit.
    #[error("plan {0} operations: a plan holds at most {MAX_OPERATIONS}; lower the rate or the time")]
    TooLong(u64),
}

/// Highest rate: a gap of 20 ns is below what one clock reading costs.
pub const MAX_RATE_PER_S: f64 = 50_000_000.0;
/// Most operations of one plan: 800 MB of planned times.
pub const MAX_OPERATIONS: u64 = 100_000_000;

impl fmt::Display for Process {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Process::Uniform => formatter.write_str("uniform"),
            Process::Poisson => formatter.write_str("poisson"),
            Process::Burst { count, every_ns } => write!(formatter, "burst({count}, {}us)", every_ns / 1000),
            Process::Ramp { from } => write!(formatter, "ramp({from})"),
            Process::Trace(path) => write!(formatter, "trace({})", path.display()),
        }
    }
}

impl FromStr for Process {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Process, PlanError> {
        let unknown = || PlanError::UnknownProcess(text.to_owned());
        match text {
            "uniform" => return Ok(Process::Uniform),
            "poisson" => return Ok(Process::Poisson),
            _ => {}
        }
        let (name, rest) = text.split_once('(').ok_or_else(unknown)?;
        let inside = rest.strip_suffix(')').ok_or_else(unknown)?;
        match name {
            "burst" => {
                let (count, every) = inside.split_once(',').ok_or_else(unknown)?;
                let count = count.trim().parse().map_err(|_| unknown())?;
                let every_ns = parse_duration_ns(every.trim()).ok_or_else(unknown)?;
                if count == 0 || every_ns == 0 {
                    return Err(unknown());
                }
                Ok(Process::Burst { count, every_ns })
            }
            "ramp" => {
                let from: f64 = inside.trim().parse().map_err(|_| unknown())?;
                if from > 0.0 && from <= 1.0 { Ok(Process::Ramp { from }) } else { Err(unknown()) }
            }
            "trace" => Ok(Process::Trace(PathBuf::from(inside.trim()))),
            _ => Err(unknown()),
        }
    }
}

/// Reads `250ns`, `20us`, `1.5ms`, `2s` or `3m`.
pub fn parse_duration_ns(text: &str) -> Option<u64> {
    let unit_at = text.find(|character: char| character.is_ascii_alphabetic() || character == 'µ')?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        _ => return None,
    };
    let value = number.trim().parse::<f64>().ok()? * factor;
    if value.is_finite() && (0.0..1e18).contains(&value) { Some(to_ns(value)) } else { None }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "callers keep it within 0 and 1e18")]
fn to_ns(value: f64) -> u64 {
    value.round() as u64
}

/// Planned times, one after another. Endless but for traces.
#[derive(Debug, Clone)]
pub struct Arrivals {
    process: Process,
    gap_ns: f64,
    length_ns: f64,
    random: Random,
    index: u64,
    at_ns: f64,
    trace: std::vec::IntoIter<u64>,
}

impl Arrivals {
    /// Arrivals at `rate_per_s`; `length_ns` is the time over which a ramp rises.
    ///
    /// # Errors
    /// The rate cannot be planned or the trace cannot be read.
    pub fn new(process: &Process, rate_per_s: f64, length_ns: u64, seed: u64) -> Result<Arrivals, PlanError> {
        if !(rate_per_s > 0.0 && rate_per_s <= MAX_RATE_PER_S) {
            return Err(PlanError::BadRate(rate_per_s));
        }
        let trace = match process {
            Process::Trace(path) => read_trace(path)?,
            _ => Vec::new(),
        };
        #[expect(clippy::cast_precision_loss, reason = "a length is far below 2^53 ns")]
        let length_ns = length_ns as f64;
        Ok(Arrivals {
            process: process.clone(),
            gap_ns: 1e9 / rate_per_s,
            length_ns,
            random: Random::new(seed),
            index: 0,
            at_ns: 0.0,
            trace: trace.into_iter(),
        })
    }

    /// The rate that the process yields on average.
    pub fn rate_per_s(process: &Process, rate_per_s: f64) -> f64 {
        match process {
            #[expect(clippy::cast_precision_loss, reason = "an interval is far below 2^53 ns")]
            Process::Burst { count, every_ns } => f64::from(*count) * 1e9 / *every_ns as f64,
            Process::Ramp { from } => rate_per_s * (1.0 + from) / 2.0,
            Process::Uniform | Process::Poisson | Process::Trace(_) => rate_per_s,
        }
    }
}

fn read_trace(path: &PathBuf) -> Result<Vec<u64>, PlanError> {
    let bad = |reason: String| PlanError::Trace(path.clone(), reason);
    let text = std::fs::read_to_string(path).map_err(|error| bad(error.to_string()))?;
    let mut times = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.is_empty()) {
        let time: u64 = line.trim().parse().map_err(|_| bad(format!("line {} is no number", index + 1)))?;
        if times.last().is_some_and(|last| *last > time) {
            return Err(bad(format!("line {} goes back in time", index + 1)));
        }
        times.push(time);
    }
    Ok(times)
}

impl Iterator for Arrivals {
    type Item = u64;

    /// The next planned time in nanoseconds since the start.
    fn next(&mut self) -> Option<u64> {
        let index = self.index;
        self.index += 1;
        #[expect(clippy::cast_precision_loss, reason = "a plan has far fewer than 2^53 operations")]
        let position = index as f64;
        match self.process {
            Process::Uniform => Some(to_ns(position * self.gap_ns)),
            Process::Burst { count, every_ns } => Some(index / u64::from(count) * every_ns),
            Process::Poisson => {
                self.at_ns -= self.random.unit().ln() * self.gap_ns;
                Some(to_ns(self.at_ns))
            }
            Process::Ramp { from } => {
                // The number of arrivals by time t is rate * (from * t + (1 - from) * t² / (2 * length)); solved for t.
                if self.length_ns <= 0.0 {
                    return Some(to_ns(position * self.gap_ns));
                }
                let slope = (1.0 - from) / (2.0 * self.length_ns);
                let wanted = position * self.gap_ns;
                let at = if slope == 0.0 {
                    wanted
                } else {
                    ((from * from + 4.0 * slope * wanted).sqrt() - from) / (2.0 * slope)
                };
                Some(to_ns(at))
            }
            Process::Trace(_) => self.trace.next(),
        }
    }
}

/// The plan of a measured phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Planned times in nanoseconds since the start of the phase, rising.
    pub times_ns: Vec<u64>,
    /// SHA-256 of the times as little-endian 64-bit numbers (hex).
    pub sha256: String,
}

impl Plan {
    /// All arrivals before `length_ns`.
    ///
    /// # Errors
    /// The rate cannot be planned, the trace cannot be read, or there are too many operations.
    pub fn new(process: &Process, rate_per_s: f64, length_ns: u64, seed: u64) -> Result<Plan, PlanError> {
        let mut times_ns = Vec::new();
        for at in Arrivals::new(process, rate_per_s, length_ns, seed)?.take_while(|at| *at < length_ns) {
            if times_ns.len() as u64 >= MAX_OPERATIONS {
                return Err(PlanError::TooLong(times_ns.len() as u64));
            }
            times_ns.push(at);
        }
        let mut hasher = Sha256::new();
        for at in &times_ns {
            hasher.update(at.to_le_bytes());
        }
        let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Plan { times_ns, sha256 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn plan(process: &str, rate: f64, seed: u64) -> Plan {
        Plan::new(&process.parse().unwrap(), rate, 10 * SECOND, seed).unwrap()
    }

    /// Goal: a seed fixes the plan, for ever. Method: hashes of equal and different seeds, and two that must never change, worked out by
    /// another program: runs of different versions are compared by them.
    #[test]
    fn seeds_fix_plans() {
        assert_eq!(plan("poisson", 1000.0, 7), plan("poisson", 1000.0, 7));
        assert_ne!(plan("poisson", 1000.0, 7).sha256, plan("poisson", 1000.0, 8).sha256);
        let uniform = plan("uniform", 10_000.0, 1);
        assert_eq!(uniform, plan("uniform", 10_000.0, 2));
        assert_eq!(
            (uniform.times_ns.len(), uniform.times_ns[1], uniform.times_ns[99_999]),
            (100_000, 100_000, 9_999_900_000)
        );
        assert_eq!(uniform.sha256, "d28a646c6280d927b6499c15b5d9230c972078bd5524548da82e2940417f6ed3");
        let poisson = plan("poisson", 1000.0, 7);
        assert_eq!(
            (poisson.times_ns.len(), poisson.sha256.as_str()),
            (10_032, "7389627deedd936796c2978d0ba728d7ae81b0415e7b9f7179f2b89f8cb1b36d")
        );
    }

    /// Goal: processes have the rate and form they promise. Method: counts and gaps of plans of ten seconds.
    #[test]
    fn processes_keep_their_rate() {
        let poisson = plan("poisson", 5000.0, 3).times_ns;
        assert!(poisson.is_sorted() && poisson.len().abs_diff(50_000) < 1000, "{}", poisson.len());
        let long_gaps = poisson.windows(2).filter(|pair| pair[1] - pair[0] > 200_000).count();
        assert!(long_gaps.abs_diff(18_394) < 600, "e^-1 of the gaps exceed the mean: {long_gaps}");
        let burst = plan("burst(100, 10ms)", 1.0, 3).times_ns;
        assert_eq!((burst.len(), burst[99], burst[100]), (100_000, 0, 10_000_000));
        let ramp = plan("ramp(0.5)", 1000.0, 3).times_ns;
        assert!(ramp.is_sorted() && ramp.len().abs_diff(7500) < 5, "{}", ramp.len());
        let half = ramp.partition_point(|at| *at < 5 * SECOND);
        assert!(half.abs_diff(3125) < 5, "{half}");
    }

    /// Goal: traces are read, damaged ones named. Method: two files.
    #[test]
    fn traces() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t");
        std::fs::write(&path, "0\n5\n5\n900\n").unwrap();
        let text = format!("trace({})", path.display());
        assert_eq!(plan(&text, 1.0, 0).times_ns, [0, 5, 5, 900]);
        std::fs::write(&path, "10\n5\n").unwrap();
        let error = Plan::new(&text.parse().unwrap(), 1.0, SECOND, 0).unwrap_err().to_string();
        assert!(error.ends_with("line 2 goes back in time"), "{error}");
    }

    /// Goal: text that is no process, time or rate is refused. Method: a list of such.
    #[test]
    fn refuses_nonsense() {
        for text in ["", "burst", "burst(0, 1ms)", "burst(5)", "ramp(0)", "ramp(2)", "gauss(1)", "burst(5, 1ms"] {
            assert!(text.parse::<Process>().is_err(), "{text}");
        }
        assert_eq!("burst(5, 2ms)".parse::<Process>().unwrap().to_string(), "burst(5, 2000us)");
        for rate in [0.0, -1.0, f64::NAN, 1e12] {
            assert!(Plan::new(&Process::Uniform, rate, SECOND, 0).is_err());
        }
        assert_eq!(parse_duration_ns("1.5ms"), Some(1_500_000));
        assert_eq!(parse_duration_ns("5"), None);
        assert_eq!(parse_duration_ns("-5ms"), None);
    }
}
