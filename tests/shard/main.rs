//! A shard and the log's writer without a kernel: real frames go in, a disk that holds its completions is behind them, and what
//! comes out is compared with what that disk really holds.

mod allocation;
mod barriers;
mod changes;
mod clocks;
mod crash;
mod faults;
mod flush;
mod hands;
mod held;
mod images;
mod input;
mod lost_queues;
mod lying;
mod output;
mod pair;
mod planted;
mod pulls;
mod remote;
mod retention;
mod world;
