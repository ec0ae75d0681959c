//! `ringmq tune`: settings of the host. Everything that it does is in the crate `ringmq-tuning`; here the command line
//! meets the broker's configuration, which names the data directory and the listen address, and exit codes are chosen.
//!
//! Invariant: nothing but `apply`, `revert`, `cpus` and `export` writes, and what they write is said.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use ringmq_tuning::catalogue::{Catalogue, Class, Profile};
use ringmq_tuning::executor::{self, Reverting, Step};
use ringmq_tuning::export::{self, Exporting, Service};
use ringmq_tuning::journal::{Journal, JournalError};
use ringmq_tuning::plan::{self, Choices, Plan, State};
use ringmq_tuning::probe::{Host, RootSystem, Selection, System};
use ringmq_tuning::report::{self, Style};

use crate::config::{self, Config, Sources};

/// The profile when none is named and none is applied.
const DEFAULT_PROFILE: &str = "latency";
/// Deviations that the start names.
const WORST_AT_START: usize = 3;

/// What stands before a complaint.
const COMPLAINT_MARK: &str = "ringmq: ";

/// The kernel's device for wishes about the time to wake a processor (`Documentation/power/pm_qos_interface`).
const DMA_LATENCY_DEVICE: &str = "/dev/cpu_dma_latency";

/// How a `tune` command ended; a table of its own, because tools that compare hosts read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum TuneStatus {
    AllOk = 0,
    Drift = 1,
    Usage = 2,
    Fatal = 3,
    Internal = 4,
}

impl From<TuneStatus> for ExitCode {
    fn from(status: TuneStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

/// For the help text.
pub const EXIT_CODES: &str = "Exit codes of tune:\n    0  nothing to change (advice may be left: see the last line of check)\n    1  something is not, or plan has changes\n    \
                              2  wrong command line or name\n    3  something without which the broker cannot run\n    \
                              4  an error of the tool or the host";

/// What `tune` is told.
#[derive(Debug, Args)]
#[command(after_help = EXIT_CODES)]
pub struct TuneArguments {
    /// What to do.
    #[command(subcommand)]
    pub what: TuneCommand,
}

/// Parts of `tune`.
#[derive(Debug, Subcommand)]
pub enum TuneCommand {
    /// All tunables with their value in each profile
    List(FormatArguments),
    /// One tunable: why it is here, when it harms, what was measured
    Explain {
        /// Its id, as list shows it
        id: String,
        /// Form of the output.
        #[command(flatten)]
        format: FormatArguments,
    },
    /// Compare this host with a profile; changes nothing
    Check(HostArguments),
    /// What apply would write, with the undo of each; --format script gives a bash script
    Plan(HostArguments),
    /// Write what plan shows, read each value back, and keep the old values
    Apply {
        /// Host and profile.
        #[command(flatten)]
        host: HostArguments,
        /// Only show what would be written: the same as plan
        #[arg(long)]
        dry_run: bool,
        /// Also install a unit that applies the profile at every boot
        #[arg(long)]
        persist: bool,
    },
    /// Bring back everything that apply changed, newest first
    Revert {
        /// Also overwrite what somebody else changed since
        #[arg(long)]
        force: bool,
        /// Leave the unit that --persist installed: the next boot applies the profile again
        #[arg(long)]
        keep_files: bool,
        /// Root directory of the host
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Form of the output.
        #[command(flatten)]
        format: FormatArguments,
    },
    /// Write the profile as files: sysctl.d, tmpfiles.d, udev rules, network links, units
    Export {
        /// Host and profile.
        #[command(flatten)]
        host: HostArguments,
        /// Where to; its folders are laid out as those of /etc
        #[arg(long, value_name = "DIR", default_value = "ringmq-tuning")]
        to: PathBuf,
    },
    /// Decide which cores handle interrupts and which run shards, and write the file that start reads
    Cpus {
        /// Host and profile.
        #[command(flatten)]
        host: HostArguments,
        /// Only show the decision
        #[arg(long)]
        dry_run: bool,
    },
}

/// Forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    /// For people, at most 100 columns
    #[default]
    Text,
    /// For programs
    Json,
    /// Bash, for plan only
    Script,
}

/// Classes that are not written unless allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Allowed {
    /// What interrupts the network or the clock for a moment
    Jitter,
    /// What takes effect after a reboot: export adds a file for GRUB; apply writes nothing of it
    Reboot,
}

/// Form of the output.
#[derive(Debug, Clone, Default, Args)]
pub struct FormatArguments {
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormatArguments {
    fn chosen(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }
}

/// Which host, which devices, which profile.
#[derive(Debug, Clone, Default, Args)]
pub struct HostArguments {
    /// Profile [default: the one that is applied, else latency]
    #[arg(long, value_name = "NAME")]
    pub profile: Option<String>,
    /// Only these tunables
    #[arg(long, value_name = "ID,ID", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Root directory of the host
    #[arg(long, value_name = "DIR", default_value = "/")]
    pub root: PathBuf,
    /// Data directories, whose disks are tuned [default: that of the configuration]
    #[arg(long, value_name = "DIR,DIR", value_delimiter = ',')]
    pub dirs: Vec<String>,
    /// Network cards [default: those of the configuration's listen address]
    #[arg(long, value_name = "NAME,NAME", value_delimiter = ',')]
    pub nic: Vec<String>,
    /// Classes to write besides safe
    #[arg(long, value_enum, value_delimiter = ',')]
    pub allow: Vec<Allowed>,
    /// Leave out what nobody has measured
    #[arg(long)]
    pub proven_only: bool,
    /// The broker's configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The broker's Java properties file
    #[arg(long, value_name = "FILE")]
    pub broker_conf: Option<PathBuf>,
    /// The broker's data directory
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// The address that the broker listens on
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Form of the output.
    #[command(flatten)]
    pub format: FormatArguments,
}

/// A sentence for a person, and the exit code that goes with it.
struct Failure(TuneStatus, String);

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure(TuneStatus::Usage, error.to_string())
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure(TuneStatus::Internal, error.to_string())
}

impl From<JournalError> for Failure {
    fn from(error: JournalError) -> Failure {
        internal(error)
    }
}

/// Everything that commands about a host need.
struct Session {
    system: RootSystem,
    catalogue: Catalogue,
    profile: Profile,
    host: Host,
    plan: Plan,
    selection: Selection,
    choices: Choices,
    data_dir: PathBuf,
}

impl Session {
    /// The host as it is by now.
    fn look_again(&self, choices: &Choices) -> Result<Plan, Failure> {
        let host = Host::probe(&self.system, &self.selection).map_err(usage)?;
        plan::make(&self.system, &self.catalogue, &host, &self.profile, choices).map_err(usage)
    }
}

/// Runs a `tune` command.
pub fn run(arguments: TuneArguments) -> ExitCode {
    match carry_out(arguments.what) {
        Ok(status) => status.into(),
        Err(Failure(status, message)) => {
            super::complain(&report::wrapped(&message, COMPLAINT_MARK.len()));
            status.into()
        }
    }
}

fn carry_out(command: TuneCommand) -> Result<TuneStatus, Failure> {
    let style = Style { colour: std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() };
    match command {
        TuneCommand::List(format) => {
            let catalogue = Catalogue::embedded().map_err(internal)?;
            let json = || report::catalogue_json(&catalogue, catalogue.tunables().iter());
            show(format.chosen(), || report::list_text(&catalogue, style), json)?;
            Ok(TuneStatus::AllOk)
        }
        TuneCommand::Explain { id, format } => {
            let catalogue = Catalogue::embedded().map_err(internal)?;
            let tunable = catalogue.tunable(&id).map_err(usage)?;
            let json = || report::catalogue_json(&catalogue, std::iter::once(tunable));
            show(format.chosen(), || report::explain_text(&catalogue, tunable, style), json)?;
            Ok(TuneStatus::AllOk)
        }
        TuneCommand::Check(arguments) => {
            let session = session(&arguments)?;
            let plan = &session.plan;
            show(arguments.format.chosen(), || report::check_text(plan, style), || report::plan_json(plan))?;
            Ok(status_of(plan))
        }
        TuneCommand::Plan(arguments) => show_plan(&session(&arguments)?, &arguments, style),
        TuneCommand::Apply { host, dry_run: true, .. } => show_plan(&session(&host)?, &host, style),
        TuneCommand::Apply { host, persist, .. } => {
            let session = session(&host)?;
            if session.choices.allow.contains(&Class::Reboot) {
                let text = "of class reboot apply writes nothing: export does, into a file for the boot loader";
                super::complain(&report::wrapped(text, COMPLAINT_MARK.len()));
            }
            apply(&session, &host, persist, style)
        }
        TuneCommand::Revert { force, keep_files, root, format } => {
            let system = open_root(&root)?;
            let boot_id = system.read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
            let steps = executor::revert(&system, boot_id.trim(), &Reverting { force, keep_files, keep: Vec::new() })
                .map_err(internal)?;
            show(format.chosen(), || report::steps_text(&steps, style), || report::steps_json(&steps))?;
            Ok(if steps.iter().all(Step::is_good) { TuneStatus::AllOk } else { TuneStatus::Drift })
        }
        TuneCommand::Export { mut host, to } => {
            // Files are for a service: where nothing names its data, it has the unit's own directory.
            if host.data.is_none() && host.config.is_none() && host.broker_conf.is_none() {
                host.data = Some(export::DATA_DIR.into());
            }
            export_files(&session(&host)?, &host, &to)
        }
        TuneCommand::Cpus { host, dry_run } => cpus(&session(&host)?, &host, dry_run, style),
    }
}

fn show(
    format: Format,
    text: impl FnOnce() -> String,
    json: impl FnOnce() -> serde_json::Value,
) -> Result<(), Failure> {
    let output = match format {
        Format::Text => text(),
        Format::Json => format!("{:#}\n", json()),
        Format::Script => return Err(usage("--format script is for plan and apply --dry-run")),
    };
    write(&output)
}

/// Writes to the standard output. A reader that has seen enough is no error.
fn write(output: &str) -> Result<(), Failure> {
    match std::io::stdout().write_all(output.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(internal(error)),
        _ => Ok(()),
    }
}

fn status_of(plan: &Plan) -> TuneStatus {
    if plan.fatal_count() > 0 {
        TuneStatus::Fatal
    } else if plan.count(State::Drift) > 0 {
        TuneStatus::Drift
    } else {
        TuneStatus::AllOk
    }
}

fn open_root(root: &Path) -> Result<RootSystem, Failure> {
    RootSystem::new(root).map_err(|error| usage(format!("root {}: {error}", root.display())))
}

/// The configuration that `start` would use with these options; it names data directory and listen address.
fn configuration(arguments: &HostArguments) -> Result<Config, Failure> {
    let options = [("data_dir", arguments.data.clone()), ("listen", arguments.listen.clone())];
    let sources = Sources {
        service: config::Service::Broker,
        config_file: arguments.config.clone(),
        broker_conf: arguments.broker_conf.clone(),
        sets: Vec::new(),
        options: options.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
    };
    config::load_without_cpus_file(sources).map_err(usage)
}

/// An absolute path without links, as the table of mounts has it; the part that does not exist yet is taken as it is.
fn real_path(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let existing = absolute.ancestors().find_map(|level| Some((level, level.canonicalize().ok()?)));
    match existing {
        Some((level, real)) => match absolute.strip_prefix(level) {
            Ok(rest) if !rest.as_os_str().is_empty() => real.join(rest),
            _ => real,
        },
        None => absolute,
    }
}

fn session(arguments: &HostArguments) -> Result<Session, Failure> {
    let system = open_root(&arguments.root)?;
    let config = configuration(arguments)?;
    let data_dir = match system.is_live() {
        true => real_path(&config.root_dir()),
        false => std::path::absolute(config.root_dir()).map_err(internal)?,
    };
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let absolute = |path: &String| std::path::absolute(path).map_or_else(|_| path.clone(), |path| text(&path));
    let directories = match arguments.dirs.as_slice() {
        [] => vec![text(&data_dir), text(&data_dir_of_log(&config, &data_dir))],
        named if named.iter().any(|path| !system.exists(&absolute(path))) => {
            let lacking: Vec<&str> =
                named.iter().filter(|path| !system.exists(&absolute(path))).map(String::as_str).collect();
            return Err(usage(format!("there is no directory {}", lacking.join(", "))));
        }
        named if system.is_live() => named.iter().map(|path| text(&real_path(Path::new(path)))).collect(),
        named => named.to_vec(),
    };
    let nics = (!arguments.nic.is_empty()).then(|| arguments.nic.clone());
    let selection = Selection { directories, listen: Some(config.listen), nics, ..Selection::default() };
    look(system, arguments, selection, data_dir)
}

/// The commit log may be on a disk of its own.
fn data_dir_of_log(config: &Config, data_dir: &Path) -> PathBuf {
    if config.store_path_commit_log.is_empty() { data_dir.to_path_buf() } else { real_path(&config.commit_log_dir()) }
}

fn look(
    system: RootSystem,
    arguments: &HostArguments,
    mut selection: Selection,
    data_dir: PathBuf,
) -> Result<Session, Failure> {
    selection.directories.dedup();
    selection.cores_file = Some(cores_file(&data_dir).to_string_lossy().into_owned());
    let catalogue = Catalogue::embedded().map_err(internal)?;
    let applied = applied_profile(&system);
    let name = arguments.profile.as_deref().or(applied.as_deref()).unwrap_or(DEFAULT_PROFILE);
    let profile = catalogue.profile(name).map_err(usage)?.clone();
    let host = Host::probe(&system, &selection).map_err(usage)?;
    let allow: BTreeSet<Class> = arguments
        .allow
        .iter()
        .map(|class| match class {
            Allowed::Jitter => Class::Jitter,
            Allowed::Reboot => Class::Reboot,
        })
        .collect();
    let proven_only = arguments.proven_only;
    let choices = Choices { only: arguments.only.clone(), allow, proven_only, ..Choices::default() };
    let plan = plan::make(&system, &catalogue, &host, &profile, &choices).map_err(usage)?;
    Ok(Session { system, catalogue, profile, host, plan, selection, choices, data_dir })
}

/// Where `tune cpus` writes and `start` reads.
fn cores_file(data_dir: &Path) -> PathBuf {
    data_dir.join(config::OWN_FOLDER).join(config::CPUS_FILE)
}

/// The profile of the journal, if its settings are of this boot.
fn applied_profile(system: &dyn System) -> Option<String> {
    let journal = Journal::read(system).ok().flatten()?;
    let boot_id = system.read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    journal.profile().filter(|_| journal.boot_id == boot_id.trim()).map(String::from)
}

fn show_plan(session: &Session, arguments: &HostArguments, style: Style) -> Result<TuneStatus, Failure> {
    let plan = &session.plan;
    if arguments.format.chosen() == Format::Script {
        let root = arguments.root.canonicalize().map_err(internal)?;
        write(&executor::script(plan, &root))?;
    } else {
        show(arguments.format.chosen(), || report::plan_text(plan, style), || report::plan_json(plan))?;
    }
    Ok(status_of(plan))
}

fn apply(session: &Session, arguments: &HostArguments, persist: bool, style: Style) -> Result<TuneStatus, Failure> {
    let mut steps = executor::leave(&session.system, &session.plan)?;
    let plan = if steps.is_empty() { session.plan.clone() } else { session.look_again(&session.choices)? };
    let again = || session.look_again(&Choices { queues_are_settled: true, ..session.choices.clone() });
    let (plan, applied) = executor::apply_in_order(&session.system, plan, again)?;
    steps.extend(applied);
    let plan = &plan;
    if persist {
        let unit = export::tune_unit(&plan.profile, &service(session, arguments)?);
        for (path, text) in [(export::TUNE_UNIT, unit), (export::TUNE_DROP_IN, export::tune_drop_in())] {
            steps.push(executor::make_file(&session.system, plan, path, &text).map_err(internal)?);
        }
    }
    show(arguments.format.chosen(), || report::steps_text(&steps, style), || report::steps_json(&steps))?;
    let cannot = plan.lines.iter().filter(|line| line.state == State::Drift && line.change.is_none()).count();
    if cannot > 0 {
        super::complain(&format!("{cannot} could not be written, see `ringmq tune check`"));
    }
    if plan.fatal_count() > 0 {
        return Ok(TuneStatus::Fatal);
    }
    let good = steps.iter().all(Step::is_good) && cannot == 0;
    Ok(if good { TuneStatus::AllOk } else { TuneStatus::Drift })
}

/// How units are to call this program, so that every boot chooses the same devices and the broker runs on the same data.
fn service(session: &Session, arguments: &HostArguments) -> Result<Service, Failure> {
    let absolute = |path: &PathBuf| real_path(path).display().to_string();
    let data_dir = session.data_dir.display().to_string();
    let mut config: Vec<String> = Vec::new();
    for (name, path) in [("--config", &arguments.config), ("--broker-conf", &arguments.broker_conf)] {
        config.extend(path.iter().flat_map(|path| [name.to_string(), absolute(path)]));
    }
    let mut start = config.clone();
    if start.is_empty() {
        start.extend(["--config".to_string(), export::CONFIG.into()]);
    }
    start.extend(["--data".to_string(), data_dir.clone()]);
    // A directory that the broker makes at its first start may be missing at this one, so it is not among those named.
    let mut tune = match arguments.dirs.is_empty() {
        true => vec!["--data".into(), data_dir],
        false => vec!["--dirs".into(), session.selection.directories.join(",")],
    };
    tune.extend(config);
    let mut option = |name: &str, value: String| {
        if !value.is_empty() {
            tune.extend([name.to_string(), value]);
        }
    };
    option("--nic", arguments.nic.join(","));
    option("--listen", arguments.listen.clone().unwrap_or_default());
    option("--only", arguments.only.join(","));
    for allowed in &arguments.allow {
        option("--allow", allowed.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string()));
    }
    if arguments.proven_only {
        tune.push("--proven-only".into());
    }
    let is_elsewhere = |path: &&String| !Path::new(path.as_str()).starts_with(export::DATA_DIR);
    let writable = session.selection.directories.iter().filter(is_elsewhere).cloned().collect();
    let program = std::env::current_exe().map_err(internal)?.display().to_string();
    Ok(Service { program, start, tune, writable })
}

fn export_files(session: &Session, arguments: &HostArguments, to: &Path) -> Result<TuneStatus, Failure> {
    let files = export::files(&Exporting {
        catalogue: &session.catalogue,
        profile: &session.profile,
        choices: &session.choices,
        on: Some((&session.host, &session.plan)),
        service: &service(session, arguments)?,
    });
    for file in &files {
        let path = to.join(&file.path);
        let written =
            path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, &file.text));
        written.map_err(|error| internal(format!("cannot write {}: {error}", path.display())))?;
    }
    let paths: Vec<String> = files.iter().map(|file| to.join(&file.path).display().to_string()).collect();
    let json = || serde_json::json!({ "profile": session.profile.name, "files": paths });
    show(arguments.format.chosen(), || paths.iter().map(|path| format!("{path}\n")).collect(), json)?;
    Ok(TuneStatus::AllOk)
}

fn cpus(session: &Session, arguments: &HostArguments, dry_run: bool, style: Style) -> Result<TuneStatus, Failure> {
    let Session { system, catalogue, host, profile, choices, .. } = session;
    let decision = plan::decide_cores(system, catalogue, host, profile, choices);
    let path = cores_file(&session.data_dir);
    if !dry_run {
        let text = decision.file_text(&session.profile.name);
        let written = session.system.replace_synced(&path.to_string_lossy(), &text);
        written.map_err(|error| internal(format!("cannot write {}: {error}", path.display())))?;
    }
    let verb = if dry_run { "would write" } else { "wrote" };
    let text = || format!("{}{verb} {}\n", report::placement_text(&decision, style), path.display());
    show(arguments.format.chosen(), text, || {
        let mut json = report::placement_json(&decision);
        json["file"] = path.display().to_string().into();
        json["written"] = (!dry_run).into();
        json
    })?;
    Ok(TuneStatus::AllOk)
}

/// How a starting broker finds its host.
pub struct AtStart {
    /// One line for the log: which profile is applied, and what deviates most from it.
    pub line: String,
    /// Whether the host has profile `latency`, applied or otherwise.
    is_for_latency: bool,
}

/// Looks at the host of a starting broker.
pub fn at_start(config: &Config) -> AtStart {
    let arguments = HostArguments { root: "/".into(), ..HostArguments::default() };
    let data_dir = real_path(&config.root_dir());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let directories = vec![text(&data_dir), text(&data_dir_of_log(config, &data_dir))];
    // The service may keep this process off the cores of interrupts, which count all the same.
    let selection = Selection {
        directories,
        listen: Some(config.listen),
        all_processors: true,
        is_broker: true,
        ..Selection::default()
    };
    match open_root(Path::new("/")).and_then(|system| look(system, &arguments, selection, data_dir)) {
        Ok(session) => session_at_start(&session),
        Err(Failure(_, message)) => {
            AtStart { line: format!("tuning: this host cannot be checked: {message}"), is_for_latency: false }
        }
    }
}

fn session_at_start(session: &Session) -> AtStart {
    let wanted = &session.plan.profile;
    let (applied, has_profile) = match applied_profile(&session.system) {
        Some(name) => (format!("profile {name} is applied"), true),
        // By the files of export, for example.
        None if session.plan.is_fulfilled() => (format!("the host is as profile {wanted} wants it"), true),
        None => (format!("no profile is applied; compared with {wanted}"), false),
    };
    let worst: Vec<String> = session
        .plan
        .worst(WORST_AT_START)
        .into_iter()
        .map(|line| {
            let have = if line.have.is_empty() { "unknown" } else { line.have.as_str() };
            let have = have.replace('\t', " ");
            format!("{} is {have}, wanted {} (ringmq tune explain {})", line.name(), line.want, line.id)
        })
        .collect();
    let drift = session.plan.count(State::Drift);
    let tail = if worst.is_empty() { "nothing deviates".into() } else { format!("worst: {}", worst.join("; ")) };
    let ok = session.plan.count(State::Ok);
    AtStart {
        line: format!("tuning: {applied}: {ok} ok, {drift} drift (ringmq tune check); {tail}"),
        is_for_latency: has_profile && wanted == "latency",
    }
}

/// Keeps the processors from deep sleep (PM QoS) while the host has profile `latency`, until the file is dropped. `None`
/// under other profiles, and where the device is missing or not for this user: that costs latency and nothing else.
pub fn hold_awake(start: &AtStart) -> Option<File> {
    let held = start.is_for_latency.then(|| ask_for_wakefulness(Path::new(DMA_LATENCY_DEVICE)))?;
    match held {
        Ok(file) => Some(file),
        Err(error) => {
            tracing::info!(
                "tuning: {DMA_LATENCY_DEVICE} cannot be held: {error} (ringmq tune explain cpu.dma_latency)"
            );
            None
        }
    }
}

/// Asks for a wake-up within no microseconds; the wish holds as long as the file is open.
fn ask_for_wakefulness(device: &Path) -> std::io::Result<File> {
    let mut file = File::options().write(true).open(device)?;
    file.write_all(&0i32.to_ne_bytes())?;
    Ok(file)
}

#[cfg(test)]
mod tests;
