//! `ringmq store`: looks at a store that no broker uses, and repairs it when it is told to.
//!
//! Invariants: every command takes the store's lock and gives up when somebody holds it; nothing is changed but by
//! `repair --write`. What is found goes to standard output, in text or JSON; progress goes to standard error, and only to a
//! terminal.

mod dump;
mod explain;
mod progress;
mod report;
mod state_files;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use ringmq_shards::clock::{Clock, SystemClock};
use ringmq_shards::disk::{Disk, DiskFile, LockOutcome, OpenOptions, RealDisk};
use ringmq_shards::index::IndexGeometry;
use ringmq_shards::queue::limits::ENTRY_BYTES;
use ringmq_shards::recovery::audit::{self, AuditError, AuditOptions, Severity};
use ringmq_shards::recovery::process_lock::{LockError, ProcessLock, is_signed};
use ringmq_shards::recovery::repair::{RepairOptions, repair};
use ringmq_shards::recovery::{StorePaths, adopt, formats};

use super::options::ServerArguments;
use crate::config::{self, FlushDiskType, Service};
use crate::process::{ExitStatus, complain};
use crate::server::boot::ring_bytes;
use progress::Bar;

/// Options of `store`.
#[derive(Debug, Args)]
pub struct StoreArguments {
    /// What to do with the store
    #[command(subcommand)]
    pub what: StoreCommand,
}

/// Which store, and how it is configured.
#[derive(Debug, Clone, Default, Args)]
pub struct WhichStore {
    /// Data directory, RocketMQ's storePathRootDir [default: ./ringmq-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Configuration file (TOML) of its broker
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Java properties file of its broker
    #[arg(long, value_name = "FILE")]
    pub broker_conf: Option<PathBuf>,
    /// Set one key, such as mappedFileSizeConsumeQueue; repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// How to print what was found
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub format: Format,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON value, or one per line where there are many.
    Json,
}

/// Commands of `store`.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Check every record, queue entry, index entry and state file
    Verify {
        /// The store
        #[command(flatten)]
        store: WhichStore,
    },
    /// Print records in the order of the log
    Dump {
        /// The store
        #[command(flatten)]
        store: WhichStore,
        /// Which records
        #[command(flatten)]
        filter: dump::Filter,
    },
    /// Tell everything about one place: a log offset, TOPIC/QUEUE/OFFSET, or a message id with an offset in it
    Explain {
        /// The store
        #[command(flatten)]
        store: WhichStore,
        /// The place
        #[arg(value_name = "OFFSET")]
        place: String,
    },
    /// Make queue files and index anew from the log; without --write only say what would be done
    Repair {
        /// The store
        #[command(flatten)]
        store: WhichStore,
        /// Do it; everything that is replaced or cut is saved aside first
        #[arg(long)]
        write: bool,
        /// Only the queue files
        #[arg(long)]
        queues: bool,
        /// Only the index
        #[arg(long)]
        index: bool,
        /// Cut the log at its first damage; messages behind it are lost to consumers, their bytes are saved aside
        #[arg(long)]
        cut_log: bool,
    },
    /// Say what becomes of a RocketMQ store when RingMQ opens it
    Adopt {
        /// Only look; to adopt a store, start a broker on it
        #[arg(long, required = true)]
        check: bool,
        /// Data directory; --data says it as well
        #[arg(value_name = "DIR", required_unless_present_any = ["data", "config", "broker_conf"])]
        directory: Option<String>,
        /// Configuration and form of the answer
        #[command(flatten)]
        store: WhichStore,
    },
}

/// An open store: where it is, what it looks like, and the right to be there.
struct Opened {
    disk: Arc<dyn Disk>,
    paths: StorePaths,
    options: AuditOptions,
    format: Format,
    /// Held until the command is done.
    _lock: Option<Box<dyn DiskFile>>,
    /// Why there is no lock.
    unlocked: Option<String>,
    written_lock: Option<ProcessLock>,
}

/// Why a command ended early.
#[derive(Debug)]
struct Failure(ExitStatus, String);

impl From<AuditError> for Failure {
    fn from(error: AuditError) -> Self {
        Self(ExitStatus::Failure, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(ExitStatus::Failure, format!("cannot read the store: {error}"))
    }
}

/// Runs a command of `store`.
pub fn run(arguments: StoreArguments) -> ExitCode {
    let outcome = match arguments.what {
        StoreCommand::Verify { store } => open(store, false).and_then(|store| verify(&store)),
        StoreCommand::Dump { store, filter } => open(store, false).and_then(|store| dump::run(&store, &filter)),
        StoreCommand::Explain { store, place } => open(store, false).and_then(|store| explain::run(&store, &place)),
        StoreCommand::Repair { store, write, queues, index, cut_log } => {
            let both = !queues && !index;
            let parts = Parts { queues: queues || both, index: index || both, cut_log };
            open(store, write).and_then(|store| mend(&store, parts, write))
        }
        StoreCommand::Adopt { directory, store, check: _ } => {
            let store = WhichStore { data: directory.or(store.data), ..store };
            open(store, false).and_then(|store| adopt_check(&store))
        }
    };
    match outcome {
        Ok(status) => status.into(),
        Err(Failure(status, text)) => {
            complain(&text);
            status.into()
        }
    }
}

/// Finds the store and takes its lock. A command that only looks creates no lock file.
fn open(store: WhichStore, write: bool) -> Result<Opened, Failure> {
    let arguments = ServerArguments {
        config: store.config,
        broker_conf: store.broker_conf,
        set: store.set,
        data: store.data,
        ..ServerArguments::default()
    };
    // What no file and no option says may be said where its broker runs.
    let knows_flush_mode = arguments.config.is_some()
        || arguments.broker_conf.is_some()
        || arguments.set.iter().any(|set| set.starts_with("flushDiskType"));
    let usage = |text: String| Failure(ExitStatus::Usage, text);
    let config =
        config::load_without_cpus_file(arguments.sources(Service::Broker)).map_err(|error| usage(error.to_string()))?;
    let disk: Arc<dyn Disk> = Arc::new(RealDisk);
    let mut paths = StorePaths::new(config.root_dir());
    paths.commit_log = config.commit_log_dir();
    if !Path::new(&paths.root).is_dir() {
        return Err(usage(format!("{} is no data directory", paths.root.display())));
    }
    if !adopt::is_store(&*disk, &paths).map_err(|error| Failure(ExitStatus::Failure, error.to_string()))? {
        return Err(usage(format!("{} holds no store: no log, no queues, no configuration", paths.root.display())));
    }
    let options = AuditOptions {
        segment_bytes: config.mapped_file_size_commit_log,
        queue_file_entries: config.mapped_file_size_consume_queue / ENTRY_BYTES,
        index: IndexGeometry {
            slots: u32::try_from(config.max_hash_slot_num).unwrap_or(u32::MAX),
            entries: u32::try_from(config.max_index_num).unwrap_or(u32::MAX),
        },
        is_sync: knows_flush_mode.then_some(config.flush_disk_type == FlushDiskType::SyncFlush),
        group_bytes: ring_bytes(&config) as u64,
        is_signed: false,
    };
    let mut opened =
        Opened { disk, paths, options, format: store.format, _lock: None, unlocked: None, written_lock: None };
    if write {
        let lock = ProcessLock::acquire(&*opened.disk, &opened.paths).map_err(|error| match error {
            LockError::Held { .. } => Failure(ExitStatus::StoreLocked, error.to_string()),
            LockError::Io { .. } => Failure(ExitStatus::Failure, error.to_string()),
        })?;
        opened.options.is_signed = lock.is_signed();
        opened.written_lock = Some(lock);
        return Ok(opened);
    }
    let path = opened.paths.lock();
    let write = OpenOptions { write: true, ..OpenOptions::default() };
    match opened.disk.open(&path, write).and_then(|file| Ok((file.try_lock()?, file))) {
        Ok((LockOutcome::Acquired, file)) => {
            opened.options.is_signed = is_signed(&*file)?;
            opened._lock = Some(file);
        }
        Ok((LockOutcome::HeldBy(pid), _)) => {
            return Err(Failure(ExitStatus::StoreLocked, LockError::Held { path, pid }.to_string()));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            opened.unlocked = Some("there is no lock file: no broker ever ran on this copy".to_string());
        }
        Err(error) => opened.unlocked = Some(format!("the store cannot be locked ({error}): let no broker run on it")),
    }
    Ok(opened)
}

impl Opened {
    /// Audits everything, state files included.
    fn audit(&self) -> Result<audit::Audit, Failure> {
        if let Some(newer) = formats::newer(&*self.disk, &self.paths)?.first() {
            return Err(Failure(ExitStatus::NotAdoptable, newer.to_string()));
        }
        let mut bar = Bar::new();
        let mut audit = audit::audit(&self.disk, &self.paths, self.options, &mut bar)?;
        bar.finish();
        if let Some(unlocked) = &self.unlocked {
            audit.findings.add(audit::Finding {
                severity: Severity::Note,
                area: "lock",
                path: self.paths.lock(),
                position: None,
                offset: None,
                text: unlocked.clone(),
                refuses_start: false,
            });
        }
        state_files::check(&*self.disk, &self.paths, &mut audit.findings)?;
        Ok(audit)
    }
}

fn status_of(worst: Option<Severity>) -> ExitStatus {
    match worst {
        None | Some(Severity::Note) => ExitStatus::Ok,
        Some(Severity::Derived) => ExitStatus::NeedsRepair,
        Some(Severity::Damage) => ExitStatus::RecoveryRefused,
    }
}

fn verify(store: &Opened) -> Result<ExitStatus, Failure> {
    let audit = store.audit()?;
    let status = status_of(audit.findings.worst());
    report::verified(store.format, &store.paths, &audit, status)?;
    Ok(status)
}

/// What a repair is to make anew.
#[derive(Debug, Clone, Copy)]
struct Parts {
    queues: bool,
    index: bool,
    cut_log: bool,
}

fn mend(store: &Opened, parts: Parts, write: bool) -> Result<ExitStatus, Failure> {
    let audit = store.audit()?;
    if !write {
        report::repair_plan(store.format, &audit, parts)?;
        return Ok(status_of(audit.findings.worst()));
    }
    let options = RepairOptions {
        audit: store.options,
        cut_log: parts.cut_log,
        queues: parts.queues,
        index: parts.index,
        known_topics: state_files::topics(&*store.disk, &store.paths)?,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut bar = Bar::new();
    let repaired = repair(&store.disk, &clock, &store.paths, &options, &mut bar).map_err(|error| {
        let status = match error {
            ringmq_shards::recovery::repair::RepairError::LogDamaged(_) => ExitStatus::RecoveryRefused,
            _ => ExitStatus::Failure,
        };
        Failure(status, error.to_string())
    })?;
    bar.finish();
    let after = store.audit()?;
    let status = status_of(after.findings.worst());
    report::repaired(store.format, &repaired, &after, status)?;
    Ok(status)
}

fn adopt_check(store: &Opened) -> Result<ExitStatus, Failure> {
    let audit = store.audit()?;
    let plan = adopt::plan(&*store.disk, &store.paths, &audit)?;
    let status = if plan.blockers.is_empty() { ExitStatus::Ok } else { ExitStatus::NotAdoptable };
    report::adoption(store.format, &store.paths, &plan, &audit, store.options)?;
    Ok(status)
}
