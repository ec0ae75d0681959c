//! The arguments.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use ringmq_protocol::frame::SerializeType;

use super::CliError;
use crate::drivers::file::AppendMode;
use crate::drivers::null::{Behaviour, Fault, Idle};
use crate::host::pinning;
use crate::judge::{SLO_GRAMMAR, check_receivable, parse_slo};
use crate::peers::{Flush, Peer};
use crate::result::{LoopKind, Slo};
use crate::runner::{Layout, Target};
use crate::workload::Workload;

/// An open-loop latency harness for RocketMQ brokers.
///
/// Without a command: one canonical run of less than 90 seconds against a RingMQ that it starts itself on a temporary store.
/// Exit codes: 0 done, 1 a condition missed or a regression, 2 wrong use, 3 an invalid run, 4 messages lost or damaged.
#[derive(Debug, Parser)]
#[command(name = "ringmq-bench", version)]
pub struct Arguments {
    #[command(flatten)]
    pub common: Common,
    #[command(subcommand)]
    pub command: Option<CommandLine>,
}

/// What all measuring commands take.
#[derive(Debug, Args)]
pub struct Common {
    /// Print JSON and nothing else
    #[arg(long, global = true)]
    pub json: bool,
    /// Result directory [default: ringmq-bench-results/TIME-COMMAND]
    #[arg(long, global = true, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Folder for the stores of brokers that are started, and for the append floor [default: the system's temporary folder]
    #[arg(long, global = true, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// RingMQ's binary [default: `ringmq` beside this program, which `cargo run` builds first]
    #[arg(long, global = true, value_name = "FILE")]
    pub broker_binary: Option<PathBuf>,
    /// The generator's core [default: the last one]
    #[arg(long, global = true, value_name = "CORE")]
    pub generator_core: Option<u32>,
    /// Cores of brokers that are started [default: all others]
    #[arg(long, global = true, value_name = "LIST")]
    pub broker_cores: Option<String>,
    /// Measure even if generator and broker may meet on one core
    #[arg(long, global = true)]
    pub allow_shared_cores: bool,
    /// Setting for brokers that are started, as RocketMQ spells it; repeatable
    #[arg(long = "broker-set", global = true, value_name = "KEY=VALUE")]
    pub broker_settings: Vec<String>,
    /// Heap of a Java broker in MiB
    #[arg(long, global = true, default_value_t = 2048, value_name = "MIB")]
    pub java_heap: u32,
    /// Name of the tuning profile of this host, for the result
    #[arg(long, global = true, default_value = "none", value_name = "NAME")]
    pub profile: String,
    /// Count system calls of the broker (slows each down a little)
    #[arg(long, global = true)]
    pub count_syscalls: bool,
}

/// Changes to a workload.
#[derive(Debug, Args, Default)]
pub struct Changes {
    /// Operations per second instead of the workload's
    #[arg(long, value_name = "N")]
    pub rate: Option<f64>,
    /// Length of the measured phase
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Length of the warm-up: MIN,MAX or one number
    #[arg(long, value_name = "SECONDS")]
    pub warm_up: Option<String>,
    /// Factor for backlog and idle connections; recorded in the result
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub scale: f64,
    /// Seed of the plan
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Arrival process instead of the workload's: uniform, poisson, burst(N, TIME), ramp(SHARE), trace(FILE)
    #[arg(long, value_name = "PROCESS")]
    pub arrivals: Option<String>,
    /// Do not read messages back at the end
    #[arg(long)]
    pub no_verify: bool,
    /// Form of the headers
    #[arg(long, value_enum, default_value_t = HeaderForm::Json)]
    pub header: HeaderForm,
}

/// Form of the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum HeaderForm {
    /// JSON.
    #[default]
    Json,
    /// RocketMQ's binary form.
    Rocketmq,
}

impl From<HeaderForm> for SerializeType {
    fn from(form: HeaderForm) -> SerializeType {
        match form {
            HeaderForm::Json => SerializeType::Json,
            HeaderForm::Rocketmq => SerializeType::RocketMq,
        }
    }
}

/// The target of a single run or sweep.
#[derive(Debug, Args)]
pub struct TargetOptions {
    /// remoting://HOST:PORT of a running broker; ringmq or java to start one; null for an echo server that
    /// spins for a moment before it sleeps, null:sleep, null:spin; file, file-fdatasync or file-direct for appends, file-read or
    /// file-read-direct for reading
    #[arg(long, value_name = "TARGET")]
    pub target: String,
    /// When a broker that is started acknowledges [default: async]; for a running one, what to call it [default: what it says]
    #[arg(long, value_enum)]
    pub flush: Option<Flush>,
    /// Name of the target in the result, instead of its address: results with the same name can be compared
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Metrics page of a running broker, HOST:PORT
    #[arg(long, value_name = "HOST:PORT")]
    pub metrics: Option<String>,
    /// Leave the topics of the run on a running broker instead of deleting them
    #[arg(long)]
    pub keep_topics: bool,
}

impl TargetOptions {
    /// When a broker that is started acknowledges, and a running one that does not tell is said to.
    pub fn flush(&self) -> Flush {
        self.flush.unwrap_or(Flush::Async)
    }

    /// Whether the topics of a run are deleted when it is over.
    pub fn deletes_topics(&self, target: &Target) -> bool {
        matches!(target, Target::Broker(_)) && !self.keep_topics
    }
}

#[derive(Debug, Args)]
pub struct RunOptions {
    /// Name of the catalogue, or a TOML file
    pub workload: String,
    #[command(flatten)]
    pub target: TargetOptions,
    #[command(flatten)]
    pub changes: Changes,
    /// Conditions, such as 'p99<=1ms,e2e.p99<=2ms,errors=0', or a file with them (see below)
    #[arg(long, value_name = "CONDITIONS")]
    pub slo: Option<String>,
    /// Runs, one after another (a broker that is started is started anew for each)
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub repeat: u32,
}

#[derive(Debug, Args)]
pub struct SweepOptions {
    /// Name of the catalogue, or a TOML file; an open loop
    pub workload: String,
    #[command(flatten)]
    pub target: TargetOptions,
    #[command(flatten)]
    pub changes: Changes,
    /// Conditions, such as 'p99<=1ms,p999<=5ms,errors=0,backlog<=1s', or a file with them (see below)
    #[arg(long, value_name = "CONDITIONS")]
    pub slo: String,
    /// First rate
    #[arg(long, default_value_t = 1000.0, value_name = "N")]
    pub from: f64,
    /// Confirming runs at the knee, and as many at 80 % of it; where those do not hold, at 64, 51 and 41 % until some do
    #[arg(long, default_value_t = 3, value_name = "N")]
    pub confirm: u32,
}

/// How much time `versus` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PlanKind {
    /// Below 25 minutes: 3 pairs, ASYNC_FLUSH, two fixed rates, both knees.
    Quick,
    /// Hours, can be resumed: 5 pairs, both flush modes, shares of the slower one's knee.
    Full,
}

#[derive(Debug, Args)]
pub struct VersusOptions {
    /// Two of: ringmq, java
    #[arg(num_args = 2, required = true, value_name = "BROKER")]
    pub peers: Vec<String>,
    /// How much time it may take
    #[arg(long, value_enum, default_value_t = PlanKind::Quick)]
    pub plan: PlanKind,
    /// Shape of the load
    #[arg(long, default_value = "steady-1k-10k", value_name = "NAME")]
    pub workload: String,
    /// Fixed rates of the quick plan
    #[arg(long, default_values_t = [1000.0, 5000.0], value_delimiter = ',', value_name = "N,N")]
    pub rates: Vec<f64>,
    /// What a knee must hold (see below)
    #[arg(long, default_value = "p99<=10ms,errors=0,backlog<=1s", value_name = "CONDITIONS")]
    pub slo: String,
    /// Go on with the interrupted plan in this result directory
    #[arg(long, value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Pairs instead of the plan's
    #[arg(long, value_name = "N")]
    pub pairs: Option<u32>,
    /// Length of a measured phase instead of the plan's
    #[arg(long, value_name = "SECONDS")]
    pub seconds: Option<f64>,
    /// Load before the first measured run of each broker, for its compilers and caches, instead of the plan's
    #[arg(long, value_name = "SECONDS")]
    pub conditioning: Option<f64>,
    /// Form of the headers
    #[arg(long, value_enum, default_value_t = HeaderForm::Json)]
    pub header: HeaderForm,
}

#[derive(Debug, Args)]
pub struct PublishOptions {
    /// Below 15 minutes: ASYNC_FLUSH and the comparison only, in shorter runs
    #[arg(long)]
    pub quick: bool,
    /// Factor for the length of all runs
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub scale: f64,
    /// What a knee must hold: loose, so that it is the highest rate that either broker sustains at all
    #[arg(long, default_value = "p99<=50ms,errors=0,backlog<=1s", value_name = "CONDITIONS")]
    pub slo: String,
    /// Publish this finished result of an earlier `publish` instead of measuring
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Known causes of distances to the floors, named by their rows in the table
    #[arg(long, default_value = "bench/causes.toml", value_name = "FILE")]
    pub causes: PathBuf,
    /// Folder of the published set; what is there is replaced
    #[arg(long, default_value = "bench/results", value_name = "DIR")]
    pub into: PathBuf,
    /// Page whose section on performance is written
    #[arg(long, default_value = "README.md", value_name = "FILE")]
    pub readme: PathBuf,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CommandLine {
    /// Run a workload against a target
    #[command(after_help = SLO_GRAMMAR)]
    Run(RunOptions),
    /// Find the highest rate at which conditions hold, and the whole rate-latency curve
    #[command(after_help = SLO_GRAMMAR)]
    Sweep(SweepOptions),
    /// Compare two brokers that are started in turn on fresh stores
    #[command(after_help = SLO_GRAMMAR)]
    Versus(VersusOptions),
    /// Measure RingMQ beside Apache RocketMQ and the floors (below 42 minutes), keep the result in the source tree, and write
    /// the README's section on performance from it
    #[command(after_help = SLO_GRAMMAR)]
    Publish(PublishOptions),
    /// Compare two results, or folders of results
    Compare {
        /// Result directory, or a folder of some
        baseline: PathBuf,
        /// The other
        candidate: PathBuf,
        /// By how many percent p99 may be higher
        #[arg(long, default_value_t = 10.0)]
        p99: f64,
        /// By how many percent CPU time per message may be higher
        #[arg(long, default_value_t = 5.0)]
        cpu: f64,
        /// By how many percent rates may be lower
        #[arg(long, default_value_t = 5.0)]
        rate: f64,
    },
    /// Make plots and page of a result directory again
    Report {
        /// Result directory
        directory: PathBuf,
    },
    /// Show what is recorded about this machine
    Env {
        /// Folder whose disk and file system are of interest
        #[arg(long, default_value = ".", value_name = "DIR")]
        data: PathBuf,
    },
    /// List the workloads
    List,
    /// Say what a workload models, hides and does
    Explain {
        /// Name of the catalogue, or a TOML file
        workload: String,
    },
}

impl Common {
    /// Cores of generator and brokers.
    ///
    /// # Errors
    /// They meet and nobody allowed it, or the lists are none.
    pub fn layout(&self, starts_brokers: bool) -> Result<Layout, CliError> {
        let allowed = pinning::allowed_cores(0);
        let (mut generator, _) = pinning::default_layout(&allowed);
        if let Some(core) = self.generator_core {
            if !allowed.contains(&core) {
                let cores = pinning::format_cores(&allowed);
                return Err(CliError::Usage(format!("core {core} may not be used; this process has {cores}")));
            }
            generator = Some(core);
        }
        let broker = match &self.broker_cores {
            Some(text) => {
                let cores = pinning::parse_cores(text)
                    .ok_or_else(|| CliError::Usage(format!("--broker-cores {text:?} is no list such as 0,2-3")))?;
                let online = pinning::online_cores();
                if let Some(core) = cores.iter().find(|core| !online.contains(core)) {
                    let online = pinning::format_cores(&online);
                    return Err(CliError::Usage(format!(
                        "--broker-cores: there is no core {core}; this machine has {online}"
                    )));
                }
                cores
            }
            None => generator
                .map(|core| pinning::broker_cores(&allowed, core, &pinning::siblings_of(core)))
                .unwrap_or(allowed),
        };
        let layout = Layout { generator, broker };
        if starts_brokers && layout.shares_cores() && !self.allow_shared_cores {
            return Err(CliError::Usage(
                "generator and broker would share a core, which measures the scheduler; give them different ones with \
                 --generator-core and --broker-cores, or say --allow-shared-cores"
                    .to_owned(),
            ));
        }
        Ok(layout)
    }

    /// RingMQ's binary, if there is one.
    pub fn find_broker(&self) -> Option<PathBuf> {
        crate::peers::find_ringmq(self.broker_binary.as_deref()).ok()
    }

    /// Makes sure that there is a RingMQ to start, before anything is measured.
    ///
    /// # Errors
    /// There is none, or it cannot be built.
    pub fn ready_broker(&self) -> Result<(), CliError> {
        Ok(crate::peers::ready_ringmq(self.broker_binary.as_deref())?)
    }

    /// Folder for stores.
    pub fn store_folder(&self) -> PathBuf {
        self.store.clone().unwrap_or_else(std::env::temp_dir)
    }

    /// Settings for brokers, a workload's own first.
    ///
    /// # Errors
    /// One of them has no `=`.
    pub fn settings(&self, workload: &Workload) -> Result<Vec<(String, String)>, CliError> {
        let mut settings: Vec<(String, String)> =
            workload.broker.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for text in &self.broker_settings {
            let (key, value) =
                text.split_once('=').ok_or_else(|| CliError::Usage(format!("--broker-set {text:?} has no =")))?;
            settings.push((key.to_owned(), value.to_owned()));
        }
        Ok(settings)
    }
}

impl Changes {
    /// Changes a workload.
    ///
    /// # Errors
    /// The result is none.
    pub fn apply(&self, workload: &mut Workload) -> Result<(), CliError> {
        let load = &mut workload.load;
        if let Some(rate) = self.rate {
            if load.loop_kind == LoopKind::Closed {
                let name = &workload.name;
                return Err(CliError::Usage(format!("{name} is a closed loop: its rate follows from the answers")));
            }
            load.rate_per_s = rate;
        }
        if let Some(text) = &self.warm_up {
            let bad = || CliError::Usage(format!("--warm-up {text:?} is neither a number of seconds nor MIN,MAX"));
            let (min, max) = text.split_once(',').unwrap_or((text, text));
            load.warm_up_min_s = min.trim().parse().map_err(|_| bad())?;
            load.warm_up_max_s = max.trim().parse().map_err(|_| bad())?;
        }
        load.measure_s = self.seconds.unwrap_or(load.measure_s);
        load.seed = self.seed.unwrap_or(load.seed);
        load.arrivals = self.arrivals.clone().unwrap_or_else(|| load.arrivals.clone());
        load.verify &= !self.no_verify;
        if !(self.scale.is_finite() && self.scale >= 0.0) {
            return Err(CliError::Usage(format!("--scale {} is no factor", self.scale)));
        }
        #[expect(clippy::float_cmp, reason = "the default is exactly 1")]
        if self.scale != 1.0 && !workload.has_scale() {
            let name = &workload.name;
            return Err(CliError::Usage(format!(
                "--scale changes backlogs and idle connections, and {name} has neither; for its length there is --seconds"
            )));
        }
        workload.scale(self.scale);
        workload.check()?;
        Ok(())
    }
}

/// What `--target` names.
#[derive(Debug, Clone)]
pub enum NamedTarget {
    /// Something to measure as it is.
    Ready(Target),
    /// A broker to start.
    Start(Peer),
}

/// Reads `--target`.
///
/// # Errors
/// It names nothing.
pub fn parse_target(text: &str, store: &Path) -> Result<NamedTarget, CliError> {
    if let Some(peer) = Peer::of(text) {
        return Ok(NamedTarget::Start(peer));
    }
    if let Some(address) = text.strip_prefix("remoting://") {
        return Ok(NamedTarget::Ready(Target::Broker(parse_address(address)?)));
    }
    let file = |mode| Ok(NamedTarget::Ready(Target::File(store.to_owned(), mode)));
    let null = |behaviour| Ok(NamedTarget::Ready(Target::Null(behaviour)));
    let keep = |fault| null(Behaviour { keep: Some(fault), ..Behaviour::default() });
    match text {
        "null" => null(Behaviour::default()),
        "null:sleep" => null(Behaviour { idle: Idle::Sleep, ..Behaviour::default() }),
        "null:spin" => null(Behaviour { idle: Idle::Spin, ..Behaviour::default() }),
        "file" => file(AppendMode::PageCache),
        "file-fdatasync" => file(AppendMode::Fdatasync),
        "file-direct" => file(AppendMode::DirectSync),
        "file-read" => file(AppendMode::Read),
        "file-read-direct" => file(AppendMode::ReadDirect),
        "null:keep" => keep(Fault::None),
        "null:loss" => keep(Fault::Loss),
        "null:duplicate" => keep(Fault::Duplicate),
        "null:reorder" => keep(Fault::Reorder),
        "null:corruption" => keep(Fault::Corruption),
        "null:phantom" => keep(Fault::Phantom),
        "null:die" => null(Behaviour { die_after: Some(500), ..Behaviour::default() }),
        // The self-test of the harness: 1 ms of service time, one stall of a tenth of a second in each ten.
        "null:stall" => {
            null(Behaviour { delay_ns: 1_000_000, stall: Some((10_000_000_000, 100_000_000)), ..Behaviour::default() })
        }
        _ => Err(CliError::Usage(format!(
            "--target {text:?} is none of remoting://HOST:PORT, ringmq, java, null, null:sleep, null:spin, file, file-fdatasync, file-direct, \
             file-read, file-read-direct"
        ))),
    }
}

/// Reads HOST:PORT.
///
/// # Errors
/// The name cannot be resolved.
pub fn parse_address(text: &str) -> Result<SocketAddr, CliError> {
    let unresolved = |reason: String| CliError::Usage(format!("{text:?} is no address HOST:PORT: {reason}"));
    let mut addresses = text.to_socket_addrs().map_err(|error| unresolved(error.to_string()))?;
    addresses.next().ok_or_else(|| unresolved("the name has no address".to_owned()))
}

/// Reads conditions on a workload from the text itself or from the file it names.
///
/// # Errors
/// They are none, or the workload has not what they ask for.
pub fn read_slo(text: &str, workload: &Workload) -> Result<Slo, CliError> {
    let slo = if Path::new(text).is_file() {
        let content =
            std::fs::read_to_string(text).map_err(|error| CliError::Usage(format!("read {text}: {error}")))?;
        parse_slo(&content)?
    } else {
        parse_slo(text)?
    };
    check_receivable(&slo, &workload.name, workload.consumers.is_some())?;
    Ok(slo)
}
