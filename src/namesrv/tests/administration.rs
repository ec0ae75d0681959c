use super::*;
use crate::namesrv::config::NamesrvConfig;
use crate::namesrv::kv::{KvConfig, KvError};
use crate::namesrv::limits::{MAX_KV_ENTRIES, MAX_KV_TEXT_LENGTH};
use ringmq_protocol::bodies::QueueData;

/// Goal: KV entries are stored, listed, removed and persisted in Java's form. Method: each request in turn, and a second
/// name server that loads the file.
#[test]
fn kv_configuration() {
    let mut fixture = Fixture::new();
    let entry = [("namespace", "N"), ("key", "k"), ("value", "v;ä")];
    assert_eq!(fixture.ask(codes::GET_KV_CONFIG, &entry).code, 22);
    assert_eq!(fixture.ask(codes::GET_KVLIST_BY_NAMESPACE, &entry).code, 22);
    assert_eq!(fixture.ask(codes::PUT_KV_CONFIG, &entry).code, 0);
    let file = br#"{"configTable":{"N":{"k":"v;"#.iter().chain("ä\"}}}".as_bytes()).copied().collect::<Vec<u8>>();
    assert_eq!(fixture.effects, [Effect::PersistKvConfig(file.clone())]);
    assert_eq!(fixture.ask(codes::GET_KV_CONFIG, &entry).ext("value"), Some("v;ä"));
    assert_eq!(text(&fixture.ask(codes::GET_KVLIST_BY_NAMESPACE, &entry)), r#"{"table":{"k":"v;ä"}}"#);
    let mut restarted = Fixture::new();
    restarted.server.load_kv_config(&file).unwrap();
    assert_eq!(restarted.ask(codes::GET_KV_CONFIG, &entry).ext("value"), Some("v;ä"));
    assert!(restarted.server.load_kv_config(b"{").is_err());
    assert_eq!(fixture.ask(codes::DELETE_KV_CONFIG, &entry).code, 0);
    assert_eq!(fixture.effects.last(), Some(&Effect::PersistKvConfig(br#"{"configTable":{"N":{}}}"#.to_vec())));
    assert_eq!(fixture.ask(codes::GET_KV_CONFIG, &entry).code, 22);
    for missing in [&entry[1..], &entry[..1], &entry[..2]] {
        assert_eq!(fixture.ask(codes::PUT_KV_CONFIG, missing).code, 1);
    }
    let long = "x".repeat(MAX_KV_TEXT_LENGTH + 1);
    assert_eq!(fixture.ask(codes::PUT_KV_CONFIG, &[("namespace", "N"), ("key", "k"), ("value", &long)]).code, 1);
}

/// Goal: 205 clears the write bit, 327 sets 6, and both count topics. Method: topics of different permissions.
#[test]
fn write_permission_of_a_broker() {
    let mut fixture = Fixture::new();
    let mut broker = Broker::master();
    broker.topics[1].perm = 7;
    fixture.register(&broker);
    let name = [("brokerName", "broker-a")];
    assert_eq!(fixture.ask(codes::WIPE_WRITE_PERM_OF_BROKER, &name).ext("wipeTopicCount"), Some("2"));
    assert_eq!((fixture.queues("TopicTest").0, fixture.queues("TBW102").0), (4, 5));
    fixture.register(&broker);
    assert_eq!(fixture.queues("TBW102").0, 5, "an unchanged registration does not undo it");
    assert_eq!(fixture.ask(codes::ADD_WRITE_PERM_OF_BROKER, &name).ext("addTopicCount"), Some("2"));
    assert_eq!((fixture.queues("TopicTest").0, fixture.queues("TBW102").0), (6, 6));
    fixture.register(&broker.counter(2));
    assert_eq!(fixture.queues("TBW102").0, 7, "a changed one does");
    let nobody = [("brokerName", "nobody")];
    assert_eq!(fixture.ask(codes::WIPE_WRITE_PERM_OF_BROKER, &nobody).ext("wipeTopicCount"), Some("0"));
    assert_eq!(fixture.ask(codes::WIPE_WRITE_PERM_OF_BROKER, &[]).code, 1);
}

/// Goal: each topic list names what it should. Method: two clusters, unit flags, and the switches that disable lists.
#[test]
fn topic_lists() {
    let mut fixture = Fixture::new();
    let mut broker = Broker::master();
    broker.topics = [("Unit", 1), ("Sub", 2), ("Both", 3), ("Plain", 0)]
        .map(|(name, flag)| TopicConfig { topic_sys_flag: flag, ..topic(name, 1) })
        .to_vec();
    fixture.register(&broker);
    let other = Broker { name: "broker-x", address: "127.0.0.1:40911", connection: 8, ..Broker::master() };
    fixture.send(8, other.request().with_ext("clusterName", "Other"));
    let list = |fixture: &mut Fixture, code| text(&fixture.ask(code, &[("cluster", "Other")])).to_owned();
    let topics = |names: &str| format!(r#"{{"topicList":[{names}]}}"#);
    let all = r#""Both","Plain","Sub","TBW102","TopicTest","Unit""#;
    assert_eq!(list(&mut fixture, codes::GET_ALL_TOPIC_LIST_FROM_NAMESERVER), topics(all));
    assert_eq!(list(&mut fixture, codes::GET_TOPICS_BY_CLUSTER), topics(r#""TBW102","TopicTest""#));
    assert_eq!(list(&mut fixture, codes::GET_UNIT_TOPIC_LIST), topics(r#""Both","Unit""#));
    assert_eq!(list(&mut fixture, codes::GET_HAS_UNIT_SUB_TOPIC_LIST), topics(r#""Both","Sub""#));
    assert_eq!(list(&mut fixture, codes::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST), topics(r#""Sub""#));
    assert_eq!(
        list(&mut fixture, codes::GET_SYSTEM_TOPIC_LIST_FROM_NS),
        r#"{"brokerAddr":"127.0.0.1:10911","topicList":["DefaultCluster","Other","broker-a","broker-x"]}"#
    );
    let disabled = NamesrvConfig { enable_all_topic_list: false, enable_topic_list: false, ..NamesrvConfig::default() };
    let mut fixture = Fixture::with(disabled);
    for code in [206, 224, 304, 311, 312, 313] {
        let answer = fixture.ask(code, &[("cluster", "Other")]);
        assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("disable")));
    }
}

/// Goal: 216 removes a topic everywhere or from one cluster. Method: one topic in two clusters.
#[test]
fn topic_deletion() {
    let mut fixture = Fixture::new();
    let other = Broker { name: "broker-x", address: "127.0.0.1:40911", connection: 8, ..Broker::master() };
    fixture.register(&Broker::master());
    fixture.send(8, other.request().with_ext("clusterName", "Other"));
    fixture.ask(codes::DELETE_TOPIC_IN_NAMESRV, &[("topic", "TopicTest"), ("clusterName", "Nowhere")]);
    assert_eq!(fixture.route("TopicTest").unwrap().queue_datas.len(), 2);
    fixture.ask(codes::DELETE_TOPIC_IN_NAMESRV, &[("topic", "TopicTest"), ("clusterName", "Other")]);
    assert_eq!(fixture.route("TopicTest").unwrap().queue_datas[0].broker_name, "broker-a");
    fixture.ask(codes::DELETE_TOPIC_IN_NAMESRV, &[("topic", "TopicTest")]);
    assert_eq!(fixture.route("TopicTest"), None);
    assert!(fixture.route("TBW102").is_some());
    assert_eq!(fixture.ask(codes::DELETE_TOPIC_IN_NAMESRV, &[]).code, 1);
}

/// Goal: 217 adds queues of known groups only. Method: known, then unknown groups, for new and for known topics.
#[test]
fn topic_registration() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    fixture.register(&Broker { name: "broker-b", address: "127.0.0.1:20911", connection: 3, ..Broker::master() });
    let queues =
        |name: &str| QueueData { broker_name: name.to_owned(), perm: 6, read_queue_nums: 2, ..QueueData::default() };
    let request = |topic: &str, names: &[&str]| {
        let route =
            TopicRouteData { queue_datas: names.iter().map(|name| queues(name)).collect(), ..Default::default() };
        Command::request(codes::REGISTER_TOPIC_IN_NAMESRV).with_ext("topic", topic).with_body(route.encode())
    };
    assert_eq!(fixture.send(5, request("New", &["broker-a", "nobody"])).code, 0);
    assert_eq!(fixture.route("New"), None);
    assert_eq!(fixture.send(5, request("New", &["broker-a"])).code, 0);
    assert_eq!(fixture.queues("New"), (6, 2));
    fixture.send(5, request("New", &["nobody", "broker-b"]));
    assert_eq!(fixture.route("New").unwrap().queue_datas.len(), 1);
    fixture.send(5, request("New", &["broker-b", "nobody"]));
    assert_eq!(fixture.route("New").unwrap().queue_datas.len(), 2);
    fixture.send(5, request("Empty", &[]));
    assert_eq!(fixture.route("Empty"), None);
    assert_eq!(fixture.send(5, Command::request(codes::REGISTER_TOPIC_IN_NAMESRV).with_ext("topic", "T")).code, 1);
}

/// Goal: settings can be read and changed, except those that are protected. Method: 318 with good, unknown, protected
/// and malformed lines, and 319.
#[test]
fn settings() {
    let mut fixture = Fixture::new();
    let mut update = |text: &str| {
        let request = Command::request(codes::UPDATE_NAMESRV_CONFIG).with_body(text.as_bytes().to_vec());
        fixture.send(5, request).code
    };
    assert_eq!(update("# comment\n\norderMessageEnable = true\nunknownKey=1\nwaitSecondsForService=x\n"), 0);
    assert_eq!(update("enableTopicList=false\nkvConfigPath=/tmp/x\n"), 16);
    assert_eq!(update("configBlackList=\n"), 16);
    assert_eq!(update("rocketmqHome=/\n"), 16);
    assert_eq!(update("no equals sign\n"), 1);
    let expected = NamesrvConfig { order_message_enable: true, ..NamesrvConfig::default() };
    assert_eq!(*fixture.server.config(), expected);
    // Only what was changed is kept: the rest follows the configuration of the next start.
    assert_eq!(fixture.effects, [Effect::PersistConfig(b"orderMessageEnable=true\n".to_vec())]);
    fixture.server.keep_setting("waitSecondsForService", "7");
    fixture.server.keep_setting("unknownKey", "1");
    let request = Command::request(codes::UPDATE_NAMESRV_CONFIG).with_body(b"orderMessageEnable=false".to_vec());
    assert_eq!(fixture.send(5, request).code, 0);
    let kept = b"orderMessageEnable=false\nwaitSecondsForService=7\n".to_vec();
    assert_eq!(fixture.effects.last(), Some(&Effect::PersistConfig(kept)));
    let request = Command::request(codes::UPDATE_NAMESRV_CONFIG).with_body(b"orderMessageEnable=true".to_vec());
    let configured = [("listenPort", "9876"), ("orderMessageEnable", "false"), ("defaultThreadPoolNums", "16")];
    fixture.server.configure(configured.map(|(key, value)| (key.to_owned(), value.to_owned())));
    assert_eq!(fixture.send(5, request).code, 0);
    let answer = fixture.ask(codes::GET_NAMESRV_CONFIG, &[]);
    for line in ["orderMessageEnable=true", "listenPort=9876", "defaultThreadPoolNums=16", "waitSecondsForService=7"] {
        assert_eq!(text(&answer).lines().filter(|found| *found == line).count(), 1, "{line}");
    }
    assert!(text(&answer).lines().is_sorted());
}

/// Goal: foreign codes are left to others, and have Java's refusal. Method: a broker's code and an unknown one.
#[test]
fn foreign_codes() {
    let mut fixture = Fixture::new();
    for code in [codes::SEND_MESSAGE, codes::HEART_BEAT, 999_999, -1] {
        let request = Command { opaque: 5, ..Command::request(code) };
        assert_eq!(fixture.server.handle(&request, ConnectionId(1), 0, &mut fixture.effects), None);
        let answer = NameServer::not_supported(&request);
        let remark = format!(" request type {code} not supported");
        assert_eq!((answer.code, answer.opaque, answer.remark), (3, 5, Some(remark)));
    }
}

/// Goal: the KV configuration is bounded, and its keys can still be changed. Method: as many keys as fit, one more, and
/// the first again.
#[test]
fn kv_entries_are_bounded() {
    let mut kv = KvConfig::default();
    for number in 0..MAX_KV_ENTRIES {
        kv.put("N", &number.to_string(), "").unwrap();
    }
    assert_eq!(kv.put("N", "more", ""), Err(KvError::Full));
    assert_eq!(kv.put("N", "0", "changed"), Ok(()));
    assert_eq!(kv.get("N", "0"), Some("changed"));
}
