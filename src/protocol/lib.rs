//! The RocketMQ remoting protocol and the bytes of stored messages: frames, headers, codes, properties, records,
//! message ids and JSON bodies. No I/O, no clock, no threads.

pub mod bodies;
pub mod json;
