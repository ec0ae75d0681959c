//! Start and stop: opens the store, starts the threads, says when it serves, and takes everything down in order.

mod broker;
mod gauges;
mod open;
mod shards;
mod watchdog;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ringmq_shards::clock::{Clock, SystemClock};
use ringmq_shards::disk::{
    Disk, OpenOptions, RealDisk, StateFile, StateFileError, create_directories_durably, io_causes, is_no_space,
};
use ringmq_shards::index::IndexGeometry;
use ringmq_shards::log::path_chooser::PathChooser;
use ringmq_shards::log::segments::WritePath as SegmentPath;
use ringmq_shards::log::writer::WriterOptions;
use ringmq_shards::log::{FlushMode, LogRing, LogView, WriteKind, Writer};
use ringmq_shards::probe::{Gauge, Limit, Registry};
use ringmq_shards::runtime::{
    CountedReceiver, CountedSender, Mailbox, MailboxSender, PipePool, PreflightError, Ring, RingOptions, ShardHandle,
    ShardPlan, Token, WakeHandle, check_io_uring, counted_channel, socket, spawn_shard,
};

use super::cold::BufferPool;
use super::connection::Listener;
use super::control_thread::{BrokerParts, ControlThread, Pictured, namesrv_addresses};
use super::core::{LogPort, ShardCore, ShardSettings};
use super::disk_watch::DiskReport;
use super::event_loop::{EventLoop, Lifecycle, ListenerSlot, SpinWindow, kind};
use super::flush_thread::{FlushRequest, FlushThread};
use super::log_shell::{LogShell, LogShellOptions};
use super::messages::{ColdPull, ControlRequest, ShardMessage};
use super::metrics::{self, StoreFigures};
use super::persister::Persister;
use super::reader_thread::Reader;
use super::registrar::{self, REGISTRATION_PATIENCE, Registrar};
use super::remote;
use super::retention::RetentionThread;
use super::serving::{Serving, ServingIdentity};
use super::shared::Shared;
use super::storage::{self, Storage, StorageError, StorageOptions};
use super::store_thread::{StoreAccess, StoreJob, StoreThread};
use super::{Roles, ServeOptions, limits, metrics_page};
use crate::broker::live_config::LiveConfig;
use crate::broker::send::SendState;
use crate::broker::{BrokerIdentity, Control, ControlConfig};
use crate::config::{self, Config, FlushDiskType, WritePath, identity, machine};
use crate::namesrv::NameServer;
use crate::namesrv::config::NamesrvConfig;
use crate::process::{ExitStatus, logging, signals};

use self::broker::{BrokerChannels, OpenedBroker, StartedBroker, StoreSide, WriterSide};
use self::gauges::add_gauges;
pub use self::open::ring_bytes;
use self::open::{
    NAMESRV_SETTINGS_FILE, bind, bind_metrics, open_broker, open_control, open_namesrv, spin_limit, tail_bytes,
};
use self::shards::{ShardStart, start_shards};
use self::watchdog::Watchdog;

/// How often the main thread looks whether the log failed.
const WATCH: Duration = Duration::from_millis(250);

/// How long a process whose log has failed waits for its shards, which tell their clients, and for the flush thread, which
/// sees to it that the next start asks the disk. On a disk that hangs the latter may never come back. With [`WATCH`] before
/// and [`LAST_LINES_PATIENCE`] behind, the process ends within a second of the failure.
const LAST_WORDS_PATIENCE: Duration = Duration::from_millis(500);

/// How long the output of the log may take then.
const LAST_LINES_PATIENCE: Duration = Duration::from_millis(200);

/// How long the log output may take when a start is stopped.
const LEAVE_PATIENCE: Duration = Duration::from_secs(1);

/// Part of the machine's memory that counts as holding the log's recent end (`accessMessageInMemoryMaxRatio`), percent.
const MEMORY_WINDOW_PERCENT: u64 = 40;

/// Why the servers did not start.
#[derive(Debug, thiserror::Error)]
enum BootError {
    #[error(transparent)]
    IoUring(#[from] PreflightError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    State(#[from] StateFileError),
    #[error("cannot listen on {address}: {source}; choose another with {key}")]
    Listen { address: SocketAddr, key: &'static str, source: io::Error },
    #[error("{0}")]
    Config(String),
    #[error(
        "the process may open {descriptors} files, {shards} shards need at least {least}: raise the hard limit (`ulimit -Hn`, \
         LimitNOFILE= of a unit), or start fewer with --shards"
    )]
    Descriptors { descriptors: u64, shards: usize, least: u64 },
    #[error("cannot {action}: {source}")]
    System { action: &'static str, source: io::Error },
}

impl BootError {
    fn status(&self) -> ExitStatus {
        match self {
            Self::IoUring(_) => ExitStatus::IoUringUnavailable,
            Self::Storage(StorageError::Lock(ringmq_shards::recovery::process_lock::LockError::Held { .. })) => {
                ExitStatus::StoreLocked
            }
            // Nothing is damaged: it starts again when there is room.
            Self::Storage(error) if io_causes(error).any(is_no_space) => ExitStatus::Failure,
            Self::Storage(
                StorageError::Recovery(_)
                | StorageError::Segments(_)
                | StorageError::Queues(_)
                | StorageError::LostQueues(_)
                | StorageError::State(StateFileError::Unreadable { .. }),
            )
            | Self::State(StateFileError::Unreadable { .. }) => ExitStatus::RecoveryRefused,
            Self::Storage(StorageError::NotAdoptable(_)) => ExitStatus::NotAdoptable,
            Self::Listen { .. } => ExitStatus::AddressUnavailable,
            Self::Config(_) => ExitStatus::Usage,
            Self::Storage(_) | Self::State(_) | Self::Descriptors { .. } | Self::System { .. } => ExitStatus::Failure,
        }
    }
}

/// Ends a start that was told to stop.
fn leave_start(signal: i32) {
    signals::notify("STOPPING=1");
    tracing::warn!(signal, "stopped before the store was open; the next start begins anew");
    logging::flush(LEAVE_PATIENCE);
    std::process::exit(ExitStatus::Interrupted as i32);
}

fn system(action: &'static str) -> impl FnOnce(io::Error) -> BootError {
    move |source| BootError::System { action, source }
}

/// Runs the servers until they are stopped.
pub fn serve(options: ServeOptions) -> ExitCode {
    match Running::start(options) {
        Ok(running) => running.wait(),
        Err(error) => {
            tracing::error!("{error}");
            crate::process::complain(&error);
            error.status().into()
        }
    }
}

/// The parts of a broker that the threads are made from.
struct BrokerStart {
    storage: Storage,
    view: Arc<LogView>,
    identity: Arc<ServingIdentity>,
    way: WriteWay,
    memory_window_bytes: u64,
}

/// How groups reach the disk.
#[derive(Clone, Copy)]
struct WriteWay {
    flush_mode: FlushMode,
    path: SegmentPath,
    /// Each group is decided by itself.
    chooses: bool,
    /// The log is zeroed ahead of its writer while that writes around the page cache.
    zeroes_ahead: bool,
}

/// Channels between the threads.
struct Channels {
    control: (SyncSender<ControlRequest>, Receiver<ControlRequest>),
    cold: (SyncSender<ColdPull>, Receiver<ColdPull>),
    flush: (CountedSender<FlushRequest>, CountedReceiver<FlushRequest>),
    jobs: (SyncSender<StoreJob>, Receiver<StoreJob>),
    mailboxes: Vec<(MailboxSender<ShardMessage>, Mailbox<ShardMessage>, WakeHandle)>,
}

impl Channels {
    fn new(shards: usize) -> io::Result<Self> {
        let mailboxes = (0..shards).map(|_| {
            let wake = WakeHandle::new()?;
            let (sender, mailbox) = Mailbox::new(limits::MAILBOX_MESSAGES, wake.clone());
            Ok((sender, mailbox, wake))
        });
        Ok(Self {
            control: sync_channel(limits::CONTROL_REQUESTS),
            cold: sync_channel(limits::COLD_READS),
            flush: counted_channel(limits::FLUSH_REQUESTS),
            jobs: sync_channel(limits::STORE_JOBS),
            mailboxes: mailboxes.collect::<io::Result<_>>()?,
        })
    }
}

/// A running process.
struct Running {
    lifecycle: Arc<Lifecycle>,
    shared: Arc<Shared>,
    stopping: Arc<AtomicBool>,
    mailboxes: Vec<MailboxSender<ShardMessage>>,
    shards: Vec<ShardHandle>,
    control: JoinHandle<bool>,
    store: Option<StoreSide>,
    last_words: Receiver<Infallible>,
}

impl Running {
    fn start(options: ServeOptions) -> Result<Self, BootError> {
        let ServeOptions { roles, mut config, salvage } = options;
        check_io_uring()?;
        let descriptors = signals::raise_descriptor_limit().map_err(system("raise the limit of open files"))?;
        tracing::debug!(descriptors, "open files allowed");
        let mut cores = if config.cores.is_empty() { machine::processor_numbers() } else { config.cores.clone() };
        if cores.is_empty() {
            cores.push(0);
        }
        let shard_count = config.shard_count(cores.len()).clamp(1, limits::MAX_SHARDS);
        let least = limits::descriptors_to_start(shard_count);
        if descriptors < least {
            return Err(BootError::Descriptors { descriptors, shards: shard_count, least });
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let boot_ms = clock.now_ms();
        let listeners = bind(&config, roles)?;
        let metrics = bind_metrics(&config)?;
        // From here on threads run that end in order only; before, nothing does.
        let guard = signals::StartGuard::arm(leave_start).map_err(system("listen to signals"))?;
        let broker = match roles.broker {
            true => Some(open_broker(&mut config, &disk, &clock, descriptors, salvage)?),
            false => None,
        };
        guard.disarm();
        let channels = Channels::new(shard_count).map_err(system("make the channels between threads"))?;
        let memory_bytes = config.memory_budget_bytes(machine::memory_bytes());
        let ring = if broker.is_some() { ring_bytes(&config) as u64 } else { 0 };
        let tails = if broker.is_some() { tail_bytes(&config) } else { 0 };
        let shared = Shared::new(&config, shard_count, memory_bytes, ring, tails);
        let shared = Arc::new(Shared { descriptors, ..shared });
        let lifecycle = Arc::new(Lifecycle::default());
        let senders = channels.mailboxes.iter().map(|(sender, ..)| sender.clone()).collect();
        let (word, last_words) = channel();
        let wiring = Wiring {
            roles,
            config,
            disk,
            clock,
            boot_ms,
            registry: Arc::new(Registry::new()),
            lifecycle,
            senders,
            shared,
            last_words: word,
        };
        launch(wiring, Launch { listeners, metrics, broker, cores, channels, last_words })
    }

    /// Waits for a signal or a failure, then takes everything down.
    fn wait(self) -> ExitCode {
        let mut disk_report = DiskReport::default();
        let failed = loop {
            disk_report.look(&self.shared.disk_watch);
            if self.lifecycle.failed.load(Ordering::Acquire) {
                break true;
            }
            match signals::wait(WATCH) {
                Ok(Some(libc::SIGHUP)) if reopen_log() => {}
                Ok(Some(signal)) => {
                    tracing::info!(signal, "stopping");
                    break false;
                }
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, "waiting for signals failed"),
            }
        };
        if failed {
            // Wakes those that sleep; one whose mailbox is full is awake.
            self.mailboxes.iter().for_each(|mailbox| drop(mailbox.send(ShardMessage::Stop)));
            if !are_gone(&self.last_words, LAST_WORDS_PATIENCE) {
                tracing::warn!(
                    "some thread hangs: clients may not have been told, or the next start trust the page cache"
                );
            }
            logging::flush(LAST_LINES_PATIENCE);
            std::process::exit(ExitStatus::LogWriteFailed as i32);
        }
        let watchdog = Watchdog::of_stop(Arc::clone(&self.shared));
        signals::notify("STOPPING=1");
        signals::exit_on_second_signal(ExitStatus::Interrupted as i32);
        let status = self.stop();
        drop(watchdog);
        status
    }

    fn stop(self) -> ExitCode {
        for mailbox in &self.mailboxes {
            mailbox.send_blocking(ShardMessage::Stop);
        }
        self.stopping.store(true, Ordering::Release);
        let keeps_state = join(self.control, "control").unwrap_or(false);
        self.lifecycle.stopping.store(true, Ordering::Release);
        for (number, shard) in self.shards.into_iter().enumerate() {
            if let Err(error) = shard.join() {
                tracing::error!(number, %error, "a shard did not end in order");
            }
        }
        let mut status = if keeps_state { ExitStatus::Ok } else { ExitStatus::Failure };
        if let Some(store) = self.store {
            join(store.retention_thread, "retention");
            join(store.store_thread, "store");
            for thread in store.reader_threads {
                join(thread, "reader");
            }
            let (done, finished) = channel();
            let is_complete = store.flush.send(FlushRequest::Stop(done)).is_ok() && finished.recv().unwrap_or(false);
            join(store.flush_thread, "flush");
            if self.lifecycle.failed.load(Ordering::Acquire) {
                status = ExitStatus::LogWriteFailed;
            } else if is_complete {
                if let Err(error) = store.lock.mark_clean(store.disk.as_ref(), &store.paths) {
                    tracing::warn!(%error, "the file abort could not be removed; the next start checks the log");
                }
            } else {
                tracing::warn!("not everything could be written; the next start checks the log");
            }
        }
        tracing::info!("stopped");
        status.into()
    }
}

/// Whether all threads that hold the other side have let go of it within `patience`.
fn are_gone(threads: &Receiver<Infallible>, patience: Duration) -> bool {
    matches!(threads.recv_timeout(patience), Err(RecvTimeoutError::Disconnected))
}

fn join<T>(thread: JoinHandle<T>, name: &str) -> Option<T> {
    let result = thread.join().ok();
    if result.is_none() {
        tracing::error!(name, "a thread panicked");
    }
    result
}

/// What every part of the process is made from.
struct Wiring {
    roles: Roles,
    config: Config,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    boot_ms: u64,
    registry: Arc<Registry>,
    lifecycle: Arc<Lifecycle>,
    /// Mailboxes of the shards; the first one owns the log.
    senders: Vec<MailboxSender<ShardMessage>>,
    shared: Arc<Shared>,
    /// Held by shards and the flush thread until they return.
    last_words: Sender<Infallible>,
}

/// What is made of it besides.
struct Launch {
    listeners: Vec<ListenerSlot>,
    metrics: Option<TcpListener>,
    broker: Option<BrokerStart>,
    cores: Vec<usize>,
    channels: Channels,
    /// The other side of [`Wiring::last_words`].
    last_words: Receiver<Infallible>,
}

/// Opens what is left to open, and only then starts the threads.
fn launch(wiring: Wiring, launch: Launch) -> Result<Running, BootError> {
    let Launch { listeners, metrics, broker, cores, channels, last_words } = launch;
    let Channels { control, cold, flush, jobs, mailboxes } = channels;
    wiring.add_metrics();

    let channels = BrokerChannels { flush: (flush.0.clone(), flush.1), jobs, cold: cold.1 };
    let opened = broker.map(|broker| OpenedBroker::open(broker, &wiring, channels)).transpose()?;
    let namesrv = if wiring.roles.namesrv { Some(open_namesrv(&wiring.config, &wiring.disk)?) } else { None };
    let started = opened.map(|opened| opened.start(&wiring)).transpose()?;
    let (serves, broker_parts, store) = match started {
        Some(StartedBroker { serves, parts, store }) => (Some(serves), Some(parts), Some(store)),
        None => (None, None, None),
    };

    let Wiring { config, disk, clock, registry, lifecycle, senders, shared, .. } = &wiring;
    let (view, writer) = serves.map(|serves| (serves.view, serves.writer)).unzip();
    let namesrv_files = (config.kv_config_file(), config.root_dir().join("namesrv").join(NAMESRV_SETTINGS_FILE));
    let expected = broker_parts.as_ref().map_or(0, |parts| parts.registrars.len());
    let own_namesrv = broker_parts.as_ref().and_then(|parts| parts.own_namesrv.clone());
    let (registered_sender, registered) = channel();
    let stopping = Arc::new(AtomicBool::new(false));
    let kept = broker_parts.as_ref().map(|parts| (parts.paths.clone(), Arc::clone(&parts.queue_offsets)));
    let persister = Persister::start(Arc::clone(disk), kept, control.0.clone());
    let mut control_thread = ControlThread::new(
        control.1,
        senders.clone(),
        persister.map_err(system("start the persister"))?,
        Arc::clone(clock),
        broker_parts,
        namesrv,
        namesrv_files,
        Some(registered_sender),
        Arc::clone(&stopping),
        Arc::clone(shared),
        registry.probe("control"),
    );
    let serving = control_thread.first_serving();

    let shards = start_shards(
        &wiring,
        ShardStart {
            mailboxes,
            listeners,
            cores,
            control: control.0,
            cold: cold.0,
            flush: flush.0,
            view,
            serving,
            writer,
        },
    )?;
    let control = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control_thread.run())
        .map_err(system("start the control thread"))?;
    if let Some(listener) = metrics {
        metrics_page::start(listener, Arc::clone(registry)).map_err(system("serve the metrics"))?;
    }
    let register_timeout = Duration::from_millis(config.register_broker_timeout_mills);
    let own = own_namesrv.map(|address| (address, register_timeout));
    let is_over = || lifecycle.failed.load(Ordering::Acquire) || signals::is_stop_pending();
    registrar::await_outcomes(&registered, expected, own, REGISTRATION_PATIENCE, is_over);
    announce(config, wiring.roles);
    let Wiring { lifecycle, senders, shared, .. } = wiring;
    Ok(Running { lifecycle, shared, stopping, mailboxes: senders, shards, control, store, last_words })
}

impl Wiring {
    /// What the metrics page shows in any role.
    fn add_metrics(&self) {
        metrics::add_shared(&self.registry, &self.shared, self.boot_ms);
        let mailboxes = self.senders.clone();
        self.registry.limit(
            Limit::Mailbox,
            || limits::MAILBOX_MESSAGES as u64,
            move || mailboxes.iter().map(MailboxSender::waiting).max().unwrap_or(0),
        );
        if self.roles.namesrv {
            metrics::add_namesrv(&self.registry, &self.shared);
        }
    }
}

/// Goes on in a new log file, as after its rotation. False if there is none: then the terminal is gone, and the broker with it.
fn reopen_log() -> bool {
    match logging::reopen() {
        Ok(has_file) => {
            if has_file {
                tracing::info!("the log file was opened anew");
            }
            has_file
        }
        Err(error) => {
            tracing::error!(%error, "the log file cannot be opened anew; lines go to the old one");
            true
        }
    }
}

/// The one line that says that everything serves.
fn announce(config: &Config, roles: Roles) {
    let mut parts = Vec::new();
    if roles.broker {
        parts.push(format!("broker {}", config.advertised_endpoint()));
    }
    if roles.namesrv {
        parts.push(format!("namesrv {}", SocketAddr::new(config.listen, config.namesrv_port)));
    }
    if roles.broker {
        parts.push(format!("store {}", config.data_dir));
    }
    let line = parts.join(", ");
    // Who waits for this line finds all that the start had to say before it.
    logging::flush(logging::FLUSH_PATIENCE);
    // Whoever started the broker may have closed the output, or its disk is full: that is no reason not to serve.
    if let Err(error) = writeln!(io::stdout(), "ringmq ready: {line}") {
        tracing::warn!(%error, line, "ready, but that could not be written to the standard output");
    }
    signals::notify("READY=1");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a failed process waits for the last thread that has something to say, and not for one that hangs. Method: two
    /// threads of which one panics, with all the time of the world; then one that stays, with no time.
    #[test]
    fn the_last_words_are_waited_for() {
        let (word, heard) = channel();
        let said = Arc::new(AtomicBool::new(false));
        let (other, saying) = (word.clone(), Arc::clone(&said));
        let panics = std::thread::spawn(move || {
            let _word = word;
            panic!("this thread is to panic");
        });
        let says = std::thread::spawn(move || {
            saying.store(true, Ordering::Release);
            drop(other);
        });
        assert!(are_gone(&heard, Duration::from_secs(100_000)) && said.load(Ordering::Acquire));
        assert!(panics.join().is_err() && says.join().is_ok());
        let (_hangs, heard) = channel();
        assert!(!are_gone(&heard, Duration::ZERO));
    }
}
