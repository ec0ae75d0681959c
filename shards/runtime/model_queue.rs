//! A bounded queue for loom's models, in place of the ring of `rtrb` under a lane and of the channel of the standard library under
//! a mailbox, whose own atomics a model cannot replace.
//!
//! It promises what both promise and not more: what was put in is seen by who takes it out, in the order of each sender. A
//! look that finds nothing tells the sender nothing, as with a lock it would: so whatever else a protocol needs, it must do
//! itself. The way of it is Dmitry Vyukov's bounded queue: a sequence number per slot, with releases and acquires.

use std::collections::vec_deque::Drain;
use std::sync::Arc;

use loom::cell::UnsafeCell;

use crate::sync::{AtomicU64, Ordering};

#[derive(Debug)]
struct Slot<T> {
    sequence: AtomicU64,
    value: UnsafeCell<Option<T>>,
}

#[derive(Debug)]
struct Shared<T> {
    slots: Vec<Slot<T>>,
    next_in: AtomicU64,
    /// One thread's.
    next_out: AtomicU64,
}

// SAFETY: a slot's value is touched by the thread that its sequence number names; loom checks that.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    fn new(bound: usize) -> Arc<Self> {
        assert!(bound > 1, "one slot cannot tell full from empty");
        let slot = |number| Slot { sequence: AtomicU64::new(number), value: UnsafeCell::new(None) };
        let slots = (0..bound as u64).map(slot).collect();
        Arc::new(Self { slots, next_in: AtomicU64::new(0), next_out: AtomicU64::new(0) })
    }

    fn bound(&self) -> u64 {
        self.slots.len() as u64
    }

    fn slot(&self, number: u64) -> &Slot<T> {
        &self.slots[(number % self.bound()) as usize]
    }

    fn put(&self, message: T) -> Result<(), T> {
        let mut number = self.next_in.load(Ordering::Relaxed);
        loop {
            let slot = self.slot(number);
            if slot.sequence.load(Ordering::Acquire) != number {
                let now = self.next_in.load(Ordering::Relaxed);
                if now == number {
                    return Err(message);
                }
                number = now;
                continue;
            }
            match self.next_in.compare_exchange(number, number + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    // SAFETY: the slot is empty, and its number is this thread's.
                    slot.value.with_mut(|value| unsafe { *value = Some(message) });
                    slot.sequence.store(number + 1, Ordering::Release);
                    return Ok(());
                }
                Err(now) => number = now,
            }
        }
    }

    fn has(&self) -> bool {
        let number = self.next_out.load(Ordering::Relaxed);
        self.slot(number).sequence.load(Ordering::Acquire) == number + 1
    }

    fn take(&self) -> Option<T> {
        if !self.has() {
            return None;
        }
        let number = self.next_out.load(Ordering::Relaxed);
        let slot = self.slot(number);
        // SAFETY: the slot is full, and one thread takes.
        let message = slot.value.with_mut(|value| unsafe { (*value).take() });
        slot.sequence.store(number + self.bound(), Ordering::Release);
        self.next_out.store(number + 1, Ordering::Relaxed);
        message
    }
}

/// As `rtrb::RingBuffer`.
pub(super) struct RingBuffer;

impl RingBuffer {
    #[allow(clippy::new_ret_no_self, reason = "as the original has it")]
    pub(super) fn new<T>(bound: usize) -> (Producer<T>, Consumer<T>) {
        let shared = Shared::new(bound);
        (Producer(Arc::clone(&shared)), Consumer(shared))
    }
}

/// As `rtrb::PushError`.
pub(super) enum PushError<T> {
    Full(T),
}

/// As `rtrb::Producer`.
#[derive(Debug)]
pub(super) struct Producer<T>(Arc<Shared<T>>);

impl<T> Producer<T> {
    pub(super) fn push(&mut self, message: T) -> Result<(), PushError<T>> {
        self.0.put(message).map_err(PushError::Full)
    }

    pub(super) fn slots(&self) -> usize {
        let next = self.0.next_in.load(Ordering::Relaxed);
        let is_free = |number: &u64| self.0.slot(*number).sequence.load(Ordering::Acquire) == *number;
        (next..next + self.0.bound()).take_while(is_free).count()
    }

    pub(super) fn write_chunk_uninit(&mut self, count: usize) -> Result<Chunk<'_, T>, ()> {
        if count <= self.slots() { Ok(Chunk(self)) } else { Err(()) }
    }
}

/// As `rtrb::chunks::WriteChunkUninit`.
pub(super) struct Chunk<'a, T>(&'a Producer<T>);

impl<T> Chunk<'_, T> {
    pub(super) fn fill_from_iter(self, messages: Drain<'_, T>) {
        messages.for_each(|message| assert!(self.0.0.put(message).is_ok(), "the chunk has room"));
    }
}

/// As `rtrb::Consumer`.
#[derive(Debug)]
pub(super) struct Consumer<T>(Arc<Shared<T>>);

impl<T> Consumer<T> {
    pub(super) fn pop(&mut self) -> Result<T, ()> {
        self.0.take().ok_or(())
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.0.has()
    }
}

/// As `std::sync::mpsc::TrySendError`.
pub enum TrySendError<T> {
    Full(T),
    #[allow(dead_code, reason = "no model drops the receiver first")]
    Disconnected(T),
}

/// As `std::sync::mpsc::SendError`; no model drops the receiver first.
pub struct SendError<T>(#[allow(dead_code, reason = "as the original has it")] pub T);

/// As `std::sync::mpsc::TryRecvError`.
pub struct TryRecvError;

/// As `std::sync::mpsc::SyncSender`.
#[derive(Debug)]
pub(super) struct SyncSender<T>(Arc<Shared<T>>);

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> SyncSender<T> {
    pub(super) fn try_send(&self, message: T) -> Result<(), TrySendError<T>> {
        self.0.put(message).map_err(TrySendError::Full)
    }

    pub(super) fn send(&self, message: T) -> Result<(), SendError<T>> {
        let mut message = message;
        while let Err(back) = self.0.put(message) {
            message = back;
            loom::thread::yield_now();
        }
        Ok(())
    }
}

/// As `std::sync::mpsc::Receiver`.
#[derive(Debug)]
pub(super) struct Receiver<T>(Arc<Shared<T>>);

impl<T> Receiver<T> {
    pub(super) fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.take().ok_or(TryRecvError)
    }
}

/// As `std::sync::mpsc::sync_channel`.
pub(super) fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let shared = Shared::new(bound);
    (SyncSender(Arc::clone(&shared)), Receiver(shared))
}
