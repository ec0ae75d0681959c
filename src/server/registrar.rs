//! Keeps one name server informed: a thread with one connection per name server.
//!
//! A name server drops a broker when its connection closes, so the connection stays open between registrations. Messages that
//! cannot be delivered are not queued up: the next registration carries everything anyway.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use ringmq_protocol::codes::response;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What a registrar is asked to deliver.
pub struct Delivery {
    /// The request.
    pub command: Command,
    /// Told once it was answered (true) or given up (false).
    pub done: Option<Sender<bool>>,
}

/// One name server's thread. Dropping it ends the thread once it is idle.
pub struct Registrar {
    sender: Sender<Delivery>,
}

impl Registrar {
    /// Starts the thread for `address` (`host:port`); `timeout` bounds one request (`registerBrokerTimeoutMills`).
    pub fn start(address: String, timeout: Duration) -> io::Result<Self> {
        let (sender, receiver) = channel();
        // Not joined: it may be waiting for an answer when the process ends, and owns nothing that must be put in order.
        std::thread::Builder::new().name("registrar".to_owned()).spawn(move || run(&address, timeout, &receiver))?;
        Ok(Self { sender })
    }

    /// Delivers a request.
    pub fn deliver(&self, delivery: Delivery) {
        // The thread ends only when this sender is dropped.
        assert!(self.sender.send(delivery).is_ok(), "the registrar's thread is alive");
    }
}

fn run(address: &str, timeout: Duration, receiver: &Receiver<Delivery>) {
    let mut connection: Option<TcpStream> = None;
    let mut was_reachable = true;
    let mut opaque = 0;
    while let Ok(mut delivery) = receiver.recv() {
        opaque += 1;
        delivery.command.opaque = opaque;
        let mut result = exchange(&mut connection, address, timeout, &delivery.command);
        if result.is_err() && connection.take().is_some() {
            // The old connection may have been dead for a while: once more on a fresh one.
            result = exchange(&mut connection, address, timeout, &delivery.command);
        }
        let delivered = match result {
            Ok(answer) if answer.code == response::SUCCESS => true,
            Ok(answer) => {
                let remark = answer.remark.unwrap_or_default();
                tracing::warn!(address, code = answer.code, remark, "a name server refused the broker");
                false
            }
            Err(error) => {
                connection = None;
                if was_reachable {
                    tracing::warn!(address, %error, "a name server cannot be reached; the broker keeps trying");
                }
                was_reachable = false;
                report(delivery.done, false);
                continue;
            }
        };
        was_reachable = true;
        report(delivery.done, delivered);
    }
}

fn report(done: Option<Sender<bool>>, delivered: bool) {
    if let Some(done) = done {
        // Whoever asked may have stopped waiting.
        let _nobody_waits = done.send(delivered).is_err();
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

fn exchange(
    connection: &mut Option<TcpStream>,
    address: &str,
    timeout: Duration,
    command: &Command,
) -> io::Result<Command> {
    let stream = match connection {
        Some(stream) => stream,
        None => connection.insert(connect(address, timeout)?),
    };
    stream.write_all(&command.encode())?;
    let mut buffer = Vec::new();
    loop {
        let split = split_frame(&buffer, MAX_FRAME_BYTES).map_err(io::Error::other)?;
        if let Split::Frame { frame, length } = split {
            let answer = Command::decode(frame).map_err(io::Error::other)?;
            buffer.drain(..length);
            // Requests of the name server (905) and late answers are not for this exchange.
            if answer.is_response() && answer.opaque == command.opaque {
                return Ok(answer);
            }
            continue;
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => buffer.extend_from_slice(&chunk[..count]),
        }
    }
}
