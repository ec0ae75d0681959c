//! The bounds of the broker as clients meet them: the real binary over real sockets.

#[path = "wire/broker.rs"]
#[allow(dead_code, reason = "a part of what the wire tests use")]
mod broker;

use std::collections::HashSet;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use broker::{Broker, PATIENCE, Store, wait_for};
use ringmq::client::{Message, PullStatus};
use ringmq_protocol::codes::request;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};
use ringmq_protocol::record::{CrcCheck, Records};

/// Lets [`Broker::metric`] read the figures.
fn metrics_setting(store: &Store) -> String {
    format!("metrics_listen={}", store.metrics_address())
}

#[test]
fn connections_are_capped_over_all_shards() {
    // Goal: past max_connections a connection is closed at once and counted; one that ends makes room. Method: fill a small
    // cap with connections that were answered, watch the next one end, close one, and connect again.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let mut broker = store.start(&["max_connections=8", "shards=2", &metrics]);
    let mut kept = Vec::new();
    while let Some(stream) = answered(&broker.address()) {
        kept.push(stream);
        assert!(kept.len() <= 8, "the cap holds");
    }
    assert!(!kept.is_empty());
    wait_for("the count", || (broker.metric(&store, "ringmq_connections_refused_total") >= 1).then_some(()));
    kept.pop();
    wait_for("room for a connection", || answered(&broker.address()));
    broker.assert_quiet(&["connections are refused"]);
}

/// A connection on which a request was answered; nothing if it was refused.
fn answered(address: &str) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).expect("accepted by the kernel");
    let request = Command { opaque: 1, ..Command::request(request::GET_BROKER_RUNTIME_INFO) };
    match stream.write_all(&request.encode()).and_then(|()| stream.read_exact(&mut [0; 4])) {
        Ok(()) => Some(stream),
        Err(error) => {
            let closed = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(closed.contains(&error.kind()), "{error}");
            None
        }
    }
}

#[test]
fn a_connection_over_its_bytes_in_flight_is_not_read() {
    // Goal: who takes no answers is not read, others are served. Method: pipeline pulls without reading until the broker
    // stops reading, then send and pull on another connection.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let broker = store.start(&["connection_in_flight_bytes=64 KiB", &metrics]);
    broker.topic("flight", 1);
    let mut client = broker.client();
    let queue = broker.queue("flight", 0);
    client.send_to(&queue, &Message::new(vec![b'x'; 60_000])).expect("stored");
    let mut pull = Command::request(request::VIEW_MESSAGE_BY_ID).with_ext("topic", "flight").with_ext("offset", 0);
    pull.opaque = 1;
    let bytes = pull.encode().repeat(1_000);
    let mut deaf = TcpStream::connect(broker.address()).expect("connected");
    deaf.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let stopped = (0..200).any(|_| deaf.write_all(&bytes).is_err());
    assert!(stopped, "the broker stops reading");
    client.send_to(&queue, &Message::new("after")).expect("others are served");
    wait_for("a connection that is not read", || {
        (broker.metric(&store, "ringmq_read_pauses_total") >= 1).then_some(())
    });
}

/// The next frame.
fn read_frame(stream: &mut impl Read) -> Command {
    let mut frame = vec![0; 4];
    stream.read_exact(&mut frame).expect("a frame");
    let length = u32::from_be_bytes(frame[..].try_into().expect("four bytes"));
    frame.resize(4 + length as usize, 0);
    stream.read_exact(&mut frame[4..]).expect("the rest of it");
    let Ok(Split::Frame { frame, .. }) = split_frame(&frame, MAX_FRAME_BYTES) else { panic!("no frame") };
    Command::decode(frame).expect("an answer")
}

/// Pipelines `count` requests on a connection that reads nothing for a while: the broker must stay small and serve others. Then
/// all answers are read, which must come in order.
fn assert_unread_answers_are_bounded(broker: &Broker, store: &Store, request: &Command, count: i32) {
    const ANSWERS_MIB: u64 = 24;
    const GROWN_MIB: u64 = 64;
    let mut client = broker.client();
    let queue = broker.queue("unread", 0);
    client.send_to(&queue, &Message::new("before")).expect("stored");
    let before = broker.resident_bytes();
    let mut deaf = TcpStream::connect(broker.address()).expect("connected");
    let mut writing = deaf.try_clone().expect("a second handle");
    let requests: Vec<u8> = (1..=count)
        .flat_map(|opaque| {
            let mut request = request.clone();
            request.opaque = opaque;
            request.encode()
        })
        .collect();
    std::thread::scope(|scope| {
        let writer = scope.spawn(move || writing.write_all(&requests));
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(2) {
            client.send_to(&queue, &Message::new("meanwhile")).expect("others are served");
            let used = broker.metric(store, "ringmq_limit_buffer_bytes_used");
            assert!(used <= ANSWERS_MIB << 20, "{used} bytes in buffers");
            let grown = broker.resident_bytes().saturating_sub(before) >> 20;
            assert!(grown <= GROWN_MIB, "{grown} MiB more");
        }
        let counted = |name: &str| (broker.metric(store, name) >= 1).then_some(());
        wait_for("answers that wait", || counted("ringmq_limit_buffer_bytes_used"));
        wait_for("a connection that is not read", || counted("ringmq_read_pauses_total"));
        broker.client().send_to(&queue, &Message::new("new")).expect("a new client is served");
        for opaque in 1..=count {
            let answer = read_frame(&mut deaf);
            assert_eq!((answer.opaque, answer.code, answer.remark.as_deref()), (opaque, 0, None));
        }
        writer.join().expect("it ends").expect("everything was read");
    });
}

#[test]
fn unread_answers_of_the_control_thread_are_bounded() {
    // Goal: requests whose answers are hundreds of times longer take no more memory than a connection may, and stop nobody.
    // Method: the configuration (code 26), 20,000 times: 250 MB that nobody reads.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let mut broker = store.start(&["memory=128 MiB", "shards=2", &metrics]);
    broker.topic("unread", 1);
    assert_unread_answers_are_bounded(&broker, &store, &Command::request(request::GET_BROKER_CONFIG), 20_000);
    broker.assert_quiet(&[]);
}

#[test]
fn unread_answers_of_look_ups_are_bounded() {
    // Goal: as above, for answers that come from the store thread. Method: a large message by its place in the log (code 33),
    // 200 times: 800 MB that nobody reads.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let mut broker = store.start(&["memory=128 MiB", "shards=2", &metrics]);
    broker.topic("unread", 1);
    let queue = broker.queue("unread", 0);
    broker.client().send_to(&queue, &Message::new(vec![b'x'; 4_000_000])).expect("stored");
    let view = Command::request(request::VIEW_MESSAGE_BY_ID).with_ext("topic", "unread").with_ext("offset", 0);
    assert_unread_answers_are_bounded(&broker, &store, &view, 200);
    broker.assert_quiet(&[]);
}

#[test]
fn unread_answers_of_pulls_are_bounded() {
    // Goal: however many connections pull and read nothing, their answers together stay within the budget of buffers; others are
    // served, and who reads in the end gets every answer. Method: 100 connections ask for 7 MB each, half of them from the ring and
    // half from the files; the answers of one are read.
    const CONNECTIONS: usize = 100;
    const PULLS: i32 = 30;
    // Memory that is no connection's: programs, stacks, blocks of cold reads, what the allocator keeps.
    const SLACK_MIB: u64 = 64;
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    // Little of what is not read stays with the kernel.
    let sets = [SMALL_MEMORY[0], SMALL_MEMORY[1], "shards=2", "serverSocketSndBufSize=65536", &metrics];
    let mut broker = store.start(&sets);
    broker.topic("pulled", 1);
    broker.topic("calm", 1);
    broker.group("deaf");
    let (queue, calm) = (broker.queue("pulled", 0), broker.queue("calm", 0));
    let mut client = broker.client();
    // Three times what the ring holds.
    for _ in 0..192 {
        client.send_to(&queue, &Message::new(vec![b'x'; 240 << 10])).expect("stored");
    }
    client.send_to(&calm, &Message::new("calm")).expect("stored");
    let before = broker.resident_bytes();
    let requests = |offset: i64| -> Vec<u8> {
        let pull = |opaque: i32| {
            let pull = Command::request(request::PULL_MESSAGE)
                .with_ext("consumerGroup", "deaf")
                .with_ext("topic", "pulled")
                .with_ext("queueId", 0)
                .with_ext("queueOffset", offset)
                .with_ext("maxMsgNums", 32)
                .with_ext("sysFlag", 4)
                .with_ext("commitOffset", 0)
                .with_ext("suspendTimeoutMillis", 0)
                .with_ext("subscription", "*")
                .with_ext("subVersion", 0)
                .with_ext("expressionType", "TAG");
            Command { opaque, ..pull }.encode()
        };
        (1..=PULLS).flat_map(pull).collect()
    };
    let (cold, tail) = (requests(0), requests(190));
    let mut deaf: Vec<TcpStream> = (0..CONNECTIONS)
        .map(|number| {
            let mut stream = TcpStream::connect(broker.address()).expect("connected");
            stream.write_all(if number % 2 == 0 { &cold } else { &tail }).expect("written");
            stream
        })
        .collect();
    let started = Instant::now();
    let mut is_short = false;
    while started.elapsed() < Duration::from_secs(3) || !is_short && started.elapsed() < PATIENCE {
        client.send_to(&calm, &Message::new("meanwhile")).expect("others are served");
        let pulled = client.pull(&calm, 0, 1, 0).expect("others are served");
        assert_eq!(pulled.status, PullStatus::Found);
        let used = broker.metric(&store, "ringmq_limit_buffer_bytes_used");
        let budget = broker.metric(&store, "ringmq_limit_buffer_bytes");
        assert!(used <= budget, "{used} of {budget} bytes in buffers");
        is_short |= used > budget / 2;
        let grown = broker.resident_bytes().saturating_sub(before) >> 20;
        assert!(grown <= (budget >> 20) + SLACK_MIB, "{grown} MiB more");
    }
    assert!(is_short, "the connections ask for more than there is");
    let one = deaf.swap_remove(1);
    let mut reader = BufReader::new(one);
    for opaque in 1..=PULLS {
        let answer = read_frame(&mut reader);
        // A message that is longer than what may be given while memory is short is refused with 2.
        assert!(answer.opaque == opaque && [0, 2].contains(&answer.code), "{} {}", answer.opaque, answer.code);
    }
    drop((reader, deaf));
    wait_for("free memory", || (broker.metric(&store, "ringmq_limit_buffer_bytes_used") < 1_000_000).then_some(()));
    let pulled = client.pull(&queue, 0, 32, 0).expect("served");
    assert_eq!(pulled.messages().count(), 1);
    broker.assert_quiet(&["memory for requests and answers is short"]);
}

#[test]
fn a_query_by_key_gives_no_more_than_a_client_takes() {
    // Goal: one answer has a bound in bytes, whole records, and at least one. Method: five messages of 4 MB with one key; three fit.
    let mut store = Store::new();
    let mut broker = store.start(&[]);
    broker.topic("large", 1);
    let queue = broker.queue("large", 0);
    let mut client = broker.client();
    for _ in 0..5 {
        client.send_to(&queue, &Message::new(vec![b'x'; 4_000_000]).with_key("same")).expect("stored");
    }
    let question = Command::request(request::QUERY_MESSAGE)
        .with_ext("topic", "large")
        .with_ext("key", "same")
        .with_ext("maxNum", 32)
        .with_ext("beginTimestamp", 0)
        .with_ext("endTimestamp", i64::MAX);
    let answer = broker.connection().call_ok(question).expect("an answer");
    let records = Records::new(answer.body.as_deref().expect("a body"), CrcCheck::Verify);
    assert_eq!(records.collect::<Result<Vec<_>, _>>().expect("whole records").len(), 3);
    broker.assert_quiet(&[]);
}

/// Smallest memory: 32 MiB for the buffers of connections.
const SMALL_MEMORY: [&str; 2] = ["memory=64 MiB", "cold_read_bytes=1 MiB"];

/// The first bytes of a request of 16 MiB that never comes.
fn half_frame(length: usize) -> Vec<u8> {
    let mut half = vec![0; length];
    half[..8].copy_from_slice(&[0, 0xff, 0xff, 0xfc, 0, 0, 0, 16]);
    half
}

#[test]
fn a_thousand_half_frames_disturb_nobody() {
    // Goal: when buffers use up their memory, those that hold most are not read, nobody who can go on is closed, and memory
    // returns when their frames time out. Method: 1,000 connections send 100 KiB of a long frame each, three times the budget; an
    // older and a newer client send small and large messages meanwhile; then the time-out is made short.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let mut broker = store.start(&[SMALL_MEMORY[0], SMALL_MEMORY[1], "frame_timeout=3600000", "shards=2", &metrics]);
    broker.topic("calm", 1);
    let queue = broker.queue("calm", 0);
    let mut older = broker.client();
    older.send_to(&queue, &Message::new("first")).expect("stored");
    let half = half_frame(100 << 10);
    let mut greedy = Vec::new();
    for number in 0..1_000 {
        let mut stream = TcpStream::connect(broker.address()).expect("accepted");
        stream.set_nonblocking(true).expect("an option");
        // What the kernel does not take is not read either.
        let _taken = stream.write(&half);
        greedy.push(stream);
        if number % 50 == 0 {
            older.send_to(&queue, &Message::new(vec![b'o'; 1_000])).expect("an older client is served");
        }
    }
    wait_for("short memory", || (broker.metric(&store, "ringmq_memory_pauses_total") > 0).then_some(()));
    let mut newer = broker.client();
    for _ in 0..20 {
        older.send_to(&queue, &Message::new(vec![b'o'; 1_000])).expect("an older client is served");
        newer.send_to(&queue, &Message::new(vec![b'n'; 1_000])).expect("a newer client is served");
    }
    newer.send_to(&queue, &Message::new(vec![b'l'; 2 << 20])).expect("a large message finds its way");
    let budget = broker.metric(&store, "ringmq_limit_buffer_bytes");
    assert!(broker.metric(&store, "ringmq_limit_buffer_bytes_used") <= 2 * budget);
    wait_for("a connection that waits", || (broker.metric(&store, "ringmq_starved_connections") > 0).then_some(()));
    let mut connection = broker.connection();
    let change = Command::request(request::UPDATE_BROKER_CONFIG).with_body(b"frame_timeout=1000\n".to_vec());
    connection.call_ok(change).expect("changed");
    wait_for("the end of all half frames", || {
        let freed = broker.metric(&store, "ringmq_limit_buffer_bytes_used") < 1_000_000;
        (freed && broker.metric(&store, "ringmq_frame_timeouts_total") >= 1_000).then_some(())
    });
    wait_for("an empty list", || (broker.metric(&store, "ringmq_starved_connections") == 0).then_some(()));
    older.send_to(&queue, &Message::new("last")).expect("stored");
    broker.assert_quiet(&["memory for requests and answers is short"]);
}

#[test]
fn large_requests_pass_although_memory_is_short() {
    // Goal: requests that together need more than all memory come in one after the other. Method: 24 connections send 3 MiB
    // messages at the same time into 32 MiB, after half frames took most of it; every one is stored.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let mut broker = store.start(&[SMALL_MEMORY[0], SMALL_MEMORY[1], "frame_timeout=3600000", "shards=1", &metrics]);
    broker.topic("large", 1);
    let queue = broker.queue("large", 0);
    let half = half_frame(64 << 10);
    let greedy: Vec<TcpStream> = (0..400)
        .map(|_| {
            let mut stream = TcpStream::connect(broker.address()).expect("accepted");
            stream.set_nonblocking(true).expect("an option");
            let _taken = stream.write(&half);
            stream
        })
        .collect();
    let mut senders: Vec<_> = (0..24).map(|_| broker.client()).collect();
    std::thread::scope(|scope| {
        for sender in &mut senders {
            let queue = &queue;
            scope.spawn(move || sender.send_to(queue, &Message::new(vec![b'l'; 3 << 20])).expect("stored"));
        }
    });
    assert_eq!(senders[0].max_offset(&queue).expect("an answer"), 24);
    drop(greedy);
    broker.assert_quiet(&["memory for requests and answers is short"]);
}

#[test]
fn the_metrics_page_is_well_formed() {
    // Goal: a page that Prometheus reads, with each name once and values that move. Method: send, then look at all lines.
    let mut store = Store::new();
    let metrics = metrics_setting(&store);
    let broker = store.start(&["shards=2", &metrics]);
    broker.topic("counted", 1);
    let queue = broker.queue("counted", 0);
    let mut client = broker.client();
    for number in 0..10 {
        client.send_to(&queue, &Message::new(format!("{number}"))).expect("stored");
    }
    wait_for("the counters", || (broker.metric(&store, "ringmq_send_messages_total") >= 10).then_some(()));
    let page = broker.metrics_page(&store);
    let mut names = HashSet::new();
    let mut samples = HashSet::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix("# TYPE ") {
            assert!(names.insert(name.split(' ').next().expect("a name")), "declared twice: {line}");
        } else if !line.starts_with('#') {
            let (sample, number) = line.rsplit_once(' ').expect("a sample");
            assert!(number.parse::<f64>().is_ok(), "{line}");
            assert!(samples.insert(sample), "sampled twice: {line}");
        }
    }
    assert!(broker.metric(&store, "ringmq_send_latency_seconds_count") >= 10);
    assert!(broker.metric(&store, "ringmq_limit_connections_used") >= 1);
    assert!(broker.metric(&store, "ringmq_limit_memory_bytes") > 0);
}

#[test]
fn a_live_change_of_the_message_size_acts_at_once() {
    // Goal: code 25 reaches the shards. Method: a message that is accepted, a smaller bound, the same message again.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("sized", 1);
    let queue = broker.queue("sized", 0);
    let mut client = broker.client();
    let message = Message::new(vec![b'x'; 2_000]);
    client.send_to(&queue, &message).expect("stored");
    let mut connection = broker.connection();
    let change = |text: &str| Command::request(request::UPDATE_BROKER_CONFIG).with_body(text.as_bytes().to_vec());
    connection.call_ok(change("maxMessageSize=1000\n")).expect("changed");
    client.send_to(&queue, &message).expect_err("too large now");
    connection.call_ok(change("maxMessageSize=4000\n")).expect("changed");
    client.send_to(&queue, &message).expect("stored");
}

#[test]
fn held_pulls_are_capped() {
    // Goal: past max_held_pulls a pull is answered at once instead of waiting. Method: no pull may wait; one that wants to.
    let mut store = Store::new();
    let broker = store.start(&["max_held_pulls=1", "shards=1"]);
    broker.topic("held", 1);
    let pull = || {
        let pull = Command::request(request::PULL_MESSAGE)
            .with_ext("consumerGroup", "holders")
            .with_ext("topic", "held")
            .with_ext("queueId", 0)
            .with_ext("queueOffset", 0)
            .with_ext("maxMsgNums", 1)
            .with_ext("sysFlag", 6)
            .with_ext("commitOffset", 0)
            .with_ext("suspendTimeoutMillis", 50_000)
            .with_ext("subscription", "*")
            .with_ext("subVersion", 0);
        pull.with_ext("expressionType", "TAG")
    };
    let mut first = broker.connection();
    first.submit(pull()).expect("written");
    assert!(first.wait_any(Duration::from_millis(500)).expect("alive").is_none(), "the first pull waits");
    let answer = broker.connection().call_within(pull(), Duration::from_secs(20)).expect("answered at once");
    assert_eq!(answer.code, ringmq_protocol::codes::response::PULL_NOT_FOUND);
}
