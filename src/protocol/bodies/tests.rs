use super::*;
use crate::json::{Value, to_standard};
use std::collections::BTreeMap;

/// Reads `text` as `T` and expects the same bytes back.
fn round_trip<T: JsonBody>(text: &str) -> T {
    let body = T::decode(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(body.encode()).unwrap(), text);
    body
}

/// Goal: each body is byte-equal to the Java class's. Method: texts printed by the Java classes are read and written.
#[test]
fn bodies_are_byte_equal() {
    let heartbeat: HeartbeatData = round_trip(
        r#"{"clientID":"127.0.0.1@1234#1","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET","consumeType":"CONSUME_PASSIVELY","groupName":"g1","messageModel":"CLUSTERING","subscriptionDataSet":[{"classFilterMode":false,"codeSet":[2598919,2598920],"expressionType":"TAG","subString":"TagA || TagB","subVersion":1700000000000,"tagsSet":["TagA","TagB"],"topic":"TopicTest"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":"pg1"}],"withoutSub":false}"#,
    );
    assert_eq!(heartbeat.consumer_data_set[0].message_model, Some(MessageModel::Clustering));
    let group: SubscriptionGroupConfig = round_trip(
        r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g1","groupRetryPolicy":{"type":"CUSTOMIZED"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"whichBrokerWhenConsumeSlowly":1}"#,
    );
    assert_eq!(group, SubscriptionGroupConfig::new("g1"));
    let group: SubscriptionGroupConfig = round_trip(
        r#"{"attributes":{},"brokerId":0,"consumeBroadcastEnable":true,"consumeEnable":true,"consumeFromMinEnable":true,"consumeMessageOrderly":false,"consumeTimeoutMinute":15,"groupName":"g","groupRetryPolicy":{"customizedRetryPolicy":{"next":[1000,5000,10000,30000,60000,120000,180000,240000,300000,360000,420000,480000,540000,600000,1200000,1800000,3600000,7200000]},"exponentialRetryPolicy":{"initial":5000,"max":7200000,"multiplier":2},"type":"EXPONENTIAL"},"groupSysFlag":0,"notifyConsumerIdsChangedEnable":true,"retryMaxTimes":16,"retryQueueNums":1,"subscriptionDataSet":[{"expression":"*","expressionType":"TAG","topic":"t","version":5}],"whichBrokerWhenConsumeSlowly":1}"#,
    );
    assert_eq!(group.group_retry_policy.customized_retry_policy, Some(CustomizedRetryPolicy::default()));
    assert_eq!(group.group_retry_policy.exponential_retry_policy, Some(ExponentialRetryPolicy::default()));
    round_trip::<RegisterBrokerBody>(REGISTER_JSON);
    round_trip::<ClusterInfo>(
        r#"{"brokerAddrTable":{"broker-a":{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}},"clusterAddrTable":{"DefaultCluster":["broker-a"]}}"#,
    );
    round_trip::<LockBatchRequestBody>(
        r#"{"clientId":"c1","consumerGroup":"g1","mqSet":[{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}],"onlyThisBroker":false}"#,
    );
    round_trip::<LockBatchResponseBody>(r#"{"lockOKMQSet":[{"brokerName":"b","queueId":0,"topic":"T"}]}"#);
    round_trip::<ConsumeStats>(
        r#"{"consumeTps":1.5,"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"brokerOffset":10,"consumerOffset":7,"lastTimestamp":3,"pullOffset":8}}}"#,
    );
    round_trip::<TopicStatsTable>(
        r#"{"offsetTable":{{"brokerName":"broker-a","queueId":0,"topic":"T"}:{"lastUpdateTimestamp":4,"maxOffset":9,"minOffset":1}},"topicPutTps":0.0}"#,
    );
    round_trip::<ConsumerConnection>(
        r#"{"connectionSet":[{"clientAddr":"1.2.3.4:5","clientId":"c","language":"GO","version":317}],"consumeType":"CONSUME_PASSIVELY","messageModel":"CLUSTERING","subscriptionTable":{"T":{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],"topic":"T"}}}"#,
    );
    round_trip::<ProducerConnection>(
        r#"{"connectionSet":[{"clientAddr":"1.2.3.4:5","clientId":"c","language":"GO","version":317}]}"#,
    );
    round_trip::<TopicList>(r#"{"topicList":[]}"#);
    round_trip::<TopicList>(r#"{"brokerAddr":"x:1","topicList":["a"]}"#);
    round_trip::<KvTable>(r#"{"table":{"k":"v"}}"#);
    round_trip::<CheckClientRequestBody>(
        r#"{"clientId":"c","group":"g","subscriptionData":{"classFilterMode":false,"codeSet":[],"expressionType":"TAG","subString":"*","subVersion":1,"tagsSet":[],"topic":"T"}}"#,
    );
    round_trip::<GetConsumerListByGroupResponseBody>(r#"{"consumerIdList":["c1"]}"#);
    round_trip::<GetBrokerMemberGroupResponseBody>(
        r#"{"brokerMemberGroup":{"brokerAddrs":{0:"x:1"},"brokerName":"b","cluster":"c"}}"#,
    );
    round_trip::<ConsumerOffsetWrapper>(
        r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"offsetTable":{"Topic@group":{0:10,1:20}}}"#,
    );
    round_trip::<SubscriptionGroupWrapper>(
        r#"{"dataVersion":{"counter":0,"stateVersion":0,"timestamp":0},"forbiddenTable":{"g":{"T":4}},"subscriptionGroupTable":{}}"#,
    );
}

/// Goal: both forms of a route are byte-equal. Method: the legacy vector is read and written in both forms.
#[test]
fn routes_have_two_forms() {
    let legacy = r#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1:"127.0.0.1:10921"},"brokerName":"broker-a","cluster":"DefaultCluster","enableActingMaster":false}],"filterServerTable":{},"queueDatas":[{"brokerName":"broker-a","perm":6,"readQueueNums":4,"topicSysFlag":0,"writeQueueNums":4}]}"#;
    let route: TopicRouteData = round_trip(legacy);
    let standard = legacy.replace("{0:", r#"{"0":"#).replace(",1:", r#","1":"#);
    assert_eq!(String::from_utf8(route.encode_standard()).unwrap(), standard);
    assert_eq!(TopicRouteData::decode(standard.as_bytes()).unwrap(), route);
    let accented: TopicRouteData = round_trip(
        r#"{"brokerDatas":[{"brokerAddrs":{0:"x:1"},"brokerName":"bä","cluster":"c","enableActingMaster":true,"zoneName":"zé"}],"filterServerTable":{},"queueDatas":[]}"#,
    );
    assert_eq!(
        String::from_utf8(to_standard(&accented)).unwrap(),
        r#"{"brokerDatas":[{"brokerAddrs":{"0":"x:1"},"brokerName":"b\u00E4","cluster":"c","enableActingMaster":true,"zoneName":"z\u00E9"}],"filterServerTable":{},"queueDatas":[]}"#
    );
}

const REGISTER_JSON: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1700000000000},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"TopicTest":{"attributes":{},"order":false,"perm":6,"readQueueNums":4,"topicFilterType":"SINGLE_TAG","topicName":"TopicTest","topicSysFlag":0,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;

const REGISTER_ZLIB: &str = "78da636060b0a8564ace2fcd2b492d52b232d6512a2e492c490d4b2d2acecccf53b232d0512ac9cc4d050ae6162859199a1b20402d0303032310cb86e41764268700d5289800a19942b0a79fbb8f6b7c88a3bb4235481153742c90640000532f1b63";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Goal: the compressed registration carries what the JSON one does. Method: Java's stream is decoded and compared with
/// the JSON vector (mapping version apart, which it does not carry); ours is written, read, and inflates to Java's bytes.
#[test]
fn compressed_registration_matches() {
    let json = RegisterBrokerBody::decode(REGISTER_JSON.as_bytes()).unwrap();
    let java = unhex(REGISTER_ZLIB);
    let mut decoded = RegisterBrokerBody::decode_compressed(&java, 479).unwrap();
    decoded.topic_config_serialize_wrapper.mapping_data_version =
        json.topic_config_serialize_wrapper.mapping_data_version.clone();
    assert_eq!(decoded, json);
    let inflate = |bytes: &[u8]| {
        let mut plain = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::ZlibDecoder::new(bytes), &mut plain).unwrap();
        plain
    };
    assert_eq!(inflate(&json.encode_compressed()), inflate(&java));
    assert!(RegisterBrokerBody::decode_compressed(&java, 401).is_ok());
}

/// Goal: topics of old and new writers are read, malformed ones refused, bombs stopped. Method: streams made here.
#[test]
fn compressed_registration_is_bounded() {
    use std::io::Write;
    let deflate = |plain: &[u8]| {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    };
    let stream = |topic: &str| {
        let mut plain = b"\0\0\0\x02{}\0\0\0\x01".to_vec();
        plain.extend_from_slice(&u32::try_from(topic.len()).unwrap().to_be_bytes());
        plain.extend_from_slice(topic.as_bytes());
        plain.extend_from_slice(b"\0\0\0\x02[]\0\0\0\0");
        RegisterBrokerBody::decode_compressed(&deflate(&plain), 479)
    };
    let topic = |text: &str| stream(text).unwrap().topic_config_serialize_wrapper.topic_config_table["T"].clone();
    assert_eq!(topic("T 3 4 6 MULTI_TAG").topic_filter_type, TopicFilterType::MultiTag);
    let attributes = BTreeMap::from([("message.type".to_owned(), "a b".to_owned())]);
    assert_eq!(topic(r#"T 3 4 6 SINGLE_TAG {"message.type":"a b"}"#).attributes, attributes);
    assert!(matches!(stream("T 3 4"), Err(RegisterBodyError::Topic { .. })));
    assert!(matches!(stream("T x 4 6 SINGLE_TAG"), Err(RegisterBodyError::Topic { .. })));
    let read = |plain: &[u8]| RegisterBrokerBody::decode_compressed(&deflate(plain), 479);
    assert!(matches!(read(b"\0\0\0\x02{}\x7f\xff\xff\xff"), Err(RegisterBodyError::Count { .. })));
    assert!(matches!(read(b"\0\0\0\x02{}\xff\xff\xff\xff"), Err(RegisterBodyError::Count { .. })));
    assert!(matches!(read(b"\x7f\xff\xff\xff{}"), Err(RegisterBodyError::Truncated { .. })));
    assert!(matches!(read(b""), Err(RegisterBodyError::Truncated { .. })));
    let bomb = vec![0; limits::MAX_INFLATED_REGISTER_BODY_LENGTH + 1];
    assert_eq!(read(&bomb), Err(RegisterBodyError::TooLong));
    assert!(matches!(RegisterBrokerBody::decode_compressed(b"{}", 479), Err(RegisterBodyError::Inflate(_))));
    fuzz_register_body(b"\0\0\0\x02{}\0\0\0\0\0\0\0\x02[]\0\0\0\0");
    fuzz_register_body(&unhex(REGISTER_ZLIB));
}

/// Goal: what C++ clients send is understood. Method: enums as numbers, versions as strings, sets left out.
#[test]
fn reads_a_cpp_heartbeat() {
    let text = "{\"clientID\":\"c\",\"consumerDataSet\":[{\"consumeFromWhere\":0,\"consumeType\":1,\"groupName\":\"g\",\"messageModel\":\"1\",\
                \"subscriptionDataSet\":[{\"subString\":\"*\",\"subVersion\":\"1700\",\"topic\":\"T\"}]}]}\n";
    let heartbeat = HeartbeatData::decode(text.as_bytes()).unwrap();
    let consumer = &heartbeat.consumer_data_set[0];
    assert_eq!(consumer.consume_from_where, Some(ConsumeFromWhere::LastOffset));
    assert_eq!(consumer.consume_type, Some(ConsumeType::Passively));
    assert_eq!(consumer.message_model, Some(MessageModel::Clustering));
    assert_eq!(consumer.subscription_data_set[0].sub_version, 1700);
    assert_eq!(consumer.subscription_data_set[0].expression_type, "TAG");
    let unknown = ConsumerData::decode(br#"{"consumeType":"CONSUME_MAGICALLY","messageModel":9}"#).unwrap();
    assert_eq!((unknown.consume_type, unknown.message_model), (None, None));
}

/// Goal: members of a newer version survive. Method: a topic and a group with a foreign member are read and written.
#[test]
fn keeps_unknown_members() {
    let text = r#"{"attributes":{},"order":false,"perm":6,"readQueueNums":1,"tiered":{"days":3},"topicFilterType":"SINGLE_TAG","topicName":"T","topicSysFlag":0,"writeQueueNums":1}"#;
    let topic: TopicConfig = round_trip(text);
    assert_eq!(topic.unknown["tiered"], Value::from(serde_json::Map::from_iter([("days".to_owned(), Value::from(3))])));
    let group = SubscriptionGroupConfig::decode(br#"{"groupName":"g","future":true}"#).unwrap();
    assert_eq!(group.unknown["future"], Value::Bool(true));
    assert!(String::from_utf8(group.encode()).unwrap().contains(r#""future":true,"groupName":"g""#));
}

/// Goal: the Java broker's offset file is read although its keys are not JSON. Method: its text, and the quoted form.
#[test]
fn reads_offset_files() {
    let text = "{\n\t\"dataVersion\":{\n\t\t\"counter\":5\n\t},\n\t\"groupTopicMap\":{\"g\":[\"T\"]},\n\t\"offsetTable\":{\n\t\t\"T@g\":{0:5,1:7\n\t\t}\n\t}\n}";
    let offsets = ConsumerOffsetWrapper::decode(text.as_bytes()).unwrap();
    assert_eq!(offsets.offset_table["T@g"], BTreeMap::from([(0, 5), (1, 7)]));
    let quoted = text.replace("{0:5,1:7", r#"{"0":5,"1":"7""#);
    assert_eq!(ConsumerOffsetWrapper::decode(quoted.as_bytes()).unwrap(), offsets);
}
