//! Carries out one run and makes its record: opens the driver on the generator's core, watches broker and cores beside it,
//! writes the histogram log, and judges.

mod progress;
mod record;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use ringmq_protocol::frame::SerializeType;
use thiserror::Error;

pub use progress::{ProgressLine, note};

use crate::clock::{monotonic_ns, wall_ms};
use crate::drivers::file::{AppendMode, FileAppend};
use crate::drivers::null::{Behaviour, Idle, NullServer};
use crate::drivers::remoting::{Remoting, RemotingShape, delete_topics};
use crate::drivers::storm::Storm;
use crate::drivers::{Books, Driver, DriverError};
use crate::engine::{Engine, Hooks, MonotonicClock, Outcome, Progress, Schedule, Settings};
use crate::host::broker_metrics::MetricsWatch;
use crate::host::hiccup::HiccupMeter;
use crate::host::pinning;
use crate::host::process::{ProcessMeter, Usage, steal_ticks};
use crate::judge::judge;
use crate::load::ledger::{Ledger, LedgerShape};
use crate::load::recorder::Recorder;
use crate::plan::{Arrivals, Plan, PlanError};
use crate::result::{Durability, LoopKind, ResultDirectory, ResultError, RunRecord, RunRole, Slo};
use crate::workload::{Operation, Workload, WorkloadError};

/// Messages per second for which a closed loop's books have room: twice what the echo takes in batches. It takes two bits of each.
const CLOSED_LOOP_ROOM_PER_S: f64 = 6_000_000.0;

/// What is measured.
#[derive(Debug, Clone)]
pub enum Target {
    /// A broker at this address.
    Broker(SocketAddr),
    /// An echo server that is started for the run.
    Null(Behaviour),
    /// Appends to a file in this folder.
    File(PathBuf, AppendMode),
}

/// Which thread runs where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    /// The generator's core.
    pub generator: Option<u32>,
    /// Cores of brokers and servers.
    pub broker: Vec<u32>,
}

impl Layout {
    /// Whether the two can meet.
    pub fn shares_cores(&self) -> bool {
        self.generator.is_none_or(|core| self.broker.contains(&core))
    }
}

/// One run.
#[derive(Debug, Clone)]
pub struct RunSpec<'a> {
    /// See [`RunRecord::id`].
    pub id: String,
    /// See [`RunRecord::system`].
    pub system: &'a str,
    /// What is measured.
    pub target: Target,
    /// With what.
    pub workload: &'a Workload,
    /// Class of the target's acknowledgements.
    pub durability: Option<Durability>,
    /// Why.
    pub role: RunRole,
    /// Number of the repeat.
    pub round: u32,
    /// Form of the headers.
    pub header: SerializeType,
    /// Factor that the workload was scaled by already.
    pub scale: f64,
    /// Cores.
    pub layout: &'a Layout,
    /// The broker's process, if it is on this host.
    pub broker_pid: Option<u32>,
    /// The broker's metrics page.
    pub metrics: Option<SocketAddr>,
    /// Whether system calls are counted.
    pub counts_syscalls: bool,
    /// Whether the topics of the run are deleted when it is over.
    pub deletes_topics: bool,
    /// What the run is judged by.
    pub slo: Option<&'a Slo>,
}

/// Why a run has no record.
#[derive(Debug, Error)]
pub enum RunError {
    /// The target.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The workload.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// The result.
    #[error(transparent)]
    Result(#[from] ResultError),
    /// A thread ended by a panic, whose text has been printed.
    #[error("the generator's thread panicked")]
    Panic,
    /// The generator's thread cannot be had.
    #[error("start the generator's thread: {0}")]
    Thread(std::io::Error),
}

/// Where the generator's thread may run.
#[derive(Debug, Default)]
struct GeneratorPlace {
    /// As the kernel says.
    cores: Vec<u32>,
    /// Why it could not be bound to its core.
    refused: Option<io::Error>,
}

impl GeneratorPlace {
    /// The one core that it is bound to.
    fn core(&self) -> Option<u32> {
        if let [core] = self.cores[..] { Some(core) } else { None }
    }

    /// What is wrong with it, where it was to have a core of its own.
    fn breach(&self, wanted: Option<u32>) -> Option<String> {
        let wanted = wanted.filter(|core| self.core() != Some(*core))?;
        let cores = pinning::format_cores(&self.cores);
        let reason = self.refused.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
        Some(format!("the generator was not bound to core {wanted}{reason}: it ran on cores {cores}"))
    }
}

/// What the generator's thread brings back.
struct Finished {
    books: Books,
    outcome: Outcome,
    operation: &'static str,
    connect_ns: u64,
    usage: Option<(Usage, Usage, u64)>,
    steal: Option<((u64, u64), (u64, u64))>,
    hiccups: Vec<(u32, &'static str, hdrhistogram::Histogram<u64>)>,
    syscalls_absent: String,
    place: GeneratorPlace,
}

/// Reads counters at both ends of the measured phase.
struct Readings<'a> {
    process: Option<&'a ProcessMeter>,
    meters: &'a [HiccupMeter],
    began: Option<(Usage, u64)>,
    usage: Option<(Usage, Usage, u64)>,
    steal_began: Option<(u64, u64)>,
    steal: Option<((u64, u64), (u64, u64))>,
}

impl Hooks for Readings<'_> {
    fn measure_begins(&mut self) {
        self.steal_began = steal_ticks();
        self.began = self.process.map(|process| (process.read(), monotonic_ns()));
        self.meters.iter().for_each(|meter| meter.measure(true));
    }

    fn measure_ended(&mut self) {
        self.meters.iter().for_each(|meter| meter.measure(false));
        self.usage = self
            .process
            .zip(self.began)
            .map(|(process, (before, at_ns))| (before, process.read(), monotonic_ns() - at_ns));
        self.steal = self.steal_began.zip(steal_ticks());
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as casts of floats saturate")]
fn seconds(value: f64) -> u64 {
    (value * 1e9).round() as u64
}

fn settings(spec: &RunSpec<'_>) -> Result<Settings, RunError> {
    let load = &spec.workload.load;
    let measure_ns = seconds(load.measure_s);
    let schedule = match load.loop_kind {
        LoopKind::Closed => Schedule::Closed,
        LoopKind::Open => {
            let process = spec.workload.process()?;
            // The warm-up must not end in the middle of a burst or a trace, so it comes evenly at the same mean rate.
            let rate_per_s = Arrivals::rate_per_s(&process, load.rate_per_s);
            let even = match process {
                crate::plan::Process::Poisson => &crate::plan::Process::Poisson,
                _ => &crate::plan::Process::Uniform,
            };
            Schedule::Open {
                warm_up: Box::new(Arrivals::new(even, rate_per_s.max(1.0), 0, load.seed ^ u64::MAX)?),
                plan: Plan::new(&process, load.rate_per_s.max(1.0), measure_ns, load.seed)?,
            }
        }
    };
    Ok(Settings {
        schedule,
        preload_messages: load.preload_bytes / load.message_bytes as u64,
        warm_up_min_ns: seconds(load.warm_up_min_s),
        warm_up_max_ns: seconds(load.warm_up_max_s),
        measure_ns,
        timeout_ns: seconds(load.timeout_s),
        verifies: load.verify,
    })
}

/// Messages for which the books need room.
fn capacity(spec: &RunSpec<'_>, settings: &Settings) -> u64 {
    let load = &spec.workload.load;
    let batch = u64::from(load.batch);
    let warm_up_s = load.warm_up_max_s + 1.0;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as casts of floats saturate")]
    let operations = match &settings.schedule {
        Schedule::Open { plan, .. } => {
            let rate_per_s = plan.times_ns.len() as u64 as f64 / load.measure_s;
            plan.times_ns.len() as u64 + (rate_per_s.max(load.rate_per_s) * warm_up_s * 1.1) as u64
        }
        Schedule::Closed => (CLOSED_LOOP_ROOM_PER_S / f64::from(load.batch) * (warm_up_s + load.measure_s)) as u64,
    };
    let in_flight = u64::from(load.connections) * u64::from(load.depth);
    (settings.preload_messages.next_multiple_of(batch)) + (operations + in_flight + 4096) * batch
}

/// Carries out a run. A run that ends early has a record too; only one that never began has none.
///
/// # Errors
/// The target cannot be reached, or the run cannot be planned or written down.
pub fn run(
    spec: &RunSpec<'_>,
    directory: &ResultDirectory,
    stop: &AtomicBool,
    progress_line: &ProgressLine,
) -> Result<RunRecord, RunError> {
    let mut settings = settings(spec)?;
    let plan_sha256 = match &settings.schedule {
        Schedule::Open { plan, .. } => plan.sha256.clone(),
        Schedule::Closed => String::new(),
    };
    let started_ms = wall_ms();
    let metrics = spec.metrics.and_then(|address| MetricsWatch::start(address, spec.layout.broker.clone()));
    let progress = Progress::default();
    let finished = std::thread::scope(|scope| {
        let generator = std::thread::Builder::new()
            .name("generator".to_owned())
            .spawn_scoped(scope, || generate(spec, &mut settings, stop, &progress))
            .map_err(RunError::Thread)?;
        progress_line.follow(&spec.id, spec.workload.load.measure_s, &progress, || generator.is_finished());
        generator.join().map_err(|_| RunError::Panic)?
    })?;
    let samples = metrics.map(MetricsWatch::finish).unwrap_or_default();
    let mut record = record::make(spec, &finished, &samples, plan_sha256, started_ms);
    judge(&mut record, spec.slo);
    record.validity.invalid.extend(finished.place.breach(spec.layout.generator));
    write_logs(&record, &finished, started_ms, directory)?;
    Ok(record)
}

/// Writes the histogram logs of a run: that of its measured phase, and that of the others.
fn write_logs(
    record: &RunRecord,
    finished: &Finished,
    started_ms: u64,
    directory: &ResultDirectory,
) -> Result<(), ResultError> {
    let (recorder, outcome) = (&finished.books.recorder, &finished.outcome);
    let title = format!("ringmq-bench {}", record.id);
    let began_ms = started_ms + finished.connect_ns / 1_000_000;
    let measure_ms = began_ms + record::measure_offset_ns(finished) / 1_000_000;
    let failed = |name: &str| {
        let path = directory.file(name);
        move |source| ResultError::Io { action: "encode", path, source }
    };
    let mut log = Vec::new();
    recorder.write_hlog(&mut log, measure_ms, &title, finished.operation).map_err(failed(&record.hlog))?;
    directory.write(&record.hlog, &log)?;
    log.clear();
    recorder
        .write_phases_hlog(&mut log, (began_ms, outcome.began_ns), &title, finished.operation)
        .map_err(failed(&record.phases_hlog))?;
    directory.write(&record.phases_hlog, &log)
}

/// The body of the generator's thread.
fn generate(
    spec: &RunSpec<'_>,
    settings: &mut Settings,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Finished, RunError> {
    // Without its core the run is still a run, but not a valid one: what the kernel says is in its record.
    let refused = spec.layout.generator.and_then(|core| pinning::pin_this_thread(&[core]).err());
    let place = GeneratorPlace { cores: pinning::allowed_cores(0), refused };
    let finished = generate_here(spec, settings, stop, progress)?;
    Ok(Finished { place, ..finished })
}

fn generate_here(
    spec: &RunSpec<'_>,
    settings: &mut Settings,
    stop: &AtomicBool,
    progress: &Progress,
) -> Result<Finished, RunError> {
    let began_ns = monotonic_ns();
    match &spec.target {
        Target::Broker(address) => generate_remote(spec, *address, settings, stop, progress, began_ns),
        Target::Null(behaviour) => {
            // A spinning server on the generator's core would take it away.
            let idle = if spec.layout.shares_cores() { Idle::Sleep } else { behaviour.idle };
            let behaviour = Behaviour { idle, ..*behaviour };
            let server = NullServer::start(spec.layout.broker.first().copied(), behaviour)?;
            generate_remote(spec, server.address(), settings, stop, progress, began_ns)
        }
        Target::File(folder, mode) => {
            let mut driver = FileAppend::open(folder, *mode, spec.workload.load.message_bytes)?;
            drive(spec, &mut driver, 0, settings, stop, progress, began_ns)
        }
    }
}

fn generate_remote(
    spec: &RunSpec<'_>,
    address: SocketAddr,
    settings: &mut Settings,
    stop: &AtomicBool,
    progress: &Progress,
    began_ns: u64,
) -> Result<Finished, RunError> {
    let load = &spec.workload.load;
    if load.operation == Operation::Connect {
        let places = load.connections as usize * load.depth as usize;
        let mut driver = Storm::open(address, spec.header, places)?;
        return drive(spec, &mut driver, 0, settings, stop, progress, began_ns);
    }
    let consumers = spec.workload.consumers.as_ref();
    let run_id = wall_ms() << 20 ^ u64::from(std::process::id()) << 8 ^ began_ns;
    let keeps = !matches!(spec.target, Target::Null(Behaviour { keep: None, .. }));
    settings.verifies &= keeps;
    let shape = RemotingShape {
        address,
        header: spec.header,
        run_id,
        connections: load.connections,
        depth: load.depth,
        fills_connections: load.loop_kind == LoopKind::Closed,
        body_bytes: load.message_bytes,
        batch: load.batch,
        topics: load.topics,
        queues: load.queues,
        consumer_groups: consumers.filter(|_| keeps).map_or(0, |consumers| consumers.groups),
        pull_batch: consumers.map_or(32, |consumers| consumers.pull_batch),
        hold_ms: consumers.map_or(0, |consumers| consumers.hold_ms),
        pull_pause_ns: consumers.map_or(0, |consumers| consumers.pull_pause_ms * 1_000_000),
        wanted_every: consumers.map_or(1, |consumers| consumers.wanted_every),
        idle_connections: load.idle_connections,
    };
    let topics = shape.topics;
    let finished = Remoting::open(shape)
        .map_err(RunError::from)
        .and_then(|mut driver| drive(spec, &mut driver, run_id, settings, stop, progress, began_ns));
    if spec.deletes_topics
        && let Some((count, reason)) = delete_topics(address, run_id, topics)
    {
        note(&format!("{count} topics bench-{run_id:016x}-… are left on {address}: {reason}"));
    }
    finished
}

fn drive<D: Driver>(
    spec: &RunSpec<'_>,
    driver: &mut D,
    run_id: u64,
    settings: &mut Settings,
    stop: &AtomicBool,
    progress: &Progress,
    began_ns: u64,
) -> Result<Finished, RunError> {
    let load = &spec.workload.load;
    let is_message = driver.operation() == "send";
    let ledger = Ledger::new(LedgerShape {
        run_id,
        producers: if is_message { load.connections } else { 1 },
        queues: if is_message { load.topics * load.queues } else { 1 },
        groups: if is_message { spec.workload.consumers.as_ref().map_or(1, |consumers| consumers.groups) } else { 0 },
        capacity: capacity(spec, settings),
        body_bytes: load.message_bytes,
        wanted_every: spec.workload.consumers.as_ref().map_or(1, |consumers| consumers.wanted_every),
        batch: if is_message { load.batch } else { 1 },
    });
    let mut books = Books { recorder: Recorder::with_warm_up(settings.measure_ns, settings.warm_up_max_ns), ledger };
    let process = spec.broker_pid.map(|pid| ProcessMeter::attach(pid, spec.counts_syscalls));
    let meters: Vec<HiccupMeter> = spec
        .layout
        .broker
        .iter()
        .filter(|core| Some(**core) != spec.layout.generator)
        .filter_map(|core| HiccupMeter::start(*core))
        .collect();
    let connect_ns = monotonic_ns() - began_ns;
    let mut readings = Readings {
        process: process.as_ref(),
        meters: &meters,
        began: None,
        usage: None,
        steal_began: None,
        steal: None,
    };
    let mut engine = Engine { driver, books: &mut books, clock: &MonotonicClock, stop, progress };
    let outcome = engine.run(settings, &mut readings);
    if readings.usage.is_none() && readings.began.is_some() {
        readings.measure_ended();
    }
    let (usage, steal) = (readings.usage, readings.steal);
    let mut hiccups: Vec<(u32, &'static str, hdrhistogram::Histogram<u64>)> =
        meters.into_iter().map(|meter| (meter.core(), "broker", meter.finish())).collect();
    if let Some(core) = spec.layout.generator {
        hiccups.push((core, "generator", outcome.hiccups.lateness().clone()));
    }
    let operation = driver.operation();
    let syscalls_absent = match &process {
        Some(process) => process.syscalls_absent().to_owned(),
        None if spec.counts_syscalls => "the target's process is not known".to_owned(),
        None => String::new(),
    };
    let place = GeneratorPlace::default();
    Ok(Finished { books, outcome, operation, connect_ns, usage, steal, hiccups, syscalls_absent, place })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a record names the core that the generator had, and a run without the core that it was to have is invalid. Method: a core
    /// that may be used, and one that no machine here has.
    #[test]
    fn a_generator_without_its_core_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let directory = ResultDirectory::create(folder.path().join("r")).unwrap();
        let (mut workload, _) = Workload::find("rtt-1k").unwrap();
        (workload.load.warm_up_min_s, workload.load.warm_up_max_s, workload.load.measure_s) = (0.0, 0.0, 0.05);
        let allowed = pinning::allowed_cores(0);
        let record = |core: u32| {
            let layout = Layout { generator: Some(core), broker: allowed.clone() };
            let spec = RunSpec {
                id: format!("on-{core}"),
                system: "null",
                target: Target::Null(Behaviour::default()),
                workload: &workload,
                durability: None,
                role: RunRole::Measured,
                round: 1,
                header: SerializeType::Json,
                scale: 1.0,
                layout: &layout,
                broker_pid: None,
                metrics: None,
                counts_syscalls: false,
                deletes_topics: false,
                slo: None,
            };
            run(&spec, &directory, &AtomicBool::new(false), &ProgressLine::new(true)).unwrap()
        };
        let is_told = |reason: &String| reason.contains("was not bound to core");
        let good = record(allowed[0]);
        assert_eq!(good.generator.core, Some(allowed[0]));
        assert!(!good.validity.invalid.iter().any(is_told), "{:?}", good.validity);
        let missing = libc::CPU_SETSIZE as u32 - 1;
        let bad = record(missing);
        let told = bad.validity.invalid.iter().find(|reason| is_told(reason)).expect("it is told");
        let cores = pinning::format_cores(&allowed);
        assert!(told.contains(&missing.to_string()) && told.ends_with(&format!("cores {cores}")), "{told}");
        assert_eq!(bad.generator.core, if let [core] = allowed[..] { Some(core) } else { None });
    }
}
