//! The nested io_uring of a shard: batched submission, multishot receives into provided buffers.
//!
//! Owned by the shard's thread; operations name their owner by a [`Token`]. Memory that an operation points to must stay
//! where it is until the completion with its token arrives: each caller says how.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::{BUFFER_GROUP, ReceiveBuffers};
use super::limits::{COMPLETION_ENTRIES, RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS, RING_ENTRIES};

/// Who an operation belongs to: a kind (the owner's own numbering), a slot and a 24-bit generation that tells a reused slot
/// from its predecessor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// What the operation was.
    pub kind: u8,
    /// Slot in the owner's table.
    pub slot: u32,
    /// Low 24 bits of the slot's generation.
    pub generation: u32,
}

/// Mask of the generation's bits that a token carries.
pub const GENERATION_MASK: u32 = 0x00FF_FFFF;

impl Token {
    /// A token; the generation is cut to 24 bits.
    pub fn new(kind: u8, slot: u32, generation: u32) -> Self {
        Self { kind, slot, generation: generation & GENERATION_MASK }
    }

    fn pack(self) -> u64 {
        u64::from(self.kind) << 56 | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    fn unpack(value: u64) -> Self {
        Self { kind: (value >> 56) as u8, slot: value as u32, generation: (value >> 32) as u32 & GENERATION_MASK }
    }
}

/// A finished (or, for multishot operations, continuing) operation.
#[derive(Debug, Clone, Copy)]
pub struct Completion {
    /// Whose.
    pub token: Token,
    /// Result: a count or descriptor, or a negative errno.
    pub result: i32,
    /// The receive buffer that holds the data.
    pub buffer: Option<u16>,
    /// Whether the multishot operation stays armed.
    pub more: bool,
}

impl Completion {
    /// The result as Rust has it.
    pub fn outcome(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }
}

/// Sizes of a ring; the defaults are in `limits`.
#[derive(Debug, Clone, Copy)]
pub struct RingOptions {
    /// Submission entries.
    pub entries: u32,
    /// Receive buffers, a power of two.
    pub receive_buffers: u16,
    /// Bytes of each.
    pub receive_buffer_bytes: usize,
}

impl Default for RingOptions {
    fn default() -> Self {
        Self { entries: RING_ENTRIES, receive_buffers: RECEIVE_BUFFERS, receive_buffer_bytes: RECEIVE_BUFFER_BYTES }
    }
}

/// What the kernel was asked to do, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct RingCounters {
    /// Calls of io_uring_enter.
    pub enters: u64,
    /// Of these, calls that could sleep.
    pub sleeps: u64,
    /// Receives that found no buffer and were armed again.
    pub receive_buffers_exhausted: u64,
}

/// A shard's io_uring. Fields drop in order: the kernel lets go before the buffers are unmapped.
pub struct Ring {
    uring: IoUring,
    buffers: ReceiveBuffers,
    counters: RingCounters,
}

/// Builds the io_uring with the best flags that this kernel has (measured: DEFER_TASKRUN with SINGLE_ISSUER wins by 10 to
/// 30 % at moderate depth). The flag TASKRUN tells without a system call that completions wait to be made: deferred work is
/// only done by an enter that asks for events, and a poll would not ask without it.
pub(super) fn build(entries: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETION_ENTRIES).setup_clamp().setup_submit_all();
    // Linux 6.0 has SINGLE_ISSUER and multishot receives, 5.19 neither: there it must fail now, not at the first connection.
    builder.setup_taskrun_flag().setup_single_issuer();
    let mut best = builder.clone();
    match best.setup_defer_taskrun().build(entries) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => builder.setup_coop_taskrun().build(entries),
        result => result,
    }
}

impl Ring {
    /// Creates the ring on the calling thread, which alone may use it.
    pub fn new(options: RingOptions) -> io::Result<Self> {
        let uring = build(options.entries)?;
        let buffers = ReceiveBuffers::register(&uring, options.receive_buffers, options.receive_buffer_bytes)?;
        Ok(Self { uring, buffers, counters: RingCounters::default() })
    }

    /// Queues an entry, submitting first if the queue is full.
    ///
    /// # Errors
    /// `EBUSY` when the kernel takes nothing before completions were drained, which only the caller can do: no entry was queued.
    ///
    /// # Safety
    /// The memory that the entry points to stays in place, and is not used against the operation, until its completion.
    unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        loop {
            // SAFETY: forwarded to the caller.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            if !self.try_submit()? {
                return Err(io::Error::from_raw_os_error(libc::EBUSY));
            }
        }
    }

    /// Hands queued operations to the kernel without waiting. Non-blocking sends are finished when this returns.
    pub fn submit(&mut self) -> io::Result<()> {
        // If the completion queue is full the caller drains it and comes back.
        self.try_submit().map(|_| ())
    }

    /// As [`Self::submit`]; false when the kernel takes nothing because the completion queue is full.
    fn try_submit(&mut self) -> io::Result<bool> {
        self.counters.enters += 1;
        loop {
            match self.uring.submit() {
                Ok(_) => return Ok(true),
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Submits and waits for a completion, at most `timeout` (`None`: for ever; zero: only polls).
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        self.counters.enters += 1;
        let want = usize::from(timeout != Some(Duration::ZERO));
        self.counters.sleeps += want as u64;
        let timespec = timeout.map(types::Timespec::from);
        let arguments = types::SubmitArgs::new();
        let arguments = match &timespec {
            Some(timespec) => arguments.timespec(timespec),
            None => arguments,
        };
        match self.uring.submitter().submit_with_args(want, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether a poll would find something: completions, or work that makes them. Costs no system call.
    pub fn is_due(&mut self) -> bool {
        self.uring.submission().taskrun() || !self.uring.completion().is_empty()
    }

    /// Moves what has completed into `out` (cleared first).
    pub fn completions(&mut self, out: &mut Vec<Completion>) {
        out.clear();
        for entry in self.uring.completion() {
            let flags = entry.flags();
            if entry.result() == -libc::ENOBUFS {
                self.counters.receive_buffers_exhausted += 1;
            }
            out.push(Completion {
                token: Token::unpack(entry.user_data()),
                result: entry.result(),
                buffer: cqueue::buffer_select(flags),
                more: cqueue::more(flags),
            });
        }
    }

    /// What the kernel was asked so far.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Whether operations are queued that were not submitted yet.
    pub fn has_queued(&mut self) -> bool {
        !self.uring.submission().is_empty()
    }

    /// Accepts connections until cancelled; each completion's result is a descriptor.
    pub fn accept(&mut self, listener: RawFd, token: Token) -> io::Result<()> {
        let entry = opcode::AcceptMulti::new(types::Fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Receives into provided buffers until cancelled, the peer closes, or buffers run out (then arm it again).
    pub fn receive(&mut self, socket: RawFd, token: Token) -> io::Result<()> {
        let entry = opcode::RecvMulti::new(types::Fd(socket), BUFFER_GROUP).build();
        // SAFETY: the entry names the group of provided buffers, which the ring owns and drops after the kernel let go.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Receives once, at most `length` bytes, into a provided buffer.
    pub fn receive_some(&mut self, socket: RawFd, length: u32, token: Token) -> io::Result<()> {
        let entry = opcode::Recv::new(types::Fd(socket), std::ptr::null_mut(), length).buf_group(BUFFER_GROUP).build();
        // SAFETY: the entry names the group of provided buffers, which the ring owns and drops after the kernel let go.
        unsafe { self.push(&entry.flags(squeue::Flags::BUFFER_SELECT).user_data(token.pack())) }
    }

    /// The bytes of a receive completion.
    ///
    /// # Safety
    /// `buffer` and `length` come from one completion, and the buffer was not given back since.
    pub unsafe fn received(&self, buffer: u16, length: usize) -> &[u8] {
        // SAFETY: forwarded to the caller.
        unsafe { self.buffers.received(buffer, length) }
    }

    /// Gives a receive buffer back to the kernel.
    pub fn give_back(&mut self, buffer: u16) {
        self.buffers.give_back(buffer);
    }

    /// Sends all of a buffer (the kernel retries short sends itself).
    ///
    /// # Safety
    /// The bytes stay in place and unchanged until the completion.
    pub unsafe fn send(&mut self, socket: RawFd, bytes: *const u8, length: u32, token: Token) -> io::Result<()> {
        let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
        let entry = opcode::Send::new(types::Fd(socket), bytes, length).flags(flags).build();
        // SAFETY: forwarded to the caller.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Sends what the socket takes at once from gathered slices; finished when `submit` or `wait` returns.
    ///
    /// # Safety
    /// The message header, its slices and their bytes stay in place and unchanged until the completion.
    pub unsafe fn send_gathered(
        &mut self,
        socket: RawFd,
        message: *const libc::msghdr,
        token: Token,
    ) -> io::Result<()> {
        let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u32;
        let entry = opcode::SendMsg::new(types::Fd(socket), message).flags(flags).build();
        // SAFETY: forwarded to the caller.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Writes to a file at an offset.
    ///
    /// # Safety
    /// The bytes stay in place until the completion. (Bytes behind the end of the log may change; see `log::writer`.)
    pub unsafe fn write(
        &mut self,
        file: RawFd,
        bytes: *const u8,
        length: u32,
        offset: u64,
        token: Token,
    ) -> io::Result<()> {
        let entry = opcode::Write::new(types::Fd(file), bytes, length).offset(offset).build();
        // SAFETY: forwarded to the caller.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Reads from a file at an offset.
    ///
    /// # Safety
    /// The memory stays in place, and nobody else touches it, until the completion.
    pub unsafe fn read(
        &mut self,
        file: RawFd,
        bytes: *mut u8,
        length: u32,
        offset: u64,
        token: Token,
    ) -> io::Result<()> {
        let entry = opcode::Read::new(types::Fd(file), bytes, length).offset(offset).build();
        // SAFETY: forwarded to the caller.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Makes a file's data durable (`fdatasync`).
    pub fn sync_data(&mut self, file: RawFd, token: Token) -> io::Result<()> {
        let entry = opcode::Fsync::new(types::Fd(file)).flags(types::FsyncFlags::DATASYNC).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Completes once when the socket takes bytes again, or is broken.
    pub fn writable(&mut self, socket: RawFd, token: Token) -> io::Result<()> {
        let entry = opcode::PollAdd::new(types::Fd(socket), libc::POLLOUT as u32).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(&entry.user_data(token.pack())) }
    }

    /// Cancels the operation with token `target`; its own completion arrives as well.
    pub fn cancel(&mut self, target: Token, token: Token) -> io::Result<()> {
        // SAFETY: the entry points to no memory.
        unsafe { self.push(&opcode::AsyncCancel::new(target.pack()).build().user_data(token.pack())) }
    }

    /// Descriptor of the ring itself.
    pub fn raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_full_queue_is_handed_over_first() {
        // Goal: operations beyond the submission queue's length are neither lost nor refused. Method: ten times as many that complete at
        // once, without a submit between them.
        let mut ring = Ring::new(RingOptions { entries: 8, receive_buffers: 2, receive_buffer_bytes: 4096 }).unwrap();
        let (nobody, mut slots) = (Token::new(9, 0, 0), Vec::new());
        (0..80).for_each(|slot| ring.cancel(nobody, Token::new(1, slot, 0)).unwrap());
        let mut completions = Vec::new();
        while slots.len() < 80 {
            ring.wait(None).unwrap();
            ring.completions(&mut completions);
            assert!(completions.iter().all(|completion| completion.result == -libc::ENOENT));
            slots.extend(completions.iter().map(|completion| completion.token.slot));
        }
        slots.sort_unstable();
        assert_eq!(slots, (0..80).collect::<Vec<_>>());
    }

    #[test]
    fn a_poll_finds_what_has_completed() {
        // Goal: what completes while nobody sleeps in the ring is seen in memory, and taken by a wait of no time. Method: a read of a
        // pipe waits, another thread writes, this one looks.
        let mut ring = Ring::new(RingOptions { entries: 8, receive_buffers: 2, receive_buffer_bytes: 4096 }).unwrap();
        let mut ends = [0; 2];
        // SAFETY: the array holds both descriptors.
        assert_eq!(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
        // SAFETY: both were just opened and nobody else knows them.
        let [reading, mut writing] = ends.map(|descriptor| unsafe { File::from_raw_fd(descriptor) });
        let mut value = [0_u8; 8];
        let token = Token::new(1, 2, 3);
        // SAFETY: the value outlives the read, which completes below.
        unsafe { ring.read(reading.as_raw_fd(), value.as_mut_ptr(), 8, 0, token).unwrap() };
        ring.submit().unwrap();
        assert!(!ring.is_due(), "nothing was written");
        let writer = std::thread::spawn(move || writing.write_all(b"12345678").map(|()| writing));
        let started = Instant::now();
        while !ring.is_due() {
            assert!(started.elapsed() < Duration::from_secs(30), "a completed read is not seen");
            std::hint::spin_loop();
        }
        ring.wait(Some(Duration::ZERO)).unwrap();
        let mut completions = Vec::new();
        ring.completions(&mut completions);
        let found: Vec<_> = completions.iter().map(|completion| (completion.token, completion.result)).collect();
        assert_eq!((found, &value), (vec![(token, 8)], b"12345678"));
        drop(writer.join().expect("it does not panic").expect("written"));
    }
}
