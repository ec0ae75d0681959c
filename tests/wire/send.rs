//! Sending: codings, answers, offsets, pipelining, topics that are created on the way.

use std::collections::BTreeMap;
use std::thread;
use std::time::Instant;

use ringmq::client::message::batch_body;
use ringmq::client::requests::{self, SendTarget};
use ringmq::client::{Message, SendReceipt};
use ringmq_protocol::codes::request::{SEND_BATCH_MESSAGE, SEND_MESSAGE, SEND_MESSAGE_V2};
use ringmq_protocol::command::{Command, SerializeType};
use ringmq_protocol::exchange::Ticket;
use ringmq_protocol::message_id::decode_message_id;
use ringmq_protocol::properties::{find_property, names};

use super::broker::{PATIENCE, Store, wait_for};

/// A send in the coding of its code, with a unique key of the test's own.
fn send_in(code: i32, serialize_type: SerializeType, topic: &str, body: &str) -> Command {
    let target = SendTarget { group: "wire", topic, queue_id: 0, now_ms: 1_700_000_000_000 };
    let message = Message::new(body).with_tag("red").with_key("k");
    let mut command = if code == SEND_BATCH_MESSAGE {
        let body = batch_body([(&message, format!("{body}-0")), (&message, format!("{body}-1"))]).expect("valid");
        requests::send_batch(&target, body, body_key(&message))
    } else {
        requests::send(&target, &message, body_key(&message)).expect("valid")
    };
    if code == SEND_MESSAGE {
        let long = [
            ("a", "producerGroup"),
            ("b", "topic"),
            ("c", "defaultTopic"),
            ("d", "defaultTopicQueueNums"),
            ("e", "queueId"),
            ("f", "sysFlag"),
            ("g", "bornTimestamp"),
            ("h", "flag"),
            ("i", "properties"),
            ("j", "reconsumeTimes"),
            ("k", "unitMode"),
            ("m", "batch"),
        ];
        let short = command.ext_fields.take().unwrap_or_default();
        for (from, to) in long {
            command = command.with_ext(to, &short[from]);
        }
    }
    Command { code, serialize_type, ..command }
}

fn body_key(message: &Message) -> &str {
    std::str::from_utf8(&message.body).expect("text")
}

#[test]
fn every_coding_of_a_send_is_stored_and_answered_in_full() {
    // Goal: all three send codes in both header codings store the same and answer all fields. Method: send each to one
    // queue over one connection, look at each field, read the queue back.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("codings", 1);
    let mut connection = broker.connection();
    let mut expected = Vec::new();
    for serialize_type in [SerializeType::Json, SerializeType::RocketMq] {
        for code in [SEND_MESSAGE, SEND_MESSAGE_V2, SEND_BATCH_MESSAGE] {
            let body = format!("{code}-{serialize_type:?}");
            let answer = connection.call(send_in(code, serialize_type, "codings", &body)).expect("an answer");
            let receipt = SendReceipt::decode(&answer).expect("complete").expect("stored");
            assert_eq!((receipt.code, receipt.queue_id), (0, 0), "{body}");
            assert_eq!(receipt.queue_offset, i64::try_from(expected.len()).expect("few"), "{body}");
            let count = if code == SEND_BATCH_MESSAGE { 2 } else { 1 };
            let ids: Vec<&str> = receipt.message_id.split(',').collect();
            assert_eq!(ids.len(), count, "{body}");
            for id in ids {
                let (host, _) = decode_message_id(id).expect("an offset id");
                assert_eq!(host.to_string(), broker.address(), "{body}");
                expected.push((body.clone(), id.to_owned()));
            }
            assert_eq!(answer.ext("transactionId"), Some(body.as_str()));
            assert_eq!((answer.ext("MSG_REGION"), answer.ext("TRACE_ON")), (Some("DefaultRegion"), Some("true")));
            assert!(answer.version >= 401 && answer.language.is_some(), "clients look at the version");
        }
    }
    let mut client = broker.client();
    let mut found = Vec::new();
    let queue = broker.queue("codings", 0);
    while found.len() < expected.len() {
        let offset = i64::try_from(found.len()).expect("few");
        let pulled = client.pull(&queue, offset, 32, 0).expect("an answer");
        let before = found.len();
        for message in pulled.messages() {
            let message = message.expect("whole");
            let id = ringmq_protocol::message_id::encode_message_id(message.store_host(), message.physical_offset());
            found.push((String::from_utf8_lossy(message.body()).into_owned(), id));
            assert_eq!((message.tags(), message.keys()), (Some(&b"red"[..]), Some(&b"k"[..])));
            assert_eq!((message.born_timestamp(), message.topic()), (1_700_000_000_000, "codings"));
            assert_eq!(message.born_host().ip().to_string(), "127.0.0.1");
            for (name, value) in [(names::MSG_REGION, "DefaultRegion"), (names::TRACE_ON, "true")] {
                assert_eq!(find_property(message.properties(), name), Some(value.as_bytes()), "{name}");
            }
            assert_eq!(find_property(message.properties(), names::CLUSTER), Some(&b"DefaultCluster"[..]));
            // Messages of a batch keep their own properties as they were sent, in front of the broker's.
            let is_single = !message.body().starts_with(SEND_BATCH_MESSAGE.to_string().as_bytes());
            assert!(is_single || message.properties().starts_with(b"KEYS\x01k\x02TAGS\x01red\x02UNIQ_KEY\x01320-"));
        }
        assert!(found.len() > before, "the queue ends early");
    }
    assert_eq!(found, expected);
}

#[test]
fn offsets_are_contiguous_per_queue() {
    // Goal: each queue counts by itself without gaps, whoever sends. Method: four connections send to four queues at once;
    // every queue's offsets are 0..n and the messages at them are those that were confirmed there.
    const SENDERS: usize = 4;
    const MESSAGES: usize = 200;
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    let route = broker.topic("contiguous", 4);
    let confirmed: Vec<(i32, i64, String)> = thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| {
                let (broker, route) = (&broker, &route);
                scope.spawn(move || {
                    let mut client = broker.client();
                    let send = |number: usize| {
                        let body = format!("{sender}-{number}");
                        let queue = &route.to_write[(number + sender) % route.to_write.len()];
                        let receipt = client.send_to(queue, &Message::new(body.as_str())).expect("stored");
                        assert_eq!(receipt.queue_id, queue.queue_id);
                        (receipt.queue_id, receipt.queue_offset, body)
                    };
                    (0..MESSAGES).map(send).collect::<Vec<_>>()
                })
            })
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("no panic")).collect()
    });
    let mut by_place: BTreeMap<(i32, i64), String> = BTreeMap::new();
    for (queue_id, offset, body) in confirmed {
        assert_eq!(by_place.insert((queue_id, offset), body), None, "queue {queue_id} gave offset {offset} twice");
    }
    let mut client = broker.client();
    for queue in &route.to_read {
        let end = i64::try_from(SENDERS * MESSAGES / 4).expect("few");
        assert_eq!(client.max_offset(queue).expect("an answer"), end);
        let mut next = 0;
        while next < end {
            let pulled = client.pull(queue, next, 32, 0).expect("an answer");
            for message in pulled.messages() {
                let message = message.expect("whole");
                let place = (queue.queue_id, message.queue_offset());
                assert_eq!(message.queue_offset(), next);
                assert_eq!(by_place.get(&place).map(String::as_bytes), Some(message.body()));
                next += 1;
            }
            assert_eq!(pulled.next_offset, next);
        }
    }
}

#[test]
fn a_thousand_requests_on_one_connection_are_all_answered() {
    // Goal: any number of requests may be under way, and answers go to the right ones. Method: write 1,000 sends at once;
    // each gets its own answer, and the messages are there.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("pipelined", 2);
    let mut connection = broker.connection();
    let target = SendTarget { group: "wire", topic: "pipelined", queue_id: 0, now_ms: 1 };
    let sends = (0..1000).map(|number: i32| {
        let target = SendTarget { queue_id: number % 2, ..target };
        requests::send(&target, &Message::new(number.to_string()), "U").expect("valid")
    });
    let tickets: Vec<Ticket> = connection.submit_all(sends).expect("written");
    let mut places = BTreeMap::new();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let answer = connection.wait(ticket, PATIENCE).expect("an answer");
        let receipt = SendReceipt::decode(&answer).expect("complete").expect("stored");
        places.insert((receipt.queue_id, receipt.queue_offset), number);
    }
    assert_eq!(places.len(), 1000);
    assert_eq!(connection.stray_answers(), 0);
    let mut client = broker.client();
    for queue_id in 0..2 {
        let queue = broker.queue("pipelined", queue_id);
        let mut next = 0;
        while next < 500 {
            let pulled = client.pull(&queue, next, 32, 0).expect("an answer");
            for message in pulled.messages() {
                let message = message.expect("whole");
                let number = places[&(queue_id, message.queue_offset())];
                assert_eq!(message.body(), number.to_string().as_bytes());
            }
            assert!(pulled.next_offset > next);
            next = pulled.next_offset;
        }
    }
}

#[test]
fn a_send_creates_its_topic() {
    // Goal: a topic need not be created before. Method: send to one that does not exist, through the template's route;
    // afterwards its route has the queues that were asked for, and the first message is there.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut client = broker.client();
    assert!(client.route("made-by-a-send").is_err());
    let receipt = client.send("made-by-a-send", &Message::new("first")).expect("stored");
    assert_eq!(receipt.queue_offset, 0);
    let route = wait_for("the route", || client.route("made-by-a-send").ok());
    assert_eq!((route.to_write.len(), route.to_read.len()), (4, 4));
    let queue = &route.to_read[usize::try_from(receipt.queue_id).expect("not negative")];
    let pulled = client.pull(queue, 0, 32, 0).expect("an answer");
    assert_eq!(
        pulled.messages().map(|message| message.expect("whole").body().to_vec()).collect::<Vec<_>>(),
        [b"first"]
    );
}

#[test]
fn sends_that_wait_for_their_topic_are_not_overtaken() {
    // Goal: a pipelined connection's messages are stored in its order, also while their topic is being made. Method: many new
    // topics in turn; to each a window of sends to one queue, each answer followed by another send, until the window is through.
    const WINDOW: usize = 32;
    const SENDS: usize = 128;
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut connection = broker.connection();
    for number in 0..60 {
        let topic = format!("Fresh{number}");
        let send = |body: usize| send_in(SEND_MESSAGE_V2, SerializeType::Json, &topic, &format!("{body:03}"));
        let window = connection.submit_all((0..WINDOW).map(send)).expect("the broker reads");
        let mut under_way: BTreeMap<_, _> = window.into_iter().zip(0..).collect();
        let (mut next, mut offsets) = (WINDOW, BTreeMap::new());
        while let Some((ticket, answer)) = connection.wait_any(PATIENCE).expect("an answer") {
            let body = under_way.remove(&ticket).expect("it was asked");
            let receipt = SendReceipt::decode(&answer).expect("complete").expect("stored");
            offsets.insert(body, receipt.queue_offset);
            if next < SENDS {
                under_way.insert(connection.submit(send(next)).expect("the broker reads"), next);
                next += 1;
            }
            if under_way.is_empty() {
                break;
            }
        }
        let in_order: Vec<_> = (0..SENDS as i64).collect();
        assert_eq!(offsets.into_values().collect::<Vec<_>>(), in_order, "{topic}");
    }
}

#[test]
fn a_negative_queue_id_lets_the_broker_choose() {
    // Goal: queue −1 is any queue, and the answer names it. Method: many such sends; each named queue holds what it was
    // given, and more than one is used.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("any-queue", 4);
    let mut client = broker.client();
    let mut counts = BTreeMap::new();
    for number in 0..64 {
        let receipt =
            client.send_to(&broker.queue("any-queue", -1), &Message::new(format!("{number}"))).expect("stored");
        *counts.entry(receipt.queue_id).or_insert(0) += 1;
    }
    assert!(counts.len() > 1, "{counts:?}");
    for (queue_id, count) in counts {
        assert!((0..4).contains(&queue_id));
        assert_eq!(client.max_offset(&broker.queue("any-queue", queue_id)).expect("an answer"), count);
    }
}

#[test]
fn oneway_requests_are_done_and_not_answered() {
    // Goal: a oneway send is stored and nothing comes back, not even for a refused one. Method: oneway sends, then an
    // ordinary request on the same connection; its answer is the only one.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("oneway", 1);
    let mut connection = broker.connection();
    let target = SendTarget { group: "wire", topic: "oneway", queue_id: 0, now_ms: 1 };
    for number in 0..10 {
        let send = requests::send(&target, &Message::new(format!("{number}")), "U").expect("valid");
        connection.oneway(send).expect("written");
    }
    connection.oneway(Command::request(9_999)).expect("written");
    let refused = SendTarget { queue_id: 99, ..target };
    connection.oneway(requests::send(&refused, &Message::new("x"), "U").expect("valid")).expect("written");
    wait_for("the messages", || {
        let answer = connection.call_ok(requests::max_offset("oneway", 0)).expect("an answer");
        (answer.ext_i64("offset") == Ok(10)).then_some(())
    });
    assert_eq!(connection.stray_answers(), 0);
}

#[test]
fn large_messages_and_the_fast_port_work() {
    // Goal: the largest body is stored and read back whole, also over the second port. Method: 4 MiB to one queue over the
    // fast port, read over the main one.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("large", 1);
    let body: Vec<u8> = (0..4 * 1024 * 1024).map(|at: u32| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
    let mut client = broker.client();
    let mut queue = broker.queue("large", 0);
    queue.address = broker.fast_address();
    client.send_to(&queue, &Message::new(body.clone())).expect("stored");
    let pulled = client.pull(&broker.queue("large", 0), 0, 32, 0).expect("an answer");
    let bodies: Vec<Vec<u8>> = pulled.messages().map(|message| message.expect("whole").body().to_vec()).collect();
    assert!(bodies == [body], "the body comes back as it was");
}

#[test]
fn groups_wait_for_senders_where_that_is_tried() {
    // Goal: with SYNC_FLUSH a group waits for senders that come back, and never where that is switched off. Method: clients that send
    // again when they are answered, until a group has waited; then as many rounds without.
    let mut rounds_until_delayed = 0;
    for limit_us in [1_000, 0] {
        let mut store = Store::new();
        let listen = format!("metrics_listen={}", store.metrics_address());
        let limit = format!("commit_delay_max_us={limit_us}");
        let broker = store.start(&["flushDiskType=SYNC_FLUSH", "sync_write_path=direct", &listen, &limit]);
        broker.topic("T", 4);
        let delays = || broker.metric(&store, "ringmq_log_commit_delays_total");
        let deadline = Instant::now() + PATIENCE;
        let mut rounds = 0;
        while if limit_us > 0 { delays() == 0 } else { rounds < rounds_until_delayed } {
            assert!(Instant::now() < deadline, "no group has waited in {rounds} rounds");
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        let mut client = broker.client();
                        for _ in 0..100 {
                            client.send("T", &Message::new("body")).expect("accepted");
                        }
                    });
                }
            });
            rounds += 1;
        }
        assert!(limit_us > 0 || delays() == 0);
        rounds_until_delayed = rounds;
        assert_eq!(broker.stop(&[]).code(), Some(0));
    }
}
