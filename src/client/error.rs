//! What can go wrong with a request, as one sentence each.

use std::io;

use ringmq_protocol::command::FieldError;
use ringmq_protocol::exchange::ProtocolError;
use ringmq_protocol::json::JsonError;
use ringmq_protocol::record::RecordError;
use thiserror::Error;

/// A failed request.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no address to ask.
    #[error("no name server is given")]
    NoNameServer,
    /// The port is closed.
    #[error("nothing listens at {address}")]
    NothingListens {
        /// `host:port`.
        address: String,
    },
    /// The connection could not be opened for another reason.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The connection ended. Whether the peer has done what it was asked for is unknown.
    #[error("the connection to {address} broke: {source}")]
    Broken {
        /// `host:port`.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// No answer in time. Whether the peer has done what it was asked for is unknown.
    #[error("{address} did not answer request {request} within {timeout_ms} ms")]
    Timeout {
        /// `host:port`.
        address: String,
        /// Request code, 0 if any answer was waited for.
        request: i32,
        /// How long was waited.
        timeout_ms: u64,
    },
    /// The peer speaks something else.
    #[error("{address} sent bytes that are not this protocol: {source}")]
    Protocol {
        /// `host:port`.
        address: String,
        /// Why.
        source: ProtocolError,
    },
    /// The peer refused.
    #[error("{address} refused request {request} with code {code}: {remark}")]
    Refused {
        /// `host:port`.
        address: String,
        /// Request code.
        request: i32,
        /// Response code.
        code: i32,
        /// The peer's text.
        remark: String,
    },
    /// The answer says success but lacks something.
    #[error("the answer of {address} to request {request} cannot be used: {source}")]
    Answer {
        /// `host:port`.
        address: String,
        /// Request code.
        request: i32,
        /// Why.
        source: AnswerError,
    },
    /// The name server knows no such topic.
    #[error("there is no topic {0}")]
    NoTopic(String),
    /// The topic has no queue that may be used so.
    #[error("topic {0} has no queue that may be used")]
    NoQueue(String),
    /// The message cannot be written down.
    #[error("the message cannot be sent: {0}")]
    Message(#[from] MessageError),
}

impl ClientError {
    /// The response code of a refusal.
    pub fn code(&self) -> Option<i32> {
        match self {
            ClientError::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether the connection is of no use any more.
    pub fn ends_connection(&self) -> bool {
        matches!(self, ClientError::Broken { .. } | ClientError::Timeout { .. } | ClientError::Protocol { .. })
    }
}

/// An answer that lacks something.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// A field is missing or malformed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// There is no body.
    #[error("it has no body")]
    NoBody,
    /// The body is not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// The body does not consist of whole messages.
    #[error("a message is damaged: {0}")]
    Record(#[from] RecordError),
}

/// A message that cannot be written down.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum MessageError {
    /// Brokers refuse empty bodies.
    #[error("its body is empty")]
    EmptyBody,
    /// A property has no name or no value, or contains one of the separators 0x01 and 0x02.
    #[error("property {0:?} is empty or contains a separator (0x01, 0x02)")]
    Property(String),
    /// The property string does not fit into a record.
    #[error("its properties take {0} bytes, 32767 are possible")]
    Properties(usize),
    /// A batch without messages.
    #[error("the batch is empty")]
    EmptyBatch,
}

/// A stored body that cannot be shown as the application sent it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BodyError {
    /// LZ4 or ZSTD.
    #[error("the body is compressed as {0}, which is not supported")]
    Compression(&'static str),
    /// The compressed bytes are damaged.
    #[error("the compressed body is damaged")]
    Damaged,
    /// The bound of decompression.
    #[error("the body exceeds {0} bytes when it is decompressed")]
    TooLong(usize),
}
