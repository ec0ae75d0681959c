//! What the terminal shows: one line per run while they come, ten lines at the end.

use crate::judge::{confirmed_rate, is_usable};
use crate::report::groups::{Figure, Group, errors_text, groups};
use crate::report::share_at_knee;
use crate::result::{Distribution, Durability, LoopKind, ResultSet, RunRecord, RunRole, RunStatus, SetStatus};
use crate::units;

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
            units::nanoseconds(response.p50_ns),
            units::nanoseconds(response.p99_ns),
            units::nanoseconds(response.p999_ns),
            units::nanoseconds(response.max_ns)
        );
        if operation.errors > 0 {
            let kind = operation.error_kinds.first();
            let kind = kind.map(|kind| format!(" ({} {})", kind.kind, kind.example)).unwrap_or_default();
            text += &format!("  {} errors{kind}", operation.errors);
        }
    }
    text += verdict(run);
    let reasons = run.validity.invalid.join("; ");
    if reasons.is_empty() { text } else { format!("{text} ({reasons})") }
}

/// The line of one group of repeats: medians of the runs that count, or of all if none does.
fn group_line(set: &ResultSet, group: &Group<'_>) -> String {
    let Some(first) = group.runs.first() else { return String::new() };
    let usable = group.usable().count();
    let shown: Vec<&RunRecord> = if usable > 0 { group.usable().collect() } else { group.runs.clone() };
    let median = |of: &dyn Fn(&RunRecord) -> Option<f64>| {
        Figure::of(shown.iter().filter_map(|run| of(run))).map_or(f64::NAN, |figure| figure.median)
    };
    let response = |quantile: fn(&Distribution) -> u64| {
        median(&|run| run.primary().map(|operation| float(quantile(&operation.response))))
    };
    let [p50, p99] = [response(|response| response.p50_ns), response(|response| response.p99_ns)];
    let mut text = format!(
        "{:<2}  {:<8} {:<14} {:>8}/s  p50 {:>8}  p99 {:>8}  p99.9 {:>8}  max {:>8}",
        first.durability.map_or("--", Durability::name),
        first.system,
        first.workload,
        units::count(median(&|run| Some(run.achieved_rate_per_s))),
        units::duration(p50),
        units::duration(p99),
        units::duration(response(|response| response.p999_ns)),
        units::duration(response(|response| response.max_ns)),
    );
    if let Some((floor_p50, floor_p99)) = floor(set, first) {
        text += &format!(
            "  floor {} ({}) {} ({})",
            units::duration(floor_p50),
            units::ratio(p50 / floor_p50.max(1.0)),
            units::duration(floor_p99),
            units::ratio(p99 / floor_p99.max(1.0))
        );
    }
    if first.end_to_end.is_some() {
        let receipt = median(&|run| run.end_to_end.as_ref().map(|receipt| float(receipt.distribution.p50_ns)));
        text += &format!("  receipt p50 {}", units::duration(receipt));
    }
    text += &format!("  errors {}", errors_text(&group.runs));
    if group.runs.len() > 1 {
        text += &format!("  {usable} of {} runs", group.runs.len());
    }
    if usable < group.runs.len() {
        text += &format!("  {} INVALID", group.runs.len() - usable);
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(value: u64) -> f64 {
    value as f64
}

/// Medians and 99 % of the echo with the same shape, each with that of the best append of the same class added.
fn floor(set: &ResultSet, run: &RunRecord) -> Option<(f64, f64)> {
    // A floor that the host disturbed is higher than it should be: everything looks nearer to it.
    let floors = || set.runs.iter().filter(|floor| floor.role == RunRole::Floor && is_usable(floor));
    let response = |floor: &RunRecord| floor.primary().map(|operation| operation.response.clone());
    let rate = |run: &RunRecord| run.parameters.target_rate_per_s;
    let echoes = || floors().filter(|floor| floor.system == "null" && floor.workload == run.workload);
    let echo = echoes().find(|floor| rate(floor) == rate(run)).or_else(|| echoes().next()).and_then(response)?;
    let append = floors()
        .filter(|floor| floor.system.starts_with("file") && floor.durability == run.durability)
        .filter_map(response)
        .min_by_key(|append| append.p50_ns)
        .unwrap_or_default();
    Some((float(echo.p50_ns + append.p50_ns), float(echo.p99_ns + append.p99_ns)))
}

/// At most nine lines; the path of the report is the tenth.
pub fn summary(set: &ResultSet) -> Vec<String> {
    let titles: Vec<&str> = set
        .systems
        .iter()
        .filter(|system| !system.name.starts_with("null") && !system.name.starts_with("file"))
        .map(|system| system.title.as_str())
        .collect();
    let status = match &set.status {
        SetStatus::Complete => "complete".to_owned(),
        SetStatus::Partial { reason } => format!("PARTIAL: {reason}"),
    };
    let mut lines =
        vec![format!("{}  {status}", if titles.is_empty() { "floors".to_owned() } else { titles.join(", ") })];
    let mut tail = tail(set);
    let groups = groups(set);
    let measured = groups.iter().filter(|group| group.runs.iter().any(|run| run.role == RunRole::Measured));
    let mut body: Vec<String> = measured.map(|group| group_line(set, group)).collect();
    for curve in &set.curves {
        let knee = curve.knee_rate_per_s.map_or_else(|| "none".to_owned(), |knee| format!("{}/s", units::count(knee)));
        let confirmed = match (curve.confirmed, confirmed_rate(set, curve)) {
            (true, _) => "confirmed".to_owned(),
            (false, Some(rate)) => format!("not confirmed ({}/s is)", units::count(rate)),
            (false, None) => "not confirmed".to_owned(),
        };
        let class = curve.durability.map_or("--", Durability::name);
        let share = share_at_knee(set, curve);
        body.push(format!(
            "{class}  {:<8} {:<14} knee {knee}, {confirmed}, generator {share}",
            curve.system, curve.workload
        ));
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
        let (p999, max) =
            (units::nanoseconds(worst.distribution.p999_ns), units::nanoseconds(worst.distribution.max_ns));
        Some(format!("{role} core p99.9 {p999}, max {max}"))
    };
    let hiccups: Vec<String> = ["broker", "generator"].into_iter().filter_map(hiccup).collect();
    let busiest = set.runs.iter().filter(|run| run.role == RunRole::Measured).map(|run| run.generator.busy_share);
    let mut generator = format!("generator busy {}", units::percent(busiest.fold(0.0, f64::max)));
    let open =
        set.runs.iter().filter(|run| run.role == RunRole::Measured && run.parameters.loop_kind == LoopKind::Open);
    if let Some(late_ns) = open.map(|run| run.generator.own_lag.p99_ns).max() {
        generator += &format!(", on time within {} (p99)", units::nanoseconds(late_ns));
    }
    if let Some(headroom) = set.headroom.first() {
        generator += &format!(", {}/s against echo", units::count(headroom.null_rate_per_s));
    }
    let hiccups = if hiccups.is_empty() { "not measured".to_owned() } else { hiccups.join("; ") };
    lines.push(format!("host       hiccups {hiccups} (worst run); {generator}"));
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
    lines.push(format!("validity   {} runs, {invalid} invalid, {noisy} noisy", set.runs.len()));
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
        assert!(lines.iter().any(|line| line.contains("on time within")), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("ringmq") && line.contains("errors 0")), "{lines:#?}");
        let mut failing = set.clone();
        failing.runs.iter_mut().filter(|run| run.system == "ringmq").for_each(|run| run.operations[0].errors = 7);
        assert!(summary(&failing).iter().any(|line| line.contains("errors 21 of 60,000")), "{:#?}", summary(&failing));
        let lossy = set.runs.iter().find(|run| run.integrity.is_violated()).unwrap();
        assert!(line(lossy).contains("MESSAGES LOST OR DAMAGED"));
    }

    /// Goal: a disturbed floor is no floor. Method: the example's echo, made invalid.
    #[test]
    fn disturbed_floors_are_not_shown() {
        let mut set = example::result_set();
        let run = set.runs.iter().find(|run| run.system == "ringmq" && run.role == RunRole::Measured).unwrap().clone();
        assert!(floor(&set, &run).is_some());
        for floor in set.runs.iter_mut().filter(|run| run.role == RunRole::Floor && run.system == "null") {
            floor.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        }
        assert!(floor(&set, &run).is_none());
    }
}
