//! What connections hold, and when that is too much: limits of their own, and the budget of all buffers.

use super::*;
use crate::server::hold::HELD_PULL_BYTES;

impl ShardCore {
    /// Whether a connection has reached its own limit, so that it should not be read. A frame that is not complete is read on,
    /// however long it is: one request is always admitted.
    pub fn is_over_limit(&self, id: SlotId) -> bool {
        self.is_full(id)
            || self.connections.get(id).is_some_and(|connection| {
                if connection.waits_for_long {
                    return true;
                }
                let input = connection.input.len();
                input > self.settings.connection_in_flight_bytes && input >= connection.wanted_input
            })
    }

    /// Whether a connection holds so much that it must not be read until memory returns.
    pub fn is_starved(&self, id: SlotId) -> bool {
        let used = self.others_bytes + self.buffer_bytes;
        self.connections
            .get(id)
            .is_some_and(|connection| self.shared.buffers.starves(used, connection.accounted_bytes as u64))
    }

    /// How long a frame may take to arrive, milliseconds.
    pub fn frame_timeout_ms(&self) -> u64 {
        let timeout_ms = self.shared.live.frame_timeout_ms.load(Ordering::Relaxed);
        if self.pressure == Pressure::Exhausted { timeout_ms.min(limits::EXHAUSTED_FRAME_MS) } else { timeout_ms }
    }

    /// Whether requests without an answer and answers that are not taken reach a connection's limit: then none of its
    /// requests is executed, also not one that has arrived.
    pub fn is_full(&self, id: SlotId) -> bool {
        self.connections.get(id).is_some_and(|connection| {
            connection.unanswered_bytes + connection.outbox.queued_bytes() > self.settings.connection_in_flight_bytes
        })
    }

    /// Whether a connection takes more answers to its held pulls. Their requests do not count: they wait for nothing else.
    pub(super) fn takes_answers(&self, id: SlotId) -> bool {
        let (_, held_bytes) = self.held.of_connection(id);
        self.connections.get(id).is_some_and(|connection| {
            let bytes = connection.unanswered_bytes.saturating_sub(held_bytes) + connection.outbox.queued_bytes();
            bytes <= self.settings.connection_in_flight_bytes
        })
    }

    /// Whether requests of a connection that was kept from being read can be executed.
    pub(super) fn can_go_on(&self, id: SlotId) -> bool {
        let connection = self.connections.get(id);
        connection.is_some_and(|connection| {
            let waits = connection.paused || connection.is_parked;
            waits && !connection.closing && !connection.is_blocked && !connection.waits_for_long && !self.is_full(id)
        })
    }

    /// A connection holds less than before: notes what can go on for that. Nothing else looks at connections at their limit.
    pub(super) fn note_relief(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get(id) else { return };
        if self.held.is_empty() && !connection.paused && !connection.is_parked {
            return;
        }
        let may_be_read = self.can_go_on(id);
        let has_stalled = self.held.first_stalled(id).is_some();
        let takes_answers = has_stalled && self.takes_answers(id);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if may_be_read && !connection.is_relieved {
            connection.is_relieved = true;
            self.relieved.push(id);
        }
        if takes_answers && !connection.is_resumable {
            connection.is_resumable = true;
            self.resumable.push_back(id);
        }
    }

    /// Whether an answer to a pull may be this long: a quarter of the budget stays for requests, and for answers that are short.
    pub(super) fn has_room_for(&self, bytes: usize) -> bool {
        self.shared.buffers.leaves_a_quarter(self.others_bytes + self.buffer_bytes + bytes as u64)
    }

    /// Whether pulls of a connection wait: memory is short and it has not taken the answers before, or nobody is read any more.
    pub(super) fn waits_for_memory(&self, id: SlotId) -> bool {
        if self.has_room_for(0) {
            return false;
        }
        let has_unread = |connection: &Connection| connection.outbox.queued_bytes() > 0 || connection.cold_pulls > 0;
        self.connections.get(id).is_some_and(has_unread)
            || self.shared.buffers.starves(self.others_bytes + self.buffer_bytes, 0)
    }

    /// Tells others what the connections of this shard hold, if that has changed by much, and learns the same of them.
    pub(super) fn publish_buffers(&mut self) {
        if self.buffer_bytes.abs_diff(self.published_bytes) >= PUBLISH_STEP_BYTES {
            self.shared.buffers.publish(self.published_bytes, self.buffer_bytes);
            self.published_bytes = self.buffer_bytes;
            self.others_bytes = self.shared.buffers.used().saturating_sub(self.published_bytes);
        }
    }

    /// Whether buffers have used up their budget, so that pauses are not the connections' own doing.
    pub fn is_memory_short(&self) -> bool {
        self.pressure != Pressure::None
    }

    /// Counts what a connection's buffers hold now, and its held pulls.
    pub fn account(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id) {
            let outbox = &connection.outbox;
            let (held, _) = self.held.of_connection(id);
            let held_bytes = held * HELD_PULL_BYTES;
            let bytes = connection.input.len() + outbox.queued_bytes() - outbox.piped_bytes() + held_bytes;
            self.buffer_bytes = self.buffer_bytes + bytes as u64 - connection.accounted_bytes as u64;
            connection.accounted_bytes = bytes;
            self.note_relief(id);
        }
    }
}
