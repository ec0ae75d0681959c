//! Two sets of runs against each other: ratios of medians with bootstrap intervals, and a verdict per figure. Pure.
//!
//! Invariants: only runs of the same workload, load and durability class meet, and only knees of the same conditions; invalid,
//! unfinished and lossy runs are left out; fewer than [`LEAST_RUNS`] usable runs on a side are not compared at all, and the
//! reader is told. A candidate that has too few because it failed itself (it lost messages, died, or missed the rate) is
//! worse than any figure: that is a failure of the comparison, not a gap in it. So is a candidate without runs where the baseline has
//! figures, and one that did not get to its end. The intervals come from a fixed seed, so the
//! same files give the same table.

mod bootstrap;
#[cfg(test)]
mod tests;
mod text;

use std::fmt::Write as _;

use serde::Serialize;

use crate::environment::HALT_POLL_FACT;
use crate::judge::{confirmed_rate, doubts, is_refuted, slo_text, target_failures};
use crate::report::groups::{Figure, Group, groups};
use crate::result::{Curve, Durability, EnvironmentRecord, ResultSet, RunRecord, RunRole, SetStatus, Slo};
use crate::units;

pub use bootstrap::hold;
pub use text::table;

/// Usable runs that each side needs.
pub const LEAST_RUNS: usize = 3;

/// A figure that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Median response time.
    P50,
    /// 99 % response time.
    P99,
    /// 99.9 % response time.
    P999,
    /// Longest response time.
    Longest,
    /// Acknowledged messages per second.
    Rate,
    /// Highest rate that held the SLO and did so again when it was repeated.
    Knee,
    /// CPU time of the broker per message.
    CpuPerMessage,
    /// Resident memory of the broker.
    Resident,
}

impl Metric {
    /// Those that belong to a run.
    pub const OF_RUNS: [Metric; 7] = [
        Metric::P50,
        Metric::P99,
        Metric::P999,
        Metric::Longest,
        Metric::Rate,
        Metric::CpuPerMessage,
        Metric::Resident,
    ];

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Metric::P50 => "p50",
            Metric::P99 => "p99",
            Metric::P999 => "p99.9",
            Metric::Longest => "longest",
            Metric::Rate => "messages/s",
            Metric::Knee => "knee/s",
            Metric::CpuPerMessage => "CPU/message",
            Metric::Resident => "resident",
        }
    }

    /// A value with its unit.
    pub fn text(self, value: f64) -> String {
        match self {
            Metric::Rate | Metric::Knee => units::count(value),
            Metric::Resident => units::bytes(value),
            _ => units::duration(value),
        }
    }

    fn is_better_when_larger(self) -> bool {
        matches!(self, Metric::Rate | Metric::Knee)
    }

    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours and bytes are below 2^53")]
    fn of(self, run: &RunRecord) -> Option<f64> {
        let first = run.primary().filter(|operation| operation.acknowledged > 0);
        match self {
            Metric::P50 => first.map(|operation| operation.response.p50_ns as f64),
            Metric::P99 => first.map(|operation| operation.response.p99_ns as f64),
            Metric::P999 => first.map(|operation| operation.response.p999_ns as f64),
            Metric::Longest => first.map(|operation| operation.response.max_ns as f64),
            Metric::Rate => Some(run.messages_per_s),
            Metric::Knee => None,
            Metric::CpuPerMessage => run.cost.cpu_ns_per_message,
            Metric::Resident => run.cost.resident_bytes.map(|bytes| bytes as f64),
        }
    }
}

/// By how much the candidate may be worse, as shares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Thresholds {
    /// Of the 99 % response time.
    pub p99: f64,
    /// Of the CPU time per message.
    pub cpu_per_message: f64,
    /// Of messages per second and of the knee.
    pub rate: f64,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds { p99: 0.10, cpu_per_message: 0.05, rate: 0.05 }
    }
}

impl Thresholds {
    /// The share for a metric; `None` where a difference is shown but not judged.
    fn of(self, metric: Metric) -> Option<f64> {
        match metric {
            Metric::P99 => Some(self.p99),
            Metric::CpuPerMessage => Some(self.cpu_per_message),
            Metric::Rate | Metric::Knee => Some(self.rate),
            Metric::P50 | Metric::P999 | Metric::Longest | Metric::Resident => None,
        }
    }
}

/// What the interval says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The whole interval is on the good side of 1.
    Better,
    /// The interval contains 1.
    Undecided,
    /// The whole interval is on the bad side of 1, within the threshold or without one.
    Worse,
    /// As `Worse`, and the ratio of medians is beyond the threshold.
    Regression,
}

/// One figure of one workload.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Class of both sides.
    pub durability: Option<Durability>,
    /// Workload of both sides.
    pub workload: String,
    /// Target rate; `None` for closed loops and knees.
    pub rate_per_s: Option<f64>,
    /// Which figure.
    pub metric: Metric,
    /// Median of the baseline.
    pub baseline: f64,
    /// Median of the candidate.
    pub candidate: f64,
    /// Candidate divided by baseline.
    pub ratio: f64,
    /// Lower end of the 95 % interval of the ratio.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Usable runs of the baseline.
    pub baseline_runs: usize,
    /// Usable runs of the candidate.
    pub candidate_runs: usize,
    /// The judgement.
    pub verdict: Verdict,
    /// Whether the ratio of medians is worse than the threshold allows, whatever the interval says.
    pub is_beyond_threshold: bool,
}

impl Row {
    /// The target rate for people.
    pub fn rate_text(&self) -> String {
        self.rate_per_s.map_or_else(|| "–".to_owned(), units::count)
    }
}

/// A comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the baseline.
    pub baseline: String,
    /// Name of the candidate.
    pub candidate: String,
    /// By class, workload, rate and figure.
    pub rows: Vec<Row>,
    /// What was not compared, and why.
    pub skipped: Vec<String>,
    /// In what the machines of the two sides differ.
    pub notes: Vec<String>,
    /// What could not be compared because the candidate failed where the baseline did not.
    pub failures: Vec<String>,
    /// Runs of the candidate in which messages were lost, doubled, reordered, damaged or invented.
    pub violations: Vec<String>,
    /// Loads in which operations were refused or given up, with how many on each side: no time of those is in a row.
    pub errors: Vec<String>,
}

impl Comparison {
    fn new(baseline: &str, candidate: &str) -> Comparison {
        Comparison {
            baseline: baseline.to_owned(),
            candidate: candidate.to_owned(),
            rows: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            violations: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Whether any figure is a regression, or is missing because the candidate failed.
    pub fn has_regression(&self) -> bool {
        !self.failures.is_empty() || self.rows.iter().any(|row| row.verdict == Verdict::Regression)
    }

    /// Figures that are worse than their thresholds allow, but whose intervals contain 1: more runs would decide.
    pub fn beyond_and_undecided(&self) -> usize {
        self.rows.iter().filter(|row| row.is_beyond_threshold && row.verdict == Verdict::Undecided).count()
    }

    /// Whether there is nothing to say: no row, and nothing that the candidate did wrong.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.failures.is_empty() && self.violations.is_empty()
    }

    /// 4 integrity, 1 a regression, 0.
    pub fn exit_code(&self) -> u8 {
        if self.violations.is_empty() { u8::from(self.has_regression()) } else { 4 }
    }

    fn note_violations<'a>(&mut self, runs: impl Iterator<Item = &'a RunRecord>) {
        let lossy = runs.filter(|run| run.integrity.is_violated());
        self.violations.extend(lossy.map(|run| format!("{}: {}", run.id, run.integrity.violations().join(", "))));
    }
}

/// Compares two sets (`compare A B`): A is the baseline. Each may consist of several results.
pub fn compare(baseline: &[ResultSet], candidate: &[ResultSet], thresholds: Thresholds) -> Comparison {
    let mut comparison = Comparison::new("A", "B");
    comparison.note_violations(candidate.iter().flat_map(|set| &set.runs));
    for set in candidate {
        let partial = if let SetStatus::Partial { reason } = &set.status { Some(reason.clone()) } else { None };
        // The status of a set is its first trouble; a broker that ended badly is told in any case.
        let exit = set.broken_exit().filter(|exit| partial.as_ref().is_none_or(|reason| !reason.contains(exit)));
        comparison
            .failures
            .extend(partial.map(|reason| format!("the set of B made {} is partial: {reason}", set.created)));
        comparison.failures.extend(exit);
    }
    let left = cells(baseline, None);
    let right = cells(candidate, None);
    pair(&left, &right, thresholds, &mut comparison);
    for cell in right.iter().filter(|cell| !left.iter().any(|other| other.is_same(cell))) {
        comparison.skipped.push(format!("{}: only in B", cell.name()));
    }
    comparison
}

/// Facts of a machine without which times of two sides are not comparable.
const TELLING_FACTS: [(&str, &str); 5] =
    [("cpu", HALT_POLL_FACT), ("cpu", "model"), ("cpu", "virtual machine"), ("kernel", "release"), ("cpu", "governor")];

/// In what the machines differ, one sentence each.
pub fn differences(baseline: &[EnvironmentRecord], candidate: &[EnvironmentRecord]) -> Vec<String> {
    let values = |side: &[EnvironmentRecord], section: &str, name: &str| {
        let fact = |environment: &EnvironmentRecord| {
            let found = environment.facts.iter().find(|fact| fact.section == section && fact.name == name);
            found.and_then(|fact| fact.value.clone()).unwrap_or_else(|| "unknown".to_owned())
        };
        let mut values: Vec<String> = side.iter().map(fact).collect();
        values.sort();
        values.dedup();
        values.join(" and ")
    };
    let facts = TELLING_FACTS.into_iter().filter_map(|(section, name)| {
        let (left, right) = (values(baseline, section, name), values(candidate, section, name));
        (left != right).then(|| format!("{section}, {name}: A {left}, B {right}"))
    });
    facts.collect()
}

/// Compares the systems of one set: each further one is the baseline of the first, so that a `versus ringmq java` says what
/// RingMQ is against Java.
pub fn inside(set: &ResultSet) -> Vec<Comparison> {
    let measured = |name: &str| {
        set.runs.iter().any(|run| run.system == name && !matches!(run.role, RunRole::Floor | RunRole::Headroom))
    };
    let mut systems = set.systems.iter().map(|system| system.name.as_str()).filter(|name| measured(name));
    let Some(first) = systems.next() else { return Vec::new() };
    let sets = std::slice::from_ref(set);
    systems
        .map(|other| {
            let mut comparison = Comparison::new(other, first);
            comparison.note_violations(set.runs.iter().filter(|run| run.system == first));
            let exits = set.systems.iter().filter(|system| system.name == first).flat_map(|system| &system.exits);
            let broken = exits.filter(|exit| !exit.is_in_order);
            comparison.failures.extend(broken.map(|exit| format!("broker {}: {}", exit.start, exit.status)));
            pair(&cells(sets, Some(other)), &cells(sets, Some(first)), Thresholds::default(), &mut comparison);
            comparison
        })
        .collect()
}

/// Values of one workload at one rate.
struct Cell {
    durability: Option<Durability>,
    workload: String,
    rate_milli: Option<u64>,
    /// Named only when several systems of one side would meet.
    system: Option<String>,
    /// What a knee had to hold.
    slo: Option<Slo>,
    /// What else shapes the load, by name; `None`: unknown.
    shape: Option<Vec<(&'static str, String)>>,
    runs: usize,
    /// Runs that the system itself failed, with what they failed by.
    failed: Vec<String>,
    /// Operations that failed, and all that were planned, in runs that count.
    errors: (u64, u64),
    values: Vec<(Metric, Vec<f64>)>,
}

/// Everything that shapes a load beside its rate: runs that differ in it are no repeats of each other.
fn shape_of(run: &RunRecord) -> Vec<(&'static str, String)> {
    let all = &run.parameters;
    vec![
        ("arrivals", all.arrivals.clone()),
        ("header", all.header.clone()),
        ("body", all.message_bytes.to_string()),
        ("batch", all.batch.to_string()),
        ("connections", all.connections.to_string()),
        ("depth", all.depth.to_string()),
        ("topics", all.topics.to_string()),
        ("queues", all.queues.to_string()),
        ("consumer groups", all.consumer_groups.to_string()),
        ("idle connections", all.idle_connections.to_string()),
        ("backlog", all.preload_bytes.to_string()),
    ]
}

impl Cell {
    /// Its key alone.
    fn key(&self) -> Cell {
        Cell {
            durability: self.durability,
            workload: self.workload.clone(),
            rate_milli: self.rate_milli,
            system: self.system.clone(),
            slo: self.slo.clone(),
            shape: self.shape.clone(),
            runs: 0,
            failed: Vec::new(),
            errors: (0, 0),
            values: Vec::new(),
        }
    }

    fn is_same(&self, other: &Cell) -> bool {
        self.durability == other.durability
            && self.workload == other.workload
            && self.rate_milli == other.rate_milli
            && self.system == other.system
            && self.slo == other.slo
            && self.shape == other.shape
    }

    fn name(&self) -> String {
        let mut name = self.workload.clone();
        if let Some(rate) = self.rate_milli {
            // Writing to a string cannot fail.
            let _ = write!(name, " at {}/s", units::count(rate as f64 / 1000.0));
        }
        if let Some(slo) = &self.slo {
            let _ = write!(name, ", highest rate with {}", slo_text(slo));
        }
        if let Some(class) = self.durability {
            let _ = write!(name, " ({})", class.name());
        }
        if let Some(system) = &self.system {
            let _ = write!(name, " of {system}");
        }
        name
    }
}

/// The cells of some sets. With `system` only its runs and without its name; otherwise each system has cells of its own.
fn cells(sets: &[ResultSet], system: Option<&str>) -> Vec<Cell> {
    let mut cells: Vec<Cell> = Vec::new();
    for set in sets {
        for group in groups(set) {
            if system.is_some_and(|wanted| wanted != group.key.system)
                || group.runs.iter().all(|run| run.role == RunRole::Floor)
            {
                continue;
            }
            add(&mut cells, cell_of(&group, system.is_none()));
        }
        for curve in set.curves.iter().filter(|curve| system.is_none_or(|wanted| wanted == curve.system)) {
            let knee = confirmed_rate(set, curve);
            let failed = (knee.is_none() && is_refuted(set, curve)).then(|| {
                let doubts = doubts(set, curve).join(", ");
                if doubts.is_empty() { "no rate held".to_owned() } else { format!("not confirmed, {doubts}") }
            });
            add(
                &mut cells,
                Cell {
                    durability: curve.durability,
                    workload: curve.workload.clone(),
                    rate_milli: None,
                    system: system.is_none().then(|| curve.system.clone()),
                    slo: Some(curve.slo.clone()),
                    shape: knee_shape(set, curve),
                    runs: usize::from(knee.is_some()),
                    failed: failed.into_iter().collect(),
                    errors: (0, 0),
                    values: vec![(Metric::Knee, knee.into_iter().collect())],
                },
            );
        }
    }
    cells
}

/// The shape of the runs of a curve.
fn knee_shape(set: &ResultSet, curve: &Curve) -> Option<Vec<(&'static str, String)>> {
    curve.points.iter().find_map(|point| set.run(&point.run)).map(shape_of)
}

fn cell_of(group: &Group<'_>, with_system: bool) -> Cell {
    let values =
        Metric::OF_RUNS.map(|metric| (metric, group.usable().filter_map(|run| metric.of(run)).collect())).to_vec();
    let failed = group.runs.iter().filter_map(|run| {
        let failures = target_failures(run);
        (!failures.is_empty()).then(|| format!("{}: {}", run.id, failures.join(", ")))
    });
    Cell {
        durability: group.key.durability,
        workload: group.key.workload.clone(),
        rate_milli: group.key.rate_milli,
        system: with_system.then(|| group.key.system.clone()),
        slo: None,
        shape: group.runs.first().map(|run| shape_of(run)),
        runs: group.usable().count(),
        failed: failed.collect(),
        errors: group
            .usable()
            .filter_map(RunRecord::primary)
            .fold((0, 0), |(errors, planned), operation| (errors + operation.errors, planned + operation.planned)),
        values,
    }
}

fn add(cells: &mut Vec<Cell>, cell: Cell) {
    let Some(known) = cells.iter_mut().find(|known| known.is_same(&cell)) else {
        cells.push(cell);
        return;
    };
    known.runs += cell.runs;
    known.failed.extend(cell.failed);
    known.errors = (known.errors.0 + cell.errors.0, known.errors.1 + cell.errors.1);
    for (metric, values) in cell.values {
        match known.values.iter_mut().find(|(other, _)| *other == metric) {
            Some((_, all)) => all.extend(values),
            None => known.values.push((metric, values)),
        }
    }
}

fn pair(baseline: &[Cell], candidate: &[Cell], thresholds: Thresholds, comparison: &mut Comparison) {
    for left in baseline {
        let Some(right) = candidate.iter().find(|right| right.is_same(left)) else {
            let text = format!("{}: {}", left.name(), absence(left, candidate, &comparison.baseline));
            // Where the baseline has figures, a candidate without any must not pass.
            let failed = left.runs >= LEAST_RUNS;
            if failed {
                comparison.failures.push(text)
            } else {
                comparison.skipped.push(text)
            }
            continue;
        };
        if !right.failed.is_empty() {
            let (name, failed) = (left.name(), right.failed.join("; "));
            if left.runs >= LEAST_RUNS && right.runs < LEAST_RUNS {
                comparison.failures.push(format!(
                    "{name}: {} has {} usable runs, {} has {} because it failed: {failed}",
                    comparison.baseline, left.runs, comparison.candidate, right.runs
                ));
                continue;
            }
            let candidate = &comparison.candidate;
            comparison.skipped.push(format!("{name}: runs that {candidate} failed are in no row: {failed}"));
        }
        let ((old_errors, old_planned), (new_errors, new_planned)) = (left.errors, right.errors);
        if old_errors + new_errors > 0 {
            let (name, baseline, candidate) = (left.name(), &comparison.baseline, &comparison.candidate);
            comparison.errors.push(format!(
                "{name}: {old_errors} of {old_planned} operations of {baseline} and {new_errors} of {new_planned} of {candidate} failed \
                 in runs that count"
            ));
        }
        for (metric, old) in &left.values {
            let Some((_, new)) = right.values.iter().find(|(other, _)| other == metric) else { continue };
            if old.is_empty() && new.is_empty() {
                continue;
            }
            if old.len() < LEAST_RUNS || new.len() < LEAST_RUNS {
                comparison.skipped.push(format!(
                    "{}, {}: {} and {} usable runs, each side needs {LEAST_RUNS}",
                    left.name(),
                    metric.title(),
                    old.len(),
                    new.len()
                ));
                continue;
            }
            comparison.rows.extend(row(left, *metric, old, new, thresholds));
        }
    }
}

/// Why a cell of the baseline has no match.
fn absence(left: &Cell, candidate: &[Cell], baseline: &str) -> String {
    let is_alike = |right: &&Cell| Cell { shape: left.shape.clone(), ..right.key() }.is_same(left);
    match candidate.iter().find(is_alike).zip(left.shape.as_ref()) {
        Some((right, ours)) => {
            let theirs = right.shape.as_ref();
            let differences: Vec<String> = ours
                .iter()
                .filter_map(|(name, value)| {
                    let other = theirs?.iter().find(|(other, _)| other == name).map(|(_, value)| value)?;
                    (other != value).then(|| format!("{name} {value} and {other}"))
                })
                .collect();
            format!("not the same load: {}", differences.join(", "))
        }
        None => format!("only in {baseline}"),
    }
}

fn row(cell: &Cell, metric: Metric, old: &[f64], new: &[f64], thresholds: Thresholds) -> Option<Row> {
    let baseline = Figure::of(old.iter().copied())?.median;
    let candidate = Figure::of(new.iter().copied())?.median;
    if baseline <= 0.0 {
        return None;
    }
    let ratio = candidate / baseline;
    let (low, high) = bootstrap::interval_of_ratio(old, new)?;
    // From here on, "worse" is above 1 whatever the figure.
    let (is_worse, is_better, loss) = if metric.is_better_when_larger() {
        (high < 1.0, low > 1.0, 1.0 - ratio)
    } else {
        (low > 1.0, high < 1.0, ratio - 1.0)
    };
    let is_beyond_threshold = thresholds.of(metric).is_some_and(|threshold| loss > threshold);
    let verdict = match (is_worse, is_better) {
        (true, _) if is_beyond_threshold => Verdict::Regression,
        (true, _) => Verdict::Worse,
        (_, true) => Verdict::Better,
        _ => Verdict::Undecided,
    };
    Some(Row {
        durability: cell.durability,
        workload: cell.workload.clone(),
        #[expect(clippy::cast_precision_loss, reason = "rates are below 2^53")]
        rate_per_s: cell.rate_milli.map(|rate| rate as f64 / 1000.0),
        metric,
        baseline,
        candidate,
        ratio,
        low,
        high,
        baseline_runs: old.len(),
        candidate_runs: new.len(),
        verdict,
        is_beyond_threshold,
    })
}
