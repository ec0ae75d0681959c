//! The topics of this broker and how they come into being: the system topics of the first start, topics that a send or a
//! consumer creates, and the version that tells name servers of a change. Source: TopicConfigManager.
//!
//! Invariants: every change bumps the data version, because name servers ignore a registration whose version they know.
//! An entry that has not changed keeps its `Arc`, so snapshots share it. Owned by the control thread.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmq_protocol::bodies::{DataVersion, PERM_INHERIT, PERM_READ, PERM_WRITE, TopicConfig};
use ringmq_protocol::bodies::{TOPIC_FLAG_UNIT, TOPIC_FLAG_UNIT_SUB};
use ringmq_protocol::codes::response;
use ringmq_protocol::json::Value;

use super::settings::{BrokerIdentity, ControlConfig};
use super::snapshot::TopicEntry;
use super::{Control, Effect, FastMap, Refusal, java_millis, limits, names};

/// Queues of `BenchmarkTest`.
const BENCHMARK_QUEUES: i32 = 1024;
/// Queues of the schedule topic: one per delay level.
const SCHEDULE_QUEUES: i32 = 18;
/// Queues of the revive topic (`reviveQueueNum`).
const REVIVE_QUEUES: i32 = 8;

/// The table that snapshots share.
pub(crate) type TopicMap = FastMap<Arc<str>, Arc<TopicEntry>>;

/// All topics.
#[derive(Debug)]
pub struct TopicTable {
    entries: Arc<TopicMap>,
    version: DataVersion,
    system: BTreeSet<String>,
    queues: u64,
    /// Members of `topics.json` that this version does not know.
    pub(crate) unknown: BTreeMap<String, Value>,
    dirty: bool,
}

/// The topics at one moment. While it is held the next change copies the table, as a snapshot makes it do anyway.
#[derive(Debug)]
pub struct TopicsBefore {
    entries: Arc<TopicMap>,
    queues: u64,
    version: DataVersion,
    dirty: bool,
}

impl TopicsBefore {
    pub(crate) fn version(&self) -> &DataVersion {
        &self.version
    }
}

/// A topic with equal numbers of queues.
fn topic(name: &str, queues: i32, perm: i32) -> TopicConfig {
    TopicConfig { read_queue_nums: queues, write_queue_nums: queues, perm, ..TopicConfig::new(name) }
}

impl TopicTable {
    /// The system topics of a broker that starts for the first time.
    pub fn new(identity: &BrokerIdentity, config: &ControlConfig) -> TopicTable {
        let read_write = PERM_READ | PERM_WRITE;
        let template = |enabled| if enabled { PERM_INHERIT | read_write } else { PERM_INHERIT };
        let mut topics = vec![
            topic(names::SELF_TEST_TOPIC, 1, read_write),
            topic(names::BENCHMARK_TOPIC, BENCHMARK_QUEUES, read_write),
            topic(&identity.cluster, TopicConfig::default().read_queue_nums, template(config.cluster_topic)),
            topic(&identity.name, 1, template(config.broker_topic)),
            topic(names::OFFSET_MOVED_TOPIC, 1, read_write),
            topic(names::SCHEDULE_TOPIC, SCHEDULE_QUEUES, read_write),
            topic(&names::reply_topic(&identity.cluster), 1, read_write),
            topic(&names::revive_topic(&identity.cluster), REVIVE_QUEUES, read_write),
            topic(&names::member_topic(&identity.name), 1, PERM_INHERIT),
            topic(names::HALF_TOPIC, 1, read_write),
            topic(names::HALF_OPERATION_TOPIC, 1, read_write),
            topic(names::TIMER_TOPIC, 1, read_write),
        ];
        if config.auto_create_topic {
            topics.push(topic(names::AUTO_CREATE_TOPIC, config.default_topic_queues, template(true)));
        }
        if config.trace_topic {
            topics.push(topic(&config.trace_topic_name, 1, read_write));
        }
        let mut system: BTreeSet<String> = names::SYSTEM_TOPICS.into_iter().map(str::to_owned).collect();
        system.extend(topics.iter().map(|topic| topic.topic_name.clone()));
        let mut table = TopicTable {
            entries: Arc::default(),
            version: DataVersion::default(),
            system,
            queues: 0,
            unknown: BTreeMap::new(),
            dirty: true,
        };
        topics.into_iter().for_each(|topic| table.store(topic));
        table
    }

    fn store(&mut self, config: TopicConfig) {
        let name: Arc<str> = Arc::from(config.topic_name.as_str());
        self.queues += queue_count(&config);
        let old = Arc::make_mut(&mut self.entries).insert(name, Arc::new(TopicEntry { config }));
        self.queues -= old.map_or(0, |old| queue_count(&old.config));
    }

    /// The configuration of a topic.
    pub fn get(&self, topic: &str) -> Option<&TopicConfig> {
        self.entries.get(topic).map(|entry| &entry.config)
    }

    /// Whether the topic exists.
    pub fn contains(&self, topic: &str) -> bool {
        self.entries.contains_key(topic)
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Queues of all topics together.
    pub fn queues(&self) -> u64 {
        self.queues
    }

    /// Whether there are no topics; never after the start.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether the topic is marked as strictly ordered.
    pub fn is_order(&self, topic: &str) -> bool {
        self.get(topic).is_some_and(|config| config.order)
    }

    /// Whether admin requests may not change the topic: the fixed set, the prefix, and what this broker made at its start.
    pub fn is_system(&self, topic: &str) -> bool {
        names::is_system_topic(topic) || self.system.contains(topic)
    }

    /// The system topics (code 305), in name order.
    pub fn system_topics(&self) -> impl Iterator<Item = &str> {
        self.system.iter().map(String::as_str)
    }

    /// All topics in name order.
    pub fn sorted(&self) -> BTreeMap<&str, &TopicConfig> {
        self.entries.iter().map(|(name, entry)| (&**name, &entry.config)).collect()
    }

    /// Makes or replaces a topic.
    pub(crate) fn put(&mut self, config: TopicConfig, wall_ms: u64) {
        self.store(config);
        self.bump(wall_ms);
    }

    /// Deletes a topic; returns whether it existed.
    pub(crate) fn remove(&mut self, topic: &str, wall_ms: u64) -> bool {
        if !self.contains(topic) {
            return false;
        }
        let old = Arc::make_mut(&mut self.entries).remove(topic);
        self.queues -= old.map_or(0, |old| queue_count(&old.config));
        self.bump(wall_ms);
        true
    }

    /// Records a change of what is registered, such as the broker's permission.
    pub(crate) fn bump(&mut self, wall_ms: u64) {
        self.version.bump(java_millis(wall_ms));
        self.dirty = true;
    }

    /// Version of the table.
    pub fn version(&self) -> &DataVersion {
        &self.version
    }

    /// The first version of a broker without a state file carries its start time, so that no name server mistakes it for
    /// one that it knows.
    pub(crate) fn start_version(&mut self, wall_ms: u64) {
        self.dirty |= start_version(&mut self.version, wall_ms);
    }

    /// Takes over a state file: its topics win over the ones made at the start.
    pub(crate) fn load(
        &mut self,
        version: DataVersion,
        topics: BTreeMap<String, TopicConfig>,
        unknown: BTreeMap<String, Value>,
    ) {
        self.dirty = self.entries.keys().any(|name| !topics.contains_key(&**name));
        for (name, config) in topics {
            self.store(TopicConfig { topic_name: name, ..config });
        }
        self.version = version;
        self.unknown = unknown;
    }

    /// Whether the state file must be written; marks it as written.
    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    /// What [`Self::exchange`] needs to undo later changes.
    pub(crate) fn remember(&self) -> TopicsBefore {
        TopicsBefore { entries: self.shared(), queues: self.queues, version: self.version.clone(), dirty: self.dirty }
    }

    /// Whether topics were made, changed or removed since.
    pub(crate) fn differ_from(&self, before: &TopicsBefore) -> bool {
        !Arc::ptr_eq(&self.entries, &before.entries)
    }

    /// Puts the topics of another moment in place, with their version, and gives those of now.
    pub(crate) fn exchange(&mut self, other: TopicsBefore) -> TopicsBefore {
        let TopicsBefore { entries, queues, version, dirty } = other;
        TopicsBefore {
            entries: std::mem::replace(&mut self.entries, entries),
            queues: std::mem::replace(&mut self.queues, queues),
            version: std::mem::replace(&mut self.version, version),
            dirty: std::mem::replace(&mut self.dirty, dirty),
        }
    }

    pub(crate) fn shared(&self) -> Arc<TopicMap> {
        Arc::clone(&self.entries)
    }
}

/// Queues that a topic needs: those that are read or written.
fn queue_count(config: &TopicConfig) -> u64 {
    u64::try_from(config.read_queue_nums.max(config.write_queue_nums)).unwrap_or(0)
}

/// Gives a version that was never set the time of the start; returns whether it did.
pub(crate) fn start_version(version: &mut DataVersion, wall_ms: u64) -> bool {
    let unset = *version == DataVersion::default();
    if unset {
        version.timestamp = java_millis(wall_ms);
    }
    unset
}

impl Control {
    /// Creates a topic for a message that is being sent to it, from the template that the producer names, or a retry
    /// topic of one queue. Does nothing if the topic exists. Source: AbstractSendMessageProcessor.msgCheck,
    /// TopicConfigManager.createTopicInSendMessageMethod.
    ///
    /// # Errors
    /// 29 for an invalid name, 17 if no template allows it, 1 at the bound on topics.
    pub fn create_topic_for_send(
        &mut self,
        topic: &str,
        default_topic: &str,
        default_topic_queue_nums: i32,
        unit: bool,
        wall_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if self.topics.contains(topic) {
            return Ok(());
        }
        names::check_topic(topic)?;
        let retry = names::is_retry_topic(topic);
        let flag = match (unit, retry) {
            (false, _) => 0,
            (true, true) => TOPIC_FLAG_UNIT_SUB,
            (true, false) => TOPIC_FLAG_UNIT,
        };
        let template = self.topics.get(default_topic).filter(|template| {
            let switched_off = default_topic == names::AUTO_CREATE_TOPIC && !self.config.auto_create_topic;
            template.perm & PERM_INHERIT != 0 && !switched_off
        });
        let config = match template {
            Some(template) => {
                let queues = default_topic_queue_nums.min(template.write_queue_nums).max(0);
                let perm = template.perm & !PERM_INHERIT;
                let topic_filter_type = template.topic_filter_type;
                TopicConfig { topic_sys_flag: flag, topic_filter_type, ..self::topic(topic, queues, perm) }
            }
            None if retry => TopicConfig { topic_sys_flag: flag, ..self::topic(topic, 1, PERM_READ | PERM_WRITE) },
            None => {
                let remark = format!("topic[{topic}] not exist, apply first please!");
                return Err(Refusal::new(response::TOPIC_NOT_EXIST, remark));
            }
        };
        self.create_topic(config, wall_ms, effects)
    }

    /// Creates a topic that the broker derives from a group or a feature (retry, dead letters), with equal numbers of
    /// queues and permission to read and write. An existing one keeps everything but its `order` mark.
    /// Source: TopicConfigManager.createTopicInSendMessageBackMethod.
    ///
    /// # Errors
    /// 1 at the bound on topics.
    pub fn ensure_derived_topic(
        &mut self,
        name: &str,
        queues: i32,
        order: bool,
        unit_subscription: bool,
        wall_ms: u64,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        if let Some(existing) = self.topics.get(name) {
            if existing.order != order {
                let changed = TopicConfig { order, ..existing.clone() };
                self.topics.put(changed, wall_ms);
                effects.push(Effect::TopicsChanged);
            }
            return Ok(());
        }
        let topic_sys_flag = if unit_subscription { TOPIC_FLAG_UNIT_SUB } else { 0 };
        let config = TopicConfig { order, topic_sys_flag, ..topic(name, queues.max(0), PERM_READ | PERM_WRITE) };
        self.create_topic(config, wall_ms, effects)
    }

    /// Puts a new topic into the table, if there is room, and has it registered.
    fn create_topic(&mut self, config: TopicConfig, wall_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        self.check_room_for_topics(std::slice::from_ref(&config))?;
        let name = config.topic_name.clone();
        self.topics.put(config, wall_ms);
        effects.push(Effect::TopicsChanged);
        self.register_topics(vec![name], effects);
        Ok(())
    }

    /// Whether these topics fit, new or changed. A change that takes no more than before always does.
    pub(crate) fn check_room_for_topics(&self, topics: &[TopicConfig]) -> Result<(), Refusal> {
        let created = topics.iter().filter(|topic| !self.topics.contains(&topic.topic_name)).count();
        if created > 0 && self.topics.len() + created > self.config.max_topics {
            return Err(Refusal::new(response::SYSTEM_ERROR, limits::too_many_topics(self.config.max_topics)));
        }
        let before: u64 = topics.iter().filter_map(|topic| self.topics.get(&topic.topic_name)).map(queue_count).sum();
        let after: u64 = topics.iter().map(queue_count).sum();
        if after > before && self.topics.queues() - before + after > self.config.max_queues {
            return Err(Refusal::new(response::SYSTEM_ERROR, limits::too_many_queues(self.config.max_queues)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::control;
    use super::*;

    /// Goal: a first start has RocketMQ's system topics. Method: names, queues and permissions of a default broker.
    #[test]
    fn system_topics_of_the_first_start() {
        let control = control();
        let expected = [
            ("BenchmarkTest", 1024, 6),
            ("DefaultCluster", 16, 7),
            ("DefaultCluster_REPLY_TOPIC", 1, 6),
            ("OFFSET_MOVED_EVENT", 1, 6),
            ("RMQ_SYS_TRANS_HALF_TOPIC", 1, 6),
            ("RMQ_SYS_TRANS_OP_HALF_TOPIC", 1, 6),
            ("SCHEDULE_TOPIC_XXXX", 18, 6),
            ("SELF_TEST_TOPIC", 1, 6),
            ("TBW102", 8, 7),
            ("broker-a", 1, 7),
            ("rmq_sys_REVIVE_LOG_DefaultCluster", 8, 6),
            ("rmq_sys_SYNC_BROKER_MEMBER_broker-a", 1, 1),
            ("rmq_sys_wheel_timer", 1, 6),
        ];
        let found: Vec<(&str, i32, i32)> = control
            .topics
            .sorted()
            .into_iter()
            .map(|(name, config)| {
                assert_eq!(config.read_queue_nums, config.write_queue_nums);
                (name, config.read_queue_nums, config.perm)
            })
            .collect();
        assert_eq!(found, expected);
        assert!(control.topics.is_system("broker-a") && !control.topics.is_system("T"));
    }

    /// Goal: a send creates topics by the template rules. Method: each rule once, checking queues, permission, flag, error.
    #[test]
    fn creation_on_send() {
        let mut control = control();
        let mut effects = Vec::new();
        control.create_topic_for_send("T", "TBW102", 4, false, 5, &mut effects).unwrap();
        let created = control.topics.get("T").unwrap();
        assert_eq!((created.read_queue_nums, created.write_queue_nums, created.perm), (4, 4, 6));
        assert_eq!(control.topics.version().counter, 1);
        assert_eq!(effects[0], Effect::TopicsChanged);
        control.create_topic_for_send("U", "TBW102", 100, true, 6, &mut effects).unwrap();
        let created = control.topics.get("U").unwrap();
        assert_eq!((created.write_queue_nums, created.topic_sys_flag), (8, TOPIC_FLAG_UNIT));
        control.create_topic_for_send("N", "TBW102", -3, false, 6, &mut effects).unwrap();
        assert_eq!(control.topics.get("N").unwrap().read_queue_nums, 0);
        control.create_topic_for_send("%RETRY%g", "nothing", 4, true, 6, &mut effects).unwrap();
        let created = control.topics.get("%RETRY%g").unwrap();
        assert_eq!((created.read_queue_nums, created.perm, created.topic_sys_flag), (1, 6, TOPIC_FLAG_UNIT_SUB));
        let error = control.create_topic_for_send("X", "T", 4, false, 7, &mut effects).unwrap_err();
        assert_eq!(error, Refusal::new(17, "topic[X] not exist, apply first please!"));
        assert_eq!(control.create_topic_for_send("a b", "TBW102", 4, false, 7, &mut effects).unwrap_err().code, 29);
        control.config.auto_create_topic = false;
        assert_eq!(control.create_topic_for_send("X", "TBW102", 4, false, 7, &mut effects).unwrap_err().code, 17);
        control.create_topic_for_send("X", "DefaultCluster", 4, false, 7, &mut effects).unwrap();
        control.config.max_topics = control.topics.len();
        let error = control.create_topic_for_send("Y", "DefaultCluster", 4, false, 7, &mut effects).unwrap_err();
        assert_eq!(error, Refusal::new(1, limits::too_many_topics(control.config.max_topics)));
        control.config.max_topics = 1_000;
        control.config.max_queues = control.topics.queues() + 3;
        let error = control.create_topic_for_send("Y", "DefaultCluster", 4, false, 7, &mut effects).unwrap_err();
        assert_eq!(error, Refusal::new(1, limits::too_many_queues(control.config.max_queues)));
        control.create_topic_for_send("Y", "DefaultCluster", 3, false, 7, &mut effects).unwrap();
        assert_eq!(control.topics.queues(), control.config.max_queues);
    }

    /// Goal: changes are undone as if they had never been, with the count of queues, and come back whole. Method: one new and one changed
    /// topic, then back, and forth again.
    #[test]
    fn changes_are_undone_and_made_again() {
        let mut table = control().topics;
        table.put(topic("kept", 4, 6), 5);
        table.take_dirty();
        let (before, queues) = (table.remember(), table.queues());
        assert!(!table.differ_from(&before));
        table.put(topic("new", 3, 6), 6);
        table.put(topic("kept", 9, 6), 7);
        assert!(table.differ_from(&before));
        let after = table.exchange(before);
        assert!(!table.contains("new") && !table.take_dirty());
        assert_eq!((table.get("kept").unwrap().read_queue_nums, table.queues()), (4, queues));
        assert_eq!(table.version().counter, 1);
        table.exchange(after);
        assert!(table.contains("new") && table.take_dirty());
        assert_eq!((table.get("kept").unwrap().read_queue_nums, table.queues()), (9, queues + 8));
        assert_eq!(table.version().counter, 3);
    }

    /// Goal: a derived topic is made once, later calls only move its order mark. Method: three calls, versions compared.
    #[test]
    fn derived_topics() {
        let mut control = control();
        let mut effects = Vec::new();
        control.ensure_derived_topic("%RETRY%g", 2, false, true, 5, &mut effects).unwrap();
        control.ensure_derived_topic("%RETRY%g", 9, false, false, 6, &mut effects).unwrap();
        assert_eq!(control.topics.version().counter, 1);
        control.ensure_derived_topic("%RETRY%g", 9, true, false, 7, &mut effects).unwrap();
        let topic = control.topics.get("%RETRY%g").unwrap();
        assert_eq!((topic.read_queue_nums, topic.order, topic.topic_sys_flag), (2, true, TOPIC_FLAG_UNIT_SUB));
        assert_eq!(control.topics.version().counter, 2);
    }
}
