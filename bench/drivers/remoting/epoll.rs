//! Asks the kernel which of many connections have something to read.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use super::super::DriverError;

/// Events taken at once.
const EVENTS: usize = 256;

/// A level-triggered epoll over a fixed list of descriptors.
#[derive(Debug)]
pub struct Epoll {
    descriptor: OwnedFd,
    events: Vec<libc::epoll_event>,
}

impl Epoll {
    /// Watches descriptors; their positions are their indexes.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn new(watched: impl IntoIterator<Item = RawFd>) -> Result<Epoll, DriverError> {
        let refused = |action| DriverError::System { action, source: io::Error::last_os_error() };
        // SAFETY: plain call without pointers.
        let raw = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if raw < 0 {
            return Err(refused("create an epoll"));
        }
        // SAFETY: the descriptor is new and owned by nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        let mut epoll = Epoll { descriptor, events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS] };
        for (index, fd) in watched.into_iter().enumerate() {
            epoll.watch(fd, index, libc::EPOLLIN)?;
        }
        Ok(epoll)
    }

    /// Watches one more descriptor for `interest`.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn watch(&mut self, fd: RawFd, index: usize, interest: i32) -> Result<(), DriverError> {
        let mut event = libc::epoll_event { events: interest.cast_unsigned(), u64: index as u64 };
        // SAFETY: the event is alive during the call, and the kernel copies it.
        let code = unsafe { libc::epoll_ctl(self.descriptor.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) };
        if code < 0 {
            return Err(DriverError::System { action: "watch a socket", source: io::Error::last_os_error() });
        }
        Ok(())
    }

    /// How many are ready, waiting at most `timeout_ms`.
    pub fn ready(&mut self, timeout_ms: i32) -> usize {
        let room = i32::try_from(self.events.len()).unwrap_or(0);
        // SAFETY: the events are an array of `room` elements that the kernel may write.
        let count =
            unsafe { libc::epoll_wait(self.descriptor.as_raw_fd(), self.events.as_mut_ptr(), room, timeout_ms) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Index of a ready descriptor; `position` is below what [`Epoll::ready`] said.
    pub fn index(&self, position: usize) -> usize {
        usize::try_from(self.events[position].u64).unwrap_or(usize::MAX)
    }
}
