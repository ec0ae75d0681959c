//! Random sequences of requests, closed connections and ticks: nothing panics, and the tables agree with each other.

use super::super::dispatch::HANDLERS;
use super::*;
use proptest::prelude::*;
use ringmq_protocol::bodies::TopicConfig;

const NAMES: [&str; 10] = ["g", "T", "", " ", "a b", "%RETRY%g", "TBW102", "broker-a", "CID_RMQ_SYS_x", "@"];
const NUMBERS: [&str; 9] =
    ["0", "1", "-1", "7", "2147483647", "-2147483648", "9223372036854775807", "-9223372036854775808", "x"];
const KEYS: [&str; 34] = [
    "topic",
    "group",
    "consumerGroup",
    "producerGroup",
    "groupName",
    "srcGroup",
    "destGroup",
    "queueId",
    "offset",
    "commitOffset",
    "timestamp",
    "maxNum",
    "beginTimestamp",
    "endTimestamp",
    "key",
    "topicList",
    "topicSeq",
    "maxTopicNum",
    "groupSeq",
    "maxGroupNum",
    "dataVersion",
    "cleanOffset",
    "isOrder",
    "readQueueNums",
    "writeQueueNums",
    "perm",
    "topicFilterType",
    "attributes",
    "statsName",
    "statsKey",
    "offline",
    "boundaryType",
    "order",
    "clientID",
];
const BODIES: [&str; 12] = [
    "",
    "{}",
    "[]",
    "{{",
    "null",
    r#"{"clientID":"c","consumerDataSet":[{"groupName":"g","consumeType":9,"subscriptionDataSet":[{"topic":"T","subString":"||","subVersion":-1}]}],"producerDataSet":[{"groupName":"p"},{}]}"#,
    r#"{"clientID":"d","consumerDataSet":[{"groupName":"g","messageModel":"CLUSTERING","subscriptionDataSet":[{"topic":"U","subVersion":5}]}],"heartbeatFingerprint":4,"withoutSub":false}"#,
    r#"{"clientID":"d","consumerDataSet":[{"groupName":"g"},{"groupName":"a b"}],"heartbeatFingerprint":5,"withoutSub":true}"#,
    r#"{"clientId":"c","consumerGroup":"g","mqSet":[{"brokerName":"b","queueId":0,"topic":"T"},{}]}"#,
    r#"{"topicConfigList":[{"topicName":"T","readQueueNums":3,"attributes":{"+message.type":"FIFO"}}]}"#,
    r#"{"groupName":"g","retryQueueNums":-5,"groupConfigList":[{"groupName":"h"}]}"#,
    "brokerPermission=0",
];

#[derive(Debug, Clone)]
enum Step {
    Request { code: i32, fields: Vec<(usize, String)>, body: usize, from: u16, oneway: bool },
    Close(u16),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let codes: Vec<i32> = HANDLERS.iter().map(|(code, _)| *code).chain([3, 999]).collect();
    let value = prop_oneof![
        4 => prop::sample::select(&NAMES[..]).prop_map(str::to_owned),
        4 => prop::sample::select(&NUMBERS[..]).prop_map(str::to_owned),
        1 => Just("true".to_owned()),
        1 => Just("SINGLE_TAG".to_owned()),
        1 => Just("+message.type=FIFO".to_owned()),
        1 => ".{0,6}",
    ];
    let fields = prop::collection::vec((0..KEYS.len(), value), 0..10);
    let request = (prop::sample::select(codes), fields, 0..BODIES.len(), 1..5u16, any::<bool>());
    prop_oneof![
        20 => request.prop_map(|(code, fields, body, from, oneway)| Step::Request { code, fields, body, from, oneway }),
        1 => (1..5u16).prop_map(Step::Close),
        1 => (0..200_000u64).prop_map(Step::Wait),
    ]
}

fn check(control: &mut Control) {
    let snapshot = control.snapshot();
    assert_eq!(snapshot.topics.len(), control.topics.len());
    assert_eq!(snapshot.groups.len(), control.groups.len());
    for (name, entry) in snapshot.groups.iter() {
        assert_eq!(entry.live, control.clients.live_group(name), "the snapshot of {name} is stale");
        assert_eq!(Some(&entry.config), control.groups.get(name));
    }
    for topic in control.topics.sorted().values() {
        assert!((0..=super::super::limits::MAX_QUEUES_PER_TOPIC).contains(&topic.read_queue_nums), "{topic:?}");
    }
    let queues = |topic: &TopicConfig| u64::try_from(topic.read_queue_nums.max(topic.write_queue_nums)).unwrap();
    assert_eq!(control.topics.queues(), control.topics.sorted().into_values().map(queues).sum::<u64>());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200 * ProptestConfig::default().cases.div_ceil(256)))]

    /// Goal: no input panics and snapshots never fall behind. Method: random steps over the same few names; after each,
    /// the snapshot is compared with the tables; at the end the state files are read back.
    #[test]
    fn random_requests(steps in prop::collection::vec(step(), 1..60)) {
        let mut control = control();
        let store = FakeStore { in_memory: true, ..FakeStore::default() }.with_queue("T", 0, 2, 9);
        let mut now_ms = 1_000;
        let mut effects = Vec::new();
        for step in steps {
            match step {
                Step::Request { code, fields, body, from, oneway } => {
                    let mut request = Command { flag: if oneway { 2 } else { 0 }, ..Command::request(code) };
                    for (key, value) in fields {
                        request = request.with_ext(KEYS[key], value);
                    }
                    let request = request.with_body(BODIES[body].as_bytes().to_vec());
                    match control.handle(&request, &peer(from), at(now_ms), &store, &mut effects) {
                        Answer::Now(answer) => prop_assert!(!oneway && answer.is_response()),
                        Answer::LookUp(look_up) => prop_assert!(!oneway && look_up(&store).is_response()),
                        Answer::Nothing => prop_assert!(oneway),
                    }
                }
                Step::Close(number) => control.connection_closed(peer(number).connection, &mut effects),
                Step::Wait(milliseconds) => {
                    now_ms += milliseconds;
                    control.tick(at(now_ms), &mut effects);
                }
            }
            check(&mut control);
        }
        let files = control.last_files();
        let mut again = super::control();
        again.load_state(files.iter().map(|(name, bytes)| (*name, bytes.as_slice()))).unwrap();
        if files.iter().any(|(name, _)| *name == "consumerOffset.json") {
            prop_assert_eq!(again.offsets.rows(), control.offsets.rows());
        }
    }
}
