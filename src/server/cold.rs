//! What a reader thread hands to a shard: a frame in a buffer, or its head in a buffer and its body in pipes.
//!
//! Each reader owns a pool of buffers and one of pipes; both come back through a channel when the shard lets go of them,
//! wherever that happens, so that a broken connection loses nothing. The bytes of pipes count against `cold_read_bytes` until
//! then; a copied frame does so until the connection has it, whose buffers count it from then on.

use std::ops::Deref;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::{fmt, io};

use ringmq_shards::runtime::FilledPipe;

use super::limits;
use super::shared::Shared;

/// The buffers of one reader, most recently used ones kept.
#[derive(Debug)]
pub struct BufferPool {
    idle: Receiver<Vec<u8>>,
    returns: SyncSender<Vec<u8>>,
}

impl Default for BufferPool {
    fn default() -> Self {
        let (returns, idle) = sync_channel(limits::IDLE_COLD_BUFFERS);
        Self { idle, returns }
    }
}

impl BufferPool {
    /// A buffer of `length` bytes of any content.
    pub fn take(&self, length: usize) -> ColdBuffer {
        let mut memory = self.idle.try_recv().unwrap_or_default();
        if memory.len() < length {
            // What is there need not be copied.
            memory.clear();
            memory.resize(length, 0);
        }
        ColdBuffer { memory, length, returns: self.returns.clone() }
    }
}

/// Bytes from a reader thread.
pub struct ColdBuffer {
    memory: Vec<u8>,
    /// Bytes of `memory` that count.
    length: usize,
    returns: SyncSender<Vec<u8>>,
}

impl ColdBuffer {
    /// To be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[..self.length]
    }
}

impl Deref for ColdBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.length]
    }
}

impl fmt::Debug for ColdBuffer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ColdBuffer({})", self.length)
    }
}

impl Drop for ColdBuffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        if memory.capacity() <= limits::IDLE_COLD_BUFFER_BYTES {
            // Full or gone: then the memory is freed.
            let _ = self.returns.try_send(memory);
        }
    }
}

/// A filled pipe with its share of the budget.
#[derive(Debug)]
pub struct PipedBytes {
    pipe: FilledPipe,
    charged: u64,
    shared: Arc<Shared>,
}

impl PipedBytes {
    /// Counts a filled pipe.
    pub fn new(pipe: FilledPipe, shared: &Arc<Shared>) -> Self {
        let charged = pipe.len() as u64;
        shared.cold.take(charged);
        shared.piped_bytes.fetch_add(charged, Ordering::Relaxed);
        shared.pipes_in_use.fetch_add(1, Ordering::Relaxed);
        Self { pipe, charged, shared: Arc::clone(shared) }
    }

    /// Bytes that are still in it.
    pub fn len(&self) -> usize {
        self.pipe.len()
    }

    /// Whether all has been sent.
    pub fn is_empty(&self) -> bool {
        self.pipe.is_empty()
    }

    /// As [`FilledPipe::send`].
    pub fn send(&mut self, socket: RawFd, more: bool) -> io::Result<usize> {
        self.pipe.send(socket, more)
    }

    /// As [`FilledPipe::drain`].
    pub fn drain(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.pipe.drain(out)
    }
}

impl Drop for PipedBytes {
    fn drop(&mut self) {
        self.shared.pipes_in_use.fetch_sub(1, Ordering::Relaxed);
        self.shared.piped_bytes.fetch_sub(self.charged, Ordering::Relaxed);
        self.shared.cold.release(self.charged);
    }
}

/// An answer from the log's files.
#[derive(Debug)]
pub struct ColdAnswer {
    /// The whole frame, or what comes before the pipes.
    pub frame: ColdBuffer,
    /// The body, in order; empty when the frame is whole.
    pub pipes: Vec<PipedBytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back() {
        // Goal: a buffer is used again, a huge one is not kept. Method: addresses of buffers that are taken one after the other.
        let pool = BufferPool::default();
        let mut first = pool.take(10);
        first.bytes_mut().copy_from_slice(b"0123456789");
        let address = first.as_ptr();
        drop(first);
        let again = pool.take(4);
        assert_eq!((again.as_ptr(), &*again), (address, &b"0123"[..]));
        drop(pool.take(limits::IDLE_COLD_BUFFER_BYTES + 1));
        assert!(pool.idle.try_recv().is_err(), "too large to be kept");
        drop(again);
        assert_eq!(pool.take(4_096).len(), 4_096);
    }
}
