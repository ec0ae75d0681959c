//! `ringmq-bench`: measures the latency of RocketMQ brokers.

fn main() {}
