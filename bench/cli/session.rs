//! A result set while it grows. It is on disk after each run, marked as partial until the command has come to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use ringmq_protocol::frame::SerializeType;

use super::goals::goals;
use super::options::Common;
use super::single::Ready;
use super::{CliError, signals, summary};
use crate::clock::{rfc3339, stamp, wall_ms};
use crate::drivers::null::Behaviour;
use crate::host::disk::{CLEANED_SHARE, FULL_SHARE, used_share};
use crate::host::limits::raise_open_files;
use crate::judge::{KEPT_UP_SHARE, MOST_BUSY_SHARE, exit_code};
use crate::peers::{Broker, Flush, Peer, PeerOptions};
use crate::result::{
    Durability, Headroom, INTERRUPTED, LoopKind, RESULT_SCHEMA, ResultDirectory, ResultSet, RunRecord, RunRole,
    RunStatus, SetKind, SetStatus, SystemRecord, ToolRecord, hlog_name, phases_hlog_name,
};
use crate::runner::{Layout, ProgressLine, RunSpec, Target, note, run};
use crate::text::tell;
use crate::units;
use crate::workload::Workload;

/// Folder of results when none is named.
const RESULTS_FOLDER: &str = "ringmq-bench-results";

/// Length of a run that shows whether the generator keeps up above a knee, and of its warm-up.
pub const KNEE_HEADROOM_S: (f64, f64) = (2.0, 0.5);
/// How often that is tried: what the host takes is not the generator's.
pub const KNEE_HEADROOM_TRIES: u32 = 2;

/// One command at work.
pub struct Session<'a> {
    pub common: &'a Common,
    pub directory: ResultDirectory,
    pub set: ResultSet,
    pub stop: &'static AtomicBool,
    pub progress: ProgressLine,
    pub layout: Layout,
    /// How many runs that the host spoiled may be made once more.
    pub second_tries: usize,
}

/// Leaves of a set what a plan can go on with.
fn keep_whole(set: &mut ResultSet) {
    set.runs.retain(|run| run.status == RunStatus::Complete);
    set.curves.retain(|curve| !curve.is_cut_short);
}

/// One run in a session.
pub struct Request<'w> {
    pub system: &'w str,
    pub target: Target,
    pub workload: &'w Workload,
    pub durability: Option<Durability>,
    pub role: RunRole,
    pub round: u32,
    pub header: SerializeType,
    pub scale: f64,
    pub broker_pid: Option<u32>,
    pub metrics: Option<SocketAddr>,
    /// Whether the broker is to be left without the topics of the run: one that goes on, unlike those that are started here.
    pub deletes_topics: bool,
}

impl<'w> Request<'w> {
    /// A run against a broker that was started here.
    pub fn of_broker(broker: &Broker, peer: Peer, flush: Flush, workload: &'w Workload, role: RunRole) -> Request<'w> {
        Request {
            system: peer.name(),
            target: Target::Broker(broker.address()),
            workload,
            durability: Some(flush.durability()),
            role,
            round: 1,
            header: SerializeType::Json,
            scale: 1.0,
            broker_pid: Some(broker.pid()),
            metrics: broker.metrics(),
            deletes_topics: false,
        }
    }

    /// A run against a floor.
    pub fn of_floor(system: &'w str, target: Target, workload: &'w Workload, durability: Option<Durability>) -> Self {
        Request {
            system,
            target,
            workload,
            durability,
            role: RunRole::Floor,
            round: 1,
            header: SerializeType::Json,
            scale: 1.0,
            broker_pid: None,
            metrics: None,
            deletes_topics: false,
        }
    }
}

impl<'a> Session<'a> {
    /// Makes the result directory and captures the environment.
    ///
    /// # Errors
    /// The directory cannot be made, or cores are wrong.
    pub fn begin(common: &'a Common, kind: SetKind, name: &str, starts_brokers: bool) -> Result<Session<'a>, CliError> {
        // Before anything is on disk: an interrupt from now on leaves a marked result.
        signals::catch();
        raise_open_files();
        let layout = common.layout(starts_brokers)?;
        let path = common
            .out
            .clone()
            .unwrap_or_else(|| PathBuf::from(RESULTS_FOLDER).join(format!("{}-{name}", stamp(wall_ms()))));
        if path.join("result.json").exists() {
            return Err(CliError::Usage(format!("{} holds a result already; name another --out", path.display())));
        }
        let directory = ResultDirectory::create(path)?;
        let environment = crate::environment::capture(&common.store_folder(), common.find_broker().as_deref());
        let environment_sha256 = directory.write_environment(&environment)?;
        let set = ResultSet {
            schema: RESULT_SCHEMA.to_owned(),
            kind,
            created: rfc3339(wall_ms()),
            status: SetStatus::Partial { reason: "it has not come to its end".to_owned() },
            tool: ToolRecord {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                profile: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            },
            command: crate::report::command::without_folders(std::env::args()),
            environment_sha256,
            systems: Vec::new(),
            workloads: Vec::new(),
            slo: None,
            runs: Vec::new(),
            curves: Vec::new(),
            headroom: Vec::new(),
            goals: Vec::new(),
            distances: Vec::new(),
        };
        Session::over(common, directory, set, layout)
    }

    /// Goes on with a set that is there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn resume(common: &'a Common, path: PathBuf) -> Result<Session<'a>, CliError> {
        signals::catch();
        raise_open_files();
        let layout = common.layout(true)?;
        let directory = super::existing(&path)?;
        let mut set = directory.read_result()?;
        set.status = SetStatus::Partial { reason: "it has not come to its end".to_owned() };
        // What is added has the members of this program.
        RESULT_SCHEMA.clone_into(&mut set.schema);
        keep_whole(&mut set);
        Session::over(common, directory, set, layout)
    }

    fn over(
        common: &'a Common,
        directory: ResultDirectory,
        set: ResultSet,
        layout: Layout,
    ) -> Result<Session<'a>, CliError> {
        let progress = ProgressLine::new(common.json);
        if cfg!(debug_assertions) {
            progress.say("note: this is a debug build; its figures say little");
        }
        directory.write_result(&set)?;
        Ok(Session { common, directory, set, stop: signals::catch(), progress, layout, second_tries: 0 })
    }

    /// Whether the user has given up.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Adds a system to the set, once.
    pub fn add_system(&mut self, mut system: SystemRecord) {
        system.profile.clone_from(&self.common.profile);
        match self.set.systems.iter_mut().find(|known| known.name == system.name) {
            Some(known) => {
                for (key, value) in system.configuration {
                    let is_known = known.configuration.contains(&(key.clone(), value.clone()));
                    let is_incidental = ["metrics_listen", "listenPort", "storePathRootDir", "storePathCommitLog"]
                        .contains(&key.as_str());
                    if !is_known && !is_incidental {
                        known.configuration.push((key, value));
                    }
                }
                if known.durability != system.durability {
                    known.durability = None;
                }
                known.files.extend(system.files);
            }
            None => self.set.systems.push(system),
        }
    }

    /// Adds a floor as a system.
    pub fn add_plain_system(&mut self, name: &str, title: &str, durability: Option<Durability>) {
        self.add_running(name, title, durability, Vec::new());
    }

    /// Adds what is measured as it is: a floor or a running broker.
    pub fn add_ready_system(&mut self, ready: &Ready) {
        self.add_running(&ready.system, &ready.title, ready.durability, ready.configuration.clone());
    }

    fn add_running(
        &mut self,
        name: &str,
        title: &str,
        durability: Option<Durability>,
        configuration: Vec<(String, String)>,
    ) {
        self.add_system(SystemRecord {
            name: name.to_owned(),
            title: title.to_owned(),
            durability,
            configuration,
            command: Vec::new(),
            runtime: String::new(),
            profile: String::new(),
            files: Vec::new(),
            exits: Vec::new(),
        });
    }

    /// Adds a workload to the set, once.
    pub fn add_workload(&mut self, workload: &Workload, definition: &str) {
        if !self.set.workloads.iter().any(|known| known.name == workload.name) {
            self.set.workloads.push(workload.record(definition));
        }
    }

    /// Starts a broker on a fresh store.
    ///
    /// # Errors
    /// It does not start.
    fn start(&mut self, peer: Peer, flush: Flush, settings: Vec<(String, String)>) -> Result<Broker, CliError> {
        let folder = self.common.store_folder();
        let options = PeerOptions {
            peer,
            flush,
            cores: &self.layout.broker,
            settings,
            binary: self.common.broker_binary.as_deref(),
            folder: &folder,
            heap_mib: self.common.java_heap,
        };
        if let Some(share) = used_share(&folder).filter(|share| *share >= FULL_SHARE) {
            note(&format!(
                "warning: the disk of {} is {} full; from {} on brokers remove messages, read or not, and they count as lost; name \
                 another --store",
                folder.display(),
                units::percent(share),
                units::percent(CLEANED_SHARE)
            ));
        }
        self.progress.say(&format!("starting {} with {}", peer.name(), flush.value()));
        let broker = Broker::start(&options, self.stop)?;
        self.add_system(broker.record().clone());
        Ok(broker)
    }

    /// Starts a broker on a fresh store, works with it, and stops it whatever became of the work: its log and how it ended belong
    /// to the result, most of all if it died.
    ///
    /// # Errors
    /// It does not start, or those of `work`.
    pub fn with_broker<T>(
        &mut self,
        (peer, flush): (Peer, Flush),
        settings: Vec<(String, String)>,
        name: &str,
        work: impl FnOnce(&mut Self, &Broker) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let broker = self.start(peer, flush, settings)?;
        let result = work(self, &broker);
        self.stop_broker(broker, name);
        result
    }

    /// Stops a broker and keeps its configuration and log.
    fn stop_broker(&mut self, broker: Broker, name: &str) {
        let system = broker.record().name.clone();
        let (files, exit) = broker.finish(&self.directory, name);
        if !exit.is_in_order {
            note(&format!("broker {}: {}", exit.start, exit.status));
        }
        if let Some(known) = self.set.systems.iter_mut().find(|known| known.name == system) {
            known.files.extend(files);
            known.exits.push(exit);
        }
    }

    fn id(&self, request: &Request<'_>) -> String {
        let class = request.durability.map_or("none", Durability::name);
        let role = match request.role {
            RunRole::Measured => "run",
            RunRole::Floor => "floor",
            RunRole::SweepStep => "step",
            RunRole::ConfirmFull => "confirm",
            RunRole::ConfirmEighty => "confirm80",
            RunRole::Headroom => "headroom",
            RunRole::Counting => "count",
        };
        let rate = match request.workload.load.loop_kind {
            LoopKind::Open => format!("-{:.0}", request.workload.load.rate_per_s),
            LoopKind::Closed => String::new(),
        };
        let system: String = request
            .system
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() || letter == '-' { letter } else { '_' })
            .collect();
        let base = format!("{system}-{}-{class}-{role}{rate}-{}", request.workload.name, request.round);
        let same = |id: &String| self.set.runs.iter().any(|run| run.id == *id);
        let mut numbered = (2..).map(|number| format!("{base}-{number}"));
        if same(&base) { numbered.find(|id| !same(id)).unwrap_or(base) } else { base }
    }

    fn spec<'s>(&'s self, request: &'s Request<'_>, id: String) -> RunSpec<'s> {
        RunSpec {
            id,
            system: request.system,
            target: request.target.clone(),
            workload: request.workload,
            durability: request.durability,
            role: request.role,
            round: request.round,
            header: request.header,
            scale: request.scale,
            layout: &self.layout,
            broker_pid: request.broker_pid,
            metrics: request.metrics,
            counts_syscalls: self.common.count_syscalls || request.role == RunRole::Counting,
            deletes_topics: request.deletes_topics,
            slo: self.set.slo.as_ref(),
        }
    }

    /// Carries out a run and keeps its record.
    ///
    /// # Errors
    /// It never began, or the result cannot be written.
    pub fn run(&mut self, request: &Request<'_>) -> Result<&RunRecord, CliError> {
        let id = self.id(request);
        let spec = self.spec(request, id);
        let record = run(&spec, &self.directory, self.stop, &self.progress)?;
        if !self.common.json {
            note(&summary::line(&record));
        }
        self.set.runs.push(record);
        self.directory.write_result(&self.set)?;
        self.set.runs.last().ok_or_else(|| CliError::Usage("there is no run".to_owned()))
    }

    /// Load that is not kept: compilers and caches settle under it.
    ///
    /// # Errors
    /// It never began.
    pub fn condition(&mut self, request: &Request<'_>, seconds: f64) -> Result<(), CliError> {
        if seconds <= 0.0 {
            return Ok(());
        }
        let (mut workload, _) = Workload::find("saturate-16x1")?;
        workload.load.measure_s = seconds;
        workload.load.warm_up_min_s = 0.0;
        workload.load.warm_up_max_s = 0.0;
        workload.load.verify = false;
        let request = Request { workload: &workload, target: request.target.clone(), ..*request };
        let spec = self.spec(&request, format!("{}-conditioning", request.system));
        run(&spec, &self.directory, self.stop, &self.progress)?;
        // Its logs would be taken for a result.
        for name in [hlog_name(&spec.id), phases_hlog_name(&spec.id)] {
            let _ = std::fs::remove_file(self.directory.file(&name));
        }
        let said = format!("{seconds:.0} s of saturate-16x1 after each start");
        if let Some(system) = self.set.systems.iter_mut().find(|system| system.name == request.system)
            && !system.runtime.contains(&said)
        {
            system.runtime += if system.runtime.is_empty() { "" } else { "; " };
            system.runtime += &said;
        }
        Ok(())
    }

    /// Measures what the generator can do with the shape of a workload against an echo server.
    ///
    /// # Errors
    /// It never began.
    pub fn headroom(&mut self, shape: &Workload, seconds: f64) -> Result<(), CliError> {
        let mut workload = shape.clone();
        workload.load.loop_kind = LoopKind::Closed;
        workload.load.rate_per_s = 0.0;
        "uniform".clone_into(&mut workload.load.arrivals);
        workload.load.depth = workload.load.depth.min(64);
        workload.load.connections = workload.load.connections.max(4);
        workload.load.warm_up_min_s = 0.5;
        workload.load.warm_up_max_s = 0.5;
        workload.load.measure_s = seconds;
        workload.load.preload_bytes = 0;
        workload.load.idle_connections = 0;
        workload.consumers = None;
        let target = Target::Null(Behaviour::default());
        let request = Request { role: RunRole::Headroom, ..Request::of_floor("null", target, &workload, None) };
        if self.set.headroom.iter().any(|known| known.workload == shape.name) {
            return Ok(());
        }
        let run = self.run(&request)?;
        if run.status != RunStatus::Complete {
            return Ok(());
        }
        let reached = run.achieved_rate_per_s;
        self.set.headroom.push(Headroom {
            workload: shape.name.clone(),
            null_rate_per_s: reached,
            highest_used_rate_per_s: 0.0,
            highest_fixed_rate_per_s: 0.0,
            fastest_closed_loop_per_s: 0.0,
            highest_knee_per_s: 0.0,
        });
        Ok(())
    }

    /// Looks whether the generator could have done a third more than at the highest knee, which is one of a workload with this shape: the
    /// same plan against an echo server, at four thirds of that knee. How long a thread that always looks for work found some does
    /// not say so: it takes what has gathered, which is little each time where little comes, but hardly ever nothing.
    ///
    /// # Errors
    /// It never began.
    pub fn headroom_at_knee(&mut self, shape: &Workload) -> Result<(), CliError> {
        let highest =
            self.set.highest_curve().filter(|curve| curve.workload == shape.name && !curve.system.starts_with("null"));
        let Some(highest) = highest.cloned() else { return Ok(()) };
        let Some(knee) = highest.knee_rate_per_s else { return Ok(()) };
        let mut workload = super::rounds::timed(shape, KNEE_HEADROOM_S.0, KNEE_HEADROOM_S.1);
        workload.load.rate_per_s = super::search::round(knee / MOST_BUSY_SHARE);
        workload.load.preload_bytes = 0;
        workload.load.idle_connections = 0;
        workload.consumers = None;
        let target = Target::Null(Behaviour::default());
        let request = Request { role: RunRole::Headroom, ..Request::of_floor("null", target, &workload, None) };
        for _ in 0..KNEE_HEADROOM_TRIES {
            let kept_up = self.set.kept_up_above(&highest, MOST_BUSY_SHARE);
            if self.is_stopped() || kept_up.is_some_and(|(_, reached)| reached >= KEPT_UP_SHARE) {
                break;
            }
            self.run(&request)?;
        }
        Ok(())
    }

    /// Ends the set, makes its report, and says what came out. Returns the exit code.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, failure: Option<CliError>) -> Result<u8, CliError> {
        self.set.status = if self.is_stopped() {
            SetStatus::Partial { reason: INTERRUPTED.to_owned() }
        } else if let Some(failure) = &failure {
            // A broker that died is the reason for what went wrong after it.
            let reasons = [Some(failure.to_string()), self.set.broken_exit()];
            SetStatus::Partial { reason: reasons.into_iter().flatten().collect::<Vec<_>>().join("; ") }
        } else if let Some(run) = self.set.runs.iter().find(|run| run.status != RunStatus::Complete) {
            SetStatus::Partial { reason: format!("run {} did not get to its end", run.id) }
        } else if let Some(reason) = self.set.broken_exit() {
            SetStatus::Partial { reason }
        } else {
            SetStatus::Complete
        };
        self.set.note_used_rates();
        if matches!(self.set.kind, SetKind::Canonical | SetKind::Publish) {
            self.set.goals = goals(&self.set);
        }
        let mut environment = self.directory.read_environment()?;
        crate::environment::capture_after(&mut environment);
        self.set.environment_sha256 = self.directory.write_environment(&environment)?;
        self.directory.write_result(&self.set)?;
        let page = crate::report::write(&self.directory)?;
        let code = match &failure {
            _ if self.is_stopped() => exit_code(&self.set).max(3),
            // Nothing was measured: the failure is all there is.
            Some(failure) if self.set.runs.is_empty() => failure.exit_code(),
            Some(_) => exit_code(&self.set).max(3),
            None => exit_code(&self.set),
        };
        if self.common.json {
            let failure = failure.as_ref().map(ToString::to_string);
            let text = serde_json::json!({
                "directory": self.directory.path(), "report": page, "exit_code": code, "error": failure,
                "result": self.set,
            });
            tell(text);
            return Ok(code);
        }
        for line in summary::summary(&self.set) {
            tell(line);
        }
        tell(format_args!("report  {}", page.display()));
        match failure {
            Some(failure) if self.set.runs.is_empty() => Err(failure),
            Some(failure) => {
                note(&format!("error: {failure}"));
                Ok(code)
            }
            None => Ok(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::example;

    /// Goal: a plan that is resumed takes no unfinished run and no unfinished curve for a whole one. Method: the example, with one curve
    /// cut short.
    #[test]
    fn only_whole_parts_are_resumed() {
        let mut set = example::result_set();
        let (runs, curves) = (set.runs.len(), set.curves.len());
        set.curves[0].is_cut_short = true;
        keep_whole(&mut set);
        assert!(set.runs.len() < runs && set.runs.iter().all(|run| run.status == RunStatus::Complete));
        assert_eq!(set.curves.len(), curves - 1);
        assert!(set.curves.iter().all(|curve| !curve.is_cut_short));
    }
}
