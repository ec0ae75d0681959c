//! Connected clients: the members and subscriptions of consumer groups, and the members of producer groups.
//! Source: ConsumerManager, ConsumerGroupInfo, ProducerManager.
//!
//! Invariants: a member is a connection, not a client id. A group is in the table exactly as long as it has members.
//! `by_connection` names every group that a connection is a member of. Owned by the control thread; pure bookkeeping:
//! who has to be told of a change is decided by its callers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;

use ringmq_protocol::bodies::{ConsumeFromWhere, ConsumeType, ConsumerData, MessageModel, SubscriptionData};
use ringmq_protocol::language::Language;

use super::snapshot::{LiveGroup, Subscription};
use super::{ConnectionId, FastMap, limits};

/// One client on one connection, as a member of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Client id of its heartbeat.
    pub client_id: String,
    /// Language of its command headers.
    pub language: Option<Language>,
    /// Version of its command headers.
    pub version: i32,
    /// Remote address of the connection.
    pub address: SocketAddr,
    /// Time of the last heartbeat, milliseconds of the steady clock.
    pub last_heartbeat_ms: u64,
}

/// A consumer group that is online.
#[derive(Debug, Default)]
pub struct ConsumerGroup {
    /// As of the last heartbeat of any member.
    pub consume_type: Option<ConsumeType>,
    /// As of the last heartbeat of any member.
    pub message_model: Option<MessageModel>,
    /// As of the last heartbeat of any member.
    pub consume_from_where: Option<ConsumeFromWhere>,
    /// Topic to subscription.
    pub subscriptions: BTreeMap<String, Arc<Subscription>>,
    /// Connection to member.
    pub members: BTreeMap<ConnectionId, Client>,
    fingerprint: i32,
}

impl ConsumerGroup {
    /// Whether every member gets every message.
    pub fn is_broadcasting(&self) -> bool {
        self.message_model == Some(MessageModel::Broadcasting)
    }
}

#[derive(Debug, Default)]
struct Memberships {
    consumer_groups: BTreeSet<String>,
    producer_groups: BTreeSet<String>,
}

impl Memberships {
    fn count(&self) -> usize {
        self.consumer_groups.len() + self.producer_groups.len()
    }
}

/// What a heartbeat changed in a consumer group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registration {
    /// Members have to be told: a new connection, or topics came or went.
    pub notify: bool,
    /// Shards have to be told: any difference in what they see.
    pub visible: bool,
}

/// A consumer group that lost a member.
#[derive(Debug, PartialEq, Eq)]
pub struct Departure {
    /// The group.
    pub group: String,
    /// Who is left.
    pub remaining: Vec<ConnectionId>,
    /// Whether it consumes by broadcast, so that the others need not know.
    pub broadcasting: bool,
}

/// All connected clients.
#[derive(Debug, Default)]
pub struct ClientTable {
    consumers: FastMap<String, ConsumerGroup>,
    producers: BTreeMap<String, BTreeMap<ConnectionId, Client>>,
    by_connection: FastMap<ConnectionId, Memberships>,
}

impl ClientTable {
    /// A consumer group that is online.
    pub fn consumer_group(&self, group: &str) -> Option<&ConsumerGroup> {
        self.consumers.get(group)
    }

    /// Members of a producer group.
    pub fn producer_group(&self, group: &str) -> Option<&BTreeMap<ConnectionId, Client>> {
        self.producers.get(group)
    }

    /// Groups of the connection that is a member of most: see [`limits::MAX_GROUPS_PER_CONNECTION`].
    pub fn most_groups(&self) -> usize {
        self.by_connection.values().map(Memberships::count).max().unwrap_or(0)
    }

    /// All producer groups in name order.
    pub fn producer_groups(&self) -> &BTreeMap<String, BTreeMap<ConnectionId, Client>> {
        &self.producers
    }

    /// What a group wants of a topic.
    pub fn subscription(&self, group: &str, topic: &str) -> Option<&SubscriptionData> {
        Some(&self.consumers.get(group)?.subscriptions.get(topic)?.data)
    }

    /// Number of topics that a group subscribes to; 0 if it is offline.
    pub fn subscription_count(&self, group: &str) -> usize {
        self.consumers.get(group).map_or(0, |group| group.subscriptions.len())
    }

    /// Online groups that subscribe to a topic.
    pub fn groups_of_topic(&self, topic: &str) -> impl Iterator<Item = &str> {
        let subscribes = move |group: &ConsumerGroup| group.subscriptions.contains_key(topic);
        self.consumers.iter().filter(move |(_, group)| subscribes(group)).map(|(name, _)| name.as_str())
    }

    /// Remembers the fingerprint of a heartbeat; returns whether the group is online with a different one, or is not
    /// online although the heartbeat takes its subscriptions for known.
    pub(crate) fn fingerprint_differs(&mut self, group: &str, fingerprint: i32, without_subscriptions: bool) -> bool {
        match self.consumers.get_mut(group) {
            Some(group) => std::mem::replace(&mut group.fingerprint, fingerprint) != fingerprint,
            None => without_subscriptions,
        }
    }

    /// Whether the bounds allow this connection to become a member.
    fn has_room(&self, connection: ConnectionId, members: Option<usize>) -> bool {
        let groups = self.by_connection.get(&connection);
        let groups = groups.map_or(0, Memberships::count);
        members.unwrap_or(0) < limits::MAX_CONNECTIONS_PER_GROUP && groups < limits::MAX_GROUPS_PER_CONNECTION
    }

    /// Registers a member of a consumer group and what it says of the group. `subscriptions` is `None` if the heartbeat
    /// left them out. Beyond the bounds of [`limits`] nothing happens.
    pub(crate) fn register_consumer(
        &mut self,
        connection: ConnectionId,
        client: Client,
        fingerprint: i32,
        data: &ConsumerData,
        subscriptions: Option<&[SubscriptionData]>,
    ) -> Registration {
        let known = self.consumers.get(&data.group_name);
        let is_member = known.is_some_and(|group| group.members.contains_key(&connection));
        let members = known.map(|group| group.members.len());
        let topics = subscriptions.map_or(0, <[SubscriptionData]>::len);
        if topics > limits::MAX_SUBSCRIPTIONS_PER_GROUP || !(is_member || self.has_room(connection, members)) {
            return Registration::default();
        }
        let group = self.consumers.entry(data.group_name.clone()).or_default();
        let same = group.consume_type == data.consume_type
            && group.message_model == data.message_model
            && group.consume_from_where == data.consume_from_where;
        group.consume_type = data.consume_type;
        group.message_model = data.message_model;
        group.consume_from_where = data.consume_from_where;
        group.fingerprint = fingerprint;
        let mut changed = Registration { notify: !is_member, visible: !is_member || !same };
        group.members.insert(connection, client);
        if let Some(subscriptions) = subscriptions {
            let update = group.update_subscriptions(subscriptions);
            changed.notify |= update.notify;
            changed.visible |= update.visible;
        }
        if !is_member {
            let groups = self.by_connection.entry(connection).or_default();
            groups.consumer_groups.insert(data.group_name.clone());
        }
        changed
    }

    /// Registers a member of a producer group, or renews it.
    pub(crate) fn register_producer(&mut self, connection: ConnectionId, client: Client, group: &str) {
        let members = self.producers.get(group);
        let known = members.is_some_and(|members| members.contains_key(&connection));
        if !known {
            if !self.has_room(connection, members.map(BTreeMap::len)) {
                return;
            }
            self.by_connection.entry(connection).or_default().producer_groups.insert(group.to_owned());
        }
        self.producers.entry(group.to_owned()).or_default().insert(connection, client);
    }

    /// Removes a connection from a producer group.
    pub(crate) fn unregister_producer(&mut self, connection: ConnectionId, group: &str) {
        if let Some(groups) = self.by_connection.get_mut(&connection) {
            groups.producer_groups.remove(group);
        }
        self.forget_connection_without_groups(connection);
        self.remove_producer(connection, group);
    }

    fn remove_producer(&mut self, connection: ConnectionId, group: &str) {
        if let Some(members) = self.producers.get_mut(group) {
            members.remove(&connection);
            if members.is_empty() {
                self.producers.remove(group);
            }
        }
    }

    /// Removes a connection from a consumer group.
    pub(crate) fn unregister_consumer(&mut self, connection: ConnectionId, group: &str) -> Option<Departure> {
        if let Some(groups) = self.by_connection.get_mut(&connection) {
            groups.consumer_groups.remove(group);
        }
        self.forget_connection_without_groups(connection);
        self.remove_consumer(connection, group)
    }

    fn remove_consumer(&mut self, connection: ConnectionId, name: &str) -> Option<Departure> {
        let group = self.consumers.get_mut(name)?;
        group.members.remove(&connection)?;
        let remaining: Vec<ConnectionId> = group.members.keys().copied().collect();
        let broadcasting = group.is_broadcasting();
        if remaining.is_empty() {
            self.consumers.remove(name);
        }
        Some(Departure { group: name.to_owned(), remaining, broadcasting })
    }

    fn forget_connection_without_groups(&mut self, connection: ConnectionId) {
        let groups = self.by_connection.get(&connection);
        if groups.is_some_and(|groups| groups.consumer_groups.is_empty() && groups.producer_groups.is_empty()) {
            self.by_connection.remove(&connection);
        }
    }

    /// Removes a connection from all its groups; returns the consumer groups that lost it.
    pub(crate) fn remove_connection(&mut self, connection: ConnectionId) -> Vec<Departure> {
        let Some(groups) = self.by_connection.remove(&connection) else { return Vec::new() };
        for group in &groups.producer_groups {
            self.remove_producer(connection, group);
        }
        groups.consumer_groups.iter().filter_map(|group| self.remove_consumer(connection, group)).collect()
    }

    /// Connections that have been silent in any of their groups for longer than the time-out.
    pub(crate) fn expired(&self, steady_ms: u64, timeout_ms: u64) -> BTreeSet<ConnectionId> {
        let members = self.consumers.values().flat_map(|group| &group.members);
        members
            .chain(self.producers.values().flatten())
            .filter(|(_, client)| steady_ms.saturating_sub(client.last_heartbeat_ms) > timeout_ms)
            .map(|(connection, _)| *connection)
            .collect()
    }

    /// What shards see of a group.
    pub(crate) fn live_group(&self, group: &str) -> Option<LiveGroup> {
        let group = self.consumers.get(group)?;
        Some(LiveGroup {
            consume_type: group.consume_type,
            message_model: group.message_model,
            subscriptions: group.subscriptions.clone(),
            connections: group.members.keys().copied().collect(),
        })
    }
}

impl ConsumerGroup {
    /// New topics are added, a greater version replaces, topics that are not listed go.
    fn update_subscriptions(&mut self, listed: &[SubscriptionData]) -> Registration {
        let mut changed = Registration::default();
        for data in listed {
            match self.subscriptions.get(&data.topic) {
                Some(known) if data.sub_version <= known.data.sub_version => continue,
                Some(_) => changed.visible = true,
                None => changed = Registration { notify: true, visible: true },
            }
            self.subscriptions.insert(data.topic.clone(), Arc::new(Subscription::new(data.clone())));
        }
        let before = self.subscriptions.len();
        let topics: BTreeSet<&str> = listed.iter().map(|data| data.topic.as_str()).collect();
        self.subscriptions.retain(|topic, _| topics.contains(topic.as_str()));
        if self.subscriptions.len() < before {
            changed = Registration { notify: true, visible: true };
        }
        changed
    }
}
