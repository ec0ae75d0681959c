//! Runs `ringmq_protocol::bodies::fuzz_register_body` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmq_protocol::bodies::fuzz_register_body(data));
