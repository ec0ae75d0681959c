//! Tests of the control plane as a whole, and the tools that the features' own tests share.

mod admin;
mod clients;
mod random;
mod state;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmq_protocol::command::Command;
use ringmq_shards::clock::Now;

use super::store_reader::{Boundary, DiskUsage, QueryAnswer, StoreReader, StoreTotals};
use super::{Answer, BrokerIdentity, ConnectionId, Control, ControlConfig, Effect, Peer};

/// A broker like the one of the examples.
pub(crate) fn control() -> Control {
    let identity = BrokerIdentity {
        cluster: "DefaultCluster".to_owned(),
        name: "broker-a".to_owned(),
        id: 0,
        address: "127.0.0.1:10911".to_owned(),
        ha_address: "127.0.0.1:10912".to_owned(),
    };
    Control::new(identity, ControlConfig::default())
}

/// A peer by number.
pub(crate) fn peer(number: u16) -> Peer {
    Peer { connection: ConnectionId(u64::from(number)), address: SocketAddr::from(([127, 0, 0, 1], 50_000 + number)) }
}

/// A time at which both clocks show the same.
pub(crate) fn at(now_ms: u64) -> Now {
    Now { steady_ms: now_ms, wall_ms: now_ms }
}

/// A store of queues with given bounds; store time of a message = 1000 + offset.
#[derive(Debug, Default)]
pub(crate) struct FakeStore {
    pub queues: BTreeMap<(String, i32), (i64, i64)>,
    pub records: BTreeMap<i64, Vec<u8>>,
    pub in_memory: bool,
}

impl FakeStore {
    pub fn with_queue(mut self, topic: &str, queue_id: i32, minimum: i64, maximum: i64) -> FakeStore {
        self.queues.insert((topic.to_owned(), queue_id), (minimum, maximum));
        self
    }
}

impl StoreReader for FakeStore {
    fn queue_bounds(&self, topic: &str, queue_id: i32) -> Option<(i64, i64)> {
        self.queues.get(&(topic.to_owned(), queue_id)).copied()
    }

    fn log_bounds(&self) -> (i64, i64) {
        (0, 4096)
    }

    fn in_memory(&self, topic: &str, queue_id: i32, offset: i64) -> bool {
        let within = |(minimum, maximum): (i64, i64)| (minimum..maximum).contains(&offset);
        self.in_memory && self.queue_bounds(topic, queue_id).is_some_and(within)
    }

    fn totals(&self) -> StoreTotals {
        StoreTotals::default()
    }

    fn store_time(&self, topic: &str, queue_id: i32, offset: i64) -> Option<i64> {
        let (minimum, maximum) = self.queue_bounds(topic, queue_id)?;
        (minimum..maximum).contains(&offset).then(|| 1_000 + offset)
    }

    fn offset_by_time(&self, topic: &str, queue_id: i32, timestamp: i64, boundary: Boundary) -> i64 {
        let (minimum, maximum) = self.queue_bounds(topic, queue_id).unwrap_or((0, 0));
        let offset = timestamp.saturating_sub(1_000);
        if boundary == Boundary::Upper { offset.min(maximum - 1).max(minimum) } else { offset.clamp(minimum, maximum) }
    }

    fn record_at(&self, physical: i64) -> Option<Vec<u8>> {
        self.records.get(&physical).cloned()
    }

    fn query(&self, topic: &str, key: &str, max: i32, begin: i64, end: i64) -> Result<QueryAnswer, String> {
        if key == "unreadable" {
            return Err("the index cannot be read".to_owned());
        }
        let found = topic == "T" && key == "K" && begin <= 1_000 && end >= 1_000;
        let records = if found { format!("{max}").into_bytes() } else { Vec::new() };
        Ok(QueryAnswer { records, index_last_timestamp: 7, index_last_physical: 8 })
    }

    fn earliest_store_time(&self, topic: &str, queue_id: i32) -> Option<i64> {
        self.queue_bounds(topic, queue_id).map(|(minimum, _)| 1_000 + minimum)
    }

    fn earliest_log_time(&self) -> Option<i64> {
        Some(1_000)
    }

    fn disk_usage(&self) -> DiskUsage {
        DiskUsage { log_path: "/log".to_owned(), total_bytes: 100, free_bytes: 50, log_ratio: 0.5, queue_ratio: 0.5 }
    }
}

/// One request through [`Control::handle`], with look-ups run at once.
pub(crate) fn ask_with(
    control: &mut Control,
    request: &Command,
    from: u16,
    now_ms: u64,
    store: &FakeStore,
    effects: &mut Vec<Effect>,
) -> Command {
    match control.handle(request, &peer(from), at(now_ms), store, effects) {
        Answer::Now(answer) => answer,
        Answer::LookUp(look_up) => look_up(store),
        Answer::Nothing => panic!("no answer to {request:?}"),
    }
}

/// One request with ext fields, from peer 1, at time 1000, to an empty store.
pub(crate) fn ask(control: &mut Control, code: i32, fields: &[(&str, &str)]) -> Command {
    ask_with(control, &request(code, fields), 1, 1_000, &FakeStore::default(), &mut Vec::new())
}

/// One request with a body.
pub(crate) fn ask_body(control: &mut Control, code: i32, body: &str) -> Command {
    let request = Command::request(code).with_body(body.as_bytes().to_vec());
    ask_with(control, &request, 1, 1_000, &FakeStore::default(), &mut Vec::new())
}

/// A request with ext fields.
pub(crate) fn request(code: i32, fields: &[(&str, &str)]) -> Command {
    fields.iter().fold(Command::request(code), |command, (key, value)| command.with_ext(key, value))
}

/// The body as text.
pub(crate) fn text(answer: &Command) -> &str {
    std::str::from_utf8(answer.body.as_deref().unwrap_or_default()).unwrap()
}

/// Code and remark of an answer.
pub(crate) fn outcome(answer: &Command) -> (i32, &str) {
    (answer.code, answer.remark.as_deref().unwrap_or_default())
}
