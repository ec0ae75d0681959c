use super::*;
use crate::namesrv::config::NamesrvConfig;
use crate::namesrv::limits::MAX_BROKER_ADDRESSES;
use ringmq_protocol::command::SerializeType;

fn owned(addresses: &[(i64, &str)]) -> Vec<(i64, String)> {
    addresses.iter().map(|&(id, address)| (id, address.to_owned())).collect()
}

/// Goal: a group becomes visible, and a slave learns of its master. Method: a master and a slave register; the answers
/// and the cluster table are compared with Java's.
#[test]
fn master_and_slave_register() {
    let mut fixture = Fixture::new();
    let answer = fixture.register(&Broker::master());
    assert_eq!((answer.code, answer.ext_fields, answer.body), (0, None, None));
    let answer = fixture.register(&Broker::slave());
    assert_eq!(answer.ext("masterAddr"), Some("127.0.0.1:10911"));
    assert_eq!(answer.ext("haServerAddr"), Some("ha-127.0.0.1:10911"));
    let info = fixture.ask(codes::GET_BROKER_CLUSTER_INFO, &[]);
    assert_eq!(
        text(&info),
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#
    );
    let group = [("clusterName", CLUSTER), ("brokerName", "broker-a")];
    assert_eq!(
        text(&fixture.ask(codes::GET_BROKER_MEMBER_GROUP, &group)),
        r#"{"brokerMemberGroup":{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster"}}"#
    );
    let group = [("clusterName", CLUSTER), ("brokerName", "nobody")];
    assert_eq!(
        text(&fixture.ask(codes::GET_BROKER_MEMBER_GROUP, &group)),
        r#"{"brokerMemberGroup":{"brokerAddrs":{},"brokerName":"nobody","cluster":"DefaultCluster"}}"#
    );
}

/// Goal: all three body forms register the same topics. Method: JSON, compressed JSON, and the bare table of old brokers.
#[test]
fn body_forms_are_equivalent() {
    let broker = Broker::master();
    let plain = broker.request();
    let compressed =
        Command { body: Some(broker.body().encode_compressed()), ..plain.clone() }.with_ext("compressed", true);
    let wrapper = broker.body().topic_config_serialize_wrapper;
    let old = Command { body: Some(wrapper.encode()), version: 36, ..plain.clone() };
    let mut routes = Vec::new();
    for request in [plain.clone(), compressed, old, Command { serialize_type: SerializeType::RocketMq, ..plain }] {
        let mut fixture = Fixture::new();
        assert_eq!(fixture.send(1, request).code, 0);
        routes.push(fixture.route("TopicTest").unwrap());
    }
    assert!(routes.iter().all(|route| *route == routes[0]));
}

/// Goal: damaged registrations are refused with 1 and change nothing. Method: a wrong check sum, broken bodies, missing
/// fields, a name that is too long.
#[test]
fn malformed_registrations_are_refused() {
    let mut fixture = Fixture::new();
    let request = Broker::master().request();
    let crc = i64::from(crc32fast::hash(request.body.as_deref().unwrap()) & 0x7fff_ffff);
    let answer = fixture.send(1, request.clone().with_ext("bodyCrc32", crc ^ 1));
    assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("crc32 not match")));
    let refused = [
        request.clone().with_body(b"{".to_vec()),
        request.clone().with_body(b"[]".to_vec()),
        request.clone().with_ext("compressed", true),
        request.clone().with_ext("brokerId", "x"),
        request.clone().with_ext("clusterName", "c".repeat(2000)),
        Command::request(codes::REGISTER_BROKER),
    ];
    for request in refused {
        let answer = fixture.send(1, request);
        assert_eq!(answer.code, 1, "{:?}", answer.remark);
    }
    assert_eq!(
        text(&fixture.ask(codes::GET_BROKER_CLUSTER_INFO, &[])),
        r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#
    );
    assert_eq!(fixture.send(1, request.with_ext("bodyCrc32", crc)).code, 0);
}

/// Goal: a broker without topics is registered all the same. Method: a registration without a body.
#[test]
fn body_may_be_absent() {
    let mut fixture = Fixture::new();
    let request = Command { body: None, ..Broker::master().request() };
    assert_eq!(fixture.send(1, request).code, 0);
    assert!(text(&fixture.ask(codes::GET_BROKER_CLUSTER_INFO, &[])).contains("127.0.0.1:10911"));
}

/// Goal: one topic alone never opens a registration, but extends an open one. Method: the incremental registration
/// before and after the full one.
#[test]
fn single_topic_needs_a_full_registration_first() {
    let mut fixture = Fixture::new();
    let single = Broker::master().topics(&[("New", 2)]);
    let answer = fixture.register(&single);
    assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("register broker failed")));
    assert_eq!(fixture.route("New"), None);
    fixture.register(&Broker::master());
    assert_eq!(fixture.register(&single).code, 0);
    assert_eq!(fixture.queues("New"), (6, 2));
    assert_eq!(fixture.queues("TopicTest"), (6, 4));
    let slave = Broker::slave().topics(&[("New", 2)]);
    assert_eq!(fixture.register(&slave).code, 1);
    assert_eq!(fixture.addresses("New").len(), 1);
}

/// Goal: only a changed version changes routes, but a topic that the group lacks is always added. Method: the same
/// topics with other queue counts, under the old and under a new version.
#[test]
fn data_version_gates_changes() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    let changed = Broker::master().topics(&[("TopicTest", 9), ("Added", 3)]);
    fixture.register(&changed);
    assert_eq!(fixture.queues("TopicTest").1, 4);
    assert_eq!(fixture.queues("Added").1, 3);
    fixture.register(&changed.clone().counter(2));
    assert_eq!(fixture.queues("TopicTest").1, 9);
    fixture.register(
        &Broker { version: DataVersion { state_version: 1, ..changed.version.clone() }, ..changed }
            .topics(&[("TopicTest", 5), ("Added", 3)]),
    );
    assert_eq!(fixture.queues("TopicTest").1, 5);
}

/// Goal: topics that a registration leaves out go only if the setting says so. Method: the same registrations with the
/// setting off and on.
#[test]
fn missing_topics_are_deleted_on_request() {
    for delete in [false, true] {
        let config = NamesrvConfig { delete_topic_with_broker_registration: delete, ..NamesrvConfig::default() };
        let mut fixture = Fixture::with(config);
        fixture.register(&Broker::master());
        fixture.register(&Broker::master().counter(2).topics(&[("TBW102", 8), ("Other", 1)]));
        assert_eq!(fixture.route("TopicTest").is_none(), delete);
        assert!(fixture.route("TBW102").is_some() && fixture.route("Other").is_some());
    }
}

/// Goal: topics come from the master only. Method: a slave of an old-style group registers other topics.
#[test]
fn slaves_do_not_bring_topics() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    fixture.register(&Broker::slave().topics(&[("OfSlave", 1), ("Second", 1)]));
    assert_eq!(fixture.route("OfSlave"), None);
    let mut fixture = Fixture::new();
    fixture.register(&Broker { acting: None, ..Broker::slave() });
    assert_eq!(fixture.route("TopicTest"), None);
}

/// Goal: an address has one id. Method: a slave becomes master of its group (id 1 to 0), and the master a slave.
#[test]
fn role_switch_moves_the_address() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    fixture.register(&Broker::slave());
    fixture.close(1);
    fixture.register(&Broker { id: 0, ..Broker::slave() });
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10921")]));
    fixture.register(&Broker { id: 1, ..Broker::master() });
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10921"), (1, "127.0.0.1:10911")]));
}

/// Goal: a master of an earlier epoch cannot take the id back; a later one can. Method: two brokers with id 0 and
/// different state versions, in both orders.
#[test]
fn later_epoch_keeps_the_id() {
    let mut fixture = Fixture::new();
    let with_epoch = |broker: Broker, epoch| Broker {
        version: DataVersion { state_version: epoch, ..broker.version.clone() },
        ..broker
    };
    let new = with_epoch(Broker::master(), 5);
    let old = with_epoch(Broker { id: 0, ..Broker::slave() }, 4);
    fixture.register(&new);
    let answer = fixture.register(&old);
    assert_eq!((answer.code, answer.ext_fields), (0, None));
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10911")]));
    assert_eq!(fixture.server.table.live.len(), 1);
    fixture.register(&with_epoch(old, 6));
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10921")]));
    fixture.close(1);
    assert!(fixture.route("TopicTest").is_some());
}

/// Goal: unregistering ends an address, then the group and its topics. Method: 104 for the slave, then for the master.
#[test]
fn unregistration_removes_addresses_then_topics() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    fixture.register(&Broker::slave());
    assert_eq!(fixture.unregister(&Broker::slave()).code, 0);
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10911")]));
    assert_eq!(fixture.unregister(&Broker::master()).code, 0);
    assert_eq!(fixture.route("TopicTest"), None);
    assert_eq!(
        text(&fixture.ask(codes::GET_BROKER_CLUSTER_INFO, &[])),
        r#"{"brokerAddrTable":{},"clusterAddrTable":{}}"#
    );
    assert_eq!(fixture.unregister(&Broker::master()).code, 0);
    assert_eq!(fixture.send(1, Command::request(codes::UNREGISTER_BROKER)).code, 1);
}

/// Goal: losing the connection of the last registration ends a broker; an older connection does not. Method: a broker
/// that registers over two connections in turn.
#[test]
fn only_the_latest_connection_counts() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    fixture.register(&Broker { connection: 7, ..Broker::master() });
    fixture.close(1);
    assert!(fixture.route("TopicTest").is_some());
    fixture.close(7);
    assert!(fixture.route("TopicTest").is_none());
}

/// Goal: silence ends a broker after its own time-out, at a scan. Method: the default of 120 s, a time-out of 10 s, and
/// brokers kept alive by 904, 322 and a new registration.
#[test]
fn silent_brokers_expire() {
    let mut fixture = Fixture::new();
    fixture.advance(0);
    fixture.register(&Broker::master());
    let quick = Broker { name: "broker-b", address: "127.0.0.1:20911", connection: 3, ..Broker::master() };
    fixture.register(&Broker { ext: vec![("heartbeatTimeoutMillis", "10000".to_owned())], ..quick.clone() });
    fixture.advance(4_999);
    fixture.advance(1);
    fixture.advance(5_000);
    assert!(fixture.effects.is_empty());
    fixture.advance(5_000);
    assert_eq!(fixture.effects, [Effect::CloseConnection(ConnectionId(3))]);
    assert_eq!(fixture.route("TopicTest").unwrap().broker_datas.len(), 1);
    fixture.advance(100_000);
    assert_eq!(fixture.send(1, Broker::master().bare_request(codes::BROKER_HEARTBEAT)).code, 0);
    fixture.advance(120_000);
    let version = Broker::master().version.encode();
    fixture.send(1, Broker::master().bare_request(codes::QUERY_DATA_VERSION).with_body(version));
    fixture.advance(120_000);
    fixture.register(&Broker::master());
    fixture.advance(120_000);
    assert!(fixture.route("TopicTest").is_some());
    fixture.advance(5_000);
    assert!(fixture.route("TopicTest").is_none());
    assert_eq!(fixture.effects.len(), 2);
    fixture.advance(500_000);
    assert_eq!(fixture.effects.len(), 2);
}

/// Goal: 322 tells whether a registration is needed. Method: an unknown broker, the same version, another one, none.
#[test]
fn data_version_query() {
    let mut fixture = Fixture::new();
    let query =
        |version: &DataVersion| Broker::master().bare_request(codes::QUERY_DATA_VERSION).with_body(version.encode());
    let version = Broker::master().version;
    let answer = fixture.send(1, query(&version));
    assert_eq!((answer.code, answer.ext("changed"), answer.body.is_none()), (0, Some("true"), true));
    fixture.register(&Broker::master());
    let answer = fixture.send(1, query(&version));
    assert_eq!(answer.ext("changed"), Some("false"));
    assert_eq!(text(&answer), r#"{"counter":1,"stateVersion":0,"timestamp":1}"#);
    let answer = fixture.send(1, query(&DataVersion { timestamp: 2, ..version }));
    assert_eq!(answer.ext("changed"), Some("true"));
    let answer = fixture.send(1, Broker::master().bare_request(codes::QUERY_DATA_VERSION));
    assert_eq!((answer.code, answer.ext("changed")), (0, Some("true")));
}

/// Goal: a slave stands in for its master read-only. Method: the master of an acting-master group leaves, its slave
/// registers, the master returns.
#[test]
fn acting_master_is_read_only() {
    let config = NamesrvConfig { support_acting_master: true, ..NamesrvConfig::default() };
    let mut fixture = Fixture::with(config);
    let sync_topic = "rmq_sys_SYNC_BROKER_MEMBER_broker-a";
    let with_sync = |broker: Broker| broker.acting().topics(&[("TopicTest", 4), (sync_topic, 1)]);
    fixture.register(&with_sync(Broker::master()));
    fixture.register(&with_sync(Broker::slave()));
    assert_eq!(fixture.queues("TopicTest"), (6, 4));
    fixture.close(1);
    assert_eq!(fixture.queues("TopicTest"), (4, 4));
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10921")]));
    assert_eq!(fixture.addresses(sync_topic), owned(&[(1, "127.0.0.1:10921")]));
    fixture.register(&with_sync(Broker::slave()).counter(2).topics(&[("TopicTest", 5), ("Other", 5)]));
    assert_eq!(fixture.queues("TopicTest"), (4, 5));
    fixture.register(&with_sync(Broker::master()).counter(3));
    assert_eq!(fixture.queues("TopicTest"), (6, 4));
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(0, "127.0.0.1:10911"), (1, "127.0.0.1:10921")]));
}

/// Goal: groups that do not want a stand-in keep what they had. Method: the master of a plain group leaves.
#[test]
fn plain_groups_have_no_acting_master() {
    let mut fixture = Fixture::with(NamesrvConfig { support_acting_master: true, ..NamesrvConfig::default() });
    fixture.register(&Broker::master());
    fixture.register(&Broker::slave());
    fixture.unregister(&Broker::master());
    assert_eq!(fixture.queues("TopicTest"), (6, 4));
    assert_eq!(fixture.addresses("TopicTest"), owned(&[(1, "127.0.0.1:10921")]));
}

/// Goal: members hear of a new smallest id, once and only if asked for. Method: registrations and losses with the
/// setting on; the effects are compared.
#[test]
fn smallest_id_is_announced() {
    let mut fixture = Fixture::with(NamesrvConfig { notify_min_broker_id_changed: true, ..NamesrvConfig::default() });
    let second = Broker { id: 2, address: "127.0.0.1:10931", connection: 3, ..Broker::master() };
    fixture.register(&Broker::slave());
    fixture.register(&second);
    assert_eq!(fixture.effects, []);
    fixture.register(&Broker::master());
    let receivers = |effects: &mut Vec<Effect>| -> Vec<(u64, String)> {
        let sent = effects.drain(..).map(|effect| match effect {
            Effect::Send { connection, address, command } => {
                assert!(command.is_oneway() && command.code == 905);
                assert_eq!(command.ext("brokerName"), Some("broker-a"));
                let field = |key| command.ext(key).unwrap_or("-");
                let fields = ["minBrokerId", "minBrokerAddr", "offlineBrokerAddr", "haBrokerAddr"].map(field).join(" ");
                (connection.0, format!("{address} {fields}"))
            }
            other => panic!("unexpected {other:?}"),
        });
        sent.collect()
    };
    let expected = "0 127.0.0.1:10911 - ha-127.0.0.1:10911";
    assert_eq!(
        receivers(&mut fixture.effects),
        [(2, format!("127.0.0.1:10921 {expected}")), (3, format!("127.0.0.1:10931 {expected}"))]
    );
    fixture.close(1);
    let expected = "1 127.0.0.1:10921 127.0.0.1:10911 -";
    assert_eq!(
        receivers(&mut fixture.effects),
        [(2, format!("127.0.0.1:10921 {expected}")), (3, format!("127.0.0.1:10931 {expected}"))]
    );
    fixture.unregister(&second);
    assert_eq!(fixture.effects, []);
}

/// Goal: the table of brokers is bounded, and those in it stay served. Method: as many brokers as fit, one more, and one
/// of the first again.
#[test]
fn brokers_are_bounded() {
    let mut fixture = Fixture::new();
    let mut register = |number: usize| {
        let request = Broker::master().request().with_ext("brokerAddr", number).with_ext("brokerName", number);
        let connection = ConnectionId(u64::try_from(number).unwrap());
        fixture.server.handle(&request, connection, 0, &mut fixture.effects).unwrap().code
    };
    assert!((0..MAX_BROKER_ADDRESSES).all(|number| register(number) == 0));
    assert_eq!(register(MAX_BROKER_ADDRESSES), 1);
    assert_eq!(register(7), 0);
    fixture.server.table.check_invariants();
}
