//! Clients that come, stay and go: heartbeats (34), leaving (35), the list of a group's consumers (38), the check of a
//! subscription (46), notices to the members of a group (40), lost connections and silent clients.
//! Source: ClientManageProcessor, DefaultConsumerIdsChangeListener, ClientHousekeepingService.

use ringmq_protocol::bodies::{
    CheckClientRequestBody, ConsumeType, ConsumerData, GetConsumerListByGroupResponseBody, HeartbeatData, JsonBody,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::flags::RPC_ONEWAY;

use super::clients::{Client, Departure};
use super::filter::is_tag_type;
use super::{
    Answer, ConnectionId, Control, Effect, Handled, Refusal, Request, body, names, success, success_with_header,
};

/// HEART_BEAT (34). Always succeeds once its body is read: groups that cannot be registered are left out silently.
pub(crate) fn heartbeat(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let heartbeat = HeartbeatData::decode(body(request.command)?)?;
    let first_form = heartbeat.heartbeat_fingerprint == 0;
    let mut subscriptions_differ = first_form;
    let client = Client {
        client_id: heartbeat.client_id.clone(),
        language: request.command.language,
        version: request.command.version,
        address: request.peer.address,
        last_heartbeat_ms: request.now.steady_ms,
    };
    for data in &heartbeat.consumer_data_set {
        if control.config.reject_pull_consumers && data.consume_type == Some(ConsumeType::Actively) {
            continue;
        }
        let without = !first_form && heartbeat.without_sub;
        let fingerprint = heartbeat.heartbeat_fingerprint;
        // A group that is not in the table either: this heartbeat may be carried out once more, when its group is on disk, and the first
        // time has noted the fingerprint.
        subscriptions_differ |= without && !control.groups.contains(&data.group_name);
        subscriptions_differ |= control.clients.fingerprint_differs(&data.group_name, fingerprint, without);
        consumer_heartbeat(control, request, data, fingerprint, without, client.clone());
    }
    for data in &heartbeat.producer_data_set {
        control.clients.register_producer(request.peer.connection, client.clone(), &data.group_name);
    }
    let answer = success().with_ext("IS_SUPPORT_HEART_BEAT_V2", true).with_ext("IS_SUB_CHANGE", subscriptions_differ);
    Ok(Answer::Now(answer))
}

fn consumer_heartbeat(
    control: &mut Control,
    request: &mut Request<'_>,
    data: &ConsumerData,
    fingerprint: i32,
    without_subscriptions: bool,
    client: Client,
) {
    let (group, wall_ms) = (&data.group_name, request.now.wall_ms);
    if control.ensure_group(group, wall_ms, request.effects).is_err() {
        return;
    }
    let Some(config) = control.groups.get(group).cloned() else { return };
    let order = data.subscription_data_set.iter().any(|data| control.topics.is_order(&data.topic));
    let retry_topic = names::retry_topic(group);
    let queues = config.retry_queue_nums;
    if let Err(refusal) =
        control.ensure_derived_topic(&retry_topic, queues, order, data.unit_mode, wall_ms, request.effects)
    {
        tracing::warn!(topic = retry_topic, %refusal, "cannot create a retry topic");
    }
    let subscriptions = (!without_subscriptions).then_some(data.subscription_data_set.as_slice());
    let changed = control.clients.register_consumer(request.peer.connection, client, fingerprint, data, subscriptions);
    if changed.visible {
        control.stale_group(group);
        request.effects.push(Effect::SubscriptionsChanged { group: group.clone() });
    }
    if changed.notify
        && config.notify_consumer_ids_changed_enable
        && let Some(live) = control.clients.consumer_group(group)
        && !live.is_broadcasting()
    {
        control.notify(group, live.members.keys().copied(), request.effects);
    }
}

/// UNREGISTER_CLIENT (35). Removes this connection, whatever client id the request names.
pub(crate) fn unregister(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let connection = request.peer.connection;
    if let Some(group) = request.command.ext("producerGroup") {
        control.clients.unregister_producer(connection, group);
    }
    if let Some(group) = request.command.ext("consumerGroup")
        && let Some(departure) = control.clients.unregister_consumer(connection, group)
    {
        let notify = control.groups.get(group).is_none_or(|config| config.notify_consumer_ids_changed_enable);
        control.departed(departure, notify, request.effects);
    }
    Ok(Answer::Now(success_with_header()))
}

/// GET_CONSUMER_LIST_BY_GROUP (38): one client id per connection.
pub(crate) fn consumer_list(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let group = request.command.ext_text("consumerGroup")?;
    let Some(live) = control.clients.consumer_group(group) else {
        return Err(Refusal::new(response::SYSTEM_ERROR, format!("no consumer for this group, {group}")));
    };
    let consumer_id_list = live.members.values().map(|client| client.client_id.clone()).collect();
    Ok(Answer::Now(success_with_header().with_body(GetConsumerListByGroupResponseBody { consumer_id_list }.encode())))
}

/// CHECK_CLIENT_CONFIG (46). Tags are always fine; expressions of other types are not served.
pub(crate) fn check_client(_control: &mut Control, request: &mut Request<'_>) -> Handled {
    let check = match request.command.body.as_deref() {
        Some(body) => CheckClientRequestBody::decode(body)?,
        None => CheckClientRequestBody::default(),
    };
    match check.subscription_data {
        Some(data) if !is_tag_type(Some(&data.expression_type)) => {
            let remark = format!("The broker does not support consumer to filter message by {}", data.expression_type);
            Err(Refusal::new(response::SYSTEM_ERROR, remark))
        }
        _ => Ok(Answer::Now(success())),
    }
}

impl Control {
    /// A connection has ended, for whatever reason: its client leaves all groups. Locks stay until they expire.
    pub fn connection_closed(&mut self, connection: ConnectionId, effects: &mut Vec<Effect>) {
        for departure in self.clients.remove_connection(connection) {
            self.departed(departure, true, effects);
        }
    }

    /// Removes clients without heartbeat and closes their connections.
    pub(crate) fn expire_clients(&mut self, steady_ms: u64, effects: &mut Vec<Effect>) {
        let timeout_ms = self.config.client_timeout.as_millis().try_into().unwrap_or(u64::MAX);
        for connection in self.clients.expired(steady_ms, timeout_ms) {
            effects.push(Effect::CloseConnection(connection));
            self.connection_closed(connection, effects);
        }
    }

    fn departed(&mut self, departure: Departure, notify: bool, effects: &mut Vec<Effect>) {
        let Departure { group, remaining, broadcasting } = departure;
        self.stale_group(&group);
        effects.push(Effect::SubscriptionsChanged { group: group.clone() });
        if notify && !broadcasting {
            self.notify(&group, remaining.into_iter(), effects);
        }
    }

    /// NOTIFY_CONSUMER_IDS_CHANGED (40) to members of a group.
    fn notify(&self, group: &str, members: impl Iterator<Item = ConnectionId>, effects: &mut Vec<Effect>) {
        if !self.config.notify_consumers {
            return;
        }
        for connection in members {
            let notice = Command { flag: RPC_ONEWAY, ..Command::request(request::NOTIFY_CONSUMER_IDS_CHANGED) };
            effects.push(Effect::Send { connection, command: notice.with_ext("consumerGroup", group) });
        }
    }
}
