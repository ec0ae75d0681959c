//! The command line: what can be asked for, and the exit codes.

mod canonical;
mod distances;
mod floors;
mod goals;
mod options;
mod publish;
mod rounds;
mod search;
mod session;
mod signals;
mod single;
mod summary;
mod sweep;
mod versus;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};
use thiserror::Error;

use crate::compare::{LEAST_RUNS, Thresholds, compare, differences};
use crate::host::pinning;
use crate::judge::{SLO_GRAMMAR, SloError};
use crate::peers::PeerError;
use crate::plan::PlanError;
use crate::result::{EnvironmentRecord, ResultDirectory, ResultError, ResultSet};
use crate::runner::{RunError, note};
use crate::text::{is_output_lost, tell, wrapped};
use crate::workload::{CATALOGUE, Workload, WorkloadError};
use options::{Arguments, CommandLine};

/// Why a command did not do its work.
#[derive(Debug, Error)]
pub enum CliError {
    /// It was asked for something impossible.
    #[error("{0}")]
    Usage(String),
    /// A run never began.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A broker does not run.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A result cannot be read or written.
    #[error(transparent)]
    Result(#[from] ResultError),
    /// A workload cannot be used.
    #[error(transparent)]
    Workload(#[from] WorkloadError),
    /// A plan cannot be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Conditions cannot be read.
    #[error(transparent)]
    Slo(#[from] SloError),
}

impl CliError {
    /// See the table of exit codes.
    fn exit_code(&self) -> u8 {
        match self {
            CliError::Usage(_) | CliError::Workload(_) | CliError::Plan(_) | CliError::Slo(_) => 2,
            CliError::Run(RunError::Plan(_) | RunError::Workload(_)) => 2,
            CliError::Run(_) | CliError::Peer(_) | CliError::Result(_) => 3,
        }
    }
}

/// Commands that measure nothing, with those options of all commands that mean something to them.
const LOOKING: [(&str, &[&str]); 5] = [
    ("compare", &["json"]),
    ("report", &["json"]),
    ("env", &["json", "broker_binary"]),
    ("list", &["json"]),
    ("explain", &["json"]),
];

/// The command line of this process. Options of all commands are taken by each, but help shows them only where they mean something.
fn parse() -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let common: Vec<clap::Arg> = command.get_arguments().filter(|option| option.is_global_set()).cloned().collect();
    for (name, shown) in LOOKING {
        let hidden = common.iter().filter(|option| !shown.contains(&option.get_id().as_str()));
        let hidden: Vec<clap::Arg> = hidden.map(|option| option.clone().hide(true)).collect();
        command = command.mut_subcommand(name, |command| command.args(hidden));
    }
    Arguments::from_arg_matches(&command.try_get_matches()?)
}

/// Carries out the command of this process.
pub fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // If the terminal is gone there is nobody to tell.
            let _ = error.print();
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return ExitCode::from(if is_help { 0 } else { 2 });
        }
    };
    match carry_out(&arguments) {
        // Who waits for output that could not be written has not got it: a full disk, but not a reader that had enough.
        Ok(code) if is_output_lost() => ExitCode::from(code.max(3)),
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            if arguments.common.json {
                tell(serde_json::json!({ "error": error.to_string(), "exit_code": error.exit_code() }));
            } else {
                note(&format!("error: {error}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn carry_out(arguments: &Arguments) -> Result<u8, CliError> {
    let common = &arguments.common;
    match &arguments.command {
        None => canonical::carry_out(common),
        Some(CommandLine::Run(options)) => single::carry_out(common, options),
        Some(CommandLine::Sweep(options)) => sweep::carry_out(common, options),
        Some(CommandLine::Versus(options)) => versus::carry_out(common, options),
        Some(CommandLine::Publish(options)) => publish::carry_out(common, options),
        Some(CommandLine::Compare { baseline, candidate, p99, cpu, rate }) => {
            let thresholds = Thresholds { p99: p99 / 100.0, cpu_per_message: cpu / 100.0, rate: rate / 100.0 };
            let ((baseline, old_machines), (candidate, new_machines)) = (read_sets(baseline)?, read_sets(candidate)?);
            let mut comparison = compare(&baseline, &candidate, thresholds);
            comparison.notes = differences(&old_machines, &new_machines);
            if comparison.is_empty() {
                let why = comparison.skipped.join("; ");
                return Err(CliError::Usage(format!(
                    "there is nothing to compare: each side needs at least {LEAST_RUNS} valid runs of a workload at \
                     one rate and durability class ({why})"
                )));
            }
            if common.json {
                tell(serde_json::json!(comparison));
            } else {
                tell(crate::compare::table(&comparison).trim_end());
            }
            Ok(comparison.exit_code())
        }
        Some(CommandLine::Report { directory }) => {
            let page = crate::report::write(&existing(directory)?)?;
            if common.json {
                tell(serde_json::json!({ "report": page }));
            } else {
                tell(page.display());
            }
            Ok(0)
        }
        Some(CommandLine::Env { data }) => {
            let environment = crate::environment::capture(data, common.find_broker().as_deref());
            if common.json {
                tell(serde_json::json!(environment));
            } else {
                for fact in &environment.facts {
                    let value = fact.value.as_deref().unwrap_or("-");
                    let note = if fact.note.is_empty() { String::new() } else { format!("  ({})", fact.note) };
                    tell(wrapped(&format!("{:<10} {:<40} ", fact.section, fact.name), &format!("{value}{note}")));
                }
            }
            Ok(0)
        }
        Some(CommandLine::List) => list(common.json),
        Some(CommandLine::Explain { workload }) => explain(workload, common.json),
    }
}

/// A result directory that is there.
fn existing(path: &std::path::Path) -> Result<ResultDirectory, CliError> {
    if path.join("result.json").is_file() {
        return Ok(ResultDirectory::open(path));
    }
    Err(CliError::Usage(format!("{} is no result directory: there is no result.json in it", path.display())))
}

/// One result directory, or a folder of several, with their machines.
fn read_sets(path: &std::path::Path) -> Result<(Vec<ResultSet>, Vec<EnvironmentRecord>), CliError> {
    let folders = if path.join("result.json").is_file() {
        vec![path.to_owned()]
    } else {
        let mut folders: Vec<_> = std::fs::read_dir(path)
            .map_err(|error| CliError::Usage(format!("read {}: {error}", path.display())))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|folder| folder.join("result.json").is_file())
            .collect();
        folders.sort();
        folders
    };
    if folders.is_empty() {
        return Err(CliError::Usage(format!("there is no result in {}", path.display())));
    }
    let directories: Vec<ResultDirectory> = folders.into_iter().map(ResultDirectory::open).collect();
    let sets = directories.iter().map(ResultDirectory::read_result).collect::<Result<_, _>>()?;
    let machines = directories.iter().map(ResultDirectory::read_environment).collect::<Result<_, _>>()?;
    Ok((sets, machines))
}

fn list(is_json: bool) -> Result<u8, CliError> {
    let mut workloads = Vec::new();
    for (name, text) in CATALOGUE {
        workloads.push(Workload::parse(name, text)?);
    }
    if is_json {
        tell(serde_json::json!(workloads));
        return Ok(0);
    }
    for workload in &workloads {
        let lacks = workload.lacks_in_ringmq();
        let note = lacks.map(|lacks| format!(" [RingMQ does not serve {lacks} yet]")).unwrap_or_default();
        tell(wrapped(&format!("{:<18} ", workload.name), &format!("{}{note}", workload.models)));
    }
    Ok(0)
}

/// Whether a text that begins on this line of TOML goes on behind it.
fn is_open(line: &str) -> bool {
    line.matches("\"\"\"").count() == 1
}

fn explain(name: &str, is_json: bool) -> Result<u8, CliError> {
    let (workload, text) = Workload::find(name)?;
    if is_json {
        tell(serde_json::json!(workload));
        return Ok(0);
    }
    tell(format_args!("{}\n", workload.name));
    tell(wrapped("models: ", &workload.models));
    tell(wrapped("hides:  ", &workload.hides));
    if let Some(lacks) = workload.lacks_in_ringmq() {
        tell(format_args!("note:   RingMQ does not serve {lacks} yet; against RingMQ this workload is refused"));
    }
    let cores = pinning::allowed_cores(0);
    let (generator, broker) = pinning::default_layout(&cores);
    let generator = generator.map_or_else(|| "any core".to_owned(), |core| format!("core {core}"));
    let broker = pinning::format_cores(&broker);
    tell(format_args!("here:   generator on {generator}, brokers that it starts on cores {broker}\n"));
    // What it models and hides was said, in shorter lines.
    let is_said =
        |line: &&str| ["name = ", "models = ", "hides = "].iter().any(|key| line.starts_with(key)) && !is_open(line);
    tell(format_args!("{}\n", text.lines().filter(|line| !is_said(line)).collect::<Vec<_>>().join("\n").trim()));
    tell(SLO_GRAMMAR);
    if workload.consumers.is_none() {
        tell("This workload has no consumers: conditions with e2e. are refused.");
    }
    Ok(0)
}
