//! The README's section on performance, made from a published set and from nothing else.
//!
//! Invariant: the same set gives the same text. What was lost, missed or is invalid is in it.

use std::fmt::Write as _;

use super::conditions::{NOISE_TITLE, SHAPE_TITLE, backlog_remarks, heap, label, lengths_and_steps, noise, shape_of};
use super::groups::{Figure, Group, by_class, class_heading, errors_text, groups, syscalls};
use super::rates::knees;
pub use super::rates::syscalls_at_knee;
use super::tables::{cause, quantity};
use crate::environment::HALT_POLL_FACT;
use crate::judge::{DEFAULT_NOISE_NS, breaks_strict_lag, check_slo, is_usable};
use crate::result::{
    Distance, Distribution, Durability, EnvironmentRecord, Goal, LoopKind, ResultSet, RunRecord, RunRole, RunStatus,
};
use crate::units;

/// Lines between which the section stands.
pub const BEGIN: &str = "<!-- ringmq-bench publish: begin -->";
/// See [`BEGIN`].
pub const END: &str = "<!-- ringmq-bench publish: end -->";
/// The command, as users type it.
const COMMAND: &str = "target/release/ringmq-bench publish";

/// A page with the section replaced; `None` if it has no place for one.
pub fn replace(page: &str, text: &str) -> Option<String> {
    let (head, rest) = page.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n{text}{END}{tail}"))
}

/// The section of a page; `None` if it has no place for one.
pub fn find(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once(BEGIN)?;
    let (text, _) = rest.split_once(END)?;
    text.strip_prefix('\n')
}

/// The text of the section.
pub fn text(published: Option<(&ResultSet, &EnvironmentRecord)>) -> String {
    let Some((set, environment)) = published else {
        return format!(
            "\nNo result set is published yet. `{COMMAND}` measures one beside Apache RocketMQ (below 42 minutes on an idle \
             machine; needs JDK 17 and Maven), puts it into `bench/results/` and writes this section from it.\n\n"
        );
    };
    let mut text = String::from("\n");
    let groups = groups(set);
    introduce(&mut text, set, environment, &groups);
    let mut classes: Vec<Durability> = groups.iter().filter_map(|group| group.key.durability).collect();
    classes.dedup();
    for class in classes {
        table(&mut text, set, &groups, class);
    }
    for remark in backlog_remarks(set, environment, None) {
        let _ = writeln!(text, "{remark}.\n");
    }
    uncounted(&mut text, set, &groups);
    knees(&mut text, set);
    goals(&mut text, &set.goals);
    distances(&mut text, set);
    losses(&mut text, set);
    text
}

pub(super) fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

fn introduce(text: &mut String, set: &ResultSet, environment: &EnvironmentRecord, groups: &[Group<'_>]) {
    let fact = |section: &str, name: &str| {
        let found = environment.facts.iter().find(|fact| fact.section == section && fact.name == name);
        found.and_then(|fact| fact.value.clone()).unwrap_or_else(|| "unknown".to_owned())
    };
    let titles: Vec<String> = set
        .systems
        .iter()
        .filter(|system| set.runs.iter().any(|run| run.system == system.name && run.role == RunRole::Measured))
        .map(|system| {
            // The version of a virtual machine is its first line; its builds are in the set.
            let parts: Vec<&str> = system.runtime.split("; ").collect();
            let told = parts.iter().enumerate().filter(|(index, part)| *index == 0 || part.ends_with("each start"));
            let note = told.map(|(_, part)| *part).collect::<Vec<_>>().join(", ");
            if note.is_empty() { system.title.clone() } else { format!("{} ({note})", system.title) }
        })
        .collect();
    let cores = set.runs.iter().find(|run| run.role == RunRole::Measured).map(|run| {
        let generator = run.generator.core.map_or_else(|| "any".to_owned(), |core| core.to_string());
        format!("brokers on core {}, the generator on core {generator}", run.generator.broker_cores)
    });
    let day = set.created.split('T').next().unwrap_or_default();
    // Writing to a string cannot fail.
    let _ = write!(
        text,
        "Measured {day} by `{}` on {}, Linux {}, virtual machine: {} ({HALT_POLL_FACT}: {}); {}. {}, each turn on a fresh store, in turn.\n\n\
         {} {}\n\nA cell is the median over rounds, then the smallest and the largest. Response times count from the \
         moment at which an operation was meant to start; closed loops say what they hide in their names: `rtt` is one caller, \
         `saturate-CxD` C connections with D requests under way. *{SHAPE_TITLE}* is the size of a message's body, the connections that \
         send, and the most requests that each of them has under way. *{NOISE_TITLE}* counts, among the runs of a row that count, those in \
         which a core was noisy, and of loads with a plan those in which the generator was late (both are explained below \
         the tables). *Echo* is the same load against a server that only answers. \
         **Bold** is where RingMQ's median is worse than RocketMQ's; in [brackets] stand figures of which no run counts, for the reason \
         named below. Everything else is in [the report](bench/results/report.html) \
         and the files beside it; the harness is explained in [bench/README.md](bench/README.md).\n\n",
        super::command::line(&set.command, &set.tool.profile),
        fact("cpu", "model"),
        fact("kernel", "release"),
        fact("cpu", "virtual machine"),
        fact("cpu", HALT_POLL_FACT),
        cores.unwrap_or_default(),
        titles.join("; "),
        lengths_and_steps(set, groups),
        set.systems.iter().filter_map(heap).collect::<Vec<_>>().join(" "),
    );
}

/// A figure over the runs that count; if none does, over all that came to their end.
fn figure(group: &Group<'_>, value: impl Fn(&RunRecord) -> Option<f64>) -> Option<Figure> {
    let complete = || group.runs.iter().filter(|run| run.status == RunStatus::Complete);
    group.figure(&value).or_else(|| Figure::of(complete().filter_map(|run| value(run))))
}

fn cell(group: &Group<'_>, figure: Option<Figure>, show: impl Fn(f64) -> String, is_worse: bool) -> String {
    let Some(figure) = figure else { return "–".to_owned() };
    let median = show(figure.median);
    let median = if is_worse { format!("**{median}**") } else { median };
    let (low, high) = (show(figure.low), show(figure.high));
    let is_one = figure.runs < 2 || low == high;
    let text = if is_one { median } else { format!("{median} ({})", range(&low, &high)) };
    if group.usable().next().is_none() { format!("[{text}]") } else { text }
}

/// A range of two numbers with their units, the unit once if it is the same.
fn range(low: &str, high: &str) -> String {
    match (low.rsplit_once(' '), high.rsplit_once(' ')) {
        (Some((number, unit)), Some((_, other))) if unit == other => format!("{number}–{high}"),
        _ => format!("{low}–{high}"),
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds are below 2^53")]
fn response(group: &Group<'_>, quantile: fn(&Distribution) -> u64) -> Option<Figure> {
    figure(group, |run| Some(quantile(&run.primary().filter(|first| first.acknowledged > 0)?.response) as f64))
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds and bytes are below 2^53")]
fn receipt(group: &Group<'_>, quantile: fn(&Distribution) -> u64) -> Option<Figure> {
    figure(group, |run| {
        run.end_to_end.as_ref().filter(|end| end.distribution.count > 0).map(|end| quantile(&end.distribution) as f64)
    })
}

fn is_floor(group: &Group<'_>) -> bool {
    group.runs.iter().all(|run| run.role == RunRole::Floor)
}

/// Whether `ours` is the worse of two figures.
fn is_worse(ours: Option<Figure>, theirs: Option<Figure>, more_is_better: bool) -> bool {
    ours.zip(theirs).is_some_and(
        |(ours, theirs)| {
            if more_is_better { ours.median < theirs.median } else { ours.median > theirs.median }
        },
    )
}

type Quantile = fn(&Distribution) -> u64;
const QUANTILES: [Quantile; 3] = [|all| all.p50_ns, |all| all.p99_ns, |all| all.p999_ns];

fn table(text: &mut String, set: &ResultSet, groups: &[Group<'_>], class: Durability) {
    let is_row = |group: &&Group<'_>| {
        group.key.durability == Some(class) && group.runs.iter().any(|run| run.role == RunRole::Measured)
    };
    let rows: Vec<&Group<'_>> = groups.iter().filter(is_row).collect();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(text, "**{}: {}**\n", class.name(), class.promise());
    line(
        text,
        &format!(
            "| workload | {SHAPE_TITLE} | rate/s | system | messages/s | errors | p50 | p99 | p99.9 | CPU per message | system calls per \
             message | memory | {NOISE_TITLE} | runs that count |"
        ),
    );
    line(text, "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    for peers in rows.chunk_by(|left, right| is_same_load(left, right)) {
        for group in peers {
            broker_row(text, set, peers, group);
        }
        let first = peers[0];
        for floor in groups.iter().filter(|floor| is_floor(floor) && floor.key.durability.is_none()) {
            if is_same_load(floor, first) {
                floor_row(text, set, floor, &label(floor));
            }
        }
    }
    for floor in groups.iter().filter(|floor| is_floor(floor) && floor.key.durability == Some(class)) {
        floor_row(text, set, floor, "append of 1 KiB");
    }
    text.push('\n');
}

fn is_same_load(left: &Group<'_>, right: &Group<'_>) -> bool {
    left.key.workload == right.key.workload && left.key.rate_milli == right.key.rate_milli
}

#[expect(clippy::cast_precision_loss, reason = "rates are below 2^53")]
fn target(group: &Group<'_>) -> String {
    group.key.rate_milli.map_or_else(|| "closed loop".to_owned(), |rate| units::count(rate as f64 / 1e3))
}

/// The row of one broker; `peers` are all brokers under this load.
#[expect(clippy::cast_precision_loss, reason = "rates and bytes are below 2^53")]
fn broker_row(text: &mut String, set: &ResultSet, peers: &[&Group<'_>], group: &Group<'_>) {
    let rival = peers.iter().find(|other| group.key.system == "ringmq" && other.key.system != "ringmq");
    let is_closed = group.runs.iter().any(|run| run.parameters.loop_kind == LoopKind::Closed);
    let rate = |group: &Group<'_>| figure(group, |run| Some(run.messages_per_s));
    let cpu = |group: &Group<'_>| figure(group, |run| run.cost.cpu_ns_per_message);
    let memory = |group: &Group<'_>| figure(group, |run| run.cost.resident_bytes.map(|bytes| bytes as f64));
    let worse = |of: &dyn Fn(&Group<'_>) -> Option<Figure>, more: bool| {
        rival.is_some_and(|rival| is_worse(of(group), of(rival), more))
    };
    let times = QUANTILES.map(|quantile| {
        let of = |group: &Group<'_>| response(group, quantile);
        cell(group, of(group), units::duration, worse(&of, false))
    });
    let counts = group.counting_text();
    let calls = |group: &Group<'_>| syscalls(set, &group.key, &group.runs).ok();
    let (target, title) = (target(group), super::plots::title(set, &group.key.system));
    let _ = writeln!(
        text,
        "| {} | {} | {target} | {title} | {} | {} | {} | {} | {} | {} | {} | {counts} |",
        label(group),
        shape_of(group),
        cell(group, rate(group), units::count, is_closed && worse(&rate, true)),
        errors_text(&group.runs),
        times.join(" | "),
        cell(group, cpu(group), units::duration, worse(&cpu, false)),
        cell(group, calls(group), units::significant, worse(&calls, false)),
        cell(group, memory(group), units::bytes, worse(&memory, false)),
        noise(group),
    );
    if receipt(group, QUANTILES[0]).is_some() {
        let times = QUANTILES.map(|quantile| {
            let of = |group: &Group<'_>| receipt(group, quantile);
            cell(group, of(group), units::duration, worse(&of, false))
        });
        let _ = writeln!(
            text,
            "| … send to receipt | | {target} | {title} | | | {} | | | | | {counts} |",
            times.join(" | ")
        );
    }
}

fn floor_row(text: &mut String, set: &ResultSet, floor: &Group<'_>, name: &str) {
    let times = QUANTILES.map(|quantile| cell(floor, response(floor, quantile), units::duration, false));
    let rate = cell(floor, figure(floor, |run| Some(run.messages_per_s)), units::count, false);
    let _ = writeln!(
        text,
        "| *{name}* | {} | {} | *{}* | {rate} | {} | {} | | | | {} | {} of {} |",
        shape_of(floor),
        target(floor),
        super::plots::title(set, &floor.key.system),
        errors_text(&floor.runs),
        times.join(" | "),
        noise(floor),
        floor.usable().count(),
        floor.runs.len()
    );
}

/// Says why there are loads without a figure for system calls.
fn uncounted(text: &mut String, set: &ResultSet, groups: &[Group<'_>]) {
    let measured = groups.iter().filter(|group| group.runs.iter().any(|run| run.role == RunRole::Measured));
    let mut reasons: Vec<String> = measured.filter_map(|group| syscalls(set, &group.key, &group.runs).err()).collect();
    reasons.sort();
    reasons.dedup();
    if !reasons.is_empty() {
        let _ =
            writeln!(text, "System calls per message are not available where there is a –: {}.\n", reasons.join("; "));
    }
}

/// Distances that are shown of each class.
const MOST_DISTANCES: usize = 3;

fn distances(text: &mut String, set: &ResultSet) {
    if set.distances.is_empty() {
        return;
    }
    for (class, distances) in by_class(&set.distances, |distance| distance.class()) {
        largest(text, class, &distances);
    }
    line(
        text,
        "Of each load its worst figure of p50 and p99, of a closed loop with several requests under way its rate; a floor is made \
         once or twice, so the host's noise is in its p99 too. All loads are in the report. Causes are from \
         [bench/causes.toml](bench/causes.toml).\n",
    );
}

fn largest(text: &mut String, class: Option<Durability>, distances: &[&Distance]) {
    let _ = writeln!(text, "**The three largest distances to the floor, {}**\n", class_heading(class));
    line(text, "| load, class, figure | goal | wanted | measured | floor | distance | known cause |");
    line(text, "|---|---|---|---|---|---|---|");
    for distance in distances.iter().take(MOST_DISTANCES) {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} ({}) | {} | {} |",
            distance.row,
            if distance.goal.is_empty() { "–" } else { &distance.goal },
            distance.wanted.map_or_else(|| "–".to_owned(), |wanted| quantity(wanted, &distance.unit)),
            quantity(distance.measured, &distance.unit),
            quantity(distance.floor, &distance.unit),
            distance.floor_is,
            units::ratio(distance.ratio),
            cause(distance),
        );
    }
    text.push('\n');
}

/// One list for all classes: each goal is a sentence of its own about one class, and no row is compared with another.
fn goals(text: &mut String, goals: &[Goal]) {
    if goals.is_empty() {
        return;
    }
    let missed = goals.iter().filter(|goal| !goal.is_met()).count();
    let _ = writeln!(text, "**Goals: {} reached, {missed} missed**\n", goals.len() - missed);
    line(text, "| | goal | wanted | measured | |");
    line(text, "|---|---|---|---|---|");
    for goal in goals {
        let number = |value: f64| if goal.unit == "/s" { units::count(value) } else { units::significant(value) };
        let _ = writeln!(
            text,
            "| {} | {} | {} {unit} | {} | {} |",
            goal.id,
            goal.rule,
            number(goal.wanted),
            goal.measured.map_or_else(|| "–".to_owned(), |measured| format!("{} {}", number(measured), goal.unit)),
            match (goal.is_met(), goal.failure.as_str()) {
                (true, _) => "reached".to_owned(),
                (false, "") => "**missed**".to_owned(),
                (false, failure) => format!("**missed**: {failure}"),
            },
            unit = goal.unit,
        );
    }
    let known: Vec<&Goal> = goals.iter().filter(|goal| !goal.cause.is_empty()).collect();
    if !known.is_empty() {
        line(text, "\nWhy goals are missed, as far as it is known:\n");
        for goal in known {
            let _ = writeln!(text, "- {}, {}: {}.", goal.id, goal.rule, goal.cause.trim_end_matches('.'));
        }
    }
    let is_absent = |(id, part): &&(&str, &str)| !goals.iter().any(|goal| goal.id == *id && goal.rule.contains(part));
    let absent: Vec<String> =
        JUDGED_PARTS.iter().filter(is_absent).map(|(id, part)| format!("{id} ({part})")).collect();
    if !absent.is_empty() {
        let _ = writeln!(
            text,
            "\nNot judged, because runs or floors that they need are not in the set or were spoiled by the host: {}.",
            absent.join(", ")
        );
    }
    let _ = writeln!(text, "\nNot judged by any set: {NEVER_JUDGED}.");
    text.push('\n');
}

/// What is judged, as the goal's id and a part of its rule: a goal in one class says nothing of the other.
const JUDGED_PARTS: [(&str, &str); 19] = [
    ("P1", "rtt-1k in D1"),
    ("P2", "rtt-1k in D2"),
    ("P3", "10,000/s in D1: p99 at most"),
    ("P3", "10,000/s in D1: p99.9 at most"),
    ("P4", "50,000/s in D2"),
    ("P5", "messages of 1 KiB, D1"),
    ("P6", "batches of 32, D1"),
    ("P7", "send to receipt, D1"),
    ("P8", "producers beside a group that catches up"),
    ("P8", "drains its backlog"),
    ("P9", "beside 10,000 idle connections"),
    ("P9", "memory of an idle connection"),
    ("P10", "D1: highest confirmed rate"),
    ("P10", "D1, at half of RocketMQ's highest rate"),
    ("P10", "D2: highest confirmed rate"),
    ("P10", "D2, at half of RocketMQ's highest rate"),
    ("P11", "CPU time per message"),
    ("P11", "bytes written for each byte"),
    ("P11", "system calls per message at most"),
];
/// Parts of goals for which the harness has no figure.
const NEVER_JUDGED: &str =
    "P12 (how long a start with a log of 10 GB takes: each broker here starts on an empty store)";

/// Below this, at p99, the schedule error of a generator that spins is expected to be.
const EXPECTED_SCHEDULE_ERROR_NS: f64 = 5_000.0;

/// Runs that do not count, by their reason.
fn losses(text: &mut String, set: &ResultSet) {
    let counts = |run: &&RunRecord| match run.role {
        RunRole::SweepStep => false,
        RunRole::Counting => run.integrity.is_violated(),
        // With a plan it asks what the generator keeps up with.
        RunRole::Headroom => run.parameters.loop_kind == LoopKind::Closed,
        _ => true,
    };
    let all = set.runs.iter().filter(counts).count();
    let bad: Vec<&RunRecord> = set.runs.iter().filter(counts).filter(|run| !is_usable(run)).collect();
    let noisy = set.runs.iter().filter(counts).filter(|run| run.validity.noisy).count();
    // Floors that append to a file do so in the generator's loop.
    let is_hosts = |run: &&RunRecord| {
        let mut generators = run.hiccups.iter().filter(|hiccup| hiccup.role == "generator");
        run.role != RunRole::Floor && generators.any(|hiccup| hiccup.distribution.p999_ns > DEFAULT_NOISE_NS)
    };
    let hosts = set.runs.iter().filter(counts).filter(is_hosts).count();
    let late = set.runs.iter().filter(counts).filter(|run| is_usable(run) && breaks_strict_lag(run)).count();
    let _ = writeln!(
        text,
        "Of {all} runs (without the steps of searches) {} do not count. In {noisy} a thread on one of the cores woke up later \
         than half of what the figures are about (noisy; they count; a broker that keeps its core busy is enough for that). In \
         {hosts} the generator's loop, alone on its core, was late by more than {} at p99.9: that is the host, or a stall to catch \
         up with. In {late} of those that count the generator's lag p99 was above 20 µs and a tenth of the median response: \
         on hardware of its own that makes a run invalid, on a virtual machine it is a remark.",
        bad.len(),
        units::nanoseconds(DEFAULT_NOISE_NS),
    );
    let is_open = |run: &&RunRecord| run.parameters.loop_kind == LoopKind::Open && is_usable(run);
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds are below 2^53")]
    let errors = || set.runs.iter().filter(counts).filter(is_open).map(|run| run.generator.own_lag.p99_ns as f64);
    if let Some(figure) = Figure::of(errors()) {
        let _ = writeln!(
            text,
            "The generator's schedule error (from the planned moment to the one at which it turned to the operation) was {} at p99 \
             in the median of the {} runs with a plan that count, {} in the worst. A generator that spins is expected to stay below {}: \
             {} of these runs do.",
            units::duration(figure.median),
            figure.runs,
            units::duration(figure.high),
            units::duration(EXPECTED_SCHEDULE_ERROR_NS),
            errors().filter(|error| *error < EXPECTED_SCHEDULE_ERROR_NS).count(),
        );
    }
    for run in &bad {
        let mut reasons = super::groups::complaints(run);
        let curve = set.curves.iter().find(|curve| curve.points.iter().any(|point| point.run == run.id));
        reasons.extend(curve.map(|curve| check_slo(run, &curve.slo)).unwrap_or_default());
        let _ = writeln!(text, "- `{}`: {}", run.id, reasons.join("; "));
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: the section has both systems, floors, knees, missed goals and runs that do not count; it replaces the old one and
    /// nothing else; without a set it says so. Method: the example set, with a goal that was missed.
    #[test]
    fn section_of_the_example() {
        let mut set = example::result_set();
        set.goals[0].measured = Some(600.0);
        "the disk, as a trace of it shows".clone_into(&mut set.goals[0].cause);
        let environment = example::environment();
        let text = text(Some((&set, &environment)));
        for wanted in [
            "| RingMQ 0.1.0 |",
            "| Apache RocketMQ 5.3.3 |",
            "| *echo floor* |",
            "80,000/s",
            "**missed**",
            ": the disk, as a trace of it shows.",
            "2 messages lost",
            "| 0; 0 | 3 of 4 (1 failed by itself) |",
            "not available where there is a –: they were not counted.",
            "| steady-1k-10k at 10,000/s, D1, p99 | P3 | 500 µs | 410 µs | 100 µs (echo and append) | 4.10× | not yet explained |",
            "1.22 µs in the worst. A generator that spins is expected to stay below 5.00 µs: 8 of these runs do.",
            "| steady-1k-10k | 1 KiB × 4 × 256 | 10,000 | RingMQ 0.1.0 |",
            "Runs are 10.0 s after 10.0 s of warm-up",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        let page = replace(&format!("a\n{BEGIN}\nformer text\n{END}\nb\n"), &text).unwrap();
        assert_eq!(find(&page), Some(text.as_str()));
        assert!(page.starts_with("a\n") && page.ends_with("\nb\n") && !page.contains("former text"));
        assert_eq!(replace("no place", &text), None);
        assert_eq!(range("348 µs", "391 µs"), "348–391 µs");
        assert_eq!((range("999 µs", "1.00 ms"), range("7", "9")), ("999 µs–1.00 ms".to_owned(), "7–9".to_owned()));
        assert!(super::text(None).contains("No result set is published yet"));
    }

    /// Goal: a knee that its repeats did not bear out is shown with what they missed and with the rate that held, and the
    /// generator's limit beside every use of it. Method: the example with a confirming run that missed its p99 and is
    /// invalid as well.
    #[test]
    fn doubts_are_told() {
        let mut set = example::result_set();
        set.curves[0].confirmed = false;
        for (role, rate, median_ns, reason) in [
            (RunRole::ConfirmFull, 80_000.0, 9_000_000, "p99 99 ms > 1.00 ms"),
            (RunRole::ConfirmEighty, 64_000.0, 50_000, ""),
        ] {
            let mut run = example::run("ringmq", 1, role, rate, median_ns);
            if !reason.is_empty() {
                run.validity.invalid.push("the hypervisor took 1.5 % of the CPU time".to_owned());
            }
            let (held, reason) = (reason.is_empty(), reason.to_owned());
            set.curves[0].points.push(crate::result::CurvePoint {
                rate_per_s: rate,
                run: run.id.clone(),
                held,
                reason,
            });
            set.runs.push(run);
        }
        let text = text(Some((&set, &example::environment())));
        assert!(text.contains("| no: at 80,000/s p99 99 ms > 1.00 ms; 64,000/s is |"), "{text}");
        let loss = text.lines().find(|line| line.contains("confirmfull") && line.starts_with("- ")).unwrap();
        assert!(loss.contains("took 1.5 %") && loss.contains("p99 ") && loss.contains("> 1.00 ms"), "{loss}");
        assert!(text.contains("64.0× the highest fixed rate (10,000/s), 8.00× the highest knee (80,000/s)"), "{text}");
        set.goals[0].failure = "3 of 3 runs failed: it reached 80.0 % of the target rate".to_owned();
        let text = super::text(Some((&set, &example::environment())));
        assert!(text.contains("**missed**: 3 of 3 runs failed"), "{text}");
    }

    /// Goal: no table holds rows of two classes, and the heading over each names its own. Method: the example in D1 and D2; the markdown
    /// tables of the section and those of the page.
    #[test]
    fn classes_never_share_a_table() {
        let mut set = example::result_set();
        let (rows, mut curves) = (set.distances.clone(), set.curves.clone());
        set.distances.extend(rows.iter().cloned().map(|row| Distance { row: row.row.replace("D1", "D2"), ..row }));
        curves
            .iter_mut()
            .for_each(|curve| (curve.durability, curve.knee_rate_per_s) = (Some(Durability::D2), Some(7_770.0)));
        set.curves.extend(curves);
        let runs = set.runs.clone().into_iter().filter(|run| run.durability.is_some()).map(|mut run| {
            (run.durability, run.id) = (Some(Durability::D2), run.id.replace("D1", "D2"));
            run
        });
        set.runs.extend(runs.collect::<Vec<_>>());
        let text = text(Some((&set, &example::environment())));
        for (heading, wanted) in [
            ("**Highest rates of single messages of 1 KiB, D1: ", "80,000/s"),
            ("**Highest rates of single messages of 1 KiB, D2: ", "7,770/s"),
            ("**The three largest distances to the floor, D1: ", "steady-1k-10k at 10,000/s, D1, p99"),
            ("**The three largest distances to the floor, D2: ", "steady-1k-10k at 10,000/s, D2, p99"),
        ] {
            let (_, rest) = text.split_once(heading).unwrap_or_else(|| panic!("{heading}: {text}"));
            let rows: Vec<&str> = rest.lines().skip(2).take_while(|line| line.starts_with('|')).skip(2).collect();
            assert!(!rows.is_empty() && rows.iter().any(|row| row.contains(wanted)), "{heading} {rows:?}");
            let other = if wanted.contains("D1") { "D2" } else { "D1" };
            assert!(!rows.iter().any(|row| row.contains(other)), "{heading} {rows:?}");
            assert!(!rows.iter().any(|row| row.contains("7,770/s") != (wanted == "7,770/s")), "{heading} {rows:?}");
        }
        let page = crate::report::page_text(&set, &example::environment());
        let tables: Vec<&str> =
            page.split("<table>").skip(1).map(|rest| rest.split("</table>").next().unwrap()).collect();
        for table in &tables {
            assert!(!(table.contains("D1") && table.contains("D2")), "{table}");
        }
        // Figures, costs, distances, rates, versus.
        for class in ["D1: ", "D2: "] {
            assert!(tables.iter().filter(|table| table.contains(&format!("<caption>{class}"))).count() >= 3, "{page}");
        }
    }

    /// Goal: what was not judged is named with its class, also where the same goal was judged in another. Method: goals in D1 alone, then
    /// with one in D2.
    #[test]
    fn what_was_not_judged_is_named() {
        let mut set = example::result_set();
        let goal = |id: &str, rule: &str| Goal { id: id.to_owned(), rule: rule.to_owned(), ..set.goals[0].clone() };
        let d1 = goal("P10", "D1: highest confirmed rate against RocketMQ's highest, at least");
        let d2 = goal("P10", "D2: highest confirmed rate against RocketMQ's highest, at least");
        set.goals = vec![d1, goal("P1", "rtt-1k in D1: p50 at most 1.2 times echo that spins and append")];
        let text = text(Some((&set, &example::environment())));
        let told = text.lines().find(|line| line.starts_with("Not judged, because")).unwrap();
        assert!(told.contains("P2 (rtt-1k in D2)") && told.contains("P10 (D2: highest confirmed rate)"), "{told}");
        assert!(!told.contains("P1 (") && !told.contains("P10 (D1: highest"), "{told}");
        assert!(text.contains("Not judged by any set: P12 (how long a start"), "{text}");
        set.goals.push(d2);
        let text = super::text(Some((&set, &example::environment())));
        assert!(!text.contains("P10 (D2: highest"), "{text}");
    }

    /// Goal: errors stand beside the latency of every row, those of runs that do not count too. Method: the example with refusals in one run
    /// of RingMQ and timeouts of the echo.
    #[test]
    fn errors_stand_beside_latency() {
        let mut set = example::result_set();
        let errors = |run: &mut RunRecord, count, kind: &str| {
            run.operations[0].errors = count;
            let kind = kind.to_owned();
            run.operations[0].error_kinds = vec![crate::result::ErrorCount { kind, count, example: String::new() }];
        };
        let row = |set: &ResultSet, system: &str| {
            let text = text(Some((set, &example::environment())));
            text.lines().find(|line| line.contains(&format!("| {system} |"))).unwrap().to_owned()
        };
        assert!(row(&set, "RingMQ 0.1.0").contains("| 10,000 | 0 |"), "{}", row(&set, "RingMQ 0.1.0"));
        errors(set.runs.iter_mut().find(|run| run.system == "ringmq").unwrap(), 60, "2 SYSTEM_BUSY");
        errors(set.runs.iter_mut().find(|run| run.system == "null").unwrap(), 2, "timeout");
        let broker = row(&set, "RingMQ 0.1.0");
        assert!(broker.contains("| 60 of 60,000 (0.10 %); most: 2 SYSTEM_BUSY |"), "{broker}");
        assert!(
            row(&set, "*echo floor*").contains("| 2 of 20,000 (0.010 %); most: timeout |"),
            "{}",
            row(&set, "*echo floor*")
        );
        let page = crate::report::page_text(&set, &example::environment());
        assert!(page.contains("60 of 60,000 (0.10 %); most: 2 SYSTEM_BUSY"));
    }

    /// Goal: where the other system is ahead, the figure is marked. Method: the example with RingMQ made slow.
    #[test]
    fn losing_figures_are_bold() {
        let mut set = example::result_set();
        let bold = |set: &ResultSet| {
            let text = text(Some((set, &example::environment())));
            let row = text.lines().find(|line| line.contains("| RingMQ 0.1.0 |")).unwrap().to_owned();
            row.contains("**")
        };
        assert!(!bold(&set));
        for run in set.runs.iter_mut().filter(|run| run.system == "ringmq") {
            run.operations[0].response.p99_ns = 9_000_000_000;
        }
        assert!(bold(&set));
        for run in set.runs.iter_mut().filter(|run| run.system == "ringmq") {
            run.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        }
        let text = text(Some((&set, &example::environment())));
        assert!(text.contains("[**9.00 s") && text.contains("| 0 of 3 |"), "{text}");
    }
}
