//! The persister thread: it writes state files, so that the control thread, which serves everybody, never waits for the disk.
//!
//! It gets batches of files, one batch at a time, and says what became of each file. Who orders holds at most one content per file
//! back (`control_thread/files.rs`), so there is no more in memory than each file twice.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::thread::JoinHandle;

use ringmq_shards::disk::{Disk, Reserve, StateFile, StateFileError};
use ringmq_shards::recovery::StorePaths;

use super::messages::ControlRequest;
use super::storage::{Sidecar, write_queue_offsets};

/// What is to be in a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// These bytes.
    Bytes(Vec<u8>),
    /// What the sidecar says when it is written: the barriers of deleted topics.
    Barriers,
}

/// One file to be written. Later orders have higher numbers.
#[derive(Debug)]
pub struct Order {
    /// Its number.
    pub ticket: u64,
    /// The file.
    pub path: PathBuf,
    /// What is to be in it.
    pub content: Content,
}

/// What became of an order.
#[derive(Debug)]
pub struct Written {
    /// The order.
    pub order: Order,
    /// How it ended.
    pub outcome: Result<(), StateFileError>,
}

/// The thread, as the control thread sees it. It ends when this is dropped.
pub struct Persister {
    orders: Option<SyncSender<Vec<Order>>>,
    written: Receiver<Vec<Written>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread works with.
struct Work {
    disk: Arc<dyn Disk>,
    /// Where a broker's files lie, and what it knows of its queues.
    store: Option<(StorePaths, Arc<Sidecar>)>,
    /// Room for state files on a full disk.
    reserve: Option<Reserve>,
    orders: Receiver<Vec<Order>>,
    written: Sender<Vec<Written>>,
    /// Where the control thread waits.
    wake: SyncSender<ControlRequest>,
}

impl Persister {
    /// Starts the thread. A broker has a store.
    pub fn start(
        disk: Arc<dyn Disk>,
        store: Option<(StorePaths, Arc<Sidecar>)>,
        wake: SyncSender<ControlRequest>,
    ) -> io::Result<Self> {
        let (sender, orders) = sync_channel(1);
        let (outcomes, written) = channel();
        let reserve = store.as_ref().map(|(paths, _)| Reserve::new(paths.reserve()));
        let mut work = Work { disk, store, reserve, orders, written: outcomes, wake };
        let thread = std::thread::Builder::new().name("persister".to_owned()).spawn(move || work.run())?;
        Ok(Self { orders: Some(sender), written, thread: Some(thread) })
    }

    /// Has these files written, in this order. The batch before must be done. An empty one looks after the reserve only.
    pub fn order(&self, batch: Vec<Order>) -> bool {
        self.orders.as_ref().is_some_and(|orders| orders.try_send(batch).is_ok())
    }

    /// What became of the batch, if it is done; an error when the thread is gone.
    pub fn try_written(&self) -> Result<Vec<Written>, TryRecvError> {
        self.written.try_recv()
    }

    /// The same, waiting for it.
    pub fn wait_written(&self) -> Option<Vec<Written>> {
        self.written.recv().ok()
    }
}

impl Drop for Persister {
    fn drop(&mut self) {
        self.orders = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the persister panicked");
        }
    }
}

impl Work {
    fn run(&mut self) {
        while let Ok(batch) = self.orders.recv() {
            let written = batch.into_iter().map(|order| self.write(order)).collect();
            self.refill_reserve();
            if self.written.send(written).is_err() {
                return;
            }
            // A full mailbox means that the control thread is awake, and it looks here between any two requests.
            let _ = self.wake.try_send(ControlRequest::Written);
        }
    }

    fn write(&mut self, order: Order) -> Written {
        let (disk, path) = (self.disk.as_ref(), &order.path);
        let is_json_file = path.extension().is_some_and(|extension| extension == "json");
        // What may become the backup: RocketMQ's files are JSON.
        let is_valid = |content: &[u8]| !is_json_file || ringmq_protocol::json::parse(content).is_ok();
        let write = || match (&order.content, &self.store) {
            (Content::Bytes(bytes), _) => StateFile::new(path).persist(disk, bytes, is_valid),
            (Content::Barriers, Some((paths, sidecar))) => write_queue_offsets(disk, paths, sidecar),
            (Content::Barriers, None) => Ok(()),
        };
        let outcome = match &mut self.reserve {
            Some(reserve) => reserve.write(disk, write),
            None => write(),
        };
        Written { order, outcome }
    }

    fn refill_reserve(&mut self) {
        if let Some(reserve) = &mut self.reserve
            && let Err(error) = reserve.refill(self.disk.as_ref())
        {
            tracing::debug!(%error, "no room can be kept back for state files");
        }
    }
}
