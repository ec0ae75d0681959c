//! The table of configuration keys. Everything that speaks of keys is derived from it: the typed `Config`, the
//! annotated `ringmq.toml`, the text that tools read with request 26, the list of ignored keys and the reference.
//!
//! Invariants: a name, in either spelling, belongs to one key; every default parses with its own kind. Both are tested.
//! The rows are constants: nobody owns state here.

use super::values::Kind;
use super::{honoured, java_broker, java_store};

/// Which of RocketMQ's configuration objects a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `BrokerConfig` or `BrokerIdentity`.
    Broker,
    /// `NettyServerConfig` or `NettyClientConfig`.
    Netty,
    /// `MessageStoreConfig`.
    Store,
    /// `AuthConfig`.
    Auth,
    /// `NamesrvConfig`.
    Namesrv,
    /// `ControllerConfig`.
    Controller,
    /// A JVM system property that people also write into configuration files.
    Jvm,
    /// Not in RocketMQ 5.3.3, but in other versions.
    Later,
    /// RingMQ's own.
    Ringmq,
}

impl Origin {
    /// Whether a Java broker lists keys of this object when it is asked for its configuration (code 26).
    pub fn is_listed_by_broker(self) -> bool {
        matches!(self, Origin::Broker | Origin::Netty | Origin::Store | Origin::Auth)
    }
}

/// When a change through code 25 (or 318 for the name server) takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// At once.
    Live,
    /// Stored, used from the next start on.
    Restart,
    /// Refused: it says where the stored changes themselves are found.
    Fixed,
}

/// One key that RingMQ uses.
#[derive(Debug)]
pub struct Key {
    /// Our spelling, which is also the field of [`super::Config`].
    pub name: &'static str,
    /// RocketMQ's spelling; `None` for keys of our own.
    pub java: Option<&'static str>,
    /// Where RocketMQ keeps it.
    pub origin: Origin,
    /// Heading in generated text.
    pub section: &'static str,
    /// Type and bounds.
    pub kind: Kind,
    /// Default, in canonical form.
    pub default: &'static str,
    /// When a change takes effect.
    pub change: Change,
    /// What it does, why it has its bound, what breaks if it is raised.
    pub doc: &'static str,
}

impl Key {
    /// The spelling that tools see: RocketMQ's if there is one.
    pub fn public_name(&self) -> &'static str {
        self.java.unwrap_or(self.name)
    }
}

/// Why a key of RocketMQ's means nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Behaviour that cannot be switched.
    AlwaysDefault,
    /// Authentication and authorization.
    Auth,
    /// Reading old messages.
    ColdReads,
    /// Compacted topics.
    Compaction,
    /// Subscriptions beside those of heartbeats.
    Compensation,
    /// Controller and DLedger.
    Controller,
    /// Delayed messages.
    Delay,
    /// Refusals by time spent in a queue.
    FastFailure,
    /// SQL and bloom filters.
    Filter,
    /// Page counts and flush timers.
    FlushPolicy,
    /// Paths and parts of a Java installation.
    Layout,
    /// Light message queues.
    LightQueues,
    /// Metrics exporters.
    Metrics,
    /// Finding name servers.
    NameServerLookup,
    /// Netty.
    Netty,
    /// POP consumption.
    Pop,
    /// CRC in properties.
    PropertyCrc,
    /// Master and slaves.
    Replication,
    /// The RocksDB store.
    RocksDb,
    /// Statistics and their log files.
    Statistics,
    /// Inner parts of the Java store.
    StoreInternals,
    /// Thread pools.
    ThreadPools,
    /// TLS.
    Tls,
    /// Transactional messages.
    Transactions,
}

impl Reason {
    /// The reason as a clause that follows the key's name.
    pub fn text(self) -> &'static str {
        match self {
            Reason::AlwaysDefault => "the behaviour of RocketMQ's default is built in",
            Reason::Auth => "authentication and authorization are not served yet",
            Reason::ColdReads => "reads of old messages are asynchronous and have one byte budget, cold_read_bytes",
            Reason::Compaction => "compacted topics are not served yet",
            Reason::Compensation => "a group's subscriptions are those of its members' heartbeats and end with them",
            Reason::Controller => "controllers and DLedger are not served yet",
            Reason::Delay => "delayed and timed messages are not served yet",
            Reason::FastFailure => {
                "pressure is answered by TCP first, then by a retryable code that names the limit; nothing is \
                 refused for its time in a queue"
            }
            Reason::Filter => "SQL filters are not served yet",
            Reason::FlushPolicy => {
                "writes and syncs are grouped by what has gathered, not by page counts; flush_interval_commit_log \
                 bounds the time"
            }
            Reason::Layout => "it names a part of a Java installation",
            Reason::LightQueues => "light message queues and multi-dispatch are not served yet",
            Reason::Metrics => "metrics are served at metrics_listen",
            Reason::NameServerLookup => "name servers are listed in namesrv_addr",
            Reason::Netty => "there is no Netty here: shards drive their sockets themselves",
            Reason::Pop => "POP consumption is not served yet",
            Reason::PropertyCrc => "the CRC property is neither written nor checked",
            Reason::Replication => "replication and slaves are not served yet",
            Reason::RocksDb => "the RocksDB store is not supported",
            Reason::Statistics => "counters are metrics, not log files",
            Reason::StoreInternals => "the store has no memory maps, buffer pools, dispatcher or append locks to tune",
            Reason::ThreadPools => "there are no thread pools: pinned shards serve requests and bound them by bytes",
            Reason::Tls => "TLS is not served yet",
            Reason::Transactions => "transactional messages are not served yet",
        }
    }
}

/// One key of RocketMQ's that RingMQ knows and does not use.
#[derive(Debug)]
pub struct JavaKey {
    /// RocketMQ's spelling.
    pub java: &'static str,
    /// Where RocketMQ keeps it.
    pub origin: Origin,
    /// Default of RocketMQ 5.3.3; `None` when it is unset there. May hold `$HOME` or a formula of `cpu`.
    pub default: Option<&'static str>,
    /// Why it is not used.
    pub reason: Reason,
    /// The only values that do not ask for something RingMQ does not do; `None`: any value is harmless.
    pub only: Option<&'static [&'static str]>,
}

impl JavaKey {
    pub(super) const fn new(
        origin: Origin,
        java: &'static str,
        default: Option<&'static str>,
        reason: Reason,
    ) -> JavaKey {
        JavaKey { java, origin, default, reason, only: None }
    }

    pub(super) const fn guarded(
        origin: Origin,
        java: &'static str,
        default: Option<&'static str>,
        reason: Reason,
        only: &'static [&'static str],
    ) -> JavaKey {
        JavaKey { java, origin, default, reason, only: Some(only) }
    }

    /// Whether the value is a secret, which is neither logged nor shown to tools.
    pub fn is_secret(&self) -> bool {
        let secrets = ["initAuthenticationUser", "innerClientAuthenticationCredentials", "tls.server.keyPassword"];
        secrets.contains(&self.java)
    }

    /// The default as RocketMQ prints it on a machine with this many processors and this home directory.
    pub fn default_on(&self, processors: u64, home: &str) -> Option<String> {
        let text = self.default?;
        let sized = match text {
            "min(cpu,4)" => processors.min(4),
            "min(32,cpu)" => processors.min(32),
            "16+2cpu" => 16 + 2 * processors,
            "8+cpu" => 8 + processors,
            "8+2cpu" => 8 + 2 * processors,
            _ => return Some(text.replace("$HOME", home)),
        };
        Some(sized.to_string())
    }
}

/// What a name stands for.
#[derive(Debug, Clone, Copy)]
pub enum Entry {
    /// A key that RingMQ uses.
    Used(&'static Key),
    /// A key of RocketMQ's that means nothing here.
    Ignored(&'static JavaKey),
}

impl Entry {
    /// The spelling that tools see.
    pub fn public_name(self) -> &'static str {
        match self {
            Entry::Used(key) => key.public_name(),
            Entry::Ignored(key) => key.java,
        }
    }
}

/// Which server's configuration a text belongs to: the flat name space of a broker or that of a name server, which
/// share one name, `listenPort`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Service {
    /// `listenPort` is the broker's.
    #[default]
    Broker,
    /// `listenPort` is the name server's.
    Namesrv,
}

/// All keys that RingMQ uses, by section.
pub fn used() -> &'static [Key] {
    honoured::KEYS
}

/// All keys of RocketMQ's that mean nothing here.
pub fn ignored() -> impl Iterator<Item = &'static JavaKey> {
    java_broker::KEYS.iter().chain(java_store::KEYS)
}

/// Finds a key by either spelling.
pub fn find(service: Service, name: &str) -> Option<Entry> {
    if service == Service::Namesrv && name == "listenPort" {
        return find(service, "namesrv_port");
    }
    let used = used().iter().find(|key| key.name == name || key.java == Some(name)).map(Entry::Used);
    used.or_else(|| ignored().find(|key| key.java == name).map(Entry::Ignored))
}

/// The known name that takes the fewest edits to reach, without regard to case and underscores. A name that can be
/// used wins over an ignored one at the same distance.
pub fn nearest(name: &str) -> &'static str {
    let wanted = folded(name);
    let own_spelling = name.contains('_') || !name.bytes().any(|byte| byte.is_ascii_uppercase());
    let spelled = used().iter().flat_map(|key| {
        let java = key.public_name();
        if own_spelling { [key.name, java] } else { [java, key.name] }
    });
    let all = spelled.chain(ignored().map(|key| key.java));
    all.min_by_key(|candidate| edit_distance(&wanted, &folded(candidate))).unwrap_or("listen")
}

fn folded(name: &str) -> Vec<u8> {
    name.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect()
}

/// Levenshtein distance.
fn edit_distance(left: &[u8], right: &[u8]) -> usize {
    let mut previous: Vec<usize> = (0..=right.len()).collect();
    let mut current = previous.clone();
    for (row, left_byte) in left.iter().enumerate() {
        current[0] = row + 1;
        for (column, right_byte) in right.iter().enumerate() {
            let substitution = previous[column] + usize::from(left_byte != right_byte);
            current[column + 1] = substitution.min(previous[column + 1] + 1).min(current[column] + 1);
        }
        std::mem::swap(&mut previous, &mut current);
    }
    previous[right.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The keys of RocketMQ 5.3.3's configuration objects with their defaults, as its classes print them.
    const JAVA_DEFAULTS: &str = include_str!("java-5.3.3.properties");

    #[test]
    fn every_java_key_is_known_with_its_default() {
        // Goal: tools find every key of RocketMQ 5.3.3 and its default. Method: compare with the list its classes
        // print.
        let ours_on_purpose = ["bindAddress", "storePathRootDir", "kvConfigPath", "configBlackList"];
        for line in JAVA_DEFAULTS.lines() {
            let (name, value) = line.split_once('=').expect("list has name=value lines");
            let default = match find(Service::Broker, name).unwrap_or_else(|| panic!("{name} is missing")) {
                Entry::Used(key) => Some(key.default),
                Entry::Ignored(key) => key.default,
            };
            if name == "haListenPort" {
                assert_eq!(default, Some("0"), "0 stands for broker port + 1");
            } else if !ours_on_purpose.contains(&name) {
                assert_eq!(default, Some(value), "{name}");
            }
        }
    }

    #[test]
    fn names_are_unique() {
        // Goal: a name means one key. Method: collect both spellings of all keys.
        let mut seen = BTreeSet::new();
        for key in used() {
            assert!(seen.insert(key.name), "{}", key.name);
            assert!(key.java.is_none_or(|java| seen.insert(java)), "{:?}", key.java);
            assert!(key.doc.len() > 20, "{} is documented", key.name);
        }
        for key in ignored() {
            assert!(seen.insert(key.java), "{}", key.java);
        }
    }

    #[test]
    fn nearest_key_is_found_in_the_spelling_of_the_question() {
        // Goal: a typo names what was meant. Method: misspell in both styles.
        assert_eq!(nearest("flushDiskTyp"), "flushDiskType");
        assert_eq!(nearest("flush_disk_typ"), "flush_disk_type");
        assert_eq!(nearest("autoCreateTopicEnabled"), "autoCreateTopicEnable");
        assert_eq!(nearest("log_levle"), "log_level");
        assert_eq!(nearest("timerWheelEnabled"), "timerWheelEnable");
    }

    #[test]
    fn listen_port_depends_on_the_service() {
        // Goal: `listenPort` of a name server's file is not the broker's. Method: look it up for both.
        let name = |service| match find(service, "listenPort") {
            Some(Entry::Used(key)) => key.name,
            other => panic!("{other:?}"),
        };
        assert_eq!(name(Service::Broker), "broker_port");
        assert_eq!(name(Service::Namesrv), "namesrv_port");
    }

    #[test]
    fn processor_formulas_give_numbers() {
        // Goal: defaults that depend on the machine are printed as numbers. Method: evaluate all for 8 processors.
        for key in ignored() {
            let text = key.default_on(8, "/home/user").unwrap_or_default();
            assert!(!text.contains("cpu") && !text.contains("$HOME"), "{} = {text}", key.java);
        }
    }
}
