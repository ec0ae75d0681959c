//! The way of records from the other shards to the log's writer on shard 0, and of verdicts and wake-ups back.
//!
//! Each pair (shard N, shard 0) has three lanes: batches of prepared records there, the emptied batches back for reuse, and
//! verdicts and wake-ups back. What a shard prepares in one turn travels as one batch. Once warm, nothing here allocates.
//!
//! Invariants:
//! - the number of batches of a pair is bounded, so the lanes that carry them are never full;
//! - without a free batch, or with [`limits::REMOTE_BYTES`] on the way, a send waits in its connection's input;
//! - order: requests reach the writer in the order in which their shard took them;
//! - nothing is dropped: what does not fit into the answer lane waits in a backlog that the shard's own pending sends and held
//!   pulls bound.

use std::collections::VecDeque;
use std::sync::Arc;

use ringmq_shards::clock::Now;
use ringmq_shards::log::writer::{Piece, Ticket, Writer};
use ringmq_shards::log::{AppendError, Settled, Verdict};
use ringmq_shards::queue::Queue;
use ringmq_shards::runtime::{LaneReceiver, LaneSender, WakeHandle, lane};

use super::limits;

/// One request of a batch.
#[derive(Debug)]
struct RemoteRequest {
    queue: Arc<Queue>,
    bytes: usize,
    pieces: usize,
    ticket: Option<Ticket>,
    wait: bool,
}

/// What a request asks of the writer, besides its bytes.
#[derive(Debug, Clone, Copy)]
pub struct RemoteAppend<'a> {
    /// Length and tags code of each record.
    pub pieces: &'a [Piece],
    /// Their queue.
    pub queue: &'a Arc<Queue>,
    /// Where the answer goes; `None` for oneway requests.
    pub ticket: Option<Ticket>,
    /// The message's `WAIT` property.
    pub wait: bool,
}

/// Prepared records of one turn.
#[derive(Debug, Default)]
struct AppendBatch {
    /// Initialized memory, of which the first `used` bytes are records in stored form without their offsets.
    bytes: Vec<u8>,
    used: usize,
    pieces: Vec<Piece>,
    requests: Vec<RemoteRequest>,
    /// How far the writer has come: requests, bytes, pieces.
    done: (usize, usize, usize),
}

impl AppendBatch {
    fn push(&mut self, length: usize, append: RemoteAppend<'_>, encode: impl FnOnce(&mut [u8])) {
        let end = self.used + length;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        encode(&mut self.bytes[self.used..end]);
        self.used = end;
        self.pieces.extend_from_slice(append.pieces);
        self.requests.push(RemoteRequest {
            queue: Arc::clone(append.queue),
            bytes: length,
            pieces: append.pieces.len(),
            ticket: append.ticket,
            wait: append.wait,
        });
    }

    fn clear(&mut self) {
        self.used = 0;
        self.pieces.clear();
        self.requests.clear();
        self.done = (0, 0, 0);
    }
}

/// What the writer tells another shard.
#[derive(Debug)]
pub enum FromWriter {
    /// A request has its verdict.
    Settled(Settled),
    /// A queue with waiting pulls has new messages.
    Wake(Arc<Queue>),
}

/// A shard's end: how its records reach the writer.
#[derive(Debug)]
pub struct RemoteLog {
    batches: LaneSender<AppendBatch>,
    spent: LaneReceiver<AppendBatch>,
    answers: LaneReceiver<FromWriter>,
    open: Option<AppendBatch>,
    free: Vec<AppendBatch>,
    /// Batches made so far.
    made: usize,
    /// Record bytes in batches that are not back.
    bytes_out: usize,
    /// Memory of all batches' records.
    memory_bytes: usize,
}

/// The writer's end for one other shard.
#[derive(Debug)]
pub struct WriterPeer {
    batches: LaneReceiver<AppendBatch>,
    spent: LaneSender<AppendBatch>,
    answers: LaneSender<FromWriter>,
    current: Option<AppendBatch>,
    backlog: VecDeque<FromWriter>,
    no_room: NoRoom,
}

/// Who waits asks again each turn; after a longer pause nobody has waited.
const ASKED_AGAIN_MS: u64 = 1_000;

/// Since when the log has taken nothing of what was offered again and again.
#[derive(Debug, Default)]
pub struct NoRoom {
    /// When that began, and when something was offered last.
    asked_ms: Option<(u64, u64)>,
}

impl NoRoom {
    /// It has taken something.
    pub fn is_over(&mut self) {
        self.asked_ms = None;
    }

    /// It has not, at this time of the steady clock. Whether that lasts for at least `patience_ms` by now.
    pub fn lasts(&mut self, now_ms: u64, patience_ms: u64) -> bool {
        let first_ms = match self.asked_ms {
            Some((first_ms, last_ms)) if now_ms.saturating_sub(last_ms) <= ASKED_AGAIN_MS => first_ms,
            _ => now_ms,
        };
        self.asked_ms = Some((first_ms, now_ms));
        now_ms.saturating_sub(first_ms) >= patience_ms
    }
}

/// The two ends of a pair: the shard's, woken through `shard`, and the writer's, woken through `writer`.
pub fn connect(shard: WakeHandle, writer: WakeHandle) -> (RemoteLog, WriterPeer) {
    let (batch_sender, batch_receiver) = lane(limits::REMOTE_BATCHES, writer);
    let (spent_sender, spent_receiver) = lane(limits::REMOTE_BATCHES, shard.clone());
    let (answer_sender, answer_receiver) = lane(limits::REMOTE_ANSWERS, shard);
    let log = RemoteLog {
        batches: batch_sender,
        spent: spent_receiver,
        answers: answer_receiver,
        open: None,
        free: Vec::with_capacity(limits::REMOTE_BATCHES),
        made: 0,
        bytes_out: 0,
        memory_bytes: 0,
    };
    let peer = WriterPeer {
        batches: batch_receiver,
        spent: spent_sender,
        answers: answer_sender,
        current: None,
        backlog: VecDeque::with_capacity(limits::REMOTE_ANSWERS),
        no_room: NoRoom::default(),
    };
    (log, peer)
}

impl RemoteLog {
    /// Makes sure that a request of `length` bytes can be taken by [`RemoteLog::append`] now.
    pub fn reserve(&mut self, length: usize) -> Result<(), AppendError> {
        if self.open.as_ref().is_some_and(|open| open.used + length > limits::REMOTE_BATCH_BYTES) {
            self.publish();
        }
        if self.bytes_out + length > limits::REMOTE_BYTES {
            self.take_spent();
            // A request that is larger than the bound alone is admitted when nothing else is on its way.
            if self.bytes_out > 0 && self.bytes_out + length > limits::REMOTE_BYTES {
                return Err(AppendError::RingFull);
            }
        }
        if self.open.is_none() {
            if self.free.is_empty() {
                self.take_spent();
            }
            self.open = match self.free.pop() {
                None if self.made == limits::REMOTE_BATCHES => return Err(AppendError::RingFull),
                None => {
                    self.made += 1;
                    Some(AppendBatch::default())
                }
                batch => batch,
            };
        }
        Ok(())
    }

    /// Adds a request to the batch of this turn. [`RemoteLog::reserve`] comes first.
    pub fn append(&mut self, length: usize, append: RemoteAppend<'_>, encode: impl FnOnce(&mut [u8])) {
        let open = self.open.get_or_insert_default();
        let before = open.bytes.len();
        open.push(length, append, encode);
        self.memory_bytes += open.bytes.len() - before;
        self.bytes_out += length;
    }

    /// Sends the batch of this turn on its way, with one wake-up at most.
    pub fn publish(&mut self) {
        if let Some(batch) = self.open.take()
            && let Err(batch) = self.batches.send(batch)
        {
            // There are no more batches than the lane has room for; should it ever be otherwise, the next turn tries again.
            self.open = Some(batch);
        }
    }

    /// Takes batches back that the writer has emptied.
    fn take_spent(&mut self) {
        while let Some(mut batch) = self.spent.receive() {
            self.bytes_out -= batch.used;
            batch.clear();
            if self.memory_bytes > limits::REMOTE_BYTES {
                // Large messages have passed: give their memory back.
                self.memory_bytes -= batch.bytes.len();
                batch.bytes = Vec::new();
            }
            self.free.push(batch);
        }
    }

    /// The next verdict or wake-up.
    pub fn receive(&mut self) -> Option<FromWriter> {
        self.answers.receive()
    }

    /// Whether the writer has said something that was not received.
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Record bytes on the way to the writer, or in its hands.
    pub fn bytes_out(&self) -> usize {
        self.bytes_out
    }
}

impl WriterPeer {
    /// Whether something has come that the writer has not looked at.
    pub fn has_news(&self) -> bool {
        self.current.is_none() && !self.batches.is_empty()
    }

    /// Whether records wait for room in the log, or verdicts and wake-ups for room in their lane.
    pub fn waits(&self) -> bool {
        self.current.is_some() || !self.backlog.is_empty()
    }

    /// Binds what has arrived, until there is nothing more or the writer has no room. `now` is asked after each batch has
    /// arrived: a message must not be stored before it was born.
    /// What has found no room for `patience_ms` is refused.
    pub fn take(&mut self, writer: &mut Writer, patience_ms: u64, mut now: impl FnMut() -> Now) {
        for _ in 0..limits::REMOTE_BATCHES {
            let Some(mut batch) = self.current.take().or_else(|| self.batches.receive()) else { return };
            let is_done = self.bind(&mut batch, writer, patience_ms, now());
            if !is_done {
                self.current = Some(batch);
                return;
            }
            // The lane has room for all batches that exist. Nobody is woken: who needs the batch looks for it.
            if self.spent.send_quietly(batch).is_err() {
                tracing::error!("an emptied batch did not fit into its lane; its shard has one less from now on");
            }
        }
    }

    /// Binds the rest of a batch; false when the writer has no room.
    fn bind(&mut self, batch: &mut AppendBatch, writer: &mut Writer, patience_ms: u64, now: Now) -> bool {
        let (mut request, mut byte, mut piece) = batch.done;
        while let Some(next) = batch.requests.get(request) {
            match writer.admit(next.bytes, next.pieces, &next.queue) {
                Ok(admission) => {
                    self.no_room.is_over();
                    writer.slot(admission).copy_from_slice(&batch.bytes[byte..byte + next.bytes]);
                    let pieces = &batch.pieces[piece..piece + next.pieces];
                    writer.bind(admission, &next.queue, pieces, next.ticket, next.wait, now);
                }
                Err(error) if error.is_temporary() && !self.no_room.lasts(now.steady_ms, patience_ms) => {
                    batch.done = (request, byte, piece);
                    return false;
                }
                Err(error) => {
                    if let Some(ticket) = next.ticket {
                        let verdict = Verdict::Refused(error);
                        let settled = Settled { ticket, verdict, physical: 0, queue_offset: 0 };
                        self.backlog.push_back(FromWriter::Settled(settled));
                    }
                }
            }
            request += 1;
            byte += next.bytes;
            piece += next.pieces;
        }
        true
    }

    /// Keeps a verdict or a wake-up until the next [`WriterPeer::flush`].
    pub fn tell(&mut self, news: FromWriter) {
        self.backlog.push_back(news);
    }

    /// Hands over what was kept, as much as fits, with one wake-up at most.
    pub fn flush(&mut self) {
        self.answers.send_all(&mut self.backlog);
    }
}
