//! From a rule and what is there now to what is wanted. Pure but for reading what a card can do.

use crate::catalogue::{CardSetting, Computation, Rule};
use crate::placement::Placement;
use crate::probe::{DataDirectory, Host, Interrupt, Nic, System, format_mask};

use super::target::{Target, choice};

/// Entries of the table of flows that RFS steers.
const RFS_ENTRIES: usize = 32_768;
/// Clocks whose reading costs tens of nanoseconds.
const FAST_CLOCKS: &[&str] = &["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "xen"];

/// The device that an entry is looked at on.
#[derive(Debug, Clone, Default)]
pub struct Place<'host> {
    /// A data directory.
    pub directory: Option<&'host DataDirectory>,
    /// A disk's name.
    pub disk: Option<&'host str>,
    /// What a file system is on: a disk, or what is made of disks.
    pub volume: Option<&'host str>,
    /// A card.
    pub nic: Option<&'host Nic>,
    /// Name of a receive or send queue.
    pub queue: Option<&'host str>,
    /// An interrupt of the card.
    pub interrupt: Option<&'host Interrupt>,
    /// A processor.
    pub cpu: Option<usize>,
}

/// What a rule wants, given what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// This text is shown as wanted; it is satisfied or not; a value to write if it is not.
    Value {
        /// For tables.
        shown: String,
        /// Whether the present value will do.
        satisfied: bool,
        /// What to write otherwise. `None`: nothing can be written.
        new: Option<String>,
    },
    /// The rule means nothing on this host.
    Unsupported(String),
}

/// What the rules look at.
pub struct Situation<'all> {
    /// The host.
    pub system: &'all dyn System,
    /// Its picture.
    pub host: &'all Host,
    /// The decision about cores.
    pub placement: &'all Placement,
    /// Cards whose number of queues is about to change.
    pub cards_in_change: Vec<String>,
}

fn fixed(target: Option<&Target>, have: &str, want: String) -> Wanted {
    let satisfied = target.map_or(have == want, |target| target.same(have, &want));
    Wanted::Value { shown: want.clone(), satisfied, new: Some(want) }
}

fn looked_at(shown: String, satisfied: bool) -> Wanted {
    Wanted::Value { shown, satisfied, new: None }
}

/// Follows a rule.
pub fn wanted(
    situation: &Situation<'_>,
    rule: &Rule,
    place: &Place<'_>,
    target: Option<&Target>,
    have: &str,
) -> Wanted {
    let number = || have.split_whitespace().next().and_then(|word| word.parse::<i64>().ok());
    let bound = |shown: String, holds: fn(i64, i64) -> bool, limit: i64, writes: bool| match number() {
        Some(value) => {
            let new = writes.then(|| limit.to_string());
            Wanted::Value { shown, satisfied: holds(value, limit), new }
        }
        // A limit may be a word that means no limit.
        None if have == "unlimited" || have == "infinity" => looked_at(shown, holds(i64::MAX, limit)),
        None => Wanted::Unsupported(format!("{have} is no number")),
    };
    match rule {
        Rule::Set(value) => fixed(target, have, value.text()),
        Rule::AtLeast(least) => bound(format!(">= {least}"), |value, limit| value >= limit, *least, true),
        Rule::AtMost(most) => bound(format!("<= {most}"), |value, limit| value <= limit, *most, true),
        Rule::CheckAtLeast(least) => bound(format!(">= {least}"), |value, limit| value >= limit, *least, false),
        Rule::CheckAtMost(most) => bound(format!("<= {most}"), |value, limit| value <= limit, *most, false),
        Rule::Check(value) => {
            let text = value.text();
            let satisfied = target.map_or(have == text, |target| target.same(have, &text));
            looked_at(text, satisfied)
        }
        Rule::CheckOneOf(values) => looked_at(values.join(" or "), values.iter().any(|value| value == have)),
        Rule::Report(_) => looked_at("(report)".into(), true),
        Rule::Broker(_) => looked_at("(broker)".into(), true),
        Rule::Computed(computation) => computed(situation, *computation, place, target, have),
    }
}

fn computed(
    situation: &Situation<'_>,
    computation: Computation,
    place: &Place<'_>,
    target: Option<&Target>,
    have: &str,
) -> Wanted {
    let Situation { system, host, placement, .. } = situation;
    let shards = placement.shards.len();
    let queues = |nic: &Nic| nic.rx.len().max(1);
    // Two processors only push packets to each other.
    let steering_helps = |nic: &Nic| queues(nic) < shards && shards > 2;
    let fixed = |want: String| fixed(target, have, want);
    match computation {
        Computation::MinFreeKbytes => {
            let kib = (host.memory_bytes / 1024 / 100).clamp(128 * 1024, 1024 * 1024);
            // A small machine cannot spare 128 MiB.
            if host.memory_bytes >> 30 < 2 {
                return Wanted::Unsupported("less than 2 GiB of memory".into());
            }
            fixed(kib.to_string())
        }
        Computation::RfsEntries => {
            if host.nics.is_empty() {
                return Wanted::Unsupported(host.no_nic_because.clone());
            }
            fixed(if host.nics.iter().any(steering_helps) { RFS_ENTRIES } else { 0 }.to_string())
        }
        Computation::RfsFlowCount => {
            // The kernel would round up itself, and the value never be as written.
            let share = |nic: &Nic| (RFS_ENTRIES / queues(nic)).next_power_of_two();
            on_nic(place, |nic| fixed(if steering_helps(nic) { share(nic) } else { 0 }.to_string()))
        }
        Computation::RpsOffIfEnoughQueues | Computation::RpsAllShardCores => {
            on_nic(place, |nic| fixed(if steering_helps(nic) { format_mask(&placement.shards) } else { "0".into() }))
        }
        Computation::XpsOneToOne => on_nic(place, |nic| {
            let of_name = |queue: &str| queue.rsplit('-').next().and_then(|number| number.parse::<usize>().ok());
            let Some(number) = place.queue.and_then(of_name) else {
                return Wanted::Unsupported("the queue has no number".into());
            };
            if nic.tx.len() < 2 {
                return Wanted::Unsupported("one send queue".into());
            }
            let shards = placement.shards.iter().enumerate();
            let own: Vec<usize> =
                shards.filter(|(index, _)| index % nic.tx.len() == number).map(|(_, cpu)| *cpu).collect();
            fixed(format_mask(&own))
        }),
        Computation::AdaptiveRxOff => on_nic(place, |nic| match nic.rx.len() {
            0 | 1 => Wanted::Unsupported("one receive queue".into()),
            _ => fixed("off".into()),
        }),
        Computation::NtupleWithRfs => on_nic(place, |nic| match steering_helps(nic) {
            true => fixed("on".into()),
            false => Wanted::Unsupported("queues suffice: RFS is off, and alone the filters steer nothing".into()),
        }),
        Computation::ChannelsForShards => bounded_by_card(*system, place, target, have, shards as u64),
        Computation::ChannelsForCores => {
            bounded_by_card(*system, place, target, have, host.topology.usable().len() as u64)
        }
        Computation::RingInCache => {
            let ring = have.parse().unwrap_or(512u64).clamp(512, 1024);
            bounded_by_card(*system, place, target, have, ring)
        }
        Computation::RxRingMaximum | Computation::TxRingMaximum => {
            bounded_by_card(*system, place, target, have, u64::MAX)
        }
        Computation::IrqCore => match place.interrupt {
            Some(interrupt) => fixed(placement.core_of_queue(interrupt.queue).to_string()),
            None => Wanted::Unsupported("no interrupt".into()),
        },
        Computation::DiskScheduler | Computation::DiskSchedulerBySata => {
            match place.disk.and_then(|name| host.disk(name)) {
                Some(disk) => {
                    let is_short = computation == Computation::DiskSchedulerBySata && disk.is_sata;
                    fixed(if disk.seeks() || is_short { "mq-deadline" } else { "none" }.into())
                }
                None => Wanted::Unsupported(host.no_disk_because.clone()),
            }
        }
        Computation::Clocksource => {
            let shown = String::from("a fast clock");
            if FAST_CLOCKS.contains(&have) {
                return looked_at(shown, true);
            }
            let folder = "/sys/devices/system/clocksource/clocksource0";
            let listed = system.read(&format!("{folder}/available_clocksource")).unwrap_or_default();
            let best = FAST_CLOCKS.iter().find(|clock| listed.split_whitespace().any(|word| word == **clock));
            Wanted::Value { shown, satisfied: false, new: best.map(|clock| (*clock).into()) }
        }
    }
}

fn on_nic(place: &Place<'_>, then: impl Fn(&Nic) -> Wanted) -> Wanted {
    place.nic.map_or_else(|| Wanted::Unsupported("no card".into()), then)
}

/// This number or the card's greatest, whichever is less.
fn bounded_by_card(system: &dyn System, place: &Place<'_>, target: Option<&Target>, have: &str, number: u64) -> Wanted {
    let setting = match target {
        Some(Target::Card(_, setting)) => *setting,
        _ => CardSetting::CombinedChannels,
    };
    on_nic(place, |nic| match system.card(&nic.name, setting) {
        Ok((_, Some(maximum))) => fixed(target, have, number.min(maximum).to_string()),
        Ok((_, None)) => Wanted::Unsupported("the card does not say how much it has".into()),
        Err(error) => Wanted::Unsupported(error.to_string()),
    })
}

/// Why a word cannot be chosen, if the file offers a choice that it is not among.
pub fn not_offered(text: &str, want: &str) -> Option<String> {
    let (_, words) = choice(text)?;
    (!words.iter().any(|word| word == want)).then(|| format!("the kernel offers only {}", words.join(", ")))
}
