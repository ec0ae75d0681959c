//! The latency harness of RingMQ: open-loop load for any RocketMQ broker, with raw histograms kept, invalid runs marked
//! and losing runs shown.
//!
//! One thread generates all load (`engine`): it alone owns sockets, books and histograms, spins on its own core, and
//! allocates nothing while it measures. `drivers` know how to talk to what is measured, `plan` when, `workload` how much.
//! Everything that leaves a run goes through the types of `result`.

pub mod allocation;
pub mod cli;
pub mod clock;
pub mod compare;
pub mod drivers;
pub mod engine;
pub mod environment;
pub mod host;
pub mod judge;
pub mod load;
pub mod peers;
pub mod plan;
pub mod report;
pub mod result;
pub mod runner;
pub mod text;
pub mod units;
pub mod workload;
