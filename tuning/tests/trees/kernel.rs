//! How kernels take writes: the same behaviour for the engine, as a [`System`], and for scripts, as a shadow of bash's
//! `printf`.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;

use ringmq_tuning::catalogue::CardSetting;
use ringmq_tuning::probe::{Access, FolderLock, RootSystem, System};

/// What a file makes of a write.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Shows all words with the chosen one in brackets.
    Choice(Vec<String>),
    /// Sets another file to zero.
    ZeroesOther(String),
    /// Sets another file to this value.
    Moves(String, String),
    /// Sets another file to this value, and shows all words with the chosen one in brackets.
    MovesBesides(String, String, Vec<String>),
    /// The scheduler of the disk with this queue, one of these words: with another one the depth is the default again, and
    /// only mq-deadline has settings of its own, which begin with their defaults.
    Scheduler(String, Vec<String>),
    /// Takes this number at most.
    AtMost(u64),
    /// Keeps this value.
    Ignores(String),
    /// Keeps this value and says so.
    Refuses(String),
    /// While the other file has this word in brackets: keeps this value and says so.
    RefusesWhile(String, String, String),
    /// Of a card, not of a file: it gets queues and interrupts when their number is written. For the engine only.
    Queues,
}

/// A root directory with a kernel's behaviour, which counts its changes and can stop at one of them.
pub struct FakeKernel<'rules> {
    inner: RootSystem,
    rules: &'rules BTreeMap<String, Rule>,
    /// Changes so far.
    pub changes: Cell<usize>,
    /// From this change on nothing happens any more, as after a SIGKILL before it. An append is torn in the middle.
    pub dies_at: Option<usize>,
}

impl<'rules> FakeKernel<'rules> {
    pub fn new(root: &Path, rules: &'rules BTreeMap<String, Rule>) -> FakeKernel<'rules> {
        FakeKernel { inner: RootSystem::new(root).expect("exists"), rules, changes: Cell::new(0), dies_at: None }
    }

    /// Counts a change; `Err` if the process is dead, with whether it died at this very change.
    fn count(&self) -> Result<(), bool> {
        let number = self.changes.get();
        self.changes.set(number + 1);
        match self.dies_at {
            Some(last) if number >= last => Err(number == last),
            _ => Ok(()),
        }
    }
}

impl FakeKernel<'_> {
    /// A driver makes queues and an interrupt for each; what there was stays.
    fn grow(&self, nic: &str, count: usize) -> io::Result<()> {
        let device = self.inner.resolve(&format!("/sys/class/net/{nic}/device")).expect("a device");
        let mut table = String::from("           CPU0\n");
        for queue in 0..count {
            let number = 40 + queue;
            let files = [
                (format!("{device}/net/{nic}/queues/rx-{queue}/rps_cpus"), "0"),
                (format!("{device}/net/{nic}/queues/rx-{queue}/rps_flow_cnt"), "0"),
                (format!("{device}/net/{nic}/queues/tx-{queue}/xps_cpus"), "0"),
                (format!("{device}/msi_irqs/{number}"), "msix"),
                (format!("/proc/irq/{number}/smp_affinity_list"), "0-1"),
            ];
            for (path, value) in files.iter().filter(|(path, _)| !self.inner.exists(path)) {
                self.inner.replace_synced(path, &format!("{value}\n"))?;
            }
            let _ = writeln!(table, " {number}:   1   PCI-MSIX  {queue}-edge  {nic}-TxRx-{queue}");
        }
        self.inner.replace_synced("/proc/interrupts", &table)
    }
}

fn dead() -> io::Error {
    io::Error::other("the process was killed")
}

impl System for FakeKernel<'_> {
    fn read(&self, path: &str) -> io::Result<String> {
        self.inner.read(path)
    }

    fn list(&self, path: &str) -> Vec<String> {
        self.inner.list(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.inner.exists(path)
    }

    fn resolve(&self, path: &str) -> Option<String> {
        self.inner.resolve(path)
    }

    fn access(&self, path: &str) -> Access {
        self.inner.access(path)
    }

    fn card(&self, nic: &str, setting: CardSetting) -> io::Result<(String, Option<u64>)> {
        self.inner.card(nic, setting)
    }

    fn card_is_fixed(&self, nic: &str, setting: CardSetting) -> bool {
        self.inner.card_is_fixed(nic, setting)
    }

    fn free_bytes(&self, directory: &str) -> Option<u64> {
        self.inner.free_bytes(directory)
    }

    fn is_live(&self) -> bool {
        false
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        self.count().map_err(|_| dead())?;
        match self.rules.get(path) {
            None => self.inner.write(path, value),
            Some(Rule::Choice(words)) => self.inner.write(path, &chosen(words, value)),
            Some(Rule::MovesBesides(other, moved, words)) => {
                self.inner.write(other, moved)?;
                self.inner.write(path, &chosen(words, value))
            }
            Some(Rule::Scheduler(queue, words)) => {
                let shown = chosen(words, value);
                if self.inner.read(path)?.trim() != shown {
                    let own = format!("{queue}/iosched");
                    for name in self.inner.list(&own) {
                        self.inner.remove(&format!("{own}/{name}"))?;
                    }
                    for (name, default) in MQ_DEADLINE.iter().filter(|_| value == "mq-deadline") {
                        self.inner.replace_synced(&format!("{own}/{name}"), &format!("{default}\n"))?;
                    }
                    self.inner.write(&format!("{queue}/nr_requests"), "256")?;
                }
                self.inner.write(path, &shown)
            }
            Some(Rule::ZeroesOther(other)) => {
                self.inner.write(other, "0")?;
                self.inner.write(path, value)
            }
            Some(Rule::Moves(other, moved)) => {
                self.inner.write(other, moved)?;
                self.inner.write(path, value)
            }
            Some(Rule::AtMost(most)) => {
                let number: u64 = value.parse().expect("a number");
                self.inner.write(path, &number.min(*most).to_string())
            }
            Some(Rule::Ignores(kept)) => self.inner.write(path, kept),
            Some(Rule::RefusesWhile(other, word, _)) => match self.inner.read(other)?.contains(&format!("[{word}]")) {
                true => Err(io::Error::from_raw_os_error(libc::EINVAL)),
                false => self.inner.write(path, value),
            },
            Some(Rule::Queues) => unreachable!("a card is no file"),
            Some(Rule::Refuses(_)) => Err(io::Error::from_raw_os_error(22)),
        }
    }

    fn set_card(&self, nic: &str, setting: CardSetting, value: &str) -> io::Result<()> {
        self.count().map_err(|_| dead())?;
        if let (CardSetting::CombinedChannels, Some(Rule::Queues)) = (setting, self.rules.get(&format!("card:{nic}"))) {
            self.grow(nic, value.parse().expect("a number"))?;
        }
        self.inner.set_card(nic, setting, value)
    }

    fn append_synced(&self, path: &str, text: &str) -> io::Result<()> {
        match self.count() {
            Ok(()) => self.inner.append_synced(path, text),
            Err(at_this_one) => {
                if at_this_one {
                    self.inner.append_synced(path, &text[..text.len() / 2])?;
                }
                Err(dead())
            }
        }
    }

    fn replace_synced(&self, path: &str, text: &str) -> io::Result<()> {
        self.count().map_err(|_| dead())?;
        self.inner.replace_synced(path, text)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.count().map_err(|_| dead())?;
        self.inner.remove(path)
    }

    fn lock(&self, folder: &str) -> io::Result<FolderLock> {
        self.inner.lock(folder)
    }
}

/// Settings of this scheduler with their defaults.
pub const MQ_DEADLINE: [(&str, u32); 2] = [("fifo_batch", 16), ("read_expire", 500)];

/// All words, the chosen one in brackets.
fn chosen(words: &[String], value: &str) -> String {
    let show = |word: &String| if word == value { format!("[{word}]") } else { word.clone() };
    words.iter().map(show).collect::<Vec<_>>().join(" ")
}

/// The same behaviour for a script: bash reads this first (`BASH_ENV`). The redirection has emptied the file when
/// `printf` is called, so it writes what the kernel would show.
pub fn bash_kernel(root: &Path, rules: &BTreeMap<String, Rule>) -> String {
    let mut cases = String::new();
    for (path, rule) in rules.iter().filter(|(path, _)| path.starts_with('/')) {
        // Redirections follow links; the shadow sees where they lead.
        let real = root.join(path.trim_start_matches('/')).canonicalize().expect("exists");
        let choose = |words: &[String]| {
            format!(
                "for word in {}; do if [ \"$word\" = \"$value\" ]; then out+=\" [$word]\"; else out+=\" $word\"; fi; done; \
                 builtin printf '%s\\n' \"${{out# }}\"",
                words.join(" ")
            )
        };
        let below = |path: &str| root.join(path.trim_start_matches('/')).display().to_string();
        let body = match rule {
            Rule::Choice(words) => choose(words),
            Rule::MovesBesides(other, moved, words) => format!("echo {moved} > '{}'; {}", below(other), choose(words)),
            // By now the file is empty: what it was is known by the settings.
            Rule::Scheduler(queue, words) => {
                let (own, name) = (below(&format!("{queue}/iosched")), MQ_DEADLINE[0].0);
                let make = MQ_DEADLINE.map(|(name, default)| format!("echo {default} > '{own}/{name}'")).join("; ");
                format!(
                    "if [ \"$value\" = mq-deadline ] && [ ! -e '{own}/{name}' ]; then {make}; echo 256 > '{}'; fi; \
                     if [ \"$value\" = none ] && [ -e '{own}/{name}' ]; then rm '{own}'/*; echo 256 > '{}'; fi; {}",
                    below(&format!("{queue}/nr_requests")),
                    below(&format!("{queue}/nr_requests")),
                    choose(words)
                )
            }
            Rule::ZeroesOther(other) => {
                format!("echo 0 > '{}'; echo \"$value\"", root.join(other.trim_start_matches('/')).display())
            }
            Rule::Moves(other, moved) => {
                format!("echo {moved} > '{}'; echo \"$value\"", root.join(other.trim_start_matches('/')).display())
            }
            Rule::AtMost(most) => format!("if [ \"$value\" -gt {most} ]; then echo {most}; else echo \"$value\"; fi"),
            Rule::Ignores(kept) => format!("echo '{kept}'"),
            Rule::Refuses(kept) => format!("echo '{kept}'; return 1"),
            Rule::RefusesWhile(other, word, kept) => format!(
                "if grep -qF '[{word}]' '{}'; then echo '{kept}'; return 1; else echo \"$value\"; fi",
                below(other)
            ),
            Rule::Queues => continue,
        };
        let _ = writeln!(cases, "    '{}') {body} ;;", real.display());
    }
    format!(
        "printf() {{\n  local process=$BASHPID place value word out=''\n  place=$(readlink \"/proc/$process/fd/1\" || true)\n  \
         builtin printf -v value \"$@\"; value=${{value%$'\\n'}}\n  case $place in\n{cases}    *) builtin printf \"$@\" ;;\n  \
         esac\n}}\n"
    )
}
