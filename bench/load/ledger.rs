//! The books of a run: which messages were sent, acknowledged and delivered, and what a broker did that it must not do.
//!
//! Owned by the generator's thread. All memory is taken before the run; booking never allocates. Messages are numbered in
//! sending order over all producers. Each belongs to one stream, that is one producer and one queue of one topic.
//!
//! A broker may store two messages of a stream in either order while both are under way. It must not deliver a message
//! behind one that was sent after the first had been acknowledged. To know this without remembering every pair, a message
//! says since which message its stream had never been without one under way (its *open* message): all before that one had
//! been acknowledged when it was sent.

use super::body::{BodyHeader, read_body};
use crate::result::IntegrityRecord;

/// A set of numbers below a bound.
#[derive(Debug, Clone)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(length: u64) -> Bits {
        // Written, not only reserved, so that no page is touched for the first time in the measured phase.
        let words = usize::try_from(length.div_ceil(64)).unwrap_or(usize::MAX);
        let mut bits = vec![1; words];
        bits.fill(0);
        Bits(bits)
    }

    fn place(number: u64) -> (usize, u64) {
        (usize::try_from(number / 64).unwrap_or(usize::MAX), 1 << (number % 64))
    }

    fn has(&self, number: u64) -> bool {
        let (word, bit) = Bits::place(number);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Adds a number; false if it was there.
    fn insert(&mut self, number: u64) -> bool {
        let (word, bit) = Bits::place(number);
        match self.0.get_mut(word) {
            Some(bits) if *bits & bit == 0 => {
                *bits |= bit;
                true
            }
            _ => false,
        }
    }
}

/// A stream as its producer sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    under_way: u32,
    open: u64,
}

/// A stream as a consumer group sees it.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// 1 above the highest number delivered.
    next: u64,
    /// Highest open message of those delivered: nothing below it may come any more.
    closed_below: u64,
}

/// The shape of a run, as far as the books need it.
#[derive(Debug, Clone, Copy)]
pub struct LedgerShape {
    /// Which run.
    pub run_id: u64,
    /// Producers.
    pub producers: u32,
    /// Queues of all topics together.
    pub queues: u32,
    /// Consumer groups; one even if only a final check reads.
    pub groups: u32,
    /// Most messages.
    pub capacity: u64,
    /// Body length of every message.
    pub body_bytes: usize,
    /// Only every n-th message is wanted by the groups (tag filters); 1: all.
    pub wanted_every: u64,
    /// Messages of one request; they have consecutive numbers and share producer and queue.
    pub batch: u32,
}

/// The books.
#[derive(Debug)]
pub struct Ledger {
    shape: LedgerShape,
    next: u64,
    acknowledged: Bits,
    delivered: Vec<Bits>,
    streams: Vec<Stream>,
    seen: Vec<Seen>,
    counts: IntegrityRecord,
    delivered_wanted: u64,
    acknowledged_wanted: u64,
}

/// What a delivery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// A message of this run for the first time.
    First {
        /// When it was meant to be sent.
        intended_ns: u64,
    },
    /// Anything else; it is in the books.
    Fault,
}

impl Ledger {
    /// Empty books.
    pub fn new(shape: LedgerShape) -> Ledger {
        let streams = shape.producers as usize * shape.queues as usize;
        Ledger {
            next: 0,
            acknowledged: Bits::new(shape.capacity),
            delivered: (0..shape.groups).map(|_| Bits::new(shape.capacity)).collect(),
            streams: vec![Stream::default(); streams],
            seen: vec![Seen::default(); streams * shape.groups as usize],
            counts: IntegrityRecord::default(),
            delivered_wanted: 0,
            acknowledged_wanted: 0,
            shape,
        }
    }

    /// Messages that can still be sent.
    pub fn room(&self) -> u64 {
        self.shape.capacity.saturating_sub(self.next)
    }

    /// Number of the next message.
    pub fn next_sequence(&self) -> u64 {
        self.next
    }

    /// Queue of a message.
    pub fn queue_of(&self, sequence: u64) -> u32 {
        queue_of_request(sequence / u64::from(self.shape.batch), self.shape.producers, self.shape.queues)
    }

    fn stream_index(&self, producer: u32, queue: u32) -> usize {
        producer as usize * self.shape.queues as usize + queue as usize
    }

    /// Books the messages of one request and returns number and open message of the first.
    ///
    /// # Panics
    /// The books are full.
    pub fn send_request(&mut self, producer: u32) -> (u64, u64) {
        assert!(self.room() >= u64::from(self.shape.batch), "the ledger has room for every planned message");
        let first = self.next;
        self.next += u64::from(self.shape.batch);
        let index = self.stream_index(producer, self.queue_of(first));
        let stream = &mut self.streams[index];
        if stream.under_way == 0 {
            stream.open = first;
        }
        stream.under_way += 1;
        (first, stream.open)
    }

    /// What the body of a message says.
    pub fn header(&self, producer: u32, sequence: u64, open: u64, intended_ns: u64) -> BodyHeader {
        let open_distance = u32::try_from(sequence.saturating_sub(open)).unwrap_or(u32::MAX);
        BodyHeader { run_id: self.shape.run_id, producer, sequence, intended_ns, open_distance }
    }

    /// Books the answer to a request; `is_acknowledged`: it was a success.
    pub fn answer(&mut self, producer: u32, first: u64, is_acknowledged: bool) {
        let index = self.stream_index(producer, self.queue_of(first));
        self.streams[index].under_way = self.streams[index].under_way.saturating_sub(1);
        if is_acknowledged {
            for sequence in first..first + u64::from(self.shape.batch) {
                if self.acknowledged.insert(sequence) {
                    self.counts.acknowledged += 1;
                    self.acknowledged_wanted += u64::from(self.is_wanted(sequence));
                }
            }
        }
    }

    fn is_wanted(&self, sequence: u64) -> bool {
        sequence.is_multiple_of(self.shape.wanted_every)
    }

    /// Books a delivery from `queue` to `group`.
    pub fn deliver(&mut self, group: u32, queue: u32, body: &[u8]) -> Delivery {
        self.counts.checked = true;
        self.counts.received += 1;
        let header = match read_body(body) {
            Some(header) if body.len() == self.shape.body_bytes => header,
            _ => {
                self.counts.corrupt += 1;
                return Delivery::Fault;
            }
        };
        let sequence = header.sequence;
        let is_ours = header.run_id == self.shape.run_id
            && sequence < self.next
            && header.producer < self.shape.producers
            && self.queue_of(sequence) == queue
            && self.is_wanted(sequence);
        let Some(delivered) = self.delivered.get_mut(group as usize).filter(|_| is_ours) else {
            self.counts.phantom += 1;
            return Delivery::Fault;
        };
        if !delivered.insert(sequence) {
            self.counts.duplicated += 1;
            return Delivery::Fault;
        }
        self.delivered_wanted += 1;
        let streams = self.streams.len();
        let index = group as usize * streams + self.stream_index(header.producer, queue);
        let seen = &mut self.seen[index];
        if sequence < seen.closed_below {
            self.counts.reordered += 1;
        } else if sequence < seen.next {
            self.counts.overtaken += 1;
        }
        seen.next = seen.next.max(sequence + 1);
        seen.closed_below = seen.closed_below.max(sequence.saturating_sub(u64::from(header.open_distance)));
        Delivery::First { intended_ns: header.intended_ns }
    }

    /// Deliveries so far, faults included.
    pub fn received(&self) -> u64 {
        self.counts.received
    }

    /// Whether as much has been delivered as was acknowledged. Cheap; the exact answer is in [`Ledger::close`].
    pub fn seems_complete(&self) -> bool {
        self.delivered_wanted >= self.acknowledged_wanted * u64::from(self.shape.groups)
    }

    /// The books at the end. Without any delivery and any check nothing can be said of losses.
    pub fn close(&self, was_read_to_the_end: bool) -> IntegrityRecord {
        let mut counts = self.counts.clone();
        counts.sent = self.next;
        counts.checked |= was_read_to_the_end;
        if was_read_to_the_end {
            for delivered in &self.delivered {
                for sequence in (0..self.next).filter(|sequence| self.is_wanted(*sequence)) {
                    match (self.acknowledged.has(sequence), delivered.has(sequence)) {
                        (true, false) => counts.lost += 1,
                        (false, true) => counts.unacknowledged_delivered += 1,
                        _ => {}
                    }
                }
            }
        }
        counts
    }
}

/// Queue of a request: when requests go round the producers, each producer goes round the queues, beginning with another.
pub fn queue_of_request(request: u64, producers: u32, queues: u32) -> u32 {
    let producers = u64::from(producers);
    u32::try_from((request / producers + request % producers) % u64::from(queues)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::body::Filler;
    use super::*;

    struct World {
        ledger: Ledger,
        filler: Filler,
        stored: Vec<(u32, Vec<u8>)>,
    }

    impl World {
        fn new(producers: u32, queues: u32, groups: u32) -> World {
            let shape = LedgerShape {
                run_id: 77,
                producers,
                queues,
                groups,
                capacity: 1000,
                body_bytes: 64,
                wanted_every: 1,
                batch: 1,
            };
            World { ledger: Ledger::new(shape), filler: Filler::new(64), stored: Vec::new() }
        }

        fn send(&mut self) -> u64 {
            let (sequence, open) = self.ledger.send_request(0);
            let mut body = Vec::new();
            self.filler.write(&self.ledger.header(0, sequence, open, sequence), &mut body);
            self.stored.push((self.ledger.queue_of(sequence), body));
            sequence
        }

        fn send_and_wait(&mut self) {
            let sequence = self.send();
            self.ledger.answer(0, sequence, true);
        }

        fn read(&mut self, order: &[usize]) -> IntegrityRecord {
            for &index in order {
                let (queue, body) = self.stored[index].clone();
                self.ledger.deliver(0, queue, &body);
            }
            self.ledger.close(true)
        }
    }

    /// Goal: a broker that does its work is not accused. Method: four messages over two queues, read queue by queue, for
    /// two groups.
    #[test]
    fn faultless() {
        let mut world = World::new(1, 2, 2);
        (0..4).for_each(|_| world.send_and_wait());
        world.read(&[0, 2, 1, 3]);
        for index in [1, 3, 0, 2] {
            let (queue, body) = world.stored[index].clone();
            assert_ne!(world.ledger.deliver(1, queue, &body), Delivery::Fault);
        }
        assert!(world.ledger.seems_complete());
        let record = world.ledger.close(true);
        assert!(!record.is_violated(), "{record:?}");
        assert_eq!((record.sent, record.acknowledged, record.received, record.overtaken), (4, 4, 8, 0));
    }

    /// Goal: each class of fault is told from the others. Method: one fault at a time.
    #[test]
    fn classes_of_faults() {
        let classes = |record: &IntegrityRecord| {
            [record.lost, record.duplicated, record.reordered, record.corrupt, record.phantom]
        };
        let world = || {
            let mut world = World::new(1, 1, 1);
            (0..4).for_each(|_| world.send_and_wait());
            world
        };
        assert_eq!(classes(&world().read(&[0, 1, 3])), [1, 0, 0, 0, 0]);
        assert_eq!(classes(&world().read(&[0, 1, 1, 2, 3])), [0, 1, 0, 0, 0]);
        assert_eq!(classes(&world().read(&[0, 2, 1, 3])), [0, 0, 1, 0, 0]);
        let mut corrupt = world();
        corrupt.stored[2].1[50] ^= 1;
        assert_eq!(classes(&corrupt.read(&[0, 1, 2, 3])), [1, 0, 0, 1, 0]);
        let mut other_run = world();
        let header = BodyHeader { run_id: 78, ..other_run.ledger.header(0, 1, 1, 0) };
        let mut body = Vec::new();
        other_run.filler.write(&header, &mut body);
        other_run.stored.push((0, body));
        assert_eq!(classes(&other_run.read(&[0, 1, 4, 2, 3])), [0, 0, 0, 0, 1]);
        let mut never_sent = world();
        let header = never_sent.ledger.header(0, 9, 9, 0);
        let mut body = Vec::new();
        never_sent.filler.write(&header, &mut body);
        never_sent.stored.push((0, body));
        assert_eq!(classes(&never_sent.read(&[0, 1, 2, 3, 4])), [0, 0, 0, 0, 1]);
    }

    /// Goal: messages under way together may change places, later ones may not pass acknowledged ones, and the outcome of
    /// an unanswered send is open. Method: three in flight, the last never answered.
    #[test]
    fn concurrent_sends_may_overtake() {
        let mut world = World::new(1, 1, 1);
        let sent: Vec<u64> = (0..3).map(|_| world.send()).collect();
        world.ledger.answer(0, sent[0], true);
        world.ledger.answer(0, sent[1], true);
        let record = world.read(&[1, 0, 2]);
        assert!(!record.is_violated(), "{record:?}");
        assert_eq!((record.overtaken, record.unacknowledged_delivered, record.acknowledged), (1, 1, 2));
    }

    /// Goal: batches and filters are booked by message. Method: batches of 4, every second message wanted.
    #[test]
    fn batches_and_filters() {
        let shape = LedgerShape {
            run_id: 1,
            producers: 2,
            queues: 3,
            groups: 1,
            capacity: 8,
            body_bytes: 64,
            wanted_every: 2,
            batch: 4,
        };
        let mut ledger = Ledger::new(shape);
        let filler = Filler::new(64);
        for producer in 0..2 {
            let (first, open) = ledger.send_request(producer);
            ledger.answer(producer, first, true);
            for sequence in (first..first + 4).step_by(2) {
                let mut body = Vec::new();
                filler.write(&ledger.header(producer, sequence, open, 0), &mut body);
                let queue = ledger.queue_of(sequence);
                assert_ne!(ledger.deliver(0, queue, &body), Delivery::Fault);
            }
        }
        assert_eq!(ledger.room(), 0);
        let record = ledger.close(true);
        assert!(!record.is_violated() && ledger.seems_complete(), "{record:?}");
        assert_eq!((record.acknowledged, record.received), (8, 4));
    }
}
