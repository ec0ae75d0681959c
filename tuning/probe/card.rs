//! Settings of network cards through the `SIOCETHTOOL` call of Linux (`linux/ethtool.h`), without the ethtool program.
//!
//! Invariant: a setting is changed by reading its whole structure, changing one field, and writing it back.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::catalogue::CardSetting;

const SIOCETHTOOL: u32 = 0x8946;

const GET_COALESCE: u32 = 0x0e;
const SET_COALESCE: u32 = 0x0f;
const GET_RINGS: u32 = 0x10;
const SET_RINGS: u32 = 0x11;
const GET_PAUSE: u32 = 0x12;
const SET_PAUSE: u32 = 0x13;
const GET_TSO: u32 = 0x1e;
const SET_TSO: u32 = 0x1f;
const GET_GSO: u32 = 0x23;
const SET_GSO: u32 = 0x24;
const GET_FLAGS: u32 = 0x25;
const SET_FLAGS: u32 = 0x26;
const GET_GRO: u32 = 0x2b;
const SET_GRO: u32 = 0x2c;
const GET_CHANNELS: u32 = 0x3c;
const SET_CHANNELS: u32 = 0x3d;
const GET_STRINGS: u32 = 0x1b;
const GET_STRING_COUNTS: u32 = 0x37;
const GET_FEATURES: u32 = 0x3a;
const GET_PERMANENT_ADDRESS: u32 = 0x20;
/// Longest address of a card (`MAX_ADDR_LEN`), and that of Ethernet.
const ADDRESS_BYTES: usize = 32;
const ETHERNET_BYTES: usize = 6;
const GET_EEE: u32 = 0x44;
const SET_EEE: u32 = 0x45;

/// `ETH_FLAG_LRO` and `ETH_FLAG_NTUPLE`.
const FLAG_LRO: u32 = 1 << 15;
const FLAG_NTUPLE: u32 = 1 << 27;

/// The set of names of features (`ETH_SS_FEATURES`), and the bytes of one.
const FEATURE_NAMES: u32 = 4;
const NAME_BYTES: usize = 32;
/// Features that are looked through; kernels have about 70.
const MAX_FEATURES: usize = 256;

/// Words of the largest structure of fixed size, `struct ethtool_coalesce`: a command and 22 numbers.
const MAX_WORDS: usize = 24;

/// Where a setting is in the structure that its commands exchange, in words of 32 bits after the command.
struct Place {
    get: u32,
    set: u32,
    word: usize,
    maximum: Option<usize>,
    meaning: Meaning,
}

enum Meaning {
    Number,
    Switch,
    Flag(u32),
}

fn place(setting: CardSetting) -> Place {
    use Meaning::{Flag, Number, Switch};
    let (get, set, word, maximum, meaning) = match setting {
        // max_rx, max_tx, max_other, max_combined, rx, tx, other, combined
        CardSetting::CombinedChannels => (GET_CHANNELS, SET_CHANNELS, 8, Some(4), Number),
        // rx_max, mini_max, jumbo_max, tx_max, rx, mini, jumbo, tx
        CardSetting::RxRing => (GET_RINGS, SET_RINGS, 5, Some(1), Number),
        CardSetting::TxRing => (GET_RINGS, SET_RINGS, 8, Some(4), Number),
        // rx_usecs, rx_frames, 2 for irq, 4 for tx, statistics, use_adaptive_rx, use_adaptive_tx, and more
        CardSetting::RxUsecs => (GET_COALESCE, SET_COALESCE, 1, None, Number),
        CardSetting::AdaptiveRx => (GET_COALESCE, SET_COALESCE, 10, None, Switch),
        // autoneg, rx, tx
        CardSetting::PauseRx => (GET_PAUSE, SET_PAUSE, 2, None, Switch),
        CardSetting::PauseTx => (GET_PAUSE, SET_PAUSE, 3, None, Switch),
        // supported, advertised, lp_advertised, eee_active, eee_enabled, tx_lpi_enabled, tx_lpi_timer, reserved
        CardSetting::Eee => (GET_EEE, SET_EEE, 5, None, Switch),
        CardSetting::Gro => (GET_GRO, SET_GRO, 1, None, Switch),
        CardSetting::Tso => (GET_TSO, SET_TSO, 1, None, Switch),
        CardSetting::Gso => (GET_GSO, SET_GSO, 1, None, Switch),
        CardSetting::Lro => (GET_FLAGS, SET_FLAGS, 1, None, Flag(FLAG_LRO)),
        CardSetting::Ntuple => (GET_FLAGS, SET_FLAGS, 1, None, Flag(FLAG_NTUPLE)),
    };
    Place { get, set, word, maximum, meaning }
}

/// A setting's value and the greatest one that the card takes, if it says so.
pub fn get(nic: &str, setting: CardSetting) -> io::Result<(String, Option<u64>)> {
    let place = place(setting);
    let mut words = [0; MAX_WORDS];
    exchange(nic, place.get, &mut words)?;
    let switch = |on: bool| String::from(if on { "on" } else { "off" });
    let value = match place.meaning {
        Meaning::Number => words[place.word].to_string(),
        Meaning::Switch => switch(words[place.word] != 0),
        Meaning::Flag(flag) => switch(words[place.word] & flag != 0),
    };
    let maximum = place.maximum.map(|word| u64::from(words[word]));
    if maximum == Some(0) {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    Ok((value, maximum))
}

/// Changes a setting.
pub fn set(nic: &str, setting: CardSetting, value: &str) -> io::Result<()> {
    let place = place(setting);
    let mut words = [0; MAX_WORDS];
    exchange(nic, place.get, &mut words)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidInput, format!("{value} is no value of {}", setting.name()));
    let on = match value {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    };
    let word = &mut words[place.word];
    match place.meaning {
        Meaning::Number => *word = value.parse().map_err(|_| bad())?,
        Meaning::Switch => *word = u32::from(on.ok_or_else(bad)?),
        Meaning::Flag(flag) => *word = if on.ok_or_else(bad)? { *word | flag } else { *word & !flag },
    }
    exchange(nic, place.set, &mut words)
}

/// The address that the card was made with, as `/sys` writes addresses; `None` if it has none, as virtual ones.
pub fn permanent_address(nic: &str) -> Option<String> {
    // Command, size, the address.
    let mut words = [0; 2 + ADDRESS_BYTES / 4];
    words[1] = ADDRESS_BYTES as u32;
    exchange(nic, GET_PERMANENT_ADDRESS, &mut words).ok()?;
    let bytes: Vec<u8> = words[2..].iter().flat_map(|word| word.to_ne_bytes()).take(ETHERNET_BYTES).collect();
    let is_there = words[1] as usize == ETHERNET_BYTES && bytes.iter().any(|byte| *byte != 0);
    is_there.then(|| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
}

/// Whether the driver decided a switch for good. False if that cannot be found out.
pub fn is_fixed(nic: &str, setting: CardSetting) -> bool {
    let name = match setting {
        CardSetting::Gro => "rx-gro",
        CardSetting::Tso => "tx-tcp-segmentation",
        CardSetting::Gso => "tx-generic-segmentation",
        CardSetting::Lro => "rx-lro",
        CardSetting::Ntuple => "rx-ntuple-filter",
        _ => return false,
    };
    matches!(changeable(nic, name), Ok(Some(false)))
}

/// Whether a feature of this name can be changed; `None` if there is none.
fn changeable(nic: &str, name: &str) -> io::Result<Option<bool>> {
    // Command, reserved, 64 bits that choose sets, the count of each chosen one.
    let mut counts = [0; MAX_WORDS];
    counts[2..4].copy_from_slice(&words_of(1 << FEATURE_NAMES));
    exchange(nic, GET_STRING_COUNTS, &mut counts)?;
    let count = counts[4] as usize;
    if count > MAX_FEATURES {
        return Ok(None);
    }
    // Command, set, count, the names.
    let mut names = vec![0; 3 + MAX_FEATURES * NAME_BYTES / 4];
    names[1] = FEATURE_NAMES;
    names[2] = counts[4];
    exchange(nic, GET_STRINGS, &mut names)?;
    let bytes: Vec<u8> = names[3..].iter().flat_map(|word| word.to_ne_bytes()).collect();
    let is_it = |bytes: &[u8]| bytes.split(|byte| *byte == 0).next() == Some(name.as_bytes());
    let Some(index) = bytes.chunks(NAME_BYTES).take(count).position(is_it) else { return Ok(None) };
    // Command, blocks, and per block of 32 features: available, requested, active, never changed.
    let blocks = count.div_ceil(32);
    let mut features = vec![0; 2 + 4 * blocks];
    features[1] = blocks as u32;
    exchange(nic, GET_FEATURES, &mut features)?;
    Ok(Some(features[2 + 4 * (index / 32)] & (1 << (index % 32)) != 0))
}

/// A number of 64 bits as the two words of the machine's order.
fn words_of(number: u64) -> [u32; 2] {
    let bytes = number.to_ne_bytes();
    let word = |start: usize| u32::from_ne_bytes([bytes[start], bytes[start + 1], bytes[start + 2], bytes[start + 3]]);
    [word(0), word(4)]
}

/// One call: command and structure go in, the structure comes back. `words` holds the whole structure, variable parts
/// included.
fn exchange(nic: &str, command: u32, words: &mut [u32]) -> io::Result<()> {
    // SAFETY: plain integers; a descriptor or -1 comes back.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    // SAFETY: ifreq is names, numbers and a pointer, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if nic.len() >= request.ifr_name.len() || nic.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (slot, byte) in request.ifr_name.iter_mut().zip(nic.bytes()) {
        *slot = byte as libc::c_char;
    }
    words[0] = command;
    request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
    // SAFETY: the name ends with zero; the callers make the structure as long as their command's, counts included, and
    // it lives until the call returns.
    if unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// The command of the ethtool program that sets a value, for scripts.
pub fn command(nic: &str, setting: CardSetting, value: &str) -> String {
    match setting {
        CardSetting::CombinedChannels => format!("ethtool -L {nic} combined {value}"),
        CardSetting::RxRing => format!("ethtool -G {nic} rx {value}"),
        CardSetting::TxRing => format!("ethtool -G {nic} tx {value}"),
        CardSetting::AdaptiveRx => format!("ethtool -C {nic} adaptive-rx {value}"),
        CardSetting::RxUsecs => format!("ethtool -C {nic} rx-usecs {value}"),
        CardSetting::PauseRx => format!("ethtool -A {nic} rx {value}"),
        CardSetting::PauseTx => format!("ethtool -A {nic} tx {value}"),
        CardSetting::Eee => format!("ethtool --set-eee {nic} eee {value}"),
        CardSetting::Gro | CardSetting::Tso | CardSetting::Gso | CardSetting::Lro | CardSetting::Ntuple => {
            format!("ethtool -K {nic} {} {value}", setting.name())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_answers() {
        // Goal: the structures have the kernel's layout. Method: read switches of the loopback, which has segmentation
        // offload and no rings, and a card that does not exist.
        let (value, maximum) = get("lo", CardSetting::Gso).expect("every interface has it");
        assert!(value == "on" || value == "off");
        assert_eq!(maximum, None);
        assert!(get("lo", CardSetting::RxRing).is_err());
        assert!(get("no-such-card", CardSetting::Gro).is_err());
        assert_eq!(permanent_address("lo"), None);
    }

    #[test]
    fn features_tell_whether_they_can_be_changed() {
        // Goal: the tables of features are read right. Method: the loopback's offload of segmentation can be switched,
        // filters of connections it does not have, and an unknown name is unknown.
        assert!(!is_fixed("lo", CardSetting::Gso));
        assert!(is_fixed("lo", CardSetting::Ntuple));
        assert!(matches!(changeable("lo", "no-such-feature"), Ok(None)));
    }

    #[test]
    fn a_value_that_is_none_is_refused() {
        // Goal: nothing is sent to the kernel that it might take for something else. Method: a word for a switch.
        let error = set("lo", CardSetting::Gso, "maybe").expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn commands_of_the_program() {
        // Goal: scripts call ethtool the way its manual says. Method: one of each group.
        assert_eq!(command("eth0", CardSetting::RxRing, "1024"), "ethtool -G eth0 rx 1024");
        assert_eq!(command("eth0", CardSetting::Lro, "off"), "ethtool -K eth0 lro off");
        assert_eq!(command("eth0", CardSetting::Eee, "off"), "ethtool --set-eee eth0 eee off");
    }
}
