//! Locks of orderly consumers: which client of a group owns which queue, and codes 41 and 42.
//! Source: RebalanceLockManager.
//!
//! Invariants: a lock belongs to (group, queue with broker name) and names one client. It lives for the time-out after
//! its last renewal, whether or not its owner is still connected. Owned by the control thread; per group the expiry of
//! its youngest lock is published as an atomic number for shards. All times are the steady clock's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmq_protocol::bodies::{JsonBody, LockBatchRequestBody, LockBatchResponseBody, MessageQueue};

use super::{Answer, Control, FastMap, Handled, Request, body, limits, success};

/// How long a lock lives without renewal. Source: rocketmq.broker.rebalance.lockMaxLiveTime.
pub(crate) const LOCK_TIMEOUT_MS: u64 = 60_000;

#[derive(Debug)]
struct Lock {
    client_id: String,
    renewed_ms: u64,
}

#[derive(Debug, Default)]
struct GroupLocks {
    locks: BTreeMap<MessageQueue, Lock>,
    until_ms: Arc<AtomicU64>,
}

impl GroupLocks {
    fn publish(&self, timeout_ms: u64) {
        let until_ms = self.locks.values().map(|lock| lock.renewed_ms.saturating_add(timeout_ms)).max();
        self.until_ms.store(until_ms.unwrap_or(0), Ordering::Relaxed);
    }
}

/// All orderly locks.
#[derive(Debug)]
pub struct LockTable {
    groups: FastMap<String, GroupLocks>,
    timeout_ms: u64,
}

impl LockTable {
    /// No locks; they will expire this long after their last renewal.
    pub fn new(timeout_ms: u64) -> LockTable {
        LockTable { groups: FastMap::default(), timeout_ms }
    }

    /// Groups that hold locks.
    pub fn groups(&self) -> usize {
        self.groups.len()
    }

    fn expired(&self, lock: &Lock, steady_ms: u64) -> bool {
        steady_ms.saturating_sub(lock.renewed_ms) > self.timeout_ms
    }

    /// Locks or renews queues for a client; returns those that are now its own.
    pub fn lock(
        &mut self,
        group: &str,
        client_id: &str,
        queues: Vec<MessageQueue>,
        steady_ms: u64,
    ) -> Vec<MessageQueue> {
        if !self.groups.contains_key(group) && self.groups.len() >= limits::MAX_LOCKED_GROUPS {
            return Vec::new();
        }
        let mut entry = std::mem::take(self.groups.entry(group.to_owned()).or_default());
        let mut locked = Vec::with_capacity(queues.len());
        for queue in queues {
            let full = entry.locks.len() >= limits::MAX_LOCKS_PER_GROUP;
            match entry.locks.get_mut(&queue) {
                Some(lock) if lock.client_id != client_id && !self.expired(lock, steady_ms) => continue,
                Some(lock) => {
                    if lock.client_id != client_id {
                        client_id.clone_into(&mut lock.client_id);
                    }
                    lock.renewed_ms = steady_ms;
                }
                None if full => continue,
                None => {
                    let lock = Lock { client_id: client_id.to_owned(), renewed_ms: steady_ms };
                    entry.locks.insert(queue.clone(), lock);
                }
            }
            locked.push(queue);
        }
        entry.publish(self.timeout_ms);
        self.groups.insert(group.to_owned(), entry);
        locked
    }

    /// Releases queues that the client owns; others are left alone.
    pub fn unlock(&mut self, group: &str, client_id: &str, queues: &[MessageQueue]) {
        if let Some(entry) = self.groups.get_mut(group) {
            for queue in queues {
                if entry.locks.get(queue).is_some_and(|lock| lock.client_id == client_id) {
                    entry.locks.remove(queue);
                }
            }
            entry.publish(self.timeout_ms);
        }
    }

    /// Whether the group holds a lock that has not expired.
    pub fn holds_locks(&self, group: &str, steady_ms: u64) -> bool {
        self.groups.get(group).is_some_and(|entry| entry.locks.values().any(|lock| !self.expired(lock, steady_ms)))
    }

    /// Client that owns a queue, if its lock has not expired.
    pub fn owner(&self, group: &str, queue: &MessageQueue, steady_ms: u64) -> Option<&str> {
        let lock = self.groups.get(group)?.locks.get(queue)?;
        (!self.expired(lock, steady_ms)).then_some(lock.client_id.as_str())
    }

    /// The number that tells shards how long the group holds locks; the same one for the same group as long as anybody
    /// has it.
    pub(crate) fn published(&mut self, group: &str) -> Arc<AtomicU64> {
        if let Some(entry) = self.groups.get(group) {
            return Arc::clone(&entry.until_ms);
        }
        Arc::clone(&self.groups.entry(group.to_owned()).or_default().until_ms)
    }

    /// Drops expired locks, and groups that have none and whose number nobody else has.
    pub(crate) fn expire(&mut self, steady_ms: u64) {
        let timeout_ms = self.timeout_ms;
        self.groups.retain(|_, entry| {
            entry.locks.retain(|_, lock| steady_ms.saturating_sub(lock.renewed_ms) <= timeout_ms);
            entry.publish(timeout_ms);
            !entry.locks.is_empty() || Arc::strong_count(&entry.until_ms) > 1
        });
    }
}

/// LOCK_BATCH_MQ (41). A single broker answers for itself; other replicas are not asked.
pub(crate) fn lock_batch(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let wanted = LockBatchRequestBody::decode(body(request.command)?)?;
    let locked = control.locks.lock(&wanted.consumer_group, &wanted.client_id, wanted.mq_set, request.now.steady_ms);
    Ok(Answer::Now(success().with_body(LockBatchResponseBody { lock_ok_mq_set: locked }.encode())))
}

/// UNLOCK_BATCH_MQ (42).
pub(crate) fn unlock_batch(control: &mut Control, request: &mut Request<'_>) -> Handled {
    let wanted = LockBatchRequestBody::decode(body(request.command)?)?;
    control.locks.unlock(&wanted.consumer_group, &wanted.client_id, &wanted.mq_set);
    Ok(Answer::Now(success()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ask_body, control};
    use super::*;
    use ringmq_protocol::codes::request;

    fn queue(number: i32) -> MessageQueue {
        MessageQueue::new("T", "broker-a", number)
    }

    /// Goal: a lock passes to another client only after its time-out. Method: two clients around the bound of 60 s.
    #[test]
    fn expiry_and_takeover() {
        let mut table = LockTable::new(60_000);
        assert_eq!(table.lock("g", "c1", vec![queue(0), queue(1)], 1_000).len(), 2);
        assert_eq!(table.lock("g", "c2", vec![queue(0), queue(2)], 2_000), [queue(2)]);
        assert_eq!(table.lock("g", "c1", vec![queue(0)], 50_000), [queue(0)]);
        assert_eq!(table.lock("g", "c2", vec![queue(1)], 61_000), []);
        assert_eq!(table.lock("g", "c2", vec![queue(1)], 61_001), [queue(1)]);
        assert_eq!(table.owner("g", &queue(0), 110_000), Some("c1"));
        assert_eq!(table.owner("g", &queue(0), 110_001), None);
        assert_eq!(table.lock("other", "c2", vec![queue(0)], 2_000), [queue(0)]);
    }

    /// Goal: a client releases only its own locks, and the published number follows. Method: foreign and own unlock.
    #[test]
    fn release_and_published_expiry() {
        let mut table = LockTable::new(60_000);
        let until_ms = table.published("g");
        assert_eq!(until_ms.load(Ordering::Relaxed), 0);
        table.lock("g", "c1", vec![queue(0)], 1_000);
        assert_eq!(until_ms.load(Ordering::Relaxed), 61_000);
        table.unlock("g", "c2", &[queue(0)]);
        assert!(table.holds_locks("g", 61_000) && !table.holds_locks("g", 61_001));
        table.unlock("g", "c1", &[queue(0)]);
        assert_eq!(until_ms.load(Ordering::Relaxed), 0);
        table.expire(9_999_999);
        table.lock("g", "c1", vec![queue(0)], 5_000);
        assert_eq!(until_ms.load(Ordering::Relaxed), 65_000);
    }

    /// Goal: codes 41 and 42 work as on the wire. Method: the published bodies; another client is refused meanwhile.
    #[test]
    fn requests() {
        let mut control = control();
        let queues = r#"[{"brokerName":"broker-a","queueId":0,"topic":"TopicTest"}]"#;
        let body = |client: &str| {
            format!(r#"{{"clientId":"{client}","consumerGroup":"g1","mqSet":{queues},"onlyThisBroker":false}}"#)
        };
        let answer = ask_body(&mut control, request::LOCK_BATCH_MQ, &body("c1"));
        assert_eq!(answer.body.unwrap(), format!(r#"{{"lockOKMQSet":{queues}}}"#).into_bytes());
        let answer = ask_body(&mut control, request::LOCK_BATCH_MQ, &body("c2"));
        assert_eq!(answer.body.unwrap(), br#"{"lockOKMQSet":[]}"#);
        let answer = ask_body(&mut control, request::UNLOCK_BATCH_MQ, &body("c1"));
        assert_eq!((answer.code, answer.body), (0, None));
        let answer = ask_body(&mut control, request::LOCK_BATCH_MQ, &body("c2"));
        assert_eq!(answer.body.unwrap(), format!(r#"{{"lockOKMQSet":{queues}}}"#).into_bytes());
    }
}
