//! Names of index files: the local time of their creation, `yyyyMMddHHmmssSSS`. Source: RocketMQ
//! `UtilAll.timeMillisToHumanString`.

use std::mem::MaybeUninit;

/// Digits of a name.
const NAME_LENGTH: usize = 17;

/// Whether a name is one of an index file.
pub(crate) fn is_index_name(name: &str) -> bool {
    name.len() == NAME_LENGTH && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name for a file that is made at `now_ms`. Names must sort by age, so if the clock was set back (or two files are
/// made within a millisecond) the newest name plus one is taken.
pub(crate) fn next_name(now_ms: u64, newest: Option<&str>) -> String {
    let name = local_time_name(now_ms);
    match newest {
        Some(newest) if name.as_str() <= newest => {
            let number = newest.parse::<u64>().unwrap_or(0);
            format!("{:0width$}", number + 1, width = NAME_LENGTH)
        }
        _ => name,
    }
}

fn local_time_name(now_ms: u64) -> String {
    let seconds = libc::time_t::try_from(now_ms / 1000).unwrap_or(libc::time_t::MAX);
    let mut time = MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid for the call; an all-zero tm is a value that may be read if the call fails.
    let time = unsafe {
        libc::localtime_r(&seconds, time.as_mut_ptr());
        time.assume_init()
    };
    format!(
        "{:04}{:02}{:02}{:02}{:02}{:02}{:03}",
        time.tm_year + 1900,
        time.tm_mon + 1,
        time.tm_mday,
        time.tm_hour,
        time.tm_min,
        time.tm_sec,
        now_ms % 1000
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_age() {
        // Goal: form and order. Method: a known time (any zone differs only in the hours), then a clock set back.
        let name = next_name(1_700_000_000_123, None);
        assert!(is_index_name(&name), "{name}");
        assert!(name.starts_with("202311") && name.ends_with("20123"), "{name}");
        let next = next_name(1_600_000_000_000, Some(&name));
        assert!(is_index_name(&next) && next > name);
        assert!(next_name(1_800_000_000_000, Some(&next)) > next);
    }
}
