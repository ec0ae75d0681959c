//! Messages into a shard from other threads.
//!
//! A mailbox is a bounded channel plus the shard's [`WakeHandle`]. A shard that is awake polls its mailboxes each turn; one
//! that sleeps in its ring is woken by an eventfd, written only when it said that it sleeps (Dekker: the shard raises its flag,
//! fences, looks once more; a sender sends, fences, reads the flag).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use super::channel::{CountedReceiver, CountedSender, TrySendError, counted_channel};
use crate::sync::{AtomicBool, AtomicU64, Ordering, fence};

#[derive(Debug)]
struct WakeInner {
    event: OwnedFd,
    sleeping: AtomicBool,
    wakes: AtomicU64,
}

/// Wakes one shard.
#[derive(Debug, Clone)]
pub struct WakeHandle(Arc<WakeInner>);

impl WakeHandle {
    /// A handle for a shard that is awake.
    pub fn new() -> io::Result<Self> {
        // SAFETY: eventfd returns a new descriptor or -1.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `fd` was just created and is owned by nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self(Arc::new(WakeInner { event, sleeping: AtomicBool::new(false), wakes: AtomicU64::new(0) })))
    }

    /// Wakes the shard if it sleeps. Call it after the message is where the shard will look.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        let sleeping = &self.0.sleeping;
        if sleeping.load(Ordering::Relaxed)
            && sleeping.compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            self.0.wakes.fetch_add(1, Ordering::Relaxed);
            let one = 1_u64.to_ne_bytes();
            // SAFETY: eight readable bytes and an open eventfd. It cannot be full: each write is paired with a read of the
            // shard before it sleeps again.
            let written = unsafe { libc::write(self.0.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
            assert_eq!(written, 8, "an eventfd takes eight bytes: {}", io::Error::last_os_error());
        }
    }

    /// The shard is about to sleep; it must look at its mailboxes once more after this returns.
    pub fn announce_sleep(&self) {
        self.0.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The shard is awake. False when somebody has written the event in the meantime, so that its read will complete.
    pub fn announce_awake(&self) -> bool {
        self.0.sleeping.swap(false, Ordering::AcqRel)
    }

    /// The eventfd, for the shard's ring to read.
    pub fn raw_fd(&self) -> RawFd {
        self.0.event.as_raw_fd()
    }

    /// How often the eventfd was written.
    pub fn wakes(&self) -> u64 {
        self.0.wakes.load(Ordering::Relaxed)
    }
}

/// Sending side of a mailbox; any thread.
#[derive(Debug)]
pub struct MailboxSender<T> {
    sender: CountedSender<T>,
    wake: WakeHandle,
}

impl<T> Clone for MailboxSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), wake: self.wake.clone() }
    }
}

impl<T> MailboxSender<T> {
    /// Delivers a message without blocking. Gives it back when the mailbox is full or the shard is gone.
    pub fn send(&self, message: T) -> Result<(), T> {
        match self.sender.try_send(message) {
            Ok(()) => {
                self.wake.wake();
                Ok(())
            }
            Err(TrySendError::Full(message) | TrySendError::Disconnected(message)) => Err(message),
        }
    }

    /// Delivers a message, waiting for room. Only for threads that may block. False when the shard is gone.
    pub fn send_blocking(&self, message: T) -> bool {
        let sent = self.sender.send(message).is_ok();
        self.wake.wake();
        sent
    }

    /// Messages that the shard has not taken yet.
    pub fn waiting(&self) -> u64 {
        self.sender.waiting()
    }
}

/// Receiving side of a mailbox; the shard's thread.
#[derive(Debug)]
pub struct Mailbox<T>(CountedReceiver<T>);

impl<T> Mailbox<T> {
    /// A mailbox of at most `bound` messages for the shard behind `wake`.
    pub fn new(bound: usize, wake: WakeHandle) -> (MailboxSender<T>, Self) {
        let (sender, receiver) = counted_channel(bound);
        (MailboxSender { sender, wake }, Self(receiver))
    }

    /// The next message, if there is one. Never blocks.
    pub fn receive(&self) -> Option<T> {
        self.0.try_recv().ok()
    }
}
