//! `ringmq consume`: reads all queues of a topic by long polling and prints the messages.
//!
//! One thread per broker reads ([`super::reader`]); the main thread prints, and with a group keeps it alive and commits.
//!
//! Invariant: an offset is committed only when all messages below it have been written to standard output.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use ringmq_protocol::bodies::{
    ConsumeFromWhere, ConsumeType, ConsumerData, HeartbeatData, MessageModel, SubscriptionData,
};
use ringmq_protocol::hash::java_hash;
use ringmq_protocol::record::RecordView;

use super::answers::PullAnswer;
use super::blocking::{Client, now_ms};
use super::error::{AnswerError, ClientError};
use super::limits::{COMMIT_INTERVAL_MS, HEARTBEAT_INTERVAL_MS, ROUTE_INTERVAL_MS, WAITING_ANSWERS};
use super::output::print_message;
use super::reader::{Cursor, Event, Reader};
use super::route::Queue;
use super::signals;
use crate::cli::{ConsumeOptions, StartPosition};
use crate::process::{ExitStatus, complain};

/// The group of consumers that do not name one. Brokers have it from the start (`MixAll.TOOLS_CONSUMER_GROUP`).
const TOOLS_GROUP: &str = "TOOLS_CONSUMER";

/// Reads and prints what the options say.
pub fn consume(options: &ConsumeOptions) -> ExitCode {
    let (sender, events) = bounded(WAITING_ANSWERS);
    let stopper = sender.clone();
    // A full channel only delays the stop; a closed one means that the command ends anyway.
    if let Err(error) = signals::on_stop(move || drop(stopper.send(Event::Stop))) {
        complain(&format!("cannot start a thread: {error}"));
        return ExitStatus::Failure.into();
    }
    let status = Consumer::start(options, sender, events).and_then(|mut consumer| consumer.run());
    match status {
        Ok(()) => ExitStatus::Ok.into(),
        Err(Failure::Client(error)) => {
            complain(&error);
            ExitStatus::ServerRefused.into()
        }
        Err(Failure::Local(text)) => {
            complain(&text);
            ExitStatus::Failure.into()
        }
    }
}

/// Why the command cannot go on.
enum Failure {
    Client(ClientError),
    Local(String),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::Client(error)
    }
}

/// A queue and how far it is printed.
struct Tracked {
    queue: Queue,
    /// Messages below are in the output buffer.
    printed: i64,
    /// Messages below have left the output buffer.
    written: i64,
    /// Known to the broker.
    committed: Option<i64>,
}

/// What is printed: all messages, or those with certain tags or a certain key.
struct Selection {
    tags: BTreeSet<String>,
    key: Option<String>,
}

impl Selection {
    fn new(tag: Option<&str>, key: Option<&str>) -> Selection {
        let tags = tag.filter(|expression| *expression != "*").unwrap_or_default();
        let tags = tags.split("||").map(str::trim).filter(|tag| !tag.is_empty()).map(str::to_owned).collect();
        Selection { tags, key: key.map(str::to_owned) }
    }

    /// Brokers compare hashes of tags only, so the tag is compared again; keys are not compared by brokers at all.
    fn takes(&self, message: &RecordView<'_>) -> bool {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let by_tag = self.tags.is_empty() || self.tags.contains(&text(message.tags()));
        by_tag && self.key.as_ref().is_none_or(|key| message.key_words().any(|word| word == key.as_bytes()))
    }
}

struct Consumer<'a> {
    options: &'a ConsumeOptions,
    client: Client,
    selection: Selection,
    tracked: Vec<Tracked>,
    sender: Sender<Event>,
    events: Receiver<Event>,
    output: BufWriter<io::Stdout>,
    left: Option<u64>,
    /// What was complained about last: the same trouble again and again is told once.
    last_trouble: String,
    subscription_version: u64,
}

/// Whether the command goes on.
enum Flow {
    GoOn,
    End,
}

impl<'a> Consumer<'a> {
    fn start(
        options: &'a ConsumeOptions,
        sender: Sender<Event>,
        events: Receiver<Event>,
    ) -> Result<Consumer<'a>, Failure> {
        let client = Client::connect(&options.name_servers.addresses())?;
        let mut consumer = Consumer {
            options,
            client,
            selection: Selection::new(options.tag.as_deref(), options.key.as_deref()),
            tracked: Vec::new(),
            sender,
            events,
            output: BufWriter::new(io::stdout()),
            left: options.count,
            last_trouble: String::new(),
            subscription_version: now_ms(),
        };
        let route = consumer.client.route(&options.topic)?;
        if route.to_read.is_empty() {
            return Err(ClientError::NoQueue(options.topic.clone()).into());
        }
        if let Some(group) = &options.group {
            consumer.heartbeats(&route.addresses())?;
            for address in route.addresses() {
                if consumer.client.consumer_ids(address, group)?.len() > 1 {
                    complain(&format!("group {group} has other members: messages may be read by several of them"));
                    break;
                }
            }
        }
        let started = consumer.track(route.to_read, options.from)?;
        if options.verbose {
            complain(&format!("reading {started} queues of {}", options.topic));
        }
        Ok(consumer)
    }

    /// Begins to read queues that are not read yet.
    fn track(&mut self, queues: Vec<Queue>, from: StartPosition) -> Result<usize, Failure> {
        let known = |tracked: &[Tracked], queue: &Queue| {
            let same = |other: &Queue| other.broker_name == queue.broker_name && other.queue_id == queue.queue_id;
            tracked.iter().any(|tracked| same(&tracked.queue))
        };
        let new: Vec<Queue> = queues.into_iter().filter(|queue| !known(&self.tracked, queue)).collect();
        let count = new.len();
        let mut cursors = Vec::new();
        for queue in new {
            let committed = match &self.options.group {
                Some(group) => self.client.query_offset(group, &queue)?,
                None => None,
            };
            let start = match (committed, from) {
                (Some(offset), _) => offset,
                (None, StartPosition::Earliest) => self.client.min_offset(&queue)?,
                (None, StartPosition::Latest) => self.client.max_offset(&queue)?,
                (None, StartPosition::Time(time_ms)) => self.client.search_offset(&queue, time_ms)?,
            };
            cursors.push(Cursor { index: self.tracked.len(), queue: queue.clone(), next_offset: start });
            self.tracked.push(Tracked { queue, printed: start, written: start, committed });
        }
        let addresses: BTreeSet<String> = cursors.iter().map(|cursor| cursor.queue.address.clone()).collect();
        for address in addresses {
            let (here, elsewhere) = cursors.into_iter().partition(|cursor: &Cursor| cursor.queue.address == address);
            cursors = elsewhere;
            let reader = Reader {
                address,
                group: self.options.group.clone().unwrap_or_else(|| TOOLS_GROUP.to_owned()),
                subscription: self.subscription(),
                cursors: here,
                events: self.sender.clone(),
            };
            let spawned = std::thread::Builder::new().name("reader".into()).spawn(move || reader.run());
            spawned.map_err(|error| Failure::Local(format!("cannot start a thread: {error}")))?;
        }
        Ok(count)
    }

    fn subscription(&self) -> String {
        self.options.tag.clone().unwrap_or_else(|| "*".to_owned())
    }

    fn run(&mut self) -> Result<(), Failure> {
        let ended = self.until_end();
        let flushed = self.flush();
        let committed = self.leave();
        ended.and(flushed.map(drop)).and(committed)
    }

    fn until_end(&mut self) -> Result<(), Failure> {
        let mut heartbeat = Timer::every(HEARTBEAT_INTERVAL_MS);
        let mut commit = Timer::every(COMMIT_INTERVAL_MS);
        let mut route = Timer::every(ROUTE_INTERVAL_MS);
        loop {
            let event = match self.events.try_recv() {
                Ok(event) => Some(event),
                // Nothing waits: show what there is before sleeping.
                Err(_) => match self.flush()? {
                    Flow::End => return Ok(()),
                    Flow::GoOn => {
                        let deadline = heartbeat.next.min(commit.next).min(route.next);
                        match self.events.recv_deadline(deadline) {
                            Ok(event) => Some(event),
                            Err(RecvTimeoutError::Timeout) => None,
                            // This struct holds a sender.
                            Err(RecvTimeoutError::Disconnected) => return Ok(()),
                        }
                    }
                },
            };
            match event {
                Some(Event::Stop) => return Ok(()),
                Some(Event::Failed(error)) => return Err(error.into()),
                Some(Event::Trouble(error)) => self.tell_trouble(&error),
                Some(Event::Pulled { index, answer }) => {
                    if let Flow::End = self.print(index, &answer)? {
                        return Ok(());
                    }
                }
                None => {}
            }
            if heartbeat.is_due() && self.options.group.is_some() {
                self.keep_alive();
            }
            if commit.is_due() {
                if let Flow::End = self.flush()? {
                    return Ok(());
                }
                if let Err(error) = self.commit() {
                    self.tell_trouble(&error);
                }
            }
            if route.is_due() {
                self.follow_route()?;
            }
        }
    }

    /// Prints the messages of one answer that are wanted.
    fn print(&mut self, index: usize, answer: &PullAnswer) -> Result<Flow, Failure> {
        let Some(tracked) = self.tracked.get_mut(index) else { return Ok(Flow::GoOn) };
        for message in answer.messages() {
            let message = message.map_err(|error| ClientError::Answer {
                address: tracked.queue.address.clone(),
                request: ringmq_protocol::codes::request::PULL_MESSAGE,
                source: AnswerError::Record(error),
            })?;
            if self.selection.takes(&message) {
                match print_message(&mut self.output, &message, self.options.verbose) {
                    Ok(None) => {}
                    Ok(Some(trouble)) => complain(&trouble),
                    Err(error) => return output_failed(&error),
                }
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            tracked.printed = message.queue_offset().saturating_add(1);
            if self.left == Some(0) {
                return Ok(Flow::End);
            }
        }
        tracked.printed = answer.next_offset;
        Ok(Flow::GoOn)
    }

    /// Empties the output buffer; what was in it may then be committed.
    fn flush(&mut self) -> Result<Flow, Failure> {
        if let Err(error) = self.output.flush() {
            return output_failed(&error);
        }
        for tracked in &mut self.tracked {
            tracked.written = tracked.printed;
        }
        Ok(Flow::GoOn)
    }

    fn tell_trouble(&mut self, error: &ClientError) {
        let text = error.to_string();
        if text != self.last_trouble {
            complain(&text);
            self.last_trouble = text;
        }
    }

    fn heartbeats(&mut self, addresses: &[&str]) -> Result<(), ClientError> {
        let Some(group) = &self.options.group else { return Ok(()) };
        let tags: Vec<String> = self.selection.tags.iter().cloned().collect();
        let subscription = SubscriptionData {
            topic: self.options.topic.clone(),
            sub_string: self.subscription(),
            code_set: tags.iter().map(|tag| java_hash(tag)).collect(),
            tags_set: tags,
            sub_version: i64::try_from(self.subscription_version).unwrap_or(i64::MAX),
            ..SubscriptionData::default()
        };
        let data = HeartbeatData {
            consumer_data_set: vec![ConsumerData {
                consume_from_where: Some(ConsumeFromWhere::LastOffset),
                consume_type: Some(ConsumeType::Passively),
                group_name: group.clone(),
                message_model: Some(MessageModel::Clustering),
                subscription_data_set: vec![subscription],
                unit_mode: false,
            }],
            ..HeartbeatData::default()
        };
        addresses.iter().try_for_each(|address| self.client.heartbeat(address, &data))
    }

    fn addresses(&self) -> BTreeSet<String> {
        self.tracked.iter().map(|tracked| tracked.queue.address.clone()).collect()
    }

    fn keep_alive(&mut self) {
        for address in self.addresses() {
            if let Err(error) = self.heartbeats(&[&address]) {
                self.tell_trouble(&error);
            }
        }
    }

    /// Commits what has been written; the first failure ends it, and the rest is tried again next time.
    fn commit(&mut self) -> Result<(), ClientError> {
        let Some(group) = &self.options.group else { return Ok(()) };
        for tracked in &mut self.tracked {
            if tracked.committed != Some(tracked.written) {
                self.client.commit_offset(group, &tracked.queue, tracked.written)?;
                tracked.committed = Some(tracked.written);
            }
        }
        Ok(())
    }

    fn follow_route(&mut self) -> Result<(), Failure> {
        match self.client.route(&self.options.topic) {
            // New queues are read from their start: everything in them was sent after this command began.
            Ok(route) => {
                self.track(route.to_read, StartPosition::Earliest).map(drop).or_else(|failure| match failure {
                    Failure::Client(error) => {
                        self.tell_trouble(&error);
                        Ok(())
                    }
                    local @ Failure::Local(_) => Err(local),
                })
            }
            Err(error) => {
                self.tell_trouble(&error);
                Ok(())
            }
        }
    }

    fn leave(&mut self) -> Result<(), Failure> {
        let committed = self.commit();
        if let Some(group) = &self.options.group {
            for address in self.addresses() {
                // Closing the connection says the same.
                let _ = self.client.unregister(&address, group);
            }
        }
        committed.map_err(Failure::Client)
    }
}

fn output_failed(error: &io::Error) -> Result<Flow, Failure> {
    // The reader (`| head`) has seen enough.
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Ok(Flow::End);
    }
    Err(Failure::Local(format!("cannot write to standard output: {error}")))
}

/// Something that is done at intervals.
struct Timer {
    interval: Duration,
    next: Instant,
}

impl Timer {
    fn every(interval_ms: u64) -> Timer {
        let interval = Duration::from_millis(interval_ms);
        Timer { interval, next: Instant::now() + interval }
    }

    fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let due = now >= self.next;
        if due {
            self.next = now + self.interval;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use ringmq_protocol::record::CrcCheck;

    use super::super::test_records::record;
    use super::*;

    fn takes(selection: &Selection, properties: &[u8]) -> bool {
        let bytes = record(0, properties, b"b");
        selection.takes(&RecordView::parse(&bytes, CrcCheck::Verify).expect("whole"))
    }

    /// Goal: what brokers let through too much is left out here. Method: tags with the same hash, several tags, one of
    /// several keys, part of a key, an empty key.
    #[test]
    fn selections() {
        let (aa, bb) = (b"TAGS\x01Aa\x02", b"TAGS\x01BB\x02");
        for (expression, expected) in [
            (None, (true, true)),
            (Some("*"), (true, true)),
            (Some("Aa"), (true, false)),
            (Some("x || BB"), (false, true)),
        ] {
            let selection = Selection::new(expression, None);
            assert_eq!((takes(&selection, aa), takes(&selection, bb)), expected, "{expression:?}");
        }
        assert!(!takes(&Selection::new(Some("Aa"), None), b""));
        let keyed = Selection::new(None, Some("k2"));
        assert!(takes(&keyed, b"KEYS\x01k1 k2\x02") && !takes(&keyed, b"KEYS\x01k22\x02") && !takes(&keyed, b""));
        let nothing = Selection::new(None, Some(""));
        assert!(!takes(&nothing, b"") && !takes(&nothing, b"KEYS\x01k1  k2\x02"));
    }
}
