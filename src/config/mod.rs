//! Settings: one table of keys ([`keys`]), layers of values over its defaults ([`Layers`]), and the typed [`Config`].
//!
//! Invariants: an unknown key refuses the start and names the nearest one; a key of RocketMQ's that means nothing
//! here is reported with its reason, and refused if its value asks for something that is not done. The control thread
//! owns the configuration in use; other threads read copies.

mod check;
mod error;
mod honoured;
pub mod identity;
mod java_broker;
mod java_store;
pub mod keys;
pub mod live;
pub mod machine;
pub mod properties;
mod render;
mod settings;
mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use error::Mistakes;
pub use error::{ConfigError, Place, Source};
pub use honoured::Config;
pub use keys::Service;
pub use live::{AppliedChange, Effect};
pub use render::{example_toml, reference};
pub use settings::{Setting, Settings};
pub use values::{FlushDiskType, Kind, LogLevel, WritePath, show_size};

/// Folder of our own files in the data directory.
pub const OWN_FOLDER: &str = "ringmq";
/// File in that folder with the processors that `ringmq tune cpus` chose for the shards.
pub const CPUS_FILE: &str = "cpus.toml";

/// Texts of all layers above the defaults, weakest first. Building from them is pure.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Whose `listenPort` a properties file and `--set` speak of.
    pub service: Service,
    /// Value of the environment variable `NAMESRV_ADDR`, which RocketMQ obeys too.
    pub namesrv_addr_variable: Option<String>,
    /// Path and TOML text of `--config`.
    pub config_file: Option<(PathBuf, String)>,
    /// Path and properties text of `--broker-conf`.
    pub broker_conf: Option<(PathBuf, String)>,
    /// `KEY=VALUE` of each `--set`.
    pub sets: Vec<String>,
    /// Keys (our spelling) that have options of their own, with their values.
    pub options: Vec<(&'static str, String)>,
    /// Text of the file of live changes.
    pub live: Option<String>,
    /// Path and text of the file of processors; it counts where no layer names cores.
    pub cpus_file: Option<(PathBuf, String)>,
}

impl Layers {
    /// Puts the layers on top of each other and checks the result.
    pub fn build(&self) -> Result<Config, ConfigError> {
        let mut settings = self.start_settings()?;
        if let Some(text) = &self.live {
            settings.set_properties(Service::Broker, text, &Source::Live)?;
        }
        if let Some((path, text)) = &self.cpus_file
            && *settings.source("cores") == Source::Default
        {
            let source = Source::File(path.clone());
            settings.set(self.service, "cores", &chosen_cores(text, &source)?, &source)?;
        }
        check::build(settings)
    }

    /// All layers but the live changes, whose place they name.
    fn start_settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        let mut mistakes = Mistakes::default();
        if let Some(value) = &self.namesrv_addr_variable {
            mistakes.note(settings.set(self.service, "namesrv_addr", value, &Source::Environment));
        }
        if let Some((path, text)) = &self.config_file {
            mistakes.note(settings.set_toml(text, &Source::File(path.clone())));
        }
        if let Some((path, text)) = &self.broker_conf {
            mistakes.note(settings.set_properties(self.service, text, &Source::BrokerConf(path.clone())));
        }
        for pair in &self.sets {
            let split = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty());
            let parts = split.ok_or_else(|| ConfigError::Syntax {
                origin: Place::from(&Source::Set),
                problem: format!("\"{pair}\" is not KEY=VALUE"),
            });
            if let Some((key, value)) = mistakes.note(parts) {
                mistakes.note(settings.set(self.service, key, value, &Source::Set));
            }
        }
        for (key, value) in &self.options {
            mistakes.note(settings.set(Service::Broker, key, value, &Source::Option));
        }
        mistakes.unless_any(settings)
    }
}

/// Where a start finds its configuration.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// Whose `listenPort` a properties file and `--set` speak of.
    pub service: Service,
    /// `--config`.
    pub config_file: Option<PathBuf>,
    /// `--broker-conf`.
    pub broker_conf: Option<PathBuf>,
    /// Each `--set`.
    pub sets: Vec<String>,
    /// Options of their own.
    pub options: Vec<(&'static str, String)>,
}

/// The list of `shards` in the file that `ringmq tune cpus` writes.
fn chosen_cores(text: &str, source: &Source) -> Result<String, ConfigError> {
    let syntax = |problem: String| ConfigError::Syntax { origin: Place::from(source), problem };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| syntax(error.to_string()))?;
    match table.get("shards").and_then(toml::Value::as_str) {
        Some(list) if !list.is_empty() => Ok(list.into()),
        _ => Err(syntax("it names no shards; run `ringmq tune cpus` again, or remove it".into())),
    }
}

/// Reads files, environment and the data directory's live changes, and builds the configuration.
pub fn load(sources: Sources) -> Result<Config, ConfigError> {
    let config = load_layers(sources, true)?;
    let own = machine::processor_numbers();
    let foreign = config.cores.iter().find(|core| !own.is_empty() && !own.contains(core));
    let Some(core) = foreign else { return Ok(config) };
    Err(ConfigError::Conflict(match config.settings.source("cores") {
        Source::File(path) if path.ends_with(CPUS_FILE) => format!(
            "{} names processor {core}, which this process may not use: run `ringmq tune cpus` again, or set cores",
            path.display()
        ),
        source => format!("cores in {source} names processor {core}; this process may use {own:?}"),
    }))
}

/// As [`load`], without the file of processors: for the tool that writes it, and for tools that run no shards.
pub fn load_without_cpus_file(sources: Sources) -> Result<Config, ConfigError> {
    load_layers(sources, false)
}

fn load_layers(sources: Sources, with_cpus_file: bool) -> Result<Config, ConfigError> {
    let read = |path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    };
    let mut layers = Layers {
        service: sources.service,
        namesrv_addr_variable: std::env::var("NAMESRV_ADDR").ok().filter(|value| !value.is_empty()),
        config_file: sources.config_file.map(read).transpose()?,
        broker_conf: sources.broker_conf.map(read).transpose()?,
        sets: sources.sets,
        options: sources.options,
        live: None,
        cpus_file: None,
    };
    let root = layers.start_settings()?.text("data_dir").to_string();
    let own = |name: &str| {
        let path = Path::new(&root).join(OWN_FOLDER).join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some((path, text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        }
    };
    layers.live = own(live::FILE_NAME)?.map(|(_, text)| text);
    if with_cpus_file {
        layers.cpus_file = own(CPUS_FILE)?;
    }
    layers.build()
}

impl Config {
    /// The data directory, RocketMQ's `storePathRootDir`.
    pub fn root_dir(&self) -> PathBuf {
        PathBuf::from(&self.data_dir)
    }

    /// The folder of our own files in the data directory.
    pub fn own_dir(&self) -> PathBuf {
        self.root_dir().join(OWN_FOLDER)
    }

    /// The directory of the commit log's files.
    pub fn commit_log_dir(&self) -> PathBuf {
        if self.store_path_commit_log.is_empty() {
            self.root_dir().join("commitlog")
        } else {
            PathBuf::from(&self.store_path_commit_log)
        }
    }

    /// The file of the name server's key-value pairs.
    pub fn kv_config_file(&self) -> PathBuf {
        if self.kv_config_path.is_empty() {
            self.root_dir().join("namesrv").join("kvConfig.json")
        } else {
            PathBuf::from(&self.kv_config_path)
        }
    }

    /// The broker's second port, if it has one.
    pub fn fast_port(&self) -> Option<u16> {
        self.fast_port_enable.then(|| self.broker_port - 2)
    }

    /// The port announced for replication.
    pub fn ha_port(&self) -> u16 {
        if self.ha_listen_port == 0 { self.broker_port.saturating_add(1) } else { self.ha_listen_port }
    }

    /// Shards to run, given the processors that the process may use.
    pub fn shard_count(&self, processors: usize) -> usize {
        let automatic = if self.cores.is_empty() { processors.max(1) } else { self.cores.len() };
        if self.shards == 0 { automatic } else { self.shards as usize }
    }

    /// The memory budget, given the bytes that machine and container allow. Never less than ring and cold reads need.
    pub fn memory_budget_bytes(&self, allowed: u64) -> u64 {
        self.memory.unwrap_or_else(|| (allowed / 2).max(self.log_ring_bytes.saturating_add(self.cold_read_bytes)))
    }

    /// The numeric address that clients are told, which is also the store host in every record.
    ///
    /// `resolve` finds the address of a host name, `outward` the machine's own address of the same family.
    pub fn advertised_address(
        &self,
        resolve: impl Fn(&str) -> Option<IpAddr>,
        outward: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> Result<IpAddr, ConfigError> {
        let name = self.advertise.as_str();
        if name.is_empty() {
            if !self.listen.is_unspecified() {
                return Ok(self.listen);
            }
            return outward(self.listen).ok_or_else(|| {
                ConfigError::Conflict(
                    "cannot find an address of this machine to tell clients: set advertise (brokerIP1)".into(),
                )
            });
        }
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        match bare.parse::<IpAddr>().ok().or_else(|| resolve(name)) {
            Some(ip) if !ip.is_unspecified() => Ok(ip),
            Some(_) => Err(ConfigError::Conflict(format!("advertise = {name} is not an address to connect to"))),
            None => Err(ConfigError::Conflict(format!("advertise = {name} cannot be resolved to an address"))),
        }
    }

    /// Takes what the start has found out, so that tools see it: the broker's name and, if none was set, its advertised address.
    /// A host name stays one: clients resolve it, and its address may change.
    pub fn adopt_identity(&mut self, broker_name: &str, address: IpAddr) {
        self.derive("broker_name", broker_name);
        self.broker_name = broker_name.into();
        if self.advertise.is_empty() {
            self.advertise = address.to_string();
            self.derive("advertise", &self.advertise.clone());
        }
        if self.broker_ip2.is_empty() {
            self.broker_ip2 = self.advertise.clone();
            self.derive("broker_ip2", &self.broker_ip2.clone());
        }
    }

    /// Where clients connect, as name servers are told. Call it after [`Self::adopt_identity`].
    pub fn advertised_endpoint(&self) -> String {
        endpoint(&self.advertise, self.broker_port)
    }

    /// Where replicas would connect, as name servers are told. Call it after [`Self::adopt_identity`].
    pub fn ha_endpoint(&self) -> String {
        endpoint(&self.broker_ip2, self.ha_port())
    }

    /// Notes a derived text beside one that was set; a text that came from a live change stays one.
    fn derive(&mut self, name: &str, text: &str) {
        let source = self.settings.source(name).clone();
        let source = if source == Source::Default { Source::Derived } else { source };
        if source != Source::Live
            && let Some(key) = keys::used().iter().find(|key| key.name == name)
        {
            self.settings.set_used(key, text.into(), source);
        }
    }

    /// A sentence for the log when only this machine can connect.
    pub fn loopback_notice(&self) -> Option<String> {
        let anywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        self.listen.is_loopback().then(|| {
            format!(
                "listening on {} only: to serve other machines set listen (bindAddress), for instance to {anywhere}, \
                 and advertise (brokerIP1) to an address that they can reach",
                self.listen
            )
        })
    }

    /// Texts of all settings and where they came from.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Host and port as one text. A bare IPv6 address gets brackets. Source: NetworkUtil.normalizeHostAddress.
fn endpoint(host: &str, port: u16) -> String {
    match host.parse::<Ipv6Addr>() {
        Ok(_) => format!("[{host}]:{port}"),
        Err(_) => format!("{host}:{port}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_layers_win() {
        // Goal: the order of precedence. Method: start with all layers on one key and take them away from the top.
        let mut layers = Layers {
            namesrv_addr_variable: Some("env:1".into()),
            config_file: Some(("c.toml".into(), "namesrv_addr = \"toml:1\"".into())),
            broker_conf: Some(("broker.conf".into(), "namesrvAddr = conf:1\n".into())),
            sets: vec!["namesrv_addr=first:1".into(), "namesrvAddr=set:1".into()],
            options: vec![("namesrv_addr", "option:1".into())],
            live: Some("namesrvAddr=live:1".into()),
            ..Layers::default()
        };
        let value = |layers: &Layers| layers.build().expect("valid").namesrv_addr.join(";");
        assert_eq!(value(&layers), "live:1");
        layers.live = None;
        assert_eq!(value(&layers), "option:1");
        layers.options.clear();
        assert_eq!(value(&layers), "set:1");
        layers.sets.clear();
        assert_eq!(value(&layers), "conf:1");
        layers.broker_conf = None;
        assert_eq!(value(&layers), "toml:1");
        layers.config_file = None;
        assert_eq!(value(&layers), "env:1");
        layers.namesrv_addr_variable = None;
        assert_eq!(value(&layers), "");
    }

    #[test]
    fn a_broker_conf_of_rocketmq_is_obeyed() {
        // Goal: people bring their file. Method: the shipped example's keys, an open address, an ignored key.
        let text = "brokerClusterName = DefaultCluster\nbrokerName = broker-a\nbrokerId = 0\ndeleteWhen = 04\n\
                    fileReservedTime = 48\nbrokerRole = ASYNC_MASTER\nflushDiskType = ASYNC_FLUSH\n\
                    bindAddress=0.0.0.0\nbrokerIP1=10.0.0.7\nsendMessageThreadPoolNums=64\n";
        let layers = Layers { broker_conf: Some(("broker.conf".into(), text.into())), ..Layers::default() };
        let config = layers.build().expect("a plain broker.conf");
        assert_eq!(config.broker_name, "broker-a");
        assert_eq!(config.loopback_notice(), None);
        let advertised = config.advertised_address(|_| None, |_| None).expect("numeric");
        assert_eq!(advertised.to_string(), "10.0.0.7");
        let report = config.ignored_report();
        let ignored = "sendMessageThreadPoolNums = 64 (broker.conf)";
        assert!(report.iter().any(|line| line.starts_with(ignored)), "{report:?}");
        assert_eq!((config.file_reserved_time, config.delete_when.as_str()), (48, "04"));
    }

    #[test]
    fn namesrv_conf_sets_the_name_servers_port() {
        // Goal: RocketMQ's spelling given to a lone name server means its port. Method: `listenPort` for that service, in a file and
        // on the command line.
        let service = Service::Namesrv;
        let broker_conf = Some(("namesrv.conf".into(), "listenPort=9999".into()));
        let of_file = Layers { service, broker_conf, ..Layers::default() };
        let of_set = Layers { service, sets: vec!["listenPort=9999".into()], ..Layers::default() };
        for layers in [of_file, of_set] {
            let config = layers.build().expect("valid");
            assert_eq!((config.namesrv_port, config.broker_port), (9999, 10_911));
        }
    }

    #[test]
    fn advertised_addresses() {
        // Goal: records always get a numeric, reachable address. Method: each way to find one, and the two failures.
        let with = |sets: &[&str]| {
            let sets = sets.iter().map(|text| (*text).to_string()).collect();
            Layers { sets, ..Layers::default() }.build().expect("valid")
        };
        let address = |config: &Config| {
            let resolve = |name: &str| (name == "broker.example").then(|| IpAddr::from([192, 0, 2, 5]));
            let found = config.advertised_address(resolve, |_| Some(IpAddr::from([192, 0, 2, 9])));
            found.map(|ip| ip.to_string()).map_err(|error| error.to_string())
        };
        assert_eq!(address(&with(&[])).as_deref(), Ok("127.0.0.1"));
        assert!(with(&[]).loopback_notice().is_some_and(|text| text.contains("listen") && text.contains("advertise")));
        assert_eq!(address(&with(&["listen=0.0.0.0"])).as_deref(), Ok("192.0.2.9"));
        assert_eq!(address(&with(&["advertise=broker.example"])).as_deref(), Ok("192.0.2.5"));
        assert_eq!(address(&with(&["advertise=[::1]"])).as_deref(), Ok("::1"));
        assert!(address(&with(&["advertise=nowhere.example"])).is_err());
        assert!(address(&with(&["advertise=0.0.0.0"])).is_err());
    }

    #[test]
    fn derived_values_are_shown_and_not_stored() {
        // Goal: tools see the name in use, and it does not become a live change. Method: adopt and look at both texts.
        let mut config = Layers::default().build().expect("defaults");
        config.adopt_identity("broker-a", Ipv4Addr::LOCALHOST.into());
        let text = config.broker_config_text(2, "/home/user");
        for line in ["brokerName=broker-a", "brokerIP1=127.0.0.1", "brokerIP2=127.0.0.1", "haListenPort=10912"] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
        assert!(!config.live_text().contains("broker-a"));
    }

    #[test]
    fn what_clients_are_told_to_connect_to() {
        // Goal: a host name is told as it is, an IPv6 address in brackets. Method: settings, and the text of each.
        for (sets, address, told, replicas) in [
            (vec![], "127.0.0.1", "127.0.0.1:10911", "127.0.0.1:10912"),
            (vec!["brokerIP1=broker.example"], "192.0.2.5", "broker.example:10911", "broker.example:10912"),
            (vec!["brokerIP1=::1"], "::1", "[::1]:10911", "[::1]:10912"),
            (vec!["brokerIP1=[::1]", "brokerIP2=fe80::1"], "::1", "[::1]:10911", "[fe80::1]:10912"),
            (vec!["listen=::1"], "::1", "[::1]:10911", "[::1]:10912"),
        ] {
            let sets = sets.iter().map(|text| (*text).to_string()).collect();
            let mut config = Layers { sets, ..Layers::default() }.build().expect("valid");
            config.adopt_identity("broker-a", address.parse().expect("an address"));
            assert_eq!((config.advertised_endpoint().as_str(), config.ha_endpoint().as_str()), (told, replicas));
            let shown = format!("brokerIP1={}", config.advertise);
            assert!(config.broker_config_text(2, "/home/user").lines().any(|line| line == shown), "{shown}");
        }
    }

    #[test]
    fn counts_and_directories() {
        // Goal: what is derived from values is right. Method: defaults and set values.
        let config = Layers::default().build().expect("defaults");
        assert_eq!(config.shard_count(3), 3);
        assert_eq!(config.memory_budget_bytes(8 << 30), 4 << 30);
        assert_eq!(config.memory_budget_bytes(0), 128 << 20);
        assert_eq!(config.own_dir(), Path::new("./ringmq-data/ringmq"));
        assert_eq!(config.commit_log_dir(), Path::new("./ringmq-data/commitlog"));
        assert_eq!((config.fast_port(), config.ha_port()), (Some(10_909), 10_912));
        let sets = vec!["cores=0,2-3".into(), "storePathCommitLog=/log".into(), "memory=1 GiB".into()];
        let config = Layers { sets, ..Layers::default() }.build().expect("valid");
        assert_eq!(config.shard_count(8), 3);
        assert_eq!(config.commit_log_dir(), Path::new("/log"));
        assert_eq!(config.memory_budget_bytes(0), 1 << 30);
    }

    #[test]
    fn all_mistakes_are_told_at_once_with_their_lines() {
        // Goal: a configuration with several mistakes is mended in one go. Method: mistakes in every source, then a single one.
        let layers = Layers {
            config_file: Some((
                "a.toml".into(),
                "# first\nbroker_prt = 1\n\nfoo.bar = 2\nlisten = 3\nlisten = 3".into(),
            )),
            broker_conf: Some((
                "b.conf".into(),
                "\n# two\nmapedFileSizeCommitLog=1\nbrokerRole=\\\n SLAVE\nlistenPort=x".into(),
            )),
            sets: vec!["cors=1".into(), "=1".into(), "max_topics".into()],
            options: vec![("shards", "65".into())],
            ..Layers::default()
        };
        let told = |layers: &Layers| layers.build().expect_err("refused").to_string();
        assert!(told(&layers).contains("a.toml"), "a key that is there twice is no TOML: {}", told(&layers));
        let mut layers = layers;
        if let Some((_, text)) = &mut layers.config_file {
            text.truncate(text.len() - "\nlisten = 3".len());
        }
        let lines: Vec<String> = told(&layers).lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "10 mistakes in the configuration:");
        for (line, parts) in lines[1..].iter().zip([
            &["\"broker_prt\" in a.toml, line 2;", "\"broker_port\""][..],
            &["a.toml, line 4", "without [sections]"],
            &["listen = \"3\" in a.toml, line 5:"],
            &["in b.conf, line 3;", "\"mappedFileSizeCommitLog\""],
            &["brokerRole = \"SLAVE\" in b.conf, line 4 "],
            &["listenPort = \"x\" in b.conf, line 6:"],
            &["\"cors\" in --set;", "\"cores\""],
            &["\"=1\" is not KEY=VALUE"],
            &["\"max_topics\" is not KEY=VALUE"],
            &["shards = \"65\" in the command line"],
        ]) {
            assert!(parts.iter().all(|part| line.contains(part)), "{line}: {parts:?}");
        }
        let single = Layers { sets: vec!["=1".into()], ..Layers::default() };
        assert_eq!(told(&single), "cannot read --set: \"=1\" is not KEY=VALUE");
    }

    #[test]
    fn files_and_live_changes_are_read() {
        // Goal: the shell reads what the layers need. Method: real files in a temporary directory, then a missing one.
        let folder = tempfile::tempdir().expect("temporary directory");
        let file = folder.path().join("a.toml");
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("ringmq")).expect("data directory");
        std::fs::write(&file, format!("data_dir = {:?}\nbroker_port = 7000", data.display().to_string()))
            .expect("file");
        std::fs::write(data.join("ringmq").join(live::FILE_NAME), "max_topics=7\n").expect("file");
        let sources = Sources { config_file: Some(file), ..Sources::default() };
        let config = load(sources.clone()).expect("valid");
        assert_eq!((config.broker_port, config.max_topics), (7000, 7));
        let missing = Sources { broker_conf: Some(folder.path().join("none")), ..sources };
        assert!(matches!(load(missing), Err(ConfigError::Unreadable { .. })));
    }
}
