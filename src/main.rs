//! The `ringmq` command.

fn main() {}
