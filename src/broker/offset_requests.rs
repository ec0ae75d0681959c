//! Requests about offsets: what a group has consumed (14, 15, 43, 314) and what a queue holds (29, 30, 31, 32).
//! Source: ConsumerManageProcessor, AdminBrokerProcessor.

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::json::to_fastjson;

use super::offsets::OFFSET_VERSION_STEP;
use super::store_reader::Boundary;
use super::{Answer, Control, Handled, Refusal, Request, limits, names, success, success_with_header};

/// Whether a request looks at consumer offsets or changes them: what pulls have carried must be in the table before it is handled.
pub fn concerns_offsets(code: i32) -> bool {
    matches!(
        code,
        request::QUERY_CONSUMER_OFFSET
            | request::UPDATE_CONSUMER_OFFSET
            | request::GET_ALL_CONSUMER_OFFSET
            | request::CLONE_GROUP_OFFSET
            | request::DELETE_TOPIC_IN_BROKER
            | request::DELETE_SUBSCRIPTIONGROUP
            | request::GET_CONSUME_STATS
            | request::GET_BROKER_CONSUME_STATS
            | request::QUERY_CONSUME_TIME_SPAN
            | request::QUERY_TOPIC_CONSUME_BY_WHO
            | request::QUERY_TOPICS_BY_CONSUMER
    )
}

/// QUERY_CONSUMER_OFFSET (14). Neither group nor topic need exist. A group without an offset starts at 0 on a queue that
/// still has its first message in memory; otherwise its consumers decide.
pub(crate) fn query(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("consumerGroup")?;
    let topic = request.command.ext_text("topic")?;
    let queue_id = request.command.ext_i32("queueId")?;
    let found = |offset: i64| Ok(Answer::Now(success().with_ext("offset", offset)));
    if let Some(offset) = control.offsets.committed(group, topic, queue_id, control.config.server_side_reset)
        && offset >= 0
    {
        return found(offset);
    }
    if request.command.optional_bool("setZeroIfNotFound") == Some(false) {
        let remark = "Not found, do not set to zero, maybe this group boot first";
        return Err(Refusal::new(response::QUERY_NOT_FOUND, remark));
    }
    let minimum = request.store.queue_bounds(topic, queue_id).map_or(0, |(minimum, _)| minimum);
    if minimum <= 0 && request.store.in_memory(topic, queue_id, 0) {
        return found(0);
    }
    let remark = "Not found, V3_0_6_SNAPSHOT maybe this group consumer boot first";
    Err(Refusal::new(response::QUERY_NOT_FOUND, remark))
}

/// UPDATE_CONSUMER_OFFSET (15). Ignored while a reset of the queue waits for the group's next pull.
pub(crate) fn update(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("consumerGroup")?;
    let topic = request.command.ext_text("topic")?;
    if !control.groups.contains(group) {
        let remark = format!("Group {group} not exist!");
        return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
    }
    if !control.topics.contains(topic) {
        return Err(Refusal::new(response::TOPIC_NOT_EXIST, format!("Topic {topic} not exist!")));
    }
    let missing = |what: &str| Refusal::new(response::INVALID_PARAMETER, format!("{what} is null, topic is {topic}"));
    let queue_id = request.command.ext_i32("queueId").map_err(|_| missing("QueueId"))?;
    let offset = request.command.ext_i64("commitOffset").map_err(|_| missing("Offset"))?;
    if control.config.server_side_reset && control.offsets.has_reset(group, topic, queue_id) {
        let remark = Some("Offset has been previously reset".to_owned());
        return Ok(Answer::Now(Command { remark, ..success_with_header() }));
    }
    if !control.offsets.commit(group, topic, queue_id, offset, OFFSET_VERSION_STEP, request.now.wall_ms) {
        let (keys, queues) = (limits::MAX_OFFSET_KEYS, limits::MAX_OFFSETS_PER_SUBSCRIPTION);
        let remark = format!(
            "the offset is not kept: the broker has offsets of {keys} pairs of topic and group, or this pair of {queues} queues"
        );
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    }
    Ok(Answer::Now(success_with_header()))
}

/// GET_ALL_CONSUMER_OFFSET (43): the content of `consumerOffset.json`.
pub(crate) fn all(control: &mut Control, _request: &mut Request<'_>) -> Handled {
    Ok(Answer::Now(success().with_body(to_fastjson(&control.offsets_file()))))
}

/// CLONE_GROUP_OFFSET (314). Without a topic, all topics of the source group; unless `offline`, topics that an online
/// source group does not subscribe to are left out.
pub(crate) fn clone(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let source = request.command.ext_text("srcGroup")?;
    let target = request.command.ext_text("destGroup")?;
    let offline = request.command.optional_bool("offline").unwrap_or(false);
    let topics: Vec<String> = match request.command.ext("topic").filter(|topic| !names::is_blank(topic)) {
        Some(topic) => vec![topic.to_owned()],
        None => control.offsets.topics_of(source).map(str::to_owned).collect(),
    };
    for topic in topics {
        let listed = offline || control.subscribes_or_offline(source, &topic);
        if control.topics.contains(&topic) && listed {
            control.offsets.clone_offsets(source, target, &topic);
        }
    }
    Ok(Answer::Now(success()))
}

/// GET_MAX_OFFSET (30): the next offset that will be written.
pub(crate) fn maximum(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    let (_, maximum) = bounds(request)?;
    Ok(Answer::Now(success().with_ext("offset", maximum)))
}

/// GET_MIN_OFFSET (31): the first offset that is still there.
pub(crate) fn minimum(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    let (minimum, _) = bounds(request)?;
    Ok(Answer::Now(success().with_ext("offset", minimum)))
}

fn bounds(request: &Request<'_>) -> Result<(i64, i64), Refusal> {
    let topic = request.command.ext_text("topic")?;
    let queue_id = request.command.ext_i32("queueId")?;
    let (minimum, maximum) = request.store.queue_bounds(topic, queue_id).unwrap_or((0, 0));
    Ok((minimum.max(0), maximum.max(0)))
}

/// SEARCH_OFFSET_BY_TIMESTAMP (29).
pub(crate) fn by_timestamp(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    let topic = request.command.ext_text("topic")?.to_owned();
    let queue_id = request.command.ext_i32("queueId")?;
    let timestamp = request.command.ext_i64("timestamp")?;
    let upper = request.command.ext("boundaryType").is_some_and(|kind| kind.eq_ignore_ascii_case("upper"));
    let boundary = if upper { Boundary::Upper } else { Boundary::Lower };
    Ok(Answer::LookUp(Box::new(move |store| {
        success().with_ext("offset", store.offset_by_time(&topic, queue_id, timestamp, boundary))
    })))
}

/// GET_EARLIEST_MSG_STORETIME (32): -1 for a queue without messages.
pub(crate) fn earliest_store_time(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    let topic = request.command.ext_text("topic")?.to_owned();
    let queue_id = request.command.ext_i32("queueId")?;
    Ok(Answer::LookUp(Box::new(move |store| {
        success().with_ext("timestamp", store.earliest_store_time(&topic, queue_id).unwrap_or(-1))
    })))
}

impl Control {
    /// Whether a group subscribes to a topic, or is not online with any subscription.
    pub(crate) fn subscribes_or_offline(&self, group: &str, topic: &str) -> bool {
        self.clients.subscription(group, topic).is_some() || self.clients.subscription_count(group) == 0
    }
}
