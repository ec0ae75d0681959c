//! Runs `ringmq_protocol::json::fuzz::parse_and_write` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmq_protocol::json::fuzz::parse_and_write(data));
