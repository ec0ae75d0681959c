//! The RocketMQ remoting protocol and the bytes of stored messages: frames, headers, codes, properties, records,
//! message ids and JSON bodies. No I/O, no clock, no threads.

pub mod bodies;
pub mod codes;
pub mod command;
pub mod flags;
pub mod frame;
pub mod header;
pub mod json;
pub mod language;
mod lenient;
mod scan;
pub mod text;
pub mod version;
pub mod writer;
