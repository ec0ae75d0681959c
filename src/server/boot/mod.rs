//! Start and stop: opens the store, starts the threads, says when it serves, and takes everything down in order.

mod gauges;
mod open;
mod watchdog;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use ringmq_shards::clock::{Clock, SystemClock};
use ringmq_shards::disk::{
    Disk, OpenOptions, RealDisk, Reserve, StateFile, StateFileError, create_directories_durably, io_causes, is_no_space,
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
use super::event_loop::{EventLoop, Lifecycle, ListenerSlot, SpinWindow, kind};
use super::flush_thread::{FlushRequest, FlushThread};
use super::log_shell::{LogShell, LogShellOptions};
use super::messages::{ColdPull, ControlRequest, ShardMessage};
use super::metrics::{self, StoreFigures};
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

use self::gauges::add_gauges;
use self::open::{
    NAMESRV_SETTINGS_FILE, bind, open_broker, open_control, open_namesrv, ring_bytes, spin_limit, tail_bytes,
};
use self::watchdog::Watchdog;

/// How often the main thread looks whether the log failed.
const WATCH: Duration = Duration::from_millis(250);

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
    flush_mode: FlushMode,
    path: SegmentPath,
    chooses: bool,
    memory_window_bytes: u64,
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
    stopping: Arc<AtomicBool>,
    mailboxes: Vec<MailboxSender<ShardMessage>>,
    shards: Vec<ShardHandle>,
    control: JoinHandle<bool>,
    store: Option<StoreSide>,
}

/// What belongs to the store and is taken down last.
struct StoreSide {
    flush: CountedSender<FlushRequest>,
    flush_thread: JoinHandle<()>,
    store_thread: JoinHandle<()>,
    retention_thread: JoinHandle<()>,
    reader_threads: Vec<JoinHandle<()>>,
    lock: ringmq_shards::recovery::process_lock::ProcessLock,
    paths: ringmq_shards::recovery::StorePaths,
    disk: Arc<dyn Disk>,
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
        let shard_count = config.shard_count(cores.len()).clamp(1, 64);
        let least = limits::descriptors_to_start(shard_count);
        if descriptors < least {
            return Err(BootError::Descriptors { descriptors, shards: shard_count, least });
        }
        let disk: Arc<dyn Disk> = Arc::new(RealDisk);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let boot_ms = clock.now_ms();
        let registry = Arc::new(Registry::new());
        let listeners = bind(&config, roles)?;
        // From here on threads run that end in order only; before, nothing does.
        let guard = signals::StartGuard::arm(leave_start).map_err(system("listen to signals"))?;
        let broker = match roles.broker {
            true => Some(open_broker(&mut config, &disk, &clock, descriptors, salvage)?),
            false => None,
        };
        guard.disarm();
        let channels = Channels::new(shard_count).map_err(system("make the channels between threads"))?;
        launch(Launch {
            roles,
            config,
            disk,
            clock,
            boot_ms,
            registry,
            listeners,
            broker,
            cores,
            channels,
            descriptors,
        })
    }

    /// Waits for a signal or a failure, then takes everything down.
    fn wait(self) -> ExitCode {
        let failed = loop {
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
            // Shards have told their clients what could be told. No file may be touched any more.
            std::thread::sleep(Duration::from_millis(100));
            logging::flush(Duration::from_millis(200));
            std::process::exit(ExitStatus::LogWriteFailed as i32);
        }
        let watchdog = Watchdog::of_stop();
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

fn join<T>(thread: JoinHandle<T>, name: &str) -> Option<T> {
    let result = thread.join().ok();
    if result.is_none() {
        tracing::error!(name, "a thread panicked");
    }
    result
}

/// Pin slots of the log view behind those of the shards: flush, store, readers.
const READER_SLOTS: usize = 2 + limits::READERS;

struct Launch {
    roles: Roles,
    config: Config,
    disk: Arc<dyn Disk>,
    clock: Arc<dyn Clock>,
    boot_ms: u64,
    registry: Arc<Registry>,
    listeners: Vec<ListenerSlot>,
    broker: Option<BrokerStart>,
    cores: Vec<usize>,
    channels: Channels,
    descriptors: u64,
}

fn launch(launch: Launch) -> Result<Running, BootError> {
    let Launch { roles, config, disk, clock, boot_ms, registry, listeners, broker, cores, channels, descriptors } =
        launch;
    let Channels { control, cold, flush, jobs, mailboxes } = channels;
    let senders: Vec<_> = mailboxes.iter().map(|(sender, ..)| sender.clone()).collect();
    let shard_count = senders.len();
    let lifecycle = Arc::new(Lifecycle::default());
    let stopping = Arc::new(AtomicBool::new(false));
    let memory_bytes = config.memory_budget_bytes(machine::memory_bytes());
    let ring = if broker.is_some() { ring_bytes(&config) as u64 } else { 0 };
    let tails = if broker.is_some() { tail_bytes(&config) } else { 0 };
    let shared = Shared::new(&config, shard_count, memory_bytes, ring, tails);
    let shared = Arc::new(Shared { descriptors, ..shared });
    metrics::add_shared(&registry, &shared, boot_ms);
    let mailboxes_of = senders.clone();
    registry.limit(
        Limit::Mailbox,
        || limits::MAILBOX_MESSAGES as u64,
        move || mailboxes_of.iter().map(MailboxSender::waiting).max().unwrap_or(0),
    );
    if roles.namesrv {
        metrics::add_namesrv(&registry, &shared);
    }
    let (registered_sender, registered) = channel();

    let mut store_side = None;
    let mut writer_side = None;
    let mut broker_parts = None;
    let mut view = None;
    if let Some(broker) = broker {
        let built = build_broker(
            broker,
            &config,
            roles,
            &disk,
            &clock,
            boot_ms,
            &registry,
            &lifecycle,
            &senders,
            &shared,
            (flush.0.clone(), flush.1),
            (jobs.0, jobs.1),
            cold.1,
        )?;
        view = Some(Arc::clone(&built.view));
        writer_side = Some(built.writer);
        broker_parts = Some(built.parts);
        store_side = Some(built.store);
    }

    let namesrv = if roles.namesrv { Some(open_namesrv(&config, &disk)?) } else { None };
    let namesrv_files = (config.kv_config_file(), config.root_dir().join("namesrv").join(NAMESRV_SETTINGS_FILE));
    let expected = broker_parts.as_ref().map_or(0, |parts| parts.registrars.len());
    let own_namesrv = broker_parts.as_ref().and_then(|parts| parts.own_namesrv.clone());
    let register_timeout = Duration::from_millis(config.register_broker_timeout_mills);
    let mut control_thread = ControlThread::new(
        control.1,
        senders.clone(),
        Arc::clone(&disk),
        Arc::clone(&clock),
        broker_parts,
        namesrv,
        namesrv_files,
        Some(registered_sender),
        Arc::clone(&stopping),
        Arc::clone(&shared),
        registry.probe("control"),
    );
    let serving = control_thread.first_serving();

    let shards = start_shards(ShardStart {
        config: &config,
        mailboxes,
        senders: &senders,
        listeners,
        cores: &cores,
        control: control.0,
        cold: cold.0,
        flush: flush.0,
        view,
        serving,
        writer: writer_side,
        clock: &clock,
        lifecycle: &lifecycle,
        registry: &registry,
        shared: &shared,
    })?;
    let control = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control_thread.run())
        .map_err(system("start the control thread"))?;
    if let Some(address) = config.metrics_listen
        && let Err(error) = metrics_page::start(address, registry)
    {
        tracing::warn!(%address, %error, "metrics are not served: choose another metrics_listen");
    }
    let own = own_namesrv.map(|address| (address, register_timeout));
    let is_over = || lifecycle.failed.load(Ordering::Acquire) || signals::is_stop_pending();
    registrar::await_outcomes(&registered, expected, own, REGISTRATION_PATIENCE, is_over);
    announce(&config, roles);
    Ok(Running { lifecycle, stopping, mailboxes: senders, shards, control, store: store_side })
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
    // Whoever started the broker may have closed the output, or its disk is full: that is no reason not to serve.
    if let Err(error) = writeln!(io::stdout(), "ringmq ready: {line}") {
        tracing::warn!(%error, line, "ready, but that could not be written to the standard output");
    }
    signals::notify("READY=1");
}

struct BuiltBroker {
    view: Arc<LogView>,
    writer: WriterSide,
    parts: BrokerParts,
    store: StoreSide,
}

struct WriterSide {
    writer: Writer,
    shell: LogShell,
}

#[allow(clippy::too_many_arguments, reason = "wires one process together, once")]
fn build_broker(
    broker: BrokerStart,
    config: &Config,
    roles: Roles,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    boot_ms: u64,
    registry: &Arc<Registry>,
    lifecycle: &Arc<Lifecycle>,
    senders: &[MailboxSender<ShardMessage>],
    shared: &Arc<Shared>,
    flush: (CountedSender<FlushRequest>, CountedReceiver<FlushRequest>),
    jobs: (SyncSender<StoreJob>, Receiver<StoreJob>),
    cold: Receiver<ColdPull>,
) -> Result<BuiltBroker, BootError> {
    let BrokerStart { storage, view, identity, flush_mode, path, chooses, memory_window_bytes } = broker;
    let Storage {
        paths,
        lock,
        segments,
        queues,
        pool,
        index,
        recovered,
        checkpoint_file,
        checkpoint,
        durable_point,
        queue_offsets,
        queue_flushed,
        tail_page,
    } = storage;
    let end = recovered.end.0;
    let list = segments.snapshot();
    let ready_end = list.limit().map_or(end, |limit| limit.0);
    let writer = Writer::new(
        Arc::clone(&view),
        pool,
        WriterOptions {
            segment_bytes: config.mapped_file_size_commit_log,
            flush_mode,
            write_kind: if path == SegmentPath::DirectSync { WriteKind::Durable } else { WriteKind::Volatile },
            sync_flush_timeout_ms: config.sync_flush_timeout,
        },
        end,
        ready_end,
        recovered.last_store_timestamp.0,
        &tail_page,
    );
    let zeroes_ahead = path == SegmentPath::DirectSync && config.zero_ahead_bytes > 0;
    let current = list.segments().iter().filter(|segment| segment.start().0 + config.mapped_file_size_commit_log > end);
    let shell = LogShell::new(LogShellOptions {
        segments: current.cloned().collect(),
        segment_bytes: config.mapped_file_size_commit_log,
        path,
        chooser: chooses.then(PathChooser::default),
        zeroes_ahead,
        write_back_bytes: config.write_back_bytes,
        end,
        write_token: Token::new(kind::WRITE, 0, 0),
        sync_token: Token::new(kind::SYNC, 0, 0),
        flush: flush.0.clone(),
        probe: registry.probe("shard-0"),
    });
    let index_timestamp_ms = Arc::new(AtomicU64::new(u64::try_from(checkpoint.index_timestamp_ms).unwrap_or(0)));
    let figures = Arc::new(StoreFigures::new(Arc::clone(registry), Arc::clone(shared)));
    let access = |slot: usize| {
        StoreAccess::new(
            Arc::clone(&view),
            Arc::clone(&segments),
            Arc::clone(&queues),
            Arc::clone(disk),
            64 + slot,
            memory_window_bytes,
            boot_ms,
            Arc::clone(&figures),
        )
    };
    let store_access = Arc::new(access(1).with_index(index.is_some()));
    let reader_accesses: Vec<_> = (0..limits::READERS).map(|reader| Arc::new(access(2 + reader))).collect();
    let indexed = Arc::new(AtomicU64::new(0));
    metrics::add_broker(registry, shared);
    let flush_queue = flush.0.clone();
    registry.limit(Limit::FlushQueue, || limits::FLUSH_REQUESTS as u64, move || flush_queue.waiting());
    add_gauges(registry, shared, &view, &queues, config, config.message_index_enable.then(|| Arc::clone(&indexed)));

    let flush_thread = FlushThread {
        requests: flush.1,
        disk: Arc::clone(disk),
        view: Arc::clone(&view),
        pin_slot: 64,
        segments: Arc::clone(&segments),
        zeroes_ahead,
        queues: Arc::clone(&queues),
        paths: paths.clone(),
        queue_offsets: Arc::clone(&queue_offsets),
        queue_flushed,
        writer: senders[0].clone(),
        checkpoint_file,
        checkpoint,
        durable_point,
        catch_up: recovered.catch_up,
        index_timestamp_ms: Arc::clone(&index_timestamp_ms),
        shared: Arc::clone(shared),
        lifecycle: Arc::clone(lifecycle),
        probe: registry.probe("flush"),
        end,
        ready_end,
    };
    let store_thread = StoreThread {
        jobs: jobs.1,
        access: Arc::clone(&store_access),
        shards: senders.to_vec(),
        opening: index,
        indexed,
        index_timestamp_ms,
        shared: Arc::clone(shared),
        lifecycle: Arc::clone(lifecycle),
        pause: RefCell::default(),
        troubles: RefCell::default(),
        probe: registry.probe("store"),
    };
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(system("start a thread"))
    };
    shared.retention.note_durable_point(recovered.durable_point.offset.0);
    let retention_thread = RetentionThread {
        disk: Arc::clone(disk),
        clock: Arc::clone(clock),
        view: Arc::clone(&view),
        segments: Arc::clone(&segments),
        queues: Arc::clone(&queues),
        queue_offsets: Arc::clone(&queue_offsets),
        directories: vec![paths.commit_log.clone(), paths.consume_queue()],
        jobs: jobs.0.clone(),
        shared: Arc::clone(shared),
        lifecycle: Arc::clone(lifecycle),
        probe: registry.probe("retention"),
    };
    let retention_handle = spawn("retention", Box::new(move || retention_thread.run()))?;
    let flush_handle = spawn("flush", Box::new(move || flush_thread.run()))?;
    let store_handle = spawn("store", Box::new(move || store_thread.run()))?;
    let cold = Arc::new(Mutex::new(cold));
    let verified = Arc::new(super::served::Verified::default());
    let blocks = Arc::new(super::cold_blocks::ColdBlocks::default());
    let mut reader_threads = Vec::new();
    for access in reader_accesses {
        let reader = Reader {
            pulls: Arc::clone(&cold),
            access,
            shards: senders.to_vec(),
            shared: Arc::clone(shared),
            lifecycle: Arc::clone(lifecycle),
            probe: registry.probe("reader"),
            buffers: BufferPool::default(),
            pipes: PipePool::new(limits::READER_PIPES, limits::PIPE_BYTES),
            verified: Arc::clone(&verified),
            blocks: Arc::clone(&blocks),
        };
        reader_threads.push(spawn("reader", Box::new(move || reader.run()))?);
    }

    let control = open_control(config, disk, &paths.config(), &queues)?;
    let own_namesrv = roles.namesrv.then(|| {
        let own = if config.listen.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { config.listen };
        SocketAddr::new(own, config.namesrv_port).to_string()
    });
    let addresses = namesrv_addresses(config, own_namesrv.as_ref());
    let timeout = Duration::from_millis(config.register_broker_timeout_mills);
    let registrars = addresses.into_iter().map(|address| Registrar::start(address, timeout));
    let parts = BrokerParts {
        control,
        store: store_access,
        queues,
        reserve: Reserve::new(paths.reserve()),
        paths: paths.clone(),
        queue_offsets,
        identity,
        pictured: Pictured::from(config),
        register_timeout: timeout,
        own_namesrv,
        figures,
        state_directory: paths.config(),
        registrars: registrars.collect::<io::Result<_>>().map_err(system("start a registrar"))?,
        jobs: jobs.0,
        flush: flush.0.clone(),
    };
    let store = StoreSide {
        flush: flush.0,
        flush_thread: flush_handle,
        store_thread: store_handle,
        retention_thread: retention_handle,
        reader_threads,
        lock,
        paths,
        disk: Arc::clone(disk),
    };
    Ok(BuiltBroker { view, writer: WriterSide { writer, shell }, parts, store })
}

struct ShardStart<'a> {
    config: &'a Config,
    mailboxes: Vec<(MailboxSender<ShardMessage>, Mailbox<ShardMessage>, WakeHandle)>,
    senders: &'a [MailboxSender<ShardMessage>],
    listeners: Vec<ListenerSlot>,
    cores: &'a [usize],
    control: SyncSender<ControlRequest>,
    cold: SyncSender<ColdPull>,
    flush: CountedSender<FlushRequest>,
    view: Option<Arc<LogView>>,
    serving: Option<Arc<Serving>>,
    writer: Option<WriterSide>,
    clock: &'a Arc<dyn Clock>,
    lifecycle: &'a Arc<Lifecycle>,
    registry: &'a Registry,
    shared: &'a Arc<Shared>,
}

fn start_shards(start: ShardStart<'_>) -> Result<Vec<ShardHandle>, BootError> {
    let config = start.config;
    let spin_limit = spin_limit(config, start.mailboxes.len(), start.cores.len());
    let mut listeners = Some(start.listeners);
    let mut writer = start.writer;
    let seed = start.clock.now_ms();
    let mut handles = Vec::new();
    let (made_sender, made) = channel();
    let wakes: Vec<_> = start.mailboxes.iter().map(|(_, _, wake)| wake.clone()).collect();
    let others = wakes.iter().skip(1).filter(|_| writer.is_some());
    let (mut logs, mut peers): (VecDeque<_>, Vec<_>) =
        others.map(|shard| remote::connect(shard.clone(), wakes[0].clone())).unzip();
    for (index, (_, mailbox, wake)) in start.mailboxes.into_iter().enumerate() {
        let settings = ShardSettings {
            index,
            max_frame_bytes: usize::try_from(config.max_frame_bytes).unwrap_or(usize::MAX),
            connection_in_flight_bytes: usize::try_from(config.connection_in_flight_bytes).unwrap_or(usize::MAX),
            memory_window_bytes: machine::memory_bytes() / 100 * MEMORY_WINDOW_PERCENT,
        };
        let (log, shell) = match (index, writer.take()) {
            (0, Some(side)) => (LogPort::Local(Box::new(side.writer)), Some(side.shell)),
            _ => (logs.pop_front().map_or(LogPort::None, |log| LogPort::Remote(Box::new(log))), None),
        };
        let host = start.serving.as_ref().map(|serving| serving.identity.store_host.ip());
        let ip = host.unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let send_state = SendState::new(ip, seed.wrapping_mul(2 * index as u64 + 1));
        let core = ShardCore::new(
            settings,
            Arc::clone(start.shared),
            start.registry.probe(&format!("shard-{index}")),
            log,
            start.view.clone(),
            start.serving.clone(),
            start.control.clone(),
            start.cold.clone(),
            std::mem::take(&mut peers),
            send_state,
        );
        let plan = ShardPlan { name: format!("shard-{index}"), core: Some(start.cores[index % start.cores.len()]) };
        let (flush, peers, view) = (start.flush.clone(), start.senders.to_vec(), start.view.clone());
        let (clock, lifecycle) = (Arc::clone(start.clock), Arc::clone(start.lifecycle));
        let idle_connection_ms = config.server_channel_max_idle_time_seconds * 1_000;
        let own_listeners = listeners.take().unwrap_or_default();
        let made = made_sender.clone();
        let handle = spawn_shard(plan, move || async move {
            // The ring belongs to the thread that makes it.
            let ring = match Ring::new(RingOptions::default()) {
                Ok(ring) => ring,
                // Whoever starts the shards waits for this.
                Err(error) => return drop(made.send((index, Some(error)))),
            };
            if made.send((index, None)).is_err() {
                return;
            }
            drop(made);
            let event_loop = EventLoop {
                core,
                shell,
                flush,
                ring,
                mailbox,
                wake,
                peers,
                listeners: own_listeners,
                view,
                clock,
                lifecycle,
                spin: SpinWindow::new(spin_limit),
                idle_connection_ms,
            };
            event_loop.run().await;
        })
        .map_err(system("start a shard"))?;
        handles.push(handle);
    }
    drop(made_sender);
    let mut silent: BTreeMap<usize, ShardHandle> = handles.into_iter().enumerate().collect();
    let mut started = Vec::new();
    // Ends when each has spoken or is gone: one whose executor could not be made says nothing.
    for (index, error) in made {
        if let Some(error) = error {
            return Err(PreflightError::of(error).into());
        }
        started.extend(silent.remove_entry(&index));
    }
    if let Some((_, shard)) = silent.pop_first() {
        let ended = shard.join().err().unwrap_or_else(|| io::Error::other("it ended at once"));
        return Err(system("start the executor of a shard")(ended));
    }
    started.sort_unstable_by_key(|(index, _)| *index);
    Ok(started.into_iter().map(|(_, shard)| shard).collect())
}
