//! The `ringmq` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringmq::cli::run(std::env::args_os())
}
