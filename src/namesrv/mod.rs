//! The name server: route tables and the requests about them, as a pure state machine.
//!
//! No sockets, clock or files: the caller passes the time and the connection of each request, and carries out the
//! [`Effect`]s. One thread owns a [`NameServer`]; nothing here is shared.
//!
//! Invariants: no request makes it panic; every table is bounded ([`limits`]); routes name registered brokers only; a
//! request that is refused changes nothing. Source: DefaultRequestProcessor, ClientRequestProcessor, RouteInfoManager,
//! KVConfigManager, ZoneRouteRPCHook.

pub mod config;
pub mod kv;
pub mod limits;
pub mod register;
pub mod routes;

#[cfg(test)]
mod tests;

use config::{ConfigUpdateError, NamesrvConfig};
use kv::{KvConfig, KvError, NAMESPACE_ORDER_TOPIC_CONFIG};
use limits::{MAX_NAME_LENGTH, MAX_ROUTES};
use register::{RegisterError, Registration, register};
use ringmq_protocol::bodies::{
    DataVersion, GetBrokerMemberGroupResponseBody, JsonBody, KvTable, TopicList, TopicRouteData,
};
use ringmq_protocol::codes::{request as codes, response};
use ringmq_protocol::command::{Command, FieldError};
use ringmq_protocol::json::JsonError;
use routes::{BrokerPlace, MASTER_ID, RouteTable, UnitKind};
use std::collections::{BTreeMap, BTreeSet};

use crate::config::properties;

/// Ext field with the zone of a client or broker. Source: MixAll.ZONE_NAME.
const ZONE_NAME: &str = "__ZONE_NAME";

/// Ext field that asks for brokers of the own zone only. Source: MixAll.ZONE_MODE.
const ZONE_MODE: &str = "__ZONE_MODE";

/// Version ordinal of 4.9.4: clients from it on read standard JSON.
const VERSION_WITH_STANDARD_JSON: i32 = 401;

/// A connection, as numbered by the caller. Numbers are not used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Something for the caller to do, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a oneway request to a broker (905). A Java broker serves it only on its own listening port, so the caller
    /// connects to `address`; `connection` is the one that the broker registered over.
    Send {
        /// Connection of the broker's last registration.
        connection: ConnectionId,
        /// The broker's `ip:port`.
        address: String,
        /// The request.
        command: Command,
    },
    /// Close a connection whose broker has been silent for too long.
    CloseConnection(ConnectionId),
    /// Replace `kvConfig.json`.
    PersistKvConfig(Vec<u8>),
    /// Replace the settings file.
    PersistConfig(Vec<u8>),
}

/// Why a request is not answered with success: the code and the remark.
#[derive(Debug)]
struct Refusal {
    code: i32,
    remark: String,
}

impl Refusal {
    fn new(code: i32, remark: impl Into<String>) -> Self {
        Refusal { code, remark: remark.into() }
    }
}

macro_rules! system_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for Refusal {
            fn from(error: $error) -> Self {
                Refusal::new(response::SYSTEM_ERROR, error.to_string())
            }
        })+
    };
}

system_errors! { FieldError, JsonError, KvError, RegisterError }

impl From<ConfigUpdateError> for Refusal {
    fn from(error: ConfigUpdateError) -> Self {
        let code = match error {
            ConfigUpdateError::BlackListed => response::NO_PERMISSION,
            ConfigUpdateError::Malformed => response::SYSTEM_ERROR,
        };
        Refusal::new(code, error.to_string())
    }
}

type Answer = Result<Command, Refusal>;

/// The name server's state.
#[derive(Debug)]
pub struct NameServer {
    config: NamesrvConfig,
    /// What 319 shows beside it: settings of the process, and those that mean nothing here.
    shown: BTreeMap<String, String>,
    /// What requests have changed of it, by key, in this life and before.
    kept: BTreeMap<String, String>,
    kv: KvConfig,
    table: RouteTable,
    started_ms: Option<u64>,
    last_scan_ms: Option<u64>,
}

impl NameServer {
    /// A name server that knows no broker. Its time starts with the first call that passes one.
    pub fn new(config: NamesrvConfig) -> Self {
        NameServer {
            config,
            shown: BTreeMap::new(),
            kept: BTreeMap::new(),
            kv: KvConfig::default(),
            table: RouteTable::default(),
            started_ms: None,
            last_scan_ms: None,
        }
    }

    /// Takes over the whole configuration of the process, as `key=value` pairs: what is not a setting of this server is shown, too.
    pub fn configure(&mut self, pairs: impl IntoIterator<Item = (String, String)>) {
        for (key, value) in pairs {
            if !self.config.set(&key, &value) {
                self.shown.insert(key, value);
            }
        }
    }

    /// Takes over the content of `kvConfig.json`.
    ///
    /// # Errors
    /// The bytes are not of its form; nothing changes.
    pub fn load_kv_config(&mut self, bytes: &[u8]) -> Result<(), JsonError> {
        self.kv = KvConfig::from_file(bytes)?;
        Ok(())
    }

    /// Takes over a setting that a request has changed in an earlier life: it wins over the configuration, and is kept on. Unknown
    /// keys and values that do not parse are skipped.
    pub fn keep_setting(&mut self, key: &str, value: &str) {
        if self.config.set(key, value) {
            self.kept.insert(key.to_owned(), value.to_owned());
        }
    }

    /// The settings in force.
    pub fn config(&self) -> &NamesrvConfig {
        &self.config
    }

    /// Entries of the KV configuration.
    pub fn kv_count(&self) -> usize {
        self.kv.count()
    }

    /// The route tables, for metrics and local look-ups.
    pub fn routes(&self) -> &RouteTable {
        &self.table
    }

    /// The route of a topic as a client would get it, without zones; for a broker in the same process.
    pub fn route(&self, topic: &str) -> Option<TopicRouteData> {
        let mut route = self.table.route(topic, self.config.support_acting_master)?;
        if self.config.order_message_enable {
            route.order_topic_conf = self.kv.get(NAMESPACE_ORDER_TOPIC_CONFIG, topic).map(str::to_owned);
        }
        Some(route)
    }

    /// Answers a request; `None` if its code is not the name server's (see [`NameServer::not_supported`]). The answer to
    /// a oneway request must not be sent.
    pub fn handle(
        &mut self,
        request: &Command,
        connection: ConnectionId,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Option<Command> {
        self.started_ms.get_or_insert(now_ms);
        let answer = match request.code {
            codes::PUT_KV_CONFIG => self.put_kv(request, effects),
            codes::GET_KV_CONFIG => self.get_kv(request),
            codes::DELETE_KV_CONFIG => self.delete_kv(request, effects),
            codes::GET_KVLIST_BY_NAMESPACE => self.list_kv(request),
            codes::REGISTER_BROKER => self.register_broker(request, connection, now_ms, effects),
            codes::UNREGISTER_BROKER => self.unregister_broker(request, effects),
            codes::GET_ROUTEINFO_BY_TOPIC => self.route_of_topic(request, now_ms),
            codes::GET_BROKER_CLUSTER_INFO => Ok(with_json(&self.table.cluster_info())),
            codes::WIPE_WRITE_PERM_OF_BROKER => self.set_write_permission(request, false),
            codes::ADD_WRITE_PERM_OF_BROKER => self.set_write_permission(request, true),
            codes::GET_ALL_TOPIC_LIST_FROM_NAMESERVER => self.all_topics(),
            codes::DELETE_TOPIC_IN_NAMESRV => self.delete_topic(request),
            codes::REGISTER_TOPIC_IN_NAMESRV => self.register_topic(request),
            codes::GET_TOPICS_BY_CLUSTER => self.topics_of_cluster(request),
            codes::GET_SYSTEM_TOPIC_LIST_FROM_NS => self.system_topics(),
            codes::GET_UNIT_TOPIC_LIST => self.unit_topics(UnitKind::Unit),
            codes::GET_HAS_UNIT_SUB_TOPIC_LIST => self.unit_topics(UnitKind::UnitSubscription),
            codes::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST => self.unit_topics(UnitKind::UnitSubscriptionOnly),
            codes::UPDATE_NAMESRV_CONFIG => self.update_config(request, effects),
            codes::GET_NAMESRV_CONFIG => Ok(success().with_body(self.config.to_properties(&self.shown).into_bytes())),
            codes::QUERY_DATA_VERSION => self.query_data_version(request, now_ms),
            codes::GET_BROKER_MEMBER_GROUP => self.member_group(request),
            codes::BROKER_HEARTBEAT => self.heartbeat(request, now_ms),
            _ => return None,
        };
        let answer = answer.unwrap_or_else(|refusal| Command::error(refusal.code, refusal.remark));
        Some(addressed_to(request, answer))
    }

    /// The answer to a code that nobody serves.
    pub fn not_supported(request: &Command) -> Command {
        let remark = format!(" request type {} not supported", request.code);
        addressed_to(request, Command::error(response::REQUEST_CODE_NOT_SUPPORTED, remark))
    }

    /// A connection is gone: the brokers that registered over it leave.
    pub fn connection_closed(&mut self, connection: ConnectionId, now_ms: u64, effects: &mut Vec<Effect>) {
        self.started_ms.get_or_insert(now_ms);
        self.table.connection_closed(connection, self.config.notify_min_broker_id_changed, effects);
    }

    /// Time passes: every `scanNotActiveBrokerInterval` silent brokers are removed. Call it at least that often.
    pub fn tick(&mut self, now_ms: u64, effects: &mut Vec<Effect>) {
        self.started_ms.get_or_insert(now_ms);
        let last_scan_ms = *self.last_scan_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(last_scan_ms) < self.config.scan_not_active_broker_interval_ms {
            return;
        }
        self.last_scan_ms = Some(now_ms);
        self.table.expire(now_ms, self.config.notify_min_broker_id_changed, effects);
    }

    fn put_kv(&mut self, request: &Command, effects: &mut Vec<Effect>) -> Answer {
        let (Some(namespace), Some(key)) = (request.ext("namespace"), request.ext("key")) else {
            return Err(Refusal::new(response::SYSTEM_ERROR, "namespace or key is null"));
        };
        self.kv.put(namespace, key, request.ext_text("value")?)?;
        effects.push(Effect::PersistKvConfig(self.kv.to_file()));
        Ok(success())
    }

    fn get_kv(&self, request: &Command) -> Answer {
        let (namespace, key) = (request.ext_text("namespace")?, request.ext_text("key")?);
        match self.kv.get(namespace, key) {
            Some(value) => Ok(success().with_ext("value", value)),
            None => {
                let remark = format!("No config item, Namespace: {namespace} Key: {key}");
                Err(Refusal::new(response::QUERY_NOT_FOUND, remark))
            }
        }
    }

    fn delete_kv(&mut self, request: &Command, effects: &mut Vec<Effect>) -> Answer {
        self.kv.delete(request.ext_text("namespace")?, request.ext_text("key")?);
        effects.push(Effect::PersistKvConfig(self.kv.to_file()));
        Ok(success())
    }

    fn list_kv(&self, request: &Command) -> Answer {
        let namespace = request.ext_text("namespace")?;
        match self.kv.namespace(namespace) {
            Some(table) => Ok(with_json(&KvTable { table: table.clone() })),
            None => Err(Refusal::new(response::QUERY_NOT_FOUND, format!("No config item, Namespace: {namespace}"))),
        }
    }

    fn register_broker(
        &mut self,
        request: &Command,
        connection: ConnectionId,
        now_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let registration = Registration::from_request(request)?;
        let deletes = self.config.delete_topic_with_broker_registration;
        let notices = self.config.notify_min_broker_id_changed.then_some(effects);
        let result = register(&mut self.table, &registration, connection, now_ms, deletes, notices)?;
        let mut answer = success();
        if let Some(address) = result.ha_server_address {
            answer = answer.with_ext("haServerAddr", address);
        }
        if let Some(address) = result.master_address {
            answer = answer.with_ext("masterAddr", address);
        }
        if self.config.return_order_topic_config_to_broker
            && let Some(table) = self.kv.namespace(NAMESPACE_ORDER_TOPIC_CONFIG)
            && !table.is_empty()
        {
            answer = answer.with_body(KvTable { table: table.clone() }.encode());
        }
        Ok(answer)
    }

    /// Java queues these requests and applies them in batches; here the effect is immediate.
    fn unregister_broker(&mut self, request: &Command, effects: &mut Vec<Effect>) -> Answer {
        request.ext_i64("brokerId")?;
        let place = place_of(request)?;
        let notices = self.config.notify_min_broker_id_changed.then_some(effects);
        self.table.unregister(&place, request.ext_text("brokerName")?, notices);
        Ok(success())
    }

    fn route_of_topic(&self, request: &Command, now_ms: u64) -> Answer {
        let topic = request.ext_text("topic")?;
        let uptime_ms = now_ms.saturating_sub(self.started_ms.unwrap_or(now_ms));
        if self.config.need_wait_for_service && uptime_ms < self.config.wait_seconds_for_service.saturating_mul(1000) {
            return Err(Refusal::new(response::SYSTEM_ERROR, "name server not ready"));
        }
        let Some(mut route) = self.route(topic) else {
            let remark = format!("No topic route info in name server for the topic: {topic}");
            return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
        };
        let zone = request.ext(ZONE_NAME).unwrap_or_default();
        if request.optional_bool(ZONE_MODE) == Some(true) && !zone.trim().is_empty() {
            keep_zone(&mut route, zone);
        }
        let is_standard = request.version >= VERSION_WITH_STANDARD_JSON
            || request.optional_bool("acceptStandardJsonOnly") == Some(true);
        let body = if is_standard { route.encode_standard() } else { route.encode_legacy() };
        Ok(success().with_body(body))
    }

    fn set_write_permission(&mut self, request: &Command, writable: bool) -> Answer {
        let count = self.table.set_write_permission(request.ext_text("brokerName")?, writable);
        Ok(success().with_ext(if writable { "addTopicCount" } else { "wipeTopicCount" }, count))
    }

    fn all_topics(&self) -> Answer {
        if !self.config.enable_all_topic_list {
            return Err(Refusal::new(response::SYSTEM_ERROR, "disable"));
        }
        Ok(with_topics(self.table.topic_names()))
    }

    fn check_topic_lists(&self) -> Result<(), Refusal> {
        if self.config.enable_topic_list { Ok(()) } else { Err(Refusal::new(response::SYSTEM_ERROR, "disable")) }
    }

    fn topics_of_cluster(&self, request: &Command) -> Answer {
        self.check_topic_lists()?;
        Ok(with_topics(self.table.topic_names_of_cluster(request.ext_text("cluster")?)))
    }

    fn system_topics(&self) -> Answer {
        self.check_topic_lists()?;
        let (topic_list, broker_addr) = self.table.system_topic_names();
        Ok(with_json(&TopicList { broker_addr, topic_list }))
    }

    fn unit_topics(&self, kind: UnitKind) -> Answer {
        self.check_topic_lists()?;
        Ok(with_topics(self.table.unit_topic_names(kind)))
    }

    fn delete_topic(&mut self, request: &Command) -> Answer {
        let cluster = request.ext("clusterName").filter(|cluster| !cluster.trim().is_empty());
        self.table.delete_topic(request.ext_text("topic")?, cluster);
        Ok(success())
    }

    fn register_topic(&mut self, request: &Command) -> Answer {
        let topic = request.ext_text("topic")?;
        let route = TopicRouteData::decode(request.body.as_deref().unwrap_or_default())?;
        if topic.len() > MAX_NAME_LENGTH {
            return Err(RegisterError::NameTooLong.into());
        }
        if self.table.route_count() + route.queue_datas.len() > MAX_ROUTES {
            return Err(RegisterError::TooManyRoutes.into());
        }
        self.table.register_topic(topic, route.queue_datas);
        Ok(success())
    }

    fn update_config(&mut self, request: &Command, effects: &mut Vec<Effect>) -> Answer {
        if let Some(body) = &request.body {
            let text = str::from_utf8(body).map_err(|_| ConfigUpdateError::Malformed)?;
            let changes = self.config.update(text)?;
            self.kept.extend(changes.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
            let lines: String = self.kept.iter().map(|(key, value)| properties::line(key, value) + "\n").collect();
            effects.push(Effect::PersistConfig(lines.into_bytes()));
        }
        Ok(success())
    }

    fn query_data_version(&mut self, request: &Command, now_ms: u64) -> Answer {
        let place = place_of(request)?;
        let asked = request.body.as_deref().map(DataVersion::decode).transpose()?;
        self.table.touch(&place, now_ms);
        let known = self.table.data_version(&place);
        let answer = success().with_ext("changed", known.is_none() || known != asked.as_ref());
        Ok(match known {
            Some(version) => answer.with_body(version.encode()),
            None => answer,
        })
    }

    fn member_group(&self, request: &Command) -> Answer {
        let group = self.table.member_group(request.ext_text("clusterName")?, request.ext_text("brokerName")?);
        Ok(with_json(&GetBrokerMemberGroupResponseBody { broker_member_group: group }))
    }

    fn heartbeat(&mut self, request: &Command, now_ms: u64) -> Answer {
        self.table.touch(&place_of(request)?, now_ms);
        Ok(success())
    }
}

fn place_of(request: &Command) -> Result<BrokerPlace, FieldError> {
    Ok(BrokerPlace::new(request.ext_text("clusterName")?, request.ext_text("brokerAddr")?))
}

fn success() -> Command {
    Command::response(response::SUCCESS, 0)
}

fn with_json(body: &impl JsonBody) -> Command {
    success().with_body(body.encode())
}

fn with_topics(topic_list: Vec<String>) -> Command {
    with_json(&TopicList { broker_addr: None, topic_list })
}

fn addressed_to(request: &Command, mut answer: Command) -> Command {
    answer.opaque = request.opaque;
    answer.serialize_type = request.serialize_type;
    answer
}

/// Keeps the groups of a zone, and groups without a master whatever their zone: reading from a far slave is better than
/// not reading. The form of the answer stays the client's, while Java falls back to the legacy form here.
/// Source: ZoneRouteRPCHook.
fn keep_zone(route: &mut TopicRouteData, zone: &str) {
    let mut dropped = BTreeSet::new();
    route.broker_datas.retain(|broker| {
        let in_zone = broker.zone_name.as_deref().is_some_and(|name| name.to_lowercase() == zone.to_lowercase());
        let stays = in_zone || !broker.broker_addrs.contains_key(&MASTER_ID);
        if !stays {
            dropped.insert(broker.broker_name.clone());
        }
        stays
    });
    route.queue_datas.retain(|queues| !dropped.contains(&queues.broker_name));
}
