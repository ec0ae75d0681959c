//! Tests of the name server, by rule: requests go in, answers, effects and tables are compared.

mod administration;
mod differential;
mod random;
mod registration;
mod route_queries;

use super::config::NamesrvConfig;
use super::{ConnectionId, Effect, NameServer};
use ringmq_protocol::bodies::{
    DataVersion, JsonBody, RegisterBrokerBody, TopicConfig, TopicConfigAndMapping, TopicRouteData,
};
use ringmq_protocol::codes::request as codes;
use ringmq_protocol::command::Command;

const CLUSTER: &str = "DefaultCluster";

/// A name server with a clock and a list of effects.
struct Fixture {
    server: NameServer,
    now_ms: u64,
    effects: Vec<Effect>,
}

/// A registration to send: the master of broker-a with topic TopicTest, unless changed.
#[derive(Clone)]
struct Broker {
    name: &'static str,
    address: &'static str,
    id: i64,
    connection: u64,
    acting: Option<bool>,
    version: DataVersion,
    topics: Vec<TopicConfig>,
    ext: Vec<(&'static str, String)>,
}

impl Broker {
    fn master() -> Self {
        Broker {
            name: "broker-a",
            address: "127.0.0.1:10911",
            id: 0,
            connection: 1,
            acting: Some(false),
            version: DataVersion { counter: 1, state_version: 0, timestamp: 1 },
            topics: vec![topic("TopicTest", 4), topic("TBW102", 8)],
            ext: vec![],
        }
    }

    fn slave() -> Self {
        Broker { address: "127.0.0.1:10921", id: 1, connection: 2, ..Broker::master() }
    }

    fn acting(self) -> Self {
        Broker { acting: Some(true), ..self }
    }

    fn counter(mut self, counter: i64) -> Self {
        self.version.counter = counter;
        self
    }

    fn topics(self, topics: &[(&str, i32)]) -> Self {
        Broker { topics: topics.iter().map(|&(name, queues)| topic(name, queues)).collect(), ..self }
    }

    fn body(&self) -> RegisterBrokerBody {
        let topic_config_table = self.topics.iter().map(|topic| (topic.topic_name.clone(), topic.clone())).collect();
        let wrapper = TopicConfigAndMapping {
            data_version: self.version.clone(),
            topic_config_table,
            ..TopicConfigAndMapping::default()
        };
        RegisterBrokerBody { topic_config_serialize_wrapper: wrapper, ..RegisterBrokerBody::default() }
    }

    fn request(&self) -> Command {
        let mut request =
            self.bare_request(codes::REGISTER_BROKER).with_ext("haServerAddr", format!("ha-{}", self.address));
        if let Some(acting) = self.acting {
            request = request.with_ext("enableActingMaster", acting);
        }
        for (key, value) in &self.ext {
            request = request.with_ext(key, value);
        }
        request.with_body(self.body().encode())
    }

    fn bare_request(&self, code: i32) -> Command {
        Command::request(code)
            .with_ext("brokerName", self.name)
            .with_ext("brokerAddr", self.address)
            .with_ext("clusterName", CLUSTER)
            .with_ext("brokerId", self.id)
    }
}

fn topic(name: &str, queues: i32) -> TopicConfig {
    TopicConfig { read_queue_nums: queues, write_queue_nums: queues, ..TopicConfig::new(name) }
}

impl Fixture {
    fn new() -> Self {
        Self::with(NamesrvConfig::default())
    }

    fn with(config: NamesrvConfig) -> Self {
        Fixture { server: NameServer::new(config), now_ms: 1_000_000, effects: Vec::new() }
    }

    fn send(&mut self, connection: u64, mut request: Command) -> Command {
        request.opaque = 77;
        let answer = self.server.handle(&request, ConnectionId(connection), self.now_ms, &mut self.effects).unwrap();
        self.server.table.check_invariants();
        assert!(answer.is_response() && answer.opaque == 77 && answer.version == 479);
        assert_eq!(answer.serialize_type, request.serialize_type);
        answer
    }

    fn ask(&mut self, code: i32, ext: &[(&str, &str)]) -> Command {
        let request = ext.iter().fold(Command::request(code), |request, (key, value)| request.with_ext(key, value));
        self.send(99, request)
    }

    fn register(&mut self, broker: &Broker) -> Command {
        self.send(broker.connection, broker.request())
    }

    fn unregister(&mut self, broker: &Broker) -> Command {
        self.send(broker.connection, broker.bare_request(codes::UNREGISTER_BROKER))
    }

    fn close(&mut self, connection: u64) {
        self.server.connection_closed(ConnectionId(connection), self.now_ms, &mut self.effects);
        self.server.table.check_invariants();
    }

    fn advance(&mut self, milliseconds: u64) {
        self.now_ms += milliseconds;
        self.server.tick(self.now_ms, &mut self.effects);
        self.server.table.check_invariants();
    }

    fn route(&mut self, topic: &str) -> Option<TopicRouteData> {
        let answer = self.ask(codes::GET_ROUTEINFO_BY_TOPIC, &[("topic", topic)]);
        match answer.code {
            0 => Some(TopicRouteData::decode(&answer.body.unwrap()).unwrap()),
            17 => None,
            other => panic!("route query answered {other}"),
        }
    }

    /// Permission bits of a topic's first group, and its number of read queues.
    fn queues(&mut self, topic: &str) -> (i32, i32) {
        let queues = &self.route(topic).unwrap().queue_datas[0];
        (queues.perm, queues.read_queue_nums)
    }

    /// Ids and addresses of a topic's first group.
    fn addresses(&mut self, topic: &str) -> Vec<(i64, String)> {
        self.route(topic).unwrap().broker_datas.remove(0).broker_addrs.into_iter().collect()
    }
}

fn text(answer: &Command) -> &str {
    str::from_utf8(answer.body.as_deref().unwrap_or_default()).unwrap()
}
