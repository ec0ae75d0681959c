//! The command line as types. Parsing only: what a command does is elsewhere.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Arg, Args, Parser, Subcommand};

use super::tune::TuneArguments;
use crate::broker::names::{NameError, check_group};
use crate::config::{Service, Sources};
use crate::process::exit_codes;

/// The version, and in parentheses from what it was built: commit, profile, compiler.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("RINGMQ_BUILD"), ")");

/// A message broker that speaks Apache RocketMQ's remoting protocol.
#[derive(Debug, Parser)]
#[command(name = "ringmq", version = VERSION, about, after_help = exit_codes::help())]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct CommandLine {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a name server and a broker in one process: all that clients need
    Start(ServerArguments),
    /// Run a broker
    #[command(mut_args(as_broker_shows_it))]
    Broker(ServerArguments),
    /// Run a name server
    #[command(mut_args(as_namesrv_shows_it))]
    Namesrv(ServerArguments),
    /// Send messages
    Produce(ProduceOptions),
    /// Print messages
    Consume(ConsumeOptions),
    /// Show what can be configured, and what is
    Config(ConfigArguments),
    /// Check, print, explain and repair a store that no broker uses
    Store(super::store::StoreArguments),
    /// Check and tune this host: kernel, disks, network cards, cores; everything can be undone
    Tune(TuneArguments),
}

/// Options of all servers.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArguments {
    /// Configuration file (TOML); every key is explained in ringmq.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Java properties file as RocketMQ's brokers read it
    #[arg(long, value_name = "FILE")]
    pub broker_conf: Option<PathBuf>,
    /// Set one key, in RocketMQ's spelling (flushDiskType) or ours (flush_disk_type); repeatable
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Data directory, RocketMQ's storePathRootDir [default: ./ringmq-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Address to listen on; 0.0.0.0 opens the server to the network [default: 127.0.0.1]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    /// Port of the broker [default: 10911]
    #[arg(long, value_name = "N")]
    pub broker_port: Option<String>,
    /// Port of the name server [default: 9876]
    #[arg(long, value_name = "N")]
    pub namesrv_port: Option<String>,
    /// Name servers to register with, besides the one in this process
    #[arg(long, value_name = "ADDR;ADDR")]
    pub namesrv: Option<String>,
    /// Processors to run on, such as 0,2-3 [default: all]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<String>,
    /// Shards, one pinned thread each [default: one per processor]
    #[arg(long, value_name = "N")]
    pub shards: Option<String>,
    /// Least severe level to log: error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,
    /// Where to log: stderr or a file [default: stderr]
    #[arg(long, value_name = "stderr|FILE")]
    pub log_target: Option<String>,
    /// Start although the log is damaged: save what is behind the damage aside and cut it off
    #[arg(long)]
    pub salvage: bool,
}

/// All servers take all options, so that one list of arguments serves any of them; the help of one names what it uses.
fn as_broker_shows_it(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "namesrv_port" => argument.hide(true),
        "namesrv" => argument.help("Name servers to register with"),
        _ => argument,
    }
}

fn as_namesrv_shows_it(argument: Arg) -> Arg {
    match argument.get_id().as_str() {
        "broker_port" | "namesrv" | "salvage" => argument.hide(true),
        "broker_conf" => argument.help("Java properties file as RocketMQ's name servers read it"),
        "data" => {
            argument.help("Data directory; KV configuration and settings are kept there [default: ./ringmq-data]")
        }
        _ => argument,
    }
}

impl ServerArguments {
    /// The configuration's sources. The table of keys checks the values, so that messages are the same everywhere.
    pub fn sources(self, service: Service) -> Sources {
        let options = [
            ("data_dir", self.data),
            ("listen", self.listen),
            ("broker_port", self.broker_port),
            ("namesrv_port", self.namesrv_port),
            ("namesrv_addr", self.namesrv),
            ("cores", self.cores),
            ("shards", self.shards),
            ("log_level", self.log_level),
            ("log_target", self.log_target),
        ];
        Sources {
            service,
            config_file: self.config,
            broker_conf: self.broker_conf,
            sets: self.set,
            options: options.into_iter().filter_map(|(key, value)| Some((key, value?))).collect(),
        }
    }
}

const LOCAL_NAME_SERVER: &str = "127.0.0.1:9876";

/// Name servers that a client asks for routes.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct NameServers {
    /// Name servers
    #[arg(
        long,
        value_name = "ADDR;ADDR",
        env = "NAMESRV_ADDR",
        default_value = LOCAL_NAME_SERVER,
        value_delimiter = ';'
    )]
    namesrv: Vec<String>,
}

impl NameServers {
    /// Addresses as they are used: an environment variable that is set to nothing says nothing.
    pub fn addresses(&self) -> Vec<String> {
        let given = self.namesrv.iter().filter(|address| !address.trim().is_empty());
        let addresses: Vec<String> = given.cloned().collect();
        if addresses.is_empty() { vec![LOCAL_NAME_SERVER.to_owned()] } else { addresses }
    }
}

/// What `produce` sends.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ProduceOptions {
    /// Where the route is asked for.
    #[command(flatten)]
    pub name_servers: NameServers,
    /// Topic
    #[arg(long)]
    pub topic: String,
    /// Tag of the messages
    #[arg(long)]
    pub tag: Option<String>,
    /// Key of the messages, by which tools find them
    #[arg(long)]
    pub key: Option<String>,
    /// Producer group
    #[arg(long, default_value = "ringmq-produce", value_parser = group_name)]
    pub group: String,
    /// Send BODY this many times, or at most this many lines [default: once, or all lines]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Body of the message; without it each line of standard input is a message
    #[arg(value_name = "BODY")]
    pub body: Option<String>,
}

/// What `consume` prints.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ConsumeOptions {
    /// Where the route is asked for.
    #[command(flatten)]
    pub name_servers: NameServers,
    /// Topic
    #[arg(long)]
    pub topic: String,
    /// Only messages with this tag; several as "a || b" [default: all]
    #[arg(long)]
    pub tag: Option<String>,
    /// Only messages with this key
    #[arg(long)]
    pub key: Option<String>,
    /// Consumer group whose offsets are used and committed; without it nothing is committed
    #[arg(long, value_parser = group_name)]
    pub group: Option<String>,
    /// Stop after this many messages [default: go on until interrupted]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Where to begin when the group has no offsets: earliest, latest, or a time (milliseconds since 1970 or RFC 3339)
    #[arg(long, value_name = "earliest|latest|TIME", default_value = "latest")]
    pub from: StartPosition,
    /// Print queue, offset, tags and keys before each body
    #[arg(long, short)]
    pub verbose: bool,
}

fn group_name(text: &str) -> Result<String, NameError> {
    check_group(text).map(|()| text.to_owned())
}

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPosition {
    /// At the oldest message.
    Earliest,
    /// At messages that are sent from now on.
    Latest,
    /// At the first message stored at or after this time, in milliseconds since 1970.
    Time(u64),
}

impl FromStr for StartPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<StartPosition, String> {
        match text {
            "earliest" => Ok(StartPosition::Earliest),
            "latest" => Ok(StartPosition::Latest),
            _ => {
                let time = text.parse().ok().or_else(|| milliseconds_of_rfc3339(text));
                let expected =
                    "expected earliest, latest, milliseconds since 1970, or a time such as 2026-01-31T12:00:00Z";
                time.map(StartPosition::Time).ok_or_else(|| expected.into())
            }
        }
    }
}

/// Milliseconds since 1970 of a date and time as RFC 3339 writes it; finer fractions are cut off. `None` before 1970.
fn milliseconds_of_rfc3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = time.split_at(zone_at);
    let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(whole, ':', [2, 2, 2])?;
    if fraction.is_empty() || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let millisecond: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = numbers(&zone[1..], ':', [2, 2])?;
            let total = (hours <= 23 && minutes <= 59).then_some(hours * 60 + minutes)?;
            if zone.starts_with('-') { -total } else { total }
        }
    };
    let in_range = (1..=12).contains(&month) && day >= 1 && day <= days_of_month(year, month);
    // A leap second counts as the second after it.
    if !in_range || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let minutes = (days_since_1970(year, month, day) * 24 + hour) * 60 + minute - offset_minutes;
    u64::try_from((minutes * 60 + second) * 1000 + millisecond).ok()
}

fn numbers<const COUNT: usize>(text: &str, separator: char, widths: [usize; COUNT]) -> Option<[i64; COUNT]> {
    let mut found = [0; COUNT];
    let mut parts = text.split(separator);
    for (slot, width) in found.iter_mut().zip(widths) {
        let part = parts.next()?;
        if part.len() != width || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(found)
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let leap_days_before = |year: i64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    let before_year = (year - 1970) * 365 + leap_days_before(year) - leap_days_before(1970);
    before_year + (1..month).map(|month| days_of_month(year, month)).sum::<i64>() + day - 1
}

/// What `config` shows.
#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// What to show.
    #[command(subcommand)]
    pub what: ConfigCommand,
}

/// Parts of `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every key: meaning, unit, bounds, default; and the keys of RocketMQ that are ignored, with the reason
    Reference,
    /// The annotated configuration file
    Toml,
    /// The values that a server with these options would use, and where each comes from
    Show(Box<ServerArguments>),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        CommandLine::try_parse_from(line.split(' ')).map(|parsed| parsed.command)
    }

    #[test]
    fn the_definition_is_sound() {
        // Goal: clap's own checks hold. Method: its debug assertion.
        CommandLine::command().debug_assert();
    }

    #[test]
    fn help_shows_commands_and_exit_codes() {
        // Goal: `--help` is enough to begin. Method: the outline of its text.
        let help = CommandLine::command().render_help().to_string();
        let first_words: Vec<&str> =
            help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
        let expected = ["start", "broker", "namesrv", "produce", "consume", "config", "store", "tune", "help"];
        assert_eq!(first_words[..9], expected);
        assert!(help.contains("Exit codes:\n    0  done"), "{help}");
    }

    #[test]
    fn server_options_become_settings() {
        // Goal: each option reaches its key. Method: one line with all of them.
        let line = "ringmq start --data /d --listen ::1 --broker-port 1000 --namesrv-port 1001 --namesrv a:1;b:2 \
                    --cores 0,2-3 --shards 2 --set maxTopics=1 --set a=b --log-level debug --log-target /l --config c \
                    --broker-conf b";
        let Ok(Command::Start(arguments)) = parse(line) else { panic!("start") };
        let sources = arguments.sources(Service::Broker);
        assert_eq!(sources.options.len(), 9);
        assert!(sources.options.contains(&("namesrv_addr", "a:1;b:2".into())));
        assert_eq!(sources.sets, ["maxTopics=1", "a=b"]);
        let layers = crate::config::Layers { options: sources.options, ..Default::default() };
        let config = layers.build().expect("valid values");
        assert_eq!((config.shards, config.broker_port, config.namesrv_port), (2, 1000, 1001));
    }

    #[test]
    fn client_options() {
        // Goal: produce and consume take what they document. Method: defaults, everything, mistakes.
        let Ok(Command::Produce(options)) = parse("ringmq produce --topic t hello") else { panic!("produce") };
        assert_eq!(
            (options.name_servers.addresses().as_slice(), options.body.as_deref()),
            (&["127.0.0.1:9876".to_string()][..], Some("hello"))
        );
        let line = "ringmq consume --topic t --namesrv a:1;b:2 --group g --tag x --key k --count 3 --from earliest";
        let Ok(Command::Consume(options)) = parse(line) else { panic!("consume") };
        assert_eq!(
            (options.name_servers.addresses().len(), options.from, options.count),
            (2, StartPosition::Earliest, Some(3))
        );
        for bad in
            ["produce", "consume --topic t --from noon", "produce --topic t --count 0", "start --no-such", "serve"]
        {
            assert_eq!(parse(&format!("ringmq {bad}")).map(|_| ()).map_err(|error| error.exit_code()), Err(2), "{bad}");
        }
    }

    #[test]
    fn times() {
        // Goal: RFC 3339 means what it says. Method: known instants and texts that are none.
        for (text, milliseconds) in [
            ("1700000000000", 1_700_000_000_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600_000),
            ("2023-11-14T22:13:20.5Z", 1_700_000_000_500),
            ("2023-11-15T06:13:20.123456+08:00", 1_700_000_000_123),
            ("2023-11-14 17:13:20-05:00", 1_700_000_000_000),
        ] {
            assert_eq!(text.parse(), Ok(StartPosition::Time(milliseconds)), "{text}");
        }
        for text in [
            "",
            "2023-11-14",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:00",
            "2023-01-01T00:00:00+0800",
            "2023-01-01T00:00:00.Z",
            "1969-12-31T23:59:59Z",
            "0000-00-00T00:00:00é",
        ] {
            assert!(text.parse::<StartPosition>().is_err(), "{text}");
        }
    }
}
