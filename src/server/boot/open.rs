//! What a start opens before any thread runs: store, identity, state files, the name server's tables.

use std::path::Path;

use ringmq_shards::disk::LoadedState;
use ringmq_shards::queue::limits::ENTRY_BYTES;

use super::*;
use crate::config::Source;

/// What request 318 has changed, in the name server's folder.
pub(super) const NAMESRV_SETTINGS_FILE: &str = "namesrv.properties";

pub(super) fn open_broker(
    config: &mut Config,
    disk: &Arc<dyn Disk>,
    clock: &Arc<dyn Clock>,
    descriptors: u64,
    salvage: bool,
) -> Result<BrokerStart, BootError> {
    let (flush_mode, wanted) = match config.flush_disk_type {
        FlushDiskType::AsyncFlush => (FlushMode::Async, config.async_write_path),
        FlushDiskType::SyncFlush => (FlushMode::Sync, config.sync_write_path),
    };
    let can_direct = wanted == WritePath::Direct || supports_direct(config, disk)?;
    let path = match (flush_mode, wanted) {
        (_, WritePath::PageCache) => SegmentPath::PageCache,
        (_, WritePath::Auto) if !can_direct => SegmentPath::PageCache,
        (FlushMode::Async, _) => SegmentPath::Direct,
        (FlushMode::Sync, _) => SegmentPath::DirectSync,
    };
    // In ASYNC_FLUSH the page cache wins for all but large groups on memory that is dear: each group is decided by itself.
    let chooses = flush_mode == FlushMode::Async && wanted == WritePath::Auto && can_direct;
    let zero_ahead_bytes = if path == SegmentPath::PageCache { 0 } else { config.zero_ahead_bytes };
    let index = config.message_index_enable.then(|| IndexGeometry {
        slots: u32::try_from(config.max_hash_slot_num).unwrap_or(u32::MAX),
        entries: u32::try_from(config.max_index_num).unwrap_or(u32::MAX),
    });
    let options = StorageOptions {
        root: config.root_dir(),
        commit_log: config.commit_log_dir(),
        segment_bytes: config.mapped_file_size_commit_log,
        queue_file_entries: config.mapped_file_size_consume_queue / ENTRY_BYTES,
        queue_open_files: limits::descriptors_for_queue_files(descriptors),
        tail_bytes: tail_bytes(config),
        write_path: path,
        zero_ahead_bytes,
        ring_bytes: ring_bytes(config) as u64,
        is_sync: flush_mode == FlushMode::Sync,
        salvage,
        index,
    };
    let storage = storage::open(disk, clock, &options)?;
    let advertise = adopt_identity(config, disk)?;
    let identity = Arc::new(ServingIdentity::new(
        config.broker_cluster_name.clone(),
        config.region_id.clone(),
        config.trace_on,
        SocketAddr::new(advertise, config.broker_port),
    ));
    let ring = LogRing::new(ring_bytes(config)).map_err(system("map the log ring"))?;
    let recovered = &storage.recovered;
    let view =
        LogView::new(ring, limits::PIN_SLOTS, recovered.min.0, recovered.end.0, recovered.last_store_timestamp.0);
    view.begin_synced_at(recovered.durable_point.offset.0);
    let memory_window_bytes = machine::memory_bytes() / 100 * MEMORY_WINDOW_PERCENT;
    let way = WriteWay { flush_mode, path, chooses, zeroes_ahead: zero_ahead_bytes > 0 };
    Ok(BrokerStart { storage, view, identity, way, memory_window_bytes })
}

/// Whether the file system of the log can be written around the page cache.
pub(super) fn supports_direct(config: &Config, disk: &Arc<dyn Disk>) -> Result<bool, BootError> {
    let directory = config.commit_log_dir();
    // Here a start finds out that it has no place to write to, or one of somebody else: the path belongs to the message.
    let named = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let create = |path: &Path| create_directories_durably(disk.as_ref(), path).map_err(|error| named(path, error));
    create(&directory).map_err(system("create the directory of the log"))?;
    let path = config.own_dir().join("direct-probe");
    create(&config.own_dir()).map_err(system("create the folder ringmq"))?;
    let probe = disk.open(&path, OpenOptions { create: true, ..OpenOptions::default() });
    probe.map_err(|error| named(&path, error)).map_err(system("create a file in the folder ringmq"))?;
    let direct = OpenOptions { write: true, direct: true, ..OpenOptions::default() };
    let result = match disk.open(&path, direct) {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => Ok(false),
        Err(source) => Err(BootError::System { action: "open a file with O_DIRECT", source }),
    };
    disk.remove_file(&path).map_err(system("remove a file from the folder ringmq"))?;
    result
}

/// The configured size of the log ring, rounded up to what the ring can be.
pub fn ring_bytes(config: &Config) -> usize {
    let wanted = usize::try_from(config.log_ring_bytes).unwrap_or(usize::MAX / 2);
    wanted.max(ringmq_shards::log::limits::RING_BYTES_MIN).next_power_of_two()
}

/// Memory of all queue tails: 64 MiB, but no more than a quarter of the budget.
pub(super) fn tail_bytes(config: &Config) -> u64 {
    let budget = config.memory_budget_bytes(machine::memory_bytes());
    ringmq_shards::queue::limits::DEFAULT_POOL_BYTES.min(budget / 4)
}

/// Shards that share a processor would keep it from each other.
pub(super) fn spin_limit(config: &Config, shards: usize, cores: usize) -> Duration {
    Duration::from_micros(if shards <= cores { config.spin_before_sleep_us } else { 0 })
}

/// The broker's name and address: chosen once, kept for ever.
pub(super) fn adopt_identity(config: &mut Config, disk: &Arc<dyn Disk>) -> Result<IpAddr, BootError> {
    let file = StateFile::new(config.own_dir().join(identity::FILE_NAME));
    let kept = file.load(disk.as_ref(), identity::kept_name)?.and_then(|loaded| loaded.value);
    let chosen = identity::choose(kept.as_deref(), &config.broker_name, &machine::host_name());
    if let Some(contents) = &chosen.contents_to_write {
        file.persist(disk.as_ref(), contents.as_bytes(), |_| true)?;
    }
    let advertise = config
        .advertised_address(machine::resolve, machine::outward_address)
        .map_err(|error| BootError::Config(error.to_string()))?;
    config.adopt_identity(&chosen.broker_name, advertise);
    Ok(advertise)
}

pub(super) fn bind(config: &Config, roles: Roles) -> Result<Vec<ListenerSlot>, BootError> {
    let mut wanted = Vec::new();
    if roles.broker {
        wanted.push((config.broker_port, "--broker-port", Listener::Broker));
        if let Some(port) = config.fast_port() {
            wanted.push((
                port,
                "--broker-port (the fast port is 2 below it) or fast_port_enable=false",
                Listener::Broker,
            ));
        }
    }
    if roles.namesrv {
        wanted.push((config.namesrv_port, "--namesrv-port", Listener::Namesrv));
    }
    let options = socket::ListenOptions {
        backlog: config.server_socket_backlog,
        send_buffer_bytes: config.server_socket_snd_buf_size,
        receive_buffer_bytes: config.server_socket_rcv_buf_size,
    };
    let bind_one = |(port, key, listener)| {
        let address = SocketAddr::new(config.listen, port);
        match socket::listen(address, options) {
            Ok(socket) => Ok(ListenerSlot { socket, listener }),
            Err(source) => Err(BootError::Listen { address, key, source }),
        }
    };
    wanted.into_iter().map(bind_one).collect()
}

/// The port of the metrics page. One that nobody asked for may be missing: the second broker of a host finds the default taken.
pub(super) fn bind_metrics(config: &Config) -> Result<Option<TcpListener>, BootError> {
    const KEY: &str = "metrics_listen";
    let Some(address) = config.metrics_listen else { return Ok(None) };
    match TcpListener::bind(address) {
        Ok(listener) => Ok(Some(listener)),
        Err(error) if *config.settings().source(KEY) == Source::Default => {
            tracing::warn!(%address, %error, "metrics are not served: choose another {KEY}");
            Ok(None)
        }
        Err(source) => Err(BootError::Listen { address, key: KEY, source }),
    }
}

pub(super) fn open_namesrv(config: &Config, disk: &Arc<dyn Disk>) -> Result<NameServer, BootError> {
    let path = config.root_dir().join("namesrv");
    ringmq_shards::disk::create_directories_durably(disk.as_ref(), &path)
        .map_err(system("create the name server's folder"))?;
    let home = std::env::var("HOME").unwrap_or_default();
    let text = config.namesrv_config_text(machine::processors() as u64, &home);
    let mut namesrv = NameServer::new(NamesrvConfig::default());
    namesrv.configure(config::properties::parse(&text).unwrap_or_default());
    // What request 318 has changed wins over the configuration, as the live changes of a broker do.
    let mut kept = Vec::new();
    let load = |bytes: &[u8]| {
        let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
        kept = config::properties::parse(text).map_err(|error| error.to_string())?;
        Ok(())
    };
    tell_of_backup(NAMESRV_SETTINGS_FILE, StateFile::new(path.join(NAMESRV_SETTINGS_FILE)).load(disk.as_ref(), load)?);
    for (key, value) in kept {
        namesrv.keep_setting(&key, &value);
    }
    let kv_file = StateFile::new(config.kv_config_file());
    let load = |bytes: &[u8]| namesrv.load_kv_config(bytes).map_err(|error| error.to_string());
    tell_of_backup("kvConfig.json", kv_file.load(disk.as_ref(), load)?);
    Ok(namesrv)
}

/// What a backup holds may be older than what was once acknowledged.
fn tell_of_backup(name: &str, loaded: Option<LoadedState<()>>) {
    if let Some(problem) = loaded.and_then(|loaded| loaded.backup_used) {
        tracing::warn!(file = name, problem, "a state file cannot be used, its backup is");
    }
}

pub(super) fn open_control(
    config: &Config,
    disk: &Arc<dyn Disk>,
    directory: &std::path::Path,
    queues: &ringmq_shards::queue::QueueStore,
) -> Result<Control, BootError> {
    let identity = BrokerIdentity {
        cluster: config.broker_cluster_name.clone(),
        name: config.broker_name.clone(),
        id: 0,
        address: config.advertised_endpoint(),
        ha_address: config.ha_endpoint(),
    };
    let home = std::env::var("HOME").unwrap_or_default();
    let access = LiveConfig::new(config.clone(), machine::processors() as u64, &home);
    let mut control = Control::new(identity, ControlConfig::from(config)).with_config_access(Box::new(access));
    for name in ["topics.json", "subscriptionGroup.json", "consumerOffset.json"] {
        let file = StateFile::new(directory.join(name));
        let load = |bytes: &[u8]| control.load_state([(name, bytes)]).map_err(|error| error.to_string());
        tell_of_backup(name, file.load(disk.as_ref(), load)?);
    }
    let end = |topic: &str, queue_id: i32| {
        let queue = queues.get(topic, ringmq_shards::types::QueueId(u32::try_from(queue_id).ok()?))?;
        i64::try_from(queue.bounds().1.0).ok()
    };
    for (key, queue_id, from, to) in control.offsets.clamp(end) {
        tracing::warn!(key, queue_id, from, to, "a committed offset lay above its queue's end and was lowered");
    }
    Ok(control)
}
