//! What the terminal shows: one line per run while they come, ten lines at the end.

use crate::judge::format_ns;
use crate::report::units;
use crate::result::{Durability, ResultSet, RunRecord, RunRole, RunStatus, SetStatus};

/// Lines of a summary, the path of the report included.
const LINES: usize = 10;

fn verdict(run: &RunRecord) -> &'static str {
    match (&run.status, run.integrity.is_violated(), run.validity.invalid.is_empty(), run.validity.noisy) {
        (_, true, ..) => "  MESSAGES LOST OR DAMAGED",
        (RunStatus::Partial { .. }, ..) => "  partial",
        (_, _, false, _) => "  invalid",
        (.., true) => "  noisy",
        _ => "",
    }
}

/// One run, in one line.
pub fn line(run: &RunRecord) -> String {
    let mut text = format!("{}:", run.id);
    if let Some(operation) = run.primary() {
        let response = &operation.response;
        text += &format!(
            " {}/s  p50 {}  p99 {}  p99.9 {}  max {}",
            units::count(run.achieved_rate_per_s),
            format_ns(response.p50_ns),
            format_ns(response.p99_ns),
            format_ns(response.p999_ns),
            format_ns(response.max_ns)
        );
        if operation.errors > 0 {
            text += &format!("  {} errors", operation.errors);
        }
    }
    text += verdict(run);
    let reasons = run.validity.invalid.join("; ");
    if reasons.is_empty() { text } else { format!("{text} ({reasons})") }
}

/// Runs that are repeats of each other.
struct Group<'a> {
    runs: Vec<&'a RunRecord>,
}

fn groups<'a>(set: &'a ResultSet, role: RunRole) -> Vec<Group<'a>> {
    let mut groups: Vec<Group<'a>> = Vec::new();
    for run in set.runs.iter().filter(|run| run.role == role) {
        let same = |other: &&RunRecord| {
            other.system == run.system
                && other.workload == run.workload
                && other.durability == run.durability
                && other.parameters.target_rate_per_s == run.parameters.target_rate_per_s
        };
        match groups.iter_mut().find(|group| group.runs.first().is_some_and(same)) {
            Some(group) => group.runs.push(run),
            None => groups.push(Group { runs: vec![run] }),
        }
    }
    groups
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0)
}

impl Group<'_> {
    fn figure(&self, of: impl Fn(&RunRecord) -> Option<u64>) -> u64 {
        median(self.runs.iter().filter_map(|run| of(run)).collect())
    }

    fn line(&self, set: &ResultSet) -> String {
        let Some(first) = self.runs.first() else { return String::new() };
        let response = |quantile: fn(&crate::result::Distribution) -> u64| {
            format_ns(self.figure(|run| run.primary().map(|operation| quantile(&operation.response))))
        };
        let rate = self.figure(|run| Some(whole(run.achieved_rate_per_s)));
        #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
        let rate = units::count(rate as f64);
        let mut text = format!(
            "{:<2}  {:<8} {:<14} {rate:>8}/s  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}",
            first.durability.map_or("--", Durability::name),
            first.system,
            first.workload,
            response(|response| response.p50_ns),
            response(|response| response.p99_ns),
            response(|response| response.p999_ns),
            response(|response| response.max_ns),
        );
        if let Some(floor_ns) = floor_ns(set, first) {
            let p50_ns = self.figure(|run| run.primary().map(|operation| operation.response.p50_ns));
            #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
            let ratio = p50_ns as f64 / floor_ns.max(1) as f64;
            text += &format!("  floor {} ({ratio:.1}x)", format_ns(floor_ns));
        }
        if let Some(receipt) = &first.end_to_end {
            text += &format!("  receipt p50 {}", format_ns(receipt.distribution.p50_ns));
        }
        let invalid = self.runs.iter().filter(|run| !run.validity.invalid.is_empty()).count();
        if self.runs.len() > 1 {
            text += &format!("  {} runs", self.runs.len());
        }
        if invalid > 0 {
            text += &format!("  {invalid} INVALID");
        }
        text
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as casts of floats saturate")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Median of the echo with the same shape, and of the best append of the same class.
fn floor_ns(set: &ResultSet, run: &RunRecord) -> Option<u64> {
    let floors = || set.runs.iter().filter(|floor| floor.role == RunRole::Floor);
    let p50 = |floor: &RunRecord| floor.primary().map(|operation| operation.response.p50_ns);
    let echo = floors().filter(|floor| floor.system == "null" && floor.workload == run.workload).find_map(p50)?;
    let append =
        floors().filter(|floor| floor.system == "file" && floor.durability == run.durability).filter_map(p50).min();
    Some(echo + append.unwrap_or(0))
}

/// At most nine lines; the path of the report is the tenth.
pub fn summary(set: &ResultSet) -> Vec<String> {
    let titles: Vec<&str> = set
        .systems
        .iter()
        .filter(|system| !["null", "file"].contains(&system.name.as_str()))
        .map(|system| system.title.as_str())
        .collect();
    let status = match &set.status {
        SetStatus::Complete => "complete".to_owned(),
        SetStatus::Partial { reason } => format!("PARTIAL: {reason}"),
    };
    let mut lines =
        vec![format!("{}  {status}", if titles.is_empty() { "floors".to_owned() } else { titles.join(", ") })];
    let mut tail = tail(set);
    let mut body: Vec<String> = groups(set, RunRole::Measured).iter().map(|group| group.line(set)).collect();
    for curve in &set.curves {
        let knee = curve.knee_rate_per_s.map_or_else(|| "none".to_owned(), |knee| format!("{}/s", units::count(knee)));
        let confirmed = if curve.confirmed { "confirmed" } else { "not confirmed" };
        let class = curve.durability.map_or("--", Durability::name);
        body.push(format!("{class}  {:<8} {:<14} knee {knee}, {confirmed}", curve.system, curve.workload));
    }
    let room = LINES - 1 - lines.len() - tail.len();
    if body.len() > room {
        let more = body.len() - (room - 1);
        body.truncate(room - 1);
        body.push(format!("and {more} more lines in the report"));
    }
    lines.append(&mut body);
    lines.append(&mut tail);
    lines
}

fn tail(set: &ResultSet) -> Vec<String> {
    let mut lines = Vec::new();
    let hiccup = |role: &str| {
        let all = set.runs.iter().flat_map(|run| &run.hiccups).filter(|hiccup| hiccup.role == role);
        let worst = all.max_by_key(|hiccup| hiccup.distribution.p999_ns)?;
        let (p999, max) = (format_ns(worst.distribution.p999_ns), format_ns(worst.distribution.max_ns));
        Some(format!("{role} core p99.9 {p999}, max {max}"))
    };
    let hiccups: Vec<String> = ["broker", "generator"].into_iter().filter_map(hiccup).collect();
    if !hiccups.is_empty() {
        lines.push(format!("hiccups  {} (worst run)", hiccups.join("; ")));
    }
    let busiest = set.runs.iter().filter(|run| run.role == RunRole::Measured).map(|run| run.generator.busy_share);
    let busiest = busiest.fold(0.0, f64::max);
    let headroom = set.headroom.iter().map(|headroom| headroom.null_rate_per_s).fold(0.0, f64::max);
    let mut generator = format!("generator  busy {}", units::percent(busiest));
    if headroom > 0.0 {
        generator += &format!(", {}/s against echo", units::count(headroom));
    }
    lines.push(generator);
    let sum = |of: fn(&RunRecord) -> u64| set.runs.iter().map(of).sum::<u64>();
    let read = set.runs.iter().filter(|run| run.integrity.checked).map(|run| run.integrity.received).sum::<u64>();
    lines.push(format!(
        "integrity  {read} read: {} lost, {} duplicated, {} reordered, {} corrupt, {} phantom",
        sum(|run| run.integrity.lost),
        sum(|run| run.integrity.duplicated),
        sum(|run| run.integrity.reordered),
        sum(|run| run.integrity.corrupt),
        sum(|run| run.integrity.phantom)
    ));
    let judged = set.runs.iter().filter(|run| run.role != RunRole::SweepStep);
    let invalid = judged.clone().filter(|run| !run.validity.invalid.is_empty()).count();
    let noisy = judged.filter(|run| run.validity.noisy).count();
    lines.push(format!("validity  {} runs, {invalid} invalid, {noisy} noisy", set.runs.len()));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: never more than ten lines with the report's, and losses are seen. Method: the example set.
    #[test]
    fn ten_lines() {
        let set = example::result_set();
        let lines = summary(&set);
        assert!(lines.len() < LINES, "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("2 lost")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("ringmq") && line.contains("floor")), "{lines:#?}");
        let lossy = set.runs.iter().find(|run| run.integrity.is_violated()).unwrap();
        assert!(line(lossy).contains("MESSAGES LOST OR DAMAGED"));
    }
}
