//! What a connection still has to send.
//!
//! Answers are encoded into one byte buffer; the bodies of pulls are slices of ring memory between them. At the end of a turn
//! everything goes out in one operation: plain bytes from a buffer that stays put until the kernel is done, or, when there are
//! slices, one gathered non-blocking send, of which the kernel takes what fits at once. What it does not take is copied, so
//! that ring memory is never held longer than a turn.
//!
//! Invariant: bytes leave in the order in which they were added.

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

/// Output of one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Encoded in this turn (or waiting for the send in flight).
    bytes: Vec<u8>,
    /// Parts of this turn; empty as long as there are only bytes.
    parts: Vec<Part>,
    /// End of `bytes` that `parts` covers.
    covered: usize,
    /// What the kernel reads from, while a send is in flight.
    sending: Vec<u8>,
    in_flight: bool,
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

    /// Bytes that were added and not yet handed to the kernel, ring slices included, plus those in flight.
    pub fn queued_bytes(&self) -> usize {
        self.bytes.len() + self.ring_bytes + self.sending.len()
    }

    /// Whether there is anything new to send.
    pub fn has_new(&self) -> bool {
        !self.bytes.is_empty() || !self.parts.is_empty()
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
    }

    /// A gathered send took `taken` bytes. The rest is copied with `copy_ring` into a buffer of its own. True when there is
    /// a rest to send.
    pub fn finish_gathered(&mut self, taken: usize, mut copy_ring: impl FnMut(u64, usize, &mut Vec<u8>)) -> bool {
        self.in_flight = false;
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

    /// Moves the bytes to the sending side and gives their address for the kernel; they stay put until
    /// [`Outbox::finish_bytes`]. `None` when there is nothing or a send is in flight.
    pub fn begin_bytes(&mut self) -> Option<(*const u8, u32)> {
        assert!(self.parts.is_empty(), "ring parts are gathered or materialized first");
        if self.in_flight {
            return None;
        }
        if self.sending.is_empty() {
            std::mem::swap(&mut self.bytes, &mut self.sending);
        }
        if self.sending.is_empty() {
            return None;
        }
        self.in_flight = true;
        // The kernel takes at most 2 GiB at once; the connection's limit is far below.
        Some((self.sending.as_ptr(), u32::try_from(self.sending.len()).unwrap_or(u32::MAX)))
    }

    /// The send of plain bytes has ended; `keep_bytes` bounds what the buffers may keep. False when fewer bytes than asked
    /// for were taken, which means that the connection is broken.
    pub fn finish_bytes(&mut self, taken: usize, keep_bytes: usize) -> bool {
        self.in_flight = false;
        let complete = taken == self.sending.len();
        self.sending.clear();
        self.sending.shrink_to(keep_bytes);
        if self.bytes.is_empty() {
            self.bytes.shrink_to(keep_bytes);
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake_ring(physical: u64, length: usize, out: &mut Vec<u8>) {
        out.extend((0..length).map(|index| (physical + index as u64) as u8));
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
