//! Processors: which there are, which the process may use, and which share a core or a node.

use std::collections::BTreeSet;

use super::{ProbeError, System, parse_list};

/// One hardware thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpu {
    /// The kernel's number.
    pub id: usize,
    /// The lowest number among the threads of its core: the core's name here.
    pub core: usize,
    /// Its NUMA node.
    pub node: usize,
}

/// All processors that are online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// Ascending by number.
    pub cpus: Vec<Cpu>,
    /// Numbers of those that the process may use, ascending, never empty.
    pub allowed: Vec<usize>,
}

impl Topology {
    /// Physical cores.
    pub fn core_count(&self) -> usize {
        self.cpus.iter().map(|cpu| cpu.core).collect::<BTreeSet<_>>().len()
    }

    /// Numbers of the nodes that have processors, ascending.
    pub fn nodes(&self) -> Vec<usize> {
        self.cpus.iter().map(|cpu| cpu.node).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether some core has more than one thread.
    pub fn has_siblings(&self) -> bool {
        self.core_count() < self.cpus.len()
    }

    /// Processors that the process may use, with their places.
    pub fn usable(&self) -> Vec<&Cpu> {
        self.cpus.iter().filter(|cpu| self.allowed.contains(&cpu.id)).collect()
    }
}

/// Reads the folders of the processors and nodes; with `all` the process may use whatever is online.
pub fn probe(system: &dyn System, all: bool) -> Result<Topology, ProbeError> {
    const ONLINE: &str = "/sys/devices/system/cpu/online";
    let list = |path: &str| system.read(path).ok().and_then(|text| parse_list(&text));
    let online = list(ONLINE).filter(|list| !list.is_empty()).ok_or(ProbeError::NotAHost { path: ONLINE })?;
    let mut nodes: Vec<(usize, Vec<usize>)> = Vec::new();
    for name in system.list("/sys/devices/system/node") {
        let number = name.strip_prefix("node").and_then(|number| number.parse().ok());
        if let Some(number) = number {
            nodes.push((number, list(&format!("/sys/devices/system/node/{name}/cpulist")).unwrap_or_default()));
        }
    }
    let place = |id: usize| {
        let siblings = list(&format!("/sys/devices/system/cpu/cpu{id}/topology/thread_siblings_list"));
        let core = siblings.and_then(|list| list.first().copied()).unwrap_or(id);
        let node = nodes.iter().find(|(_, cpus)| cpus.contains(&id)).map_or(0, |(number, _)| *number);
        Cpu { id, core, node }
    };
    let cpus: Vec<Cpu> = online.iter().map(|id| place(*id)).collect();
    let status = system.read("/proc/self/status").unwrap_or_default();
    let may_use = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).and_then(parse_list);
    let may_use = may_use.filter(|_| !all).unwrap_or_else(|| online.clone());
    let mut allowed: Vec<usize> = online.iter().copied().filter(|id| may_use.contains(id)).collect();
    if allowed.is_empty() {
        allowed = online;
    }
    Ok(Topology { cpus, allowed })
}
