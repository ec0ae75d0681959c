//! Requests that are neither sends nor pulls: handed to the control thread, and answered by it or by the store thread.
//!
//! Invariant: of requests whose answers may be long a connection has one under way. So a peer that reads nothing holds its bound
//! and one answer.

use super::*;

impl ShardCore {
    pub(super) fn hand_to_control(&mut self, id: SlotId, header: &Header<'_>, whole: &[u8]) -> Progress {
        let is_long = !header.is_response() && !header.is_oneway() && !is_answered_briefly(header.code);
        if let Some(connection) = self.connections.get_mut(id)
            && is_long
            && connection.awaits_long
        {
            // How much that will be is not known before it is here.
            connection.waits_for_long = true;
            return Progress::Blocked;
        }
        let connection = connection_number(self.settings.index, id);
        let answers = Charge { bytes: whole.len() + limits::BRIEF_ANSWER_BYTES, is_long };
        let message = ControlRequest::Command { connection, frame: whole.to_vec(), answers, at_ns: self.now_ns };
        self.ask_control(id, header, answers, message)
    }

    /// Hands a request over, or refuses it when too many wait.
    pub(super) fn ask_control(
        &mut self,
        id: SlotId,
        header: &Header<'_>,
        answers: impl Into<Charge>,
        message: ControlRequest,
    ) -> Progress {
        let answers = answers.into();
        let comes_back = matches!(message, ControlRequest::CreateTopic { .. } | ControlRequest::CreateGroup { .. });
        match self.control.try_send(message) {
            Ok(()) => {
                self.counters.control_asked += 1;
                self.charge(id, answers.bytes);
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.awaits_long |= answers.is_long;
                    connection.executed_again += u32::from(comes_back);
                }
            }
            Err(error) => {
                let remark = match error {
                    TrySendError::Full(_) => "too many requests wait for the broker's control thread; try again",
                    TrySendError::Disconnected(_) => "the broker is stopping",
                };
                self.refuse(id, header, &Refusal::new(response::SYSTEM_BUSY, remark));
            }
        }
        Progress::Done
    }

    /// A frame for a connection, from another thread. `copy_ring` copies ring memory that was added in this turn.
    pub fn deliver(
        &mut self,
        id: SlotId,
        frame: Vec<u8>,
        answers: Charge,
        copy_ring: impl FnMut(u64, usize, &mut Vec<u8>),
    ) {
        // A peer that does not take its answers gets no notices either: each is one of many.
        let is_dropped = answers == Charge::default() && self.is_full(id);
        self.discharge(id, answers.bytes);
        let Some(connection) = self.connections.get_mut(id) else { return };
        if answers.is_long {
            connection.awaits_long = false;
            connection.waits_for_long = false;
        }
        if !frame.is_empty() && !connection.closing && !is_dropped {
            connection.outbox.push_frame(frame, copy_ring);
            self.mark_dirty(id);
            self.account(id);
        }
        self.note_relief(id);
    }
}

/// Whether the answer to a request for the control plane tells no more than an outcome, an offset or what the request listed.
/// Source: the handlers of [`crate::broker::dispatch`].
fn is_answered_briefly(code: i32) -> bool {
    matches!(
        code,
        request::HEART_BEAT
            | request::UPDATE_CONSUMER_OFFSET
            | request::QUERY_CONSUMER_OFFSET
            | request::LOCK_BATCH_MQ
            | request::UNLOCK_BATCH_MQ
            | request::UNREGISTER_CLIENT
            | request::CHECK_CLIENT_CONFIG
            | request::GET_MAX_OFFSET
            | request::GET_MIN_OFFSET
            | request::SEARCH_OFFSET_BY_TIMESTAMP
            | request::GET_EARLIEST_MSG_STORETIME
    )
}
