//! Answers that wait until name servers have heard of what was asked (RocketMQ `BrokerOuterAPI.registerBrokerAll`).
//!
//! A round of registrations shares one [`HeldAnswer`]: whoever has done its part drops its share, and the last one lets the answer
//! go. So nobody looks for it, and no thread waits. The control thread keeps the deadlines.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use ringmq_shards::runtime::MailboxSender;

use super::messages::ShardMessage;

/// A message for a shard that is sent when the last share of it is dropped.
#[derive(Default)]
pub struct HeldAnswer(Mutex<Option<(MailboxSender<ShardMessage>, ShardMessage)>>);

impl HeldAnswer {
    fn content(&self) -> MutexGuard<'_, Option<(MailboxSender<ShardMessage>, ShardMessage)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn release(&self) {
        let content = self.content().take();
        if let Some((mailbox, message)) = content
            && !mailbox.send_blocking(message)
        {
            tracing::debug!("a shard is gone; its held answer is dropped");
        }
    }
}

impl Drop for HeldAnswer {
    fn drop(&mut self) {
        self.release();
    }
}

/// The answers that are held, with the times at which they go whatever has come. A connection counts those of its requests, so
/// there are no more than requests under way.
#[derive(Default)]
pub struct HeldAnswers {
    deadlines: Vec<(u64, Weak<HeldAnswer>)>,
}

impl HeldAnswers {
    /// Lets a message wait for the other shares of `round`, at most until `deadline_ms` of the steady clock.
    pub fn hold(
        &mut self,
        round: Arc<HeldAnswer>,
        mailbox: MailboxSender<ShardMessage>,
        message: ShardMessage,
        deadline_ms: u64,
    ) {
        *round.content() = Some((mailbox, message));
        let share = Arc::downgrade(&round);
        drop(round);
        if share.strong_count() > 0 {
            self.deadlines.push((deadline_ms, share));
        }
    }

    /// Sends the messages whose time is over.
    pub fn expire(&mut self, now_ms: u64) {
        self.deadlines.retain(|(deadline_ms, share)| match share.upgrade() {
            Some(held) if *deadline_ms <= now_ms => {
                held.release();
                false
            }
            Some(_) => true,
            None => false,
        });
    }

    /// Sends all messages: nobody looks after them any more.
    pub fn release_all(&mut self) {
        self.expire(u64::MAX);
    }
}
