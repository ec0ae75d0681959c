//! Hints to the processor about memory that is needed soon. They change nothing but when loads are fast.

/// Bytes that come into the cache together.
pub const CACHE_LINE_BYTES: usize = 64;

/// Asks for the line in which the value begins.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    hint(std::ptr::from_ref(value).cast());
}

/// Asks for all lines of the value. For values of a few lines.
#[inline(always)]
pub fn prefetch_whole<T>(value: &T) {
    let start = std::ptr::from_ref(value).cast::<u8>();
    for line in (0..size_of::<T>()).step_by(CACHE_LINE_BYTES) {
        hint(start.wrapping_add(line));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn hint(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint without effect on memory, allowed for any address. SSE is part of every x86-64.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn hint(_address: *const u8) {}
