//! Counts heap allocations per thread, so that the generator can prove that its measured phase has none.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Without a destructor and const, so that reading it never allocates itself.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// The system allocator with a counter.
#[derive(Debug)]
pub struct CountingAllocator;

#[global_allocator]
static GLOBAL: CountingAllocator = CountingAllocator;

fn count() {
    // The counter is gone while a thread ends; what it allocates then is nobody's.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system allocator unchanged.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// Allocations of the calling thread so far.
pub fn allocations_of_this_thread() -> u64 {
    ALLOCATIONS.try_with(Cell::get).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: an allocation is seen, and only that of this thread. Method: count around a box, and around work elsewhere.
    #[test]
    fn counts_this_thread() {
        let before = allocations_of_this_thread();
        let value = std::hint::black_box(Box::new(7));
        assert_eq!(allocations_of_this_thread(), before + 1);
        drop(value);
        let thread = std::thread::spawn(|| std::hint::black_box(vec![0_u8; 100]).len());
        let after_spawn = allocations_of_this_thread();
        while !thread.is_finished() {
            std::hint::spin_loop();
        }
        assert_eq!(allocations_of_this_thread(), after_spawn);
    }
}
