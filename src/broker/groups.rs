//! Subscription groups: their configuration, and which topics a group may not read. Source: SubscriptionGroupManager.
//!
//! Invariants: every change bumps the data version; an unchanged group keeps its `Arc`. Owned by the control thread.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmq_protocol::bodies::{DataVersion, SubscriptionGroupConfig};
use ringmq_protocol::codes::response;
use ringmq_protocol::json::Value;

use super::{Control, Effect, Refusal, java_millis, limits, names};

/// Bit of a forbidden mask: the group may not read the topic (`PermName.INDEX_PERM_READ`).
pub const FORBIDDEN_READ: i32 = 1 << 2;

/// Group to topic to forbidden mask.
pub(crate) type ForbiddenTable = BTreeMap<String, BTreeMap<String, i32>>;

/// Group name to configuration, in name order.
type GroupMap = BTreeMap<String, Arc<SubscriptionGroupConfig>>;

/// The groups at one moment. While it is held the next change copies the table of pointers.
#[derive(Debug)]
pub struct GroupsBefore {
    configs: Arc<GroupMap>,
    forbidden: Arc<ForbiddenTable>,
    version: DataVersion,
    dirty: bool,
}

impl GroupsBefore {
    pub(crate) fn version(&self) -> &DataVersion {
        &self.version
    }
}

/// All groups.
#[derive(Debug)]
pub struct GroupTable {
    configs: Arc<GroupMap>,
    forbidden: Arc<ForbiddenTable>,
    version: DataVersion,
    /// Members of `subscriptionGroup.json` that this version does not know.
    pub(crate) unknown: BTreeMap<String, Value>,
    dirty: bool,
}

impl GroupTable {
    /// The groups of a broker that starts for the first time.
    pub fn new() -> GroupTable {
        let predefined = names::PREDEFINED_GROUPS.into_iter();
        let configs = predefined.map(|name| (name.to_owned(), Arc::new(SubscriptionGroupConfig::new(name))));
        GroupTable {
            configs: Arc::new(configs.collect()),
            forbidden: Arc::default(),
            version: DataVersion::default(),
            unknown: BTreeMap::new(),
            dirty: true,
        }
    }

    /// Configuration of a group.
    pub fn get(&self, group: &str) -> Option<&Arc<SubscriptionGroupConfig>> {
        self.configs.get(group)
    }

    /// Whether the group exists.
    pub fn contains(&self, group: &str) -> bool {
        self.configs.contains_key(group)
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.configs.len()
    }

    /// Whether there are no groups; never after the start.
    pub fn is_empty(&self) -> bool {
        self.configs.is_empty()
    }

    /// All groups in name order.
    pub fn sorted(&self) -> &BTreeMap<String, Arc<SubscriptionGroupConfig>> {
        &self.configs
    }

    /// Makes or replaces a group.
    pub(crate) fn put(&mut self, config: SubscriptionGroupConfig, wall_ms: u64) {
        Arc::make_mut(&mut self.configs).insert(config.group_name.clone(), Arc::new(config));
        self.bump(wall_ms);
    }

    /// Deletes a group and its prohibitions; returns whether it existed.
    pub(crate) fn remove(&mut self, group: &str, wall_ms: u64) -> bool {
        if !self.contains(group) {
            return false;
        }
        if self.forbidden.contains_key(group) {
            Arc::make_mut(&mut self.forbidden).remove(group);
        }
        Arc::make_mut(&mut self.configs).remove(group);
        self.bump(wall_ms);
        true
    }

    /// What [`Control::exchange_groups`] needs to undo later changes.
    pub(crate) fn remember(&self) -> GroupsBefore {
        let (configs, forbidden) = (Arc::clone(&self.configs), Arc::clone(&self.forbidden));
        GroupsBefore { configs, forbidden, version: self.version.clone(), dirty: self.dirty }
    }

    /// Whether groups were made, changed or deleted since.
    pub(crate) fn differ_from(&self, before: &GroupsBefore) -> bool {
        !Arc::ptr_eq(&self.configs, &before.configs)
    }

    /// Topics with their forbidden masks, for a group.
    pub fn forbidden(&self, group: &str) -> Option<&BTreeMap<String, i32>> {
        self.forbidden.get(group)
    }

    /// All forbidden masks.
    pub fn forbidden_table(&self) -> &ForbiddenTable {
        &self.forbidden
    }

    pub(crate) fn bump(&mut self, wall_ms: u64) {
        self.version.bump(java_millis(wall_ms));
        self.dirty = true;
    }

    /// Version of the table.
    pub fn version(&self) -> &DataVersion {
        &self.version
    }

    pub(crate) fn start_version(&mut self, wall_ms: u64) {
        self.dirty |= super::topics::start_version(&mut self.version, wall_ms);
    }

    /// Takes over a state file: its groups win over the predefined ones.
    pub(crate) fn load(
        &mut self,
        version: DataVersion,
        configs: BTreeMap<String, SubscriptionGroupConfig>,
        forbidden: ForbiddenTable,
        unknown: BTreeMap<String, Value>,
    ) {
        self.dirty = self.configs.keys().any(|name| !configs.contains_key(name));
        for (name, config) in configs {
            let config = SubscriptionGroupConfig { group_name: name.clone(), ..config };
            Arc::make_mut(&mut self.configs).insert(name, Arc::new(config));
        }
        self.forbidden = Arc::new(forbidden);
        self.version = version;
        self.unknown = unknown;
    }

    /// Whether the state file must be written; marks it as written.
    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }
}

impl Default for GroupTable {
    fn default() -> GroupTable {
        GroupTable::new()
    }
}

impl Control {
    /// Makes sure that a group exists, creating it if the configuration allows. Source:
    /// SubscriptionGroupManager.findSubscriptionGroupConfig.
    ///
    /// # Errors
    /// 26 if it does not exist and may not be created, its name is invalid, or the broker holds too many groups.
    pub fn ensure_group(&mut self, name: &str, wall_ms: u64, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        if self.groups.contains(name) {
            return Ok(());
        }
        // Source: enableCreateSysGroup, whose default this is.
        let allowed = self.config.auto_create_group || names::is_system_group(name);
        if !allowed || names::check_group(name).is_err() {
            let remark = format!("subscription group [{name}] does not exist");
            return Err(Refusal::new(response::SUBSCRIPTION_GROUP_NOT_EXIST, remark));
        }
        self.check_room_for_groups(1, response::SUBSCRIPTION_GROUP_NOT_EXIST)?;
        self.put_group(SubscriptionGroupConfig::new(name), wall_ms, effects);
        Ok(())
    }

    /// Whether this many more groups fit; `code` is that of the refusal.
    pub(crate) fn check_room_for_groups(&self, more: usize, code: i32) -> Result<(), Refusal> {
        if self.groups.len() + more > self.config.max_groups {
            return Err(Refusal::new(code, limits::too_many_groups(self.config.max_groups)));
        }
        Ok(())
    }

    /// Puts the groups of another moment in place, with their version, and gives those of now.
    pub(crate) fn exchange_groups(&mut self, other: GroupsBefore) -> GroupsBefore {
        let GroupsBefore { configs, forbidden, version, dirty } = other;
        let groups = &mut self.groups;
        let since = GroupsBefore {
            configs: std::mem::replace(&mut groups.configs, configs),
            forbidden: std::mem::replace(&mut groups.forbidden, forbidden),
            version: std::mem::replace(&mut groups.version, version),
            dirty: std::mem::replace(&mut groups.dirty, dirty),
        };
        let now = Arc::clone(&groups.configs);
        if !Arc::ptr_eq(&now, &since.configs) {
            let other = |name: &String| {
                !now.get(name).zip(since.configs.get(name)).is_some_and(|(now, since)| Arc::ptr_eq(now, since))
            };
            let names = now.keys().chain(since.configs.keys()).filter(|name| other(name));
            names.for_each(|name| self.stale_group(name));
        }
        since
    }

    pub(crate) fn put_group(&mut self, config: SubscriptionGroupConfig, wall_ms: u64, effects: &mut Vec<Effect>) {
        self.stale_group(&config.group_name);
        self.groups.put(config, wall_ms);
        effects.push(Effect::GroupsChanged);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::control;
    use super::*;

    /// Goal: groups are created when allowed, else refused with 26. Method: each setting and a bad name.
    #[test]
    fn creation_on_demand() {
        let mut control = control();
        let mut effects = Vec::new();
        assert_eq!(control.groups.len(), 8);
        control.ensure_group("g", 5, &mut effects).unwrap();
        control.ensure_group("g", 6, &mut effects).unwrap();
        assert_eq!((control.groups.version().counter, control.groups.version().timestamp), (1, 5));
        assert_eq!(effects, [Effect::GroupsChanged]);
        assert_eq!(control.ensure_group("g/1", 6, &mut effects).unwrap_err().code, 26);
        assert_eq!(control.ensure_group("", 6, &mut effects).unwrap_err().code, 26);
        control.config.auto_create_group = false;
        let error = control.ensure_group("h", 6, &mut effects).unwrap_err();
        assert_eq!(error, Refusal::new(26, "subscription group [h] does not exist"));
        control.ensure_group("CID_RMQ_SYS_x", 6, &mut effects).unwrap();
        control.config.auto_create_group = true;
        control.config.max_groups = control.groups.len();
        let error = control.ensure_group("h", 6, &mut effects).unwrap_err();
        assert_eq!(error, Refusal::new(26, limits::too_many_groups(control.config.max_groups)));
    }

    /// Goal: changes are undone as if they had never been, with prohibitions and what shards see, and come back whole. Method: one group
    /// made, one changed, one deleted, then back, and forth again.
    #[test]
    fn changes_are_undone_and_made_again() {
        let mut control = control();
        let mut effects = Vec::new();
        let group = |name: &str, retries| SubscriptionGroupConfig {
            retry_max_times: retries,
            ..SubscriptionGroupConfig::new(name)
        };
        control.put_group(group("changed", 1), 5, &mut effects);
        control.put_group(group("deleted", 2), 5, &mut effects);
        let forbidden = BTreeMap::from([("T".to_owned(), FORBIDDEN_READ)]);
        Arc::make_mut(&mut control.groups.forbidden).insert("deleted".to_owned(), forbidden);
        control.snapshot();
        control.groups.take_dirty();
        let before = control.groups.remember();
        assert!(!control.groups.differ_from(&before));
        control.put_group(group("made", 3), 6, &mut effects);
        control.put_group(group("changed", 4), 6, &mut effects);
        control.stale_group("deleted");
        assert!(control.groups.remove("deleted", 6) && control.groups.differ_from(&before));
        assert!(control.snapshot().groups.contains_key("made"));
        let after = control.exchange_groups(before);
        assert!(!control.groups.contains("made") && !control.groups.take_dirty());
        assert_eq!(control.groups.version().counter, 2);
        let snapshot = control.snapshot();
        assert!(!snapshot.groups.contains_key("made"));
        assert_eq!(snapshot.groups["changed"].config.retry_max_times, 1);
        assert!(snapshot.groups["deleted"].is_read_forbidden("T"));
        control.exchange_groups(after);
        assert!(control.groups.take_dirty());
        assert_eq!(control.groups.version().counter, 5);
        let snapshot = control.snapshot();
        assert!(snapshot.groups.contains_key("made") && !snapshot.groups.contains_key("deleted"));
        assert_eq!(snapshot.groups["changed"].config.retry_max_times, 4);
    }
}
