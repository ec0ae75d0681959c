//! The RocketMQ remoting protocol and the bytes of stored messages: frames, headers, codes, properties, records,
//! message ids and JSON bodies. No I/O, no clock, no threads.

pub mod batch;
pub mod bodies;
pub mod codes;
pub mod command;
pub mod exchange;
pub mod flags;
pub mod frame;
pub mod fuzz;
pub mod hash;
pub mod header;
pub mod json;
pub mod language;
mod lenient;
pub mod message_id;
pub mod prefetch;
pub mod properties;
pub mod proxy;
pub mod pull;
pub mod record;
pub mod response;
mod scan;
pub mod send;
pub mod text;
pub mod version;
pub mod writer;
