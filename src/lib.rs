//! RingMQ: the broker, the name server and their tools. See ARCHITECTURE.md for the map.

pub mod broker;
pub mod cli;
pub mod config;
pub mod namesrv;
pub mod server;

use std::process::ExitCode;

/// Runs the servers until they are stopped.
pub fn serve(options: cli::ServeOptions) -> ExitCode {
    let cli::Roles { broker, namesrv } = options.roles;
    tracing::error!(broker, namesrv, "this build has no server: it can only check and show a configuration");
    cli::ExitStatus::Failure.into()
}

/// Sends messages.
pub fn produce(options: cli::ProduceOptions) -> ExitCode {
    cli::complain(&format!("cannot send to {}: this build has no client", options.topic));
    cli::ExitStatus::Failure.into()
}

/// Prints messages.
pub fn consume(options: cli::ConsumeOptions) -> ExitCode {
    cli::complain(&format!("cannot read {}: this build has no client", options.topic));
    cli::ExitStatus::Failure.into()
}
