//! Reads queues of one broker by long polling: one pull per queue is always on its way, all over one connection.
//!
//! Owned by its thread, which ends when nobody listens to its events any more. The process may end before that.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use ringmq_protocol::command::Command;

use super::answers::{PullAnswer, PullStatus};
use super::blocking::decode_pull;
use super::connection::Connection;
use super::error::ClientError;
use super::exchange::Ticket;
use super::limits::{HOLD_GRACE_MS, HOLD_MS, RETRY_PAUSE_MS};
use super::requests::{self, PullRequest};
use super::retry::pull_again;
use super::route::Queue;

/// A broker that does not hold a pull this long has no room for held pulls; it is then asked at this interval.
const SHORT_POLL: Duration = Duration::from_millis(200);

/// What happens to a consumer.
#[derive(Debug)]
pub enum Event {
    /// Messages, or an offset that goes on without any.
    Pulled {
        /// Which of the consumer's queues.
        index: usize,
        /// The answer.
        answer: PullAnswer,
    },
    /// A failure after which the reader tries again.
    Trouble(ClientError),
    /// A failure that does not pass.
    Failed(ClientError),
    /// Somebody wants the end.
    Stop,
}

/// A queue and where to read on.
#[derive(Debug)]
pub struct Cursor {
    /// Which of the consumer's queues.
    pub index: usize,
    /// The queue.
    pub queue: Queue,
    /// Offset to ask for next.
    pub next_offset: i64,
}

/// The queues of one broker.
#[derive(Debug)]
pub struct Reader {
    /// `host:port`.
    pub address: String,
    /// Group of the consumer.
    pub group: String,
    /// Tags.
    pub subscription: String,
    /// The queues.
    pub cursors: Vec<Cursor>,
    /// Where answers go.
    pub events: Sender<Event>,
}

/// Nobody listens any more.
struct Unheard;

impl Reader {
    /// Reads until nobody listens or a failure does not pass.
    pub fn run(mut self) {
        loop {
            let Err(error) = self.read() else { return };
            let passes = pull_again(&error);
            let event = if passes { Event::Trouble(error) } else { Event::Failed(error) };
            if self.events.send(event).is_err() || !passes {
                return;
            }
            thread::sleep(Duration::from_millis(RETRY_PAUSE_MS));
        }
    }

    /// Reads over one connection until it fails.
    fn read(&mut self) -> Result<Unheard, ClientError> {
        let mut connection = Connection::open(&self.address)?;
        let mut under_way: HashMap<Ticket, (usize, Instant)> = HashMap::new();
        for position in 0..self.cursors.len() {
            self.ask(&mut connection, position, &mut under_way)?;
        }
        let patience_ms = HOLD_MS + HOLD_GRACE_MS;
        loop {
            let Some((ticket, answer)) = connection.wait_any(Duration::from_millis(patience_ms))? else {
                let address = self.address.clone();
                return Err(ClientError::Timeout { address, request: 0, timeout_ms: patience_ms });
            };
            let Some((position, asked)) = under_way.remove(&ticket) else { continue };
            if self.take(&connection, position, asked, answer)?.is_err() {
                return Ok(Unheard);
            }
            self.ask(&mut connection, position, &mut under_way)?;
        }
    }

    fn ask(
        &self,
        connection: &mut Connection,
        position: usize,
        under_way: &mut HashMap<Ticket, (usize, Instant)>,
    ) -> Result<(), ClientError> {
        let Some(cursor) = self.cursors.get(position) else { return Ok(()) };
        let queue = &cursor.queue;
        let request = requests::pull(&PullRequest {
            hold_ms: HOLD_MS,
            subscription: &self.subscription,
            ..PullRequest::new(&self.group, &queue.topic, queue.queue_id, cursor.next_offset)
        });
        under_way.insert(connection.submit(request)?, (position, Instant::now()));
        Ok(())
    }

    /// Hands an answer on and moves the cursor.
    fn take(
        &mut self,
        connection: &Connection,
        position: usize,
        asked: Instant,
        answer: Command,
    ) -> Result<Result<(), Unheard>, ClientError> {
        let answer = decode_pull(connection, answer)?;
        let Some(cursor) = self.cursors.get_mut(position) else { return Ok(Ok(())) };
        if answer.status == PullStatus::NothingNew {
            if asked.elapsed() < SHORT_POLL {
                thread::sleep(SHORT_POLL);
            }
            return Ok(Ok(()));
        }
        cursor.next_offset = answer.next_offset;
        let event = Event::Pulled { index: cursor.index, answer };
        Ok(self.events.send(event).map_err(|_| Unheard))
    }
}
