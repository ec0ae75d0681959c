//! Which cores handle interrupts and which run shards, decided together. Pure.
//!
//! Invariants: both lists are ascending, not empty, and within the processors that the process may use; they are equal
//! (shared) or do not meet (reserved). A decision that was written down is followed until another one is.

use crate::catalogue::ShardThreads;
use crate::probe::{Cpu, Host, format_list, parse_list};

/// More shards than this gain nothing: a broker numbers them by the bits of a word.
pub const MAX_SHARDS: usize = 64;
/// Up to this many hardware threads none is spared for interrupts.
const FEW_THREADS: usize = 4;
/// Up to this many cores a single thread is spared.
const FEW_CORES: usize = 4;
/// One core in so many is spared for interrupts.
const CORES_PER_INTERRUPT_CORE: usize = 16;

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// Processors that interrupts of queues go to.
    pub interrupts: Vec<usize>,
    /// Processors that run shards.
    pub shards: Vec<usize>,
    /// The node that the broker is bound to.
    pub node: usize,
    /// Why it is so, one sentence each.
    pub reasons: Vec<String>,
}

impl Placement {
    /// Whether shards and interrupts share their cores.
    pub fn is_shared(&self) -> bool {
        self.interrupts == self.shards
    }

    /// The processor for the interrupt of this queue.
    pub fn core_of_queue(&self, queue: usize) -> usize {
        self.interrupts[queue % self.interrupts.len()]
    }

    /// The decision that such a file holds: what a broker runs on, whatever would be decided now. `None` if it is none, or
    /// is about processors that this host does not have.
    pub fn of_file(text: &str, host: &Host) -> Option<Placement> {
        let table: toml::Table = text.parse().ok()?;
        let list = |key: &str| table.get(key)?.as_str().and_then(parse_list).filter(|list| !list.is_empty());
        let (interrupts, shards) = (list("interrupts")?, list("shards")?);
        let place = |id: &usize| host.topology.cpus.iter().find(|cpu| cpu.id == *id);
        if !interrupts.iter().chain(&shards).all(|id| place(id).is_some()) {
            return None;
        }
        let node = shards.first().and_then(place).map_or(0, |cpu| cpu.node);
        let reasons =
            vec!["As `ringmq tune cpus` decided and the broker runs: its file is in the data directory.".into()];
        Some(Placement { interrupts, shards, node, reasons })
    }

    /// The file that a broker reads its cores from.
    pub fn file_text(&self, profile: &str) -> String {
        let reasons: String = self.reasons.iter().map(|reason| format!("# {reason}\n")).collect();
        format!(
            "# Written by `ringmq tune cpus`. `ringmq start` runs on `shards` unless its configuration names cores.\n\
             {reasons}profile = \"{profile}\"\ninterrupts = \"{}\"\nshards = \"{}\"\n",
            format_list(&self.interrupts),
            format_list(&self.shards)
        )
    }
}

/// Receive queues of the card that has most.
pub fn queues(host: &Host) -> usize {
    host.nics.iter().map(|nic| nic.rx.len()).max().unwrap_or(0)
}

/// Decides for this host and the queues that its cards have, or will have.
pub fn decide(host: &Host, threads: ShardThreads, queues: usize) -> Placement {
    let usable = host.topology.usable();
    let mut reasons = Vec::new();
    let (node, on_node) = choose_node(host, &usable, &mut reasons);
    if usable.len() <= FEW_THREADS {
        let all: Vec<usize> = on_node.iter().map(|cpu| cpu.id).collect();
        reasons.push(format!("{} hardware threads are too few to spare one for interrupts.", usable.len()));
        return Placement { interrupts: all.clone(), shards: all, node, reasons };
    }
    let cores = cores(&on_node);
    let candidates = shard_threads(&cores, threads);
    if queues >= candidates.len() {
        reasons
            .push(format!("{queues} queues for {} shards: each shard takes the packets of its own.", candidates.len()));
        let shards = bounded(candidates, &mut reasons);
        return Placement { interrupts: shards.clone(), shards, node, reasons };
    }
    let total_cores = self::cores(&usable).len();
    if total_cores <= FEW_CORES {
        // The last thread of the last core: its first one may still run a shard.
        let spared = cores.iter().rev().find_map(|core| core.get(1..).and_then(|rest| rest.last().copied()));
        let spared = spared.or_else(|| cores.last().and_then(|core| core.last().copied()));
        let interrupts: Vec<usize> = spared.into_iter().collect();
        reasons.push(format!("{total_cores} cores: one thread is spared for interrupts."));
        let shards = candidates.into_iter().filter(|id| !interrupts.contains(id)).collect();
        return reserved(interrupts, shards, node, reasons);
    }
    let spared = cores.len().div_ceil(CORES_PER_INTERRUPT_CORE);
    reasons.push(format!("{} cores on node {node}: {spared} spared for interrupts, one in 16.", cores.len()));
    let mut interrupts: Vec<usize> = cores[..spared].iter().flatten().copied().collect();
    interrupts.sort_unstable();
    reserved(interrupts, shard_threads(&cores[spared..], threads), node, reasons)
}

/// A placement whose lists do not meet, or a shared one if that would leave no shard.
fn reserved(interrupts: Vec<usize>, shards: Vec<usize>, node: usize, mut reasons: Vec<String>) -> Placement {
    if shards.is_empty() {
        reasons.push("That would leave no shard, so interrupts and shards share.".into());
        return Placement { shards: interrupts.clone(), interrupts, node, reasons };
    }
    let shards = bounded(shards, &mut reasons);
    Placement { interrupts, shards, node, reasons }
}

/// The node of the first card that has one, else the one with the most processors.
fn choose_node<'host>(host: &Host, usable: &[&'host Cpu], reasons: &mut Vec<String>) -> (usize, Vec<&'host Cpu>) {
    let on = |node: usize| usable.iter().copied().filter(|cpu| cpu.node == node).collect::<Vec<_>>();
    let nodes = host.topology.nodes();
    let of_card =
        host.nics.iter().find_map(|nic| nic.node.filter(|node| !on(*node).is_empty()).map(|node| (nic, node)));
    let largest = || nodes.iter().copied().max_by_key(|node| (on(*node).len(), usize::MAX - node)).unwrap_or(0);
    let node = of_card.map_or_else(largest, |(_, node)| node);
    if nodes.len() > 1 {
        reasons.push(match of_card {
            Some((nic, _)) => format!("Bound to node {node}, where card {} is: run one broker per node.", nic.name),
            None => format!("Bound to node {node}: run one broker per node."),
        });
    }
    (node, on(node))
}

/// Threads by core, both ascending.
fn cores(cpus: &[&Cpu]) -> Vec<Vec<usize>> {
    let mut cores: Vec<(usize, Vec<usize>)> = Vec::new();
    for cpu in cpus {
        match cores.iter_mut().find(|(core, _)| *core == cpu.core) {
            Some((_, threads)) => threads.push(cpu.id),
            None => cores.push((cpu.core, vec![cpu.id])),
        }
    }
    cores.sort_unstable();
    cores.into_iter().map(|(_, threads)| threads).collect()
}

fn shard_threads(cores: &[Vec<usize>], threads: ShardThreads) -> Vec<usize> {
    let per_core = match threads {
        ShardThreads::OnePerCore => 1,
        ShardThreads::All => usize::MAX,
    };
    let mut chosen: Vec<usize> = cores.iter().flat_map(|core| core.iter().copied().take(per_core)).collect();
    chosen.sort_unstable();
    chosen
}

fn bounded(mut shards: Vec<usize>, reasons: &mut Vec<String>) -> Vec<usize> {
    if shards.len() > MAX_SHARDS {
        reasons.push(format!(
            "{} processors could run shards; {MAX_SHARDS} is the most that a broker uses.",
            shards.len()
        ));
        shards.truncate(MAX_SHARDS);
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{Nic, Topology};

    /// `nodes` nodes of `cores` cores of `threads` threads, numbered as Linux does on x86: siblings in the second half.
    fn host(nodes: usize, cores: usize, threads: usize, queues: usize) -> Host {
        let total = nodes * cores;
        let cpu = |id: usize| Cpu { id, core: id % total, node: id % total / cores };
        let cpus: Vec<Cpu> = (0..total * threads).map(cpu).collect();
        let allowed = cpus.iter().map(|cpu| cpu.id).collect();
        let rx = (0..queues).map(|queue| format!("rx-{queue}")).collect();
        let nic = Nic {
            name: "eth0".into(),
            rx,
            tx: Vec::new(),
            interrupts: Vec::new(),
            node: Some(nodes - 1),
            address: None,
        };
        Host {
            topology: Topology { cpus, allowed },
            memory_bytes: 1 << 30,
            virtualisation: None,
            container: false,
            boot_id: String::new(),
            directories: Vec::new(),
            disks: Vec::new(),
            no_disk_because: String::new(),
            volumes: Vec::new(),
            nics: vec![nic],
            no_nic_because: String::new(),
            cores_file: None,
            broker: None,
        }
    }

    fn lists(host: &Host, threads: ShardThreads) -> (String, String) {
        let placement = decide(host, threads, queues(host));
        (format_list(&placement.interrupts), format_list(&placement.shards))
    }

    #[test]
    fn machines_of_all_sizes() {
        // Goal: the decision for each size of machine. Method: nodes, cores, threads and queues with the lists expected.
        use ShardThreads::{All, OnePerCore};
        for (shape, threads, interrupts, shards) in [
            ((1, 1, 1, 1), All, "0", "0"),
            ((1, 2, 1, 1), OnePerCore, "0-1", "0-1"),
            ((1, 4, 1, 4), OnePerCore, "0-3", "0-3"),
            ((1, 4, 2, 1), OnePerCore, "7", "0-3"),
            ((1, 4, 2, 1), All, "7", "0-6"),
            ((1, 8, 1, 1), OnePerCore, "0", "1-7"),
            ((1, 8, 2, 2), All, "0,8", "1-7,9-15"),
            ((1, 8, 1, 8), OnePerCore, "0-7", "0-7"),
            ((2, 32, 1, 16), OnePerCore, "32-33", "34-63"),
            ((2, 32, 2, 16), OnePerCore, "32-33,96-97", "34-63"),
            ((1, 128, 1, 16), OnePerCore, "0-7", "8-71"),
        ] {
            let (nodes, cores, per_core, queues) = shape;
            let expected = (interrupts.to_string(), shards.to_string());
            assert_eq!(lists(&host(nodes, cores, per_core, queues), threads), expected, "{shape:?}");
        }
    }

    #[test]
    fn the_file_is_read_back() {
        // Goal: what `tune cpus` wrote is what is planned with, also where it would decide otherwise by now. Method: write
        // and read; a file of a greater machine, one that lacks a list, none.
        let small = host(1, 8, 1, 1);
        let placement = decide(&small, ShardThreads::OnePerCore, 1);
        let text = placement.file_text("latency");
        let read = Placement::of_file(&text, &host(1, 8, 1, 8)).expect("a decision");
        assert_eq!((read.interrupts, read.shards), (placement.interrupts, placement.shards));
        assert_eq!(Placement::of_file(&text, &host(1, 4, 1, 1)), None);
        assert_eq!(Placement::of_file("shards = \"0\"", &small), None);
        assert_eq!(Placement::of_file("", &small), None);
    }

    #[test]
    fn only_allowed_processors_are_used() {
        // Goal: a container's set of processors is respected. Method: eight of sixteen are allowed, on both nodes.
        let mut host = host(2, 8, 1, 1);
        host.topology.allowed = vec![2, 3, 4, 5, 6, 7, 8, 9];
        host.nics[0].node = Some(0);
        assert_eq!(lists(&host, ShardThreads::OnePerCore), ("2".into(), "3-7".into()));
    }

    #[test]
    fn the_lists_are_equal_or_apart() {
        // Goal: the invariant of the module. Method: all small machines.
        for nodes in 1..=2 {
            for cores in 1..=20 {
                for threads in 1..=2 {
                    for queues in [0, 1, 4, 64] {
                        for which in [ShardThreads::OnePerCore, ShardThreads::All] {
                            let host = host(nodes, cores, threads, queues);
                            let placement = decide(&host, which, super::queues(&host));
                            let shape = (nodes, cores, threads, queues);
                            assert!(!placement.shards.is_empty() && !placement.interrupts.is_empty(), "{shape:?}");
                            let apart = placement.shards.iter().all(|id| !placement.interrupts.contains(id));
                            assert!(placement.is_shared() || apart, "{shape:?}: {placement:?}");
                        }
                    }
                }
            }
        }
    }
}
