//! Stored records for the tests of this room.

use ringmq_protocol::record::{RecordFields, bind_record, encode_record, record_length};

/// A record of topic `t` at offset 7 of queue 2.
pub fn record(sys_flag: i32, properties: &[u8], body: &[u8]) -> Vec<u8> {
    let fields = RecordFields { sys_flag, ..RecordFields::plain("t", 2, body, properties) };
    let mut bytes = vec![0; record_length(&fields)];
    encode_record(&fields, &mut bytes);
    bind_record(&mut bytes, 7, 0, 1);
    bytes
}
