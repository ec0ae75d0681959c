//! What shards know of topics and groups: an immutable picture of the control plane, published after each change.
//!
//! Invariants: a published snapshot never changes. Entries that did not change between two snapshots are the same
//! `Arc`, so a shard that keeps pointers into them can compare identities. The one number that does change in place is a
//! group's [`GroupEntry::locked_until_ms`]: it is renewed every few seconds by every orderly consumer, which would
//! otherwise mean a new snapshot each time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_protocol::bodies::{ConsumeType, MessageModel, SubscriptionData, SubscriptionGroupConfig, TopicConfig};

use super::filter::TagFilter;
use super::groups::FORBIDDEN_READ;
use super::topics::TopicMap;
use super::{ConnectionId, Control, FastMap};

/// One topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicEntry {
    /// Its configuration.
    pub config: TopicConfig,
}

/// What a group wants of one topic, ready for matching.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// As the consumer sent it.
    pub data: SubscriptionData,
    /// Its tags; everything for other expression types, whose filters are not made here.
    pub filter: TagFilter,
}

impl Subscription {
    /// Prepares a subscription for matching.
    pub fn new(data: SubscriptionData) -> Subscription {
        let by_tag = super::filter::is_tag_type(Some(&data.expression_type));
        let codes = data.code_set.iter().copied();
        let filter = if by_tag {
            TagFilter::of_subscription(Some(&data.sub_string), data.class_filter_mode, codes)
        } else {
            TagFilter::everything()
        };
        Subscription { data, filter }
    }
}

/// The members of a group that is online.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveGroup {
    /// How its consumers get messages, as of the last heartbeat.
    pub consume_type: Option<ConsumeType>,
    /// How messages are shared, as of the last heartbeat.
    pub message_model: Option<MessageModel>,
    /// Topic to subscription.
    pub subscriptions: BTreeMap<String, Arc<Subscription>>,
    /// The connections of its members, in ascending order.
    pub connections: Vec<ConnectionId>,
}

/// One group.
#[derive(Debug, Clone)]
pub struct GroupEntry {
    /// Its configuration.
    pub config: Arc<SubscriptionGroupConfig>,
    /// Topics with forbidden masks.
    pub forbidden: BTreeMap<String, i32>,
    /// Its members, if it is online.
    pub live: Option<LiveGroup>,
    /// When the last orderly lock of the group expires, milliseconds of the steady clock; 0 if it never had one. Use
    /// [`GroupEntry::holds_locks`].
    pub locked_until_ms: Arc<AtomicU64>,
}

impl GroupEntry {
    /// Whether the group holds an orderly lock that has not expired. Source: RebalanceLockManager.isLockAllExpired.
    pub fn holds_locks(&self, steady_ms: u64) -> bool {
        let until_ms = self.locked_until_ms.load(Ordering::Relaxed);
        until_ms > 0 && steady_ms <= until_ms
    }

    /// Whether the group may not read the topic (code 353).
    pub fn is_read_forbidden(&self, topic: &str) -> bool {
        self.forbidden.get(topic).is_some_and(|mask| *mask > 0 && mask & FORBIDDEN_READ != 0)
    }
}

/// Settings that shards need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerFlags {
    /// `brokerPermission`.
    pub permission: i32,
    /// `startAcceptSendRequestTimeStamp`, milliseconds.
    pub accept_sends_from_ms: i64,
    /// `rejectPullConsumerEnable`.
    pub reject_pull_consumers: bool,
}

/// The picture.
#[derive(Debug, Clone)]
pub struct BrokerSnapshot {
    /// Topic name to topic.
    pub topics: Arc<FastMap<Arc<str>, Arc<TopicEntry>>>,
    /// Group name to group.
    pub groups: Arc<FastMap<Arc<str>, Arc<GroupEntry>>>,
    /// Settings.
    pub flags: BrokerFlags,
}

/// What the control plane keeps to make snapshots cheaply.
#[derive(Debug, Default)]
pub(crate) struct Publisher {
    groups: Arc<FastMap<Arc<str>, Arc<GroupEntry>>>,
    stale: std::collections::BTreeSet<String>,
    last: Option<Arc<BrokerSnapshot>>,
}

impl Control {
    /// Marks a group whose entry must be made anew.
    pub(crate) fn stale_group(&mut self, group: &str) {
        if !self.publisher.stale.contains(group) {
            self.publisher.stale.insert(group.to_owned());
        }
    }

    /// The present picture. The same `Arc` as before if nothing changed; the work is proportional to the groups that
    /// changed, plus one copy of a pointer table if a shard still holds the previous one.
    pub fn snapshot(&mut self) -> Arc<BrokerSnapshot> {
        let stale = std::mem::take(&mut self.publisher.stale);
        for name in &stale {
            let entry = self.group_entry(name);
            let groups = Arc::make_mut(&mut self.publisher.groups);
            match entry {
                Some(entry) => _ = groups.insert(Arc::from(name.as_str()), Arc::new(entry)),
                None => _ = groups.remove(name.as_str()),
            }
        }
        let topics: Arc<TopicMap> = self.topics.shared();
        let flags = self.flags();
        if let Some(last) = &self.publisher.last
            && stale.is_empty()
            && Arc::ptr_eq(&last.topics, &topics)
            && last.flags == flags
        {
            return Arc::clone(last);
        }
        let snapshot = Arc::new(BrokerSnapshot { topics, groups: Arc::clone(&self.publisher.groups), flags });
        self.publisher.last = Some(Arc::clone(&snapshot));
        snapshot
    }

    fn flags(&self) -> BrokerFlags {
        BrokerFlags {
            permission: self.config.broker_permission,
            accept_sends_from_ms: self.config.accept_sends_from_ms,
            reject_pull_consumers: self.config.reject_pull_consumers,
        }
    }

    fn group_entry(&mut self, name: &str) -> Option<GroupEntry> {
        let config = Arc::clone(self.groups.get(name)?);
        Some(GroupEntry {
            config,
            forbidden: self.groups.forbidden(name).cloned().unwrap_or_default(),
            live: self.clients.live_group(name),
            locked_until_ms: self.locks.published(name),
        })
    }
}
