//! Lanes: bounded queues from one shard to one other, for what is frequent.
//!
//! A lane has one sending and one receiving thread, so that neither a lock nor a compare-and-swap is needed and nothing is
//! allocated after it was made. Like a mailbox it wakes a receiver that sleeps in its ring (see [`super::mailbox`] for the order
//! in which the two look at each other). A full lane gives back what does not fit: the sender keeps it and slows down.

use std::collections::VecDeque;

#[cfg(not(ringmq_loom))]
use rtrb::{Consumer, Producer, PushError, RingBuffer};

use super::mailbox::WakeHandle;
#[cfg(ringmq_loom)]
use super::model_queue::{Consumer, Producer, PushError, RingBuffer};

/// Sending end of a lane; one thread.
#[derive(Debug)]
pub struct LaneSender<T> {
    producer: Producer<T>,
    wake: WakeHandle,
}

/// Receiving end of a lane; one thread.
#[derive(Debug)]
pub struct LaneReceiver<T>(Consumer<T>);

/// A lane of at most `bound` messages to the shard behind `wake`.
pub fn lane<T>(bound: usize, wake: WakeHandle) -> (LaneSender<T>, LaneReceiver<T>) {
    let (producer, consumer) = RingBuffer::new(bound);
    (LaneSender { producer, wake }, LaneReceiver(consumer))
}

impl<T> LaneSender<T> {
    /// Delivers a message and wakes the receiver. Gives it back when the lane is full.
    pub fn send(&mut self, message: T) -> Result<(), T> {
        self.send_quietly(message)?;
        self.wake.wake();
        Ok(())
    }

    /// Delivers a message that the receiver finds when it is awake anyway.
    pub fn send_quietly(&mut self, message: T) -> Result<(), T> {
        self.producer.push(message).map_err(|PushError::Full(message)| message)
    }

    /// Delivers as many as fit from the front of `messages`, with one publication and one wake-up.
    pub fn send_all(&mut self, messages: &mut VecDeque<T>) {
        let count = messages.len().min(self.producer.slots());
        if count == 0 {
            return;
        }
        if let Ok(chunk) = self.producer.write_chunk_uninit(count) {
            chunk.fill_from_iter(messages.drain(..count));
        }
        self.wake.wake();
    }
}

impl<T> LaneReceiver<T> {
    /// The next message, if there is one. Never blocks.
    pub fn receive(&mut self) -> Option<T> {
        self.0.pop().ok()
    }

    /// Whether nothing is there now.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(all(test, not(ringmq_loom)))]
mod tests {
    use super::*;

    fn small() -> (LaneSender<u32>, LaneReceiver<u32>) {
        lane(4, WakeHandle::new().expect("an eventfd"))
    }

    #[test]
    fn a_full_lane_gives_back() {
        // Goal: nothing is dropped and order holds. Method: more messages than fit, both ways of sending, drained in between.
        let (mut sender, mut receiver) = small();
        let mut waiting: VecDeque<u32> = (0..6).collect();
        sender.send_all(&mut waiting);
        assert_eq!(waiting, [4, 5]);
        assert_eq!((sender.send(9), sender.send_quietly(9)), (Err(9), Err(9)));
        assert_eq!((receiver.receive(), receiver.receive()), (Some(0), Some(1)));
        sender.send_all(&mut waiting);
        assert!(waiting.is_empty() && !receiver.is_empty());
        assert_eq!(std::iter::from_fn(|| receiver.receive()).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert!(receiver.is_empty());
    }

    #[test]
    fn a_sleeper_is_woken_once() {
        // Goal: one wake-up for many messages, none for an awake receiver or a quiet message. Method: the handle's counter.
        let wake = WakeHandle::new().expect("an eventfd");
        let (mut sender, _receiver) = lane(8, wake.clone());
        sender.send(1).expect("room");
        assert_eq!(wake.wakes(), 0);
        wake.announce_sleep();
        sender.send_quietly(2).expect("room");
        assert_eq!(wake.wakes(), 0);
        sender.send_all(&mut VecDeque::from([3, 4]));
        sender.send(5).expect("room");
        assert_eq!(wake.wakes(), 1);
    }

    #[test]
    fn threads_hand_over_everything() {
        // Goal: order and completeness between two threads. Method: a sender that is often refused, a receiver that checks.
        let (mut sender, mut receiver) = small();
        let sending = std::thread::spawn(move || {
            let mut waiting = VecDeque::new();
            for number in 0..20_000 {
                waiting.push_back(number);
                while waiting.len() > 3 {
                    sender.send_all(&mut waiting);
                    std::thread::yield_now();
                }
            }
            while !waiting.is_empty() {
                sender.send_all(&mut waiting);
            }
        });
        let mut expected = 0;
        while expected < 20_000 {
            match receiver.receive() {
                Some(number) => {
                    assert_eq!(number, expected);
                    expected += 1;
                }
                None => std::thread::yield_now(),
            }
        }
        sending.join().expect("sent");
    }
}
