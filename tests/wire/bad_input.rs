//! Peers that send what they should not. Their connection is closed, nothing is answered, everybody else goes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ringmq::client::requests;
use ringmq::client::{Connection, Message};
use ringmq_protocol::command::{Command, SerializeType};

use super::broker::{PATIENCE, Store, until_closed, wait_for};

fn raw(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// A frame with any bytes as its header.
fn frame(serialize_type: u8, header: &[u8]) -> Vec<u8> {
    let length = u32::try_from(header.len()).expect("short");
    let mut bytes = (length + 4).to_be_bytes().to_vec();
    bytes.push(serialize_type);
    bytes.extend_from_slice(&length.to_be_bytes()[1..]);
    bytes.extend_from_slice(header);
    bytes
}

/// The header of the next answer, which has no body.
fn read_header(stream: &mut TcpStream) -> String {
    let mut start = [0; 8];
    stream.read_exact(&mut start).expect("an answer");
    let length = u32::from_be_bytes([0, start[5], start[6], start[7]]);
    let mut header = vec![0; usize::try_from(length).expect("small")];
    stream.read_exact(&mut header).expect("an answer");
    String::from_utf8_lossy(&header).into_owned()
}

fn query() -> Command {
    requests::max_offset("any", 0)
}

#[test]
fn malformed_frames_close_their_connection_only() {
    // Goal: what cannot be decoded ends its connection without an answer and touches nobody else. Method: one new
    // connection per mistake to broker and name server, while an older connection keeps asking.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    let mut good = broker.connection();
    let binary = Command { serialize_type: SerializeType::RocketMq, ..query() }.encode();
    let mut negative_text_length = binary.clone();
    negative_text_length[8 + 13..8 + 17].copy_from_slice(&(-1i32).to_be_bytes());
    let mut long_text_length = binary.clone();
    long_text_length[8 + 13..8 + 17].copy_from_slice(&1_000_000i32.to_be_bytes());
    let mut cut_binary = frame(1, &binary[8..20]);
    cut_binary.extend_from_slice(&[0; 4]);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a negative length", (-1i32).to_be_bytes().to_vec()),
        ("the most negative length", i32::MIN.to_be_bytes().to_vec()),
        ("a length below 4", [0, 0, 0, 3, 0, 0, 0].to_vec()),
        ("a length of 0", [0; 8].to_vec()),
        ("a frame above the limit", (16_777_213u32).to_be_bytes().to_vec()),
        ("the largest length", i32::MAX.to_be_bytes().to_vec()),
        ("a header longer than its frame", [0, 0, 0, 10, 0, 0, 0, 7].to_vec()),
        ("an unknown serialize type", frame(2, b"{}")),
        ("serialize type 255", frame(255, b"{}")),
        ("no JSON", frame(0, b"hello")),
        ("an empty header", frame(0, b"")),
        ("JSON that ends early", frame(0, br#"{"code":11,"#)),
        ("JSON that is no object", frame(0, b"[1,2,3]")),
        ("bad UTF-8", frame(0, b"{\"code\":30,\"extFields\":{\"topic\":\"\xff\xfe\"}}")),
        ("a binary header that ends early", cut_binary),
        ("a negative length inside a binary header", negative_text_length),
        ("a length that leads out of a binary header", long_text_length),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("deep JSON", frame(0, &[b'['; 100_000])),
    ];
    for address in [broker.address(), broker.name_server()] {
        for (what, bytes) in &cases {
            let mut stream = raw(&address);
            stream.write_all(bytes).expect("written");
            let answer = until_closed(&mut stream);
            assert_eq!(answer, b"", "{what} at {address}");
            assert_eq!(good.call(query()).expect("an answer").code, 0, "after {what}");
        }
    }
}

#[test]
fn a_bad_frame_ends_a_connection_that_was_good() {
    // Goal: a connection's past does not save it. Method: a good request, its answer, then a bad frame.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut stream = raw(&broker.address());
    stream.write_all(&Command { opaque: 7, ..query() }.encode()).expect("written");
    let answer = read_header(&mut stream);
    assert!(answer.contains(r#""opaque":7"#), "{answer}");
    stream.write_all(&frame(9, b"{}")).expect("written");
    assert_eq!(until_closed(&mut stream), b"");
}

#[test]
fn lenient_headers_are_understood() {
    // Goal: headers as other clients write them are answered. Method: numbers as values, unquoted names, a trailing line
    // feed, unknown members, missing members.
    let mut store = Store::new();
    let broker = store.start(&[]);
    for header in [
        &br#"{"code":30,"extFields":{"topic":"any","queueId":0},"flag":0,"opaque":5}"#[..],
        br#"{"code":"30","extFields":{"topic":"any","queueId":"0","x":null},"opaque":"5"}"#,
        b"{\"code\":30,\"extFields\":{\"topic\":\"any\",\"queueId\":0},\"opaque\":5}\n",
        br#"{code:30,'extFields':{"topic":"any","queueId":"0",},"opaque":5,"junk":[{"a":1}],"language":"KLINGON"}"#,
    ] {
        let mut stream = raw(&broker.address());
        stream.write_all(&frame(0, header)).expect("written");
        let text = read_header(&mut stream);
        assert!(text.contains(r#""opaque":5"#) && text.contains(r#""code":0"#), "{text}");
    }
}

#[test]
fn truncated_frames_wait_and_then_end_with_their_connection() {
    // Goal: a peer that goes away in the middle of a frame leaves nothing behind. Method: every prefix of a request, each
    // over a connection of its own that closes; another connection keeps working.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut good = broker.connection();
    let request = query().encode();
    for end in 0..request.len() {
        raw(&broker.address()).write_all(&request[..end]).expect("written");
    }
    assert_eq!(good.call(query()).expect("an answer").code, 0);
    // A peer that closes its half is still answered, or told that it is over.
    let mut half = raw(&broker.address());
    half.write_all(&request).expect("written");
    half.shutdown(std::net::Shutdown::Write).expect("shut down");
    until_closed(&mut half);
    assert_eq!(good.call(query()).expect("an answer").code, 0);
}

#[test]
fn half_frames_on_many_connections_take_bounded_memory() {
    // Goal: announced lengths cost nothing, and unfinished frames are bounded. Method: 500 connections announce frames of
    // 16 MiB and send 1 MiB of each; the process takes less than half of what was sent, and others are served.
    const CONNECTIONS: usize = 500;
    const SENT_BYTES: usize = 1 << 20;
    const ALLOWED_BYTES: u64 = 250 << 20;
    let mut store = Store::new();
    let mut broker = store.start(&["shards=2", "memory=256 MiB"]);
    broker.topic("bounded", 1);
    let before = broker.resident_bytes();
    let mut half = vec![0; SENT_BYTES];
    half[..8].copy_from_slice(&[0, 0xff, 0xff, 0xfc, 0, 0, 0, 16]);
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = raw(&broker.address());
        stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        // The broker may stop reading or close a connection: that is how it keeps its bound.
        let _ = stream.write_all(&half);
        open.push(stream);
    }
    let mut client = broker.client();
    client.send_to(&broker.queue("bounded", 0), &Message::new("served")).expect("stored");
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < ALLOWED_BYTES, "{grown} bytes more");
    drop(open);
    assert_eq!(client.max_offset(&broker.queue("bounded", 0)).expect("an answer"), 1);
    broker.assert_quiet(&["memory for requests and answers is short"]);
}

#[test]
fn idle_connections_and_small_half_frames_are_cheap() {
    // Goal: many connections cost little each. Method: 500 connections send half of a small request and stay; all of them
    // are answered when the rest comes.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    let before = broker.resident_bytes();
    let request = query().encode();
    let (first, rest) = request.split_at(request.len() / 2);
    let mut open: Vec<TcpStream> = (0..500)
        .map(|_| {
            let mut stream = raw(&broker.address());
            stream.write_all(first).expect("written");
            stream
        })
        .collect();
    for stream in &mut open {
        stream.write_all(rest).expect("written");
    }
    for stream in &mut open {
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("an answer");
        assert!(u32::from_be_bytes(length) > 4);
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes more");
}

#[test]
fn a_request_that_drips_in_is_answered() {
    // Goal: slow peers are served and slow nobody down. Method: one request byte by byte with pauses, while another
    // connection asks in between.
    let mut store = Store::new();
    let broker = store.start(&[]);
    let mut good = Connection::open(&broker.address()).expect("it listens");
    let mut slow = raw(&broker.address());
    slow.set_nodelay(true).expect("an option");
    for byte in query().encode() {
        slow.write_all(&[byte]).expect("written");
        thread::sleep(Duration::from_millis(2));
        assert_eq!(good.call(query()).expect("an answer").code, 0);
    }
    let mut length = [0; 4];
    slow.read_exact(&mut length).expect("an answer");
    assert!(u32::from_be_bytes(length) > 4);
}

#[test]
fn a_peer_that_does_not_read_holds_up_nobody() {
    // Goal: answers that are not taken are bounded and slow no other connection down. Method: one connection asks for
    // much more than sockets buffer and reads nothing; others keep working and the process stays small.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("unread", 1);
    let mut client = broker.client();
    let queue = broker.queue("unread", 0);
    for _ in 0..8 {
        client.send_to(&queue, &Message::new(vec![7; 32 * 1024])).expect("stored");
    }
    let before = broker.resident_bytes();
    let mut deaf = raw(&broker.address());
    deaf.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    let wanted = requests::PullRequest::new("wire", "unread", 0, 0);
    client.pull_with(&queue.address, &wanted).expect("an answer");
    let pulls: Vec<u8> = (0..100_000).flat_map(|_| requests::pull(&wanted).encode()).collect();
    assert!(deaf.write_all(&pulls).is_err(), "25 GB of answers are not taken without a reader");
    for _ in 0..100 {
        assert_eq!(client.max_offset(&queue).expect("an answer"), 8);
    }
    let grown = broker.resident_bytes().saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes more");
}

#[test]
fn malformed_connections_do_not_fill_the_log() {
    // Goal: peers that send rubbish cost a line now and then, not one each; all are counted. Method: a hundred of them.
    let mut store = Store::new();
    let metrics = format!("metrics_listen={}", store.metrics_address());
    let broker = store.start(&[&metrics, "shards=1"]);
    for _ in 0..100 {
        let mut stream = raw(&broker.address());
        stream.write_all(&[0; 8]).expect("written");
        until_closed(&mut stream);
    }
    let refused = || broker.metric(&store, "ringmq_frames_refused_total");
    wait_for("all of them", || (refused() == 100).then_some(()));
    let log = broker.log_text();
    let lines = log.lines().filter(|line| line.contains("close a connection whose")).count();
    assert!((1..50).contains(&lines), "{lines} lines");
}
