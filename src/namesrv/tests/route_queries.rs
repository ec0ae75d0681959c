use super::*;
use crate::namesrv::config::NamesrvConfig;

fn two_groups(config: NamesrvConfig) -> Fixture {
    let mut fixture = Fixture::with(config);
    let zone = |zone: &str| vec![("__ZONE_NAME", zone.to_owned())];
    fixture.register(&Broker { ext: zone("Z1"), ..Broker::master() });
    fixture.register(&Broker { ext: zone("Z1"), ..Broker::slave() });
    fixture.register(&Broker { name: "broker-b", address: "127.0.0.1:20911", connection: 3, ..Broker::master() });
    let slave = Broker { name: "broker-c", address: "127.0.0.1:30921", connection: 4, ..Broker::slave() };
    fixture.register(&Broker { ext: zone("Z3"), ..slave.acting() });
    fixture
}

/// Goal: old clients get fastjson's form, later ones standard JSON, byte for byte. Method: the vectors of one group.
#[test]
fn answers_have_the_form_of_the_client() {
    let mut fixture = Fixture::new();
    fixture.register(&Broker::master());
    fixture.register(&Broker::slave());
    let legacy = r#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    let standard = legacy.replace("{0:", r#"{"0":"#).replace(",1:", r#","1":"#);
    let query =
        |version| Command { version, ..Command::request(codes::GET_ROUTEINFO_BY_TOPIC) }.with_ext("topic", "TopicTest");
    assert_eq!(text(&fixture.send(5, query(400))), legacy);
    assert_eq!(text(&fixture.send(5, query(401))), standard);
    assert_eq!(text(&fixture.send(5, query(0).with_ext("acceptStandardJsonOnly", true))), standard);
    let answer = fixture.ask(codes::GET_ROUTEINFO_BY_TOPIC, &[("topic", "Nothing")]);
    let remark = "No topic route info in name server for the topic: Nothing";
    assert_eq!((answer.code, answer.remark.as_deref(), answer.body), (17, Some(remark), None));
    assert_eq!(fixture.ask(codes::GET_ROUTEINFO_BY_TOPIC, &[]).code, 1);
}

/// Goal: a client of a zone sees its zone, and groups without a master. Method: the same query with and without zones.
#[test]
fn zones_filter_groups() {
    let mut fixture = two_groups(NamesrvConfig::default());
    let names = |fixture: &mut Fixture, mode: &str, zone: &str| {
        let ext = [("topic", "TopicTest"), ("__ZONE_MODE", mode), ("__ZONE_NAME", zone)];
        let answer = fixture.ask(codes::GET_ROUTEINFO_BY_TOPIC, &ext);
        let route = TopicRouteData::decode(&answer.body.unwrap()).unwrap();
        let brokers: Vec<String> = route.broker_datas.into_iter().map(|data| data.broker_name).collect();
        let queues: Vec<String> = route.queue_datas.into_iter().map(|data| data.broker_name).collect();
        assert_eq!(brokers, queues);
        brokers
    };
    assert_eq!(names(&mut fixture, "true", "z1"), ["broker-a", "broker-c"]);
    assert_eq!(names(&mut fixture, "true", "z9"), ["broker-c"]);
    assert_eq!(names(&mut fixture, "false", "z1"), ["broker-a", "broker-b", "broker-c"]);
    assert_eq!(names(&mut fixture, "true", " "), ["broker-a", "broker-b", "broker-c"]);
}

/// Goal: routes are refused after the start only if asked for. Method: queries before and after 45 s.
#[test]
fn waits_for_brokers_after_the_start() {
    let mut fixture = Fixture::with(NamesrvConfig { need_wait_for_service: true, ..NamesrvConfig::default() });
    fixture.register(&Broker::master());
    let query = [("topic", "TopicTest")];
    fixture.now_ms += 44_999;
    let answer = fixture.ask(codes::GET_ROUTEINFO_BY_TOPIC, &query);
    assert_eq!((answer.code, answer.remark.as_deref()), (1, Some("name server not ready")));
    fixture.now_ms += 1;
    assert_eq!(fixture.ask(codes::GET_ROUTEINFO_BY_TOPIC, &query).code, 0);
}

/// Goal: the order configuration reaches clients and brokers. Method: a KV entry, a query and a registration, with the
/// settings on and off.
#[test]
fn order_configuration_is_passed_on() {
    for enabled in [false, true] {
        let mut fixture = Fixture::with(NamesrvConfig {
            order_message_enable: enabled,
            return_order_topic_config_to_broker: enabled,
            ..NamesrvConfig::default()
        });
        let entry = [("namespace", "ORDER_TOPIC_CONFIG"), ("key", "TopicTest"), ("value", "broker-a:4")];
        fixture.ask(codes::PUT_KV_CONFIG, &entry);
        let answer = fixture.register(&Broker::master());
        assert_eq!(text(&answer), if enabled { r#"{"table":{"TopicTest":"broker-a:4"}}"# } else { "" });
        let conf = fixture.route("TopicTest").unwrap().order_topic_conf;
        assert_eq!(conf.as_deref(), enabled.then_some("broker-a:4"));
    }
}

/// Goal: static-topic mappings reach clients and leave with their group. Method: a registration with one mapping.
#[test]
fn mappings_are_passed_on() {
    let mut fixture = Fixture::new();
    let mut body = Broker::master().body();
    let mapping: ringmq_protocol::json::Value =
        serde_json::json!({"bname": "broker-a", "topic": "TopicTest", "epoch": 1});
    body.topic_config_serialize_wrapper.topic_queue_mapping_info_map.insert("TopicTest".to_owned(), mapping.clone());
    fixture.send(1, Broker::master().request().with_body(body.encode()));
    let route = fixture.route("TopicTest").unwrap();
    assert_eq!(route.topic_queue_mapping_by_broker.unwrap()["broker-a"], mapping);
    fixture.close(1);
    fixture.register(&Broker::master());
    assert_eq!(fixture.route("TopicTest").unwrap().topic_queue_mapping_by_broker, None);
}
