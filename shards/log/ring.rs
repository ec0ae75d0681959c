//! The log ring: the most recent bytes of the log in memory, addressed by physical offset.
//!
//! The memory is mapped twice, back to back, so that every record is contiguous wherever it lies. A byte of the log at
//! physical offset `p` is at `p % size`; `size` is a multiple of the page, and so is every segment, therefore pages of
//! the ring are pages of the files.
//!
//! One thread writes (the log writer). Others read only offsets in `[floor, confirmed)` under a pin: see
//! [`LogView`](super::LogView).

use std::io;
use std::ptr::{self, NonNull};

use super::limits::PAGE_BYTES;

/// Size of a huge page where pages have 4 KiB.
pub const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Twice-mapped memory of the log.
pub struct LogRing {
    base: NonNull<u8>,
    size: usize,
    /// Address and length of the reservation that holds both mappings.
    reserved: (*mut libc::c_void, usize),
}

// SAFETY: the memory lives as long as the value; who may touch which bytes is governed by the writer and by pins.
unsafe impl Send for LogRing {}
// SAFETY: as above; shared access is through raw pointers whose callers state why the range is theirs.
unsafe impl Sync for LogRing {}

impl LogRing {
    /// Maps a ring of `size` bytes, a power of two and at least one page. Memory is taken lazily, at first touch.
    pub fn new(size: usize) -> io::Result<Self> {
        assert!(size.is_power_of_two() && size as u64 >= PAGE_BYTES, "ring size {size} is not a power of two of pages");
        // SAFETY: the name is NUL-terminated; memfd_create returns a new descriptor or -1.
        let fd = unsafe { libc::memfd_create(c"ringmq-log-ring".as_ptr(), libc::MFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        let mapped = Self::map(fd, size);
        // SAFETY: `fd` was created above; mappings keep the memory alive without it.
        unsafe { libc::close(fd) };
        mapped
    }

    fn map(fd: i32, size: usize) -> io::Result<Self> {
        // SAFETY: plain integers and an open descriptor.
        if unsafe { libc::ftruncate(fd, size as libc::off_t) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // Huge pages of the file can be mapped as such only where addresses are as round as they are.
        let length = size * 2 + HUGE_PAGE_BYTES;
        // SAFETY: an anonymous reservation at an address of the kernel's choice touches no existing mapping.
        let reserved = unsafe {
            libc::mmap(ptr::null_mut(), length, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        if reserved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let shift = reserved.cast::<u8>().align_offset(HUGE_PAGE_BYTES);
        // SAFETY: less than a huge page further, so both mappings are inside the reservation.
        let base = unsafe { reserved.byte_add(shift) };
        for half in 0..2 {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            // SAFETY: the target range lies inside the reservation made above and replaces only it.
            let address = unsafe { libc::mmap(base.byte_add(half * size), size, protection, flags, fd, 0) };
            if address == libc::MAP_FAILED {
                let error = io::Error::last_os_error();
                // SAFETY: unmaps exactly the reservation made above.
                unsafe { libc::munmap(reserved, length) };
                return Err(error);
            }
        }
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { base, size, reserved: (reserved, length) })
    }

    /// Puts the [`HUGE_PAGE_BYTES`] at `position`, a multiple of that, on one huge page. Their content stays; a thread
    /// that touches them meanwhile waits, for about 100 microseconds. Linux 6.1 and newer can, whatever is set for
    /// transparent huge pages. Errors: those of `madvise`; the ring works on as it was.
    pub fn use_huge_page(&self, position: usize) -> io::Result<()> {
        assert!(
            position.is_multiple_of(HUGE_PAGE_BYTES) && position + HUGE_PAGE_BYTES <= self.size,
            "{position} is not where a huge page of the ring begins"
        );
        // Memory without a single page is refused, so the first is brought in.
        for (length, advice) in
            [(PAGE_BYTES as usize, libc::MADV_POPULATE_WRITE), (HUGE_PAGE_BYTES, libc::MADV_COLLAPSE)]
        {
            // SAFETY: the range is part of the first mapping, and neither advice changes a byte.
            if unsafe { libc::madvise(self.base.as_ptr().add(position).cast(), length, advice) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    }

    /// Size in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Address of the byte at `physical`; at least `size` bytes from there are contiguous.
    pub fn at(&self, physical: u64) -> *mut u8 {
        let index = (physical & (self.size as u64 - 1)) as usize;
        // SAFETY: `index` < `size` and the mapping is `2 * size` long.
        unsafe { self.base.as_ptr().add(index) }
    }

    /// The bytes `[physical, physical + length)`.
    ///
    /// # Safety
    /// No thread may write any of them while the slice lives: they are below the writer's end, and either the caller is
    /// the writer's thread or it holds a pin at or below `physical`.
    pub unsafe fn slice(&self, physical: u64, length: usize) -> &[u8] {
        assert!(length <= self.size, "a slice of {length} bytes is longer than the ring");
        // SAFETY: contiguous by the mirror; exclusivity is the caller's promise.
        unsafe { std::slice::from_raw_parts(self.at(physical), length) }
    }

    /// The bytes `[physical, physical + length)` for writing.
    ///
    /// # Safety
    /// The caller is the writer's thread, the range is free (at or beyond the end, not pinned), and no other slice
    /// overlaps it.
    #[allow(clippy::mut_from_ref, reason = "the ring is memory that the single writer hands out by offset")]
    pub unsafe fn slice_mut(&self, physical: u64, length: usize) -> &mut [u8] {
        assert!(length <= self.size, "a slice of {length} bytes is longer than the ring");
        // SAFETY: contiguous by the mirror; exclusivity is the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.at(physical), length) }
    }
}

impl Drop for LogRing {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `map` reserved; nobody holds a slice past the owner's life.
        unsafe { libc::munmap(self.reserved.0, self.reserved.1) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record that crosses the end of the ring must read back whole: write across the seam and look at both sides.
    #[test]
    fn wraps_without_a_seam() {
        let ring = LogRing::new(8192).expect("map a ring");
        // SAFETY: single-threaded test, ranges do not overlap in time.
        unsafe {
            ring.slice_mut(8190, 4).copy_from_slice(b"abcd");
            assert_eq!(ring.slice(8190, 4), b"abcd");
            assert_eq!(ring.slice(8192, 2), b"cd");
            assert_eq!(ring.slice(0, 2), b"cd");
        }
    }
}
