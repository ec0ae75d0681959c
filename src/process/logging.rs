//! Log output that never holds up a shard: lines go through a bounded channel to one writer thread. When the channel is
//! full the line is dropped and counted, and the writer says how many were.
//!
//! The writer thread owns the target. The counter and the level are process-wide, as the subscriber is.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::LogLevel;

/// Lines that may wait for the target: a burst of a start or of a lost disk, about 1 MiB.
const MAX_WAITING_LINES: usize = 4096;
/// How long the line that says ready, and the end of the process, wait for the log's target.
pub const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
/// How long a new log file waits for lines that are stuck on their way to the old one: whoever waits also waits for signals.
const REOPEN_PATIENCE: Duration = Duration::from_secs(1);
/// A longer line is cut: one line must not be the memory of thousands.
const MAX_LINE_BYTES: usize = 16 * 1024;

static DROPPED_LINES: AtomicU64 = AtomicU64::new(0);
static PROCESS_LOG: OnceLock<ProcessLog> = OnceLock::new();

struct ProcessLog {
    level: reload::Handle<LevelFilter, Registry>,
    sender: Sender<Item>,
    /// The file that lines go to, if it is one.
    file: Option<String>,
}

enum Item {
    Line(Vec<u8>),
    Flush(Sender<()>),
    Target(Box<dyn Write + Send>),
}

/// Starts logging for the process. A second call changes the level only.
pub fn start(level: LogLevel, target: &str) -> io::Result<()> {
    if PROCESS_LOG.get().is_some() {
        set_level(level);
        return Ok(());
    }
    let file = (target != "stderr").then(|| target.to_owned());
    let target = file.as_deref().map_or_else(|| Ok(Box::new(io::stderr()) as Box<dyn Write + Send>), open_file)?;
    let (sender, receiver) = bounded(MAX_WAITING_LINES);
    std::thread::Builder::new().name("log".into()).spawn(move || write_lines(&receiver, target, &DROPPED_LINES))?;
    let (filter, handle) = reload::Layer::new(filter_of(level));
    let lines = LineSender { sender: sender.clone(), dropped: &DROPPED_LINES };
    let format = tracing_subscriber::fmt::layer().with_ansi(false).with_thread_names(true).with_writer(lines);
    Registry::default().with(filter).with(format).try_init().map_err(io::Error::other)?;
    let _ = PROCESS_LOG.set(ProcessLog { level: handle, sender, file });
    Ok(())
}

fn open_file(path: &str) -> io::Result<Box<dyn Write + Send>> {
    Ok(Box::new(OpenOptions::new().create(true).append(true).open(path)?))
}

/// Goes on in a new file of the same name, for whoever has moved the old one away; false if lines do not go to a file. Blocks, so
/// not from a shard.
///
/// # Errors
/// The file cannot be opened; lines still go to the old one.
pub fn reopen() -> io::Result<bool> {
    let Some((log, file)) = PROCESS_LOG.get().and_then(|log| Some((log, log.file.as_deref()?))) else {
        return Ok(false);
    };
    let sent = log.sender.send_timeout(Item::Target(open_file(file)?), REOPEN_PATIENCE);
    sent.map_err(|_| io::Error::other("the log's target is stuck"))?;
    Ok(true)
}

/// Changes the level while running.
pub fn set_level(level: LogLevel) {
    if let Some(log) = PROCESS_LOG.get() {
        // The only error is that the subscriber is gone, which it never is.
        let _ = log.level.reload(filter_of(level));
    }
}

/// Waits until all lines so far are at the target, but not longer than `patience`: the target may be stuck.
/// Call it before the process ends; it blocks, so not from a shard.
pub fn flush(patience: Duration) {
    if let Some(log) = PROCESS_LOG.get() {
        flush_through(&log.sender, patience);
    }
}

/// Lines dropped since the start because the target was too slow.
pub fn dropped_lines() -> u64 {
    DROPPED_LINES.load(Ordering::Relaxed)
}

fn filter_of(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

fn flush_through(sender: &Sender<Item>, patience: Duration) {
    let deadline = Instant::now() + patience;
    let (done, finished) = bounded(1);
    if sender.send_deadline(Item::Flush(done), deadline).is_ok() {
        // A timeout is the answer too: the target is stuck and the end of the process does not wait for it.
        let _ = finished.recv_deadline(deadline);
    }
}

/// The writer thread: ends when all senders are gone. Errors of the target are counted as dropped lines; there is
/// nowhere else to report them.
fn write_lines(receiver: &Receiver<Item>, mut target: Box<dyn Write + Send>, dropped: &AtomicU64) {
    let mut reported = 0;
    for item in receiver {
        let total = dropped.load(Ordering::Relaxed);
        if total > reported
            && writeln!(target, "{} log lines dropped: the log target was too slow", total - reported).is_ok()
        {
            reported = total;
        }
        match item {
            Item::Line(line) => {
                if target.write_all(&line).is_err() {
                    dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            Item::Target(new) => target = new,
            Item::Flush(done) => {
                let _ = target.flush();
                let _ = done.send(());
            }
        }
    }
}

/// Hands lines to the writer thread without waiting.
#[derive(Clone)]
struct LineSender {
    sender: Sender<Item>,
    dropped: &'static AtomicU64,
}

impl<'writer> MakeWriter<'writer> for LineSender {
    type Writer = LineSender;

    fn make_writer(&'writer self) -> LineSender {
        self.clone()
    }
}

/// Each call is one whole line: the subscriber formats an event into a buffer and writes that once.
impl Write for LineSender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut kept = line[..line.len().min(MAX_LINE_BYTES)].to_vec();
        if kept.len() < line.len() {
            kept.extend_from_slice(b"... (cut)\n");
        }
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.sender.try_send(Item::Line(kept)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A target that lets nothing through until its gate is opened.
    struct Gated {
        gate: Receiver<()>,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Once the gate's other end is dropped, recv returns at once.
            let _ = self.gate.recv();
            self.written.lock().map_err(|_| io::Error::other("poisoned"))?.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stuck_target_drops_lines_and_counts_them() {
        // Goal: logging never waits. Method: a target that is stuck, twice as many lines as fit, then let it go.
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let (sender, receiver) = bounded(8);
        let (open, gate) = bounded(0);
        let written = Arc::new(Mutex::new(Vec::new()));
        let target = Gated { gate, written: Arc::clone(&written) };
        let thread = std::thread::spawn(move || write_lines(&receiver, Box::new(target), &DROPPED));
        let mut lines = LineSender { sender: sender.clone(), dropped: &DROPPED };
        for _ in 0..16 {
            lines.write_all(b"a line\n").expect("never fails");
        }
        let dropped = DROPPED.load(Ordering::Relaxed);
        assert!((7..=8).contains(&dropped), "8 waited, one may have been on its way: {dropped} dropped");
        flush_through(&sender, Duration::from_millis(1));
        drop(open);
        flush_through(&sender, Duration::from_secs(60));
        drop((lines, sender));
        thread.join().expect("the writer ends with its senders");
        let text = String::from_utf8(written.lock().expect("not poisoned").clone()).expect("text");
        assert_eq!(text.matches("a line\n").count() as u64, 16 - dropped);
        // The target may have taken its first line when only some were dropped: then it says so twice.
        let told = text.lines().filter_map(|line| line.split_once(" log lines dropped")?.0.parse::<u64>().ok());
        assert_eq!(told.sum::<u64>(), dropped, "{text}");
    }

    #[test]
    fn long_lines_are_cut() {
        // Goal: a line has a bound. Method: one that is too long.
        static DROPPED: AtomicU64 = AtomicU64::new(0);
        let (sender, receiver) = bounded(1);
        let mut lines = LineSender { sender, dropped: &DROPPED };
        lines.write_all(&vec![b'x'; MAX_LINE_BYTES * 2]).expect("never fails");
        let Ok(Item::Line(line)) = receiver.recv() else { panic!("a line") };
        assert_eq!(line.len(), MAX_LINE_BYTES + 10);
        assert!(line.ends_with(b"... (cut)\n"));
    }
}
