//! Reads the catalogue's files and refuses whatever is not complete and consistent.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{CardSetting, Catalogue, Class, Evidence, Inquiry, Kind, Need, Profile, Rule, Severity, Tunable};

const FILES: &[(&str, &str)] = &[
    ("memory", include_str!("memory.toml")),
    ("network", include_str!("network.toml")),
    ("nic", include_str!("nic.toml")),
    ("block", include_str!("block.toml")),
    ("process", include_str!("process.toml")),
    ("cpu", include_str!("cpu.toml")),
];

const PROFILES: &[(&str, &str)] = &[
    ("latency", include_str!("../profiles/latency.toml")),
    ("throughput", include_str!("../profiles/throughput.toml")),
    ("dev-vm", include_str!("../profiles/dev-vm.toml")),
];

/// Evidence that exists as files below `tuning/evidence/`.
const EVIDENCE: &str = include_str!("../evidence/index.toml");

const PLACEHOLDERS: &[&str] = &["disk", "volume", "nic", "rx", "tx", "irq", "cpu"];

/// Why a name or a catalogue was refused.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// No entry has this id.
    #[error("unknown tunable \"{id}\"; valid are: {valid}")]
    UnknownTunable {
        /// What was asked for.
        id: String,
        /// What there is.
        valid: String,
    },
    /// No profile has this name.
    #[error("unknown profile \"{name}\"; valid are: {valid}")]
    UnknownProfile {
        /// What was asked for.
        name: String,
        /// What there is.
        valid: String,
    },
    /// A file is no TOML, or has unknown or missing fields.
    #[error("catalogue file {file}: {problem}")]
    Syntax {
        /// Name of the file.
        file: String,
        /// The parser's words.
        problem: String,
    },
    /// An entry or profile contradicts itself or another.
    #[error("catalogue: {0}")]
    Inconsistent(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tunable: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    kind: Kind,
    path: Option<String>,
    counterpart: Option<String>,
    #[serde(default)]
    moves: Vec<String>,
    setting: Option<CardSetting>,
    inquiry: Option<Inquiry>,
    parameter: Option<String>,
    directive: Option<String>,
    class: Class,
    #[serde(default)]
    severity: Severity,
    default: String,
    #[serde(default)]
    needs: Vec<Need>,
    why: String,
    harmful_when: String,
    #[serde(default)]
    reboot: bool,
    #[serde(default)]
    values: BTreeMap<String, Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceFile {
    #[serde(default)]
    result: Vec<EvidenceEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EvidenceEntry {
    id: String,
    file: String,
    proven: bool,
    summary: String,
}

impl Catalogue {
    /// The catalogue that this program was built with.
    pub fn embedded() -> Result<Catalogue, CatalogueError> {
        Catalogue::parse(FILES, PROFILES, EVIDENCE)
    }

    /// A catalogue from texts: files of entries and of profiles with their names, and the index of evidence.
    pub fn parse(
        files: &[(&'static str, &str)],
        profiles: &[(&str, &str)],
        evidence: &str,
    ) -> Result<Catalogue, CatalogueError> {
        let mut measured: BTreeMap<String, Evidence> = BTreeMap::new();
        for entry in from_toml::<EvidenceFile>("evidence/index", evidence)?.result {
            let (file, result) = (entry.file, entry.summary);
            let value =
                if entry.proven { Evidence::Measured { file, result } } else { Evidence::NoGain { file, result } };
            measured.insert(entry.id, value);
        }
        let mut tunables = Vec::new();
        for (group, text) in files {
            for entry in from_toml::<File>(group, text)?.tunable {
                let evidence = measured.remove(&entry.id);
                tunables.push(tunable(group, entry, evidence));
            }
        }
        if let Some(id) = measured.keys().next() {
            return Err(CatalogueError::Inconsistent(format!("evidence for {id}, which does not exist")));
        }
        let profiles = profiles.iter().map(|(name, text)| profile(name, text)).collect::<Result<_, _>>()?;
        let catalogue = Catalogue { tunables, profiles };
        let problems = catalogue.problems();
        if problems.is_empty() { Ok(catalogue) } else { Err(CatalogueError::Inconsistent(problems.join("; "))) }
    }

    /// Everything that is wrong.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        for tunable in &self.tunables {
            if !seen.insert(tunable.id.as_str()) {
                problems.push(format!("{} appears twice", tunable.id));
            }
            problems.extend(entry_problems(tunable).into_iter().map(|problem| format!("{}: {problem}", tunable.id)));
            for name in tunable.values.keys() {
                match self.profiles.iter().find(|profile| profile.name == *name) {
                    None => problems.push(format!("{}: a value for {name}, which is no profile", tunable.id)),
                    Some(profile) if !self.lists(profile, &tunable.id) => {
                        problems.push(format!("{}: a value for {name}, which does not list it", tunable.id));
                    }
                    Some(_) => {}
                }
            }
        }
        for (index, tunable) in self.tunables.iter().enumerate() {
            let is_moved = |earlier: &&Tunable| tunable.moves.contains(&earlier.path);
            if let Some(earlier) = self.tunables[..=index].iter().find(is_moved) {
                problems.push(format!("{}: it moves {}, which must come behind it", tunable.id, earlier.id));
            }
        }
        for profile in &self.profiles {
            problems.extend(self.profile_problems(profile));
        }
        problems
    }

    fn lists(&self, profile: &Profile, id: &str) -> bool {
        let mut level = Some(profile);
        for _ in 0..=self.profiles.len() {
            let Some(current) = level else { return false };
            if current.tunables.iter().any(|listed| listed == id) {
                return true;
            }
            level = current.inherits.as_ref().and_then(|name| self.profiles.iter().find(|other| other.name == *name));
        }
        false
    }

    fn profile_problems(&self, profile: &Profile) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        let parent = match &profile.inherits {
            None => None,
            Some(name) => match self.profiles.iter().find(|other| other.name == *name) {
                Some(found) if found.inherits.is_none() => Some(found),
                Some(_) => {
                    problems.push(format!("profile {}: inherits {name}, which inherits itself", profile.name));
                    None
                }
                None => {
                    problems.push(format!("profile {}: inherits {name}, which does not exist", profile.name));
                    None
                }
            },
        };
        for id in &profile.tunables {
            if !seen.insert(id) || parent.is_some_and(|parent| parent.tunables.contains(id)) {
                problems.push(format!("profile {}: {id} is listed twice", profile.name));
            }
            match self.tunables.iter().find(|tunable| tunable.id == *id) {
                None => problems.push(format!("profile {}: {id} does not exist", profile.name)),
                Some(tunable) if !tunable.values.contains_key(&profile.name) => {
                    problems.push(format!("profile {}: {id} has no value for it", profile.name));
                }
                Some(_) => {}
            }
        }
        problems
    }
}

fn from_toml<'text, Content: Deserialize<'text>>(file: &str, text: &'text str) -> Result<Content, CatalogueError> {
    toml::from_str(text).map_err(|error| CatalogueError::Syntax { file: file.into(), problem: error.to_string() })
}

fn profile(name: &str, text: &str) -> Result<Profile, CatalogueError> {
    let profile: Profile = from_toml(name, text)?;
    if profile.name == name {
        return Ok(profile);
    }
    Err(CatalogueError::Inconsistent(format!("profile file {name} calls itself {}", profile.name)))
}

fn tunable(group: &'static str, entry: Entry, evidence: Option<Evidence>) -> Tunable {
    let path = match (&entry.path, entry.kind) {
        (Some(path), _) => path.clone(),
        (None, Kind::Sysctl) => format!("/proc/sys/{}", entry.id.replace('.', "/")),
        (None, _) => String::new(),
    };
    let never_written = !entry.values.values().any(Rule::writes) && entry.kind != Kind::Limit;
    let unmeasured = if never_written { Evidence::NothingToProve } else { Evidence::Unproven };
    Tunable {
        id: entry.id,
        group,
        kind: entry.kind,
        path,
        counterpart: entry.counterpart,
        moves: entry.moves,
        setting: entry.setting,
        inquiry: entry.inquiry,
        parameter: entry.parameter,
        directive: entry.directive,
        class: entry.class,
        severity: entry.severity,
        default: entry.default,
        needs: entry.needs,
        why: entry.why,
        harmful_when: entry.harmful_when,
        reboot: entry.reboot,
        evidence: evidence.unwrap_or(unmeasured),
        values: entry.values,
    }
}

fn entry_problems(tunable: &Tunable) -> Vec<String> {
    let mut problems: Vec<String> = Vec::new();
    let mut require = |holds: bool, problem: &str| {
        if !holds {
            problems.push(problem.into());
        }
    };
    let name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    require(tunable.id.contains('.') && tunable.id.bytes().all(name), "the id is not made of words and dots");
    let is_sentence = |text: &str| text.len() > 10 && text.ends_with('.');
    require(is_sentence(&tunable.why), "why is not a sentence");
    require(is_sentence(&tunable.harmful_when), "harmful_when is not a sentence");
    require(!tunable.default.is_empty(), "no default");
    require(tunable.reboot == (tunable.class == Class::Reboot), "reboot and class disagree");

    let has_file = matches!(tunable.kind, Kind::Sysctl | Kind::Sysfs | Kind::Irq);
    require(has_file != tunable.path.is_empty(), "path and kind disagree");
    require(!has_file || tunable.path.starts_with("/proc/") || tunable.path.starts_with("/sys/"), "path elsewhere");
    require(tunable.kind != Kind::Sysctl || tunable.path.starts_with("/proc/sys/"), "a sysctl outside of /proc/sys");
    require(tunable.path.split('/').all(|part| part != ".."), "path goes up");
    let is_moved = |path: &String| path.starts_with("/proc/") || path.starts_with("/sys/");
    require(tunable.moves.iter().all(|path| has_file && is_moved(path)), "moves what is no setting");
    let paths = tunable.path.split('{').skip(1).chain(tunable.moves.iter().flat_map(|path| path.split('{').skip(1)));
    for placeholder in paths.map(|rest| rest.split('}').next().unwrap_or_default()) {
        require(PLACEHOLDERS.contains(&placeholder), "path has an unknown placeholder");
    }
    require(tunable.setting.is_some() == (tunable.kind == Kind::Ethtool), "setting and kind disagree");
    let asks = matches!(tunable.kind, Kind::Inquiry | Kind::Limit);
    require(tunable.inquiry.is_some() == asks, "inquiry and kind disagree");
    require(tunable.parameter.is_some() == (tunable.kind == Kind::Boot), "parameter and kind disagree");
    require(tunable.directive.is_some() == (tunable.kind == Kind::Limit), "directive and kind disagree");
    require(tunable.directive.as_ref().is_none_or(|line| line.contains('=')), "directive is not KEY=VALUE");

    for (profile, rule) in &tunable.values {
        let writable = has_file || tunable.kind == Kind::Ethtool;
        require(writable || !rule.writes(), "a value to write for something that is never written");
        require(tunable.class != Class::DataRisk || !rule.writes(), "a value to write for class data-risk");
        require(profile != "dev-vm" || !rule.writes(), "dev-vm changes nothing");
        require(matches!(rule, Rule::Broker(_)) == (tunable.kind == Kind::Broker), "broker rule and kind disagree");
        require(!matches!(rule, Rule::Report(false) | Rule::Broker(false)), "report and broker are true or absent");
        if let Rule::Set(value) | Rule::Check(value) = rule {
            let text = value.text();
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._+-,:".contains(&byte);
            require(!text.is_empty() && text.bytes().all(plain), "a value with characters that no setting has");
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: &str = r#"
        [[tunable]]
        id = "vm.swappiness"
        kind = "sysctl"
        class = "safe"
        default = "60"
        why = "Keeps pages in memory."
        harmful_when = "Seldom, if ever."
    "#;
    const PROFILE: &str = "name = \"p\"\nsummary = \"s\"\nshard_threads = \"all\"\ntunables = [\"vm.swappiness\"]";

    fn parse(entry: &str, profile: &str) -> Result<Catalogue, String> {
        Catalogue::parse(&[("memory", entry)], &[("p", profile)], "").map_err(|error| error.to_string())
    }

    #[test]
    fn the_embedded_catalogue_is_sound() {
        // Goal: the files in the tree load. Method: load them; each profile has entries and about ninety exist.
        let catalogue = Catalogue::embedded().expect("sound");
        assert!(catalogue.tunables().len() >= 90, "{}", catalogue.tunables().len());
        for profile in catalogue.profiles() {
            assert!(!catalogue.chosen(profile).is_empty(), "{}", profile.name);
        }
        let chosen = |name: &str| catalogue.chosen(catalogue.profile(name).expect("exists")).len();
        assert!(chosen("latency") > chosen("dev-vm"), "latency inherits dev-vm and adds to it");
    }

    #[test]
    fn dev_vm_changes_nothing() {
        // Goal: the profile of test runners only looks. Method: none of its rules writes.
        let catalogue = Catalogue::embedded().expect("sound");
        let profile = catalogue.profile("dev-vm").expect("exists");
        assert!(catalogue.chosen(profile).iter().all(|(_, rule)| !rule.writes()));
    }

    #[test]
    fn unknown_and_missing_fields_are_refused() {
        // Goal: a misspelt field cannot be lost. Method: one more, one less, one wrong value.
        let good = format!("{ENTRY}\nvalues.p = {{ set = 1 }}");
        parse(&good, PROFILE).expect("good");
        for (entry, expected) in [
            (format!("{ENTRY}\nvalue = 1"), "unknown field `value`"),
            (ENTRY.replace("default", "#"), "missing field `default`"),
            (format!("{ENTRY}\nvalues.p = {{ put = 1 }}"), "unknown variant `put`"),
            (ENTRY.replace("\"safe\"", "\"harmless\""), "unknown variant `harmless`"),
        ] {
            let error = parse(&entry, PROFILE).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
        assert!(parse(&good, &format!("{PROFILE}\nmode = 1")).expect_err("refused").contains("unknown field"));
    }

    #[test]
    fn contradictions_are_refused() {
        // Goal: what would be dangerous or lost does not load. Method: one contradiction each.
        let good = format!("{ENTRY}\nvalues.p = {{ set = 1 }}");
        for (entry, expected) in [
            (ENTRY.to_string(), "vm.swappiness has no value for it"),
            (format!("{good}\nvalues.q = {{ set = 1 }}"), "which is no profile"),
            (format!("{good}{good}"), "appears twice"),
            (good.replace("\"safe\"", "\"data-risk\""), "a value to write for class data-risk"),
            (good.replace("\"safe\"", "\"reboot\""), "reboot and class disagree"),
            (good.replace("\"sysctl\"", "\"sysfs\""), "path and kind disagree"),
            (good.replace("class", "path = \"/proc/sys/{disc}\"\nclass"), "unknown placeholder"),
            (good.replace("class", "path = \"/proc/sys/../../etc\"\nclass"), "path goes up"),
            (good.replace("class", "moves = [\"/etc/passwd\"]\nclass"), "moves what is no setting"),
            (good.replace("class", "moves = [\"/sys/{disc}\"]\nclass"), "unknown placeholder"),
            (good.replace("class", "moves = [\"/proc/sys/vm/swappiness\"]\nclass"), "which must come behind it"),
            (good.replace("Keeps pages in memory.", "because"), "why is not a sentence"),
            (good.replace("= 1 ", "= \"$(reboot)\" "), "characters that no setting has"),
        ] {
            let error = parse(&entry, PROFILE).expect_err("refused");
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn unknown_names_list_the_valid_ones() {
        // Goal: rule T5. Method: a misspelt id and profile.
        let catalogue = Catalogue::embedded().expect("sound");
        let valid = |id: &str| match catalogue.tunable(id) {
            Err(CatalogueError::UnknownTunable { valid, .. }) => valid,
            other => panic!("{other:?}"),
        };
        assert_eq!(valid("vm.swapiness"), "vm.swappiness");
        assert_eq!(valid("vm.dirty_bites"), "vm.dirty_bytes");
        assert_eq!(valid("swappiness"), "vm.swappiness");
        assert!(valid("ring").contains("nic.rx_ring") && !valid("ring").contains("vm.swappiness"));
        let all = valid("entirely different").split(", ").count();
        assert_eq!(all, catalogue.tunables().len(), "what resembles nothing gets the whole list");
        let error = catalogue.profile("latncy").expect_err("unknown").to_string();
        assert!(error.contains("latency, throughput, dev-vm"), "{error}");
    }
}
