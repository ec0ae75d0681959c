//! Every metric, in one table: name, unit, meaning. HELP texts, the reference and the cells of all threads come from it.
//!
//! Names end in their unit; times are recorded in nanoseconds and shown in seconds. To add a metric, add a line.

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricRow {
    /// Name in the exposition.
    pub name: &'static str,
    /// Unit: `seconds`, `bytes`, or what is counted.
    pub unit: &'static str,
    /// What it means, for HELP and the reference.
    pub help: &'static str,
}

macro_rules! metrics {
    ($(#[$meta:meta])* $kind:ident: $($variant:ident, $name:literal, $unit:literal, $help:literal;)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $kind {
            $(#[doc = $help] $variant,)*
        }

        impl $kind {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The line of the table.
            pub const fn row(self) -> MetricRow {
                match self {
                    $(Self::$variant => MetricRow { name: $name, unit: $unit, help: $help },)*
                }
            }
        }
    };
}

metrics! {
    /// Counts that only grow; each thread has its own cells.
    Counter:
    Requests, "ringmq_requests_total", "requests", "Requests taken, of any kind.";
    SendMessages, "ringmq_send_messages_total", "messages", "Messages accepted from producers.";
    SendBytes, "ringmq_send_bytes_total", "bytes", "Bytes of accepted send requests.";
    SendRefused, "ringmq_send_refused_total", "requests", "Send requests answered with an error.";
    SendRemote, "ringmq_send_remote_total", "requests", "Send requests whose records another shard put into the log.";
    PullRequests, "ringmq_pull_requests_total", "requests", "Pull requests taken.";
    PullMessages, "ringmq_pull_messages_total", "messages", "Messages handed to consumers.";
    PullBytes, "ringmq_pull_bytes_total", "bytes", "Bytes of records handed to consumers.";
    PullFromRing, "ringmq_pull_ring_total", "requests", "Pulls served from the log's ring in memory.";
    PullFromDisk, "ringmq_pull_disk_total", "requests", "Pulls served by a reader thread from the log's files.";
    PullCopiedBytes, "ringmq_pull_copied_bytes_total", "bytes", "Bytes of records that reader threads copied from the log's files.";
    PullFetchedBytes, "ringmq_pull_fetched_bytes_total", "bytes", "Bytes of the log that reader threads fetched in blocks, past the page cache where it lacks them and no writer is kept waiting.";
    PullSplicedBytes, "ringmq_pull_spliced_bytes_total", "bytes", "Bytes of records that reader threads passed on as pages, without copying.";
    PullParked, "ringmq_pull_parked_total", "requests", "Pulls that found nothing and were made to wait.";
    PullWakeUps, "ringmq_pull_wake_ups_total", "events", "Wake-ups of queues with waiting pulls.";
    ConnectionsOpened, "ringmq_connections_opened_total", "connections", "Connections taken in.";
    ConnectionsClosed, "ringmq_connections_closed_total", "connections", "Connections closed, by either side.";
    ConnectionsRefused, "ringmq_connections_refused_total", "connections", "Connections closed at once because of max_connections or the limit of open files.";
    NetworkReadBytes, "ringmq_network_read_bytes_total", "bytes", "Bytes received from sockets.";
    NetworkWrittenBytes, "ringmq_network_written_bytes_total", "bytes", "Bytes given to sockets.";
    FramesRefused, "ringmq_frames_refused_total", "frames", "Frames that could not be decoded; each closes its connection.";
    ReadPauses, "ringmq_read_pauses_total", "events", "Times a connection was not read because of its own bytes in flight.";
    MemoryPauses, "ringmq_memory_pauses_total", "events", "Times a connection was not read because buffers used up their budget.";
    FrameTimeouts, "ringmq_frame_timeouts_total", "connections", "Connections closed because a request did not arrive in time.";
    IdleTimeouts, "ringmq_idle_timeouts_total", "connections", "Connections closed because nothing was sent or received for too long.";
    ReceiveBuffersExhausted, "ringmq_receive_buffers_exhausted_total", "events", "Receives that found no free buffer.";
    ShardTurns, "ringmq_shard_turns_total", "turns", "Turns of shard loops.";
    ShardEnters, "ringmq_shard_enters_total", "calls", "Calls of io_uring_enter.";
    ShardSleeps, "ringmq_shard_sleeps_total", "events", "Of these, calls that could sleep.";
    ShardSpins, "ringmq_shard_spins_total", "events", "Sleeps that spinning saved: work came within the window.";
    ShardWakes, "ringmq_shard_wakes_total", "events", "Times that another thread woke a shard from sleep.";
    ShardHops, "ringmq_shard_hops_total", "messages", "Messages between shards for sends: one there, one back.";
    LogGroups, "ringmq_log_groups_total", "groups", "Groups written to the log: one write each.";
    LogDelays, "ringmq_log_commit_delays_total", "groups", "Groups that waited a moment for the senders of the group before.";
    LogBytes, "ringmq_log_bytes_total", "bytes", "Bytes written to the log, its last block again with each group.";
    LogSyncs, "ringmq_log_syncs_total", "syncs", "Completed syncs of the log.";
    LogSegmentRolls, "ringmq_log_segment_rolls_total", "segments", "Times that the log went on in its next segment.";
    LogWaits, "ringmq_log_waits_total", "events", "Times that a request waited for room in the log.";
    RetentionRounds, "ringmq_retention_rounds_total", "rounds", "Times that retention has looked for files of the log to remove.";
    LogSegmentsRemoved, "ringmq_log_segments_removed_total", "segments", "Files of the log that retention has removed.";
    QueueFilesRemoved, "ringmq_queue_files_removed_total", "files", "Queue files that went with them.";
    IndexFilesRemoved, "ringmq_index_files_removed_total", "files", "Index files that went with them.";
    QueueEntriesFlushed, "ringmq_queue_flushed_entries_total", "entries", "Queue entries written to queue files.";
    QueueTailFull, "ringmq_queue_tail_full_total", "events", "Requests that had to wait for the flush thread to write a queue.";
    IndexMessages, "ringmq_index_messages_total", "messages", "Messages that the index has taken in.";
    StoreLookUps, "ringmq_store_look_ups_total", "requests", "Requests answered by the store thread.";
    QueriesFailed, "ringmq_queries_failed_total", "requests", "Queries by key that could not be answered because index or log could not be read.";
    RequestsControl, "ringmq_control_requests_total", "requests", "Requests answered by the control thread.";
    RequestsUnknown, "ringmq_unknown_requests_total", "requests", "Requests with a code that is not served.";
}

metrics! {
    /// Values that are asked when the page is rendered.
    Gauge:
    StarvedConnections, "ringmq_starved_connections", "connections", "Connections that are not read until memory for buffers returns.";
    LogMinimum, "ringmq_log_minimum_offset_bytes", "bytes", "First byte of the log.";
    LogConfirmed, "ringmq_log_confirmed_offset_bytes", "bytes", "End of what readers may see.";
    LogSynced, "ringmq_log_synced_offset_bytes", "bytes", "End of what is known to survive a power cut.";
    IndexLag, "ringmq_index_lag_bytes", "bytes", "Confirmed bytes of the log that are not in the index yet.";
    QueueLag, "ringmq_queue_unflushed_percent", "percent", "Fullest queue tail that waits for the flush thread.";
    LogRingHuge, "ringmq_log_ring_huge_bytes", "bytes", "Part of the log ring that lies on huge pages.";
    DiskAvailable, "ringmq_disk_available_bytes", "bytes", "Room left on a file system of the store.";
    DiskUsed, "ringmq_disk_used_percent", "percent", "Used part of the fullest file system of the store, as retention counts it.";
    DiskFull, "ringmq_disk_full", "flag", "1 while sends are refused for want of space.";
    DroppedLogLines, "ringmq_dropped_log_lines", "lines", "Lines of the log that were lost since the start because its target was too slow.";
    StartTime, "ringmq_start_time_seconds", "seconds", "When the process began, in Unix time.";
}

metrics! {
    /// Durations in nanoseconds, or sizes; each thread has its own buckets.
    Histogram:
    SendLatency, "ringmq_send_latency_seconds", "seconds", "From a send request's last byte to its answer.";
    PullLatency, "ringmq_pull_latency_seconds", "seconds", "From a pull request's last byte to its answer, unless it waited for messages.";
    ControlLatency, "ringmq_control_latency_seconds", "seconds", "From a control request's arrival to its answer.";
    LogWriteTime, "ringmq_log_write_seconds", "seconds", "Duration of a log write; on the page-cache path it holds up the writer's shard.";
    LogSyncTime, "ringmq_log_sync_seconds", "seconds", "Duration of a log sync.";
    LogGroupSize, "ringmq_log_group_bytes", "bytes", "Bytes of one group of records.";
    ShardTurnTime, "ringmq_shard_turn_seconds", "seconds", "Duration of a shard's turn: how long others on it wait.";
    SegmentRemoveTime, "ringmq_log_segment_remove_seconds", "seconds", "From the first freed block of a removed file to its end, pauses included.";
    QueueFlushTime, "ringmq_queue_flush_seconds", "seconds", "Duration of one round over the queues to flush.";
    IndexFlushTime, "ringmq_index_flush_seconds", "seconds", "Duration of the syncs of one flush of the index.";
}

metrics! {
    /// Bounds, each shown with its use: `name` and `name_used`.
    Limit:
    Memory, "ringmq_limit_memory_bytes", "bytes", "Budget of all buffers and caches.";
    LogRing, "ringmq_limit_log_ring_bytes", "bytes", "Recent log kept in memory.";
    QueueTails, "ringmq_limit_queue_tail_bytes", "bytes", "Memory of all queue tails.";
    QueueOpenFiles, "ringmq_limit_queue_open_files", "files", "Queue files kept open.";
    Connections, "ringmq_limit_connections", "connections", "Connections at a time.";
    Buffers, "ringmq_limit_buffer_bytes", "bytes", "Input and output of all connections; past it connections are not read.";
    PendingSends, "ringmq_limit_pending_sends", "requests", "Sends that wait for the log.";
    RemoteBytes, "ringmq_limit_remote_bytes", "bytes", "Records on their way from other shards to the log's writer.";
    WaitingPulls, "ringmq_limit_waiting_pulls", "requests", "Pulls that wait for messages.";
    ColdReads, "ringmq_limit_cold_read_bytes", "bytes", "Answers from the log's files on their way to shards or in pipes.";
    SplicePipes, "ringmq_limit_splice_pipes", "pipes", "Pipes that hold pages of the log's files until they are sent.";
    ColdQueue, "ringmq_limit_cold_queue", "requests", "Pulls that wait for a reader thread.";
    ControlQueue, "ringmq_limit_control_queue", "requests", "Requests that wait for the control thread.";
    FlushQueue, "ringmq_limit_flush_queue", "requests", "Requests that wait for the flush thread.";
    Mailbox, "ringmq_limit_mailbox", "messages", "Messages from other threads that wait in the fullest mailbox of a shard.";
    StoreQueue, "ringmq_limit_store_queue", "requests", "Requests that wait for the store thread.";
    Topics, "ringmq_limit_topics", "topics", "Topics.";
    Queues, "ringmq_limit_queues", "queues", "Queues of all topics.";
    Groups, "ringmq_limit_consumer_groups", "groups", "Consumer groups.";
    ConnectionGroups, "ringmq_limit_connection_groups", "groups", "Groups of the connection that is a member of most.";
    OffsetKeys, "ringmq_limit_offset_keys", "pairs", "Pairs of topic and group with committed offsets.";
    LockedGroups, "ringmq_limit_locked_groups", "groups", "Groups that hold orderly locks.";
    ParkedRequests, "ringmq_limit_parked_requests", "requests", "Requests that wait until tables of topics and groups are on disk.";
    ParkedBytes, "ringmq_limit_parked_bytes", "bytes", "Bytes of those requests.";
    NamesrvBrokers, "ringmq_limit_namesrv_brokers", "brokers", "Addresses of brokers registered with the name server.";
    NamesrvRoutes, "ringmq_limit_namesrv_routes", "routes", "Pairs of topic and broker name that the name server knows.";
    NamesrvKeys, "ringmq_limit_namesrv_keys", "keys", "Entries of the name server's KV configuration.";
    Descriptors, "ringmq_limit_descriptors", "descriptors", "File descriptors that the process may open.";
}
