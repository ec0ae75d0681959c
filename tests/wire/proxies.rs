//! Connections that a proxy passes on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ringmq::client::requests;
use ringmq_protocol::bodies::{ConsumerConnection, JsonBody};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};

use super::broker::{PATIENCE, Store};
use super::consumers::heartbeat;

/// A version 2 header for a connection from 10.1.2.3:50000, with something behind the addresses.
fn binary_header() -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10".to_vec();
    header.extend_from_slice(&[10, 1, 2, 3, 127, 0, 0, 1, 0xc3, 0x50, 0x2a, 0x9f]);
    header.extend_from_slice(b"\x04\0\x01x");
    header
}

fn read_answer(stream: &mut TcpStream) -> Command {
    let mut bytes = Vec::new();
    loop {
        if let Ok(Split::Frame { frame, .. }) = split_frame(&bytes, MAX_FRAME_BYTES) {
            return Command::decode(frame).expect("an answer");
        }
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        bytes.push(byte[0]);
    }
}

/// What tools are told of the only member of a group.
fn member_address(broker: &super::broker::Broker, group: &str) -> String {
    let ask = Command::request(request::GET_CONSUMER_CONNECTION_LIST).with_ext("consumerGroup", group);
    let answer = broker.connection().call_ok(ask).expect("a member");
    let list = ConsumerConnection::decode(&answer.body.expect("a body")).expect("a list").connection_set;
    assert_eq!(list.len(), 1);
    list[0].client_addr.clone()
}

#[test]
fn a_proxy_tells_whose_connection_it_is() {
    // Goal: a connection with the header of a proxy in front is served on every port, and tools see the client's address; without an
    // address they see the proxy's. Method: headers of both versions, with requests behind them in one piece, in two, and byte by byte.
    let mut store = Store::new();
    let broker = store.start(&["shards=2"]);
    broker.topic("proxied", 1);
    let text = b"PROXY TCP4 10.1.2.3 127.0.0.1 50000 10911\r\n".to_vec();
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    let ports = [broker.address(), broker.fast_address()];
    let mut number = 0;
    for (header, source) in [(text, Some("10.1.2.3:50000")), (binary_header(), Some("10.1.2.3:50000")), (unknown, None)]
    {
        for (address, step) in
            ports.iter().flat_map(|address| [usize::MAX, header.len(), 1].map(|step| (address, step)))
        {
            number += 1;
            let group = format!("group-{number}");
            let mut stream = TcpStream::connect(address).expect("it listens");
            stream.set_nodelay(true).expect("an option");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let beat = requests::heartbeat(&heartbeat("client", &group, "proxied", "*"));
            let bytes = [&header[..], &beat.encode()].concat();
            for piece in bytes.chunks(step.min(bytes.len())) {
                stream.write_all(piece).expect("written");
                if step < usize::MAX {
                    thread::sleep(Duration::from_micros(100));
                }
            }
            while !read_answer(&mut stream).is_response() {}
            let own = stream.local_addr().expect("an address").to_string();
            assert_eq!(member_address(&broker, &group), source.unwrap_or(&own), "in pieces of {step}");
        }
        let mut stream = TcpStream::connect(broker.name_server()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&[&header[..], &requests::route("proxied").encode()].concat()).expect("written");
        assert_eq!(read_answer(&mut stream).code, response::SUCCESS);
    }
}

#[test]
fn a_bad_header_of_a_proxy_closes_its_connection() {
    // Goal: a header that is malformed, endless, late or doubled ends its connection without an answer. Method: each of them; then a
    // half one with a time-out of a second.
    let mut store = Store::new();
    let broker = store.start(&["frame_timeout=1 s"]);
    let header = binary_header();
    let request = requests::route("proxied").encode();
    let cases = [
        b"PROXY TCP4 here there 1 2\r\n".to_vec(),
        [&b"PROXY UNKNOWN "[..], &[b'x'; 200]].concat(),
        [&header[..12], b"\x11\x11\0\0"].concat(),
        [&header[..], &header, &request].concat(),
        [&request[..], b"PROXY UNKNOWN\r\n"].concat(),
        header[..20].to_vec(),
        b"PRO".to_vec(),
    ];
    for address in [broker.address(), broker.name_server()] {
        for (number, bytes) in cases.iter().enumerate() {
            let mut stream = TcpStream::connect(&address).expect("it listens");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            stream.write_all(bytes).expect("written");
            let mut answer = Vec::new();
            // Closed with our bytes unread, or in order.
            let ended = stream.read_to_end(&mut answer);
            assert!(ended.is_ok() || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset));
            assert!(answer.is_empty() || number == 4, "case {number} is answered");
        }
    }
}
