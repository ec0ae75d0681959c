//! Pipes that carry pages of files to sockets without copying their bytes.
//!
//! A thread that may block splices ranges of a file into a pipe: it waits for the disk there, and afterwards the pipe refers to
//! resident pages. Whoever gets the filled pipe can send it from a shard: nothing in it can touch the disk any more. The pages
//! stay as they are when the file is removed or its cache is dropped; a writer of the same bytes would be seen, so only bytes
//! that never change again may be put in.
//!
//! A pool belongs to one filling thread and is bounded. An emptied pipe goes back to its pool through a channel, from whatever
//! thread lets go of it; one that still holds something is closed.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

#[derive(Debug)]
struct Pipe {
    read_end: OwnedFd,
    write_end: OwnedFd,
    /// Open pipes of the pool.
    open: Arc<AtomicUsize>,
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The pipes of one filling thread.
#[derive(Debug)]
pub struct PipePool {
    idle: Receiver<Pipe>,
    returns: SyncSender<Pipe>,
    open: Arc<AtomicUsize>,
    most: usize,
    capacity_bytes: usize,
}

impl PipePool {
    /// A pool of at most `most` pipes that hold `capacity_bytes` of whole pages each. Pipes are opened when they are needed.
    pub fn new(most: usize, capacity_bytes: usize) -> Self {
        let (returns, idle) = sync_channel(most.max(1));
        Self { idle, returns, open: Arc::new(AtomicUsize::new(0)), most, capacity_bytes }
    }

    /// An empty pipe. `None` when all are in use, or when the system refuses one of this size (descriptors, or the
    /// `pipe-user-pages-soft` of an ordinary user): then the caller copies.
    pub fn take(&self) -> Option<FilledPipe> {
        let pipe = match self.idle.try_recv() {
            Ok(pipe) => pipe,
            Err(_) => self.open()?,
        };
        Some(FilledPipe { pipe: Some(pipe), returns: self.returns.clone(), length: 0 })
    }

    fn open(&self) -> Option<Pipe> {
        if self.open.load(Ordering::Acquire) >= self.most {
            return None;
        }
        let mut ends = [0; 2];
        // SAFETY: a valid place for two descriptors.
        if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
            return None;
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        // SAFETY: both descriptors were just created and are owned by nobody else.
        let [read_end, write_end] = ends.map(|end| unsafe { OwnedFd::from_raw_fd(end) });
        let pipe = Pipe { read_end, write_end, open: Arc::clone(&self.open) };
        let wanted = i32::try_from(self.capacity_bytes).ok()?;
        // SAFETY: an open pipe and a plain integer.
        let given = unsafe { libc::fcntl(pipe.read_end.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) };
        (given >= wanted).then_some(pipe)
    }

    /// Pipes that exist, idle ones included.
    pub fn open_pipes(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }
}

/// A pipe and what is in it. Owned by one thread at a time.
#[derive(Debug)]
pub struct FilledPipe {
    /// There until the value is dropped.
    pipe: Option<Pipe>,
    returns: SyncSender<Pipe>,
    length: usize,
}

/// What a splice moved; 0 at the end of the file. `WouldBlock` when a pipe is full or a socket takes nothing.
///
/// # Safety
/// `offset` is null or points to a writable offset.
unsafe fn splice(from: RawFd, offset: *mut i64, to: RawFd, length: usize, flags: u32) -> io::Result<usize> {
    loop {
        // SAFETY: plain integers and an offset that the caller vouches for.
        let moved = unsafe { libc::splice(from, offset, to, std::ptr::null_mut(), length, flags) };
        if let Ok(moved) = usize::try_from(moved) {
            return Ok(moved);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl FilledPipe {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn ends(&self) -> io::Result<(RawFd, RawFd)> {
        let pipe = self.pipe.as_ref().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((pipe.read_end.as_raw_fd(), pipe.write_end.as_raw_fd()))
    }

    /// Adds a range of a file; waits for the disk where its pages are not resident. Gives the number of bytes that were added:
    /// fewer when the pipe is full or the file ends.
    pub fn fill(&mut self, file: RawFd, offset: u64, length: usize) -> io::Result<usize> {
        let (_, write_end) = self.ends()?;
        let mut at = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut filled = 0;
        while filled < length {
            // The flag means the pipe's room: reading the file waits all the same.
            // SAFETY: the offset is a local variable.
            match unsafe { splice(file, &raw mut at, write_end, length - filled, libc::SPLICE_F_NONBLOCK) } {
                Ok(0) => break,
                Ok(moved) => {
                    filled += moved;
                    self.length += moved;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// Sends what a non-blocking socket takes now and gives the number of bytes; see [`super::socket::set_nonblocking`].
    /// `more` says that the answer goes on behind this pipe.
    pub fn send(&mut self, socket: RawFd, more: bool) -> io::Result<usize> {
        let (read_end, _) = self.ends()?;
        let flags = libc::SPLICE_F_NONBLOCK | if more { libc::SPLICE_F_MORE } else { 0 };
        let mut sent = 0;
        while self.length > 0 {
            // SAFETY: no offsets.
            match unsafe { splice(read_end, std::ptr::null_mut(), socket, self.length, flags) } {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(moved) => {
                    sent += moved;
                    self.length -= moved.min(self.length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(sent)
    }

    /// Moves what is in it to `out`, by copying. Never waits: the pages are resident.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        let (read_end, _) = self.ends()?;
        let mut filled = out.len();
        out.resize(filled + self.length, 0);
        while self.length > 0 {
            // SAFETY: the range behind `filled` is inside `out`; the pipe holds `length` bytes, so the call does not wait.
            let count = unsafe { libc::read(read_end, out[filled..].as_mut_ptr().cast(), self.length) };
            match usize::try_from(count) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    filled += count;
                    self.length -= count.min(self.length);
                }
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for FilledPipe {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.take()
            && self.length == 0
        {
            // The channel has room for every pipe; when the pool is gone the pipe is closed.
            let _pool_is_gone = self.returns.try_send(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::socket::{send_now, set_nonblocking};
    use super::*;

    fn content(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 31 + index / 4_099) as u8).collect()
    }

    fn file(bytes: &[u8]) -> (tempfile::TempDir, File) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("file");
        File::create(&path).expect("a file").write_all(bytes).expect("written");
        let file = File::open(&path).expect("it exists");
        (directory, file)
    }

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let near = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
        let (far, _) = listener.accept().expect("it connected");
        set_nonblocking(near.as_raw_fd()).expect("an option");
        (near, far)
    }

    #[test]
    fn a_socket_gets_the_bytes_of_the_file() {
        // Goal: ranges with odd ends arrive in order behind the head, also when the peer is slow. Method: several ranges in as
        // many pipes as they need, sent while a thread reads.
        let bytes = content(3 << 20);
        let (_directory, file) = file(&bytes);
        let (near, mut far) = sockets();
        let ranges = [(777, 200_000), (300_001, 1), (400_000, 1_500_000), (2_000_000, 4_096)];
        let mut wanted = b"head".to_vec();
        ranges.iter().for_each(|&(at, length)| wanted.extend_from_slice(&bytes[at..at + length]));
        let expected = wanted.clone();
        let reader = std::thread::spawn(move || {
            let mut got = vec![0; expected.len()];
            far.read_exact(&mut got).expect("all bytes");
            assert!(got == expected, "equal bytes");
        });
        let pool = PipePool::new(16, 256 << 10);
        let mut pipes = vec![pool.take().expect("a pipe")];
        for (at, length) in ranges {
            let mut done = 0;
            while done < length {
                let pipe = pipes.last_mut().expect("one");
                let filled = pipe.fill(file.as_raw_fd(), (at + done) as u64, length - done).expect("a readable file");
                done += filled;
                if done < length {
                    pipes.push(pool.take().expect("a pipe"));
                }
            }
        }
        // What the file was does not matter any more.
        drop((file, _directory));
        assert_eq!(send_now(near.as_raw_fd(), b"head", true).expect("sent"), 4);
        let count = pipes.len();
        for (number, pipe) in pipes.iter_mut().enumerate() {
            while !pipe.is_empty() {
                pipe.send(near.as_raw_fd(), number + 1 < count).expect("the peer reads");
            }
        }
        reader.join().expect("equal");
        drop(pipes);
        assert!(pool.open_pipes() > 1 && pool.open_pipes() == count, "emptied pipes stay open for reuse");
        assert!(pool.take().is_some() && pool.open_pipes() == count);
    }

    #[test]
    fn a_stalled_peer_blocks_nobody() {
        // Goal: sending to a peer that does not read returns, and what is left can be copied out. Method: send until nothing is
        // taken any more, drain, compare.
        let bytes = content(8 << 20);
        let (_directory, file) = file(&bytes);
        let (near, mut far) = sockets();
        let pool = PipePool::new(1, 256 << 10);
        let mut at = 0;
        let mut pipe = pool.take().expect("a pipe");
        loop {
            at += pipe.fill(file.as_raw_fd(), at as u64, 200_000).expect("a readable file");
            pipe.send(near.as_raw_fd(), false).expect("no error");
            if !pipe.is_empty() {
                break;
            }
            assert!(at + 200_000 < bytes.len(), "the socket's buffers are smaller than the file");
        }
        let mut rest = b"kept".to_vec();
        pipe.drain(&mut rest).expect("resident");
        assert!(pipe.is_empty() && pool.take().is_none(), "there is one pipe");
        drop(pipe);
        assert!(pool.take().is_some());
        drop(near);
        let mut got = Vec::new();
        far.read_to_end(&mut got).expect("what was sent");
        got.extend_from_slice(&rest[4..]);
        assert!(rest.starts_with(b"kept") && got == bytes[..at], "equal bytes");
    }

    #[test]
    fn a_pool_is_bounded() {
        // Goal: no more pipes than allowed; one that is dropped with bytes in it is closed. Method: take two of two, drop.
        let (_directory, file) = file(&content(100));
        let pool = PipePool::new(2, 64 << 10);
        let (mut first, second) = (pool.take().expect("a pipe"), pool.take().expect("a pipe"));
        assert!(pool.take().is_none());
        assert_eq!(first.fill(file.as_raw_fd(), 90, 100).expect("readable"), 10, "the file ends");
        drop(first);
        assert_eq!(pool.open_pipes(), 1);
        drop(second);
        assert_eq!(pool.open_pipes(), 1);
        assert!(pool.take().is_some());
    }
}
