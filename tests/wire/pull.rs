//! Pulling: bytes, filters, long polling, offsets.

use std::thread;
use std::time::{Duration, Instant};

use ringmq::client::exchange::Ticket;
use ringmq::client::requests::{self, PullRequest};
use ringmq::client::{Connection, Message, PullAnswer, PullStatus};
use ringmq_protocol::codes::request::{DELETE_TOPIC_IN_BROKER, VIEW_MESSAGE_BY_ID};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;

use super::broker::{PATIENCE, Store, commit_log_bytes, wait_for};

fn wanted<'a>(topic: &'a str, offset: i64, hold_ms: u64, subscription: &'a str) -> PullRequest<'a> {
    PullRequest { hold_ms, subscription, ..PullRequest::new("wire", topic, 0, offset) }
}

fn bodies(answer: &PullAnswer) -> Vec<String> {
    let text = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
    answer.messages().map(|message| text(message.expect("whole").body())).collect()
}

#[test]
fn pulled_bytes_are_the_logs_bytes() {
    // Goal: a consumer gets records as they are stored. Method: compare a pull with the commit log's file at the records'
    // physical offsets, and with the answer to a look-up by id.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("bytes", 1);
    let mut client = broker.client();
    let queue = broker.queue("bytes", 0);
    let messages: Vec<Message> = (0..20).map(|number| Message::new(format!("batch {number}")).with_tag("t")).collect();
    client.send_batch("bytes", &messages).expect("stored");
    for number in 0..20 {
        let message = Message::new(format!("{number}").repeat(100)).with_key("k").with_property("p", "ü");
        client.send_to(&queue, &message).expect("stored");
    }
    let mut next = 0;
    while next < 40 {
        let pulled = client.pull(&queue, next, 32, 0).expect("an answer");
        assert_eq!((pulled.status, pulled.min_offset, pulled.max_offset), (PullStatus::Found, 0, 40));
        for message in pulled.messages() {
            let message = message.expect("whole");
            assert_eq!(message.queue_offset(), next);
            let physical = u64::try_from(message.physical_offset()).expect("not negative");
            assert_eq!(commit_log_bytes(&store.path(), physical, message.bytes().len()), message.bytes());
            let view = Command::request(VIEW_MESSAGE_BY_ID).with_ext("topic", "bytes").with_ext("offset", physical);
            let viewed = client.call_ok(&broker.address(), view).expect("found");
            assert_eq!(viewed.body.as_deref(), Some(message.bytes()));
            next += 1;
        }
    }
}

#[test]
fn tags_are_filtered_by_their_hash() {
    // Goal: a consumer gets its tags, and what has the same hash. Method: four tags, two of which collide in Java's hash,
    // and a message without one.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("tags", 1);
    let mut client = broker.client();
    let queue = broker.queue("tags", 0);
    for tag in ["Aa", "BB", "red", "green"] {
        client.send_to(&queue, &Message::new(tag).with_tag(tag)).expect("stored");
    }
    client.send_to(&queue, &Message::new("none")).expect("stored");
    for (subscription, expected) in [
        ("*", &["Aa", "BB", "red", "green", "none"][..]),
        ("red", &["red"]),
        ("red || green", &["red", "green"]),
        ("Aa", &["Aa", "BB"]),
    ] {
        let pulled = client.pull_with(&queue.address, &wanted("tags", 0, 0, subscription)).expect("an answer");
        assert_eq!(bodies(&pulled), expected, "{subscription}");
        assert_eq!(pulled.next_offset, 5, "{subscription}");
    }
    let nothing = client.pull_with(&queue.address, &wanted("tags", 0, 1_000, "blue")).expect("an answer");
    assert_eq!((nothing.status, nothing.next_offset), (PullStatus::NothingMatched, 5));
}

#[test]
fn a_held_pull_is_woken_by_a_send() {
    // Goal: a waiting consumer gets a message when it is sent, not when its time is over. Method: several pulls on one
    // connection wait much longer than the test may take; each send wakes those of its queue.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    let route = broker.topic("woken", 4);
    let mut connection = broker.connection();
    let mut client = broker.client();
    let held_ms = 2 * u64::try_from(PATIENCE.as_millis()).expect("small");
    let mut tickets = Vec::new();
    for queue in &route.to_read {
        let pull = PullRequest { queue_id: queue.queue_id, ..wanted("woken", 0, held_ms, "*") };
        tickets.push(connection.submit(requests::pull(&pull)).expect("written"));
    }
    // An answered request behind them shows that the pulls have been taken.
    connection.call_ok(requests::max_offset("woken", 0)).expect("an answer");
    for (queue, ticket) in route.to_write.iter().zip(tickets) {
        client.send_to(queue, &Message::new(format!("for {}", queue.queue_id))).expect("stored");
        let answer = connection.wait(ticket, PATIENCE).expect("woken in time");
        let pulled = PullAnswer::decode(answer).expect("complete").expect("no refusal");
        assert_eq!((pulled.status, pulled.next_offset), (PullStatus::Found, 1));
        assert_eq!(bodies(&pulled), [format!("for {}", queue.queue_id)]);
    }
}

#[test]
fn a_held_pull_with_a_tag_sleeps_through_other_tags() {
    // Goal: only a message that matches wakes a filtered pull. Method: other tags first, then the wanted one; the single
    // answer holds the wanted one alone.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("sleeps", 1);
    let queue = broker.queue("sleeps", 0);
    let mut connection = broker.connection();
    let held_ms = 2 * u64::try_from(PATIENCE.as_millis()).expect("small");
    let mut client = broker.client();
    let mut offset = 0;
    let mut ticket = connection.submit(requests::pull(&wanted("sleeps", 0, held_ms, "red"))).expect("written");
    connection.call_ok(requests::max_offset("sleeps", 0)).expect("an answer");
    for number in 0..20 {
        client.send_to(&queue, &Message::new(format!("{number}")).with_tag("green")).expect("stored");
    }
    client.send_to(&queue, &Message::new("wanted").with_tag("red")).expect("stored");
    // A broker may look by time as well, and then says that nothing matched.
    let found = loop {
        let answer = connection.wait(ticket, PATIENCE).expect("woken in time");
        let pulled = PullAnswer::decode(answer).expect("complete").expect("no refusal");
        if pulled.status == PullStatus::Found {
            break pulled;
        }
        assert_eq!(pulled.status, PullStatus::NothingMatched);
        assert!(pulled.next_offset > offset, "it goes on");
        offset = pulled.next_offset;
        ticket = connection.submit(requests::pull(&wanted("sleeps", offset, held_ms, "red"))).expect("written");
    };
    assert_eq!((bodies(&found), found.next_offset), (vec!["wanted".to_owned()], 21));
}

#[test]
fn a_held_pull_ends_with_its_time() {
    // Goal: a pull that finds nothing is answered 19, after its time and not before. Method: hold for a second; a pull
    // without holding is answered while the first still waits.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("empty", 1);
    let mut connection = broker.connection();
    let started = Instant::now();
    let hold = Duration::from_millis(1_000);
    let held = connection.submit(requests::pull(&wanted("empty", 0, 1_000, "*"))).expect("written");
    let at_once = connection.submit(requests::pull(&wanted("empty", 0, 0, "*"))).expect("written");
    for (ticket, is_held) in [(at_once, false), (held, true)] {
        let answer = connection.wait(ticket, PATIENCE).expect("an answer");
        let pulled = PullAnswer::decode(answer).expect("complete").expect("no refusal");
        assert_eq!((pulled.status, pulled.next_offset), (PullStatus::NothingNew, 0));
        assert!(!is_held || started.elapsed() >= hold, "answered after {:?}", started.elapsed());
    }
}

#[test]
fn the_end_of_a_topic_releases_its_held_pulls() {
    // Goal: a consumer that waits hears at once that its topic is deleted, and gets what its successor stores. Method: delete
    // under pulls of two connections that may wait longer than the test; create it again, wait, send.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("ended", 1);
    let mut client = broker.client();
    let queue = broker.queue("ended", 0);
    client.send_to(&queue, &Message::new("before")).expect("stored");
    let held_ms = 2 * u64::try_from(PATIENCE.as_millis()).expect("small");
    let hold = |connection: &mut Connection, offset: i64| {
        let ticket = connection.submit(requests::pull(&wanted("ended", offset, held_ms, "*"))).expect("written");
        connection.call_ok(requests::max_offset("ended", 0)).expect("an answer");
        ticket
    };
    let mut waiting: Vec<(Connection, Ticket)> = Vec::new();
    for _ in 0..2 {
        let mut connection = broker.connection();
        let ticket = hold(&mut connection, 1);
        waiting.push((connection, ticket));
    }
    let mut admin = broker.connection();
    admin.call_ok(Command::request(DELETE_TOPIC_IN_BROKER).with_ext("topic", "ended")).expect("deleted");
    for (connection, ticket) in &mut waiting {
        assert_eq!(connection.wait(*ticket, PATIENCE).expect("released").code, response::TOPIC_NOT_EXIST);
    }
    broker.topic("ended", 1);
    for (connection, ticket) in &mut waiting {
        *ticket = hold(connection, 0);
    }
    client.send_to(&queue, &Message::new("after")).expect("stored");
    for (connection, ticket) in &mut waiting {
        let answer = connection.wait(*ticket, PATIENCE).expect("woken in time");
        let pulled = PullAnswer::decode(answer).expect("complete").expect("no refusal");
        assert_eq!((bodies(&pulled), pulled.max_offset), (vec!["after".to_owned()], 1));
    }
}

#[test]
fn offsets_outside_the_queue_are_corrected() {
    // Goal: a consumer with a wrong offset learns the right one. Method: ask at the end, behind it, below 0, and on an
    // empty queue.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("corrected", 2);
    let mut client = broker.client();
    let queue = broker.queue("corrected", 0);
    for number in 0..3 {
        client.send_to(&queue, &Message::new(format!("{number}"))).expect("stored");
    }
    for (queue_id, offset, status, next_offset) in [
        (0, 3, PullStatus::NothingNew, 3),
        (0, 4, PullStatus::OffsetMoved, 3),
        (0, 1_000_000, PullStatus::OffsetMoved, 3),
        (0, -1, PullStatus::OffsetMoved, 0),
        (1, 0, PullStatus::NothingNew, 0),
        (1, 7, PullStatus::OffsetMoved, 0),
    ] {
        let pull = PullRequest { queue_id, ..wanted("corrected", offset, 0, "*") };
        let pulled = client.pull_with(&broker.address(), &pull).expect("an answer");
        assert_eq!((pulled.status, pulled.next_offset), (status, next_offset), "queue {queue_id} at {offset}");
    }
}

#[test]
fn offsets_are_found_by_time() {
    // Goal: a consumer can begin at a point in time. Method: messages with a pause between them; search before, at, and
    // behind their store times.
    let mut store = Store::new();
    let broker = store.start(&[]);
    broker.topic("times", 1);
    let mut client = broker.client();
    let queue = broker.queue("times", 0);
    for number in 0..3 {
        client.send_to(&queue, &Message::new(format!("{number}"))).expect("stored");
        thread::sleep(Duration::from_millis(20));
    }
    let pulled = client.pull(&queue, 0, 32, 0).expect("an answer");
    let times: Vec<u64> = pulled
        .messages()
        .map(|message| u64::try_from(message.expect("whole").store_timestamp()).expect("after 1970"))
        .collect();
    for (time, expected) in [(0, 0), (times[0], 0), (times[0] + 1, 1), (times[1], 1), (times[2], 2), (times[2] + 1, 3)]
    {
        assert_eq!(client.search_offset(&queue, time).expect("an answer"), expected, "{time} in {times:?}");
    }
    assert_eq!((client.min_offset(&queue).ok(), client.max_offset(&queue).ok()), (Some(0), Some(3)));
}

#[test]
fn a_lost_connection_drops_its_held_pulls() {
    // Goal: waiting pulls of a client that went away do no harm. Method: many connections wait and close; a send and a
    // pull work afterwards.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("gone", 1);
    for _ in 0..50 {
        let mut connection = broker.connection();
        for _ in 0..4 {
            connection.submit(requests::pull(&wanted("gone", 0, 60_000, "*"))).expect("written");
        }
    }
    let mut client = broker.client();
    client.send_to(&broker.queue("gone", 0), &Message::new("later")).expect("stored");
    let pulled = wait_for("the message", || {
        let pulled = client.pull(&broker.queue("gone", 0), 0, 32, 0).expect("an answer");
        (pulled.status == PullStatus::Found).then_some(pulled)
    });
    assert_eq!(bodies(&pulled), ["later"]);
}
