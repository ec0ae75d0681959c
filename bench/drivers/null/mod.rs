//! A server that answers and does nothing else: the floor of network and client. One thread, one epoll, on a core of its
//! choice. It spins for a moment after each request before it sleeps, so that a lone caller never has to wake it.
//!
//! For self-tests it can keep messages and hand them out again with one fault, answer late, and stall.

mod store;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use ringmq_protocol::codes::request::{PULL_MESSAGE, SEND_BATCH_MESSAGE, SEND_MESSAGE, SEND_MESSAGE_V2};
use ringmq_protocol::codes::response::SUCCESS;
use ringmq_protocol::command::Command;
use ringmq_protocol::frame::{MAX_FRAME_BYTES, Split, split_frame};
use ringmq_protocol::header::HeaderDecoder;
use ringmq_protocol::message_id::MessageIdPrefix;
use ringmq_protocol::send::{MessageIds, SendResult, write_send_response};

pub use store::Fault;
use store::{Held, Store};

use super::DriverError;
use super::remoting::Epoll;
use crate::clock::monotonic_ns;
use crate::load::ledger::LedgerShape;

/// How often the thread looks whether it is to stop, while nothing comes.
const STOP_CHECK_MS: i32 = 20;

/// After how long without a request a server that is adaptive sleeps: longer than a lone caller's pause, and short enough that
/// two spinning threads do not use up a small virtual machine's share of its host.
const SPIN_NS: u64 = 50_000;

/// What the server does when nothing comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Idle {
    /// Spins for a moment, then sleeps.
    #[default]
    Adaptive,
    /// Spins.
    Spin,
    /// Sleeps at once.
    Sleep,
}

/// What the server does besides answering.
#[derive(Debug, Clone, Copy, Default)]
pub struct Behaviour {
    /// What it does when nothing comes.
    pub idle: Idle,
    /// Keeps messages and serves pulls, with this fault.
    pub keep: Option<Fault>,
    /// Answers so much later.
    pub delay_ns: u64,
    /// Stops answering for `.1` at the end of every `.0` nanoseconds.
    pub stall: Option<(u64, u64)>,
    /// Closes all connections after so many sends.
    pub die_after: Option<u64>,
}

/// A running server. Dropping it stops it.
#[derive(Debug)]
pub struct NullServer {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl NullServer {
    /// Starts a server on a free port of 127.0.0.1, on `core` if one is given.
    ///
    /// # Errors
    /// No port or thread can be had.
    pub fn start(core: Option<u32>, behaviour: Behaviour) -> Result<NullServer, DriverError> {
        let failed = |source| DriverError::System { action: "start the echo server", source };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = Arc::new(AtomicBool::new(false));
        let should_stop = Arc::clone(&stop);
        let epoll = Epoll::new([listener.as_raw_fd()])?;
        let thread = std::thread::Builder::new()
            .name("echo".to_owned())
            .spawn(move || {
                if let Some(core) = core {
                    // Unpinned it is a worse floor, and the result shows the cores.
                    let _ = crate::host::pinning::pin_this_thread(&[core]);
                }
                Server::new(listener, epoll, behaviour).run(&should_stop);
            })
            .map_err(failed)?;
        Ok(NullServer { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for NullServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the server has been printed by its own thread.
            let _ = thread.join();
        }
    }
}

struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// Bytes for a connection that go out later.
struct Late {
    due_ns: u64,
    client: usize,
    bytes: Vec<u8>,
}

struct Server {
    listener: TcpListener,
    epoll: Epoll,
    behaviour: Behaviour,
    clients: Vec<Option<Client>>,
    decoder: HeaderDecoder,
    store: Option<Store>,
    late: VecDeque<Late>,
    started_ns: u64,
    /// When something last came.
    last_ns: u64,
    sends: u64,
    message_id_prefix: MessageIdPrefix,
    piece: Vec<u8>,
}

impl Server {
    fn new(listener: TcpListener, epoll: Epoll, behaviour: Behaviour) -> Server {
        Server {
            listener,
            epoll,
            behaviour,
            clients: Vec::new(),
            decoder: HeaderDecoder::new(),
            store: behaviour.keep.map(Store::new),
            late: VecDeque::new(),
            started_ns: monotonic_ns(),
            last_ns: 0,
            sends: 0,
            message_id_prefix: MessageIdPrefix::of(([127, 0, 0, 1], 10911).into()),
            piece: vec![0; 1 << 18],
        }
    }

    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            let is_pressed =
                !self.late.is_empty() || self.clients.iter().flatten().any(|client| !client.output.is_empty());
            let may_sleep = match self.behaviour.idle {
                Idle::Adaptive => monotonic_ns() - self.last_ns > SPIN_NS,
                Idle::Spin => false,
                Idle::Sleep => true,
            };
            let ready = self.epoll.ready(if is_pressed || !may_sleep { 0 } else { STOP_CHECK_MS });
            if ready > 0 {
                self.last_ns = monotonic_ns();
            } else if !may_sleep {
                // Other threads of this core, such as a hiccup meter, get their turn at once.
                // SAFETY: plain call.
                unsafe { libc::sched_yield() };
            }
            if let Some((every_ns, for_ns)) = self.behaviour.stall {
                let phase = (monotonic_ns() - self.started_ns) % every_ns;
                if phase >= every_ns - for_ns {
                    std::thread::sleep(std::time::Duration::from_nanos(every_ns - phase));
                }
            }
            for position in 0..ready {
                match self.epoll.index(position) {
                    0 => self.accept(),
                    index => self.serve(index - 1),
                }
            }
            self.release_late();
            for index in 0..self.clients.len() {
                self.flush(index);
            }
            if self.behaviour.die_after.is_some_and(|most| self.sends >= most) {
                self.clients.clear();
                return;
            }
        }
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let index = self.clients.iter().position(Option::is_none).unwrap_or(self.clients.len());
            let is_set = stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_ok();
            if !is_set || self.epoll.watch(stream.as_raw_fd(), index + 1, libc::EPOLLIN).is_err() {
                continue;
            }
            let client = Some(Client { stream, input: Vec::new(), output: Vec::with_capacity(1 << 16) });
            if index == self.clients.len() {
                self.clients.push(client);
            } else {
                self.clients[index] = client;
            }
        }
    }

    fn serve(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index).and_then(Option::as_mut) else { return };
        match client.stream.read(&mut self.piece) {
            Ok(0) => {
                self.clients[index] = None;
                return;
            }
            Ok(count) => client.input.extend_from_slice(&self.piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                self.clients[index] = None;
                return;
            }
        }
        let input = std::mem::take(&mut client.input);
        let mut output = std::mem::take(&mut client.output);
        let direct = output.len();
        let mut at = 0;
        while let Ok(Split::Frame { frame, length }) = split_frame(&input[at..], MAX_FRAME_BYTES) {
            self.answer(index, &frame, &mut output);
            at += length;
        }
        let late = if self.behaviour.delay_ns > 0 { output.split_off(direct) } else { Vec::new() };
        if !late.is_empty() {
            self.late.push_back(Late { due_ns: monotonic_ns() + self.behaviour.delay_ns, client: index, bytes: late });
        }
        if let Some(client) = self.clients[index].as_mut() {
            client.output = output;
            client.input = input;
            client.input.drain(..at);
        }
    }

    fn answer(&mut self, index: usize, frame: &ringmq_protocol::frame::Frame<'_>, output: &mut Vec<u8>) {
        let Ok(header) = self.decoder.decode_frame(frame) else { return };
        let opaque = header.opaque;
        match header.code {
            SEND_MESSAGE | SEND_MESSAGE_V2 | SEND_BATCH_MESSAGE => {
                let woken = match &mut self.store {
                    Some(store) => store.take(&header, frame.body),
                    None => Vec::new(),
                };
                let offset = i64::try_from(self.sends).unwrap_or(0);
                self.sends += 1;
                let result = SendResult {
                    message_ids: MessageIds { prefix: &self.message_id_prefix, physical_offsets: &[offset] },
                    queue_id: 0,
                    queue_offset: offset,
                    transaction_id: None,
                    region_id: "DefaultRegion",
                    trace_on: true,
                };
                write_send_response(output, frame.serialize_type, opaque, SUCCESS, None, &result);
                self.wake(woken, index, output);
            }
            PULL_MESSAGE => {
                if let Some(store) = &mut self.store {
                    store.pull(index, &header, output);
                }
            }
            _ => Command { serialize_type: frame.serialize_type, ..Command::response(SUCCESS, opaque) }
                .encode_into(output),
        }
    }

    fn wake(&mut self, woken: Vec<Held>, current: usize, output: &mut Vec<u8>) {
        let Some(store) = &mut self.store else { return };
        for held in woken {
            if held.client == current {
                store.answer_held(&held, output);
            } else if let Some(client) = self.clients.get_mut(held.client).and_then(Option::as_mut) {
                store.answer_held(&held, &mut client.output);
            }
        }
    }

    fn release_late(&mut self) {
        let now_ns = monotonic_ns();
        while self.late.front().is_some_and(|late| late.due_ns <= now_ns) {
            let Some(late) = self.late.pop_front() else { return };
            if let Some(client) = self.clients.get_mut(late.client).and_then(Option::as_mut) {
                client.output.extend_from_slice(&late.bytes);
            }
        }
    }

    fn flush(&mut self, index: usize) {
        let Some(client) = self.clients[index].as_mut() else { return };
        if client.output.is_empty() {
            return;
        }
        match client.stream.write(&client.output) {
            Ok(count) if count == client.output.len() => client.output.clear(),
            Ok(count) => {
                client.output.drain(..count);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.clients[index] = None,
        }
    }
}

/// Shape of a ledger for a driver that keeps nothing to be read.
pub fn unread(capacity: u64, body_bytes: usize) -> LedgerShape {
    LedgerShape { run_id: 0, producers: 1, queues: 1, groups: 0, capacity, body_bytes, wanted_every: 1, batch: 1 }
}
