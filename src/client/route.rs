//! Routes: which queues a topic has and where, and the choice of a queue to send to. Pure.

use ringmq_protocol::bodies::TopicRouteData;
use ringmq_protocol::flags::permission;

/// Queues of one topic and broker that a route may announce; a larger number is a damaged answer.
const MAX_QUEUES: i32 = 65_536;

/// One queue and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Queue {
    /// Topic.
    pub topic: String,
    /// Broker group.
    pub broker_name: String,
    /// `host:port` of the broker to ask.
    pub address: String,
    /// Number of the queue within the topic on that broker.
    pub queue_id: i32,
}

/// The queues of one topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Route {
    /// Queues to send to, one broker after the other.
    pub to_write: Vec<Queue>,
    /// Queues to read.
    pub to_read: Vec<Queue>,
}

impl Route {
    /// What a route answer means for a topic. Only masters are written to; a group without a master is read from its
    /// member with the smallest id. With `most_queues`, a broker counts for at most that many queues: the route of the
    /// template topic serves for a topic that does not exist yet.
    pub fn of(topic: &str, data: &TopicRouteData, most_queues: Option<i32>) -> Route {
        let mut route = Route::default();
        for queues in &data.queue_datas {
            let Some(broker) = data.broker_datas.iter().find(|broker| broker.broker_name == queues.broker_name) else {
                continue;
            };
            let push = |into: &mut Vec<Queue>, address: Option<&String>, count: i32| {
                let Some(address) = address else { return };
                let count = count.min(most_queues.unwrap_or(MAX_QUEUES)).min(MAX_QUEUES);
                into.extend((0..count).map(|queue_id| Queue {
                    topic: topic.to_owned(),
                    broker_name: queues.broker_name.clone(),
                    address: address.clone(),
                    queue_id,
                }));
            };
            if permission::is_writeable(queues.perm) {
                push(&mut route.to_write, broker.broker_addrs.get(&0), queues.write_queue_nums);
            }
            if permission::is_readable(queues.perm) {
                push(&mut route.to_read, broker.broker_addrs.values().next(), queues.read_queue_nums);
            }
        }
        route
    }

    /// The queue for the send with this running number: one after the other, not on the broker that has just failed if
    /// there is another.
    pub fn queue_for(&self, turn: usize, failed_broker: Option<&str>) -> Option<&Queue> {
        let count = self.to_write.len();
        let start = turn.checked_rem(count)?;
        let in_order = || (0..count).filter_map(|step| self.to_write.get((start + step) % count));
        let elsewhere = in_order().find(|queue| failed_broker != Some(queue.broker_name.as_str()));
        elsewhere.or_else(|| in_order().next())
    }

    /// Brokers that are read from or written to, each once.
    pub fn addresses(&self) -> Vec<&str> {
        let mut all: Vec<&str> =
            self.to_read.iter().chain(&self.to_write).map(|queue| queue.address.as_str()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::bodies::{BrokerData, QueueData};

    use super::*;

    fn broker(name: &str, addresses: &[(i64, &str)]) -> BrokerData {
        BrokerData {
            broker_name: name.into(),
            broker_addrs: addresses.iter().map(|(id, address)| (*id, (*address).to_owned())).collect(),
            ..BrokerData::default()
        }
    }

    fn queues(name: &str, perm: i32, read: i32, write: i32) -> QueueData {
        QueueData {
            broker_name: name.into(),
            perm,
            read_queue_nums: read,
            write_queue_nums: write,
            ..QueueData::default()
        }
    }

    fn numbers(queues: &[Queue]) -> Vec<(&str, i32)> {
        queues.iter().map(|queue| (queue.address.as_str(), queue.queue_id)).collect()
    }

    /// Goal: permissions, masters and queue numbers decide. Method: a master with a slave, a slave alone, a read-only
    /// broker, one without an address.
    #[test]
    fn queues_of_a_route() {
        let data = TopicRouteData {
            broker_datas: vec![
                broker("a", &[(0, "a0"), (1, "a1")]),
                broker("b", &[(2, "b2")]),
                broker("c", &[(0, "c0")]),
            ],
            queue_datas: vec![queues("a", 6, 2, 1), queues("b", 6, 1, 1), queues("c", 4, 1, 1), queues("d", 6, 9, 9)],
            ..TopicRouteData::default()
        };
        let route = Route::of("t", &data, None);
        assert_eq!(numbers(&route.to_write), [("a0", 0)]);
        assert_eq!(numbers(&route.to_read), [("a0", 0), ("a0", 1), ("b2", 0), ("c0", 0)]);
        assert_eq!(route.addresses(), ["a0", "b2", "c0"]);
        assert_eq!(numbers(&Route::of("t", &data, Some(1)).to_read), [("a0", 0), ("b2", 0), ("c0", 0)]);
    }

    /// Goal: sends go round and avoid a broker that failed. Method: two brokers with two queues each, and one alone.
    #[test]
    fn choice_of_a_queue() {
        let data = TopicRouteData {
            broker_datas: vec![broker("a", &[(0, "a0")]), broker("b", &[(0, "b0")])],
            queue_datas: vec![queues("a", 6, 2, 2), queues("b", 6, 2, 2)],
            ..TopicRouteData::default()
        };
        let route = Route::of("t", &data, None);
        let chosen: Vec<_> = (0..5)
            .map(|turn| route.queue_for(turn, None).map(|queue| (queue.broker_name.as_str(), queue.queue_id)))
            .collect();
        assert_eq!(chosen, [Some(("a", 0)), Some(("a", 1)), Some(("b", 0)), Some(("b", 1)), Some(("a", 0))]);
        assert_eq!(route.queue_for(0, Some("a")).map(|queue| queue.broker_name.as_str()), Some("b"));
        let alone = Route { to_write: route.to_write[..1].to_vec(), to_read: Vec::new() };
        assert_eq!(alone.queue_for(7, Some("a")).map(|queue| queue.queue_id), Some(0));
        assert_eq!(Route::default().queue_for(0, None), None);
    }
}
