//! The threads of a broker that own the store: all of them are made, and all that may fail is opened, before one runs.

use ringmq_shards::log::commit_delay::CommitDelay;
use ringmq_shards::log::huge_pages::HugePages;
use ringmq_shards::log::segments::SegmentList;
use ringmq_shards::queue::ChunkPool;

use super::*;

/// What belongs to the store and is taken down last.
pub(super) struct StoreSide {
    pub(super) flush: CountedSender<FlushRequest>,
    pub(super) flush_thread: JoinHandle<()>,
    pub(super) store_thread: JoinHandle<()>,
    pub(super) retention_thread: JoinHandle<()>,
    pub(super) reader_threads: Vec<JoinHandle<()>>,
    pub(super) lock: ringmq_shards::recovery::process_lock::ProcessLock,
    pub(super) paths: ringmq_shards::recovery::StorePaths,
    pub(super) disk: Arc<dyn Disk>,
}

/// The ends of the channels that the store's threads hold.
pub(super) struct BrokerChannels {
    pub(super) flush: (CountedSender<FlushRequest>, CountedReceiver<FlushRequest>),
    pub(super) jobs: (SyncSender<StoreJob>, Receiver<StoreJob>),
    pub(super) cold: Receiver<ColdPull>,
}

/// The writer and what carries its groups to the disk, for the shard that owns the log.
pub(super) struct WriterSide {
    pub(super) writer: Writer,
    pub(super) shell: LogShell,
}

/// What shards serve from.
pub(super) struct Serves {
    pub(super) view: Arc<LogView>,
    pub(super) writer: WriterSide,
}

/// A broker that is open and of which nothing runs.
pub(super) struct OpenedBroker {
    serves: Serves,
    flush_thread: FlushThread,
    store_thread: StoreThread,
    retention_thread: RetentionThread,
    readers: Vec<Reader>,
    /// Without its registrars: they are threads.
    parts: BrokerParts,
    namesrv_addresses: Vec<String>,
    flush: CountedSender<FlushRequest>,
    lock: ringmq_shards::recovery::process_lock::ProcessLock,
}

/// A broker whose store's threads run.
pub(super) struct StartedBroker {
    pub(super) serves: Serves,
    pub(super) parts: BrokerParts,
    pub(super) store: StoreSide,
}

impl OpenedBroker {
    /// Reads the control plane's files and makes the threads.
    pub(super) fn open(broker: BrokerStart, wiring: &Wiring, channels: BrokerChannels) -> Result<Self, BootError> {
        let BrokerChannels { flush, jobs, cold } = channels;
        let Wiring { roles, config, disk, clock, boot_ms, registry, lifecycle, senders, shared, .. } = wiring;
        let control = open_control(config, disk, &broker.storage.paths.config(), &broker.storage.queues)?;
        let BrokerStart { storage, view, identity, way, memory_window_bytes } = broker;
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
        // Where every write goes around the page cache, the first finds zeros too.
        let wrote_directly = Arc::new(AtomicBool::new(way.path == SegmentPath::DirectSync));
        let last = LogEnd {
            view: &view,
            list: &segments.snapshot(),
            offset: recovered.end.0,
            store_timestamp: recovered.last_store_timestamp.0,
            tail_page: &tail_page,
        };
        let ready_end = last.ready_end();
        let writer = make_writer(wiring, way, &last, pool, flush.0.clone(), Arc::clone(&wrote_directly));
        let end = recovered.end.0;
        let index_timestamp_ms = Arc::new(AtomicU64::new(u64::try_from(checkpoint.index_timestamp_ms).unwrap_or(0)));
        let figures = Arc::new(StoreFigures::new(Arc::clone(registry), Arc::clone(shared)));
        let access = |slot: usize| {
            StoreAccess::new(
                Arc::clone(&view),
                Arc::clone(&segments),
                Arc::clone(&queues),
                Arc::clone(disk),
                slot,
                memory_window_bytes,
                *boot_ms,
                Arc::clone(&figures),
            )
        };
        let store_access = Arc::new(access(limits::STORE_PIN_SLOT).with_index(index.is_some()));
        let indexed = Arc::new(AtomicU64::new(0));
        metrics::add_broker(registry, shared);
        let flush_queue = flush.0.clone();
        registry.limit(Limit::FlushQueue, || limits::FLUSH_REQUESTS as u64, move || flush_queue.waiting());
        add_gauges(registry, shared, &view, &queues, config, config.message_index_enable.then(|| Arc::clone(&indexed)));

        shared.retention.note_durable_point(recovered.durable_point.offset.0);
        let flush_thread = FlushThread {
            requests: flush.1,
            disk: Arc::clone(disk),
            view: Arc::clone(&view),
            pin_slot: limits::FLUSH_PIN_SLOT,
            segments: Arc::clone(&segments),
            zeroes_ahead: way.zeroes_ahead,
            wrote_directly: Arc::clone(&wrote_directly),
            huge_pages: if config.log_ring_huge_pages { HugePages::new(&view) } else { HugePages::none() },
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
            shards: senders.clone(),
            opening: index,
            indexed,
            index_timestamp_ms,
            shared: Arc::clone(shared),
            lifecycle: Arc::clone(lifecycle),
            pause: RefCell::default(),
            troubles: RefCell::default(),
            probe: registry.probe("store"),
        };
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
        let cold = Arc::new(Mutex::new(cold));
        let verified = Arc::new(super::super::served::Verified::default());
        let blocks = Arc::new(super::super::cold_blocks::ColdBlocks::default());
        let reader = |number: usize| Reader {
            pulls: Arc::clone(&cold),
            access: Arc::new(access(limits::READER_PIN_SLOTS + number)),
            shards: senders.clone(),
            shared: Arc::clone(shared),
            lifecycle: Arc::clone(lifecycle),
            probe: registry.probe("reader"),
            buffers: BufferPool::default(),
            pipes: PipePool::new(limits::READER_PIPES, limits::PIPE_BYTES),
            verified: Arc::clone(&verified),
            blocks: Arc::clone(&blocks),
        };
        let readers = (0..limits::READERS).map(reader).collect();

        let own_namesrv = roles.namesrv.then(|| {
            let own = if config.listen.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { config.listen };
            SocketAddr::new(own, config.namesrv_port).to_string()
        });
        let namesrv_addresses = namesrv_addresses(config, own_namesrv.as_ref());
        let parts = BrokerParts {
            control,
            store: store_access,
            queues,
            state_directory: paths.config(),
            paths,
            queue_offsets,
            identity,
            pictured: Pictured::from(config),
            register_timeout: Duration::from_millis(config.register_broker_timeout_mills),
            own_namesrv,
            figures,
            registrars: Vec::new(),
            jobs: jobs.0,
        };
        let serves = Serves { view, writer };
        let flush = flush.0;
        Ok(Self {
            serves,
            flush_thread,
            store_thread,
            retention_thread,
            readers,
            parts,
            namesrv_addresses,
            flush,
            lock,
        })
    }

    /// Starts the threads.
    pub(super) fn start(self, wiring: &Wiring) -> Result<StartedBroker, BootError> {
        let registrars = self.namesrv_addresses.into_iter();
        let registrars = registrars.map(|address| Registrar::start(address, self.parts.register_timeout));
        let registrars = registrars.collect::<io::Result<_>>().map_err(system("start a registrar"))?;
        let parts = BrokerParts { registrars, ..self.parts };
        let word = wiring.last_words.clone();
        let store = StoreSide {
            flush: self.flush,
            retention_thread: spawn("retention", move || self.retention_thread.run())?,
            flush_thread: spawn("flush", move || {
                self.flush_thread.run();
                drop(word);
            })?,
            store_thread: spawn("store", move || self.store_thread.run())?,
            reader_threads: self
                .readers
                .into_iter()
                .map(|reader| spawn("reader", move || reader.run()))
                .collect::<Result<_, _>>()?,
            lock: self.lock,
            paths: parts.paths.clone(),
            disk: Arc::clone(&wiring.disk),
        };
        Ok(StartedBroker { serves: self.serves, parts, store })
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, BootError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(system("start a thread"))
}

/// Where a start goes on writing.
struct LogEnd<'a> {
    view: &'a Arc<LogView>,
    list: &'a SegmentList,
    offset: u64,
    store_timestamp: u64,
    tail_page: &'a [u8],
}

impl LogEnd<'_> {
    /// Up to where there are segments.
    fn ready_end(&self) -> u64 {
        self.list.limit().map_or(self.offset, |limit| limit.0)
    }
}

/// The writer at the recovered end of the log.
fn make_writer(
    wiring: &Wiring,
    way: WriteWay,
    last: &LogEnd<'_>,
    pool: ChunkPool,
    flush: CountedSender<FlushRequest>,
    wrote_directly: Arc<AtomicBool>,
) -> WriterSide {
    let config = &wiring.config;
    let segment_bytes = config.mapped_file_size_commit_log;
    let options = WriterOptions {
        segment_bytes,
        flush_mode: way.flush_mode,
        write_kind: if way.path == SegmentPath::DirectSync { WriteKind::Durable } else { WriteKind::Volatile },
        sync_flush_timeout_ms: config.sync_flush_timeout,
    };
    let (end, ready_end) = (last.offset, last.ready_end());
    let view = Arc::clone(last.view);
    let writer = Writer::new(view, pool, options, end, ready_end, last.store_timestamp, last.tail_page);
    let current = last.list.segments().iter().filter(|segment| segment.start().0 + segment_bytes > end);
    let shell = LogShell::new(LogShellOptions {
        segments: current.cloned().collect(),
        segment_bytes,
        path: way.path,
        chooser: way.chooses.then(PathChooser::default),
        delay: (way.path == SegmentPath::DirectSync && config.commit_delay_max_us > 0)
            .then(|| CommitDelay::new(config.commit_delay_max_us * 1_000)),
        zeroes_ahead: way.zeroes_ahead,
        wrote_directly,
        write_back_bytes: config.write_back_bytes,
        end,
        write_token: Token::new(kind::WRITE, 0, 0),
        sync_token: Token::new(kind::SYNC, 0, 0),
        flush,
        shared: Arc::clone(&wiring.shared),
        probe: wiring.registry.probe("shard-0"),
    });
    WriterSide { writer, shell }
}
