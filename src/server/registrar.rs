//! Keeps one name server informed: a thread with one connection per name server.
//!
//! A name server drops a broker when its connection closes, so the connection stays open between registrations. Messages that
//! cannot be delivered are not queued up: the next registration carries everything anyway.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ringmq_protocol::codes::{request, response};
use ringmq_protocol::command::Command;
use ringmq_protocol::exchange::{Exchange, Incoming};

use super::held_answers::HeldAnswer;

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Requests that wait for a name server that does not answer; past it they are given up: the next registration carries all.
const WAITING_DELIVERIES: usize = 16;

/// Longest wait for the first registration with other name servers before the broker says that it is ready all the same. The one
/// in the same process is waited for as long as a registration may take: it is there, but may wait for the disk.
pub const REGISTRATION_PATIENCE: Duration = Duration::from_secs(2);

/// How often that wait asks whether it is still of use.
const OUTCOME_BEAT: Duration = Duration::from_millis(250);

/// What a registrar is asked to deliver.
pub struct Delivery {
    /// The request.
    pub command: Command,
    /// Told once it was answered or given up.
    pub done: Option<Sender<Outcome>>,
    /// An answer that waits for that; kept until then.
    pub held: Option<Arc<HeldAnswer>>,
}

/// How a delivery ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The name server, as it was configured.
    pub address: String,
    /// It has accepted the request; false if it refused or was given up.
    pub is_accepted: bool,
}

/// One name server's thread. Dropping it ends the thread once it is idle.
pub struct Registrar {
    address: String,
    sender: SyncSender<Delivery>,
    is_available: Arc<AtomicBool>,
}

impl Registrar {
    /// Starts the thread for `address` (`host:port`); `timeout` bounds one request (`registerBrokerTimeoutMills`).
    pub fn start(address: String, timeout: Duration) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(WAITING_DELIVERIES);
        // Not joined: it may be waiting for an answer when the process ends, and owns nothing that must be put in order.
        let target = address.clone();
        let is_available = Arc::new(AtomicBool::new(true));
        let available = Arc::clone(&is_available);
        let work = move || run(&target, timeout, &receiver, &available);
        std::thread::Builder::new().name("registrar".to_owned()).spawn(work)?;
        Ok(Self { address, sender, is_available })
    }

    /// Whether the name server has answered last time, or was not asked yet: others are not worth waiting for
    /// (`NettyRemotingClient.getAvailableNameSrvList`).
    pub fn is_available(&self) -> bool {
        self.is_available.load(Ordering::Relaxed)
    }

    /// The name server's `host:port`, as it was configured.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Delivers a request, unless as many as may wait for this name server.
    pub fn deliver(&self, delivery: Delivery) {
        match self.sender.try_send(delivery) {
            Ok(()) => {}
            Err(TrySendError::Full(delivery)) => {
                tracing::debug!(address = self.address, "a name server does not keep up; a request to it is given up");
                report(delivery.done, &self.address, false);
            }
            // The thread ends only when this sender is dropped.
            Err(TrySendError::Disconnected(_)) => unreachable!("the registrar's thread is alive"),
        }
    }
}

fn run(address: &str, timeout: Duration, receiver: &Receiver<Delivery>, is_available: &AtomicBool) {
    let mut connection: Option<Connection> = None;
    while let Ok(delivery) = receiver.recv() {
        let mut result = exchange(&mut connection, address, timeout, &delivery.command);
        if result.is_err() && connection.take().is_some() {
            // The old connection may have been dead for a while: once more on a fresh one.
            result = exchange(&mut connection, address, timeout, &delivery.command);
        }
        // Who leaves does not try again, and the name server finds out: it may have left as well.
        let is_leaving = delivery.command.code == request::UNREGISTER_BROKER;
        let is_accepted = match result {
            Ok(answer) if answer.code == response::SUCCESS => true,
            other if is_leaving => {
                let why = other.map_or_else(|error| error.to_string(), |answer| answer.remark.unwrap_or_default());
                tracing::info!(address, why, "a name server was not told that the broker leaves");
                connection = None;
                report(delivery.done, address, false);
                continue;
            }
            Ok(answer) => {
                let remark = answer.remark.unwrap_or_default();
                tracing::warn!(address, code = answer.code, remark, "a name server refused the broker");
                false
            }
            Err(error) => {
                connection = None;
                if is_available.swap(false, Ordering::Relaxed) {
                    tracing::warn!(address, %error, "a name server cannot be reached; the broker keeps trying");
                }
                report(delivery.done, address, false);
                continue;
            }
        };
        is_available.store(true, Ordering::Relaxed);
        report(delivery.done, address, is_accepted);
    }
}

/// Waits until `expected` name servers have answered or are given up, at most `patience` for all; for `own`, the name server of this
/// process, at most as long as stands beside its address. Ends early when `is_over`, which is asked a few times a second.
pub fn await_outcomes(
    outcomes: &Receiver<Outcome>,
    expected: usize,
    mut own: Option<(String, Duration)>,
    patience: Duration,
    is_over: impl Fn() -> bool,
) {
    let started = Instant::now();
    let mut answered = 0;
    while answered < expected && !is_over() {
        let patience = own.as_ref().map_or(patience, |(_, patience)| *patience);
        let rest = patience.saturating_sub(started.elapsed());
        match outcomes.recv_timeout(rest.min(OUTCOME_BEAT)) {
            Ok(outcome) => {
                answered += 1;
                own = own.filter(|(address, _)| *address != outcome.address);
            }
            Err(RecvTimeoutError::Timeout) if !rest.is_zero() => {}
            Err(_) => return,
        }
    }
}

/// Notices that wait for their thread; past it they are dropped. They are hints that registrations repeat.
const WAITING_NOTICES: usize = 256;

/// How long one notice may take to be written.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(3);

/// Sends the name server's own oneway requests to brokers, each over a connection of its own: a broker serves them only on its
/// listening port.
pub struct Notices {
    sender: SyncSender<(String, Command)>,
}

impl Notices {
    /// Starts the thread. Without one every notice is dropped, which is logged.
    pub fn start() -> Self {
        let (sender, receiver) = sync_channel::<(String, Command)>(WAITING_NOTICES);
        let spawned = std::thread::Builder::new().name("notices".to_owned()).spawn(move || {
            for (address, command) in receiver {
                if let Err(error) = notify(&address, &command) {
                    tracing::info!(address, %error, "a broker could not be told of a change");
                }
            }
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "brokers are not told of changes: no thread for it");
        }
        Self { sender }
    }

    /// Sends a notice soon.
    pub fn send(&self, address: String, command: Command) {
        if let Err(error) = self.sender.try_send((address, command)) {
            tracing::warn!(%error, "a notice to a broker is dropped");
        }
    }
}

/// Writes a oneway request and waits until the broker has closed or taken it.
fn notify(address: &str, command: &Command) -> io::Result<()> {
    let mut stream = connect(address, NOTICE_TIMEOUT)?;
    stream.write_all(&command.encode())?;
    stream.shutdown(std::net::Shutdown::Write)
}

fn report(done: Option<Sender<Outcome>>, address: &str, is_accepted: bool) {
    if let Some(done) = done {
        // Whoever asked may have stopped waiting.
        let _nobody_waits = done.send(Outcome { address: address.to_owned(), is_accepted }).is_err();
    }
}

fn connect(address: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the address names no host");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection to a name server with what has arrived on it.
struct Connection {
    stream: TcpStream,
    exchange: Exchange,
}

/// Sends the request and waits for its answer, both together for at most `timeout`, however slowly bytes trickle.
fn exchange(
    connection: &mut Option<Connection>,
    address: &str,
    timeout: Duration,
    command: &Command,
) -> io::Result<Command> {
    let Connection { stream, exchange } = match connection {
        Some(connection) => connection,
        None => {
            let stream = connect(address, timeout)?;
            connection.insert(Connection { stream, exchange: Exchange::default() })
        }
    };
    let deadline = Instant::now() + timeout;
    let mut out = Vec::new();
    let ticket = exchange.submit(command.clone(), &mut out);
    let mut rest = out.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut chunk = [0; 4096];
    loop {
        while let Some(incoming) = exchange.take().map_err(io::Error::other)? {
            // Requests of the name server (905) are not for this exchange.
            if let Incoming::Answer(answered, answer) = incoming
                && answered == ticket
            {
                return Ok(answer);
            }
        }
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => exchange.receive(&chunk[..count]),
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether only the time left, which is looked at next, decides what the error means.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer in time")) } else { Ok(left) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_silent_name_server_holds_few_requests() {
        // Goal: requests to a name server that takes connections and answers nothing do not pile up. Method: more than may wait,
        // and a look at what was given up at once.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let registrar = Registrar::start(address, Duration::from_secs(600)).expect("started");
        let (done, outcomes) = channel();
        for _ in 0..WAITING_DELIVERIES + 3 {
            registrar.deliver(Delivery { command: Command::request(103), done: Some(done.clone()), held: None });
        }
        let given_up: Vec<Outcome> = outcomes.try_iter().collect();
        let any_accepted = given_up.iter().any(|outcome| outcome.is_accepted);
        assert!([2, 3].contains(&given_up.len()) && !any_accepted, "{given_up:?}");
    }

    /// Goal: a name server that is gone when the broker leaves is no trouble, and one that was asked for something else is. Method: both
    /// requests to a port that nobody listens on.
    #[test]
    fn a_farewell_to_nobody_is_no_trouble() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        // One end of a connection keeps the port, and nobody listens on it.
        let connected = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
        let address = connected.local_addr().expect("an address").to_string();
        let registrar = Registrar::start(address, Duration::from_secs(600)).expect("started");
        for (code, is_available) in [(request::UNREGISTER_BROKER, true), (request::REGISTER_BROKER, false)] {
            let (done, outcomes) = channel();
            registrar.deliver(Delivery { command: Command::request(code), done: Some(done), held: None });
            assert!(!outcomes.recv().expect("an outcome").is_accepted);
            assert_eq!(registrar.is_available(), is_available);
        }
    }

    /// A name server on a thread: reads the first request and goes on with its stream.
    fn name_server(go_on: impl FnOnce(TcpStream) + Send + 'static) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut some = [0; 4096];
            assert!(stream.read(&mut some).expect("a request") > 0);
            go_on(stream);
        });
        address
    }

    #[test]
    fn what_arrives_behind_an_answer_is_kept() {
        // Goal: bytes behind an answer belong to the next exchange. Method: with the first answer comes the second one but for
        // a byte, which follows after the second request.
        let (done, over) = channel::<()>();
        let address = name_server(move |mut stream| {
            let both = [Command::response(0, 0).encode(), Command::response(0, 1).encode()].concat();
            stream.write_all(&both[..both.len() - 1]).expect("written");
            let mut some = [0; 4096];
            assert!(stream.read(&mut some).expect("a second request") > 0);
            stream.write_all(&both[both.len() - 1..]).expect("written");
            assert!(over.recv().is_err());
        });
        let mut connection = None;
        for _ in 0..2 {
            let answer = exchange(&mut connection, &address, Duration::from_secs(600), &Command::request(103));
            assert_eq!(answer.expect("an answer").code, 0);
        }
        drop(done);
    }

    #[test]
    fn trickling_bytes_do_not_renew_the_time() {
        // Goal: one time-out bounds a whole request. Method: a name server that sends a long frame byte by byte without end; the
        // exchange gives up, or this test does not end.
        let address = name_server(|mut stream| {
            let length = [0, 0xF0, 0, 0];
            let mut goes_on = stream.write_all(&length).is_ok();
            while goes_on {
                goes_on = stream.write_all(&[0]).is_ok();
            }
        });
        let result = exchange(&mut None, &address, Duration::from_millis(100), &Command::request(103));
        assert_eq!(result.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
    }

    #[test]
    fn the_own_name_server_is_waited_for() {
        // Goal: a broker is not called ready before the name server beside it knows it, and does not wait for others that are
        // silent. Method: no patience with others; the own one answers when another thread gets to it, the others do not.
        let (done, outcomes) = channel();
        let answered = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                answered.store(true, Ordering::Relaxed);
                report(Some(done.clone()), "own", false);
            });
            await_outcomes(&outcomes, 3, Some(("own".to_owned(), Duration::from_secs(600))), Duration::ZERO, || false);
            assert!(answered.load(Ordering::Relaxed));
        });
        await_outcomes(&outcomes, 2, None, Duration::ZERO, || false);
        // Nor does it hold up a stop.
        await_outcomes(&outcomes, 1, Some(("own".to_owned(), Duration::from_secs(600))), Duration::ZERO, || true);
    }
}
