//! Carries out what the log writer decides: one write per group, one sync in sync mode, early write-back, segment changes.
//!
//! Lives on the writer's shard. The page-cache write is the one call here that can block; its time is measured. Everything else
//! goes through the ring or to the flush thread.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ringmq_shards::log::commit_delay::CommitDelay;
use ringmq_shards::log::path_chooser::{PathChooser, Way};
use ringmq_shards::log::segment_table::file_name;
use ringmq_shards::log::segments::{Segment, WritePath};
use ringmq_shards::log::writer::{SyncOperation, describe_failure};
use ringmq_shards::log::{WriteOperation, Writer};
use ringmq_shards::probe::{Counter, Histogram, Probe};
use ringmq_shards::runtime::{CountedSender, Ring, Token};
use ringmq_shards::types::PhysicalOffset;

use super::flush_thread::FlushRequest;
use super::shared::{Shared, monotonic_ns};

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// How far a write has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// Nothing to write, or it waits for a write in flight or for more requests.
    Nothing,
    /// Written inline: settle now.
    Written,
    /// On its way through the ring.
    InFlight,
}

/// See the module's text.
pub struct LogShell {
    segments: VecDeque<Arc<Segment>>,
    segment_bytes: u64,
    path: WritePath,
    chooser: Option<PathChooser>,
    zeroes_ahead: bool,
    wrote_directly: Arc<AtomicBool>,
    write_token: Token,
    sync_token: Token,
    write_back_bytes: u64,
    written_back: u64,
    flush: CountedSender<FlushRequest>,
    shared: Arc<Shared>,
    in_flight: Option<(WriteOperation, Instant)>,
    syncs_in_flight: u32,
    sync_in_flight: Option<SyncOperation>,
    delay: Option<CommitDelay>,
    /// The next group waits for more requests until then, by the steady clock in nanoseconds.
    delayed_until_ns: Option<u64>,
    awaits_zeroing: bool,
    failure: Option<String>,
    probe: Probe,
    sync_started: Instant,
}

/// What a log shell is told at its start.
pub struct LogShellOptions {
    /// Segments from the one that holds the end on.
    pub segments: Vec<Arc<Segment>>,
    /// Size of each.
    pub segment_bytes: u64,
    /// How to write; with a chooser, how to write what does not go through the page cache.
    pub path: WritePath,
    /// Decides for each group whether it goes through the page cache.
    pub chooser: Option<PathChooser>,
    /// Decides for each group whether it waits for more requests; for writes that are durable when they end.
    pub delay: Option<CommitDelay>,
    /// Whether the flush thread zeroes ahead, so that writes must ask the frontier.
    pub zeroes_ahead: bool,
    /// Tells the flush thread that there are writes around the page cache.
    pub wrote_directly: Arc<AtomicBool>,
    /// Bytes after which write-back is started; 0 leaves it to the kernel.
    pub write_back_bytes: u64,
    /// End of the log.
    pub end: u64,
    /// Token of writes.
    pub write_token: Token,
    /// Token of syncs.
    pub sync_token: Token,
    /// The flush thread.
    pub flush: CountedSender<FlushRequest>,
    /// Whether the disk answers.
    pub shared: Arc<Shared>,
    /// Figures.
    pub probe: Probe,
}

impl LogShell {
    /// A shell that continues at the log's end.
    pub fn new(options: LogShellOptions) -> Self {
        Self {
            segments: options.segments.into(),
            segment_bytes: options.segment_bytes,
            path: options.path,
            chooser: options.chooser,
            zeroes_ahead: options.zeroes_ahead,
            wrote_directly: options.wrote_directly,
            write_token: options.write_token,
            sync_token: options.sync_token,
            write_back_bytes: options.write_back_bytes,
            written_back: options.end,
            flush: options.flush,
            shared: options.shared,
            in_flight: None,
            syncs_in_flight: 0,
            sync_in_flight: None,
            delay: options.delay,
            delayed_until_ns: None,
            awaits_zeroing: false,
            failure: None,
            probe: options.probe,
            sync_started: Instant::now(),
        }
    }

    /// The text of a final failure.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Size of a segment in bytes.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// A further segment is open.
    pub fn add_segment(&mut self, segment: Arc<Segment>) {
        self.segments.push_back(segment);
    }

    fn segment(&self, start: u64) -> Option<&Arc<Segment>> {
        self.segments.iter().find(|segment| segment.start().0 == start)
    }

    fn descriptor(&self, start: u64) -> io::Result<RawFd> {
        self.segment(start)
            .and_then(|segment| segment.raw_fd(self.path))
            .ok_or_else(|| io::Error::other("the segment is not open"))
    }

    /// `offset` is that in the file.
    fn fail(&mut self, action: &str, segment: u64, offset: u64, error: &io::Error) {
        if self.failure.is_none() {
            let file = self
                .segment(segment)
                .map_or_else(|| file_name(PhysicalOffset(segment)).into(), |found| found.path().to_owned());
            self.failure = Some(describe_failure(action, &file, offset, error));
        }
    }

    /// Writes what has gathered, as one group. `steady_ms` is the steady clock.
    pub fn push(&mut self, writer: &mut Writer, ring: &mut Ring, steady_ms: u64) -> Pushed {
        if self.awaits_zeroing {
            return self.submit_direct(writer, ring);
        }
        if self.failure.is_some() || self.is_delayed(writer) || self.in_flight.is_some() {
            return Pushed::Nothing;
        }
        let Some(operation) = writer.next_write() else { return Pushed::Nothing };
        self.probe.count(Counter::LogGroups);
        self.probe.add(Counter::LogBytes, operation.length as u64);
        self.probe.record(Histogram::LogGroupSize, operation.length as u64);
        let started = Instant::now();
        let needed_from = writer.needed_from();
        while self.segments.front().is_some_and(|segment| segment.start().0 + self.segment_bytes <= needed_from) {
            self.segments.pop_front();
        }
        let way = match &mut self.chooser {
            Some(chooser) => {
                chooser.note_silence(self.shared.disk_watch.silent_ms(steady_ms), steady_ms);
                chooser.choose(operation.length, operation.requests)
            }
            None if self.path == WritePath::PageCache => Way::PageCache,
            None => Way::Direct,
        };
        if way == Way::PageCache && self.is_clear(&operation) {
            return self.write_inline(writer, &operation, started);
        }
        self.in_flight = Some((operation, started));
        self.submit_direct(writer, ring)
    }

    /// Tells the commit delay of requests that have come, and asks whether what has gathered waits for more.
    fn is_delayed(&mut self, writer: &Writer) -> bool {
        let Some(delay) = &mut self.delay else { return false };
        let now_ns = monotonic_ns();
        delay.note(now_ns, writer.requests());
        // What is left after a segment is full has no request that the write before did not count: those answered are elsewhere.
        let can_wait = self.in_flight.is_none() && writer.unwritten_requests() > 0;
        let until_ns = if can_wait { delay.waits_until_ns(now_ns) } else { None };
        if until_ns.is_some() && self.delayed_until_ns.is_none() {
            self.probe.count(Counter::LogDelays);
        }
        self.delayed_until_ns = until_ns;
        until_ns.is_some()
    }

    /// Until when what has gathered waits for more requests, if it does; then try [`LogShell::push`] again.
    pub fn delayed_until_ns(&self) -> Option<u64> {
        self.delayed_until_ns
    }

    fn write_inline(&mut self, writer: &mut Writer, operation: &WriteOperation, started: Instant) -> Pushed {
        let source = writer.write_source(operation);
        // SAFETY: the range is inside the ring and only this thread writes it.
        let bytes = unsafe { std::slice::from_raw_parts(source, operation.length) };
        let result = match self.segment(operation.segment) {
            Some(segment) => segment.page_cache().write_all_at(bytes, operation.file_offset),
            None => Err(io::Error::other("the segment is not open")),
        };
        let elapsed_ns = nanoseconds(started);
        self.probe.record(Histogram::LogWriteTime, elapsed_ns);
        match result {
            Ok(()) => {
                if let Some(chooser) = &mut self.chooser
                    && chooser.page_cache_took(operation.length, elapsed_ns)
                    && self.flush.try_send(FlushRequest::RecyclePages).is_err()
                {
                    tracing::debug!("the flush thread is busy; pages are not recycled");
                }
                writer.write_completed();
                self.start_write_back(operation);
                Pushed::Written
            }
            Err(error) => {
                self.fail("write", operation.segment, operation.file_offset, &error);
                Pushed::Nothing
            }
        }
    }

    /// Whether a write waits for the flush thread to finish zeroing the very place; try [`LogShell::push`] again soon.
    pub fn awaits_zeroing(&self) -> bool {
        self.awaits_zeroing
    }

    /// Whether the zeroing thread is not in the way of a write, and never will be.
    fn is_clear(&self, operation: &WriteOperation) -> bool {
        let file_end = operation.file_offset + operation.length as u64;
        let is_clear = |segment: &Arc<Segment>| segment.frontier().admit(file_end);
        // Without the segment nothing waits: that the write then finds no file is the log's failure.
        !self.zeroes_ahead || self.segment(operation.segment).is_none_or(is_clear)
    }

    /// Hands a direct write to the ring, unless the zeroing thread is in its way just now.
    fn submit_direct(&mut self, writer: &Writer, ring: &mut Ring) -> Pushed {
        let Some((operation, _)) = self.in_flight else { return Pushed::Nothing };
        self.wrote_directly.store(true, Ordering::Relaxed);
        self.awaits_zeroing = !self.is_clear(&operation);
        if self.awaits_zeroing {
            return Pushed::Nothing;
        }
        let submitted = self.descriptor(operation.segment).and_then(|file| {
            let length = u32::try_from(operation.length).map_err(io::Error::other)?;
            let source = writer.write_source(&operation);
            // SAFETY: ring memory below the end stays until the write is reported complete; see `Writer::next_write`.
            unsafe { ring.write(file, source, length, operation.file_offset, self.write_token) }
        });
        match submitted {
            Ok(()) => Pushed::InFlight,
            Err(error) => {
                self.fail("submit a write", operation.segment, operation.file_offset, &error);
                Pushed::Nothing
            }
        }
    }

    /// The ring has finished the write. True when the group may be settled.
    pub fn write_finished(&mut self, writer: &mut Writer, outcome: io::Result<usize>) -> bool {
        let Some((operation, started)) = self.in_flight.take() else { return false };
        let elapsed_ns = nanoseconds(started);
        self.probe.record(Histogram::LogWriteTime, elapsed_ns);
        let error = match outcome {
            Ok(length) if length == operation.length => {
                if let Some(delay) = &mut self.delay {
                    let (bound, waiting) = (writer.requests(), writer.unwritten_requests());
                    delay.group_ended(monotonic_ns(), elapsed_ns, operation.requests, bound, waiting);
                }
                writer.write_completed();
                return true;
            }
            Ok(length) => io::Error::other(format!("only {length} of {} bytes were written", operation.length)),
            Err(error) => error,
        };
        self.fail("write", operation.segment, operation.file_offset, &error);
        false
    }

    /// Starts the sync that is due, if any (sync mode with separate syncs). True when one was handed to the ring.
    pub fn push_sync(&mut self, writer: &mut Writer, ring: &mut Ring) -> bool {
        if self.failure.is_some() || self.sync_in_flight.is_some() {
            return false;
        }
        let Some(operation) = writer.next_sync() else { return false };
        self.sync_started = Instant::now();
        self.sync_in_flight = Some(operation);
        let mut start = operation.from - operation.from % self.segment_bytes;
        while start < operation.end {
            match self.descriptor(start).and_then(|file| ring.sync_data(file, self.sync_token)) {
                Ok(()) => self.syncs_in_flight += 1,
                Err(error) => self.fail("submit a sync", start, 0, &error),
            }
            start += self.segment_bytes;
        }
        self.syncs_in_flight > 0
    }

    /// The ring has finished a sync. True when the group may be settled.
    pub fn sync_finished(&mut self, writer: &mut Writer, outcome: io::Result<usize>) -> bool {
        let Some(operation) = self.sync_in_flight else { return false };
        self.syncs_in_flight -= 1;
        if let Err(error) = outcome {
            // Of two segments it may have been either: what was to be synced begins in the first.
            let in_file = operation.from % self.segment_bytes;
            self.fail("sync", operation.from - in_file, in_file, &error);
            return false;
        }
        // A sync of two segments holds only if both succeeded.
        if self.syncs_in_flight > 0 || self.failure.is_some() {
            return false;
        }
        self.sync_in_flight = None;
        self.probe.count(Counter::LogSyncs);
        self.probe.record(Histogram::LogSyncTime, nanoseconds(self.sync_started));
        writer.sync_completed();
        true
    }

    /// Lets the kernel write dirty pages early, so that they never pile up into one long stall.
    fn start_write_back(&mut self, operation: &WriteOperation) {
        if self.write_back_bytes == 0 || operation.end < self.written_back + self.write_back_bytes {
            return;
        }
        let from = self.written_back.max(operation.segment);
        let request = FlushRequest::WriteBack { segment: operation.segment, from, end: operation.end };
        // A full mailbox only means that the kernel starts later by itself.
        if self.flush.try_send(request).is_ok() {
            self.written_back = operation.end;
        }
    }
}

#[cfg(test)]
mod tests;
