//! `versus`: two brokers in turn, A B A B, each on a fresh store, under the same load from the same generator.

use std::collections::BTreeMap;

use super::options::{Common, PlanKind, VersusOptions, read_slo};
use super::rounds::{Side, knee, timed, turn};
use super::search::round;
use super::session::Session;
use super::sweep::SweepPlan;
use super::{CliError, floors};
use crate::peers::{Flush, Peer};
use crate::result::{LoopKind, RunRole, SetKind};
use crate::workload::Workload;

/// Shares of the slower one's knee in the full plan.
const SHARES: [f64; 3] = [0.2, 0.5, 0.8];
/// First step of the search for a knee.
const FIRST_STEP_PER_S: f64 = 4000.0;
/// Length of a floor's run.
const FLOOR_SECONDS: f64 = 5.0;
/// Length of an append floor's run.
const APPEND_SECONDS: f64 = 1.5;

/// A plan in numbers.
struct Scope {
    flushes: &'static [Flush],
    pairs: u32,
    measure_s: f64,
    warm_up_s: f64,
    step_s: f64,
    step_warm_up_s: f64,
    precision: f64,
    confirm: u32,
    conditioning_s: f64,
}

impl Scope {
    fn of(options: &VersusOptions) -> Scope {
        let mut scope = match options.plan {
            PlanKind::Quick => Scope {
                flushes: &[Flush::Async],
                pairs: 3,
                measure_s: 20.0,
                warm_up_s: 5.0,
                step_s: 8.0,
                step_warm_up_s: 2.0,
                precision: 0.10,
                confirm: 1,
                conditioning_s: 40.0,
            },
            PlanKind::Full => Scope {
                flushes: &[Flush::Async, Flush::Sync],
                pairs: 5,
                measure_s: 60.0,
                warm_up_s: 10.0,
                step_s: 60.0,
                step_warm_up_s: 10.0,
                precision: 0.02,
                confirm: 3,
                conditioning_s: 120.0,
            },
        };
        scope.pairs = options.pairs.unwrap_or(scope.pairs);
        scope.conditioning_s = options.conditioning.unwrap_or(scope.conditioning_s);
        if let Some(seconds) = options.seconds {
            scope.measure_s = seconds;
            scope.step_s = seconds;
            scope.warm_up_s = scope.warm_up_s.min(seconds);
            scope.step_warm_up_s = scope.step_warm_up_s.min(seconds);
        }
        scope
    }
}

/// Carries out the command.
pub fn carry_out(common: &Common, options: &VersusOptions) -> Result<u8, CliError> {
    let peers: Vec<Peer> = options
        .peers
        .iter()
        .map(|name| Peer::of(name).ok_or_else(|| CliError::Usage(format!("{name:?} is neither ringmq nor java"))))
        .collect::<Result<_, _>>()?;
    if peers[0] == peers[1] {
        return Err(CliError::Usage("versus compares two different brokers".to_owned()));
    }
    let (workload, definition) = Workload::find(&options.workload)?;
    if workload.load.loop_kind == LoopKind::Closed {
        return Err(CliError::Usage(format!("{} is a closed loop; versus needs rates", workload.name)));
    }
    let slo = read_slo(&options.slo)?;
    let scope = Scope::of(options);
    let mut session = match &options.resume {
        Some(path) => Session::resume(common, path.clone())?,
        None => Session::begin(common, SetKind::Versus, "versus", true)?,
    };
    session.add_workload(&workload, &definition);
    let settings = common.settings(&workload)?;
    let failure = (|| {
        measure_floors(&mut session, &workload, options, &scope)?;
        for &flush in scope.flushes {
            let side = |peer| Side {
                peer,
                flush,
                header: options.header.into(),
                conditioning_s: scope.conditioning_s,
                settings: &settings,
            };
            let step = timed(&workload, scope.step_s, scope.step_warm_up_s);
            let plan =
                SweepPlan { from: FIRST_STEP_PER_S, precision: scope.precision, confirm: scope.confirm, slo: &slo };
            let mut knees = BTreeMap::new();
            for &peer in &peers {
                if let Some(knee) = knee(&mut session, &side(peer), &step, &plan)? {
                    knees.insert(peer.name(), knee);
                }
            }
            let rates = match options.plan {
                PlanKind::Quick => options.rates.clone(),
                PlanKind::Full => match knees.values().copied().reduce(f64::min).filter(|_| knees.len() == peers.len())
                {
                    Some(slower) => SHARES.iter().map(|share| round(slower * share)).collect(),
                    None => options.rates.clone(),
                },
            };
            let mut shapes: Vec<Workload> =
                rates.iter().map(|_| timed(&workload, scope.measure_s, scope.warm_up_s)).collect();
            shapes.iter_mut().zip(&rates).for_each(|(shape, rate)| shape.load.rate_per_s = *rate);
            for pair in 1..=scope.pairs {
                for &peer in &peers {
                    turn(&mut session, &side(peer), pair, &shapes)?;
                }
            }
        }
        Ok(())
    })();
    session.finish(failure.err())
}

fn measure_floors(
    session: &mut Session<'_>,
    workload: &Workload,
    options: &VersusOptions,
    scope: &Scope,
) -> Result<(), CliError> {
    if session.set.runs.iter().any(|run| run.role == RunRole::Floor) {
        return Ok(());
    }
    session.headroom(workload, 2.0)?;
    let shapes: Vec<Workload> = options
        .rates
        .iter()
        .map(|rate| {
            let mut shape = timed(workload, FLOOR_SECONDS.min(scope.measure_s), 1.0);
            shape.load.rate_per_s = *rate;
            shape
        })
        .collect();
    floors::echo(session, &shapes)?;
    let (trip, definition) = Workload::find("rtt-1k")?;
    session.add_workload(&trip, &definition);
    floors::append(session, &timed(&trip, APPEND_SECONDS, 0.5))?;
    Ok(())
}
