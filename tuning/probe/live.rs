//! Questions to the running kernel that no file answers. Nothing here changes anything.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{FromRawFd, OwnedFd};

/// Interfaces and their addresses (`getifaddrs(3)`), those without a subnet of their own included.
pub fn addresses() -> Vec<(String, IpAddr)> {
    let mut first: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: the call stores a list that is freed below, or fails.
    if unsafe { libc::getifaddrs(&raw mut first) } != 0 {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut next = first;
    while !next.is_null() {
        // SAFETY: an entry of the list, which lives until it is freed.
        let entry = unsafe { &*next };
        next = entry.ifa_next;
        if entry.ifa_addr.is_null() || entry.ifa_name.is_null() {
            continue;
        }
        // SAFETY: the kernel says by the family which structure it is; the name ends with a zero byte.
        let (address, name) = unsafe {
            let address = match i32::from((*entry.ifa_addr).sa_family) {
                libc::AF_INET => {
                    let address = &*entry.ifa_addr.cast::<libc::sockaddr_in>();
                    Some(IpAddr::from(Ipv4Addr::from(u32::from_be(address.sin_addr.s_addr))))
                }
                libc::AF_INET6 => {
                    let address = &*entry.ifa_addr.cast::<libc::sockaddr_in6>();
                    Some(IpAddr::from(Ipv6Addr::from(address.sin6_addr.s6_addr)))
                }
                _ => None,
            };
            (address, CStr::from_ptr(entry.ifa_name).to_string_lossy().into_owned())
        };
        // A second address may have a name of its own, such as eth0:1.
        let name = name.split(':').next().unwrap_or_default().to_string();
        found.extend(address.map(|address| (name, address)));
    }
    // SAFETY: the list of above, once.
    unsafe { libc::freeifaddrs(first) };
    found
}

/// Makes the smallest ring and drops it (`io_uring_setup(2)`): only so it shows whether a filter of system calls forbids it.
pub fn try_io_uring() -> io::Result<()> {
    /// `struct io_uring_params`, of which nothing is asked.
    const PARAMETERS_WORDS: usize = 30;
    let mut parameters = [0u32; PARAMETERS_WORDS];
    // SAFETY: the kernel fills the structure, which is 120 bytes long; a descriptor or -1 comes back.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    let Some(ring) = i32::try_from(ring).ok().filter(|ring| *ring >= 0) else {
        return Err(io::Error::last_os_error());
    };
    // SAFETY: the descriptor was just made and nobody else has it.
    drop(unsafe { OwnedFd::from_raw_fd(ring) });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_its_address() {
        // Goal: the list of the kernel is understood. Method: one that every host has.
        let found = addresses();
        assert!(found.contains(&("lo".into(), Ipv4Addr::LOCALHOST.into())), "{found:?}");
    }

    #[test]
    fn a_ring_leaves_nothing_open() {
        // Goal: the question costs no descriptor. Method: ask often; the numbers of new files stay small.
        for _ in 0..2_000 {
            if let Err(error) = try_io_uring() {
                assert!(matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS | libc::ENOMEM)), "{error}");
            }
        }
        let file = std::fs::File::open("/proc/self/status").expect("opens");
        assert!(std::os::fd::AsRawFd::as_raw_fd(&file) < 1_000);
    }
}
