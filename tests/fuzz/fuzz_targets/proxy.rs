//! Runs `ringmq_protocol::fuzz::proxy` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmq_protocol::fuzz::proxy(data));
