//! The reader threads: pulls whose messages are no longer in memory. They wait for the disk, so that no shard does.
//!
//! Long ranges that are in the page cache are spliced into pipes, short and scattered ones are copied; what is not there is
//! read past the page cache (`cold_blocks.rs`). Each way a shard gets bytes that are resident. Answers of one connection may overtake each other, which the protocol allows.
//!
//! Invariant: only bytes below the ring's floor are read from files. They are in whole pages that are never written again, so a
//! page that is read once stays true for as long as anybody holds it, also when its file is removed.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};

use ringmq_protocol::codes::response;
use ringmq_protocol::pull::{PullResult, write_pull_response_head};
use ringmq_protocol::record::{CrcCheck, Records};
use ringmq_protocol::response::write_error;
use ringmq_shards::log::segments::{SegmentList, WritePath};
use ringmq_shards::probe::{Counter, Histogram, Probe};
use ringmq_shards::queue::{QueueEntry, QueueError};
use ringmq_shards::runtime::{FilledPipe, MailboxSender, PipePool};
use ringmq_shards::types::{PhysicalOffset, QueueOffset};

use super::background;
use super::cold::{BufferPool, ColdAnswer, ColdBuffer, PipedBytes};
use super::cold_blocks::{BlockRead, ColdBlocks};
use super::connection::connection_slot;
use super::event_loop::Lifecycle;
use super::limits;
use super::messages::{ColdPull, ShardMessage};
use super::served::{self, Damaged, Place, Verified};
use super::shared::{Shared, monotonic_ns};
use super::store_thread::StoreAccess;
use crate::broker::pull::{self, Collector, Range, ReadLimits, Reading, Status, TransferLimits, outside};

/// Entries of a queue that may all be gone before a read gives up for now.
const REMOVED_ENTRIES: u64 = 300_000;

/// A reader thread. Several share the channel.
pub struct Reader {
    /// Pulls.
    pub pulls: Arc<Mutex<Receiver<ColdPull>>>,
    /// The store.
    pub access: Arc<StoreAccess>,
    /// All shards.
    pub shards: Vec<MailboxSender<ShardMessage>>,
    /// The byte budget.
    pub shared: Arc<Shared>,
    /// Life of the process.
    pub lifecycle: Arc<Lifecycle>,
    /// Figures.
    pub probe: Probe,
    /// Buffers of copied answers.
    pub buffers: BufferPool,
    /// Pipes of spliced ones.
    pub pipes: PipePool,
    /// What all readers have looked at already.
    pub verified: Arc<Verified>,
    /// What all readers have fetched past the page cache.
    pub blocks: Arc<ColdBlocks>,
}

/// Why a pull cannot be served from the files.
#[derive(Debug, thiserror::Error)]
enum ColdError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("{}", pull::MEMORY_IS_SHORT)]
    MemoryIsShort,
}

/// What an answer is made of.
struct Chosen {
    reading: Reading,
    ranges: Vec<Range>,
    /// The messages in the ranges, in order.
    places: Vec<Place>,
}

impl Reader {
    /// Runs until every shard is gone.
    pub fn run(self) {
        background::step_back(limits::READER_NICENESS);
        loop {
            self.shared.cold.wait_for_room(&self.lifecycle.stopping);
            // Whoever waits for a pull holds the lock; the other reader is reading meanwhile.
            let next = self.pulls.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(pull) = next else { return };
            let answer = match self.lifecycle.stopping.load(Ordering::Acquire) {
                // Reading all that waits could take longer than a stop may.
                true => self.refusal(&pull, response::SYSTEM_BUSY, "the broker is shutting down"),
                false => self.read(&pull),
            };
            self.deliver(&pull, answer);
        }
    }

    fn read(&self, pull: &ColdPull) -> ColdAnswer {
        self.probe.count(Counter::PullFromDisk);
        let answer = self.answer(pull);
        if let Some(received_ns) = pull.received_ns {
            self.probe.record(Histogram::PullLatency, monotonic_ns().saturating_sub(received_ns));
        }
        answer
    }

    fn refusal(&self, pull: &ColdPull, code: i32, remark: &str) -> ColdAnswer {
        let mut frame = Vec::new();
        write_error(&mut frame, pull.serialize_type, pull.opaque, code, remark, &[]);
        ColdAnswer { frame: self.buffer(&[&frame]), pipes: Vec::new() }
    }

    fn deliver(&self, pull: &ColdPull, answer: ColdAnswer) {
        let bytes = answer.frame.len() as u64;
        self.shared.cold.take(bytes);
        let (shard, _) = connection_slot(pull.connection);
        let message = ShardMessage::ColdAnswer { connection: pull.connection, answer, answers: pull.answers };
        if !self.shards.get(shard).is_some_and(|mailbox| mailbox.send_blocking(message)) {
            tracing::debug!(shard, "a shard is gone; its answer is dropped");
            self.shared.cold.release(bytes);
        }
        self.shared.cold_done.fetch_add(1, Ordering::Relaxed);
    }

    /// Reads what a pull asks for.
    pub fn answer(&self, pull: &ColdPull) -> ColdAnswer {
        match self.choose_fitting(pull).and_then(|chosen| self.found(pull, chosen)) {
            Ok(answer) => answer,
            Err(error) => {
                let code = match error {
                    ColdError::MemoryIsShort => response::SYSTEM_BUSY,
                    ColdError::Queue(_) | ColdError::Damaged(_) => {
                        tracing::warn!(%error, "a pull could not be served from the disk");
                        response::SYSTEM_ERROR
                    }
                };
                self.refusal(pull, code, &error.to_string())
            }
        }
    }

    /// Chooses no more than memory allows, by the rule of shards.
    fn choose_fitting(&self, pull: &ColdPull) -> Result<Chosen, ColdError> {
        let is_long = |chosen: &Chosen| chosen.reading.bytes > limits::SHORT_PULL_BYTES;
        let chosen = self.choose(pull, pull.transfer)?;
        if !is_long(&chosen) || self.shared.has_room_for_cold(chosen.reading.bytes) {
            return Ok(chosen);
        }
        let chosen = self.choose(pull, pull.transfer.shortened(limits::SHORT_PULL_BYTES))?;
        if is_long(&chosen) { Err(ColdError::MemoryIsShort) } else { Ok(chosen) }
    }

    /// Chooses messages as a shard does, with the entries that only files have.
    fn choose(&self, pull: &ColdPull, transfer: TransferLimits) -> Result<Chosen, ColdError> {
        let (min, max) = pull.queue.bounds();
        if let Some(reading) = outside(i64::try_from(pull.offset).unwrap_or(i64::MAX), min.0, max.0) {
            return Ok(Chosen { reading, ranges: Vec::new(), places: Vec::new() });
        }
        let limits = ReadLimits { max_messages: pull.max_messages, memory_from: self.access.memory_from(), transfer };
        let log_minimum = self.access.view().minimum();
        let mut collector = Collector::new(limits, &pull.filter);
        let (mut ranges, mut places): (Vec<Range>, Vec<Place>) = (Vec::new(), Vec::new());
        let log_end = self.access.view().confirmed();
        let mut at = pull.offset;
        let mut removed = false;
        let mut entries = [QueueEntry::default(); 32];
        'reading: loop {
            let count = self.access.read_entries(&pull.queue, QueueOffset(at), &mut entries)?;
            if count == 0 {
                break;
            }
            for entry in &entries[..count] {
                let (physical, size, before) = (entry.physical.0, entry.size as usize, collector.messages());
                if entry.is_blank() || physical < log_minimum {
                    removed = true;
                } else if !served::is_plausible(physical, size, log_end) {
                    if at == pull.offset {
                        let reason = format!("its entry says {size} bytes, the log ends at {log_end}");
                        return Err(Damaged::new(&pull.queue, at, physical, reason).into());
                    }
                    // What is in front of it is served; the next pull begins with it and is told.
                    break 'reading;
                } else if !collector.take(entry, &mut ranges) {
                    break 'reading;
                }
                if collector.messages() > before {
                    places.push(Place { physical, size, offset: at });
                }
                at += 1;
            }
            let found_nothing = collector.messages() == 0 && collector.scanned() == 0;
            if found_nothing && removed && at - pull.offset > REMOVED_ENTRIES {
                break;
            }
        }
        let (bytes, messages, scanned) = (collector.bytes(), collector.messages(), collector.scanned());
        let status = match (bytes, removed) {
            (0, true) => Status::MessageWasRemoving,
            (0, false) => Status::NoMatchedMessage,
            _ => Status::Found,
        };
        let (min, max) = (min.0 as i64, max.0 as i64);
        let reading = Reading { status, next: at as i64, min, max, bytes, messages, scanned };
        Ok(Chosen { reading, ranges, places })
    }

    fn found(&self, pull: &ColdPull, chosen: Chosen) -> Result<ColdAnswer, ColdError> {
        let head = head_of(pull, &chosen.reading);
        if let Some(pipes) = self.splice(pull, &chosen) {
            self.count(&chosen.reading, Counter::PullSplicedBytes);
            return Ok(ColdAnswer { frame: self.buffer(&[&head]), pipes });
        }
        let Chosen { mut reading, ranges, places } = chosen;
        let mut frame = self.buffers.take(head.len() + reading.bytes);
        let (front, body) = frame.bytes_mut().split_at_mut(head.len());
        front.copy_from_slice(&head);
        let filled = self.copy(&ranges, body);
        let (good, damaged) = served::check(&body[..filled], &places, &pull.queue);
        if let Some(damaged) = damaged {
            if good == 0 && damaged.offset == pull.offset {
                return Err(damaged.into());
            }
            tracing::error!(%damaged, "messages behind damage cannot be served");
            reading.next = i64::try_from(damaged.offset).unwrap_or(i64::MAX);
        }
        if good < reading.bytes {
            return Ok(self.cut(pull, reading, &body[..good]));
        }
        // Nobody but splices asks, scattered ones seldom come so far, and noting each of their messages is slow.
        if ranges.len() < limits::SCATTERED_RANGES {
            ranges.iter().for_each(|range| self.verified.add(range.physical, range.length));
        }
        self.count(&reading, Counter::PullCopiedBytes);
        Ok(ColdAnswer { frame, pipes: Vec::new() })
    }

    /// Whether the messages may go to a consumer unseen: somebody has looked at these bytes before, or does now.
    fn are_sound(&self, pull: &ColdPull, chosen: &Chosen) -> bool {
        if chosen.ranges.iter().all(|range| self.verified.contains(range.physical, range.length)) {
            return true;
        }
        let mut buffer = self.buffers.take(chosen.reading.bytes);
        let filled = self.copy(&chosen.ranges, buffer.bytes_mut());
        let (good, damaged) = served::check(&buffer[..filled], &chosen.places, &pull.queue);
        if damaged.is_some() || good < chosen.reading.bytes {
            return false;
        }
        chosen.ranges.iter().for_each(|range| self.verified.add(range.physical, range.length));
        true
    }

    /// A segment went away between the entries and the read: what is before it is whole.
    fn cut(&self, pull: &ColdPull, mut reading: Reading, body: &[u8]) -> ColdAnswer {
        reading.bytes = body.len();
        reading.messages = count_records(body);
        if body.is_empty() {
            reading.status = Status::MessageWasRemoving;
        }
        self.count(&reading, Counter::PullCopiedBytes);
        ColdAnswer { frame: self.buffer(&[&head_of(pull, &reading), body]), pipes: Vec::new() }
    }

    fn count(&self, reading: &Reading, way: Counter) {
        self.probe.add(Counter::PullMessages, reading.messages as u64);
        self.probe.add(Counter::PullBytes, reading.bytes as u64);
        self.probe.add(way, reading.bytes as u64);
    }

    /// Copies the ranges one behind the other and gives the bytes of those that are there.
    fn copy(&self, ranges: &[Range], body: &mut [u8]) -> usize {
        let mut filled = 0;
        let span = ranges.last().zip(ranges.first());
        let span = span.map_or(0, |(last, first)| (last.physical + last.length as u64).saturating_sub(first.physical));
        let is_dense = span <= limits::COLD_SPAN_BYTES;
        let segments = self.access.segments().snapshot();
        for range in ranges {
            let out = &mut body[filled..filled + range.length];
            let is_read = is_dense && self.read_block(&segments, range, ranges.len(), out)
                || self.access.read(range.physical, out);
            if !is_read {
                break;
            }
            filled += range.length;
        }
        filled
    }

    /// One of so many ranges, from a block: when the page cache does not have it, or when there are so many that a block spares calls of
    /// the kernel. False when it has to be read otherwise.
    fn read_block(&self, segments: &SegmentList, range: &Range, ranges: usize, out: &mut [u8]) -> bool {
        let view = self.access.view();
        let end = range.physical + out.len() as u64;
        if end > view.floor() {
            return false;
        }
        if self.blocks.copy(range.physical, out) {
            return true;
        }
        if ranges < limits::SCATTERED_RANGES && is_cached(segments, range) {
            return false;
        }
        // A direct read keeps writes of the same file waiting, and the log's writer is a shard. Elsewhere, what the page cache lacks of
        // a block would cost it fresh pages.
        let finished = view.confirmed() - view.confirmed() % segments.size().bytes();
        let start = range.physical - range.physical % limits::COLD_BLOCK_BYTES as u64;
        let block = Range { physical: start, length: limits::COLD_BLOCK_BYTES };
        let is_direct = end <= finished && !is_cached(segments, &block);
        let way = if is_direct { WritePath::Direct } else { WritePath::PageCache };
        match self.blocks.read(self.access.disk(), (segments, way), view.floor(), range.physical, out) {
            BlockRead::Done { fetched } => {
                self.probe.add(Counter::PullFetchedBytes, fetched);
                true
            }
            BlockRead::Impossible => false,
        }
    }

    /// The ranges in pipes. `None` when that is not worth it or not possible; then they are copied.
    fn splice(&self, pull: &ColdPull, chosen: &Chosen) -> Option<Vec<PipedBytes>> {
        let (ranges, bytes) = (&chosen.ranges, chosen.reading.bytes);
        if bytes < limits::SPLICED_ANSWER_BYTES || bytes < ranges.len() * limits::SPLICED_RANGE_BYTES {
            return None;
        }
        let floor = self.access.view().floor();
        if ranges.iter().any(|range| range.physical + range.length as u64 > floor) {
            return None;
        }
        let piped = self.shared.piped_bytes.load(Ordering::Relaxed) + bytes as u64;
        if piped > self.shared.cold.limit() / limits::PIPED_SHARE {
            return None;
        }
        let segments = self.access.segments().snapshot();
        if !ranges.iter().all(|range| is_cached(&segments, range)) || !self.are_sound(pull, chosen) {
            return None;
        }
        let mut pipes = vec![self.pipes.take()?];
        for range in ranges {
            self.splice_range(range, &mut pipes)?;
        }
        Some(pipes.into_iter().map(|pipe| PipedBytes::new(pipe, &self.shared)).collect())
    }

    fn splice_range(&self, range: &Range, pipes: &mut Vec<FilledPipe>) -> Option<()> {
        let list = self.access.segments().snapshot();
        let mut at = PhysicalOffset(range.physical);
        let end = range.physical + range.length as u64;
        while at.0 < end {
            let (segment, in_file) = list.locate(at)?;
            let file = segment.raw_fd(WritePath::PageCache)?;
            let wanted = usize::try_from((end - at.0).min(list.size().bytes_left(at))).ok()?;
            let pipe = pipes.last_mut()?;
            let was_empty = pipe.is_empty();
            match pipe.fill(file, in_file, wanted) {
                // The file is shorter than its segment: the copy says so.
                Ok(0) if was_empty => return None,
                Ok(filled) => at.0 += filled as u64,
                Err(error) => {
                    tracing::debug!(%error, offset = at.0, "a range of the log could not be spliced; it is copied");
                    return None;
                }
            }
            if at.0 < end && list.locate(at).is_some_and(|(here, _)| here.start() == segment.start()) {
                pipes.push(self.pipes.take()?);
            }
        }
        Some(())
    }

    fn buffer(&self, parts: &[&[u8]]) -> ColdBuffer {
        let mut buffer = self.buffers.take(parts.iter().map(|part| part.len()).sum());
        let mut rest = buffer.bytes_mut();
        for part in parts {
            let (front, behind) = rest.split_at_mut(part.len());
            front.copy_from_slice(part);
            rest = behind;
        }
        buffer
    }
}

/// Whether the page cache has a range, as far as the kernel tells: where it does not, reads go through the page cache.
fn is_cached(segments: &SegmentList, range: &Range) -> bool {
    let (mut at, end) = (range.physical, range.physical + range.length as u64);
    while at < end {
        let Some((segment, in_file)) = segments.locate(PhysicalOffset(at)) else { return true };
        let length = (end - at).min(segments.size().bytes_left(PhysicalOffset(at)));
        if let Ok(false) = segment.page_cache().is_cached(in_file, length) {
            return false;
        }
        at += length;
    }
    true
}

fn head_of(pull: &ColdPull, reading: &Reading) -> Vec<u8> {
    let result = PullResult {
        next_begin_offset: reading.next,
        min_offset: reading.min,
        max_offset: reading.max,
        topic_sys_flag: pull.topic_sys_flag,
        group_sys_flag: pull.group_sys_flag,
        ..PullResult::default()
    };
    let code = reading.status.code(i64::try_from(pull.offset).unwrap_or(i64::MAX));
    let remark = Some(reading.status.name());
    let mut head = Vec::with_capacity(512);
    write_pull_response_head(&mut head, pull.serialize_type, pull.opaque, code, remark, &result, reading.bytes);
    head
}

/// Records in a body that was cut short.
fn count_records(body: &[u8]) -> usize {
    Records::new(body, CrcCheck::Skip).map_while(Result::ok).count()
}
