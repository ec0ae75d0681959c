//! Requests of tools about the extent of topics and the progress of groups: 202, 208, 317, 303, 315.
//! Source: AdminBrokerProcessor.
//!
//! The control thread gathers queues and offsets; the store thread adds store times, which may be on disk.

use std::collections::{BTreeMap, BTreeSet};

use ringmq_protocol::bodies::{ConsumeStats, JsonBody, MessageQueue, OffsetWrapper, TopicOffset, TopicStatsTable};
use ringmq_protocol::codes::response;
use ringmq_protocol::json::to_fastjson;
use ringmq_shards::clock::local_time_text;
use serde::Serialize;

use super::{Answer, Control, Handled, Refusal, Request, StoreReader, java_millis, limits, names, success};

/// Progress of one group on one queue, as far as memory tells.
struct Progress {
    queue: MessageQueue,
    consumed: i64,
    pulled: i64,
}

impl Progress {
    fn wrapper(&self, store: &dyn StoreReader) -> OffsetWrapper {
        let MessageQueue { topic, queue_id, .. } = &self.queue;
        let end = store.queue_bounds(topic, *queue_id).map_or(0, |(_, maximum)| maximum.max(0));
        let last = self.consumed.checked_sub(1).filter(|last| *last >= 0);
        let last_timestamp = last.and_then(|last| store.store_time(topic, *queue_id, last)).unwrap_or(0);
        OffsetWrapper {
            broker_offset: end,
            consumer_offset: self.consumed,
            last_timestamp: last_timestamp.max(0),
            pull_offset: self.consumed.max(self.pulled),
        }
    }
}

fn too_many() -> Refusal {
    let remark = format!("the answer would cover more than {} queues", limits::MAX_STATISTICS_QUEUES);
    Refusal::new(response::SYSTEM_ERROR, remark)
}

fn not_exist(topic: &str) -> Refusal {
    Refusal::new(response::TOPIC_NOT_EXIST, format!("topic[{topic}] not exist"))
}

/// GET_TOPIC_STATS_INFO (202).
pub(crate) fn topic(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let topic = request.command.ext_text("topic")?.to_owned();
    let config = control.topics.get(&topic).ok_or_else(|| not_exist(&topic))?;
    let queues = config.read_queue_nums.max(config.write_queue_nums);
    let broker = control.identity.name.clone();
    let topic_put_tps = control.statistics.put_rate(&topic);
    Ok(Answer::LookUp(Box::new(move |store| {
        let extent = |queue_id| {
            let (minimum, maximum) = store.queue_bounds(&topic, queue_id).unwrap_or((0, 0));
            let last = if maximum > 0 { store.store_time(&topic, queue_id, maximum - 1) } else { Some(0) };
            TopicOffset {
                last_update_timestamp: last.unwrap_or(-1),
                max_offset: maximum.max(0),
                min_offset: minimum.max(0),
            }
        };
        let table = TopicStatsTable {
            offset_table: (0..queues)
                .map(|queue_id| (MessageQueue::new(topic.as_str(), broker.as_str(), queue_id), extent(queue_id)))
                .collect(),
            topic_put_tps,
        };
        success().with_body(table.encode())
    })))
}

/// GET_CONSUME_STATS (208). Topics that an online group does not subscribe to are left out, unless they are listed.
pub(crate) fn consumption(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("consumerGroup")?;
    let listed = request.command.ext("topicList").unwrap_or_default();
    let listed: BTreeSet<&str> = listed.split(';').filter(|topic| !names::is_blank(topic)).collect();
    let topics: BTreeSet<String> = if listed.is_empty() {
        let named = request.command.ext("topic").filter(|topic| !names::is_blank(topic));
        let topics: Vec<&str> = match named {
            Some(topic) => vec![topic],
            None => control.offsets.topics_of(group).collect(),
        };
        let counted = |topic: &&str| control.subscribes_or_offline(group, topic);
        topics.into_iter().filter(counted).map(str::to_owned).collect()
    } else {
        listed.into_iter().map(str::to_owned).collect()
    };
    let mut progress = Vec::new();
    let consume_tps = topics.iter().fold(0.0, |sum, topic| sum + control.statistics.get_rate(group, topic));
    for topic in topics {
        let queues = control.topics.get(&topic).map_or(0, |config| config.read_queue_nums);
        control.progress(group, &topic, queues, &mut progress)?;
    }
    Ok(Answer::LookUp(Box::new(move |store| success().with_body(statistics(progress, consume_tps, store).encode()))))
}

fn statistics(progress: Vec<Progress>, consume_tps: f64, store: &dyn StoreReader) -> ConsumeStats {
    let table = progress.into_iter().map(|progress| {
        let wrapper = progress.wrapper(store);
        (progress.queue, wrapper)
    });
    ConsumeStats { consume_tps, offset_table: table.collect() }
}

/// Answer of 317. Source: ConsumeStatsList.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConsumeStatsList {
    broker_addr: String,
    consume_stats_list: Vec<BTreeMap<String, Vec<ConsumeStats>>>,
    total_diff: i64,
    total_inflight_diff: i64,
}

/// GET_BROKER_CONSUME_STATS (317): every group with every topic on which it has offsets.
pub(crate) fn consumption_of_broker(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let only_ordered = request.command.optional_bool("isOrder").unwrap_or(false);
    let mut groups = Vec::new();
    let mut count = 0;
    for group in control.groups.sorted().keys() {
        let mut topics = Vec::new();
        for topic in control.offsets.topics_of(group) {
            let Some(config) = control.topics.get(topic) else { continue };
            if (only_ordered && !config.order) || !control.subscribes_or_offline(group, topic) {
                continue;
            }
            let mut progress = Vec::new();
            control.progress(group, topic, config.write_queue_nums, &mut progress)?;
            count += progress.len();
            topics.push((progress, control.statistics.get_rate(group, topic)));
        }
        groups.push((group.clone(), topics));
    }
    if count > limits::MAX_STATISTICS_QUEUES {
        return Err(too_many());
    }
    let broker_addr = control.identity.address.clone();
    Ok(Answer::LookUp(Box::new(move |store| {
        let (mut total_diff, mut total_inflight_diff) = (0i64, 0i64);
        let mut list = Vec::with_capacity(groups.len());
        for (group, topics) in groups {
            let all: Vec<ConsumeStats> =
                topics.into_iter().map(|(progress, rate)| statistics(progress, rate, store)).collect();
            for offsets in all.iter().flat_map(|statistics| statistics.offset_table.values()) {
                let behind = offsets.broker_offset.saturating_sub(offsets.consumer_offset);
                let inflight = offsets.pull_offset.saturating_sub(offsets.consumer_offset);
                total_diff = total_diff.saturating_add(behind);
                total_inflight_diff = total_inflight_diff.saturating_add(inflight);
            }
            list.push(BTreeMap::from([(group, all)]));
        }
        let body = ConsumeStatsList { broker_addr, consume_stats_list: list, total_diff, total_inflight_diff };
        success().with_body(to_fastjson(&body))
    })))
}

/// One queue in the answer of 303. Source: QueueTimeSpan.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct QueueTimeSpan {
    consume_time_stamp: i64,
    consume_time_stamp_str: String,
    delay_time: i64,
    max_time_stamp: i64,
    max_time_stamp_str: String,
    message_queue: MessageQueue,
    min_time_stamp: i64,
    min_time_stamp_str: String,
}

/// QUERY_CONSUME_TIME_SPAN (303). Times of messages that are not there are -1, as in RocketMQ.
pub(crate) fn time_span(control: &mut Control, request: &mut Request<'_>) -> Handled {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct TimeSpans {
        consume_time_span_set: Vec<QueueTimeSpan>,
    }
    let topic = request.command.ext_text("topic")?;
    let group = request.command.ext_text("group")?;
    let config = control.topics.get(topic).ok_or_else(|| not_exist(topic))?;
    let mut progress = Vec::new();
    control.progress(group, topic, config.write_queue_nums, &mut progress)?;
    let now = java_millis(request.now.wall_ms);
    Ok(Answer::LookUp(Box::new(move |store| {
        let spans = progress.into_iter().map(|Progress { queue, consumed, .. }| {
            let time = |offset: i64| store.store_time(&queue.topic, queue.queue_id, offset).unwrap_or(-1);
            let end = store.queue_bounds(&queue.topic, queue.queue_id).map_or(0, |(_, maximum)| maximum.max(0));
            let minimum = store.earliest_store_time(&queue.topic, queue.queue_id).unwrap_or(-1);
            let maximum = time(end - 1);
            let consumed_at = if consumed > 0 { time(consumed - 1) } else { minimum };
            QueueTimeSpan {
                consume_time_stamp: consumed_at,
                consume_time_stamp_str: local_time_text(consumed_at),
                delay_time: if consumed < end { now.saturating_sub(time(consumed)) } else { 0 },
                max_time_stamp: maximum,
                max_time_stamp_str: local_time_text(maximum),
                min_time_stamp: minimum,
                min_time_stamp_str: local_time_text(minimum),
                message_queue: queue,
            }
        });
        success().with_body(to_fastjson(&TimeSpans { consume_time_span_set: spans.collect() }))
    })))
}

/// VIEW_BROKER_STATS_DATA (315), for `TOPIC_PUT_NUMS` and `GROUP_GET_NUMS`. Tools take code 1 as "nothing yet".
pub(crate) fn view(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let name = request.command.ext_text("statsName")?;
    let key = request.command.ext_text("statsKey")?;
    if let Some(body) = control.statistics.view(name, key) {
        return Ok(Answer::Now(success().with_body(body)));
    }
    Err(Refusal::new(response::SYSTEM_ERROR, format!("The stats <{name}> <{key}> not exist")))
}

impl Control {
    fn progress(&self, group: &str, topic: &str, queues: i32, out: &mut Vec<Progress>) -> Result<(), Refusal> {
        let with_resets = self.config.server_side_reset;
        for queue_id in 0..queues {
            if out.len() >= limits::MAX_STATISTICS_QUEUES {
                return Err(too_many());
            }
            out.push(Progress {
                queue: MessageQueue::new(topic, self.identity.name.as_str(), queue_id),
                consumed: self.offsets.committed(group, topic, queue_id, with_resets).unwrap_or(0).max(0),
                pulled: self.offsets.pulled(group, topic, queue_id, with_resets).unwrap_or(-1),
            });
        }
        Ok(())
    }
}
