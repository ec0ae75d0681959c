//! The sending half of a turn: one operation per connection, and no ring memory beyond the turn.

use super::*;

impl EventLoop {
    pub(super) fn send_output(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        self.core.take_dirty(&mut scratch.dirty);
        scratch.gathers.clear();
        scratch.slices.clear();
        let view = self.view.clone();
        let copy = self.ring_copier();
        let mut dirty = std::mem::take(&mut scratch.dirty);
        for id in dirty.drain(..) {
            self.core.account(id);
            let Some(connection) = self.core.connection_mut(id) else { continue };
            if connection.closing {
                continue;
            }
            let outbox = &mut connection.outbox;
            if outbox.has_ring_parts() {
                if outbox.is_in_flight() || outbox.has_waiting() || outbox.gather().0.len() > limits::GATHERED_SLICES {
                    outbox.materialize(&copy);
                } else {
                    let first_slice = scratch.slices.len();
                    let (parts, bytes) = outbox.gather();
                    for part in parts {
                        let (base, length) = match *part {
                            Part::Bytes { start, end } => (bytes[start..end].as_ptr(), end - start),
                            Part::Ring { physical, length } => {
                                (view.as_deref().map_or(std::ptr::null(), |view| view.address(physical)), length)
                            }
                        };
                        scratch.slices.push(libc::iovec { iov_base: base.cast_mut().cast(), iov_len: length });
                    }
                    let slices = scratch.slices.len() - first_slice;
                    scratch.gathers.push(Gather { connection: id, first_slice, slices });
                    outbox.begin_gathered();
                    continue;
                }
            }
            self.send_next(id, scratch)?;
        }
        scratch.dirty = dirty;
        if !scratch.gathers.is_empty() {
            self.send_gathered(scratch)?;
        }
        if let Some(view) = &self.view
            && view.is_pinned(self.core.index())
        {
            view.unpin(self.core.index());
        }
        self.resume_paused(scratch)
    }

    /// Sends what comes first: bytes through the ring, pipes at once until the socket is full.
    fn send_next(&mut self, id: SlotId, scratch: &mut Scratch) -> io::Result<()> {
        let now_ms = self.core.steady_ms();
        loop {
            let Some(connection) = self.core.connection_mut(id) else { return Ok(()) };
            let Some(descriptor) = connection.raw_fd() else { return Ok(()) };
            let outbox = &mut connection.outbox;
            if let Some((bytes, length)) = outbox.begin_bytes() {
                let mut rest = (bytes, length);
                if outbox.pipe_follows() && length as usize <= limits::DIRECT_HEAD_BYTES {
                    // SAFETY: the outbox keeps the bytes in place until they are taken or `finish_bytes`.
                    let head = unsafe { std::slice::from_raw_parts(bytes, length as usize) };
                    // What went wrong is seen again by the ring.
                    let taken = socket::send_now(descriptor, head, true).unwrap_or(0);
                    self.core.counters_mut().network_out += taken as u64;
                    let Some(connection) = self.core.connection_mut(id) else { return Ok(()) };
                    if connection.outbox.advance_bytes(taken) {
                        continue;
                    }
                    rest = connection.outbox.resume_bytes();
                }
                let token = Token::new(kind::SEND, id.slot, id.generation);
                // SAFETY: the outbox keeps the bytes in place until `finish_bytes`, and a connection is only freed when no
                // send is in flight.
                return unsafe { self.ring.send(descriptor, rest.0, rest.1, token) };
            }
            if outbox.is_in_flight() || !outbox.pipe_follows() {
                return Ok(());
            }
            let is_ready = connection.is_nonblocking || socket::set_nonblocking(descriptor).is_ok();
            connection.is_nonblocking = is_ready;
            if !is_ready {
                // It could wait for its peer: copying never does.
                if connection.outbox.drain_pipes().is_err() {
                    scratch.closing.push(id);
                    return Ok(());
                }
                continue;
            }
            let sent = match connection.outbox.send_pipe(descriptor, now_ms) {
                Ok(sent) => sent,
                Err(error) => {
                    tracing::debug!(%error, "a connection broke while a pipe was sent");
                    scratch.closing.push(id);
                    return Ok(());
                }
            };
            connection.last_active_ms = now_ms;
            let is_full = connection.outbox.is_in_flight();
            self.core.counters_mut().network_out += sent as u64;
            self.core.account(id);
            if is_full {
                return self.ring.writable(descriptor, Token::new(kind::WRITABLE, id.slot, id.generation));
            }
        }
    }

    /// Submits all gathered sends; they finish at once, so that ring memory is let go in the same turn.
    pub(super) fn send_gathered(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        scratch.headers.clear();
        for gather in &scratch.gathers {
            // SAFETY: an all-zero msghdr is valid; the fields that matter are set below.
            let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
            header.msg_iov = scratch.slices[gather.first_slice..].as_mut_ptr();
            header.msg_iovlen = gather.slices as _;
            scratch.headers.push(header);
        }
        let mut outstanding = 0;
        for (gather, header) in scratch.gathers.iter().zip(&scratch.headers) {
            let id = gather.connection;
            let Some(descriptor) = self.core.connection_mut(id).and_then(|connection| connection.raw_fd()) else {
                continue;
            };
            let token = Token::new(kind::GATHER, id.slot, id.generation);
            // SAFETY: headers and slices are not touched before the completions below; the bytes are in the outbox, which
            // gathers nothing more meanwhile, and in pinned ring memory.
            unsafe { self.ring.send_gathered(descriptor, header, token)? };
            outstanding += 1;
        }
        let mut completions = std::mem::take(&mut scratch.completions);
        while outstanding > 0 {
            self.ring.wait(Some(Duration::ZERO))?;
            self.ring.completions(&mut completions);
            for completion in completions.drain(..) {
                if completion.token.kind == kind::GATHER {
                    outstanding -= 1;
                    self.gathered(completion, scratch)?;
                } else {
                    scratch.carried.push(completion);
                }
            }
        }
        scratch.completions = completions;
        Ok(())
    }

    pub(super) fn gathered(&mut self, completion: Completion, scratch: &mut Scratch) -> io::Result<()> {
        let id = SlotId { slot: completion.token.slot, generation: completion.token.generation };
        let copy = self.ring_copier();
        let now_ms = self.core.steady_ms();
        let Some(connection) = self.core.connection_mut(id) else { return Ok(()) };
        connection.last_active_ms = now_ms;
        let taken = match completion.outcome() {
            Ok(taken) => taken,
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => 0,
            Err(_) => {
                connection.outbox.finish_gathered(usize::MAX, copy);
                scratch.closing.push(id);
                return Ok(());
            }
        };
        if connection.outbox.finish_gathered(taken, copy) {
            self.send_next(id, scratch)?;
        }
        self.core.counters_mut().network_out += taken as u64;
        self.core.account(id);
        Ok(())
    }

    /// Copies ring memory that this turn has pinned (see `ShardCore::execute_pull`).
    pub(super) fn ring_copier(&self) -> impl Fn(u64, usize, &mut Vec<u8>) + use<> {
        let (view, slot) = (self.view.clone(), self.core.index());
        move |physical, length, out| {
            if let Some(view) = &view {
                view.append_pinned(slot, physical, length, out);
            }
        }
    }
}
