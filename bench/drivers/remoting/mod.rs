//! RocketMQ's remoting protocol: sends (single and batch) and long-polling pulls over any number of connections.
//!
//! Each producer is a connection with a fixed number of places for requests under way. Consumers have one pull under way per
//! group and queue. Request ids: sends from [`FIRST_SEND_ID`] up, made of place and generation; pulls below, the index of
//! their lane.

mod configuration;
mod connection;
mod epoll;
mod template;

use std::net::{SocketAddr, TcpStream};

use ringmq_protocol::codes::request::{DELETE_TOPIC_IN_BROKER, UPDATE_AND_CREATE_TOPIC};
use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, SerializeType, Split, split_frame};
use ringmq_protocol::header::HeaderDecoder;
use ringmq_protocol::record::{CrcCheck, Records};

pub use configuration::{configuration, durability};
pub use connection::{Connection, ask, connect};
pub use epoll::Epoll;
use template::{BatchTemplate, FIRST_SEND_ID, PullShape, SendShape, SendTemplate, write_pull};

use super::{Books, Driver, DriverError};
use crate::clock::{monotonic_ns, wall_ms};
use crate::load::body::Filler;
use crate::load::ledger::Delivery;
use crate::load::recorder::Failure;

/// Tag of the messages that a filtering consumer wants, and of the others.
pub const WANTED_TAG: &str = "wanted";
/// See [`WANTED_TAG`].
pub const OTHER_TAG: &str = "other";
/// Up to so many connections are read in turn without asking the kernel which have something.
const READ_ALL_UP_TO: usize = 4;
/// Room for a pull request or the header of a send beside its body.
const HEADER_ROOM_BYTES: usize = 2048;
/// Pulls under way while everything is read back.
const VERIFY_PULLS: usize = 64;
/// Pause before a queue that was read to its end is looked at again: a broker may show messages a little later.
const VERIFY_PAUSE_NS: u64 = 20_000_000;
/// Room for answers: a broker sends at most 256 KiB of records, or one larger record.
const ANSWER_ROOM_BYTES: usize = 384 << 10;
/// Room for answers to sends: thousands of producers must not take gigabytes.
const SEND_ANSWER_ROOM_BYTES: usize = 2 * LONGEST_HEADER_BYTES;

/// Longest header that is expected: the answer to a batch names all of its messages.
/// The decoder gives space beyond 64 KiB back, so more would not be kept.
const LONGEST_HEADER_BYTES: usize = 40_000;
/// Fields of the header of an answer, with some to spare.
const MOST_HEADER_FIELDS: u32 = 32;

/// What the driver does.
#[derive(Debug, Clone)]
pub struct RemotingShape {
    /// The broker.
    pub address: SocketAddr,
    /// Form of the headers.
    pub header: SerializeType,
    /// Marks topics and messages as ours.
    pub run_id: u64,
    /// Producing connections.
    pub connections: u32,
    /// Requests under way per connection.
    pub depth: u32,
    /// Whether a connection fills all of its free places before the next one has its turn, as a caller does that goes on when it
    /// is answered: several answers that came together are followed by as many requests in one write. Otherwise connections
    /// take turns for each request, as independent senders do.
    pub fills_connections: bool,
    /// Body bytes of a message.
    pub body_bytes: usize,
    /// Messages per request.
    pub batch: u32,
    /// Topics.
    pub topics: u32,
    /// Queues per topic.
    pub queues: u32,
    /// Groups that read while the load runs.
    pub consumer_groups: u32,
    /// Most messages per pull.
    pub pull_batch: u32,
    /// How long the broker may hold a pull.
    pub hold_ms: u64,
    /// Pause of a consumer between an answer and its next pull of the same queue.
    pub pull_pause_ns: u64,
    /// Of so many messages one has the tag that consumers ask for; 1: no tags.
    pub wanted_every: u64,
    /// Connections that are opened and then do nothing.
    pub idle_connections: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Place {
    intended_ns: u64,
    actual_ns: u64,
    first: u64,
    generation: u32,
    is_used: bool,
}

/// One queue as one group reads it.
#[derive(Debug, Clone, Copy)]
struct Lane {
    connection: usize,
    group: u32,
    queue: u32,
    offset: i64,
    state: LaneState,
    next_ns: u64,
    /// Whether its last answer reached what was then the end of the queue.
    is_at_end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    /// Ready to pull.
    Idle,
    /// A pull is under way.
    Waiting,
}

/// The driver.
#[derive(Debug)]
pub struct Remoting {
    shape: RemotingShape,
    connections: Vec<Connection>,
    epoll: Option<Epoll>,
    idle: Vec<TcpStream>,
    topics: Vec<String>,
    groups: Vec<String>,
    /// Per queue of all topics; with tags, the wanted form and the other one alternate.
    templates: Vec<SendTemplate>,
    batch: Option<BatchTemplate>,
    filler: Filler,
    /// Connections with output, and whether each connection is among them: asking all of a thousand takes longer than a send.
    unsent: Vec<usize>,
    is_unsent: Vec<bool>,
    places: Vec<Place>,
    free: Vec<Vec<u32>>,
    turn: usize,
    in_flight: u64,
    oldest_ns: u64,
    lanes: Vec<Lane>,
    idle_lanes: usize,
    lanes_waiting: usize,
    is_verifying: bool,
    are_consumers_held: bool,
    decoder: HeaderDecoder,
}

impl Remoting {
    /// Connects, makes the topics, opens idle connections. Blocks.
    ///
    /// # Errors
    /// The peer is not there, is no broker, or refuses the topics.
    pub fn open(shape: RemotingShape) -> Result<Remoting, DriverError> {
        let topics: Vec<String> = (0..shape.topics).map(|topic| topic_name(shape.run_id, topic)).collect();
        let mut setup = connect(shape.address)?;
        for topic in &topics {
            create_topic(&mut setup, &shape, topic)?;
        }
        let filler = Filler::new(shape.body_bytes);
        let batch = (shape.batch > 1).then(|| BatchTemplate::new(&filler, shape.batch));
        let body_bytes = batch.as_ref().map_or(shape.body_bytes, BatchTemplate::length);
        let tags: &[Option<&str>] = if shape.wanted_every > 1 { &[Some(WANTED_TAG), Some(OTHER_TAG)] } else { &[None] };
        let mut templates = Vec::new();
        for topic in &topics {
            for queue_id in 0..shape.queues {
                templates.extend(tags.iter().map(|&tag| {
                    let is_batch = batch.is_some();
                    SendTemplate::new(&SendShape { header: shape.header, topic, queue_id, tag, is_batch, body_bytes })
                }));
            }
        }
        let depth = shape.depth as usize;
        let out_room =
            (body_bytes + HEADER_ROOM_BYTES).max(depth.min(256) * (HEADER_ROOM_BYTES / 4 + body_bytes.min(4096)));
        let mut connections = Vec::new();
        for index in 0..shape.connections + shape.consumer_groups {
            let in_room =
                if index < shape.connections { SEND_ANSWER_ROOM_BYTES } else { ANSWER_ROOM_BYTES + shape.body_bytes };
            connections.push(Connection::new(connect(shape.address)?, shape.address, out_room, in_room)?);
        }
        let mut idle = Vec::new();
        for _ in 0..shape.idle_connections {
            idle.push(connect(shape.address)?);
        }
        let producers = shape.connections as usize;
        let mut driver = Remoting {
            epoll: None,
            idle,
            groups: (0..shape.consumer_groups.max(1))
                .map(|group| format!("bench-{:016x}-g{group}", shape.run_id))
                .collect(),
            topics,
            templates,
            batch,
            filler,
            unsent: Vec::with_capacity(connections.len() + 1),
            is_unsent: vec![false; connections.len() + 1],
            places: vec![Place::default(); producers * depth],
            free: (0..producers).map(|producer| free_places(producer, depth)).collect(),
            turn: 0,
            in_flight: 0,
            oldest_ns: u64::MAX,
            lanes: Vec::new(),
            idle_lanes: 0,
            lanes_waiting: 0,
            is_verifying: false,
            are_consumers_held: false,
            decoder: warm_decoder(),
            connections,
            shape,
        };
        for group in 0..driver.shape.consumer_groups {
            driver.add_lanes(group, producers + group as usize);
        }
        if driver.connections.len() > READ_ALL_UP_TO {
            driver.epoll = Some(Epoll::new(driver.connections.iter().map(Connection::descriptor))?);
        }
        Ok(driver)
    }

    fn queue_count(&self) -> u32 {
        self.shape.topics * self.shape.queues
    }

    fn add_lanes(&mut self, group: u32, connection: usize) {
        for queue in 0..self.queue_count() {
            self.lanes.push(Lane {
                connection,
                group,
                queue,
                offset: 0,
                state: LaneState::Idle,
                next_ns: 0,
                is_at_end: false,
            });
            self.idle_lanes += 1;
        }
    }

    /// Pulls for all lanes that may.
    fn pull(&mut self, now_ns: u64) -> bool {
        if self.idle_lanes == 0 || self.are_consumers_held {
            return false;
        }
        let mut did = false;
        for index in 0..self.lanes.len() {
            if self.is_verifying && self.lanes_waiting >= VERIFY_PULLS {
                break;
            }
            let lane = self.lanes[index];
            if lane.state == LaneState::Idle && lane.next_ns <= now_ns {
                did |= self.pull_lane(index);
            }
        }
        did
    }

    fn pull_lane(&mut self, index: usize) -> bool {
        let lane = &mut self.lanes[index];
        let Some(out) = self.connections[lane.connection].room_for(HEADER_ROOM_BYTES) else { return false };
        let shape = PullShape {
            header: self.shape.header,
            group: &self.groups[lane.group as usize],
            topic: &self.topics[(lane.queue / self.shape.queues) as usize],
            queue_id: lane.queue % self.shape.queues,
            offset: lane.offset,
            max_messages: self.shape.pull_batch,
            hold_ms: if self.is_verifying { 0 } else { self.shape.hold_ms },
            subscription: if self.shape.wanted_every > 1 { WANTED_TAG } else { "*" },
        };
        write_pull(&shape, i32::try_from(index).unwrap_or(0), out);
        note_unsent(&mut self.unsent, &mut self.is_unsent, lane.connection);
        lane.state = LaneState::Waiting;
        self.idle_lanes -= 1;
        self.lanes_waiting += 1;
        true
    }

    /// Handles all frames that were read from a connection.
    fn handle(&mut self, index: usize, now_ns: u64, books: &mut Books) -> Result<(), DriverError> {
        loop {
            let Remoting { connections, decoder, lanes, places, .. } = self;
            let connection = &mut connections[index];
            let Some((frame, length)) = connection.next_frame()? else { return Ok(()) };
            let strange = |reason: String| DriverError::Protocol { address: connection.address().to_owned(), reason };
            let header = decoder.decode_frame(&frame).map_err(|error| strange(error.to_string()))?;
            if !header.is_response() {
                // Brokers also notify clients (code 40 and the like); nothing here depends on it.
                connection.consume(length);
                continue;
            }
            if header.opaque >= FIRST_SEND_ID {
                let (place_index, generation) = split_id(header.opaque, places.len());
                let place = &mut places[place_index];
                if place.is_used && place.generation == generation {
                    let is_stored = header.code == response::SUCCESS;
                    books.ledger.answer(u32::try_from(index).unwrap_or(0), place.first, is_stored);
                    if is_stored {
                        books.recorder.answer(place.intended_ns, place.actual_ns, now_ns);
                    } else {
                        let remark = header.remark.unwrap_or("");
                        let failure = Failure::Refused { code: header.code, remark };
                        books.recorder.fail(place.intended_ns, now_ns, failure);
                    }
                    place.is_used = false;
                    self.in_flight -= 1;
                    self.free[index].push(u32::try_from(place_index).unwrap_or(0));
                }
            } else if let Some(lane) = usize::try_from(header.opaque)
                .ok()
                .and_then(|lane| lanes.get_mut(lane))
                .filter(|lane| lane.state == LaneState::Waiting)
            {
                let field = |name| header.get(name).and_then(|text| text.parse::<i64>().ok());
                match header.code {
                    response::SUCCESS => {
                        let received_ns = (!self.is_verifying).then_some(now_ns);
                        take_records(frame.body, lane, received_ns, books).map_err(strange)?;
                    }
                    response::PULL_NOT_FOUND | response::PULL_RETRY_IMMEDIATELY | response::PULL_OFFSET_MOVED => {}
                    code => {
                        return Err(DriverError::Refused {
                            address: connection.address().to_owned(),
                            action: "pull",
                            code,
                            remark: header.remark.unwrap_or("").to_owned(),
                        });
                    }
                }
                lane.offset = field("nextBeginOffset").unwrap_or(lane.offset);
                lane.is_at_end = field("maxOffset").is_some_and(|end| lane.offset >= end);
                lane.next_ns = now_ns
                    + match (self.is_verifying, lane.is_at_end) {
                        (true, true) => VERIFY_PAUSE_NS,
                        (true, false) => 0,
                        (false, _) => self.shape.pull_pause_ns,
                    };
                lane.state = LaneState::Idle;
                self.lanes_waiting -= 1;
                self.idle_lanes += 1;
            }
            connection.consume(length);
        }
    }

    /// Writes what the kernel takes of all that waits. True if it took anything.
    fn flush(&mut self) -> Result<bool, DriverError> {
        let (mut did, mut kept) = (false, 0);
        for at in 0..self.unsent.len() {
            let index = self.unsent[at];
            did |= self.connections[index].flush()?;
            if self.connections[index].has_output() {
                self.unsent[kept] = index;
                kept += 1;
            } else {
                self.is_unsent[index] = false;
            }
        }
        self.unsent.truncate(kept);
        Ok(did)
    }

    fn read(&mut self, books: &mut Books) -> Result<bool, DriverError> {
        let mut did = false;
        if let Some(mut epoll) = self.epoll.take() {
            let ready = epoll.ready(0);
            for position in 0..ready {
                let index = epoll.index(position);
                did |= self.read_one(index, books)?;
            }
            self.epoll = Some(epoll);
        } else {
            for index in 0..self.connections.len() {
                did |= self.read_one(index, books)?;
            }
        }
        Ok(did)
    }

    fn read_one(&mut self, index: usize, books: &mut Books) -> Result<bool, DriverError> {
        let is_read = self.connections[index].fill()?;
        if is_read {
            let now_ns = monotonic_ns();
            self.handle(index, now_ns, books)?;
        }
        Ok(is_read)
    }
}

/// Notes that a connection has output.
fn note_unsent(unsent: &mut Vec<usize>, is_unsent: &mut [bool], index: usize) {
    if !is_unsent[index] {
        is_unsent[index] = true;
        unsent.push(index);
    }
}

/// A decoder whose tables have grown already: it would do so in the measured phase otherwise.
fn warm_decoder() -> HeaderDecoder {
    let mut decoder = HeaderDecoder::new();
    let long = "x".repeat(LONGEST_HEADER_BYTES);
    for serialize_type in [SerializeType::Json, SerializeType::RocketMq] {
        let mut answer = Command { serialize_type, ..Command::response(response::SUCCESS, 1) }.with_ext("long", &long);
        for field in 0..MOST_HEADER_FIELDS {
            answer = answer.with_ext(&format!("field{field}"), field);
        }
        if let Ok(Split::Frame { frame, .. }) = split_frame(&answer.encode(), MAX_FRAME_BYTES) {
            // What it says does not matter.
            let _ = decoder.decode_frame(&frame);
        }
    }
    decoder
}

fn free_places(producer: usize, depth: usize) -> Vec<u32> {
    (producer * depth..(producer + 1) * depth).rev().map(|place| u32::try_from(place).unwrap_or(0)).collect()
}

/// Ids of one place repeat after as many generations as fit between the first id and the largest.
fn make_id(place: usize, generation: u32, places: usize) -> i32 {
    FIRST_SEND_ID + i32::try_from(generation as usize % generations(places) * places + place).unwrap_or(0)
}

fn split_id(id: i32, places: usize) -> (usize, u32) {
    let offset = usize::try_from(id - FIRST_SEND_ID).unwrap_or(0);
    (offset % places, u32::try_from(offset / places).unwrap_or(0))
}

fn generations(places: usize) -> usize {
    ((i32::MAX - FIRST_SEND_ID) as usize / places).clamp(1, 1 << 20)
}

/// Books the records of an answer; what is only read back has no time of receipt.
fn take_records(body: &[u8], lane: &Lane, received_ns: Option<u64>, books: &mut Books) -> Result<(), String> {
    for record in Records::new(body, CrcCheck::Skip) {
        let record = record.map_err(|error| format!("a pulled record: {error}"))?;
        let delivery = books.ledger.deliver(lane.group, lane.queue, record.body());
        if let (Delivery::First { intended_ns }, Some(received_ns)) = (delivery, received_ns) {
            books.recorder.receive(intended_ns, received_ns);
        }
    }
    Ok(())
}

fn create_topic(setup: &mut TcpStream, shape: &RemotingShape, topic: &str) -> Result<(), DriverError> {
    let request = Command { opaque: 1, serialize_type: shape.header, ..Command::request(UPDATE_AND_CREATE_TOPIC) }
        .with_ext("topic", topic)
        .with_ext("defaultTopic", "TBW102")
        .with_ext("readQueueNums", shape.queues)
        .with_ext("writeQueueNums", shape.queues)
        .with_ext("perm", 6)
        .with_ext("topicFilterType", "SINGLE_TAG")
        .with_ext("topicSysFlag", 0)
        .with_ext("order", false);
    let answer = ask(setup, shape.address, &request)?;
    if answer.code == response::SUCCESS {
        return Ok(());
    }
    let hint = if answer.code == response::REQUEST_CODE_NOT_SUPPORTED {
        " (a name server? the target is the broker's own port, 10911 by default)"
    } else {
        ""
    };
    Err(DriverError::Refused {
        address: shape.address.to_string(),
        action: "create a topic",
        code: answer.code,
        remark: format!("{}{hint}", answer.remark.unwrap_or_default()),
    })
}

/// Deletes the topics of a run and the messages in them. Returns how many are left, with the first reason.
pub fn delete_topics(address: SocketAddr, run_id: u64, topics: u32) -> Option<(u32, String)> {
    let mut left: Option<(u32, String)> = None;
    let mut connection = None;
    for topic in 0..topics {
        let request = Command { opaque: 1, ..Command::request(DELETE_TOPIC_IN_BROKER) }
            .with_ext("topic", topic_name(run_id, topic));
        let answer = connection.take().map_or_else(|| connect(address), Ok).and_then(|mut stream| {
            let answer = ask(&mut stream, address, &request)?;
            connection = Some(stream);
            Ok(answer)
        });
        let reason = match answer {
            Ok(answer) if answer.code == response::SUCCESS => continue,
            Ok(answer) => format!("code {} {}", answer.code, answer.remark.unwrap_or_default()),
            Err(error) => {
                // A broker that is not there any more is not asked a thousand times.
                return Some((left.map_or(0, |(count, _)| count) + topics - topic, error.to_string()));
            }
        };
        let (count, first) = left.unwrap_or((0, reason));
        left = Some((count + 1, first));
    }
    left
}

fn topic_name(run_id: u64, topic: u32) -> String {
    format!("bench-{run_id:016x}-{topic}")
}

impl Driver for Remoting {
    fn operation(&self) -> &'static str {
        "send"
    }

    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError> {
        let producers = self.free.len();
        for attempt in 0..producers {
            let producer = (self.turn + attempt) % producers;
            if self.free[producer].is_empty() {
                continue;
            }
            let sequence = books.ledger.next_sequence();
            let queue = books.ledger.queue_of(sequence) as usize;
            let template = match self.shape.wanted_every {
                1 => &self.templates[queue],
                every => &self.templates[queue * 2 + usize::from(!sequence.is_multiple_of(every))],
            };
            let body_bytes = self.batch.as_ref().map_or(self.shape.body_bytes, BatchTemplate::length);
            let Some(out) = self.connections[producer].room_for(template.length() + body_bytes) else { continue };
            let Some(place_index) = self.free[producer].pop() else { continue };
            let producer_number = u32::try_from(producer).unwrap_or(0);
            let (first, open) = books.ledger.send_request(producer_number);
            let header = books.ledger.header(producer_number, first, open, intended_ns);
            let places = self.places.len();
            let place = &mut self.places[place_index as usize];
            place.generation = u32::try_from((place.generation as usize + 1) % generations(places)).unwrap_or(0);
            let id = make_id(place_index as usize, place.generation, places);
            template.write(id, wall_ms(), (self.shape.run_id, first), out);
            match &self.batch {
                Some(batch) => batch.write(&self.filler, self.shape.run_id, &header, out),
                None => self.filler.write(&header, out),
            }
            note_unsent(&mut self.unsent, &mut self.is_unsent, producer);
            let actual_ns = monotonic_ns();
            *place = Place { intended_ns, actual_ns, first, generation: place.generation, is_used: true };
            self.oldest_ns = self.oldest_ns.min(actual_ns);
            self.in_flight += 1;
            let has_more = self.shape.fills_connections && !self.free[producer].is_empty();
            self.turn = producer + usize::from(!has_more);
            return Ok(true);
        }
        Ok(false)
    }

    fn turn(&mut self, books: &mut Books) -> Result<bool, DriverError> {
        let has_pauses = self.shape.pull_pause_ns > 0 || self.is_verifying;
        let mut did = self.pull(if has_pauses { monotonic_ns() } else { u64::MAX });
        did |= self.flush()?;
        did |= self.read(books)?;
        Ok(did)
    }

    fn in_flight(&self) -> u64 {
        self.in_flight
    }

    fn fail_older(&mut self, started_before_ns: u64, is_broken: bool, books: &mut Books) {
        if self.oldest_ns >= started_before_ns {
            return;
        }
        self.oldest_ns = u64::MAX;
        let now_ns = monotonic_ns();
        let failure = if is_broken { Failure::Connection } else { Failure::Timeout };
        for index in 0..self.places.len() {
            let place = self.places[index];
            if !place.is_used {
                continue;
            }
            if place.actual_ns >= started_before_ns {
                self.oldest_ns = self.oldest_ns.min(place.actual_ns);
                continue;
            }
            let producer = index / self.shape.depth as usize;
            books.ledger.answer(u32::try_from(producer).unwrap_or(0), place.first, false);
            books.recorder.fail(place.intended_ns, now_ns, failure);
            self.places[index].is_used = false;
            self.free[producer].push(u32::try_from(index).unwrap_or(0));
            self.in_flight -= 1;
        }
    }

    fn has_consumers(&self) -> bool {
        self.shape.consumer_groups > 0
    }

    fn hold_consumers(&mut self, is_held: bool) {
        self.are_consumers_held = is_held;
    }

    fn begin_verify(&mut self) -> Result<bool, DriverError> {
        if self.has_consumers() {
            return Ok(false);
        }
        let out_room = VERIFY_PULLS * HEADER_ROOM_BYTES;
        let in_room = ANSWER_ROOM_BYTES + self.shape.body_bytes;
        let stream = connect(self.shape.address)?;
        self.connections.push(Connection::new(stream, self.shape.address, out_room, in_room)?);
        self.is_verifying = true;
        self.add_lanes(0, self.connections.len() - 1);
        self.epoll = Some(Epoll::new(self.connections.iter().map(Connection::descriptor))?);
        Ok(true)
    }

    fn is_verified(&self) -> bool {
        !self.is_verifying || self.lanes.iter().all(|lane| lane.is_at_end)
    }
}

impl Drop for Remoting {
    fn drop(&mut self) {
        // Thousands of idle connections are closed before those that carried load, so that the broker's work for them
        // cannot fall into the next run.
        self.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drivers::null::{Behaviour, NullServer};
    use crate::load::ledger::{Ledger, LedgerShape};
    use crate::load::recorder::{Recorder, SECOND_NS};

    /// Goal: a closed loop fills one connection after the other, so that its requests share writes; open loops take turns.
    /// Method: three connections with four places each; which places are free after each start.
    #[test]
    fn connections_are_filled_or_take_turns() {
        let server = NullServer::start(None, Behaviour::default()).unwrap();
        for (fills_connections, expected) in
            [(true, [[3, 4, 4], [0, 4, 4], [0, 1, 4]]), (false, [[3, 4, 4], [2, 3, 3], [1, 2, 2]])]
        {
            let mut driver = Remoting::open(RemotingShape {
                address: server.address(),
                header: SerializeType::RocketMq,
                run_id: 1,
                connections: 3,
                depth: 4,
                fills_connections,
                body_bytes: 64,
                batch: 1,
                topics: 1,
                queues: 1,
                consumer_groups: 0,
                pull_batch: 32,
                hold_ms: 0,
                pull_pause_ns: 0,
                wanted_every: 1,
                idle_connections: 0,
            })
            .unwrap();
            let shape = LedgerShape {
                run_id: 1,
                producers: 3,
                queues: 1,
                groups: 1,
                capacity: 16,
                body_bytes: 64,
                wanted_every: 1,
                batch: 1,
            };
            let mut books = Books { recorder: Recorder::new(SECOND_NS), ledger: Ledger::new(shape) };
            let mut started = 0;
            for (until, expected) in [1, 4, 7].into_iter().zip(expected) {
                while started < until {
                    assert!(driver.start(monotonic_ns(), &mut books).unwrap());
                    started += 1;
                }
                assert_eq!(driver.free.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{until} started");
            }
            while driver.start(monotonic_ns(), &mut books).unwrap() {
                started += 1;
            }
            assert_eq!(started, 12, "all places are used");
        }
    }

    /// Goal: an id names one place and generation, has ten digits, and stays in range. Method: corners of small and large
    /// tables.
    #[test]
    fn request_ids() {
        for places in [1, 7, 16_384, 1 << 20] {
            let last = u32::try_from(generations(places) - 1).unwrap();
            for generation in [0, 1, last] {
                for place in [0, places - 1] {
                    let id = make_id(place, generation, places);
                    assert!(id >= FIRST_SEND_ID);
                    assert_eq!(split_id(id, places), (place, generation));
                }
            }
        }
    }
}
