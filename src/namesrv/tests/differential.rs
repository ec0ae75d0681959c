use super::*;
use crate::namesrv::config::NamesrvConfig;
use ringmq_protocol::bodies::TopicList;
use std::fmt::Write;

/// Steps that were given to the Java classes (RouteInfoManager of 5.3.3), one per line: the step, the result, and the
/// CRC-32 of the routes and topic lists after it. Runs begin with `NEW`. Steps:
/// `NEW supportActingMaster deleteTopicWithBrokerRegistration`,
/// `REG name address cluster id stateVersion counter enableActingMaster topics`, `UNREG name address cluster id`,
/// `WIPE name`, `ADD name`, `DEL topic [cluster]`.
/// Left out are runs with a deliberate difference: a refused registration changes nothing here, and an address that was
/// replaced is forgotten at once instead of at its expiry.
const TRACE: &str = include_str!("java_trace.txt");

fn register(fixture: &mut Fixture, words: &[&str]) -> String {
    let topic_count: usize = words[8].parse().unwrap();
    let counter: i32 = words[6].parse().unwrap();
    let topics = [(6, 0), (6, 1), (7, 2), (6, 3)].iter().enumerate().take(topic_count);
    let broker = Broker {
        version: DataVersion { counter: i64::from(counter), state_version: words[5].parse().unwrap(), timestamp: 1 },
        topics: topics
            .map(|(number, &(perm, topic_sys_flag))| TopicConfig {
                read_queue_nums: counter,
                perm,
                topic_sys_flag,
                ..TopicConfig::new(format!("T{number}"))
            })
            .collect(),
        ..Broker::master()
    };
    let mut request = addressed(codes::REGISTER_BROKER, words)
        .with_ext("haServerAddr", format!("ha-{}", words[2]))
        .with_body(broker.body().encode());
    if words[7] != "-" {
        request = request.with_ext("enableActingMaster", words[7] == "1");
    }
    let answer = fixture.send(1, request);
    let field = |key| answer.ext(key).unwrap_or("null");
    if answer.code == 0 {
        format!("0 {} {}", field("masterAddr"), field("haServerAddr"))
    } else {
        answer.code.to_string()
    }
}

fn addressed(code: i32, words: &[&str]) -> Command {
    Command::request(code)
        .with_ext("brokerName", words[1])
        .with_ext("brokerAddr", words[2])
        .with_ext("clusterName", words[3])
        .with_ext("brokerId", words[4])
}

fn step(fixture: &mut Fixture, words: &[&str]) -> String {
    let name = [("brokerName", words[1])];
    match words[0] {
        "NEW" => {
            *fixture = Fixture::with(NamesrvConfig {
                support_acting_master: words[1] == "1",
                delete_topic_with_broker_registration: words[2] == "1",
                ..NamesrvConfig::default()
            });
            "0".to_owned()
        }
        "REG" => register(fixture, words),
        "UNREG" => fixture.send(1, addressed(codes::UNREGISTER_BROKER, words)).code.to_string(),
        "WIPE" => fixture.ask(codes::WIPE_WRITE_PERM_OF_BROKER, &name).ext("wipeTopicCount").unwrap().to_owned(),
        "ADD" => fixture.ask(codes::ADD_WRITE_PERM_OF_BROKER, &name).ext("addTopicCount").unwrap().to_owned(),
        "DEL" => {
            let cluster = words.get(2).copied().unwrap_or_default();
            fixture
                .ask(codes::DELETE_TOPIC_IN_NAMESRV, &[("topic", words[1]), ("clusterName", cluster)])
                .code
                .to_string()
        }
        other => panic!("unknown step {other}"),
    }
}

/// The routes of all topics in the legacy form, and the five topic lists.
fn picture(fixture: &mut Fixture) -> String {
    let mut picture = String::new();
    for number in 0..4 {
        let query = Command { version: 0, ..Command::request(codes::GET_ROUTEINFO_BY_TOPIC) };
        let answer = fixture.send(5, query.with_ext("topic", format!("T{number}")));
        write!(picture, " | {}", if answer.code == 0 { text(&answer) } else { "-" }).unwrap();
    }
    for code in [
        codes::GET_TOPICS_BY_CLUSTER,
        codes::GET_UNIT_TOPIC_LIST,
        codes::GET_HAS_UNIT_SUB_TOPIC_LIST,
        codes::GET_HAS_UNIT_SUB_UNUNIT_TOPIC_LIST,
        codes::GET_ALL_TOPIC_LIST_FROM_NAMESERVER,
    ] {
        let answer = fixture.ask(code, &[("cluster", "c1")]);
        let list = TopicList::decode(answer.body.as_deref().unwrap()).unwrap();
        write!(picture, " | [{}]", list.topic_list.join(", ")).unwrap();
    }
    picture
}

/// Goal: the tables behave as Java's do, step by step. Method: a recorded trace of random steps is replayed; results and
/// check sums of what clients see are compared after each.
#[test]
fn follows_the_java_classes() {
    let mut fixture = Fixture::new();
    for (number, line) in TRACE.lines().enumerate() {
        let (request, expected) = line.split_once(" => ").unwrap();
        let words: Vec<&str> = request.split(' ').collect();
        let result = step(&mut fixture, &words);
        let picture = picture(&mut fixture);
        let actual = format!("{result} => {:08x}", crc32fast::hash(picture.as_bytes()));
        assert_eq!(actual, expected, "line {}: {request}{picture}", number + 1);
    }
    assert!(TRACE.lines().count() > 1_000);
}
