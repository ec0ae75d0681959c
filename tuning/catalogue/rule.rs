//! What a profile wants of a tunable: a fixed value, a bound, a value that depends on the host, or only a look.

use serde::Deserialize;

/// A number or a text, as the kernel's file shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A whole number.
    Number(i64),
    /// Anything else.
    Text(String),
}

impl Scalar {
    /// As it is written into a file, without a line end.
    pub fn text(&self) -> String {
        match self {
            Scalar::Number(number) => number.to_string(),
            Scalar::Text(text) => text.clone(),
        }
    }
}

/// Values that follow from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Computation {
    /// 1 % of memory, at least 128 MiB and at most 1 GiB.
    MinFreeKbytes,
    /// 32768, or 0 where queues suffice.
    RfsEntries,
    /// The table divided by the queues, rounded up to a power of two as the kernel does; or 0 where queues suffice.
    RfsFlowCount,
    /// Off when there are as many queues as shards, else all shard cores.
    RpsOffIfEnoughQueues,
    /// All shard cores, off when there are as many queues as shards, or on two processors.
    RpsAllShardCores,
    /// Queue n sends for shard n, or for every shard that is n modulo the queues.
    XpsOneToOne,
    /// As many queues as shards, up to what the card has.
    ChannelsForShards,
    /// As many queues as cores, up to what the card has.
    ChannelsForCores,
    /// Off, on cards of several queues.
    AdaptiveRxOff,
    /// On where the kernel steers flows (RFS), which fills the filters.
    NtupleWithRfs,
    /// 512 to 1024 descriptors, up to what the card has.
    RingInCache,
    /// The card's greatest receive ring.
    RxRingMaximum,
    /// The card's greatest send ring.
    TxRingMaximum,
    /// The core that `tune cpus` gives this interrupt.
    IrqCore,
    /// `none`, or `mq-deadline` on a rotating disk.
    DiskScheduler,
    /// `none`, or `mq-deadline` on a rotating disk and behind an ATA port.
    DiskSchedulerBySata,
    /// `tsc` (or the architecture's counter) if the kernel lists it.
    Clocksource,
}

impl Computation {
    /// In words, for tables.
    pub fn words(self) -> &'static str {
        match self {
            Computation::MinFreeKbytes => "1 % of memory, 128 MiB to 1 GiB",
            Computation::RfsEntries => "32768 if queues < shards, else 0",
            Computation::RfsFlowCount => "32768 / queues if queues < shards, else 0",
            Computation::RpsOffIfEnoughQueues => "off if queues >= shards, else shard cores",
            Computation::RpsAllShardCores => "shard cores; off if queues >= shards or on 2 CPUs",
            Computation::XpsOneToOne => "queue n for shard n",
            Computation::ChannelsForShards => "one per shard",
            Computation::ChannelsForCores => "one per core",
            Computation::AdaptiveRxOff => "off; left alone on one queue",
            Computation::NtupleWithRfs => "on if queues < shards",
            Computation::RingInCache => "512 to 1024",
            Computation::RxRingMaximum | Computation::TxRingMaximum => "the card's maximum",
            Computation::IrqCore => "pinned by tune cpus",
            Computation::DiskScheduler => "none; mq-deadline on rotating disks",
            Computation::DiskSchedulerBySata => "none; mq-deadline on SATA and rotating disks",
            Computation::Clocksource => "tsc if listed",
        }
    }
}

/// What a profile wants.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// This value.
    Set(Scalar),
    /// This number or more; a smaller one is raised to it.
    AtLeast(i64),
    /// This number or less; a greater one is lowered to it.
    AtMost(i64),
    /// A value that follows from the host.
    Computed(Computation),
    /// This value is expected; nothing is written.
    Check(Scalar),
    /// This number or more is expected; nothing is written.
    CheckAtLeast(i64),
    /// This number or less is expected; nothing is written.
    CheckAtMost(i64),
    /// One of these is expected; nothing is written.
    CheckOneOf(Vec<String>),
    /// Any value is right; it is shown. `true` is the only value.
    Report(bool),
    /// The broker does it itself. `true` is the only value.
    Broker(bool),
}

impl Rule {
    /// Whether following the rule may write.
    pub fn writes(&self) -> bool {
        matches!(self, Rule::Set(_) | Rule::AtLeast(_) | Rule::AtMost(_) | Rule::Computed(_))
    }

    /// In words, for tables.
    pub fn words(&self) -> String {
        match self {
            Rule::Set(value) => value.text(),
            Rule::AtLeast(least) => format!(">= {least}"),
            Rule::AtMost(most) => format!("<= {most}"),
            Rule::Computed(computation) => computation.words().into(),
            Rule::Check(value) => format!("check {}", value.text()),
            Rule::CheckAtLeast(least) => format!("check >= {least}"),
            Rule::CheckAtMost(most) => format!("check <= {most}"),
            Rule::CheckOneOf(values) => format!("check {}", values.join(" or ")),
            Rule::Report(_) => "report".into(),
            Rule::Broker(_) => "in the broker".into(),
        }
    }
}
