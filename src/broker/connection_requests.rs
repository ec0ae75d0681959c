//! Requests of tools about who is connected and who consumes what: 203, 204, 328, 300, 343, 345.
//! Source: AdminBrokerProcessor. Answered from memory: dashboards ask 203 for every group each minute.

use std::collections::{BTreeMap, BTreeSet};

use ringmq_protocol::bodies::{
    Connection, ConsumerConnection, JsonBody, ProducerConnection, SubscriptionData, TopicList,
};
use ringmq_protocol::codes::response;
use ringmq_protocol::json::to_fastjson;
use ringmq_protocol::language::Language;
use ringmq_shards::clock::Now;
use serde::Serialize;

use super::clients::Client;
use super::{Answer, Control, Handled, Refusal, Request, java_millis, success};

fn connection(client: &Client) -> Connection {
    Connection {
        client_addr: client.address.to_string(),
        client_id: client.client_id.clone(),
        language: language(client),
        version: client.version,
    }
}

fn language(client: &Client) -> Option<String> {
    client.language.map(Language::name).map(str::to_owned)
}

/// GET_CONSUMER_CONNECTION_LIST (203).
pub(crate) fn consumers(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("consumerGroup")?;
    let Some(live) = control.clients.consumer_group(group) else {
        let remark = format!("the consumer group[{group}] not online");
        return Err(Refusal::new(response::CONSUMER_NOT_ONLINE, remark));
    };
    let subscriptions = live.subscriptions.iter();
    let body = ConsumerConnection {
        connection_set: live.members.values().map(connection).collect(),
        consume_from_where: live.consume_from_where,
        consume_type: live.consume_type,
        message_model: live.message_model,
        subscription_table: subscriptions.map(|(topic, data)| (topic.clone(), data.data.clone())).collect(),
    };
    Ok(Answer::Now(success().with_body(body.encode())))
}

/// GET_PRODUCER_CONNECTION_LIST (204).
pub(crate) fn producers(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("producerGroup")?;
    let Some(members) = control.clients.producer_group(group) else {
        let remark = format!("the producer group[{group}] not exist");
        return Err(Refusal::new(response::SYSTEM_ERROR, remark));
    };
    let body = ProducerConnection { connection_set: members.values().map(connection).collect() };
    Ok(Answer::Now(success().with_body(body.encode())))
}

/// One producer in the answer of 328. Source: ProducerInfo.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProducerInfo {
    client_id: String,
    language: Option<String>,
    last_update_timestamp: i64,
    #[serde(rename = "remoteIP")]
    remote_ip: String,
    version: i32,
}

/// GET_ALL_PRODUCER_INFO (328).
pub(crate) fn all_producers(control: &mut Control, request: &mut Request<'_>) -> Handled {
    #[derive(Serialize)]
    struct ProducerTable {
        data: BTreeMap<String, Vec<ProducerInfo>>,
    }
    let Now { steady_ms, wall_ms } = request.now;
    let info = |client: &Client| ProducerInfo {
        client_id: client.client_id.clone(),
        language: language(client),
        last_update_timestamp: java_millis(wall_ms.saturating_sub(steady_ms.saturating_sub(client.last_heartbeat_ms))),
        remote_ip: format!("/{}", client.address),
        version: client.version,
    };
    let groups = control.clients.producer_groups().iter();
    let data = groups.map(|(group, members)| (group.clone(), members.values().map(info).collect())).collect();
    Ok(Answer::Now(success().with_body(to_fastjson(&ProducerTable { data }))))
}

/// QUERY_TOPIC_CONSUME_BY_WHO (300): online subscribers and groups with offsets.
pub(crate) fn groups_of_topic(control: &mut Control, request: &mut Request<'_>) -> Handled {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct GroupList<'a> {
        group_list: BTreeSet<&'a str>,
    }
    let topic = request.command.ext_text("topic")?;
    let mut group_list: BTreeSet<&str> = control.clients.groups_of_topic(topic).collect();
    group_list.extend(control.offsets.groups_of(topic));
    Ok(Answer::Now(success().with_body(to_fastjson(&GroupList { group_list }))))
}

/// QUERY_TOPICS_BY_CONSUMER (343): the topics on which the group has offsets.
pub(crate) fn topics_of_group(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("group")?;
    let topic_list = control.offsets.topics_of(group).map(str::to_owned).collect();
    let body = TopicList { broker_addr: Some(control.identity.address.clone()), topic_list };
    Ok(Answer::Now(success().with_body(body.encode())))
}

/// QUERY_SUBSCRIPTION_BY_CONSUMER (345).
pub(crate) fn subscription(control: &mut Control, request: &mut Request<'_>) -> Handled {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct QuerySubscription<'a> {
        group: &'a str,
        subscription_data: Option<&'a SubscriptionData>,
        topic: Option<&'a str>,
    }
    let group = request.command.ext_text("group")?;
    let topic = request.command.ext("topic");
    let subscription_data = topic.and_then(|topic| control.clients.subscription(group, topic));
    Ok(Answer::Now(success().with_body(to_fastjson(&QuerySubscription { group, subscription_data, topic }))))
}
