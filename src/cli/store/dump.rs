//! `store dump`: records in the order of the log.

use std::ops::ControlFlow;

use clap::Args;
use ringmq_protocol::properties::properties;
use ringmq_protocol::record::RecordView;
use ringmq_shards::recovery::reader::{Item, StoreReader};
use ringmq_shards::types::PhysicalOffset;
use serde_json::{Map, Value, json};

use super::report::Output;
use super::{Failure, Format, Opened};
use crate::process::ExitStatus;

/// Which records are printed.
#[derive(Debug, Clone, Default, Args)]
pub struct Filter {
    /// Only records at or behind this log offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub from: u64,
    /// Only records in front of this log offset
    #[arg(long, value_name = "OFFSET")]
    pub to: Option<u64>,
    /// Only this topic
    #[arg(long)]
    pub topic: Option<String>,
    /// Only this queue
    #[arg(long, value_name = "N")]
    pub queue: Option<i32>,
    /// Only messages with this key or unique key
    #[arg(long)]
    pub key: Option<String>,
    /// Stop after this many records
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// Print bodies too: as text where they are UTF-8, else in hexadecimal digits
    #[arg(long)]
    pub body: bool,
}

impl Filter {
    /// Whether a record is wanted.
    pub fn takes(&self, view: &RecordView<'_>) -> bool {
        let has_key =
            |key: &String| view.unique_key().into_iter().chain(view.key_words()).any(|word| word == key.as_bytes());
        self.topic.as_deref().is_none_or(|topic| topic == view.topic())
            && self.queue.is_none_or(|queue| queue == view.queue_id())
            && self.key.as_ref().is_none_or(has_key)
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A record as JSON.
pub fn record_json(view: &RecordView<'_>, at: PhysicalOffset, with_body: bool) -> Value {
    let mut named = Map::new();
    for (name, value) in properties(view.properties()) {
        named.insert(text(name), Value::String(text(value)));
    }
    let mut value = json!({
        "offset": at.0,
        "size": view.total_size(),
        "topic": view.topic(),
        "queueId": view.queue_id(),
        "queueOffset": view.queue_offset(),
        "storeTimestamp": view.store_timestamp(),
        "bornTimestamp": view.born_timestamp(),
        "bornHost": view.born_host().to_string(),
        "storeHost": view.store_host().to_string(),
        "flag": view.flag(),
        "sysFlag": view.sys_flag(),
        "reconsumeTimes": view.reconsume_times(),
        "preparedTransactionOffset": view.prepared_transaction_offset(),
        "bodyCrc": view.body_crc(),
        "bodyBytes": view.body().len(),
        "properties": named,
    });
    if with_body {
        match std::str::from_utf8(view.body()) {
            Ok(body) => value["body"] = json!(body),
            Err(_) => value["bodyHex"] = json!(hexadecimal(view.body())),
        }
    }
    value
}

/// A record as one line.
pub fn record_line(view: &RecordView<'_>, at: PhysicalOffset, with_body: bool) -> String {
    let mut line = format!(
        "{at} {}/{}/{} {} bytes, stored {}",
        view.topic(),
        view.queue_id(),
        view.queue_offset(),
        view.total_size(),
        view.store_timestamp()
    );
    for (name, value) in properties(view.properties()) {
        line.push_str(&format!(" {}={:?}", text(name), text(value)));
    }
    if with_body {
        let body =
            std::str::from_utf8(view.body()).map_or_else(|_| hexadecimal(view.body()), |body| format!("{body:?}"));
        line.push_str(&format!(" body={body}"));
    }
    line
}

/// Prints what the filter takes. Holes in the log are printed too.
pub(super) fn run(store: &Opened, filter: &Filter) -> Result<ExitStatus, Failure> {
    let reader = StoreReader::open(&store.disk, &store.paths, store.options)?;
    let mut out = Output::new();
    let (mut printed, mut failure, mut status) = (0, None, ExitStatus::Ok);
    let is_json = store.format == Format::Json;
    reader.each(PhysicalOffset(filter.from), &mut |item| {
        let line = match item {
            Item::Record(_, at) if filter.to.is_some_and(|to| at.0 >= to) => return ControlFlow::Break(()),
            Item::Record(view, at) if at.0 >= filter.from && filter.takes(view) => {
                printed += 1;
                match is_json {
                    true => record_json(view, at, filter.body).to_string(),
                    false => record_line(view, at, filter.body),
                }
            }
            Item::Hole(hole) if hole.to.0 > filter.from && filter.to.is_none_or(|to| hole.from.0 < to) => {
                status = ExitStatus::RecoveryRefused;
                match is_json {
                    true => json!({ "hole": hole.from.0, "to": hole.to.0, "reason": hole.reason }).to_string(),
                    false => format!("{} no record up to {}: {}", hole.from, hole.to, hole.reason),
                }
            }
            _ => return ControlFlow::Continue(()),
        };
        match out.line(&line) {
            Ok(true) if filter.limit.is_none_or(|limit| printed < limit) => ControlFlow::Continue(()),
            Ok(_) => ControlFlow::Break(()),
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    out.finish()?;
    Ok(status)
}
