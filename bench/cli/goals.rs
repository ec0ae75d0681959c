//! Goals that a set can judge by itself: each figure beside the floors, or beside the other broker, of the same set. Pure.
//!
//! A goal whose runs, floors or rival's runs are not in the set, or were spoiled by the host, is left out. None is dropped because
//! it was missed: a run that the system itself failed (it lost messages, died, or did not reach the rate) is worse than
//! any figure, and a knee that its repeats did not bear out is none.

use crate::judge::{KEPT_UP_SHARE, MOST_BUSY_SHARE, confirmed_rate, target_failures};
use crate::load::recorder::SECOND_NS;
use crate::report::groups::{self, Figure, Group, GroupKey, groups};
use crate::report::section::syscalls_at_knee;
use crate::result::{Curve, Distribution, Durability, EndToEnd, Goal, ResultSet, RunRecord, RunRole, RunStatus};

/// Names that `publish` gives to workloads without what is to be judged.
pub const CATCHUP_WITHOUT_BACKLOG: &str = "catchup-no-backlog";
/// See [`CATCHUP_WITHOUT_BACKLOG`].
pub const WITHOUT_IDLE_CONNECTIONS: &str = "conn-0-idle";
/// Names that `publish` gives to the floors of reading: from the page cache, and past it.
pub const READING: &str = "reading-32k";
/// See [`READING`].
pub const READING_DIRECT: &str = "reading-256k";
/// The p99 that the knee of P5 must hold.
pub const STRICT_P99_NS: u64 = 1_000_000;

/// The curve of a system in a class that tells how much it sustains at all.
fn loose_curve<'s>(set: &'s ResultSet, system: &str, class: Durability) -> Option<&'s Curve> {
    let is_it = |curve: &&Curve| {
        let is_strict = curve.slo.p99_ns.is_some_and(|p99_ns| p99_ns <= STRICT_P99_NS);
        curve.system == system && curve.durability == Some(class) && !is_strict
    };
    set.curves.iter().find(is_it)
}

/// Half of the rate that RingMQ was confirmed to sustain in D1.
pub fn half_load(set: &ResultSet) -> Option<f64> {
    confirmed_rate(set, loose_curve(set, "ringmq", Durability::D1)?).map(super::rounds::half)
}

/// Messages per second that a group which catches up received while it was behind and producers went on: the median of the whole
/// seconds of the measured phase in which it was so to their end, or the first if it was behind for less than one. `None`: there
/// was no backlog, nothing came, or the phase was shorter than a second.
fn drained_per_s(run: &RunRecord) -> Option<f64> {
    let batch = u64::from(run.parameters.batch);
    let mut behind = (run.parameters.preload_bytes / run.parameters.message_bytes).checked_sub(1)?;
    // After the plan nobody produces, and what comes then comes in a part of a second.
    let whole = run.series.iter().filter(|point| (u64::from(point.second) + 1) * SECOND_NS <= run.measured_ns);
    let mut seconds = Vec::new();
    for point in whole.clone() {
        let produced = point.acknowledged * batch;
        behind = (behind + produced).saturating_sub(point.received);
        // What is under way is not behind.
        if behind == 0 || behind < produced {
            break;
        }
        seconds.push(float(point.received));
    }
    seconds.sort_by(f64::total_cmp);
    let first = whole.map(|point| float(point.received)).next();
    groups::median(&seconds).or(first).filter(|rate| *rate > 0.0)
}

/// What is asked of a set.
struct Judge<'a> {
    set: &'a ResultSet,
    groups: Vec<Group<'a>>,
    goals: Vec<Goal>,
}

type Quantile = fn(&Distribution) -> u64;

fn us(ns: f64) -> f64 {
    ns / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn float(value: u64) -> f64 {
    value as f64
}

/// A figure that the system must answer for.
#[derive(Debug, Clone)]
struct Measured {
    value: Option<f64>,
    /// See [`Goal::failure`].
    failure: String,
}

impl Measured {
    fn of(value: f64) -> Measured {
        Measured { value: Some(value), failure: String::new() }
    }

    fn map(self, change: impl FnOnce(f64) -> f64) -> Measured {
        Measured { value: self.value.map(change), failure: self.failure }
    }
}

/// The median over a group in which a run that the system itself failed is worse than any other; runs that host, generator or
/// user spoiled are left out. `None`: no run is left.
fn judged(group: &Group<'_>, at_least: bool, of: impl Fn(&RunRecord) -> Option<f64>) -> Option<Measured> {
    let failed: Vec<(&RunRecord, Vec<String>)> = group
        .runs
        .iter()
        .map(|run| (*run, target_failures(run)))
        .filter(|(_, failures)| !failures.is_empty())
        .collect();
    let worst = if at_least { f64::NEG_INFINITY } else { f64::INFINITY };
    let mut values: Vec<f64> = group.usable().filter_map(&of).chain(failed.iter().map(|_| worst)).collect();
    values.sort_by(f64::total_cmp);
    let median = groups::median(&values)?;
    if median.is_finite() {
        return Some(Measured::of(median));
    }
    let reason = failed.first().and_then(|(_, failures)| failures.first()).map_or("", String::as_str);
    let failure = format!("{} of {} runs failed: {reason}", failed.len(), values.len());
    // Their figures do not decide, but they say how far it was from the goal.
    let complete = failed.iter().map(|(run, _)| *run).filter(|run| run.status == RunStatus::Complete);
    let value = Figure::of(group.usable().chain(complete).filter_map(of)).map(|figure| figure.median);
    Some(Measured { value, failure })
}

/// Medians over the runs of a group that count.
fn median(group: &Group<'_>, of: impl Fn(&RunRecord) -> Option<f64>) -> Option<f64> {
    Figure::of(group.usable().filter_map(of)).map(|figure| figure.median)
}

fn of_response(quantile: Quantile) -> impl Fn(&RunRecord) -> Option<f64> {
    move |run| run.primary().filter(|first| first.acknowledged > 0).map(|first| float(quantile(&first.response)))
}

fn response(group: &Group<'_>, quantile: Quantile) -> Option<f64> {
    median(group, of_response(quantile))
}

/// As [`response`] for a figure that is judged, in microseconds.
fn judged_response(group: &Group<'_>, quantile: Quantile) -> Option<Measured> {
    Some(judged(group, false, of_response(quantile))?.map(us))
}

fn p50(distribution: &Distribution) -> u64 {
    distribution.p50_ns
}

fn p99(distribution: &Distribution) -> u64 {
    distribution.p99_ns
}

fn p999(distribution: &Distribution) -> u64 {
    distribution.p999_ns
}

impl<'a> Judge<'a> {
    fn add(
        &mut self,
        id: &str,
        rule: &str,
        at_least: bool,
        wanted: Option<f64>,
        measured: Option<Measured>,
        unit: &str,
    ) {
        if let (Some(wanted), Some(Measured { value, failure })) = (wanted, measured) {
            let (id, rule, unit) = (id.to_owned(), rule.to_owned(), unit.to_owned());
            let cause = String::new();
            self.goals.push(Goal { id, rule, wanted, measured: value, unit, at_least, failure, cause });
        }
    }

    fn find(&self, system: &str, workload: &str, class: Option<Durability>, rate: Option<f64>) -> Option<&Group<'a>> {
        self.groups.iter().find(|group| {
            let GroupKey { durability, workload: name, rate_milli, system: owner } = &group.key;
            let is_rate =
                rate.is_none_or(|rate| rate_milli.is_some_and(|milli| (float(milli) / 1e3 - rate).abs() < 0.5));
            owner == system && name == workload && *durability == class && is_rate
        })
    }

    fn ringmq(&self, workload: &str, class: Durability) -> Option<&Group<'a>> {
        self.find("ringmq", workload, Some(class), None)
    }

    /// The best append of a class: brokers may choose among them. Only of floors that count: a disturbed one would be easier to
    /// reach.
    fn append(&self, class: Durability, quantile: Quantile) -> Option<f64> {
        let floors = self.groups.iter().filter(|group| {
            group.key.system.starts_with("file")
                && group.key.durability == Some(class)
                && group.runs.iter().all(|run| run.role == RunRole::Floor)
        });
        let medians = floors.filter_map(|group| Some((response(group, p50)?, response(group, quantile)?)));
        medians.min_by(|left, right| left.0.total_cmp(&right.0)).map(|(_, wanted)| wanted)
    }

    /// The echo of one caller.
    fn echo(&self, system: &str, quantile: Quantile) -> Option<f64> {
        response(self.find(system, "rtt-1k", None, None)?, quantile)
    }

    fn round_trips(&mut self) {
        for (system, name) in [("null", "echo that spins"), ("null-sleep", "echo that sleeps")] {
            let sum = |quantile| Some(self.echo(system, quantile)? + self.append(Durability::D1, quantile)?);
            let wanted = [sum(p50).map(|sum| us(1.2 * sum)), sum(p99).map(|sum| us(2.0 * sum))];
            let group = self.ringmq("rtt-1k", Durability::D1);
            let [median, tail] = [p50 as Quantile, p99].map(|quantile| judged_response(group?, quantile));
            self.add(
                "P1",
                &format!("rtt-1k in D1: p50 at most 1.2 times {name} and append"),
                false,
                wanted[0],
                median,
                "µs",
            );
            self.add("P1", &format!("rtt-1k in D1: p99 at most twice {name} and append"), false, wanted[1], tail, "µs");
        }
        for (system, name) in [("null", "echo that spins"), ("null-sleep", "echo that sleeps")] {
            let wanted = self.echo(system, p50).zip(self.append(Durability::D2, p50));
            let wanted = wanted.map(|(echo, append)| us(echo + 1.2 * append));
            let measured = self.ringmq("rtt-1k", Durability::D2).and_then(|group| judged_response(group, p50));
            let rule = format!("rtt-1k in D2: p50 at most {name} and 1.2 times the best durable append");
            self.add("P2", &rule, false, wanted, measured, "µs");
        }
    }

    fn steady(&mut self) {
        let group = self.find("ringmq", "steady-1k-10k", Some(Durability::D1), Some(10_000.0));
        let [p99_of_10k, p999_of_10k] = [p99 as Quantile, p999].map(|quantile| judged_response(group?, quantile));
        // The host's noise is what the generator's core saw, where nothing else runs: on the broker's cores the broker's own work
        // is in it, and a busier broker must not have an easier goal.
        let worst_core = |run: &RunRecord| {
            let cores = run.hiccups.iter().filter(|hiccup| hiccup.role == "generator");
            cores.map(|hiccup| float(hiccup.distribution.p999_ns)).reduce(f64::max)
        };
        let hiccup = group.and_then(|group| {
            // The host is the same in runs that the broker failed.
            let all = || Figure::of(group.runs.iter().filter_map(|run| worst_core(run))).map(|figure| figure.median);
            median(group, worst_core).or_else(all)
        });
        self.add("P3", "10,000/s in D1: p99 at most 500 µs", false, Some(500.0), p99_of_10k, "µs");
        let wanted = hiccup.map(|hiccup| us(hiccup) + 1000.0);
        self.add(
            "P3",
            "10,000/s in D1: p99.9 at most the host's hiccup p99.9 and 1 ms",
            false,
            wanted,
            p999_of_10k,
            "µs",
        );
        let group = self.find("ringmq", "steady-1k-50k", Some(Durability::D2), None);
        let measured = group.and_then(|group| judged_response(group, p99));
        self.add("P4", "50,000/s in D2: p99 at most 1 ms", false, Some(1000.0), measured, "µs");
    }

    fn rates(&mut self) {
        let is_strict = |curve: &&Curve| {
            curve.system == "ringmq"
                && curve.durability == Some(Durability::D1)
                && curve.slo.p99_ns.is_some_and(|p99_ns| p99_ns <= STRICT_P99_NS)
        };
        let strict = self.set.curves.iter().find(is_strict);
        let strict = strict.map(|curve| Measured::of(confirmed_rate(self.set, curve).unwrap_or(0.0)));
        self.add(
            "P5",
            "messages of 1 KiB, D1, p99 at most 1 ms, confirmed: at least 150,000/s",
            true,
            Some(150_000.0),
            strict,
            "/s",
        );
        let name = "saturate-batch-32";
        let batches = self.ringmq(name, Durability::D1);
        let batches = batches.and_then(|group| judged(group, true, |run| Some(run.messages_per_s)));
        let echo = self.find("null", name, None, None).and_then(|echo| median(echo, |run| Some(run.messages_per_s)));
        let wanted = echo.map_or(800_000.0, |echo| (0.6 * echo).min(800_000.0));
        let rule = "batches of 32, D1: at least 800,000 messages/s, or 60 % of what the echo takes over loopback";
        self.add("P6", rule, true, Some(wanted), batches, "/s");
    }

    fn receipts(&mut self) {
        let trip = self.ringmq("rtt-1k", Durability::D1);
        let receipt = self.ringmq("end-to-end", Durability::D1);
        let receipt = |quantile: Quantile| {
            let of =
                |end: &EndToEnd| Some(&end.distribution).filter(|all| all.count > 0).map(|all| float(quantile(all)));
            Some(judged(receipt?, false, |run| run.end_to_end.as_ref().and_then(of))?.map(us))
        };
        let trip = |factor: f64, quantile| Some(us(factor * response(trip?, quantile)?));
        let (wanted, median, tail) = ([trip(1.5, p50), trip(2.0, p99)], receipt(p50), receipt(p99));
        self.add("P7", "send to receipt, D1: p50 at most 1.5 times that of rtt-1k", false, wanted[0], median, "µs");
        self.add("P7", "send to receipt, D1: p99 at most twice that of rtt-1k", false, wanted[1], tail, "µs");
    }

    fn neighbours(&mut self) {
        let figure = |workload| self.ringmq(workload, Durability::D1).and_then(|group| response(group, p99)).map(us);
        let alone = figure(CATCHUP_WITHOUT_BACKLOG).map(|alone| 1.5 * alone);
        let of_ringmq = |workload| self.ringmq(workload, Durability::D1).and_then(|group| judged_response(group, p99));
        let beside = of_ringmq("catchup");
        self.add(
            "P8",
            "producers beside a group that catches up: p99 at most 1.5 times undisturbed",
            false,
            alone,
            beside,
            "µs",
        );
        let megabytes = |run: &RunRecord| float(run.parameters.message_bytes) / 1e6;
        let catchup = self.ringmq("catchup", Durability::D1);
        let drained = catchup.and_then(|group| judged(group, true, |run| Some(drained_per_s(run)? * megabytes(run))));
        for (system, name, place) in
            [("file-read-direct", READING_DIRECT, "disk"), ("file-read", READING, "page cache")]
        {
            let read = self.find(system, name, None, None);
            let read = read.and_then(|read| median(read, |run| Some(run.messages_per_s * megabytes(run))));
            let rule = format!(
                "a group that catches up drains its backlog at 70 % of the rate at which a file is read from the {place}"
            );
            self.add("P8", &rule, true, read.map(|read| 0.7 * read), drained.clone(), "MB/s");
        }
        let figure = |workload| self.ringmq(workload, Durability::D1).and_then(|group| response(group, p99)).map(us);
        let of_ringmq = |workload| self.ringmq(workload, Durability::D1).and_then(|group| judged_response(group, p99));
        let (few, many) = (figure(WITHOUT_IDLE_CONNECTIONS).map(|few| 1.1 * few), of_ringmq("conn-10k-idle"));
        self.add("P9", "beside 10,000 idle connections: p99 at most 1.1 times without", false, few, many, "µs");
        let resident = |run: &RunRecord| run.cost.resident_bytes.map(float);
        let group = self.ringmq("conn-10k-idle", Durability::D1);
        let idle = group.and_then(|group| group.runs.first().map(|run| f64::from(run.parameters.idle_connections)));
        let few = self.ringmq(WITHOUT_IDLE_CONNECTIONS, Durability::D1).and_then(|group| median(group, resident));
        let many = group.and_then(|group| judged(group, false, resident));
        let each = many.zip(few).zip(idle).filter(|(_, idle)| *idle > 0.0);
        let each = each.map(|((many, few), idle)| many.map(|many| (many - few).max(0.0) / idle / 1024.0));
        self.add("P9", "memory of an idle connection: at most 16 KiB", false, Some(16.0), each, "KiB");
    }

    /// What a message costs at the highest rate that held, at half of it, and on the disk.
    fn cost(&mut self) {
        let half = half_load(self.set);
        let group = half.and_then(|half| self.find("ringmq", "steady-1k-10k", Some(Durability::D1), Some(half)));
        let cpu =
            group.and_then(|group| judged(group, false, |run| run.cost.cpu_ns_per_message)).map(|cpu| cpu.map(us));
        let rule = "at half of its own highest confirmed rate, D1: CPU time per message of 1 KiB at most";
        self.add("P11", rule, false, Some(3.0), cpu, "µs");
        let group = self.find("ringmq", "steady-1k-10k", Some(Durability::D1), Some(10_000.0));
        let written = group.and_then(|group| judged(group, false, |run| run.cost.write_amplification));
        let rule = "10,000/s in D1: bytes written for each byte of a message's body at most";
        self.add("P11", rule, false, Some(1.1), written, "×");
        let curves =
            self.set.curves.iter().filter(|curve| curve.system == "ringmq" && curve.durability == Some(Durability::D1));
        let calls = curves.filter_map(|curve| syscalls_at_knee(self.set, curve)).reduce(f64::max).map(Measured::of);
        let rule = "at the highest rate that held, D1: system calls per message at most";
        self.add("P11", rule, false, Some(0.2), calls, "calls");
    }

    /// What the generator can do beside what was needed of it.
    fn generator(&mut self) {
        let Some(headroom) = self.set.headroom.first() else { return };
        let factor = |rate: f64| (rate > 0.0).then(|| Measured::of(headroom.null_rate_per_s / rate));
        let fixed = factor(headroom.highest_fixed_rate_per_s);
        let all = factor(headroom.highest_used_rate_per_s);
        let knee = (headroom.highest_knee_per_s > 0.0)
            .then(|| Measured::of(headroom.highest_knee_per_s / headroom.null_rate_per_s * 100.0));
        let rule = "the generator against the echo, beside the highest fixed rate: at least 5 times";
        self.add("B11", rule, true, Some(5.0), fixed, "×");
        let rule = "the generator against the echo, beside the highest rate of any run, knees and closed loops too: at \
                    least 5 times";
        self.add("B11", rule, true, Some(5.0), all, "×");
        let rule = "the highest knee, as a share of what the generator can do: at most";
        self.add("B11", rule, false, Some(MOST_BUSY_SHARE * 100.0), knee, "%");
        let Some(highest) = self.set.highest_curve() else { return };
        if let Some((rate, reached)) = self.set.kept_up_above(highest, MOST_BUSY_SHARE) {
            let rate = crate::units::count(rate);
            let rule = format!(
                "a quarter of the generator's core is free at the highest knee: of the same plan at {rate}/s, four thirds of that \
                 knee, it does against the echo at least"
            );
            let reached = Some(Measured::of(reached * 100.0));
            self.add("B11", &rule, true, Some(KEPT_UP_SHARE * 100.0), reached, "%");
            return;
        }
        // Sets without such a run: a thread that always looks for work finds some long before its limit, so this is an upper bound.
        let busy = self.set.busy_share_at_knee(highest).map(|busy| Measured::of(busy * 100.0));
        let rule = "the highest knee: share of its core on which the generator had work, at most";
        self.add("B11", rule, false, Some(MOST_BUSY_SHARE * 100.0), busy, "%");
    }

    /// RingMQ beside the Java broker at half of the latter's highest rate.
    fn against_java(&mut self, class: Durability) {
        let find = |system: &str| loose_curve(self.set, system, class);
        // What RingMQ did not repeat does not count for it; what the other broker held once does.
        let ours = find("ringmq").map(|curve| confirmed_rate(self.set, curve).unwrap_or(0.0));
        let theirs = find("java").and_then(|curve| curve.knee_rate_per_s);
        let ratio = ours.zip(theirs).map(|(ours, theirs)| Measured::of(ours / theirs));
        let name = class.name();
        let half = theirs.map(super::rounds::half);
        let pair = half.and_then(|half| {
            let find = |system| self.find(system, "steady-1k-10k", Some(class), Some(half));
            find("ringmq").zip(find("java"))
        });
        let mut rows = Vec::new();
        if let Some((ours, theirs)) = pair {
            let quantiles: [(&str, f64, Quantile); 3] = [("p50", 0.5, p50), ("p99", 0.2, p99), ("p99.9", 0.1, p999)];
            for (title, most, quantile) in quantiles {
                rows.push((title, most, judged(ours, false, of_response(quantile)), response(theirs, quantile)));
            }
            let cpu = |run: &RunRecord| run.cost.cpu_ns_per_message;
            rows.push(("CPU per message", 0.25, judged(ours, false, cpu), median(theirs, cpu)));
            let resident = |run: &RunRecord| run.cost.resident_bytes.map(float);
            rows.push(("resident memory", 0.1, judged(ours, false, resident), median(theirs, resident)));
        }
        self.add(
            "P10",
            &format!("{name}: highest confirmed rate against RocketMQ's highest, at least"),
            true,
            Some(3.0),
            ratio,
            "×",
        );
        for (title, most, ours, theirs) in rows {
            let measured = ours.zip(theirs).map(|(ours, theirs)| ours.map(|ours| ours / theirs));
            let rule = format!("{name}, at half of RocketMQ's highest rate: {title} against RocketMQ's, at most");
            self.add("P10", &rule, false, Some(most), measured, "×");
        }
    }
}

/// Goals of a set, in their order.
pub fn goals(set: &ResultSet) -> Vec<Goal> {
    let mut judge = Judge { set, groups: groups(set), goals: Vec::new() };
    judge.round_trips();
    judge.steady();
    judge.rates();
    judge.receipts();
    judge.neighbours();
    judge.against_java(Durability::D1);
    judge.against_java(Durability::D2);
    judge.cost();
    judge.generator();
    judge.goals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    fn renamed(mut run: RunRecord, system: &str, workload: &str, class: Option<Durability>) -> RunRecord {
        run.workload = workload.to_owned();
        run.system = system.to_owned();
        run.durability = class;
        run
    }

    /// Goal: goals use the floors of the set and are left out without them. Method: a set with and without a floor.
    #[test]
    fn goals_follow_floors() {
        let mut set = example::result_set();
        set.curves.clear();
        set.headroom.clear();
        let echo = example::run("null", 1, RunRole::Floor, 1.0, 30_000);
        let append = example::run("file", 1, RunRole::Floor, 1.0, 5_000);
        let run = example::run("ringmq", 1, RunRole::Measured, 1.0, 60_000);
        set.runs = vec![
            renamed(append, "file", "rtt-1k", Some(Durability::D1)),
            renamed(run, "ringmq", "rtt-1k", Some(Durability::D1)),
        ];
        assert!(goals(&set).is_empty());
        set.runs.push(renamed(echo, "null", "rtt-1k", None));
        let goals = goals(&set);
        assert_eq!(goals.len(), 2);
        assert!((goals[0].wanted - 42.0).abs() < 1.0 && (goals[0].measured.unwrap() - 60.0).abs() < 1.0, "{goals:?}");
        assert!(!goals[0].is_met());
    }

    /// Goal: a group's rate of catching up is that of the whole seconds in which it was behind beside producers, not of those in which
    /// it kept up, and not of what came after them. Method: a backlog of 1,000 messages beside 100 a second, drained in three seconds,
    /// in one, and none at all; then figures of a run that ended in the middle of its third second and drained on without producers.
    #[test]
    fn backlogs_are_drained() {
        let run = |backlog: u64, measured_ns: u64, points: &[(u64, u64)]| {
            let mut run = example::run("ringmq", 1, RunRole::Measured, 100.0, 60_000);
            run.parameters.preload_bytes = backlog * run.parameters.message_bytes;
            run.measured_ns = measured_ns;
            let point = run.series[0].clone();
            let second = |(second, (acknowledged, received)): (u32, &(u64, u64))| crate::result::SecondPoint {
                second,
                received: *received,
                acknowledged: *acknowledged,
                ..point.clone()
            };
            run.series = (0..).zip(points).map(second).collect();
            drained_per_s(&run)
        };
        let beside = |backlog, received: &[u64]| {
            let points: Vec<_> = received.iter().map(|received| (100, *received)).collect();
            run(backlog, 60 * SECOND_NS, &points)
        };
        assert_eq!(
            beside(1000, &[400, 420, 480, 100, 100]),
            Some(410.0),
            "the third second was not one of draining alone"
        );
        assert_eq!(beside(1000, &[1100, 100]), Some(1100.0));
        assert_eq!(beside(0, &[100, 100]), None);
        let cut = [(19_991, 256_672), (20_005, 307_392), (8_004, 275_648), (0, 196_068)];
        assert_eq!(run(976_562, 2_400_000_000, &cut), Some(282_032.0));
        assert_eq!(run(976_562, 900_000_000, &cut), None, "no whole second");
        // Producers that are refused leave the end of the backlog to be seen by itself.
        assert_eq!(run(1000, 5 * SECOND_NS, &[(0, 500), (0, 400), (0, 100), (0, 0)]), Some(450.0));
    }

    /// Goal: what a message costs at half load and on the disk is judged at that load alone, and a busy generator is told at the highest
    /// knee. Method: the example with a run at half of its confirmed rate, and a run at its knee that took the generator's core.
    #[test]
    fn costs_and_shares() {
        let mut set = example::result_set();
        set.note_used_rates();
        set.curves.iter_mut().for_each(|curve| curve.slo.p99_ns = Some(10 * STRICT_P99_NS));
        for run in set.runs.iter_mut().filter(|run| run.system == "ringmq" && run.role == RunRole::Measured) {
            run.cost.write_amplification = Some(1.25);
        }
        let found = |set: &ResultSet, part: &str| goals(set).into_iter().find(|goal| goal.rule.contains(part));
        assert!(found(&set, "half of its own highest").is_none());
        let half = half_load(&set).unwrap();
        assert_eq!(half, 40_000.0);
        let mut run = example::run("ringmq", 1, RunRole::Measured, half, 60_000);
        run.cost.cpu_ns_per_message = Some(2500.0);
        set.runs.push(run);
        assert_eq!(found(&set, "half of its own highest").unwrap().measured, Some(2.5));
        let written = found(&set, "bytes written for each byte").unwrap();
        assert!(written.measured == Some(1.25) && !written.is_met(), "{written:?}");
        let knee = set.curves[0].points.iter().find(|point| point.rate_per_s == 80_000.0).unwrap().run.clone();
        set.runs.iter_mut().find(|run| run.id == knee).unwrap().generator.busy_share = 0.98;
        let busy = found(&set, "generator had work").unwrap();
        assert!(!busy.is_met() && busy.measured == Some(98.0), "{busy:?}");
    }

    /// Goal: a floor that does not count is no floor, and the best of those that count is taken. Method: the same set, with the
    /// echo disturbed, then with a slower append beside a disturbed fast one.
    #[test]
    fn disturbed_floors_do_not_count() {
        let mut set = example::result_set();
        set.curves.clear();
        set.headroom.clear();
        let floor = |system: &str, median_ns, class, is_disturbed: bool| {
            let mut run = renamed(example::run(system, 1, RunRole::Floor, 1.0, median_ns), system, "rtt-1k", class);
            run.validity.invalid.extend(is_disturbed.then(|| "the hypervisor took 2.0 % of the CPU time".to_owned()));
            run
        };
        let run = example::run("ringmq", 1, RunRole::Measured, 1.0, 60_000);
        let run = renamed(run, "ringmq", "rtt-1k", Some(Durability::D1));
        let append = || floor("file", 5_000, Some(Durability::D1), false);
        set.runs = vec![append(), run.clone(), floor("null", 30_000, None, true)];
        assert!(goals(&set).is_empty(), "a disturbed echo");
        let disturbed = floor("file-direct", 1_000, Some(Durability::D1), true);
        set.runs = vec![append(), disturbed, run, floor("null", 30_000, None, false)];
        assert!((goals(&set)[0].wanted - 42.0).abs() < 1.0, "{:?}", goals(&set));
    }

    /// Goal: runs that the broker failed are missed goals with their reason; runs that the host spoiled are left out. Method: P4
    /// with rounds that reached 80 % of their rate, with one of three that did, with a lost message, with steal.
    #[test]
    fn the_worst_misses_stay() {
        let run = |round, rate| {
            let mut run = example::run("ringmq", round, RunRole::Measured, 50_000.0, 300_000);
            run.achieved_rate_per_s = rate;
            if rate < 50_000.0 {
                run.validity.invalid.push("it reached 80.0 % of the target rate of 50000/s".to_owned());
            }
            renamed(run, "ringmq", "steady-1k-50k", Some(Durability::D2))
        };
        let judge = |runs: Vec<RunRecord>| {
            let mut set = example::result_set();
            set.runs = runs;
            goals(&set).into_iter().find(|goal| goal.id == "P4")
        };
        let failed = judge((1..=3).map(|round| run(round, 40_000.0)).collect()).unwrap();
        assert!(!failed.is_met() && failed.measured.is_some(), "{failed:?}");
        assert_eq!(failed.failure, "3 of 3 runs failed: it reached 80.0 % of the target rate");
        let most = judge(vec![run(1, 50_000.0), run(2, 50_000.0), run(3, 40_000.0)]).unwrap();
        assert!(most.failure.is_empty() && most.measured.is_some(), "{most:?}");
        let mut lossy = run(1, 50_000.0);
        lossy.integrity.lost = 1;
        assert!(judge(vec![lossy]).unwrap().failure.contains("1 messages lost"));
        let mut dead = run(1, 40_000.0);
        dead.status = RunStatus::Partial { reason: "measure: the broker closed the connection".to_owned() };
        let dead = judge(vec![dead]).unwrap();
        assert!(
            !dead.is_met() && dead.measured.is_none() && dead.failure.contains("closed the connection"),
            "{dead:?}"
        );
        let mut stolen = run(1, 50_000.0);
        stolen.steal_share = Some(0.02);
        stolen.validity.invalid.push("the hypervisor took 2.0 % of the CPU time".to_owned());
        assert!(judge(vec![stolen]).is_none());
    }

    /// Goal: the host's noise in P3 is that of the generator's core: a busy broker does not get an easier goal. Method: the same run
    /// with hiccups of 50 ms on the broker's core, then on the generator's.
    #[test]
    fn a_busy_broker_has_no_easier_goal() {
        let wanted = |role: &str| {
            let mut set = example::result_set();
            let mut run = example::run("ringmq", 1, RunRole::Measured, 10_000.0, 60_000);
            for hiccup in &mut run.hiccups {
                hiccup.distribution.p999_ns = if hiccup.role == role { 50_000_000 } else { 10_000 };
            }
            set.runs = vec![run];
            let goal = goals(&set).into_iter().find(|goal| goal.id == "P3" && goal.rule.contains("p99.9")).unwrap();
            goal.wanted
        };
        assert_eq!((wanted("broker"), wanted("generator")), (1010.0, 51_000.0));
    }

    /// Goal: only a repeated rate counts for RingMQ, none counts as 0, and what the other held once counts for it. Method: the
    /// example's curves, unconfirmed and without a knee.
    #[test]
    fn knees_need_repeats() {
        let mut set = example::result_set();
        let rates = |set: &ResultSet| {
            let goals = goals(set);
            let of = |id: &str| goals.iter().find(|goal| goal.id == id).and_then(|goal| goal.measured);
            (of("P5"), of("P10"))
        };
        assert_eq!(rates(&set).0, Some(80_000.0));
        set.curves[0].confirmed = false;
        assert_eq!(rates(&set).0, Some(0.0));
        for curve in &mut set.curves {
            curve.slo.p99_ns = Some(10 * STRICT_P99_NS);
        }
        assert_eq!(rates(&set).1, Some(0.0));
        set.curves[0].confirmed = true;
        set.curves[1].confirmed = false;
        assert_eq!(rates(&set).1, Some(8.0));
        set.curves[0].knee_rate_per_s = None;
        assert_eq!(rates(&set).1, Some(0.0));
    }

    /// Goal: system calls are judged where they were counted at the knee, and nowhere else. Method: the example without and with a run
    /// that counts them, at another rate and at the knee.
    #[test]
    fn system_calls_are_judged_at_the_knee() {
        let mut set = example::result_set();
        let of = |set: &ResultSet| {
            goals(set).into_iter().find(|goal| goal.rule.contains("system calls")).and_then(|goal| goal.measured)
        };
        for (rate, wanted) in [(10_000.0, None), (80_000.0, Some(0.5))] {
            let mut run = example::run("ringmq", 1, RunRole::Counting, rate, 60_000);
            run.cost.syscalls_per_message = Some(0.5);
            set.runs.push(run);
            assert_eq!(of(&set), wanted);
        }
    }

    /// Goal: the generator is judged against fixed rates, against all rates, and at the knee. Method: a limit of 4 times the
    /// knee, runs alone above the knee, and no headroom.
    #[test]
    fn the_generator_is_judged() {
        let mut set = example::result_set();
        set.headroom[0].null_rate_per_s = 320_000.0;
        let of = |set: &ResultSet| goals(set).into_iter().filter(|goal| goal.id == "B11").collect::<Vec<_>>();
        let found = of(&set);
        let values: Vec<_> = found.iter().map(|goal| (goal.measured, goal.is_met())).collect();
        assert_eq!(values, [(Some(32.0), true), (Some(4.0), false), (Some(25.0), true), (Some(31.0), true)]);
        // Runs alone at four thirds of the knee say more than how long it had work: the best of them, of that plan and not below that rate.
        let mut alone = |workload: &str, rate: f64, reached: f64| {
            let mut run = renamed(example::run("null", 1, RunRole::Headroom, rate, 30_000), "null", workload, None);
            run.achieved_rate_per_s = rate * reached;
            set.runs.push(run);
            let found = of(&set).pop().unwrap();
            (found.rule.contains("four thirds").then_some(found.measured.unwrap().round()), found.is_met())
        };
        assert_eq!(alone("steady-1k-10k", 100_000.0, 1.0), (None, true), "less than four thirds");
        assert_eq!(alone("rtt-1k", 107_000.0, 1.0), (None, true), "another plan");
        assert_eq!(alone("steady-1k-10k", 107_000.0, 0.97), (Some(97.0), false));
        assert_eq!(alone("steady-1k-10k", 107_000.0, 0.999), (Some(100.0), true));
        set.headroom.clear();
        assert!(of(&set).is_empty());
    }

    /// Goal: the other broker is judged at half of its knee and nowhere else, and missed goals stay. Method: the example's two
    /// systems at half of Java's knee of 10,000.
    #[test]
    fn goals_against_the_other_broker() {
        let mut set = example::result_set();
        for curve in &mut set.curves {
            curve.slo.p99_ns = Some(10 * STRICT_P99_NS);
        }
        let of = |set: &ResultSet| goals(set).into_iter().filter(|goal| goal.id == "P10").collect::<Vec<_>>();
        assert_eq!(of(&set).len(), 1, "the knees alone");
        assert!(of(&set)[0].is_met());
        set.runs.push(example::run("ringmq", 1, RunRole::Measured, 5_000.0, 60_000));
        set.runs.push(example::run("java", 1, RunRole::Measured, 5_000.0, 100_000));
        let found = of(&set);
        assert_eq!(found.len(), 6);
        assert!((found[1].measured.unwrap() - 0.6).abs() < 0.01 && !found[1].is_met(), "{found:?}");
    }
}
