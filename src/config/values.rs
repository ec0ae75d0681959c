//! Types of values: how their text is checked, brought to one canonical form, and turned into Rust values. Pure.
//!
//! Invariant: text that [`Kind::canonical`] returned is accepted by it again, unchanged.

use std::net::{IpAddr, SocketAddr};

/// The unit in which a duration is written when it has no suffix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// us
    Microseconds,
    /// ms
    Milliseconds,
    /// s
    Seconds,
    /// h
    Hours,
}

impl TimeUnit {
    fn microseconds(self) -> u64 {
        match self {
            TimeUnit::Microseconds => 1,
            TimeUnit::Milliseconds => 1_000,
            TimeUnit::Seconds => 1_000_000,
            TimeUnit::Hours => 3_600_000_000,
        }
    }

    fn name(self) -> &'static str {
        match self {
            TimeUnit::Microseconds => "microseconds",
            TimeUnit::Milliseconds => "milliseconds",
            TimeUnit::Seconds => "seconds",
            TimeUnit::Hours => "hours",
        }
    }
}

/// Type and bounds of a value. Bounds are inclusive.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Integer {
        /// Least.
        min: i64,
        /// Greatest.
        max: i64,
    },
    /// A whole number of `unit`, or a number with a suffix (`us ms s m h d`).
    Duration {
        /// Unit without a suffix.
        unit: TimeUnit,
        /// Least, in `unit`.
        min: u64,
        /// Greatest, in `unit`.
        max: u64,
    },
    /// Bytes, or a number with a suffix (`KiB MiB GiB`, also `k m g`).
    Size {
        /// Least.
        min: u64,
        /// Greatest.
        max: u64,
        /// The value is a multiple of this.
        multiple_of: u64,
    },
    /// As `Size`, or `auto`.
    AutoSize {
        /// Least.
        min: u64,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
    /// Any text of one line.
    Text,
    /// A name that travels in requests: no blanks or control characters, at most 255 bytes.
    Name,
    /// A numeric address without a port.
    Ip,
    /// A numeric address with a port, or `off`.
    OptionalSocket,
    /// `host:port` pairs separated by `;`.
    Addresses,
    /// Processor numbers such as `0,2-3`; empty: all that the process may use.
    Cores,
}

/// Greatest processor number that is accepted: that of Linux's `cpu_set_t`.
const MAX_CORE: usize = 1023;

impl Kind {
    /// Checks a value and returns its canonical text, or what was expected.
    pub fn canonical(self, text: &str) -> Result<String, String> {
        let text = text.trim();
        if text.len() > 4096 || text.chars().any(char::is_control) {
            return Err("expected one line of at most 4096 bytes".into());
        }
        match self {
            Kind::Bool => match text.to_ascii_lowercase().as_str() {
                "true" | "false" => Ok(text.to_ascii_lowercase()),
                _ => Err("expected true or false".into()),
            },
            Kind::Integer { min, max } => {
                let number = text.parse::<i64>().map_err(|_| self.expected())?;
                if number < min || number > max { Err(self.expected()) } else { Ok(number.to_string()) }
            }
            Kind::Duration { unit, min, max } => {
                let number = duration(text, unit).ok_or_else(|| self.expected())?;
                if number < min || number > max { Err(self.expected()) } else { Ok(number.to_string()) }
            }
            Kind::Size { min, max, multiple_of } => {
                let bytes = size(text).ok_or_else(|| self.expected())?;
                let fits = bytes >= min && bytes <= max && bytes.is_multiple_of(multiple_of);
                if fits { Ok(bytes.to_string()) } else { Err(self.expected()) }
            }
            Kind::AutoSize { .. } if text == "auto" => Ok(text.into()),
            Kind::AutoSize { min } => match size(text) {
                Some(bytes) if bytes >= min => Ok(bytes.to_string()),
                _ => Err(self.expected()),
            },
            Kind::Choice(words) => {
                let found = words.iter().find(|word| word.eq_ignore_ascii_case(text));
                found.map(|word| (*word).to_string()).ok_or_else(|| self.expected())
            }
            Kind::Text => Ok(text.into()),
            Kind::Name => {
                let bad = text.len() > 255 || text.chars().any(char::is_whitespace);
                if bad { Err(self.expected()) } else { Ok(text.into()) }
            }
            Kind::Ip => {
                let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
                bare.parse::<IpAddr>().map(|ip| ip.to_string()).map_err(|_| self.expected())
            }
            Kind::OptionalSocket if text == "off" => Ok(text.into()),
            Kind::OptionalSocket => {
                text.parse::<SocketAddr>().map(|address| address.to_string()).map_err(|_| self.expected())
            }
            Kind::Addresses => {
                let list: Vec<&str> = text.split(';').map(str::trim).filter(|part| !part.is_empty()).collect();
                if list.iter().all(|address| is_host_and_port(address)) {
                    Ok(list.join(";"))
                } else {
                    Err(self.expected())
                }
            }
            Kind::Cores => match cores(text) {
                Some(_) => Ok(text.replace(' ', "")),
                None => Err(self.expected()),
            },
        }
    }

    /// What is expected, as a clause.
    pub fn expected(self) -> String {
        format!("expected {}", self.describe())
    }

    /// Type, unit and bounds in words.
    pub fn describe(self) -> String {
        match self {
            Kind::Bool => "true or false".into(),
            Kind::Integer { min, max: i64::MAX } => format!("a whole number, {min} or more"),
            Kind::Integer { min, max } => format!("a whole number from {min} to {max}"),
            Kind::Duration { unit, min, max } => {
                format!("{}, {min} to {max} (or with us, ms, s, m, h, d)", unit.name())
            }
            Kind::Size { min, max, multiple_of: 1 } => {
                format!("bytes, {} to {} (or with KiB, MiB, GiB)", show_size(min), show_size(max))
            }
            Kind::Size { min, max, multiple_of } => format!(
                "bytes, {} to {}, a multiple of {multiple_of} (or with KiB, MiB, GiB)",
                show_size(min),
                show_size(max)
            ),
            Kind::AutoSize { min } => format!("auto, or bytes from {} (or with KiB, MiB, GiB)", show_size(min)),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Text => "text".into(),
            Kind::Name => "a name without blanks, at most 255 bytes".into(),
            Kind::Ip => "a numeric IP address without a port".into(),
            Kind::OptionalSocket => "a numeric address with a port, or off".into(),
            Kind::Addresses => "host:port, several separated by semicolons".into(),
            Kind::Cores => format!("processor numbers up to {MAX_CORE} such as 0,2-3, or nothing for all"),
        }
    }
}

/// Bytes in the largest binary unit that divides them.
pub fn show_size(bytes: u64) -> String {
    for (unit, name) in [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes >= unit && bytes.is_multiple_of(unit) {
            return format!("{} {name}", bytes / unit);
        }
    }
    bytes.to_string()
}

fn split_suffix(text: &str) -> Option<(u64, String)> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().ok()?;
    Some((number, text[end..].trim().to_ascii_lowercase()))
}

/// Bytes of a size such as `64 MiB`; a bare number is bytes.
pub fn size(text: &str) -> Option<u64> {
    let (number, suffix) = split_suffix(text)?;
    let unit: u64 = match suffix.as_str() {
        "" | "b" => 1,
        "k" | "kib" | "kb" => 1 << 10,
        "m" | "mib" | "mb" => 1 << 20,
        "g" | "gib" | "gb" => 1 << 30,
        "t" | "tib" | "tb" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A duration in `unit`; a suffix must give a whole number of them.
fn duration(text: &str, unit: TimeUnit) -> Option<u64> {
    let (number, suffix) = split_suffix(text)?;
    let microseconds: u64 = match suffix.as_str() {
        "" => return Some(number),
        "us" => 1,
        "ms" => 1_000,
        "s" => 1_000_000,
        "m" | "min" => 60_000_000,
        "h" => 3_600_000_000,
        "d" => 86_400_000_000,
        _ => return None,
    };
    let total = number.checked_mul(microseconds)?;
    total.is_multiple_of(unit.microseconds()).then(|| total / unit.microseconds())
}

/// Whether this is `host:port`; the port follows the last colon, as in every address on RocketMQ's wire.
fn is_host_and_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// Processor numbers of a list such as `0,2-3`, ascending and unique.
fn cores(text: &str) -> Option<Vec<usize>> {
    let mut list = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last > MAX_CORE {
            return None;
        }
        list.extend(first..=last);
    }
    list.sort_unstable();
    list.dedup();
    Some(list)
}

/// When log bytes are synced before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlushDiskType {
    /// Answer when the bytes have left the process; sync on a timer.
    AsyncFlush,
    /// Answer when the bytes are synced.
    SyncFlush,
}

/// How log bytes reach the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WritePath {
    /// What measured best for the flush mode.
    Auto,
    /// Through the page cache.
    PageCache,
    /// O_DIRECT.
    Direct,
}

/// Least severe level that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogLevel {
    /// A human must look.
    Error,
    /// Something is odd.
    Warn,
    /// What the server does.
    Info,
    /// How it does it.
    Debug,
    /// Every step.
    Trace,
}

/// A Rust value made from canonical text. `None` only when kind and type of a key do not match, which a test excludes.
pub(super) trait FromText: Sized {
    fn from_text(text: &str) -> Option<Self>;
}

macro_rules! from_text_by_parsing {
    ($($type:ty),+) => {
        $(impl FromText for $type {
            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })+
    };
}

from_text_by_parsing!(bool, i64, u64, u32, u16, String, IpAddr);

impl FromText for FlushDiskType {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "ASYNC_FLUSH" => Some(FlushDiskType::AsyncFlush),
            "SYNC_FLUSH" => Some(FlushDiskType::SyncFlush),
            _ => None,
        }
    }
}

impl FromText for WritePath {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(WritePath::Auto),
            "page_cache" => Some(WritePath::PageCache),
            "direct" => Some(WritePath::Direct),
            _ => None,
        }
    }
}

impl FromText for LogLevel {
    fn from_text(text: &str) -> Option<Self> {
        match text {
            "error" => Some(LogLevel::Error),
            "warn" => Some(LogLevel::Warn),
            "info" => Some(LogLevel::Info),
            "debug" => Some(LogLevel::Debug),
            "trace" => Some(LogLevel::Trace),
            _ => None,
        }
    }
}

/// `auto` is `None`.
impl FromText for Option<u64> {
    fn from_text(text: &str) -> Option<Self> {
        if text == "auto" { Some(None) } else { text.parse().ok().map(Some) }
    }
}

/// `off` is `None`.
impl FromText for Option<SocketAddr> {
    fn from_text(text: &str) -> Option<Self> {
        if text == "off" { Some(None) } else { text.parse().ok().map(Some) }
    }
}

impl FromText for Vec<String> {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.split(';').filter(|part| !part.is_empty()).map(str::to_string).collect())
    }
}

impl FromText for Vec<usize> {
    fn from_text(text: &str) -> Option<Self> {
        cores(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations() {
        // Goal: suffixes mean what they say and nonsense is refused with the bounds. Method: one table of each.
        let bytes = Kind::Size { min: 4096, max: 1 << 31, multiple_of: 4096 };
        for (text, canonical) in [("64 MiB", "67108864"), ("1g", "1073741824"), ("8192", "8192"), ("4KiB", "4096")] {
            assert_eq!(bytes.canonical(text).as_deref(), Ok(canonical), "{text}");
        }
        for text in ["", "MiB", "-1", "4097", "1.5 GiB", "5 parsecs", "99999999999999999999", "4 GiB"] {
            assert_eq!(bytes.canonical(text), Err(bytes.expected()), "{text}");
        }
        assert!(bytes.expected().contains("4 KiB to 2 GiB, a multiple of 4096"));

        let time = Kind::Duration { unit: TimeUnit::Milliseconds, min: 1, max: 60_000 };
        for (text, canonical) in [("500", "500"), ("5s", "5000"), ("1 m", "60000"), ("2000us", "2")] {
            assert_eq!(time.canonical(text).as_deref(), Ok(canonical), "{text}");
        }
        for text in ["0", "61s", "500us", "1 fortnight", "", "-5"] {
            assert_eq!(time.canonical(text), Err(time.expected()), "{text}");
        }
    }

    #[test]
    fn addresses_cores_and_words() {
        // Goal: every other kind accepts its form and only that. Method: examples on both sides.
        assert_eq!(Kind::Addresses.canonical("a:1; [::1]:9876;").as_deref(), Ok("a:1;[::1]:9876"));
        assert!(Kind::Addresses.canonical("localhost").is_err());
        assert!(Kind::Addresses.canonical("a:0").is_err());
        assert_eq!(Kind::Ip.canonical("[::1]").as_deref(), Ok("::1"));
        assert!(Kind::Ip.canonical("127.0.0.1:10911").is_err());
        assert_eq!(Vec::<usize>::from_text("0, 2-3,2"), Some(vec![0, 2, 3]));
        assert_eq!(Vec::<usize>::from_text(""), Some(vec![]));
        assert!(Kind::Cores.canonical("3-1").is_err());
        assert!(Kind::Cores.canonical("0-4000000000").is_err());
        assert_eq!(Kind::Choice(&["SYNC_FLUSH"]).canonical("sync_flush").as_deref(), Ok("SYNC_FLUSH"));
        assert!(Kind::Bool.canonical("yes").is_err());
        assert!(Kind::Name.canonical("two words").is_err());
        assert!(Kind::Text.canonical("two\nlines").is_err());
        assert_eq!(Kind::AutoSize { min: 1 }.canonical("auto").as_deref(), Ok("auto"));
        assert_eq!(Kind::OptionalSocket.canonical("off").as_deref(), Ok("off"));
        assert!(Kind::OptionalSocket.canonical("9874").is_err());
    }
}
