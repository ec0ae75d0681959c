//! Random histories against a plain vector per queue.

use proptest::prelude::*;

use super::super::TailRead;
use super::*;
use crate::sim::SimDisk;

const QUEUES: usize = 70;

#[derive(Debug, Clone)]
enum Step {
    Append { queue: usize, count: u64 },
    Publish { queue: usize },
    FlushDirty,
    Flush { queue: usize },
    Read { queue: usize, from: u64, count: usize },
    Expire { queue: usize, keep: u64 },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    // Few busy queues and many quiet ones.
    let queue = || prop_oneof![0..3usize, 0..QUEUES];
    prop_oneof![
        8 => (queue(), 1..400u64).prop_map(|(queue, count)| Step::Append { queue, count }),
        6 => queue().prop_map(|queue| Step::Publish { queue }),
        2 => Just(Step::FlushDirty),
        3 => queue().prop_map(|queue| Step::Flush { queue }),
        8 => (queue(), 0..3000u64, 1..400usize).prop_map(|(queue, from, count)| Step::Read { queue, from, count }),
        1 => (queue(), 0..500u64).prop_map(|(queue, keep)| Step::Expire { queue, keep }),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default, Clone, Copy)]
struct Model {
    appended: u64,
    published: u64,
    minimum: u64,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48 * ProptestConfig::default().cases.div_ceil(256)))]

    #[test]
    fn agrees_with_a_vector(steps in prop::collection::vec(step(), 1..120)) {
        // Goal: whatever the order of steps, what is published reads back, from memory or file, across restarts. Method:
        // random steps on a pool of one slab and files of 150 entries; the model knows only lengths, since contents follow
        // from offsets.
        let disk: Arc<dyn Disk> = Arc::new(SimDisk::new());
        let (mut store, mut pool) = super::store(&disk, 150, 1);
        let mut models = [Model::default(); QUEUES];
        for step in steps {
            match step {
                Step::Append { queue, count } => {
                    let (model, queue) = (&mut models[queue], super::queue(&store, "t", queue as u32));
                    for _ in 0..count {
                        if queue.append(&pool, entry(u64::from(queue.queue_id().0), model.appended)).is_err() {
                            break;
                        }
                        model.appended += 1;
                    }
                }
                Step::Publish { queue } => {
                    models[queue].published = models[queue].appended;
                    let queue = super::queue(&store, "t", queue as u32);
                    let _ = queue.publish(queue.appended_end(), StoreTimestamp(1));
                }
                Step::FlushDirty => {
                    store.flush_dirty().unwrap();
                    for queue in store.queues() {
                        prop_assert_eq!(queue.flushed(), queue.published());
                    }
                }
                Step::Flush { queue } => {
                    store.flush_queue(&super::queue(&store, "t", queue as u32)).unwrap();
                }
                Step::Read { queue, from, count } => {
                    let model = models[queue];
                    let queue = super::queue(&store, "t", queue as u32);
                    prop_assert_eq!(queue.bounds(), (QueueOffset(model.minimum), QueueOffset(model.published)));
                    let from = from % (model.published + 2);
                    let mut out = vec![QueueEntry::default(); count];
                    match queue.read(QueueOffset(from), &mut out) {
                        TailRead::AtEnd => prop_assert!(from >= model.published),
                        TailRead::NotInMemory => prop_assert!(from < queue.flushed().0),
                        TailRead::Read(count) => {
                            prop_assert!(count > 0 && from + count as u64 <= model.published);
                            for (offset, found) in (from..).zip(&out[..count]) {
                                prop_assert_eq!(*found, entry(u64::from(queue.queue_id().0), offset));
                            }
                        }
                    }
                    if from >= model.minimum && from < model.published {
                        let end = model.published.min(from + count as u64);
                        assert_entries(&store, &queue, u64::from(queue.queue_id().0), from, end);
                    }
                }
                Step::Expire { queue, keep } => {
                    let model = &mut models[queue];
                    let queue = super::queue(&store, "t", queue as u32);
                    let minimum = model.published.saturating_sub(keep).max(model.minimum);
                    store.remove_expired_files(&queue, entry(0, minimum).physical).unwrap();
                    model.minimum = minimum;
                }
                Step::Reopen => {
                    store.flush_dirty().unwrap();
                    (store, pool) = super::store(&disk, 150, 1);
                    store.load(FilesLeft::Whole).unwrap();
                    for (number, model) in models.iter_mut().enumerate() {
                        let queue = super::queue(&store, "t", number as u32);
                        // The minimum is not stored: it is derived from the log again.
                        prop_assert!(queue.bounds().0.0 <= model.minimum);
                        store.correct_minimum(&queue, entry(0, model.minimum).physical).unwrap();
                        model.appended = model.published;
                        prop_assert_eq!(queue.bounds(), (QueueOffset(model.minimum), QueueOffset(model.published)));
                    }
                }
            }
        }
    }
}
