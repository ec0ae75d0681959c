//! The hot path must not touch the heap: a counting allocator watches one send and one pull from frame to response.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringmq_protocol::batch::BatchReader;
use ringmq_protocol::command::{Command, SerializeType};
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};
use ringmq_protocol::header::HeaderDecoder;
use ringmq_protocol::message_id::MessageIdPrefix;
use ringmq_protocol::properties::rewrite_properties;
use ringmq_protocol::pull::{PullHeader, PullResult, write_pull_response_head};
use ringmq_protocol::record::{CrcCheck, RecordFields, RecordView, bind_record, encode_record, record_length};
use ringmq_protocol::response::write_error;
use ringmq_protocol::send::{MessageIds, SendHeader, SendResult, write_send_response};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`, and `pointer` came from `System`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Scratch {
    decoder: HeaderDecoder,
    properties: Vec<u8>,
    log: Vec<u8>,
    out: Vec<u8>,
}

fn serve(bytes: &[u8], scratch: &mut Scratch) {
    let Ok(Split::Frame { frame, .. }) = split_frame(bytes, MAX_FRAME_BYTES) else { panic!("no frame") };
    let header = scratch.decoder.decode_frame(&frame).unwrap();
    scratch.out.clear();
    if header.code == 11 {
        let pull = PullHeader::decode(&header).unwrap();
        let result = PullResult { next_begin_offset: pull.queue_offset + 1, ..PullResult::default() };
        write_pull_response_head(
            &mut scratch.out,
            header.serialize_type,
            header.opaque,
            0,
            Some("FOUND"),
            &result,
            100,
        );
        return;
    }
    let send = SendHeader::decode(header.code, &header).unwrap();
    scratch.properties.clear();
    let additions = [("MSG_REGION", "DefaultRegion"), ("TRACE_ON", "true"), ("CLUSTER", "DefaultCluster")];
    let summary = rewrite_properties(send.properties.as_bytes(), &["POP_CK"], &additions, &mut scratch.properties);
    let host = ([127, 0, 0, 1], 10911).into();
    let fields = RecordFields {
        topic: send.topic,
        queue_id: 0,
        flag: send.flag,
        sys_flag: send.sys_flag,
        born_timestamp: send.born_timestamp,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body: frame.body,
        body_crc: None,
        properties: &scratch.properties,
    };
    let record = &mut scratch.log[..record_length(&fields)];
    encode_record(&fields, record);
    bind_record(record, 1, 4096, 1_700_000_000_000);
    assert!(RecordView::parse(record, CrcCheck::Verify).unwrap().tags_code() != 0);
    let result = SendResult {
        message_ids: MessageIds { prefix: &MessageIdPrefix::of(host), physical_offsets: &[4096, 5000] },
        queue_id: 0,
        queue_offset: 1,
        transaction_id: summary.unique_key.and_then(|range| range.text_of(&scratch.properties)),
        region_id: "DefaultRegion",
        trace_on: true,
    };
    write_send_response(&mut scratch.out, header.serialize_type, header.opaque, 0, None, &result);
    write_error(&mut scratch.out, header.serialize_type, header.opaque, 2, "busy", &[("TRACE_ON", "true")]);
    assert_eq!(BatchReader::new(frame.body).filter(Result::is_ok).count(), 0);
}

/// Goal: no allocation per message once the scratch has grown. Method: each request is served twice, the second time under
/// count.
#[test]
fn hot_path_does_not_allocate() {
    let mut scratch =
        Scratch { decoder: HeaderDecoder::new(), properties: Vec::new(), log: vec![0; 4096], out: Vec::new() };
    let properties =
        "KEYS\u{1}k\u{2}UNIQ_KEY\u{1}7F0000010001AABBCCDD000000010000\u{2}WAIT\u{1}true\u{2}TAGS\u{1}TagA\u{2}";
    let mut send = Command::request(310).with_body(b"hello".to_vec()).with_ext("i", properties);
    for (key, value) in
        [("a", "pg"), ("b", "TopicTest"), ("c", "TBW102"), ("d", "4"), ("e", "0"), ("f", "0"), ("g", "1"), ("h", "0")]
    {
        send = send.with_ext(key, value);
    }
    let mut pull = Command::request(11).with_ext("consumerGroup", "g").with_ext("topic", "TopicTest");
    for key in ["queueId", "queueOffset", "maxMsgNums", "sysFlag", "commitOffset", "suspendTimeoutMillis", "subVersion"]
    {
        pull = pull.with_ext(key, 7);
    }
    for serialize_type in [SerializeType::Json, SerializeType::RocketMq] {
        for mut command in [send.clone(), pull.clone()] {
            command.serialize_type = serialize_type;
            let bytes = command.encode();
            serve(&bytes, &mut scratch);
            let before = ALLOCATIONS.with(Cell::get);
            assert!(before > 0, "the counter counts");
            serve(&bytes, &mut scratch);
            assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "code {} as {serialize_type:?}", command.code);
        }
    }
}
