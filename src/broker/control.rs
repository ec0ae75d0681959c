//! [`Control`]: the tables of the control plane and the calls that the control thread makes. What each request does is in
//! the feature files; this file only ties them together.
//!
//! Invariants: no clock, no sockets, no files; time comes in as an argument ([`Now`]). A call that returns has applied all its changes; the effects tell what is left to do outside.

use std::time::Duration;

use ringmq_protocol::bodies::DataVersion;
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_shards::clock::Now;

use super::clients::ClientTable;
use super::groups::{GroupTable, GroupsBefore};
use super::locks::{LOCK_TIMEOUT_MS, LockTable};
use super::offsets::{OFFSET_VERSION_STEP, OffsetCommit, OffsetTable};
use super::settings::{BrokerIdentity, ConfigAccess, ControlConfig, SealedConfig};
use super::snapshot::Publisher;
use super::statistics::Statistics;
use super::store_reader::StoreReader;
use super::topics::{TopicTable, TopicsBefore};
use super::{Answer, Effect, Peer, Refusal, Request, dispatch};

/// Period of the scan for expired clients and locks. Source: ClientHousekeepingService.
const SCAN_PERIOD: Duration = Duration::from_secs(10);

/// Topics and groups at one moment.
#[derive(Debug)]
pub struct TablesBefore {
    pub(crate) topics: TopicsBefore,
    pub(crate) groups: GroupsBefore,
}

/// Tables that a change has made and that are not in force: they are being written.
#[derive(Debug)]
pub struct TablesAside {
    tables: TablesBefore,
    /// Versions of the tables that are in force instead, when that began.
    versions: (DataVersion, DataVersion),
}

/// The control plane of one broker.
pub struct Control {
    /// Topics.
    pub topics: TopicTable,
    /// Subscription groups.
    pub groups: GroupTable,
    /// Committed offsets.
    pub offsets: OffsetTable,
    /// Connected clients.
    pub clients: ClientTable,
    /// Orderly locks.
    pub locks: LockTable,
    /// Rates of topics and groups.
    pub statistics: Statistics,
    /// Settings.
    pub config: ControlConfig,
    pub(crate) identity: BrokerIdentity,
    pub(crate) access: Box<dyn ConfigAccess>,
    /// Version of the configuration, sent with code 26.
    pub(crate) config_version: DataVersion,
    pub(crate) publisher: Publisher,
    /// Whether a registration with every topic has been made.
    pub(crate) fully_registered: bool,
    /// Members of `consumerOffset.json` that this version does not know.
    pub(crate) unknown_offset_members: std::collections::BTreeMap<String, ringmq_protocol::json::Value>,
    last_scan_ms: Option<u64>,
    last_registration_ms: Option<u64>,
}

impl Control {
    /// A broker with the topics and groups of a first start.
    pub fn new(identity: BrokerIdentity, config: ControlConfig) -> Control {
        let mut control = Control {
            topics: TopicTable::new(&identity, &config),
            groups: GroupTable::new(),
            offsets: OffsetTable::default(),
            clients: ClientTable::default(),
            locks: LockTable::new(LOCK_TIMEOUT_MS),
            statistics: Statistics::default(),
            config,
            identity,
            access: Box::new(SealedConfig),
            config_version: DataVersion::default(),
            publisher: Publisher::default(),
            fully_registered: false,
            unknown_offset_members: std::collections::BTreeMap::new(),
            last_scan_ms: None,
            last_registration_ms: None,
        };
        let groups: Vec<String> = control.groups.sorted().keys().cloned().collect();
        groups.iter().for_each(|group| control.stale_group(group));
        control
    }

    /// Attaches the configuration that codes 25 and 26 show and change.
    #[must_use]
    pub fn with_config_access(mut self, access: Box<dyn ConfigAccess>) -> Control {
        self.access = access;
        self
    }

    /// Who this broker is.
    pub fn identity(&self) -> &BrokerIdentity {
        &self.identity
    }

    /// Applies one request. The answer has the request's opaque and header form; a oneway request gets none.
    pub fn handle(
        &mut self,
        command: &Command,
        peer: &Peer,
        now: Now,
        store: &dyn StoreReader,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        let handled = match dispatch::handler(command.code) {
            Some(handler) => handler(self, &mut Request { command, peer, now, store, effects }),
            None => Err(unsupported(command.code)),
        };
        let answer = handled.unwrap_or_else(|refusal| Answer::Now(refusal.into_command()));
        if command.is_oneway() {
            return Answer::Nothing;
        }
        let (opaque, serialize_type) = (command.opaque, command.serialize_type);
        match answer {
            Answer::Now(answer) => Answer::Now(Command { opaque, serialize_type, ..answer }),
            Answer::LookUp(look_up) => {
                Answer::LookUp(Box::new(move |store| Command { opaque, serialize_type, ..look_up(store) }))
            }
            Answer::Nothing => Answer::Nothing,
        }
    }

    /// Drops every offset of a group.
    pub fn forget_offsets(&mut self, group: &str) {
        self.offsets.remove_group(group);
    }

    /// The tables that a request may change and that must be on disk before it is confirmed.
    pub fn remember(&self) -> TablesBefore {
        TablesBefore { topics: self.topics.remember(), groups: self.groups.remember() }
    }

    /// Whether topics or groups were made, changed or removed since.
    pub fn differs_from(&self, before: &TablesBefore) -> bool {
        self.topics.differ_from(&before.topics) || self.groups.differ_from(&before.groups)
    }

    /// Undoes all changes of topics and groups since, as if they had never been.
    pub fn undo(&mut self, before: TablesBefore) {
        self.exchange(before);
    }

    fn exchange(&mut self, other: TablesBefore) -> TablesBefore {
        TablesBefore { topics: self.topics.exchange(other.topics), groups: self.exchange_groups(other.groups) }
    }

    /// Puts the tables aside until they are written; those before are in force again.
    pub fn set_aside(&mut self, before: TablesBefore) -> TablesAside {
        let tables = self.exchange(before);
        TablesAside { tables, versions: (self.topics.version().clone(), self.groups.version().clone()) }
    }

    /// The tables are written, and in force from now on.
    pub fn put_in_force(&mut self, aside: TablesAside, wall_ms: u64) {
        let TablesAside { tables, versions: (topics, groups) } = aside;
        let meanwhile = self.exchange(tables);
        // What has changed besides, such as the broker's permission, is a version of its own.
        if *meanwhile.topics.version() != topics {
            self.topics.bump(wall_ms);
        }
        if *meanwhile.groups.version() != groups {
            self.groups.bump(wall_ms);
        }
    }

    /// The tables are not in force, and may yet be in their files: those of now must be written, as one more change.
    pub fn give_up(&mut self, aside: &TablesAside, wall_ms: u64) {
        if self.topics.differ_from(&aside.tables.topics) {
            self.topics.bump(wall_ms);
        }
        if self.groups.differ_from(&aside.tables.groups) {
            self.groups.bump(wall_ms);
        }
    }

    /// Takes a sample for the rates of topics and groups, if it is time. `topics` gives the messages ever stored in each.
    pub fn sample_statistics<'a>(&mut self, steady_ms: u64, topics: impl Iterator<Item = (&'a str, u64)>) {
        if self.statistics.is_due(steady_ms) {
            self.statistics.sample(steady_ms, topics, self.offsets.pulled_messages());
        }
    }

    /// Applies commits and pull positions that came with pulls. Groups and topics are not checked again: the pull was.
    pub fn commit_offsets(&mut self, commits: impl IntoIterator<Item = OffsetCommit>, wall_ms: u64) {
        for OffsetCommit { group, topic, queue_id, commit, pulled } in commits {
            if let Some(offset) = pulled {
                self.offsets.record_pull(&group, &topic, queue_id, offset);
            }
            if let Some(offset) = commit {
                self.offsets.commit(&group, &topic, queue_id, offset, OFFSET_VERSION_STEP, wall_ms);
            }
        }
    }

    /// Periodic work; call it about once a second. The first call registers the broker.
    pub fn tick(&mut self, now: Now, effects: &mut Vec<Effect>) {
        let Now { steady_ms, wall_ms } = now;
        let is_due = |last: Option<u64>, period: Duration| {
            last.is_none_or(|last| u128::from(steady_ms.saturating_sub(last)) >= period.as_millis())
        };
        if is_due(self.last_scan_ms, SCAN_PERIOD) {
            self.last_scan_ms = Some(steady_ms);
            self.expire_clients(steady_ms, effects);
            self.locks.expire(steady_ms);
        }
        if is_due(self.last_registration_ms, self.config.register_period_clamped()) {
            self.start_versions(wall_ms);
            self.last_registration_ms = Some(steady_ms);
            effects.push(Effect::RegisterAll);
        }
    }

    fn start_versions(&mut self, wall_ms: u64) {
        self.topics.start_version(wall_ms);
        self.groups.start_version(wall_ms);
        super::topics::start_version(&mut self.config_version, wall_ms);
    }
}

/// The answer to a code that nobody serves. Source: AdminBrokerProcessor.getUnknownCmdResponse.
pub fn unsupported(code: i32) -> Refusal {
    Refusal::new(response::REQUEST_CODE_NOT_SUPPORTED, format!(" request type {code} not supported"))
}
