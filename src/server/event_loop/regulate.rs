//! Which connections are read: limits of their own, memory that is short, and frames or peers that take too long.
//!
//! Memory that is short closes nobody. A connection that holds more than what is left of the budget is not read until memory
//! returns; one of them at a time may finish its frame all the same, so that large requests do not wait for each other. What
//! never arrives ends with the frame's time-out.

use super::*;

/// How often connections that wait for memory are looked at.
pub(super) const HUNGER_DELAY: Duration = Duration::from_millis(5);

/// Short memory is logged at most this often.
const HUNGER_WARNING_MS: u64 = 10_000;

/// Connections that are not read because memory is short.
#[derive(Default)]
pub(super) struct Hunger {
    waiting: Vec<SlotId>,
    /// The one that may finish its frame, and since when.
    finisher: Option<(SlotId, u64)>,
    next_look_ms: u64,
    next_warning_ms: u64,
}

impl Hunger {
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.finisher.is_none()
    }

    fn is_finisher(&self, id: SlotId) -> bool {
        self.finisher.is_some_and(|(finisher, _)| finisher == id)
    }
}

impl EventLoop {
    /// Stops reading from a connection at its limit or when memory is short, and reads again otherwise.
    pub(super) fn regulate(&mut self, id: SlotId, scratch: &mut Scratch) -> io::Result<()> {
        self.core.account(id);
        let over = self.core.is_over_limit(id);
        let starves = self.core.is_starved(id) && !scratch.hunger.is_finisher(id);
        let now_ms = self.core.steady_ms();
        let Some(connection) = self.core.connection_mut(id) else { return Ok(()) };
        if connection.closing {
            return Ok(());
        }
        let token = Token::new(kind::RECEIVE, id.slot, id.generation);
        let is_listed = connection.paused || connection.starves;
        if over || starves {
            if is_listed {
                // Listed for memory alone, it is looked at again when its answers were taken.
                connection.is_parked |= over;
                return Ok(());
            }
            (connection.paused, connection.starves) = (over, !over);
            if connection.receiving {
                self.ring.cancel(token, Token::new(kind::CANCEL, id.slot, id.generation))?;
            }
            let counters = self.core.counters_mut();
            counters.pauses += u64::from(over);
            counters.memory_pauses += u64::from(!over);
            if over {
                return Ok(());
            }
            scratch.hunger.waiting.push(id);
            if now_ms >= scratch.hunger.next_warning_ms {
                scratch.hunger.next_warning_ms = now_ms + HUNGER_WARNING_MS;
                let budget = self.core.shared().buffers.limit();
                tracing::warn!(
                    budget,
                    "memory for requests and answers is short: connections that hold most are not read"
                );
            }
            return Ok(());
        }
        let descriptor = connection.raw_fd().filter(|_| !is_listed && !connection.receiving);
        if let Some(descriptor) = descriptor {
            connection.receiving = true;
            let is_short = self.core.is_memory_short() && !scratch.hunger.is_finisher(id);
            match is_short {
                true => self.ring.receive_some(descriptor, limits::SHORT_RECEIVE_BYTES, token)?,
                false => self.ring.receive(descriptor, token)?,
            }
        }
        Ok(())
    }

    /// Reads again from connections that have got below their limit or for which memory has returned.
    pub(super) fn resume_paused(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        let mut relieved = std::mem::take(&mut scratch.relieved);
        self.core.take_relieved(&mut relieved);
        for id in relieved.drain(..) {
            match self.core.relieve(id) {
                Some(true) => self.regulate(id, scratch)?,
                Some(false) => scratch.closing.push(id),
                None => {}
            }
        }
        scratch.relieved = relieved;
        let now_ms = self.core.steady_ms();
        if !scratch.hunger.is_empty() && now_ms >= scratch.hunger.next_look_ms {
            scratch.hunger.next_look_ms = now_ms + 1;
            self.feed(scratch, now_ms)?;
        }
        Ok(())
    }

    /// Reads again from connections that hold little enough by now, and lets one finish its frame.
    fn feed(&mut self, scratch: &mut Scratch, now_ms: u64) -> io::Result<()> {
        if let Some((id, since_ms)) = scratch.hunger.finisher {
            let starves = self.core.is_starved(id);
            match self.core.connection_mut(id) {
                Some(connection) if !connection.closing && starves && connection.is_mid_frame() => {
                    let idle_since_ms = connection.last_active_ms.max(since_ms);
                    if now_ms.saturating_sub(idle_since_ms) > limits::FINISHER_IDLE_MS
                        || now_ms.saturating_sub(since_ms) > limits::FINISHER_MS
                    {
                        connection.had_its_chance = true;
                        scratch.hunger.finisher = None;
                        self.regulate(id, scratch)?;
                    }
                }
                _ => scratch.hunger.finisher = None,
            }
        }
        let mut waiting = std::mem::take(&mut scratch.hunger.waiting);
        // Whoever came last is tried first: those that have waited long had bytes to send when they were stopped, or never.
        let mut candidate = None;
        let mut tried = None;
        let fed = waiting.extract_if(.., |id| {
            let starves = self.core.is_starved(*id);
            let Some(connection) = self.core.connection_mut(*id) else { return true };
            if connection.closing || !starves {
                return true;
            }
            if connection.is_mid_frame() {
                let place = if connection.had_its_chance { &mut tried } else { &mut candidate };
                *place = Some(*id);
            }
            false
        });
        let fed: Vec<SlotId> = fed.collect();
        scratch.hunger.waiting = waiting;
        for id in fed {
            if let Some(connection) = self.core.connection_mut(id) {
                connection.starves = false;
                connection.had_its_chance = false;
                self.regulate(id, scratch)?;
            }
        }
        if scratch.hunger.finisher.is_none()
            && let Some(id) = candidate.or(tried)
        {
            if candidate.is_none() {
                // Everybody had a chance: a new round begins.
                for waiting in &scratch.hunger.waiting {
                    if let Some(connection) = self.core.connection_mut(*waiting) {
                        connection.had_its_chance = false;
                    }
                }
            }
            scratch.hunger.waiting.retain(|waiting| *waiting != id);
            scratch.hunger.finisher = Some((id, now_ms));
            if let Some(connection) = self.core.connection_mut(id) {
                connection.starves = false;
            }
            self.regulate(id, scratch)?;
        }
        let figures = &self.core.shared().shards[self.core.index()];
        figures.starved.set(scratch.hunger.waiting.len() as u64);
        Ok(())
    }

    /// Ends connections that have been silent, or whose frame has not arrived in time; those at their own limit wait for the
    /// broker, not for their peer. Answers in pipes that nobody takes become bytes.
    pub(super) fn time_out(&mut self, scratch: &mut Scratch) {
        let now_ms = self.core.steady_ms();
        let frame_timeout_ms = self.core.frame_timeout_ms();
        let (mut idle_count, mut late_count, mut drained) = (0, 0, 0);
        for id in self.core.connection_ids() {
            let Some(connection) = self.core.connection_mut(id) else { continue };
            if connection.closing {
                continue;
            }
            if drained < limits::STALLED_PER_PASS && connection.outbox.is_stalled(now_ms, limits::PIPE_STALL_MS) {
                drained += 1;
                let is_drained = connection.outbox.drain_pipes().is_ok();
                self.core.account(id);
                if !is_drained {
                    scratch.closing.push(id);
                    continue;
                }
            }
            let Some(connection) = self.core.connection_mut(id) else { continue };
            if now_ms.saturating_sub(connection.last_active_ms) >= HOUSEKEEPING_MS {
                connection.outbox.shrink(limits::SILENT_BUFFER_BYTES);
                connection.input.shrink(limits::SILENT_BUFFER_BYTES);
            }
            let is_idle = now_ms.saturating_sub(connection.last_active_ms) > self.idle_connection_ms;
            let is_late = connection.is_mid_frame()
                && !connection.paused
                && now_ms.saturating_sub(connection.frame_began_ms) > frame_timeout_ms;
            if is_idle || is_late {
                scratch.closing.push(id);
                idle_count += u64::from(!is_late);
                late_count += u64::from(is_late);
            }
        }
        if late_count > 0 {
            tracing::info!(late_count, frame_timeout_ms, "close connections whose request did not arrive in time");
        }
        self.core.probe().add(Counter::FrameTimeouts, late_count);
        self.core.probe().add(Counter::IdleTimeouts, idle_count);
    }
}
