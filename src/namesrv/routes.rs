//! The route tables: which topics lie on which broker groups, and which brokers live at which addresses.
//!
//! Invariants, checked by `check_invariants` in tests:
//! * every broker group that a topic names is registered, and every registered group has an address;
//! * every registered address has a live entry, so that expiry or a closed connection removes it;
//! * groups of clusters exist, no table holds an empty inner table, and the counters match.
//!
//! Source: RouteInfoManager. Where Java can leave entries behind for ever (an address registered under two names or
//! clusters, a live entry whose address is gone), these tables clean up at expiry.

use super::limits::{MAX_QUEUE_MAPPING_LENGTH, MAX_QUEUE_MAPPINGS};
use super::{ConnectionId, Effect};
use ringmq_protocol::bodies::{
    BrokerData, BrokerMemberGroup, ClusterInfo, DataVersion, PERM_READ, PERM_WRITE, QueueData, TopicConfig,
    TopicRouteData,
};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::flags::RPC_ONEWAY;
use ringmq_protocol::json::{Value, to_fastjson};
use std::collections::{BTreeMap, BTreeSet};

/// Broker id of a master.
pub const MASTER_ID: i64 = 0;

/// Topics that keep their routes as they are even if a slave stands in. Source: TopicValidator.
const SYNC_BROKER_MEMBER_GROUP_PREFIX: &str = "rmq_sys_SYNC_BROKER_MEMBER_";

/// A broker's place: cluster and `ip:port`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BrokerPlace {
    /// Cluster.
    pub cluster: String,
    /// `ip:port` as the broker gave it.
    pub address: String,
}

impl BrokerPlace {
    /// A place.
    pub fn new(cluster: &str, address: &str) -> Self {
        BrokerPlace { cluster: cluster.to_owned(), address: address.to_owned() }
    }
}

/// What is known about a broker that registered and has not expired.
#[derive(Debug, Clone)]
pub struct LiveBroker {
    /// Last sign of life, in milliseconds.
    pub last_update_ms: u64,
    /// Silence after which the broker counts as dead, in milliseconds.
    pub timeout_ms: u64,
    /// Version of its topics.
    pub data_version: DataVersion,
    /// Connection that registered it.
    pub connection: ConnectionId,
    /// Address of its replication server.
    pub ha_server_address: String,
}

/// Which topics a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitKind {
    /// Topics of a unit.
    Unit,
    /// Topics that a unit subscribes to.
    UnitSubscription,
    /// The latter without the former.
    UnitSubscriptionOnly,
}

/// The tables.
#[derive(Debug, Default)]
pub struct RouteTable {
    pub(super) topics: BTreeMap<String, BTreeMap<String, QueueData>>,
    pub(super) brokers: BTreeMap<String, BrokerData>,
    pub(super) clusters: BTreeMap<String, BTreeSet<String>>,
    pub(super) live: BTreeMap<BrokerPlace, LiveBroker>,
    mappings: BTreeMap<String, BTreeMap<String, Value>>,
    route_count: usize,
    mapping_count: usize,
}

impl RouteTable {
    /// Registered addresses of brokers.
    pub fn broker_count(&self) -> usize {
        self.live.len()
    }

    /// Number of (topic, broker group) pairs.
    pub fn route_count(&self) -> usize {
        self.route_count
    }

    /// Whether the topic has queues on the group.
    pub fn has_route(&self, topic: &str, broker_name: &str) -> bool {
        self.topics.get(topic).is_some_and(|groups| groups.contains_key(broker_name))
    }

    /// Adds or replaces the queues of a topic on a registered group.
    pub fn put_route(&mut self, topic: &str, queues: QueueData) {
        debug_assert!(self.brokers.contains_key(&queues.broker_name), "routes name registered brokers");
        let groups = self.topics.entry(topic.to_owned()).or_default();
        if groups.insert(queues.broker_name.clone(), queues).is_none() {
            self.route_count += 1;
        }
    }

    /// Adds or replaces a topic as a broker group configured it.
    pub fn put_topic(&mut self, broker_name: &str, topic: &TopicConfig) {
        self.put_route(
            &topic.topic_name,
            QueueData {
                broker_name: broker_name.to_owned(),
                perm: topic.perm,
                read_queue_nums: topic.read_queue_nums,
                topic_sys_flag: topic.topic_sys_flag,
                write_queue_nums: topic.write_queue_nums,
            },
        );
    }

    /// Removes the routes that `is_gone` selects by topic and group, and topics that become empty.
    pub fn remove_routes(&mut self, mut is_gone: impl FnMut(&str, &str) -> bool) {
        let mut removed = 0;
        self.topics.retain(|topic, groups| {
            let before = groups.len();
            groups.retain(|broker_name, _| !is_gone(topic, broker_name));
            removed += before - groups.len();
            !groups.is_empty()
        });
        self.route_count -= removed;
    }

    /// Stores the static-topic mapping of a group. Past the bounds mappings are left out: clients then see the topic's
    /// physical queues.
    pub fn put_mapping(&mut self, topic: &str, broker_name: &str, mapping: Value) {
        if self.mapping_count >= MAX_QUEUE_MAPPINGS || to_fastjson(&mapping).len() > MAX_QUEUE_MAPPING_LENGTH {
            return;
        }
        let groups = self.mappings.entry(topic.to_owned()).or_default();
        if groups.insert(broker_name.to_owned(), mapping).is_none() {
            self.mapping_count += 1;
        }
    }

    /// Topic administration 217: adds queues until the first one of an unknown group; a new topic is added only if all
    /// groups are known. Returns how many pairs were added or replaced. Source: RouteInfoManager.registerTopic.
    pub fn register_topic(&mut self, topic: &str, queues: Vec<QueueData>) -> usize {
        let known = queues.iter().take_while(|data| self.brokers.contains_key(&data.broker_name)).count();
        if known < queues.len() && !self.topics.contains_key(topic) {
            return 0;
        }
        queues.into_iter().take(known).for_each(|data| self.put_route(topic, data));
        known
    }

    /// Topic administration 216: removes a topic, from one cluster or from all.
    pub fn delete_topic(&mut self, topic: &str, cluster: Option<&str>) {
        let Some(groups) = self.topics.get(topic) else { return };
        let gone: BTreeSet<String> = match cluster {
            None => groups.keys().cloned().collect(),
            Some(cluster) => self.clusters.get(cluster).cloned().unwrap_or_default(),
        };
        self.remove_routes(|name, broker_name| name == topic && gone.contains(broker_name));
    }

    /// Clears the write bit in all queues of a group (205), or makes them readable and writable (327). Returns how many
    /// topics the group has.
    pub fn set_write_permission(&mut self, broker_name: &str, writable: bool) -> usize {
        let mut count = 0;
        for queues in self.topics.values_mut().filter_map(|groups| groups.get_mut(broker_name)) {
            queues.perm = if writable { PERM_READ | PERM_WRITE } else { queues.perm & !PERM_WRITE };
            count += 1;
        }
        count
    }

    /// Records a sign of life.
    pub fn touch(&mut self, place: &BrokerPlace, now_ms: u64) {
        if let Some(live) = self.live.get_mut(place) {
            live.last_update_ms = now_ms;
        }
    }

    /// Version of the topics that a broker registered last.
    pub fn data_version(&self, place: &BrokerPlace) -> Option<&DataVersion> {
        self.live.get(place).map(|live| &live.data_version)
    }

    /// The route of a topic, or nothing if no registered group has it. Source: RouteInfoManager.pickupTopicRouteData.
    pub fn route(&self, topic: &str, support_acting_master: bool) -> Option<TopicRouteData> {
        let groups = self.topics.get(topic)?;
        let mut broker_datas: Vec<BrokerData> =
            groups.keys().filter_map(|broker_name| self.brokers.get(broker_name)).cloned().collect();
        if broker_datas.is_empty() {
            return None;
        }
        if support_acting_master && !topic.starts_with(SYNC_BROKER_MEMBER_GROUP_PREFIX) {
            for broker in &mut broker_datas {
                let is_writable = groups.get(&broker.broker_name).is_some_and(|queues| queues.perm & PERM_WRITE != 0);
                if broker.enable_acting_master && !is_writable {
                    promote_smallest(broker);
                }
            }
        }
        Some(TopicRouteData {
            broker_datas,
            queue_datas: groups.values().cloned().collect(),
            topic_queue_mapping_by_broker: self.mappings.get(topic).cloned(),
            ..TopicRouteData::default()
        })
    }

    /// All groups and clusters (106).
    pub fn cluster_info(&self) -> ClusterInfo {
        let names = |groups: &BTreeSet<String>| groups.iter().cloned().collect();
        ClusterInfo {
            broker_addr_table: self.brokers.clone(),
            cluster_addr_table: self
                .clusters
                .iter()
                .map(|(cluster, groups)| (cluster.clone(), names(groups)))
                .collect(),
        }
    }

    /// Members of a group (901); an unknown group has none.
    pub fn member_group(&self, cluster: &str, broker_name: &str) -> BrokerMemberGroup {
        BrokerMemberGroup {
            broker_addrs: self.brokers.get(broker_name).map(|data| data.broker_addrs.clone()).unwrap_or_default(),
            broker_name: broker_name.to_owned(),
            cluster: cluster.to_owned(),
        }
    }

    /// Names of all topics (206).
    pub fn topic_names(&self) -> Vec<String> {
        self.topics.keys().cloned().collect()
    }

    /// Names of the topics that have queues in a cluster (224).
    pub fn topic_names_of_cluster(&self, cluster: &str) -> Vec<String> {
        let Some(members) = self.clusters.get(cluster) else { return Vec::new() };
        let in_cluster = |groups: &BTreeMap<String, QueueData>| groups.keys().any(|group| members.contains(group));
        self.topics.iter().filter(|(_, groups)| in_cluster(groups)).map(|(topic, _)| topic.clone()).collect()
    }

    /// Names of unit topics (311 to 313); the first group of a topic decides.
    pub fn unit_topic_names(&self, kind: UnitKind) -> Vec<String> {
        use ringmq_protocol::bodies::{TOPIC_FLAG_UNIT, TOPIC_FLAG_UNIT_SUB};
        let matches = |groups: &BTreeMap<String, QueueData>| {
            let flag = groups.values().next().map_or(0, |queues| queues.topic_sys_flag);
            let (unit, subscribed) = (flag & TOPIC_FLAG_UNIT != 0, flag & TOPIC_FLAG_UNIT_SUB != 0);
            match kind {
                UnitKind::Unit => unit,
                UnitKind::UnitSubscription => subscribed,
                UnitKind::UnitSubscriptionOnly => subscribed && !unit,
            }
        };
        self.topics.iter().filter(|(_, groups)| matches(groups)).map(|(topic, _)| topic.clone()).collect()
    }

    /// Names of clusters and groups, and the address of some broker (304).
    pub fn system_topic_names(&self) -> (Vec<String>, Option<String>) {
        let mut names: BTreeSet<String> = self.clusters.keys().cloned().collect();
        names.extend(self.clusters.values().flatten().cloned());
        let address = self.brokers.values().find_map(|data| data.broker_addrs.values().next().cloned());
        (names.into_iter().collect(), address)
    }

    /// A broker leaves by request (104).
    pub fn unregister(&mut self, place: &BrokerPlace, broker_name: &str, notices: Option<&mut Vec<Effect>>) {
        self.remove_address(broker_name, &place.address, notices);
        self.drop_unclaimed(place);
    }

    /// Removes brokers that have been silent for too long, and closes their connections.
    pub fn expire(&mut self, now_ms: u64, notify: bool, effects: &mut Vec<Effect>) {
        let is_dead = |live: &LiveBroker| live.last_update_ms.saturating_add(live.timeout_ms) < now_ms;
        let dead: Vec<(BrokerPlace, ConnectionId)> = self
            .live
            .iter()
            .filter(|(_, live)| is_dead(live))
            .map(|(place, live)| (place.clone(), live.connection))
            .collect();
        for (place, connection) in dead {
            effects.push(Effect::CloseConnection(connection));
            self.lose(&place, notify.then_some(&mut *effects));
        }
    }

    /// Removes the brokers that registered over a connection that is gone.
    pub fn connection_closed(&mut self, connection: ConnectionId, notify: bool, effects: &mut Vec<Effect>) {
        let lost: Vec<BrokerPlace> = self
            .live
            .iter()
            .filter(|(_, live)| live.connection == connection)
            .map(|(place, _)| place.clone())
            .collect();
        for place in lost {
            self.lose(&place, notify.then_some(&mut *effects));
        }
    }

    /// A live entry ends: its address leaves the group of the same cluster, and any group that nothing else keeps alive.
    fn lose(&mut self, place: &BrokerPlace, mut notices: Option<&mut Vec<Effect>>) {
        self.live.remove(place);
        let lives_elsewhere = self.live.keys().any(|other| other.address == place.address);
        let groups: Vec<String> = self
            .brokers
            .values()
            .filter(|data| data.broker_addrs.values().any(|address| *address == place.address))
            .filter(|data| data.cluster == place.cluster || !lives_elsewhere)
            .map(|data| data.broker_name.clone())
            .collect();
        for broker_name in groups {
            self.remove_address(&broker_name, &place.address, notices.as_deref_mut());
        }
    }

    /// Removes a live entry unless some group still names its address.
    pub(super) fn drop_unclaimed(&mut self, place: &BrokerPlace) {
        let claims = |data: &BrokerData| data.broker_addrs.values().any(|address| *address == place.address);
        if !self.brokers.values().any(claims) {
            self.live.remove(place);
        }
    }

    /// Takes an address out of a group. Without addresses the group ends and its routes with it; without a master the
    /// queues of an acting-master group become read-only. Source: RouteInfoManager.unRegisterBroker.
    fn remove_address(&mut self, broker_name: &str, address: &str, notices: Option<&mut Vec<Effect>>) {
        let Some(data) = self.brokers.get_mut(broker_name) else { return };
        let smallest_before = data.broker_addrs.keys().next().copied();
        data.broker_addrs.retain(|_, known| known != address);
        if data.broker_addrs.is_empty() {
            self.brokers.remove(broker_name);
            self.end_group(broker_name);
            return;
        }
        let smallest_left = smallest_before != data.broker_addrs.keys().next().copied();
        let lost_master = data.enable_acting_master && !data.broker_addrs.contains_key(&MASTER_ID);
        if lost_master {
            self.set_write_permission(broker_name, false);
        }
        if smallest_left && let Some(notices) = notices {
            self.notify_smallest_changed(broker_name, Some(address), None, notices);
        }
    }

    fn end_group(&mut self, broker_name: &str) {
        self.clusters.retain(|_, groups| {
            groups.remove(broker_name);
            !groups.is_empty()
        });
        self.remove_routes(|_, group| group == broker_name);
        let mut removed = 0;
        self.mappings.retain(|_, groups| {
            removed += usize::from(groups.remove(broker_name).is_some());
            !groups.is_empty()
        });
        self.mapping_count -= removed;
    }

    /// Tells members of a group who has the smallest id now (905): all of them if a broker left, else all but that one.
    /// Source: RouteInfoManager.notifyMinBrokerIdChanged.
    pub(super) fn notify_smallest_changed(
        &self,
        broker_name: &str,
        offline_address: Option<&str>,
        ha_address: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(data) = self.brokers.get(broker_name) else { return };
        let Some((smallest_id, smallest_address)) = data.broker_addrs.first_key_value() else { return };
        let mut notice = Command::request(request::NOTIFY_MIN_BROKER_ID_CHANGE)
            .with_ext("minBrokerId", smallest_id)
            .with_ext("brokerName", broker_name)
            .with_ext("minBrokerAddr", smallest_address);
        notice.flag = RPC_ONEWAY;
        if let Some(address) = offline_address {
            notice = notice.with_ext("offlineBrokerAddr", address);
        }
        if let Some(address) = ha_address {
            notice = notice.with_ext("haBrokerAddr", address);
        }
        let to_all = offline_address.is_some() || data.broker_addrs.len() == 1;
        for (id, address) in &data.broker_addrs {
            let live = self.live.iter().find(|(place, _)| place.address == *address);
            if (to_all || id != smallest_id)
                && let Some((_, live)) = live
            {
                let connection = live.connection;
                effects.push(Effect::Send { connection, address: address.clone(), command: notice.clone() });
            }
        }
    }

    /// Panics if an invariant of the tables does not hold.
    #[cfg(test)]
    pub fn check_invariants(&self) {
        let mut routes = 0;
        for (topic, groups) in &self.topics {
            assert!(!groups.is_empty(), "topic {topic} without groups");
            routes += groups.len();
            for (name, queues) in groups {
                assert_eq!(*name, queues.broker_name);
                assert!(self.brokers.contains_key(name), "topic {topic} names the unknown group {name}");
            }
        }
        assert_eq!(routes, self.route_count);
        assert_eq!(self.mappings.values().map(BTreeMap::len).sum::<usize>(), self.mapping_count);
        for (name, data) in &self.brokers {
            assert!(!data.broker_addrs.is_empty(), "group {name} without addresses");
            assert!(self.clusters.values().any(|groups| groups.contains(name)), "group {name} without a cluster");
            for address in data.broker_addrs.values() {
                assert!(self.live.keys().any(|place| place.address == *address), "{address} would never expire");
            }
        }
        for (cluster, groups) in &self.clusters {
            assert!(!groups.is_empty(), "cluster {cluster} without groups");
            assert!(groups.iter().all(|group| self.brokers.contains_key(group)), "unknown group in {cluster}");
        }
    }
}

/// Shows the member with the smallest id as the master of a group that has none.
fn promote_smallest(broker: &mut BrokerData) {
    if broker.broker_addrs.contains_key(&MASTER_ID) {
        return;
    }
    if let Some((_, address)) = broker.broker_addrs.pop_first() {
        broker.broker_addrs.insert(MASTER_ID, address);
    }
}
