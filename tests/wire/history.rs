//! What producers and consumers of a broker have seen that was killed, and whether what it serves afterwards agrees with all of it.
//!
//! Every send ended in one of three ways: confirmed (OK), refused before anything was written (FAIL), or nobody knows, as without an
//! answer (UNKNOWN). Then, per queue:
//!
//! - what was confirmed, and what a consumer was shown, is at its place with the same bytes, at every later reading;
//! - what was refused is nowhere; what nobody knows of may be there or not, but nothing is there that was not sent;
//! - offsets have no gap, and the messages of a producer lie in the order in which it sent them;
//! - nothing is there twice, except what was sent again because nobody knew of the first time;
//! - a group's committed offset is one that was committed, lies within the queue, and never falls behind what an earlier start
//!   has told of it. After a stop in order it is the last one that was confirmed, or one that was under way then.
//!
//! A kill may take back commits of the last moment. A commit is in its file no later than `flushConsumerOffsetInterval`, one beat of
//! the control thread (500 ms) and the writing of the file afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ringmq_protocol::record::RecordView;

use super::random::Random;

/// Which message: unique over all rounds of a test. It determines the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageName {
    pub round: u64,
    pub producer: u64,
    pub number: u64,
}

/// A queue and an offset in it.
pub type Place = (i32, i64);

/// Begins the body of a message that must be refused before it is written: one search finds it in any file.
pub const NEVER_STORED: &[u8] = b"this must never be stored";

/// The body of a message: its name, then bytes that follow from it. Mostly small, now and then large.
pub fn body_of(name: MessageName) -> Vec<u8> {
    let MessageName { round, producer, number } = name;
    let mut random = Random::new(round << 40 ^ producer << 32 ^ number);
    let length = match random.below(20) {
        0 => random.below(100_000),
        1..5 => random.below(4_000),
        _ => random.below(200),
    };
    let mut body = Vec::new();
    for part in [round, producer, number] {
        body.extend_from_slice(&part.to_be_bytes());
    }
    let filler = (0..length.div_ceil(8)).flat_map(|_| random.next().to_be_bytes());
    body.extend(filler);
    body
}

/// The name that a body begins with, if the whole body is the one that belongs to it.
fn name_of(body: &[u8]) -> Option<MessageName> {
    let part = |at: usize| body.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map(u64::from_be_bytes);
    let name = MessageName { round: part(0)?, producer: part(8)?, number: part(16)? };
    (body_of(name) == body).then_some(name)
}

/// What is stored at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub name: MessageName,
    /// Physical offset.
    pub physical: i64,
    /// Checksum of the whole record; unknown to who was only told where it is.
    pub digest: Option<u32>,
}

impl Stored {
    /// What a record holds, if it is a message that may be stored.
    pub fn of(record: &RecordView<'_>) -> Result<Stored, String> {
        let (queue_id, offset) = (record.queue_id(), record.queue_offset());
        if record.body().starts_with(NEVER_STORED) {
            return Err(format!("a message that had to be refused is at {offset} of queue {queue_id}"));
        }
        let name = name_of(record.body())
            .ok_or_else(|| format!("what is at {offset} of queue {queue_id} was never sent in this form"))?;
        Ok(Stored { name, physical: record.physical_offset(), digest: Some(crc32fast::hash(record.bytes())) })
    }

    fn agrees_with(&self, other: &Stored) -> bool {
        let same_bytes = self.digest.is_none() || other.digest.is_none() || self.digest == other.digest;
        (self.name, self.physical) == (other.name, other.physical) && same_bytes
    }
}

/// How a life of the broker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Killed,
    Stopped,
}

/// An offset that a group has committed.
#[derive(Debug, Clone, Copy)]
pub struct Commit {
    pub group: &'static str,
    pub queue_id: i32,
    pub offset: i64,
    /// Whether the broker has said so.
    pub is_confirmed: bool,
}

/// What one client saw during a life.
#[derive(Debug, Default)]
pub struct Seen {
    /// Each send, without those that had to be refused. What nobody knew of was sent again.
    pub sent: Vec<MessageName>,
    pub confirmed: Vec<(Place, Stored)>,
    pub refused: Vec<MessageName>,
    /// Messages that had to be refused, and were.
    pub faults_refused: usize,
    /// Sends without an answer that tells, and their queues.
    pub unknown: Vec<(i32, MessageName)>,
    pub shown: Vec<(Place, Stored)>,
    /// In the order in which they were made.
    pub commits: Vec<Commit>,
}

/// What is known of a group's offset in a queue.
#[derive(Debug, Default)]
struct Committed {
    /// What the last start has told: it was in a file.
    told: Option<i64>,
    made: BTreeSet<i64>,
    /// The last one that was confirmed since the last start.
    confirmed: Option<i64>,
}

/// Everything that was seen of a store, and the judgement of what it serves.
#[derive(Debug, Default)]
pub struct History {
    places: BTreeMap<Place, Stored>,
    /// How often each message was sent.
    sent: HashMap<MessageName, u32>,
    refused: HashSet<MessageName>,
    offsets: BTreeMap<(&'static str, i32), Committed>,
}

/// One reading of all queues from their beginnings.
#[derive(Debug, Default)]
pub struct Reading {
    copies: HashMap<MessageName, u32>,
    /// The last message of each producer in each queue.
    last: HashMap<(i32, u64), MessageName>,
}

impl History {
    /// Takes over what a client saw.
    pub fn note(&mut self, seen: Seen) -> Result<(), String> {
        for name in seen.sent {
            *self.sent.entry(name).or_default() += 1;
        }
        self.refused.extend(seen.refused);
        for (place, stored) in seen.confirmed.into_iter().chain(seen.shown) {
            self.note_place(place, stored)?;
        }
        for Commit { group, queue_id, offset, is_confirmed } in seen.commits {
            let committed = self.offsets.entry((group, queue_id)).or_default();
            committed.made.insert(offset);
            if is_confirmed {
                committed.confirmed = Some(offset);
            }
        }
        Ok(())
    }

    fn note_place(&mut self, place: Place, stored: Stored) -> Result<(), String> {
        let known = self.places.entry(place).or_insert(stored);
        if !known.agrees_with(&stored) {
            return Err(format!("{place:?} held {known:?} and now {stored:?}"));
        }
        known.digest = known.digest.or(stored.digest);
        Ok(())
    }

    /// Judges a message that was read. Those of a queue come in the order of their offsets, from the first on.
    pub fn read(&mut self, reading: &mut Reading, place: Place, stored: Stored) -> Result<(), String> {
        let name = stored.name;
        let Some(sends) = self.sent.get(&name).copied() else {
            return Err(format!("{name:?} at {place:?} was never sent"));
        };
        if self.refused.contains(&name) {
            return Err(format!("{name:?} was refused and is at {place:?}"));
        }
        let copies = reading.copies.entry(name).or_default();
        *copies += 1;
        if *copies > sends {
            return Err(format!("{name:?} is there {copies} times"));
        }
        let before = reading.last.insert((place.0, name.producer), name);
        if before.is_some_and(|before| before > name || before == name && sends == 1) {
            return Err(format!("{name:?} at {place:?} comes after {before:?}"));
        }
        self.note_place(place, stored)
    }

    /// Judges the ends of the queues: everything that was seen lies before them. Gives the number of messages.
    pub fn check_ends(&self, ends: &BTreeMap<i32, i64>) -> Result<(), String> {
        for ((queue_id, offset), stored) in &self.places {
            let end = ends.get(queue_id).copied().unwrap_or(0);
            if *offset >= end {
                return Err(format!("{stored:?} at {offset} of queue {queue_id} is lost: it ends at {end}"));
            }
        }
        Ok(())
    }

    /// Judges what a start tells of a group's offset in a queue, after a life with this ending. `end` is that of the queue.
    pub fn start_tells(
        &mut self,
        group: &'static str,
        queue_id: i32,
        now: Option<i64>,
        end: i64,
        ending: Ending,
    ) -> Result<(), String> {
        let committed = self.offsets.entry((group, queue_id)).or_default();
        let confirmed = committed.confirmed.take();
        let floor = if ending == Ending::Stopped { confirmed.max(committed.told) } else { committed.told };
        let describe = |what: &str| {
            format!("{group} in queue {queue_id} is told {now:?}, {what}; before {:?}", (committed.told, confirmed))
        };
        if now < floor {
            return Err(describe("which is behind what was kept"));
        }
        if now.is_some_and(|now| !committed.made.contains(&now)) {
            return Err(describe("which was never committed"));
        }
        if now.is_some_and(|now| now > end) {
            return Err(describe(&format!("which is beyond the end of the queue, {end}")));
        }
        committed.told = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: MessageName = MessageName { round: 0, producer: 1, number: 0 };
    const SECOND: MessageName = MessageName { number: 1, ..FIRST };

    fn stored(name: MessageName, physical: i64) -> Stored {
        Stored { name, physical, digest: Some(7) }
    }

    fn of(seen: Seen) -> History {
        let mut history = History::default();
        history.note(Seen { sent: vec![FIRST, SECOND], ..Seen::default() }).expect("consistent");
        history.note(seen).expect("consistent");
        history
    }

    fn read_all(history: &mut History, messages: &[Stored]) -> Result<(), String> {
        let mut reading = Reading::default();
        for (offset, stored) in (0..).zip(messages) {
            history.read(&mut reading, (0, offset), *stored)?;
        }
        history.check_ends(&BTreeMap::from([(0, messages.len() as i64)]))
    }

    fn assert_noticed(outcome: Result<(), String>, text: &str) {
        let reason = outcome.expect_err("unnoticed");
        assert!(reason.contains(text), "noticed for another reason: {reason}");
    }

    /// Goal: each thing that must not be read is noticed, and what may be there or not is not. Method: a reading of each kind.
    #[test]
    fn wrong_messages_are_noticed() {
        let (first, second) = (stored(FIRST, 0), stored(SECOND, 100));
        let told_where = Stored { digest: None, ..first };
        let ok = || Seen { confirmed: vec![((0, 0), told_where)], ..Seen::default() };
        read_all(&mut of(Seen::default()), &[]).expect("nothing was promised");
        read_all(&mut of(ok()), &[first, second]).expect("the second one is unknown");
        assert_noticed(read_all(&mut of(ok()), &[]), "is lost");
        assert_noticed(read_all(&mut of(ok()), &[second, first]), "held");
        assert_noticed(read_all(&mut of(Seen::default()), &[second, first]), "comes after");
        assert_noticed(read_all(&mut of(ok()), &[Stored { physical: 1, ..first }]), "held");
        assert_noticed(
            read_all(&mut of(Seen::default()), &[stored(MessageName { round: 9, ..FIRST }, 0)]),
            "never sent",
        );
        let refused = Seen { refused: vec![SECOND], ..Seen::default() };
        assert_noticed(read_all(&mut of(refused), &[first, second]), "was refused");
        let shown = Seen { shown: vec![((0, 0), first)], ..Seen::default() };
        assert_noticed(read_all(&mut of(shown), &[Stored { digest: Some(8), ..first }]), "held");
    }

    /// Goal: of what was sent again there may be two, of anything else one. Method: two and three of one message.
    #[test]
    fn copies_are_noticed() {
        let two = [stored(FIRST, 0), stored(FIRST, 100)];
        assert_noticed(read_all(&mut of(Seen::default()), &two), "2 times");
        let again = || Seen { sent: vec![FIRST], ..Seen::default() };
        read_all(&mut of(again()), &two).expect("nobody knew of the first time");
        assert_noticed(read_all(&mut of(again()), &[two[0], two[1], stored(FIRST, 200)]), "3 times");
    }

    /// Goal: committed offsets that fall, are invented or lie beyond the end are noticed; after a stop also those that are only old.
    /// Method: one confirmed commit and one under way, and each thing that a start may tell of them.
    #[test]
    fn wrong_offsets_are_noticed() {
        let commit = |offset, is_confirmed| Commit { group: "g", queue_id: 0, offset, is_confirmed };
        let tell = |told: &[Option<i64>], ending| {
            let mut history = of(Seen::default());
            let mut outcome = Ok(());
            for now in told {
                let commits = vec![commit(2, true), commit(5, true), commit(7, false)];
                history.note(Seen { commits, ..Seen::default() }).expect("consistent");
                outcome = outcome.and_then(|()| history.start_tells("g", 0, *now, 10, ending));
            }
            outcome
        };
        for told in [&[None][..], &[Some(2)], &[Some(5), Some(5)], &[Some(5), Some(7)]] {
            tell(told, Ending::Killed).expect("allowed");
        }
        for told in [Some(5), Some(7)] {
            tell(&[told], Ending::Stopped).expect("allowed");
        }
        for told in [None, Some(2)] {
            assert_noticed(tell(&[told], Ending::Stopped), "behind");
        }
        assert_noticed(tell(&[Some(5), Some(2)], Ending::Killed), "behind");
        assert_noticed(tell(&[Some(5), None], Ending::Killed), "behind");
        assert_noticed(tell(&[Some(6)], Ending::Killed), "never committed");
        let mut history = of(Seen { commits: vec![commit(11, true)], ..Seen::default() });
        assert_noticed(history.start_tells("g", 0, Some(11), 10, Ending::Killed), "beyond");
    }
}
