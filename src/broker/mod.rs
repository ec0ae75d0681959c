//! The broker's features. Everything that is not a send or a pull is answered here by [`control::Control`], a pure
//! single-threaded state machine: commands in, commands and [`Effect`]s out; no sockets, no files, no clock.
//!
//! One file per feature: a table with its rules (`topics`, `groups`, `offsets`, `clients`, `locks`) and the requests
//! that use it (`*_requests`, `heartbeat`, ...). `dispatch` maps request codes to handlers, one line each.
//!
//! Invariants:
//! * Only the thread that owns [`control::Control`] changes its tables. Shards read [`snapshot::BrokerSnapshot`]s, which
//!   never change once published (the one exception is an atomic number per group, see [`snapshot::GroupEntry`]).
//! * A handler applies its change before its answer exists: clients rely on a heartbeat being in force when answered.
//! * What a request can make the broker hold is bounded by [`limits`].

pub mod attributes;
pub mod clients;
pub mod config_requests;
pub mod connection_requests;
pub mod control;
pub mod dispatch;
pub mod filter;
pub mod group_requests;
pub mod groups;
pub mod heartbeat;
pub mod limits;
pub mod live_config;
pub mod locks;
pub mod names;
pub mod offset_requests;
pub mod offsets;
pub mod pull;
pub mod query_requests;
pub mod registration;
pub mod retention_requests;
pub mod runtime_info;
pub mod send;
pub mod settings;
pub mod snapshot;
pub mod state;
pub mod statistics;
pub mod statistics_requests;
pub mod store_reader;
pub mod topic_requests;
pub mod topics;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmq_protocol::codes::response;
use ringmq_protocol::command::{Command, FieldError};
use ringmq_protocol::json::JsonError;
use ringmq_shards::clock::Now;

pub use control::Control;
pub use settings::{BrokerIdentity, ControlConfig};
pub use store_reader::StoreReader;

/// Hash map for names that come from clients: fast, and seeded per process against crafted collisions.
pub type FastMap<K, V> = std::collections::HashMap<K, V, foldhash::fast::RandomState>;

/// One accepted connection; never reused within a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Who sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The connection that it came on and that the answer goes to.
    pub connection: ConnectionId,
    /// Remote address of the connection.
    pub address: SocketAddr,
}

/// A look-up that may touch the disk; it runs on the store thread and yields the answer.
pub type LookUp = Box<dyn FnOnce(&dyn StoreReader) -> Command + Send>;

/// What becomes of a request.
pub enum Answer {
    /// The answer, complete with opaque and header form.
    Now(Command),
    /// No answer: the request was oneway.
    Nothing,
    /// The answer needs the disk.
    LookUp(LookUp),
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Answer::Now(command) => formatter.debug_tuple("Now").field(command).finish(),
            Answer::Nothing => formatter.write_str("Nothing"),
            Answer::LookUp(_) => formatter.write_str("LookUp"),
        }
    }
}

/// What has to happen outside after a request, a closed connection or a tick, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a request of the broker's own to a client; its opaque is still 0.
    Send {
        /// Where to.
        connection: ConnectionId,
        /// What; oneway unless it says otherwise.
        command: Command,
    },
    /// Close a connection that has been silent for too long.
    CloseConnection(ConnectionId),
    /// Topics were made, changed or deleted: publish a new snapshot and write `topics.json`.
    TopicsChanged,
    /// Groups were made, changed or deleted: publish a new snapshot and write `subscriptionGroup.json`.
    GroupsChanged,
    /// The offsets of a group go, unless its deletion is undone ([`Control::forget_offsets`]).
    ForgetOffsets {
        /// The group.
        group: String,
    },
    /// Members or subscriptions of a group changed: publish a new snapshot; waiting pulls of the group are affected.
    SubscriptionsChanged {
        /// The group.
        group: String,
    },
    /// Register these topics with every name server now ([`Control::registration`]).
    RegisterTopics(Vec<String>),
    /// Register everything with every name server now.
    RegisterAll,
    /// A topic was deleted: its queues end here and their files can go.
    RetireQueues {
        /// The topic.
        topic: String,
    },
    /// Files of the log that have expired are to go now, whatever the hour.
    RemoveExpired,
    /// Queue files whose messages are gone are to go now.
    CleanQueues,
    /// Queues of topics that are not in the table of topics end here.
    RetireUnknownTopics,
    /// Settings were changed by a request: write [`Control::config_file`]. The pairs are keys whose new values are in use
    /// at once, for whoever else uses them; there may be none.
    ConfigChanged(Vec<(String, String)>),
}

/// A request that is answered with an error code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{remark} (code {code})")]
pub struct Refusal {
    /// Response code.
    pub code: i32,
    /// What the requester reads.
    pub remark: String,
}

impl Refusal {
    /// A refusal with this code and remark.
    pub fn new(code: i32, remark: impl Into<String>) -> Refusal {
        Refusal { code, remark: remark.into() }
    }

    /// The answer that carries it.
    pub fn into_command(self) -> Command {
        Command::error(self.code, self.remark)
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Refusal {
        Refusal::new(response::SYSTEM_ERROR, error.to_string())
    }
}

impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Refusal {
        Refusal::new(response::SYSTEM_ERROR, format!("the body cannot be decoded: {error}"))
    }
}

impl From<names::NameError> for Refusal {
    fn from(error: names::NameError) -> Refusal {
        Refusal::new(response::INVALID_PARAMETER, error.to_string())
    }
}

/// One request and everything its handler may use besides the tables.
pub struct Request<'a> {
    /// The request.
    pub command: &'a Command,
    /// Its sender.
    pub peer: &'a Peer,
    /// When it is handled.
    pub now: Now,
    /// Questions that are answered from memory.
    pub store: &'a dyn StoreReader,
    /// Where to put what has to happen outside.
    pub effects: &'a mut Vec<Effect>,
}

/// What a handler returns; [`Control::handle`] adds opaque and header form.
pub type Handled = Result<Answer, Refusal>;

/// A handler: applies a request to the tables and answers it.
pub type Handler = fn(&mut Control, &mut Request<'_>) -> Handled;

/// Success with nothing in it.
pub(crate) fn success() -> Command {
    Command::response(response::SUCCESS, 0)
}

/// Success with an ext map that is there but empty, as from Java handlers that have a response header without fields.
pub(crate) fn success_with_header() -> Command {
    Command { ext_fields: Some(BTreeMap::new()), ..success() }
}

/// The body of a request that cannot do without one.
pub(crate) fn body(command: &Command) -> Result<&[u8], Refusal> {
    command.body.as_deref().ok_or_else(|| Refusal::new(response::SYSTEM_ERROR, "the request has no body"))
}

/// Milliseconds as Java's signed `long`.
pub(crate) fn java_millis(milliseconds: u64) -> i64 {
    i64::try_from(milliseconds).unwrap_or(i64::MAX)
}
