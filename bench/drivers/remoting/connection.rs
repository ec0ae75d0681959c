//! One non-blocking TCP connection with buffers of fixed size.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{Frame, MAX_FRAME_BYTES, Split, split_frame};

use super::super::DriverError;

/// How long connecting and a request outside of the load may take.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    address: String,
    out: Vec<u8>,
    out_start: usize,
    input: Vec<u8>,
    input_start: usize,
    input_end: usize,
}

/// Connects with Nagle's algorithm off. Blocks.
///
/// # Errors
/// Nobody listens there.
pub fn connect(address: SocketAddr) -> Result<TcpStream, DriverError> {
    let failed = |source: io::Error| {
        if source.raw_os_error() == Some(libc::EMFILE) {
            return DriverError::TooManyFiles { address: address.to_string(), most: crate::host::limits::open_files() };
        }
        DriverError::Connect { address: address.to_string(), source }
    };
    let stream = TcpStream::connect_timeout(&address, SETUP_TIMEOUT).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

/// Sends one request over a connection that is still blocking, and waits for its answer.
///
/// # Errors
/// The peer does not answer like a broker.
pub fn ask(stream: &mut TcpStream, address: SocketAddr, request: &Command) -> Result<Command, DriverError> {
    let closed = |source: io::Error| DriverError::Closed { address: address.to_string(), source: Some(source) };
    let strange = |reason: String| DriverError::Protocol { address: address.to_string(), reason };
    stream.set_read_timeout(Some(SETUP_TIMEOUT)).map_err(closed)?;
    stream.write_all(&request.encode()).map_err(closed)?;
    let mut received = Vec::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match split_frame(&received, MAX_FRAME_BYTES).map_err(|error| strange(error.to_string()))? {
            Split::Frame { frame, .. } => {
                return Command::decode(frame).map_err(|error| strange(error.to_string()));
            }
            Split::NeedMore { .. } => {}
        }
        match stream.read(&mut piece) {
            Ok(0) => return Err(DriverError::Closed { address: address.to_string(), source: None }),
            Ok(count) => received.extend_from_slice(&piece[..count]),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(strange(format!("no answer within {} s", SETUP_TIMEOUT.as_secs())));
            }
            Err(error) => return Err(closed(error)),
        }
    }
}

impl Connection {
    /// Takes over a connection. Frames up to `largest_out` and `largest_in` bytes fit.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub fn new(
        stream: TcpStream,
        address: SocketAddr,
        largest_out: usize,
        largest_in: usize,
    ) -> Result<Connection, DriverError> {
        stream
            .set_nonblocking(true)
            .map_err(|source| DriverError::System { action: "make a socket non-blocking", source })?;
        // Written, not only reserved, so that no page is touched for the first time in the measured phase.
        let mut out = vec![1; (2 * largest_out).max(1 << 16)];
        out.clear();
        let mut input = vec![1; (2 * largest_in).max(1 << 16)];
        input.fill(0);
        Ok(Connection { stream, address: address.to_string(), out, out_start: 0, input, input_start: 0, input_end: 0 })
    }

    /// For epoll.
    pub fn descriptor(&self) -> RawFd {
        self.stream.as_raw_fd()
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The output buffer, if `bytes` more fit into it.
    pub fn room_for(&mut self, bytes: usize) -> Option<&mut Vec<u8>> {
        if self.out.capacity() - self.out.len() < bytes && self.out_start > 0 {
            self.out.copy_within(self.out_start.., 0);
            self.out.truncate(self.out.len() - self.out_start);
            self.out_start = 0;
        }
        (self.out.capacity() - self.out.len() >= bytes).then_some(&mut self.out)
    }

    /// Whether something waits to be written.
    pub fn has_output(&self) -> bool {
        self.out_start < self.out.len()
    }

    /// Writes what the kernel takes. True if it took anything.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> Result<bool, DriverError> {
        if !self.has_output() {
            return Ok(false);
        }
        match self.stream.write(&self.out[self.out_start..]) {
            Ok(count) => {
                self.out_start += count;
                if self.out_start == self.out.len() {
                    self.out.clear();
                    self.out_start = 0;
                }
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(self.closed(Some(error))),
        }
    }

    /// Reads once. True if something came.
    ///
    /// # Errors
    /// The connection is broken or closed.
    pub fn fill(&mut self) -> Result<bool, DriverError> {
        if self.input_start == self.input_end {
            (self.input_start, self.input_end) = (0, 0);
        } else if self.input.len() - self.input_end < self.input.len() / 2 {
            self.input.copy_within(self.input_start..self.input_end, 0);
            (self.input_start, self.input_end) = (0, self.input_end - self.input_start);
        }
        match self.stream.read(&mut self.input[self.input_end..]) {
            Ok(0) => Err(self.closed(None)),
            Ok(count) => {
                self.input_end += count;
                Ok(true)
            }
            Err(error) if is_transient(&error) => Ok(false),
            Err(error) => Err(self.closed(Some(error))),
        }
    }

    /// The next whole frame that was read, and its length for [`Connection::consume`].
    ///
    /// # Errors
    /// What came is no frame, or one that is larger than any answer to our requests.
    pub fn next_frame(&self) -> Result<Option<(Frame<'_>, usize)>, DriverError> {
        match split_frame(&self.input[self.input_start..self.input_end], self.input.len() / 2) {
            Ok(Split::Frame { frame, length }) => Ok(Some((frame, length))),
            Ok(Split::NeedMore { .. }) => Ok(None),
            Err(error) => Err(DriverError::Protocol { address: self.address.clone(), reason: error.to_string() }),
        }
    }

    /// Drops a frame that was handled.
    pub fn consume(&mut self, length: usize) {
        self.input_start += length;
    }

    fn closed(&self, source: Option<io::Error>) -> DriverError {
        DriverError::Closed { address: self.address.clone(), source }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
