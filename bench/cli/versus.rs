//! `versus`: two brokers in turn, A B B A, each on a fresh store, under the same load from the same generator.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Parser as _;

use super::options::{Arguments, CommandLine, Common, HeaderForm, PlanKind, VersusOptions, read_slo};
use super::rounds::{Side, counting, in_turn, knee, timed, turn};
use super::search::round;
use super::session::Session;
use super::sweep::SweepPlan;
use super::{CliError, floors};
use crate::environment::BROKER_FACT;
use crate::host::pinning::format_cores;
use crate::peers::{Flush, Peer};
use crate::result::{LoopKind, ResultDirectory, ResultSet, RunRecord, RunRole, SetKind, Slo, sha256_hex};
use crate::runner::Layout;
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
    /// Of each search.
    second_tries: u32,
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
                second_tries: 4,
                conditioning_s: 55.0,
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
                second_tries: u32::MAX,
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
    let peers = [peers[0], peers[1]];
    if peers[0] == peers[1] {
        return Err(CliError::Usage("versus compares two different brokers".to_owned()));
    }
    let (workload, definition) = Workload::find(&options.workload)?;
    if workload.load.loop_kind == LoopKind::Closed {
        return Err(CliError::Usage(format!("{} is a closed loop; versus needs rates", workload.name)));
    }
    let slo = read_slo(&options.slo, &workload)?;
    let scope = Scope::of(options);
    let begun = options.resume.as_deref().map(super::existing).transpose()?;
    common.ready_broker()?;
    if let Some(begun) = &begun {
        // Before anything of it is changed: a set that is refused stays as it is.
        check_same_plan(&begun.read_result()?, &workload, options.header, &slo, &scope)?;
        let broker = common.find_broker();
        check_same_surroundings(begun, common, options, &common.layout(true)?, broker.as_deref())?;
    }
    let mut session = match &options.resume {
        Some(path) => Session::resume(common, path.clone())?,
        None => Session::begin(common, SetKind::Versus, "versus", true)?,
    };
    session.add_workload(&workload, &definition);
    let settings = common.settings(&workload)?;
    let failure = (|| {
        measure_floors(&mut session, &workload)?;
        for (number, &flush) in (1..).zip(scope.flushes) {
            let side = |peer| Side {
                peer,
                flush,
                header: options.header.into(),
                conditioning_s: scope.conditioning_s,
                settings: &settings,
            };
            let step = timed(&workload, scope.step_s, scope.step_warm_up_s);
            let plan = SweepPlan {
                from: FIRST_STEP_PER_S,
                precision: scope.precision,
                confirm: scope.confirm,
                second_tries: scope.second_tries,
                slo: &slo,
            };
            let mut knees = BTreeMap::new();
            for peer in in_turn(peers, number) {
                if let Some(knee) = knee(&mut session, &side(peer), &step, &plan)? {
                    knees.insert(peer.name(), knee);
                }
            }
            let slower = knees.values().copied().reduce(f64::min).filter(|_| knees.len() == peers.len());
            let (shapes, floor_shapes) = shapes(&workload, options, &scope, slower);
            floors::echo(&mut session, &floor_shapes)?;
            for pair in 1..=scope.pairs {
                let counted = if pair == scope.pairs { counting(&shapes) } else { Vec::new() };
                for peer in in_turn(peers, pair) {
                    turn(&mut session, &side(peer), pair, &shapes, &counted)?;
                }
            }
        }
        session.headroom_at_knee(&workload)
    })();
    session.finish(failure.err())
}

/// The load of the pairs, and of the echo floors beside it: each at the same rate. `slower_knee` is that of the slower broker.
fn shapes(
    workload: &Workload,
    options: &VersusOptions,
    scope: &Scope,
    slower_knee: Option<f64>,
) -> (Vec<Workload>, Vec<Workload>) {
    let rates = match (options.plan, slower_knee) {
        (PlanKind::Full, Some(knee)) => SHARES.iter().map(|share| round(knee * share)).collect(),
        _ => options.rates.clone(),
    };
    let at = |rate: &f64, measure_s, warm_up_s| {
        let mut shape = timed(workload, measure_s, warm_up_s);
        shape.load.rate_per_s = *rate;
        shape
    };
    let measured = rates.iter().map(|rate| at(rate, scope.measure_s, scope.warm_up_s)).collect();
    let floors = rates.iter().map(|rate| at(rate, FLOOR_SECONDS.min(scope.measure_s), 1.0)).collect();
    (measured, floors)
}

/// Refuses to go on with a set under other options: its rounds would be called repeats of each other and be none.
fn check_same_plan(
    set: &ResultSet,
    workload: &Workload,
    header: HeaderForm,
    slo: &Slo,
    scope: &Scope,
) -> Result<(), CliError> {
    let other = |what: &str| Err(CliError::Usage(format!("the plan in this directory was begun with another {what}")));
    if set.kind != SetKind::Versus {
        return other("command than versus");
    }
    let header = match header {
        HeaderForm::Json => "json",
        HeaderForm::Rocketmq => "rocketmq",
    };
    let mut measured = set.runs.iter().filter(|run| !matches!(run.role, RunRole::Floor | RunRole::Headroom));
    if measured.clone().any(|run| run.workload != workload.name) {
        return other("--workload");
    }
    if measured.clone().any(|run| run.parameters.header != header) {
        return other("--header");
    }
    if set.curves.iter().any(|curve| curve.slo != *slo) {
        return other("--slo");
    }
    let is_other_length =
        |run: &RunRecord| run.role == RunRole::Measured && (run.parameters.measure_s - scope.measure_s).abs() > 1e-6;
    if measured.any(is_other_length) {
        return other("--plan or --seconds");
    }
    Ok(())
}

/// Refuses to go on with a set whose brokers were other ones, or were started or prepared in another way: neither shows in the
/// parameters of its runs.
fn check_same_surroundings(
    begun: &ResultDirectory,
    common: &Common,
    options: &VersusOptions,
    layout: &Layout,
    broker: Option<&Path>,
) -> Result<(), CliError> {
    let other = |what: &str| Err(CliError::Usage(format!("the plan in this directory was begun with another {what}")));
    let set = begun.read_result()?;
    let arguments = Arguments::try_parse_from(&set.command);
    let Ok(Arguments { common: first, command: Some(CommandLine::Versus(first_options)) }) = arguments else {
        return other("version of this program, whose options it cannot read");
    };
    if first_options.plan != options.plan {
        return other("--plan");
    }
    let conditioning_s = |options| Scope::of(options).conditioning_s;
    if (conditioning_s(&first_options) - conditioning_s(options)).abs() > 1e-6 {
        return other("--conditioning");
    }
    // Of two settings with one key the later one counts, so their order may matter.
    if first.broker_settings != common.broker_settings {
        return other("--broker-set");
    }
    if first.java_heap != common.java_heap {
        return other("--java-heap");
    }
    let is_elsewhere = |run: &RunRecord| {
        run.generator.core != layout.generator || run.generator.broker_cores != format_cores(&layout.broker)
    };
    if set.runs.iter().any(is_elsewhere) {
        return other("--generator-core or --broker-cores, or other cores are allowed now");
    }
    let facts = begun.read_environment()?.facts;
    let noted = facts.iter().find(|fact| fact.section == "build" && fact.name == BROKER_FACT);
    let now = broker.and_then(|path| std::fs::read(path).ok()).map(|bytes| sha256_hex(&bytes));
    if now.is_none() || noted.and_then(|fact| fact.value.as_ref()) != now.as_ref() {
        return other("build of ringmq (its SHA-256 is not the same)");
    }
    Ok(())
}

/// The floors that do not depend on what is found out of the brokers.
fn measure_floors(session: &mut Session<'_>, workload: &Workload) -> Result<(), CliError> {
    session.headroom(workload, 2.0)?;
    let (trip, definition) = Workload::find("rtt-1k")?;
    session.add_workload(&trip, &definition);
    floors::append(session, &timed(&trip, APPEND_SECONDS, 0.5))
}

#[cfg(test)]
mod tests {
    use super::super::session::{KNEE_HEADROOM_S, KNEE_HEADROOM_TRIES};
    use super::*;
    use crate::result::example;

    fn options(plan: PlanKind) -> VersusOptions {
        VersusOptions {
            peers: vec!["ringmq".to_owned(), "java".to_owned()],
            plan,
            workload: "steady-1k-10k".to_owned(),
            rates: vec![1000.0, 5000.0],
            slo: String::new(),
            resume: None,
            pairs: None,
            seconds: None,
            conditioning: None,
            header: HeaderForm::Json,
        }
    }

    /// Goal: the quick plan stays within its promise of 25 minutes. Method: adds up its parts, with what starting, stopping and
    /// reading back take on a machine of two cores, searches up to the generator's own limit for one broker and up to 100,000/s for
    /// the other, all steps that may be made once more, and all tries of the generator alone.
    #[test]
    fn the_quick_plan_is_bounded() {
        let options = options(PlanKind::Quick);
        let scope = Scope::of(&options);
        assert_eq!((scope.flushes.len(), scope.pairs, scope.confirm), (1, 3, 1));
        // A start and stop of each broker; the other's conditioning.
        let restarts_s = 26.0 + scope.conditioning_s + NATIVE_S;
        // Reading back takes about as long as measuring where rates are high.
        let step_s = scope.step_s + scope.step_warm_up_s + scope.step_s;
        let run_s = scope.measure_s + scope.warm_up_s + 2.0;
        let steps = |capacity: f64| {
            let mut search = super::super::search::Search::new(FIRST_STEP_PER_S, scope.precision);
            let mut steps = 2 * scope.confirm + scope.second_tries;
            while let Some(rate) = search.next_rate() {
                search.report(rate, rate <= capacity);
                steps += 1;
            }
            f64::from(steps)
        };
        let alone_s = f64::from(KNEE_HEADROOM_TRIES) * (KNEE_HEADROOM_S.0 + KNEE_HEADROOM_S.1);
        let knees_s = (steps(1_200_000.0) + steps(100_000.0)) * step_s + restarts_s + alone_s;
        let pairs_s = f64::from(scope.pairs) * (2.0 * options.rates.len() as f64 * run_s + restarts_s);
        let floors_s = 2.0 * (options.rates.len() as f64 * (FLOOR_SECONDS + 1.0) + 3.0 * (APPEND_SECONDS + 0.5) + 3.0);
        let all_s = knees_s + pairs_s + floors_s;
        assert!(all_s < 1500.0, "{all_s}");
    }

    /// Seconds of conditioning of a broker without a compiler at run time.
    const NATIVE_S: f64 = 3.0;

    /// Goal: a plan goes on only as it was begun. Method: the example as a begun plan, and one option changed at a time.
    #[test]
    fn a_plan_is_resumed_as_it_was_begun() {
        let mut set = example::result_set();
        set.kind = SetKind::Versus;
        let (workload, _) = Workload::find("steady-1k-10k").unwrap();
        let (other, _) = Workload::find("steady-1k-50k").unwrap();
        let slo = set.curves[0].slo.clone();
        for curve in &mut set.curves {
            curve.slo = slo.clone();
        }
        let scope = Scope { measure_s: 10.0, ..Scope::of(&options(PlanKind::Quick)) };
        let check = |set: &ResultSet, workload, header, slo: &Slo, scope: &Scope| {
            check_same_plan(set, workload, header, slo, scope).map_err(|error| error.to_string())
        };
        assert_eq!(check(&set, &workload, HeaderForm::Json, &slo, &scope), Ok(()));
        let refused = |found: Result<(), String>, what: &str| {
            assert!(found.as_ref().is_err_and(|text| text.contains(what)), "{found:?}")
        };
        refused(check(&set, &other, HeaderForm::Json, &slo, &scope), "--workload");
        refused(check(&set, &workload, HeaderForm::Rocketmq, &slo, &scope), "--header");
        let looser = Slo { p99_ns: Some(1 << 40), ..slo.clone() };
        refused(check(&set, &workload, HeaderForm::Json, &looser, &scope), "--slo");
        let longer = Scope { measure_s: 20.0, ..scope };
        refused(check(&set, &workload, HeaderForm::Json, &slo, &longer), "--seconds");
        set.kind = SetKind::Run;
        refused(check(&set, &workload, HeaderForm::Json, &slo, &longer), "command");
    }

    /// Goal: rows and their floors have the same rates, in the full plan those that follow from the slower knee. Method: both plans, the
    /// full one also where a broker has no knee.
    #[test]
    fn floors_have_the_rates_of_the_rows() {
        let (workload, _) = Workload::find("steady-1k-10k").unwrap();
        let rates = |plan, knee| {
            let options = options(plan);
            let (measured, floors) = shapes(&workload, &options, &Scope::of(&options), knee);
            let of = |shapes: &[Workload]| shapes.iter().map(|shape| shape.load.rate_per_s).collect::<Vec<_>>();
            assert_eq!(of(&measured), of(&floors));
            assert!(floors.iter().all(|shape| shape.load.measure_s <= FLOOR_SECONDS && shape.name == workload.name));
            of(&floors)
        };
        assert_eq!(rates(PlanKind::Full, Some(40_000.0)), [8000.0, 20_000.0, 32_000.0]);
        assert_eq!(rates(PlanKind::Full, None), [1000.0, 5000.0]);
        assert_eq!(rates(PlanKind::Quick, Some(40_000.0)), [1000.0, 5000.0]);
    }

    /// Goal: a plan goes on only with the brokers, settings and cores that it was begun with. Method: the example as a begun plan, and
    /// one of these changed at a time, on the command line, in the broker's file, and in the layout.
    #[test]
    fn a_plan_is_resumed_where_it_was_begun() {
        let folder = tempfile::tempdir().unwrap();
        let directory = ResultDirectory::create(folder.path().join("r")).unwrap();
        let broker = folder.path().join("ringmq");
        std::fs::write(&broker, "one build").unwrap();
        let environment = crate::environment::capture(folder.path(), Some(&broker));
        directory.write_environment(&environment).unwrap();
        let first = ["versus", "ringmq", "java", "--broker-set", "a=1", "--conditioning", "7"];
        let words = |arguments: &[&str]| -> Vec<String> {
            std::iter::once(&"ringmq-bench").chain(arguments).map(|word| (*word).to_owned()).collect()
        };
        let mut set = example::result_set();
        set.command = words(&first);
        let cores = crate::host::pinning::parse_cores(&set.runs[0].generator.broker_cores).unwrap();
        let layout = Layout { generator: set.runs[0].generator.core, broker: cores };
        directory.write_result(&set).unwrap();
        let check = |arguments: &[&str], layout: &Layout, broker: Option<&Path>| {
            let arguments = Arguments::try_parse_from(words(arguments)).unwrap();
            let Some(CommandLine::Versus(options)) = &arguments.command else { panic!("another command") };
            let checked = check_same_surroundings(&directory, &arguments.common, options, layout, broker);
            checked.map_err(|error| error.to_string())
        };
        let refused = |found: Result<(), String>, what: &str| {
            assert!(found.as_ref().is_err_and(|text| text.contains(what)), "{what}: {found:?}")
        };
        let resumed = [&first[..], &["--resume", "r", "--out", "x"]].concat();
        assert_eq!(check(&resumed, &layout, Some(&broker)), Ok(()));
        let without = ["versus", "ringmq", "java", "--conditioning", "7"];
        refused(check(&without, &layout, Some(&broker)), "--broker-set");
        refused(check(&[&without[..], &["--broker-set", "a=2"]].concat(), &layout, Some(&broker)), "--broker-set");
        refused(check(&first[..5], &layout, Some(&broker)), "--conditioning");
        refused(check(&[&first[..], &["--java-heap", "64"]].concat(), &layout, Some(&broker)), "--java-heap");
        refused(check(&[&first[..], &["--plan", "full"]].concat(), &layout, Some(&broker)), "--plan");
        let moved = Layout { generator: Some(77), ..layout.clone() };
        refused(check(&first, &moved, Some(&broker)), "--generator-core");
        let moved = Layout { broker: vec![77], ..layout.clone() };
        refused(check(&first, &moved, Some(&broker)), "--broker-cores");
        refused(check(&first, &layout, None), "SHA-256");
        std::fs::write(&broker, "another build").unwrap();
        refused(check(&first, &layout, Some(&broker)), "SHA-256");
    }
}
