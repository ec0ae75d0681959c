//! No arguments: one canonical run of less than 90 seconds against a RingMQ that is started for it, beside the floors of
//! the same minutes.

use super::CliError;
use super::options::Common;
use super::session::{Request, Session};
use crate::drivers::file::AppendMode;
use crate::drivers::null::Behaviour;
use crate::peers::{Flush, Peer};
use crate::result::{Durability, Goal, ResultSet, RunRecord, RunRole, SetKind};
use crate::runner::Target;
use crate::workload::Workload;

/// One workload of the canonical run: name, seconds of warm-up and of measuring.
type Part = (&'static str, f64, f64);

const ASYNC_PARTS: [Part; 3] = [("rtt-1k", 2.0, 5.0), ("steady-1k-10k", 3.0, 15.0), ("end-to-end", 2.0, 5.0)];
const SYNC_PARTS: [Part; 2] = [("rtt-1k", 2.0, 5.0), ("steady-1k-10k", 2.0, 8.0)];

fn part(session: &mut Session<'_>, (name, warm_up_s, measure_s): Part) -> Result<Workload, CliError> {
    let (mut workload, definition) = Workload::find(name)?;
    session.add_workload(&workload, &definition);
    workload.load.warm_up_min_s = warm_up_s;
    workload.load.warm_up_max_s = warm_up_s;
    workload.load.measure_s = measure_s;
    Ok(workload)
}

/// Carries out the command.
pub fn carry_out(common: &Common) -> Result<u8, CliError> {
    let mut session = Session::begin(common, SetKind::Canonical, "canonical", true)?;
    let failure = measure(&mut session).err();
    session.set.goals = goals(&session.set);
    session.finish(failure)
}

fn measure(session: &mut Session<'_>) -> Result<(), CliError> {
    session.add_plain_system("null", "echo floor", None);
    let null = || Target::Null(Behaviour::default());
    let round_trip = part(session, ("rtt-1k", 0.5, 2.5))?;
    session.run(&Request::of_floor("null", null(), &round_trip, None))?;
    let steady = part(session, ("steady-1k-10k", 1.0, 5.0))?;
    session.run(&Request::of_floor("null", null(), &steady, None))?;
    session.headroom(&steady, 2.5)?;
    let append = part(session, ("rtt-1k", 0.5, 1.5))?;
    session.add_plain_system("file", "append floor: page cache (D1), fdatasync and O_DSYNC (D2)", None);
    let folder = session.common.store_folder();
    for (mode, durability) in [
        (AppendMode::PageCache, Durability::D1),
        (AppendMode::Fdatasync, Durability::D2),
        (AppendMode::DirectSync, Durability::D2),
    ] {
        let target = Target::File(folder.clone(), mode);
        session.run(&Request::of_floor("file", target, &append, Some(durability)))?;
    }
    for (flush, parts) in [(Flush::Async, &ASYNC_PARTS[..]), (Flush::Sync, &SYNC_PARTS[..])] {
        if session.is_stopped() {
            return Ok(());
        }
        let broker = session.start(Peer::RingMq, flush, session.common.settings(&steady)?)?;
        for &shape in parts {
            if session.is_stopped() {
                break;
            }
            let workload = part(session, shape)?;
            session.run(&Request::of_broker(&broker, Peer::RingMq, flush, &workload, RunRole::Measured))?;
        }
        session.stop_broker(broker, &format!("ringmq-{}", flush.durability().name()));
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn us(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

/// Goals that the canonical run can judge, with the floors of the same set.
fn goals(set: &ResultSet) -> Vec<Goal> {
    let find = |role: RunRole, system: &'static str, workload: &'static str, class: Option<Durability>| {
        let is_it = move |run: &&RunRecord| {
            run.role == role && run.system == system && run.workload == workload && run.durability == class
        };
        set.runs.iter().filter(is_it)
    };
    let response = |run: &RunRecord| run.primary().map(|operation| operation.response.clone());
    let measured =
        |workload: &'static str, class| find(RunRole::Measured, "ringmq", workload, Some(class)).find_map(response);
    let echo = find(RunRole::Floor, "null", "rtt-1k", None).find_map(response);
    let append = |class| {
        find(RunRole::Floor, "file", "rtt-1k", Some(class)).filter_map(response).min_by_key(|append| append.p50_ns)
    };
    let mut goals = Vec::new();
    let mut add = |id: &str, rule: &str, wanted: f64, measured: f64| {
        let (id, rule, unit) = (id.to_owned(), rule.to_owned(), "us".to_owned());
        goals.push(Goal { id, rule, wanted, measured, unit });
    };
    if let (Some(echo), Some(append), Some(run)) = (&echo, append(Durability::D1), measured("rtt-1k", Durability::D1)) {
        add(
            "P1",
            "rtt-1k in D1: p50 at most 1.2 times echo and append",
            1.2 * us(echo.p50_ns + append.p50_ns),
            us(run.p50_ns),
        );
        add(
            "P1",
            "rtt-1k in D1: p99 at most twice echo and append",
            2.0 * us(echo.p99_ns + append.p99_ns),
            us(run.p99_ns),
        );
    }
    if let (Some(echo), Some(append), Some(run)) = (&echo, append(Durability::D2), measured("rtt-1k", Durability::D2)) {
        let wanted = us(echo.p50_ns) + 1.2 * us(append.p50_ns);
        add("P2", "rtt-1k in D2: p50 at most echo and 1.2 times the best durable append", wanted, us(run.p50_ns));
    }
    if let Some(run) = measured("steady-1k-10k", Durability::D1) {
        add("P3", "steady-1k-10k in D1: p99 at most 500 us", 500.0, us(run.p99_ns));
    }
    let one_trip = measured("rtt-1k", Durability::D1);
    let receipt = find(RunRole::Measured, "ringmq", "end-to-end", Some(Durability::D1))
        .find_map(|run| run.end_to_end.clone())
        .filter(|receipt| receipt.distribution.count > 0);
    if let (Some(one_trip), Some(receipt)) = (one_trip, receipt) {
        let receipt = receipt.distribution;
        add("P7", "end to end: p50 at most 1.5 times rtt-1k", 1.5 * us(one_trip.p50_ns), us(receipt.p50_ns));
        add("P7", "end to end: p99 at most twice rtt-1k", 2.0 * us(one_trip.p99_ns), us(receipt.p99_ns));
    }
    goals
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::{LoopKind, example};

    /// Goal: the canonical run is below 90 seconds with what starting and reading back take. Method: add up its parts.
    #[test]
    fn is_short() {
        let parts = ASYNC_PARTS.iter().chain(&SYNC_PARTS).map(|(_, warm_up_s, measure_s)| warm_up_s + measure_s);
        let floors = 3.0 + 6.0 + 3.0 + 3.0 * 2.0;
        assert!(parts.sum::<f64>() + floors < 70.0);
        for (name, _, _) in ASYNC_PARTS.iter().chain(&SYNC_PARTS) {
            let (workload, _) = Workload::find(name).unwrap();
            assert!(workload.load.loop_kind == LoopKind::Closed || workload.load.rate_per_s > 0.0);
        }
    }

    /// Goal: goals use the floors of the set and are left out without them. Method: a set with and without a floor.
    #[test]
    fn goals_follow_floors() {
        let mut set = example::result_set();
        let rename = |mut run: RunRecord, system: &str, class| {
            run.workload = "rtt-1k".to_owned();
            run.system = system.to_owned();
            run.durability = class;
            run
        };
        let echo = example::run("null", 1, RunRole::Floor, 1.0, 30_000);
        let append = example::run("file", 1, RunRole::Floor, 1.0, 5_000);
        let run = example::run("ringmq", 1, RunRole::Measured, 1.0, 60_000);
        set.runs = vec![rename(append, "file", Some(Durability::D1)), rename(run, "ringmq", Some(Durability::D1))];
        assert!(goals(&set).is_empty());
        set.runs.push(rename(echo, "null", None));
        let goals = goals(&set);
        assert_eq!(goals.len(), 2);
        assert!((goals[0].wanted - 42.0).abs() < 1.0 && (goals[0].measured - 60.0).abs() < 1.0, "{goals:?}");
    }
}
