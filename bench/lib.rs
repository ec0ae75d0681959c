//! The latency harness of RingMQ: open-loop load for any RocketMQ broker, with raw histograms kept, invalid runs marked
//! and losing runs shown.

pub mod compare;
pub mod environment;
pub mod report;
pub mod result;
