//! Listening sockets and the options of accepted ones.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Options of a listening socket; accepted ones inherit the buffer sizes, and how a dead peer is found.
#[derive(Debug, Clone, Copy)]
pub struct ListenOptions {
    /// Connections that may wait to be accepted (RocketMQ `serverSocketBacklog`); the system caps it.
    pub backlog: u32,
    /// Bytes of the kernel's send buffer; 0 lets the kernel adapt it (RocketMQ `serverSocketSndBufSize`).
    pub send_buffer_bytes: u32,
    /// Bytes of the kernel's receive buffer; 0 lets the kernel adapt it (RocketMQ `serverSocketRcvBufSize`).
    pub receive_buffer_bytes: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 1024, send_buffer_bytes: 0, receive_buffer_bytes: 0 }
    }
}

/// How long a bind is tried again while the address is in use: after a crash the kernel takes up to some 25 ms to tear
/// down the io_uring that still holds the old listener.
const BIND_PATIENCE: Duration = Duration::from_millis(500);

/// Silence after which a peer is asked whether it is still there, time between questions, and how many of them stay without an
/// answer, in seconds: a client whose machine is gone holds no slot for the two hours that are the kernel's default. There is no
/// `TCP_USER_TIMEOUT` beside it: that would make one lost question the end, and cut off clients that take nothing for a while, whom
/// `serverChannelMaxIdleTimeSeconds` is for.
const KEEPALIVE: [(i32, i32); 3] = [(libc::TCP_KEEPIDLE, 30), (libc::TCP_KEEPINTVL, 10), (libc::TCP_KEEPCNT, 3)];

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn set_option(socket: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the option's value is an i32 that outlives the call.
    check(unsafe { libc::setsockopt(socket, level, name, (&raw const value).cast(), length) }).map(|_| ())
}

/// Opens a listening TCP socket.
pub fn listen(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    let deadline = Instant::now() + BIND_PATIENCE;
    loop {
        match listen_once(address, options) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

fn listen_once(address: SocketAddr, options: ListenOptions) -> io::Result<TcpListener> {
    // The standard library binds and listens with SO_REUSEADDR; a second listen only replaces its backlog of 128.
    let listener = TcpListener::bind(address)?;
    let socket = std::os::fd::AsRawFd::as_raw_fd(&listener);
    let sizes = [(libc::SO_SNDBUF, options.send_buffer_bytes), (libc::SO_RCVBUF, options.receive_buffer_bytes)];
    for (name, bytes) in sizes.into_iter().filter(|(_, bytes)| *bytes > 0) {
        set_option(socket, libc::SOL_SOCKET, name, i32::try_from(bytes).unwrap_or(i32::MAX))?;
    }
    set_option(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    for (name, value) in KEEPALIVE {
        set_option(socket, libc::IPPROTO_TCP, name, value)?;
    }
    let backlog = i32::try_from(options.backlog).unwrap_or(i32::MAX);
    // SAFETY: an open socket and a plain integer.
    check(unsafe { libc::listen(socket, backlog) })?;
    Ok(listener)
}

/// Takes ownership of an accepted descriptor and sets what RocketMQ sets: no delay.
///
/// # Safety
/// `descriptor` comes from an accept completion and is owned by nobody else.
pub unsafe fn adopt(descriptor: RawFd) -> io::Result<(OwnedFd, SocketAddr)> {
    // SAFETY: the caller hands over ownership.
    let socket = unsafe { std::net::TcpStream::from_raw_fd(descriptor) };
    socket.set_nodelay(true)?;
    let peer = socket.peer_addr()?;
    Ok((socket.into(), canonical(peer)))
}

/// An IPv4 address that arrived through an IPv6 socket becomes IPv4 again: records store four bytes for it.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Makes direct calls on a socket return instead of waiting. Operations of the ring are not changed by it.
pub fn set_nonblocking(socket: RawFd) -> io::Result<()> {
    // SAFETY: an open socket and plain integers.
    let flags = check(unsafe { libc::fcntl(socket, libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(socket, libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(|_| ())
}

/// Sends what the socket takes at once, without the ring. `more` says that further bytes follow immediately.
pub fn send_now(socket: RawFd, bytes: &[u8], more: bool) -> io::Result<usize> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT | if more { libc::MSG_MORE } else { 0 };
    // SAFETY: the bytes outlive the call.
    let sent = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Closes both directions so that pending operations end.
pub fn shut_down(socket: RawFd) {
    // SAFETY: an open socket; an error means that it is already closed, which is what we want.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpStream};
    use std::os::fd::{AsRawFd, IntoRawFd};

    use super::*;

    fn option(socket: RawFd, level: i32, name: i32) -> i32 {
        let (mut value, mut length) = (0i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: value and length outlive the call, and the length is that of the value.
        let result = unsafe { libc::getsockopt(socket, level, name, (&raw mut value).cast(), &raw mut length) };
        check(result).expect("an option of TCP");
        value
    }

    #[test]
    fn accepted_sockets_notice_dead_peers() {
        // Goal: every connection has what the catalogue of tunables says that the broker sets. Method: accept one, ask the kernel.
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into(), ListenOptions::default()).expect("listens");
        let _client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
        let accepted = listener.accept().expect("accepts").0.into_raw_fd();
        // SAFETY: just accepted, and owned by nobody else.
        let (socket, _) = unsafe { adopt(accepted) }.expect("adopts");
        let tcp = |name: i32| option(socket.as_raw_fd(), libc::IPPROTO_TCP, name);
        assert_eq!(option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(
            [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT, libc::TCP_USER_TIMEOUT].map(tcp),
            [30, 10, 3, 0]
        );
        assert_ne!(tcp(libc::TCP_NODELAY), 0);
    }
}
