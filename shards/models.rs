//! Models of the protocols between threads, for loom: each test runs the real code of its protocol in every order of loads
//! and stores that the memory model allows.
//!
//! ```text
//! RUSTFLAGS="--cfg ringmq_loom" CARGO_TARGET_DIR=target/loom cargo test -p ringmq-shards --release --lib models::
//! ```
//!
//! The sizes of the queue room are the smallest possible there (`queue/limits.rs`). Locks and reference counts are the standard
//! library's and not part of what is tried; no model holds a lock while it touches an atomic. Under lanes and mailboxes lies
//! a queue that promises as little as theirs (`runtime/model_queue.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::thread;

use crate::log::{LogRing, LogView};
use crate::queue::{ChunkPool, DirtySet, Queue, QueueEntry, QueueNumber, Tail, TailRead};
use crate::runtime::{Mailbox, WakeHandle, lane};
use crate::sync::{AtomicBool, Ordering, fence};
use crate::types::{PhysicalOffset, QueueId, QueueOffset, StoreTimestamp};

const RING_BYTES: usize = 4096;

fn entry(number: u64) -> QueueEntry {
    QueueEntry { physical: PhysicalOffset(number), size: number as u32, tags_code: number as i64 }
}

fn new_queue(pool: &ChunkPool, dirty: &Arc<DirtySet>) -> Arc<Queue> {
    dirty.prepare(QueueNumber(0));
    let (dirty, arena) = (Arc::clone(dirty), Arc::clone(pool.arena()));
    Arc::new(Queue::new(Arc::from("T"), QueueId(0), QueueNumber(0), 1, dirty, arena))
}

/// What the writer does with a group of one record: the halves of the publication with one fence between.
fn show(queue: &Queue, pool: &ChunkPool) -> u64 {
    queue.append(pool, entry(7)).expect("the pool is empty");
    queue.publish_in_group(QueueOffset(1), StoreTimestamp(1));
    fence(Ordering::SeqCst);
    queue.announce()
}

/// Goal: no message is slept through. Method: one thread publishes while a shard arms its bit; the shard sees the message, or
/// the writer takes its bit.
#[test]
fn a_waiting_shard_is_woken_or_sees_the_message() {
    loom::model(|| {
        let (pool, dirty) = (ChunkPool::new(1), Arc::new(DirtySet::new()));
        let queue = new_queue(&pool, &dirty);
        let shard = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || queue.arm_waiters(3, QueueOffset(0)))
        };
        let woken = show(&queue, &pool);
        let seen = shard.join().expect("the shard ends");
        assert!(woken == 1 << 3 || (woken == 0 && seen == Some(QueueOffset(1))), "{woken} {seen:?}");
    });
}

/// Goal: what a reader sees below the published length is what was appended. Method: append and publish while a reader reads.
#[test]
fn published_entries_are_whole() {
    loom::model(|| {
        let (pool, dirty) = (ChunkPool::new(1), Arc::new(DirtySet::new()));
        let queue = new_queue(&pool, &dirty);
        let reader = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                let mut out = [QueueEntry::default()];
                match queue.read(QueueOffset(0), &mut out) {
                    TailRead::AtEnd => {}
                    TailRead::Read(1) => assert_eq!(out[0], entry(7)),
                    other => panic!("{other:?} although nothing is in a file"),
                }
            })
        };
        assert_eq!(show(&queue, &pool), 0);
        reader.join().expect("the reader ends");
    });
}

/// Goal: no queue with entries is forgotten by the flush thread. Method: drain while the writer publishes; the drain sees
/// mark and length, or the mark is there for the next one.
#[test]
fn a_marked_queue_is_flushed() {
    loom::model(|| {
        let (pool, dirty) = (ChunkPool::new(1), Arc::new(DirtySet::new()));
        let queue = new_queue(&pool, &dirty);
        let flusher = {
            let (queue, dirty) = (Arc::clone(&queue), Arc::clone(&dirty));
            thread::spawn(move || {
                let drained = !dirty.drain().is_empty();
                (drained, queue.published())
            })
        };
        assert_eq!(show(&queue, &pool), 0);
        let (drained, published) = flusher.join().expect("the flusher ends");
        assert!(!drained || published == QueueOffset(1), "the mark came without its length");
        assert_ne!(drained, !dirty.drain().is_empty(), "the mark is taken once");
    });
}

/// Goal: a reader never takes another queue's entries for its own. Method: the pool has one chunk; it moves from one tail to
/// another while a reader reads the first.
#[test]
fn a_reused_chunk_is_noticed() {
    loom::model(|| {
        let pool = ChunkPool::new(1);
        let tails = [(); 2].map(|()| Arc::new(Tail::new(Arc::clone(pool.arena()))));
        tails[0].append(&pool, entry(7)).expect("the pool is empty");
        tails[0].publish(1);
        tails[0].set_flushed(1);
        let reader = {
            let tail = Arc::clone(&tails[0]);
            thread::spawn(move || {
                let mut out = [QueueEntry::default()];
                match tail.read(QueueOffset(0), &mut out) {
                    TailRead::NotInMemory => {}
                    TailRead::Read(1) => assert_eq!(out[0], entry(7)),
                    other => panic!("{other:?}"),
                }
            })
        };
        tails[1].append(&pool, entry(9)).expect("the flushed chunk is free");
        tails[1].publish(1);
        reader.join().expect("the reader ends");
    });
}

/// Goal: memory of entries that are in no file is never reused, and the flush thread always finds them there. Method: the
/// flush thread reads and then declares the entry flushed, while the writer wants the only chunk.
#[test]
fn unflushed_entries_stay_in_memory() {
    loom::model(|| {
        let pool = ChunkPool::new(1);
        let tails = [(); 2].map(|()| Arc::new(Tail::new(Arc::clone(pool.arena()))));
        tails[0].append(&pool, entry(7)).expect("the pool is empty");
        tails[0].publish(1);
        let flusher = {
            let tail = Arc::clone(&tails[0]);
            thread::spawn(move || {
                let mut out = [QueueEntry::default()];
                assert_eq!(tail.read(QueueOffset(0), &mut out), TailRead::Read(1));
                assert_eq!(out[0], entry(7));
                tail.set_flushed(1);
            })
        };
        let _ = tails[1].append(&pool, entry(9));
        flusher.join().expect("the flusher ends");
    });
}

/// Goal: ring memory is not overwritten under a reader. Method: a reader pins and reads while the writer raises the floor and
/// overwrites what nobody pins; loom notices when both touch it.
#[test]
fn pinned_memory_is_not_reused() {
    loom::model(|| {
        let ring = LogRing::new(RING_BYTES).expect("a page");
        let view = LogView::new(ring, 1, 0, 0, 0);
        let memory = Arc::new(UnsafeCell::new(1));
        let reader = {
            let (view, memory) = (Arc::clone(&view), Arc::clone(&memory));
            thread::spawn(move || {
                if view.pin(0, 5) {
                    // SAFETY: the pin covers offset 5, which this memory stands for; loom checks that.
                    memory.with(|value| assert_eq!(unsafe { *value }, 1));
                    view.unpin(0);
                }
            })
        };
        if view.raise_floor(10) > 5 {
            // SAFETY: nobody pins below 10; loom checks that.
            memory.with_mut(|value| unsafe { *value = 2 });
        }
        reader.join().expect("the reader ends");
    });
}

/// Goal: the last confirmed record and its end belong together. Method: ask while the writer confirms twice.
#[test]
fn the_confirmed_record_is_one() {
    loom::model(|| {
        let ring = LogRing::new(RING_BYTES).expect("a page");
        let view = LogView::new(ring, 1, 0, 0, 0);
        let reader = {
            let view = Arc::clone(&view);
            thread::spawn(move || view.confirmed_record())
        };
        view.confirm(0, 10, 1);
        view.confirm(10, 25, 2);
        let seen = reader.join().expect("the reader ends");
        assert!([None, Some((10, 0)), Some((25, 10))].contains(&seen), "{seen:?}");
    });
}

/// Goal: a shard never sleeps over a message. Method: a sender delivers and wakes while the shard goes to sleep; the shard
/// finds the message, or its eventfd is written.
#[test]
fn a_sleeping_shard_is_woken() {
    loom::model(|| {
        let wake = WakeHandle::new().expect("an eventfd");
        let message = Arc::new(AtomicBool::new(false));
        let sender = {
            let (wake, message) = (wake.clone(), Arc::clone(&message));
            thread::spawn(move || {
                message.store(true, Ordering::Relaxed);
                wake.wake();
            })
        };
        wake.announce_sleep();
        let found = message.load(Ordering::Relaxed);
        sender.join().expect("the sender ends");
        assert!(found || wake.wakes() == 1, "the shard sleeps for ever");
    });
}

/// What a shard does before it sleeps, as its loop does it: says that it will, and looks once more. False when it sleeps.
fn finds_a_last(wake: &WakeHandle, mut look: impl FnMut() -> Option<u32>, found: &mut Vec<u32>) -> bool {
    wake.announce_sleep();
    let Some(message) = look() else { return false };
    wake.announce_awake();
    found.push(message);
    true
}

/// Goal: no message in a lane is slept over, and none is lost or passes another, also when the lane is full at times. Method: three
/// messages through a lane of two, one alone and the rest with one wake-up; the receiver goes to sleep after each that it finds.
/// Asleep, it must have been woken if there is anything left.
#[test]
fn a_lane_wakes_its_receiver_and_keeps_everything() {
    loom::model(|| {
        let wake = WakeHandle::new().expect("an eventfd");
        let (mut sender, mut receiver) = lane(2, wake.clone());
        let sending = thread::spawn(move || {
            sender.send(1).expect("an empty lane");
            let mut waiting = VecDeque::from([2, 3]);
            sender.send_all(&mut waiting);
            (sender, waiting)
        });
        let mut found = Vec::new();
        let is_awake = (0..3).all(|_| finds_a_last(&wake, || receiver.receive(), &mut found));
        let (mut sender, mut waiting) = sending.join().expect("the sender ends");
        let was_woken = is_awake || wake.wakes() > 0;
        let before = found.len();
        found.extend(std::iter::from_fn(|| receiver.receive()));
        assert!(was_woken || found.len() == before, "the shard sleeps for ever over {:?}", &found[before..]);
        // What did not fit is the sender's, which tries again.
        sender.send_all(&mut waiting);
        found.extend(std::iter::from_fn(|| receiver.receive()));
        assert_eq!(found, [1, 2, 3]);
    });
}

/// Goal: no message in a mailbox is slept over or lost. Method: two senders with a message each; the shard goes to sleep after each
/// message that it finds. Three threads have too many orders for all of them: those with up to three interruptions.
#[test]
fn a_mailbox_wakes_its_shard_and_keeps_everything() {
    let mut bounded = loom::model::Builder::new();
    bounded.preemption_bound = Some(3);
    bounded.check(|| {
        let wake = WakeHandle::new().expect("an eventfd");
        let (sender, mailbox) = Mailbox::new(2, wake.clone());
        let other = sender.clone();
        let senders = [(sender, 1), (other, 2)].map(|(sender, message)| thread::spawn(move || sender.send(message)));
        let mut found = Vec::new();
        let is_awake = (0..2).all(|_| finds_a_last(&wake, || mailbox.receive(), &mut found));
        for sender in senders {
            sender.join().expect("the sender ends").expect("the mailbox has room for two");
        }
        let was_woken = is_awake || wake.wakes() > 0;
        let before = found.len();
        found.extend(std::iter::from_fn(|| mailbox.receive()));
        assert!(was_woken || found.len() == before, "the shard sleeps for ever over {:?}", &found[before..]);
        found.sort_unstable();
        assert_eq!(found, [1, 2]);
    });
}

/// Goal: the models notice a receiver that looks before it says that it will sleep. Method: such a receiver.
#[test]
#[should_panic(expected = "the shard sleeps for ever")]
fn a_receiver_that_looks_too_early_is_noticed() {
    loom::model(|| {
        let wake = WakeHandle::new().expect("an eventfd");
        let (mut sender, mut receiver) = lane(2, wake.clone());
        let sending = thread::spawn(move || sender.send(1));
        let found = receiver.receive();
        wake.announce_sleep();
        sending.join().expect("the sender ends").expect("an empty lane");
        assert!(found.is_some() || wake.wakes() == 1, "the shard sleeps for ever");
    });
}
