use super::*;
use crate::namesrv::config::NamesrvConfig;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const NAMES: [&str; 3] = ["broker-a", "broker-b", "broker-c"];
const ADDRESSES: [&str; 4] = ["h:1", "h:2", "h:3", "h:4"];
const CLUSTERS: [&str; 2] = ["c1", "c2"];
const TOPICS: [&str; 4] = ["T0", "T1", "T2", "rmq_sys_SYNC_BROKER_MEMBER_x"];

/// One step; numbers choose from the small sets above, so that collisions are common.
#[derive(Debug, Clone)]
enum Step {
    Register {
        name: usize,
        address: usize,
        cluster: usize,
        id: i64,
        connection: u64,
        epoch: i64,
        topics: usize,
        acting: Option<bool>,
    },
    Unregister {
        name: usize,
        address: usize,
        cluster: usize,
        id: i64,
    },
    Close {
        connection: u64,
    },
    Advance {
        milliseconds: u64,
    },
    Other {
        code: i32,
        name: usize,
        topic: usize,
        cluster: usize,
        body: Vec<u8>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let acting = prop::sample::select(vec![None, Some(false), Some(true)]);
    prop_oneof![
        6 => (0..3usize, 0..4usize, 0..2usize, -1..3i64, 0..4u64, 0..3i64, 0..4usize, acting).prop_map(
            |(name, address, cluster, id, connection, epoch, topics, acting)| Step::Register {
                name, address, cluster, id, connection, epoch, topics, acting,
            }
        ),
        2 => (0..3usize, 0..4usize, 0..2usize, -1..3i64)
            .prop_map(|(name, address, cluster, id)| Step::Unregister { name, address, cluster, id }),
        1 => (0..4u64).prop_map(|connection| Step::Close { connection }),
        1 => (0..80_000u64).prop_map(|milliseconds| Step::Advance { milliseconds }),
        3 => (
            prop::sample::select(vec![
                100, 101, 102, 103, 104, 105, 106, 205, 206, 216, 217, 219, 224, 304, 311, 312, 313, 318, 319, 322, 327,
                901, 904,
            ]),
            0..3usize, 0..4usize, 0..2usize,
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                Just(br#"{"queueDatas":[{"brokerName":"broker-a","perm":6},{"brokerName":"broker-b"}]}"#.to_vec()),
                Just(br#"{"counter":1}"#.to_vec()),
                Just(b"supportActingMaster=true\n".to_vec()),
            ],
        )
            .prop_map(|(code, name, topic, cluster, body)| Step::Other { code, name, topic, cluster, body }),
    ]
}

/// What must hold, kept apart from the tables: over which connections an address ever registered, and under which names.
#[derive(Default)]
struct Model {
    next_connection: u64,
    connections: BTreeMap<u64, u64>,
    open: BTreeSet<u64>,
    registered_over: BTreeMap<&'static str, BTreeSet<u64>>,
    registered_as: BTreeSet<(&'static str, &'static str)>,
}

impl Model {
    /// Connections are numbered anew after each close.
    fn connection(&mut self, slot: u64) -> u64 {
        let next = &mut self.next_connection;
        let connection = *self.connections.entry(slot).or_insert_with(|| {
            *next += 1;
            *next
        });
        self.open.insert(connection);
        connection
    }

    fn check(&self, fixture: &Fixture) {
        for topic in TOPICS {
            let Some(route) = fixture.server.route(topic) else { continue };
            let brokers: Vec<&String> = route.broker_datas.iter().map(|data| &data.broker_name).collect();
            let queues: Vec<&String> = route.queue_datas.iter().map(|data| &data.broker_name).collect();
            assert_eq!(brokers, queues);
            for data in &route.broker_datas {
                for address in data.broker_addrs.values() {
                    let is_registered = |&(name, known): &(&str, &str)| name == data.broker_name && known == address;
                    assert!(self.registered_as.iter().any(is_registered), "{address} of {}", data.broker_name);
                    let connections = &self.registered_over[address.as_str()];
                    assert!(!connections.is_disjoint(&self.open), "{address} has no connection left");
                }
            }
        }
    }
}

fn run(steps: Vec<Step>, config: NamesrvConfig) {
    let mut fixture = Fixture::with(config);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Register { name, address, cluster, id, connection, epoch, topics, acting } => {
                let connection = model.connection(connection);
                let mut broker = Broker {
                    name: NAMES[name],
                    address: ADDRESSES[address],
                    id,
                    connection,
                    acting,
                    ..Broker::master()
                };
                broker.version.state_version = epoch;
                broker.topics = TOPICS[..topics].iter().map(|name| topic(name, 1)).collect();
                let request = broker.request().with_ext("clusterName", CLUSTERS[cluster]);
                if fixture.send(connection, request).code == 0 {
                    model.registered_over.entry(broker.address).or_default().insert(connection);
                    model.registered_as.insert((broker.name, broker.address));
                }
            }
            Step::Unregister { name, address, cluster, id } => {
                let broker = Broker { name: NAMES[name], address: ADDRESSES[address], id, ..Broker::master() };
                let request = broker.bare_request(codes::UNREGISTER_BROKER).with_ext("clusterName", CLUSTERS[cluster]);
                assert_eq!(fixture.send(9, request).code, 0);
                model.registered_as.remove(&(broker.name, broker.address));
            }
            Step::Close { connection } => {
                if let Some(connection) = model.connections.remove(&connection) {
                    model.open.remove(&connection);
                    fixture.close(connection);
                }
            }
            Step::Advance { milliseconds } => fixture.advance(milliseconds),
            Step::Other { code, name, topic, cluster, body } => {
                let request = Command::request(code)
                    .with_ext("topic", TOPICS[topic])
                    .with_ext("brokerName", NAMES[name])
                    .with_ext("cluster", CLUSTERS[cluster])
                    .with_ext("clusterName", CLUSTERS[cluster])
                    .with_ext("namespace", "N")
                    .with_ext("key", "k")
                    .with_body(body);
                fixture.send(9, request);
            }
        }
        model.check(&fixture);
    }
}

proptest! {
    /// Goal: no sequence of requests panics, and routes only name brokers that registered, have not unregistered, and
    /// still have a connection. Method: random steps over few names, against a model that only remembers registrations.
    #[test]
    fn routes_name_registered_brokers(steps in prop::collection::vec(step(), 1..60), acting in any::<bool>()) {
        let config = NamesrvConfig {
            support_acting_master: acting,
            delete_topic_with_broker_registration: acting,
            notify_min_broker_id_changed: true,
            ..NamesrvConfig::default()
        };
        run(steps, config);
    }
}
