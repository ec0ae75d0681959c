//! One place of a host that has a value: a file, or a setting of a card. How it is named, read, compared and written.
//!
//! Invariant: a [`Target`] survives [`Target::name`] and [`Target::of_name`] unchanged; journals and scripts rely on it.

use std::io;

use crate::catalogue::CardSetting;
use crate::probe::{Access, System, parse_list, parse_mask};

/// Longest value that is taken for one; the kernel's settings are short.
const MAX_VALUE_BYTES: usize = 1024;

/// Where a value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A file below `/proc` or `/sys`.
    File(String),
    /// A setting of a network card.
    Card(String, CardSetting),
}

impl Target {
    /// A path, or `card:NIC:SETTING`.
    pub fn name(&self) -> String {
        match self {
            Target::File(path) => path.clone(),
            Target::Card(nic, setting) => format!("card:{nic}:{}", setting.name()),
        }
    }

    /// The target of this name. Only paths that this crate writes to are taken.
    pub fn of_name(name: &str) -> Option<Target> {
        if let Some(rest) = name.strip_prefix("card:") {
            let (nic, setting) = rest.rsplit_once(':')?;
            return Some(Target::Card(nic.into(), CardSetting::of_name(setting)?));
        }
        let below = name.starts_with("/proc/") || name.starts_with("/sys/");
        (below && !name.split('/').any(|part| part == "..")).then(|| Target::File(name.into()))
    }

    /// The value: of a file with a choice such as `none [mq-deadline]` the chosen word, else the text without its line
    /// end.
    pub fn read(&self, system: &dyn System) -> io::Result<String> {
        let text = match self {
            Target::File(path) => system.read(path)?,
            Target::Card(nic, setting) => system.card(nic, *setting)?.0,
        };
        let invalid = |problem: &str| Err(io::Error::new(io::ErrorKind::InvalidData, problem.to_string()));
        let value = match choice(&text) {
            Some((chosen, _)) => chosen,
            None => text.trim_end_matches('\n').to_string(),
        };
        if value.is_empty() {
            return invalid("it is empty");
        }
        if value.len() > MAX_VALUE_BYTES || value.contains(['\n', '\\', '\0']) {
            return invalid("its content is no single value");
        }
        Ok(value)
    }

    /// Whether the place is gone: its device was taken away, or its interrupt has another number by now.
    pub fn is_gone(&self, system: &dyn System) -> bool {
        match self {
            Target::File(path) => system.read(path).is_err_and(|error| {
                let code = error.raw_os_error();
                error.kind() == io::ErrorKind::NotFound || matches!(code, Some(libc::ENODEV | libc::ENXIO))
            }),
            Target::Card(nic, _) => !system.exists(&format!("/sys/class/net/{nic}")),
        }
    }

    /// Writes a value.
    pub fn write(&self, system: &dyn System, value: &str) -> io::Result<()> {
        match self {
            Target::File(path) => system.write(path, value),
            Target::Card(nic, setting) => system.set_card(nic, *setting, value),
        }
    }

    /// Whether it could be written.
    pub fn access(&self, system: &dyn System) -> Access {
        match self {
            Target::File(path) => system.access(path),
            Target::Card(nic, setting) if system.card_is_fixed(nic, *setting) => Access::ReadOnly,
            Target::Card(..) => Access::Writable,
        }
    }

    /// Whether two values mean the same here.
    pub fn same(&self, left: &str, right: &str) -> bool {
        if left == right || left.split_whitespace().eq(right.split_whitespace()) {
            return true;
        }
        let Target::File(path) = self else { return false };
        let parse = if path.ends_with("_cpus") {
            parse_mask
        } else if path.ends_with("_list") {
            parse_list
        } else {
            return false;
        };
        parse(left).is_some_and(|cpus| Some(cpus) == parse(right))
    }
}

/// Chosen word and all words of a text such as `none [mq-deadline] kyber`; `None` if it is no such text.
pub fn choice(text: &str) -> Option<(String, Vec<String>)> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let bare = |word: &str| word.trim_start_matches('[').trim_end_matches(']').to_string();
    let chosen = words.iter().find(|word| word.starts_with('[') && word.ends_with(']'))?;
    Some((bare(chosen), words.iter().map(|word| bare(word)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        // Goal: a journal's names lead back to their targets and nowhere else. Method: one of each, and forged ones.
        for target in [Target::File("/proc/sys/vm/swappiness".into()), Target::Card("eth0".into(), CardSetting::RxRing)]
        {
            assert_eq!(Target::of_name(&target.name()), Some(target));
        }
        for name in ["/etc/passwd", "/proc/../etc/passwd", "card:eth0", "card:eth0:colour", ""] {
            assert_eq!(Target::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn values_compare_by_meaning() {
        // Goal: the kernel's way of printing is no difference. Method: blanks, masks, lists, and real differences.
        let file = |path: &str| Target::File(path.into());
        assert!(file("/proc/sys/net/ipv4/tcp_rmem").same("4096\t131072\t1", "4096 131072 1"));
        assert!(file("/sys/x/rps_cpus").same("00000000,0000000f", "f"));
        assert!(file("/proc/irq/1/smp_affinity_list").same("0-1", "0,1"));
        assert!(!file("/proc/sys/vm/x").same("00", "0"));
        assert!(!file("/sys/x/rps_cpus").same("f", "e"));
    }

    #[test]
    fn choices() {
        // Goal: the chosen word is found. Method: texts of the kernel.
        let (chosen, words) = choice("none [mq-deadline] kyber\n").expect("a choice");
        assert_eq!((chosen.as_str(), words.len()), ("mq-deadline", 3));
        assert_eq!(choice("4096 131072"), None);
    }
}
