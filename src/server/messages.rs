//! What travels between the threads.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::SerializeType;
use ringmq_shards::queue::Queue;

use super::cold::ColdAnswer;
use super::connection::Listener;
use super::limits;
use super::serving::Serving;
use super::shared::BufferBudget;
use crate::broker::filter::TagFilter;
use crate::broker::pull::TransferLimits;

/// What a request counts against its connection from when it is handed to another thread until it is settled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Charge {
    /// Bytes of the request and, if that is known, of its answer.
    pub bytes: usize,
    /// The length of its answer is not known: no other of this kind is taken from the connection before it is settled.
    pub is_long: bool,
}

impl From<usize> for Charge {
    /// That of a request whose answer is counted with it.
    fn from(bytes: usize) -> Self {
        Self { bytes, is_long: false }
    }
}

/// What a shard hears from other threads, but for what sends need (see [`super::remote`]).
pub enum ShardMessage {
    /// A connection that shard 0 accepted for it.
    Adopt(OwnedFd, Listener, SocketAddr),
    /// An encoded frame for a connection. Its bytes were added to the budget of buffers, see [`frame_for`].
    Frame {
        /// The connection's number.
        connection: u64,
        /// The whole frame; empty when a request ends without an answer.
        frame: Vec<u8>,
        /// What it settles: nothing for notices.
        answers: Charge,
    },
    /// The same from a reader thread; its buffer is charged to the budget of cold reads.
    ColdAnswer {
        /// The connection's number.
        connection: u64,
        /// The answer.
        answer: ColdAnswer,
        /// Bytes that the connection was charged for the request.
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
    /// What its pulls have carried so far is to be handed over.
    HandOver(Sender<Vec<CarriedCommit>>),
    /// Everything bound before is to be written, then the flag is set (writer shard only).
    Stop,
}

impl ShardMessage {
    /// Bytes of answers in it.
    pub fn answer_bytes(&self) -> usize {
        match self {
            Self::Frame { frame, .. } => frame.len(),
            Self::ColdAnswer { answer, .. } => answer.frame.len(),
            _ => 0,
        }
    }
}

/// An answer or a notice on its way to its connection, or the end of a request without one. Its memory counts from now on, until
/// the shard takes it over with [`BufferBudget::publish`]. A long answer for which there is none becomes a refusal: only requests
/// that change nothing have long answers.
pub fn frame_for(connection: u64, command: Option<&Command>, answers: Charge, buffers: &BufferBudget) -> ShardMessage {
    let mut frame = command.map(Command::encode).unwrap_or_default();
    if let Some(command) = command
        && frame.len() >= limits::MOVED_ANSWER_BYTES
        && !buffers.has_room_for_answer(frame.len() as u64)
    {
        let mut refusal = Command::error(response::SYSTEM_BUSY, "memory for answers is short; try again");
        (refusal.opaque, refusal.serialize_type) = (command.opaque, command.serialize_type);
        frame = refusal.encode();
    }
    buffers.publish(0, frame.len() as u64);
    ShardMessage::Frame { connection, frame, answers }
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
        /// What the connection was charged for it.
        answers: Charge,
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
    /// A pull of a group that does not exist: as above. Also a pull that lacks a topic or a subscription, which may exist since
    /// the shard got its picture.
    CreateGroup {
        /// The connection's number.
        connection: u64,
        /// The frame of the pull.
        frame: Vec<u8>,
        /// Bytes that the connection was charged for it.
        answers: usize,
    },
    /// A connection was accepted, or its proxy has told who its peer is: the last word counts.
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
    /// The persister has written something.
    Written,
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
    /// Clock of the turn that took the last such pull.
    pub at_ns: u64,
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

#[cfg(test)]
mod tests {
    use ringmq_protocol::frame::{Split, split_frame};

    use super::*;

    #[test]
    fn long_answers_need_room() {
        // Goal: a long answer that does not fit is refused under its request's number, a short one and the end of a request never
        // are, and what is on its way counts. Method: answers of both kinds with and without room.
        let buffers = BufferBudget::new(4 << 20);
        let made = |length: usize| {
            let mut command = Command::response(0, 7);
            command.body = Some(vec![0; length]);
            let ShardMessage::Frame { frame, answers, .. } = frame_for(1, Some(&command), 9.into(), &buffers) else {
                panic!("a frame")
            };
            assert_eq!(answers.bytes, 9);
            let Ok(Split::Frame { frame: view, .. }) = split_frame(&frame, frame.len()) else { panic!("no frame") };
            let answer = Command::decode(view).expect("an answer");
            assert_eq!(answer.opaque, 7);
            (answer.code, frame.len() as u64)
        };
        let (code, first) = made(2 << 20);
        assert_eq!((code, buffers.used()), (0, first));
        let (code, second) = made(2 << 20);
        assert_eq!((code, buffers.used()), (response::SYSTEM_BUSY, first + second));
        buffers.publish(0, 8 << 20);
        assert_eq!(made(1_000).0, 0);
        let end = frame_for(1, None, 9.into(), &buffers);
        assert!(matches!(end, ShardMessage::Frame { frame, .. } if frame.is_empty()));
    }
}
