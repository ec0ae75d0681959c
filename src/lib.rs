//! RingMQ: the broker, the name server and their tools. See ARCHITECTURE.md for the map.

pub mod broker;
pub mod cli;
pub mod client;
pub mod config;
pub mod namesrv;
pub mod process;
pub mod server;

use std::process::ExitCode;

/// Runs the servers until they are stopped.
pub fn serve(options: server::ServeOptions) -> ExitCode {
    server::boot::serve(options)
}

/// Sends messages.
pub fn produce(options: cli::ProduceOptions) -> ExitCode {
    client::produce(&options)
}

/// Prints messages.
pub fn consume(options: cli::ConsumeOptions) -> ExitCode {
    client::consume(&options)
}
