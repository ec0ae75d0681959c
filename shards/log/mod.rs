//! The commit log: the files it is made of, the ring in memory, and its single writer.

pub mod segment_table;
pub mod segments;
pub mod zero_frontier;
