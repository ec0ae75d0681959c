//! The latency harness of RingMQ: open-loop load for any RocketMQ broker, with raw histograms kept, invalid runs marked
//! and losing runs shown.

pub mod result;
