//! The catalogue: every setting of a host that this crate knows, with its reason, and the profiles that choose from it.
//!
//! Invariants: whatever [`Catalogue::embedded`] returns is complete and consistent: known fields only, every id of a
//! profile exists and has a value for it, nothing dangerous has a value that would be written. The catalogue is
//! immutable after loading.

mod load;
mod rule;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use load::CatalogueError;
pub use rule::{Computation, Rule, Scalar};

/// What an entry is, and with it how it is read and written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A file below `/proc/sys`, named by the id.
    Sysctl,
    /// A file below `/sys`.
    Sysfs,
    /// Which processors an interrupt may go to.
    Irq,
    /// A setting of a network card that only the `SIOCETHTOOL` call reaches.
    Ethtool,
    /// A question about the host; never written.
    Inquiry,
    /// A limit of the process, which the service manager sets.
    Limit,
    /// A word of the kernel's command line; advice only.
    Boot,
    /// Something that the broker does itself.
    Broker,
    /// An action that others recommend and that is never taken.
    Action,
}

/// How much can go wrong when a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// At run time, without a pause, and undone by writing the old value.
    Safe,
    /// The link goes down for a moment, or clocks jump.
    Jitter,
    /// Needs a reboot.
    Reboot,
    /// May lose data. Checked, never written.
    DataRisk,
}

impl Class {
    /// As in the catalogue's files.
    pub fn name(self) -> &'static str {
        match self {
            Class::Safe => "safe",
            Class::Jitter => "jitter",
            Class::Reboot => "reboot",
            Class::DataRisk => "data-risk",
        }
    }
}

/// How bad a deviation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Costs performance.
    #[default]
    Warn,
    /// The broker cannot run, or not for long.
    Fatal,
}

impl Severity {
    /// As in the catalogue's files.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warn => "warn",
            Severity::Fatal => "fatal",
        }
    }
}

/// What must hold on a host or device for an entry to mean anything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Need {
    /// More than one NUMA node.
    SeveralNodes,
    /// The network card has more than one receive queue.
    SeveralQueues,
    /// The disk does not rotate, or is virtual.
    SolidState,
    /// The kernel idles by the governor `haltpoll`, which polls before it halts.
    HaltpollGovernor,
}

/// A setting of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardSetting {
    /// Queues that receive and send.
    CombinedChannels,
    /// Descriptors of a receive ring.
    RxRing,
    /// Descriptors of a send ring.
    TxRing,
    /// Whether the card chooses the delay of interrupts itself.
    AdaptiveRx,
    /// Delay of receive interrupts in microseconds.
    RxUsecs,
    /// Generic receive offload.
    Gro,
    /// TCP segmentation offload.
    Tso,
    /// Generic segmentation offload.
    Gso,
    /// Large receive offload.
    Lro,
    /// Obeys pause frames.
    PauseRx,
    /// Sends pause frames.
    PauseTx,
    /// Energy-efficient Ethernet.
    Eee,
    /// Filters that steer connections to queues.
    Ntuple,
}

impl CardSetting {
    /// All settings.
    pub const ALL: [CardSetting; 13] = [
        CardSetting::CombinedChannels,
        CardSetting::RxRing,
        CardSetting::TxRing,
        CardSetting::AdaptiveRx,
        CardSetting::RxUsecs,
        CardSetting::Gro,
        CardSetting::Tso,
        CardSetting::Gso,
        CardSetting::Lro,
        CardSetting::PauseRx,
        CardSetting::PauseTx,
        CardSetting::Eee,
        CardSetting::Ntuple,
    ];

    /// As in the catalogue's files, and as a file name in a fake root.
    pub fn name(self) -> &'static str {
        match self {
            CardSetting::CombinedChannels => "combined-channels",
            CardSetting::RxRing => "rx-ring",
            CardSetting::TxRing => "tx-ring",
            CardSetting::AdaptiveRx => "adaptive-rx",
            CardSetting::RxUsecs => "rx-usecs",
            CardSetting::Gro => "gro",
            CardSetting::Tso => "tso",
            CardSetting::Gso => "gso",
            CardSetting::Lro => "lro",
            CardSetting::PauseRx => "pause-rx",
            CardSetting::PauseTx => "pause-tx",
            CardSetting::Eee => "eee",
            CardSetting::Ntuple => "ntuple",
        }
    }

    /// The setting of this name.
    pub fn of_name(name: &str) -> Option<CardSetting> {
        CardSetting::ALL.into_iter().find(|setting| setting.name() == name)
    }
}

/// A question about the host that is not the content of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "each is explained by its entry in the catalogue")]
pub enum Inquiry {
    Swap,
    NumaPlacement,
    Irqbalance,
    DiskIrqs,
    MountDiscard,
    MountAtime,
    FileSystem,
    Ballast,
    FreeSpaceGib,
    DataDirectory,
    IoUring,
    MapCount,
    OpenFilesLimit,
    LockedMemoryLimit,
    OomScoreAdjust,
    CpuQuota,
    MemoryHigh,
    MemoryMax,
    Cpuset,
    IoMax,
    IoWeight,
    DmaLatencyDevice,
    Smt,
    IsolatedCpus,
    Mitigations,
    TimeSynchronised,
}

impl Inquiry {
    /// Whether the answer is that of a process: the broker, if one runs.
    pub fn is_of_process(self) -> bool {
        matches!(
            self,
            Inquiry::OpenFilesLimit
                | Inquiry::LockedMemoryLimit
                | Inquiry::OomScoreAdjust
                | Inquiry::CpuQuota
                | Inquiry::MemoryHigh
                | Inquiry::MemoryMax
                | Inquiry::IoMax
                | Inquiry::IoWeight
        )
    }

    /// Whether each data directory has an answer of its own.
    pub fn is_of_directory(self) -> bool {
        matches!(
            self,
            Inquiry::MountDiscard
                | Inquiry::MountAtime
                | Inquiry::FileSystem
                | Inquiry::Ballast
                | Inquiry::FreeSpaceGib
                | Inquiry::DataDirectory
        )
    }
}

/// What is known about the use of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Evidence {
    /// Nobody has measured it with this broker.
    #[default]
    Unproven,
    /// A result file below `tuning/evidence/`, and its main figure.
    Measured {
        /// File name below `tuning/evidence/`.
        file: String,
        /// What it showed, in one sentence.
        result: String,
    },
    /// It was measured and did not help enough to be proven by rule T13.
    NoGain {
        /// File name below `tuning/evidence/`.
        file: String,
        /// What it showed, in one sentence.
        result: String,
    },
    /// There is nothing to measure: it is looked at and never changed.
    NothingToProve,
}

impl Evidence {
    /// Whether a measurement speaks for the entry.
    pub fn is_proven(&self) -> bool {
        matches!(self, Evidence::Measured { .. })
    }
}

/// One entry of the catalogue.
#[derive(Debug, Clone)]
pub struct Tunable {
    /// Unique name, such as `vm.swappiness`.
    pub id: String,
    /// The catalogue file that it is in, such as `memory`.
    pub group: &'static str,
    /// What it is.
    pub kind: Kind,
    /// Where it is, with `{disk}`, `{volume}`, `{nic}`, `{rx}`, `{tx}`, `{irq}` and `{cpu}` to be filled in. Empty for kinds that
    /// have no file.
    pub path: String,
    /// The file that the kernel sets to zero when this one is written, and the other way round.
    pub counterpart: Option<String>,
    /// Files that the kernel sets to values of its own, or takes away, when this one is written, with the same places to be filled
    /// in. With `/*` at the end: all files of a folder.
    pub moves: Vec<String>,
    /// For [`Kind::Ethtool`].
    pub setting: Option<CardSetting>,
    /// For [`Kind::Inquiry`] and [`Kind::Limit`].
    pub inquiry: Option<Inquiry>,
    /// For [`Kind::Boot`].
    pub parameter: Option<String>,
    /// For [`Kind::Limit`]: the line of the unit.
    pub directive: Option<String>,
    /// How much can go wrong.
    pub class: Class,
    /// How bad a deviation is.
    pub severity: Severity,
    /// What kernels and distributions usually have.
    pub default: String,
    /// What must hold for it to apply.
    pub needs: Vec<Need>,
    /// Why it is here.
    pub why: String,
    /// When it does harm.
    pub harmful_when: String,
    /// Whether a change takes effect after a reboot only.
    pub reboot: bool,
    /// What is known about its use.
    pub evidence: Evidence,
    /// The value per profile.
    pub values: BTreeMap<String, Rule>,
}

/// Which hardware threads of a core run shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShardThreads {
    /// The first of each core: no sibling disturbs.
    OnePerCore,
    /// All of them: most capacity.
    All,
}

/// A choice of entries.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, that of its file.
    pub name: String,
    /// For whom it is, in one sentence.
    pub summary: String,
    /// Which threads of a core get a shard.
    pub shard_threads: ShardThreads,
    /// The profile whose entries it has too.
    pub inherits: Option<String>,
    /// Ids of its own entries.
    pub tunables: Vec<String>,
}

/// All entries and profiles.
#[derive(Debug, Clone)]
pub struct Catalogue {
    tunables: Vec<Tunable>,
    profiles: Vec<Profile>,
}

impl Catalogue {
    /// All entries, in the order of the files.
    pub fn tunables(&self) -> &[Tunable] {
        &self.tunables
    }

    /// All profiles.
    pub fn profiles(&self) -> &[Profile] {
        &self.profiles
    }

    /// The entry of this id.
    pub fn tunable(&self, id: &str) -> Result<&Tunable, CatalogueError> {
        self.tunables
            .iter()
            .find(|tunable| tunable.id == id)
            .ok_or_else(|| CatalogueError::UnknownTunable { id: id.into(), valid: self.similar(id) })
    }

    /// The profile of this name.
    pub fn profile(&self, name: &str) -> Result<&Profile, CatalogueError> {
        self.profiles.iter().find(|profile| profile.name == name).ok_or_else(|| CatalogueError::UnknownProfile {
            name: name.into(),
            valid: self.profiles.iter().map(|profile| profile.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// The entries of a profile with their rules, in the order of the catalogue.
    pub fn chosen(&self, profile: &Profile) -> Vec<(&Tunable, &Rule)> {
        let mut lineage = vec![profile];
        while let Some(parent) = lineage.last().and_then(|last| last.inherits.as_deref()) {
            match self.profiles.iter().find(|candidate| candidate.name == parent) {
                Some(found) if lineage.len() <= self.profiles.len() => lineage.push(found),
                _ => break,
            }
        }
        let rule_of = |tunable: &'_ Tunable| -> Option<String> {
            let listed = lineage.iter().any(|level| level.tunables.contains(&tunable.id));
            let named = lineage.iter().find(|level| tunable.values.contains_key(&level.name));
            named.filter(|_| listed).map(|level| level.name.clone())
        };
        let with_rule = |tunable| Some((tunable, rule_of(tunable)?));
        let chosen = self.tunables.iter().filter_map(with_rule);
        chosen.filter_map(|(tunable, level)| Some((tunable, tunable.values.get(&level)?))).collect()
    }

    /// Ids that differ by a few letters, else those that share a part with this one, else all of them.
    fn similar(&self, id: &str) -> String {
        let of_few_letters = |known: &&str| letters_between(id, known) <= id.len().min(MISSPELT_LETTERS * 3) / 3;
        let misspelt: Vec<&str> =
            self.tunables.iter().map(|tunable| tunable.id.as_str()).filter(of_few_letters).collect();
        if !misspelt.is_empty() {
            return misspelt.join(", ");
        }
        let parts: Vec<&str> = id.split(['.', '_', '-']).filter(|part| part.len() > 2).collect();
        let ids = self.tunables.iter().map(|tunable| tunable.id.as_str());
        let close: Vec<&str> = ids.clone().filter(|known| parts.iter().any(|part| known.contains(part))).collect();
        if close.is_empty() || close.len() > 30 { ids.collect::<Vec<_>>().join(", ") } else { close.join(", ") }
    }
}

/// More wrong letters than this are another word.
const MISSPELT_LETTERS: usize = 3;

/// How many letters must be put in, left out or replaced to get from one word to the other (Levenshtein).
fn letters_between(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (line, letter) in left.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, other) in right.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}
