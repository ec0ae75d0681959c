//! REGISTER_BROKER (103): reading the request, and its effects on the route tables, in Java's order.
//! Source: DefaultRequestProcessor.registerBroker, RouteInfoManager.registerBroker.

use super::limits::{MAX_BROKER_ADDRESSES, MAX_NAME_LENGTH, MAX_ROUTES};
use super::routes::{BrokerPlace, LiveBroker, MASTER_ID, RouteTable};
use super::{ConnectionId, Effect, ZONE_NAME};
use ringmq_protocol::bodies::{
    BrokerData, DataVersion, JsonBody, PERM_WRITE, RegisterBodyError, RegisterBrokerBody, TopicConfigAndMapping,
};
use ringmq_protocol::command::{Command, FieldError};
use ringmq_protocol::json::{JsonError, Value};
use std::collections::BTreeSet;

/// Silence after which a broker counts as dead unless it names another time, in milliseconds.
pub const DEFAULT_BROKER_TIMEOUT_MS: u64 = 120_000;

/// Version ordinal of 3.0.11: from it on the body is a RegisterBrokerBody, before it a bare topic table.
const VERSION_WITH_REGISTER_BODY: i32 = 37;

/// A registration as read from its request.
#[derive(Debug, Clone)]
pub struct Registration {
    /// Group and id within it, cluster, addresses.
    pub broker_name: String,
    /// Cluster and address.
    pub place: BrokerPlace,
    /// Id within the group, 0 for the master.
    pub broker_id: i64,
    /// Address of the replication server.
    pub ha_server_address: String,
    /// Zone of the broker, if it names one.
    pub zone_name: Option<String>,
    /// Silence that the broker allows itself, in milliseconds.
    pub timeout_ms: u64,
    /// Whether a slave may stand in for the master; `None` from brokers that do not know of it.
    pub enable_acting_master: Option<bool>,
    /// Topics and their version.
    pub topics: TopicConfigAndMapping,
}

/// Why a registration was refused; answered with `SYSTEM_ERROR` and the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// A header field is missing or malformed.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// The check sum in the header is not the body's.
    #[error("crc32 not match")]
    Checksum,
    /// The body is not JSON of the expected form.
    #[error("decode the register body: {0}")]
    Body(#[from] JsonError),
    /// The compressed body is malformed.
    #[error("decode the register body: {0}")]
    CompressedBody(#[from] RegisterBodyError),
    /// One topic from a broker that has not registered as a whole.
    #[error("register broker failed")]
    SingleTopicFirst,
    /// A name or address is too long.
    #[error("names and addresses end at {MAX_NAME_LENGTH} bytes")]
    NameTooLong,
    /// The table of brokers is full.
    #[error("this name server serves {MAX_BROKER_ADDRESSES} brokers at most")]
    TooManyBrokers,
    /// The table of routes is full.
    #[error("this name server keeps {MAX_ROUTES} routes at most")]
    TooManyRoutes,
}

/// What the broker is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisterResult {
    /// Replication address of the master.
    pub ha_server_address: Option<String>,
    /// Address of the master.
    pub master_address: Option<String>,
}

impl Registration {
    /// Reads a request.
    pub fn from_request(request: &Command) -> Result<Self, RegisterError> {
        let body = request.body.as_deref().unwrap_or_default();
        let expected_crc = request.optional_i32("bodyCrc32")?.unwrap_or(0);
        if expected_crc != 0 && expected_crc != java_crc32(body) {
            return Err(RegisterError::Checksum);
        }
        let timeout_ms = request.optional_i64("heartbeatTimeoutMillis")?;
        let registration = Registration {
            broker_name: request.ext_text("brokerName")?.to_owned(),
            place: BrokerPlace::new(request.ext_text("clusterName")?, request.ext_text("brokerAddr")?),
            broker_id: request.ext_i64("brokerId")?,
            ha_server_address: request.ext("haServerAddr").unwrap_or_default().to_owned(),
            zone_name: request.ext(ZONE_NAME).map(str::to_owned),
            timeout_ms: timeout_ms.map_or(DEFAULT_BROKER_TIMEOUT_MS, |time| u64::try_from(time).unwrap_or(0)),
            enable_acting_master: request.optional_bool("enableActingMaster"),
            topics: read_topics(request, body)?,
        };
        registration.check_names()?;
        Ok(registration)
    }

    fn check_names(&self) -> Result<(), RegisterError> {
        let zone_name = self.zone_name.as_deref().unwrap_or_default();
        let names = [&self.broker_name, &self.place.cluster, &self.place.address, &self.ha_server_address, zone_name];
        let topics = self.topics.topic_config_table.values().map(|topic| topic.topic_name.as_str());
        if names.into_iter().chain(topics).any(|name| name.len() > MAX_NAME_LENGTH) {
            return Err(RegisterError::NameTooLong);
        }
        Ok(())
    }
}

fn read_topics(request: &Command, body: &[u8]) -> Result<TopicConfigAndMapping, RegisterError> {
    if body.is_empty() {
        return Ok(TopicConfigAndMapping::default());
    }
    let mut topics = if request.version < VERSION_WITH_REGISTER_BODY {
        TopicConfigAndMapping::decode(body)?
    } else if request.optional_bool("compressed").unwrap_or(false) {
        RegisterBrokerBody::decode_compressed(body, request.version)?.topic_config_serialize_wrapper
    } else {
        RegisterBrokerBody::decode(body)?.topic_config_serialize_wrapper
    };
    // The key of the table names the topic wherever the configuration itself does not.
    for (name, topic) in &mut topics.topic_config_table {
        if topic.topic_name.is_empty() {
            topic.topic_name.clone_from(name);
        }
    }
    Ok(topics)
}

/// CRC-32 without its top bit. Source: UtilAll.crc32.
fn java_crc32(body: &[u8]) -> i32 {
    let crc = crc32fast::hash(body) & 0x7fff_ffff;
    i32::try_from(crc).unwrap_or(i32::MAX)
}

/// Applies a registration. `delete_missing_topics` and `notify` are the settings `deleteTopicWithBrokerRegistration` and
/// `notifyMinBrokerIdChanged`. A refused registration changes nothing; Java may leave a group without an address behind,
/// which then never expires. An address that another one replaces under its id is forgotten at once; Java keeps its version
/// until it expires, and would ignore its topics should it return.
pub fn register(
    table: &mut RouteTable,
    registration: &Registration,
    connection: ConnectionId,
    now_ms: u64,
    delete_missing_topics: bool,
    notices: Option<&mut Vec<Effect>>,
) -> Result<RegisterResult, RegisterError> {
    let Registration { broker_name, place, broker_id, topics, .. } = registration;
    check_bounds(table, registration)?;
    let known_ids = table.brokers.get(broker_name).map(|data| &data.broker_addrs);
    // The role switch below does not touch the address of this id itself, so it may be looked up before.
    let known_address = known_ids.and_then(|ids| ids.get(broker_id)).cloned();
    let smallest_before = known_ids.and_then(|ids| ids.keys().next().copied()).unwrap_or(MASTER_ID);
    if known_address.is_none() && topics.topic_config_table.len() == 1 {
        return Err(RegisterError::SingleTopicFirst);
    }
    let is_new_group = !table.brokers.contains_key(broker_name);
    update_group(table, registration);
    if let Some(known) = &known_address
        && *known != place.address
        && is_outdated(table, &place.cluster, known, &topics.data_version)
    {
        table.drop_unclaimed(place);
        return Ok(RegisterResult::default());
    }
    let Some(group) = table.brokers.get_mut(broker_name) else { return Err(RegisterError::SingleTopicFirst) };
    group.broker_addrs.insert(*broker_id, place.address.clone());
    let is_first = is_new_group || known_address.as_deref().unwrap_or_default().is_empty();
    let is_smallest = group.broker_addrs.keys().next() == Some(broker_id);
    let is_prime_slave = registration.enable_acting_master.is_some() && *broker_id != MASTER_ID && is_smallest;
    let wipes_write = is_prime_slave && group.enable_acting_master;
    let group_master = group.broker_addrs.get(&MASTER_ID).cloned();
    if *broker_id == MASTER_ID || is_prime_slave {
        put_topics(table, registration, is_first, wipes_write, delete_missing_topics);
    }
    table.live.insert(
        place.clone(),
        LiveBroker {
            last_update_ms: now_ms,
            timeout_ms: registration.timeout_ms,
            data_version: topics.data_version.clone(),
            connection,
            ha_server_address: registration.ha_server_address.clone(),
        },
    );
    if let Some(replaced) = known_address.filter(|known| *known != place.address) {
        table.drop_unclaimed(&BrokerPlace::new(&place.cluster, &replaced));
    }
    if *broker_id < smallest_before
        && let Some(notices) = notices
    {
        table.notify_smallest_changed(broker_name, None, Some(&registration.ha_server_address), notices);
    }
    Ok(master_of(table, registration, group_master))
}

fn check_bounds(table: &RouteTable, registration: &Registration) -> Result<(), RegisterError> {
    if table.live.len() >= MAX_BROKER_ADDRESSES && !table.live.contains_key(&registration.place) {
        return Err(RegisterError::TooManyBrokers);
    }
    let topics = &registration.topics.topic_config_table;
    if table.route_count() + topics.len() > MAX_ROUTES {
        let is_new = |topic: &&str| !table.has_route(topic, &registration.broker_name);
        let added = topics.values().map(|topic| topic.topic_name.as_str()).filter(is_new).count();
        if table.route_count() + added > MAX_ROUTES {
            return Err(RegisterError::TooManyRoutes);
        }
    }
    Ok(())
}

/// Cluster and group exist from here on; the address leaves its other ids (a slave became master or the reverse).
fn update_group(table: &mut RouteTable, registration: &Registration) {
    let Registration { broker_name, place, .. } = registration;
    table.clusters.entry(place.cluster.clone()).or_default().insert(broker_name.clone());
    let group = table.brokers.entry(broker_name.clone()).or_insert_with(|| BrokerData {
        broker_name: broker_name.clone(),
        cluster: place.cluster.clone(),
        ..BrokerData::default()
    });
    group.enable_acting_master = registration.enable_acting_master.unwrap_or(false);
    group.zone_name.clone_from(&registration.zone_name);
    group.broker_addrs.retain(|id, address| *address != place.address || *id == registration.broker_id);
}

/// Whether the broker that holds the id has been through a later election than the newcomer.
fn is_outdated(table: &RouteTable, cluster: &str, holder: &str, newcomer: &DataVersion) -> bool {
    table
        .data_version(&BrokerPlace::new(cluster, holder))
        .is_some_and(|version| version.state_version > newcomer.state_version)
}

/// Writes the topics of a master or of the slave that stands in for it.
fn put_topics(
    table: &mut RouteTable,
    registration: &Registration,
    is_first: bool,
    wipes_write: bool,
    delete_missing_topics: bool,
) {
    let Registration { broker_name, place, topics, .. } = registration;
    let mappings = &topics.topic_queue_mapping_info_map;
    if delete_missing_topics && mappings.is_empty() {
        let named: BTreeSet<&str> = topics.topic_config_table.values().map(|topic| topic.topic_name.as_str()).collect();
        table.remove_routes(|topic, group| group == broker_name && !named.contains(topic));
    }
    let is_changed = is_first || table.data_version(place) != Some(&topics.data_version);
    for topic in topics.topic_config_table.values() {
        if is_changed || !table.has_route(&topic.topic_name, broker_name) {
            let mut topic = topic.clone();
            if wipes_write {
                topic.perm &= !PERM_WRITE;
            }
            table.put_topic(broker_name, &topic);
        }
    }
    if is_changed {
        for (topic, mapping) in mappings {
            let owner = mapping.get("bname").and_then(Value::as_str).unwrap_or(broker_name);
            // A mapping of a group that is not registered would never be removed again.
            if table.brokers.contains_key(owner) {
                table.put_mapping(topic, owner, mapping.clone());
            }
        }
    }
}

fn master_of(table: &RouteTable, registration: &Registration, master: Option<String>) -> RegisterResult {
    if registration.broker_id == MASTER_ID {
        return RegisterResult::default();
    }
    let Some(master) = master else { return RegisterResult::default() };
    match table.live.get(&BrokerPlace::new(&registration.place.cluster, &master)) {
        Some(live) => {
            RegisterResult { ha_server_address: Some(live.ha_server_address.clone()), master_address: Some(master) }
        }
        None => RegisterResult::default(),
    }
}
