//! Signals, the limit of open files, and the service manager.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

fn stop_signals() -> libc::sigset_t {
    // SAFETY: sigemptyset initialises the set; sigaddset takes valid signal numbers.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGTERM);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

/// With SIGHUP, unless whoever started the process wants it ignored (`nohup`).
fn awaited_signals() -> libc::sigset_t {
    // SAFETY: the old action is writable, no new one is set, and the set is initialised.
    unsafe {
        let mut set = stop_signals();
        let mut action: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(libc::SIGHUP, std::ptr::null(), &mut action) == 0 && action.sa_sigaction != libc::SIG_IGN {
            libc::sigaddset(&mut set, libc::SIGHUP);
        }
        set
    }
}

/// Blocks SIGTERM, SIGINT and SIGHUP in this thread and all that it starts, so that [`wait`] receives them.
pub fn block() -> io::Result<()> {
    let set = awaited_signals();
    // SAFETY: the set is initialised; the old mask is not wanted.
    match unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Waits for a stop signal or SIGHUP, at most `patience`.
pub fn wait(patience: Duration) -> io::Result<Option<i32>> {
    let set = awaited_signals();
    let timeout = libc::timespec {
        tv_sec: patience.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: patience.subsec_nanos().into(),
    };
    // SAFETY: set and timeout are initialised; no information about the signal is wanted.
    match unsafe { libc::sigtimedwait(&set, std::ptr::null_mut(), &timeout) } {
        signal if signal > 0 => Ok(Some(signal)),
        _ => match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(None),
            error => Err(error),
        },
    }
}

/// Ends the process when a stop signal comes while nobody [`wait`]s: during the start, which may read the log for minutes.
///
/// That is as a kill, which every start can follow: nothing is half done that the next one does not know how to go on with, and
/// the file `abort` stays. From [`StartGuard::disarm`] on signals stay pending for [`wait`].
pub struct StartGuard {
    /// Its end tells the thread to leave.
    armed: UnixStream,
    thread: JoinHandle<()>,
}

impl StartGuard {
    /// Listens from now on; a signal calls `leave` with its number.
    pub fn arm(leave: impl FnOnce(i32) + Send + 'static) -> io::Result<Self> {
        let (armed, ended) = UnixStream::pair()?;
        let set = stop_signals();
        // SAFETY: the set is initialised; a new descriptor or -1 comes back.
        let raw = unsafe { libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: `raw` was just created and is owned by nobody else.
        let signals = unsafe { OwnedFd::from_raw_fd(raw) };
        let thread = std::thread::Builder::new().name("start-guard".to_owned()).spawn(move || {
            let watch = |fd: i32| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
            let mut watched = [watch(ended.as_raw_fd()), watch(signals.as_raw_fd())];
            loop {
                // SAFETY: two initialised entries.
                let count = unsafe { libc::poll(watched.as_mut_ptr(), 2, -1) };
                if count > 0 && watched[0].revents != 0 {
                    return;
                }
                if let Ok(Some(signal)) = wait(Duration::ZERO) {
                    return leave(signal);
                }
            }
        })?;
        Ok(Self { armed, thread })
    }

    /// Ends the watch. Whoever has a signal by then does not come back from here.
    pub fn disarm(self) {
        drop(self.armed);
        if self.thread.join().is_err() {
            tracing::error!("the watch for signals during the start panicked");
        }
    }
}

/// Whether a stop signal has come that nobody has taken with [`wait`] yet.
pub fn is_stop_pending() -> bool {
    // SAFETY: the set is writable for the call, and initialised by it before it is read.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending) == 0
            && [libc::SIGTERM, libc::SIGINT].iter().any(|signal| libc::sigismember(&pending, *signal) == 1)
    }
}

static SECOND_SIGNAL_STATUS: AtomicI32 = AtomicI32::new(0);

extern "C" fn leave(_signal: libc::c_int) {
    // SAFETY: _exit may be called from a signal handler.
    unsafe { libc::_exit(SECOND_SIGNAL_STATUS.load(Ordering::Relaxed)) };
}

/// From now on a further stop signal ends the process at once with `status`.
pub fn exit_on_second_signal(status: i32) {
    SECOND_SIGNAL_STATUS.store(status, Ordering::Relaxed);
    let set = stop_signals();
    // SAFETY: the handler only calls _exit; the set is initialised.
    unsafe {
        libc::signal(libc::SIGTERM, leave as *const () as libc::sighandler_t);
        libc::signal(libc::SIGINT, leave as *const () as libc::sighandler_t);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
    }
}

/// Raises the soft limit of open files to the hard one and gives it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is writable for the call.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is initialised.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Tells the service manager, if there is one (sd_notify).
pub fn notify(state: &str) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(error) = sent {
        tracing::warn!(%error, state, "the service manager could not be told");
    }
}
