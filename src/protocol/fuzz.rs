//! What must hold for arbitrary bytes, as plain functions: fuzz targets call them, and the ordinary tests replay the
//! committed corpus through them. Each panics if an invariant is broken.

use std::collections::BTreeMap;

use crate::batch::{BATCH_ENTRY_OVERHEAD_BYTES, BatchReader, write_batch_entry};
use crate::command::{Command, SerializeType};
use crate::frame::{FRAME_PREFIX_BYTES, MAX_FRAME_BYTES, Split, split_frame};
use crate::header::HeaderDecoder;
use crate::properties::{
    PROPERTY_SEPARATOR, find_property, names, properties as pairs, rewrite_properties, scan_properties,
};
use crate::proxy::{MAX_BINARY_BYTES, Start, may_begin_with, read_start};
use crate::pull::PullHeader;
use crate::record::{
    CrcCheck, RecordError, RecordFields, RecordScout, RecordView, bind_record, encode_record, record_length,
};
use crate::send::SendHeader;

/// One fuzz target: its name, which is its folder in the corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("frame", frame),
    ("header", header),
    ("record", record),
    ("properties", properties),
    ("batch", batch),
    ("json", crate::json::fuzz::parse_and_write),
    ("register_body", crate::bodies::fuzz_register_body),
    ("proxy", proxy),
];

/// Frames are cut inside the buffer and never from a part of their bytes; what decodes also encodes, and stays equal.
pub fn frame(data: &[u8]) {
    let Ok(Split::Frame { frame, length }) = split_frame(data, MAX_FRAME_BYTES) else { return };
    assert!(length <= data.len() && length <= MAX_FRAME_BYTES);
    assert_eq!(FRAME_PREFIX_BYTES + frame.header.len() + frame.body.len(), length);
    for end in [0, 3, 4, 7, 8, length - 1] {
        assert!(matches!(split_frame(&data[..end.min(length - 1)], MAX_FRAME_BYTES), Ok(Split::NeedMore { .. })));
    }
    let Ok(command) = Command::decode(frame) else { return };
    // The first encoding may lose what its form cannot carry: an unknown language, empty binary values.
    let first = decode_again(&command);
    assert_eq!(
        (first.code, first.opaque, first.flag, &first.body),
        (command.code, command.opaque, command.flag, &command.body)
    );
    assert_eq!(decode_again(&first), first);
}

fn decode_again(command: &Command) -> Command {
    let bytes = command.encode();
    match split_frame(&bytes, usize::MAX) {
        Ok(Split::Frame { frame, length }) if length == bytes.len() => {
            Command::decode(frame).expect("what was encoded decodes")
        }
        other => panic!("an encoded command is one frame, not {other:?}"),
    }
}

/// A header of a proxy is bounded, known from its own bytes alone, and never seen where a frame may begin; what its beginning says of
/// its length is true.
pub fn proxy(data: &[u8]) {
    let start = read_start(data);
    if let Some(first) = data.first().filter(|first| !may_begin_with(**first)) {
        assert_eq!(start, Ok(Start::Frames), "begins with {first}");
    }
    match start {
        Ok(Start::Header { length, source }) => {
            assert!(length <= data.len() && length <= MAX_BINARY_BYTES);
            assert!(source.is_none_or(|source| source.port() > 0));
            assert_eq!(read_start(&data[..length]), start);
            for end in [0, 1, 6, 12, 15, 16, length / 2, length - 1] {
                let beginning = read_start(&data[..end.min(length - 1)]);
                let Ok(Start::NeedMore { total }) = beginning else { panic!("{beginning:?}") };
                assert!(total.is_none_or(|total| total == length));
            }
        }
        Ok(Start::NeedMore { total }) => {
            assert!(
                data.len() < total.unwrap_or(MAX_BINARY_BYTES) && total.is_none_or(|total| total <= MAX_BINARY_BYTES)
            );
        }
        // More bytes change nothing.
        Ok(Start::Frames) | Err(_) => assert_eq!(read_start(&[data, b"\r\nmore"].concat()), start),
    }
}

/// Decoding never panics, and the strict JSON path agrees with the lenient parser. An even first byte means JSON.
pub fn header(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let serialize_type = if kind % 2 == 0 { SerializeType::Json } else { SerializeType::RocketMq };
    let mut decoder = HeaderDecoder::new();
    let decoded = decoder.decode(serialize_type, bytes).map(|header| {
        for (key, value) in header.fields() {
            assert!(header.get(key).is_some());
            // Later duplicates win, so the last field of a key is what `get` finds.
            assert!(header.fields().filter(|field| field.0 == key).last().map(|field| field.1) == header.get(key));
            std::hint::black_box(value);
            if header.fields().len() > 64 {
                break;
            }
        }
        std::hint::black_box((SendHeader::decode(10, &header).is_ok(), SendHeader::decode(310, &header).is_ok()));
        std::hint::black_box(PullHeader::decode(&header).is_ok());
        header.to_command(&[])
    });
    if serialize_type == SerializeType::Json {
        let lenient = decoder.decode_lenient(bytes).map(|header| header.to_command(&[]));
        assert_eq!(decoded, lenient);
    }
}

/// A record that parses lies inside its bytes, and the fields that it shows make an equal record.
pub fn record(data: &[u8]) {
    RecordScout::new(data).pass_record(data.len());
    let skipped = RecordView::parse(data, CrcCheck::Skip);
    let verified = RecordView::parse(data, CrcCheck::Verify);
    let view = match (skipped, verified) {
        (Ok(view), Ok(_)) => view,
        (Ok(_), Err(error)) => {
            assert!(matches!(error, RecordError::Corrupt(crate::record::Corruption::BodyCrc { .. })));
            return;
        }
        (Err(one), other) => {
            assert_eq!(Some(one), other.err());
            return;
        }
    };
    assert!(view.total_size() <= data.len());
    std::hint::black_box((view.tags_code(), view.keys(), view.unique_key(), view.property_summary()));
    let fields = RecordFields {
        topic: view.topic(),
        queue_id: u32::from_be_bytes(view.queue_id().to_be_bytes()),
        flag: view.flag(),
        sys_flag: view.sys_flag(),
        born_timestamp: view.born_timestamp(),
        born_host: view.born_host(),
        store_host: view.store_host(),
        reconsume_times: view.reconsume_times(),
        prepared_transaction_offset: view.prepared_transaction_offset(),
        body: view.body(),
        body_crc: None,
        properties: view.properties(),
    };
    let mut bytes = vec![0; record_length(&fields)];
    encode_record(&fields, &mut bytes);
    bind_record(&mut bytes, view.queue_offset(), view.physical_offset(), view.store_timestamp());
    let again = RecordView::parse(&bytes, CrcCheck::Verify).expect("what was encoded parses");
    assert_eq!((again.topic(), again.body(), again.properties()), (view.topic(), view.body(), view.properties()));
    assert_eq!((again.queue_id(), again.flag()), (view.queue_id(), view.flag()));
    assert_eq!((again.queue_offset(), again.physical_offset()), (view.queue_offset(), view.physical_offset()));
    assert_eq!((again.store_timestamp(), again.born_timestamp()), (view.store_timestamp(), view.born_timestamp()));
    assert_eq!(again.store_host().ip().to_canonical(), view.store_host().ip().to_canonical());
    assert_eq!(again.born_host().ip().to_canonical(), view.born_host().ip().to_canonical());
    assert_eq!(
        (again.born_host().port(), again.store_host().port()),
        (view.born_host().port(), view.store_host().port())
    );
    assert_eq!(again.reconsume_times(), view.reconsume_times());
    assert_eq!(again.prepared_transaction_offset(), view.prepared_transaction_offset());
}

/// Rewriting keeps exactly the last value of each valid name, is stable, and its summary points at the values.
pub fn properties(data: &[u8]) {
    let expected: BTreeMap<&[u8], &[u8]> = pairs(data).collect();
    let mut out = Vec::new();
    let summary = rewrite_properties(data, &[], &[], &mut out);
    assert_eq!(pairs(&out).collect::<BTreeMap<_, _>>(), expected);
    assert_eq!(pairs(&out).count(), expected.len());
    assert!(out.is_empty() || out.last() == Some(&PROPERTY_SEPARATOR));
    assert_eq!(summary, scan_properties(&out));
    let scanned = scan_properties(data);
    for (name, range, rewritten) in [
        (names::TAGS, scanned.tags, summary.tags),
        (names::KEYS, scanned.keys, summary.keys),
        (names::UNIQ_KEY, scanned.unique_key, summary.unique_key),
    ] {
        assert_eq!(range.map(|range| range.of(data)), find_property(data, name));
        assert_eq!(rewritten.map(|range| range.of(&out)), find_property(data, name));
    }
    let mut again = Vec::new();
    rewrite_properties(&out, &[], &[], &mut again);
    assert_eq!(again, out);
    let mut changed = Vec::new();
    rewrite_properties(data, &[names::TAGS], &[(names::KEYS, "k")], &mut changed);
    assert_eq!(find_property(&changed, names::TAGS), None);
    assert_eq!(find_property(&changed, names::KEYS), Some(&b"k"[..]));
}

/// Reading a batch ends, stays inside it, and without an error accounts for every byte.
pub fn batch(data: &[u8]) {
    let mut rewritten = Vec::new();
    let mut count = 0;
    for entry in BatchReader::new(data) {
        count += 1;
        assert!(count <= data.len() / BATCH_ENTRY_OVERHEAD_BYTES + 1);
        let Ok(entry) = entry else { return };
        write_batch_entry(&mut rewritten, &entry);
    }
    assert_eq!(rewritten.len(), data.len());
    assert!(BatchReader::new(&rewritten).eq(BatchReader::new(data)));
}
