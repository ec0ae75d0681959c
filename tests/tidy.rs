//! Reads the source tree and fails when it breaks a rule that the compiler does not know: sizes, the direction of
//! dependencies, leftovers, and bounds without a reason. The rules are those of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a source file.
const LONGEST_FILE: usize = 800;
/// Columns of a line of code. rustfmt breaks at 120 what it can break; literals may be longer.
const LONGEST_LINE: usize = 140;

/// Files that may be longer, up to which length, and why.
const LONG_FILES: &[(&str, usize, &str)] = &[];

/// Text that may not appear in a folder, with the rule. Tests beside the code are free.
const FORBIDDEN: &[(&str, &[&str], &str)] = &[
    (
        "src/protocol",
        &["ringmq_shards", "ringmq::", "glommio", "std::fs", "std::net::Tcp", "std::net::Udp", "std::thread"],
        "the protocol knows bytes and nothing else",
    ),
    ("shards", &["ringmq::", "ringmq_bench", "ringmq_tuning"], "shards depend on the protocol alone"),
    ("src", &["ringmq_bench", "ringmq_tuning", "glommio::"], "the broker depends on protocol and shards"),
    (
        "src/namesrv",
        &[
            "ringmq_shards",
            "crate::cli",
            "crate::server",
            "crate::broker",
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "std::thread",
        ],
        "the name server is a pure state machine",
    ),
    (
        "src/broker",
        &["crate::cli", "crate::server", "crate::namesrv", "std::fs", "std::net::Tcp", "std::net::Udp", "std::thread"],
        "the features of the broker do no input or output",
    ),
    ("src/client", &["crate::server", "crate::broker", "ringmq_shards"], "the client needs the protocol alone"),
    (
        "src/process",
        &["crate::cli", "crate::client", "crate::server", "crate::broker", "crate::namesrv"],
        "all stand on it",
    ),
    ("src/server", &["crate::cli", "crate::client"], "commands start servers, not the other way round"),
    ("src/config", &["crate::cli", "crate::client", "crate::server"], "settings know nothing of who uses them"),
    ("tuning", &["ringmq_protocol", "ringmq_shards", "ringmq::", "ringmq_bench"], "tuning depends on none of ours"),
];

/// Files that a row of [`FORBIDDEN`] does not bind, with the text that they may hold and why.
const EXEMPT: &[(&str, &str, &str)] = &[
    ("src/broker/pull.rs", "crate::server", "the hot path reads the shards' picture of topics and groups"),
    ("src/broker/send.rs", "crate::server", "the hot path reads the shards' picture of topics and groups"),
    ("src/cli/tune.rs", "ringmq_tuning", "the command; the crate knows nothing of the broker"),
];

struct Source {
    /// Path below the root, with `/`.
    path: String,
    text: String,
}

impl Source {
    fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs" || part == "examples")
            || self.path.contains("_tests/")
    }

    /// Lines with their numbers that are not comments, up to the tests at the end of the file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.text.lines().enumerate().map(|(index, line)| (index + 1, line));
        numbered.take_while(|(_, line)| *line != "mod tests {").filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, extensions: &[&str], found: &mut Vec<Source>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("read {}: {error}", folder.display()));
    for entry in entries {
        let path = entry.expect("a folder's entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "target" && name != "ringmq-data" {
                collect(&path, extensions, found);
            }
        } else if path.extension().and_then(|extension| extension.to_str()).is_some_and(|end| extensions.contains(&end))
        {
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
            let below = path.strip_prefix(root()).expect("below the root").to_str().expect("UTF-8").replace('\\', "/");
            found.push(Source { path: below, text });
        }
    }
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for folder in ["src", "shards", "bench", "tuning", "tests"] {
        collect(&root().join(folder), &["rs"], &mut found);
    }
    assert!(found.len() > 100, "the source tree is where it is looked for: {} files", found.len());
    found.sort_by(|left, right| left.path.cmp(&right.path));
    found
}

fn report(rule: &str, offences: &[String]) {
    assert!(offences.is_empty(), "{rule}:\n  {}", offences.join("\n  "));
}

#[test]
fn files_are_short() {
    // Goal: no file grows until nobody reads it whole. Method: count lines; exceptions are listed with a bound.
    let mut offences = Vec::new();
    for source in sources() {
        let lines = source.text.lines().count();
        let exception = LONG_FILES.iter().find(|(path, _, _)| *path == source.path);
        let limit = exception.map_or(LONGEST_FILE, |(_, limit, _)| *limit);
        if lines > limit {
            offences.push(format!("{}: {lines} lines, at most {limit}", source.path));
        }
        if exception.is_some() && lines <= LONGEST_FILE {
            offences.push(format!("{}: {lines} lines; take it out of the exceptions", source.path));
        }
    }
    report("a file is split by subject before it gets too long", &offences);
}

#[test]
fn lines_are_short() {
    // Goal: code fits beside other code. Method: measure what stands before the first quotation mark of a line, since
    // literals cannot be broken.
    let mut offences = Vec::new();
    for source in sources() {
        let mut in_literal = false;
        for (number, line) in source.code() {
            // A literal over several lines begins with `r#"` and ends with `"#`.
            let begins = line.rfind("r#\"");
            let ends = line.rfind("\"#");
            let was_in_literal = in_literal;
            in_literal = match (begins, ends) {
                (Some(begin), Some(end)) => begin > end,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (None, None) => in_literal,
            };
            if was_in_literal {
                continue;
            }
            let code = line.split('"').next().unwrap_or_default();
            if code.chars().count() > LONGEST_LINE {
                offences.push(format!("{}:{number}", source.path));
            }
        }
    }
    report("a line of code has at most 140 columns", &offences);
}

#[test]
fn dependencies_point_one_way() {
    // Goal: protocol <- shards <- ringmq <- bench, tuning apart, pure parts pure. Method: search the code outside of
    // tests for names that must not appear there; and the crates' manifests for each other.
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (folder, words, rule) in FORBIDDEN {
            let inside = source.path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
            let below_other_crate = *folder == "src" && source.path.starts_with("src/protocol/");
            if !inside || below_other_crate {
                continue;
            }
            for (number, line) in source.code() {
                for word in words.iter().filter(|word| line.contains(**word)) {
                    if !EXEMPT.iter().any(|(path, text, _)| *path == source.path && text == word) {
                        offences.push(format!("{}:{number}: {word} ({rule})", source.path));
                    }
                }
            }
        }
        if !source.path.starts_with("shards/runtime/") {
            for (number, _) in source.code().filter(|(_, line)| line.contains("glommio")) {
                offences.push(format!("{}:{number}: glommio (only shards/runtime names it)", source.path));
            }
        }
    }
    for (manifest, others) in [
        ("src/protocol/Cargo.toml", &["ringmq-shards", "ringmq-bench", "ringmq-tuning", "glommio"][..]),
        ("shards/Cargo.toml", &["ringmq-bench", "ringmq-tuning", "ringmq.workspace"]),
        ("tuning/Cargo.toml", &["ringmq-protocol", "ringmq-shards", "ringmq-bench", "ringmq.workspace"]),
        ("Cargo.toml", &["ringmq-bench.workspace", "glommio.workspace"]),
    ] {
        let text = fs::read_to_string(root().join(manifest)).expect("a manifest");
        for other in others.iter().filter(|other| text.contains(**other)) {
            offences.push(format!("{manifest}: {other}"));
        }
    }
    report("dependencies point one way", &offences);
}

#[test]
fn nothing_is_left_over() {
    // Goal: no unfinished code and no path of somebody's machine. Method: search all sources and documents. The words
    // are put together here so that this file does not find itself.
    let leftovers = [["to", "do!("], ["unimplem", "ented!("], ["db", "g!("]].map(|parts| parts.concat());
    let machine_paths = [["/wo", "rk/"], ["/ro", "ot/"]].map(|parts| parts.concat());
    let mut documents = Vec::new();
    collect(&root(), &["rs", "md", "toml"], &mut documents);
    let mut offences = Vec::new();
    for source in &documents {
        for (index, line) in source.text.lines().enumerate() {
            let is_rust = source.path.ends_with(".rs");
            let words = leftovers.iter().filter(|_| is_rust).chain(&machine_paths);
            for word in words.filter(|word| line.contains(word.as_str())) {
                offences.push(format!("{}:{}: {word}", source.path, index + 1));
            }
        }
    }
    report("nothing is left over", &offences);
}

#[test]
fn every_bound_has_a_reason() {
    // Goal: whoever meets a bound learns why it is there. Method: each public constant of a `limits.rs` has a comment
    // directly above it, attributes aside.
    let mut offences = Vec::new();
    for source in sources().iter().filter(|source| source.path.ends_with("/limits.rs")) {
        let mut above = "";
        for (index, line) in source.text.lines().enumerate() {
            let line = line.trim();
            if line.starts_with("pub const ") && !above.starts_with("///") {
                offences.push(format!("{}:{}: {line}", source.path, index + 1));
            }
            if !line.starts_with("#[") {
                above = line;
            }
        }
    }
    report("a bound says why it is what it is", &offences);
}

#[test]
fn every_file_says_what_it_is_for() {
    // Goal: a reader learns a file's purpose from its first line. Method: it is a module comment; tests in folders may
    // go without.
    let silent = sources().into_iter().filter(|source| !source.is_test() && !source.text.starts_with("//!"));
    report("a file opens with what it is for", &silent.map(|source| source.path).collect::<Vec<_>>());
}

#[test]
fn the_readme_names_metrics_that_exist() {
    // Goal: no metric in the README that the page does not have. Method: each name in it, looked up in the table of metrics.
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let (readme, table) = (read("README.md"), read("shards/probe/table.rs"));
    let words = readme.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    let named: Vec<&str> = words.filter(|word| word.starts_with("ringmq_")).collect();
    assert!(!named.is_empty());
    let unknown: Vec<String> = named
        .iter()
        .filter(|name| !table.contains(&format!("\"{name}\"")))
        .map(|name| format!("README.md: {name}"))
        .collect();
    report("metrics that do not exist", &unknown);
}

/// Numbers of a text; `A to B` are all from A to B.
fn numbers(text: &str) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let (mut last, mut is_range) = (None, false);
    for word in text.split(|character: char| !character.is_ascii_alphanumeric() && character != '_') {
        if let Ok(number) = word.parse::<i32>() {
            let first = last.filter(|_| is_range).unwrap_or(number);
            found.extend(first..=number);
            (last, is_range) = (Some(number), false);
        } else if !word.is_empty() {
            is_range = word == "to";
        }
    }
    found
}

#[test]
fn the_readme_says_which_requests_are_served() {
    // Goal: each request of RocketMQ is in the README's table of what is served or in that of what is not, as the tables of handlers
    // have it. Method: the numbers of both tables against the names in the sources; what RocketMQ's servers do not handle is in none.
    const OF_SHARDS: [&str; 5] =
        ["SEND_MESSAGE", "SEND_MESSAGE_V2", "SEND_BATCH_MESSAGE", "PULL_MESSAGE", "LITE_PULL_MESSAGE"];
    let nobodys = numbers("13, 22, 23, 27, 47, 209 to 214, 301, 302");
    let to_clients = numbers("39, 40, 220, 221, 326");
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("it is there");
    let codes = read("src/protocol/codes.rs");
    let requests = codes.split("pub const ALL").next().expect("a part");
    let code = |line: &str| -> Option<(String, i32)> {
        let (name, number) = line.trim().strip_prefix("pub const ")?.strip_suffix(';')?.split_once(": i32 = ")?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let all: BTreeMap<String, i32> = requests.lines().filter_map(code).collect();
    let named = |path: &str, prefix: &str, end: &str| -> BTreeSet<i32> {
        let text = read(path);
        let name = |line: &str| line.trim().strip_prefix(prefix)?.split_once(end).map(|(name, _)| name.to_owned());
        text.lines().filter_map(name).map(|name| all[&name]).collect()
    };
    let mut handled: BTreeSet<i32> = OF_SHARDS.iter().map(|name| all[*name]).collect();
    handled.extend(named("src/broker/dispatch.rs", "(request::", ","));
    handled.extend(named("src/namesrv/mod.rs", "codes::", " =>"));

    let readme = read("README.md");
    let table = |title: &str| -> BTreeSet<i32> {
        let section = readme.split(&format!("\n## {title}\n")).nth(1).expect("a section");
        let section = section.split("\n## ").next().expect("its text");
        section.lines().filter(|line| line.starts_with('|')).flat_map(numbers).collect()
    };
    let (served, missing) = (table("What is served"), table("Not served yet"));
    assert_eq!(served, handled, "what is served");
    assert!(served.is_disjoint(&missing), "{:?}", served.intersection(&missing));
    let expected: BTreeSet<i32> = served.union(&missing).chain(&nobodys).chain(&to_clients).copied().collect();
    assert_eq!(expected, all.values().copied().collect::<BTreeSet<i32>>(), "every request");
}
