//! Counters and histograms beside what they count. A thread writes only its own cells, with relaxed loads and stores;
//! whoever renders adds them up. Every metric has a line in [`table`].

mod histogram;
mod registry;
pub mod table;

pub use histogram::HistogramSnapshot;
pub use registry::{Probe, Registry};
pub use table::{Counter, Gauge, Histogram, Limit, MetricRow};
