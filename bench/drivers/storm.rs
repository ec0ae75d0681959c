//! Connections instead of messages: each operation connects, sends one small request, waits for its answer and closes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use ringmq_protocol::codes::request::GET_MAX_OFFSET;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::SerializeType;

use super::remoting::{Epoll, ask, connect};
use super::{Books, Driver, DriverError};
use crate::clock::monotonic_ns;
use crate::load::recorder::Failure;

/// Bytes of an answer that are looked at: that it is one is all that counts.
const ANSWER_BYTES: usize = 4096;

#[derive(Debug)]
struct Attempt {
    stream: TcpStream,
    intended_ns: u64,
    actual_ns: u64,
    number: u64,
    is_asked: bool,
}

/// The driver.
#[derive(Debug)]
pub struct Storm {
    address: SocketAddr,
    epoll: Epoll,
    attempts: Vec<Option<Attempt>>,
    free: Vec<usize>,
    request: Vec<u8>,
    answer: Vec<u8>,
    oldest_ns: u64,
}

impl Storm {
    /// Prepares for at most `places` connections under way. Asks once, so that a missing broker is noticed before the load.
    ///
    /// # Errors
    /// The peer is not there or does not answer.
    pub fn open(address: SocketAddr, header: SerializeType, places: usize) -> Result<Storm, DriverError> {
        let request = Command { opaque: 1, serialize_type: header, ..Command::request(GET_MAX_OFFSET) }
            .with_ext("topic", "TBW102")
            .with_ext("queueId", 0);
        ask(&mut connect(address)?, address, &request)?;
        Ok(Storm {
            address,
            epoll: Epoll::new([])?,
            attempts: (0..places).map(|_| None).collect(),
            free: (0..places).rev().collect(),
            request: request.encode(),
            answer: vec![0; ANSWER_BYTES],
            oldest_ns: u64::MAX,
        })
    }

    fn end(&mut self, index: usize, failure: Option<Failure<'_>>, books: &mut Books) {
        let Some(attempt) = self.attempts[index].take() else { return };
        self.free.push(index);
        books.ledger.answer(0, attempt.number, failure.is_none());
        let now_ns = monotonic_ns();
        match failure {
            None => books.recorder.answer(attempt.intended_ns, attempt.actual_ns, now_ns),
            Some(failure) => books.recorder.fail(attempt.intended_ns, now_ns, failure),
        }
    }

    fn go_on(&mut self, index: usize, books: &mut Books) {
        let Some(attempt) = self.attempts[index].as_mut() else { return };
        if !attempt.is_asked {
            match attempt.stream.write(&self.request) {
                Ok(count) if count == self.request.len() => attempt.is_asked = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    let number = error.raw_os_error().unwrap_or(0);
                    self.end(index, Some(Failure::System(number)), books);
                }
                // The request is far smaller than an empty send buffer.
                Ok(_) => self.end(index, Some(Failure::Connection), books),
            }
            return;
        }
        match attempt.stream.read(&mut self.answer) {
            Ok(0) => self.end(index, Some(Failure::Connection), books),
            Ok(_) => self.end(index, None, books),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => {
                let number = error.raw_os_error().unwrap_or(0);
                self.end(index, Some(Failure::System(number)), books);
            }
        }
    }
}

/// Begins to connect without waiting. `std` cannot.
fn begin_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let SocketAddr::V4(address) = address else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "connection storms go to IPv4 addresses"));
    };
    // SAFETY: plain call without pointers.
    let raw: RawFd =
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    let name = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: address.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.ip().octets()) },
        sin_zero: [0; 8],
    };
    let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the name is alive during the call and its length is given.
    let code = unsafe { libc::connect(socket.as_raw_fd(), (&raw const name).cast(), length) };
    let error = io::Error::last_os_error();
    if code != 0 && error.raw_os_error() != Some(libc::EINPROGRESS) {
        return Err(error);
    }
    Ok(TcpStream::from(socket))
}

impl Driver for Storm {
    fn operation(&self) -> &'static str {
        "connect"
    }

    fn start(&mut self, intended_ns: u64, books: &mut Books) -> Result<bool, DriverError> {
        let Some(index) = self.free.pop() else { return Ok(false) };
        let actual_ns = monotonic_ns();
        let (number, _) = books.ledger.send_request(0);
        match begin_connect(self.address) {
            Ok(stream) => {
                let interest = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;
                self.epoll.watch(stream.as_raw_fd(), index, interest)?;
                self.attempts[index] = Some(Attempt { stream, intended_ns, actual_ns, number, is_asked: false });
                self.oldest_ns = self.oldest_ns.min(actual_ns);
            }
            Err(error) => {
                self.free.push(index);
                books.ledger.answer(0, number, false);
                let failure = Failure::System(error.raw_os_error().unwrap_or(0));
                books.recorder.fail(intended_ns, monotonic_ns(), failure);
            }
        }
        Ok(true)
    }

    fn turn(&mut self, books: &mut Books) -> Result<bool, DriverError> {
        let ready = self.epoll.ready(0);
        for position in 0..ready {
            let index = self.epoll.index(position);
            self.go_on(index, books);
        }
        Ok(ready > 0)
    }

    fn in_flight(&self) -> u64 {
        (self.attempts.len() - self.free.len()) as u64
    }

    fn fail_older(&mut self, started_before_ns: u64, is_broken: bool, books: &mut Books) {
        if self.oldest_ns >= started_before_ns {
            return;
        }
        self.oldest_ns = u64::MAX;
        for index in 0..self.attempts.len() {
            let Some(attempt) = &self.attempts[index] else { continue };
            if attempt.actual_ns < started_before_ns {
                let failure = if is_broken { Failure::Connection } else { Failure::Timeout };
                self.end(index, Some(failure), books);
            } else {
                self.oldest_ns = self.oldest_ns.min(attempt.actual_ns);
            }
        }
    }
}
