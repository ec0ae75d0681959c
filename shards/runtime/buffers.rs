//! Provided receive buffers: memory that the kernel fills and the shard gives back.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::IoUring;
use io_uring::types::BufRingEntry;

/// Group number of the only buffer ring of a shard.
pub const BUFFER_GROUP: u16 = 0;

/// A ring of receive buffers registered with one io_uring.
pub struct ReceiveBuffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    count: u16,
    buffer_bytes: usize,
    tail: u16,
}

fn map(bytes: usize) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let address = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap returned null"))
}

impl ReceiveBuffers {
    /// Maps and registers `count` (a power of two) buffers of `buffer_bytes` each.
    pub fn register(ring: &IoUring, count: u16, buffer_bytes: usize) -> io::Result<Self> {
        assert!(count.is_power_of_two(), "the kernel wants a power of two of buffers");
        let entries = map(Self::entries_bytes(count))?.cast::<BufRingEntry>();
        let memory = map(usize::from(count) * buffer_bytes)?;
        // SAFETY: the entry array is mapped, page-aligned, and lives as long as the ring (both are owned by `Ring`).
        unsafe { ring.submitter().register_buf_ring_with_flags(entries.as_ptr() as u64, count, BUFFER_GROUP, 0)? };
        let mut buffers = Self { entries, memory, count, buffer_bytes, tail: 0 };
        for id in 0..count {
            buffers.push(id);
        }
        buffers.publish();
        Ok(buffers)
    }

    fn entries_bytes(count: u16) -> usize {
        usize::from(count) * size_of::<BufRingEntry>()
    }

    fn address(&self, id: u16) -> *mut u8 {
        assert!(id < self.count, "buffer {id} does not exist");
        // SAFETY: inside the mapping by the check above.
        unsafe { self.memory.as_ptr().add(usize::from(id) * self.buffer_bytes) }
    }

    fn push(&mut self, id: u16) {
        let address = self.address(id) as u64;
        let index = usize::from(self.tail & (self.count - 1));
        // SAFETY: `index` < `count`; the kernel reads the entry only after the tail is published. The tail word shares
        // the first entry's reserved field, which the setters below do not touch.
        let entry = unsafe { &mut *self.entries.as_ptr().add(index) };
        entry.set_addr(address);
        entry.set_len(u32::try_from(self.buffer_bytes).unwrap_or(u32::MAX));
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: `entries` is the base of the registered ring; its tail is an aligned 16-bit word that the kernel reads.
        let tail = unsafe { &*BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    /// The received bytes in buffer `id`.
    ///
    /// # Safety
    /// A completion has handed the buffer to the caller, with at least `length` bytes, and it was not given back since.
    pub unsafe fn received(&self, id: u16, length: usize) -> &[u8] {
        assert!(length <= self.buffer_bytes, "the kernel filled more than a buffer");
        // SAFETY: the caller owns the buffer until it is given back.
        unsafe { std::slice::from_raw_parts(self.address(id), length) }
    }

    /// Gives a buffer back to the kernel.
    pub fn give_back(&mut self, id: u16) {
        self.push(id);
        self.publish();
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: both ranges were mapped by `register`; the owner drops the io_uring first, so the kernel is done.
        unsafe {
            libc::munmap(self.entries.as_ptr().cast(), Self::entries_bytes(self.count));
            libc::munmap(self.memory.as_ptr().cast(), usize::from(self.count) * self.buffer_bytes);
        }
    }
}
