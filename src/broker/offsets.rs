//! Committed offsets of consumer groups, the positions they have pulled up to, and pending resets.
//! Source: ConsumerOffsetManager.
//!
//! Invariants: the key of a table row is `topic@group`, as in `consumerOffset.json`; rows whose key has another form are
//! kept and written back, but no request finds them by topic or group. A committed offset is the next one to consume and
//! may go backwards. Owned by the control thread.

use std::collections::{BTreeMap, BTreeSet};

use ringmq_protocol::bodies::DataVersion;

use super::{FastMap, limits};

/// Separator of topic and group in a key.
const SEPARATOR: char = '@';
/// Commits per step of the data version (`consumerOffsetUpdateVersionStep`).
pub(crate) const OFFSET_VERSION_STEP: u64 = 500;

/// One commit of an offset, for example from a pull that carries one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Consumer group.
    pub group: String,
    /// Topic.
    pub topic: String,
    /// Queue.
    pub queue_id: i32,
    /// Next offset to consume; absent when only the pull position moves.
    pub commit: Option<i64>,
    /// Next offset to pull; absent for a plain commit.
    pub pulled: Option<i64>,
}

type Queues = BTreeMap<i32, i64>;

/// How far a group has pulled a topic.
#[derive(Debug, Default)]
struct Pulled {
    offsets: Queues,
    /// Messages that its pulls have passed.
    messages: u64,
}

/// All offsets of the broker.
#[derive(Debug, Default)]
pub struct OffsetTable {
    rows: BTreeMap<String, Queues>,
    pulled: FastMap<String, Pulled>,
    resets: FastMap<String, Queues>,
    topics_of_group: FastMap<String, BTreeSet<String>>,
    groups_of_topic: FastMap<String, BTreeSet<String>>,
    version: DataVersion,
    commits: u64,
    dirty: bool,
    written_ms: u64,
}

impl OffsetTable {
    /// Pairs of topic and group with committed offsets.
    pub fn keys(&self) -> usize {
        self.rows.len()
    }

    /// Records a commit. False when it is beyond the bounds of [`limits`] and was dropped.
    pub fn commit(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64, step: u64, wall_ms: u64) -> bool {
        let key = key(topic, group);
        if let Some(queues) = self.rows.get_mut(&key) {
            if queues.len() >= limits::MAX_OFFSETS_PER_SUBSCRIPTION && !queues.contains_key(&queue_id) {
                return false;
            }
            queues.insert(queue_id, offset);
        } else {
            if self.rows.len() >= limits::MAX_OFFSET_KEYS {
                return false;
            }
            self.index(&key);
            self.rows.insert(key, Queues::from([(queue_id, offset)]));
        }
        self.commits += 1;
        if self.commits.is_multiple_of(step.max(1)) {
            self.version.bump(super::java_millis(wall_ms));
        }
        self.dirty = true;
        true
    }

    /// Records how far a group has pulled; not persisted, and bounded like commits.
    pub fn record_pull(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64) {
        let key = key(topic, group);
        if self.pulled.len() >= limits::MAX_OFFSET_KEYS && !self.pulled.contains_key(&key) {
            return;
        }
        let pulled = self.pulled.entry(key).or_default();
        let queues = &mut pulled.offsets;
        if (queues.len() < limits::MAX_OFFSETS_PER_SUBSCRIPTION || queues.contains_key(&queue_id))
            && let Some(before) = queues.insert(queue_id, offset)
        {
            pulled.messages += u64::try_from(offset.saturating_sub(before)).unwrap_or(0);
        }
    }

    /// Messages that pulls have passed, by `topic@group`.
    pub fn pulled_messages(&self) -> impl Iterator<Item = (&str, u64)> {
        self.pulled.iter().map(|(key, pulled)| (key.as_str(), pulled.messages))
    }

    /// Committed offset; a pending reset comes first if `with_resets`.
    pub fn committed(&self, group: &str, topic: &str, queue_id: i32, with_resets: bool) -> Option<i64> {
        let key = key(topic, group);
        let reset = if with_resets { self.resets.get(&key).and_then(|queues| queues.get(&queue_id)) } else { None };
        reset.or_else(|| self.rows.get(&key)?.get(&queue_id)).copied()
    }

    /// How far the group has pulled; without a record, its committed offset.
    pub fn pulled(&self, group: &str, topic: &str, queue_id: i32, with_resets: bool) -> Option<i64> {
        let pulled = self.pulled.get(&key(topic, group)).and_then(|pulled| pulled.offsets.get(&queue_id)).copied();
        pulled.or_else(|| self.committed(group, topic, queue_id, with_resets))
    }

    /// Whether a reset of the queue waits for the group's next pull.
    pub fn has_reset(&self, group: &str, topic: &str, queue_id: i32) -> bool {
        self.resets.get(&key(topic, group)).is_some_and(|queues| queues.contains_key(&queue_id))
    }

    /// Sets a pending reset; the committed offset is overwritten at once.
    pub fn reset(&mut self, group: &str, topic: &str, queue_id: i32, offset: i64, step: u64, wall_ms: u64) {
        self.commit(group, topic, queue_id, offset, step, wall_ms);
        let key = key(topic, group);
        if self.rows.contains_key(&key) {
            self.resets.entry(key).or_default().insert(queue_id, offset);
        }
    }

    /// Takes the pending reset of a queue: the pull that gets it answers with it once.
    pub fn take_reset(&mut self, group: &str, topic: &str, queue_id: i32) -> Option<i64> {
        let key = key(topic, group);
        let queues = self.resets.get_mut(&key)?;
        let offset = queues.remove(&queue_id);
        if queues.is_empty() {
            self.resets.remove(&key);
        }
        offset
    }

    /// Topics on which a group has offsets.
    pub fn topics_of(&self, group: &str) -> impl Iterator<Item = &str> {
        self.topics_of_group.get(group).into_iter().flatten().map(String::as_str)
    }

    /// Groups that have offsets on a topic.
    pub fn groups_of(&self, topic: &str) -> impl Iterator<Item = &str> {
        self.groups_of_topic.get(topic).into_iter().flatten().map(String::as_str)
    }

    /// Copies all offsets of a topic from one group to another, replacing what that one had.
    pub fn clone_offsets(&mut self, source: &str, target: &str, topic: &str) {
        if let Some(queues) = self.rows.get(&key(topic, source)).cloned() {
            let key = key(topic, target);
            self.index(&key);
            self.rows.insert(key, queues);
            self.dirty = true;
        }
    }

    /// Forgets a group's offsets.
    pub fn remove_group(&mut self, group: &str) {
        let topics: Vec<String> = self.topics_of(group).map(str::to_owned).collect();
        for topic in topics {
            self.remove(&topic, group);
        }
    }

    /// Forgets the offsets of every group on a topic.
    pub fn remove_topic(&mut self, topic: &str) {
        let groups: Vec<String> = self.groups_of(topic).map(str::to_owned).collect();
        for group in groups {
            self.remove(topic, &group);
        }
    }

    fn remove(&mut self, topic: &str, group: &str) {
        let key = key(topic, group);
        self.rows.remove(&key);
        self.pulled.remove(&key);
        self.resets.remove(&key);
        drop_member(&mut self.topics_of_group, group, topic);
        drop_member(&mut self.groups_of_topic, topic, group);
        self.dirty = true;
    }

    fn index(&mut self, key: &str) {
        if let Some((topic, group)) = split_key(key) {
            self.topics_of_group.entry(group.to_owned()).or_default().insert(topic.to_owned());
            self.groups_of_topic.entry(topic.to_owned()).or_default().insert(group.to_owned());
        }
    }

    /// Lowers committed offsets that lie beyond the end of their queue, as after a log that was cut; `end` gives the
    /// next offset of a queue. Returns (key, queue, old, new) of each, for the log.
    pub fn clamp(&mut self, end: impl Fn(&str, i32) -> Option<i64>) -> Vec<(String, i32, i64, i64)> {
        let mut lowered = Vec::new();
        for (key, queues) in &mut self.rows {
            let Some((topic, _)) = split_key(key) else { continue };
            for (queue_id, offset) in queues {
                if let Some(end) = end(topic, *queue_id)
                    && *offset > end
                {
                    lowered.push((key.clone(), *queue_id, *offset, end));
                    *offset = end;
                }
            }
        }
        self.dirty |= !lowered.is_empty();
        lowered
    }

    /// Every row: `topic@group` to queue to offset, in key order.
    pub fn rows(&self) -> &BTreeMap<String, BTreeMap<i32, i64>> {
        &self.rows
    }

    /// Groups with the topics they have offsets on (`groupTopicMap`).
    pub fn topics_by_group(&self) -> BTreeMap<&str, &BTreeSet<String>> {
        self.topics_of_group.iter().map(|(group, topics)| (group.as_str(), topics)).collect()
    }

    /// Data version of the table.
    pub fn version(&self) -> &DataVersion {
        &self.version
    }

    /// Takes over what a state file held.
    pub fn load(&mut self, version: DataVersion, rows: BTreeMap<String, BTreeMap<i32, i64>>) {
        self.version = version;
        for key in rows.keys() {
            self.index(key);
        }
        self.rows = rows;
    }

    /// Whether the state file is due: something changed, and the last write is a period ago. Marks it as written.
    pub fn take_due(&mut self, steady_ms: u64, period_ms: u64) -> bool {
        let due = self.dirty && steady_ms.saturating_sub(self.written_ms) >= period_ms;
        if due {
            self.dirty = false;
            self.written_ms = steady_ms;
        }
        due
    }

    /// As if a period had passed.
    #[cfg(test)]
    pub(crate) fn make_due(&mut self) {
        self.written_ms = 0;
    }
}

fn key(topic: &str, group: &str) -> String {
    let mut key = String::with_capacity(topic.len() + group.len() + 1);
    key.push_str(topic);
    key.push(SEPARATOR);
    key.push_str(group);
    key
}

/// Topic and group of a key that has exactly one separator with text on both sides.
fn split_key(key: &str) -> Option<(&str, &str)> {
    key.split_once(SEPARATOR)
        .filter(|(topic, group)| !topic.is_empty() && !group.is_empty() && !group.contains(SEPARATOR))
}

fn drop_member(index: &mut FastMap<String, BTreeSet<String>>, name: &str, member: &str) {
    if let Some(members) = index.get_mut(name) {
        members.remove(member);
        if members.is_empty() {
            index.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: commits overwrite, also backwards, and count towards the version. Method: four commits with a step of two.
    #[test]
    fn commits_and_version() {
        let mut table = OffsetTable::default();
        for (offset, at) in [(5, 10), (3, 20), (9, 30), (8, 40)] {
            table.commit("g", "T", 0, offset, 2, at);
        }
        assert_eq!(table.committed("g", "T", 0, true), Some(8));
        assert_eq!((table.version().counter, table.version().timestamp), (2, 40));
        assert_eq!(table.committed("g", "T", 1, true), None);
    }

    /// Goal: a reset is seen once and hides the committed offset meanwhile. Method: reset, query, take, query.
    #[test]
    fn resets() {
        let mut table = OffsetTable::default();
        table.commit("g", "T", 0, 50, 500, 1);
        table.reset("g", "T", 0, 7, 500, 2);
        table.commit("g", "T", 0, 60, 500, 3);
        assert!(table.has_reset("g", "T", 0));
        assert_eq!(table.committed("g", "T", 0, true), Some(7));
        assert_eq!(table.committed("g", "T", 0, false), Some(60));
        assert_eq!(table.take_reset("g", "T", 0), Some(7));
        assert_eq!(table.take_reset("g", "T", 0), None);
        assert!(!table.has_reset("g", "T", 0));
    }

    /// Goal: the indexes follow the rows. Method: commit, clone, remove by topic and by group; keys of odd form stay.
    #[test]
    fn indexes() {
        let mut table = OffsetTable::default();
        table.load(DataVersion::default(), BTreeMap::from([("odd@key@form".to_owned(), BTreeMap::from([(0, 1)]))]));
        table.commit("g1", "T1", 0, 1, 500, 1);
        table.commit("g1", "T2", 0, 2, 500, 1);
        table.clone_offsets("g1", "g2", "T1");
        table.clone_offsets("nobody", "g3", "T1");
        assert_eq!(table.topics_of("g1").collect::<Vec<_>>(), ["T1", "T2"]);
        assert_eq!(table.groups_of("T1").collect::<Vec<_>>(), ["g1", "g2"]);
        table.remove_topic("T1");
        assert_eq!(table.topics_of("g1").collect::<Vec<_>>(), ["T2"]);
        assert_eq!(table.topics_of("g2").count(), 0);
        table.remove_group("g1");
        assert_eq!(table.rows().keys().collect::<Vec<_>>(), ["odd@key@form"]);
    }

    /// Goal: the file is written once per period and only after a change, and again when it was not written. Method: due before,
    /// within and after a period, without and with a failure.
    #[test]
    fn due() {
        let mut table = OffsetTable::default();
        assert!(!table.take_due(10_000, 5_000));
        table.commit("g", "T", 0, 1, 500, 10_000);
        assert!(table.take_due(10_000, 5_000));
        table.commit("g", "T", 0, 2, 500, 11_000);
        assert!(!table.take_due(12_000, 5_000));
        assert!(table.take_due(15_000, 5_000));
        assert!(!table.take_due(99_000, 5_000));
    }

    /// Goal: offsets beyond a queue's end come down to it. Method: one beyond, one within, one of an unknown queue.
    #[test]
    fn clamping() {
        let mut table = OffsetTable::default();
        for (queue_id, offset) in [(0, 10), (1, 3), (2, 9)] {
            table.commit("g", "T", queue_id, offset, 500, 1);
        }
        let lowered = table.clamp(|_, queue_id| (queue_id < 2).then_some(5));
        assert_eq!(lowered, [("T@g".to_owned(), 0, 10, 5)]);
        assert_eq!(table.committed("g", "T", 2, true), Some(9));
    }
}
