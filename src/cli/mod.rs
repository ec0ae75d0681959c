//! Commands: parses the command line, builds the configuration, starts the log and hands over to the room that does
//! the work.
//!
//! Invariant: whatever a person got wrong ends with [`ExitStatus::Usage`] and one sentence on stderr, before anything
//! is opened.

mod options;
mod store;
mod tune;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use options::{Command, CommandLine, ConfigCommand, ServerArguments};
pub use options::{ConsumeOptions, ProduceOptions, StartPosition};

use crate::config::{self, Service};
use crate::process::{ExitStatus, complain, logging, signals};
use crate::server::{Roles, ServeOptions};

/// Runs the command of this command line, the program's name first.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match CommandLine::try_parse_from(arguments) {
        Ok(parsed) => parsed.command,
        Err(error) => {
            // A closed terminal is no reason for another exit code.
            let _ = error.print();
            return if error.use_stderr() { ExitStatus::Usage.into() } else { ExitStatus::Ok.into() };
        }
    };
    match command {
        Command::Start(arguments) => serve(Roles { broker: true, namesrv: true }, arguments),
        Command::Broker(arguments) => serve(Roles { broker: true, namesrv: false }, arguments),
        Command::Namesrv(arguments) => serve(Roles { broker: false, namesrv: true }, arguments),
        Command::Produce(options) => crate::produce(options),
        Command::Consume(options) => crate::consume(options),
        Command::Store(arguments) => store::run(arguments),
        Command::Tune(arguments) => tune::run(arguments),
        Command::Config(arguments) => match arguments.what {
            ConfigCommand::Reference => print(&config::reference()),
            ConfigCommand::Toml => print(&config::example_toml()),
            ConfigCommand::Show(arguments) => match config::load(arguments.sources(Service::Broker)) {
                Ok(config) => print(&config.listing()),
                Err(error) => usage(&error),
            },
        },
    }
}

fn serve(roles: Roles, arguments: ServerArguments) -> ExitCode {
    let service = if roles.broker { Service::Broker } else { Service::Namesrv };
    let salvage = arguments.salvage;
    let config = match config::load(arguments.sources(service)) {
        Ok(config) => config,
        Err(error) => return usage(&error),
    };
    // Before any thread exists, so that no thread but the waiting one can receive a stop signal.
    if let Err(error) = signals::block() {
        return usage(&format!("cannot block signals: {error}"));
    }
    if let Err(error) = logging::start(config.log_level, &config.log_target) {
        return usage(&format!("cannot log to {}: {error}", config.log_target));
    }
    for line in config.ignored_report() {
        tracing::warn!("{line}");
    }
    if let Some(notice) = config.loopback_notice() {
        tracing::info!("{notice}");
    }
    let awake = roles.broker.then(|| {
        let start = tune::at_start(&config);
        tracing::info!("{}", start.line);
        tune::hold_awake(&start)
    });
    let code = crate::serve(ServeOptions { roles, config, salvage });
    drop(awake);
    logging::flush(logging::FLUSH_PATIENCE);
    code
}

fn usage(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitStatus::Usage.into()
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitStatus::Ok.into(),
        // The reader (`| head`) has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitStatus::Ok.into(),
        Err(error) => {
            complain(&format!("cannot write to standard output: {error}"));
            ExitStatus::Failure.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(line: &str) -> ExitCode {
        run(line.split(' ').map(OsString::from))
    }

    #[test]
    fn mistakes_end_with_the_usage_code() {
        // Goal: a wrong start is told apart from a failed one. Method: run commands in this process.
        let usage = ExitCode::from(ExitStatus::Usage);
        for line in
            ["ringmq", "ringmq fly", "ringmq start --set flushDiskTyp=x", "ringmq broker --config /no/such/file"]
        {
            assert_eq!(code(line), usage, "{line}");
        }
        assert_eq!(code("ringmq --version"), ExitCode::SUCCESS);
        // The program's name comes before it; whoever reads the number finds it second, as ever.
        let (number, build) = options::VERSION.split_once(" (").expect("from what it was built");
        assert_eq!(number, env!("CARGO_PKG_VERSION"));
        let parts: Vec<&str> = build.strip_suffix(')').expect("an end").splitn(3, ", ").collect();
        let commit = parts[0].strip_prefix("commit ").expect("a commit").trim_end_matches("-dirty");
        assert!(commit == "unknown" || commit.len() == 12, "{build}");
        assert!(parts[1].ends_with(" build") && parts[2].starts_with("rustc 1."), "{build}");
        assert!(!options::VERSION.contains('\n'));
        assert_eq!(code("ringmq config show --set brokerPermission=4"), ExitCode::SUCCESS);
    }
}
