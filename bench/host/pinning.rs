//! Which threads run on which cores.

use std::io;

/// Cores that a set can name.
const MOST_CORES: usize = libc::CPU_SETSIZE as usize;

/// Binds the calling thread to cores.
///
/// # Errors
/// None of them may be used.
pub fn pin_this_thread(cores: &[u32]) -> io::Result<()> {
    pin(0, cores)
}

/// Binds a thread, by its id; 0 is the caller. Does not allocate, so it may be called between fork and exec.
///
/// # Errors
/// None of the cores may be used, or the thread is gone.
pub fn pin(thread: i32, cores: &[u32]) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    for core in cores.iter().filter(|core| (**core as usize) < MOST_CORES) {
        // SAFETY: the index is within the set.
        unsafe { libc::CPU_SET(*core as usize, &mut set) };
    }
    // SAFETY: the set is alive and its size is given.
    let code = unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), &raw const set) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Cores that a process or thread may use; 0 is the caller.
pub fn allowed_cores(thread: i32) -> Vec<u32> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is alive and its size is given.
    let code = unsafe { libc::sched_getaffinity(thread, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if code != 0 {
        return Vec::new();
    }
    // SAFETY: the indexes are within the set.
    (0..MOST_CORES).filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).map(|core| core as u32).collect()
}

/// `0,2-3`.
pub fn format_cores(cores: &[u32]) -> String {
    let mut parts: Vec<(u32, u32)> = Vec::new();
    for &core in cores {
        match parts.last_mut() {
            Some((_, end)) if *end + 1 == core => *end = core,
            _ => parts.push((core, core)),
        }
    }
    let texts: Vec<String> =
        parts.iter().map(|(from, to)| if from == to { from.to_string() } else { format!("{from}-{to}") }).collect();
    texts.join(",")
}

/// Reads `0,2-3`.
pub fn parse_cores(text: &str) -> Option<Vec<u32>> {
    let mut cores = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
        if from > to || to as usize >= MOST_CORES {
            return None;
        }
        cores.extend(from..=to);
    }
    cores.sort_unstable();
    cores.dedup();
    (!cores.is_empty()).then_some(cores)
}

/// Cores that this machine has switched on; if it does not say, those that this process may use.
pub fn online_cores() -> Vec<u32> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    parse_cores(&text).unwrap_or_else(|| allowed_cores(0))
}

/// A core and those that share its execution units with it.
pub fn siblings_of(core: u32) -> Vec<u32> {
    let path = format!("/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list");
    parse_cores(&std::fs::read_to_string(path).unwrap_or_default()).unwrap_or_else(|| vec![core])
}

/// How cores are divided when nothing is asked for: the generator takes the last one, brokers get all others. With one
/// core they share it.
pub fn default_layout(allowed: &[u32]) -> (Option<u32>, Vec<u32>) {
    let generator = allowed.last().copied();
    (generator, generator.map(|core| broker_cores(allowed, core, &siblings_of(core))).unwrap_or_default())
}

/// What brokers get beside a generator that spins: not its core, and not its siblings, if anything else is left.
pub fn broker_cores(allowed: &[u32], generator: u32, siblings: &[u32]) -> Vec<u32> {
    let without =
        |taken: &[u32]| -> Vec<u32> { allowed.iter().copied().filter(|core| !taken.contains(core)).collect() };
    [without(&[&[generator], siblings].concat()), without(&[generator]), allowed.to_vec()]
        .into_iter()
        .find(|cores| !cores.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: lists of cores are read and written the same way. Method: round trips and nonsense.
    #[test]
    fn core_lists() {
        for text in ["0", "0,2-3", "1-7"] {
            assert_eq!(format_cores(&parse_cores(text).unwrap()), text);
        }
        for text in ["", "x", "3-1", "99999", "1-"] {
            assert_eq!(parse_cores(text), None, "{text}");
        }
        assert_eq!(default_layout(&[3]), (Some(3), vec![3]));
        assert_eq!(default_layout(&[]), (None, Vec::new()));
        assert!(online_cores().contains(&allowed_cores(0)[0]));
    }

    /// Goal: brokers get neither the generator's core nor its siblings as long as there are others. Method: layouts with and without
    /// threads that share a core.
    #[test]
    fn siblings_of_the_generator() {
        assert_eq!(broker_cores(&[0, 1], 1, &[1]), [0]);
        assert_eq!(broker_cores(&[0, 1, 2, 3], 3, &[1, 3]), [0, 2]);
        assert_eq!(broker_cores(&[0, 1], 1, &[0, 1]), [0], "a sibling is better than the core itself");
        assert_eq!(broker_cores(&[3], 3, &[3]), [3]);
    }

    /// Goal: pinning does what it says. Method: pin a thread to one allowed core and ask the kernel.
    #[test]
    fn pins() {
        let core = *allowed_cores(0).last().unwrap();
        let seen = std::thread::spawn(move || {
            pin_this_thread(&[core]).unwrap();
            allowed_cores(0)
        });
        assert_eq!(seen.join().unwrap(), [core]);
        assert!(pin_this_thread(&[]).is_err());
    }
}
