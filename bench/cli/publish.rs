//! `publish`: the result set that the source tree holds, and the README's section made from it.
//!
//! Invariant: only a set that came to its end replaces a published one, and the README says what the set says: runs that do
//! not count and goals that were missed are in it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::distances::{distances, explain, read_causes, unused};
use super::goals::{
    CATCHUP_WITHOUT_BACKLOG, READING, READING_DIRECT, STRICT_P99_NS, WITHOUT_IDLE_CONNECTIONS, goals, half_load,
};
use super::options::{Common, PublishOptions, read_slo};
use super::rounds::{Side, counting, half, in_turn, knee, timed, turn};
use super::session::{Request, Session};
use super::sweep::{SweepPlan, sweep};
use super::{CliError, floors};
use crate::drivers::file::AppendMode;
use crate::judge::is_spoiled_by_host;
use crate::peers::{Flush, Peer};
use crate::report::section;
use crate::result::{
    RESULT_SCHEMA, ResultDirectory, ResultError, ResultSet, RunRecord, RunRole, SetKind, SetStatus, Slo, sha256_hex,
};
use crate::runner::note;
use crate::text::tell;
use crate::workload::Workload;

/// Length of a floor's run and of its warm-up.
const FLOOR_S: (f64, f64) = (2.5, 0.5);
/// First step of the search for a knee, and of that for the strict one.
const FIRST_STEP_PER_S: f64 = 4000.0;
const FIRST_STRICT_STEP_PER_S: f64 = 20_000.0;
const PRECISION: f64 = 0.1;
/// Part of the catalogue's backlog: 1 GB.
const BACKLOG_SCALE: f64 = 0.02;
/// Runs of what RingMQ alone is asked, if the host spoils them.
const EXTRA_TRIES: u32 = 3;
/// Runs of the rounds that are made once more, if the host spoils them.
const SECOND_TRIES: usize = 8;
/// Steps of one search that are made once more for what the host may have done, or at lower rates.
const SECOND_TRIES_OF_A_SEARCH: u32 = 8;
/// Bytes of a piece of the reading floor: what a pull of 32 messages of 1 KiB asks of a broker's log.
const PULL_BYTES: usize = 32 << 10;
/// Bytes of a piece that is read past the page cache: nobody reads ahead there, and disks want long pieces.
const DIRECT_BYTES: usize = 256 << 10;
/// Most bytes of a published set: it lives in the history of the sources for ever. Room is left for its sums.
const MOST_BYTES: u64 = 2900 << 10;

/// A plan in numbers.
#[derive(Debug, Clone, Copy)]
struct Scope {
    flushes: &'static [Flush],
    rounds: u32,
    measure_s: f64,
    warm_up_s: f64,
    step_s: f64,
    step_warm_up_s: f64,
    conditioning_s: f64,
    has_extras: bool,
}

/// How long a Java broker works before it is measured, however short the runs are: its compiler needs more than a minute of load until
/// the rate does not rise any more.
const JAVA_CONDITIONING_S: f64 = 75.0;

impl Scope {
    fn of(options: &PublishOptions) -> Scope {
        let scope = if options.quick {
            Scope {
                flushes: &[Flush::Async],
                rounds: 3,
                measure_s: 3.0,
                warm_up_s: 1.0,
                step_s: 3.0,
                step_warm_up_s: 1.0,
                conditioning_s: JAVA_CONDITIONING_S,
                has_extras: false,
            }
        } else {
            Scope {
                flushes: &[Flush::Async, Flush::Sync],
                rounds: 3,
                measure_s: 6.0,
                warm_up_s: 1.5,
                step_s: 5.0,
                step_warm_up_s: 1.0,
                conditioning_s: JAVA_CONDITIONING_S,
                has_extras: true,
            }
        };
        Scope {
            measure_s: scope.measure_s * options.scale,
            warm_up_s: scope.warm_up_s * options.scale,
            step_s: scope.step_s * options.scale,
            step_warm_up_s: scope.step_warm_up_s * options.scale,
            ..scope
        }
    }

    /// A workload of the catalogue with the times of this plan.
    fn shape(&self, session: &mut Session<'_>, name: &str, rate_per_s: Option<f64>) -> Result<Workload, CliError> {
        let (workload, definition) = Workload::find(name)?;
        session.add_workload(&workload, &definition);
        let mut workload = timed(&workload, self.measure_s, self.warm_up_s);
        workload.load.rate_per_s = rate_per_s.unwrap_or(workload.load.rate_per_s);
        Ok(workload)
    }
}

/// Carries out the command.
pub fn carry_out(common: &Common, options: &PublishOptions) -> Result<u8, CliError> {
    if options.scale <= 0.0 {
        return Err(CliError::Usage("--scale is above 0".to_owned()));
    }
    // Read before anything is measured: what is wrong with them must not show after half an hour.
    let causes = read_causes(&options.causes)?;
    let (from, code) = match &options.from {
        Some(path) => (super::existing(path)?, 0),
        None => {
            let slo = read_slo(&options.slo, &Workload::find("steady-1k-10k")?.0)?;
            common.ready_broker()?;
            let mut session = Session::begin(common, SetKind::Publish, "publish", true)?;
            let directory = session.directory.clone();
            let failure = measure(&mut session, &Scope::of(options), &slo).err();
            (directory, session.finish(failure)?)
        }
    };
    let mut set = from.read_result()?;
    if set.kind != SetKind::Publish {
        return Err(CliError::Usage(format!("{} is no result of `publish`", from.path().display())));
    }
    if let SetStatus::Partial { reason } = &set.status {
        note(&format!("not published: the result is partial ({reason})"));
        return Ok(code.max(3));
    }
    // An earlier result is judged by the goals of this program. Its runs stay as they were judged when they were made.
    set.note_used_rates();
    set.goals = goals(&set);
    explain(&mut set.goals, &causes);
    set.distances = distances(&set, &causes);
    for row in unused(&set.distances, &set.goals, &causes) {
        note(&format!("{}: the set has no row {row:?}", options.causes.display()));
    }
    let bytes = copy(&from, &set, &options.into)?;
    write_section(&options.into, &options.readme)?;
    if !common.json {
        tell(format_args!(
            "published {} ({}) and the section of {}",
            options.into.display(),
            crate::units::bytes(bytes),
            options.readme.display()
        ));
    }
    Ok(code)
}

fn measure(session: &mut Session<'_>, scope: &Scope, slo: &Slo) -> Result<(), CliError> {
    session.second_tries = SECOND_TRIES;
    let floor = |mut shape: Workload| {
        shape = timed(&shape, FLOOR_S.0, FLOOR_S.1);
        shape
    };
    let steady = scope.shape(session, "steady-1k-10k", None)?;
    session.headroom(&steady, FLOOR_S.0)?;
    let trip = floor(scope.shape(session, "rtt-1k", None)?);
    let receipt = floor(scope.shape(session, "end-to-end", None)?);
    let mut echoes = vec![trip.clone(), floor(scope.shape(session, "saturate-16x1", None)?)];
    if scope.has_extras {
        echoes.push(floor(scope.shape(session, "saturate-64x16", None)?));
    }
    echoes.extend([floor(steady.clone()), receipt]);
    floors::echo(session, &echoes)?;
    floors::append(session, &trip)?;
    let settings = session.common.settings(&steady)?;
    for (number, &flush) in (1..).zip(scope.flushes) {
        let side = |peer| Side {
            peer,
            flush,
            header: ringmq_protocol::frame::SerializeType::Json,
            conditioning_s: scope.conditioning_s,
            settings: &settings,
        };
        let plan = sweep_plan(slo);
        let step = timed(&steady, scope.step_s, scope.step_warm_up_s);
        let mut knees = BTreeMap::new();
        for peer in in_turn([Peer::RingMq, Peer::Java], number) {
            if let Some(knee) = knee(session, &side(peer), &step, &plan)? {
                knees.insert(peer.name(), knee);
            }
        }
        let mut shapes = vec![scope.shape(session, "rtt-1k", None)?, scope.shape(session, "saturate-16x1", None)?];
        if let Some(slower) = knees.get(Peer::Java.name()) {
            let shape = scope.shape(session, "steady-1k-10k", Some(half(*slower)))?;
            if !session.is_stopped() {
                floors::echo(session, &[floor(shape.clone())])?;
            }
            shapes.push(shape);
        }
        if scope.has_extras {
            shapes.push(steady.clone());
        }
        shapes.push(scope.shape(session, "end-to-end", None)?);
        if scope.has_extras {
            // The last: what millions of messages leave to be done, such as queues to be written, would be charged to what follows.
            shapes.push(scope.shape(session, "saturate-64x16", None)?);
        }
        for round in 1..=scope.rounds {
            for peer in in_turn([Peer::RingMq, Peer::Java], round) {
                let mut counted = Vec::new();
                if round == scope.rounds {
                    let knee = knees.get(peer.name()).map(|knee| {
                        let mut at_knee = steady.clone();
                        at_knee.load.rate_per_s = *knee;
                        at_knee
                    });
                    counted = counting(&shapes.iter().cloned().chain(knee).collect::<Vec<_>>());
                }
                turn(session, &side(peer), round, &shapes, &counted)?;
            }
        }
    }
    if scope.has_extras && !session.is_stopped() {
        extras(session, scope, &settings)?;
    }
    let Some(name) = session.set.highest_curve().map(|curve| curve.workload.clone()) else { return Ok(()) };
    let shape = scope.shape(session, &name, None)?;
    session.headroom_at_knee(&shape)
}

/// How knees are looked for.
fn sweep_plan(slo: &Slo) -> SweepPlan<'_> {
    let (precision, second_tries) = (PRECISION, SECOND_TRIES_OF_A_SEARCH);
    SweepPlan { from: FIRST_STEP_PER_S, precision, confirm: 1, second_tries, slo }
}

/// What RingMQ alone is asked: goals that no comparison covers.
fn extras(session: &mut Session<'_>, scope: &Scope, settings: &[(String, String)]) -> Result<(), CliError> {
    let steady = scope.shape(session, "steady-1k-50k", None)?;
    let batches = scope.shape(session, "saturate-batch-32", None)?;
    floors::echo(session, &[&steady, &batches].map(|shape| timed(shape, FLOOR_S.0, FLOOR_S.1)))?;
    for (name, piece_bytes, mode) in
        [(READING, PULL_BYTES, AppendMode::Read), (READING_DIRECT, DIRECT_BYTES, AppendMode::ReadDirect)]
    {
        let mut reading = timed(&Workload::find("rtt-1k")?.0, FLOOR_S.0, FLOOR_S.1);
        (reading.name, reading.load.message_bytes) = (name.to_owned(), piece_bytes);
        floors::read(session, &reading, mode)?;
    }
    let strict = Slo { p99_ns: Some(STRICT_P99_NS), errors: Some(0), ..Slo::default() };
    let plan = SweepPlan { from: FIRST_STRICT_STEP_PER_S, ..sweep_plan(&strict) };
    let idle = scope.shape(session, "conn-10k-idle", None)?;
    let mut catchup = scope.shape(session, "catchup", None)?;
    catchup.scale(BACKLOG_SCALE);
    let without = |workload: &Workload, name: &str| {
        let mut workload = Workload { name: name.to_owned(), ..workload.clone() };
        workload.scale(0.0);
        workload
    };
    let mut async_shapes = vec![
        without(&idle, WITHOUT_IDLE_CONNECTIONS),
        idle,
        without(&catchup, CATCHUP_WITHOUT_BACKLOG),
        catchup,
        batches,
    ];
    if let Some(rate) = half_load(&session.set) {
        async_shapes.push(scope.shape(session, "steady-1k-10k", Some(rate))?);
    }
    for (flush, shapes) in [(Flush::Async, &async_shapes[..]), (Flush::Sync, std::slice::from_ref(&steady))] {
        let name = format!("ringmq-{}-alone", flush.durability().name());
        session.with_broker((Peer::RingMq, flush), settings.to_vec(), &name, |session, broker| {
            for shape in shapes {
                if session.is_stopped() {
                    break;
                }
                let scale = if shape.name == "catchup" { BACKLOG_SCALE } else { 1.0 };
                // These are made once, not in rounds: one that the host spoiled is made again, one that the broker failed is not.
                for _ in 0..EXTRA_TRIES {
                    let request = Request::of_broker(broker, Peer::RingMq, flush, shape, RunRole::Measured);
                    let run = session.run(&Request { scale, ..request })?;
                    if !is_spoiled_by_host(run) || session.is_stopped() {
                        break;
                    }
                }
            }
            if flush == Flush::Async && !session.is_stopped() {
                let step = timed(&steady, scope.step_s, scope.step_warm_up_s);
                let request = Request::of_broker(broker, Peer::RingMq, flush, &step, RunRole::SweepStep);
                sweep(session, &request, &plan)?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Result(ResultError::Io { action, path, source })
}

/// How much of a set is published: the first that is small enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// All of it but plots beside the page, logs of search steps, and logs of brokers after the first round.
    Whole,
    /// The same without the histograms of warm-ups and drains.
    Measured,
    /// Of each row only the histogram log of the run that the plots show, and none of a confirming run.
    Shown,
}

/// What is published of a set.
fn published_names(set: &ResultSet, part: Part) -> Vec<String> {
    let is_small = part == Part::Shown;
    let mut names = vec!["result.json".to_owned(), "env.json".to_owned(), crate::report::PAGE_NAME.to_owned()];
    for group in crate::report::groups::groups(set) {
        let shown = group.representative().map(|run| run.id.as_str());
        let runs = group.runs.iter().filter(|run| !is_small || Some(run.id.as_str()) == shown);
        let phases = |run: &RunRecord| (part == Part::Whole).then(|| run.phases_hlog.clone());
        names.extend(runs.flat_map(|run| [Some(run.hlog.clone()), phases(run)]).flatten());
    }
    let confirms = |run: &&RunRecord| matches!(run.role, RunRole::ConfirmFull | RunRole::ConfirmEighty);
    names.extend(set.runs.iter().filter(|run| !is_small && confirms(run)).map(|run| run.hlog.clone()));
    let files = set.systems.iter().flat_map(|system| system.files.iter());
    names.extend(files.filter(|name| !name.ends_with(".log") || name.ends_with("-1.log")).cloned());
    names.retain(|name| !name.is_empty());
    names.sort();
    names.dedup();
    names
}

/// A set that names no file which its copy does not have.
fn naming_only(set: &ResultSet, files: &[(String, Vec<u8>)]) -> ResultSet {
    let mut set = ResultSet { schema: RESULT_SCHEMA.to_owned(), ..set.clone() };
    let is_kept = |name: &String| files.iter().any(|(kept, _)| kept == name);
    for name in set.runs.iter_mut().flat_map(|run| [&mut run.hlog, &mut run.phases_hlog]) {
        if !is_kept(name) {
            name.clear();
        }
    }
    set.systems.iter_mut().for_each(|system| system.files.retain(|name| is_kept(name)));
    set
}

/// Files with their names. What is not there is left out: a broker whose log could not be copied has none.
fn read_all(from: &ResultDirectory, names: Vec<String>) -> Result<Vec<(String, Vec<u8>)>, CliError> {
    let present = names.into_iter().map(|name| (from.file(&name), name)).filter(|(path, _)| path.is_file());
    present.map(|(path, name)| Ok((name, fs::read(&path).map_err(failed("read", &path))?))).collect()
}

/// Replaces the published set by a small copy of `set`, which lies in `from` but for its goals. Returns its size.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
fn copy(from: &ResultDirectory, set: &ResultSet, into: &Path) -> Result<f64, CliError> {
    let size = |files: &[(String, Vec<u8>)]| files.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
    let mut files = Vec::new();
    for part in [Part::Whole, Part::Measured, Part::Shown] {
        files = read_all(from, published_names(set, part))?;
        if size(&files) <= MOST_BYTES {
            break;
        }
    }
    let set = &naming_only(set, &files);
    let (result, page) = (from.result_text(set)?, crate::report::page_text(set, &from.read_environment()?));
    for (name, content) in &mut files {
        match name.as_str() {
            "result.json" => *content = result.clone().into_bytes(),
            crate::report::PAGE_NAME => *content = page.clone().into_bytes(),
            _ => {}
        }
    }
    let bytes = size(&files);
    if bytes > MOST_BYTES {
        let (has, most) = (crate::units::bytes(bytes as f64), crate::units::bytes(MOST_BYTES as f64));
        return Err(CliError::Usage(format!(
            "the set has {has}, and {most} are the most that is published; lower --scale"
        )));
    }
    if into.join("result.json").is_file() {
        fs::remove_dir_all(into).map_err(failed("remove", into))?;
    }
    let mut sums = String::new();
    for (name, content) in files {
        let path = into.join(&name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(failed("make", folder))?;
        }
        fs::write(&path, &content).map_err(failed("write", &path))?;
        sums += &format!("{}  {name}\n", sha256_hex(&content));
    }
    let path = into.join("SHA256SUMS");
    fs::write(&path, sums).map_err(failed("write", &path))?;
    Ok(bytes as f64)
}

fn write_section(results: &Path, readme: &Path) -> Result<(), CliError> {
    let directory = ResultDirectory::open(results);
    let text = section::text(Some((&directory.read_result()?, &directory.read_environment()?)));
    let page = fs::read_to_string(readme).map_err(failed("read", readme))?;
    let page = section::replace(&page, &text)
        .ok_or_else(|| CliError::Usage(format!("{} has no place for the section", readme.display())))?;
    fs::write(readme, page).map_err(failed("write", readme))
}

#[cfg(test)]
mod tests {
    use super::super::rounds::COUNTING_S;
    use super::super::session::{KNEE_HEADROOM_S, KNEE_HEADROOM_TRIES};
    use super::*;
    use crate::result::example;

    /// Goal: the plan stays within its promises of 42, 38 and 15 minutes. Method: adds up its parts, with what starting, stopping and
    /// reading back take on a machine of two cores.
    #[test]
    fn is_bounded() {
        for (is_quick, scale, limit_s) in [(false, 1.0, 2520.0), (false, 0.8, 2280.0), (true, 1.0, 900.0)] {
            let options = PublishOptions {
                quick: is_quick,
                scale,
                slo: String::new(),
                from: None,
                causes: "z".into(),
                into: "x".into(),
                readme: "y".into(),
            };
            let scope = Scope::of(&options);
            // A start and stop of the Java broker, and reading back after a run.
            let (restart_s, verify_s) = (18.0, 1.2);
            let run_s = scope.measure_s + scope.warm_up_s + verify_s;
            let step_s = scope.step_s + scope.step_warm_up_s + verify_s;
            // Reading back what a fast broker took in takes longer than measuring it.
            let fast_step_s = step_s + scope.step_s * 1.5;
            let shapes = if scope.has_extras { 6.0 } else { 4.0 };
            // That of saturate-64x16.
            let reading_s = if scope.has_extras { scope.measure_s * 1.5 } else { 0.0 };
            let turns =
                f64::from(scope.rounds) * (2.0 * shapes * run_s + reading_s + restart_s + scope.conditioning_s + 4.0);
            // Each row and the knee once more for each broker, to count system calls.
            let turns = turns + 2.0 * (shapes + 1.0) * (COUNTING_S.0 + COUNTING_S.1 + 0.3);
            // Steps up to 300,000/s and to 10,000/s, halving, confirming.
            let knees = 12.0 * fast_step_s + (7.0 + 7.0) * step_s + restart_s + scope.conditioning_s + 4.0;
            // One in two is made twice.
            let floors = 1.5 * 16.0 * (FLOOR_S.0 + FLOOR_S.1);
            let alone = f64::from(KNEE_HEADROOM_TRIES) * (KNEE_HEADROOM_S.0 + KNEE_HEADROOM_S.1);
            // The backlog has a length of its own. One in three is made again.
            let extras = if scope.has_extras { 9.0 * run_s + 20.0 + 10.0 * fast_step_s } else { 0.0 };
            #[expect(clippy::cast_precision_loss, reason = "a few")]
            let again = SECOND_TRIES as f64 * run_s;
            let all_s = floors + alone + again + scope.flushes.len() as f64 * (turns + knees) + extras;
            assert!(all_s < limit_s, "{is_quick} {scale}: {all_s}");
        }
    }

    /// Goal: only named files are published, a set of another kind and a partial one are refused, and the section is written.
    /// Method: the example set in a folder.
    #[test]
    fn publishes_a_copy() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let from = ResultDirectory::create(path("from")).unwrap();
        let mut set = example::result_set();
        set.kind = SetKind::Publish;
        set.runs.push(example::run("ringmq", 1, RunRole::ConfirmFull, 80_000.0, 60_000));
        set.environment_sha256 = from.write_environment(&example::environment()).unwrap();
        from.write_result(&set).unwrap();
        crate::report::write(&from).unwrap();
        for run in &set.runs {
            from.write(&run.hlog, b"log").unwrap();
            from.write(&run.phases_hlog, b"log").unwrap();
        }
        fs::write(path("page.md"), format!("# a\n{}\nformer text\n{}\nb\n", section::BEGIN, section::END)).unwrap();
        copy(&from, &set, &path("into")).unwrap();
        write_section(&path("into"), &path("page.md")).unwrap();
        let sums = fs::read_to_string(path("into/SHA256SUMS")).unwrap();
        assert!(sums.contains("result.json") && sums.contains("measured") && !sums.contains("sweepstep"), "{sums}");
        let page = fs::read_to_string(path("page.md")).unwrap();
        assert!(page.starts_with("# a\n") && page.ends_with("b\n") && !page.contains("former text"), "{page}");
        assert!(page.contains("RocketMQ 5.3.3"), "{page}");
        copy(&from, &set, &path("into")).unwrap();
        assert!(sums.contains("confirmfull"), "{sums}");
        let mut judged = set.clone();
        judged.goals = goals(&judged);
        let into = ResultDirectory::open(path("into"));
        copy(&into, &judged, into.path()).unwrap();
        let published = into.read_result().unwrap();
        assert_eq!(published.goals, judged.goals);
        assert!(published_names(&set, Part::Whole).iter().any(|name| name.ends_with(".phases.hlog")));
        assert!(!published_names(&set, Part::Measured).iter().any(|name| name.ends_with(".phases.hlog")));
        let named = published.runs.iter().flat_map(|run| [&run.hlog, &run.phases_hlog]).filter(|name| !name.is_empty());
        let named = named.chain(published.systems.iter().flat_map(|system| &system.files));
        assert!(named.clone().count() > 0 && named.clone().all(|name| path("into").join(name).is_file()));
        assert!(published.runs.iter().any(|run| run.hlog.is_empty()), "logs of search steps are not published");
        let page = fs::read_to_string(path("into/report.html")).unwrap();
        assert!(!page.contains("per run (HdrHistogram"), "not each run has its log");
        assert_ne!(judged.goals, set.goals);
        assert!(fs::read_to_string(path("into/report.html")).unwrap().contains(&judged.goals[0].rule));
    }
}
