//! Goals that a set can judge by itself: each figure beside the floors, or beside the other broker, of the same set. Pure.
//!
//! A goal whose runs are not in the set, or do not count, is left out; none is dropped because it was missed.

use crate::report::groups::{Figure, Group, GroupKey, groups};
use crate::result::{Curve, Distribution, Durability, EndToEnd, Goal, ResultSet, RunRecord, RunRole};

/// Names that `publish` gives to workloads without what is to be judged.
pub const CATCHUP_WITHOUT_BACKLOG: &str = "catchup-no-backlog";
/// See [`CATCHUP_WITHOUT_BACKLOG`].
pub const WITHOUT_IDLE_CONNECTIONS: &str = "conn-0-idle";
/// The p99 that the knee of P5 must hold.
pub const STRICT_P99_NS: u64 = 1_000_000;

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

/// Medians over the runs of a group that count.
fn median(group: &Group<'_>, of: impl Fn(&RunRecord) -> Option<f64>) -> Option<f64> {
    Figure::of(group.usable().filter_map(of)).map(|figure| figure.median)
}

fn response(group: &Group<'_>, quantile: Quantile) -> Option<f64> {
    group.of_operation(|operation| quantile(&operation.response)).map(|figure| figure.median)
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
    fn add(&mut self, id: &str, rule: &str, at_least: bool, wanted: Option<f64>, measured: Option<f64>, unit: &str) {
        if let (Some(wanted), Some(measured)) = (wanted, measured) {
            let (id, rule, unit) = (id.to_owned(), rule.to_owned(), unit.to_owned());
            self.goals.push(Goal { id, rule, wanted, measured, unit, at_least });
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

    /// The best append of a class: brokers may choose among them.
    fn append(&self, class: Durability, quantile: Quantile) -> Option<f64> {
        let floors = self.set.runs.iter().filter(|run| {
            run.role == RunRole::Floor && run.system.starts_with("file") && run.durability == Some(class)
        });
        let best = floors.filter_map(RunRecord::primary).min_by_key(|operation| operation.response.p50_ns);
        best.map(|operation| float(quantile(&operation.response)))
    }

    /// The echo of one caller. A floor's median is what it is even while other work takes the core now and then.
    fn echo(&self, system: &str, quantile: Quantile) -> Option<f64> {
        let group = self.find(system, "rtt-1k", None, None)?;
        let figure = group.usable().next().or(group.runs.first().copied())?.primary()?;
        Some(float(quantile(&figure.response)))
    }

    fn round_trips(&mut self) {
        for (system, name) in [("null", "echo that spins"), ("null-sleep", "echo that sleeps")] {
            let sum = |quantile| Some(self.echo(system, quantile)? + self.append(Durability::D1, quantile)?);
            let wanted = [sum(p50).map(|sum| us(1.2 * sum)), sum(p99).map(|sum| us(2.0 * sum))];
            let group = self.ringmq("rtt-1k", Durability::D1);
            let measured = [p50 as Quantile, p99].map(|quantile| response(group?, quantile).map(us));
            self.add(
                "P1",
                &format!("rtt-1k in D1: p50 at most 1.2 times {name} and append"),
                false,
                wanted[0],
                measured[0],
                "µs",
            );
            self.add(
                "P1",
                &format!("rtt-1k in D1: p99 at most twice {name} and append"),
                false,
                wanted[1],
                measured[1],
                "µs",
            );
        }
        for (system, name) in [("null", "echo that spins"), ("null-sleep", "echo that sleeps")] {
            let wanted = self.echo(system, p50).zip(self.append(Durability::D2, p50));
            let wanted = wanted.map(|(echo, append)| us(echo + 1.2 * append));
            let measured = self.ringmq("rtt-1k", Durability::D2).and_then(|group| response(group, p50)).map(us);
            let rule = format!("rtt-1k in D2: p50 at most {name} and 1.2 times the best durable append");
            self.add("P2", &rule, false, wanted, measured, "µs");
        }
    }

    fn steady(&mut self) {
        let group = self.find("ringmq", "steady-1k-10k", Some(Durability::D1), Some(10_000.0));
        let measured = [p99 as Quantile, p999].map(|quantile| response(group?, quantile).map(us));
        let hiccup = group.and_then(|group| {
            median(group, |run| run.hiccups.iter().map(|hiccup| float(hiccup.distribution.p999_ns)).reduce(f64::max))
        });
        self.add("P3", "10,000/s in D1: p99 at most 500 µs", false, Some(500.0), measured[0], "µs");
        let wanted = hiccup.map(|hiccup| us(hiccup) + 1000.0);
        self.add(
            "P3",
            "10,000/s in D1: p99.9 at most the host's hiccup p99.9 and 1 ms",
            false,
            wanted,
            measured[1],
            "µs",
        );
        let group = self.find("ringmq", "steady-1k-50k", Some(Durability::D2), None);
        let measured = group.and_then(|group| response(group, p99)).map(us);
        self.add("P4", "50,000/s in D2: p99 at most 1 ms", false, Some(1000.0), measured, "µs");
    }

    fn rates(&mut self) {
        let is_strict = |curve: &&Curve| {
            curve.system == "ringmq"
                && curve.durability == Some(Durability::D1)
                && curve.slo.p99_ns.is_some_and(|p99_ns| p99_ns <= STRICT_P99_NS)
        };
        let strict = self.set.curves.iter().find(is_strict).map(|curve| curve.knee_rate_per_s.unwrap_or(0.0));
        self.add(
            "P5",
            "messages of 1 KiB, D1, p99 at most 1 ms: at least 150,000/s",
            true,
            Some(150_000.0),
            strict,
            "/s",
        );
        let batches = self.ringmq("saturate-batch-32", Durability::D1);
        let batches = batches.and_then(|group| median(group, |run| Some(run.messages_per_s)));
        self.add("P6", "batches of 32, D1: at least 800,000 messages/s", true, Some(800_000.0), batches, "/s");
    }

    fn receipts(&mut self) {
        let trip = self.ringmq("rtt-1k", Durability::D1);
        let receipt = self.ringmq("end-to-end", Durability::D1);
        let receipt = |quantile: Quantile| {
            let of =
                |end: &EndToEnd| Some(&end.distribution).filter(|all| all.count > 0).map(|all| float(quantile(all)));
            median(receipt?, |run| run.end_to_end.as_ref().and_then(of)).map(us)
        };
        let trip = |factor: f64, quantile| Some(us(factor * response(trip?, quantile)?));
        let (wanted, measured) = ([trip(1.5, p50), trip(2.0, p99)], [receipt(p50), receipt(p99)]);
        self.add(
            "P7",
            "send to receipt, D1: p50 at most 1.5 times that of rtt-1k",
            false,
            wanted[0],
            measured[0],
            "µs",
        );
        self.add("P7", "send to receipt, D1: p99 at most twice that of rtt-1k", false, wanted[1], measured[1], "µs");
    }

    fn neighbours(&mut self) {
        let figure = |workload| self.ringmq(workload, Durability::D1).and_then(|group| response(group, p99)).map(us);
        let alone = figure(CATCHUP_WITHOUT_BACKLOG).map(|alone| 1.5 * alone);
        let beside = figure("catchup");
        self.add(
            "P8",
            "producers beside a group that catches up: p99 at most 1.5 times undisturbed",
            false,
            alone,
            beside,
            "µs",
        );
        let figure = |workload| self.ringmq(workload, Durability::D1).and_then(|group| response(group, p99)).map(us);
        let (few, many) = (figure(WITHOUT_IDLE_CONNECTIONS).map(|few| 1.1 * few), figure("conn-10k-idle"));
        self.add("P9", "beside 10,000 idle connections: p99 at most 1.1 times without", false, few, many, "µs");
        let resident = |workload| {
            let group = self.ringmq(workload, Durability::D1)?;
            median(group, |run| run.cost.resident_bytes.map(float))
        };
        let idle = self.ringmq("conn-10k-idle", Durability::D1);
        let idle = idle.and_then(|group| group.runs.first().map(|run| f64::from(run.parameters.idle_connections)));
        let each = resident("conn-10k-idle").zip(resident(WITHOUT_IDLE_CONNECTIONS)).zip(idle);
        let each =
            each.filter(|(_, idle)| *idle > 0.0).map(|((many, few), idle)| (many - few).max(0.0) / idle / 1024.0);
        self.add("P9", "memory of an idle connection: at most 16 KiB", false, Some(16.0), each, "KiB");
    }

    /// RingMQ beside the Java broker at half of the latter's highest rate.
    fn against_java(&mut self, class: Durability) {
        let knee = |system: &str| {
            let is_it = |curve: &&Curve| {
                let is_strict = curve.slo.p99_ns.is_some_and(|p99_ns| p99_ns <= STRICT_P99_NS);
                curve.system == system && curve.durability == Some(class) && !is_strict
            };
            self.set.curves.iter().find(is_it)?.knee_rate_per_s
        };
        let (ours, theirs) = (knee("ringmq"), knee("java"));
        let ratio = ours.zip(theirs).map(|(ours, theirs)| ours / theirs);
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
                rows.push((title, most, response(ours, quantile).zip(response(theirs, quantile))));
            }
            let cpu = |group| median(group, |run| run.cost.cpu_ns_per_message);
            rows.push(("CPU per message", 0.25, cpu(ours).zip(cpu(theirs))));
            let resident = |group| median(group, |run| run.cost.resident_bytes.map(float));
            rows.push(("resident memory", 0.1, resident(ours).zip(resident(theirs))));
        }
        self.add("P10", &format!("{name}: highest rate against RocketMQ's, at least"), true, Some(3.0), ratio, "×");
        for (title, most, values) in rows {
            let measured = values.map(|(ours, theirs)| ours / theirs);
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
        assert!((goals[0].wanted - 42.0).abs() < 1.0 && (goals[0].measured - 60.0).abs() < 1.0, "{goals:?}");
        assert!(!goals[0].is_met());
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
        assert!((found[1].measured - 0.6).abs() < 0.01 && !found[1].is_met(), "{found:?}");
    }
}
