//! Compares a host with a profile, and says what would be changed.
//!
//! Invariants: looking never writes. A change is planned only for an entry whose rule writes, whose class is allowed,
//! and whose value differs. What cannot be done is a state with a reason, never silent.

mod target;
mod wanted;

pub use target::Target;

use std::collections::BTreeSet;

use crate::catalogue::{
    CardSetting, Catalogue, CatalogueError, Class, Computation, Inquiry, Kind, Need, Profile, Rule, Severity, Tunable,
};
use crate::journal::{Entry, Journal};
use crate::placement::{self, Placement};
use crate::probe::{Access, Answer, DataDirectory, Host, Nic, System, ask};
use wanted::{Place, Situation, Wanted, not_offered, wanted};

/// Which governor decides how the processors idle.
const IDLE_GOVERNOR: &str = "/sys/devices/system/cpu/cpuidle/current_governor";

/// What a command was told.
#[derive(Debug, Clone, Default)]
pub struct Choices {
    /// Ids to look at; all of the profile if empty.
    pub only: Vec<String>,
    /// Classes besides `safe` that may be written.
    pub allow: BTreeSet<Class>,
    /// Leaves unproven entries as they are.
    pub proven_only: bool,
    /// Takes the cards' queues as they are: their number was just written, or could not be.
    pub queues_are_settled: bool,
}

impl Choices {
    /// Whether an entry is among them, whatever its class.
    pub fn includes(&self, tunable: &Tunable) -> bool {
        (self.only.is_empty() || self.only.contains(&tunable.id)) && (!self.proven_only || tunable.evidence.is_proven())
    }

    /// Whether an entry may be written, as far as these choices go.
    fn may_write(&self, tunable: &Tunable) -> bool {
        self.includes(tunable) && (tunable.class == Class::Safe || self.allow.contains(&tunable.class))
    }
}

/// What is said of an entry that depends on the number of queues while that is about to change.
const AFTER_QUEUES: &str = "decided when nic.channels is written";

/// How an entry stands on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// As wanted.
    Ok,
    /// Not as wanted, and this tool would change it, or it is fatal.
    Drift,
    /// Not as wanted, and nothing would be written: looked at only, or its class is not allowed.
    Advice,
    /// It means nothing here, or cannot be written here.
    Unsupported,
}

impl State {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Drift => "drift",
            State::Advice => "advice",
            State::Unsupported => "unsupp",
        }
    }
}

/// How a written value is undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// Where to write: the target itself, or its counterpart.
    pub target: Target,
    /// What to write.
    pub value: String,
}

/// A value that would be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The entry on its device, such as `block.scheduler[vda]`.
    pub name: String,
    /// Where.
    pub target: Target,
    /// The file that the kernel sets to zero with it.
    pub counterpart: Option<Target>,
    /// What the kernel sets to values of its own, or takes away, with it.
    pub moves: Vec<Target>,
    /// The value now.
    pub old: String,
    /// The value to write.
    pub new: String,
    /// How to undo it.
    pub undo: Undo,
}

/// An entry on one device.
#[derive(Debug, Clone)]
pub struct Line {
    /// Id of the entry.
    pub id: String,
    /// Device, queue, interrupt or processor; empty if there is one of it on a host.
    pub device: String,
    /// What is wanted, in words.
    pub want: String,
    /// What is there; empty if that cannot be said.
    pub have: String,
    /// How bad a deviation is.
    pub severity: Severity,
    /// How it stands.
    pub state: State,
    /// Why, if that is not plain.
    pub note: String,
    /// How much can go wrong.
    pub class: Class,
    /// Whether the rule writes and no measurement speaks for it, also where the host is as wanted.
    pub unproven: bool,
    /// Why the entry exists.
    pub why: String,
    /// The place that the rule writes to; `None` if it only looks, or means nothing here.
    pub target: Option<Target>,
    /// What the rule would write if it may and can; `None` where it is satisfied or means nothing.
    pub to_write: Option<String>,
    /// What would be written.
    pub change: Option<Change>,
}

impl Line {
    /// The entry with its device.
    pub fn name(&self) -> String {
        if self.device.is_empty() { self.id.clone() } else { format!("{}[{}]", self.id, self.device) }
    }

    /// Whether it stops the broker.
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Fatal && matches!(self.state, State::Drift | State::Advice)
    }
}

/// A host compared with a profile.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The profile's name.
    pub profile: String,
    /// The host in one line.
    pub host: String,
    /// The kernel's identity of this boot.
    pub boot_id: String,
    /// The decision about cores.
    pub placement: Placement,
    /// All entries, in the order of the catalogue.
    pub lines: Vec<Line>,
    /// Whether it has all entries of the profile.
    pub is_whole: bool,
    /// What another profile that is applied set and this one says nothing of. Apply brings it back first. Empty for a plan of
    /// single entries.
    pub left_behind: Vec<Undo>,
}

impl Plan {
    /// What would be written, in order.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.lines.iter().filter_map(|line| line.change.as_ref())
    }

    /// Lines that are decided when the cards have the number of queues that this plan gives them: then the host must be looked
    /// at again.
    pub fn postponed_count(&self) -> usize {
        self.lines.iter().filter(|line| line.note == AFTER_QUEUES).count()
    }

    /// Every place that the profile writes to, whether it has to or not.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.lines.iter().filter_map(|line| line.target.as_ref())
    }

    /// Whether the host is as the profile wants it, as far as it may be written: something of it means something here, and
    /// nothing of that is otherwise.
    pub fn is_fulfilled(&self) -> bool {
        let differs = |line: &Line| match line.state {
            State::Drift => true,
            // Read-only here, or not offered by the kernel.
            State::Unsupported => line.to_write.is_some(),
            State::Ok | State::Advice => false,
        };
        let is_there = |line: &Line| line.state == State::Ok && line.target.is_some();
        self.is_whole
            && self.lines.iter().any(is_there)
            && !self.lines.iter().any(differs)
            && self.left_behind.is_empty()
    }

    /// Lines of a state.
    pub fn count(&self, state: State) -> usize {
        self.lines.iter().filter(|line| line.state == state).count()
    }

    /// Lines that stop the broker.
    pub fn fatal_count(&self) -> usize {
        self.lines.iter().filter(|line| line.is_fatal()).count()
    }

    /// The lines that deviate most: fatal ones, then those that would be changed, then advice; among equals first what a
    /// measurement speaks for.
    pub fn worst(&self, count: usize) -> Vec<&Line> {
        let rank = |line: &Line| (line.severity, line.state == State::Drift, !line.unproven);
        let mut lines: Vec<&Line> =
            self.lines.iter().filter(|line| matches!(line.state, State::Drift | State::Advice)).collect();
        lines.sort_by_key(|line| std::cmp::Reverse(rank(line)));
        lines.dedup_by(|left, right| left.id == right.id);
        lines.truncate(count);
        lines
    }
}

/// Compares.
pub fn make(
    system: &dyn System,
    catalogue: &Catalogue,
    host: &Host,
    profile: &Profile,
    choices: &Choices,
) -> Result<Plan, CatalogueError> {
    let chosen = catalogue.chosen(profile);
    for id in &choices.only {
        catalogue.tunable(id)?;
        if !chosen.iter().any(|(tunable, _)| tunable.id == *id) {
            let valid = chosen.iter().map(|(tunable, _)| tunable.id.as_str()).collect::<Vec<_>>().join(", ");
            return Err(CatalogueError::UnknownTunable { id: format!("{id} of profile {}", profile.name), valid });
        }
    }
    let written = host.cores_file.as_ref().and_then(|text| Placement::of_file(text, host));
    let placement = written.unwrap_or_else(|| decide_cores(system, catalogue, host, profile, choices));
    let mut situation = Situation { system, host, placement: &placement, cards_in_change: Vec::new() };
    let is_chosen = |tunable: &Tunable| choices.only.is_empty() || choices.only.contains(&tunable.id);
    let is_groundwork = |tunable: &Tunable| tunable.setting == Some(CardSetting::CombinedChannels);
    if let Some((tunable, rule)) = chosen.iter().find(|(tunable, _)| is_groundwork(tunable) && is_chosen(tunable))
        && !choices.queues_are_settled
    {
        let lines = assess(&situation, choices, tunable, rule).into_iter().filter(|line| line.change.is_some());
        situation.cards_in_change = lines.map(|line| line.device).collect();
    }
    let mut lines = Vec::new();
    for (tunable, rule) in chosen {
        if is_chosen(tunable) {
            lines.extend(assess(&situation, choices, tunable, rule));
        }
    }
    let (host_line, boot_id) = (host.summary(), host.boot_id.clone());
    let name = profile.name.clone();
    let is_whole = choices.only.is_empty();
    let mut plan =
        Plan { profile: name, host: host_line, boot_id, placement, lines, is_whole, left_behind: Vec::new() };
    // A profile that only looks takes no other's place.
    if is_whole && plan.targets().next().is_some() {
        plan.left_behind = left_behind(system, &plan);
    }
    Ok(plan)
}

/// The first values, by the journal, of what another profile set and this plan has no place for.
fn left_behind(system: &dyn System, plan: &Plan) -> Vec<Undo> {
    let journal = Journal::read(system).ok().flatten().filter(|journal| journal.boot_id == plan.boot_id);
    let other = journal.filter(|journal| journal.profile().is_some_and(|name| name != plan.profile));
    let mut found: Vec<Undo> = Vec::new();
    for entry in other.iter().flat_map(|journal| &journal.entries) {
        if let Entry::Set { target, old, new, .. } = entry
            && plan.targets().all(|own| own != target)
            // What was only kept beside another value is no setting of the profile.
            && old != new
            && found.iter().all(|undo| undo.target != *target)
        {
            found.push(Undo { target: target.clone(), value: old.clone() });
        }
    }
    found
}

/// Which cores for what, with the queues that the cards will have once the profile's rule for them is followed, if it may be.
/// A decision that was written down is not looked at: this is how it is made.
pub fn decide_cores(
    system: &dyn System,
    catalogue: &Catalogue,
    host: &Host,
    profile: &Profile,
    choices: &Choices,
) -> Placement {
    let (now, threads) = (placement::queues(host), profile.shard_threads);
    let chosen = catalogue.chosen(profile);
    let rule = chosen.iter().find(|(tunable, _)| tunable.setting == Some(CardSetting::CombinedChannels));
    let present = placement::decide(host, threads, now);
    let wish = match rule {
        Some((tunable, Rule::Computed(rule))) if choices.may_write(tunable) && !choices.queues_are_settled => {
            match rule {
                Computation::ChannelsForShards => present.shards.len(),
                _ => host.topology.usable().len(),
            }
        }
        _ => return present,
    };
    let to_come = host.nics.iter().map(|nic| match system.card(&nic.name, CardSetting::CombinedChannels) {
        Ok((_, Some(maximum))) => wish.min(usize::try_from(maximum).unwrap_or(wish)),
        _ => nic.rx.len(),
    });
    placement::decide(host, threads, to_come.max().unwrap_or(now))
}

/// All devices of an entry, or why there is none.
fn places<'host>(tunable: &Tunable, host: &'host Host) -> Result<Vec<(String, Place<'host>)>, String> {
    let has = |placeholder: &str| tunable.path.contains(placeholder);
    let on_disk = has("{disk}") || tunable.needs.contains(&Need::SolidState);
    let on_nic = has("{nic}") || tunable.kind == Kind::Ethtool || has("{irq}");
    if tunable.inquiry.is_some_and(Inquiry::is_of_directory) {
        let one = |directory: &'host DataDirectory| {
            (directory.path.clone(), Place { directory: Some(directory), ..Place::default() })
        };
        if host.directories.is_empty() {
            return Err("no data directory was named".into());
        }
        return Ok(host.directories.iter().map(one).collect());
    }
    if has("{volume}") {
        if host.volumes.is_empty() {
            return Err(host.no_disk_because.clone());
        }
        let one = |name: &'host String| (name.clone(), Place { volume: Some(name.as_str()), ..Place::default() });
        return Ok(host.volumes.iter().map(one).collect());
    }
    if on_disk {
        if host.disks.is_empty() {
            return Err(host.no_disk_because.clone());
        }
        let one = |disk: &'host crate::probe::Disk| {
            (disk.name.clone(), Place { disk: Some(disk.name.as_str()), ..Place::default() })
        };
        return Ok(host.disks.iter().map(one).collect());
    }
    if has("{cpu}") {
        let one = |cpu: &usize| (format!("cpu{cpu}"), Place { cpu: Some(*cpu), ..Place::default() });
        return Ok(host.topology.allowed.iter().map(one).collect());
    }
    if !on_nic {
        return Ok(vec![(String::new(), Place::default())]);
    }
    if host.nics.is_empty() {
        return Err(host.no_nic_because.clone());
    }
    let mut found = Vec::new();
    for nic in &host.nics {
        let place = Place { nic: Some(nic), ..Place::default() };
        let queues: Option<&Vec<String>> = match (has("{rx}"), has("{tx}")) {
            (true, _) => Some(&nic.rx),
            (_, true) => Some(&nic.tx),
            _ => None,
        };
        if let Some(queues) = queues {
            found.extend(queues.iter().map(|queue| {
                (format!("{}/{queue}", nic.name), Place { queue: Some(queue.as_str()), ..place.clone() })
            }));
        } else if has("{irq}") {
            found.extend(nic.interrupts.iter().map(|interrupt| {
                (format!("{}/{}", nic.name, interrupt.number), Place { interrupt: Some(interrupt), ..place.clone() })
            }));
        } else {
            found.push((nic.name.clone(), place));
        }
    }
    if found.is_empty() {
        let names: Vec<&str> = host.nics.iter().map(|nic| nic.name.as_str()).collect();
        let what = if has("{irq}") { "interrupts of queues" } else { "queues" };
        return Err(format!("{} has no {what}", names.join(", ")));
    }
    Ok(found)
}

fn fill(path: &str, place: &Place<'_>) -> String {
    let queue = place.queue.unwrap_or_default();
    path.replace("{disk}", place.disk.unwrap_or_default())
        .replace("{volume}", place.volume.unwrap_or_default())
        .replace("{nic}", place.nic.map_or("", |nic: &Nic| nic.name.as_str()))
        .replace("{rx}", queue)
        .replace("{tx}", queue)
        .replace("{irq}", &place.interrupt.map(|interrupt| interrupt.number.to_string()).unwrap_or_default())
        .replace("{cpu}", &place.cpu.map(|cpu| format!("cpu{cpu}")).unwrap_or_default())
}

fn unmet_need(situation: &Situation<'_>, tunable: &Tunable, place: &Place<'_>) -> Option<String> {
    let Situation { system, host, .. } = situation;
    tunable.needs.iter().find_map(|need| match need {
        Need::SeveralNodes if host.topology.nodes().len() < 2 => Some("one NUMA node".into()),
        Need::SeveralQueues if place.nic.is_some_and(|nic| nic.rx.len() < 2) => Some("one receive queue".into()),
        Need::SolidState if place.disk.and_then(|name| host.disk(name)).is_some_and(|disk| disk.seeks()) => {
            Some("a rotating disk".into())
        }
        Need::HaltpollGovernor => match system.read(IDLE_GOVERNOR) {
            Ok(text) if text.trim() == "haltpoll" => None,
            Ok(text) => Some(format!("the idle governor is {}, not haltpoll", text.trim())),
            Err(_) => Some("no idle governor".into()),
        },
        _ => None,
    })
}

/// At least one line.
fn assess(situation: &Situation<'_>, choices: &Choices, tunable: &Tunable, rule: &Rule) -> Vec<Line> {
    let blank = |device: String| Line {
        id: tunable.id.clone(),
        device,
        want: rule.words(),
        have: String::new(),
        severity: tunable.severity,
        state: State::Unsupported,
        note: String::new(),
        class: tunable.class,
        unproven: rule.writes() && !tunable.evidence.is_proven(),
        why: tunable.why.clone(),
        target: None,
        to_write: None,
        change: None,
    };
    let mut lines = match places(tunable, situation.host) {
        Err(reason) => return vec![Line { note: reason, ..blank(String::new()) }],
        Ok(places) => places
            .into_iter()
            .map(|(device, place)| assess_one(situation, choices, tunable, rule, &place, blank(device)))
            .collect::<Vec<Line>>(),
    };
    // What no device has is said once.
    let alike = |line: &Line| line.state == State::Unsupported && line.note == lines[0].note;
    if lines.len() > 1 && lines.iter().all(alike) {
        lines.truncate(1);
        lines[0].device.clear();
    }
    // Directories are named only where they differ.
    let first = (lines[0].have.clone(), lines[0].state);
    let is_same = |line: &Line| line.have == first.0 && line.state == first.1;
    if tunable.inquiry.is_some_and(Inquiry::is_of_directory) && lines.iter().all(is_same) {
        lines.truncate(1);
        lines[0].device.clear();
    }
    lines
}

fn assess_one(
    situation: &Situation<'_>,
    choices: &Choices,
    tunable: &Tunable,
    rule: &Rule,
    place: &Place<'_>,
    mut line: Line,
) -> Line {
    let system = situation.system;
    let target = match (tunable.setting, tunable.path.is_empty()) {
        (Some(setting), _) => place.nic.map(|nic| Target::Card(nic.name.clone(), setting)),
        (None, false) => Some(Target::File(fill(&tunable.path, place))),
        (None, true) => None,
    };
    line.target = target.clone().filter(|_| rule.writes());
    if rule.writes() && depends_on_queues(situation, tunable, rule, place) {
        return Line { state: State::Advice, note: AFTER_QUEUES.into(), ..line };
    }
    if let Some(reason) = unmet_need(situation, tunable, place) {
        return Line { note: reason, ..line };
    }
    line.have = match present(situation, tunable, place, target.as_ref()) {
        Ok(have) => have,
        Err(reason) => return Line { note: reason, ..line },
    };
    let (satisfied, new) = match wanted(situation, rule, place, target.as_ref(), &line.have) {
        Wanted::Unsupported(reason) => return Line { note: reason, ..line },
        Wanted::Value { shown, satisfied, new } => {
            line.want = shown;
            (satisfied, new)
        }
    };
    if satisfied {
        line.state = State::Ok;
        return line;
    }
    let (Some(new), Some(target), true) = (new, target, rule.writes()) else {
        line.state = if tunable.severity == Severity::Fatal { State::Drift } else { State::Advice };
        let of_asking = situation.host.broker.is_none() && tunable.inquiry.is_some_and(Inquiry::is_of_process);
        line.note = match (tunable.directive.is_some(), of_asking) {
            (true, true) => "of this shell, no broker runs; set by the unit",
            (true, false) => "set by the unit",
            (false, true) => "of this shell, no broker runs; change by hand",
            (false, false) => "change by hand",
        }
        .into();
        return line;
    };
    line.to_write = Some(new.clone());
    if let Target::File(path) = &target
        && let Some(reason) = system.read(path).ok().and_then(|text| not_offered(&text, &new))
    {
        return Line { note: reason, ..line };
    }
    if tunable.class != Class::Safe && !choices.allow.contains(&tunable.class) {
        line.state = State::Advice;
        line.note = format!("class {}: needs --allow {0}", tunable.class.name());
        return line;
    }
    if choices.proven_only && line.unproven {
        line.state = State::Advice;
        line.note = "left out by --proven-only".into();
        return line;
    }
    match target.access(system) {
        Access::Writable => {}
        Access::ReadOnly => {
            let fixed = matches!(target, Target::Card(..));
            let note = if fixed { "fixed by the card's driver" } else { "read-only here" };
            return Line { note: note.into(), ..line };
        }
        Access::Missing => return Line { note: "does not exist".into(), ..line },
        Access::Forbidden => {
            line.state = State::Drift;
            line.note = "needs root".into();
            return line;
        }
    }
    line.state = State::Drift;
    let counterpart = tunable.counterpart.clone().map(Target::File);
    let moves = moved_by(system, tunable, place);
    let undo = undo_of(system, &target, &line.have, counterpart.as_ref());
    let (name, old) = (line.name(), line.have.clone());
    line.change = Some(Change { name, target, counterpart, moves, old, new, undo });
    line
}

/// What a write of this entry moves, as far as it is there.
fn moved_by(system: &dyn System, tunable: &Tunable, place: &Place<'_>) -> Vec<Target> {
    let files = |path: &String| {
        let path = fill(path, place);
        match path.strip_suffix("/*") {
            Some(folder) => system.list(folder).into_iter().map(|name| format!("{folder}/{name}")).collect(),
            None => vec![path],
        }
    };
    tunable.moves.iter().flat_map(files).map(Target::File).collect()
}

/// Whether the value follows from queues whose number is about to change.
fn depends_on_queues(situation: &Situation<'_>, tunable: &Tunable, rule: &Rule, place: &Place<'_>) -> bool {
    let in_change = &situation.cards_in_change;
    let of_queue = ["{rx}", "{tx}", "{irq}"].iter().any(|part| tunable.path.contains(part));
    match rule {
        Rule::Computed(Computation::RfsEntries) => !in_change.is_empty(),
        Rule::Computed(Computation::NtupleWithRfs | Computation::AdaptiveRxOff) => {
            place.nic.is_some_and(|nic| in_change.contains(&nic.name))
        }
        _ => {
            (of_queue || tunable.needs.contains(&Need::SeveralQueues))
                && place.nic.is_some_and(|nic| in_change.contains(&nic.name))
        }
    }
}

/// How to bring a value back: usually by writing it; a zero beside a counterpart that is not zero cannot be written, but
/// comes back when the counterpart is.
pub fn undo_of(system: &dyn System, target: &Target, old: &str, counterpart: Option<&Target>) -> Undo {
    if old == "0"
        && let Some(counterpart) = counterpart
        && let Ok(value) = counterpart.read(system)
        && value != "0"
    {
        return Undo { target: counterpart.clone(), value };
    }
    Undo { target: target.clone(), value: old.into() }
}

/// The value now, or why there is none.
fn present(
    situation: &Situation<'_>,
    tunable: &Tunable,
    place: &Place<'_>,
    target: Option<&Target>,
) -> Result<String, String> {
    let Situation { system, host, .. } = situation;
    if let Some(target) = target {
        if let Target::File(path) = target
            && !system.exists(path)
        {
            return Err("this kernel or device does not have it".into());
        }
        return target.read(*system).map_err(|error| match error.raw_os_error() {
            Some(libc::EOPNOTSUPP) => "the card does not have it".into(),
            _ => format!("cannot be read: {error}"),
        });
    }
    if let Some(inquiry) = tunable.inquiry {
        return match ask(*system, host, place.directory, inquiry) {
            Answer::Is(text) => Ok(text),
            Answer::Unsupported(reason) => Err(reason),
        };
    }
    if let Some(parameter) = &tunable.parameter {
        let command_line = system.read("/proc/cmdline").map_err(|error| error.to_string())?;
        let found = command_line.split_whitespace().find(|word| match parameter.ends_with('=') {
            true => word.starts_with(parameter.as_str()),
            false => word == parameter,
        });
        return Ok(match found {
            Some(word) if parameter.ends_with('=') => word[parameter.len()..].to_string(),
            Some(_) => "present".into(),
            None => "absent".into(),
        });
    }
    Ok(if tunable.kind == Kind::Broker { "set".into() } else { "not taken".into() })
}
