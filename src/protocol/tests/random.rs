//! Property tests: what is encoded decodes to the same, and arbitrary bytes break nothing. proptest prints the seed and the
//! shrunk input of a failure and keeps it beside this file.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use ringmq_protocol::batch::{BatchEntry, BatchReader, write_batch_entry};
use ringmq_protocol::command::{Command, SerializeType};
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};
use ringmq_protocol::fuzz;
use ringmq_protocol::header::HeaderDecoder;
use ringmq_protocol::language;
use ringmq_protocol::message_id::{decode_message_id, encode_message_id};
use ringmq_protocol::properties::{properties, rewrite_properties};
use ringmq_protocol::proxy::{Start, read_start};
use ringmq_protocol::record::{CrcCheck, RecordFields, RecordView, bind_record, encode_record, record_length};

fn text() -> impl Strategy<Value = String> {
    // Any characters, and the ones that matter to the codecs more often.
    prop_oneof![any::<String>(), "[a-z\"\\\\\u{1}\u{2}\u{7f}\u{85}\u{2028}é中😀]{0,40}", "[A-Za-z0-9_%|-]{1,30}"]
}

fn command() -> impl Strategy<Value = Command> {
    let head = (any::<i32>(), 0..14usize, any::<i32>(), any::<i32>(), 0..4i32);
    let content = (option::of(text()), option::of(btree_map(text(), text(), 0..20)), vec(any::<u8>(), 0..50));
    (head, content).prop_map(|((code, language, version, opaque, flag), (remark, ext_fields, body))| Command {
        code,
        language: Some(language::ALL[language]),
        version,
        opaque,
        flag,
        remark,
        ext_fields,
        body: (!body.is_empty()).then_some(body),
        serialize_type: SerializeType::Json,
    })
}

fn decode(bytes: &[u8]) -> Command {
    match split_frame(bytes, MAX_FRAME_BYTES) {
        Ok(Split::Frame { frame, length }) if length == bytes.len() => Command::decode(frame).unwrap(),
        other => panic!("not one frame: {other:?}"),
    }
}

fn host() -> impl Strategy<Value = SocketAddr> {
    let v4 = any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
    let v6 = any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits | 1 << 127)));
    (prop_oneof![v4, v6], any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

proptest! {
    /// Goal: JSON commands survive. Method: any command, encoded and decoded.
    #[test]
    fn json_commands_round_trip(command in command()) {
        prop_assert_eq!(decode(&command.encode()), command);
    }

    /// Goal: what we write as JSON takes the strict path's answer from both parsers. Method: both decode any command.
    #[test]
    fn both_json_parsers_agree(command in command()) {
        let bytes = command.encode();
        let header_length = bytes.len() - 8 - command.body.as_ref().map_or(0, Vec::len);
        let header = &bytes[8..8 + header_length];
        let mut decoder = HeaderDecoder::new();
        let strict = decoder.decode(SerializeType::Json, header).map(|header| header.to_command(&[]));
        let lenient = decoder.decode_lenient(header).map(|header| header.to_command(&[]));
        prop_assert_eq!(strict, lenient);
    }

    /// Goal: binary commands survive but for what the form cannot carry. Method: as above, expectation adjusted.
    #[test]
    fn binary_commands_round_trip(mut command in command()) {
        command.serialize_type = SerializeType::RocketMq;
        let mut expected = command.clone();
        expected.code = i32::from(command.code as i16);
        expected.version = i32::from(command.version as i16);
        expected.remark = command.remark.clone().filter(|remark| !remark.is_empty());
        // A block of empty values is there, an empty block is not.
        let fields = command.ext_fields.clone().filter(|fields| !fields.is_empty());
        expected.ext_fields = fields.map(|mut fields: BTreeMap<String, String>| {
            fields.retain(|key, value| !key.is_empty() && !value.is_empty());
            fields
        });
        prop_assert_eq!(decode(&command.encode()), expected);
    }

    /// Goal: records survive. Method: any fields, encoded, bound and read.
    #[test]
    fn records_round_trip(
        topic in "[A-Za-z0-9_%-]{0,300}",
        (queue_id, flag, sys_flag, reconsume_times) in any::<(u32, i32, i32, i32)>(),
        (born_timestamp, prepared_transaction_offset) in any::<(i64, i64)>(),
        (born_host, store_host) in (host(), host()),
        (body, properties) in (vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..300)),
        (queue_offset, physical_offset, store_timestamp) in any::<(i64, i64, i64)>(),
    ) {
        let fields = RecordFields {
            topic: &topic, queue_id, flag, sys_flag, born_timestamp, born_host, store_host, reconsume_times,
            prepared_transaction_offset, body: &body, body_crc: None, properties: &properties,
        };
        let mut bytes = vec![0xaa; record_length(&fields)];
        encode_record(&fields, &mut bytes);
        bind_record(&mut bytes, queue_offset, physical_offset, store_timestamp);
        bytes.push(0xff);
        let view = RecordView::parse(&bytes, CrcCheck::Verify).unwrap();
        prop_assert_eq!(view.total_size() + 1, bytes.len());
        prop_assert_eq!((view.topic(), view.body(), view.properties()), (&*topic, &*body, &*properties));
        prop_assert_eq!((view.born_host(), view.store_host()), (born_host, store_host));
        prop_assert_eq!(view.sys_flag() & !0x30, sys_flag & !0x30);
        prop_assert_eq!((view.queue_id() as u32, view.flag(), view.reconsume_times()), (queue_id, flag, reconsume_times));
        prop_assert_eq!(
            (view.queue_offset(), view.physical_offset(), view.store_timestamp()),
            (queue_offset, physical_offset, store_timestamp)
        );
        prop_assert_eq!(
            (view.born_timestamp(), view.prepared_transaction_offset()),
            (born_timestamp, prepared_transaction_offset)
        );
    }

    /// Goal: damage never panics a parse, and never goes unnoticed in the body. Method: one byte of a record is changed.
    #[test]
    fn damaged_records_are_refused_or_differ(body in vec(any::<u8>(), 1..60), at in any::<prop::sample::Index>(), bit in 0..8u32) {
        let fields = RecordFields {
            topic: "T", queue_id: 0, flag: 0, sys_flag: 0, born_timestamp: 0, born_host: "1.2.3.4:5".parse().unwrap(),
            store_host: "1.2.3.4:5".parse().unwrap(), reconsume_times: 0, prepared_transaction_offset: 0, body: &body,
            body_crc: None, properties: b"A\x01b\x02",
        };
        let mut bytes = vec![0; record_length(&fields)];
        encode_record(&fields, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fuzz::record(&bytes);
        if (88..88 + body.len()).contains(&at) {
            prop_assert!(RecordView::parse(&bytes, CrcCheck::Verify).is_err());
        }
    }

    /// Goal: batches survive. Method: any entries, written and read.
    #[test]
    fn batches_round_trip(entries in vec((any::<i32>(), vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)), 0..8)) {
        let entries: Vec<_> =
            entries.iter().map(|(flag, body, properties)| BatchEntry { flag: *flag, body, properties }).collect();
        let mut bytes = Vec::new();
        entries.iter().for_each(|entry| write_batch_entry(&mut bytes, entry));
        prop_assert_eq!(BatchReader::new(&bytes).collect::<Result<Vec<_>, _>>(), Ok(entries));
    }

    /// Goal: rewriting equals what a map would do. Method: random strings over the marks and a few letters, against a map
    /// with the same removals and additions.
    #[test]
    fn rewriting_equals_a_map(input in "[ABC\u{1}\u{2}]{0,60}", many in any::<bool>()) {
        // A long string of pairs takes the path for many.
        let input = if many { input.repeat(40) } else { input };
        let mut out = Vec::new();
        rewrite_properties(input.as_bytes(), &["A"], &[("B", "b"), ("D", "")], &mut out);
        let mut expected: BTreeMap<&[u8], &[u8]> = properties(input.as_bytes()).collect();
        expected.remove(&b"A"[..]);
        expected.insert(b"B", b"b");
        prop_assert_eq!(properties(&out).count(), expected.len());
        prop_assert_eq!(properties(&out).collect::<BTreeMap<_, _>>(), expected);
        fuzz::properties(input.as_bytes());
    }

    /// Goal: ids survive. Method: any host and offset.
    #[test]
    fn message_ids_round_trip(host in host(), offset in any::<i64>()) {
        prop_assert_eq!(decode_message_id(&encode_message_id(host, offset)), Ok((host, offset)));
    }

    /// Goal: the header of a proxy tells the address that was written, and where frames begin. Method: any address in both versions,
    /// anything behind the addresses of the second, and bytes behind the header.
    #[test]
    fn proxy_headers_round_trip(host in host(), extra in vec(any::<u8>(), 0..40), behind in vec(any::<u8>(), 0..40)) {
        let (family, name) = if host.is_ipv4() { (0x11, "TCP4") } else { (0x21, "TCP6") };
        let text = format!("PROXY {name} {0} {0} {1} {1}\r\n", host.ip(), host.port()).into_bytes();
        let ip = match host.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let content = [&ip[..], &ip, &host.port().to_be_bytes(), &[0, 1], &extra].concat();
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let binary = [&b"\r\n\r\n\0\r\nQUIT\n\x21"[..], &[family], &length, &content].concat();
        for header in [text, binary] {
            let bytes = [&header[..], &behind].concat();
            let source = Some(host).filter(|host| host.port() > 0);
            prop_assert_eq!(read_start(&bytes), Ok(Start::Header { length: header.len(), source }));
            fuzz::proxy(&bytes);
        }
    }

    /// Goal: arbitrary bytes break nothing. Method: each fuzz target on random bytes, and on random text.
    #[test]
    fn random_bytes_hold_every_invariant(bytes in vec(any::<u8>(), 0..300), text in text()) {
        for (_, target) in fuzz::TARGETS {
            target(&bytes);
            target(text.as_bytes());
        }
    }

    /// Goal: near-JSON breaks nothing and the parsers agree. Method: random concatenations of JSON tokens.
    #[test]
    fn token_soup_holds_every_invariant(tokens in vec(
        prop::sample::select(vec![
            "{", "}", "[", "]", ":", ",", "\"", "'", "\\", "\\u0001", "\\ud83d", "\\ude00", "\"code\"", "\"extFields\":{",
            "\"remark\":\"", "\"a\":\"", "\"a\"", "1", "-", "0", "99999999999", "1.5", "e9", "true", "null", " ", "\n", "/*",
            "*/", "//", "code", "\"language\":", "\"JAVA\"", "\"flag\":2", "é",
        ]),
        0..40,
    )) {
        let mut bytes = vec![0];
        bytes.extend_from_slice(b"{");
        tokens.iter().for_each(|token| bytes.extend_from_slice(token.as_bytes()));
        fuzz::header(&bytes);
    }
}
