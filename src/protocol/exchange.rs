//! One connection's conversation as a state machine: commands become bytes, bytes become answers that belong to a
//! request, and requests of the peer. Pure: owns buffers and numbers, no socket.
//!
//! Invariant: a request's number (opaque) is used once per conversation until it wraps, and only numbers that are waited
//! for are accepted.

use std::collections::BTreeSet;

use bytes::{Buf, BytesMut};
use thiserror::Error;

use crate::command::Command;
use crate::flags::RPC_ONEWAY;
use crate::frame::{FrameError, MAX_FRAME_BYTES, Split, split_frame};
use crate::header::HeaderError;

/// Bytes that are no frame of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ProtocolError {
    /// The stream cannot be cut into frames.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame's header is malformed.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// The number of a request that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(i32);

/// A frame from the peer.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// The answer to the request with this ticket.
    Answer(Ticket, Command),
    /// A request of the peer.
    Request(Command),
}

/// Both directions of one connection.
#[derive(Debug, Default)]
pub struct Exchange {
    /// Received bytes that belong to no complete frame yet. Taking a frame off its front moves nothing.
    input: BytesMut,
    next_opaque: i32,
    waiting: BTreeSet<Ticket>,
    stray_answers: u64,
}

impl Exchange {
    /// Appends a request to `out` and expects its answer. The opaque of the command is replaced.
    pub fn submit(&mut self, mut request: Command, out: &mut Vec<u8>) -> Ticket {
        let ticket = self.next_ticket();
        request.opaque = ticket.0;
        request.encode_into(out);
        self.waiting.insert(ticket);
        ticket
    }

    /// Appends a request that is not answered.
    pub fn submit_oneway(&mut self, mut request: Command, out: &mut Vec<u8>) {
        request.opaque = self.next_ticket().0;
        request.flag |= RPC_ONEWAY;
        request.encode_into(out);
    }

    fn next_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_opaque);
        self.next_opaque = self.next_opaque.checked_add(1).unwrap_or(0);
        ticket
    }

    /// Takes bytes from the peer.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next frame that is complete. Answers that nobody waits for are counted and left out.
    ///
    /// # Errors
    /// The stream cannot be continued.
    pub fn take(&mut self) -> Result<Option<Incoming>, ProtocolError> {
        loop {
            let Split::Frame { frame, length } = split_frame(&self.input, MAX_FRAME_BYTES)? else { return Ok(None) };
            let command = Command::decode(frame)?;
            self.input.advance(length);
            if !command.is_response() {
                return Ok(Some(Incoming::Request(command)));
            }
            let ticket = Ticket(command.opaque);
            if self.waiting.remove(&ticket) {
                return Ok(Some(Incoming::Answer(ticket, command)));
            }
            self.stray_answers += 1;
        }
    }

    /// Stops waiting for an answer; if it comes it counts as stray.
    pub fn forget(&mut self, ticket: Ticket) {
        self.waiting.remove(&ticket);
    }

    /// Requests without an answer.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Answers that nobody waited for: second ones, late ones, those to oneway requests.
    pub fn stray_answers(&self) -> u64 {
        self.stray_answers
    }
}

#[cfg(test)]
mod tests {
    use crate::codes::request::{GET_MAX_OFFSET, NOTIFY_CONSUMER_IDS_CHANGED};

    use super::*;

    fn answer(ticket: Ticket, code: i32) -> Vec<u8> {
        Command::response(code, ticket.0).encode()
    }

    /// Goal: answers find their requests whatever the order and the cuts. Method: three requests, answers reversed, fed
    /// byte by byte.
    #[test]
    fn answers_find_their_requests() {
        let mut exchange = Exchange::default();
        let mut out = Vec::new();
        let tickets: Vec<Ticket> =
            (0..3).map(|_| exchange.submit(Command::request(GET_MAX_OFFSET), &mut out)).collect();
        let stream: Vec<u8> =
            tickets.iter().rev().zip([7, 8, 9]).flat_map(|(ticket, code)| answer(*ticket, code)).collect();
        let mut got = Vec::new();
        for byte in stream {
            exchange.receive(&[byte]);
            while let Some(incoming) = exchange.take().expect("well-formed") {
                let Incoming::Answer(ticket, command) = incoming else { panic!("an answer") };
                got.push((ticket, command.code));
            }
        }
        assert_eq!(got, [(tickets[2], 7), (tickets[1], 8), (tickets[0], 9)]);
        assert_eq!(exchange.waiting(), 0);
    }

    /// Goal: nothing unexpected is taken for an answer. Method: a second answer, one to a oneway request, one to a
    /// forgotten request, a request of the peer with a number in use.
    #[test]
    fn stray_answers_are_counted() {
        let mut exchange = Exchange::default();
        let mut out = Vec::new();
        let ticket = exchange.submit(Command::request(GET_MAX_OFFSET), &mut out);
        exchange.submit_oneway(Command::request(GET_MAX_OFFSET), &mut out);
        let forgotten = exchange.submit(Command::request(GET_MAX_OFFSET), &mut out);
        exchange.forget(forgotten);
        let notice = Command { opaque: ticket.0, ..Command::request(NOTIFY_CONSUMER_IDS_CHANGED) };
        for bytes in [notice.encode(), answer(ticket, 0), answer(ticket, 0), answer(Ticket(1), 0), answer(forgotten, 0)]
        {
            exchange.receive(&bytes);
        }
        assert_eq!(exchange.take(), Ok(Some(Incoming::Request(notice))));
        assert!(matches!(exchange.take(), Ok(Some(Incoming::Answer(got, _))) if got == ticket));
        assert_eq!(exchange.take(), Ok(None));
        assert_eq!(exchange.stray_answers(), 3);
    }

    /// Goal: a peer that speaks something else is noticed. Method: text instead of a frame, a frame with a bad header.
    #[test]
    fn other_protocols_are_refused() {
        let mut exchange = Exchange::default();
        exchange.receive(b"HTTP/1.1 400 Bad Request");
        assert!(matches!(exchange.take(), Err(ProtocolError::Frame(_))));
        let mut exchange = Exchange::default();
        exchange.receive(&[0, 0, 0, 6, 0, 0, 0, 2, b'{', b'[']);
        assert!(matches!(exchange.take(), Err(ProtocolError::Header(_))));
    }
}
