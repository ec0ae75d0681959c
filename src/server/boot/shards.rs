//! The shards' executors, each with its ring, core and event loop.

use super::*;
use crate::server::background;

/// What the shards are made from, beside the wiring.
pub(super) struct ShardStart {
    pub(super) mailboxes: Vec<(MailboxSender<ShardMessage>, Mailbox<ShardMessage>, WakeHandle)>,
    pub(super) listeners: Vec<ListenerSlot>,
    pub(super) cores: Vec<usize>,
    pub(super) control: SyncSender<ControlRequest>,
    pub(super) cold: SyncSender<ColdPull>,
    pub(super) flush: CountedSender<FlushRequest>,
    pub(super) view: Option<Arc<LogView>>,
    pub(super) serving: Option<Arc<Serving>>,
    pub(super) writer: Option<WriterSide>,
}

/// Starts the executors; returns when each has its ring.
pub(super) fn start_shards(wiring: &Wiring, start: ShardStart) -> Result<Vec<ShardHandle>, BootError> {
    let Wiring { config, clock, registry, lifecycle, senders, shared, last_words, .. } = wiring;
    let spin_limit = spin_limit(config, start.mailboxes.len(), start.cores.len());
    let mut listeners = Some(start.listeners);
    let mut writer = start.writer;
    let seed = clock.now_ms();
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
            Arc::clone(shared),
            registry.probe(&format!("shard-{index}")),
            log,
            start.view.clone(),
            start.serving.clone(),
            start.control.clone(),
            start.cold.clone(),
            std::mem::take(&mut peers),
            send_state,
        );
        let plan = ShardPlan { name: format!("shard-{index}"), core: Some(start.cores[index % start.cores.len()]) };
        let (flush, peers, view) = (start.flush.clone(), senders.clone(), start.view.clone());
        let (clock, lifecycle) = (Arc::clone(clock), Arc::clone(lifecycle));
        let idle_connection_ms = config.server_channel_max_idle_time_seconds * 1_000;
        let own_listeners = listeners.take().unwrap_or_default();
        let (made, word) = (made_sender.clone(), last_words.clone());
        let handle = spawn_shard(plan, move || async move {
            background::come_first();
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
                gave_way_ns: 0,
                idle_connection_ms,
            };
            event_loop.run().await;
            drop(word);
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
