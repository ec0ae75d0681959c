//! Connections whose requests wait: for room in the log, for their peer to take answers, or for the next turn.
//!
//! Invariant: a connection with requests that can be executed is in the list of blocked ones, or a completion that is to come says
//! that it holds less ([`ShardCore::note_relief`]).

use super::*;

impl ShardCore {
    /// Requests that waited for the log, or for this turn, are tried again. Each turn begins with another connection, and none
    /// has more than its share executed, so that whoever has sent most does not take all the room.
    pub fn retry_blocked(&mut self, broken: &mut Vec<SlotId>) {
        self.goes_on = false;
        if self.blocked.is_empty() {
            return;
        }
        let mut blocked = std::mem::replace(&mut self.blocked, std::mem::take(&mut self.spare_blocked));
        blocked.rotate_left(1);
        for id in blocked.drain(..) {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.is_blocked = false;
                connection.wanted_input = 0;
                if !self.continue_input(id) {
                    broken.push(id);
                } else if self.is_full(id) {
                    self.park(id);
                } else {
                    self.note_relief(id);
                }
            }
        }
        self.spare_blocked = blocked;
    }

    /// What has arrived already is looked at again when answers have been taken, or have come.
    pub(super) fn park(&mut self, id: SlotId) {
        if let Some(connection) = self.connections.get_mut(id) {
            connection.is_parked = true;
        }
    }

    /// Moves the names of connections to `out` that may not have to be kept from being read any longer; see
    /// [`ShardCore::relieve`].
    pub fn take_relieved(&mut self, out: &mut Vec<SlotId>) {
        out.append(&mut self.relieved);
        for id in out.iter() {
            if let Some(connection) = self.connections.get_mut(*id) {
                connection.is_relieved = false;
            }
        }
    }

    /// Whether there are any.
    pub fn has_relieved(&self) -> bool {
        !self.relieved.is_empty()
    }

    /// Looks at the input of a connection that was at its limit. `None` when it still is, else whether it may stay open.
    pub fn relieve(&mut self, id: SlotId) -> Option<bool> {
        if !self.can_go_on(id) {
            return None;
        }
        let connection = self.connections.get_mut(id)?;
        connection.paused = false;
        connection.is_parked = false;
        connection.wanted_input = 0;
        Some(self.continue_input(id))
    }

    /// Whether requests wait for the next turn, and for nothing else.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// Whether requests wait for room in the log.
    pub fn has_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// What else has arrived is for the next turn.
    pub(super) fn postpone(&mut self, id: SlotId) {
        self.goes_on = true;
        self.list_blocked(id);
    }

    pub(super) fn block(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get(id) else { return };
        if connection.waits_for_long {
            // The answer says when to go on; it may take long.
            self.park(id);
            return;
        }
        self.counters.blocked += u64::from(!connection.waits_for_memory);
        self.list_blocked(id);
    }

    fn list_blocked(&mut self, id: SlotId) {
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.is_blocked {
            connection.is_blocked = true;
            self.blocked.push(id);
        }
    }
}
