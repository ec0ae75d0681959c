//! What this broker tells the name servers: registration (103) with all or with some topics, and leaving (104).
//! Source: BrokerController.registerBrokerAll, registerIncrementBrokerData, BrokerOuterAPI.
//!
//! Invariants: the first registration carries every topic, because a name server refuses a broker that it does not know
//! and that comes with exactly one topic. A topic is registered with what the broker's own permission leaves of its own.

use std::collections::BTreeMap;

use ringmq_protocol::bodies::{
    JsonBody, PERM_READ, PERM_WRITE, RegisterBrokerBody, TopicConfig, TopicConfigAndMapping,
};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;

use super::{Control, Effect};

impl Control {
    /// The registration to send to every name server: with these topics if they are given and a full one went before,
    /// else with all.
    pub fn registration(&mut self, topics: Option<&[String]>) -> Command {
        let some = topics.filter(|_| self.fully_registered);
        self.fully_registered |= some.is_none();
        let permission = self.config.broker_permission;
        let masked = permission & (PERM_READ | PERM_WRITE) != PERM_READ | PERM_WRITE;
        let registered = |config: &TopicConfig| {
            let perm = if masked { config.perm & permission } else { config.perm };
            // What only this broker's files know is nobody else's business.
            (config.topic_name.clone(), TopicConfig { perm, unknown: BTreeMap::new(), ..config.clone() })
        };
        let topic_config_table = match some {
            Some(names) => names.iter().filter_map(|name| self.topics.get(name)).map(registered).collect(),
            None => self.topics.sorted().into_values().map(registered).collect(),
        };
        let body = RegisterBrokerBody {
            filter_server_list: Vec::new(),
            topic_config_serialize_wrapper: TopicConfigAndMapping {
                data_version: self.topics.version().clone(),
                topic_config_table,
                ..TopicConfigAndMapping::default()
            },
        }
        .encode();
        let checksum = crc32fast::hash(&body) & 0x7FFF_FFFF;
        self.with_identity(Command::request(request::REGISTER_BROKER))
            .with_ext("haServerAddr", &self.identity.ha_address)
            .with_ext("enableActingMaster", false)
            .with_ext("compressed", false)
            .with_ext("bodyCrc32", checksum)
            .with_body(body)
    }

    /// The request that takes this broker out of the routes.
    pub fn unregistration(&self) -> Command {
        self.with_identity(Command::request(request::UNREGISTER_BROKER))
    }

    fn with_identity(&self, command: Command) -> Command {
        let identity = &self.identity;
        command
            .with_ext("brokerName", &identity.name)
            .with_ext("brokerAddr", &identity.address)
            .with_ext("clusterName", &identity.cluster)
            .with_ext("brokerId", identity.id)
    }

    /// Asks for the registration of topics that were made or changed.
    pub(crate) fn register_topics(&self, topics: Vec<String>, effects: &mut Vec<Effect>) {
        effects.push(Effect::RegisterTopics(topics));
    }
}
