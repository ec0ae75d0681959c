//! A bounded channel that tells how many messages wait in it: the standard library's with a number beside it.
//!
//! Invariant: the number is never below what waits. A message counts from before it is sent until it is received.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(ringmq_loom))]
pub use std::sync::mpsc::TrySendError;
#[cfg(not(ringmq_loom))]
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, SendError, SyncSender, TryRecvError, sync_channel};
#[cfg(not(ringmq_loom))]
use std::time::Duration;

#[cfg(ringmq_loom)]
pub use super::model_queue::TrySendError;
#[cfg(ringmq_loom)]
use super::model_queue::{Receiver, SendError, SyncSender, TryRecvError, sync_channel};

/// Sending side; any thread.
#[derive(Debug)]
pub struct CountedSender<T> {
    sender: SyncSender<T>,
    waiting: Arc<AtomicU64>,
}

impl<T> Clone for CountedSender<T> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), waiting: Arc::clone(&self.waiting) }
    }
}

impl<T> CountedSender<T> {
    /// As [`SyncSender::try_send`].
    ///
    /// # Errors
    /// The channel is full, or its receiver is gone; the message comes back.
    pub fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.counted(|sender| sender.try_send(message))
    }

    /// As [`SyncSender::send`]: waits for room.
    ///
    /// # Errors
    /// The receiver is gone; the message comes back.
    pub fn send(&self, message: T) -> Result<(), SendError<T>> {
        self.counted(|sender| sender.send(message))
    }

    fn counted<E>(&self, send: impl FnOnce(&SyncSender<T>) -> Result<(), E>) -> Result<(), E> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let sent = send(&self.sender);
        if sent.is_err() {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        sent
    }

    /// Messages that wait, those that are being sent among them.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

/// Receiving side.
#[derive(Debug)]
pub struct CountedReceiver<T> {
    receiver: Receiver<T>,
    waiting: Arc<AtomicU64>,
}

impl<T> CountedReceiver<T> {
    /// As [`Receiver::try_recv`].
    ///
    /// # Errors
    /// Nothing waits, or all senders are gone.
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.receiver.try_recv().inspect(|_| self.taken())
    }

    /// As `Receiver::recv`.
    ///
    /// # Errors
    /// All senders are gone.
    #[cfg(not(ringmq_loom))]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.receiver.recv().inspect(|_| self.taken())
    }

    /// As `Receiver::recv_timeout`.
    ///
    /// # Errors
    /// The time is up, or all senders are gone.
    #[cfg(not(ringmq_loom))]
    pub fn recv_timeout(&self, patience: Duration) -> Result<T, RecvTimeoutError> {
        self.receiver.recv_timeout(patience).inspect(|_| self.taken())
    }

    fn taken(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A channel of at most `bound` messages.
pub fn counted_channel<T>(bound: usize) -> (CountedSender<T>, CountedReceiver<T>) {
    let (sender, receiver) = sync_channel(bound);
    let waiting = Arc::new(AtomicU64::new(0));
    (CountedSender { sender, waiting: Arc::clone(&waiting) }, CountedReceiver { receiver, waiting })
}

#[cfg(all(test, not(ringmq_loom)))]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_counted() {
        // Goal: the number follows what is sent and taken, and refused messages do not count. Method: fill it, once too much, empty it
        // in each way, and lose the receiver.
        let (sender, receiver) = counted_channel(3);
        for message in 0..3 {
            sender.try_send(message).expect("there is room");
        }
        assert!(sender.try_send(3).is_err());
        assert_eq!(sender.clone().waiting(), 3);
        assert_eq!((receiver.try_recv(), receiver.recv()), (Ok(0), Ok(1)));
        assert_eq!(sender.waiting(), 1);
        assert_eq!(receiver.recv_timeout(Duration::ZERO), Ok(2));
        assert!(receiver.try_recv().is_err() && receiver.recv_timeout(Duration::ZERO).is_err());
        assert_eq!(sender.waiting(), 0);
        drop(receiver);
        assert!(sender.send(4).is_err() && sender.try_send(5).is_err());
        assert_eq!(sender.waiting(), 0);
    }
}
