//! Memory whose address is a multiple of 4,096, as direct I/O asks for.
//!
//! A buffer is zeroed when it is made and keeps its length for life; its owner is whoever holds it.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

use super::DIRECT_ALIGNMENT;

/// A zeroed, page-aligned buffer of a fixed length.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the buffer owns its memory exclusively, like a `Box<[u8]>`.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared access gives only `&[u8]`.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// Allocates `length` zero bytes.
    ///
    /// # Panics
    /// When `length` is zero, or so large that no such allocation can exist.
    pub fn zeroed(length: usize) -> Self {
        assert!(length > 0, "an aligned buffer is never empty");
        let layout = Layout::from_size_align(length, DIRECT_ALIGNMENT as usize).expect("length fits in memory");
        // SAFETY: the layout has a non-zero size, as asserted above.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, layout }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `memory` is valid for `layout.size()` initialised bytes for as long as `self` lives.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.layout.size()) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `alloc_zeroed` with this very layout and freed once.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Direct I/O needs aligned, zeroed, writable memory: make some of odd length and use both ends.
    #[test]
    fn memory_is_aligned_zeroed_and_writable() {
        let mut buffer = AlignedBuffer::zeroed(5000);
        assert_eq!(buffer.as_ptr() as usize % 4096, 0);
        assert_eq!(buffer.len(), 5000);
        assert!(buffer.iter().all(|byte| *byte == 0));
        buffer[0] = 1;
        buffer[4999] = 2;
        assert_eq!((buffer[0], buffer[4999]), (1, 2));
    }
}
