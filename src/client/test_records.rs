//! Stored records for the tests of this room.

use ringmq_protocol::record::{RecordFields, bind_record, encode_record, record_length};

/// A record of topic `t` at offset 7 of queue 2.
pub fn record(sys_flag: i32, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let host = "127.0.0.1:1".parse().expect("an address");
    let fields = RecordFields {
        topic: "t",
        queue_id: 2,
        flag: 0,
        sys_flag,
        born_timestamp: 1,
        born_host: host,
        store_host: host,
        reconsume_times: 0,
        prepared_transaction_offset: 0,
        body,
        body_crc: None,
        properties,
    };
    let mut bytes = vec![0; record_length(&fields)];
    encode_record(&fields, &mut bytes);
    bind_record(&mut bytes, 7, 0, 1);
    bytes
}
