//! Both ends of the way between this shard and the writer's: see [`crate::server::remote`].

use super::*;

impl ShardCore {
    /// Whether anything has come through a lane that was not looked at, and can be dealt with.
    pub fn has_remote_news(&self) -> bool {
        match &self.log {
            LogPort::Local(_) => self.peers.iter().any(WriterPeer::has_news),
            LogPort::Remote(remote) => remote.has_answers(),
            LogPort::None => false,
        }
    }

    /// On the writer's shard: whether records of other shards wait for room in the log, or verdicts for room in their lane.
    pub fn has_remote_waits(&self) -> bool {
        self.peers.iter().any(WriterPeer::waits)
    }

    /// Takes what has come through the lanes: records on the writer's shard, verdicts and wake-ups on others. `wall_ms` reads
    /// the wall clock.
    pub fn take_remote(&mut self, mut wall_ms: impl FnMut() -> u64) {
        let steady_ms = self.now.steady_ms;
        let patience_ms = self.room_patience_ms();
        if let LogPort::Local(writer) = &mut self.log {
            for peer in &mut self.peers {
                peer.take(writer, patience_ms, || Now { steady_ms, wall_ms: wall_ms() });
            }
        }
        // What has come while this is done is for the next turn.
        for _ in 0..limits::REMOTE_ANSWERS {
            let LogPort::Remote(remote) = &mut self.log else { return };
            match remote.receive() {
                Some(FromWriter::Settled(settled)) => {
                    self.counters.send_hops += 1;
                    self.settled(settled);
                }
                Some(FromWriter::Wake(queue)) => self.wake(&queue),
                None => return,
            }
        }
    }

    /// Sends on what this turn has prepared for other shards.
    pub fn publish_remote(&mut self) {
        if let LogPort::Remote(remote) = &mut self.log {
            remote.publish();
        }
        for peer in &mut self.peers {
            peer.flush();
        }
    }

    /// A verdict of the writer goes to the shard that asked, at the latest with [`ShardCore::publish_remote`].
    pub fn route_settled(&mut self, settled: Settled) {
        let shard = usize::from(settled.ticket.shard);
        if shard == self.settings.index {
            self.settled(settled);
        } else if let Some(peer) = self.peers.get_mut(shard - 1) {
            peer.tell(FromWriter::Settled(settled));
        }
    }

    /// Pulls that wait for a queue are woken on these shards, a bit each.
    pub fn route_wake(&mut self, queue: &Arc<Queue>, shards: u64) {
        if shards & (1 << self.settings.index) != 0 {
            self.wake(queue);
        }
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if shards & (1 << (index + 1)) != 0 {
                peer.tell(FromWriter::Wake(Arc::clone(queue)));
            }
        }
    }

    /// Record bytes of this shard on their way to the writer.
    pub(super) fn remote_bytes(&self) -> usize {
        match &self.log {
            LogPort::Remote(remote) => remote.bytes_out(),
            LogPort::Local(_) | LogPort::None => 0,
        }
    }
}
