//! What travels between the threads.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use ringmq_protocol::frame::SerializeType;
use ringmq_shards::queue::Queue;

use super::cold::ColdAnswer;
use super::connection::Listener;
use super::serving::Serving;
use crate::broker::filter::TagFilter;
use crate::broker::pull::TransferLimits;

/// What a shard hears from other threads, but for what sends need (see [`super::remote`]).
pub enum ShardMessage {
    /// A connection that shard 0 accepted for it.
    Adopt(OwnedFd, Listener, SocketAddr),
    /// An encoded frame for a connection; `answers` is how many bytes of requests it settles.
    Frame {
        /// The connection's number.
        connection: u64,
        /// The whole frame; empty when a request ends without an answer.
        frame: Vec<u8>,
        /// Bytes of the request that this answers, 0 for notices.
        answers: usize,
    },
    /// The same from a reader thread; its buffer is charged to the budget of cold reads.
    ColdAnswer {
        /// The connection's number.
        connection: u64,
        /// The answer.
        answer: ColdAnswer,
        /// As above.
        answers: usize,
    },
    /// A request is to be executed again, because what it was missing exists now. An empty one was refused and has its
    /// answer; what waits behind it may go on.
    Again {
        /// The connection's number.
        connection: u64,
        /// The request's frame.
        frame: Vec<u8>,
        /// Bytes that the connection was charged for it.
        answers: usize,
    },
    /// Closes a connection.
    Close(u64),
    /// New topics, groups or subscriptions.
    Serving(Arc<Serving>),
    /// The next segment is ready, or cannot be made (writer shard only).
    Segment(SegmentNews),
    /// These queues' topic is being deleted: nothing more is bound to them, and the end of the log goes back as the barrier
    /// below which their records count no more (writer shard only).
    Retire(Vec<Arc<Queue>>, Sender<u64>),
    /// Everything bound before is to be written, then the flag is set (writer shard only).
    Stop,
}

/// What the flush thread says of the next segment.
pub enum SegmentNews {
    /// It is ready.
    Ready(Arc<ringmq_shards::log::segments::Segment>),
    /// There is no room for it on the disk; the thread keeps trying.
    DiskFull,
}

/// What the control thread is asked.
pub enum ControlRequest {
    /// A whole frame that is neither a send nor a pull.
    Command {
        /// The connection's number.
        connection: u64,
        /// The frame.
        frame: Vec<u8>,
        /// Clock of the turn that took it.
        at_ns: u64,
    },
    /// A send to a topic that does not exist: create it if the rules allow, then have the request executed again.
    CreateTopic {
        /// The connection's number.
        connection: u64,
        /// The frame of the send.
        frame: Vec<u8>,
        /// Bytes that the connection was charged for it.
        answers: usize,
    },
    /// A pull of a group that does not exist: as above.
    CreateGroup {
        /// The connection's number.
        connection: u64,
        /// The frame of the pull.
        frame: Vec<u8>,
        /// Bytes that the connection was charged for it.
        answers: usize,
    },
    /// Offsets that pulls carried.
    Commit(Vec<CarriedCommit>),
    /// A connection was accepted.
    Opened {
        /// Its number.
        connection: u64,
        /// Which port it came through.
        listener: Listener,
        /// Its peer.
        peer: SocketAddr,
    },
    /// A connection is gone.
    Closed {
        /// Its number.
        connection: u64,
    },
}

/// What a pull said about its group's progress.
#[derive(Debug, Clone)]
pub struct CarriedCommit {
    /// Consumer group.
    pub group: Arc<str>,
    /// The queue.
    pub queue: Arc<Queue>,
    /// Next offset to consume, if the pull said so.
    pub commit: Option<i64>,
    /// First offset that was asked for.
    pub pulled: i64,
}

/// A pull whose messages are not in memory.
pub struct ColdPull {
    /// The connection's number.
    pub connection: u64,
    /// Bytes of the request, for the connection's accounting.
    pub answers: usize,
    /// Request id.
    pub opaque: i32,
    /// Coding of the answer.
    pub serialize_type: SerializeType,
    /// The queue.
    pub queue: Arc<Queue>,
    /// Bounds of the answer.
    pub transfer: TransferLimits,
    /// Clock of the turn that took the request; `None` if it has waited for messages.
    pub received_ns: Option<u64>,
    /// First wanted offset.
    pub offset: u64,
    /// Most messages to give.
    pub max_messages: usize,
    /// Which messages.
    pub filter: TagFilter,
    /// `topicSysFlag` of the answer.
    pub topic_sys_flag: i32,
    /// `groupSysFlag` of the answer.
    pub group_sys_flag: i32,
}
