//! Measures the decoding of a typical V2 send header: `cargo run --release -p ringmq-protocol --example header_scan`.
//! An argument selects the measurements whose names begin with it.

use std::hint::black_box;
use std::time::Instant;

use ringmq_protocol::frame::SerializeType;
use ringmq_protocol::header::HeaderDecoder;
use ringmq_protocol::properties::{rewrite_properties, scan_properties};
use ringmq_protocol::send::SendHeader;

const HEADER: &[u8] = br#"{"code":310,"extFields":{"a":"please_rename_unique_group_name","b":"TopicTest","c":"TBW102","d":"4","e":"1","f":"0","g":"1700000000000","h":"0","i":"KEYS\u0001OrderID188\u0002UNIQ_KEY\u00017F0000010001AABBCCDD000000010000\u0002WAIT\u0001true\u0002TAGS\u0001TagA\u0002","j":"0","k":"false","m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":12345,"serializeTypeCurrentRPC":"JSON","version":479}"#;

fn measure(name: &str, mut step: impl FnMut()) {
    const ROUNDS: u32 = 200_000;
    if std::env::args().nth(1).is_some_and(|wanted| !name.starts_with(&wanted)) {
        return;
    }
    let mut best = f64::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            step();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(ROUNDS));
    }
    println!("{name:<28} {best:7.1} ns");
}

fn main() {
    println!("{} header bytes", HEADER.len());
    let mut decoder = HeaderDecoder::new();
    measure("UTF-8 check alone", || {
        black_box(std::str::from_utf8(black_box(HEADER)).is_ok());
    });
    measure("header, strict", || {
        black_box(decoder.decode(SerializeType::Json, black_box(HEADER)).is_ok());
    });
    let mut decoder = HeaderDecoder::new();
    measure("header, lenient", || {
        black_box(decoder.decode_lenient(black_box(HEADER)).is_ok());
    });
    let mut decoder = HeaderDecoder::new();
    measure("header, strict, and fields", || {
        if let Ok(header) = decoder.decode(SerializeType::Json, black_box(HEADER)) {
            black_box(SendHeader::decode(310, &header).is_ok());
        }
    });
    let properties =
        b"KEYS\x01OrderID188\x02UNIQ_KEY\x017F0000010001AABBCCDD000000010000\x02WAIT\x01true\x02TAGS\x01TagA\x02";
    measure("scan properties", || {
        black_box(scan_properties(black_box(properties)));
    });
    let mut out = Vec::new();
    let additions = [("MSG_REGION", "DefaultRegion"), ("TRACE_ON", "true"), ("CLUSTER", "DefaultCluster")];
    measure("rewrite properties", || {
        out.clear();
        black_box(rewrite_properties(black_box(properties), &["POP_CK"], &additions, &mut out));
    });
}
