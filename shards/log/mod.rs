//! The commit log: the files it is made of, the ring in memory, and its single writer.

pub mod segments;
