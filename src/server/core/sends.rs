//! Sends of a shard: from the checked request to the prepared record, and from the verdict to the answer.

use super::*;

/// A send whose record is on its way.
pub(super) struct PendingSend {
    connection: SlotId,
    opaque: i32,
    serialize_type: SerializeType,
    queue_id: i32,
    request_bytes: usize,
    /// Clock of the turn that took the request.
    received_ns: u64,
    /// Sizes of the records of a batch; empty for a single message.
    sizes: Vec<u32>,
}

impl PendingSend {
    fn new(connection: SlotId, header: &Header<'_>, queue_id: u32, request_bytes: usize, received_ns: u64) -> Self {
        Self {
            connection,
            opaque: header.opaque,
            serialize_type: header.serialize_type,
            queue_id: queue_id as i32,
            request_bytes,
            received_ns,
            sizes: Vec::new(),
        }
    }

    /// One of a connection, otherwise of no consequence.
    #[cfg(test)]
    pub(super) fn of_one(connection: SlotId, serialize_type: SerializeType) -> Self {
        let (opaque, queue_id, request_bytes, received_ns, sizes) = (0, 0, 0, 0, Vec::new());
        Self { connection, opaque, serialize_type, queue_id, request_bytes, received_ns, sizes }
    }
}

impl ShardCore {
    pub(super) fn refuse_send(
        &mut self,
        id: SlotId,
        header: &Header<'_>,
        serving: &Serving,
        refusal: &Refusal,
    ) -> Progress {
        self.counters.sends_refused += 1;
        let trace_on = if serving.identity.trace_on { "true" } else { "false" };
        let ext = [("MSG_REGION", serving.identity.region_id.as_str()), ("TRACE_ON", trace_on)];
        self.refuse_with(id, header, refusal, &ext);
        Progress::Done
    }

    pub(super) fn field_error(&mut self, id: SlotId, header: &Header<'_>, error: FieldError) -> Progress {
        self.refuse(id, header, &Refusal::new(response::SYSTEM_ERROR, error.to_string()));
        Progress::Done
    }

    pub(super) fn send(
        &mut self,
        id: SlotId,
        serving: Option<&Serving>,
        header: &Header<'_>,
        body: &[u8],
        whole: &[u8],
    ) -> Progress {
        let Some(serving) = serving else {
            let refusal = Refusal::new(response::SERVICE_NOT_AVAILABLE, "the broker is starting");
            self.refuse(id, header, &refusal);
            return Progress::Done;
        };
        if self.stopping {
            let refusal = Refusal::new(response::SERVICE_NOT_AVAILABLE, "the broker is shutting down");
            return self.refuse_send(id, header, serving, &refusal);
        }
        if self.pending.is_full() {
            return self.wait_for_log(id, header, serving, AppendError::RingFull);
        }
        let request = match send::decode_header(header) {
            Ok(request) => request,
            Err(error) => return self.field_error(id, header, error),
        };
        let Some(connection) = self.connections.get(id) else { return Progress::Done };
        if connection.executed_again > 0 {
            return Progress::Blocked;
        }
        let peer = connection.peer;
        let target = match send::check_target(&mut self.send_state, serving, &request, self.now) {
            Ok(target) => target,
            Err(NotNow::Refused(refusal)) => return self.refuse_send(id, header, serving, &refusal),
            Err(NotNow::CreateTopic) => {
                let connection = connection_number(self.settings.index, id);
                let answers = whole.len();
                let message = ControlRequest::CreateTopic { connection, frame: whole.to_vec(), answers };
                return self.ask_control(id, header, answers, message);
            }
        };
        let Some(queue) = target.topic.queues.get(target.queue_id as usize) else {
            let refusal = Refusal::new(response::SYSTEM_ERROR, "the queue is not open yet");
            return self.refuse_send(id, header, serving, &refusal);
        };
        let retention = &self.shared.retention;
        let full = || Refusal::new(response::SERVICE_NOT_AVAILABLE, retention.refusal());
        let circumstances = Circumstances { peer, now: self.now, unavailable: retention.is_full().then(full) };
        // Needed once the record is prepared.
        queue.prefetch(PrefetchStep::Queue);
        let outcome = if request.batch {
            match send::prepare_batch(&mut self.send_state, serving, &target, &request, body, circumstances) {
                Ok(batch) => {
                    let sizes = self.spare_sizes.pop().unwrap_or_default();
                    let summary = ringmq_protocol::properties::scan_properties(request.properties.as_bytes());
                    let key = summary.unique_key.map_or(&[][..], |range| range.of(request.properties.as_bytes()));
                    let mut pending = PendingSend::new(id, header, target.queue_id, whole.len(), self.now_ns);
                    pending.sizes = sizes;
                    pending.sizes.extend(self.send_state.pieces().iter().map(|piece| piece.size));
                    let pieces = self.send_state.pieces();
                    let (mut kept, mut none) = (Some(pending), None);
                    let outcome = append(
                        &mut self.log,
                        &mut self.pending,
                        &mut self.counters,
                        self.settings.index,
                        Append {
                            queue,
                            length: batch.length,
                            pieces,
                            wait: batch.wait,
                            pending: if header.is_oneway() { &mut none } else { &mut kept },
                            unique_key: key,
                            now: self.now,
                        },
                        |out| batch.encode(out),
                    );
                    self.send_state.give_back(batch);
                    if let Some(pending) = kept {
                        self.keep_sizes(pending.sizes);
                    }
                    outcome
                }
                Err(refusal) => return self.refuse_send(id, header, serving, &refusal),
            }
        } else {
            let prepared = send::prepare_single(&mut self.send_state, serving, &target, &request, body, circumstances);
            match prepared {
                Ok(single) => {
                    queue.prefetch(PrefetchStep::Tail);
                    let pending = PendingSend::new(id, header, target.queue_id, whole.len(), self.now_ns);
                    let piece = Piece { size: single.length as u32, tags_code: single.tags_code };
                    append(
                        &mut self.log,
                        &mut self.pending,
                        &mut self.counters,
                        self.settings.index,
                        Append {
                            queue,
                            length: single.length,
                            pieces: &[piece],
                            wait: single.wait,
                            pending: &mut (!header.is_oneway()).then_some(pending),
                            unique_key: single.unique_key(),
                            now: self.now,
                        },
                        |out| single.encode(out),
                    )
                }
                Err(refusal) => return self.refuse_send(id, header, serving, &refusal),
            }
        };
        match outcome {
            Ok(messages) => {
                self.no_room.is_over();
                self.counters.messages_in += messages as u64;
                self.counters.bytes_in += whole.len() as u64;
                if !header.is_oneway() {
                    self.charge(id, whole.len());
                }
                Progress::Done
            }
            Err(error) if error.is_temporary() => {
                self.counters.queue_full += u64::from(error == AppendError::QueueFull);
                self.wait_for_log(id, header, serving, error)
            }
            Err(error) => self.refuse_send(id, header, serving, &refusal_of(error)),
        }
    }

    /// A send waits for room in the log, but not for ever: when there has been none for so long that nobody knows when there will
    /// be, this one and those behind it are told so at once, until the log takes one again.
    fn wait_for_log(&mut self, id: SlotId, header: &Header<'_>, serving: &Serving, error: AppendError) -> Progress {
        let patience_ms = self.room_patience_ms();
        if !self.no_room.lasts(self.now.steady_ms, patience_ms) {
            return Progress::Blocked;
        }
        self.refuse_send(id, header, serving, &refusal_of(error))
    }

    /// How long a send waits for room in the log: as long as for its sync, but hardly at all while the disk is known not to answer.
    pub(super) fn room_patience_ms(&self) -> u64 {
        let patience_ms = self.shared.live.sync_flush_timeout_ms.load(Ordering::Relaxed);
        match self.shared.disk_watch.silent_ms(self.now.steady_ms) {
            silent_ms if silent_ms >= limits::DISK_BUSY_MS + limits::BUSY_DISK_PATIENCE_MS => {
                patience_ms.min(limits::BUSY_DISK_PATIENCE_MS)
            }
            _ => patience_ms,
        }
    }

    /// The log has failed: whoever waits for it is told so, and not what becomes known later.
    pub fn fail_sends(&mut self) {
        for slot in 0..self.pending.slots() {
            let ticket = Ticket { shard: self.settings.index as u16, slot };
            self.settled(Settled { ticket, verdict: Verdict::Failed, physical: 0, queue_offset: 0 });
        }
    }

    /// A send of this shard has its verdict: encode the answer.
    pub fn settled(&mut self, settled: Settled) {
        let Some((mut pending, unique_key)) = self.pending.take(settled.ticket.slot) else { return };
        let id = pending.connection;
        self.probe.record(Histogram::SendLatency, self.now_ns.saturating_sub(pending.received_ns));
        self.discharge(id, pending.request_bytes);
        let store_host = self.serving.as_ref().map(|serving| &serving.identity);
        if let (Some(connection), Some(identity)) = (self.connections.get_mut(id), store_host) {
            if let Verdict::Refused(error) = settled.verdict {
                self.counters.sends_refused += 1;
                let Refusal { code, remark } = refusal_of(error);
                let trace_on = if identity.trace_on { "true" } else { "false" };
                let ext = [("MSG_REGION", identity.region_id.as_str()), ("TRACE_ON", trace_on)];
                let out = connection.outbox.buffer();
                write_error(out, pending.serialize_type, pending.opaque, code, &remark, &ext);
            } else if settled.verdict == Verdict::Failed {
                let trace_on = if identity.trace_on { "true" } else { "false" };
                let ext = [("MSG_REGION", identity.region_id.as_str()), ("TRACE_ON", trace_on)];
                let out = connection.outbox.buffer();
                let remark = "the log could not be written; nothing more is stored until the broker is restarted";
                write_error(out, pending.serialize_type, pending.opaque, response::SYSTEM_ERROR, remark, &ext);
            } else {
                self.offsets.clear();
                let mut physical = settled.physical;
                self.offsets.push(physical as i64);
                for size in pending.sizes.iter().take(pending.sizes.len().saturating_sub(1)) {
                    physical += u64::from(*size);
                    self.offsets.push(physical as i64);
                }
                let (code, remark) = match settled.verdict {
                    Verdict::FlushTimeout => (response::FLUSH_DISK_TIMEOUT, Some("FLUSH_DISK_TIMEOUT")),
                    Verdict::Stored | Verdict::Failed | Verdict::Refused(_) => (response::SUCCESS, None),
                };
                let result = SendResult {
                    message_ids: MessageIds { prefix: &identity.message_id_prefix, physical_offsets: &self.offsets },
                    queue_id: pending.queue_id,
                    queue_offset: settled.queue_offset as i64,
                    transaction_id: unique_key.as_text(),
                    region_id: &identity.region_id,
                    trace_on: identity.trace_on,
                };
                let out = connection.outbox.buffer();
                write_send_response(out, pending.serialize_type, pending.opaque, code, remark, &result);
            }
            self.mark_dirty(id);
        }
        self.keep_sizes(std::mem::take(&mut pending.sizes));
    }

    /// Keeps the memory of a batch's sizes for the next one.
    pub(super) fn keep_sizes(&mut self, mut sizes: Vec<u32>) {
        if sizes.capacity() > 0 {
            sizes.clear();
            self.spare_sizes.push(sizes);
        }
    }
}

/// What a sender is told when the log did not take its request, on whichever shard.
fn refusal_of(error: AppendError) -> Refusal {
    if error.is_temporary() {
        return Refusal::new(response::SYSTEM_BUSY, format!("not stored, the broker's disk is slow: {error}"));
    }
    let code = match error {
        AppendError::TooLarge(_) => response::MESSAGE_ILLEGAL,
        AppendError::DiskFull => response::SERVICE_NOT_AVAILABLE,
        AppendError::Retired => response::TOPIC_NOT_EXIST,
        _ => response::SYSTEM_ERROR,
    };
    Refusal::new(code, error.to_string())
}

/// One request for the log.
struct Append<'a> {
    queue: &'a Arc<Queue>,
    length: usize,
    pieces: &'a [Piece],
    wait: bool,
    /// Taken when the request is in the log; left where it is when not.
    pending: &'a mut Option<PendingSend>,
    /// Of the message, for its answer.
    unique_key: &'a [u8],
    now: Now,
}

/// Puts a prepared request into the log, here or on the writer's shard. Gives the number of messages.
fn append(
    log: &mut LogPort,
    pending: &mut PendingSends,
    counters: &mut ShardCounters,
    shard: usize,
    append: Append<'_>,
    encode: impl FnOnce(&mut [u8]),
) -> Result<usize, AppendError> {
    let messages = append.pieces.len();
    match log {
        LogPort::Local(writer) => {
            let admission = writer.admit(append.length, messages, append.queue)?;
            encode(writer.slot(admission));
            let ticket = take_ticket(pending, shard, append.pending, append.unique_key)?;
            writer.bind(admission, append.queue, append.pieces, ticket, append.wait, append.now);
            Ok(messages)
        }
        LogPort::Remote(remote) => {
            remote.reserve(append.length)?;
            let ticket = take_ticket(pending, shard, append.pending, append.unique_key)?;
            let Append { length, pieces, queue, wait, .. } = append;
            remote.append(length, RemoteAppend { pieces, queue, ticket, wait }, encode);
            counters.remote_sends += 1;
            counters.send_hops += 1;
            Ok(messages)
        }
        LogPort::None => Err(AppendError::Failed),
    }
}

/// Puts the request into the table of pending sends. The table's bound was checked before.
fn take_ticket(
    table: &mut PendingSends,
    shard: usize,
    pending: &mut Option<PendingSend>,
    unique_key: &[u8],
) -> Result<Option<Ticket>, AppendError> {
    if table.is_full() {
        return Err(AppendError::RingFull);
    }
    let Some(pending) = pending.take() else { return Ok(None) };
    let slot = table.insert(pending, unique_key).ok_or(AppendError::RingFull)?;
    Ok(Some(Ticket { shard: shard as u16, slot }))
}
