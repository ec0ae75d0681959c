//! How far RingMQ is from the floors of the same set, and what is known of why. Pure but for reading the causes.
//!
//! Invariants: a distance is a ratio of figures of one set, medians over the runs that count; a load without a floor has no distance;
//! of each load its worst figure is taken, and of the highest rates of a class the one that is farthest behind, so that one cause does
//! not fill the table; a closed loop with several requests under way is judged by its rate, of which its latency is a consequence.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::CliError;
use super::goals::{CATCHUP_WITHOUT_BACKLOG, WITHOUT_IDLE_CONNECTIONS};
use crate::judge::{confirmed_rate, slo_text};
use crate::report::groups::{Group, groups};
use crate::result::{Curve, Distance, Distribution, Durability, Goal, LoopKind, ResultSet, RunRole};
use crate::units;

/// What is known of one distance, or of one goal that is missed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cause {
    /// [`Distance::row`], or that in [`short`]; or a goal's id and a part of its rule.
    pub row: String,
    /// The cause, with its evidence.
    pub text: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Causes {
    #[serde(default)]
    cause: Vec<Cause>,
}

/// Reads the causes; a file that is not there has none.
///
/// # Errors
/// It cannot be read, or is of another form.
pub fn read_causes(path: &Path) -> Result<Vec<Cause>, CliError> {
    let failed = |reason: String| CliError::Usage(format!("read the causes in {}: {reason}", path.display()));
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error.to_string())),
    };
    let causes: Causes = toml::from_str(&text).map_err(|error| failed(error.to_string()))?;
    if let Some(cause) = causes.cause.iter().find(|cause| cause.text.trim().is_empty()) {
        return Err(failed(format!("the cause of {:?} says nothing", cause.row)));
    }
    if let Some(cause) = causes
        .cause
        .iter()
        .enumerate()
        .find(|(at, cause)| causes.cause[..*at].iter().any(|other| other.row == cause.row))
    {
        return Err(failed(format!("{:?} is there twice", cause.1.row)));
    }
    Ok(causes.cause)
}

/// Rows that causes name and neither distances nor goals have.
pub fn unused<'c>(distances: &[Distance], goals: &[Goal], causes: &'c [Cause]) -> Vec<&'c str> {
    let is_used = |cause: &&Cause| {
        distances.iter().any(|distance| is_of(cause, &distance.row)) || goals.iter().any(|goal| is_of_goal(cause, goal))
    };
    causes.iter().filter(|cause| !is_used(cause)).map(|cause| cause.row.as_str()).collect()
}

/// Whether a cause is that of a goal: its row has the goal's id, and behind that a part of its rule.
fn is_of_goal(cause: &Cause, goal: &Goal) -> bool {
    cause.row.split_once(": ").is_some_and(|(id, part)| id == goal.id && goal.rule.contains(part))
}

/// Puts its cause to each goal that is missed. A goal that is reached has none, whatever is known of it.
pub fn explain(goals: &mut [Goal], causes: &[Cause]) {
    for goal in goals {
        let cause = causes.iter().find(|cause| !goal.is_met() && is_of_goal(cause, goal));
        goal.cause = cause.map(|cause| cause.text.clone()).unwrap_or_default();
    }
}

/// A row without what is between the workload and the class: rates and conditions differ from set to set.
fn short(row: &str) -> Option<String> {
    let (name, _) = row.split_once([' ', ','])?;
    Some(format!("{name}{}", &row[row.rfind(", D")?..]))
}

/// Whether a cause is that of a row: of the row itself, or of all that are the same in short.
fn is_of(cause: &Cause, row: &str) -> bool {
    cause.row == row || short(row).as_deref() == Some(cause.row.as_str())
}

/// Goals by what they judge: id and part of the rule, then workload (with its rate where it has goals at one rate alone), class and figure. Those that judge against the other broker are
/// no goals of a distance to the floor.
const GOALS: [(&str, &str, &str, Durability, &str); 11] = [
    ("P1", "rtt-1k in D1: p50", "rtt-1k", Durability::D1, "p50"),
    ("P1", "rtt-1k in D1: p99", "rtt-1k", Durability::D1, "p99"),
    ("P2", "rtt-1k in D2: p50", "rtt-1k", Durability::D2, "p50"),
    ("P3", "10,000/s in D1: p99 at", "steady-1k-10k at 10,000/s", Durability::D1, "p99"),
    ("P4", "50,000/s in D2", "steady-1k-50k at 50,000/s", Durability::D2, "p99"),
    ("P5", "messages of 1 KiB, D1", "steady-1k-50k", Durability::D1, "highest rate"),
    ("P6", "batches of 32", "saturate-batch-32", Durability::D1, "rate"),
    ("P7", "receipt, D1: p50", "end-to-end", Durability::D1, "receipt p50"),
    ("P7", "receipt, D1: p99", "end-to-end", Durability::D1, "receipt p99"),
    ("P8", "producers beside", "catchup", Durability::D1, "p99"),
    ("P9", "beside 10,000 idle", "conn-10k-idle", Durability::D1, "p99"),
];

/// The goal of a figure, the hardest if there are several.
fn goal_of<'a>(goals: &'a [Goal], load: &str, class: Durability, figure: &str) -> Option<&'a Goal> {
    let name = load.split(" at ").next().unwrap_or(load);
    let judging = GOALS
        .iter()
        .filter(|(_, _, judged, of, what)| (*judged == load || *judged == name) && *of == class && *what == figure);
    let found =
        judging.flat_map(|(id, part, ..)| goals.iter().filter(move |goal| goal.id == *id && goal.rule.contains(part)));
    found.min_by(|left, right| {
        let order = left.wanted.total_cmp(&right.wanted);
        if left.at_least { order.reverse() } else { order }
    })
}

type Quantile = fn(&Distribution) -> u64;
const QUANTILES: [(&str, Quantile); 2] = [("p50", |all| all.p50_ns), ("p99", |all| all.p99_ns)];

/// Medians of a figure over the runs of a group that count.
fn response(group: &Group<'_>, quantile: Quantile) -> Option<f64> {
    Some(group.of_operation(|operation| quantile(&operation.response))?.median)
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of hours are below 2^53")]
fn receipt(group: &Group<'_>, quantile: Quantile) -> Option<f64> {
    let of = |distribution: &Distribution| Some(quantile(distribution) as f64).filter(|_| distribution.count > 0);
    Some(group.figure(|run| of(&run.end_to_end.as_ref()?.distribution))?.median)
}

/// What a load would cost if the broker did nothing, and what that consists of.
fn floor(all: &[Group<'_>], group: &Group<'_>, quantile: Quantile) -> Option<(f64, &'static str)> {
    let class = group.key.durability?;
    let without = |name: &str| {
        let is_it = |other: &&Group<'_>| {
            other.key.system == group.key.system && other.key.workload == name && other.key.durability == Some(class)
        };
        response(all.iter().find(is_it)?, quantile)
    };
    match group.key.workload.as_str() {
        "catchup" => return Some((without(CATCHUP_WITHOUT_BACKLOG)?, "the same load without a backlog")),
        "conn-10k-idle" => return Some((without(WITHOUT_IDLE_CONNECTIONS)?, "the same load without idle connections")),
        _ => {}
    }
    let is_floor = |floor: &&Group<'_>| floor.runs.iter().all(|run| run.role == RunRole::Floor);
    let is_echo = |floor: &&Group<'_>| {
        floor.key.system == "null"
            && floor.key.workload == group.key.workload
            && floor.key.rate_milli == group.key.rate_milli
    };
    let echo = all.iter().filter(is_floor).find(is_echo).and_then(|echo| response(echo, quantile))?;
    let is_append = |floor: &&Group<'_>| floor.key.system.starts_with("file") && floor.key.durability == Some(class);
    // Brokers may choose among the appends of a class: the one with the best median, as the goals do.
    let appends = all.iter().filter(is_floor).filter(is_append);
    let appends = appends.filter_map(|append| Some((response(append, QUANTILES[0].1)?, response(append, quantile)?)));
    let (_, append) = appends.min_by(|left, right| left.0.total_cmp(&right.0))?;
    Some((echo + append, if class == Durability::D2 { "echo and best durable append" } else { "echo and append" }))
}

#[expect(clippy::cast_precision_loss, reason = "rates are below 2^53")]
fn load_name(group: &Group<'_>) -> String {
    let rate = group.key.rate_milli.map(|rate| format!(" at {}/s", units::count(rate as f64 / 1000.0)));
    format!("{}{}", group.key.workload, rate.unwrap_or_default())
}

/// The worst figure of one load.
fn of_load(set: &ResultSet, all: &[Group<'_>], group: &Group<'_>) -> Option<Distance> {
    if is_saturating(group) {
        return of_rate(set, all, group);
    }
    let class = group.key.durability?;
    let load = load_name(group);
    let figures = QUANTILES.into_iter().flat_map(|(name, quantile)| {
        let floor = floor(all, group, quantile);
        // A group that begins behind a backlog receives late: that is the load, and no distance.
        let received = receipt(group, quantile).filter(|_| group.key.workload != "catchup");
        [(name.to_owned(), response(group, quantile)), (format!("receipt {name}"), received)]
            .into_iter()
            .filter_map(move |(name, measured)| Some((name, measured?, floor.filter(|(floor, _)| *floor > 0.0)?)))
    });
    let worst = figures.max_by(|left, right| (left.1 / left.2.0).total_cmp(&(right.1 / right.2.0)))?;
    let (figure, measured_ns, (floor_ns, floor_is)) = worst;
    let goal = goal_of(&set.goals, &load, class, &figure);
    Some(Distance {
        row: format!("{load}, {}, {figure}", class.name()),
        goal: goal.map(|goal| goal.id.clone()).unwrap_or_default(),
        wanted: goal.map(|goal| goal.wanted),
        measured: measured_ns / 1000.0,
        floor: floor_ns / 1000.0,
        floor_is: floor_is.to_owned(),
        unit: "µs".to_owned(),
        ratio: measured_ns / floor_ns,
        cause: String::new(),
    })
}

/// Whether senders wait for nothing but their answers, several at a time: a response then takes as long as the rate says (Little's law),
/// wherever the requests wait, and with the echo most of them wait in the generator.
fn is_saturating(group: &Group<'_>) -> bool {
    group.runs.first().is_some_and(|run| {
        let load = &run.parameters;
        load.loop_kind == LoopKind::Closed && u64::from(load.connections) * u64::from(load.depth) > 1
    })
}

/// The rate of a saturating load, against that of the echo.
fn of_rate(set: &ResultSet, all: &[Group<'_>], group: &Group<'_>) -> Option<Distance> {
    let class = group.key.durability?;
    let rate = |group: &Group<'_>| Some(group.figure(|run| Some(run.messages_per_s))?.median);
    let is_echo = |floor: &&Group<'_>| {
        let is_floor = floor.runs.iter().all(|run| run.role == RunRole::Floor);
        is_floor && floor.key.system == "null" && floor.key.workload == group.key.workload
    };
    let (measured, floor) = (rate(group)?, all.iter().find(is_echo).and_then(rate)?);
    let goal = goal_of(&set.goals, &group.key.workload, class, "rate");
    Some(Distance {
        row: format!("{}, {}, rate", load_name(group), class.name()),
        goal: goal.map(|goal| goal.id.clone()).unwrap_or_default(),
        wanted: goal.map(|goal| goal.wanted),
        measured,
        floor,
        floor_is: "messages of the echo".to_owned(),
        unit: "/s".to_owned(),
        ratio: floor / measured,
        cause: String::new(),
    })
}

/// The highest rate that was borne out, against what the generator does without a broker.
fn of_curve(set: &ResultSet, curve: &Curve) -> Option<Distance> {
    let class = curve.durability?;
    let (rate, limit) = (confirmed_rate(set, curve)?, set.headroom.first()?.null_rate_per_s);
    let goal = goal_of(&set.goals, &curve.workload, class, "highest rate");
    Some(Distance {
        row: format!("{} with {}, {}, highest rate", curve.workload, slo_text(&curve.slo), class.name()),
        goal: goal.map(|goal| goal.id.clone()).unwrap_or_default(),
        wanted: goal.map(|goal| goal.wanted),
        measured: rate,
        floor: limit,
        floor_is: "the generator against the echo".to_owned(),
        unit: "/s".to_owned(),
        ratio: limit / rate,
        cause: String::new(),
    })
}

/// All distances of RingMQ in a set, the largest first.
pub fn distances(set: &ResultSet, causes: &[Cause]) -> Vec<Distance> {
    let all = groups(set);
    let is_ours =
        |group: &&Group<'_>| group.key.system == "ringmq" && group.runs.iter().any(|run| run.role == RunRole::Measured);
    let loads = all.iter().filter(is_ours).filter_map(|group| of_load(set, &all, group));
    let curves = set.curves.iter().filter(|curve| curve.system == "ringmq").filter_map(|curve| of_curve(set, curve));
    let mut curves: Vec<Distance> = curves.collect();
    curves.sort_by(|left, right| right.ratio.total_cmp(&left.ratio));
    let mut classes = Vec::new();
    curves.retain(|distance| {
        let class = distance.row.rsplit(", ").nth(1).map(str::to_owned);
        let is_first = !classes.contains(&class);
        classes.push(class);
        is_first
    });
    let mut distances: Vec<Distance> = loads.chain(curves).filter(|distance| distance.ratio.is_finite()).collect();
    distances.sort_by(|left, right| right.ratio.total_cmp(&left.ratio));
    for distance in &mut distances {
        if let Some(cause) = causes.iter().find(|cause| is_of(cause, &distance.row)) {
            distance.cause.clone_from(&cause.text);
        }
    }
    distances
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;
    use crate::workload::Workload;

    fn example() -> ResultSet {
        let mut set = example::result_set();
        for run in set.runs.iter_mut().filter(|run| run.system == "file") {
            run.parameters.target_rate_per_s = None;
        }
        let mut trip = example::run("ringmq", 1, RunRole::Measured, 1.0, 900_000);
        let mut echo = example::run("null", 1, RunRole::Floor, 1.0, 30_000);
        for run in [&mut trip, &mut echo] {
            "rtt-1k".clone_into(&mut run.workload);
            run.parameters.target_rate_per_s = None;
        }
        set.runs.extend([trip, echo]);
        set.goals = super::super::goals::goals(&set);
        set
    }

    /// Goal: the largest distance comes first, each load has one, with floor, goal and ratio of the set's own figures; the other broker,
    /// loads without a floor and floors that do not count have none. Method: the example with a slow round trip.
    #[test]
    fn largest_first() {
        let mut set = example();
        let found = distances(&set, &[]);
        let rows: Vec<&str> = found.iter().map(|distance| distance.row.as_str()).collect();
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(rows[0].starts_with("rtt-1k, D1, receipt p"), "{rows:?}");
        assert!(found.is_sorted_by(|left, right| left.ratio >= right.ratio));
        let rate = found.iter().find(|distance| distance.unit == "/s").unwrap();
        assert_eq!((rate.measured, rate.floor, rate.ratio), (80_000.0, 640_000.0, 8.0));
        assert!(rate.row.ends_with(", D1, highest rate"), "{}", rate.row);
        for distance in &found {
            let ratio = if distance.unit == "/s" {
                distance.floor / distance.measured
            } else {
                distance.measured / distance.floor
            };
            assert!((ratio - distance.ratio).abs() < 1e-9 && distance.cause.is_empty(), "{distance:?}");
        }
        let steady = found.iter().find(|distance| distance.row.starts_with("steady-1k-10k at 10,000/s, D1")).unwrap();
        let (_, quantile) = QUANTILES.into_iter().find(|(name, _)| steady.row.ends_with(name)).unwrap();
        let all = groups(&set);
        let of = |system: &str| {
            let is_it = |group: &&Group<'_>| {
                group.key.system == system && group.runs.iter().any(|run| run.workload == "steady-1k-10k")
            };
            response(all.iter().find(is_it).unwrap(), quantile).unwrap()
        };
        assert!((steady.floor * 1000.0 - of("null") - of("file")).abs() < 1.0, "{steady:?}");
        let mut stricter = set.curves[0].clone();
        (stricter.knee_rate_per_s, stricter.slo.p99_ns) = (Some(40_000.0), Some(1));
        set.curves.push(stricter);
        let rates: Vec<f64> = distances(&set, &[]).iter().filter(|all| all.unit == "/s").map(|all| all.ratio).collect();
        assert_eq!(rates, [16.0], "the farthest of a class");
        set.curves.pop();
        for run in set.runs.iter_mut().filter(|run| run.system == "null") {
            run.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        }
        assert_eq!(distances(&set, &[]).len(), 1, "the rate alone");
    }

    /// Goal: what a backlog makes of receipts is no distance of the broker's; what it makes of sends is one. Method: a group that catches
    /// up and receives after seconds, beside the same load without a backlog.
    #[test]
    fn backlogs_are_no_distance() {
        let mut set = example();
        for (name, median_ns) in [("catchup", 90_000), (CATCHUP_WITHOUT_BACKLOG, 60_000)] {
            let mut run = example::run("ringmq", 1, RunRole::Measured, 20_000.0, median_ns);
            name.clone_into(&mut run.workload);
            let receipts = &mut run.end_to_end.as_mut().unwrap().distribution;
            (receipts.p50_ns, receipts.p99_ns) = (5_000_000_000, 9_000_000_000);
            set.runs.push(run);
        }
        let found = distances(&set, &[]);
        let catchup = found.iter().find(|distance| distance.row.starts_with("catchup at")).unwrap();
        assert!(catchup.ratio < 10.0 && !catchup.row.contains("receipt"), "{catchup:?}");
    }

    /// Goal: a closed loop with several requests under way is judged by its messages per second, one with a single request by its latency.
    /// Method: the same runs with one place and with two; the rate of the echo is four times as high.
    #[test]
    fn saturating_loads_are_judged_by_their_rate() {
        let rows = |depth| {
            let mut set = example::result_set();
            let mut broker = example::run("ringmq", 1, RunRole::Measured, 1.0, 900_000);
            let mut echo = example::run("null", 1, RunRole::Floor, 1.0, 30_000);
            (broker.messages_per_s, echo.messages_per_s) = (50_000.0, 200_000.0);
            for run in [&mut broker, &mut echo] {
                "saturate-16x1".clone_into(&mut run.workload);
                let load = &mut run.parameters;
                (load.loop_kind, load.target_rate_per_s) = (LoopKind::Closed, None);
                (load.connections, load.depth) = (1, depth);
            }
            set.runs.extend([broker, echo]);
            let found = distances(&set, &[]).into_iter().filter(|distance| distance.row.starts_with("saturate"));
            found.map(|distance| (distance.row, distance.unit, distance.ratio)).collect::<Vec<_>>()
        };
        assert_eq!(rows(2), [("saturate-16x1, D1, rate".to_owned(), "/s".to_owned(), 4.0)]);
        let alone = rows(1);
        assert!(alone.len() == 1 && alone[0].1 == "µs" && alone[0].2 > 10.0, "{alone:?}");
    }

    /// Goal: a distance names the goal that judges its figure, the hardest of several, and no goal of another rate, class or figure. Method:
    /// goals of the round trip and of 10,000/s, asked for figures.
    #[test]
    fn goals_of_distances() {
        let goal = |id: &str, rule: &str, wanted| Goal {
            id: id.to_owned(),
            rule: rule.to_owned(),
            wanted,
            ..example::result_set().goals[0].clone()
        };
        let goals = [
            goal("P1", "rtt-1k in D1: p50 at most 1.2 times echo that spins and append", 19.0),
            goal("P1", "rtt-1k in D1: p50 at most 1.2 times echo that sleeps and append", 33.0),
            goal("P3", "10,000/s in D1: p99 at most 500 µs", 500.0),
            goal("P8", "producers beside a group that catches up: p99 at most 1.5 times undisturbed", 90.0),
        ];
        let wanted = |load: &str, class, figure: &str| goal_of(&goals, load, class, figure).map(|goal| goal.wanted);
        assert_eq!(wanted("rtt-1k", Durability::D1, "p50"), Some(19.0));
        assert_eq!(wanted("rtt-1k", Durability::D1, "p99"), None);
        assert_eq!(wanted("rtt-1k", Durability::D2, "p50"), None);
        assert_eq!(wanted("steady-1k-10k at 10,000/s", Durability::D1, "p99"), Some(500.0));
        assert_eq!(wanted("steady-1k-10k at 2,850/s", Durability::D1, "p99"), None);
        assert_eq!(wanted("catchup at 5,000/s", Durability::D1, "p99"), Some(90.0));
    }

    /// Goal: causes stand at their rows, with and without a rate; those of no row are told; nonsense is refused by name. Method: causes of the
    /// example's rows and of none, files of other forms, and the file that is kept beside the program.
    #[test]
    fn causes_are_named() {
        let set = example();
        let rows = distances(&set, &[]);
        let cause = |row: &str| Cause { row: row.to_owned(), text: format!("because of {row}") };
        let steady = rows.iter().find(|distance| distance.row.contains(" at 10,000/s")).unwrap().row.clone();
        let causes = [cause(&rows[0].row), cause(&steady.replace(" at 10,000/s", "")), cause("saturate-16x1, D1, p50")];
        let rate = rows.iter().find(|distance| distance.unit == "/s").unwrap();
        assert_eq!(short(&rate.row).as_deref(), Some("steady-1k-10k, D1, highest rate"), "{}", rate.row);
        let named = distances(&set, &causes);
        assert_eq!(named[0].cause, format!("because of {}", rows[0].row));
        assert!(named.iter().find(|distance| distance.row == steady).unwrap().cause.starts_with("because of steady"));
        assert_eq!(unused(&named, &[], &causes), ["saturate-16x1, D1, p50"]);
        // Goals: by id and a part of the rule, and only where they are missed.
        let missed = Goal { measured: None, ..set.goals[0].clone() };
        let reached = Goal { measured: Some(missed.wanted), ..missed.clone() };
        let mut goals = [missed.clone(), reached, Goal { id: "P0".to_owned(), ..missed.clone() }];
        let part = &missed.rule[3..12];
        let causes = [cause(&format!("{}: {part}", missed.id)), cause("P0: of another rule")];
        explain(&mut goals, &causes);
        let texts: Vec<&str> = goals.iter().map(|goal| goal.cause.as_str()).collect();
        assert_eq!(texts, [causes[0].text.as_str(), "", ""]);
        assert_eq!(unused(&[], &goals, &causes), ["P0: of another rule"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("causes.toml");
        assert_eq!(read_causes(&path).unwrap(), []);
        for (text, told) in [
            ("[[cause]]\nrow = \"x\"\n", "text"),
            ("[[cause]]\nrow = \"x\"\ntext = \" \"\n", "\"x\" says nothing"),
            ("[[cause]]\nrow = \"x\"\ntext = \"a\"\n[[cause]]\nrow = \"x\"\ntext = \"b\"\n", "\"x\" is there twice"),
            ("cuase = 1\n", "cuase"),
        ] {
            fs::write(&path, text).unwrap();
            let error = read_causes(&path).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
        for cause in read_causes(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/causes.toml"))).unwrap() {
            if let Some((id, part)) = cause.row.split_once(": ") {
                // Rules are put together from these pieces.
                let is_known = part.split([',', ':']).all(|piece| include_str!("goals.rs").contains(piece.trim()));
                assert!(id.starts_with(['P', 'B']) && is_known, "{id} has no {part:?}");
                continue;
            }
            let name = cause.row.split([' ', ',']).next().unwrap();
            assert!(Workload::find(name).is_ok(), "{name} is no workload");
        }
    }
}
