//! A blocking connection to one server. The conversation itself is [`Exchange`]; this file moves bytes and time.
//!
//! Owned and used by one thread. Any number of requests may wait for answers at once.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use ringmq_protocol::codes::response::SUCCESS;
use ringmq_protocol::command::Command;
use ringmq_protocol::exchange::{Exchange, Incoming, Ticket};

use super::error::{AnswerError, ClientError};
use super::limits::{CONNECT_TIMEOUT_MS, KEPT_PEER_REQUESTS, READ_BYTES, REQUEST_TIMEOUT_MS};

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    address: String,
    stream: TcpStream,
    exchange: Exchange,
    /// Answers that have arrived before somebody asked for them, oldest first.
    answers: VecDeque<(Ticket, Command)>,
    peer_requests: VecDeque<Command>,
    chunk: Vec<u8>,
    /// How long an answer may take where nothing else is said.
    timeout: Duration,
}

impl Connection {
    /// Connects to `host:port`.
    ///
    /// # Errors
    /// No address of the host can be connected to.
    pub fn open(address: &str) -> Result<Connection, ClientError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::ConnectionRefused => ClientError::NothingListens { address: address.to_owned() },
            _ => ClientError::Connect { address: address.to_owned(), source },
        };
        let timeout = Duration::from_millis(CONNECT_TIMEOUT_MS);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for candidate in address.to_socket_addrs().map_err(failed)? {
            match TcpStream::connect_timeout(&candidate, timeout) {
                Ok(stream) => return Connection::over(address, stream).map_err(failed),
                Err(error) => last = error,
            }
        }
        Err(failed(last))
    }

    fn over(address: &str, stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(Duration::from_millis(REQUEST_TIMEOUT_MS)))?;
        Ok(Connection {
            address: address.to_owned(),
            stream,
            exchange: Exchange::default(),
            answers: VecDeque::new(),
            peer_requests: VecDeque::new(),
            chunk: vec![0; READ_BYTES],
            timeout: Duration::from_millis(REQUEST_TIMEOUT_MS),
        })
    }

    /// The same with another bound for answers than [`REQUEST_TIMEOUT_MS`].
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Connection {
        Connection { timeout, ..self }
    }

    /// Where it leads: `host:port` as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// This end's address.
    ///
    /// # Errors
    /// The socket is gone.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    /// Sends a request whose answer is asked for later.
    ///
    /// # Errors
    /// The connection broke.
    pub fn submit(&mut self, request: Command) -> Result<Ticket, ClientError> {
        let mut out = Vec::new();
        let ticket = self.exchange.submit(request, &mut out);
        self.write(&out).map(|()| ticket)
    }

    /// Sends several requests with one write.
    ///
    /// # Errors
    /// The connection broke.
    pub fn submit_all(&mut self, requests: impl IntoIterator<Item = Command>) -> Result<Vec<Ticket>, ClientError> {
        let mut out = Vec::new();
        let tickets = requests.into_iter().map(|request| self.exchange.submit(request, &mut out)).collect();
        self.write(&out).map(|()| tickets)
    }

    /// Sends a request that has no answer.
    ///
    /// # Errors
    /// The connection broke.
    pub fn oneway(&mut self, request: Command) -> Result<(), ClientError> {
        let mut out = Vec::new();
        self.exchange.submit_oneway(request, &mut out);
        self.write(&out)
    }

    /// Sends a request and waits for its answer, whatever its code.
    ///
    /// # Errors
    /// The connection broke, or the time is over.
    pub fn call(&mut self, request: Command) -> Result<Command, ClientError> {
        self.call_within(request, self.timeout)
    }

    /// [`Connection::call`] with another bound than the usual one.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn call_within(&mut self, request: Command, timeout: Duration) -> Result<Command, ClientError> {
        let code = request.code;
        let ticket = self.submit(request)?;
        self.wait(ticket, timeout).map_err(|error| match error {
            ClientError::Timeout { address, timeout_ms, .. } => {
                ClientError::Timeout { address, request: code, timeout_ms }
            }
            other => other,
        })
    }

    /// Sends a request whose only good answer is success.
    ///
    /// # Errors
    /// As [`Connection::call`], or the peer refused.
    pub fn call_ok(&mut self, request: Command) -> Result<Command, ClientError> {
        let code = request.code;
        let answer = self.call(request)?;
        if answer.code == SUCCESS { Ok(answer) } else { Err(self.refused(code, answer)) }
    }

    /// The error for an answer that is a refusal.
    pub fn refused(&self, request: i32, answer: Command) -> ClientError {
        let remark = answer.remark.unwrap_or_else(|| "no reason was given".to_owned());
        ClientError::Refused { address: self.address.clone(), request, code: answer.code, remark }
    }

    /// The error for an answer that lacks something.
    pub fn unusable(&self, request: i32, source: impl Into<AnswerError>) -> ClientError {
        ClientError::Answer { address: self.address.clone(), request, source: source.into() }
    }

    /// Waits for the answer to one request; others that arrive are kept.
    ///
    /// # Errors
    /// The connection broke, or the time is over: then a late answer is ignored.
    pub fn wait(&mut self, ticket: Ticket, timeout: Duration) -> Result<Command, ClientError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(at) = self.answers.iter().position(|(arrived, _)| *arrived == ticket)
                && let Some((_, answer)) = self.answers.remove(at)
            {
                return Ok(answer);
            }
            if !self.read_until(deadline)? {
                self.exchange.forget(ticket);
                return Err(self.timeout(timeout));
            }
        }
    }

    /// Waits for the next answer to any request; `None` when the time is over.
    ///
    /// # Errors
    /// The connection broke.
    pub fn wait_any(&mut self, timeout: Duration) -> Result<Option<(Ticket, Command)>, ClientError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Ok(Some(answer));
            }
            if !self.read_until(deadline)? {
                return Ok(None);
            }
        }
    }

    /// Requests of the peer since the last call, oldest first. A bounded number is kept, and nothing is answered.
    pub fn take_peer_requests(&mut self) -> Vec<Command> {
        self.peer_requests.drain(..).collect()
    }

    /// Answers that nobody waited for.
    pub fn stray_answers(&self) -> u64 {
        self.exchange.stray_answers()
    }

    fn timeout(&self, timeout: Duration) -> ClientError {
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        ClientError::Timeout { address: self.address.clone(), request: 0, timeout_ms }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Broken { address: self.address.clone(), source }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        self.stream.write_all(bytes).map_err(|source| self.broken(source))
    }

    /// Reads once and takes what has become complete. `false` when the time is over.
    fn read_until(&mut self, deadline: Instant) -> Result<bool, ClientError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.stream.set_read_timeout(Some(left)).map_err(|source| self.broken(source))?;
        match self.stream.read(&mut self.chunk) {
            Ok(0) => return Err(self.broken(io::Error::new(io::ErrorKind::UnexpectedEof, "the peer closed it"))),
            Ok(count) => self.exchange.receive(self.chunk.get(..count).unwrap_or_default()),
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
                ) => {}
            Err(source) => return Err(self.broken(source)),
        }
        loop {
            match self.exchange.take() {
                Ok(Some(Incoming::Answer(ticket, answer))) => self.answers.push_back((ticket, answer)),
                Ok(Some(Incoming::Request(request))) => {
                    if self.peer_requests.len() == KEPT_PEER_REQUESTS {
                        self.peer_requests.pop_front();
                    }
                    self.peer_requests.push_back(request);
                }
                Ok(None) => return Ok(true),
                Err(source) => return Err(ClientError::Protocol { address: self.address.clone(), source }),
            }
        }
    }
}
