//! What a connection still has to send.
//!
//! Answers are encoded into one byte buffer; the bodies of pulls are slices of ring memory between them. At the end of a turn
//! everything goes out in one operation: plain bytes from a buffer that stays put until the kernel is done, or, when there are
//! slices, one gathered non-blocking send, of which the kernel takes what fits at once. What it does not take is copied, so
//! that ring memory is never held longer than a turn.
//!
//! Answers from the log's files bring their own buffers or pipes. They wait in a queue of their own, with whatever was encoded
//! before them, and are sent one after the other; what is encoded later stays behind them. What a pipe holds is no memory of the
//! connection; a stalled connection has it copied, so that the pipe can serve others.
//!
//! Invariants: bytes leave in the order in which they were added. There is one operation at a time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;

use super::cold::{ColdAnswer, ColdBuffer, PipedBytes};
use super::limits;

/// A part of the output, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A range of the byte buffer.
    Bytes {
        /// First byte.
        start: usize,
        /// Behind the last byte.
        end: usize,
    },
    /// Ring memory: valid only in the turn that added it.
    Ring {
        /// Where in the log.
        physical: u64,
        /// How many bytes.
        length: usize,
    },
}

/// What goes out ahead of the byte buffer, in order.
#[derive(Debug)]
enum Item {
    Bytes(Vec<u8>),
    Cold(ColdBuffer),
    Pipe(PipedBytes),
}

impl Item {
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Cold(buffer) => buffer.len(),
            Self::Pipe(pipe) => pipe.len(),
        }
    }
}

/// Output of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Encoded in this turn (or waiting for the send in flight).
    bytes: Vec<u8>,
    /// Parts of this turn; empty as long as there are only bytes.
    parts: Vec<Part>,
    /// End of `bytes` that `parts` covers.
    covered: usize,
    /// What comes before `bytes`; mostly empty.
    waiting: VecDeque<Item>,
    /// Bytes in it.
    waiting_bytes: usize,
    /// Pipes in it, and the bytes they hold.
    pipes: usize,
    piped_bytes: usize,
    /// When the oldest pipe came or something was taken from it.
    pipe_moved_ms: u64,
    /// What the kernel reads from, while a send is in flight: this, or the buffer of a reader.
    sending: Vec<u8>,
    sending_cold: Option<ColdBuffer>,
    /// Bytes of it that were taken already.
    sent: usize,
    in_flight: bool,
    /// Whether what is in flight are the parts, whose bytes must stay where they are.
    is_gathered: bool,
    ring_bytes: usize,
}

impl Outbox {
    /// The buffer to append encoded frames to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Appends ring memory behind everything added so far.
    pub fn push_ring(&mut self, physical: u64, length: usize) {
        self.cover();
        if let Some(Part::Ring { physical: before, length: total }) = self.parts.last_mut()
            && *before + *total as u64 == physical
        {
            *total += length;
        } else {
            self.parts.push(Part::Ring { physical, length });
        }
        self.ring_bytes += length;
    }

    fn cover(&mut self) {
        if self.covered < self.bytes.len() {
            self.parts.push(Part::Bytes { start: self.covered, end: self.bytes.len() });
            self.covered = self.bytes.len();
        }
    }

    /// Appends an answer from the log's files behind everything added so far.
    pub fn push_cold(&mut self, answer: ColdAnswer, now_ms: u64, copy_ring: impl FnMut(u64, usize, &mut Vec<u8>)) {
        let ColdAnswer { frame, pipes } = answer;
        if pipes.is_empty() && frame.len() < limits::MOVED_ANSWER_BYTES {
            self.bytes.extend_from_slice(&frame);
            return;
        }
        self.flush_to_waiting(copy_ring);
        self.wait(Item::Cold(frame));
        if self.pipes == 0 {
            self.pipe_moved_ms = now_ms;
        }
        pipes.into_iter().for_each(|pipe| self.wait(Item::Pipe(pipe)));
    }

    /// Appends a frame behind everything added so far; a long one is not copied.
    pub fn push_frame(&mut self, frame: Vec<u8>, copy_ring: impl FnMut(u64, usize, &mut Vec<u8>)) {
        if frame.len() < limits::MOVED_ANSWER_BYTES {
            self.bytes.extend_from_slice(&frame);
            return;
        }
        self.flush_to_waiting(copy_ring);
        self.wait(Item::Bytes(frame));
    }

    /// Moves what was encoded to those that wait, so that something can follow it there.
    fn flush_to_waiting(&mut self, copy_ring: impl FnMut(u64, usize, &mut Vec<u8>)) {
        self.materialize(copy_ring);
        if !self.bytes.is_empty() {
            let before = std::mem::take(&mut self.bytes);
            self.wait(Item::Bytes(before));
        }
    }

    fn wait(&mut self, item: Item) {
        self.waiting_bytes += item.len();
        if let Item::Pipe(pipe) = &item {
            self.pipes += 1;
            self.piped_bytes += pipe.len();
        }
        self.waiting.push_back(item);
    }

    fn sending_bytes(&self) -> &[u8] {
        let all = self.sending_cold.as_deref().unwrap_or(&self.sending);
        &all[self.sent..]
    }

    /// Bytes that were added and not yet handed to the kernel, ring slices and pipes included, plus those in flight.
    pub fn queued_bytes(&self) -> usize {
        self.bytes.len() + self.ring_bytes + self.waiting_bytes + self.sending_bytes().len()
    }

    /// Of these, the bytes in pipes, which the budget of cold reads counts.
    pub fn piped_bytes(&self) -> usize {
        self.piped_bytes
    }

    /// Whether there is anything new to send.
    pub fn has_new(&self) -> bool {
        !self.bytes.is_empty() || !self.parts.is_empty() || !self.waiting.is_empty()
    }

    /// Whether answers from the log's files come before everything of this turn.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether ring memory is among it.
    pub fn has_ring_parts(&self) -> bool {
        self.ring_bytes > 0
    }

    /// Whether a send is in flight.
    pub fn is_in_flight(&self) -> bool {
        self.in_flight
    }

    /// The parts of this turn for a gathered send, and the buffer that its byte parts index.
    pub fn gather(&mut self) -> (&[Part], &[u8]) {
        self.cover();
        (&self.parts, &self.bytes)
    }

    /// Marks the gathered send as in flight.
    pub fn begin_gathered(&mut self) {
        assert!(!self.in_flight, "one send at a time");
        self.in_flight = true;
        self.is_gathered = true;
    }

    /// A gathered send took `taken` bytes. The rest is copied with `copy_ring` into a buffer of its own. True when there is
    /// a rest to send.
    pub fn finish_gathered(&mut self, taken: usize, mut copy_ring: impl FnMut(u64, usize, &mut Vec<u8>)) -> bool {
        self.in_flight = false;
        self.is_gathered = false;
        let mut skip = taken;
        let mut rest = std::mem::take(&mut self.sending);
        rest.clear();
        for part in &self.parts {
            let length = match *part {
                Part::Bytes { start, end } => end - start,
                Part::Ring { length, .. } => length,
            };
            let skipped = skip.min(length);
            skip -= skipped;
            if skipped < length {
                match *part {
                    Part::Bytes { start, end } => rest.extend_from_slice(&self.bytes[start + skipped..end]),
                    Part::Ring { physical, length } => {
                        copy_ring(physical + skipped as u64, length - skipped, &mut rest)
                    }
                }
            }
        }
        let covered = self.covered;
        self.bytes.drain(..covered);
        self.reset_parts();
        self.sending = rest;
        !self.sending.is_empty()
    }

    fn reset_parts(&mut self) {
        self.parts.clear();
        self.covered = 0;
        self.ring_bytes = 0;
    }

    /// Turns ring parts into bytes, because an earlier send is still in flight and their memory cannot be kept.
    pub fn materialize(&mut self, mut copy_ring: impl FnMut(u64, usize, &mut Vec<u8>)) {
        if self.parts.is_empty() {
            return;
        }
        assert!(!self.is_gathered, "the kernel reads from the parts until the gathered send has ended");
        self.cover();
        let mut flat = Vec::with_capacity(self.bytes.len() + self.ring_bytes);
        for part in &self.parts {
            match *part {
                Part::Bytes { start, end } => flat.extend_from_slice(&self.bytes[start..end]),
                Part::Ring { physical, length } => copy_ring(physical, length, &mut flat),
            }
        }
        self.bytes = flat;
        self.reset_parts();
    }

    /// Moves what comes first to the sending side and gives its address for the kernel; it stays put until
    /// [`Outbox::finish_bytes`]. `None` when there is nothing, a send is in flight, or a pipe comes first.
    pub fn begin_bytes(&mut self) -> Option<(*const u8, u32)> {
        assert!(self.parts.is_empty(), "ring parts are gathered or materialized first");
        if self.in_flight {
            return None;
        }
        if self.sending_bytes().is_empty() {
            match self.waiting.front() {
                Some(Item::Pipe(_)) => return None,
                Some(Item::Bytes(_) | Item::Cold(_)) => self.take_front(),
                None => std::mem::swap(&mut self.bytes, &mut self.sending),
            }
        }
        let bytes = self.sending_bytes();
        if bytes.is_empty() {
            return None;
        }
        // The kernel takes at most 2 GiB at once; the connection's limit is far below.
        let begun = (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.in_flight = true;
        Some(begun)
    }

    fn take_front(&mut self) {
        let Some(item) = self.waiting.pop_front() else { return };
        self.waiting_bytes -= item.len();
        match item {
            Item::Bytes(bytes) => self.sending = bytes,
            Item::Cold(buffer) => self.sending_cold = Some(buffer),
            Item::Pipe(_) => self.pipes -= 1,
        }
    }

    /// Whether a pipe comes next, behind the bytes in flight or at once.
    pub fn pipe_follows(&self) -> bool {
        matches!(self.waiting.front(), Some(Item::Pipe(_)))
    }

    /// The beginning of a send in flight was taken. True when that was all of it; otherwise the address of the rest is that of
    /// [`Outbox::resume_bytes`].
    pub fn advance_bytes(&mut self, taken: usize) -> bool {
        self.sent += taken.min(self.sending_bytes().len());
        let is_complete = self.sending_bytes().is_empty();
        if is_complete {
            self.end_bytes(limits::KEEP_BUFFER_BYTES);
        }
        is_complete
    }

    /// The rest of the send in flight.
    pub fn resume_bytes(&self) -> (*const u8, u32) {
        let bytes = self.sending_bytes();
        (bytes.as_ptr(), u32::try_from(bytes.len()).unwrap_or(u32::MAX))
    }

    /// Sends from the pipe that comes first, as much as the socket takes now; gives the number of bytes. What is left makes the
    /// outbox wait ([`Outbox::is_in_flight`]) until [`Outbox::end_wait`].
    pub fn send_pipe(&mut self, socket: RawFd, now_ms: u64) -> io::Result<usize> {
        let more = matches!(self.waiting.get(1), Some(Item::Pipe(_)));
        let Some(Item::Pipe(pipe)) = self.waiting.front_mut() else { return Ok(0) };
        let before = pipe.len();
        let result = pipe.send(socket, more);
        let sent = before - pipe.len();
        let is_empty = pipe.is_empty();
        self.waiting_bytes -= sent;
        self.piped_bytes -= sent;
        if sent > 0 {
            self.pipe_moved_ms = now_ms;
        }
        result?;
        if is_empty {
            self.take_front();
        } else {
            self.in_flight = true;
        }
        Ok(sent)
    }

    /// The socket takes bytes again, or is broken.
    pub fn end_wait(&mut self) {
        self.in_flight = false;
    }

    /// Whether there are pipes, and nothing was taken from them for `stall_ms`.
    pub fn is_stalled(&self, now_ms: u64, stall_ms: u64) -> bool {
        self.pipes > 0 && now_ms.saturating_sub(self.pipe_moved_ms) >= stall_ms
    }

    /// Copies what is in pipes, so that they can go back.
    pub fn drain_pipes(&mut self) -> io::Result<()> {
        for item in &mut self.waiting {
            if let Item::Pipe(pipe) = item {
                let mut bytes = Vec::with_capacity(pipe.len());
                pipe.drain(&mut bytes)?;
                *item = Item::Bytes(bytes);
            }
        }
        self.pipes = 0;
        self.piped_bytes = 0;
        Ok(())
    }

    /// The send of plain bytes has ended; `keep_bytes` bounds what the buffers may keep. False when fewer bytes than asked
    /// for were taken, which means that the connection is broken.
    pub fn finish_bytes(&mut self, taken: usize, keep_bytes: usize) -> bool {
        let complete = taken == self.sending_bytes().len();
        self.end_bytes(keep_bytes);
        complete
    }

    /// Gives memory back that holds nothing, but for `keep_bytes` of each buffer.
    pub fn shrink(&mut self, keep_bytes: usize) {
        if self.bytes.is_empty() && !self.is_gathered {
            self.bytes.shrink_to(keep_bytes);
        }
        if !self.in_flight && self.sending.is_empty() {
            self.sending.shrink_to(keep_bytes);
        }
    }

    /// Bytes of memory of the buffers that stay.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity() + self.sending.capacity()
    }

    fn end_bytes(&mut self, keep_bytes: usize) {
        self.in_flight = false;
        self.sent = 0;
        self.sending_cold = None;
        self.sending.clear();
        self.sending.shrink_to(keep_bytes);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(keep_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_ring(physical: u64, length: usize, out: &mut Vec<u8>) {
        out.extend((0..length).map(|index| (physical + index as u64) as u8));
    }

    /// Goal: an empty outbox gives its memory back, and one with bytes loses none of them. Method: shrink before, during and after
    /// a send.
    #[test]
    fn empty_buffers_shrink() {
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(&[1; 100_000]);
        outbox.shrink(1_000);
        let (address, length) = outbox.begin_bytes().expect("there are bytes");
        outbox.buffer().extend_from_slice(&[2; 100_000]);
        outbox.shrink(1_000);
        assert_eq!((outbox.queued_bytes(), outbox.resume_bytes()), (200_000, (address, length)));
        assert!(outbox.finish_bytes(100_000, usize::MAX));
        assert!(outbox.begin_bytes().is_some() && outbox.finish_bytes(100_000, usize::MAX));
        assert!(outbox.capacity() >= 200_000);
        outbox.shrink(1_000);
        assert!(outbox.capacity() <= 2_000);
    }

    /// Whatever number of bytes the kernel takes of a gathered send, the rest must be exactly what follows: try all cuts.
    #[test]
    fn partial_gathered_sends_lose_nothing() {
        for taken in 0..=14 {
            let mut outbox = Outbox::default();
            outbox.buffer().extend_from_slice(b"head");
            outbox.push_ring(100, 3);
            outbox.push_ring(103, 2);
            outbox.buffer().extend_from_slice(b"tail!");
            let mut whole = b"head".to_vec();
            fake_ring(100, 5, &mut whole);
            whole.extend_from_slice(b"tail!");
            assert_eq!(outbox.gather().0.len(), 3, "adjacent ring parts merge");
            outbox.begin_gathered();
            outbox.buffer().extend_from_slice(b"next");
            let rest = outbox.finish_gathered(taken, fake_ring);
            assert_eq!(rest, taken < 14);
            let mut seen = whole[..taken].to_vec();
            while let Some((address, length)) = outbox.begin_bytes() {
                // SAFETY: the outbox keeps the bytes in place until finish_bytes.
                seen.extend_from_slice(unsafe { std::slice::from_raw_parts(address, length as usize) });
                assert!(outbox.finish_bytes(length as usize, 1024));
            }
            whole.extend_from_slice(b"next");
            assert_eq!(seen, whole, "after {taken} bytes");
        }
    }

    /// Ring memory must not outlive the turn when an earlier send is in flight: it becomes bytes, in order.
    #[test]
    fn materialize_keeps_the_order() {
        let mut outbox = Outbox::default();
        outbox.buffer().extend_from_slice(b"a");
        assert!(outbox.begin_bytes().is_some());
        outbox.buffer().extend_from_slice(b"b");
        outbox.push_ring(65, 2);
        outbox.buffer().extend_from_slice(b"c");
        outbox.materialize(fake_ring);
        assert!(!outbox.has_ring_parts());
        assert!(outbox.begin_bytes().is_none(), "the first send is still in flight");
        assert!(outbox.finish_bytes(1, 1024));
        let (address, length) = outbox.begin_bytes().expect("bytes wait");
        // SAFETY: the outbox keeps the bytes in place until finish_bytes.
        assert_eq!(unsafe { std::slice::from_raw_parts(address, length as usize) }, b"bABc");
    }
}
