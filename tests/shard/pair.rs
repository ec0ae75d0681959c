//! Two shards: a [`World`] with the writer, and one whose sends reach it through lanes.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use ringmq::broker::send::SendState;
use ringmq::server::connection::Listener;
use ringmq::server::core::{LogPort, ShardCore, ShardSettings};
use ringmq::server::messages::{ColdPull, ControlRequest};
use ringmq::server::remote::connect;
use ringmq::server::slab::SlotId;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::MAX_FRAME_BYTES;
use ringmq_shards::probe::Registry;
use ringmq_shards::runtime::WakeHandle;

use super::world::*;

/// See the module's text.
pub struct Pair {
    /// The writer's shard.
    pub world: World,
    /// The other one.
    pub core: ShardCore,
    pub sent_bytes: u64,
    /// Bytes that the one connection of the other shard was sent.
    received: Vec<u8>,
    pub keep_received: bool,
    dirty: Vec<SlotId>,
    broken: Vec<SlotId>,
    /// Kept so that requests can be asked.
    _control: Receiver<ControlRequest>,
    _cold: Receiver<ColdPull>,
}

impl Pair {
    pub fn new(shape: Shape) -> Self {
        let wake = || WakeHandle::new().expect("an eventfd");
        let (log, peer) = connect(wake(), wake());
        let world = World::with_peers(shape, vec![peer]);
        let settings = ShardSettings {
            index: 1,
            max_frame_bytes: MAX_FRAME_BYTES,
            connection_in_flight_bytes: shape.in_flight_bytes,
            memory_window_bytes: 1 << 30,
        };
        let (control_sender, control) = sync_channel(4_096);
        let (cold_sender, cold) = sync_channel(4_096);
        let mut core = ShardCore::new(
            settings,
            Arc::clone(&world.shared),
            Registry::new().probe("shard-1"),
            LogPort::Remote(Box::new(log)),
            Some(Arc::clone(&world.view)),
            Some(serving(&world.queues)),
            control_sender,
            cold_sender,
            Vec::new(),
            SendState::new("127.0.0.1".parse().unwrap(), 8),
        );
        core.begin_turn(world.now_ms, world.now_ms * 1_000_000);
        Self {
            world,
            core,
            sent_bytes: 0,
            received: Vec::new(),
            keep_received: true,
            dirty: Vec::new(),
            broken: Vec::new(),
            _control: control,
            _cold: cold,
        }
    }

    /// The connection of the other shard; there is only one.
    pub fn connect(&mut self) -> SlotId {
        self.core.open(None, Listener::Broker, "127.0.0.1:40001".parse().unwrap()).expect("there is room")
    }

    /// Sends one frame to the other shard.
    pub fn request(&mut self, id: SlotId, command: &Command) {
        assert!(self.core.received(id, &command.encode()));
    }

    /// A turn of the other shard.
    pub fn turn_other(&mut self) {
        let now_ms = self.world.now_ms;
        self.core.begin_turn(now_ms, now_ms * 1_000_000);
        self.core.take_remote(|| now_ms);
        self.core.retry_blocked(&mut self.broken);
        self.core.go_on_with_pulls();
        self.core.publish_remote();
        let (received, sent_bytes, keep) = (&mut self.received, &mut self.sent_bytes, self.keep_received);
        give_output(&mut self.core, &self.world.view, &mut self.dirty, |_, bytes| {
            *sent_bytes += bytes.len() as u64;
            if keep {
                received.extend_from_slice(bytes);
            }
        });
        self.world.view.unpin(1);
        assert!(self.broken.is_empty());
    }

    /// A turn of each.
    pub fn turn(&mut self) {
        self.turn_other();
        assert!(self.world.turn().is_empty());
    }

    /// Takes the answers that the other shard's connection has received.
    pub fn answers(&mut self) -> Vec<Command> {
        decode_answers(&std::mem::take(&mut self.received))
    }
}
