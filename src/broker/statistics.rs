//! How fast topics are written and groups consume: rates for tools (codes 202, 208, 317, 315).
//!
//! Nothing is counted for this on the way of a message. Every [`SAMPLE_MS`] the control thread, which owns this, looks at totals
//! that exist anyway: the ends of a topic's queues, and how far pulls of a group have moved. So messages that a filter passes over
//! count as consumed. Source: BrokerStatsManager, StatsItem (sizes of the windows and the form of the answer).

use std::collections::VecDeque;

use ringmq_protocol::json::to_fastjson;
use serde::Serialize;

use super::FastMap;

/// Distance of samples, milliseconds.
pub const SAMPLE_MS: u64 = 10_000;

/// Windows: distance of their samples in milliseconds, and how many they keep.
const WINDOWS: [(u64, usize); 3] = [(SAMPLE_MS, 7), (600_000, 7), (3_600_000, 25)];

/// What happened within a window. Source: BrokerStatsItem.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Messages per event; every message is one.
    pub avgpt: f64,
    /// Messages.
    pub sum: u64,
    /// Messages per second.
    pub tps: f64,
}

/// One topic, or one group at a topic.
#[derive(Debug, Default)]
struct Item {
    /// The total at the last sample.
    last: u64,
    /// Messages since the first.
    sum: u64,
    /// `(time, sum)`, oldest first. Empty as long as nothing happened.
    windows: [VecDeque<(u64, u64)>; 3],
    round: u64,
}

impl Item {
    fn take(&mut self, total: u64, now_ms: u64, round: u64) {
        self.round = round;
        // A total that fell belongs to a topic that was made again.
        let fresh = if total >= self.last { total - self.last } else { total };
        self.last = total;
        if fresh == 0 && self.windows[0].is_empty() {
            return;
        }
        let before = self.sum;
        self.sum += fresh;
        for (window, (distance_ms, most)) in self.windows.iter_mut().zip(WINDOWS) {
            if window.is_empty() {
                window.push_back((now_ms.saturating_sub(SAMPLE_MS), before));
            }
            if window.back().is_some_and(|(at_ms, _)| now_ms.saturating_sub(*at_ms) >= distance_ms) {
                window.push_back((now_ms, self.sum));
            }
            while window.len() > most {
                window.pop_front();
            }
        }
    }

    fn rate(&self, window: usize, now_ms: u64) -> Rate {
        let Some((from_ms, before)) = self.windows[window].front().copied() else { return Rate::default() };
        let sum = self.sum - before;
        let passed_ms = now_ms.saturating_sub(from_ms);
        if sum == 0 || passed_ms == 0 {
            return Rate::default();
        }
        #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
        let tps = sum as f64 * 1_000.0 / passed_ms as f64;
        Rate { avgpt: 1.0, sum, tps }
    }
}

/// All rates of a broker. As many items as there are topics, and groups at topics.
#[derive(Debug, Default)]
pub struct Statistics {
    /// By topic.
    puts: FastMap<String, Item>,
    /// By `topic@group`.
    gets: FastMap<String, Item>,
    sampled_ms: Option<u64>,
    round: u64,
}

fn sample<'a>(
    items: &mut FastMap<String, Item>,
    totals: impl Iterator<Item = (&'a str, u64)>,
    now_ms: u64,
    round: u64,
) {
    for (key, total) in totals {
        match items.get_mut(key) {
            Some(item) => item.take(total, now_ms, round),
            None => {
                // What was there before this process is not news.
                let last = if round == 1 { total } else { 0 };
                let mut item = Item { last, ..Item::default() };
                item.take(total, now_ms, round);
                items.insert(key.to_owned(), item);
            }
        }
    }
    items.retain(|_, item| item.round == round);
}

impl Statistics {
    /// Whether it is time for [`Statistics::sample`].
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.sampled_ms.is_none_or(|sampled_ms| now_ms.saturating_sub(sampled_ms) >= SAMPLE_MS || now_ms < sampled_ms)
    }

    /// Takes the totals of all topics, and of all groups as `topic@group`.
    pub fn sample<'puts, 'gets>(
        &mut self,
        now_ms: u64,
        puts: impl Iterator<Item = (&'puts str, u64)>,
        gets: impl Iterator<Item = (&'gets str, u64)>,
    ) {
        self.sampled_ms = Some(now_ms);
        self.round += 1;
        sample(&mut self.puts, puts, now_ms, self.round);
        sample(&mut self.gets, gets, now_ms, self.round);
    }

    /// Messages per second stored in a topic over the last minute.
    pub fn put_rate(&self, topic: &str) -> f64 {
        self.rate(&self.puts, topic)
    }

    /// Messages per second that a group took from a topic over the last minute.
    pub fn get_rate(&self, group: &str, topic: &str) -> f64 {
        self.rate(&self.gets, &format!("{topic}@{group}"))
    }

    fn rate(&self, items: &FastMap<String, Item>, key: &str) -> f64 {
        let now_ms = self.sampled_ms.unwrap_or(0);
        items.get(key).map_or(0.0, |item| item.rate(0, now_ms).tps)
    }

    /// The answer of code 315; `None` for what is not known by that name.
    pub fn view(&self, name: &str, key: &str) -> Option<Vec<u8>> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct BrokerStatsData {
            stats_day: Rate,
            stats_hour: Rate,
            stats_minute: Rate,
        }
        let items = match name {
            "TOPIC_PUT_NUMS" => &self.puts,
            "GROUP_GET_NUMS" => &self.gets,
            _ => return None,
        };
        // As in RocketMQ, nothing is known of what has not happened yet.
        let item = items.get(key).filter(|item| !item.windows[0].is_empty())?;
        let rate = |window| item.rate(window, self.sampled_ms.unwrap_or(0));
        Some(to_fastjson(&BrokerStatsData { stats_day: rate(2), stats_hour: rate(1), stats_minute: rate(0) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample_topic(statistics: &mut Statistics, now_ms: u64, total: u64) {
        assert!(statistics.is_due(now_ms));
        statistics.sample(now_ms, [("T", total), ("idle", 5)].into_iter(), std::iter::empty());
    }

    #[test]
    fn rates_cover_their_windows() {
        // Goal: a minute, an hour and a day are told apart, and what was stored before counts for nothing. Method: 100 messages in
        // each sample for two minutes, then silence for ten.
        let mut statistics = Statistics::default();
        sample_topic(&mut statistics, 0, 1_000);
        assert_eq!((statistics.put_rate("T"), statistics.view("TOPIC_PUT_NUMS", "T")), (0.0, None));
        for round in 1..=12 {
            sample_topic(&mut statistics, round * SAMPLE_MS, 1_000 + 100 * round);
        }
        assert!(!statistics.is_due(12 * SAMPLE_MS + 9_999));
        assert_eq!(
            (statistics.put_rate("T"), statistics.put_rate("idle"), statistics.put_rate("none")),
            (10.0, 0.0, 0.0)
        );
        let shown = String::from_utf8(statistics.view("TOPIC_PUT_NUMS", "T").unwrap()).unwrap();
        let long = r#"{"avgpt":1.0,"sum":1200,"tps":10.0}"#;
        let minute = r#"{"avgpt":1.0,"sum":600,"tps":10.0}"#;
        assert_eq!(shown, format!(r#"{{"statsDay":{long},"statsHour":{long},"statsMinute":{minute}}}"#));
        for round in 13..=72 {
            sample_topic(&mut statistics, round * SAMPLE_MS, 2_200);
        }
        assert_eq!(statistics.put_rate("T"), 0.0);
        let shown = String::from_utf8(statistics.view("TOPIC_PUT_NUMS", "T").unwrap()).unwrap();
        assert!(shown.contains(r#""sum":1200"#) && shown.contains(r#""sum":0,"tps":0.0"#), "{shown}");
        assert_eq!(statistics.view("TOPIC_PUT_SIZE", "T"), None);
    }

    #[test]
    fn topics_come_go_and_come_again() {
        // Goal: a new topic counts from its first message, a deleted one is forgotten, a smaller total is a new beginning. Method:
        // the three cases with one group.
        let mut statistics = Statistics::default();
        let gets = |total| [("T@g", total)].into_iter();
        statistics.sample(0, std::iter::empty(), std::iter::empty());
        statistics.sample(10_000, [("new", 50)].into_iter(), gets(20));
        assert_eq!((statistics.put_rate("new"), statistics.get_rate("g", "T")), (5.0, 2.0));
        statistics.sample(20_000, [("new", 10)].into_iter(), gets(20));
        assert_eq!((statistics.put_rate("new"), statistics.get_rate("g", "T")), (3.0, 1.0));
        statistics.sample(30_000, std::iter::empty(), std::iter::empty());
        assert_eq!((statistics.put_rate("new"), statistics.view("GROUP_GET_NUMS", "T@g")), (0.0, None));
    }
}
