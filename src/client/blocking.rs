//! The client that tools and tests use: keeps routes and connections, and waits for each answer.
//!
//! Owned and used by one thread. A connection that broke is opened again with the next request.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ringmq_protocol::bodies::{
    ClusterInfo, GetConsumerListByGroupResponseBody, HeartbeatData, JsonBody, TopicRouteData,
};
use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;

use super::answers::{PullAnswer, SendReceipt};
use super::connection::Connection;
use super::error::{AnswerError, ClientError};
use super::limits::{HOLD_GRACE_MS, NEW_TOPIC_QUEUES, REQUEST_TIMEOUT_MS, SEND_ATTEMPTS};
use super::message::{Message, UniqueKeys, batch_body};
use super::requests::{self, PullRequest, SendTarget, TEMPLATE_TOPIC};
use super::retry::send_again;
use super::route::{Queue, Route};

/// Routes, connections and names of one client.
#[derive(Debug)]
pub struct Client {
    name_servers: Vec<String>,
    /// The name server that answered last.
    current_name_server: usize,
    connections: HashMap<String, Connection>,
    /// Routes to send by; of topics that do not exist yet, made from the template topic's.
    routes: HashMap<String, Route>,
    turn: usize,
    keys: UniqueKeys,
    client_id: String,
    group: String,
    /// How long an answer may take.
    timeout: Duration,
}

impl Client {
    /// Connects to the first of the name servers that answers.
    ///
    /// # Errors
    /// None can be connected to.
    pub fn connect(name_servers: &[String]) -> Result<Client, ClientError> {
        let mut last = ClientError::NoNameServer;
        for (index, address) in name_servers.iter().enumerate() {
            match Connection::open(address) {
                Ok(connection) => return Ok(Client::over(name_servers, index, connection)),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn over(name_servers: &[String], current_name_server: usize, connection: Connection) -> Client {
        let local = connection.local_address().ok();
        let ip = local.map_or([127, 0, 0, 1].into(), |address| address.ip());
        // Port and clock tell clients of one process apart.
        let port = local.map_or(0, |address| address.port());
        let seed = u32::from(port) << 16 ^ u32::try_from(now_ms() & 0xffff_ffff).unwrap_or(0);
        Client {
            name_servers: name_servers.to_vec(),
            current_name_server,
            connections: HashMap::from([(connection.address().to_owned(), connection)]),
            routes: HashMap::new(),
            turn: usize::from(port),
            keys: UniqueKeys::new(ip, seed),
            client_id: format!("{ip}@{}#{seed}", std::process::id()),
            group: "ringmq-client".to_owned(),
            timeout: Duration::from_millis(REQUEST_TIMEOUT_MS),
        }
    }

    /// The same with another bound for answers than [`REQUEST_TIMEOUT_MS`].
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Client {
        let connections = self.connections.into_iter();
        let connections =
            connections.map(|(address, connection)| (address, connection.with_timeout(timeout))).collect();
        Client { timeout, connections, ..self }
    }

    /// The same with another producer group.
    #[must_use]
    pub fn with_group(self, group: impl Into<String>) -> Client {
        Client { group: group.into(), ..self }
    }

    /// The id by which brokers know this client.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// The open connection to a server, opened if there is none.
    ///
    /// # Errors
    /// It cannot be connected to.
    pub fn connection(&mut self, address: &str) -> Result<&mut Connection, ClientError> {
        if !self.connections.contains_key(address) {
            let opened = Connection::open(address)?.with_timeout(self.timeout);
            return Ok(self.connections.entry(address.to_owned()).or_insert(opened));
        }
        self.connections.get_mut(address).ok_or_else(|| ClientError::NothingListens { address: address.to_owned() })
    }

    /// Does something with the connection to a server, and forgets the connection if that broke it.
    fn with<T>(
        &mut self,
        address: &str,
        act: impl FnOnce(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let result = self.connection(address).and_then(act);
        if let Err(error) = &result
            && error.ends_connection()
        {
            self.connections.remove(address);
        }
        result
    }

    /// [`Client::with`] for what may be done twice: when a connection that was open before turns out to be broken, as after
    /// a restart of the server, it is done again over a new one.
    fn with_again<T>(
        &mut self,
        address: &str,
        act: impl Fn(&mut Connection) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let was_open = self.connections.contains_key(address);
        match self.with(address, &act) {
            Err(ClientError::Broken { .. }) if was_open => self.with(address, act),
            result => result,
        }
    }

    /// Sends a request whose only good answer is success, and that may be done twice.
    ///
    /// # Errors
    /// The server does not answer or refuses.
    pub fn call_ok(&mut self, address: &str, request: Command) -> Result<Command, ClientError> {
        self.with_again(address, |connection| connection.call_ok(request.clone()))
    }

    /// Asks the name servers one after the other, beginning with the one that answered last.
    fn ask_name_server(&mut self, request: &Command) -> Result<(String, Command), ClientError> {
        let mut last = ClientError::NoNameServer;
        for _ in 0..self.name_servers.len() {
            let Some(address) = self.name_servers.get(self.current_name_server).cloned() else { break };
            match self.with_again(&address, |connection| connection.call(request.clone())) {
                Ok(answer) => return Ok((address, answer)),
                Err(error) => last = error,
            }
            self.current_name_server = (self.current_name_server + 1) % self.name_servers.len();
        }
        Err(last)
    }

    fn body_from_name_server<T: JsonBody>(&mut self, request: &Command) -> Result<Option<T>, ClientError> {
        let (address, answer) = self.ask_name_server(request)?;
        let code = request.code;
        let unusable = |source| ClientError::Answer { address: address.clone(), request: code, source };
        match answer.code {
            response::SUCCESS => {
                let body = answer.body.ok_or_else(|| unusable(AnswerError::NoBody))?;
                T::decode(&body).map(Some).map_err(|error| unusable(error.into()))
            }
            response::TOPIC_NOT_EXIST => Ok(None),
            _ => {
                let remark = answer.remark.unwrap_or_default();
                Err(ClientError::Refused { address, request: code, code: answer.code, remark })
            }
        }
    }

    /// The queues of a topic, asked anew.
    ///
    /// # Errors
    /// No name server answers, or there is no such topic.
    pub fn route(&mut self, topic: &str) -> Result<Route, ClientError> {
        let data: Option<TopicRouteData> = self.body_from_name_server(&requests::route(topic))?;
        let data = data.ok_or_else(|| ClientError::NoTopic(topic.to_owned()))?;
        let route = Route::of(topic, &data, None);
        self.routes.insert(topic.to_owned(), route.clone());
        Ok(route)
    }

    /// The route to send by: of a topic that does not exist yet, the template topic's, so that the first send creates it.
    fn route_for_send(&mut self, topic: &str) -> Result<Route, ClientError> {
        if let Some(known) = self.routes.get(topic) {
            return Ok(known.clone());
        }
        let missing = match self.route(topic) {
            Err(ClientError::NoTopic(missing)) => missing,
            other => return other,
        };
        let template: Option<TopicRouteData> = self.body_from_name_server(&requests::route(TEMPLATE_TOPIC))?;
        let template = template.ok_or(ClientError::NoTopic(missing))?;
        let route = Route::of(topic, &template, Some(NEW_TOPIC_QUEUES));
        self.routes.insert(topic.to_owned(), route.clone());
        Ok(route)
    }

    /// Sends a message to one of the topic's queues, which take turns. A failure that may pass is retried, so that in
    /// rare cases a message is stored twice.
    ///
    /// # Errors
    /// The last attempt's failure.
    pub fn send(&mut self, topic: &str, message: &Message) -> Result<SendReceipt, ClientError> {
        let unique_key = self.keys.next(now_ms());
        self.send_with(topic, |target| Ok(requests::send(target, message, &unique_key)?))
    }

    /// Sends messages that one queue takes together, with neighbouring offsets.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub fn send_batch(&mut self, topic: &str, messages: &[Message]) -> Result<SendReceipt, ClientError> {
        let now = now_ms();
        let keyed: Vec<_> = messages.iter().map(|message| (message, self.keys.next(now))).collect();
        let body = batch_body(keyed)?;
        let unique_key = self.keys.next(now);
        self.send_with(topic, |target| Ok(requests::send_batch(target, body.clone(), &unique_key)))
    }

    /// Sends a message to one queue, once.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn send_to(&mut self, queue: &Queue, message: &Message) -> Result<SendReceipt, ClientError> {
        let unique_key = self.keys.next(now_ms());
        let target = SendTarget { group: &self.group, topic: &queue.topic, queue_id: queue.queue_id, now_ms: now_ms() };
        let request = requests::send(&target, message, &unique_key)?;
        self.send_once(&queue.address, request)
    }

    fn send_with(
        &mut self,
        topic: &str,
        build: impl Fn(&SendTarget<'_>) -> Result<Command, ClientError>,
    ) -> Result<SendReceipt, ClientError> {
        let mut failed: Option<(String, ClientError)> = None;
        for _ in 0..SEND_ATTEMPTS {
            let route = self.route_for_send(topic)?;
            self.turn = self.turn.wrapping_add(1);
            let avoided = failed.as_ref().map(|(broker, _)| broker.as_str());
            let queue = route.queue_for(self.turn, avoided).ok_or_else(|| ClientError::NoQueue(topic.to_owned()))?;
            let target = SendTarget { group: &self.group, topic, queue_id: queue.queue_id, now_ms: now_ms() };
            let request = build(&target)?;
            match self.send_once(&queue.address, request) {
                Err(error) if send_again(&error) => {
                    self.routes.remove(topic);
                    failed = Some((queue.broker_name.clone(), error));
                }
                done => return done,
            }
        }
        Err(failed.map_or_else(|| ClientError::NoQueue(topic.to_owned()), |(_, error)| error))
    }

    fn send_once(&mut self, address: &str, request: Command) -> Result<SendReceipt, ClientError> {
        let code = request.code;
        self.with(address, |connection| {
            let answer = connection.call(request)?;
            match SendReceipt::decode(&answer) {
                Ok(Some(receipt)) => Ok(receipt),
                Ok(None) => Err(connection.refused(code, answer)),
                Err(error) => Err(connection.unusable(code, error)),
            }
        })
    }

    /// Reads messages of a queue from `offset` on, of all tags; waits up to `hold_ms` for one.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn pull(
        &mut self,
        queue: &Queue,
        offset: i64,
        max_messages: i32,
        hold_ms: u64,
    ) -> Result<PullAnswer, ClientError> {
        let group = self.group.clone();
        let wanted =
            PullRequest { max_messages, hold_ms, ..PullRequest::new(&group, &queue.topic, queue.queue_id, offset) };
        self.pull_with(&queue.address, &wanted)
    }

    /// [`Client::pull`] with everything that can be chosen.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn pull_with(&mut self, address: &str, wanted: &PullRequest<'_>) -> Result<PullAnswer, ClientError> {
        let held = Duration::from_millis(wanted.hold_ms + HOLD_GRACE_MS);
        let patience = if wanted.hold_ms == 0 { self.timeout } else { held };
        self.with_again(address, |connection| {
            let answer = connection.call_within(requests::pull(wanted), patience)?;
            decode_pull(connection, answer)
        })
    }

    fn offset(&mut self, address: &str, request: Command) -> Result<i64, ClientError> {
        let code = request.code;
        self.with_again(address, |connection| {
            let answer = connection.call_ok(request.clone())?;
            answer.ext_i64("offset").map_err(|error| connection.unusable(code, error))
        })
    }

    /// The offset that the next message of the queue will have.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn max_offset(&mut self, queue: &Queue) -> Result<i64, ClientError> {
        self.offset(&queue.address, requests::max_offset(&queue.topic, queue.queue_id))
    }

    /// The offset of the oldest message of the queue.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn min_offset(&mut self, queue: &Queue) -> Result<i64, ClientError> {
        self.offset(&queue.address, requests::min_offset(&queue.topic, queue.queue_id))
    }

    /// The offset of the first message stored at or after a time, ms since the Unix epoch.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn search_offset(&mut self, queue: &Queue, timestamp_ms: u64) -> Result<i64, ClientError> {
        self.offset(&queue.address, requests::search_offset(&queue.topic, queue.queue_id, timestamp_ms))
    }

    /// The committed offset of a group, if there is one.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn query_offset(&mut self, group: &str, queue: &Queue) -> Result<Option<i64>, ClientError> {
        match self.offset(&queue.address, requests::query_offset(group, &queue.topic, queue.queue_id)) {
            Ok(offset) => Ok(Some(offset)),
            Err(error) if error.code() == Some(response::QUERY_NOT_FOUND) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Commits the offset that a group will read next.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn commit_offset(&mut self, group: &str, queue: &Queue, offset: i64) -> Result<(), ClientError> {
        let request = requests::commit_offset(group, &queue.topic, queue.queue_id, offset);
        self.call_ok(&queue.address, request).map(drop)
    }

    /// Tells a broker which groups this client belongs to. The client's own id is filled in.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn heartbeat(&mut self, address: &str, data: &HeartbeatData) -> Result<(), ClientError> {
        let data = HeartbeatData { client_id: self.client_id.clone(), ..data.clone() };
        self.call_ok(address, requests::heartbeat(&data)).map(drop)
    }

    /// Leaves a consumer group.
    ///
    /// # Errors
    /// The broker does not answer or refuses.
    pub fn unregister(&mut self, address: &str, group: &str) -> Result<(), ClientError> {
        let request = requests::unregister(&self.client_id, group);
        self.call_ok(address, request).map(drop)
    }

    /// The ids of a group's consumers at a broker.
    ///
    /// # Errors
    /// The broker does not answer or refuses; it refuses if there is none.
    pub fn consumer_ids(&mut self, address: &str, group: &str) -> Result<Vec<String>, ClientError> {
        self.with_again(address, |connection| {
            let answer = connection.call_ok(requests::consumer_list(group))?;
            let unusable = |error| connection.unusable(request::GET_CONSUMER_LIST_BY_GROUP, error);
            let body = answer.body.ok_or_else(|| unusable(AnswerError::NoBody))?;
            let list = GetConsumerListByGroupResponseBody::decode(&body).map_err(|error| unusable(error.into()))?;
            Ok(list.consumer_id_list)
        })
    }

    /// Creates or changes a topic on every broker that the name server knows.
    ///
    /// # Errors
    /// There is no broker, or one does not answer or refuses.
    pub fn create_topic(&mut self, topic: &str, queues: u32) -> Result<(), ClientError> {
        let cluster: Option<ClusterInfo> = self.body_from_name_server(&requests::cluster())?;
        let brokers = cluster.unwrap_or_default().broker_addr_table;
        let masters: Vec<String> =
            brokers.into_values().filter_map(|broker| broker.broker_addrs.get(&0).cloned()).collect();
        if masters.is_empty() {
            return Err(ClientError::NoQueue(topic.to_owned()));
        }
        for address in masters {
            self.call_ok(&address, requests::create_topic(topic, queues))?;
        }
        self.routes.remove(topic);
        Ok(())
    }
}

/// Reads the answer to a pull that came over this connection.
pub(super) fn decode_pull(connection: &Connection, answer: Command) -> Result<PullAnswer, ClientError> {
    let code = answer.code;
    let remark = answer.remark.clone();
    match PullAnswer::decode(answer) {
        Ok(Some(pulled)) => Ok(pulled),
        Ok(None) => {
            let refusal = Command { remark, ..Command::response(code, 0) };
            Err(connection.refused(request::PULL_MESSAGE, refusal))
        }
        Err(error) => Err(connection.unusable(request::PULL_MESSAGE, error)),
    }
}

/// The client's clock, ms since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
