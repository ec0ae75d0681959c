//! Bounds of the server, each in one place with its reason. Those with a configuration key are defaults.

use ringmq_shards::queue::limits::{MAXIMUM_OPEN_FILES, MAXIMUM_SHARDS};

/// Connections that a shard has slots for, whatever `max_connections` says: the largest value of that key.
pub const MAX_CONNECTIONS: usize = 1_000_000;

/// Held pulls that a shard has slots for, whatever `max_held_pulls` says: the largest value of that key.
pub const MAX_HELD_PULLS: usize = 100_000_000;

/// Sends that wait for their group, per shard.
pub const MAX_PENDING_SENDS: usize = 65_536;

/// A disk that has not answered for this long is busy. Twice RocketMQ's osPageCacheBusyTimeOutMills: a sync of a slow disk takes a second
/// now and then, and who waits for it is served, while a client gives up after 3 s.
pub const DISK_BUSY_MS: u64 = 2_000;

/// How long a send waits for room in the log while it is: nothing of it was stored, so its client can go to another broker at once,
/// which it cannot after its own time-out of 3 s. Source: waitTimeMillsInSendQueue.
pub const BUSY_DISK_PATIENCE_MS: u64 = 200;

/// Batches of prepared records between a shard and the writer: a turn fills one, the writer empties it a turn later, and a writer
/// that is held up by a long write finds some more.
pub const REMOTE_BATCHES: usize = 32;

/// A batch that has reached this is sent on before its turn ends, so that the writer's shard has something to do meanwhile.
pub const REMOTE_BATCH_BYTES: usize = 64 << 10;

/// Record bytes of one shard on the way to the writer, and memory that their batches keep: enough for several groups, small
/// beside the log ring. A single larger request is admitted when nothing else is on its way.
pub const REMOTE_BYTES: usize = 4 << 20;

/// Verdicts and wake-ups that a shard has not looked at yet; more wait on the writer's shard.
pub const REMOTE_ANSWERS: usize = 4_096;

/// Messages from other threads that a shard has not looked at yet.
pub const MAILBOX_MESSAGES: usize = 65_536;

/// Requests waiting for the control thread; above it they are refused with `SYSTEM_BUSY`.
pub const CONTROL_REQUESTS: usize = 65_536;

/// Requests that wait while another change of topics or groups is being written, and bytes of them; above it they are refused with
/// `SYSTEM_BUSY`. They are written together, so a disk that answers serves them all at once.
pub const PARKED_REQUESTS: usize = 16_384;

/// See [`PARKED_REQUESTS`]. First sends to new topics are among them, with their messages.
pub const PARKED_BYTES: usize = 64 << 20;

/// What an answer of the control thread counts against its connection until it comes, beside its request: those that tell an
/// offset or an outcome are shorter. Longer ones are asked for one at a time.
pub const BRIEF_ANSWER_BYTES: usize = 1 << 10;

/// Bytes of answers that a shard takes from other threads in one turn, the last one not counted: copying them takes about a
/// millisecond.
pub const ANSWER_BYTES_PER_TURN: usize = 4 << 20;

/// Records of one query by key: Java's clients take no frame above 16 MiB. The first record always fits.
pub const QUERY_ANSWER_BYTES: usize = 15 << 20;

/// Cold reads waiting for the reader threads; above it pulls are refused with `SYSTEM_BUSY`.
pub const COLD_READS: usize = 4_096;

/// Slices of one gathered send: below the kernel's `IOV_MAX` of 1,024.
pub const GATHERED_SLICES: usize = 1_000;

/// The most time that a frame has to arrive when buffers exceed their budget by a quarter: then half frames are what memory is
/// needed for.
pub const EXHAUSTED_FRAME_MS: u64 = 5_000;

/// Bytes of one receive when memory is short: most requests fit, and a thousand half ones stay small.
pub const SHORT_RECEIVE_BYTES: u32 = 16 << 10;

/// A connection that may finish its frame although memory is short, and from which nothing arrives for this long, lets the next
/// one try. Honest peers have their bytes ready in the socket.
pub const FINISHER_IDLE_MS: u64 = 50;

/// The same for one from which a little arrives again and again: 16 MiB pass in a second on any network that matters.
pub const FINISHER_MS: u64 = 1_000;

/// A buffer that has grown beyond this is given back once it is empty.
pub const KEEP_BUFFER_BYTES: usize = 256 << 10;

/// What a buffer of a connection may keep that has been silent for a second: very many connections that were busy once, such as
/// consumers that have caught up, must not keep memory that no budget counts.
pub const SILENT_BUFFER_BYTES: usize = 16 << 10;

/// Memory of input buffers that a shard keeps for the next large frames while they come: asking the kernel for it anew, and
/// giving it back, takes longer than storing the frame.
pub const SPARE_INPUT_BYTES: usize = 16 << 20;

/// Requests waiting for the flush thread. They are small; when they pile up the disk is stuck anyway.
pub const FLUSH_REQUESTS: usize = 4_096;

/// Look-ups waiting for the store thread; above it they are refused with `SYSTEM_BUSY`.
pub const STORE_JOBS: usize = 4_096;

/// Largest record that is believed when its length is read from a file: far above what `maxMessageSize` can be set to, and
/// small enough to be read at once.
pub const RECORD_BYTES_MAX: usize = 64 << 20;

/// Descriptors that a start needs: six for each shard's rings and wake-ups, two more while they are tried, and those of the store,
/// of listeners and of the first connections. A shard that finds none left while it starts could only panic.
pub const fn descriptors_to_start(shards: usize) -> u64 {
    64 + 8 * shards as u64
}

/// Descriptors that neither connections nor queue files get: the log's segments, pipes, state files and what a start needs. A
/// process that may open fewer than four times as many keeps back a quarter.
const DESCRIPTORS_KEPT_BACK: u64 = 4_096;

/// Queue files that stay open: a quarter of the descriptors, with a bound of its own.
pub fn descriptors_for_queue_files(descriptors: u64) -> usize {
    usize::try_from(descriptors / 4).unwrap_or(usize::MAX).clamp(1, MAXIMUM_OPEN_FILES)
}

/// The descriptors that connections may have: what queue files and the log leave, half at least.
pub fn descriptors_for_connections(descriptors: u64) -> u64 {
    let kept_back = DESCRIPTORS_KEPT_BACK.min(descriptors / 4);
    descriptors.saturating_sub(descriptors_for_queue_files(descriptors) as u64 + kept_back)
}

/// Bytes of input that a turn takes before it writes and answers: with less, groups and sends get small; with more, the disk and the
/// clients wait for the shard's parsing.
pub const RECEIVED_BYTES_PER_TURN: usize = 256 << 10;

/// Threads that serve cold pulls: with two, one long read from a slow disk does not hold up all others.
pub const READERS: usize = 2;

/// Shards of a process.
pub const MAX_SHARDS: usize = MAXIMUM_SHARDS;

/// Pin slots of the log view: a shard has that of its number, the threads that also read the ring have those behind.
pub const FLUSH_PIN_SLOT: usize = MAX_SHARDS;

/// The store thread's.
pub const STORE_PIN_SLOT: usize = FLUSH_PIN_SLOT + 1;

/// The first of the reader threads'.
pub const READER_PIN_SLOTS: usize = STORE_PIN_SLOT + 1;

/// All of them.
pub const PIN_SLOTS: usize = READER_PIN_SLOTS + READERS;

/// Niceness of these threads: beside a busy shard they get about a tenth of a processor, and all that is idle.
pub const READER_NICENESS: i32 = 10;

/// Niceness of the store thread, which reads each record again for the index: beside a busy shard it gets up to a quarter of a
/// processor, several times what the index of a shard at its limit needs.
pub const STORE_NICENESS: i32 = 5;

/// Pipes of each reader thread. They refer to pages of the page cache and cost two descriptors each; when all are in use,
/// reads are copied.
pub const READER_PIPES: usize = 16;

/// Bytes of whole pages that one pipe holds. All pipes together stay far below the 64 MiB that an ordinary user may have
/// (`pipe-user-pages-soft`).
pub const PIPE_BYTES: usize = 512 << 10;

/// Part of `cold_read_bytes` that pipes may take up: stalled connections hold theirs for a while, and copied reads go on.
pub const PIPED_SHARE: u64 = 2;

/// Answers below this are copied: moving a page costs more than copying it while a few pages share a system call.
pub const SPLICED_ANSWER_BYTES: usize = 192 << 10;

/// Answers whose ranges are shorter than this on average are copied: each range costs a system call.
pub const SPLICED_RANGE_BYTES: usize = 32 << 10;

/// Connections that take nothing from a pipe for this long get the rest copied, and the pipe goes back.
pub const PIPE_STALL_MS: u64 = 1_000;

/// Stalled connections that one pass gives copies: it bounds the time of the turn. The next pass takes the others.
pub const STALLED_PER_PASS: usize = 4;

/// Buffers that each reader thread keeps for reuse.
pub const IDLE_COLD_BUFFERS: usize = 4;

/// Larger ones are not kept.
pub const IDLE_COLD_BUFFER_BYTES: usize = 512 << 10;

/// Copied answers from this size on are sent from the reader's buffer, shorter ones join the connection's other output.
pub const MOVED_ANSWER_BYTES: usize = 32 << 10;

/// Answers of pulls while memory is short: some messages go on, and a connection that takes none of them holds little.
pub const SHORT_PULL_BYTES: usize = 32 << 10;

/// Heads of answers up to this size are sent by a direct call just before the pipe; longer output goes through the ring.
pub const DIRECT_HEAD_BYTES: usize = 16 << 10;

/// Bytes of the log that a cold pull fetches from the disk at once, when they are not in the page cache.
pub const COLD_BLOCK_BYTES: usize = 256 << 10;

/// Messages of one pull that lie farther apart than this are read one by one: most of what is between them is not wanted.
pub const COLD_SPAN_BYTES: u64 = 1 << 20;

/// Ranges of one pull from which on their blocks are taken from the page cache as well, and not the ranges one by one: neighbours of
/// a message are wanted next, and a call of the kernel for each of them takes longer than copying it.
pub const SCATTERED_RANGES: usize = 4;

/// Such blocks that are kept in memory, for all readers together (16 MiB): neighbours of a message are wanted next.
pub const COLD_BLOCKS: usize = 64;

/// Blocks among which one is chosen to make room.
pub const COLD_BLOCKS_PER_SET: usize = 4;

/// Ranges of the log that are known to have been looked at: long ones, as adjacent ones become one.
pub const VERIFIED_RANGES: usize = 4_096;

/// Queue entries that requests may look at in one turn before what else has arrived on their connections waits for the next: a
/// tenth of a millisecond or two. Each connection has a request executed in any case.
pub const ENTRIES_PER_TURN: usize = 16_384;

/// The same for held pulls, which have a share of their own.
pub const HELD_ENTRIES_PER_TURN: usize = 16_384;

/// What one held pull counts there, beside the entries: looking it up, and answering it. So a turn answers a thousand.
pub const ENTRIES_PER_PULL: usize = 16;

/// Pulls that waited for their connection to take answers, and that are answered before it is another connection's turn.
pub const RESUMED_PULLS: usize = 32;

/// Bytes of requests that waited, and that are executed on one connection in one turn; the last request always fits. It makes a
/// group of a useful size, and leaves room in the log for others.
pub const INPUT_BYTES_PER_TURN: usize = 256 << 10;

/// Connections that are closed for what they sent are logged at most this often; all are counted.
pub const MALFORMED_LINE_MS: u64 = 1_000;

/// Longest time that a held pull keeps its consumer from what its filter has rejected. Source: PullRequestHoldService.run, which
/// executes such pulls again at each of its rounds.
pub const FILTERED_PULL_MS: u64 = 5_000;
