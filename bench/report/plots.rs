//! The charts of a result set. Everything drawn is in `result.json`.
//!
//! Invariants: one chart has one durability class, named in its title (floors keep nothing and are grey); all systems of a
//! chart, and the time series of all systems of one workload and rate, share one axis.

use super::axis::{Axis, Quantity};
use super::chart::{Chart, Line, Note};
use super::groups::{Group, groups};
use crate::result::{BrokerEventKind, Curve, Durability, ResultSet, RunRecord, RunRole};
use crate::units;

/// Colours before they repeat.
const COLOURS: usize = 6;
/// Events that a time series names; more would cover the lines.
const MOST_NOTES: usize = 16;

/// All charts, in the order of the page.
pub fn charts(set: &ResultSet) -> Vec<Chart> {
    let groups = groups(set);
    let mut charts = Vec::new();
    for cell in cells(&groups) {
        let class = cell_class(&cell);
        let first = cell[0];
        let place = match first.key.rate_milli {
            Some(rate) => format!("{} at {}/s", first.key.workload, units::count(rate as f64 / 1000.0)),
            None => format!("{}, closed loop", first.key.workload),
        };
        let name = format!("{}-{}-{class}", first.key.workload, first.key.rate_milli.map_or(0, |rate| rate / 1000));
        charts.push(spectrum(set, &cell, &format!("{class} · {place}: response time by percentile"), &name));
        charts.push(cumulative(set, &cell, &format!("{class} · {place}: share of messages answered"), &name));
        charts.extend(time_series(set, &cell, &class, &place, &name));
    }
    charts.extend(curve_charts(set));
    charts
}

/// Groups of one workload, rate and class; floors are added to each class.
fn cells<'a, 'b>(groups: &'b [Group<'a>]) -> Vec<Vec<&'b Group<'a>>> {
    let mut cells: Vec<Vec<&Group<'_>>> = Vec::new();
    let is_floor = |group: &&Group<'_>| group.runs.iter().all(|run| run.role == RunRole::Floor);
    for group in groups.iter().filter(|group| !is_floor(group)) {
        let same = |cell: &&mut Vec<&Group<'_>>| {
            let key = &cell[0].key;
            key.durability == group.key.durability
                && key.workload == group.key.workload
                && key.rate_milli == group.key.rate_milli
        };
        match cells.iter_mut().find(same) {
            Some(cell) => cell.push(group),
            None => cells.push(vec![group]),
        }
    }
    for cell in &mut cells {
        let key = cell[0].key.clone();
        let fits = |group: &&Group<'_>| {
            is_floor(group)
                && group.key.workload == key.workload
                && group.key.rate_milli == key.rate_milli
                && (group.key.durability.is_none() || group.key.durability == key.durability)
        };
        cell.extend(groups.iter().filter(fits));
    }
    if cells.is_empty() {
        cells.extend(groups.iter().map(|group| vec![group]));
    }
    cells
}

fn cell_class(cell: &[&Group<'_>]) -> String {
    class_name(cell.iter().find_map(|group| group.key.durability))
}

/// `D1`, or `keeps nothing`.
pub fn class_name(durability: Option<Durability>) -> String {
    durability.map_or("keeps-nothing".to_owned(), |class| class.name().to_owned())
}

/// The colour of a system, the same in all charts.
fn colour(set: &ResultSet, system: &str) -> String {
    let is_floor = |name: &str| {
        let mut runs = set.runs.iter().filter(|run| run.system == name).peekable();
        runs.peek().is_some() && runs.all(|run| matches!(run.role, RunRole::Floor | RunRole::Headroom))
    };
    if is_floor(system) {
        return if system.starts_with("file") { "floor dashed".to_owned() } else { "floor".to_owned() };
    }
    let place = set.systems.iter().filter(|known| !is_floor(&known.name)).position(|known| known.name == system);
    format!("s{}", place.unwrap_or(COLOURS - 1) % COLOURS)
}

/// The name of a system for people.
pub fn title(set: &ResultSet, system: &str) -> String {
    set.systems.iter().find(|known| known.name == system).map_or(system, |known| known.title.as_str()).to_owned()
}

fn lines(set: &ResultSet, cell: &[&Group<'_>], points: impl Fn(&RunRecord) -> Vec<(f64, f64)>) -> Vec<Line> {
    cell.iter()
        .filter_map(|group| {
            let run = group.representative()?;
            Some(Line {
                label: title(set, &run.system),
                class: colour(set, &run.system),
                points: points(run),
                hollow: Vec::new(),
                filled: Vec::new(),
            })
        })
        .filter(|line| !line.points.is_empty())
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are below 2^53")]
fn spectrum(set: &ResultSet, cell: &[&Group<'_>], title: &str, name: &str) -> Chart {
    let lines = lines(set, cell, |run| {
        let spectrum = run.primary().map(|operation| operation.response.spectrum.as_slice()).unwrap_or_default();
        spectrum.iter().map(|point| (point.quantile, point.value_ns as f64)).collect()
    });
    let points = || lines.iter().flat_map(|line| line.points.iter());
    Chart {
        name: format!("spectrum-{name}"),
        title: title.to_owned(),
        x_label: "percentile (each nine is as wide as the last); the last point is the maximum".to_owned(),
        y_label: "response time, from the intended start".to_owned(),
        x_axis: Axis::nines(points().map(|point| point.0)),
        x_quantity: Quantity::Share,
        y_axis: Axis::logarithmic(points().map(|point| point.1)),
        y_quantity: Quantity::Duration,
        lines,
        notes: Vec::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are below 2^53")]
fn cumulative(set: &ResultSet, cell: &[&Group<'_>], title: &str, name: &str) -> Chart {
    let lines = lines(set, cell, |run| {
        let spectrum = run.primary().map(|operation| operation.response.spectrum.as_slice()).unwrap_or_default();
        spectrum.iter().map(|point| (point.value_ns as f64, point.quantile)).collect()
    });
    let points = || lines.iter().flat_map(|line| line.points.iter());
    Chart {
        name: format!("cdf-{name}"),
        title: title.to_owned(),
        x_label: "response time".to_owned(),
        y_label: "share answered within that time".to_owned(),
        x_axis: Axis::logarithmic(points().map(|point| point.0)),
        x_quantity: Quantity::Duration,
        y_axis: Axis::Linear { low: 0.0, high: 1.0 },
        y_quantity: Quantity::Share,
        lines,
        notes: Vec::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are below 2^53")]
fn time_series(set: &ResultSet, cell: &[&Group<'_>], class: &str, place: &str, name: &str) -> Vec<Chart> {
    let runs: Vec<&RunRecord> =
        cell.iter().filter_map(|group| group.representative()).filter(|run| !run.series.is_empty()).collect();
    // Floors are lines in the spectrum; over time they matter where there is nothing else.
    let has_broker = runs.iter().any(|run| run.role != RunRole::Floor);
    let runs: Vec<&RunRecord> = runs.into_iter().filter(|run| !has_broker || run.role != RunRole::Floor).collect();
    let points = || runs.iter().flat_map(|run| run.series.iter());
    let answered = || points().filter(|point| point.acknowledged > 0);
    let y_axis = Axis::logarithmic(
        answered().flat_map(|point| [point.response_p50_ns, point.response_max_ns].map(|value| value as f64)),
    );
    let x_axis = Axis::from_zero(points().map(|point| f64::from(point.second)));
    let chart = |run: &&RunRecord| {
        let colour = colour(set, &run.system);
        let line = |label: &str, stroke: &str, value: fn(&crate::result::SecondPoint) -> u64| Line {
            label: label.to_owned(),
            class: format!("{colour} {stroke}"),
            // A second without answers has no latency: the line goes on at the next one.
            points: run
                .series
                .iter()
                .filter(|point| point.acknowledged > 0 && value(point) > 0)
                .map(|point| (f64::from(point.second), value(point) as f64))
                .collect(),
            hollow: Vec::new(),
            filled: Vec::new(),
        };
        Chart {
            name: format!("time-{name}-{}", run.system),
            title: format!("{class} · {place}: {} over time (round {})", title(set, &run.system), run.round),
            x_label: "second of the measured phase".to_owned(),
            y_label: "response time".to_owned(),
            x_axis,
            x_quantity: Quantity::Second,
            y_axis,
            y_quantity: Quantity::Duration,
            lines: vec![
                line("p50", "", |point| point.response_p50_ns),
                line("p99", "dashed", |point| point.response_p99_ns),
                line("longest", "thin dotted", |point| point.response_max_ns),
            ],
            notes: notes(run),
        }
    };
    runs.iter().map(chart).collect()
}

fn notes(run: &RunRecord) -> Vec<Note> {
    let text = |kind: BrokerEventKind, count: u64| match kind {
        BrokerEventKind::SegmentRoll => format!("roll ×{count}"),
        BrokerEventKind::Sync => format!("sync ×{count}"),
        BrokerEventKind::Retention => format!("delete ×{count}"),
    };
    // Rare events explain more than regular ones: syncs are named only where there is room.
    let mut events: Vec<_> = run.events.iter().collect();
    events.sort_by_key(|event| (event.kind == BrokerEventKind::Sync, event.second));
    events.truncate(MOST_NOTES);
    events.sort_by_key(|event| event.second);
    events.iter().map(|event| Note { x: f64::from(event.second), text: text(event.kind, event.count) }).collect()
}

/// One chart for the curves of each workload and class.
fn curve_charts(set: &ResultSet) -> Vec<Chart> {
    let mut keys: Vec<(Option<Durability>, &str)> =
        set.curves.iter().map(|curve| (curve.durability, curve.workload.as_str())).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter()
        .map(|(durability, workload)| {
            let curves: Vec<&Curve> = set
                .curves
                .iter()
                .filter(|curve| curve.durability == durability && curve.workload == workload)
                .collect();
            curve_chart(set, &curves, &class_name(durability), workload)
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are below 2^53")]
fn curve_chart(set: &ResultSet, curves: &[&Curve], class: &str, workload: &str) -> Chart {
    let mut lines = Vec::new();
    for curve in curves {
        let mut points: Vec<((f64, f64), bool)> = curve
            .points
            .iter()
            .filter_map(|point| {
                let response = &set.run(&point.run)?.primary()?.response;
                (response.count > 0).then_some(((point.rate_per_s, response.p99_ns as f64), point.held))
            })
            .collect();
        points.sort_by(|a, b| a.0.0.total_cmp(&b.0.0));
        let some = |held: bool| points.iter().filter(|point| point.1 == held).map(|point| point.0).collect();
        lines.push(Line {
            label: if curve.round > 1 {
                format!("{} ({})", title(set, &curve.system), curve.round)
            } else {
                title(set, &curve.system)
            },
            class: colour(set, &curve.system),
            points: points.iter().map(|point| point.0).collect(),
            hollow: some(false),
            filled: some(true),
        });
    }
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let knees = curves.iter().filter_map(|curve| {
        let rate = curve.knee_rate_per_s?;
        Some(Note { x: rate, text: format!("{} {}/s", curve.system, units::short_count(rate)) })
    });
    Chart {
        name: format!("curve-{workload}-{class}"),
        title: format!("{class} · {workload}: rate against p99 response time"),
        x_label: "target rate per second (filled: the SLO held; hollow: it did not)".to_owned(),
        y_label: "p99 response time".to_owned(),
        x_axis: Axis::logarithmic(points().map(|point| point.0)),
        x_quantity: Quantity::Rate,
        y_axis: Axis::logarithmic(points().map(|point| point.1)),
        y_quantity: Quantity::Duration,
        notes: knees.collect(),
        lines,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: the example set gives every kind of chart, names are unique file names, and the series of a cell share their
    /// axes. Method: names and axes are looked at.
    #[test]
    fn charts_of_the_example() {
        let set = example::result_set();
        let charts = charts(&set);
        let mut names: Vec<&str> = charts.iter().map(|chart| chart.name.as_str()).collect();
        for kind in ["spectrum-", "cdf-", "time-", "curve-"] {
            assert!(names.iter().any(|name| name.starts_with(kind)), "{names:?}");
        }
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
        let series: Vec<&Chart> = charts.iter().filter(|chart| chart.name.starts_with("time-")).collect();
        assert!(series.windows(2).all(|pair| pair[0].y_axis == pair[1].y_axis && pair[0].x_axis == pair[1].x_axis));
        assert!(charts.iter().all(|chart| chart.title.starts_with("D1 · ")));
    }
}
